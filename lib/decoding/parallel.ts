// What ARPG, LPD and RandAR have in common: an order of the cells for each picture, groups of tokens, and rows that
// both give the engine.

import { invalid } from '../base/validate.js'
import { rowStride } from '../machine/native.js'
import type { PicturePlan, Plan, PlannedStep } from './decoder.js'
import type { GuidanceSchedule } from './options.js'
import { nearestKnown } from './preview.js'
import { permute } from './schedule.js'

export type Grid = readonly [rows: number, columns: number]

/** Special vector 1, which queries read; the class is -1 (include/parvis/step.h). */
export const queryInput = -2

/** The sizes of a caller. @throws ParError `INVALID_OPTION` */
export function checkGroupSizes (sizes: readonly number[], tokens: number): number[] {
  const sum = sizes.reduce((total, size) => total + size, 0)
  if (sum !== tokens) {
    throw invalid(`groupSizes add up to ${sum}; a picture of this model has ${tokens} tokens`)
  }
  return [...sizes]
}

/** Writes the rows of one step. */
export class RowWriter {
  readonly #rows: number[] = []
  readonly #shares: number[] = []

  constructor (readonly order: Int32Array, readonly columns: number, readonly schedule: GuidanceSchedule) {}

  /**
   * @param cell raster cell that rotates queries and keys; -1: they become zero
   * @param share of guidance, where the row predicts
   */
  add (row: {
    predicts?: number, input: number, position?: number, cell?: number, slot: number, sees: number, share?: number
  }): void {
    const { predicts = -1, input, position = -1, cell = -1, slot, sees, share = 1 } = row
    const rotated = cell < 0 ? [-1, -1, -1] : [0, Math.floor(cell / this.columns), cell % this.columns]
    this.#rows.push(predicts, input, position, ...rotated, slot, sees)
    this.#shares.push(share)
  }

  step (): PlannedStep {
    const rows = Int32Array.from(this.#rows)
    const shares = this.schedule === 'constant' ? undefined : Float32Array.from(this.#shares)
    this.#rows.length = this.#shares.length = 0
    return { rows, shares }
  }
}

/** What a method writes for one picture. */
export interface ParallelMethod {
  grid: Grid
  groupSizes: readonly number[]
  slots: number
  guidanceSchedule: GuidanceSchedule | undefined
  /**
   * [tokens], raster cells in generation order.
   * @param keep where some cells are known beforehand: 1 for those. They are put first, whatever the order.
   */
  orderOf: (seed: number, keep?: Uint8Array) => Int32Array
  write: (rows: RowWriter, step: ParallelStep) => void
}

/** A step that draws `size` tokens, of a picture of which the first `done` tokens are known. */
export interface ParallelStep {
  done: number
  size: number
  /** So many of them, the last ones, are in no row yet. */
  before: number
  /**
   * The first step: the class is in no row yet, and tokens that are known were known beforehand. They enter as if they
   * had been drawn one at a time: each sees those before it.
   */
  first: boolean
}

/**
 * @param keep raster order: 1 where a cell is known beforehand. The schedule is continued from where that many tokens
 * are known.
 */
export function parallelPlan (method: ParallelMethod, keep?: Uint8Array): Plan {
  const { grid: [rows, columns], slots, guidanceSchedule = 'linear' } = method
  const tokens = rows * columns
  const known = keep === undefined ? 0 : keep.reduce((sum, kept) => sum + kept, 0)
  const tokensAfter = new Int32Array(method.groupSizes.length)
  method.groupSizes.reduce((done, size, step) => (tokensAfter[step] = done + size), 0)
  const ends = tokensAfter.filter(after => after > known)
  const stepsOf = (order: Int32Array): PlannedStep[] => {
    const writer = new RowWriter(order, columns, guidanceSchedule)
    return Array.from(ends, (end, step) => {
      const done = ends[step - 1] ?? known
      const entered = step === 0 ? 0 : ends[step - 2] ?? known
      method.write(writer, { done, size: end - done, before: done - entered, first: step === 0 })
      return writer.step()
    })
  }
  const picture = (order: Int32Array): PicturePlan => {
    const steps = stepsOf(order)
    const sequence = new Int32Array(tokens)
    order.forEach((cell, index) => { sequence[cell] = index })
    const toRaster = <T extends Int32Array | Float32Array>(values: T): T => permute(values, sequence)
    return {
      steps,
      cells: order,
      fullTables: () => steps,
      toRaster,
      toSequence: values => permute(values, order),
      preview: (tokensSoFar, known) =>
        nearestKnown({ frames: 1, rows, columns }, known === 0
          ? new Int32Array(tokens).fill(-1)
          : toRaster(tokensSoFar.map((token, index) => index < known ? token : -1)))
    }
  }
  const maxRows = stepsOf(Int32Array.from({ length: tokens }, (_, cell) => cell))
    .reduce((max, { rows: table }) => Math.max(max, table.length / rowStride), 0)
  return {
    tokens,
    prefix: 0,
    slots,
    maxRows,
    tokensAfter: ends,
    picture: (seed, order = method.orderOf(seed, keep)) => picture(keep ? knownFirst(order, keep) : order),
    completing: keep => parallelPlan(method, keep)
  }
}

/** An order with the cells in front that are known beforehand. */
function knownFirst (order: Int32Array, keep: Uint8Array): Int32Array {
  const known = order.filter(cell => keep[cell] === 1)
  const result = new Int32Array(order.length)
  result.set(known)
  result.set(order.filter(cell => keep[cell] !== 1), known.length)
  return result
}
