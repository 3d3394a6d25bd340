// Rows of single sequences put together to a step of a session: which seat each runs in, and by which rule its tokens
// are drawn. Sequences of one step may be at different places of different schedules.

import {
  predictionStride, rowStride, ruleStride, type NativeSession, type NativeStep, type NativeTransformer, type Sequence,
  type SessionOptions
} from '../machine/native.js'

/** How logits become tokens. */
export interface SamplingRule {
  /** 'sample' draws the token; 'score' reads it and writes its log-probability. */
  mode: 'sample' | 'score'
  /** 0: the likeliest token. */
  temperature: number
  /** 0: off. */
  topK: number
  /** 1: off. */
  topP: number
}

/** What one sequence does in a step. */
export interface StepPart {
  seat: number
  /** [rows, rowStride]: rows of a schedule (schedule.ts). */
  rows: Int32Array
  /** 1: the seat's unconditional stream does not run. */
  guidanceScale: number
  rule: SamplingRule
  /** Places of kept logits, by the tokens that they are for. */
  kept?: ReadonlyMap<number, number> | undefined
}

/** Streams of a seat: one more where any sequence is guided. */
export const streamsOf = (guidanceScale: number): 1 | 2 => guidanceScale === 1 ? 1 : 2

/**
 * The tables of a step. Conditional rows of all parts come first, then the unconditional ones, so that logits of all
 * rows are products in the order of the rows.
 */
export function composeStep (parts: readonly StepPart[], streamsEach: 1 | 2): NativeStep {
  const guided = parts.filter(({ guidanceScale }) => guidanceScale !== 1)
  const count = (of: readonly StepPart[]): number => of.reduce((sum, { rows }) => sum + rows.length, 0)
  const conditional = count(parts) / rowStride
  const rows = new Int32Array(count(parts) + count(guided))
  const predictions = new Int32Array(conditional * predictionStride)
  const scales = new Float32Array(predictions.buffer)
  const rules = new Map<SamplingRule, number>()
  let [at, unconditional, predicted] = [0, conditional, 0]
  for (const part of parts) {
    const isGuided = part.guidanceScale !== 1
    const rule = rules.get(part.rule) ?? rules.size
    rules.set(part.rule, rule)
    copyRows(part, 0, at)
    if (isGuided) copyRows(part, 1, unconditional)
    for (let from = 0; from < part.rows.length; from += rowStride, at++) {
      const token = part.rows[from]!
      if (token >= 0) {
        const to = predicted++ * predictionStride
        predictions[to] = at
        predictions[to + 1] = isGuided ? unconditional : -1
        predictions[to + 2] = token
        predictions[to + 3] = rule
        predictions[to + 4] = part.kept?.get(token) ?? -1
        scales[to + 5] = part.guidanceScale
      }
      if (isGuided) unconditional++
    }
  }
  return {
    rows, predictions: predictions.subarray(0, predicted * predictionStride), rules: packRules([...rules.keys()])
  }

  function copyRows (part: StepPart, stream: number, to: number): void {
    rows.set(part.rows, to * rowStride)
    const end = to * rowStride + part.rows.length
    for (let i = to * rowStride; i < end; i += rowStride) rows[i] = part.seat * streamsEach + stream
  }
}

function packRules (rules: readonly SamplingRule[]): Int32Array {
  const ints = new Int32Array(rules.length * ruleStride)
  const floats = new Float32Array(ints.buffer)
  rules.forEach(({ mode, temperature, topK, topP }, i) => {
    ints[i * ruleStride] = mode === 'sample' ? 0 : 1
    floats[i * ruleStride + 1] = temperature
    ints[i * ruleStride + 2] = topK
    floats[i * ruleStride + 3] = topP
  })
  return ints
}

/** A session with a sequence in each seat. */
export async function seatedSession (
  transformer: NativeTransformer, shape: Omit<SessionOptions, 'seats'>, sequences: readonly Sequence[]
): Promise<NativeSession> {
  const session = await transformer.createSession({ ...shape, seats: sequences.length })
  try {
    await Promise.all(sequences.map(async (sequence, seat) => { await session.enter(seat, sequence) }))
    return session
  } catch (error) {
    void session.dispose()
    throw error
  }
}

/** Waits for a step. @throws the error of a seat whose logits were not finite */
export async function stepDone (session: NativeSession, step: Promise<Int32Array>): Promise<void> {
  const [failed] = await step
  if (failed !== undefined) await session.readTokens(failed) // rejects with the reason
}
