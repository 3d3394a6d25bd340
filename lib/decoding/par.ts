// PAR (Wang et al. 2024), and token-by-token decoding as its case n = 1.

import { invalid } from '../base/validate.js'
import { shownPath } from '../base/text.js'
import type { Decoder, Plan } from './decoder.js'
import { checkMethod } from './options.js'
import { fillMissing } from './preview.js'
import { createSchedule, type Schedule } from './schedule.js'

/** A plan that says what it is of: completion (completion.ts) changes its schedule. */
export interface ParPlan extends Plan {
  readonly schedule: Schedule
}

/** Its plans are those of one schedule. */
interface ParDecoder extends Decoder {
  plan (...options: Parameters<Decoder['plan']>): ParPlan
}

/** @param transitions transition tokens that the model in `file` has */
export function parDecoder (
  { grid, n, transitions, file }: { grid: readonly [number, number], n: number, transitions: number, file: string }
): ParDecoder {
  const method = n === 1 ? 'llamagen' : 'par'
  return {
    method,
    plan (options) {
      checkMethod(method, options)
      const { order, initial, groupAttention, tokensPerStep } = options
      const schedule = createSchedule({ grid, n, order, initial, groupAttention, tokensPerStep })
      if (schedule.transitions > transitions) {
        throw invalid(`${schedule.tokensPerStep} tokens a step need ${schedule.transitions} transition ` +
          `tokens; ${shownPath(file)} has ${transitions}`)
      }
      return parPlan(schedule, schedule, (sequence, known) => fillMissing(schedule, sequence, known))
    }
  }
}

export const isParPlan = (plan: Plan): plan is ParPlan => 'schedule' in plan

/** Every picture runs the same: the order is that of the grid. */
export function parPlan (
  schedule: Schedule, { steps, tokensAfter, maxRows }: Pick<Schedule, 'steps' | 'tokensAfter' | 'maxRows'>,
  preview: (sequence: Int32Array, known: number) => Int32Array | undefined
): ParPlan {
  const picture = {
    steps: steps.map(rows => ({ rows })),
    cells: schedule.cells,
    fullTables: (limit: number) => schedule.fullSequenceTables(limit).map(rows => ({ rows })),
    toRaster: schedule.toRaster,
    toSequence: schedule.toSequence,
    preview
  }
  return { schedule, tokens: schedule.tokens, slots: schedule.tokens, maxRows, tokensAfter, picture: () => picture }
}
