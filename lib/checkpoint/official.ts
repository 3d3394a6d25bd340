// Which published model a checkpoint is, as far as shapes can tell, and what sets one apart that is none of them.

import { publishedTokenizers, type TokenizerDescription } from './tokenizer.js'
import {
  published, publishedClasses, publishedN, publishedVocabulary, type TransformerDescription
} from './transformer.js'

/** A property in which a checkpoint differs from a published model. */
export interface Difference {
  what: string
  here: number
  published: number
}

export interface Nearest {
  /** 'PAR-XL-4x', 'LlamaGen-L', 'vq_ds16_c2i'... */
  name: string
  /** None: it is that model, as far as shapes can tell. */
  differences: Difference[]
}

const compare = (pairs: ReadonlyArray<readonly [string, number, number]>): Difference[] =>
  pairs.filter(([, here, there]) => here !== there).map(([what, here, there]) => ({ what, here, published: there }))

/** How far apart: each property counts, one that is off by a factor more than one that is off by a little. */
const distance = (differences: readonly Difference[]): number =>
  differences.reduce(
    (sum, { here, published }) => sum + 1 + Math.abs(Math.log2(Math.max(here, 0.5) / Math.max(published, 0.5))), 0
  )

/** The published transformer that is most alike. */
export function nearestTransformer (
  { model, n }: Pick<TransformerDescription, 'model' | 'n'>, headsKnown = true
): Nearest {
  let best: Nearest | undefined
  for (const { name, layers, dim, heads } of published) {
    const feedForward = Math.ceil(Math.floor(8 * dim / 3) / 256) * 256
    for (const steps of publishedN) {
      const differences = compare([
        ['layers', model.layers, layers],
        ['width', model.dim, dim],
        ...(headsKnown
          ? [['heads', model.heads, heads] as const, ['key and value heads', model.kvHeads, heads] as const]
          : []),
        ['feed-forward width', model.feedForward, feedForward],
        ['vocabulary', model.vocabularySize, publishedVocabulary],
        ['classes', model.classes, publishedClasses],
        ['n', n, steps]
      ])
      if (!best || distance(differences) < distance(best.differences)) {
        best = { name: steps === 1 ? `LlamaGen-${name}` : `PAR-${name}-${steps}x`, differences }
      }
    }
  }
  return best!
}

/** The published tokenizer that is meant; the other one has the same shapes. */
export function nearestTokenizer ({ model, official }: Pick<TokenizerDescription, 'model' | 'official'>): Nearest {
  return {
    name: official ?? publishedTokenizers[0],
    differences: compare([
      ['base width', model.baseChannels, 128],
      ['levels', model.multipliers.length, 5],
      ...[1, 1, 2, 2, 4].map((multiplier, i) => [`multiplier ${i + 1}`, model.multipliers[i] ?? 0, multiplier] as const)
        .filter(([, here]) => here > 0),
      ['residual blocks a level', model.residualBlocks, 2],
      ['z channels', model.zChannels, 256],
      ['codebook size', model.codebookSize, 16384],
      ['code size', model.codeSize, 8]
    ])
  }
}
