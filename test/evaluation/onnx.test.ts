// Features by a network: what goes in, which outputs are taken, what is refused. The networks are whole ONNX files; a
// stand-in of a few lines runs them, or the real onnxruntime-node: PARVIS_ONNXRUNTIME=FOLDER/node_modules.

import t from 'tap'
import fs from 'node:fs'
import Module from 'node:module'
import path from 'node:path'
import type { Rgb } from '../../lib/pictures/resample.js'
import type { Pictures } from '../../lib/evaluation/features.js'
import { inputOf, Network, outputsOf, type NetworkOptions } from '../../lib/evaluation/onnx.js'
import { temporaryFolder } from '../cli/run.js'
import { runtimeFolder, weights, writeNetwork, type NetworkShape } from './arrays.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const network = (name: string, shape: Parameters<typeof writeNetwork>[1]): string => writeNetwork(at(name), shape)

t.before(() => {
  process.env.NODE_PATH = runtimeFolder(folder)
  ;(Module as unknown as { _initPaths (): void })._initPaths()
})

function picture (width: number, height: number, seed: number): Rgb {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, k) => (k * k * 7 + seed * 31) % 256)
  return { data, width, height }
}

function pictures (list: readonly Rgb[]): Pictures {
  return { count: list.length, name: 'pictures', async * read () { yield * list } }
}

function means (list: readonly Rgb[], low = 0, high = 255): number[] {
  return list.flatMap(({ data }) => [0, 1, 2].map(channel => {
    const own = data.filter((_, k) => k % 3 === channel)
    return low + (high - low) / 255 * own.reduce((a, b) => a + b, 0) / own.length
  }))
}

const close = (found: ArrayLike<number>, wanted: readonly number[]): boolean =>
  found.length === wanted.length && wanted.every((value, k) => Math.abs(found[k]! - value) < 1e-3)

async function read (
  file: string, list: readonly Rgb[], options?: NetworkOptions
): Promise<{ features: ArrayLike<number>, probabilities?: ArrayLike<number> }> {
  const loaded = await Network.load(file, options)
  try {
    const done: number[] = []
    const { features, probabilities } = await loaded.read(pictures(list), undefined, all => done.push(all))
    if (done.at(-1) !== list.length) throw new Error(`${done.join()} of ${list.length}`)
    return { features: features.data, ...probabilities && { probabilities: probabilities.data } }
  } finally {
    await loaded.close()
  }
}

t.test('types, layouts, ranges, batches', async t => {
  const list = Array.from({ length: 70 }, (_, k) => picture(6, 4, k))
  const shapes: Array<[NetworkShape, NetworkOptions, number, number]> = [
    [{ type: 'uint8', input: ['N', 3, 'H', 'W'] }, {}, 0, 255],
    [{ type: 'uint8', input: ['N', 'H', 'W', 3] }, { range: '0..1' }, 0, 255],
    [{ type: 'float32', input: ['N', 3, 4, 6] }, {}, 0, 255],
    [{ type: 'float32', input: ['N', 'H', 'W', 3] }, { range: '0..1' }, 0, 1],
    [{ type: 'float32', input: ['N', 3, 'H', 'W'] }, { range: '-1..1' }, -1, 1],
    [{ type: 'float32', input: [32, 3, 4, 6] }, {}, 0, 255],
    [{ type: 'float32', input: [1, 4, 6, 3] }, {}, 0, 255]
  ]
  for (const [shape, options, low, high] of shapes) {
    const { features, probabilities } = await read(network('a.onnx', shape), list, options)
    t.ok(close(features, means(list, low, high)), JSON.stringify([shape, options]))
    t.equal(probabilities, undefined)
  }
})

t.test('pictures of several sizes', async t => {
  const list = [picture(6, 4, 1), picture(6, 4, 2), picture(3, 9, 3), picture(6, 4, 4)]
  const { features } = await read(network('any.onnx', { type: 'uint8', input: ['N', 3, 'H', 'W'] }), list)
  t.ok(close(features, means(list)), 'as they are, where the network takes any')
  const plain: Rgb = { data: new Uint8Array(50 * 40 * 3).map((_, k) => [10, 200, 90][k % 3]!), width: 50, height: 40 }
  const resized = await read(network('fixed.onnx', { type: 'uint8', input: ['N', 3, 8, 8] }), [plain])
  t.ok(close(resized.features, [10, 200, 90]), 'resized where it fixes the size')
})

t.test('class scores', async t => {
  const list = [picture(6, 4, 1), picture(6, 4, 2), picture(6, 4, 3)]
  const file = network('logits.onnx', { type: 'float32', input: ['N', 3, 'H', 'W'], logits: 'logits' })
  const { probabilities } = await read(file, list, { range: '0..1' })
  const own = means(list, 0, 1)
  const softmax = list.flatMap((_, row) => {
    const all = [0, 1, 2, 3].map(k =>
      Math.exp(weights.reduce((sum, line, channel) => sum + line[k]! * own[row * 3 + channel]!, 0)))
    return all.map(value => value / all.reduce((a, b) => a + b))
  })
  t.ok(close(probabilities!, softmax), 'the softmax of logits')
  const named = await read(file, list, { features: 'logits', probabilities: 'features' })
  t.equal(named.features.length, 12, 'outputs by their names')
  t.equal(named.probabilities!.length, 9)
})

t.test('which outputs', t => {
  const value = (name: string, ...shape: Array<number | string>): Parameters<typeof outputsOf>[1][number] =>
    ({ name, isTensor: true, type: 'float32', shape })
  const of = (values: Parameters<typeof outputsOf>[1], options: NetworkOptions = {}): object =>
    outputsOf('a.onnx', values, options)
  t.same(of([value('x', 'N', 2048)]), { features: 'x' }, 'the only one')
  t.same(of([value('a', 'N', 2048), value('b', 'N', 1008)]), { features: 'a', probabilities: 'b' }, 'by the classes')
  t.same(of([value('a', 'N', 64), value('pool_3:0', 'N', 1, 1, 2048), value('mixed_6/conv:0', 'N', 17, 17, 7)]),
    { features: 'pool_3:0' }, 'by its name; maps are none')
  t.same(of([value('softmax', 'N', 'C'), value('embedding', 'N', 'D')]),
    { features: 'embedding', probabilities: 'softmax' })
  t.same(of([value('a', 'N', 64), value('b', 'N', 64)], { features: 'b' }), { features: 'b' })
  t.throws(() => of([value('a', 'N', 64), value('b', 'N', 64)]),
    { code: 'INVALID_OPTION', message: /which of its outputs.*"a" \[N, 64\], "b" \[N, 64\]\. Give --features-output/ })
  t.throws(() => of([value('a', 'N', 64)], { features: 'c' }), { code: 'INVALID_OPTION', message: /no output "c"/ })
  t.throws(() => of([value('a', 'N', 64)], { probabilities: 'c' }), { message: /--probabilities-output/ })
  t.throws(() => of([value('maps', 'N', 8, 8, 64)]), { code: 'INVALID_OPTION' })
  t.end()
})

t.test('what goes in', t => {
  const of = (shape: Array<number | string>, type = 'float32', layout?: 'nchw' | 'nhwc'): object =>
    inputOf('a.onnx', [{ name: 'x', isTensor: true, type, shape }], layout)
  t.match(of(['N', 3, 299, 299]), { layout: 'nchw', width: 299, height: 299 })
  t.match(of([8, 'H', 256, 3], 'uint8'), { type: 'uint8', layout: 'nhwc', batch: 8, width: 256 })
  t.match(of([-1, -1, -1, -1], 'float32', 'nhwc'), { layout: 'nhwc' })
  t.throws(() => of(['N', 'C', 'H', 'W']), { code: 'INVALID_OPTION', message: /--layout nchw or --layout nhwc/ })
  t.throws(() => of(['N', 3, 'H', 3]), { code: 'INVALID_OPTION' })
  t.throws(() => of(['N', 1, 28, 28], 'float32', 'nchw'), { code: 'BAD_CHECKPOINT', message: /1 channels/ })
  t.throws(() => of(['N', 3, 299]), { code: 'BAD_CHECKPOINT', message: /\[N, 3, 299\]/ })
  t.throws(() => of(['N', 3, 8, 8], 'int64'), { code: 'BAD_CHECKPOINT', message: /int64/ })
  t.throws(() => of(['N', 3, 1e6, 1e6]), { code: 'BAD_CHECKPOINT', message: /too large/ })
  t.throws(() => inputOf('a.onnx', []), { code: 'BAD_CHECKPOINT', message: /0 inputs/ })
  t.end()
})

t.test('what is refused', async t => {
  fs.writeFileSync(at('not.onnx'), 'no network')
  await t.rejects(Network.load(at('not.onnx')), { code: 'BAD_CHECKPOINT', message: /onnxruntime cannot load it/ })
  await t.rejects(Network.load(at('nowhere.onnx')), { code: 'FILE_NOT_FOUND' })
  await t.rejects(Network.load(folder), { code: 'FILE_NOT_FOUND', message: /a folder/ })
  const fixed = network('sized.onnx', { type: 'uint8', input: ['N', 4, 4, 3] })
  await t.rejects(read(fixed, [picture(4, 4, 1)], { layout: 'nchw' }), { message: /4 channels/ })
  const controller = new AbortController()
  const loaded = await Network.load(fixed)
  const reading = loaded.read({
    count: 99,
    name: 'endless',
    async * read () { for (;;) yield picture(4, 4, 1) }
  }, controller.signal, () => controller.abort(new Error('enough')))
  await t.rejects(reading, { message: 'enough' })
  await loaded.close()
})

t.test('networks that fail', async t => {
  // These are not the work of a network that can be written down: the stand-in plays them.
  const folder = temporaryFolder()
  const before = process.env.PARVIS_ONNXRUNTIME
  delete process.env.PARVIS_ONNXRUNTIME
  const stand = path.join(runtimeFolder(folder), 'onnxruntime-node')
  if (before !== undefined) process.env.PARVIS_ONNXRUNTIME = before
  const real = require.resolve('onnxruntime-node')
  const kept = require.cache[real]
  require(real)
  const loadedReal = require.cache[real]!
  require.cache[real] = Object.assign(Object.create(loadedReal) as NodeModule, { exports: require(stand) as unknown })
  t.teardown(() => {
    if (kept) require.cache[real] = kept
    else require.cache[real] = loadedReal
  })
  const shape = { type: 'uint8', input: ['N', 3, 'H', 'W'] } as const
  await t.rejects(read(network('old.onnx', { ...shape, sabotage: 'old' }), [picture(4, 4, 1)]),
    { code: 'NATIVE_UNAVAILABLE', message: /1\.22/ })
  await t.rejects(read(network('run.onnx', { ...shape, sabotage: 'run' }), [picture(4, 4, 1)]),
    { code: 'BAD_CHECKPOINT', message: /cannot run it on pictures of 4 x 4/ })
  await t.rejects(read(network('nan.onnx', { ...shape, sabotage: 'nan' }), [picture(4, 4, 1)]),
    { code: 'NON_FINITE', message: /"features" with NaN/ })
})
