// Other realms, as test runners and vm contexts make them: values are told by brand, not by a constructor of one realm.
// Nothing here compares with numbers of parvis itself but those that it gives in its own realm.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { types } from 'node:util'
import own, { psnr, Image, type ParErrorCode } from '../lib/index.js'
import { FakeHub } from './support/hub.js'
import { transformerOfNaN } from './support/damaged.js'
import { inRealm } from './support/realm.js'

const code = async (work: Promise<unknown>): Promise<ParErrorCode | string> =>
  await work.then(() => 'no error', (error: { code?: ParErrorCode }) => error.code ?? String(error))

t.test('what a realm gets from parvis goes back into it', async t => {
  const { exports: { default: par, psnr, ssim, Image, ParError }, evaluate } = await inRealm()
  t.not(evaluate('Int32Array'), Int32Array, 'it is another realm')
  const wanted = await own.generate({ classId: 7, n: 16, seed: 1 })
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  t.same(Buffer.from(image.tokens.buffer), Buffer.from(wanted.tokens.buffer))
  t.ok(Buffer.from(wanted.data).equals(image.bytes()), 'the bytes are those of data')
  t.ok(Buffer.from(wanted.data).equals(await image.toBuffer('raw')))
  t.same(await image.toBuffer('png'), await wanted.toBuffer('png'))
  const { data } = await image.sharp().raw().toBuffer({ resolveWithObject: true })
  t.ok(data.equals(wanted.data))
  const file = path.join(t.testdir(), 'x.png')
  await image.toFile(file)
  t.same(fs.readFileSync(file), await wanted.toBuffer('png'))

  const { total } = (await par.score({ tokens: image.tokens, classId: 7 }))[0]!
  t.equal(total, (await own.score({ tokens: wanted.tokens, classId: 7 }))[0]!.total)
  t.equal(
    (await par.score({ tokens: [image.tokens, evaluate('Int32Array').from(image.tokens)], classId: 7 }))[1]!.total,
    total, 'arrays of either realm'
  )
  t.ok(Buffer.from(wanted.data).equals((await par.decode(image.tokens)).data))
  const floats = await par.decode(image.tokens, { format: 'float32' })
  t.ok(types.isFloat32Array(floats.data))
  t.ok(Buffer.from(wanted.data).equals(floats.bytes()), 'floats become the same bytes')
  const tokens = await own.encode({ data: wanted.data, width: 32, height: 32 })
  const { width, height } = image
  for (const [what, input] of Object.entries({
    'bytes of this realm': { data: image.data, width, height },
    'bytes of the other': { data: evaluate('Uint8Array').from(image.data), width, height },
    'clamped bytes': { data: evaluate('Uint8ClampedArray').from(image.data), width, height },
    'a picture file': await image.toBuffer('png')
  })) t.same(Array.from(await par.encode(input)), Array.from(tokens), what)
  t.same(Array.from(await par.encode({ data: floats.data, width, height })),
    Array.from(await own.encode(await own.decode(wanted.tokens, { format: 'float32' }))), 'floats')
  t.equal(psnr(image, image), Infinity)
  t.equal(ssim(image, new Image(evaluate('Uint8Array').from(image.data), width, height)), 1)

  const previews = []
  for await (const { preview, step } of par.stream({ classId: 7, n: 16, seed: 1 })) {
    if (step === 3) previews.push(await preview())
  }
  t.ok(types.isUint8Array(previews[0]!.data))
  t.ok(await par.decode(new Int32Array(3))
    .catch((error: unknown) => error instanceof ParError && error.code === 'INVALID_OPTION'))
  await par.dispose()
})

t.test('errors keep their class and code', async t => {
  // What @huggingface/hub wants at import; no fetch, no Response, no TextDecoder.
  const { exports: { Par, ParError, pull } } = await inRealm('index.js', { Blob, URL, URLSearchParams, TextEncoder })
  const nan = await Par.load({ transformer: transformerOfNaN(t.testdir()) })
  const error = await nan.generate({ classId: 1 }).catch((error: unknown) => error)
  t.ok(error instanceof ParError)
  t.match(error, { code: 'NON_FINITE', name: 'ParError' })
  t.equal(await code(nan.score({ tokens: new Int32Array(256), classId: 1 })), 'NON_FINITE')
  await nan.dispose()
  t.equal(await code(nan.generate({ classId: 1 })), 'DISPOSED')
  t.equal(await code(Par.load({ transformer: '/nowhere/x.pt' })), 'FILE_NOT_FOUND')
  t.equal(await code(Par.load({ device: 'cuda:999' })), 'DEVICE_UNAVAILABLE')

  const hub = await FakeHub.start({ 'Epiphqny/PAR': { files: {} } })
  t.teardown(async () => { await hub.stop() })
  process.env.HF_ENDPOINT = hub.url
  delete process.env.HF_HUB_OFFLINE
  const refused = await pull('par-xl-4x', { cache: t.testdir() }).catch((error: unknown) => error)
  t.ok(refused instanceof ParError, String(refused))
  t.equal((refused as { code?: string }).code, 'DOWNLOAD_FAILED')
  t.ok(hub.requests.length > 0, 'the Hub was asked')
  const poor = (await inRealm()).exports
  t.match(await poor.pull('par-xl-4x', { cache: t.testdir() }).catch((error: unknown) => error),
    { code: 'DOWNLOAD_FAILED', message: /@huggingface\/hub.* could not be loaded: (Blob|TextEncoder) is not defined/ })
})

t.test('signals of other realms and of polyfills', async t => {
  const { exports: { default: par } } = await inRealm()
  /** Neither removeEventListener nor reasons, as old polyfills. */
  class Poor {
    aborted = false
    listener: (() => void) | undefined
    added = 0
    addEventListener (_name: string, listener: () => void): void { this.listener = listener; this.added++ }
    abort (): void { this.aborted = true; this.listener?.() }
  }
  const poor = new Poor()
  const signal = poor as unknown as AbortSignal
  t.equal((await par.generate({ classId: 7, n: 16, signal })).tokens.length, 256, 'a call that ends')
  await par.generate({ classId: 7, n: 16, signal })
  t.equal(poor.added, 1, 'one listener for all calls')
  const running = par.generate({ classId: Array(64).fill(1), n: 1, signal })
  setTimeout(() => poor.abort(), 10)
  t.match(await running.catch((error: unknown) => error), { name: 'AbortError' })
  t.match(await par.generate({ classId: 7, signal }).catch((error: unknown) => error), { name: 'AbortError' },
    'aborted already')
  const reason = new Error('enough')
  const { Par } = (await inRealm()).exports
  t.equal(await Par.load({ signal: Object.assign(new Poor(), { aborted: true, reason }) as unknown as AbortSignal })
    .catch((error: unknown) => error), reason)
  await par.dispose()
})

t.test('arrays that are not what they say', async t => {
  const data = Float32Array.from({ length: 32 * 32 * 3 }, (_, i) => Math.sin(i))
  const tokens = await own.encode({ data, width: 32, height: 32 })
  for (const [what, input] of Object.entries({
    'a Proxy of floats': new Proxy(data, {}),
    'a Proxy of bytes': new Proxy(new Uint8Array(32 * 32 * 3), {}),
    'an heir by prototype': Object.create(data),
    'an own length': Object.defineProperty(new Float32Array(7), 'length', { value: 32 * 32 * 3 }),
    'one that names itself so': {
      [Symbol.toStringTag]: 'Float32Array', length: 32 * 32 * 3, constructor: Float32Array
    },
    doubles: new Float64Array(32 * 32 * 3),
    words: new Uint16Array(32 * 32 * 3)
  })) t.equal(await code(own.encode({ data: input as Float32Array, width: 32, height: 32 })), 'INVALID_OPTION', what)
  const longer = Object.defineProperty(Float32Array.from(data), 'length', { value: 3 })
  t.same(await own.encode({ data: longer, width: 32, height: 32 }), tokens, 'an own length is not what counts')
  for (const [what, input] of Object.entries({
    'a Proxy': new Proxy(tokens, {}), 'an own length': Object.defineProperty(new Int32Array(3), 'length',
      { value: 256 }), unsigned: new Uint32Array(256), big: new BigInt64Array(256)
  })) {
    t.equal(await code(own.decode(input as Int32Array, { grid: 16 })), 'INVALID_OPTION', `decode: ${what}`)
    t.equal(await code(own.decode([input as Int32Array], { grid: 16 })), 'INVALID_OPTION', `decode of a list: ${what}`)
    t.equal(await code(own.score({ tokens: input as Int32Array, classId: 1 })), 'INVALID_OPTION', `score: ${what}`)
  }
  const bytes = new Uint8Array(32 * 32 * 3)
  for (const data of [new Proxy(bytes, {}), Object.defineProperty(new Uint8Array(3), 'length', { value: bytes.length }),
    new Int8Array(bytes.length), Array.from(bytes)]) {
    const odd = { data: data as Uint8Array, width: 32, height: 32 }
    t.throws(() => psnr(odd, { data: bytes, width: 32, height: 32 }), { code: 'INVALID_OPTION' })
  }
  for (const data of [new Proxy(bytes, {}), new Uint16Array(bytes.length), Array.from(bytes), 'text']) {
    const image = new Image(data as Uint8Array, 32, 32)
    t.throws(() => image.bytes(), { code: 'INVALID_OPTION' })
    t.equal(await code(image.toBuffer()), 'INVALID_OPTION')
    t.equal(await code(image.toFile(path.join(t.testdir(), 'x.png'))), 'INVALID_OPTION')
  }
})

t.test('no built-in is asked for by its constructor', t => {
  const root = path.join(__dirname, '..', 'lib')
  const names = fs.readdirSync(root,
    { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts') && name !== path.join('base', 'realm.ts'))
  // Of Map and Set only such are asked about as parvis itself has made.
  const builtIn =
    /instanceof (\w*(Array|Error|Buffer)|URL|Promise|AbortSignal|Date|RegExp|Function|Object|Blob|Response|Headers)\b/g
  const global = /(?<![.\w$'])(fetch|new (TextDecoder|TextEncoder|Response|Headers)|(await|return) import)\(/g
  for (const name of names) {
    const source = fs.readFileSync(path.join(root, name), 'utf8').replace(/\/\*[^]*?\*\/|\/\/.*/g, '')
    const found = source.match(builtIn)
      ?.filter(text => !['ParError', 'UsageError', 'JsonError', 'CommanderError'].includes(text.split(' ')[1]!)) ?? []
    t.same(found, [], name)
    const decoder = /TextDecoder } from 'node:util'/.test(source)
    t.same(source.match(global)?.filter(text => !(decoder && /TextDecoder/.test(text))) ?? [], [], name)
    // A vm context has no timers and no clock of its own. The command line runs in its own process.
    if (/^(cli|bench)[\\/]/.test(name)) continue
    const used = new Set(
      [...source.matchAll(/(?<![.\w$'])((?:set|clear)(?:Timeout|Interval|Immediate)(?=\()|performance(?=\.))/g)]
        .map(([, word]) => word!)
    )
    const imported = [...source.matchAll(/import \{([^}]*)\} from 'node:(?:timers(?:\/promises)?|perf_hooks)'/g)]
      .map(([, words]) => words).join()
    t.same([...used].filter(word => !new RegExp(`\\b${word}\\b`).test(imported)), [],
      `${name}: timers and clock from Node itself`)
  }
  t.end()
})
