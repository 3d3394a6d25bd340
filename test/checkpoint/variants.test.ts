// The same weights in every file that people have (wrappings, element types, prefixes, zip64, beside optimizer state,
// behind 4 GiB of something else) make the same tokens and pixels as a plain float32 .safetensors file of them.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { convertCheckpoint, openCheckpoint } from '../../lib/checkpoint/index.js'
import { writeSafetensors } from '../../lib/checkpoint/safetensors-write.js'
import { Par } from '../../lib/api/par.js'
import { golden } from '../support/golden.js'
import { py, writePt, type PtOptions } from '../support/pt-writer.js'
import { identical } from '../support/tensors.js'
import { fromBits, readTensor, toBits } from './floats.js'
import { random, transformerShapes } from './tiny.js'

type DType = 'float32' | 'float16' | 'bfloat16'
interface Weights { shapes: Map<string, number[]>, values: Map<string, Float32Array> }

const dtypes: DType[] = ['float32', 'float16', 'bfloat16']
const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

// ---- weights

function randomWeights (shapes: Map<string, number[]>, seed: number): Weights {
  const draw = random(seed)
  const values = new Map([...shapes].map(([name, shape]) => {
    const scale = /embed/.test(name) ? 1 : 0.15
    return [name, Float32Array.from({ length: product(shape) },
      () => shape.length === 1 ? 1 + 0.2 * (draw() - 0.5) : 2 * scale * (draw() - 0.5))]
  }))
  return { shapes, values }
}

/** Rounded to the type, as float32. */
function rounded ({ shapes, values }: Weights, dtype: DType): Weights {
  if (dtype === 'float32') return { shapes, values }
  return {
    shapes,
    values: new Map([...values].map(([name, list]) => [name, list.map(value => fromBits(toBits(value, dtype), dtype))]))
  }
}

function bytesOf (list: Float32Array, dtype: DType): Uint8Array {
  if (dtype === 'float32') return new Uint8Array(list.buffer, list.byteOffset, list.byteLength)
  return new Uint8Array(Uint16Array.from(list, value => toBits(value, dtype)).buffer)
}

function stateDict ({ shapes, values }: Weights, dtype: DType, prefix: string): Array<[string, unknown]> {
  return [...shapes].map(([name, shape]) =>
    [prefix + name, py.tensor({ shape, dtype, data: bytesOf(values.get(name)!, dtype) })])
}

/** The plain file that everything is compared with. */
async function plainFile (file: string, { shapes, values }: Weights): Promise<void> {
  await writeSafetensors(file, [...shapes].map(([name, shape]) => ({
    name, dtype: 'float32', shape, async * chunks () { yield bytesOf(values.get(name)!, 'float32') }
  })), {})
}

// ---- files

const optimizer = py.orderedDict([['state', new Map([[0, { step: 7, exp_avg: py.tensor({ shape: [64] }) }]])],
  ['param_groups', [{ lr: 1e-4, betas: py.tuple(0.9, 0.95) }]]])
const besides: Array<[string, unknown]> = [['optimizer', optimizer], ['steps', 300000],
  ['args', py.namespace({ gpt_model: 'GPT-B', lr: 1e-4, ema: true })]]
const wrappings: Array<[string, (dict: unknown) => unknown]> = [
  ['top', dict => dict],
  ['model', dict => new Map<string, unknown>([['model', dict], ...besides])],
  ['module', dict => new Map<string, unknown>([...besides, ['module', dict]])],
  ['state_dict', dict => new Map<string, unknown>([['epoch', 3], ['state_dict', dict]])]
]
const prefixes = ['', '_orig_mod.', 'module.', 'module._orig_mod.']
const zips: PtOptions[] = [{ byteOrder: 'little' }, { zip64: true }, { alignment: 0 }, { prefix: 'last', protocol: 4 }]

/** Every wrapping with every type; prefixes and makes of zip in turn. */
function * variants (): Iterable<{ name: string, dtype: DType, write: (file: string, weights: Weights) => void }> {
  let turn = 0
  for (const [wrapping, wrap] of wrappings) {
    for (const dtype of dtypes) {
      const prefix = prefixes[turn % prefixes.length]!
      const zip = zips[(turn + (turn >> 2)) % zips.length]!
      const ordered = turn++ % 2 === 0
      yield {
        name: `${wrapping}, ${dtype}, '${prefix}', ${JSON.stringify(zip)}`,
        dtype,
        write (file, weights) {
          const dict = stateDict(weights, dtype, prefix)
          writePt(file, wrap(ordered ? py.orderedDict(dict) : new Map(dict)), zip)
        }
      }
    }
  }
}

// ---- transformers

const kinds = [
  { n: 1, heads: 2, headSize: 64 },
  { n: 4, heads: 2, headSize: 64 },
  { n: 9, heads: 2, headSize: 100 },
  { n: 16, heads: 1, headSize: 100 },
  { n: 9, heads: 3, headSize: 64 }
]

/** Greedy and drawn tokens, guided, and scores of the drawn ones: bytes. */
async function outcome (file: string, heads: number, precision: 'float32' | 'bfloat16'): Promise<Buffer> {
  const par = await Par.load({
    transformer: { path: file, ...(heads > 0 && { heads, grid: 12 }) }, device: 'cpu', precision
  })
  try {
    const greedy = await par.generate({ classId: [1, 3], greedy: true, guidanceScale: 2, seed: 1 })
    const drawn = await par.generate({ classId: [0, 4], guidanceScale: 1.5, seed: 7 })
    const scores = await par.score({ tokens: drawn.map(({ tokens }) => tokens), classId: [0, 4] })
    const arrays = [...greedy, ...drawn].map(({ tokens }) => tokens as ArrayBufferView)
      .concat(scores.map(({ logProbs }) => logProbs))
    return Buffer.concat(arrays.map(array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)))
  } finally {
    await par.dispose()
  }
}

for (const { n, heads, headSize } of kinds) {
  t.test(`n = ${n}, ${heads} heads of ${headSize}`, async t => {
    const dir = t.testdir({})
    const at = (name: string): string => path.join(dir, name)
    const dim = heads * headSize
    const weights = randomWeights(
      transformerShapes({ layers: 2, dim, vocabulary: 97, classes: 5, feedForward: 256, transitions: n - 1 }),
      n + headSize
    )
    const expected = new Map<string, Buffer>()
    for (const dtype of dtypes) {
      await plainFile(at('plain.safetensors'), rounded(weights, dtype))
      for (const precision of ['float32', 'bfloat16'] as const) {
        expected.set(`${dtype} ${precision}`, await outcome(at('plain.safetensors'), heads, precision))
      }
    }
    t.notSame(expected.get('float32 float32')!.subarray(0, 144 * 4), Buffer.alloc(144 * 4), 'tokens')
    for (const { name, dtype, write } of variants()) {
      write(at('variant.pt'), weights)
      t.ok(identical(await outcome(at('variant.pt'), heads, 'float32'), expected.get(`${dtype} float32`)!), name)
      t.ok(identical(await outcome(at('variant.pt'), heads, 'bfloat16'), expected.get(`${dtype} bfloat16`)!),
        `${name}, computed in bfloat16`)
      fs.rmSync(at('converted.safetensors'), { force: true })
      await convertCheckpoint(at('variant.pt'), at('converted.safetensors'), { heads, grid: 12 })
      t.ok(identical(await outcome(at('converted.safetensors'), 0, 'float32'), expected.get(`${dtype} float32`)!),
        `${name}, converted`)
    }
  })
}

t.test('weights behind 4 GiB of something else: zip64 in every header', async t => {
  const dir = t.testdir({})
  const weights = randomWeights(
    transformerShapes({ layers: 2, dim: 128, vocabulary: 97, classes: 5, feedForward: 256 }), 3
  )
  const [plain, large] = [path.join(dir, 'plain.safetensors'), path.join(dir, 'large.pt')]
  await plainFile(plain, weights)
  const bytes = 4.5 * 2 ** 30
  const { size } = writePt(large, new Map<string, unknown>([
    ['ema', py.orderedDict([['padding', py.tensor({ shape: [bytes / 4096, 1024], data: bytes })]])], // sparse on disk
    ['model', py.orderedDict(stateDict(weights, 'float32', '_orig_mod.'))],
    ...besides
  ]))
  t.ok(size > 2 ** 32, `${size} bytes`)
  t.ok([...(await openCheckpoint(large)).tensors.values()].every(({ offset }) => offset > 2 ** 32),
    'offsets above 32 bits')
  t.ok(identical(await outcome(large, 2, 'float32'), await outcome(plain, 2, 'float32')), 'the same tokens')
})

// ---- tokenizer

t.test('a tokenizer', async t => {
  const dir = t.testdir({})
  const checkpoint = await openCheckpoint(golden('vq-small/vq.pt'))
  const shapes = new Map([...checkpoint.tensors].map(([name, { shape }]) => [name, shape]))
  const weights: Weights = {
    shapes, values: new Map([...shapes.keys()].map(name => [name, readTensor(checkpoint, name)]))
  }
  const tokens = Int32Array.from({ length: 64 }, (_, i) => i * 37 % 256)
  const outcome = async (file: string): Promise<Buffer> => {
    const par = await Par.load({ tokenizer: file, device: 'cpu', precision: 'float32' })
    try {
      const { data, width, height } = await par.decode(tokens, { format: 'float32', grid: 8 })
      const codes = await par.encode({ data, width, height, channels: 3 })
      return Buffer.concat([data, codes].map(array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)))
    } finally {
      await par.dispose()
    }
  }
  const expected = new Map<DType, Buffer>()
  for (const dtype of dtypes) {
    await plainFile(path.join(dir, 'plain.safetensors'), rounded(weights, dtype))
    expected.set(dtype, await outcome(path.join(dir, 'plain.safetensors')))
  }
  for (const { name, dtype, write } of variants()) {
    write(path.join(dir, 'variant.pt'), weights)
    t.ok(identical(await outcome(path.join(dir, 'variant.pt')), expected.get(dtype)!), name)
  }
})
