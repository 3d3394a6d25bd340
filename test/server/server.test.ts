// The HTTP server on a model in this process: with OpenAI's own client, and with requests that no client sends.

import net from 'node:net'
import type { AddressInfo } from 'node:net'
import OpenAI, { toFile } from 'openai'
import sharp from 'sharp'
import t from 'tap'
import { Par } from '../../lib/index.js'
import { createServer, type ServerOptions } from '../../server/lib/server.js'
import { LocalEngine } from '../../server/lib/local.js'
import type { Engine, PictureRequest } from '../../server/lib/engine.js'
import { codeOf, rejection } from '../support/fixtures.js'

const turn = async (ms = 0): Promise<void> => { await new Promise(resolve => setTimeout(resolve, ms)) }
const common = { device: 'cpu', precision: 'float32' } as const

/** RGB bytes of a picture file in base64. */
const pixelsOf = async (b64: string | undefined): Promise<Buffer> =>
  await sharp(Buffer.from(b64!, 'base64')).removeAlpha().raw().toBuffer()

async function serve (
  t: { teardown: (end: () => unknown) => unknown }, options: ServerOptions
): Promise<{ url: string, app: ReturnType<typeof createServer> }> {
  const app = createServer(options)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close() })
  return { url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`, app }
}

const post = async (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  await fetch(`${url}/v1/images/generations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body)
  })
interface Failure { code: string, param: string | null, message: string }
const failureOf = async (response: Response): Promise<Failure & { status: number }> => {
  const { error: { code, param, message } } = await response.json() as { error: Failure }
  return { status: response.status, code, param, message }
}

t.test("OpenAI's client", async t => {
  const engine = await LocalEngine.open({ models: ['fashion', 'fashion-arpg'], ...common })
  const par = await Par.load(common)
  t.teardown(async () => { await par.dispose(); await engine.close() })
  const { url } = await serve(t, { engine, apiKeys: ['first-key-123', 'second-key-456'] })
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'second-key-456', maxRetries: 0 })

  t.same((await client.models.list()).data.map(({ id, object }) => [id, object]),
    [['fashion', 'model'], ['fashion-arpg', 'model']])
  t.match(await client.models.retrieve('fashion'), { id: 'fashion', method: 'par', tokens_per_step: [1, 4, 16] })

  const expected = await par.generate({ classId: ['sneaker', 'sneaker', 'sneaker'], seed: 5, n: 16 })
  const three = await client.images.generate({
    model: 'fashion', prompt: 'sneaker', n: 3, ...{ seed: 5, tokens_per_step: 16 } as object
  })
  t.same(await Promise.all(three.data!.map(({ b64_json: b64 }) => pixelsOf(b64))),
    expected.map(({ data }) => Buffer.from(data)), 'the pictures that the library makes')
  t.match(three, { size: '32x32', output_format: 'png', usage: { output_tokens: 3 * 256 } })
  t.match(three.data!.map(one => (one as { seed?: number }).seed), [5, 6, 7])

  const sized = await client.images.generate({
    prompt: '7', size: '256x256', output_format: 'webp', output_compression: 50, response_format: 'url'
  })
  const [, type, base64] = /^data:(image\/webp);base64,(.*)$/.exec(sized.data![0]!.url!)!
  t.match(await sharp(Buffer.from(base64!, 'base64')).metadata(), { width: 256, height: 256, format: 'webp' }, type!)

  const events: Array<{ type: string, b64_json: string, partial_image_index?: number }> = []
  const stream = await client.images.generate({
    prompt: 'bag', stream: true, partial_images: 3, ...{ seed: 9, tokens_per_step: 1 } as object
  })
  for await (const event of stream) events.push(event as never)
  t.same(events.map(({ type }) => type),
    [...Array(3).fill('image_generation.partial_image'), 'image_generation.completed'])
  t.same(events.map(event => event.partial_image_index), [0, 1, 2, undefined])
  const bag = await par.generate({ classId: 'bag', seed: 9, n: 1 })
  const drawn = await Promise.all(events.map(({ b64_json: b64 }) => pixelsOf(b64)))
  t.same(drawn[3], Buffer.from(bag.data))
  t.ok(new Set(drawn.map(String)).size === 4, 'each partial image is another one')

  const bad = await rejection(client.images.generate({ prompt: 'sandwich' }))
  t.ok(bad instanceof OpenAI.BadRequestError)
  t.match(bad, { status: 400, code: 'bad_class_id', param: 'prompt', message: /No class is called 'sandwich'/ })
  const badStream = await rejection(client.images.generate({ prompt: 'sandwich', stream: true }))
  t.match(badStream, { status: 400, code: 'bad_class_id' }, 'no stream begins for a bad request')
  t.match(await rejection(client.images.generate({ model: 'dall-e-3', prompt: 'bag' })),
    { status: 404, code: 'model_not_found', param: 'model' })
  t.match(await rejection(client.images.generate({ prompt: 'bag', ...{ tokens_per_step: 5 } as object })),
    { status: 400, code: 'unsupported_n', param: 'tokens_per_step', message: /1, 4 and 16/ })
  t.match(await rejection(client.images.generate({ prompt: 'bag', ...{ steps: 5 } as object })),
    { status: 400, code: 'invalid_option', param: 'steps' })
  const arpg = await client.images.generate({
    model: 'fashion-arpg', prompt: 'bag', ...{ steps: 8, seed: 1 } as object
  })
  t.match(arpg.data![0], { steps: 8, seed: 1 })

  const again = await Promise.all([1, 2].map(async () => (await client.images.generate({ prompt: 'bag' },
    { headers: { 'idempotency-key': 'order-17' } })).data![0] as { seed?: number, b64_json?: string }))
  t.equal(again[0]!.seed, again[1]!.seed, 'the seed follows from an idempotency key')
  t.equal(again[0]!.b64_json, again[1]!.b64_json)
  t.match(await rejection(client.images.generate({ prompt: 'bag' }, { headers: { 'idempotency-key': 'a b' } })),
    { status: 400, code: 'invalid_value' })

  for (const apiKey of ['wrong-key-789', 'first-key-12', 'second-key-4567']) {
    const other = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 })
    const error = await rejection(other.images.generate({ prompt: 'bag' }))
    t.ok(error instanceof OpenAI.AuthenticationError, `'${apiKey}' is refused`)
    t.match(error, { status: 401, code: 'invalid_api_key' })
  }
  t.ok(await new OpenAI({ baseURL: `${url}/v1`, apiKey: 'first-key-123' }).models.list(), 'each key opens')

  const controller = new AbortController()
  const aborted = rejection(client.images.generate({ prompt: 'bag', n: 10, ...{ tokens_per_step: 1 } as object },
    { signal: controller.signal }))
  await turn(60)
  controller.abort()
  t.ok((await aborted) instanceof OpenAI.APIUserAbortError)
  for (let tries = 0; tries < 100 && (await engine.load('fashion')).running > 0; tries++) await turn(10)
  t.equal((await engine.load('fashion')).running, 0, 'an abort frees the seats')
})

t.test('edits: what is transparent is drawn anew', async t => {
  const engine = await LocalEngine.open({ models: ['fashion'], ...common })
  const par = await Par.load(common)
  t.teardown(async () => { await par.dispose(); await engine.close() })
  const { url } = await serve(t, { engine })
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  const whole = await par.generate({ classId: 'sneaker', seed: 3 })
  const image = await whole.toBuffer('png')
  // The right half of the mask is transparent.
  const alpha = Buffer.alloc(32 * 32 * 4).map((_, i) => i % 4 === 3 && (i >> 2) % 32 < 16 ? 255 : 0)
  const mask = await sharp(alpha, { raw: { width: 32, height: 32, channels: 4 } }).png().toBuffer()
  const kept = Array.from({ length: 256 }, (_, cell) => cell % 16 < 8)
  const expected = await par.generate({ classId: 'sneaker', seed: 8, known: { image, mask: kept } })
  const edit = async (more: object): Promise<OpenAI.ImagesResponse> => await client.images.edit({
    image: await toFile(image, 'a.png', { type: 'image/png' }),
    mask: await toFile(mask, 'm.png', { type: 'image/png' }),
    prompt: 'sneaker', ...{ seed: 8 } as object, ...more
  }) as OpenAI.ImagesResponse
  t.same(await pixelsOf((await edit({})).data![0]!.b64_json), Buffer.from(expected.data), 'as the library completes it')

  const own = await sharp(image).ensureAlpha().composite([{ input: mask, blend: 'dest-in' }]).png().toBuffer()
  const byItself = await edit({ image: await toFile(own, 'b.png', { type: 'image/png' }), mask: undefined })
  t.equal((await pixelsOf(byItself.data![0]!.b64_json)).length, 32 * 32 * 3, 'a picture can be its own mask')

  const opaque = await toFile(image, 'a.png', { type: 'image/png' })
  const junk = await toFile(Buffer.from('no picture'), 'x.png', { type: 'image/png' })
  t.match(await rejection(edit({ mask: opaque })), { status: 400, param: 'mask', message: /has no transparency/ })
  t.match(await rejection(edit({ mask: junk })), { status: 400, param: 'mask', code: 'bad_image' })
  t.match(await rejection(edit({ image: junk })), { status: 400, code: 'bad_image' })
  const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>')
  for (const name of ['image', 'mask']) {
    t.match(await rejection(edit({ [name]: await toFile(svg, 'x.svg', { type: 'image/svg+xml' }) })),
      { status: 400, param: name, code: 'bad_image', message: /is no PNG, JPEG or WebP/ })
  }
  const huge = await sharp({ create: { width: 5000, height: 5000, channels: 3, background: 'red' } })
    .png({ palette: true }).toBuffer()
  t.match(await rejection(edit({ image: await toFile(huge, 'a.png', { type: 'image/png' }) })),
    { status: 400, param: 'image', message: /more than 16777216 pixels/ }, 'also beside a mask')
  const form = async (body: string, type = 'multipart/form-data; boundary=x'): Promise<Failure & { status: number }> =>
    await failureOf(await fetch(`${url}/v1/images/edits`, { method: 'POST', headers: { 'content-type': type }, body }))
  t.match(await form('--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\nhalf'),
    { status: 400, code: 'bad_request' }, 'a form that is cut off')
  t.match(await form('', 'multipart/form-data'), { status: 400 }, 'a form without a boundary')
  t.match(await form('{"a": 1}', 'application/json'), { status: 415 })
  t.match(await rejection(edit({ n: 11 })), { status: 400, param: 'n' })
  t.match(await rejection(edit({ stray: 1 })), { status: 400, param: 'stray' })
  const none = await fetch(`${url}/v1/images/edits`, { method: 'POST', body: new FormData() })
  t.equal(none.status, 400)
})

t.test('what no client sends', async t => {
  const engine = await LocalEngine.open({ models: ['fashion'], ...common })
  t.teardown(async () => { await engine.close() })
  const { url, app } = await serve(t, { engine, maxBodyBytes: 2000 })
  const cases: Array<[body: unknown, status: number, code: string, param: string | null]> = [
    ['{"prompt": ', 400, 'bad_request', null],
    ['null', 400, 'invalid_value', null],
    [{}, 400, 'invalid_value', 'prompt'],
    [{ prompt: ['bag'] }, 400, 'invalid_value', 'prompt'],
    [{ prompt: '' }, 400, 'invalid_value', 'prompt'],
    [{ prompt: 1e9 }, 400, 'bad_class_id', 'prompt'],
    [{ prompt: -1 }, 400, 'invalid_value', 'prompt'],
    [{ prompt: 'bag', n: 0 }, 400, 'invalid_value', 'n'],
    [{ prompt: 'bag', n: '3' }, 400, 'invalid_value', 'n'],
    [{ prompt: 'bag', n: 1.5 }, 400, 'invalid_value', 'n'],
    [{ prompt: 'bag', size: '../../etc' }, 400, 'invalid_value', 'size'],
    [{ prompt: 'bag', size: '9999x9999' }, 400, 'invalid_value', 'size'],
    [{ prompt: 'bag', size: '2048x2048', n: 10 }, 400, 'invalid_value', 'size'],
    [{ prompt: 'bag', model: '/etc/passwd' }, 404, 'model_not_found', 'model'],
    [{ prompt: 'bag', model: '__proto__' }, 404, 'model_not_found', 'model'],
    [{ prompt: 'bag', seed: 2 ** 60 }, 400, 'invalid_value', 'seed'],
    [{ prompt: 'bag', guidance_scale: 0 }, 400, 'invalid_value', 'guidance_scale'],
    [{ prompt: 'bag', transformer: '/etc/passwd' }, 400, 'invalid_value', 'transformer'],
    [{ prompt: 'bag', known: { image: '/etc/passwd', mask: 'left' } }, 400, 'invalid_value', 'known'],
    ['{"prompt": "bag", "__proto__": {"n": 3}}', 400, 'bad_request', null],
    [{ prompt: 'b'.repeat(3000) }, 413, 'body_too_large', null]
  ]
  for (const [body, status, code, param] of cases) {
    const failure = await failureOf(await post(url, body))
    t.match(failure, { status, code, param }, `${JSON.stringify(body).slice(0, 70)}: ${failure.message}`)
    t.notMatch(failure.message, /\/work|node_modules|\.ts\b|:\d+:\d+/, 'nothing of the server is told')
  }
  t.match(await failureOf(await post(url, 'x=1', { 'content-type': 'application/x-www-form-urlencoded' })),
    { status: 415, code: 'unsupported_media_type' })
  t.match(await failureOf(await fetch(`${url}/nowhere`)), { status: 404, code: 'not_found' })
  t.match(await failureOf(await fetch(`${url}/page/../package.json`)), { status: 404 })
  t.match(await failureOf(await fetch(`${url}/v1/images/generations`)), { status: 404 })
  const odd = await new Promise<string>(resolve => {
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1',
      () => { socket.write('GET / HTTP/9\r\n\r\n') })
    let text = ''
    socket.on('data', data => { text += String(data) })
    for (const end of ['close', 'error']) socket.on(end, () => resolve(text))
  })
  t.match(odd, /^HTTP\/1\.1 400/)
  t.match(await failureOf(await post(url, { prompt: 'bag' }, { 'sec-fetch-site': 'cross-site' })),
    { status: 403, code: 'forbidden_origin' })
  t.match(await failureOf(await fetch(`${url}/v1/models/%zz`)), { status: 400 })
  t.equal((await post(url, { prompt: 'bag', seed: 1, n: null, size: null, quality: null })).status, 200,
    'null is what clients of OpenAI send for nothing, and the server is as usable as before')
  // Answers that are pipelined have no socket of their own: their end is noticed all the same.
  await new Promise<void>(resolve => {
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1', () => {
      socket.write('GET /page.js HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(20))
      setTimeout(() => { socket.destroy(); resolve() }, 50)
    })
  })
  const closing = performance.now()
  await app.close()
  t.ok(performance.now() - closing < 2000, 'nothing is waited for that nobody reads')
})

t.test('health, figures, documents, and pages of other origins', async t => {
  const engine = await LocalEngine.open({ models: ['fashion'], ...common })
  t.teardown(async () => { await engine.close() })
  const { url } = await serve(t, { engine, apiKeys: ['a-long-key'], origins: ['https://example.org'] })
  t.same(await (await fetch(`${url}/healthz`)).json(), { status: 'ok' })
  t.same(await (await fetch(`${url}/readyz`)).json(), { status: 'ready' })
  const headers = { authorization: 'Bearer a-long-key' }
  for (const path of ['/metrics', '/openapi.json', '/v1/models', '/api/models']) {
    t.equal((await fetch(url + path)).status, 401, `${path} needs the key`)
    t.equal((await fetch(url + path, { headers })).status, 200, `${path} with it`)
  }
  await post(url, { prompt: 'bag', n: 2 }, headers)
  await post(url, { prompt: 'none' }, headers)
  const figures = await (await fetch(`${url}/metrics`, { headers })).text()
  for (const line of [/^parvis_pictures_total\{model="fashion"\} 2$/m, /^parvis_queue_waiting\{model="fashion"\} 0$/m,
    /^parvis_pictures_running\{model="fashion"\} 0$/m, /^parvis_step_duration_seconds_count\{model="fashion"\} 66$/m,
    /parvis_request_duration_seconds_count\{route="\/v1\/images\/generations",status="400"\} 1/,
    /parvis_request_duration_seconds_count\{route="\/v1\/images\/generations",status="200"\} 1/,
    /^process_resident_memory_bytes/m]) t.match(figures, line)
  const figure = (name: string): number =>
    Number(new RegExp(`^${name}\\{model="fashion"\\} (\\d+)$`, 'm').exec(figures)?.[1])
  const [passes, pictures] = [figure('parvis_steps'), figure('parvis_picture_steps')]
  t.ok(passes > 33 && passes <= 67, `${passes} passes for 67 steps: some may hold several`)
  t.ok(pictures > passes && pictures <= 2 * passes, `${pictures} pictures in them`)
  const document = await (await fetch(`${url}/openapi.json`, { headers })).json() as {
    openapi: string, paths: Record<string, object>, components: { schemas: Record<string, object> }
  }
  t.equal(document.openapi, '3.1.0')
  t.same(Object.keys(document.paths).sort(), ['/healthz', '/metrics', '/readyz', '/v1/images/edits',
    '/v1/images/generations', '/v1/models', '/v1/models/{model}'])
  for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
    t.ok(Object.hasOwn(document.components.schemas, name!), `${name} is there`)
  }

  const page = await fetch(url)
  t.match(page.headers.get('content-type'), /^text\/html/)
  t.match(page.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'/)
  for (const file of ['page.js', 'page.css', 'icon.svg']) t.equal((await fetch(`${url}/${file}`)).status, 200, file)
  const from = async (origin: string): Promise<string | null> =>
    (await fetch(`${url}/healthz`, { headers: { origin } })).headers.get('access-control-allow-origin')
  t.equal(await from('https://example.org'), 'https://example.org')
  t.equal(await from('https://example.com'), null)
  const preflight = await fetch(`${url}/v1/images/generations`,
    { method: 'OPTIONS', headers: { origin: 'https://example.org', 'access-control-request-method': 'POST' } })
  t.equal(preflight.status, 204)
})

/** A step takes 5 ms, 100 of them make a picture; what is asked of it is kept. */
class SlowEngine {
  readonly steps = new Map<number, number>()
  readonly ends: unknown[] = []
  busy = 0
  constructor (readonly inner: Engine, readonly most = Infinity) {}
  models = (): ReturnType<Engine['models']> => this.inner.models()
  load = async (): Promise<{ waiting: number, running: number }> => ({ waiting: 25, running: this.busy })
  problem = async (): Promise<string | undefined> => undefined
  close = async (): Promise<void> => {}
  draw: Engine['draw'] = async (request: PictureRequest, signal, listener) => {
    if (this.busy >= this.most) throw Object.assign(new Error('25 calls wait already'), { code: 'QUEUE_FULL' })
    this.busy++
    try {
      for (let step = 1; step <= 100; step++) {
        await turn(5)
        signal.throwIfAborted()
        this.steps.set(request.seed, step)
        listener.step?.({ step, steps: 100, cells: [step], ms: 5 * step })
      }
      const data = new Uint8Array(32 * 32 * 3)
      return {
        pictures: [{
          data, width: 32, height: 32, classId: 1, label: 'x', seed: request.seed, steps: 100, n: 1, tokenOrder: [],
          transformerMs: 1, decodeMs: 1, totalMs: 2
        }],
        kind: { backend: 'x', precision: 'x', weights: '' }
      }
    } catch (error) {
      this.ends.push(error)
      throw error
    } finally {
      this.busy--
    }
  }
}

t.test('limits, deadlines, disconnects and the end', async t => {
  const local = await LocalEngine.open({ models: ['fashion'], ...common })
  t.teardown(async () => { await local.close() })

  const full = new SlowEngine(local, 1)
  const limited = await serve(t, { engine: full as unknown as Engine })
  const first = post(limited.url, { prompt: 'bag', seed: 1 })
  await turn(50)
  const refused = await post(limited.url, { prompt: 'bag', seed: 2 })
  t.equal(refused.headers.get('retry-after'), '3')
  t.match(await failureOf(refused), { status: 429, code: 'queue_full' })
  t.equal((await first).status, 200)

  const busy = await serve(t, { engine: new SlowEngine(local) as unknown as Engine, maxRequests: 1 })
  const only = post(busy.url, { prompt: 'bag', seed: 1 })
  await turn(50)
  t.match(await failureOf(await post(busy.url, { prompt: 'bag' })), { status: 429, code: 'server_busy' })
  t.equal((await only).status, 200)
  t.equal((await post(busy.url, { prompt: 'bag' })).status, 200, 'and there is room again')
  t.throws(() => createServer({ engine: local, apiKeys: [''] }), /An API key is empty/)
  t.equal(createServer({ engine: local }).initialConfig.pluginTimeout, 0, 'draining takes as long as grace says')

  const late = new SlowEngine(local)
  const short = await serve(t, { engine: late as unknown as Engine, deadline: 0.1 })
  t.match(await failureOf(await post(short.url, { prompt: 'bag', seed: 3 })),
    { status: 504, code: 'deadline_exceeded' })
  t.ok(late.steps.get(3)! < 60, `stopped after ${late.steps.get(3)} steps`)

  const left = new SlowEngine(local)
  const open = await serve(t, { engine: left as unknown as Engine, grace: 5 })
  const controller = new AbortController()
  const gone = rejection(fetch(`${open.url}/v1/images/generations`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"prompt":"bag","seed":4}',
    signal: controller.signal
  }))
  await turn(100)
  controller.abort()
  await gone
  const at = left.steps.get(4)!
  for (let tries = 0; tries < 100 && left.busy > 0; tries++) await turn(5)
  t.ok(left.busy === 0 && left.steps.get(4)! <= at + 4, 'a client that has gone stops its picture')

  const running = post(open.url, { prompt: 'bag', seed: 5 })
  await turn(60)
  const closing = open.app.close()
  await turn(30)
  t.equal((await running).status, 200, 'what runs is finished')
  await closing
  t.equal(await codeOf(post(open.url, { prompt: 'bag' })).catch(() => 'closed'), undefined)

  const hurried = new SlowEngine(local)
  const abrupt = await serve(t, { engine: hurried as unknown as Engine, grace: 0.1 })
  const cut = post(abrupt.url, { prompt: 'bag', seed: 6 })
  await turn(60)
  await abrupt.app.close()
  t.match(await failureOf(await cut), { status: 503, code: 'shutting_down' }, 'or aborted when its time is over')
})
