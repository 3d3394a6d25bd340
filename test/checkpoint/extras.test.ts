// What may stand beside the weights of a model and what may not: parameters of other models are refused and named, what
// does no harm is left out. Which copy of the weights is taken, and what names wrappers of training leave behind.

import path from 'node:path'
import t from 'tap'
import { writeFileSync } from 'node:fs'
import {
  convertCheckpoint, describeTokenizer, describeTransformer, identify, openCheckpoint, type Checkpoint
} from '../../lib/checkpoint/index.js'
import { findGolden } from '../support/golden.js'
import { py, writePt } from '../support/pt-writer.js'
import { convertFloats, readTensor } from './floats.js'
import { safetensorsFile, stateDict, tile, transformerShapes } from './tiny.js'

const shapes = transformerShapes({ layers: 2 })
const names = [...shapes.keys()].sort()

function outcome (checkpoint: Checkpoint): unknown {
  try {
    const found = identify(checkpoint) === 'transformer'
      ? describeTransformer(checkpoint, { heads: 2, grid: 8 })
      : describeTokenizer(checkpoint)
    return found.tensors.map(({ name }) => name).sort()
  } catch (error) {
    return error
  }
}

const foreign: Array<[string, number[], RegExp?]> = [
  ['pos_table', [1, 8], /"pos_table" does not belong to this kind of model; a model with learned positions\?/],
  ['layers.0.attention.wqkv.bias', [24], /biases\?/], ['layers.1.feed_forward.w2.bias', [8]], ['norm.bias', [8]],
  ['output.bias', [6]], ['tok_embeddings.bias', [8]],
  ['layers.0.attention.q_norm.weight', [4], /normalises queries and keys/], ['layers.0.attention.k_norm.weight', [4]],
  ['layers.1.attention.qk_layernorm.weight', [4]],
  ['layers.0.adaLN_modulation.1.weight', [48, 8], /adaLN/], ['layers.0.ada_gss', [1, 8]],
  ['pos_embed', [1, 64, 8], /learned positions/], ['position_embeddings.weight', [64, 8]],
  ['layers.0.attention.wqkv.lora_A.weight', [4, 8], /LoRA weights\? Merge them/],
  ['layers.0.attention.wqkv.lora_B.default.weight', [24, 4]],
  ['mask_token', [1, 1, 8], /fills masks/], ['mask_emb.weight', [1, 8]], ['layers.0.attention_norm.bias', [8]],
  ['layers.0.attention.sinks', [2]], ['layers.0.ls1.gamma', [8]],
  ['layers.0.cross_attention.wq.weight', [8, 8]], ['final_layer.linear.weight', [6, 8]], ['label_emb.weight', [4, 8]],
  ['time_embed.mlp.0.weight', [8, 8]], ['logit_scale', [1]],
  ['layers.0.feed_forward.router.weight', [4, 8]], ['spe_tok_embeddings.bias', [8]],
  ['cls_embedding.cap_proj.bias', [8]]
]
const harmless: Array<[string, number[]]> = [
  ['freqs_cis', [64, 2, 2]], ['causal_mask', [64, 64]], ['layers.0.attention.kv_cache.k_cache', [1, 2, 64, 4]],
  ['layers.0.attention.kv_cache.v_cache', [1, 2, 64, 4]],
  ['layers.1.attention.rotary_emb.inv_freq', [2]], ['rope.freqs', [2]], ['cos_cached', [64, 4]],
  ['attn_mask', [64, 64]], ['layers.0.attention.mask', [64, 64]], ['model_ema.decay', []],
  ['ema.layers.0.norm_of_something', [8]], ['layers.0.attention.wo.weight_ema', [8, 8]],
  ['optimizer.state.0.exp_avg', [8]], ['loss.perceptual_loss.lin0.model.1.weight', [1, 64, 1, 1]],
  ['discriminator.main.0.weight', [64, 3, 4, 4]], ['global_step', []], ['vq_model.quantize.embedding.weight', [16, 8]],
  ['nothing.weight', [0, 8]], ['teacher.layers.0.weight', [8]]
]

t.test('parameters of other models, of every float type', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  for (const [index, [name, shape, message]] of foreign.entries()) {
    const dtype = (['float32', 'float16', 'bfloat16', 'float64'] as const)[index % 4]!
    writePt(file, { model: new Map([...stateDict(shapes), [name, py.tensor({ shape, dtype })]]) })
    t.match(outcome(await openCheckpoint(file)),
      { code: 'BAD_CHECKPOINT', message: message ?? /not belong to this kind of model/ }, `${name}, ${dtype}`)
    t.match((outcome(await openCheckpoint(file)) as Error).message, `"${name}"`)
  }
  const all = path.join(dir, 'all.safetensors')
  const { entries, bytes } = tile(
    new Map([...shapes, ...foreign.map(([name, shape]) => [name, shape] as [string, number[]])])
  )
  writeFileSync(all, safetensorsFile(entries, bytes))
  t.match(outcome(await openCheckpoint(all)), { message: new RegExp(`and ${foreign.length - 3} more do not belong`) })
  const escape = path.join(dir, 'escape.safetensors')
  const odd = tile(new Map([...shapes, ['layers.0.\u001b]0;x\u0007\u202e', [8]]]))
  writeFileSync(escape, safetensorsFile(odd.entries, odd.bytes))
  t.notMatch((outcome(await openCheckpoint(escape)) as Error).message, /[\u001b\u0007\u202e]/)
})

t.test('parameters of other types than weights have', async t => {
  const dir = t.testdir({})
  const [file, pt] = [path.join(dir, 'x.safetensors'), path.join(dir, 'x.pt')]
  for (const [name, dtype] of [
    ['pos_table', 'NVFP4'], ['pos_table', 'I8'],
    ['layers.0.attention.q_norm.weight', 'C64'], ['layers.0.attention.q_norm.weight', 'I8'],
    ['layers.0.attention.sinks', 'U8'], ['layers.0.attention.wqkv.weight_scale', 'F8_E8M0'], ['head.weight', 'I8'],
    ['layers.0.attention.wo.qweight', 'I32'], ['logit_scale', 'F8_E4M3'], ['table', 'FP4X']
  ] as const) {
    const { entries, bytes } = tile(shapes)
    const end = bytes + 8 * (dtype === 'C64' ? 8 : dtype === 'I32' ? 4 : 1)
    writeFileSync(file, safetensorsFile({ ...entries, [name]: { dtype, shape: [8], data_offsets: [bytes, end] } }, end))
    t.match(outcome(await openCheckpoint(file)),
      { code: 'BAD_CHECKPOINT', message: new RegExp(`"${name.replaceAll('.', '\\.')}" does not belong`) },
      `${name}, ${dtype}`)
  }
  const object = py.reduce(py.global('quantised Tensor'), py.tuple())
  for (const name of ['pos_table', 'layers.0.attention.filter', 'head.weight']) {
    writePt(pt, { model: new Map([...stateDict(shapes), [name, object]]) })
    t.match(outcome(await openCheckpoint(pt)), { code: 'BAD_CHECKPOINT', message: /does not belong/ },
      `${name}, an object`)
  }
  for (const name of ['layers.0._extra_state', 'hooks.0']) {
    writePt(pt, { model: new Map([...stateDict(shapes), [name, object]]) })
    t.same(outcome(await openCheckpoint(pt)), names, `${name}, an object`)
  }
})

t.test('a layer of another type is not left out', async t => {
  const dir = t.testdir({})
  const [file, pt] = [path.join(dir, 'x.safetensors'), path.join(dir, 'x.pt')]
  for (const [dtype, size] of [['I8', 1], ['U8', 1], ['F8_E4M3', 1], ['FP4X', 1], ['C64', 8]] as const) {
    const entries: Record<string, unknown> = {}
    let bytes = 0
    for (const [name, shape] of shapes) {
      const other = name.startsWith('layers.1.')
      const end = bytes + (other ? size : 4) * shape.reduce((product, side) => product * side, 1)
      entries[name] = { dtype: other ? dtype : 'F32', shape, data_offsets: [bytes, end] }
      bytes = end
    }
    writeFileSync(file, safetensorsFile(entries, bytes))
    t.match(outcome(await openCheckpoint(file)),
      { code: 'BAD_CHECKPOINT', message: /"layers\.1\.attention\.wqkv\.weight" is stored as / }, dtype)
  }
  const object = py.reduce(py.global('quantised Tensor'), py.tuple())
  writePt(
    pt,
    {
      model: new Map(
        [...stateDict(shapes)].map(([name, tensor]) => [name, name.startsWith('layers.1.') ? object : tensor])
      )
    }
  )
  t.match(outcome(await openCheckpoint(pt)),
    { code: 'BAD_CHECKPOINT', message: /"layers\.1\.attention\.wqkv\.weight" of the weights is a Python object/ })
})

t.test('what does no harm', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  for (const [name, shape] of harmless) {
    writePt(file, { model: new Map([...stateDict(shapes), [name, py.tensor({ shape, dtype: 'float32' })]]) })
    t.same(outcome(await openCheckpoint(file)), names, name)
  }
  for (const dtype of ['int64', 'int32', 'uint8', 'bool'] as const) {
    const indices = dtype === 'uint8' ? [] : ['layers.0.anything', 'layers.0.attention.position_ids', 'pos_ids']
    for (const name of ['anything', 'layers.0.attention.causal_mask', 'layers.7.attention.mask', ...indices]) {
      writePt(file, { model: new Map([...stateDict(shapes), [name, py.tensor({ shape: [8], dtype })]]) })
      t.same(outcome(await openCheckpoint(file)), names, `${name}, ${dtype}`)
    }
  }
  const { entries, bytes } = tile(new Map([...shapes, ...harmless]))
  writeFileSync(path.join(dir, 'all.safetensors'), safetensorsFile(entries, bytes))
  t.same(outcome(await openCheckpoint(path.join(dir, 'all.safetensors'))), names, 'all of them')
})

const golden = findGolden('vq-small/vq.pt')
t.test('a tokenizer', { skip: golden === undefined && 'the fixture is not here' }, async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  const checkpoint = await openCheckpoint(golden!)
  const own = describeTokenizer(checkpoint).tensors.map(({ name }) => name).sort()
  const dict = [...checkpoint.tensors.values()]
    .map(({ name, shape }): [string, unknown] => [name, py.tensor({ shape })])
  const good: Array<[string, number[]]> = [
    ['quantize.codebook_used', [65536]], ['quantize.ema_w', [256, 8]], ['quantize.ema_cluster_size', [256]],
    ['quantize.embed_avg', [256, 8]], ['loss.logvar', []], ['loss.discriminator.main.3.running_mean', [128]],
    ['vq_loss.perceptual_loss.net.slice1.0.weight', [64, 3, 3, 3]], ['discriminator.blocks.0.weight', [8]],
    ['lpips.lin0.model.1.weight', [1, 64, 1, 1]], ['ema.decoder.conv_in.weight2', [8]], ['steps', []]
  ]
  for (const [name, shape] of good) {
    writePt(file, { model: new Map([...dict, [name, py.tensor({ shape })]]) })
    t.same(outcome(await openCheckpoint(file)), own, name)
  }
  const bad: Array<[string, number[]]> = [
    ['encoder.conv_blocks.0.attn.0.q.weight', [32, 32, 1, 1]], ['decoder.mid.3.norm1.weight', [64]],
    ['encoder.pos_embed', [1, 64, 64]], ['quantize.project_in.weight', [8, 32]], ['latent_tokens', [32, 64]],
    ['decoder.conv_out.lora_A.weight', [4, 4]], ['quant_conv2.weight', [8, 8, 1, 1]], ['encoder.conv_in.weight_g', [32]]
  ]
  for (const [name, shape] of bad) {
    writePt(file, { model: new Map([...dict, [name, py.tensor({ shape })]]) })
    t.match(outcome(await openCheckpoint(file)),
      { code: 'BAD_CHECKPOINT', message: /not belong to this kind of tokenizer/ }, name)
  }
})

t.test('wrappers of training put parts into names, anywhere', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  const dict = [...stateDict(shapes)]
  const renamed = (change: (name: string) => string): Map<string, unknown> =>
    new Map(dict.map(([name, tensor]) => [change(name), tensor]))
  const changes: Array<[string, (name: string) => string]> = [
    ...['_orig_mod', 'module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_forward_module'].flatMap((
      part
    ): Array<[string, (name: string) => string]> => [
      [`${part} in blocks`, name => name.replace(/^layers\.(\d)\./, `layers.$1.${part}.`)],
      [`${part} in one block`, name => name.replace(/^layers\.1\./, `layers.1.${part}.`)],
      [`${part} in parts of blocks`, name => name.replace('.attention.', `.attention.${part}.`)],
      [`${part} before all`, name => `${part}.${name}`]
    ]),
    [
      'several',
      name =>
        `_forward_module.module._orig_mod.${name.replace(/^layers\.(\d)\./, 'layers.$1._fsdp_wrapped_module._checkpoint_wrapped_module.')}`
    ],
    ...['model.', 'transformer.', 'gpt.', 'ema_model.', 'model.transformer.', 'net._orig_mod.']
      .map((prefix): [string, (name: string) => string] => [prefix, name => prefix + name]),
    ['model. and wrapped blocks', name => `model.${name.replace(/^layers\./, 'layers._orig_mod.')}`]
  ]
  for (const [what, change] of changes) {
    writePt(file, { model: renamed(change) })
    t.same(outcome(await openCheckpoint(file)), names, what)
    const { entries, bytes } = tile(new Map([...shapes].map(([name, shape]) => [change(name), shape])))
    writeFileSync(path.join(dir, 'x.safetensors'), safetensorsFile(entries, bytes))
    t.same(outcome(await openCheckpoint(path.join(dir, 'x.safetensors'))), names, `${what}, safetensors`)
  }
  writePt(
    file,
    {
      state_dict: new Map([...renamed(name => `model.${name}`),
        ['loss.discriminator.main.0.weight', py.tensor({ shape: [4] })]])
    }
  )
  t.same(outcome(await openCheckpoint(file)), names, 'a prefix of the model alone')
  for (const collision of ['layers.0._orig_mod.attention.wo.weight', 'module.norm.weight']) {
    writePt(file, { model: new Map([...dict, [collision, py.tensor({ shape: [8] })]]) })
    await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /two tensors are called/ })
  }
  writePt(file, { model: new Map([...renamed(name => `model.${name}`), ['norm.weight', py.tensor({ shape: [8] })]]) })
  await t.rejects(openCheckpoint(file),
    { code: 'BAD_CHECKPOINT', message: /two tensors are called "norm\.weight" once the prefix "model\."/ })
  writePt(file, { model: new Map([...renamed(name => `model.${name}`), ...renamed(name => `other.${name}`)]) })
  t.match(outcome(await openCheckpoint(file)),
    { code: 'BAD_CHECKPOINT', message: /under the prefixes "model\." and "other\."/ })
})

t.test('EMA copies', async t => {
  const dir = t.testdir({})
  const [file, output] = [path.join(dir, 'x.pt'), path.join(dir, 'out.safetensors')]
  const filled = (value: number): Map<string, unknown> => new Map([...shapes].map(([name, shape]) =>
    [
      name,
      py.tensor({ shape, data: new Uint8Array(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value).buffer) })
    ]))
  const first = async (weights?: 'model' | 'ema'): Promise<number> => {
    const checkpoint = await openCheckpoint(file, { weights })
    t.same(outcome(checkpoint), names)
    return readTensor(checkpoint, 'norm.weight')[0]!
  }
  const prefixed = (dict: Map<string, unknown>, prefix: string): Array<[string, unknown]> =>
    [...dict].map(([name, tensor]) => [prefix + name, tensor])
  const dotless = (dict: Map<string, unknown>): Map<string, unknown> =>
    new Map([...dict].map(([name, tensor]) => [name.replaceAll('.', ''), tensor]))
  const both: Array<[string, unknown, string]> = [
    ...['ema', 'model_ema', 'ema_state_dict', 'state_dict_ema', 'EMA']
      .map((key): [string, unknown, string] => [key, { model: filled(1), [key]: filled(2), steps: 3 }, key]),
    ['module and ema', { module: filled(1), ema: filled(2) }, 'ema'],
    ['an EMA object', { model: filled(1), ema: { decay: 0.999, shadow: filled(2) } }, 'ema'],
    ['wrapped', { model: filled(1), ema: new Map(prefixed(filled(2), 'module.')) }, 'ema'],
    ['side by side', { state_dict: new Map([...prefixed(filled(1), 'model.'), ...prefixed(filled(2), 'model_ema.')]) },
      'model_ema'],
    ['beside plain names', new Map([...filled(1), ...prefixed(filled(2), 'ema.')]), 'ema'],
    [
      'without dots', new Map([...filled(1), ...prefixed(dotless(filled(2)), 'model_ema.'),
        ['model_ema.decay', py.tensor({ shape: [] })]]), 'model_ema'
    ],
    ['without dots, of a part',
      { state_dict: new Map([...prefixed(filled(1), 'model.'), ...prefixed(dotless(filled(2)), 'model_ema.')]) },
      'model_ema']
  ]
  for (const [what, root, copy] of both) {
    writePt(file, root)
    t.same([await first(), await first('model'), await first('ema')], [1, 1, 2], what)
    t.same((await openCheckpoint(file)).copies, [copy], what)
    t.equal((await openCheckpoint(file, { weights: 'ema' })).weights, 'ema')
    await convertCheckpoint(file, output, { heads: 2, grid: 8, weights: 'ema', convertFloats })
    t.equal(readTensor(await openCheckpoint(output), 'norm.weight')[0], 2, `${what}, converted`)
  }
  for (const root of [{ ema: filled(2) }, { model_ema: filled(2), steps: 1 }, { ema: { shadow: filled(2) } },
    new Map(prefixed(filled(2), 'ema_model.'))]) {
    writePt(file, root)
    t.same([await first(), await first('ema')], [2, 2], 'alone')
    t.equal((await openCheckpoint(file)).weights, 'ema')
    await t.rejects(openCheckpoint(file, { weights: 'model' }),
      { code: 'INVALID_OPTION', message: /does not hold other weights than an EMA copy/ })
  }
  writePt(file, { model: filled(1) })
  await t.rejects(openCheckpoint(file, { weights: 'ema' }),
    { code: 'INVALID_OPTION', message: /does not hold an EMA copy/ })
  writePt(file, { model: filled(1), ema: filled(2), ema_old: filled(3) })
  t.equal(await first(), 1)
  await t.rejects(openCheckpoint(file, { weights: 'ema' }),
    { code: 'BAD_CHECKPOINT', message: /2 EMA copies \("ema", "ema_old"\)/ })
})

t.test('a model without a row for "no class"', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const classes = 3
  const rows = transformerShapes({ classes }).get('cls_embedding.embedding_table.weight')![0]!
  for (const args of [{ num_classes: rows }, { num_classes: String(rows) },
    { num_classes: rows, class_dropout_prob: 0 }, { class_dropout_prob: 0 }, { class_dropout_prob: '0.0' }]) {
    writePt(file, { model: stateDict(transformerShapes({ classes })), args: py.namespace(args) })
    t.match(outcome(await openCheckpoint(file)),
      { code: 'BAD_CHECKPOINT', message: /4 rows and none of them is "no class"/ }, JSON.stringify(args))
  }
  for (const [args, warning] of [[{ num_classes: 3 }, undefined], [{ num_classes: 3, class_dropout_prob: 0 },
    undefined], [{ class_dropout_prob: 0.1 }, undefined], [{ num_classes: 4, class_dropout_prob: 0.1 },
    /say 4 classes/], [{ num_classes: 1000 }, /say 1000 classes/]] as const) {
    writePt(file, { model: stateDict(transformerShapes({ classes })), args: py.namespace(args) })
    const found = describeTransformer(await openCheckpoint(file), { heads: 2, grid: 8 })
    t.equal(found.model.classes, 3)
    t.match(found.warnings, warning ? [warning] : [])
    t.equal(found.warnings.length, warning ? 1 : 0, JSON.stringify(args))
  }
})

/**
 * The longest time that the thread was held while `work` ran, ms. Only what the processor spent: others use it, too.
 */
async function longestHold (work: () => Promise<unknown>): Promise<number> {
  const now = (): [wall: number, processor: number] => {
    const { user, system } = process.cpuUsage()
    return [performance.now(), (user + system) / 1000]
  }
  let [longest, last] = [0, now()]
  const look = (): void => {
    const next = now()
    longest = Math.max(longest, Math.min(next[0] - last[0], next[1] - last[1]))
    last = next
  }
  const timer = setInterval(look, 1)
  await work()
  look()
  clearInterval(timer)
  return longest
}

t.test('names without end are refused at once', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.safetensors')
  const empty = (count: number, name: (i: number) => string): Array<[string, number[]]> =>
    Array.from({ length: count }, (_, i) => [name(i), [0]])
  const cases: Array<[string, Array<[string, number[]]>, RegExp]> = [
    ['more tensors than any model has', empty(60_001, i => `ema.${i}`),
      /it holds 600\d\d tensors.*files of up to 60000/],
    ['long names', empty(2000, i => `${'x.'.repeat(500)}${i}`).map(([name]) => [name, [1]]),
      /and many more do not belong/],
    ['names of many parts', empty(59_000, i => `${'a.'.repeat(90)}${i}.mask`).map(([name]) => [name, [1]]),
      /"layers\.0\.nothing" does not belong/],
    ['names that are nearly averages', empty(59_000, i => '1ema'.repeat(47) + String(i)),
      /"layers\.0\.nothing" does not belong/],
    ['names that are nearly averages of parts', empty(59_000, i => `${'1ema.'.repeat(37)}${i}.`),
      /"layers\.0\.nothing" does not belong/],
    ['many models and averages', empty(3000, i => `m${i}.tok_embeddings.weight`).concat(empty(3000, i => `ema.x${i}`)),
      /under more than 16 prefixes \("", "m0\.", "m1\."/]
  ]
  for (const [what, more, message] of cases) {
    const { entries, bytes } = tile(new Map([...shapes, ['layers.0.nothing', [1]], ...more]))
    writeFileSync(file, safetensorsFile(entries, bytes))
    let error: unknown
    const held = await longestHold(async () => {
      error = await openCheckpoint(file).then(outcome, (error: unknown) => error)
    })
    t.match(error, { code: 'BAD_CHECKPOINT', message }, what)
    t.ok((error as Error).message.length < 1000)
    t.ok(held < 500, `${what}: ${held} ms`)
  }
})

t.test('objects count, too', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const object = py.reduce(py.global('quantised Tensor'), py.tuple())
  writePt(
    file,
    {
      model: new Map([...stateDict(shapes),
        ...Array.from({ length: 60_001 }, (_, i): [string, unknown] => [`l${i}.ema.x`, object])])
    }
  )
  const checkpoint = await openCheckpoint(file)
  t.match(outcome(checkpoint), { code: 'BAD_CHECKPOINT', message: /it holds 600\d\d tensors/ })
})

t.test('long texts beside the weights do not hold the thread', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const { entries, bytes } = tile(shapes)
  const lists = `{"a":[${'[],'.repeat(333_000)}[]],"image_size":128}`
  const texts: Array<[string, Record<string, string>]> = [
    ['numbers', { parvis: `{"kind":"transformer","heads":2,"x":[${'1e1,'.repeat(1_900_000)}1]}` }],
    ['arguments', Object.fromEntries(
      ['args', 'config', 'cfg', 'hparams', 'hyper_parameters', 'opt', 'opts'].map(key => [key, lists])
    )]
  ]
  for (const [what, metadata] of texts) {
    writeFileSync(file, safetensorsFile({ __metadata__: metadata, ...entries }, bytes))
    const held = await longestHold(async () => {
      const found = describeTransformer(await openCheckpoint(file), { heads: 2 })
      t.same(found.grid, what === 'arguments' ? [8, 8] : [24, 24], what)
    })
    t.ok(held < 500, `${what}: ${held} ms`)
  }
})
