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
  /** [tokens], raster cells in generation order. */
  orderOf: (seed: number) => Int32Array
  /**
   * The rows of step `step`, which draws `size` tokens, `done` of the picture's being known, of which `before` were
   * drawn by the step before.
   */
  write: (rows: RowWriter, step: { done: number, size: number, before: number }) => void
}

export function parallelPlan (method: ParallelMethod): Plan {
  const { groupSizes, grid: [rows, columns], slots, guidanceSchedule = 'linear' } = method
  const tokens = rows * columns
  const tokensAfter = new Int32Array(groupSizes.length)
  groupSizes.reduce((done, size, step) => (tokensAfter[step] = done + size), 0)
  const stepsOf = (order: Int32Array): PlannedStep[] => {
    const writer = new RowWriter(order, columns, guidanceSchedule)
    return groupSizes.map((size, step) => {
      method.write(writer, { done: tokensAfter[step]! - size, size, before: step > 0 ? groupSizes[step - 1]! : 0 })
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
  return { tokens, slots, maxRows, tokensAfter, picture: (seed, order) => picture(order ?? method.orderOf(seed)) }
}
