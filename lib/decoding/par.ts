// PAR (Wang et al. 2024), and token-by-token decoding as its case n = 1.

import type { ModelGrid } from '../checkpoint/grid.js'
import { invalid } from '../base/validate.js'
import { shownPath } from '../base/text.js'
import { rowStride } from '../machine/native.js'
import type { Decoder, Plan } from './decoder.js'
import { checkMethod } from './options.js'
import { fillMissing, nearestKnown } from './preview.js'
import { createSchedule, type Schedule } from './schedule.js'

/** A plan that says what it is of. */
export interface ParPlan extends Plan {
  readonly schedule: Schedule
}

/** Its plans are those of one schedule. */
interface ParDecoder extends Decoder {
  plan (...options: Parameters<Decoder['plan']>): ParPlan
}

/** @param transitions transition tokens that the model in `file` has */
export function parDecoder (
  { grid, n, transitions, file }: { grid: Readonly<ModelGrid>, n: number, transitions: number, file: string }
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
function parPlan (
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
  return {
    schedule, tokens: schedule.tokens, prefix: 0, slots: schedule.tokens, maxRows, tokensAfter, picture: () => picture,
    completing: keep => completionPlan(schedule, keep)
  }
}

/** Rows of known tokens that enter the cache in one step of a sequence: a session has memory for its largest step. */
const bulkRows = 128

/**
 * A plan that draws only what is not known. Every slot is still written, because later tokens see it; but where a step
 * has nothing to draw, its rows wait and enter the cache together with those of the steps behind it.
 * @param keep raster order, [tokens]: 1 where a cell is known. At least one cell must be unknown.
 */
function completionPlan (schedule: Schedule, keep: Uint8Array): ParPlan {
  const isKnown = (token: number): boolean => keep[schedule.cells[token]!] === 1
  const steps: Int32Array[] = []
  const tokensAfter: number[] = []
  let waiting: Int32Array[] = []
  let rows = 0
  let done = keep.reduce((sum, kept) => sum + kept, 0)
  const flush = (): void => {
    const step = new Int32Array(rows * rowStride)
    let to = 0
    for (const table of waiting) {
      step.set(table, to)
      to += table.length
    }
    for (let row = 0; row < step.length; row += rowStride) {
      if (isKnown(step[row]!)) step[row] = -1 // predicts nothing
      else done++
    }
    steps.push(step)
    tokensAfter.push(done)
    waiting = []
    rows = 0
  }
  for (const table of schedule.steps) {
    if (done === schedule.tokens) break // what is left is known, and nobody will see it
    const count = table.length / rowStride
    if (rows > 0 && rows + count > bulkRows) flush()
    waiting.push(table)
    rows += count
    for (let row = 0; row < table.length; row += rowStride) {
      if (isKnown(table[row]!)) continue
      flush()
      break
    }
  }
  const maxRows = steps.reduce((max, step) => Math.max(max, step.length / rowStride), 0)
  return parPlan(schedule, { steps, tokensAfter: Int32Array.from(tokensAfter), maxRows },
    sequence => nearestKnown(schedule, schedule.toRaster(sequence)))
}
