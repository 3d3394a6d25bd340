// How tokens are drawn from logits, as callers, files and presets say it.

/**
 * How a token is drawn from the probabilities. `inverse`: one random number into their sums. `gumbel`: the token of the
 * largest log-probability plus a Gumbel number of its own (an exponential race); the same distribution.
 */
export type Draw = 'inverse' | 'gumbel'

/** Names of {@link Draw}. */
export const draws = ['inverse', 'gumbel'] as const

/** Sampling with every default filled in. */
export interface Sampling {
  /** 1: off. */
  guidanceScale: number
  /** 0: the likeliest token. */
  temperature: number
  /** 0: off. */
  topK: number
  /** 1: off. */
  topP: number
  /** Absent: `inverse`. */
  draw?: Draw | undefined
}
