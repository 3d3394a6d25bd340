// ARPG (Li et al. 2025, 2503.10568): content rows run through self-attention layers and fill one shared cache; queries,
// one for each cell that is drawn, run through cross-attention layers over that cache and do not see each other. So any
// order of the cells and any grouping is legal.

import { invalid } from '../base/validate.js'
import { classInput } from '../machine/native.js'
import type { Decoder } from './decoder.js'
import { arpgGroupSizes } from './group-sizes.js'
import { checkMethod } from './options.js'
import { checkGroupSizes, parallelPlan, queryInput, type Grid } from './parallel.js'
import { randomOrder } from './token-order.js'

/**
 * @param firstCell of a model that was trained so: every order that is drawn begins with it, and the first step draws
 * it alone. A query knows its place only relative to the tokens that are known, and the class has none: once a cell is
 * known that is always the same, the model can tell all places.
 */
export function arpgDecoder (grid: Grid, defaultSteps: number, firstCell?: number): Decoder {
  const tokens = grid[0] * grid[1]
  return {
    method: 'arpg',
    plan (options) {
      checkMethod('arpg', options)
      const { steps = Math.min(defaultSteps, tokens), groupSizes, stepSchedule = 'arccos', guidanceSchedule } = options
      if (steps < 1 || steps > tokens) throw invalid(`steps must be from 1 to ${tokens} for this model, not ${steps}`)
      return parallelPlan({
        grid, guidanceSchedule,
        groupSizes: groupSizes
          ? checkGroupSizes(groupSizes, tokens)
          : firstCell === undefined || steps === 1
            ? arpgGroupSizes(tokens, steps, stepSchedule)
            : [1, ...arpgGroupSizes(tokens - 1, steps - 1, stepSchedule)],
        slots: tokens + 1,
        orderOf: seed => beginningWith(firstCell, randomOrder(tokens, seed)),
        write (rows, { done, size, before, first }) {
          if (first) rows.add({ input: classInput, slot: 0, sees: 1 })
          for (let k = done - before; k < done; k++) {
            rows.add({ input: k, cell: rows.order[k]!, slot: 1 + k, sees: first ? 2 + k : 1 + done })
          }
          // Guidance counts the tokens of this step too.
          for (let k = done; k < done + size; k++) {
            rows.add({
              predicts: k, input: queryInput, cell: rows.order[k]!, slot: -1, sees: 1 + done,
              share: (done + size) / tokens
            })
          }
        }
      })
    }
  }
}

/** The order with one cell moved to its front. */
function beginningWith (cell: number | undefined, order: Int32Array): Int32Array {
  if (cell === undefined) return order
  const at = order.indexOf(cell)
  order.copyWithin(1, 0, at)
  order[0] = cell
  return order
}
