// Everything that a picture may come in gives the same tokens, and what is none says so: briefly, whatever it is.

import fs from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import vm from 'node:vm'
import sharp from 'sharp'
import t from 'tap'
import { ParError } from '../../lib/base/errors.js'
import { Image } from '../../lib/api/image.js'
import { Par } from '../../lib/api/par.js'
import par, { pull } from '../../lib/index.js'
import { codeOf, rejection, smallPar, tokenizerOnly } from '../support/fixtures.js'

const side = 32
const rgb = Uint8Array.from({ length: side * side * 3 }, (_, i) => (i * 7 + (i >> 5)) % 256)
const opaque = Uint8ClampedArray.from({ length: side * side * 4 },
  (_, i) => i % 4 === 3 ? 255 : rgb[Math.floor(i / 4) * 3 + i % 4]!)

t.test('containers of one picture', async t => {
  const own = await tokenizerOnly()
  t.teardown(() => own.dispose())
  const png = await new Image(rgb, side, side).toBuffer()
  const expected = await own.encode({ data: rgb, width: side, height: side, channels: 3 })
  const folder = t.testdir()
  const file = path.join(folder, 'ä b%.png')
  fs.writeFileSync(file, png)
  const view = new Uint8Array(png.length + 20)
  view.set(png, 10)
  const shared = new SharedArrayBuffer(png.length)
  new Uint8Array(shared).set(png)
  const base64 = png.toString('base64')
  const server = createServer((request, response) => {
    response.writeHead(request.url === '/none' ? 404 : 200).end(png)
  }).listen(0)
  await new Promise(resolve => server.once('listening', resolve))
  t.teardown(() => { server.close() })
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`

  const inputs: Array<[string, () => unknown]> = [
    ['path', () => file], ['file: URL', () => pathToFileURL(file)],
    ['file: URL as text', () => pathToFileURL(file).href],
    ['Buffer', () => png], ['Uint8Array', () => view.subarray(10, 10 + png.length)],
    ['Uint8ClampedArray', () => new Uint8ClampedArray(png)],
    ['ArrayBuffer', () => new Uint8Array(png).buffer], ['SharedArrayBuffer', () => shared],
    ['DataView', () => new DataView(view.buffer, 10, png.length)],
    ['of another realm',
      () => (vm.runInNewContext('bytes => new Uint8Array(bytes).buffer') as (bytes: number[]) => unknown)([...png])],
    ['Blob', () => new Blob([png])], ['File', () => new File([png], 'a.png')], ['Response', () => new Response(png)],
    ['fetch', async () => await fetch(address)],
    ['web stream', () => new Blob([png]).stream()],
    ['Node stream', () => fs.createReadStream(file, { highWaterMark: 100 })],
    ['generator', async function * () { yield png.subarray(0, 9); yield png.subarray(9) }],
    ['data: URL', () => `data:image/png;base64,${base64}`],
    ['data: URL object', () => new URL(`data:image/png;base64,${base64}`)],
    ['data: URL with parameters and escapes',
      () =>
        `DATA:image/png;charset=x;BASE64,${base64.replaceAll('+', '%2B').replaceAll('=', '%3D').slice(0, 40)}\n${base64.slice(40).replaceAll('/', '%2f').replaceAll('=', '')}`.replace(/%2B|%3D/g,
          x => x)],
    ['data: URL of many parts',
      () =>
        `data:image/png;base64,${' '.repeat(131_070)}${base64.replaceAll('=', '%3d').replaceAll('A', '%41')}${'%20'.repeat(90_000)}`],
    ['data: URL without base64',
      () => `data:image/png,${[...png].map(byte => `%${byte.toString(16).padStart(2, '0')}`).join('')}`],
    ['sharp', () => sharp(png)], ['sharp of raw pixels', () => new Image(rgb, side, side).sharp()],
    ['Image', () => new Image(rgb, side, side)],
    ['RGB without channels', () => ({ data: rgb, width: side, height: side })],
    ['ImageData of a canvas', () => ({ data: opaque, width: side, height: side, colorSpace: 'srgb' })],
    ['RGBA', () => ({ data: opaque, width: side, height: side, channels: 4 })]
  ]
  for (const [name, make] of inputs) t.same(await own.encode(await make() as never), expected, name)
  t.same((await own.prepare(new Blob([png]))).data, (await own.prepare(png)).data, 'prepare, too')
  const grey = await own.encode({ data: rgb.subarray(0, side * side), width: side, height: side })
  t.same(grey, await own.encode({ data: rgb.subarray(0, side * side), width: side, height: side, channels: 1 }))
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"><rect width="32" height="32" ' +
    'fill="#f00"/></svg>'
  const red = await own.encode({
    data: Uint8Array.from({ length: side * side * 3 }, (_, i) => i % 3 ? 0 : 255), width: side, height: side
  })
  t.same(await own.encode(`data:image/svg+xml,${svg.replaceAll('#', '%23')}`), red, 'plain text')
  t.same(await own.encode(`data:image/svg+xml,${encodeURIComponent(svg)}`), red)

  const rotated = sharp(await sharp(png).withMetadata({ orientation: 3 }).jpeg().toBuffer()).autoOrient()
  t.same(await own.encode(rotated), await own.encode(await rotated.clone().png().toBuffer()))
  t.same(await own.encode(rotated), await own.encode(rotated), 'a pipeline can be used again')

  const moved = new Uint8Array(png).buffer
  const encoding = own.encode(moved)
  new Uint8Array(moved).fill(0)
  structuredClone(moved, { transfer: [moved] })
  t.same(await encoding, expected, 'memory is copied at once')
  await par.dispose()
  t.same(await par.encode(new Blob([png])), await par.encode(png), 'the default export')
  await par.dispose()
  t.match(await rejection(own.encode(await fetch(address + 'none') as never)),
    { code: 'BAD_IMAGE', message: /status is 404/ })
})

t.test('what is no picture: the cause and the cure, in a short message', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const png = await new Image(rgb, side, side).toBuffer()
  const long = 'A'.repeat(3e6)
  const read = new Response(png)
  await read.arrayBuffer()
  const gone = new ArrayBuffer(8)
  structuredClone(gone, { transfer: [gone] })
  const cases: Array<[code: string, message: RegExp, input: unknown]> = [
    ['INVALID_OPTION', /no address is fetched.*Fetch it/, 'https://example.com/a.png'],
    ['INVALID_OPTION', /no address is fetched/, new URL('http://example.com/a.png')],
    ['INVALID_OPTION', /no address is fetched/, 'blob:nodedata:1'],
    ['INVALID_OPTION', /no address is fetched/, `s3://bucket/${long}`],
    ['INVALID_OPTION', /comma/, 'data:image/png;base64'],
    ['INVALID_OPTION', /no base64/, `data:image/png;base64,${long}*`],
    ['BAD_IMAGE', /formats/, `data:image/png;base64,${long}`],
    ['INVALID_OPTION', /no address of a file/, 'file://server/a.png'],
    ['INVALID_OPTION', /no address of a file/, 'file:///a%00.png'], ['INVALID_OPTION', /non-empty/, 'a\0b'],
    ['INVALID_OPTION', /non-empty/, ''],
    ['FILE_NOT_FOUND', /looks like base64.*Buffer\.from\(text, 'base64'\)/, long],
    ['FILE_NOT_FOUND', /looks like base64/, png.toString('base64')],
    ['FILE_NOT_FOUND', /\.\.\./, `/${'x y/'.repeat(1e5)}`],
    ['FILE_NOT_FOUND', /\\u001b/, '/nowhere/\u001b[31m.png'], ['FILE_NOT_FOUND', /device/, '/dev/zero'],
    ['FILE_NOT_FOUND', /folder/, '/'], ['FILE_NOT_FOUND', /no such file/, 'foo:bar.png'],
    ['BAD_IMAGE', /PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG/, Buffer.from('BM' + 'x'.repeat(100))],
    ['BAD_IMAGE', /PNG, JPEG/, new Blob(['P6 1 1 255 abc'])],
    ['BAD_IMAGE', /Cannot read/, png.subarray(0, 50)], ['BAD_IMAGE', /Cannot read/, new Blob([])],
    ['BAD_IMAGE', /Cannot read/, gone], ['BAD_IMAGE', /read before/, read],
    ['BAD_IMAGE', /Cannot read/, new Response(null)],
    ['BAD_IMAGE', /mine/, Readable.from((function * () { throw new Error('mine') })())],
    ['INVALID_OPTION', /gives bytes/, Readable.from(['text'])],
    ['BAD_IMAGE', /sharp pipeline/, sharp('/nowhere.png')],
    ['INVALID_OPTION', /ArrayBuffer/, { size: 1, arrayBuffer: async () => 5 }],
    ['BAD_IMAGE', /limit/, { size: 2 ** 40, arrayBuffer: async () => new ArrayBuffer(0) }],
    ['INVALID_OPTION', /width and height/, new Float32Array(12)], ['INVALID_OPTION', /path/, new Uint16Array(12)],
    ['INVALID_OPTION', /path/, {}], ['INVALID_OPTION', /path/, null], ['INVALID_OPTION', /path/, 7],
    ['INVALID_OPTION', /path/, () => png],
    ['INVALID_OPTION', /5000 values.*3072 of RGB, 4096 of RGBA/, { data: new Uint8Array(5000), width: 32, height: 32 }],
    ['INVALID_OPTION', /channels/, { data: new Float32Array(4096), width: 32, height: 32 }],
    ['INVALID_OPTION', /values, found/, { data: opaque, width: 32, height: 32, channels: 3 }]
  ]
  for (const [code, message, input] of cases) {
    const error = await rejection(own.encode(input as never))
    const name = `${code} ${String(message)}`
    t.ok(error instanceof ParError, name)
    t.match(error, { code, message }, name)
    t.ok((error as Error).message.length < 800, `${(error as Error).message.length} characters`)
    t.notMatch((error as Error).message, /[^\u0020-\u007e\n]/, 'nothing that a terminal would act on')
  }
  t.equal(await codeOf(own.classify(new Blob(['x']))), 'BAD_IMAGE')
})

t.test('a stream that stands still, a pipe and a slow read can be aborted', async t => {
  const own = await tokenizerOnly()
  t.teardown(() => own.dispose())
  for (const input of [new ReadableStream(), { async * [Symbol.asyncIterator] () { await new Promise(() => {}) } },
    new Response(new ReadableStream()), sharp()]) {
    const controller = new AbortController()
    const encoding = own.encode(input as never, { signal: controller.signal })
    setTimeout(() => controller.abort('enough'), 20)
    t.equal(await rejection(encoding), 'enough')
  }
})

t.test('Par: the constructor and load say what to write instead', async t => {
  const cases: Array<[message: RegExp, call: () => unknown]> = [
    [/second argument only behind the name of a model/,
      () => Par.load({ device: 'cpu' } as never, { threads: 'x' } as never)],
    [/second argument/, () => Par.load(undefined as never, {})],
    [/await Par\.load\(\)/, () => new (Par as unknown as new () => Par)()],
    [/first argument: Par\.load\('par-xl-4x'/, () => Par.load({ model: 'par-xl-4x' } as never)],
    [/Par\.load\(\{ transformer: 'x\.safetensors' \}\)/, () => Par.load('x.safetensors' as never)],
    [/Par\.load\(\{ transformer: '\.\/models\/x' \}\)/, () => Par.load('./models/x' as never)],
    [/repository.*Par\.load\('par-xl-4x'\)/, () => Par.load('epiphqny/PAR' as never)],
    [/no preset.*par-xl-4x/, () => Par.load('someone/else' as never)],
    [/not the address .*no address is fetched/, () => Par.load({ transformer: 'https://huggingface.co/a.pt' })],
    [/fileURLToPath/, () => Par.load({ tokenizer: 'file:///a.pt' })],
    [/not the address/, () => Par.load({ tokenizer: { path: `data:,${'x'.repeat(1e6)}` } })],
    [/from 0 to 9007199254740991/, () => par.generate({ classId: 1, seed: 18446744073709551615n as never })],
    [/Number\(5n\)/, () => par.generate({ classId: 1, seed: 5n as never })],
    [/1 is off/, () => par.generate({ classId: 1, guidanceScale: 0 })]
  ]
  t.teardown(() => par.dispose())
  for (const [message, call] of cases) {
    const error = await rejection((async () => await call())())
    t.match(error, { code: 'INVALID_OPTION', message }, String(message))
    t.ok((error as Error).message.length < 600)
  }
  const lost = await rejection(Par.load({ transformer: 'A'.repeat(3e6) }))
  t.equal((lost as ParError).code, 'FILE_NOT_FOUND')
  t.ok((lost as ParError).message.length < 600, `${(lost as ParError).message.length} characters`)
})

t.test('relative paths are those of the moment of the call', async t => {
  const own = await tokenizerOnly()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  const folder = t.testdir({ 'a.png': await new Image(rgb, side, side).toBuffer() })
  const before = process.cwd()
  t.teardown(() => { process.chdir(before) })
  for (const instance of [own, par]) {
    const expected = await instance.encode(path.join(folder, 'a.png'))
    const classes = instance === par ? await par.classify(path.join(folder, 'a.png')) : undefined
    await par.dispose() // its next call loads the model first
    process.chdir(folder)
    const calls = [instance.encode('a.png'), instance.prepare('a.png').then(picture => instance.encode(picture)),
      classes && par.classify('a.png')]
    const missing = rejection(instance.encode('b.png'))
    process.chdir('/')
    const [encoded, prepared, classified] = await Promise.all(calls)
    t.same([encoded, prepared, classified], [expected, expected, classes])
    t.match(await missing, { code: 'FILE_NOT_FOUND', message: /b\.png/ })
  }
  process.chdir(folder)
  process.env.HF_HUB_OFFLINE = '1'
  const loads = [Par.load('par-xl-4x', { cache: 'none' }), pull('par-xl-4x', { cache: 'none' })].map(rejection)
  process.chdir('/')
  t.match(await loads[0], { code: 'FILE_NOT_FOUND', message: path.join(folder, 'none') })
  t.match(await loads[1], { code: 'DOWNLOAD_FAILED', message: path.join(folder, 'none') })
})

t.test('a source is closed when its call ends early', async t => {
  const own = await tokenizerOnly()
  t.teardown(() => own.dispose())
  let closed = 0
  const close = (): void => { closed++ }
  const wait = async (): Promise<never> => await new Promise<never>(() => {})
  const iterator = (next: () => Promise<unknown>): unknown =>
    ({ [Symbol.asyncIterator]: () => ({ next, return: async () => { close(); return {} } }) })
  const part = async (): Promise<unknown> => ({ value: new Uint8Array(10), done: false })
  const sources: Record<string, () => unknown> = {
    'web stream': () => new ReadableStream({ pull: wait, cancel: close }),
    'stream of bytes': () => new ReadableStream({ type: 'bytes', pull: wait, cancel: close }),
    Response: () => new Response(new ReadableStream({ pull: wait, cancel: close })),
    'stream of Node.js': () => new PassThrough().on('close', close),
    iterator: () => iterator(wait),
    'endless iterator': () =>
      iterator(async () => { await new Promise(resolve => setTimeout(resolve, 1)); return await part() })
  }
  for (const [name, source] of Object.entries(sources)) {
    closed = 0
    const controller = new AbortController()
    const encoding = own.encode(source() as never, { signal: controller.signal })
    setTimeout(() => controller.abort('enough'), 10)
    t.equal(await rejection(encoding), 'enough')
    await new Promise(resolve => setTimeout(resolve, 10))
    t.equal(closed, 1, name)
  }
  closed = 0
  t.equal(await codeOf(own.encode(iterator(async () => ({ value: 'text', done: false })) as never)), 'INVALID_OPTION')
  t.equal(await codeOf(
    own.encode(new ReadableStream({ start (stream) { stream.enqueue('text') }, cancel: close }) as never)
  ), 'INVALID_OPTION')
  t.equal(closed, 2, 'what it gives is refused')
  const other = await tokenizerOnly()
  const code = codeOf(other.encode(new ReadableStream({ pull: wait, cancel: close })))
  await other.dispose()
  t.equal(await code, 'DISPOSED')
  t.equal(closed, 3, 'dispose()')
})

t.test('parts of a stream are copied', async t => {
  const own = await tokenizerOnly()
  t.teardown(() => own.dispose())
  const png = await new Image(rgb, side, side).toBuffer()
  const expected = await own.encode(png)
  const again = new Uint8Array(100)
  t.same(await own.encode((async function * () {
    for (let at = 0; at < png.length; at += again.length) {
      again.set(png.subarray(at, at + again.length))
      yield again.subarray(0, Math.min(again.length, png.length - at))
    }
  })()), expected, 'memory that is used again')
  t.same(await own.encode((async function * () {
    const part = new Uint8Array(png)
    yield part
    structuredClone(null, { transfer: [part.buffer] })
  })()), expected, 'memory that is transferred')
  const memory = new Uint8Array(png).buffer
  const encoding = own.encode({ size: png.length, arrayBuffer: async () => memory } as never)
  setTimeout(() => { new Uint8Array(memory).fill(0) })
  t.same(await encoding, expected, 'of a Blob of another library')
  const stream = new Blob([png]).stream()
  const { getReader } = stream
  t.same(await own.encode({ getReader: getReader.bind(stream) as never }), expected, 'a stream that is no iterable')
})
