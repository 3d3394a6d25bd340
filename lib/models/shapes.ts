// Shapes of the paper's models (design: section 1) as the native side takes them, and what a step of them costs: bytes
// that have to be read and products that have to be made. Both are counted from the shapes.

import { llamaGenModel } from '../checkpoint/llamagen.js'
import type { Precision, TransformerModel } from '../machine/native.js'
import {
  publishedClasses, publishedFeedForward, publishedSize, publishedSizes, publishedVocabulary
} from './published.js'
import { vq16, vqTokenizer } from './vq.js'
import { layerWeights } from './weights.js'

/** 'B', 'L', 'XL', 'XXL', '3B'. */
export const modelNames: readonly string[] = publishedSizes.map(({ name }) => name)

/** A transformer of the paper for `n` tokens a step. */
export function transformerModel (name: string, n: number): TransformerModel {
  const { layers, dim, heads } = publishedSize(name)
  return llamaGenModel({
    layers, dim, heads, kvHeads: heads, headSize: dim / heads, feedForward: publishedFeedForward(dim),
    vocabularySize: publishedVocabulary, classes: publishedClasses, transitions: n - 1
  })
}

// ---- what it costs

export interface Cost {
  /** Weights that a step reads: every matrix once, of the embeddings nothing (single rows are looked up). */
  weightBytes: number
  /** Keys and values that a step reads and writes. */
  cacheBytes: number
  /** Products and sums. */
  flops: number
}

export const itemBytes = (precision: Precision): number => precision === 'float32' ? 4 : 2

/**
 * One step.
 * @param rows rows of the step table, all of which predict
 * @param sees slots that the last row sees
 * @param sequences pictures, twice that with guidance
 */
export function stepCost (m: TransformerModel, precision: Precision, { rows, sees, sequences }: {
  rows: number, sees: number, sequences: number
}): Cost {
  const item = itemBytes(precision)
  const matrices = m.layers * ((m.heads + 2 * m.kvHeads) * m.headSize * m.dim + m.heads * m.headSize * m.dim +
    3 * m.feedForward * m.dim) + m.vocabularySize * m.dim
  const slot = m.layers * 2 * m.kvHeads * m.headSize
  return {
    weightBytes: matrices * item,
    cacheBytes: sequences * (sees + rows) * slot * item,
    flops: sequences * rows * (2 * matrices + 4 * sees * m.layers * m.heads * m.headSize)
  }
}

/** Bytes of keys and values of a whole session. */
export function cacheBytes (m: TransformerModel, precision: Precision, slots: number, sequences: number): number {
  return sequences * slots * m.layers * 2 * m.kvHeads * m.headSize * itemBytes(precision)
}

/** Products and sums of the convolutions of one VQ-16 decode, on a square grid. */
export function decodeFlops (grid: number): number {
  let total = 0
  let side = grid
  for (const layer of vqTokenizer(vq16).decoder) {
    if (layer.resample === 'up') side *= 2
    for (const [, shape] of layerWeights(layer)) {
      if (shape.length === 4) total += 2 * shape.reduce((a, b) => a * b) * side ** 2
    }
  }
  return total
}
