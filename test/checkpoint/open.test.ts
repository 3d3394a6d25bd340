// Opening real files: the golden checkpoints, files made by PyTorch itself, and everything that is no checkpoint.
// The expected numbers were printed by PyTorch 1.13 (torch.load, then t.flatten()[0], [1], [numel/2], [-1] and
// t.double().sum()).

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import fsp from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { openCheckpoint, type Checkpoint } from '../../lib/checkpoint/index.js'
import { findGolden, golden } from '../support/golden.js'
import { readTensor } from './floats.js'

const fixture = (name: string): string => path.join(__dirname, 'fixtures', name)

interface Expected { shape: number[], dtype: string, samples: number[], sum: number }

function checkValues (t: Test, checkpoint: Checkpoint, name: string, expected: Expected): void {
  const tensor = checkpoint.tensors.get(name)!
  t.same(tensor.shape, expected.shape, `${name}: shape`)
  t.equal(tensor.dtype, expected.dtype, `${name}: dtype`)
  const values = readTensor(checkpoint, name)
  t.same([values[0], values[1], values[values.length >> 1], values.at(-1)], expected.samples, `${name}: elements`)
  t.ok(Math.abs(values.reduce((sum, value) => sum + value, 0) - expected.sum) < 1e-9, `${name}: sum`)
}

t.test('par-4x: a training checkpoint, float32', async t => {
  const checkpoint = await openCheckpoint(golden('par-4x/model.pt'))
  t.match(checkpoint, { format: 'pt', wrapper: 'model', fileBytes: 2374392 })
  t.equal(checkpoint.tensors.size, 19)
  t.equal(checkpoint.others.size, 0)
  t.same({ ...checkpoint.metadata }, {
    steps: 1000,
    args: { gpt_model: 'custom', vocab_size: 256, image_size: 128, num_classes: 10, spe_token_num: 3, ar_token_num: 4 }
  })
  checkValues(t, checkpoint, 'cls_embedding.embedding_table.weight', {
    shape: [11, 128], dtype: 'float32',
    samples: [-0.5107975602149963, 1.0282717943191528, -0.2852592468261719, -0.3858790397644043],
    sum: -50.30024866643362
  })
  checkValues(t, checkpoint, 'layers.1.feed_forward.w2.weight', {
    shape: [128, 512], dtype: 'float32',
    samples: [0.00970775168389082, 0.006974086165428162, -0.047520712018013, 0.004766915924847126],
    sum: 1.0836296844451851
  })
  checkValues(t, checkpoint, 'spe_tok_embeddings.special_embeddings.weight', {
    shape: [3, 128], dtype: 'float32',
    samples: [1.7296078205108643, 0.4502272605895996, 0.6790685057640076, 0.6707127094268799], sum: 2.7081782845780253
  })
  checkValues(t, checkpoint, 'output.weight', {
    shape: [256, 128], dtype: 'float32',
    samples: [-0.21923111379146576, 0.04137006774544716, 0.22815850377082825, -0.12154888361692429],
    sum: 41.921267436294855
  })
})

t.test('par-16x-hd100: under module, bfloat16', async t => {
  const checkpoint = await openCheckpoint(golden('par-16x-hd100/model.pt'))
  t.match(checkpoint, { format: 'pt', wrapper: 'module' })
  t.equal(checkpoint.tensors.size, 19)
  checkValues(t, checkpoint, 'cls_embedding.embedding_table.weight', {
    shape: [11, 200], dtype: 'bfloat16', samples: [-0.1318359375, -0.125, 0.6484375, 0.8984375], sum: -33.47124004364014
  })
  checkValues(t, checkpoint, 'layers.1.feed_forward.w2.weight', {
    shape: [200, 768], dtype: 'bfloat16', samples: [0.0654296875, 0.0252685546875, 0.00921630859375, 0.03466796875],
    sum: -9.986111145466566
  })
  checkValues(t, checkpoint, 'output.weight', {
    shape: [320, 200], dtype: 'bfloat16', samples: [-0.1923828125, -0.1787109375, 0.00408935546875, 0.033203125],
    sum: 31.998797297477722
  })
})

t.test('llamagen: a bare state dict, float16', async t => {
  const checkpoint = await openCheckpoint(golden('llamagen/model.pt'))
  t.equal(checkpoint.wrapper, undefined)
  t.equal(checkpoint.tensors.size, 18)
  t.same({ ...checkpoint.metadata }, {})
  checkValues(t, checkpoint, 'cls_embedding.embedding_table.weight', {
    shape: [11, 128], dtype: 'float16', samples: [0.437255859375, 0.3701171875, 0.36767578125, -0.46923828125],
    sum: 2.9441726207733154
  })
  checkValues(t, checkpoint, 'layers.1.feed_forward.w2.weight', {
    shape: [128, 512], dtype: 'float16',
    samples: [0.004558563232421875, -0.0540771484375, 0.005031585693359375, 0.0220947265625], sum: 1.0072384476661682
  })
  checkValues(t, checkpoint, 'output.weight', {
    shape: [256, 128], dtype: 'float16',
    samples: [-0.0391845703125, 0.09857177734375, 0.103515625, -0.01277923583984375], sum: 24.80061423778534
  })
})

t.test('vq-f4: a tokenizer in an OrderedDict', {
  skip: findGolden('vq-f4/vq.pt') ? false : 'the fixture is not at hand'
}, async t => {
  const checkpoint = await openCheckpoint(golden('vq-f4/vq.pt'))
  t.equal(checkpoint.wrapper, 'model')
  checkValues(t, checkpoint, 'quantize.embedding.weight', {
    shape: [256, 8], dtype: 'float32',
    samples: [0.5570754408836365, -0.662921130657196, 2.569612741470337, -2.893961191177368], sum: 75.12169273552718
  })
  checkValues(t, checkpoint, 'decoder.conv_out.bias', {
    shape: [3], dtype: 'float32',
    samples: [0.12869097292423248, -0.08342147618532181, -0.08342147618532181, 0.05248790979385376],
    sum: 0.09775740653276443
  })
})

t.test('expected.safetensors: int32 and float32 side by side', async t => {
  const checkpoint = await openCheckpoint(golden('par-4x/expected.safetensors'))
  t.equal(checkpoint.format, 'safetensors')
  t.same([...checkpoint.tensors.keys()].sort(), ['score.logits', 'score.logprobs'])
  t.same([...checkpoint.others.values()].map(({ name, dtype, shape }) => [name, dtype, shape.join()]).sort(),
    [['greedy.raster', 'int32', '3,64'], ['greedy.sequence', 'int32', '3,64'], ['score.tokens', 'int32', '3,64']])
  t.equal(checkpoint.metadata.classIds, '0,3,9')
  const logProbs = readTensor(checkpoint, 'score.logprobs')
  t.ok(logProbs.every(value => value < 0 && value > -40), 'log-probabilities are where they should be')
})

for (const name of ['variety.pt', 'variety-protocol4.pt']) {
  t.test(`${name}: every kind of tensor, by PyTorch itself`, async t => {
    const checkpoint = await openCheckpoint(fixture(name))
    const ramp = Array.from({ length: 24 }, (_, i) => i)
    const row = (first: number, length: number): number[] => ramp.slice(first, first + length)
    t.same([...readTensor(checkpoint, 'plain')], ramp)
    t.same(checkpoint.tensors.get('transposed')!.strides, [1, 6], 'strides are kept')
    t.same([...readTensor(checkpoint, 'transposed')], ramp.map(i => (i % 4) * 6 + Math.floor(i / 4)))
    t.same([...readTensor(checkpoint, 'rows')], row(6, 12))
    t.equal(checkpoint.tensors.get('rows')!.strides, undefined)
    t.same([...readTensor(checkpoint, 'columns')], [2, 3, 8, 9, 14, 15, 20, 21])
    t.equal(checkpoint.tensors.get('columns')!.offset + 16, checkpoint.tensors.get('rows')!.offset,
      'views of one storage')
    t.same([...readTensor(checkpoint, 'parameter')], ramp)
    t.equal(checkpoint.tensors.get('parameter')!.dtype, 'float16')
    t.same([...readTensor(checkpoint, 'bfloat16')], ramp)
    t.same([...readTensor(checkpoint, 'scalar')], [2.5])
    t.match(checkpoint.tensors.get('empty'), { shape: [0, 3], bytes: 0 })
    t.same(new Map([...checkpoint.others].map(([key, other]) => [key, other.dtype])),
      new Map([['double', 'float64'], ['counter', 'int64'], ['mask', 'bool']]))
    const counter = checkpoint.others.get('counter')!
    t.equal(readFileSync(fixture(name)).readBigInt64LE(counter.offset), 123456789012345n)
    t.equal(checkpoint.wrapper, 'state_dict')
  })
}

t.test('metadata is plain data, unknown objects are inert', async t => {
  const { metadata } = await openCheckpoint(fixture('variety.pt'))
  t.equal(Object.getPrototypeOf(metadata), null)
  t.match(
    metadata,
    { epoch: 3, big: (2n ** 70n).toString(), neg: -5, size: [2,
      3], device: 'cpu', dtype: 'torch.bfloat16', none: null, flag: true }
  )
  const args = metadata.args as Record<string, unknown>
  t.match(args, { image_size: 256, lr: 1e-4, betas: [0.9, 0.95] })
  t.match(args.results_dir, { global: 'pathlib PosixPath' })
})

t.test('files that are something else say so', async t => {
  const dir = t.testdir({})
  const cases: Array<[string, string | Buffer, RegExp]> = [
    ['empty', '', /empty/],
    ['page.pt', '<!DOCTYPE html><html>', /web page/],
    ['pointer.pt', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n', /git lfs pull/],
    ['bare.pkl', Buffer.from('80027d2e', 'hex'), /bare pickle/],
    ['weights.tar', Buffer.concat([Buffer.alloc(257, 0x61), Buffer.from('ustar'), Buffer.alloc(250)]), /tar archive/],
    ['weights.gz', Buffer.from('1f8b0800', 'hex'), /gunzip/],
    ['model.gguf', 'GGUF....', /GGUF/],
    ['index.json', '{"weight_map": {}}', /JSON/],
    ['text', 'hello, world', /neither a torch.save zip nor a .safetensors file .*"hello, w"/],
    ['escape', '\x1b[2Jhello', /\\u001b\[2Jhell"/],
    ['zip', 'PK\x05\x06', /zip directory/]
  ]
  for (const [name, content, message] of cases) {
    writeFileSync(path.join(dir, name), content)
    await t.rejects(openCheckpoint(path.join(dir, name)), { name: 'ParError', code: 'BAD_CHECKPOINT', message }, name)
  }
  await t.rejects(openCheckpoint(fixture('legacy.pt')),
    {
      code: 'BAD_CHECKPOINT',
      message:
        /before PyTorch 1\.6.*If you trust the file.*torch\.load\('old\.pt', map_location='cpu', weights_only=False\)/
    })
  await t.rejects(openCheckpoint(fixture('module.pt')),
    { code: 'BAD_CHECKPOINT', message: /torch\.nn\.modules\.linear Linear/ })
  await t.rejects(openCheckpoint(fixture('torchscript.pt')), { code: 'BAD_CHECKPOINT', message: /TorchScript/ })
})

t.test('files that cannot be read', async t => {
  const dir = t.testdir({})
  await t.rejects(openCheckpoint(path.join(dir, 'absent.pt')),
    { code: 'FILE_NOT_FOUND', message: /absent\.pt.*no such file/ })
  await t.rejects(openCheckpoint(path.join(dir, 'absent', 'file.pt')), { code: 'FILE_NOT_FOUND' })
  await t.rejects(openCheckpoint(dir), { code: 'FILE_NOT_FOUND', message: /folder/ })
  execFileSync('mkfifo', [path.join(dir, 'pipe')])
  await t.rejects(openCheckpoint(path.join(dir, 'pipe')), { code: 'FILE_NOT_FOUND', message: /no regular file/ },
    'a pipe does not block')
  // Another thing may bear the name when it is opened.
  const { stat } = fsp
  Object.assign(fsp, { stat: async (file: string) => await stat(file.replace(/pipe$/, 'plain')) })
  writeFileSync(path.join(dir, 'plain'), '')
  await t.rejects(openCheckpoint(path.join(dir, 'pipe')), { code: 'FILE_NOT_FOUND', message: /no regular file/ },
    'a pipe in the place of a file')
  Object.assign(fsp, { stat })
  for (const odd of ['', 'a\0b', 7, undefined, null, {}]) {
    await t.rejects(openCheckpoint(odd as string), { code: 'INVALID_OPTION' })
  }
})

t.test('an aborted call rejects with its reason', async t => {
  const reason = new Error('enough')
  const outcome = await openCheckpoint(golden('par-4x/model.pt'),
    { signal: AbortSignal.abort(reason) }).catch((error: unknown) => error)
  t.equal(outcome, reason)
})
