// Conversion to .safetensors: same values, right metadata, nothing left behind.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { linkSync, lstatSync, readFileSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import type { DType } from '../../lib/machine/native.js'
import path from 'node:path'
import t from 'tap'
import {
  compareChecksums, convertCheckpoint, describeTokenizer, describeTransformer, identify, openCheckpoint,
  type ConvertOptions
} from '../../lib/checkpoint/index.js'
import { writeSafetensors } from '../../lib/checkpoint/safetensors-write.js'
import { findGolden, golden } from '../support/golden.js'
import { py, writePt } from '../support/pt-writer.js'
import { convertFloats, fromBits, readTensor, toBits } from './floats.js'
import { safetensorsFile, stateDict, tile, transformerShapes, values } from './tiny.js'

const cases: Array<[string, ConvertOptions, object]> = [
  ['par-4x/model.pt', { heads: 2 },
    { n: 4, gridFrom: 'metadata', headsFrom: 'metadata', grid: [8, 8], model: { heads: 2, dim: 128 } }],
  ['par-16x-hd100/model.pt', { heads: 2, grid: 8 }, { n: 16, grid: [8, 8], model: { headSize: 100 } }],
  ['llamagen/model.pt', { heads: 2, grid: [8, 8] }, { n: 1, grid: [8, 8] }]
]

for (const [name, options, expected] of cases) {
  t.test(`${name}: stored types are kept, and converted where asked`, async t => {
    const dir = t.testdir({})
    const from = await openCheckpoint(golden(name))
    for (const precision of [undefined, 'bfloat16', 'float16', 'float32'] as const) {
      const output = path.join(dir, 'out.safetensors')
      const progress: Array<[number, number]> = []
      const result = await convertCheckpoint(golden(name), output,
        { ...options, precision, convertFloats, onProgress: (...bytes) => progress.push(bytes) })
      const to = await openCheckpoint(output)
      t.match(describeTransformer(to), expected, 'no overrides are needed any more')
      t.match(JSON.parse(to.metadata.parvis as string), { kind: 'transformer', sourceFile: 'model.pt' })
      t.match(
        result, { kind: 'transformer', tensors: from.tensors.size, bytes: readFileSync(output).length, file: output }
      )
      t.same([...to.tensors.keys()], describeTransformer(from, options).tensors.map(tensor => tensor.name))
      let wrong = 0
      for (const [tensorName, tensor] of to.tensors) {
        const dtype = (precision ?? from.tensors.get(tensorName)!.dtype) as DType
        if (tensor.dtype !== dtype || tensor.strides) wrong++
        const before = readTensor(from, tensorName)
        if (!readTensor(to, tensorName).every((value, i) => value === fromBits(toBits(before[i]!, dtype), dtype))) {
          wrong++
        }
      }
      t.equal(wrong, 0, `${precision ?? 'as stored'}: values`)
      const total = progress.at(-1)![1]
      t.ok(progress[0]![0] === 0 && progress.at(-1)![0] === total &&
        progress.every(([done], i) => i === 0 || done > progress[i - 1]![0]), 'progress')
    }
    t.same(readdirSync(dir), ['out.safetensors'])
  })
}

t.test('the golden tokenizer', { skip: findGolden('vq-f4/vq.pt') ? false : 'the fixture is not at hand' }, async t => {
  const output = path.join(t.testdir({}), 'vq.safetensors')
  t.match(await convertCheckpoint(golden('vq-f4/vq.pt'), output, {}), { kind: 'tokenizer' })
  const [from, to] = [await openCheckpoint(golden('vq-f4/vq.pt')), await openCheckpoint(output)]
  t.equal(identify(to), 'tokenizer')
  t.same(describeTokenizer(to).model, describeTokenizer(from).model)
  t.equal(to.tensors.has('quantize.codebook_used'), false)
  t.same(readTensor(to, 'decoder.conv_out.weight'), readTensor(from, 'decoder.conv_out.weight'))
})

t.test('strides are gathered; other tensors are left out', async t => {
  const dir = t.testdir({})
  const shapes = transformerShapes({ dim: 16, feedForward: 20 })
  const transposed = values(16 * 20, 5)
  const dict = stateDict(shapes)
  dict.set('layers.0.feed_forward.w2.weight',
    py.tensor({ shape: [16, 20], strides: [1, 16], data: new Uint8Array(transposed.buffer) }))
  dict.set('layers.0.feed_forward.w1.weight',
    py.tensor({ shape: [20, 16], strides: [32, 2], offset: 1, dtype: 'float16', data: Buffer.alloc(2000, 0x3c) }))
  dict.set('freqs_cis', py.tensor({ shape: [4] }))
  dict.set('counter', py.tensor({ dtype: 'int64', shape: [] }))
  writePt(path.join(dir, 'in.pt'), { model: dict })
  await convertCheckpoint(path.join(dir, 'in.pt'), path.join(dir, 'out.safetensors'),
    { heads: 2, precision: 'float32', convertFloats })
  const to = await openCheckpoint(path.join(dir, 'out.safetensors'))
  t.same([...readTensor(to, 'layers.0.feed_forward.w2.weight')],
    Array.from({ length: 320 }, (_, i) => transposed[(i % 20) * 16 + Math.floor(i / 20)]))
  t.ok(readTensor(to, 'layers.0.feed_forward.w1.weight').every(value => value === fromBits(0x3c3c, 'float16')))
  t.same([...to.tensors.keys()].sort(), [...shapes.keys()].sort())
  t.equal(to.others.size, 0)
})

t.test('tensors larger than a chunk, contiguous and not', async t => {
  const dir = t.testdir({})
  const shapes = transformerShapes({ dim: 8, vocabulary: 700_000 })
  const dict = stateDict(shapes)
  const rows = new Float32Array(700_000 * 8).map((_, i) => i % 65521)
  dict.set('tok_embeddings.weight', py.tensor({ shape: [700_000, 8], data: new Uint8Array(rows.buffer) }))
  dict.set('output.weight',
    py.tensor({ shape: [700_000, 8], strides: [1, 700_000], data: new Uint8Array(rows.buffer) }))
  writePt(path.join(dir, 'in.pt'), dict)
  await convertCheckpoint(path.join(dir, 'in.pt'), path.join(dir, 'out.safetensors'), { heads: 2 })
  const to = await openCheckpoint(path.join(dir, 'out.safetensors'))
  t.ok(readTensor(to, 'tok_embeddings.weight').every((value, i) => value === rows[i]))
  t.ok(readTensor(to, 'output.weight').every((value, i) => value === rows[(i % 8) * 700_000 + Math.floor(i / 8)]))
})

t.test('metadata is carried through a second conversion', async t => {
  const dir = t.testdir({})
  const { entries, bytes } = tile(transformerShapes())
  const parvis = { kind: 'transformer', heads: 2, grid: [4, 6], labels: ['a', 'b', 'c'], sampling: {
    guidanceScale: 2, topK: 3
  }, name: 'tiny', codebookSha256: 'ab'.repeat(32), sourceFile: 'first.pt', sourceSha256: 'cd'.repeat(32) }
  writeFileSync(path.join(dir, 'in.safetensors'),
    safetensorsFile({ __metadata__: { parvis: JSON.stringify(parvis) }, ...entries }, bytes))
  await convertCheckpoint(path.join(dir, 'in.safetensors'), path.join(dir, 'out.safetensors'),
    { precision: 'bfloat16', convertFloats })
  t.match(describeTransformer(await openCheckpoint(path.join(dir, 'out.safetensors'))),
    { labels: ['a', 'b', 'c'], sampling: { guidanceScale: 2, topK: 3 }, name: 'tiny', grid: [4,
      6], codebookSha256: 'ab'.repeat(32) })
  const sha256 = createHash('sha256').update(readFileSync(path.join(dir, 'in.safetensors'))).digest('hex')
  t.same(describeTransformer(await openCheckpoint(path.join(dir, 'out.safetensors'))).source,
    { file: 'in.safetensors', sha256 }, 'of the file that was converted')
  await convertCheckpoint(path.join(dir, 'in.safetensors'), path.join(dir, 'out.safetensors'), { checksum: false })
  t.same(describeTransformer(await openCheckpoint(path.join(dir, 'out.safetensors'))).source,
    { file: 'in.safetensors' }, 'no checksum')
})

t.test('refusals', async t => {
  const dir = t.testdir({ folder: {} })
  const input = path.join(dir, 'in.pt')
  const output = path.join(dir, 'out.safetensors')
  writePt(input, stateDict(transformerShapes()))
  linkSync(input, path.join(dir, 'hard.pt'))
  symlinkSync(input, path.join(dir, 'soft.pt'))
  for (const same of [input, `${dir}/folder/../in.pt`, path.join(dir, 'hard.pt'), path.join(dir, 'soft.pt')]) {
    await t.rejects(convertCheckpoint(input, same, { heads: 2 }), { code: 'INVALID_OPTION', message: /same file/ })
  }
  await t.rejects(convertCheckpoint(input, path.join(dir, 'folder'), { heads: 2 }),
    { code: 'INVALID_OPTION', message: /folder/ })
  await t.rejects(convertCheckpoint(input, '', { heads: 2 }), { code: 'INVALID_OPTION' })
  await t.rejects(convertCheckpoint(input, path.join(dir, 'no', 'out'), { heads: 2 }),
    { code: 'FILE_NOT_FOUND', message: /cannot be written/ })
  await t.rejects(convertCheckpoint(path.join(dir, 'absent'), output), { code: 'FILE_NOT_FOUND' })
  await t.rejects(convertCheckpoint(input, output), { code: 'BAD_CHECKPOINT', message: /Pass heads/ })
  await t.rejects(convertCheckpoint(input, output, { heads: 2, n: 16 }), { code: 'UNSUPPORTED_N' })
  await t.rejects(convertCheckpoint(input, output, { heads: 2, precision: 'float8' as 'float16' }),
    { code: 'INVALID_OPTION', message: /precision/ })
  t.same(readdirSync(dir).sort(), ['folder', 'hard.pt', 'in.pt', 'soft.pt'])
})

t.test('links are written through; what is no file is refused', async t => {
  const dir = t.testdir({ real: { 'old.safetensors': 'old' } })
  const at = (...names: string[]): string => path.join(dir, ...names)
  writePt(at('in.pt'), stateDict(transformerShapes()))
  symlinkSync('real/old.safetensors', at('link'))
  symlinkSync('real/new.safetensors', at('dangling'))
  symlinkSync('loop', at('loop'))
  execFileSync('mkfifo', [at('pipe')])
  for (const [name, target] of [['link', 'old'], ['dangling', 'new']] as const) {
    await convertCheckpoint(at('in.pt'), at(name), { heads: 2 })
    t.ok(lstatSync(at(name)).isSymbolicLink(), 'the link stays')
    t.equal((await openCheckpoint(at('real', `${target}.safetensors`))).tensors.size, transformerShapes().size)
  }
  for (const special of [at('pipe'), '/dev/null']) {
    await t.rejects(convertCheckpoint(at('in.pt'), special, { heads: 2 }),
      { code: 'INVALID_OPTION', message: /no regular file.*give the name of a file/ })
    await t.rejects(writeSafetensors(special, [], {}), { code: 'INVALID_OPTION' })
  }
  t.ok(lstatSync('/dev/null').isCharacterDevice())
  await t.rejects(convertCheckpoint(at('in.pt'), at('loop'), { heads: 2 }),
    { code: 'FILE_NOT_FOUND', message: /circle/ })
  await t.rejects(convertCheckpoint(at('in.pt'), at('x'.repeat(256)), { heads: 2 }),
    { code: 'FILE_NOT_FOUND', message: /too long/ })
  await convertCheckpoint(at('in.pt'), at('x'.repeat(255)), { heads: 2 })
  t.same(readdirSync(at('real')).sort(), ['new.safetensors', 'old.safetensors'], 'no part file')
})

t.test('failure and abort leave nothing, and an old output as it was', async t => {
  const dir = t.testdir({ 'out.safetensors': 'old' })
  const input = path.join(dir, 'in.pt')
  const output = path.join(dir, 'out.safetensors')
  writePt(input, stateDict(transformerShapes()))
  let calls = 0
  const failing = async (data: Uint8Array): Promise<Uint8Array> => {
    if (++calls === 5) throw new Error('no')
    return await convertFloats(data, 'float32', 'float16')
  }
  await t.rejects(convertCheckpoint(input, output, { heads: 2, precision: 'float16', convertFloats: failing }),
    { message: 'no' })
  await t.rejects(convertCheckpoint(input, output,
    { heads: 2, precision: 'float16', convertFloats: async () => new Uint8Array(3) }), { code: 'INTERNAL' })
  const controller = new AbortController()
  const reason = new Error('enough')
  const outcome = await convertCheckpoint(input, output,
    { heads: 2, signal: controller.signal, onProgress: done => { if (done > 100) controller.abort(reason) } })
    .catch((error: unknown) => error)
  t.equal(outcome, reason)
  t.same(readdirSync(dir).sort(), ['in.pt', 'out.safetensors'])
  t.equal(readFileSync(output, 'utf8'), 'old')
})

t.test('an input that is replaced or written to meanwhile is refused', async t => {
  const dir = t.testdir({})
  const [input, other, output] = [path.join(dir, 'in.safetensors'), path.join(dir, 'other.safetensors'),
    path.join(dir, 'out.safetensors')]
  const shapes = transformerShapes()
  // The same tensors in another order: their places differ.
  const [one, two] = [tile(shapes), tile(new Map([...shapes].reverse()))]
  const refused = { code: 'BAD_CHECKPOINT', message: /was replaced or written to/ }
  writeFileSync(input, safetensorsFile(one.entries, one.bytes))
  const described = await openCheckpoint(input)
  writeFileSync(other, safetensorsFile(two.entries, two.bytes))
  renameSync(other, input)
  await t.rejects(compareChecksums({ ...described, checked: [{ what: 'all', offset: 0, bytes: 8, crc32: 0 }] }),
    refused, 'checksums')
  for (const rewrite of [() => {
    writeFileSync(other, safetensorsFile(one.entries, one.bytes))
    renameSync(other, input)
  }, () => { writeFileSync(input, safetensorsFile(one.entries, one.bytes)) }]) {
    writeFileSync(input, safetensorsFile(two.entries, two.bytes))
    // The grid is asked for when the file was read and is not yet opened again.
    const options: ConvertOptions = { heads: 2, grid: 8, checksum: false }
    Object.defineProperty(options, 'grid', { enumerable: true, get: () => { rewrite(); return 8 } })
    await t.rejects(convertCheckpoint(input, output, options), refused)
  }
  t.notOk(readdirSync(dir).includes('out.safetensors'))
  writeFileSync(input, safetensorsFile(two.entries, two.bytes))
  let written = false
  await t.rejects(convertCheckpoint(input, output,
    { heads: 2, checksum: false, onProgress: done => {
      if (done > 0 && !written) { written = true; writeFileSync(input, safetensorsFile(one.entries, one.bytes)) }
    } }),
  refused, 'while it is read')
  t.notOk(readdirSync(dir).includes('out.safetensors'))
})

t.test('names are of the folder in which the process is when it is called', async t => {
  const dir = t.testdir({ elsewhere: {} })
  const before = process.cwd()
  t.teardown(() => { process.chdir(before) })
  writePt(path.join(dir, 'in.pt'), stateDict(transformerShapes()))
  process.chdir(dir)
  const converting = convertCheckpoint('in.pt', 'out.safetensors', { heads: 2 })
  process.chdir(path.join(dir, 'elsewhere'))
  t.equal((await converting).file, 'out.safetensors')
  t.same(readdirSync(dir).sort(), ['elsewhere', 'in.pt', 'out.safetensors'])
})

t.test('the reference conversion itself', t => {
  // By PyTorch: torch.tensor(x).half()/.bfloat16().view(torch.int16).
  const pairs: Array<[number, number, number]> = [
    [1, 0x3c00, 0x3f80], [-2.5, 0xc100, 0xc020], [65504, 0x7bff, 0x4780], [65519, 0x7bff, 0x4780],
    [65520, 0x7c00, 0x4780], [1e-8, 0, 0x322c],
    [5.9604645e-8, 1, 0x3380], [0.1, 0x2e66, 0x3dcd], [1 + 2 ** -11, 0x3c00, 0x3f80],
    [1 + 3 * 2 ** -11, 0x3c02, 0x3f80], [1 + 2 ** -8, 0x3c04, 0x3f80], [1 + 3 * 2 ** -8, 0x3c0c, 0x3f82]
  ]
  for (const [value, half, brain] of pairs) {
    t.same([toBits(Math.fround(value), 'float16'), toBits(value, 'bfloat16')], [half, brain], String(value))
  }
  t.end()
})
