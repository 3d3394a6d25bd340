// eval: what it says of sets of every kind, as text and as JSON; what it asks for where something is missing.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { bytesOf, expected, fixture, npy, rows, runtimeFolder, writeNetwork, zip } from '../evaluation/arrays.js'
import { built } from '../support/built.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const write = (name: string, bytes: Uint8Array): string => {
  fs.writeFileSync(at(name), bytes)
  return at(name)
}
const withRuntime = { env: { NODE_PATH: runtimeFolder(folder) } }
t.before(built)

interface Result {
  fid: number | null
  inceptionScore: number | null
  inceptionScoreStandardDeviation: number | null
  splits: number | null
  precision: number | null
  recall: number | null
  notComputed?: Record<string, string>
  generated: Record<string, unknown>
  reference: Record<string, unknown>
}

async function json (args: string[], options = {}): Promise<Result> {
  const { code, stdout, stderr } = await parvis(['eval', ...args, '--json'], options)
  if (code !== 0 || stderr !== '') throw new Error(`${code}: ${stderr}`)
  return JSON.parse(stdout) as Result
}

t.test('features', async t => {
  const [generated, real] = [fixture('many-generated.npz'), fixture('many-real.npz')]
  const found = await json([generated, '--reference', real, '--split-size', '100', '--threads', '2'])
  const { fid, precision, recall } = expected.many
  t.ok(Math.abs(found.fid! - fid) < 1e-6 * fid)
  t.match(found, { precision, recall, splits: 3, notComputed: undefined, linearAlgebra: /^ml-matrix \d/ })
  t.ok(Math.abs(found.inceptionScore! - expected['inception, size 100'][0]) < 1e-12)
  t.match(found.generated, { file: generated, pictures: 240, dimensions: 64, classes: 10, distanceFrom: 'features' })
  t.match(found.reference, { pictures: 220, classes: null, precisionAndRecallFrom: 'features', unused: [] })

  const { code, stdout, stderr } = await parvis(['eval', generated, '-r', real, '--splits', '7'])
  t.match({ code, stderr }, { code: 0, stderr: '' })
  t.match(stdout, new RegExp('^generated: .*many-generated\\.npz: 240 pictures, 64 features; distance, precision and ' +
    'recall from its features; Inception score from its probabilities\nreference: .*\n' +
    ' {2}Frechet distance \\(FID\\) +7\\.38581 +means [\\d.]+, covariances [\\d.]+\n' +
    ' {2}Inception score +3\\.48919 +standard deviation 0\\.294895 over 7 splits\n' +
    ' {2}precision +0\\.8833 +of 240 generated, k = 3\n {2}recall +0\\.7636 +of 220 real, k = 3\n$'))
  t.match(await json([generated, '-r', generated]), { fid: 0, precision: 1, recall: 1, splits: 1 })
  const k = await json([generated, '-r', real, '--neighbours', '1'])
  t.ok(k.precision! < precision && k.recall! < recall, 'smaller balls')
})

t.test('what is missing is null, and said', async t => {
  const generated = fixture('few-generated.npz')
  const statistics = await json([generated, '-r', fixture('few-statistics-float32.npz')])
  t.match(statistics, {
    inceptionScore: null, precision: null, recall: null,
    notComputed: { inceptionScore: /needs class prob/, precision: /the reference set has statistics only/ }
  })
  t.ok(Math.abs(statistics.fid! - expected.few.fid) < 1e-4 * expected.few.fid)
  const { stdout, stderr } = await parvis(['eval', generated, '-r', fixture('few-real.npz'), '--no-precision-recall'])
  t.match(stdout, /FID\) +102\.781 .*\nnot computed: Inception score: it needs[^\n]*\nnot computed: precision, recall: --no/)
  t.match(stderr, /few-generated\.npz: 40 pictures for 96 features: the distance depends much on their number/)
  t.notMatch(stdout, /^ {2}(precision|recall|Inception)/m)
  const only = write('p.npz', zip({ 'probabilities.npy': rows([[1, 0], [0, 1]]) }))
  const scores = await json([only, '-r', generated])
  t.match(scores, { fid: null, precision: null, notComputed: { fid: /the generated set has no features/ } })
  t.ok(Math.abs(scores.inceptionScore! - 2) < 1e-12)
})

t.test('pictures and a network', async t => {
  const colours = (n: number, seed: number): Uint8Array =>
    Uint8Array.from({ length: n * 48 }, (_, k) => (Math.floor(k / 48) ** 2 * 37 * (k % 3 + 1) + seed * k % 11) % 256)
  const [ours, theirs] = [colours(20, 3), colours(25, 5)]
  const network = writeNetwork(at('net.onnx'), { type: 'uint8', input: ['N', 3, 'H', 'W'], logits: 'logits' })
  const generated = write('generated.npz', zip({ 'arr_0.npy': npy('|u1', [20, 4, 4, 3], ours) }))
  const real = write('real.npz', zip({ 'arr_0.npy': npy('|u1', [25, 4, 4, 3], theirs) }, true))
  const found = await json([generated, '-r', real, '--features', network], withRuntime)
  t.match(found, {
    generated: { pictures: 20, dimensions: 3, classes: 4, distanceFrom: 'pictures', inceptionScoreFrom: 'pictures' },
    network: { input: { layout: 'nchw', type: 'uint8' }, outputs: { features: 'features', probabilities: 'logits' } }
  })
  t.ok(found.inceptionScore! >= 1 && found.inceptionScore! <= 4)

  // The same from features: the means of the channels.
  const means = (data: Uint8Array): number[][] => Array.from({ length: data.length / 48 }, (_, row) =>
    [0, 1, 2].map(channel => Math.fround(
      data.subarray(row * 48, row * 48 + 48).filter((_, k) => k % 3 === channel).reduce((a, b) => a + b, 0) / 16)))
  const features = write('f.npz', zip({ 'features.npy': rows(means(ours), 'f4') }))
  const same = await json([features, '-r', real, '--features', network], withRuntime)
  t.ok(Math.abs(same.fid! - found.fid!) < 1e-6 * found.fid!, `${same.fid} is ${found.fid}`)
  t.match(same, { precision: found.precision, recall: found.recall, inceptionScore: null })

  // A file as ADM's reference: its statistics for the distance, its pictures for the neighbours.
  const reference = write('adm.npz', zip({
    'arr_0.npy': npy('|u1', [25, 4, 4, 3], theirs), 'mu.npy': npy('<f8', [3], bytesOf([9, 8, 7])),
    'sigma.npy': rows([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), 'mu_s.npy': npy('<f8', [3], bytesOf([1, 2, 3])),
    'sigma_s.npy': rows([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
  }))
  const adm = await json([generated, '-r', reference, '--features', network], withRuntime)
  t.match(adm, {
    precision: found.precision, recall: found.recall,
    reference: { distanceFrom: 'statistics', precisionAndRecallFrom: 'pictures', unused: ['mu_s', 'sigma_s'] }
  })
  t.not(adm.fid, found.fid)
  const again = await json([generated, '-r', reference, '--features', network, '--recompute'], withRuntime)
  t.equal(again.fid, found.fid)
  const without = await json([features, '-r', reference])
  t.match(without, { fid: adm.fid, precision: null, notComputed: { precision: /pictures, whose features need/ } })

  fs.mkdirSync(at('folder'))
  for (let k = 0; k < 20; k++) {
    await sharp(ours.subarray(k * 48, k * 48 + 48), { raw: { width: 4, height: 4, channels: 3 } }).png()
      .toFile(at(`folder/${String(k).padStart(3, '0')}.png`))
  }
  t.equal((await json([at('folder'), '-r', real, '--features', network], withRuntime)).fid, found.fid, 'a folder')
})

t.test('what is refused', async t => {
  const real = fixture('many-real.npz')
  const pictures = write('pictures.npz', zip({ 'arr_0.npy': npy('|u1', [4, 4, 4, 3], new Uint8Array(192)) }))
  const network = writeNetwork(at('refused.onnx'), { type: 'uint8', input: ['N', 3, 'H', 'W'] })
  const three = write('three.npy', rows([[1, 2], [2, 1], [0, 4]]))
  const cases: Array<[string[], number, RegExp]> = [
    [[real], 2, /--reference is missing.*USAGE/],
    [['-', '-r', real], 2, /standard input will not do/],
    [[real, '-r', '-'], 2, /standard input will not do/],
    [['', '-r', real], 2, /empty/],
    [[pictures, '-r', real], 2, /pictures\.npz has pictures.*--features model\.onnx/],
    [[real, '-r', real, '--features', network], 2, /neither set has pictures/],
    [[real, '-r', real, '--layout', 'nchw'], 2, /--layout is about the network of --features/],
    [[real, '-r', real, '--probabilities-output', 'x'], 2, /--probabilities-output is about/],
    [[real, '-r', real, '--splits', '3', '--split-size', '3'], 2, /give one of them/],
    [[real, '-r', real, '--neighbours', '0'], 2, /--neighbours/],
    [[real, '-r', real, '--range', '0..2'], 2, /--range/],
    [[real, '-r', fixture('few-real.npz')], 1, /64 features a picture.*96.*two networks.*BAD_ARRAY/],
    [[three, '-r', three], 1, /three\.npy has 3 pictures.*need 4 at least.*BAD_ARRAY/],
    [[write('one.npy', rows([[1, 2]])), '-r', three], 1, /one\.npy has one picture.*BAD_ARRAY/],
    [[write('bad.npz', Buffer.from('nothing')), '-r', three], 1, /no \.npz and no \.npy file.*BAD_ARRAY/],
    [[at('nowhere'), '-r', three], 1, /FILE_NOT_FOUND/],
    [[pictures, '-r', pictures, '--features', at('none.onnx')], 1, /none\.onnx.*FILE_NOT_FOUND/],
    [[pictures, '-r', pictures, '--features', network, '--features-output', 'x'], 1, /no output "x".*INVALID_OPTION/]
  ]
  for (const [args, code, message] of cases) {
    t.match(await parvis(['eval', ...args], withRuntime), { code, stdout: '', stderr: message }, args.join(' '))
  }
  t.match(await parvis(['eval', three, '-r', three, '--no-precision-recall']), { code: 0 }, 'three are enough for this')
})

t.test('packages that are not installed', async t => {
  // A module that stands before all others, and cannot find what it is asked for.
  const hide = write('hide.js', Buffer.from(`
    const Module = require('node:module')
    const resolve = Module._resolveFilename
    Module._resolveFilename = function (request, ...rest) {
      if (request === 'ml-matrix' || request === 'onnxruntime-node') {
        throw Object.assign(new Error("Cannot find module '" + request + "'"), { code: 'MODULE_NOT_FOUND' })
      }
      return resolve.call(this, request, ...rest)
    }`))
  const env = { NODE_OPTIONS: `--require ${hide}` }
  const [generated, real] = [fixture('many-generated.npz'), fixture('many-real.npz')]
  t.match(await parvis(['eval', generated, '-r', real], { env }), {
    code: 1, stdout: '', stderr: /package ml-matrix.*npm install ml-matrix \(MODULE_NOT_FOUND\) \[NATIVE_UNAVAILABLE\]/
  })
  const pictures = write('hidden.npz', zip({ 'arr_0.npy': npy('|u1', [4, 4, 4, 3], new Uint8Array(192)) }))
  const network = writeNetwork(at('hidden.onnx'), { type: 'uint8', input: ['N', 3, 'H', 'W'] })
  const statistics = write('three.npz', zip({ 'mu.npy': npy('<f8', [3], bytesOf([9, 8, 7])), 'sigma.npy':
    rows([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) }))
  const env2 = { NODE_OPTIONS: `--require ${write('hide2.js', Buffer.from(fs.readFileSync(hide, 'utf8')
    .replace("request === 'ml-matrix' || ", '')))}` }
  t.match(await parvis(['eval', pictures, '-r', statistics, '--features', network], { env: env2 }), {
    code: 1, stdout: '', stderr: /package onnxruntime-node.*npm install onnxruntime-node.*\[NATIVE_UNAVAILABLE\]/
  })
  // Of two sets of features precision and recall need neither.
  const scores = write('scores.npz', zip({ 'probabilities.npy': rows([[1, 0], [0, 1]]) }))
  t.match(await json([scores, '-r', real], { env }), { fid: null, splits: 1 })
  t.match(await parvis(['labels'], { env }), { code: 0 }, 'no other command asks for them')
})

t.test('Ctrl-C', async t => {
  const large = write('large.npy', npy('<f4', [6000, 512], bytesOf(
    Array.from({ length: 6000 * 512 }, (_, k) => k * 7919 % 10007), 'f4')))
  const began = performance.now()
  const { code, stderr } = await parvis(['eval', large, '-r', large, '--threads', '1'], {
    started: child => setTimeout(() => child.kill('SIGINT'), 1500)
  })
  t.match({ code, stderr }, { code: 130, stderr: /stopped by SIGINT.*INTERRUPTED/ })
  t.ok(performance.now() - began < 10_000)
})
