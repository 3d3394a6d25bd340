// Completion: some cells of a picture are known beforehand, and the rest is drawn under the same schedule. Every slot
// is still written, because later tokens see it; but where a step has nothing to draw, its rows wait and enter the
// cache together with those of the steps behind it.

import { keptCells, type CheckedKnown } from '../api/known.js'
import { checkEncode } from '../api/options.js'
import type { Call } from '../base/call.js'
import { isInt32Array } from '../base/realm.js'
import { invalid } from '../base/validate.js'
import { rowStride } from '../machine/native.js'
import type { Models, TransformerPart } from '../models/models.js'
import { encodePicture } from '../pictures/pixels.js'
import { pauses } from '../pictures/resample.js'
import { parPlan, type ParPlan } from './par.js'
import { nearestKnown } from './preview.js'
import { checkTokens } from './tokens.js'

/** Rows of known tokens that enter the cache in one step of a sequence: a session has memory for its largest step. */
const bulkRows = 128

/**
 * A plan that draws only what is not known.
 * @param keep raster order, [tokens]: 1 where a cell is known. At least one cell must be unknown.
 */
export function completionPlan ({ schedule }: ParPlan, keep: Uint8Array): ParPlan {
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

/** The plan that draws the rest, and what each sequence is entered with: sequence order, -1 where it is drawn. */
export interface Completion {
  plan: ParPlan
  /** One for all pictures, or one each. */
  sequences: Int32Array[]
}

export async function completion (
  models: Models, part: TransformerPart, plan: ParPlan, { tokens, images, mask }: CheckedKnown, call: Call
): Promise<Completion> {
  const keep = keptCells(mask, part.grid)
  const { vocabularySize } = part.model
  let rasters: Int32Array[]
  if (images) {
    rasters = []
    for (const image of images) {
      rasters.push(await call.wait(encodePicture(models.tokenizerPart(), call, image, checkEncode({}), part.grid)))
      if (rasters.at(-1)!.length !== plan.tokens) {
        throw invalid(`known.image has ${rasters.at(-1)!.length} tokens, and a picture of this model ${plan.tokens}`)
      }
    }
  } else {
    const some = tokens!.map(one => isInt32Array(one) && one.length === keep.length
      ? one.map((token, cell) => keep[cell] === 1 ? token : 0)
      : one)
    rasters = await checkTokens(some, undefined, vocabularySize, plan.tokens, pauses(() => call.check()))
  }
  return {
    plan: keep.includes(1) ? completionPlan(plan, keep) : plan,
    sequences: rasters.map(raster =>
      plan.schedule.toSequence(raster.map((token, cell) => keep[cell] === 1 ? token : -1)))
  }
}
