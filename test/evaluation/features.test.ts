// What a set is: recognized by what is in it, read, and refused where it does not hold together.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { openSet, type SetFile } from '../../lib/evaluation/features.js'
import { temporaryFolder } from '../cli/run.js'
import { bytesOf, fixture, npy, randoms, rows, zip } from './arrays.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

async function open (bytes: Uint8Array): Promise<SetFile> {
  fs.writeFileSync(at('set'), bytes)
  return await openSet(at('set'))
}

async function kinds (bytes: Uint8Array): Promise<string> {
  const set = await open(bytes)
  await set.close()
  const { file, close, unused, ...rest } = set
  return [...Object.keys(rest), ...unused.map(name => `(${name})`)].join(' ')
}

const pictures = (n = 2, shape = [4, 5, 3]): Buffer =>
  npy('|u1', [n, ...shape], Uint8Array.from({ length: shape.reduce((a, b) => a * b, n) }, (_, k) => k % 256))
const two = rows([[1, 2], [3, 4]])
const identity = rows([[1, 0], [0, 1]])
const mu = npy('<f8', [2], bytesOf([1, 2]))

t.test('recognized', async t => {
  t.equal(await kinds(zip({ 'features.npy': two })), 'features')
  t.equal(await kinds(zip({ 'mu.npy': mu, 'sigma.npy': identity })), 'statistics')
  t.equal(await kinds(zip({ 'arr_0.npy': pictures(), 'arr_1.npy': npy('<i8', [2], new Uint8Array(16)) })),
    'pictures (arr_1)', 'pictures and labels, as ADM writes them')
  t.equal(await kinds(zip({
    'mu.npy': mu, 'sigma.npy': identity, 'mu_s.npy': mu, 'sigma_s.npy': identity, 'arr_0.npy': pictures()
  })), 'statistics pictures (mu_s) (sigma_s)', 'a reference file of ADM')
  t.equal(await kinds(zip({ 'features.npy': two, 'probabilities.npy': rows([[1, 0], [0.5, 0.5]]) })),
    'features probabilities')
  t.equal(await kinds(zip({ 'images.npy': pictures() })), 'pictures', 'under any name')
  t.equal(await kinds(zip({ 'x.npy': two, 'labels.npy': npy('<i8', [2], new Uint8Array(16)) })), 'features (labels)')
  t.equal(await kinds(two), 'features', 'a .npy file')
  t.equal(await kinds(pictures()), 'pictures')
  t.equal(await kinds(zip({ 'a.npy': pictures(), 'arr_0.npy': pictures() })), 'pictures (a)')
})

t.test('read', async t => {
  const set = await open(zip({ 'features.npy': npy('<f4', [2, 1, 1, 3], bytesOf([1, 2, 3, 4, 5, 6], 'f4')) }))
  const { data, rows: count, columns } = await set.features!.read()
  t.same([count, columns, Array.from(data)], [2, 3, [1, 2, 3, 4, 5, 6]])
  t.ok(data instanceof Float32Array && data.buffer instanceof SharedArrayBuffer)
  await set.close()
  const fortran = await open(npy('<f8', [2, 3], bytesOf([1, 4, 2, 5, 3, 6]), 'True'))
  t.same(Array.from((await fortran.features!.read()).data), [1, 2, 3, 4, 5, 6])
  await fortran.close()
  const seen = await open(zip({ 'arr_0.npy': pictures(3, [2, 2, 1]) }, true))
  const list = []
  for await (const { data, width, height } of seen.pictures!.read()) list.push([width, height, Array.from(data)])
  t.same(list[2], [2, 2, [8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11, 11]], 'grey pictures')
  await seen.close()
  const statistics = await open(zip({ 'mu.npy': mu, 'sigma.npy': rows([[2, 1 + 1e-9], [1, 3]]) }))
  const { covariance } = await statistics.statistics!.read()
  t.equal(covariance[1], covariance[2], 'made symmetric')
  await statistics.close()
  const single = await open(zip({ 'mu.npy': npy('<f8', [], bytesOf([1])), 'sigma.npy': npy('<f8', [], bytesOf([4])) }))
  t.same(Array.from((await single.statistics!.read()).covariance), [4], 'one feature')
  await single.close()
})

t.test('a folder', async t => {
  const own = at('pictures')
  fs.mkdirSync(path.join(own, 'more.png'), { recursive: true })
  const red = { create: { width: 3, height: 2, channels: 3 as const, background: 'red' } }
  await sharp(red).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toFile(path.join(own, 'b.JPG'))
  await sharp({ create: { ...red.create, channels: 4 as const, background: { r: 0, g: 0, b: 0, alpha: 0 } } })
    .png().toFile(path.join(own, 'a.png'))
  await sharp(red).greyscale().webp({ lossless: true }).toFile(path.join(own, 'c.webp'))
  fs.writeFileSync(path.join(own, 'notes.txt'), 'no picture')
  fs.writeFileSync(path.join(own, '.hidden.png'), 'no picture')
  const set = await openSet(own)
  t.equal(set.pictures!.count, 3)
  const firsts = []
  for await (const { data, width, height } of set.pictures!.read()) {
    t.same([width, height, data.length], [3, 2, 18])
    firsts.push(Array.from(data.subarray(0, 3)))
  }
  t.same(firsts[0], [255, 255, 255], 'in order of their names; transparent ones on white')
  t.ok(firsts[1]![0]! > 250 && firsts[1]![1]! < 5)
  t.equal(new Set(firsts[2]).size, 1)
  fs.writeFileSync(path.join(own, 'd.png'), 'no picture')
  const damaged = await openSet(own)
  await t.rejects(async () => { for await (const each of damaged.pictures!.read()) t.ok(each) },
    { code: 'BAD_IMAGE', message: /d\.png: cannot be decoded/ })
  fs.mkdirSync(at('empty'))
  await t.rejects(openSet(at('empty')), { code: 'FILE_NOT_FOUND', message: /has no pictures \(\.png/ })
})

t.test('what does not hold together', async t => {
  const read = async (bytes: Uint8Array): Promise<void> => {
    const set = await open(bytes)
    try {
      await set.statistics?.read()
      await set.features?.read()
      await set.probabilities?.read()
    } finally {
      await set.close()
    }
  }
  const cases: Array<[Uint8Array, RegExp]> = [
    [zip({}), /it has no arrays\. A set is pictures \(uint8 \[N, H, W, 3\]\), features/],
    [zip({ 'x.npy': npy('<i8', [2], new Uint8Array(16)) }), /nothing that can be evaluated: "x" \[2\] of <i8\. A set/],
    [zip({ 'x.npy': two, 'y.npy': two }), /nothing that can be evaluated/],
    [npy('<f8', [3], bytesOf([1, 2, 3])), /nothing that can be evaluated: one array \[3\]/],
    [zip({ 'mu.npy': mu }), /array "mu" stands alone.*Add the other/],
    [zip({ 'sigma.npy': two }), /array "sigma" stands alone/],
    [zip({ 'mu.npy': mu, 'sigma.npy': rows([[1, 0, 0], [0, 1, 0]]) }), /"sigma" has the shape \(2, 3\).*\(2, 2\)/],
    [zip({ 'mu.npy': two, 'sigma.npy': identity }), /a mean has one axis/],
    [zip({ 'mu.npy': mu, 'sigma.npy': two }), /"sigma" is not symmetric: 3 at \[1, 0\], 2 at \[0, 1\]/],
    [zip({ 'mu.npy': mu, 'sigma.npy': rows([[1, 0], [0, -1]]) }), /variance -1 at \[1, 1\]/],
    [zip({ 'mu.npy': npy('<f8', [2], bytesOf([1, NaN])), 'sigma.npy': identity }), /"mu" holds NaN at place 1/],
    [zip({ 'features.npy': npy('<f8', [4], bytesOf([1, 2, 3, 4])) }), /features are a row for each picture/],
    [zip({ 'features.npy': npy('<f8', [2, 2, 2], new Uint8Array(64)) }), /\(2, 2, 2\); features are a row/],
    [zip({ 'features.npy': npy('<f8', [0, 2], new Uint8Array(0)) }), /it is empty/],
    [zip({ 'features.npy': npy('|b1', [2, 2], new Uint8Array(4)) }), /holds \|b1, and numbers are needed/],
    [zip({ 'features.npy': rows([[1, 2], [Infinity, 4]]) }), /"features" holds Infinity at place 2/],
    [zip({ 'features.npy': rows([[1, 2], [1e200, 4]]) }), /holds 1e\+200/],
    [zip({ 'features.npy': two, 'probabilities.npy': rows([[1, 0]]) }), /has 1 rows, and there are 2 of features/],
    [zip({ 'features.npy': two, 'probabilities.npy': rows([[1, 0], [3, -2]]) }), /a row, 1, that is none of prob/],
    [zip({ 'arr_0.npy': pictures(2, [4, 5, 4]) }), /pictures are \(N, height, width, 3\)/],
    [zip({ 'arr_0.npy': npy('|u1', [0, 4, 4, 3], new Uint8Array(0)) }), /it is empty/],
    [zip({ 'arr_0.npy': npy('|u1', [1, 1, 20000, 3], new Uint8Array(60000)) }), /at most 16384 a side/],
    [npy('|u1', [1, 2, 2, 3], new Uint8Array(12), 'True'), /numpy\.ascontiguousarray/]
  ]
  for (const [bytes, message] of cases) await t.rejects(read(bytes), { code: 'BAD_ARRAY', message }, String(message))
})

t.test('damaged files', async t => {
  // Of thousands of kinds; whatever is wrong with them is an error with a code, and soon.
  const whole = ['few-generated.npz', 'few-real.npz', 'odd-generated.npy', 'many-statistics.npz']
    .map(name => fs.readFileSync(fixture(name)))
  const random = randoms(11)
  const below = (most: number): number => Math.floor(Math.abs(random() * 1e6)) % most
  const codes = new Set<string>()
  const began = performance.now()
  for (let k = 0; k < 400; k++) {
    const bytes = Buffer.from(whole[k % whole.length]!)
    for (let change = 0; change <= k % 3; change++) {
      const place = [below(bytes.length), below(200), bytes.length - 1 - below(300)][below(3)]!
      if (below(2) === 0) bytes[place] = below(256)
      else bytes.fill(255, place, Math.min(bytes.length, place + 1 + below(8)))
    }
    try {
      const set = await open(bytes)
      await (set.statistics ?? set.features)!.read().finally(async () => await set.close())
    } catch (error) {
      codes.add((error as { code: string }).code)
    }
  }
  t.same([...codes], ['BAD_ARRAY'])
  t.ok(performance.now() - began < 20_000)
})

t.test('memory is not promised to a header', async t => {
  // What is deflated a thousand times may say so; this much there is not.
  const zeros = npy('<f8', [1 << 18, 8], new Uint8Array(1 << 24))
  const set = await open(zip({ 'features.npy': zeros }, true))
  const before = process.availableMemory
  process.availableMemory = () => 1e6
  t.teardown(() => { process.availableMemory = before })
  await t.rejects(set.features!.read(), { code: 'OUT_OF_MEMORY', message: /take 0\.0168 GB, and 0\.00100 GB are free/ })
  process.env.PARVIS_MEMORY_CHECK = '0'
  t.equal((await set.features!.read()).rows, 1 << 18)
  delete process.env.PARVIS_MEMORY_CHECK
  await set.close()
  const aborted = await openSet(fixture('many-real.npz'))
  await t.rejects(aborted.features!.read(AbortSignal.abort(new Error('enough'))), { message: 'enough' })
  await aborted.close()
})
