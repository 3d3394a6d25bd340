// RandAR (Pang et al. 2024, 2412.01827): a causal sequence in which every token stands behind a query, a vector that is
// rotated to the token's cell. Token k has slot 2 + 2k, its query slot 1 + 2k. Queries that are decoded together stand
// one behind the other for that step; all but the first are computed again in the next one, behind the tokens.

import { invalid } from '../base/validate.js'
import { classInput } from '../machine/native.js'
import type { Decoder } from './decoder.js'
import { randarGroupSizes } from './group-sizes.js'
import { checkMethod } from './options.js'
import { parallelPlan, queryInput, type Grid } from './parallel.js'
import { randomOrder } from './token-order.js'

export function randarDecoder (grid: Grid, defaultSteps: number): Decoder {
  const tokens = grid[0] * grid[1]
  return {
    method: 'randar',
    plan (options) {
      checkMethod('randar', options)
      const { steps = Math.min(defaultSteps, tokens), guidanceSchedule } = options
      if (steps < Math.min(2, tokens) || steps > tokens) {
        throw invalid(`steps must be from 2 to ${tokens} for this model, not ${steps}`)
      }
      return parallelPlan({
        grid, guidanceSchedule,
        groupSizes: randarGroupSizes(tokens, steps),
        slots: 1 + 2 * tokens,
        orderOf: seed => randomOrder(tokens, seed),
        write (rows, { done, size, before, first }) {
          const query = (k: number, slot: number, predicts = -1): void => {
            // Guidance counts the tokens before this step.
            rows.add({
              predicts, input: queryInput, cell: rows.order[k]!, slot, sees: slot + 1, share: done / tokens
            })
          }
          const token = (k: number): void => {
            rows.add({ input: k, cell: rows.order[k]!, slot: 2 + 2 * k, sees: 3 + 2 * k })
          }
          if (first) rows.add({ input: classInput, slot: 0, sees: 1 })
          for (let k = done - before; k < done; k++) {
            if (first || k > done - before) query(k, 1 + 2 * k)
            token(k)
          }
          for (let j = 0; j < size; j++) query(done + j, 1 + 2 * done + j, done + j)
        }
      })
    }
  }
}
