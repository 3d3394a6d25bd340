// The decoder of a model, by its method.

import { frameGrid, type ModelGrid } from '../checkpoint/grid.js'
import type { TransformerModel } from '../machine/native.js'
import type { PublishedParallel } from '../models/published.js'
import { arpgDecoder } from './arpg.js'
import type { Decoder } from './decoder.js'
import type { Method } from './method.js'
import { lpdDecoder } from './lpd.js'
import { nbpDecoder } from './nbp.js'
import { parDecoder } from './par.js'
import { randarDecoder } from './randar.js'

/** Steps of a model that is none of the published ones. */
const usualSteps = { arpg: 32, randar: 88 }

/** @param model.published how the authors run it, where it is theirs */
export function decoderOf (model: {
  method: Method, grid: Readonly<ModelGrid>, n: number,
  model: Pick<TransformerModel, 'specials'>, prefix?: number | undefined, firstCell?: number | undefined,
  published?: PublishedParallel | undefined
}, file: string): Decoder {
  const { method, n, published } = model
  const grid = frameGrid(model.grid)
  switch (method) {
    case 'arpg': return arpgDecoder(grid, published?.steps ?? usualSteps.arpg, model.firstCell)
    case 'randar': return randarDecoder(grid, published?.steps ?? usualSteps.randar)
    case 'nbp':
      return nbpDecoder({ grid: model.grid, n, transitions: model.model.specials, prefix: model.prefix ?? 0, file })
    case 'lpd': return lpdDecoder(grid, published?.steps, published?.repulsion ?? 2)
    default: return parDecoder({ grid: model.grid, n, transitions: model.model.specials, file })
  }
}
