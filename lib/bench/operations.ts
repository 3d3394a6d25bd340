// The operations of a picture, each with its sizes: one table for `parvis bench --operations`, which times them on random
// numbers, and for the tests of every backend, which compare them with a plain reference. Bytes and products are counted
// from the shapes, like those of a whole step (shapes.ts), and add up to them.

import type { Operation, Precision, StepRule, TokenizerModel, TransformerModel } from '../native.js'
import { itemBytes } from '../shapes.js'

export interface OperationCase {
  name: string
  operation: Operation
  /** So often in a step, or in a decode. */
  times: number
  /** false: it is a part of another one, and no sum counts it. */
  summed: boolean
}

/** Guided, as the paper's pictures are; what is drawn does not matter. */
export const benchRule: StepRule = { mode: 'sample', guidanceScale: 1.5, temperature: 1, topK: 0, topP: 1 }

// ---- a step of the transformer

export interface StepShape { n: number, batch: number, grid: number, precision: Precision }

/** A step of n tokens at half of the cache, guided: two streams a picture. In the order in which they run. */
export function stepOperations (m: TransformerModel, { n, batch, grid, precision }: StepShape): OperationCase[] {
  const streams = 2 * batch
  const rows = streams * n
  const width = m.heads * m.headSize
  const common = { precision, eps: m.normEps }
  const projection = (inputs: number, outputs: number, normed: boolean, epilogue: 'store' | 'add' | 'swiglu'): Operation => ({ ...common, kind: 'projection', rows, inputs, outputs, normed, epilogue })
  const attention: Operation = {
    ...common, kind: 'attention', streams, rows: n, sees: Math.max(n, grid * grid >> 1), dim: m.dim, heads: m.heads, kvHeads: m.kvHeads, headSize: m.headSize, grid
  }
  return [
    { name: 'attention', operation: attention, times: m.layers, summed: true },
    { name: 'attention: qkv', operation: projection(m.dim, width + 2 * m.kvHeads * m.headSize, true, 'store'), times: m.layers, summed: false },
    { name: 'attention out', operation: projection(width, m.dim, false, 'add'), times: m.layers, summed: true },
    { name: 'gate, up', operation: projection(m.dim, m.feedForward, true, 'swiglu'), times: m.layers, summed: true },
    { name: 'down', operation: projection(m.feedForward, m.dim, false, 'add'), times: m.layers, summed: true },
    { name: 'head', operation: projection(m.dim, m.vocabularySize, true, 'store'), times: 1, summed: true },
    { name: 'draw', operation: { ...common, kind: 'draw', draws: batch * n, vocabularySize: m.vocabularySize, guided: true, rule: benchRule }, times: 1, summed: true }
  ]
}

// ---- a decode

/** Every distinct operation of the decoder, from tokens to pixels, under its name in the official checkpoints. */
export function decodeOperations (m: TokenizerModel, { grid, batch, precision }: Omit<StepShape, 'n'>): OperationCase[] {
  const found = new Map<string, OperationCase>()
  const add = (name: string, operation: Operation): void => {
    const key = JSON.stringify(operation)
    const one = found.get(key)
    if (one) one.times++
    else found.set(key, { name, operation, times: 1, summed: true })
  }
  let side = grid
  const common = { precision, eps: m.normEps, images: batch }
  const convolution = (name: string, channels: number, outputs: number, kernel: 1 | 3, more: { normed?: boolean, residual?: boolean, up?: boolean } = {}): void => {
    add(name, {
      ...common, kind: 'convolution', height: side, width: side, channels, outputs, kernel, groups: more.normed ? m.groups : 0, swish: more.normed ?? false, residual: more.residual ?? false,
      resample: more.up ? 'up' : 'none'
    })
    if (more.up) side *= 2
  }
  const residual = (channels: number, outputs: number): void => {
    convolution('conv1', channels, outputs, 3, { normed: true })
    if (channels !== outputs) convolution('nin_shortcut', channels, outputs, 1)
    convolution('conv2', outputs, outputs, 3, { normed: true, residual: true })
  }
  const attention = (channels: number): void => { add('attn', { ...common, kind: 'spatialAttention', height: side, width: side, channels, groups: m.groups }) }

  const widths = m.multipliers.map(x => x * m.baseChannels).reverse()
  let channels = widths[0]!
  convolution('post_quant_conv', m.codeSize, m.zChannels, 1)
  convolution('conv_in', m.zChannels, channels, 3)
  residual(channels, channels)
  attention(channels)
  residual(channels, channels)
  widths.forEach((width, level) => {
    for (let block = 0; block <= m.residualBlocks; block++) {
      residual(channels, width)
      channels = width
      if (level === 0) attention(channels)
    }
    if (level < widths.length - 1) convolution('upsample.conv', channels, channels, 3, { up: true })
  })
  convolution('conv_out', channels, 3, 3, { normed: true })
  return [...found.values()]
}

// ---- what they cost

export interface OperationCost {
  /** Read or written at least once: weights, keys and values, logits, and of pictures the elements, in the precision. */
  bytes: number
  /** Products and sums of matrices; a draw has none. */
  flops: number
  /** Weights and cache of one copy. */
  copyBytes: number
}

export function operationCost (o: Operation): OperationCost {
  const item = itemBytes(o.precision)
  switch (o.kind) {
    case 'projection': {
      const weights = o.inputs * o.outputs * (o.epilogue === 'swiglu' ? 2 : 1)
      return { bytes: weights * item, flops: 2 * o.rows * weights, copyBytes: weights * item }
    }
    case 'attention': {
      const weights = (o.heads + 2 * o.kvHeads) * o.headSize * o.dim
      const slot = 2 * o.streams * o.kvHeads * o.headSize
      return {
        bytes: (weights + slot * (o.sees + o.rows)) * item, // its own rows are written, then read
        flops: o.streams * o.rows * (2 * weights + 4 * o.sees * o.heads * o.headSize),
        copyBytes: (weights + slot * o.sees) * item
      }
    }
    case 'draw': return { bytes: o.draws * o.vocabularySize * 4 * (o.guided ? 2 : 1), flops: 0, copyBytes: 0 }
    case 'convolution': {
      const weights = o.channels * o.outputs * o.kernel ** 2
      const pixels = o.images * o.height * o.width
      const results = o.resample === 'up' ? pixels * 4 : o.resample === 'down' ? pixels / 4 : pixels
      return { bytes: (weights + pixels * o.channels + results * o.outputs * (o.residual ? 2 : 1)) * item, flops: 2 * results * weights, copyBytes: weights * item }
    }
    case 'spatialAttention': {
      const weights = 4 * o.channels ** 2
      const pixels = o.height * o.width
      return { bytes: (weights + 2 * o.images * pixels * o.channels) * item, flops: o.images * (2 * pixels * weights + 4 * pixels ** 2 * o.channels), copyBytes: weights * item }
    }
  }
}

/** More than the caches of a processor hold. */
const turnBytes = 256 << 20

/** Copies of the weights to take in turn: a step reads each once, from memory. A convolution uses its weights for every pixel: one. */
export function operationCopies (o: Operation): number {
  if (o.kind !== 'projection' && o.kind !== 'attention') return 1
  return Math.min(1 << 16, Math.floor(turnBytes / operationCost(o).copyBytes) + 1)
}

/** Its sizes in a few words. */
export function operationShape (o: Operation): string {
  switch (o.kind) {
    case 'projection': return `${o.rows} x ${o.inputs} -> ${o.epilogue === 'swiglu' ? '2 x ' : ''}${o.outputs}`
    case 'attention': return `${o.streams} x ${o.rows} rows, ${o.heads} heads of ${o.headSize}${o.kvHeads !== o.heads ? ` on ${o.kvHeads}` : ''}, sees ${o.sees}`
    case 'draw': return `${o.draws} of ${o.vocabularySize}${o.guided ? ', guided' : ''}`
    case 'convolution': {
      const more = [...(o.groups > 0 ? ['normed'] : []), ...(o.resample !== 'none' ? [o.resample] : []), ...(o.residual ? ['residual'] : [])]
      return [`${o.kernel}x${o.kernel}, ${o.channels} -> ${o.outputs}, ${pictures(o)}`, ...more].join(', ')
    }
    case 'spatialAttention': return `${o.channels}, ${pictures(o)}`
  }
}

const pictures = ({ images, height, width }: { images: number, height: number, width: number }): string => `${images > 1 ? `${images} x ` : ''}${height} x ${width}`

// ---- edges, for tests: what the paper's models do not have, and other models may

export interface EdgeCase { name: string, operation: Operation }

/** Small; of each kind, only such forms as a session or a tokenizer runs. */
export function edgeOperations (precision: Precision): EdgeCase[] {
  const all: Operation[] = []

  const epilogues = [['store', true], ['swiglu', true], ['add', false]] as const
  const sizes = [
    [1, 1, 1], [1, 31, 33], [2, 100, 7], [3, 33, 64], [4, 64, 100], [5, 40, 17], [7, 257, 31], [8, 96, 255], [9, 20, 32], [15, 130, 65], [16, 128, 96], [17, 63, 48],
    [31, 72, 15], [32, 200, 40], [33, 48, 128], [64, 65, 16], [70, 77, 99]
  ] as const
  for (const [rows, inputs, outputs] of sizes) {
    for (const [epilogue, normed] of epilogues) all.push({ precision, eps: 1e-5, kind: 'projection', rows, inputs, outputs, normed, epilogue })
  }

  const heads = [ // heads, kvHeads, headSize, dim
    [2, 2, 100, 200], [4, 2, 100, 90], [1, 1, 4, 5], [6, 2, 4, 24], [2, 1, 128, 64], [3, 3, 128, 100], [4, 4, 64, 256], [8, 2, 64, 128], [5, 1, 48, 77]
  ] as const
  const views = [[1, 1, 1, 8], [2, 1, 33, 6], [2, 4, 4, 8], [3, 4, 57, 8], [1, 16, 100, 24], [2, 70, 131, 12]] as const // streams, rows, sees, grid
  for (const [k, [of, kvHeads, headSize, dim]] of heads.entries()) {
    for (const view of [k, k + 2, k + 4]) {
      const [streams, rows, sees, grid] = views[view % views.length]!
      all.push({ precision, eps: 1e-5, kind: 'attention', streams, rows, sees, dim, heads: of, kvHeads, headSize, grid })
    }
  }

  const rules: Array<Partial<StepRule>> = [
    {}, { temperature: 0 }, { temperature: 0.5 }, { temperature: 3 }, { topK: 1 }, { topK: 10 }, { topK: 1_000_000 }, { topP: 0.2 }, { topP: 0.9 }, { topP: 1e-6 },
    { temperature: 0.8, topK: 50, topP: 0.7 }
  ]
  for (const [draws, vocabularySize] of [[1, 1], [3, 7], [5, 33], [40, 257], [16, 1000], [2, 5001]] as const) {
    for (const [k, rule] of rules.entries()) {
      all.push({ precision, eps: 1e-5, kind: 'draw', draws, vocabularySize, guided: (k + draws) % 2 === 0, rule: { mode: 'sample', guidanceScale: 2.5, temperature: 1, topK: 0, topP: 1, ...rule } })
    }
  }

  const picture = { precision, eps: 1e-6 } as const
  const forms = [ // kernel, groups (1: some), swish, residual, resample
    [3, 0, false, false, 'none'], [3, 1, true, false, 'none'], [3, 1, true, true, 'none'], [3, 0, false, false, 'up'], [3, 0, false, false, 'down'],
    [1, 0, false, false, 'none'], [1, 1, false, false, 'none'], [1, 0, false, true, 'none']
  ] as const
  const pictureSizes = [ // images, height, width, channels, groups, outputs
    [1, 1, 1, 4, 2, 3], [1, 5, 7, 3, 1, 20], [2, 6, 4, 8, 4, 33], [1, 12, 10, 32, 32, 32], [3, 3, 9, 20, 5, 6], [1, 8, 34, 33, 11, 70]
  ] as const
  for (const [images, height, width, channels, groups, outputs] of pictureSizes) {
    for (const [kernel, normed, swish, residual, resample] of forms) {
      if (resample === 'down' && (height % 2 !== 0 || width % 2 !== 0)) continue
      all.push({ ...picture, kind: 'convolution', images, height, width, channels, outputs, kernel, groups: normed * groups, swish, residual, resample })
    }
  }
  for (const [images, height, width, channels, groups] of [[1, 1, 1, 4, 2], [1, 5, 7, 8, 4], [2, 4, 4, 32, 32], [1, 9, 8, 33, 3], [1, 3, 13, 70, 7]] as const) {
    all.push({ ...picture, kind: 'spatialAttention', images, height, width, channels, groups })
  }
  return all.map(operation => ({ name: `${operation.kind}${detail(operation)}, ${operationShape(operation)}`, operation }))
}

function detail (o: Operation): string {
  if (o.kind === 'projection') return ` (${o.epilogue})`
  if (o.kind === 'draw') return ` (temperature ${o.rule.temperature}, top-k ${o.rule.topK}, top-p ${o.rule.topP})`
  return o.kind === 'attention' ? ` (dim ${o.dim})` : o.kind === 'convolution' && o.groups > 0 && !o.swish ? ' (no swish)' : ''
}
