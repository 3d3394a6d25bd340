// examples/fastify-server over real HTTP: what it serves is what the API makes, previews come before the picture, a
// client that goes takes its work along, and close() leaves nothing behind.

import t from 'tap'
import { spawn } from 'node:child_process'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import sharp from 'sharp'
import { Par } from '../../lib/api/par.js'
import type { GenerateOptions } from '../../lib/api/options.js'
import { built, root } from '../support/built.js'
import { identical } from '../support/tensors.js'

interface App {
  par: Par
  server: http.Server
  listen (options: { port: number, host: string }): Promise<string>
  inject (url: string): Promise<{ statusCode: number, rawPayload: Buffer, headers: Record<string, unknown> }>
  close (): Promise<void>
}
type Teardown = { teardown (handler: () => unknown): unknown }
type Options = { atOnce?: number, waiting?: number, previews?: number, grace?: number }

const file = path.join(root, 'examples', 'fastify-server', 'server.mjs')
const model = { device: 'cpu' as const, precision: 'float32' as const }

async function start (t: Teardown, options: Options = {}): Promise<{ app: App, url: string }> {
  await built() // the example imports the package by its name
  const { createServer } = await import(pathToFileURL(file).href) as { createServer: (options: object) => Promise<App> }
  const app = await createServer({ model, ...options })
  t.teardown(() => app.close())
  return { app, url: await app.listen({ port: 0, host: '127.0.0.1' }) }
}

/** Makes every picture of this class stop at a step for ever, as far as its signal allows. */
function stuck (app: App, classId: number, at: number): { steps: number[], ended: unknown[] } {
  const seen: { steps: number[], ended: unknown[] } = { steps: [], ended: [] }
  const stream = app.par.stream.bind(app.par)
  app.par.stream = async function * (options: GenerateOptions) {
    if (options.classId !== classId) return yield * stream(options)
    try {
      return yield * stream({
        ...options,
        onProgress: async ({ step }) => { seen.steps.push(step); if (step === at) await new Promise(() => {}) }
      })
    } catch (error) {
      seen.ended.push((error as { code?: unknown }).code ?? error)
      throw error
    }
  }
  const generate = app.par.generate.bind(app.par)
  app.par.generate = (async (options: GenerateOptions & { classId: number }) => {
    if (options.classId !== classId) return await generate(options)
    return await generate({
      ...options,
      onProgress: async ({ step }) => { seen.steps.push(step); if (step === at) await new Promise(() => {}) }
    })
      .catch((error: { code?: unknown }) => { seen.ended.push(error.code ?? error); throw error })
  }) as Par['generate']
  return seen
}

interface Event { name: string, data: { step: number, steps: number, seed?: number, png?: string, code?: string } }

/** Reads server-sent events; `each` may end the connection by returning false. */
async function events (
  url: string, each: (event: Event) => boolean | void = () => {}
): Promise<{ status: number, type: string, events: Event[], whole: boolean }> {
  return await new Promise((resolve, reject) => {
    const request = http.get(url, { agent: false }, response => {
      const list: Event[] = []
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
          const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(text.slice(0, end))!
          const event = { name: name!, data: JSON.parse(data!) }
          list.push(event)
          if (each(event) === false) request.destroy()
        }
      })
      response.on('error', () => {}).on('close',
        () =>
          resolve({
            status: response.statusCode!, type: String(response.headers['content-type']), events: list,
            whole: response.complete
          }))
    })
    request.on('error', error => { if (!request.destroyed) reject(error) })
  })
}

async function until (what: () => boolean): Promise<void> {
  for (let left = 4000; !what(); left--) {
    if (left === 0) throw new Error('waited in vain')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

async function pixels (png: Uint8Array): Promise<Buffer> {
  return await sharp(png).raw().toBuffer()
}

t.test('the picture is that of the API, byte for byte', async t => {
  const { app, url } = await start(t)
  const par = await Par.load(model)
  t.teardown(() => par.dispose())
  for (const [query, options] of [
    ['7?seed=5', { classId: 7, seed: 5 }],
    ['ankle%20boot?seed=6&n=16&guidanceScale=3&temperature=0.5&topK=20&topP=0.9&size=64',
      { classId: 9, seed: 6, n: 16, guidanceScale: 3, temperature: 0.5, topK: 20, topP: 0.9, size: 64 }],
    ['T-shirt%2Ftop?seed=7', { classId: 0, seed: 7 }]
  ] as const) {
    const response = await fetch(`${url}/pictures/${query}`)
    t.match({
      status: response.status, type: response.headers.get('content-type'), seed: response.headers.get('parvis-seed')
    }, { status: 200, type: 'image/png', seed: String(options.seed) })
    const image = await par.generate(options)
    const body = new Uint8Array(await response.arrayBuffer())
    t.ok(identical(body, await image.toBuffer('png')), `${query}: the same file`)
    t.ok(identical(await pixels(body), image.data), `${query}: the same pixels`)
  }
  const injected = await app.inject('/pictures/7?seed=5') // Fastify's own way in, for tests of such a server
  t.equal(injected.statusCode, 200)
  t.ok(identical(injected.rawPayload, await (await par.generate({ classId: 7, seed: 5 })).toBuffer('png')))
  const random = await fetch(`${url}/pictures/7`)
  const again = await fetch(`${url}/pictures/7?seed=${random.headers.get('parvis-seed')}`)
  t.ok(identical(new Uint8Array(await random.arrayBuffer()), new Uint8Array(await again.arrayBuffer())),
    'the seed of a header makes the picture again')
})

t.test('previews come before the picture', async t => {
  const { url } = await start(t, { previews: 6 })
  const par = await Par.load(model)
  t.teardown(() => par.dispose())
  const seen = await events(`${url}/pictures/7/preview?seed=5`)
  t.match(seen, { status: 200, type: 'text/event-stream', whole: true })
  t.same(seen.events.map(({ name, data }) => [name, data.step]),
    [['preview', 12], ['preview', 24], ['preview', 36], ['preview', 48], ['preview', 60], ['picture', 67]])
  const expected: Buffer[] = []
  for await (const { step, images, preview } of par.stream({ classId: 7, seed: 5 })) {
    if (step % 12 === 0) expected.push(await (await preview()).toBuffer('png'))
    if (images) expected.push(await images[0]!.toBuffer('png'))
  }
  t.same(seen.events.map(({ data }) => data.png), expected.map(png => png.toString('base64')),
    'the same files as the API makes')
  t.equal(seen.events.at(-1)!.data.seed, 5)
})

t.test('a preview arrives while the picture is not made yet', async t => {
  const { app, url } = await start(t)
  const seen = stuck(app, 7, 40)
  const early = await events(`${url}/pictures/7/preview`, event => event.data.step < 36)
  t.same(early.events.map(event => event.data.step), [6, 12, 18, 24, 30, 36])
  t.notOk(early.whole)
  await until(() => seen.ended.length === 1)
  t.ok(seen.steps.at(-1)! <= 40, 'and ends there')
  t.same(seen.ended, ['CLIENT_GONE'])
})

t.test('a client that goes takes its work along', async t => {
  for (const route of ['/pictures/7/preview', '/pictures/7']) {
    const { app, url } = await start(t, { atOnce: 1 })
    const seen = stuck(app, 7, 10)
    const leaving = http.get(url + route, { agent: false })
    leaving.on('error', () => {})
    await until(() => seen.steps.at(-1) === 10)
    const waiting = fetch(`${url}/pictures/3?seed=1`).then(response => response.status)
    t.equal(await Promise.race([waiting, new Promise(resolve => setTimeout(resolve, 100, 'waits'))]), 'waits',
      `${route}: one at a time`)
    t.same(seen.ended, [])
    leaving.destroy()
    t.equal(await Promise.race([waiting, new Promise(resolve => setTimeout(resolve, 10_000, 'waits still').unref())]),
      200, `${route}: the next request has its turn`)
    t.same(seen, { steps: Array.from({ length: 10 }, (_, i) => i + 1), ended: ['CLIENT_GONE'] },
      `${route}: the call ended with the signal's reason, at step 10 of 67`)
  }
})

t.test('who waits and goes gives up the place', async t => {
  const { app, url } = await start(t, { atOnce: 1, waiting: 1 })
  const [came, went]: [string[], string[]] = [[], []]
  app.server.on('request', ({ url = '' }, response) => {
    came.push(url)
    response.on('close', () => went.push(url))
  })
  const seen = stuck(app, 7, 10)
  const first = http.get(`${url}/pictures/7?seed=1`, { agent: false }).on('error', () => {})
  await until(() => seen.steps.at(-1) === 10)
  const second = http.get(`${url}/pictures/7?seed=2`, { agent: false }).on('error', () => {})
  await until(() => came.length === 2)
  await new Promise(resolve => setTimeout(resolve, 10)) // it is in the queue
  const third = await fetch(`${url}/pictures/3`)
  t.match({ status: third.status, retry: third.headers.get('retry-after'), body: await third.json() },
    { status: 503, retry: '1', body: { code: 'BUSY' } })
  second.destroy()
  await until(() => went.includes('/pictures/7?seed=2'))
  const fourth = fetch(`${url}/pictures/4`)
  await until(() => came.includes('/pictures/4'))
  first.destroy()
  t.equal((await fourth).status, 200)
  t.equal(seen.steps.length, 10, 'the second was never begun')
})

t.test('a slow reader gets fewer previews and holds nobody up', async t => {
  const { app, url } = await start(t, { atOnce: 1, previews: 256 })
  const seen = stuck(app, 7, Infinity) // only watched
  const { hostname, port } = new URL(url)
  const slow = net.connect(Number(port), hostname).on('error', () => {})
  t.teardown(() => slow.destroy())
  slow.pause()
  slow.write('GET /pictures/7/preview?n=1&size=512&seed=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
  await until(() => seen.steps.length > 0)
  t.equal((await fetch(`${url}/pictures/3`)).status, 200, 'the next one has its turn although nothing was read')
  let text = ''
  slow.setEncoding('latin1').on('data', (chunk: string) => { text += chunk }).resume()
  await new Promise(resolve => slow.on('close', resolve))
  const [previews, pictures] = ['preview', 'picture'].map(name => text.split(`event: ${name}\n`).length - 1)
  t.ok(previews! < 255, `${previews} previews of 255`)
  t.equal(pictures, 1, 'the picture itself is not left out')
})

t.test('errors', async t => {
  const { app, url } = await start(t)
  for (const [query, code, message] of [
    ['99', 'BAD_CLASS_ID', /0 to 9/],
    ['sandwich', 'BAD_CLASS_ID', /No class is called 'sandwich'/],
    ['7?n=9', 'INVALID_OPTION', /querystring\/n/],
    ['7?seed=-1', 'INVALID_OPTION', /seed/],
    ['7?size=100000', 'INVALID_OPTION', /size/],
    ['7?topP=2', 'INVALID_OPTION', /topP must be a number from 0 to 1/],
    ['7?temperature=warm', 'INVALID_OPTION', /temperature/]
  ] as const) {
    for (const route of [query, query.replace(/(\?|$)/, '/preview$1')]) {
      const response = await fetch(`${url}/pictures/${route}`)
      t.equal(response.status, 400, route)
      t.match(await response.json(), { code, message })
    }
  }
  t.equal((await fetch(`${url}/pictures`)).status, 404)
  const generate = app.par.generate.bind(app.par)
  app.par.generate = (async () => { throw new Error('/secret/place') }) as unknown as Par['generate']
  const response = await fetch(`${url}/pictures/7`)
  t.match({ status: response.status, body: await response.json() },
    { status: 500, body: { code: 'INTERNAL', message: 'The picture could not be made' } })
  app.par.generate = generate
  await app.par.dispose()
  t.equal((await fetch(`${url}/pictures/7`)).status, 503, 'disposed of')
})

t.test('a failure in mid-stream is told as an event', async t => {
  const { app, url } = await start(t)
  const stream = app.par.stream.bind(app.par)
  app.par.stream = async function * (options: GenerateOptions) {
    return yield * stream({
      ...options, onProgress: ({ step }) => { if (step === 20) throw new Error('/secret/place') }
    })
  }
  const seen = await events(`${url}/pictures/7/preview`)
  t.same(seen.events.map(event => event.name), ['preview', 'preview', 'preview', 'failed'])
  t.equal(seen.events.at(-1)!.data.code, 'INTERNAL')
})

t.test('close() lets a picture finish, ends what does not, and disposes of the model', async t => {
  const { app, url } = await start(t, { grace: 4000 })
  const seen = stuck(app, 7, 10)
  const never = events(`${url}/pictures/7/preview`)
  await until(() => seen.steps.at(-1) === 10)
  let begun = false
  const finishing = events(`${url}/pictures/3/preview?n=1`, () => { begun = true })
  await until(() => begun)
  const began = performance.now()
  await app.close()
  const took = performance.now() - began
  t.ok(took > 3900 && took < 8000, `${took.toFixed(0)} ms`)
  t.same(seen.ended, ['CLOSING'])
  t.match((await never).events.at(-1), { name: 'failed', data: { code: 'CLOSING' } })
  t.equal((await finishing).events.at(-1)!.name, 'picture')
  await t.rejects(app.par.generate({ classId: 1 }), { code: 'DISPOSED' })
  await t.rejects(fetch(`${url}/pictures/3`))
})

t.test('the program: serves, and SIGTERM leaves no handle open', async t => {
  const child = spawn(process.execPath, [file],
    { env: { ...process.env, NODE_OPTIONS: '', PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  await until(() => /listening at (http:[^"]+)/.test(out) || child.exitCode !== null)
  const url = /listening at (http:[^"]+)/.exec(out)![1]!
  t.equal((await fetch(`${url}/pictures/7`)).status, 200)
  t.equal((await events(`${url}/pictures/7/preview`)).events.at(-1)!.name, 'picture')
  const ended = new Promise<[number | null,
    string | null]>(resolve => child.on('exit', (code, signal) => resolve([code, signal])))
  const began = performance.now()
  child.kill('SIGTERM')
  t.same(await ended, [0, null], 'the process ends by itself')
  t.ok(performance.now() - began < 4000, 'at once, before the grace is over')
})

t.test('SIGTERM ends the server whatever its clients do', async t => {
  const request = 'GET /pictures/7?seed=1 HTTP/1.1\r\nhost: x\r\n'
  const slow = 'GET /pictures/7/preview?n=1&size=1024&seed=1 HTTP/1.1\r\nhost: x\r\n\r\n'
  const clients: Array<[string, (socket: net.Socket) => void]> = [
    ['says nothing', () => {}],
    ['sends half a request line', socket => socket.write('GET /pic')],
    ['sends half a header', socket => socket.write('GET / HTTP/1.1\r\nhost: x\r\nx-y')],
    ['promises a body that never comes', socket => socket.write(`${request}content-length: 5\r\n\r\n`)],
    ['promises a body of a route that takes one',
      socket => socket.write(
        'POST /pictures/7 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n{'
      )],
    ['sends a body in endless pieces',
      socket => socket.write(
        'POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n'
      )],
    ['keeps its connection after an answer', socket => socket.write(`${request}\r\n`)],
    ['never reads the answer', socket => { socket.pause(); socket.write(slow) }],
    ['closes its own side only', socket => socket.end(slow)],
    ['sends many requests at once', socket => socket.write(`${request}\r\n`.repeat(20))]
  ]
  const { app, url } = await start(t, { grace: 1500, waiting: 100 })
  const { hostname, port } = new URL(url)
  for (const [, act] of clients) {
    const socket = net.connect({ port: Number(port), host: hostname, allowHalfOpen: true }).on('error', () => {})
    t.teardown(() => socket.destroy())
    await new Promise(resolve => socket.once('connect', resolve))
    act(socket)
  }
  const agent = new http.Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  const seen = stuck(app, 3, 10)
  const last = new Promise<string>((resolve, reject) => {
    http.get(`${url}/pictures/5?n=1`, { agent },
      response => { response.resume(); resolve(String(response.headers.connection)) }).on('error', reject)
  })
  const never = fetch(`${url}/pictures/3`).then(response => response.status, () => 'cut off')
  await until(() => seen.steps.at(-1) === 10)
  const began = performance.now()
  await app.close()
  const took = performance.now() - began
  t.ok(took < 1500 + 3000, `${clients.length} clients, ${took.toFixed(0)} ms`)
  t.equal(await last, 'close', 'an ordinary client has its answer, and is told that it was the last')
  t.match(await never, /503|cut off/)
  await t.rejects(app.par.generate({ classId: 1 }), { code: 'DISPOSED' })
})

t.test('requests that are refused under load are one short line of the log each', async t => {
  const child = spawn(process.execPath, [file],
    { env: { ...process.env, NODE_OPTIONS: '', PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  await until(() => /listening at (http:[^"]+)/.test(out) || child.exitCode !== null)
  const url = /listening at (http:[^"]+)/.exec(out)![1]!
  const silent = net.connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {})
  t.teardown(() => silent.destroy())
  const statuses = await Promise.all(Array.from({ length: 80 },
    async () => (await fetch(`${url}/pictures/7?n=1`)).status))
  t.same(new Set(statuses), new Set([200, 503]))
  const lines = out.split('\n').filter(Boolean)
    .map(line => JSON.parse(line) as { level: number, code?: string, err?: unknown })
  const busy = lines.filter(({ code }) => code === 'BUSY')
  t.equal(busy.length, statuses.filter(status => status === 503).length)
  t.ok(busy.every(({ level, err }) => level === 40 && err === undefined), 'a warning without a stack')
  t.ok(lines.every(({ level }) => level <= 40), 'no errors')
  const ended = new Promise<[number | null,
    string | null]>(resolve => child.on('exit', (code, signal) => resolve([code, signal])))
  const began = performance.now()
  child.kill('SIGTERM')
  t.same(await ended, [0, null])
  t.ok(performance.now() - began < 4000, 'a silent connection keeps nobody')
})
