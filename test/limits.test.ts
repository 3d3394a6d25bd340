// The limits of what can be run, at, below and above each: a file that the reader takes is one that the addon takes,
// and a file beyond is BAD_CHECKPOINT, whatever says so: shapes, metadata or both. A failed load leaves no thread
// behind.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { llamaGenModel } from '../lib/checkpoint/llamagen.js'
import { describeTokenizer, describeTransformer, type Checkpoint } from '../lib/checkpoint/index.js'
import { ParError } from '../lib/base/errors.js'
import { limits, type Limits } from '../lib/machine/limits.js'
import { addon, type TokenizerLayer, type TokenizerModel, type TransformerModel } from '../lib/machine/native.js'
import { vqTokenizer, type VqModel } from '../lib/models/vq.js'
import { Par } from '../lib/api/par.js'
import { random, safetensorsFile, tile, transformerShapes, type TinyOptions } from './checkpoint/tiny.js'
import { rejection } from './support/fixtures.js'

/** A checkpoint on paper: no file of these sizes could be kept. */
function paper (shapes: Map<string, number[]>, parvis: object): Checkpoint {
  const tensors: Checkpoint['tensors'] = new Map()
  let offset = 0
  for (const [name, shape] of shapes) {
    const bytes = shape.reduce((product, size) => product * size, 2)
    tensors.set(name, { name, dtype: 'bfloat16', shape, offset, bytes })
    offset += bytes
  }
  return {
    file: 'paper', format: 'safetensors', fileBytes: offset, tensors, others: new Map(), metadata: {},
    own: new Map(Object.entries(parvis))
  }
}

const refusal = { code: 'BAD_CHECKPOINT' } as const

// ---- one table

t.test('the addon has the numbers of the table', async t => {
  const table = JSON.parse(readFileSync(path.join(__dirname, '../include/parvis/limits.json'), 'utf8')) as Limits
  t.strictSame({ ...limits }, table)
  const engine = addon().createEngine({ device: 'cpu', threads: 1 })
  const cancel = addon().createCancel()
  const transformer = llamaGenModel({
    layers: 1, dim: 8, heads: 2, kvHeads: 1, headSize: 4, feedForward: 8, vocabularySize: 4, classes: 2, specials: 3
  })
  const sizes: VqModel = {
    baseChannels: 32, multipliers: [1], residualBlocks: 1, zChannels: 4, codebookSize: 4, codeSize: 4, groups: 32,
    normEps: 1e-6
  }
  const fields: Array<[Partial<TransformerModel>, Partial<TransformerModel>]> = (
    [['layers', 'layers', 1], ['dim', 'dim', 4], ['heads', 'heads', 1], ['headSize', 'headSize', 4],
      ['feedForward', 'feedForward', 1], ['vocabularySize', 'vocabulary', 1], ['classes', 'classes', 1]] as const
  ).map(([field, limit, step]) => [{ [field]: limits[limit] }, { [field]: limits[limit] + step }])
  fields.push([{ specials: limits.n - 1 }, { specials: limits.n }],
    [{ positions: limits.tokens + limits.prefix }, { positions: limits.tokens + limits.prefix + 1 }],
    [{ textTokens: limits.vocabulary }, { textTokens: limits.vocabulary + 1 }])
  fields.push([{ rotationPairs: [2, 0, 0] }, { rotationPairs: [1, 1, 1] }])
  fields.push([{ activation: 'gelu', bias: true }, { bias: true }]) // a gate has no bias
  for (const [at, above] of fields) {
    t.match(String(
      await rejection(engine.loadTransformer('/no/such/file', [], { ...transformer, ...at }, 'float32', cancel))
    ), /no\/such\/file/, JSON.stringify(at))
    t.match(String(
      await rejection(engine.loadTransformer('/no/such/file', [], { ...transformer, ...above }, 'float32', cancel))
    ), /outside its range/, JSON.stringify(above))
  }
  const { encoder, decoder, ...tokenizer } = vqTokenizer(sizes)
  const vq = (more: Partial<VqModel>): TokenizerModel => vqTokenizer({ ...sizes, ...more })
  const last = <T>(layers: T[], more: Partial<T>): T[] => [...layers.slice(0, -1), { ...layers.at(-1)!, ...more }]
  const many = (count: number): TokenizerModel => ({
    ...tokenizer, encoder,
    decoder: [decoder[0]!, ...Array<TokenizerLayer>(count).fill({ ...decoder[0]!, channels: 4 }), ...decoder.slice(1)]
  })
  const parts: Array<[name: string, at: TokenizerModel, above: TokenizerModel]> = [
    ['levels', vq({ multipliers: Array<number>(limits.levels).fill(1) }),
      vq({ multipliers: Array<number>(limits.levels + 1).fill(1) })],
    ['channels', vq({ multipliers: [limits.channels / 32] }), vq({ multipliers: [limits.channels / 32 + 1] })],
    ['codeSize', vq({ codeSize: limits.codeSize }), vq({ codeSize: limits.codeSize + 1 })],
    ['codebook', vq({ codebookSize: limits.codebook }), vq({ codebookSize: limits.codebook + 1 })],
    ['layers', many(limits.tokenizerLayers - decoder.length), many(limits.tokenizerLayers - decoder.length + 1)],
    ['groups', vq({ groups: 16 }), vq({ groups: 24 })],
    ['from 3 channels', vq({}), { ...tokenizer, decoder, encoder: encoder.slice(1) }],
    ['to the code', vq({}), { ...tokenizer, decoder, encoder: last(encoder, { outputs: 5 }) }],
    ['to 3 channels', vq({}), { ...tokenizer, encoder, decoder: last(decoder, { outputs: 4 }) }],
    ['of each other', vq({}), { ...tokenizer, encoder, decoder: decoder.toSpliced(1, 1) }],
    ['as often up as down', vq({ multipliers: [1, 1] }), { ...vq({ multipliers: [1, 1] }), encoder }],
    ['no attention of other channels', vq({}), { ...tokenizer, encoder,
      decoder: decoder.map(layer => layer.kind === 'attention' ? { ...layer, outputs: 64 } : layer) }],
    ['a filter of 3 or 1', vq({}), { ...tokenizer, encoder, decoder: last(decoder, { kernel: 5 as 3 }) }],
    ['a convolution at the end', vq({}), { ...tokenizer, encoder, decoder: last(decoder, { resample: 'up' }) }]
  ]
  for (const [name, at, above] of parts) {
    t.match(String(await rejection(engine.loadTokenizer('/no/such/file', [], at, 'float32', cancel))),
      /no\/such\/file/, name)
    t.match(String(await rejection(engine.loadTokenizer('/no/such/file', [], above, 'float32', cancel))),
      /outside (its|their) range/, `${name}: beyond`)
  }
  await engine.dispose()
})

// ---- the reader

t.test('shapes of a transformer', t => {
  const sizes: Array<[keyof Limits, (size: number) => TinyOptions, number]> = [
    ['layers', layers => ({ layers }), 1], ['dim', dim => ({ dim }), 4],
    ['feedForward', feedForward => ({ feedForward }), 1],
    ['vocabulary', vocabulary => ({ vocabulary }), 1], ['classes', classes => ({ classes }), 1]
  ]
  for (const [limit, options, step] of sizes) {
    const heads = limit === 'dim' ? limits.heads : 2
    for (const size of [limits[limit] - step, limits[limit]]) {
      if (limit === 'dim' && size % (4 * heads) !== 0) continue
      t.ok(describeTransformer(paper(transformerShapes(options(size)), { kind: 'transformer', heads, grid: [4, 4] })),
        `${limit} ${size}`)
    }
    for (const size of [limits[limit] + step, 2 * limits[limit]]) {
      t.throws(() => describeTransformer(paper(transformerShapes(options(size)),
        { kind: 'transformer', heads, grid: [4, 4] })),
      { ...refusal, message: new RegExp(`is ${size}.*up to ${limits[limit]}`) }, `${limit} ${size}`)
    }
  }
  for (const [dim, heads, limit] of [[4 * (limits.heads + 4), limits.heads + 4, limits.heads],
    [limits.headSize + 4, 1, limits.headSize]] as const) {
    t.throws(() => describeTransformer(paper(transformerShapes({ dim }), { kind: 'transformer', heads, grid: [4, 4] })),
      { ...refusal, message: new RegExp(`up to ${limit}`) })
  }
  const root = Math.sqrt(limits.n)
  t.ok(describeTransformer(paper(transformerShapes({ transitions: limits.n - 1 }),
    { kind: 'transformer', heads: 2, grid: [root, root] })))
  t.throws(() => describeTransformer(paper(transformerShapes({ transitions: (root + 1) ** 2 - 1 }),
    { kind: 'transformer', heads: 2, grid: [root + 1, root + 1] })),
  { ...refusal, message: /tokens per step is 4225.*up to 4096/ })
  const grid = (rows: number, columns: number): unknown =>
    describeTransformer(paper(transformerShapes(), { kind: 'transformer', heads: 2, grid: [rows, columns] }))
  t.ok(grid(limits.gridSide, limits.gridSide))
  for (const [rows, columns] of [[limits.gridSide + 2, 2], [2, limits.gridSide + 2], [4096, 4096]] as const) {
    t.throws(() => grid(rows, columns),
      { ...refusal, message: /grid is not two or three whole numbers from 1 to 1024/ })
  }
  t.end()
})

// ---- loading

const file = (dir: string, shapes: Map<string, number[]>, parvis: object): string => {
  const { entries, bytes } = tile(shapes)
  const name = path.join(dir, 'x.safetensors')
  writeFileSync(name, safetensorsFile({ __metadata__: { parvis: JSON.stringify(parvis) }, ...entries }, bytes))
  return name
}

const threadsNow = (): number => process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0

t.test('random files: loaded, and then they run, or BAD_CHECKPOINT', async t => {
  const dir = t.testdir({})
  const draw = random(17)
  const one = <T> (...values: T[]): T => values[Math.floor(draw() * values.length)]!
  /** Mostly what is right. */
  const mostly = <T> (right: T, ...others: T[]): T => draw() < 0.9 ? right : one(...others)
  const counts = { loaded: 0, refused: 0 }
  for (let i = 0; i < 100; i++) {
    const n = one(1, 4, 9, 16, limits.n, mostly(4, 65 ** 2))
    const root = Math.sqrt(n)
    const dim = one(4, 8, 16, 24)
    const options = {
      dim, layers: one(1, 2), transitions: mostly(n - 1, n), qkvRows: mostly(3 * dim, 2 * dim, 3 * dim + 1),
      classes: one(1, 3), vocabulary: one(1, 6), feedForward: one(1, 5)
    }
    const side = (): number =>
      mostly(one(root, 2 * root), 2 * root + 1, limits.gridSide, limits.gridSide + 1, 4096, 2 ** 40)
    const parvis = {
      kind: 'transformer',
      heads: mostly(one(1, dim / 4), dim, 3, 4096, 4097, 2 ** 31),
      grid: mostly<unknown>([side(), side()], undefined, [root]),
      n: mostly(one(undefined, n), n + 1),
      layers: mostly<number | undefined>(undefined, 3, 10_000),
      sampling: one<unknown>(undefined,
        { topP: mostly(2 ** -126, 1e-300, 1.0001), topK: 2 ** 31 - 1, temperature: 1000, guidanceScale: 1000 },
        { guidanceScale: 0, temperature: 1e-300 }),
      labels: mostly<unknown>(undefined, ['a']),
      classes: mostly<number | undefined>(undefined, 2 ** 24 + 1)
    }
    const name = file(dir, transformerShapes(options), parvis)
    const par = await Par.load({ transformer: name, device: 'cpu', precision: 'float32', threads: 1 })
      .catch((error: unknown) => error)
    if (par instanceof Par) {
      counts.loaded++
      const { grid } = par.info.transformer!
      if (grid[0] * grid[1] <= 32 ** 2) {
        await t.resolves(par.generate({ classId: 0, seed: i }), JSON.stringify({ options, parvis }))
      }
      await par.dispose()
    } else {
      counts.refused++
      if (!(par instanceof ParError) || par.code !== 'BAD_CHECKPOINT') {
        t.fail(`${String(par)}: ${JSON.stringify({ options, parvis })}`)
      }
    }
  }
  t.ok(counts.loaded > 10 && counts.refused > 10, JSON.stringify(counts))
})

t.test('deep models, and an engine that refuses', async t => {
  const dir = t.testdir({})
  const deep = (layers: number): string =>
    file(dir, transformerShapes({ layers, dim: 4, feedForward: 1, transitions: 0 }),
      { kind: 'transformer', heads: 1, grid: [2, 2] })
  const par = await Par.load({ transformer: deep(limits.layers), device: 'cpu', precision: 'float32', threads: 1 })
  t.equal(par.info.transformer!.layers, limits.layers)
  await par.dispose()
  await t.rejects(Par.load({ transformer: deep(limits.layers + 1), device: 'cpu' }),
    { ...refusal, message: /number of layers is 4097, and parvis runs models up to 4096/ })

  // What the addon would throw at once: the engine must be gone all the same.
  const name = file(dir, transformerShapes(), { kind: 'transformer', heads: 2, grid: [4, 4] })
  const native = addon()
  const { createEngine } = native
  let disposed = 0
  native.createEngine = options => {
    const engine = createEngine.call(native, options)
    return new Proxy(engine, {
      get (target, property) {
        if (property === 'loadTransformer') return () => { throw new TypeError('parvis native call: no') }
        if (property === 'dispose') return async () => { disposed++; await target.dispose() }
        const value: unknown = Reflect.get(target, property)
        return typeof value === 'function' ? value.bind(target) : value
      }
    })
  }
  t.teardown(() => { native.createEngine = createEngine })
  const before = threadsNow()
  for (let i = 0; i < 20; i++) {
    await rejection(Par.load({ transformer: name, device: 'cpu', precision: 'float32', threads: 4 }))
  }
  t.equal(disposed, 20)
  for (let wait = 0; wait < 100 && threadsNow() > before + 4; wait++) {
    await new Promise(resolve => setTimeout(resolve, 50))
    ;(globalThis as { gc?: () => void }).gc?.()
  }
  t.ok(threadsNow() <= before + 4, `${before} threads before, ${threadsNow()} after`)
})

t.test('tokenizers', t => {
  const levels = (count: number): object => {
    // The level count is told before the widths are asked for.
    const shapes = new Map<string, number[]>([['quantize.embedding.weight', [4, 4]], ['quant_conv.weight',
      [4, 4, 1, 1]], ['quant_conv.bias', [4]], ['post_quant_conv.weight', [4, 4, 1, 1]], ['post_quant_conv.bias', [4]]])
    for (let level = 0; level < count; level++) {
      shapes.set(`encoder.conv_blocks.${level}.res.0.conv1.weight`, [32, 32, 3, 3])
    }
    return paper(shapes, { kind: 'tokenizer' })
  }
  t.throws(() => describeTokenizer(levels(limits.levels) as Checkpoint),
    { ...refusal, message: /encoder\.conv_in\.weight/ }, 'the next thing that it lacks')
  t.throws(() => describeTokenizer(levels(limits.levels + 1) as Checkpoint),
    { ...refusal, message: /number of levels is 9, and parvis runs models up to 8/ })
  t.end()
})
