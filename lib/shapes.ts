// Shapes of the paper's models (design: section 1) as the native side takes them, and what a step of them costs: bytes
// that have to be read and products that have to be made. Both are counted from the shapes.

import { llamaGenModel } from './checkpoint/llamagen.js'
import { published } from './checkpoint/transformer.js'
import type { Precision, TokenizerModel, TransformerModel } from './native.js'

/** A tensor by name and row-major sizes. */
export type Shaped = readonly [name: string, shape: readonly number[]]

/** 'B', 'L', 'XL', 'XXL', '3B'. */
export const modelNames: readonly string[] = published.map(({ name }) => name)

/** A transformer of the paper for `n` tokens a step. */
export function transformerModel (name: string, n: number): TransformerModel {
  const { layers, dim, heads } = published.find(one => one.name === name)!
  const headSize = dim / heads
  const feedForward = Math.ceil(Math.floor(2 * 4 * dim / 3) / 256) * 256
  return llamaGenModel({
    layers, dim, heads, kvHeads: heads, headSize, feedForward, vocabularySize: 16384, classes: 1000, transitions: n - 1
  })
}

export const vq16: TokenizerModel = {
  baseChannels: 128, multipliers: [1, 1, 2, 2, 4], residualBlocks: 2, zChannels: 256, codebookSize: 16384, codeSize: 8,
  groups: 32, normEps: 1e-6
}

/** Pixels a token of VQ-16, each way. */
export const vq16Factor = 16

export function tokenizerTensors (m: TokenizerModel): Shaped[] {
  const list: Shaped[] = []
  const conv = (name: string, from: number, to: number, k: number): void => {
    list.push([`${name}.weight`, [to, from, k, k]], [`${name}.bias`, [to]])
  }
  const norm = (name: string, c: number): void => { list.push([`${name}.weight`, [c]], [`${name}.bias`, [c]]) }
  const residual = (name: string, from: number, to: number): void => {
    norm(`${name}.norm1`, from)
    conv(`${name}.conv1`, from, to, 3)
    norm(`${name}.norm2`, to)
    conv(`${name}.conv2`, to, to, 3)
    if (from !== to) conv(`${name}.nin_shortcut`, from, to, 1)
  }
  const attention = (name: string, c: number): void => {
    norm(`${name}.norm`, c)
    for (const part of ['q', 'k', 'v', 'proj_out']) conv(`${name}.${part}`, c, c, 1)
  }
  const widths = m.multipliers.map(x => x * m.baseChannels)
  const levels = widths.length
  const coarsest = widths[levels - 1]!
  const half = (name: string, order: number[], blocks: number, first: number, resample: string): number => {
    let channels = first
    order.forEach((level, i) => {
      for (let b = 0; b < blocks; b++) {
        residual(`${name}.conv_blocks.${i}.res.${b}`, channels, widths[level]!)
        channels = widths[level]!
        if (level === levels - 1) attention(`${name}.conv_blocks.${i}.attn.${b}`, channels)
      }
      if (i < levels - 1) conv(`${name}.conv_blocks.${i}.${resample}.conv`, channels, channels, 3)
    })
    residual(`${name}.mid.0`, coarsest, coarsest)
    attention(`${name}.mid.1`, coarsest)
    residual(`${name}.mid.2`, coarsest, coarsest)
    norm(`${name}.norm_out`, channels)
    return channels
  }
  const down = widths.map((_, i) => i)
  conv('encoder.conv_in', 3, m.baseChannels, 3)
  half('encoder', down, m.residualBlocks, m.baseChannels, 'downsample')
  conv('encoder.conv_out', coarsest, m.zChannels, 3)
  conv('decoder.conv_in', m.zChannels, coarsest, 3)
  const last = half('decoder', [...down].reverse(), m.residualBlocks + 1, coarsest, 'upsample')
  conv('decoder.conv_out', last, 3, 3)
  conv('quant_conv', m.zChannels, m.codeSize, 1)
  conv('post_quant_conv', m.codeSize, m.zChannels, 1)
  list.push(['quantize.embedding.weight', [m.codebookSize, m.codeSize]])
  return list
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
  for (const [name, shape] of tokenizerTensors(vq16)) {
    if (shape.length !== 4 || name.startsWith('encoder') || name === 'quant_conv.weight') continue
    const level = /decoder\.conv_blocks\.(\d)/.exec(name)
    const scale = name.startsWith('decoder.conv_out')
      ? vq16Factor
      : level
        ? 2 ** (Number(level[1]) + (name.includes('upsample') ? 1 : 0))
        : 1
    total += 2 * shape.reduce((a, b) => a * b) * (grid * scale) ** 2
  }
  return total
}
