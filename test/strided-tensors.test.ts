// Tensors whose elements do not lie row by row: transposed, parts of wider ones, every other one, one number for all.
// Their weights are those of the same tensor saved row by row, what is read of the file is what they span and not its
// square, and a few numbers that are spread over gigabytes are refused.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { llamaGenModel, llamaGenName } from '../lib/checkpoint/llamagen.js'
import { composeStep, seatedSession } from '../lib/decoding/step.js'
import { addon, type DType, type TensorSource, type WeightSource } from '../lib/machine/native.js'
import { transformerWeights } from '../lib/models/weights.js'

const model = llamaGenModel({
  layers: 1, dim: 64, heads: 2, kvHeads: 2, headSize: 32, feedForward: 96, vocabularySize: 3000, classes: 3,
  specials: 0
})
const { dim, feedForward, vocabularySize } = model
const weightsOf = (tensors: readonly TensorSource[]): WeightSource[] => transformerWeights(model).map(([role]) =>
  ({ role, parts: [tensors.find(({ name }) => name === llamaGenName(role))!] }))
const shapes: Array<[string, number[]]> = [
  ['cls_embedding.embedding_table.weight', [4, dim]], ['tok_embeddings.weight', [vocabularySize, dim]],
  ['layers.0.attention.wqkv.weight', [3 * dim, dim]], ['layers.0.attention.wo.weight', [dim, dim]],
  ['layers.0.feed_forward.w1.weight', [feedForward, dim]], ['layers.0.feed_forward.w3.weight', [feedForward, dim]],
  ['layers.0.feed_forward.w2.weight', [dim, feedForward]],
  ['layers.0.attention_norm.weight', [dim]], ['layers.0.ffn_norm.weight', [dim]], ['norm.weight', [dim]],
  ['output.weight', [vocabularySize, dim]]
]
const engine = addon().createEngine({ device: 'cpu', threads: 2 })
t.teardown(async () => { await engine.dispose() })

/** Numbers that float32 and bfloat16 both hold, so that one picture is expected of both. */
const numbers = new Map(shapes.map(([name, shape], k) => {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1))
  let state = k + 1
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    values[i] = ((state >>> 24) - 128) / 512
  }
  return [name, values] as const
}))

type Layout = (shape: number[]) => { strides: number[], elements: number } | undefined
const plain: Layout = () => undefined
const layouts: Record<string, Layout> = {
  transposed: shape => shape.length === 2 ? { strides: [1, shape[0]!], elements: shape[0]! * shape[1]! } : undefined,
  'columns of a wider matrix': shape =>
    shape.length === 2 ? { strides: [shape[1]! * 3, 1], elements: shape[0]! * shape[1]! * 3 } : undefined,
  'every other number': shape =>
    ({
      strides: shape.map((_, i) => 2 * shape.slice(i + 1).reduce((a, b) => a * b, 1)),
      elements: 2 * shape.reduce((a, b) => a * b, 1)
    }),
  'far apart, transposed': shape => shape.length === 2
    ? { strides: [5, 5 * shape[0]! + 7], elements: (5 * shape[0]! + 7) * shape[1]! }
    : { strides: [9], elements: 9 * shape[0]! }
}

/** A file with these numbers in this layout. */
function write (file: string, layout: Layout, dtype: DType): TensorSource[] {
  const item = dtype === 'float32' ? 4 : 2
  const parts: Buffer[] = []
  let offset = 0
  const tensors = shapes.map(([name, shape]): TensorSource => {
    const values = numbers.get(name)!
    const { strides, elements } = layout(shape) ?? { strides: undefined, elements: values.length }
    const data = Buffer.alloc(elements * item, 0x7f) // what lies between is not a number
    const [, columns = 1] = shape
    for (let i = 0; i < values.length; i++) {
      const at = strides ? Math.floor(i / columns) * strides[0]! + (i % columns) * (strides[1] ?? 0) : i
      if (item === 4) data.writeFloatLE(values[i]!, at * 4)
      else data.writeUInt16LE(new Uint32Array(new Float32Array([values[i]!]).buffer)[0]! >>> 16, at * 2)
    }
    parts.push(data)
    const tensor = { name, dtype, shape, offset, ...(strides && { strides }) }
    offset += data.length
    return tensor
  })
  fs.writeFileSync(file, Buffer.concat(parts))
  return tensors
}

/** Log-probabilities of a few tokens, and the bytes that were read. */
async function scores (
  file: string, tensors: TensorSource[], precision: 'float32' | 'bfloat16'
): Promise<{ logProbs: Float32Array, read: number }> {
  const read = (): number =>
    process.platform === 'linux' ? Number(/rchar: (\d+)/.exec(fs.readFileSync('/proc/self/io', 'utf8'))![1]) : 0
  const before = read()
  const transformer = await engine.loadTransformer(file, weightsOf(tensors), model, precision)
  const bytes = read() - before
  const tokens = 4
  const session = await seatedSession(transformer, { streamsEach: 1, slots: tokens, tokens, maxRows: tokens, kept: 0 },
    [{ classId: 1, seed: 1n, known: Int32Array.of(7, 2999, 64, 1000) }])
  const rows = Int32Array.from(
    [-1, 0, 1, 2].flatMap((input, i) => [i, input, -1, ...i === 0 ? [-1, -1, -1] : [0, 0, i - 1], i, i + 1])
  )
  const rule = { mode: 'score', temperature: 1, topK: 0, topP: 1 } as const
  await session.step(composeStep([{ seat: 0, rows, guidanceScale: 1, rule }], 1))
  const logProbs = await session.readLogProbs(0)
  session.dispose()
  transformer.dispose()
  return { logProbs, read: bytes }
}

t.test('layouts', async t => {
  const file = path.join(t.testdir(), 'weights.bin')
  for (const precision of ['float32', 'bfloat16'] as const) {
    const expected = await scores(file, write(file, plain, 'float32'), precision)
    t.ok(expected.logProbs.every(value => value < 0 && Number.isFinite(value)), 'scores')
    for (const [name, layout] of Object.entries(layouts)) {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const found = await scores(file, write(file, layout, dtype), precision)
        t.same(found.logProbs, expected.logProbs, `${name}, ${dtype} in the file, ${precision} in memory`)
        t.ok(found.read < 1.1 * fs.statSync(file).size + 1e5,
          `${name}: ${found.read} bytes read of a file of ${fs.statSync(file).size}`)
      }
    }
  }
})

t.test('one number for all', async t => {
  const file = path.join(t.testdir(), 'weights.bin')
  const tensors = write(file, plain, 'float32')
  const expanded = tensors.map(tensor => /norm/.test(tensor.name) ? { ...tensor, strides: [0] } : tensor)
  for (const { name, shape } of tensors) {
    if (/norm/.test(name)) numbers.get(name)!.fill(numbers.get(name)![0]!, 0, shape[0])
  }
  const { logProbs } = await scores(file, expanded, 'float32')
  t.same(logProbs, (await scores(file, write(file, plain, 'float32'), 'float32')).logProbs)
})

t.test('numbers that are spread too far', async t => {
  const file = path.join(t.testdir(), 'weights.bin')
  const tensors = write(file, plain, 'float32')
  fs.truncateSync(file, 6e9) // takes no room on a disk
  const before = process.memoryUsage().rss
  for (const [name, strides] of [['norm.weight', [20_000_000]], ['layers.0.attention.wo.weight', [16_000_000, 1]],
    ['layers.0.attention.wo.weight', [1, 16_000_000]]] as const) {
    const far = tensors.map(tensor => tensor.name === name ? { ...tensor, strides: [...strides], offset: 0 } : tensor)
    const error = await engine.loadTransformer(file, weightsOf(far), model,
      'float32').catch(error => error as unknown)
    t.match(
      error,
      {
        parvisCode: 'BAD_CHECKPOINT',
        message: new RegExp(`tensor ${name} has \\d+ elements that lie spread over \\d+ elements of the file, more ` +
          'than 16 times as many.*contiguous')
      }
    )
  }
  t.ok(process.memoryUsage().rss - before < 2e8, 'nothing of it was read')
})
