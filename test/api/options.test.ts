// Bad input, each refused with its own code before anything native runs. Garbage is what a caller's JavaScript may
// really pass: NaN, strings for numbers, misspelt names, the wrong file.

import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { openCheckpoint } from '../../lib/checkpoint/index.js'
import par, { animate, createSchedule, presets, psnr, pull, ssim } from '../../lib/index.js'
import { ParError } from '../../lib/base/errors.js'
import { Image } from '../../lib/api/image.js'
import { resolveClass } from '../../lib/models/labels.js'
import { addon } from '../../lib/machine/native.js'
import { resolveSampling } from '../../lib/api/options.js'
import { llamaGenModel } from '../../lib/checkpoint/llamagen.js'
import type { Sampling } from '../../lib/decoding/sampling.js'
import type { TransformerModel } from '../../lib/machine/native.js'
import { publishedParallel } from '../../lib/models/published.js'
import { Par } from '../../lib/api/par.js'
import {
  codeOf, rejection, revoked, smallPar, tokenizerFile, tokenizerOnly, transformerFile, transformerOnly
} from '../support/fixtures.js'

t.test('generate', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const cases: Array<[code: string, options: unknown]> = [
    ...[undefined, null, 5, 'x', []].map(options => ['INVALID_OPTION', options] as [string, unknown]),
    ...[undefined, null, {}, true, [], [[1]], [null], 5n]
      .map(classId => ['INVALID_OPTION', { classId }] as [string, unknown]),
    ...[-1, 10, 1.5, NaN, Infinity, 'boot', '', [1, 10], [1, 'boot']]
      .map(classId => ['BAD_CLASS_ID', { classId }] as [string, unknown]),
    ...[0, -4, 2.5, NaN, '4', null, Infinity].map(n => ['INVALID_OPTION', { classId: 1, n }] as [string, unknown]),
    ...[1, 2, 16].map(n => ['UNSUPPORTED_N', { classId: 1, n }] as [string, unknown]),
    ...[0, 0.99, -1, NaN, Infinity, '2', null, 1e9]
      .map(guidanceScale => ['INVALID_OPTION', { classId: 1, guidanceScale }] as [string, unknown]),
    ...[-0.1, NaN, Infinity, '1', null]
      .map(temperature => ['INVALID_OPTION', { classId: 1, temperature }] as [string, unknown]),
    ...[-1, 1.5, NaN, '5', 2 ** 31].map(topK => ['INVALID_OPTION', { classId: 1, topK }] as [string, unknown]),
    ...[0, -0.1, 1.01, NaN, '0.5'].map(topP => ['INVALID_OPTION', { classId: 1, topP }] as [string, unknown]),
    ...[1, 'yes', null].map(greedy => ['INVALID_OPTION', { classId: 1, greedy }] as [string, unknown]),
    ...[-1, 0.5, NaN, 2 ** 53, '1', 1n, null]
      .map(seed => ['INVALID_OPTION', { classId: 1, seed }] as [string, unknown]),
    ...[0, -5, 1.5, NaN, '64', null, {}, { width: 5 }, { width: 5, height: 0 }, { width: 5, height: 5, depth: 5 },
      [5, 5], 1e5].map(size => ['INVALID_OPTION', { classId: 1, size }] as [string, unknown]),
    ...[5, {}, 'x', null].map(signal => ['INVALID_OPTION', { classId: 1, signal }] as [string, unknown]),
    ...[5, {}].map(onProgress => ['INVALID_OPTION', { classId: 1, onProgress }] as [string, unknown]),
    ['INVALID_OPTION', { classId: 1, order: 'zigzag' }],
    ['INVALID_OPTION', { classId: 1, initial: false }],
    ['INVALID_OPTION', { classId: 1, groupAttention: '' }],
    ['INVALID_OPTION', { classId: 1, tokensPerStep: 3 }],
    ['INVALID_OPTION', { classId: 1, tokensPerStep: 8 }], // needs 7 transition tokens
    ['INVALID_OPTION', { classId: 1, classID: 1 }],
    ['INVALID_OPTION', { classId: 1, guidance: 2 }]
  ]
  for (const [code, options] of cases) {
    const error = await rejection(par.generate(options as never))
    t.ok(error instanceof ParError && error.code === code,
      `${inspect(options)}: ${error instanceof ParError ? `${error.code} ${error.message}` : String(error)}`)
    t.equal(await codeOf(par.stream(options as never).next()), code)
  }
  t.match(await rejection(par.generate({ classId: 1, n: 16 })), { message: /n = 4 .*not 16/ }, 'names the n at hand')
  t.match(await rejection(par.generate({ classId: 10 })), { message: /0 to 9/ })
  t.ok(await par.generate({ classId: 1, topK: 1e6, topP: 1, temperature: 1e-9, size: undefined }),
    'extremes that are legal')
})

t.test('score', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const tokens = new Int32Array(64)
  const cases: Array<[code: string, options: unknown]> = [
    ['INVALID_OPTION', undefined], ['INVALID_OPTION', {}], ['INVALID_OPTION', { tokens }],
    ['INVALID_OPTION', { classId: 1 }],
    ['INVALID_OPTION', { tokens: [], classId: 1 }], ['INVALID_OPTION', { tokens: [1, 2], classId: 1 }],
    ['INVALID_OPTION', { tokens: new Int32Array(63), classId: 1 }],
    ['INVALID_OPTION', { tokens: tokens.map(() => 256), classId: 1 }],
    ['INVALID_OPTION', { tokens: tokens.map(() => -1), classId: 1 }],
    ['INVALID_OPTION', { tokens: new Float32Array(64), classId: 1 }],
    ['INVALID_OPTION', { tokens: [tokens, tokens], classId: [1] }],
    ['BAD_CLASS_ID', { tokens, classId: 10 }], ['BAD_CLASS_ID', { tokens: [tokens], classId: [NaN] }],
    ['UNSUPPORTED_N', { tokens, classId: 1, n: 1 }],
    ['INVALID_OPTION', { tokens, classId: 1, guidanceScale: NaN }],
    ['INVALID_OPTION', { tokens, classId: 1, logits: 5 }], ['INVALID_OPTION', { tokens, classId: 1, logits: [64] }],
    ['INVALID_OPTION', { tokens, classId: 1, logits: ['0'] }], ['INVALID_OPTION',
      { tokens, classId: 1, method: 'slow' }], ['INVALID_OPTION', { tokens, classId: 1, method: null }],
    ['INVALID_OPTION', { tokens, classId: 1, logits: new Array(3) }],
    ['INVALID_OPTION', { tokens: new Array(1), classId: 1 }], ['INVALID_OPTION',
      { tokens: [tokens, tokens], classId: new Array(2) }], ['INVALID_OPTION', { tokens, classId: 1, temperature: 1 }]
  ]
  for (const [code, options] of cases) t.equal(await codeOf(par.score(options as never)), code, inspect(options))

  const [a, b] = await par.score({ tokens: [tokens, tokens.map(() => 5)], classId: [1, 2], logits: [7, 0, 7] })
  t.equal(a!.logits!.length, 3 * 256)
  t.same(a!.logits!.slice(0, 256), a!.logits!.slice(512), 'a position may be asked for twice')
  const [alone] = await par.score({ tokens: tokens.map(() => 5), classId: 2 })
  t.same(alone!.logProbs, b!.logProbs, 'alone as in a list')
  t.equal(alone!.logits, undefined)
  t.same((await par.score({ tokens, classId: 1, logits: [] }))[0]!.logits!.length, 0)
  const many = await par.score({ tokens: Array.from({ length: 70 }, () => tokens), classId: 1 })
  t.equal(new Set(many.map(score => score.total)).size, 1, 'more pictures than one session takes')
})

t.test('what the caller does with its buffers afterwards changes nothing', async t => {
  const own = await smallPar()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  for (const [instance, length, side] of [[own, 64, 32], [par, 256, 32]] as const) {
    const tokens = (): Int32Array => Int32Array.from({ length }, (_, i) => (7 * i) % 128)
    const floats = (): Float32Array => Float32Array.from({ length: side * side * 3 }, (_, i) => (i % 200) / 100 - 1)
    const bytes = (): Uint8Array => Uint8Array.from({ length: side * side * 3 }, (_, i) => i % 251)
    const png = await new Image(bytes(), side, side).toBuffer()
    const size = { width: side, height: side }
    const calls: Array<[name: string, call: (
      input: { tokens: Int32Array, floats: Float32Array, bytes: Uint8Array, png: Uint8Array }
    ) => Promise<unknown>]> = [
      ['score', async input => (await instance.score({ tokens: [input.tokens], classId: 1 }))[0]!.logProbs],
      ['score of one', async input => (await instance.score({ tokens: input.tokens, classId: 1 }))[0]!.logProbs],
      ['decode', async input => (await instance.decode(Array<Int32Array>(3).fill(input.tokens)))[2]!.data],
      ['encode floats', async input => await instance.encode({ data: input.floats, ...size })],
      ['encode bytes', async input => await instance.encode({ data: input.bytes, ...size })],
      ['encode an Image', async input => await instance.encode(new Image(input.bytes, side, side))],
      ['encode a file', async input => await instance.encode(input.png)]
    ]
    for (const [name, call] of calls) {
      const input = () => ({ tokens: tokens(), floats: floats(), bytes: bytes(), png: Uint8Array.from(png) })
      const expected = await call(input())
      const [changed, moved] = [input(), input()]
      if (instance === par) await par.dispose() // its next call loads the model first
      const results = [call(changed), call(moved)]
      for (const array of Object.values(changed)) array.fill(3)
      structuredClone(null, { transfer: Object.values(moved).map(array => array.buffer as ArrayBuffer) })
      for (const result of results) t.same(await result, expected, name)
    }
    const list = [1, 2]
    const images = instance.generate({ classId: list, seed: 1 })
    list.length = 0
    t.same((await images).map(image => image.classId), [1, 2])
  }
  const gone = new Int32Array(64)
  structuredClone(null, { transfer: [gone.buffer] })
  t.equal(await codeOf(own.score({ tokens: gone, classId: 1 })), 'INVALID_OPTION', 'detached before the call')
  t.equal(await codeOf(own.decode(gone)), 'INVALID_OPTION')
  const picture = new Uint8Array(64)
  structuredClone(null, { transfer: [picture.buffer] })
  t.equal(await codeOf(own.encode(picture)), 'BAD_IMAGE')
  t.equal(await codeOf(own.encode({ data: picture, width: 4, height: 4 })), 'INVALID_OPTION')
})

t.test('Par.load', async t => {
  const transformer = transformerFile('par-4x')
  for (const options of [
    null, 5, 'file.pt', [], { model: 'x' }, { transformer: 5 }, { transformer: '' }, { transformer: {} },
    { transformer: { path: 5 } }, { transformer: 'a\0b' },
    { transformer: { ...transformer, head: 2 } }, { transformer: { ...transformer, heads: NaN } },
    { transformer: { ...transformer, heads: 0 } }, { transformer: { ...transformer, heads: '2' } },
    { transformer: { ...transformer, grid: 0 } }, { transformer: { ...transformer, grid: [8] } },
    { transformer: { ...transformer, grid: [8, NaN] } }, { transformer: { ...transformer, n: 0 } },
    { tokenizer: 7 }, { tokenizer: {} }, { tokenizer: { path: tokenizerFile(), heads: 2 } },
    { transformer, device: 'gpu' }, { transformer, device: 'cuda:x' }, { transformer, device: 5 },
    { transformer, precision: 'float16' }, { transformer, precision: 16 }, { transformer, threads: 0 },
    { transformer, threads: NaN }, { transformer, threads: 1.5 }, { transformer, threads: 5000 },
    { transformer, signal: 'x' }, { transformer, device: null }, { transformer, precision: null },
    { transformer: null }, { tokenizer: null }, { transformer: pathToFileURL(transformer.path) },
    { transformer: { ...transformer, path: pathToFileURL(transformer.path) } }
  ]) t.equal(await codeOf(Par.load(options as never)), 'INVALID_OPTION', inspect(options))

  t.match(await rejection(Par.load({ tokenizer: pathToFileURL(transformer.path) as never })),
    { code: 'INVALID_OPTION', message: /path.*URL.*fileURLToPath/ })
  t.equal(await codeOf(Par.load({ transformer: '/nowhere/model.pt' })), 'FILE_NOT_FOUND')
  t.equal(await codeOf(Par.load({ tokenizer: '/nowhere/model.pt' })), 'FILE_NOT_FOUND')
  t.equal(await codeOf(Par.load({ transformer: { ...transformer, n: 16 } })), 'UNSUPPORTED_N')
  t.equal(await codeOf(Par.load({ transformer: { path: transformer.path } })), 'BAD_CHECKPOINT',
    'heads that nothing tells')
  t.equal(await codeOf(Par.load({ transformer: { ...transformer, heads: 3 } })), 'INVALID_OPTION')
  t.match(await rejection(Par.load({ transformer: tokenizerFile() })),
    { code: 'BAD_CHECKPOINT', message: /tokenizer, given as the transformer/ })
  t.match(await rejection(Par.load({ tokenizer: transformer.path })),
    { code: 'BAD_CHECKPOINT', message: /transformer, given as the tokenizer/ })
  t.match(await rejection(Par.load({ transformer: transformerFile('par-16x-hd100'), tokenizer: tokenizerFile() })),
    { code: 'TOKENIZER_MISMATCH', message: /par-16x-hd100.*320.*vq-small.*256/ })
  const folder = t.testdir({
    'no.pt': 'this is no checkpoint', 'short.pt': fs.readFileSync(transformer.path).subarray(0, 5000)
  })
  t.equal(await codeOf(Par.load({ transformer: path.join(folder, 'no.pt') })), 'BAD_CHECKPOINT')
  t.equal(await codeOf(Par.load({ transformer: path.join(folder, 'short.pt') })), 'BAD_CHECKPOINT')
})

t.test('device and precision', async t => {
  const transformer = transformerFile('par-4x')
  const automatic = await Par.load({ transformer, device: 'auto' })
  const explicit = await Par.load({ transformer, device: 'cpu', precision: 'bfloat16', threads: 2 })
  t.teardown(async () => { await automatic.dispose(); await explicit.dispose() })
  const { devices, reason } = await addon().cuda()
  const gpu = devices.find(({ problem }) => problem === undefined)
  t.match(automatic.info,
    {
      device: gpu ? `cuda:${gpu.index}` : 'cpu', deviceReason: gpu ? /^auto: GPU / : `auto: CPU, because ${reason}`,
      precisionReason: /^auto: /
    })
  t.match(explicit.info,
    { device: 'cpu', deviceReason: 'asked for', precision: 'bfloat16', precisionReason: 'asked for', threads: 2 })
  t.ok(gpu ? automatic.info.threads === 0 : automatic.info.threads >= 1)
  for (const device of gpu ? ['cuda:9999'] as const : ['cuda', 'cuda:0', 'cuda:7'] as const) {
    t.match(await rejection(Par.load({ transformer, device })),
      {
        code: 'DEVICE_UNAVAILABLE', message: new RegExp(`^Device ${device} is not available: .*Use device: '.*'auto'$`)
      }, device)
  }
})

t.test('what was not loaded is missing', async t => {
  const transformer = await transformerOnly('par-4x')
  const tokenizer = await tokenizerOnly()
  t.teardown(async () => { await transformer.dispose(); await tokenizer.dispose() })
  t.equal(transformer.info.tokenizer, undefined)
  t.equal(tokenizer.info.transformer, undefined)
  t.equal(await codeOf(transformer.decode(new Int32Array(64))), 'MISSING_PART')
  t.equal(await codeOf(transformer.encode('x.png')), 'MISSING_PART')
  t.equal(await codeOf(tokenizer.generate({ classId: 1 })), 'MISSING_PART')
  t.equal(await codeOf(tokenizer.stream({ classId: 1 }).next()), 'MISSING_PART')
  t.equal(await codeOf(tokenizer.score({ tokens: new Int32Array(64), classId: 1 })), 'MISSING_PART')
})

t.test('damaged weights', async t => {
  const file = transformerFile('par-4x')
  const bytes = fs.readFileSync(file.path)
  const { offset } = (await openCheckpoint(file.path)).tensors.get('norm.weight')!
  bytes.writeFloatLE(NaN, offset)
  const folder = t.testdir({ 'nan.pt': bytes })
  const par = await Par.load({ transformer: { ...file, path: path.join(folder, 'nan.pt') }, precision: 'float32' })
  t.teardown(() => par.dispose())
  t.equal(await codeOf(par.generate({ classId: 1 })), 'NON_FINITE')
  t.equal(await codeOf(par.generate({ classId: 1, greedy: true, guidanceScale: 2 })), 'NON_FINITE')
  t.equal(await codeOf(par.score({ tokens: new Int32Array(64), classId: 1 })), 'NON_FINITE')
})

t.test('class names', async t => {
  const labels = ['tench, Tinca tinca', 'T-shirt/top', 'Ankle boot', 'crane', 'Crane', 'Sandal']
  t.equal(resolveClass(' ankle  BOOT', 6, labels), 2)
  t.equal(resolveClass('ankle-boot', 6, labels), 2)
  t.equal(resolveClass('tinca tinca', 6, labels), 0, 'a synonym')
  t.equal(resolveClass('tench, tinca tinca', 6, labels), 0)
  t.equal(resolveClass(5, 6, labels), 5)
  t.throws(() => resolveClass('crane', 6, labels), { code: 'BAD_CLASS_ID', message: /3, 4/ }, 'ambiguous')
  t.throws(() => resolveClass('boot', 6, labels), { code: 'BAD_CLASS_ID', message: /Ankle boot.*2/ },
    'a part is a hint, no match')
  t.throws(() => resolveClass('zebra', 6, labels), { code: 'BAD_CLASS_ID' })
  t.throws(() => resolveClass('', 6, labels), { code: 'BAD_CLASS_ID' })
  t.throws(() => resolveClass('boot', 6), { code: 'BAD_CLASS_ID', message: /no class names/ })
  t.throws(() => resolveClass({}, 6, labels), { code: 'INVALID_OPTION' })
})

t.test('sampling: caller, then checkpoint, then paper', async t => {
  const sizes = { heads: 20, kvHeads: 20, headSize: 64, feedForward: 3584, specials: 3 }
  const xl = llamaGenModel({ ...sizes, layers: 36, dim: 1280, classes: 1000, vocabularySize: 16384 })
  const other = llamaGenModel({ ...sizes, layers: 2, dim: 128, classes: 10, vocabularySize: 256 })
  const resolve = (
    given: Partial<Sampling>, sampling: Partial<Sampling> | undefined, model: TransformerModel
  ): Sampling => resolveSampling(given, { method: 'par', sampling, model })
  t.same(resolve({}, undefined, other), { guidanceScale: 1, temperature: 1, topK: 0, topP: 1 })
  t.equal(resolve({}, undefined, xl).guidanceScale, 1.5)
  t.same(resolve({ topK: 5 }, { guidanceScale: 2, topK: 9, topP: 0.9 }, xl),
    { guidanceScale: 2, temperature: 1, topK: 5, topP: 0.9 })
  t.same(resolve({ guidanceScale: 3, topK: 300 }, { guidanceScale: 0, temperature: 1e-6 }, other),
    { guidanceScale: 3, temperature: 0, topK: 0, topP: 1 })
  t.equal(resolve({}, { guidanceScale: 0 }, other).guidanceScale, 1)
  const published = publishedParallel.find(({ name }) => name === 'ARPG-XL')!
  const arpg = { method: 'arpg', model: xl, published } as const
  t.equal(resolveSampling({}, arpg).guidanceScale, 6.6, 'of its own number of steps')
  t.equal(resolveSampling({}, arpg, 16).guidanceScale, 8.4)
  t.equal(resolveSampling({}, arpg, 200).guidanceScale, 5, 'of the number of steps that is nearest')
  t.equal(resolveSampling({}, { ...arpg, sampling: { guidanceScale: 3 } }, 16).guidanceScale, 3)
  t.equal(resolveSampling({}, { ...arpg, published: undefined }).guidanceScale, 1, 'no default of another method')
})

function inspect (options: unknown): string {
  return JSON.stringify(options,
    (_, value) => typeof value === 'bigint'
      ? `${value}n`
      : typeof value === 'number' && !Number.isFinite(value)
        ? String(value)
        : value) ?? 'undefined'
}

t.test('lists that are far too long are refused before they are copied', async t => {
  const own = await smallPar()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  const big = new Array(2 ** 32 - 1) as never
  const tokens = new Int32Array(64)
  for (const instance of [own, par]) {
    const calls: Record<string, () => Promise<unknown>> = {
      classId: () => instance.generate({ classId: big }),
      'classId in a list': () => instance.generate({ classId: [big] }),
      stream: () => instance.stream({ classId: big }).next(),
      images: () => instance.images({ classId: big }).next(),
      size: () => instance.generate({ classId: 1, size: big }),
      tokens: () => instance.decode(big),
      'tokens in a list': () => instance.decode([tokens, big]),
      'more tokens than a picture has': () => instance.decode(new Int32Array(2 ** 21)),
      grid: () => instance.decode(tokens, { grid: big }),
      'grid of a picture': () => instance.encode(new Uint8Array(8), { grid: big }),
      'picture to classify': () => instance.classify(big),
      classes: () => instance.classify(tokens, { classes: big }),
      'tokens to score': () => instance.score({ tokens: big, classId: 1 }),
      logits: () => instance.score({ tokens, classId: 1, logits: big }),
      animate: () => animate(instance, { classId: big }),
      'grid of a schedule': async () => createSchedule({ grid: big, n: 4 })
    }
    for (const [name, call] of Object.entries(calls)) {
      t.match(await codeOf(call()), /^(INVALID_OPTION|BAD_CLASS_ID)$/, name)
    }
  }
})

t.test('options of any kind are read once, at the call, and the same by an instance and the default export',
  async t => {
    const own = await smallPar()
    t.teardown(async () => { await own.dispose(); await par.dispose() })
    class Options {
      classId: unknown = [1, 2]
      n = 4
      #seed = 5
      get seed (): number { return this.#seed }
      size = new (class { width = 8; get height (): number { return 6 } })()
      change (): void { this.classId = 'nonsense'; this.#seed = 6; this.size.width = 50 }
    }
    const hidden = (): Record<string, unknown> =>
      Object.defineProperties({},
        {
          classId: { value: [1, 2], writable: true }, n: { value: 4 }, seed: { value: 5, writable: true },
          size: { value: { width: 8, height: 6 } }
        })
    for (const instance of [own, par]) {
      const expected = (await instance.generate({ classId: [1, 2], n: 4, seed: 5, size: { width: 8, height: 6 } }))
        .map(({ data }) => data)
      const calls: Record<string, (options: never) => Promise<Image[]>> = {
        generate: async options => await instance.generate(options) as never,
        stream: async options => {
          const stream = instance.stream(options)
          await new Promise(resolve => setImmediate(resolve))
          for await (const { images } of stream) if (images) return images
          return []
        },
        images: async options => {
          const images: Image[] = []
          const iterator = instance.images(options)
          await new Promise(resolve => setImmediate(resolve))
          for await (const image of iterator) images.push(image)
          return images
        }
      }
      for (const [name, call] of Object.entries(calls)) {
        await par.dispose() // its next call loads the model first
        const [given, odd, plain] = [new Options(), hidden(),
          { classId: [1, 2], n: 4, seed: 5, size: { width: 8, height: 6 } }]
        const making = [call(given as never), call(odd as never), call(plain as never)]
        given.change()
        odd.classId = 3
        plain.classId.length = 0
        plain.size.width = 50
        for (const made of making) t.same((await made).map(({ data }) => data), expected, name)
      }
      const grid = { grid: [4, 4] as [number, number] }
      await par.dispose()
      const encoding = instance.encode({ data: new Uint8Array(3072), width: 32, height: 32 }, grid)
      grid.grid[0] = 2
      t.equal((await encoding).length, 16)
      t.match(await rejection(instance.stream({ classId: 1, stages: 5 } as never).next()),
        { code: 'INVALID_OPTION', message: /^stream has no option/ })
    }
  })

t.test('a Proxy that was revoked is refused wherever it stands', async t => {
  const own = await smallPar()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  const tokens = new Int32Array(64)
  for (const instance of [own, par]) {
    const calls: Record<string, () => Promise<unknown>> = {
      options: () => instance.generate(revoked()), classId: () => instance.generate({ classId: revoked() }),
      'a class': () => instance.generate({ classId: [revoked()] }),
      size: () => instance.generate({ classId: 1, size: revoked() }),
      signal: () => instance.generate({ classId: 1, signal: revoked() }),
      stream: () => instance.stream(revoked()).next(),
      tokens: () => instance.decode(revoked()), 'tokens of a list': () => instance.decode([tokens, revoked()]),
      'options of decode': () => instance.decode(tokens, revoked()),
      grid: () => instance.decode(tokens, { grid: revoked() }), picture: () => instance.encode(revoked()),
      pixels: () => instance.encode({ data: revoked(), width: 1, height: 1 }),
      classify: () => instance.classify(revoked()), classes: () => instance.classify(tokens, { classes: revoked() }),
      score: () => instance.score({ tokens: revoked(), classId: 1 }),
      logits: () => instance.score({ tokens, classId: 1, logits: revoked() }), load: () => Par.load(revoked()),
      transformer: () => Par.load({ transformer: revoked() }),
      pull: () => pull('par-xl-4x', revoked()), preset: () => pull(revoked()),
      schedule: async () => createSchedule(revoked()), psnr: async () => psnr(revoked(), revoked()),
      format: () => new Image(new Uint8Array(3), 1, 1).toBuffer(revoked()),
      data: () => new Image(revoked(), 1, 1).toBuffer(),
      'options of a format': () => new Image(new Uint8Array(3), 1, 1).toBuffer('jpeg', revoked())
    }
    for (const [name, call] of Object.entries(calls)) t.equal(await codeOf(call()), 'INVALID_OPTION', name)
  }
  t.ok(await own.generate({ classId: 1, onProgress: () => revoked() }), 'what a callback returns is not looked at')
  for (const wrong of [null, undefined, 5, 'x']) {
    for (const compare of [psnr, ssim]) {
      t.throws(() => compare(wrong as never, new Image(new Uint8Array(300), 10, 10)), { code: 'INVALID_OPTION' })
    }
  }
})

t.test('what is shared cannot be changed', async t => {
  t.teardown(() => par.dispose())
  const frozen = (value: unknown): boolean =>
    typeof value !== 'object' || value === null || (Object.isFrozen(value) && Object.values(value).every(frozen))
  t.ok(frozen(presets))
  t.ok(frozen(await par.labels))
  t.ok((await par.labels)!.length > 0)
})

t.test('the methods of the default export can be taken out of it', async t => {
  const { load, generate, stream, images, score, classify, decode, encode, prepare, dispose } = par
  t.teardown(() => dispose())
  const picture = await generate({ classId: 7, n: 16, seed: 1 })
  for await (const event of stream({ classId: 7, n: 16, seed: 1 })) {
    if (event.images) t.same(event.images[0]!.tokens, picture.tokens)
  }
  for await (const image of images({ classId: 7, n: 16, seed: 1 })) t.same(image.tokens, picture.tokens)
  t.equal((await score({ tokens: picture.tokens, classId: 7 })).length, 1)
  t.equal((await classify(picture.tokens, { top: 1 })).length, 1)
  t.same((await decode(picture.tokens)).data, picture.data)
  t.equal((await encode(await prepare(picture))).length, 256)
  t.ok(await load() instanceof Par)
})
