// Completion: some cells of a picture are known beforehand, and the rest is drawn under the same schedule.

import { keptCells, type CheckedKnown } from '../api/known.js'
import { checkEncode } from '../api/options.js'
import type { Call } from '../base/call.js'
import { isInt32Array } from '../base/realm.js'
import { invalid } from '../base/validate.js'
import type { Models, TransformerPart } from '../models/models.js'
import { encodePicture } from '../pictures/pixels.js'
import { pauses } from '../pictures/resample.js'
import type { Plan } from './decoder.js'
import { checkTokens } from './tokens.js'

/** The plan that draws the rest, and what is known: raster order, -1 where a cell is drawn. */
export interface Completion {
  plan: Plan
  /** One for all pictures, or one each. */
  rasters: Int32Array[]
}

export async function completion (
  models: Models, part: TransformerPart, plan: Plan, { tokens, images, mask }: CheckedKnown, call: Call
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
    plan: keep.includes(1) ? plan.completing(keep) : plan,
    rasters: rasters.map(raster => raster.map((token, cell) => keep[cell] === 1 ? token : -1))
  }
}
