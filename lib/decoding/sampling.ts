// How tokens are drawn from logits, as callers, files and presets say it.

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
}
