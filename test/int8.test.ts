// 8-bit weights: what they cost in quality, the files that hold them, and files that hold something else.

import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { convertCheckpoint, describeTransformer, openCheckpoint } from '../lib/checkpoint/index.js'
import { addon, type Precision } from '../lib/machine/native.js'
import { chooseFrom } from '../lib/machine/device.js'
import type { GeneratedImage } from '../lib/api/image.js'
import { Par } from '../lib/api/par.js'
import { weightBytes } from '../lib/models/memory.js'
import { transformerModel } from '../lib/models/shapes.js'
import { convertFloats, readTensor } from './checkpoint/floats.js'
import { toInt8 } from './support/operations.js'
import {
  device, parallelFile, parallelNames, rejection, tokenizerFile, transformerFile, transformerNames
} from './support/fixtures.js'
import { golden } from './support/golden.js'
import { identical } from './support/tensors.js'

// ---- quality

const root = (values: readonly number[]): number =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length)

/** On a simulated GPU: few models and tokens. */
const isBrief = process.env.PARVIS_GOLDEN === 'brief'
const models = isBrief
  ? ['par-4x', 'lpd'] as const
  : [...transformerNames, ...parallelNames, 'the embedded model'] as const

/** Log-probabilities of the same tokens in each precision, as differences from float32. */
async function differences (
  load: (precision: Precision) => Promise<Par>
): Promise<Record<'bfloat16' | 'int8', number[]>> {
  const logProbs: Partial<Record<Precision, number[]>> = {}
  for (const precision of ['float32', 'bfloat16', 'int8'] as const) {
    const par = await load(precision)
    const { vocabularySize, grid } = par.info.transformer!
    const cells = grid.reduce((a, b) => a * b)
    const tokens = Array.from({ length: isBrief ? 2 : 6 }, (_, k) =>
      Int32Array.from({ length: cells }, (_, i) => (i * 37 + k * 101) % vocabularySize))
    const scores = await par.score({ tokens, classId: tokens.map((_, k) => k % 3) })
    logProbs[precision] = scores.flatMap(({ logProbs }) => [...logProbs])
    await par.dispose()
  }
  const { float32, bfloat16, int8 } = logProbs as Record<Precision, number[]>
  const from = (values: number[]): number[] => values.map((value, i) => value - float32[i]!)
  return { bfloat16: from(bfloat16), int8: from(int8) }
}

for (const name of models) {
  t.test(`log-probabilities: ${name}`, async t => {
    const { bfloat16, int8 } = await differences(async precision => await Par.load(name === 'the embedded model'
      ? { device, precision }
      : { transformer: name in { arpg: 0, lpd: 0, randar: 0 }
          ? parallelFile(name as 'arpg')
          : transformerFile(name as 'par-4x'), device, precision }))
    const [rough, rougher] = [root(bfloat16), root(int8)]
    t.comment(`root mean square of the differences: bfloat16 ${rough.toFixed(5)}, int8 ${rougher.toFixed(5)} nats`)
    t.ok(rough > 0 && rougher > 0, 'each precision has numbers of its own')
    t.ok(rougher < Math.max(4 * rough, 0.03), 'int8: a few times as far as bfloat16, or a few hundredths of a nat')
    t.ok(Math.max(...int8.map(Math.abs)) < 12 * rougher, 'no token is far off')
    const mean = int8.reduce((a, b) => a + b) / int8.length
    t.ok(Math.abs(mean) < 4 * rougher / Math.sqrt(int8.length),
      `no token is made likelier than another on the whole: ${mean.toFixed(5)}`)
  })
}

// ---- files

const file = golden('par-4x/model.pt')
const options = { heads: 2, grid: 8 }

t.test('a converted file', async t => {
  const dir = t.testdir({})
  const output = path.join(dir, 'int8.safetensors')
  const progress: Array<[number, number]> = []
  const result = await convertCheckpoint(file, output,
    { ...options, precision: 'int8', onProgress: (...bytes) => progress.push(bytes) })
  const [from, to] = [await openCheckpoint(file), await openCheckpoint(output)]
  t.equal(result.bytes, fs.statSync(output).size)
  t.same(progress.at(-1), [progress.at(-1)![1], progress.at(-1)![1]], 'progress')
  const bytes = fs.readFileSync(output)
  let integers = 0
  for (const [name, tensor] of to.tensors) {
    const before = readTensor(from, name)
    if (tensor.dtype !== 'int8') {
      t.equal(tensor.dtype, 'bfloat16', name)
      t.notMatch(name, /wqkv|wo|w1|w2|w3|output/)
      continue
    }
    integers++
    const [rows, inputs] = tensor.shape as [number, number]
    const groups = Math.ceil(inputs / 64)
    const found = Float32Array.from({ length: rows * inputs }, (_, i) => bytes.readInt8(tensor.offset + i) *
      bytes.readFloatLE(tensor.scales! + 4 * (Math.floor(i / inputs) * groups + Math.floor(i % inputs / 64))))
    t.ok(identical(found, toInt8(before, inputs)), `${name}: integers and scales`)
  }
  t.equal(integers, 5 * describeTransformer(from, options).model.layers + 1, 'all matrices, and the head')

  const asked = await Par.load({
    transformer: transformerFile('par-4x'), tokenizer: tokenizerFile(), device, precision: 'int8'
  })
  const loaded = await Par.load({ transformer: output, tokenizer: tokenizerFile(), device })
  t.match(loaded.info, { precision: 'int8', precisionReason: 'auto: the file has 8-bit integers' })
  for (const par of [asked, loaded]) t.teardown(async () => { await par.dispose() })
  const [first, second] = await Promise.all([asked, loaded].map(async par =>
    await par.generate({ classId: [1, 2, 0], seed: 5 }))) as [GeneratedImage[], GeneratedImage[]]
  first.forEach(({ data }, i) => {
    t.ok(identical(data, second[i]!.data), `picture ${i}: the same from the file and from floats`)
  })
  const alone = await loaded.generate({ classId: 2, seed: second[1]!.seed })
  t.ok(identical(alone.data, second[1]!.data), 'and alone')

  // ---- and back
  const [wide, same] = [path.join(dir, 'float32.safetensors'), path.join(dir, 'same.safetensors')]
  await convertCheckpoint(output, wide, { precision: 'float32' })
  await convertCheckpoint(output, same)
  const back = await openCheckpoint(wide)
  const matrix = 'layers.0.attention.wqkv.weight'
  t.ok(identical(readTensor(back, matrix), toInt8(readTensor(from, matrix), 128)), 'integers times scales')
  const data = (name: string): Buffer => {
    const all = fs.readFileSync(name)
    return all.subarray(8 + Number(all.readBigUInt64LE(0)))
  }
  t.ok(data(same).equals(data(output)), 'as stored: the same integers and scales')
  const scores = []
  for (const transformer of [output, wide]) {
    const par = await Par.load({ transformer, device, precision: 'float32' })
    scores.push((await par.score({ tokens: alone.tokens, classId: 2 }))[0]!.logProbs)
    await par.dispose()
  }
  t.ok(identical(scores[0]!, scores[1]!), 'a file of integers in float32: what it converts to')
})

t.test('memory', async t => {
  const model = transformerModel('L', 4)
  const [low, lower] = (['bfloat16', 'int8'] as const).map(precision => weightBytes(device, model, precision))
  t.ok(lower! < 0.58 * low!, `${(lower! / 1e6).toFixed(0)} MB instead of ${(low! / 1e6).toFixed(0)} MB`)
})

// ---- what is refused

t.test('scales', async t => {
  const dir = t.testdir({})
  const good = path.join(dir, 'good.safetensors')
  await convertCheckpoint(file, good, { ...options, precision: 'int8' })
  const bytes = fs.readFileSync(good)
  const name = 'layers.1.feed_forward.w2.weight'
  const { scales, shape } = (await openCheckpoint(good)).tensors.get(name)!
  const groups = Math.ceil(shape[1]! / 64)
  for (const [what, scale] of Object.entries({
    NaN, zero: 0, 'minus zero': -0, negative: -0.01, infinite: Infinity, huge: 3e38
  })) {
    const damaged = Buffer.from(bytes)
    damaged.writeFloatLE(scale, scales! + 4 * (3 * groups + groups - 1))
    const bad = path.join(dir, `${what}.safetensors`)
    fs.writeFileSync(bad, damaged)
    for (const precision of ['auto', 'bfloat16'] as const) {
      t.match(await rejection(Par.load({ transformer: bad, device, precision })),
        { code: 'BAD_CHECKPOINT', message: /scales of tensor layers\.1\.feed_forward\.w2\.weight .* row 3 has/ },
        `${what}, ${precision}`)
    }
    t.match(await rejection(convertCheckpoint(bad, path.join(dir, 'out.safetensors'), { precision: 'float32' })),
      { code: 'BAD_CHECKPOINT', message: /scales of tensor/ }, `${what}: converted`)
    t.notOk(fs.existsSync(path.join(dir, 'out.safetensors')))
  }
  // Large, but finite: the numbers that come out are not.
  const large = Buffer.from(bytes)
  large.writeFloatLE(1e36, scales! + 4 * 3 * groups)
  fs.writeFileSync(path.join(dir, 'large.safetensors'), large)
  const par = await Par.load({ transformer: path.join(dir, 'large.safetensors'), tokenizer: tokenizerFile(), device })
  t.match(await rejection(par.generate({ classId: 1 })), { code: 'NON_FINITE' })
  await par.dispose()
})

type Header = Record<string, { dtype: string, shape: number[], data_offsets: [number, number] }>

/** A converted file whose header is changed; its data stays as it is. */
async function withHeader (dir: string): Promise<(change: (header: Header) => Header) => string> {
  const good = path.join(dir, 'good.safetensors')
  await convertCheckpoint(file, good, { ...options, precision: 'int8' })
  const bytes = fs.readFileSync(good)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Header
  return change => {
    const json = Buffer.from(JSON.stringify(change(structuredClone(header))))
    const head = Buffer.alloc(8)
    head.writeBigUInt64LE(BigInt(json.length))
    const changed = path.join(dir, 'changed.safetensors')
    fs.writeFileSync(changed, Buffer.concat([head, json, bytes.subarray(8 + length)]))
    return changed
  }
}

t.test('integers without their scales, or in another place', async t => {
  const dir = t.testdir({})
  const written = await withHeader(dir)
  const matrix = 'layers.0.attention.wo.weight'
  const renamed = written(all => Object.fromEntries(Object.entries(all).map(([name, entry]) =>
    [name === `${matrix}_scale` ? 'elsewhere' : name, entry])))
  t.match(await rejection(Par.load({ transformer: renamed, device })), {
    code: 'BAD_CHECKPOINT',
    message: /wo\.weight" is stored as int8, without the scales.*wo\.weight_scale" of float32, \[128, 2\]/
  }, 'absent')
  const turned = written(all => ({ ...all, [`${matrix}_scale`]: { ...all[`${matrix}_scale`]!, shape: [2, 128] } }))
  t.match(await rejection(Par.load({ transformer: turned, device })),
    { code: 'BAD_CHECKPOINT', message: /without the scales/ }, 'of another shape')
  t.match(await rejection(convertCheckpoint(tokenizerFile(), path.join(dir, 'vq.safetensors'), { precision: 'int8' })),
    { code: 'INVALID_OPTION', message: /'int8' is for transformers, and .*vq\.pt is a tokenizer/ })
})

t.test('integers where none belong', async t => {
  const written = await withHeader(t.testdir({}))
  // The table of tokens as integers; its scales in place of the second half of what it had.
  const table = 'tok_embeddings.weight'
  const tables = written(header => {
    const { shape, data_offsets: [begin, end] } = header[table]!
    const [rows, inputs] = shape as [number, number]
    const [middle, scaled] = [begin + rows * inputs, begin + rows * inputs * 17 / 16]
    return {
      ...header,
      [table]: { dtype: 'I8', shape, data_offsets: [begin, middle] },
      [`${table}_scale`]: { dtype: 'F32', shape: [rows, inputs / 64], data_offsets: [middle, scaled] },
      rest: { dtype: 'U8', shape: [end - scaled], data_offsets: [scaled, end] }
    }
  })
  t.match(await rejection(Par.load({ transformer: tables, device })), {
    code: 'BAD_CHECKPOINT', message: /"tok_embeddings\.weight" is stored as int8, which only matrices of layers/
  })
  const norm = written(header => {
    const before = header['norm.weight']!
    return { ...header, 'norm.weight': { ...before, dtype: 'I8', shape: [2 * before.shape[0]!] } }
  })
  t.match(await rejection(Par.load({ transformer: norm, device })),
    { code: 'BAD_CHECKPOINT', message: /"norm\.weight" is stored as int8, expected float32.*Convert it in PyTorch/ })
})

t.test('floats that are not finite', async t => {
  const dir = t.testdir({})
  const plain = path.join(dir, 'plain.safetensors')
  await convertCheckpoint(file, plain, { ...options, precision: 'float32', convertFloats })
  const bytes = fs.readFileSync(plain)
  const name = 'layers.0.feed_forward.w1.weight'
  for (const value of [NaN, Infinity, 3.4e38]) {
    bytes.writeFloatLE(value, (await openCheckpoint(plain)).tensors.get(name)!.offset + 4 * 777)
    fs.writeFileSync(plain, bytes)
    t.match(await rejection(convertCheckpoint(plain, path.join(dir, 'int8.safetensors'), { precision: 'int8' })),
      { code: 'BAD_CHECKPOINT', message: /w1\.weight" holds numbers that are not finite, or too large/ })
    if (value === 3.4e38) continue // a product of it alone may still be finite
    const par = await Par.load({ transformer: plain, tokenizer: tokenizerFile(), device, precision: 'int8' })
    t.match(await rejection(par.generate({ classId: 1 })), { code: 'NON_FINITE' }, `${value}`)
    await par.dispose()
  }
})

t.test('GPUs', async t => {
  const gpu = { index: 0, name: 'NVIDIA H200', capability: [9, 0] as [number, number], memory: 150e9 }
  const facts = {
    cpu: addon().cpu(),
    cuda: { compiled: true, driver: 13000, runtime: 13000, architectures: '90', devices: [gpu] }
  }
  for (const wanted of ['auto', 'cuda:0'] as const) {
    t.match(chooseFrom(facts, wanted, 'int8'), { device: 'cuda:0', precision: 'int8', precisionReason: 'asked for' })
  }
})
