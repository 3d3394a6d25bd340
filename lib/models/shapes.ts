// Shapes of the paper's models (design: section 1) as the native side takes them, and what a step of them costs: bytes
// that have to be read and products that have to be made. Both are counted from the shapes.

import { arpgModel } from '../checkpoint/arpg.js'
import { llamaGenModel } from '../checkpoint/llamagen.js'
import { lpdModel } from '../checkpoint/lpd.js'
import { nbpModel } from '../checkpoint/nbp.js'
import { withSlots } from '../decoding/step.js'
import {
  rowStride, scaleInputs, type Precision, type TransformerModel, type VideoTokenizerModel
} from '../machine/native.js'
import {
  nbpCodes, nbpN, nbpPositions, publishedClasses, publishedFeedForward, publishedNbp, publishedParallel, publishedSize,
  publishedSizes, publishedVocabulary,
  type PublishedParallel
} from './published.js'
import { llamaTokens, ucfLabels } from './ucf.js'
import { vq16, vqTokenizer } from './vq.js'
import { layerWeights, videoLayerWeights } from './weights.js'

/** 'B', 'L', 'XL', 'XXL', '3B'. */
export const modelNames: readonly string[] = publishedSizes.map(({ name }) => name)

/** A transformer of the paper for `n` tokens a step. */
export function transformerModel (name: string, n: number): TransformerModel {
  const { layers, dim, heads } = publishedSize(name)
  return llamaGenModel({
    layers, dim, heads, kvHeads: heads, headSize: dim / heads, feedForward: publishedFeedForward(dim),
    vocabularySize: publishedVocabulary, classes: publishedClasses, specials: n - 1
  })
}

/** A transformer for videos with the blocks of XL, for benchmarks: the paper does not give its own. */
export function videoTransformer (n: number): TransformerModel {
  return {
    ...transformerModel('XL', n), vocabularySize: nbpCodes, classes: ucfLabels.length, rotationPairs: [8, 12, 12]
  }
}

/** A published transformer of ARPG, LPD or RandAR. */
export function parallelModel ({ method, layers, dim, heads, side }: PublishedParallel): TransformerModel {
  const sizes = {
    dim, heads, kvHeads: heads, headSize: dim / heads, vocabularySize: publishedVocabulary, classes: publishedClasses
  }
  const feedForward = publishedFeedForward(dim)
  switch (method) {
    case 'arpg': return arpgModel({ ...sizes, layers: layers / 2, feedForward }, layers / 2)
    case 'lpd': return lpdModel({ ...sizes, layers, feedForward: 4 * dim }, side ** 2 + 1)
    case 'randar': return { ...llamaGenModel({ ...sizes, layers, feedForward, specials: 1 }), rotateSpecials: true }
  }
}

/** A published transformer of NBP; undefined where the name is none of theirs. */
function nbpNamed (official: string): TransformerModel | undefined {
  const found = publishedNbp.find(({ name }) => name === official)
  if (!found) return undefined
  const { layers, dim, heads } = found
  return nbpModel({
    layers, dim, heads, kvHeads: heads, headSize: dim / heads, feedForward: 4 * dim, vocabularySize: nbpCodes,
    classes: ucfLabels.length, specials: nbpN - 1
  }, llamaTokens, nbpPositions)
}

/** The transformer of a published architecture: 'PAR-XL-4x', 'LlamaGen-L', 'ARPG-L', 'NBP-UCF-base'... */
export function officialModel (official: string, n: number): TransformerModel {
  const nbp = nbpNamed(official)
  if (nbp) return nbp
  const parallel = publishedParallel.find(({ name }) => name === official)
  return parallel ? parallelModel(parallel) : transformerModel(official.split('-')[1]!, n)
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

/** Bytes of a number of a table or a key/value cache. */
export const itemBytes = (precision: Precision): number => precision === 'float32' ? 4 : 2

/** Bytes of a weight of a matrix, with its share of a scale. */
export const weightItemBytes = (precision: Precision): number =>
  precision === 'int8' ? 1 + 4 / scaleInputs : itemBytes(precision)

/**
 * One step.
 * @param rows rows that run through the layers
 * @param queries rows that run through the cross layers
 * @param predictions rows that predict; where not given, all that can
 * @param sees slots that the last row sees
 * @param sequences pictures, twice that with guidance
 */
export function stepCost (m: TransformerModel, precision: Precision, step: {
  rows: number, queries?: number, predictions?: number, sees: number, sequences: number
}): Cost {
  const { rows, queries = 0, sees, sequences } = step
  const { predictions = m.crossLayers > 0 ? queries : rows } = step
  const item = itemBytes(precision)
  const [width, keysValues] = [m.heads * m.headSize, 2 * m.kvHeads * m.headSize]
  const perLayer = (outputs: number): number =>
    (outputs + width + (m.activation === 'swiglu' ? 3 : 2) * m.feedForward) * m.dim
  const layers = m.layers * perLayer(width + keysValues) + (m.crossLayers > 0 ? keysValues * m.dim : 0)
  const crossLayers = m.crossLayers * perLayer(width)
  const head = m.vocabularySize * m.dim
  const caches = rows > 0 ? cachesOf(m) : 1
  const seen = 4 * sees * width
  return {
    weightBytes: ((rows > 0 ? layers : 0) + (queries > 0 ? crossLayers : 0) + (predictions > 0 ? head : 0)) *
      weightItemBytes(precision),
    cacheBytes: sequences * (sees + rows) * caches * keysValues * item,
    flops: sequences * (rows * (2 * layers + m.layers * seen) + queries * (2 * crossLayers + m.crossLayers * seen) +
      predictions * 2 * head)
  }
}

/** How many rows of a table run through the layers, how many through the cross layers, and how many predict. */
export function rowCounts (
  m: Pick<TransformerModel, 'crossLayers'>, table: Int32Array
): { rows: number, queries: number, predictions: number, sees: number } {
  const all = table.length / rowStride
  const queries = m.crossLayers > 0 ? all - withSlots(table) : 0
  let predictions = 0
  for (let row = 0; row < table.length; row += rowStride) if (table[row]! >= 0) predictions++
  return { rows: all - queries, queries, predictions, sees: table.at(-1)! }
}

/** Caches of keys and values: one a layer, and the one that cross layers share. */
const cachesOf = (m: TransformerModel): number => m.layers + (m.crossLayers > 0 ? 1 : 0)

/** Bytes of keys and values of a whole session. */
export function cacheBytes (m: TransformerModel, precision: Precision, slots: number, sequences: number): number {
  return sequences * slots * cachesOf(m) * 2 * m.kvHeads * m.headSize * itemBytes(precision)
}

/** Products and sums that a tokenizer of videos needs for a clip of so many frames, rows and columns of tokens. */
export function videoDecodeFlops (
  { decoder }: VideoTokenizerModel, [frames, rows, columns]: readonly [frames: number, rows: number, columns: number]
): number {
  let [total, time, cells] = [0, frames, rows * columns]
  for (const layer of decoder) {
    const { expandTime, expandSpace } = layer
    // Of the first frame the earlier half of what comes out is not computed.
    const places = expandTime === 2 ? time - 0.5 : time
    for (const [, shape] of videoLayerWeights(layer)) {
      if (shape.length === 5) total += 2 * shape.reduce((a, b) => a * b) * places * cells
    }
    time = expandTime * time - (expandTime - 1)
    cells *= expandSpace ** 2
  }
  return total
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
