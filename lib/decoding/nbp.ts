// NBP (Ren et al. 2025, 2502.07737) draws as PAR does in raster order, n tokens a step, behind some tokens of text that
// all slots see. Its positions are learned, counted from the first token of the text; nothing is rotated.

import type { ModelGrid } from '../checkpoint/grid.js'
import { rowStride } from '../machine/native.js'
import type { Decoder, PicturePlan, Plan, PlannedStep } from './decoder.js'
import { checkMethod } from './options.js'
import { parDecoder } from './par.js'

/** @param prefix tokens of text in front of each sequence */
export function nbpDecoder (
  { grid, n, transitions, prefix, file }:
  { grid: Readonly<ModelGrid>, n: number, transitions: number, prefix: number, file: string }
): Decoder {
  const par = parDecoder({ grid, n, transitions, file })
  return {
    method: 'nbp',
    plan (options) {
      checkMethod('nbp', options)
      return behindText(par.plan({ order: 'raster' }), prefix)
    }
  }
}

/** The plan of sequences that begin with so many tokens of text. */
function behindText (plan: Plan, prefix: number): Plan {
  const withText = (picture: PicturePlan): PicturePlan => ({
    ...picture,
    steps: shifted(picture.steps, prefix),
    fullTables: limit => shifted(picture.fullTables(limit), prefix)
  })
  let whole: PicturePlan | undefined
  return {
    ...plan,
    prefix,
    slots: plan.slots + prefix,
    maxRows: plan.maxRows + prefix,
    picture: seed => (whole ??= withText(plan.picture(seed))), // all have one order
    completing: keep => behindText(plan.completing(keep), prefix)
  }
}

/** The rows of the text, which see each other and nothing else, stand in front of the first step. */
function shifted (steps: readonly PlannedStep[], prefix: number): PlannedStep[] {
  return steps.map(({ rows }, step) => {
    const text = step === 0 ? prefix : 0
    const out = new Int32Array(text * rowStride + rows.length)
    for (let k = 0; k < text; k++) out.set([-1, k, k, -1, -1, -1, k, prefix], k * rowStride)
    for (let from = 0; from < rows.length; from += rowStride) {
      const [predicts, input, , , , , slot, sees] = rows.subarray(from, from + rowStride) as unknown as number[]
      out.set([
        predicts! < 0 ? -1 : predicts! + prefix, input! < 0 ? input! : input! + prefix, slot! + prefix, -1, -1, -1,
        slot! + prefix, sees! + prefix
      ], text * rowStride + from)
    }
    return { rows: out }
  })
}
