// The flags of a transformer that no published family of parvis uses yet, against a plain reference in double
// precision: LayerNorm with biases, GELU by the error function, biases of projections, learned positions with a norm of
// the embeddings, rotation along three axes, and weights that are stacked from several tensors. The CUDA backend is
// compared with the CPU backend in test/simt/session.cc.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { addon, type TensorSource, type TransformerModel, type WeightSource } from '../lib/machine/native.js'
import { composeStep, seatedSession } from '../lib/decoding/step.js'
import { transformerWeights } from '../lib/models/weights.js'

const sizes = {
  layers: 2, dim: 44, heads: 3, kvHeads: 3, headSize: 12, feedForward: 70, vocabularySize: 60, classes: 4,
  transitions: 2
}
const plain: TransformerModel = {
  ...sizes, positions: 0, norm: 'rms', activation: 'swiglu', bias: false, embeddingNorm: false,
  rotationPairs: [0, 3, 3], normEps: 1e-5, ropeBase: 10000
}
const models: Array<[string, TransformerModel]> = [
  ['RMSNorm and SwiGLU', plain],
  ['LayerNorm', { ...plain, norm: 'layer' }],
  ['GELU', { ...plain, activation: 'gelu' }],
  ['GELU and biases', { ...plain, activation: 'gelu', bias: true }],
  ['learned positions', { ...plain, positions: 9, rotationPairs: [0, 0, 0] }],
  ['learned positions and a norm of the embeddings', { ...plain, positions: 9, embeddingNorm: true }],
  ['three axes, and pairs that do not turn', { ...plain, rotationPairs: [1, 2, 2] }],
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
    const scale = shape.length === 1 ? 0.5 : /classes|tokens|transitions|positions/.test(role) ? 1 : 0.25
    const offset = /orm\.weight$/.test(role) ? 1 : 0
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => next() * scale + offset)
    return [role, { shape, data }]
  }))
}

/** Queries, keys and values are stored apart, and stacked again by the description. */
function store (file: string, weights: Weights): WeightSource[] {
  const parts: Buffer[] = []
  let offset = 0
  const put = (name: string, shape: readonly number[], data: Float32Array): TensorSource => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    parts.push(bytes)
    offset += bytes.length
    return { name, dtype: 'float32', shape: [...shape], offset: offset - bytes.length }
  }
  const sources = [...weights].map(([role, { shape, data }]) => {
    if (!role.includes('.qkv.')) return { role, parts: [put(role, shape, data)] }
    const [rows, rest] = [shape[0]! / 3, data.length / 3]
    return {
      role, parts: ['q', 'k', 'v']
        .map((name, i) => put(`${role}.${name}`, [rows, ...shape.slice(1)], data.slice(i * rest, (i + 1) * rest)))
    }
  })
  fs.writeFileSync(file, Buffer.concat(parts))
  return sources
}

// ---- the reference

const erf = (x: number): number => { // Taylor series: sums of up to 200 terms are exact enough up to 5
  if (Math.abs(x) > 5) return Math.sign(x)
  let [sum, term] = [0, x]
  for (let k = 0; k < 200; k++) {
    sum += term / (2 * k + 1)
    term *= -x * x / (k + 1)
  }
  return 2 / Math.sqrt(Math.PI) * sum
}

interface Row { input: number, position: number, cell: number[], sees: number }

/** Logits of every row of one sequence, which all go in one step. */
function reference (
  model: TransformerModel, weights: Weights, classId: number, tokens: Int32Array, rows: Row[]
): number[][] {
  const weight = (role: string): Float32Array => weights.get(role)!.data
  const multiply = (role: string, x: number[]): number[] => {
    const w = weight(`${role}.weight`)
    const bias = weights.get(`${role}.bias`)?.data
    return Array.from({ length: w.length / x.length },
      (_, o) => x.reduce((sum, v, i) => sum + v * w[o * x.length + i]!, bias?.[o] ?? 0))
  }
  const norm = (role: string, x: number[], kind = model.norm): number[] => {
    const w = weight(`${role}.weight`)
    const mean = kind === 'layer' ? x.reduce((a, b) => a + b) / x.length : 0
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length + model.normEps)
    return x.map((v, i) => (v - mean) * scale * w[i]! + (kind === 'layer' ? weight(`${role}.bias`)[i]! : 0))
  }
  const add = (x: number[], y: number[]): number[] => x.map((v, i) => v + y[i]!)
  const entry = (role: string, row: number): number[] =>
    [...weight(role).subarray(row * model.dim, (row + 1) * model.dim)]
  const turn = (x: number[], cell: number[]): number[] => {
    const out = [...x]
    let pair = 0
    model.rotationPairs.forEach((pairs, axis) => {
      for (let k = 0; k < pairs; k++, pair++) {
        const angle = cell[axis]! * model.ropeBase ** (-k / pairs)
        const [c, s] = cell[axis]! < 0 ? [0, 0] : [Math.cos(angle), Math.sin(angle)]
        out[2 * pair] = x[2 * pair]! * c - x[2 * pair + 1]! * s
        out[2 * pair + 1] = x[2 * pair]! * s + x[2 * pair + 1]! * c
      }
    })
    return out
  }
  let stream = rows.map(({ input, position }) => {
    let x = input >= 0
      ? entry('tokens', tokens[input]!)
      : input === -1
        ? entry('classes', classId)
        : entry('transitions', -2 - input)
    if (position >= 0) x = add(x, entry('positions', position))
    return model.embeddingNorm ? norm('embeddingNorm', x, 'layer') : x
  })
  const { heads, headSize } = model
  for (let i = 0; i < model.layers; i++) {
    const layer = `layers.${i}`
    const qkv = stream.map(x => multiply(`${layer}.qkv`, norm(`${layer}.attentionNorm`, x)))
    const part = (row: number, which: number, head: number): number[] =>
      qkv[row]!.slice((which * heads + head) * headSize, (which * heads + head + 1) * headSize)
    stream = stream.map((x, r) => {
      const attended = Array.from({ length: heads }, (_, head) => {
        const query = turn(part(r, 0, head), rows[r]!.cell)
        const scores = Array.from({ length: rows[r]!.sees },
          (_, s) => turn(part(s, 1, head), rows[s]!.cell).reduce((sum, v, d) => sum + v * query[d]!,
            0) / Math.sqrt(headSize))
        const top = Math.max(...scores)
        const e = scores.map(score => Math.exp(score - top))
        const total = e.reduce((a, b) => a + b)
        return Array.from({ length: headSize },
          (_, d) => e.reduce((sum, p, s) => sum + p / total * part(s, 2, head)[d]!, 0))
      }).flat()
      return add(x, multiply(`${layer}.attentionOutput`, attended))
    })
    stream = stream.map(x => {
      const normed = norm(`${layer}.feedForwardNorm`, x)
      const up = multiply(`${layer}.up`, normed)
      const hidden = model.activation === 'gelu'
        ? up.map(v => 0.5 * v * (1 + erf(v / Math.SQRT2)))
        : multiply(`${layer}.gate`, normed).map((gate, k) => gate / (1 + Math.exp(-gate)) * up[k]!)
      return add(x, multiply(`${layer}.down`, hidden))
    })
  }
  return stream.map(x => {
    const normed = norm('finalNorm', x)
    const head = weight('head')
    return Array.from({ length: model.vocabularySize },
      (_, o) => normed.reduce((sum, v, i) => sum + v * head[o * model.dim + i]!, 0))
  })
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
  const tokens = Int32Array.of(17, 3, 59, 0, 41, 8)
  for (const [name, model] of models) {
    const own = model.positions > 0 ? rows : rows.map(row => ({ ...row, position: -1 }))
    const weights = randomWeights(model)
    const file = path.join(t.testdir(), 'weights.bin')
    const sources = store(file, weights)
    const expected = reference(model, weights, 2, tokens, own)
    const largest = Math.max(...expected.flat().map(Math.abs))
    for (const [precision, tolerance] of [['float32', 2e-6], ['bfloat16', 0.03]] as const) {
      const transformer = await engine.loadTransformer(file, sources, model, precision)
      const shape = { streamsEach: 1, slots: 6, tokens: 6, maxRows: 6, kept: 6 } as const
      const session = await seatedSession(transformer, shape, [{ classId: 2, seed: 1n, known: tokens }])
      const table = Int32Array.from(
        own.flatMap(({ input, position, cell, sees }, slot) => [slot, input, position, ...cell, slot, sees])
      )
      const kept = new Map(own.map((_, slot) => [slot, slot]))
      await session.step(composeStep(
        [{ seat: 0, rows: table, guidanceScale: 1, rule: { mode: 'score', temperature: 1, topK: 0, topP: 1 }, kept }], 1
      ))
      const logits = await session.readLogits(0)
      const worst = expected.flat().reduce((most, value, i) => Math.max(most, Math.abs(value - logits[i]!)),
        0) / largest
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
  const sources = store(file, randomWeights(model))
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
