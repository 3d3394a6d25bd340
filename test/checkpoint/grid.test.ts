// What tells the token grid, in which order, and what is said where nothing tells or two things contradict each other.
// The values that trainers store were pickled by NumPy and PyTorch; the rest is written out here.

import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import {
  convertCheckpoint, describeTransformer, openCheckpoint, type TransformerDescription, type TransformerOverrides
} from '../../lib/checkpoint/index.js'
import { pixelsOfName } from '../../lib/checkpoint/file-names.js'
import { py, writePt } from '../support/pt-writer.js'
import { convertFloats } from './floats.js'
import { safetensorsFile, stateDict, tile, transformerShapes } from './tiny.js'

const n1 = transformerShapes({ transitions: 0 })
/** LlamaGen-B's shapes, without its 200 MB. */
const official = (layers: number, dim: number, feedForward: number): Map<string, unknown> =>
  new Map([...transformerShapes({ layers, dim, feedForward, vocabulary: 16384, classes: 1000, transitions: 0 })]
    .map(([name, shape]) =>
      [name, py.tensor({ dtype: 'bfloat16', shape, data: 2 * shape.reduce((a, b) => a * b, 1) })]))

async function described (
  file: string, overrides: TransformerOverrides = { heads: 2 }
): Promise<TransformerDescription> {
  return describeTransformer(await openCheckpoint(file), overrides)
}

const found = ({ grid, gridFrom }: TransformerDescription): unknown[] => [...grid, gridFrom]

t.test('published models with equal shapes: the name tells, or it is said', async t => {
  const dir = t.testdir({})
  const at = (name: string): string => path.join(dir, name)
  for (const [size, layers, dim, feedForward] of [['B', 12, 768, 2048], ['L', 24, 1024, 2816]] as const) {
    for (const [name, side] of [[`c2i_${size}_256.pt`, 16], [`c2i_${size}_384.pt`, 24],
      [`LlamaGen-${size}-256px.pt`, 16]] as const) {
      writePt(at(name), { model: official(layers, dim, feedForward) })
      const one = await described(at(name), {})
      t.same(found(one), [side, side, 'file name'], name)
      t.same(one.warnings, [])
    }
    for (const name of ['model.pt', '0256000.pt', `${size}_256.pt`, `c2i_${size}.pt`]) {
      writePt(at(name), { model: official(layers, dim, feedForward) })
      const one = await described(at(name), {})
      t.same(found(one), [24, 24, 'assumed'], name)
      t.equal(one.warnings.length, 1)
      t.match(one.warnings[0],
        new RegExp(`c2i_${size}_256 and c2i_${size}_384 have the same shapes.*24 x 24 is assumed.*16 x 16 or 24 x 24`))
      t.same(found(await described(at(name), { grid: 16 })), [16, 16, 'option'])
    }
  }
  writePt(at('xl.pt'), { model: official(36, 1280, 3584) })
  t.same(found(await described(at('xl.pt'), {})), [24, 24, 'published'], 'there is one LlamaGen-XL only')
})

t.test('a blob of the Hugging Face cache, and links', async t => {
  const dir = t.testdir({})
  const hash = 'ab'.repeat(32)
  const repository = path.join(dir, 'models--FoundationVision--LlamaGen')
  mkdirSync(path.join(repository, 'blobs'), { recursive: true })
  mkdirSync(path.join(repository, 'snapshots', 'c0ffee'), { recursive: true })
  writePt(path.join(repository, 'blobs', hash), { model: stateDict(n1) })
  symlinkSync(`../../blobs/${hash}`, path.join(repository, 'snapshots', 'c0ffee', 'c2i_B_256.pt'))
  symlinkSync(path.join(repository, 'snapshots', 'c0ffee', 'c2i_B_256.pt'), path.join(dir, 'mine.pt'))
  symlinkSync(path.join(repository, 'blobs', hash), path.join(dir, 'blob.pt'))
  for (const file of [path.join(repository, 'snapshots', 'c0ffee', 'c2i_B_256.pt'), path.join(dir, 'mine.pt'),
    path.join(dir, 'blob.pt'), path.join(repository, 'blobs', hash)]) {
    t.same(found(await described(file)), [16, 16, 'file name'], path.relative(dir, file))
  }
  symlinkSync('mine.pt', path.join(dir, 'c2i_L_384.pt'))
  const two = await described(path.join(dir, 'c2i_L_384.pt'))
  t.same(found(two), [24, 24, 'file name'], 'the name that was given comes first')
  t.match(two.warnings, [/"c2i_L_384\.pt" says 24 x 24 tokens.*"c2i_B_256\.pt" says 16 x 16.*24 x 24 is taken/])
})

t.test('names', t => {
  const names: Array<[string, number | undefined]> = [
    ['c2i_B_256.pt', 256], ['C2I_3B_384.PT', 384], ['my-c2i_XXL_384-bf16.safetensors', 384], ['c2i_B_256x256.pt', 256],
    ['llamagen-l-384.safetensors', 384], ['PAR-XL-4x-256.pt', 256],
    ['PAR-XL-4x.pt', undefined], ['0256000.pt', undefined], ['model_256.pt', undefined], ['c2i_B_2560.pt', undefined],
    ['c2i_B_384_from_256.pt', 384], ['llamagen_256_384.pt', undefined], ['', undefined]
  ]
  for (const [name, pixels] of names) t.equal(pixelsOfName(name), pixels, name)
  t.end()
})

/** As NumPy pickles a scalar with protocol 2 (bytes as text) or 4. */
function numpy (type: string, bytes: Buffer, { wide = false, module = 'numpy.core.multiarray' } = {}): unknown {
  const dtype = py.build(py.reduce(py.global('numpy dtype'), py.tuple(type, false, true)),
    py.tuple(3, '<', null, null, null, -1, -1, 0))
  const content = wide
    ? py.raw(0x43, bytes.length, ...bytes)
    : py.reduce(py.global('_codecs encode'), py.tuple(bytes.toString('latin1'), 'latin1'))
  return py.reduce(py.global(`${module} scalar`), py.tuple(dtype, content))
}

const int64 = (value: number): Buffer => { const b = Buffer.alloc(8); b.writeBigInt64LE(BigInt(value)); return b }
const float64 = (value: number): Buffer => { const b = Buffer.alloc(8); b.writeDoubleLE(value); return b }
const int32 = (value: number): Buffer => { const b = Buffer.alloc(4); b.writeInt32LE(value); return b }

t.test('training arguments, however they are spelt', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const good: Array<[string, unknown]> = [
    ['int', 256], ['float', 256], ['text', '256'], ['text of a float', '256.0'], ['list', [256, 256]],
    ['list of one', [256]], ['tuple', py.tuple(256, 256)], ['list of texts', ['256', '256']],
    ['text of a list', '[256, 256]'], ['text of a tuple', '(256, 256)'], ['256x256', '256x256'],
    ['np.int64', numpy('i8', int64(256))], ['np.int64, protocol 3', numpy('i8', int64(256), { wide: true })],
    ['np.int32', numpy('i4', int32(256))], ['np.float64', numpy('f8', float64(256))],
    ['NumPy 2', numpy('i8', int64(256), { module: 'numpy._core.multiarray' })]
  ]
  for (const [what, value] of good) {
    writePt(file, { model: stateDict(n1), args: py.namespace({ image_size: value, lr: 1e-4 }) })
    const one = await described(file)
    t.same(found(one), [16, 16, 'training arguments'], what)
    t.same(one.warnings, [], what)
  }
  for (const [what, root] of [
    ['a dict', { model: stateDict(n1), args: { image_size: 256 } }],
    ['config', { model: stateDict(n1), config: { image_size: 256 } }],
    ['beside the weights', { model: stateDict(n1), image_size: 256 }],
    ['an object of an unknown class',
      { model: stateDict(n1), args: py.build(py.newObject(py.global('my.config Config'), py.tuple()),
        { image_size: 256 }) }]
  ] as const) {
    writePt(file, root)
    t.same(found(await described(file)), [16, 16, 'training arguments'], what)
  }
  for (const [image, factor, grid] of [[[256, 384], 16, [16, 24]], [256, '8', [32, 32]],
    ['512', numpy('i8', int64(16)), [32, 32]]] as const) {
    writePt(file, { model: stateDict(n1), args: py.namespace({ image_size: image, downsample_size: factor }) })
    t.same(found(await described(file)), [...grid, 'training arguments'])
  }
  for (const bad of ['big', 250, -256, 0, [1, 2, 3], [], {}, py.tensor({ shape: [] }), '\u001b[2J256', true,
    16 * 1025]) {
    writePt(file, { model: stateDict(n1), args: py.namespace({ image_size: bad }) })
    const one = await described(file)
    t.same(found(one), [24, 24, 'assumed'], JSON.stringify(bad))
    t.match(one.warnings, [/training arguments say image_size.*not used/, /24 x 24 is assumed/], JSON.stringify(bad))
    t.notMatch(one.warnings.join(), '\u001b')
  }
})

t.test('what contradicts is said, and the order is kept', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'c2i_B_256.pt')
  writePt(file, { model: stateDict(n1), args: py.namespace({ image_size: 384 }) })
  const one = await described(file)
  t.same(found(one), [24, 24, 'training arguments'])
  t.match(
    one.warnings, [/training arguments say 24 x 24 tokens, its name "c2i_B_256\.pt" says 16 x 16: 24 x 24 is taken/]
  )
  t.match(await described(file, { heads: 2, grid: [8, 8] }), { grid: [8, 8], gridFrom: 'option', warnings: [] })
  const { entries, bytes } = tile(n1)
  const meta = path.join(dir, 'llamagen-b-384.safetensors')
  const write = (parvis: object, more: Record<string, string> = {}): void =>
    writeFileSync(
      meta,
      safetensorsFile({
        __metadata__: { parvis: JSON.stringify({ kind: 'transformer', heads: 2, ...parvis }), ...more }, ...entries
      }, bytes)
    )
  write({ grid: [16, 16], sourceFile: 'c2i_B_256.pt' })
  t.match(await described(meta, {}),
    {
      grid: [16, 16], gridFrom: 'metadata',
      warnings: [/metadata says 16 x 16 tokens, its name "llamagen-b-384\.safetensors" says 24 x 24/]
    })
  write({}, { image_size: '512' })
  t.match(await described(meta, {}),
    { grid: [32, 32], gridFrom: 'training arguments', warnings: [/name .* says 24 x 24/] })
  // A grid that n cannot divide is not used, and that is said.
  const four = path.join(dir, 'four.pt')
  writePt(four, { model: stateDict(transformerShapes()), args: py.namespace({ image_size: 240 }) })
  t.match(await described(four),
    { grid: [24, 24], gridFrom: 'assumed', warnings: [/15 x 15 tokens, which n = 4 cannot divide/, /assumed/] })
})

t.test('a conversion writes no assumed grid and no assumed heads', async t => {
  const dir = t.testdir({})
  const [input, output] = [path.join(dir, 'model.pt'), path.join(dir, 'out.safetensors')]
  writePt(input, { model: stateDict(n1) })
  const result = await convertCheckpoint(input, output, { heads: 2, convertFloats })
  t.match(result.warnings, [/24 x 24 is assumed/])
  t.notOk('grid' in result.metadata)
  t.match(await described(output, {}), { gridFrom: 'assumed', headsFrom: 'metadata' })
  await convertCheckpoint(input, output, { heads: 2, grid: 16, convertFloats })
  t.match(await described(output, {}), { grid: [16, 16], gridFrom: 'metadata', warnings: [] })
  writePt(input, { model: stateDict(transformerShapes({ transitions: 0, dim: 768, feedForward: 8 })) })
  const wide = await convertCheckpoint(input, output, { grid: 16, convertFloats })
  t.match(wide.warnings, [/number of heads: 12 is assumed, that of B, which has the same width and 12 layers/])
  t.notOk('heads' in wide.metadata)
  const named = path.join(dir, 'c2i_B_256.pt')
  writePt(named, { model: stateDict(n1) })
  t.match((await convertCheckpoint(named, output, { heads: 2, convertFloats })),
    { warnings: [], metadata: { grid: [16, 16] } })
})
