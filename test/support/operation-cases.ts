// The operations that test/operations.test.ts runs: those of a picture of the paper's models, and edges that only other
// models have.

import type { Precision, TokenizerLayer, TokenizerModel, TransformerModel } from '../../lib/machine/native.js'
import type { DrawRule, Operation } from './operations-addon.js'

export interface OperationCase { name: string, operation: Operation }

/** Guided, as the paper's pictures are; what is drawn does not matter. */
const rule: DrawRule = { guidanceScale: 1.5, temperature: 1, topK: 0, topP: 1 }

// ---- a step of the transformer

interface StepShape { n: number, batch: number, grid: number, precision: Precision }

/** A step of n tokens at half of the cache, guided: two streams a picture. In the order in which they run. */
export function stepOperations (m: TransformerModel, { n, batch, grid, precision }: StepShape): OperationCase[] {
  const streams = 2 * batch
  const rows = streams * n
  const width = m.heads * m.headSize
  const common = { precision, eps: m.normEps }
  const drawn = { draws: batch * n, vocabularySize: m.vocabularySize }
  const projection = (
    inputs: number, outputs: number, normed: boolean, epilogue: 'store' | 'add' | 'swiglu'
  ): Operation => ({ ...common, kind: 'projection', rows, inputs, outputs, normed, epilogue })
  const attention: Operation = {
    ...common, kind: 'attention', streams, rows: n, sees: Math.max(n, grid * grid >> 1), dim: m.dim, heads: m.heads,
    kvHeads: m.kvHeads, headSize: m.headSize, grid
  }
  return [
    { name: 'attention', operation: attention },
    { name: 'attention: qkv', operation: projection(m.dim, width + 2 * m.kvHeads * m.headSize, true, 'store') },
    { name: 'attention out', operation: projection(width, m.dim, false, 'add') },
    { name: 'gate, up', operation: projection(m.dim, m.feedForward, true, 'swiglu') },
    { name: 'down', operation: projection(m.feedForward, m.dim, false, 'add') },
    { name: 'head', operation: projection(m.dim, m.vocabularySize, true, 'store') },
    { name: 'draw', operation: { ...common, kind: 'draw', ...drawn, guided: true, rule } }
  ]
}

// ---- a decode

/** Every distinct operation of the decoder, from tokens to pixels. */
export function decodeOperations (
  m: TokenizerModel, { grid, batch, precision }: Omit<StepShape, 'n'>
): OperationCase[] {
  const found = new Map<string, OperationCase>()
  const add = (name: string, operation: Operation): void => {
    found.set(JSON.stringify(operation), { name, operation })
  }
  let side = grid
  const common = { precision, eps: m.normEps, images: batch }
  const convolution = (name: string, channels: number, outputs: number, kernel: 1 | 3, more: {
    normed?: boolean, residual?: boolean, resample?: TokenizerLayer['resample']
  } = {}): void => {
    add(name, {
      ...common, kind: 'convolution', height: side, width: side, channels, outputs, kernel,
      groups: more.normed ? m.groups : 0, swish: more.normed ?? false, residual: more.residual ?? false,
      resample: more.resample ?? 'none'
    })
  }
  for (const { kind, channels, outputs, kernel, normed, resample } of m.decoder) {
    if (kind === 'attention') {
      add('attention', { ...common, kind: 'spatialAttention', height: side, width: side, channels, groups: m.groups })
    } else if (kind === 'residual') {
      convolution('conv1', channels, outputs, 3, { normed: true })
      if (channels !== outputs) convolution('shortcut', channels, outputs, 1)
      convolution('conv2', outputs, outputs, 3, { normed: true, residual: true })
    } else {
      convolution('convolution', channels, outputs, kernel, { normed, resample })
      if (resample === 'up') side *= 2
    }
  }
  return [...found.values()]
}

/** Its sizes in a few words. */
function operationShape (o: Operation): string {
  switch (o.kind) {
    case 'projection': return `${o.rows} x ${o.inputs} -> ${o.epilogue === 'swiglu' ? '2 x ' : ''}${o.outputs}`
    case 'attention': return `${o.streams} x ${o.rows} rows, ${o.heads} heads ` +
      `of ${o.headSize}${o.kvHeads !== o.heads ? ` on ${o.kvHeads}` : ''}, sees ${o.sees}`
    case 'draw': return `${o.draws} of ${o.vocabularySize}${o.guided ? ', guided' : ''}`
    case 'convolution': {
      const more = [...(o.groups > 0 ? ['normed'] : []), ...(o.resample !== 'none' ? [o.resample] : []),
        ...(o.residual ? ['residual'] : [])]
      return [`${o.kernel}x${o.kernel}, ${o.channels} -> ${o.outputs}, ${pictures(o)}`, ...more].join(', ')
    }
    case 'spatialAttention': return `${o.channels}, ${pictures(o)}`
  }
}

const pictures = ({ images, height, width }: { images: number, height: number, width: number }): string =>
  `${images > 1 ? `${images} x ` : ''}${height} x ${width}`

// ---- edges: what the paper's models do not have, and other models may

/** Small; of each kind, only such forms as a session or a tokenizer runs. */
export function edgeOperations (precision: Precision): OperationCase[] {
  const all: Operation[] = []

  const epilogues = [['store', true], ['swiglu', true], ['add', false]] as const
  const sizes = [
    [1, 1, 1], [1, 31, 33], [2, 100, 7], [3, 33, 64], [4, 64, 100], [5, 40, 17], [7, 257, 31], [8, 96, 255],
    [9, 20, 32], [15, 130, 65], [16, 128, 96], [17, 63, 48],
    [31, 72, 15], [32, 200, 40], [33, 48, 128], [64, 65, 16], [70, 77, 99]
  ] as const
  for (const [rows, inputs, outputs] of sizes) {
    for (const [epilogue, normed] of epilogues) {
      all.push({ precision, eps: 1e-5, kind: 'projection', rows, inputs, outputs, normed, epilogue })
    }
  }

  const heads = [ // heads, kvHeads, headSize, dim
    [2, 2, 100, 200], [4, 2, 100, 90], [1, 1, 4, 5], [6, 2, 4, 24], [2, 1, 128, 64], [3, 3, 128, 100], [4, 4, 64, 256],
    [8, 2, 64, 128], [5, 1, 48, 77]
  ] as const
  // streams, rows, sees, grid
  const views = [[1, 1, 1, 8], [2, 1, 33, 6], [2, 4, 4, 8], [3, 4, 57, 8], [1, 16, 100, 24], [2, 70, 131, 12]] as const
  for (const [k, [of, kvHeads, headSize, dim]] of heads.entries()) {
    for (const view of [k, k + 2, k + 4]) {
      const [streams, rows, sees, grid] = views[view % views.length]!
      all.push({
        precision, eps: 1e-5, kind: 'attention', streams, rows, sees, dim, heads: of, kvHeads, headSize, grid
      })
    }
  }

  const rules: Array<Partial<DrawRule>> = [
    {}, { temperature: 0 }, { temperature: 0.5 }, { temperature: 3 }, { topK: 1 }, { topK: 10 }, { topK: 1_000_000 },
    { topP: 0.2 }, { topP: 0.9 }, { topP: 1e-6 },
    { temperature: 0.8, topK: 50, topP: 0.7 },
    { draw: 'gumbel' }, { draw: 'gumbel', topK: 10 }, { draw: 'gumbel', temperature: 0.8, topK: 50, topP: 0.7 }
  ]
  for (const [draws, vocabularySize] of [[1, 1], [3, 7], [5, 33], [40, 257], [16, 1000], [2, 5001]] as const) {
    for (const [k, rule] of rules.entries()) {
      all.push({ precision, eps: 1e-5, kind: 'draw', draws, vocabularySize, guided: (k + draws) % 2 === 0, rule: {
        guidanceScale: 2.5, temperature: 1, topK: 0, topP: 1, ...rule
      } })
    }
  }

  const picture = { precision, eps: 1e-6 } as const
  const forms = [ // kernel, groups (1: some), swish, residual, resample
    [3, 0, false, false, 'none'], [3, 1, true, false, 'none'], [3, 1, true, true, 'none'], [3, 0, false, false, 'up'],
    [3, 0, false, false, 'down'],
    [1, 0, false, false, 'none'], [1, 1, false, false, 'none'], [1, 0, false, true, 'none']
  ] as const
  const pictureSizes = [ // images, height, width, channels, groups, outputs
    [1, 1, 1, 4, 2, 3], [1, 5, 7, 3, 1, 20], [2, 6, 4, 8, 4, 33], [1, 12, 10, 32, 32, 32], [3, 3, 9, 20, 5, 6],
    [1, 8, 34, 33, 11, 70]
  ] as const
  for (const [images, height, width, channels, groups, outputs] of pictureSizes) {
    for (const [kernel, normed, swish, residual, resample] of forms) {
      if (resample === 'down' && (height % 2 !== 0 || width % 2 !== 0)) continue
      all.push({
        ...picture, kind: 'convolution', images, height, width, channels, outputs, kernel, groups: normed * groups,
        swish, residual, resample
      })
    }
  }
  for (const [images, height, width, channels, groups] of [[1, 1, 1, 4, 2], [1, 5, 7, 8, 4], [2, 4, 4, 32, 32],
    [1, 9, 8, 33, 3], [1, 3, 13, 70, 7]] as const) {
    all.push({ ...picture, kind: 'spatialAttention', images, height, width, channels, groups })
  }
  return all.map(operation =>
    ({ name: `${operation.kind}${detail(operation)}, ${operationShape(operation)}`, operation }))
}

function detail (o: Operation): string {
  if (o.kind === 'projection') return ` (${o.epilogue})`
  if (o.kind === 'draw') {
    const { draw = 'inverse', temperature, topK, topP } = o.rule
    return ` (${draw}, temperature ${temperature}, top-k ${topK}, top-p ${topP})`
  }
  return o.kind === 'attention'
    ? ` (dim ${o.dim})`
    : o.kind === 'convolution' && o.groups > 0 && !o.swish
      ? ' (no swish)'
      : ''
}
