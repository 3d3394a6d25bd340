// LPD (Zhang et al. 2025, 2507.01957): queries, one for each cell that is drawn, see each other and everything known.
// Each stands in the slot that its token takes in the next step, so nothing of a query stays.

import { invalid } from '../base/validate.js'
import { classInput } from '../machine/native.js'
import type { Decoder } from './decoder.js'
import { lpdGroupSizes, lpdSteps } from './group-sizes.js'
import { checkMethod } from './options.js'
import { checkGroupSizes, parallelPlan, queryInput, type Grid } from './parallel.js'
import { localityOrder } from './token-order.js'

/**
 * @param publishedSteps of a published model; of others 32 where there are group sizes for them, else one token a step
 * @param repulsion of the order that is drawn where the caller gives none (token-order.ts)
 */
export function lpdDecoder (grid: Grid, publishedSteps: number | undefined, repulsion: number): Decoder {
  const tokens = grid[0] * grid[1]
  const possible = lpdSteps(tokens)
  const defaultSteps = publishedSteps ?? (possible.includes(32) ? 32 : tokens)
  return {
    method: 'lpd',
    plan (options) {
      checkMethod('lpd', options)
      const { steps = defaultSteps, groupSizes: given, guidanceSchedule } = options
      const groupSizes = given ? checkGroupSizes(given, tokens) : lpdGroupSizes(tokens, steps)
      if (!groupSizes) {
        throw invalid(`LPD's authors have no group sizes for ${steps} steps on ${grid.join(' x ')} tokens: steps can be ` +
          `${possible.join(', ')}. For others give groupSizes`)
      }
      return parallelPlan({
        grid, groupSizes, guidanceSchedule,
        slots: tokens + 1,
        orderOf: (seed, keep) => localityOrder(grid, groupSizes, repulsion, seed, keep),
        write (rows, { done, size, before, first }) {
          if (first) rows.add({ input: classInput, position: 0, slot: 0, sees: 1 })
          for (let k = done - before; k < done; k++) {
            rows.add({ input: k, position: 1 + rows.order[k]!, slot: 1 + k, sees: first ? 2 + k : 1 + done })
          }
          for (let k = done; k < done + size; k++) {
            rows.add({
              predicts: k, input: queryInput, position: 1 + rows.order[k]!, slot: 1 + k, sees: 1 + done + size,
              share: k / tokens
            })
          }
        }
      })
    }
  }
}
