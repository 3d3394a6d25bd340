// The flags of a transformer, one by one and together, against a plain reference in double precision: LayerNorm with
// biases, GELU by the error function, biases of projections, learned positions with a norm of the embeddings, rotation
// along three axes, rotated special vectors, cross layers over a shared cache, and weights that are stacked from
// several tensors. The CUDA backend is compared with the CPU backend in test/simt/session.cc.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { addon, type TensorSource, type TransformerModel, type WeightSource } from '../lib/machine/native.js'
import { composeStep, seatedSession } from '../lib/decoding/step.js'
import { transformerWeights } from '../lib/models/weights.js'
import { reference, type ReferenceRow as Row } from './support/reference.js'

const sizes = {
  layers: 2, dim: 44, heads: 3, kvHeads: 3, headSize: 12, feedForward: 70, vocabularySize: 60, classes: 4,
  specials: 2
}
const plain: TransformerModel = {
  ...sizes, textTokens: 0, crossLayers: 0, rotateSpecials: false, positions: 0, norm: 'rms', activation: 'swiglu',
  bias: false,
  embeddingNorm: false, rotationPairs: [0, 3, 3], normEps: 1e-5, ropeBase: 10000
}
const models: Array<[string, TransformerModel]> = [
  ['RMSNorm and SwiGLU', plain],
  ['LayerNorm', { ...plain, norm: 'layer' }],
  ['GELU', { ...plain, activation: 'gelu' }],
  ['GELU and biases', { ...plain, activation: 'gelu', bias: true }],
  ['learned positions', { ...plain, positions: 9, rotationPairs: [0, 0, 0] }],
  ['learned positions and a norm of the embeddings', { ...plain, positions: 9, embeddingNorm: true }],
  ['three axes, and pairs that do not turn', { ...plain, rotationPairs: [1, 2, 2] }],
  ['special vectors that rotate', { ...plain, dim: 36, rotateSpecials: true }],
  ['special vectors that rotate along three axes',
    { ...plain, dim: 36, rotateSpecials: true, rotationPairs: [1, 2, 2] }],
  ['cross layers', { ...plain, crossLayers: 3 }],
  ['cross layers with LayerNorm, GELU, biases and fewer keys than queries',
    { ...plain, heads: 4, kvHeads: 2, layers: 1, crossLayers: 1, norm: 'layer', activation: 'gelu', bias: true }],
  ['all of them',
    {
      ...plain, norm: 'layer', activation: 'gelu', bias: true, positions: 9, embeddingNorm: true,
      rotationPairs: [2, 1, 3], normEps: 1e-6
    }]
]

type Weights = Map<string, { shape: readonly number[], data: Float32Array }>

/** Numbers between -1 and 1 that float16 and bfloat16 hold exactly. */
function randomWeights (model: TransformerModel): Weights {
  let state = 12345
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return ((state >>> 16 & 255) - 128) / 128
  }
  return new Map(transformerWeights(model).map(([role, shape]) => {
    const scale = shape.length === 1 ? 0.5 : /classes|tokens|specials|positions/.test(role) ? 1 : 0.25
    const offset = /orm\.weight$/.test(role) ? 1 : 0
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => next() * scale + offset)
    return [role, { shape, data }]
  }))
}

/** Queries, keys and values are stored apart, and stacked again by the description. */
function store (file: string, model: TransformerModel, weights: Weights): WeightSource[] {
  const parts: Buffer[] = []
  let offset = 0
  const put = (name: string, shape: readonly number[], data: Float32Array): TensorSource => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    parts.push(bytes)
    offset += bytes.length
    return { name, dtype: 'float32', shape: [...shape], offset: offset - bytes.length }
  }
  const sources = [...weights].map(([role, { shape, data }]) => {
    if (!/\.qkv\.weight/.test(role)) return { role, parts: [put(role, shape, data)] }
    const { heads, kvHeads, headSize } = model
    const ends = [heads, heads + kvHeads, heads + 2 * kvHeads].map(end => end * headSize)
    const rest = data.length / shape[0]!
    return {
      role, parts: ['q', 'k', 'v'].map((name, i) => {
        const [from, to] = [ends[i - 1] ?? 0, ends[i]!]
        return put(`${role}.${name}`, [to - from, ...shape.slice(1)], data.slice(from * rest, to * rest))
      })
    }
  })
  fs.writeFileSync(file, Buffer.concat(parts))
  return sources
}

t.test('flags', async t => {
  const engine = addon().createEngine({ device: 'cpu', threads: 2 })
  t.teardown(() => engine.dispose())
  const rows: Row[] = [
    { input: -1, position: 0, cell: [-1, -1, -1], sees: 1 }, { input: 0, position: 3, cell: [0, 0, 1], sees: 2 },
    { input: 1, position: 8, cell: [1, 2, 0], sees: 5 },
    { input: -2, position: -1, cell: [0, 3, 3], sees: 5 }, { input: -3, position: 1, cell: [2, -1, 5], sees: 5 },
    { input: 2, position: 5, cell: [3, 7, 2], sees: 6 }
  ]
  // What a query sees are slots of the first four rows.
  rows[2]!.sees = rows[3]!.sees = 4
  const queries: Row[] = [
    { input: -2, position: -1, cell: [0, 4, 1], sees: 4, isQuery: true },
    { input: -3, position: -1, cell: [1, 2, 6], sees: 2, isQuery: true }
  ]
  const tokens = Int32Array.of(17, 3, 59, 0, 41, 8)
  for (const [name, model] of models) {
    const placed = model.positions > 0 ? rows : rows.map(row => ({ ...row, position: -1 }))
    const own = model.crossLayers > 0 ? [...placed.slice(0, 4), ...queries] : placed
    const weights = randomWeights(model)
    const file = path.join(t.testdir(), 'weights.bin')
    const sources = store(file, model, weights)
    const expected = reference(model, weights, 2, tokens, own)
    const largest = Math.max(...expected.flat().map(Math.abs))
    for (const [precision, tolerance] of [['float32', 2e-6], ['bfloat16', 0.03]] as const) {
      const transformer = await engine.loadTransformer(file, sources, model, precision)
      const shape = { streamsEach: 1, slots: 6, tokens: 6, maxRows: 6, kept: 6 } as const
      const session = await seatedSession(transformer, shape, [{ classId: 2, seed: 1n, known: tokens }])
      const table = Int32Array.from(
        own.flatMap(({ input, position, cell, sees, isQuery }, slot) =>
          [model.crossLayers > 0 && !isQuery ? -1 : slot, input, position, ...cell, isQuery ? -1 : slot, sees])
      )
      const kept = new Map(own.map((_, slot) => [slot, slot]))
      const rule = { mode: 'score', temperature: 1, topK: 0, topP: 1 } as const
      const part = { seat: 0, rows: table, guidanceScale: 1, rule, kept }
      await session.step(composeStep([part], 1, model.crossLayers > 0))
      const logits = await session.readLogits(0)
      const predicting = own.map(({ isQuery }) => model.crossLayers === 0 || isQuery === true)
      const errors = expected.flat().map((value, i) =>
        predicting[Math.floor(i / model.vocabularySize)] ? Math.abs(value - logits[i]!) : 0)
      const worst = Math.max(...errors) / largest
      t.ok(worst < tolerance, `${name}, ${precision}: ${worst.toExponential(1)} off`)
      await session.dispose()
      transformer.dispose()
    }
  }
})

t.test('weights that do not fit', async t => {
  const engine = addon().createEngine({ device: 'cpu', threads: 1 })
  t.teardown(() => engine.dispose())
  const model = models.at(-1)![1]
  const file = path.join(t.testdir(), 'weights.bin')
  const sources = store(file, model, randomWeights(model))
  const load = async (change: (source: WeightSource) => WeightSource | undefined): Promise<unknown> =>
    await engine.loadTransformer(file, sources.flatMap(source => change(source) ?? []), model,
      'float32').catch((error: unknown) => error)
  const bad = { parvisCode: 'BAD_CHECKPOINT' }
  t.match(await load(source => source.role === 'layers.1.down.bias' ? undefined : source),
    { ...bad, message: /layers\.1\.down\.bias is missing; \[44\] expected/ })
  t.match(
    await load(source => source.role === 'layers.0.qkv.weight' ? { ...source, parts: source.parts.slice(1) } : source),
    { ...bad, message: /has shape \[72, 44\]; \[108, 44\] expected/ }
  )
  t.match(
    await load(source => source.role === 'positions'
      ? { ...source, parts: [{ ...source.parts[0]!, shape: [9, 43] }] }
      : source), { ...bad, message: /has shape \[9, 43\]; \[9, 44\] expected/ }
  )
})
