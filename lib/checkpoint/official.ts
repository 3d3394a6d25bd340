// Which published model a checkpoint is, as far as shapes can tell, and what sets one apart that is none of them.

import {
  nbpCodes, nbpN, nbpPositions, officialName, publishedClasses, publishedFeedForward, publishedN, publishedNbp,
  publishedParallel, publishedSizes,
  publishedTokenizers, publishedVocabulary
} from '../models/published.js'
import { llamaTokens } from '../models/ucf.js'
import { vq16 } from '../models/vq.js'
import type { TokenizerDescription } from './tokenizer.js'
import type { TransformerDescription } from './transformer.js'

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

/** The published transformer of the same method that is most alike; PAR and LlamaGen count as one. */
export function nearestTransformer (
  { method, model, n }: Pick<TransformerDescription, 'method' | 'model' | 'n'>, headsKnown = true
): Nearest {
  let best: Nearest | undefined
  for (const published of publishedParallel.filter(other => other.method === method)) {
    const { name, layers, dim, heads, side } = published
    const differences = compare([
      ['layers', model.layers + model.crossLayers, layers],
      ['width', model.dim, dim],
      ...(headsKnown ? [['heads', model.heads, heads] as const] : []),
      ['feed-forward width', model.feedForward, method === 'lpd' ? 4 * dim : publishedFeedForward(dim)],
      ['vocabulary', model.vocabularySize, publishedVocabulary],
      ['classes', model.classes, publishedClasses],
      ...(model.positions > 0 ? [['positions', model.positions, side ** 2 + 1] as const] : [])
    ])
    if (!best || distance(differences) < distance(best.differences)) best = { name, differences }
  }
  for (const { name, layers, dim, heads } of method === 'nbp' ? publishedNbp : []) {
    const differences = compare([
      ['layers', model.layers, layers], ['width', model.dim, dim],
      ...(headsKnown ? [['heads', model.heads, heads] as const] : []),
      ['feed-forward width', model.feedForward, 4 * dim], ['vocabulary', model.vocabularySize, nbpCodes],
      ['text tokens', model.textTokens, llamaTokens], ['positions', model.positions, nbpPositions], ['n', n, nbpN]
    ])
    if (!best || distance(differences) < distance(best.differences)) best = { name, differences }
  }
  if (best) return best
  for (const { name, layers, dim, heads } of publishedSizes) {
    for (const steps of publishedN) {
      const differences = compare([
        ['layers', model.layers, layers],
        ['width', model.dim, dim],
        ...(headsKnown
          ? [['heads', model.heads, heads] as const, ['key and value heads', model.kvHeads, heads] as const]
          : []),
        ['feed-forward width', model.feedForward, publishedFeedForward(dim)],
        ['vocabulary', model.vocabularySize, publishedVocabulary],
        ['classes', model.classes, publishedClasses],
        ['n', n, steps]
      ])
      if (!best || distance(differences) < distance(best.differences)) {
        best = { name: officialName(name, steps), differences }
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
      ['base width', model.baseChannels, vq16.baseChannels],
      ['levels', model.multipliers.length, vq16.multipliers.length],
      ...vq16.multipliers
        .map((multiplier, i) => [`multiplier ${i + 1}`, model.multipliers[i] ?? 0, multiplier] as const)
        .filter(([, here]) => here > 0),
      ['residual blocks a level', model.residualBlocks, vq16.residualBlocks],
      ['z channels', model.zChannels, vq16.zChannels],
      ['codebook size', model.codebookSize, vq16.codebookSize],
      ['code size', model.codeSize, vq16.codeSize]
    ])
  }
}
