// Rows of single sequences put together to a step of a session: which seat each runs in, and by which rule its tokens
// are drawn. Sequences of one step may be at different places of different schedules.

import {
  predictionStride, rowStride, ruleStride, type NativeSession, type NativeStep, type NativeTransformer, type Sequence,
  type SessionOptions
} from '../machine/native.js'
import type { Plan } from './decoder.js'
import type { Draw } from './sampling.js'

/** How logits become tokens. */
export interface SamplingRule {
  /** 'score' reads the token and writes its log-probability; the others draw it ({@link Draw}). */
  mode: Draw | 'score'
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
  /** [rows]: shares of the guidance (decoder.ts). Absent: all of it. */
  shares?: Float32Array | undefined
  rule: SamplingRule
  /** Places of kept logits, by the tokens that they are for. */
  kept?: ReadonlyMap<number, number> | undefined
}

/** What is known of a sequence beforehand: its text, then the tokens themselves; undefined where nothing is. */
export function behind (
  text: Int32Array | undefined, { prefix, tokens }: Pick<Plan, 'prefix' | 'tokens'>, known: Int32Array | undefined
): Int32Array | undefined {
  if (!text) return known
  const all = new Int32Array(prefix + tokens).fill(-1)
  all.set(text)
  if (known) all.set(known, prefix)
  return all
}

/** Streams of a seat: one more where any sequence is guided. */
export const streamsOf = (guidanceScale: number): 1 | 2 => guidanceScale === 1 ? 1 : 2

/**
 * Memory for the tables of steps, used again by every step that is composed in it: typed arrays of their own cost a
 * step of a small model more than everything else that JavaScript does for it.
 */
export class StepMemory {
  #rows = new Int32Array(0)
  #predictions = new Int32Array(0)
  #scales = new Float32Array(0)
  readonly #rules: SamplingRule[] = []
  #step: NativeStep = { rows: this.#rows, predictions: this.#predictions, rules: new Int32Array(0) }
  readonly #crossLayers: boolean

  /** @param crossLayers the model has some: rows without a slot come behind all others */
  constructor (crossLayers: boolean) {
    this.#crossLayers = crossLayers
  }

  /** {@link composeStep}; the tables are those of this step until the next one is composed. */
  compose (parts: readonly StepPart[], streamsEach: 1 | 2): NativeStep {
    let [conditional, total, queries, guidedQueries] = [0, 0, 0, 0]
    for (const { rows, guidanceScale } of parts) {
      const isGuided = guidanceScale !== 1
      const last = this.#crossLayers ? rows.length / rowStride - withSlots(rows) : 0
      conditional += rows.length / rowStride - last
      total += rows.length * (isGuided ? 2 : 1)
      queries += last
      if (isGuided) guidedQueries += last
    }
    this.#grow(total, (conditional + queries) * predictionStride)
    this.#useRules(parts)
    const [rows, predictions, scales] = [this.#rows, this.#predictions, this.#scales]
    // Where the next row of each kind goes.
    const unconditionalQueries = total / rowStride - guidedQueries
    let [at, unconditional, to] = [0, conditional, 0]
    let [query, unconditionalQuery] = [unconditionalQueries - queries, unconditionalQueries]
    for (const part of parts) {
      const isGuided = part.guidanceScale !== 1
      const stream = part.seat * streamsEach
      const rule = this.#rules.indexOf(part.rule)
      for (let from = 0; from < part.rows.length; from += rowStride) {
        const isQuery = this.#crossLayers && part.rows[from + slotColumn]! < 0
        const row = isQuery ? query++ : at++
        const other = !isGuided ? -1 : isQuery ? unconditionalQuery++ : unconditional++
        for (let i = 1; i < rowStride; i++) rows[row * rowStride + i] = part.rows[from + i]!
        rows[row * rowStride] = stream
        if (isGuided) {
          for (let i = 1; i < rowStride; i++) rows[other * rowStride + i] = part.rows[from + i]!
          rows[other * rowStride] = stream + 1
        }
        const token = part.rows[from]!
        if (token < 0) continue
        predictions[to] = row
        predictions[to + 1] = other
        predictions[to + 2] = token
        predictions[to + 3] = rule
        predictions[to + 4] = part.kept?.get(token) ?? -1
        scales[to + 5] = part.shares
          ? 1 + part.shares[from / rowStride]! * (part.guidanceScale - 1)
          : part.guidanceScale
        to += predictionStride
      }
    }
    if (this.#step.rows.length !== total) this.#step.rows = rows.subarray(0, total)
    if (this.#step.predictions.length !== to) this.#step.predictions = predictions.subarray(0, to)
    return this.#step
  }

  #grow (rows: number, predictions: number): void {
    if (this.#rows.length < rows) this.#step.rows = this.#rows = new Int32Array(rows)
    if (this.#predictions.length >= predictions) return
    this.#step.predictions = this.#predictions = new Int32Array(predictions)
    this.#scales = new Float32Array(this.#predictions.buffer)
  }

  /** The rules of all parts, each once; packed again where they are others than before. */
  #useRules (parts: readonly StepPart[]): void {
    if (this.#rules.length === 1 && parts.every(({ rule }) => rule === this.#rules[0])) return
    this.#rules.splice(0, Infinity, ...new Set(parts.map(({ rule }) => rule)))
    this.#step.rules = packRules(this.#rules)
  }
}

/**
 * The tables of a step. Conditional rows of all parts come first, then the unconditional ones, so that logits of all
 * rows are products in the order of the rows.
 */
export function composeStep (parts: readonly StepPart[], streamsEach: 1 | 2, crossLayers = false): NativeStep {
  return new StepMemory(crossLayers).compose(parts, streamsEach)
}

/** Place of a row's slot in its numbers. */
const slotColumn = 6

/** Rows with a slot; they come before those without one. */
export function withSlots (rows: Int32Array): number {
  let count = 0
  while (count * rowStride < rows.length && rows[count * rowStride + slotColumn]! >= 0) count++
  return count
}

/** In the order of include/parvis/rule.h. */
const modes = ['inverse', 'score', 'gumbel'] as const

export function packRules (rules: readonly SamplingRule[]): Int32Array {
  const ints = new Int32Array(rules.length * ruleStride)
  const floats = new Float32Array(ints.buffer)
  rules.forEach(({ mode, temperature, topK, topP }, i) => {
    ints[i * ruleStride] = modes.indexOf(mode)
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
export async function stepDone (session: NativeSession, step: Promise<number[]>): Promise<void> {
  const [failed] = await step
  if (failed !== undefined) await session.readTokens(failed) // rejects with the reason
}
