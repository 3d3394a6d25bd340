// What a checkpoint is: golden files, the official dimensions, overrides, and every way in which shapes can be wrong.

import { writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import {
  describeTokenizer, describeTransformer, identify, openCheckpoint, type Checkpoint, type TokenizerDescription
} from '../../lib/checkpoint/index.js'
import { readArguments } from '../../lib/checkpoint/arguments.js'
import { parseOwnMetadata } from '../../lib/checkpoint/metadata.js'
import { Slices } from '../../lib/base/slices.js'
import { findGolden, golden } from '../support/golden.js'
import { py, writePt } from '../support/pt-writer.js'
import { paper, safetensorsFile, stateDict, tile, transformerShapes, type TinyOptions } from './tiny.js'

/** With what is read out of the metadata, as of a file. */
async function read (checkpoint: Checkpoint): Promise<Checkpoint> {
  await parseOwnMetadata(checkpoint, new Slices())
  await readArguments(checkpoint, new Slices())
  return checkpoint
}

const withMetadata = async (parvis: unknown, options: TinyOptions = {}): Promise<Checkpoint> =>
  await read(paper(transformerShapes(options),
    { parvis: typeof parvis === 'string' ? parvis : JSON.stringify(parvis) }))

t.test('golden transformers', async t => {
  const par = await openCheckpoint(golden('par-4x/model.pt'))
  t.equal(identify(par), 'transformer')
  const described = describeTransformer(par, { heads: 2 })
  t.match(described, {
    model: {
      layers: 2, dim: 128, heads: 2, kvHeads: 2, headSize: 64, feedForward: 512, vocabularySize: 256, classes: 10,
      specials: 3, normEps: 1e-5, ropeBase: 10000
    },
    n: 4, grid: [8, 8], headsFrom: 'option', gridFrom: 'training arguments'
  })
  t.equal(described.official, undefined)
  t.same(described.tensors.map(tensor => tensor.name).sort(), [...par.tensors.keys()].sort())
  t.match(describeTransformer(await openCheckpoint(golden('par-16x-hd100/model.pt')), { heads: 2, grid: 8 }), {
    model: { layers: 2, dim: 200, headSize: 100, feedForward: 768, vocabularySize: 320, specials: 15 }, n: 16,
    grid: [8, 8], gridFrom: 'option'
  })
  t.match(describeTransformer(await openCheckpoint(golden('llamagen/model.pt')), { heads: 2, grid: [8, 8] }),
    { model: { specials: 0 }, n: 1 })
  t.throws(() => describeTransformer(par),
    { code: 'BAD_CHECKPOINT', message: /width 128 is none of the published.*Pass heads/ })
})

t.test('the golden tokenizer', { skip: findGolden('vq-f4/vq.pt') ? false : 'the fixture is not at hand' }, async t => {
  const checkpoint = await openCheckpoint(golden('vq-f4/vq.pt'))
  t.equal(identify(checkpoint), 'tokenizer')
  const { model, tensors, official } = describeTokenizer(checkpoint)
  t.same(
    model,
    {
      baseChannels: 32, multipliers: [1, 2, 2], residualBlocks: 2, zChannels: 32, codebookSize: 256, codeSize: 8,
      groups: 32, normEps: 1e-6
    }
  )
  t.equal(official, undefined)
  t.equal(tensors.length, checkpoint.tensors.size - 1, 'all but quantize.codebook_used')
})

t.test('official models by their dimensions', t => {
  const sizes: Array<[string, number, number, number, number]> = [['B', 12, 768, 12, 2048], ['L', 24, 1024, 16, 2816],
    ['XL', 36, 1280, 20, 3584], ['XXL', 48, 1536, 24, 4096], ['3B', 24, 3200, 32, 8704]]
  for (const [name, layers, dim, heads, feedForward] of sizes) {
    for (const [transitions, official] of [[0, `LlamaGen-${name}`], [3, `PAR-${name}-4x`],
      [15, `PAR-${name}-16x`]] as const) {
      const shapes = transformerShapes({ layers, dim, feedForward, vocabulary: 16384, classes: 1000, transitions })
      const description = describeTransformer(paper(shapes))
      t.match(description,
        { official, name: official, model: { heads, kvHeads: heads, layers, dim }, headsFrom: 'published', grid: [24,
          24] }, official)
      const gridFrom = ['LlamaGen-XL', 'LlamaGen-XXL', 'LlamaGen-3B', 'PAR-XL-4x', 'PAR-XXL-4x', 'PAR-3B-4x',
        'PAR-3B-16x'].includes(official)
        ? 'published'
        : 'assumed'
      t.equal(description.gridFrom, gridFrom,
        `${official}: LlamaGen-B and -L were published for two grids, the other ones not at all`)
    }
  }
  t.equal(describeTransformer(
    paper(transformerShapes({ layers: 12, dim: 768, vocabulary: 16384, classes: 999 }))
  ).official, undefined)
  t.equal(describeTransformer(
    paper(transformerShapes({ layers: 13, dim: 768, vocabulary: 16384, classes: 1000 }))
  ).official, undefined)
  const vq = (...names: string[]): TokenizerDescription =>
    describeTokenizer({ ...paper(tokenizerShapes({ base: 128, multipliers: [1, 1, 2, 2, 4], z: 256, codebook: 16384 }),
      {}, 'float32'), names })
  t.match(vq('vq_ds16_c2i.pt'),
    {
      official: 'vq_ds16_c2i', name: 'vq_ds16_c2i', warnings: [],
      model: { residualBlocks: 2, multipliers: [1, 1, 2, 2, 4] }
    })
  t.match(vq('0a1b', 'VQ_DS16_T2I.pt'),
    { official: 'vq_ds16_t2i', name: 'vq_ds16_t2i', warnings: [/belongs to text-to-image models/] })
  for (const names of [[], ['vq.pt'], ['vq_ds16_c2i.pt', 'vq_ds16_t2i.pt']]) {
    const one = vq(...names)
    t.match(one, { mayBe: ['vq_ds16_c2i', 'vq_ds16_t2i'], warnings: [/which have the same shapes/] })
    t.same([one.official, one.name], [undefined, undefined])
  }
  t.end()
})

t.test('shared key and value heads', t => {
  const shapes = transformerShapes({ dim: 32, qkvRows: 32 + 2 * 16 })
  t.match(describeTransformer(paper(shapes), { heads: 4 }).model, { heads: 4, kvHeads: 2, headSize: 8 })
  t.end()
})

t.test('overrides', t => {
  const checkpoint = paper(transformerShapes())
  t.same(describeTransformer(checkpoint, { heads: 2, grid: [4, 6] }).grid, [4, 6])
  t.same(describeTransformer(checkpoint, { heads: 2, grid: 8, n: 4 }).grid, [8, 8])
  t.throws(() => describeTransformer(checkpoint, { heads: 2, n: 16 }),
    { code: 'UNSUPPORTED_N', message: /n = 16 was asked for.*trained for n = 4/ })
  for (const heads of [0, -1, 1.5, NaN, Infinity, '2', null, {}, Object.create(null)]) {
    t.throws(() => describeTransformer(checkpoint, { heads: heads as number }),
      { code: 'INVALID_OPTION', message: /heads must be a whole number/ })
  }
  t.throws(() => describeTransformer(checkpoint, { heads: 3 }), { code: 'INVALID_OPTION', message: /head size/ })
  t.throws(() => describeTransformer(checkpoint, { heads: 4 }), { code: 'INVALID_OPTION', message: /multiple of 4/ })
  t.throws(() => describeTransformer(paper(transformerShapes({ qkvRows: 22 })), { heads: 2 }),
    { code: 'INVALID_OPTION', message: /wqkv\.weight" has shape \[22, 8\], expected/ })
  for (const n of [0, NaN, 2.5, '4']) {
    t.throws(() => describeTransformer(checkpoint, { heads: 2, n: n as number }), { code: 'INVALID_OPTION' })
  }
  for (const grid of [0, NaN, [8], [8, 8, 8, 8], [8, 0], '8', [NaN, 8], 5000, null]) {
    t.throws(() => describeTransformer(checkpoint, { heads: 2, grid: grid as number }),
      { code: 'INVALID_OPTION', message: /grid must be/ })
  }
  t.throws(() => describeTransformer(checkpoint, { heads: 2, grid: [7, 8] }),
    { code: 'INVALID_OPTION', message: /multiples of 2, got 7 x 8/ })
  t.end()
})

t.test('the grid from training arguments', async t => {
  const grid = async (args: unknown): Promise<unknown> => {
    const { grid, gridFrom } = describeTransformer(await read(paper(transformerShapes(), { args })), { heads: 2 })
    return [...grid, gridFrom]
  }
  t.same(await grid({ image_size: 256 }), [16, 16, 'training arguments'])
  t.same(await grid({ image_size: 256, downsample_size: 8 }), [32, 32, 'training arguments'])
  const odd = [undefined, null, 'x', [], {}, { image_size: '25 6' }, { image_size: 250 }, {
    image_size: 256, downsample_size: 0
  }, { image_size: 240, downsample_size: 16 }, { image_size: 1e9 }, { image_size: -256 }, { image_size: NaN }]
  for (const args of odd) t.same(await grid(args), [24, 24, 'assumed'], JSON.stringify(args))
})

t.test('every needed tensor, missing or misshapen, is named', t => {
  for (const [name, shape] of transformerShapes()) {
    const missing = transformerShapes()
    missing.delete(name)
    if (name !== 'spe_tok_embeddings.special_embeddings.weight') {
      t.throws(() => describeTransformer(paper(missing), { heads: 2 }),
        { code: 'BAD_CHECKPOINT', message: new RegExp(`"${name}" is missing|no layers`) }, `${name} missing`)
    }
    for (const wrong of [[...shape, 1], shape.map(size => size + 1), shape.map(() => 0), []]) {
      const changed = transformerShapes().set(name, wrong)
      const outcome = (): unknown => describeTransformer(paper(changed), { heads: 2 })
      // One more row is another vocabulary, class count, n or width: then what no longer fits is named.
      t.throws(outcome, { code: 'BAD_CHECKPOINT', message: /has shape \[[^\]]*\], expected \[/ },
        `${name} [${wrong.join()}]`)
    }
  }
  const hole = transformerShapes({ layers: 3 })
  for (const name of [...hole.keys()]) if (name.startsWith('layers.1.')) hole.delete(name)
  t.throws(() => describeTransformer(paper(hole), { heads: 2 }),
    { message: /"layers\.1\.attention\.wqkv\.weight" is missing/ })
  t.throws(() => describeTransformer(paper(transformerShapes({ transitions: 2 })), { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /2 rows.*n = 3.*square/ })
  t.throws(() => describeTransformer(paper(transformerShapes({ transitions: 24 })), { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /multiples of 5, got 24 x 24.*Pass grid/ })
  const layerBomb = transformerShapes().set('layers.9999999.x', [1])
  t.throws(() => describeTransformer(paper(layerBomb), { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /layers is 10000000.*up to 4096/ })
  const extra = transformerShapes().set('freqs_cis', [1, 2]).set('causal_mask', [3])
  t.equal(describeTransformer(paper(extra), { heads: 2 }).tensors.length, transformerShapes().size)
  t.end()
})

t.test('weights of other types and kinds', async t => {
  const dir = t.testdir({})
  const double = path.join(dir, 'double.pt')
  writePt(
    double, new Map([...stateDict(transformerShapes()), ['norm.weight', py.tensor({ dtype: 'float64', shape: [8] })]])
  )
  const checkpoint = await openCheckpoint(double)
  t.throws(() => describeTransformer(checkpoint, { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /"norm\.weight" is stored as float64, expected float32/ })
  t.throws(() => identify(paper(new Map([['conv1.weight', [1]], ['\x1b[2J', [1]]]))),
    { code: 'BAD_CHECKPOINT', message: /2 tensors: "conv1\.weight", "\\u001b\[2J"/ })
  t.throws(() => identify(paper(new Map([['cls_embedding.cap_proj.fc1.weight', [1]]]))), { message: /text-to-image/ })
  const tied = paper(transformerShapes())
  tied.fileBytes = 100
  t.throws(() => describeTransformer(tied, { heads: 2 }), { code: 'BAD_CHECKPOINT', message: /share storages/ })
})

t.test('parvis metadata', async t => {
  const whole = {
    kind: 'transformer', layers: 1, dim: 8, heads: 2, vocabularySize: 6, classes: 3, n: 4, grid: [4, 6],
    labels: ['a', 'b', 'c'],
    sampling: { guidanceScale: 1.5, temperature: 0.9, topK: 5, topP: 0.95, draw: 'gumbel' }, name: 'tiny',
    sourceFile: 'x.pt',
    future: { deep: [1] }
  }
  t.match(describeTransformer(await withMetadata(whole)), {
    headsFrom: 'metadata', gridFrom: 'metadata', grid: [4, 6], labels: ['a', 'b', 'c'],
    sampling: { guidanceScale: 1.5, topK: 5, draw: 'gumbel' }, name: 'tiny', n: 4, model: { heads: 2 }
  })
  t.match(describeTransformer(await withMetadata(whole), { heads: 1, grid: 8 }),
    { headsFrom: 'option', gridFrom: 'option', model: { headSize: 8 } })
  const wrong: Array<[object | string, RegExp]> = [
    ['{', /no proper JSON/], ['[]', /no JSON object/], ['"x"', /no JSON object/], [{}, /kind/],
    [{ kind: 'tokenizer' }, /a transformer is expected/], [{ kind: '__proto__' }, /kind/],
    ['{"kind":"transformer","kind":"transformer"}', /twice/],
    ...['layers', 'dim', 'vocabularySize', 'classes', 'n'].map((field): [object, RegExp] =>
      [{ ...whole, [field]: 9 }, new RegExp(`${field} = 9, its tensors have ${field} =`)]),
    ...[0, -1, 1.5, '2', true, [], 1e10]
      .map((heads): [object, RegExp] => [{ ...whole, heads }, /parvis\.heads is not/]),
    [{ ...whole, heads: 3 }, /3 heads \(from its metadata\).*Pass heads/],
    ...[8, [8], [8, 8, 8, 8], [0, 8], ['8', 8], [1e9, 8]]
      .map((grid): [object, RegExp] => [{ ...whole, grid }, /parvis\.grid is not/]),
    [{ ...whole, grid: [5, 6] }, /multiples of 2, got 5 x 6 from its metadata/],
    ...['x', [1, 2, 3], ['a', 'b', null]]
      .map((labels): [object, RegExp] => [{ ...whole, labels }, /parvis\.labels is not/]),
    [{ ...whole, labels: ['a'] }, /names 1 classes, its tensors have 3/],
    ...['codebookSha256', 'sourceSha256'].flatMap(field => ['', 'A'.repeat(64), 'a'.repeat(63), 7, ['a'.repeat(64)]]
      .map((value): [object, RegExp] => [{ ...whole, [field]: value }, new RegExp(`parvis\\.${field} is not 64 hex`)])),
    [{ ...whole, sampling: [] }, /parvis\.sampling is not/],
    ...[{ topP: 0 }, { topP: 1.1 }, { topK: -1 }, { topK: 1.5 }, { temperature: -1 }, { guidanceScale: 'x' },
      { guidanceScale: 1e9 }, { draw: 'best' }, { draw: 1 }]
      .map((sampling): [object, RegExp] => [{ ...whole, sampling }, /parvis\.sampling\.\w+ is not/]),
    [{ ...whole, name: 7 }, /parvis\.name is not/]
  ]
  for (const [metadata, message] of wrong) {
    const checkpoint = await withMetadata(metadata)
    t.throws(() => describeTransformer(checkpoint), { code: 'BAD_CHECKPOINT', message },
      JSON.stringify(metadata).slice(0, 60))
  }
  const tokenizer = await read(paper(tokenizerShapes(),
    { parvis: JSON.stringify({ kind: 'tokenizer', name: 'vq', imageSize: [32, 48] }) }, 'float32'))
  t.match(describeTokenizer(tokenizer), { name: 'vq', imageSize: [32, 48] })
  const other = await read(paper(tokenizerShapes(), { parvis: JSON.stringify({ kind: 'transformer' }) }, 'float32'))
  t.throws(() => describeTokenizer(other), { code: 'BAD_CHECKPOINT', message: /a tokenizer is expected/ })
})

t.test('metadata through a file', async t => {
  const file = path.join(t.testdir({}), 'meta.safetensors')
  const { entries, bytes } = tile(transformerShapes())
  writeFileSync(file,
    safetensorsFile({ __metadata__: { parvis: '{"kind":"transformer","heads":2,"grid":[4,4]}' }, ...entries }, bytes))
  t.match(describeTransformer(await openCheckpoint(file)), { n: 4, grid: [4, 4], headsFrom: 'metadata' })
})

t.test('tokenizers: other widths, and every wrong shape', t => {
  const wide = describeTokenizer(
    paper(tokenizerShapes({ multipliers: [1, 3], blocks: 1, z: 16, codebook: 64, code: 4 }), {}, 'float32')
  )
  t.same(
    wide.model,
    {
      baseChannels: 32, multipliers: [1, 3], residualBlocks: 1, zChannels: 16, codebookSize: 64, codeSize: 4,
      groups: 32, normEps: 1e-6
    }
  )
  t.equal(describeTokenizer(paper(tokenizerShapes({ multipliers: [2] }), {}, 'float32')).model.multipliers[0], 2)
  const names = [...tokenizerShapes().keys()].filter(name => name !== 'quantize.codebook_used')
  for (const name of names) {
    const missing = tokenizerShapes()
    missing.delete(name)
    t.throws(() => describeTokenizer(paper(missing, {}, 'float32')),
      { code: 'BAD_CHECKPOINT', message: /is missing|not belong|has shape/ }, `${name} missing`)
    const shape = tokenizerShapes().get(name)!
    for (const wrong of [[...shape, 1], shape.map(size => size + 1), shape.map(() => 0)]) {
      t.throws(() => describeTokenizer(paper(tokenizerShapes().set(name, wrong), {}, 'float32')),
        { code: 'BAD_CHECKPOINT', message: /has shape .*, expected|multiple of|not belong/ }, name)
    }
  }
  t.throws(() => describeTokenizer(paper(tokenizerShapes({ base: 48 }), {}, 'float32')),
    { message: /48 channels, expected a multiple of 32/ })
  const more = tokenizerShapes().set('decoder.conv_blocks.0.res.3.conv1.weight', [64, 64, 3, 3])
  t.throws(() => describeTokenizer(paper(more, {}, 'float32')), { message: /not belong/ })
  const attention = tokenizerShapes().set('encoder.conv_blocks.0.attn.0.q.weight', [32, 32, 1, 1])
  t.throws(() => describeTokenizer(paper(attention, {}, 'float32')), { message: /not belong/ })
  t.end()
})

/** Shapes of a tokenizer by name, after design section 1. */
function tokenizerShapes (
  { base = 32, multipliers = [1, 2], blocks = 2, z = 32, codebook = 16, code = 8 } = {}
): Map<string, number[]> {
  const shapes = new Map<string, number[]>([['quantize.embedding.weight', [codebook, code]],
    ['quantize.codebook_used', [65536]]])
  const conv = (name: string, out: number, inputs: number, size: number): void => {
    shapes.set(`${name}.weight`, [out, inputs, size, size]).set(`${name}.bias`, [out])
  }
  const norm = (name: string, width: number): void => {
    shapes.set(`${name}.weight`, [width]).set(`${name}.bias`, [width])
  }
  const residual = (name: string, inputs: number, out: number): void => {
    norm(`${name}.norm1`, inputs)
    conv(`${name}.conv1`, out, inputs, 3)
    norm(`${name}.norm2`, out)
    conv(`${name}.conv2`, out, out, 3)
    if (inputs !== out) conv(`${name}.nin_shortcut`, out, inputs, 1)
  }
  const attention = (name: string, width: number): void => {
    norm(`${name}.norm`, width)
    for (const part of ['q', 'k', 'v', 'proj_out']) conv(`${name}.${part}`, width, width, 1)
  }
  const middle = (name: string, width: number): void => {
    residual(`${name}.0`, width, width); attention(`${name}.1`,
      width); residual(`${name}.2`, width, width)
  }
  conv('quant_conv', code, z, 1)
  conv('post_quant_conv', z, code, 1)
  const last = multipliers.length - 1
  conv('encoder.conv_in', base, 3, 3)
  let width = base
  multipliers.forEach((multiplier, level) => {
    for (let block = 0; block < blocks; block++) {
      residual(`encoder.conv_blocks.${level}.res.${block}`, block === 0 ? width : multiplier * base, multiplier * base)
      if (level === last) attention(`encoder.conv_blocks.${level}.attn.${block}`, multiplier * base)
    }
    width = multiplier * base
    if (level !== last) conv(`encoder.conv_blocks.${level}.downsample.conv`, width, width, 3)
  })
  middle('encoder.mid', width)
  norm('encoder.norm_out', width)
  conv('encoder.conv_out', z, width, 3)
  conv('decoder.conv_in', width, z, 3)
  middle('decoder.mid', width)
  multipliers.toReversed().forEach((multiplier, index) => {
    for (let block = 0; block <= blocks; block++) {
      residual(`decoder.conv_blocks.${index}.res.${block}`, block === 0 ? width : multiplier * base, multiplier * base)
      if (index === 0) attention(`decoder.conv_blocks.${index}.attn.${block}`, multiplier * base)
    }
    width = multiplier * base
    if (index !== last) conv(`decoder.conv_blocks.${index}.upsample.conv`, width, width, 3)
  })
  norm('decoder.norm_out', width)
  conv('decoder.conv_out', 3, width, 3)
  return shapes
}
