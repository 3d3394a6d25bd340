// Passes in place of steps (Jacobi decoding). A draw depends on the seed, the token's index and the logits alone, so a
// token is a function of the tokens before it. A pass runs the next steps of a picture at once, the later ones on
// guesses of what the earlier ones will draw; the backend keeps what turns out to be what the steps would have drawn
// one after another (common/passes.h). So a picture does not depend on how many steps a pass holds, to the bit.

import { rowStride, type NativePlan } from '../machine/native.js'
import type { PicturePlan } from './decoder.js'
import { packRules, type SamplingRule } from './step.js'

/** Max steps that a pass holds, or `auto`: as many as are worth it (lookahead.ts). 1: sequential. */
export type Passes = 'auto' | number

/** All steps of one sequence, as a session is told. */
export type PassPlan = NativePlan

type Tables = Pick<NativePlan, 'rows' | 'ends' | 'shares'>

/** Of pictures, which may be those of many calls. */
const tables = new WeakMap<PicturePlan, Tables>()

function tablesOf (picture: PicturePlan): Tables {
  const known = tables.get(picture)
  if (known) return known
  const { steps } = picture
  const ends = new Int32Array(steps.length)
  steps.reduce((sum, { rows }, step) => (ends[step] = sum + rows.length / rowStride), 0)
  const count = ends.at(-1) ?? 0
  const rows = new Int32Array(count * rowStride)
  const shares = steps.some(step => step.shares) ? new Float32Array(count).fill(1) : undefined
  for (const [step, { rows: table, shares: own }] of steps.entries()) {
    const from = step === 0 ? 0 : ends[step - 1]!
    rows.set(table, from * rowStride)
    if (own) shares!.set(own, from)
  }
  const made = { rows, ends, shares }
  tables.set(picture, made)
  return made
}

/** @param guesses of {@link neighbours}; absent where nothing is guessed */
export function passPlan (
  picture: PicturePlan, rule: SamplingRule, guidanceScale: number, guesses?: Int32Array
): PassPlan {
  return { ...tablesOf(picture), guesses, rule: packRules([rule]), guidanceScale }
}

/**
 * Which token is the first guess of each: that of a neighbour which comes before it in the sequence, above it, else
 * left of it, else in the frame before. Above comes first because it is more often known already (docs/passes.md).
 * [prefix + tokens] indices of the sequence; -1: none.
 * @param grid frames, rows and columns of a picture or video
 */
export function neighbours (
  { cells }: Pick<PicturePlan, 'cells'>, [, rows, columns]: readonly [frames: number, rows: number, columns: number],
  prefix: number
): Int32Array {
  const place = new Int32Array(cells.length)
  cells.forEach((cell, index) => { place[cell] = index })
  const guesses = new Int32Array(prefix + cells.length).fill(-1)
  for (const [index, cell] of cells.entries()) {
    const column = cell % columns
    const row = Math.floor(cell / columns) % rows
    const near = [row > 0 ? cell - columns : -1, column > 0 ? cell - 1 : -1, cell - rows * columns]
    const found = near.find(other => other >= 0 && place[other]! < index)
    if (found !== undefined) guesses[prefix + index] = prefix + place[found]!
  }
  return guesses
}
