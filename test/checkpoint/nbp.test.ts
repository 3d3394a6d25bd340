// Files of NBP: what no shape tells (heads, n, how the rows of the tables are divided), where it is taken from, and
// what is refused.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import {
  convertCheckpoint, describeTransformer, openCheckpoint, type TransformerOverrides
} from '../../lib/checkpoint/index.js'
import { Par } from '../../lib/api/par.js'
import { ucfLabels, ucfPrefix } from '../../lib/models/ucf.js'
import { temporaryFolder } from '../cli/run.js'
import { golden } from '../support/golden.js'
import { py, writePt } from '../support/pt-writer.js'
import { nbpShapes } from './tiny.js'

const folder = temporaryFolder()
const sizes = { layers: 1, dim: 64 }
const args = { n_head: 2, token_number_per_step: 16, resolution: 128, sequence_length: 17 }
let files = 0

/** A file of small layers and, where nothing else is said, tables of the published number of rows. */
function write (
  given: Record<string, unknown> = args, shapes: Map<string, number[]> = nbpShapes(sizes), name = `nbp-${files++}.ckpt`
): string {
  const file = path.join(folder, name)
  const state = new Map([...shapes].map(([name, shape]) =>
    [`transformer.${name}`, py.tensor({ dtype: 'bfloat16', shape })]))
  writePt(file, { state_dict: state, epoch: 1, hyper_parameters: { args: given } })
  return file
}
const describe = async (file: string, overrides?: TransformerOverrides, codes?: number) =>
  describeTransformer(await openCheckpoint(file), overrides, codes)

t.test('what the training arguments tell', async t => {
  t.match(await describe(write()), {
    method: 'nbp', n: 16, grid: [5, 16, 16], gridFrom: 'training arguments', headsFrom: 'training arguments', prefix: 8,
    warnings: [],
    model: {
      heads: 2, vocabularySize: 64000, textTokens: 32000, classes: 101, specials: 15, norm: 'layer', activation: 'gelu',
      bias: true, positions: 5120, rotationPairs: [0, 0, 0]
    }
  })
  const { weights } = await describe(write())
  const parts = (role: string): unknown[] => weights.find(weight => weight.role === role)!.parts
    .map(({ name, shape, strides }) => [name, shape, strides])
  t.same(parts('classes'), [['tok_emb.weight', [102, 64], [0, 1]]], 'every class is the begin of a video')
  t.same(parts('tokens').map(part => (part as unknown[])[1]), [[64000, 64], [32000, 64]], 'codes, then text')
  t.same(parts('layers.0.qkv.weight').map(part => (part as unknown[])[0]),
    ['query', 'key', 'value'].map(name => `blocks.0.attn.${name}.weight`))
})

t.test('without them', async t => {
  const bare = write({})
  await t.rejects(describe(bare), { code: 'BAD_CHECKPOINT', message: /number of heads cannot be told.*1536, 3072/ })
  await t.rejects(describe(bare, { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /\[frames, rows, columns\]. Pass grid/ })
  t.match(await describe(bare, { heads: 2, grid: [2, 8, 8] }),
    { n: 16, grid: [2, 8, 8], gridFrom: 'option', headsFrom: 'option', model: { vocabularySize: 64000 } },
    'the published numbers of rows')
  const other = write({}, nbpShapes({ ...sizes, rows: 200, positions: 40 }))
  const told = { heads: 2, grid: [2, 4, 4] as [number, number, number] }
  await t.rejects(describe(other, told), { code: 'BAD_CHECKPOINT', message: /200 rows.*pass vocabularySize/ })
  t.match(await describe(other, { ...told, vocabularySize: 100, n: 4 }),
    { n: 4, model: { vocabularySize: 100, textTokens: 96, classes: 0 } })
  t.match(await describe(other, { ...told, n: 4 }, 100), { model: { vocabularySize: 100 } }, 'the codes of a tokenizer')
  await t.rejects(describe(other, { ...told, vocabularySize: 100 }),
    { code: 'BAD_CHECKPOINT', message: /nothing is left for special vectors. Pass vocabularySize and n/ })
  await t.rejects(describe(other, { ...told, vocabularySize: 197, n: 4 }),
    { code: 'BAD_CHECKPOINT', message: /nothing is left for text/ })
})

t.test('what cannot be', async t => {
  const file = write()
  const refused = async (overrides: TransformerOverrides, code: string, message: RegExp): Promise<void> => {
    await t.rejects(describe(file, overrides), { code, message })
  }
  await refused({ grid: [8, 8] }, 'BAD_CHECKPOINT', /NBP draws videos/)
  await refused({ grid: [3, 3, 3] }, 'INVALID_OPTION', /n = 16 must divide the tokens/)
  await refused({ grid: [64, 16, 16] }, 'BAD_CHECKPOINT', /16384 tokens.*8 of the text need 16392 positions.*5120/)
  await refused({ rotationPairs: [0, 8, 8] }, 'INVALID_OPTION', /positions are learned/)
  await refused({ n: 4 }, 'UNSUPPORTED_N', /n = 16/)
  const damaged = async (change: (shapes: Map<string, number[]>) => void, message: RegExp): Promise<void> => {
    const shapes = nbpShapes(sizes)
    change(shapes)
    await t.rejects(describe(write(args, shapes)), { code: 'BAD_CHECKPOINT', message })
  }
  await damaged(shapes => { shapes.delete('blocks.0.attn.key.bias') }, /"blocks.0.attn.key.bias" is missing/)
  await damaged(shapes => { shapes.delete('uncond_embedding') }, /"uncond_embedding" is missing/)
  await damaged(shapes => { shapes.set('head.weight', [96015, 64]) }, /"head.weight" has shape \[96015, 64\]/)
  await damaged(shapes => { shapes.set('uncond_embedding', [65, 64]) }, /up to 64/)
  await damaged(shapes => { shapes.set('blocks.0.attn.rotary.weight', [64, 64]) }, /does not belong/)
  await damaged(shapes => { shapes.set('pos_emb', [1, 100, 64]) }, /1288 positions; its table has 100/)
})

t.test('a converted file keeps what was told', async t => {
  const to = path.join(folder, 'converted.safetensors')
  await convertCheckpoint(golden('nbp/model.ckpt'), to, { vocabularySize: 60 })
  t.match(await describe(to), {
    method: 'nbp', n: 4, grid: [2, 4, 4], gridFrom: 'metadata', headsFrom: 'metadata', prefix: 8,
    model: { heads: 2, vocabularySize: 60, textTokens: 50 }
  })
  const [before, after] = await Promise.all([
    Par.load({ transformer: { path: golden('nbp/model.ckpt'), vocabularySize: 60 }, device: 'cpu' }),
    Par.load({ transformer: to, device: 'cpu' })
  ])
  t.teardown(async () => await Promise.all([before.dispose(), after.dispose()]))
  const options = { prefix: [1, 7], seed: 3 }
  t.same((await after.generateVideo(options)).tokens, (await before.generateVideo(options)).tokens)
})

t.test('classes are text', async t => {
  // The table that the issue of NBP's names was made with: the class, its text.
  t.equal(ucfLabels.length, 101)
  t.same(ucfPrefix(0, 8), [1, 3394, 10977, 1207, 786, 2, 2, 2], 'apply eye makeup')
  t.same(ucfPrefix(16, 8), [1, 3800, 292, 282, 3322, 292, 19548, 2], 'the longest')
  t.same(ucfPrefix(100, 8), [1, 24800, 24800, 2, 2, 2, 2, 2], 'yo yo')
  t.same(ucfPrefix(16, 4), [1, 3800, 292, 282], 'cut')
  const par = await Par.load({ transformer: write(args, nbpShapes({ ...sizes, positions: 1288 })), device: 'cpu' })
  t.teardown(() => par.dispose())
  t.equal(par.labels, ucfLabels)
  t.match(par.info.transformer, {
    classes: 101, defaultSteps: 95, n: 16, frames: 5, sampling: { guidanceScale: 1, temperature: 1, topK: 16000,
      topP: 0.9 }
  })
  await t.rejects(par.generateVideo({ classId: 'archery', guidanceScale: 2 }),
    { code: 'INVALID_OPTION', message: /never trained without their text/ })
  await t.rejects(par.score({ tokens: new Int32Array(1280), classId: 2, guidanceScale: 2 }),
    { code: 'INVALID_OPTION', message: /never trained without their text/ })
  await t.rejects(par.generateVideo({ classId: 1, order: 'raster' }),
    { code: 'INVALID_OPTION', message: /order is an option of PAR.*NBP, which takes none such/ })
  await t.rejects(par.generate({ classId: 1 }), { code: 'INVALID_OPTION', message: /call generateVideo/ })
  await t.rejects(par.generateVideo({ prefix: [1], classId: 2 }),
    { code: 'INVALID_OPTION', message: /takes the place of classId/ })
  await t.rejects(par.generateVideo({ prefix: [32000] }), { code: 'INVALID_OPTION', message: /0 to 31999/ })
  await t.rejects(par.generateVideo({ prefix: Array<number>(9).fill(1) }), { code: 'INVALID_OPTION',
    message: /up to 8/ })
  await t.rejects(par.generateVideo({ prefix: [] }), { code: 'INVALID_OPTION', message: /list of text tokens/ })
  await t.rejects(par.generateVideo({ prefix: [[1], [-2]] }), { code: 'INVALID_OPTION', message: /prefix\[1\]\[0\]/ })
  await t.rejects(par.generateVideo({}), { code: 'INVALID_OPTION', message: /needs classId/ })
  const embedded = await Par.load()
  t.teardown(() => embedded.dispose())
  await t.rejects(embedded.score({ tokens: new Int32Array(256), prefix: [1] }),
    { code: 'INVALID_OPTION', message: /models that read text/ })
})

t.test('text in place of a class: lists, seeds', async t => {
  const par = await Par.load({ transformer: { path: golden('nbp/model.ckpt'), vocabularySize: 60 }, device: 'cpu' })
  t.teardown(() => par.dispose())
  await t.rejects(par.generateVideo({ classId: 0 }), { code: 'INVALID_OPTION',
    message: /give prefix in place of classId/ })
  const list = await par.generateVideo({ prefix: [[1, 5], [1, 6], [1, 5]], seed: 9 })
  t.same(list.map(({ seed }) => seed), [9, 9, 10], 'a text that comes again has another seed')
  const alone = await par.generateVideo({ prefix: [1, 5], seed: 10 })
  t.same(alone.tokens, list[2]!.tokens, 'alone as in a list')
  t.notSame(list[0]!.tokens, list[1]!.tokens, 'the text matters')
  t.match(JSON.parse(JSON.stringify(alone)), { prefix: [1, 5], seed: 10, steps: 11 })
  t.match(String(alone[Symbol.for('nodejs.util.inspect.custom') as never]
    ? (alone as unknown as Record<symbol, () => string>)[Symbol.for('nodejs.util.inspect.custom')]!()
    : ''), /text 1 5, n 4/)
  let frames = 0
  for await (const { tokensDone } of par.streamVideo({ prefix: [1, 5], seed: 10 })) frames = tokensDone
  t.equal(frames, 32)
})
t.teardown(() => { fs.rmSync(folder, { recursive: true, force: true }) })
