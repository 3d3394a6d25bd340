// Hubs that are none: mirrors that lack a part of the API, servers that ask to wait, that name passwords, that write
// what they like where a text is shown, and that send without end.

import t from 'tap'
import fs from 'node:fs'
import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { temporaryFolder } from '../cli/run.js'
import { commitOf, type FakeHub, sha256 } from '../support/hub.js'
import { afresh, failure, fetchAll, patience, startHub, tokenizer, weights } from '../support/pulling.js'

t.setTimeout(120_000)
let hub: FakeHub
t.before(async () => { hub = await startHub() })
t.beforeEach(() => afresh(hub))
t.teardown(async () => { await hub.stop() })

type Api = FakeHub['api']
const json = (response: ServerResponse, value: unknown): true => {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  return true
}
const refuse = (response: ServerResponse, status: number, headers: http.OutgoingHttpHeaders = {}): true => {
  response.writeHead(status, headers).end('no')
  return true
}
const paths = (request: IncomingMessage): boolean => request.url!.includes('/paths-info/')
const api = (request: IncomingMessage): boolean => request.url!.startsWith('/api/')

t.test('mirrors that lack a part of the API', async t => {
  for (const status of [400, 404, 405, 501]) {
    hub.api = (request, response) => paths(request) && refuse(response, status)
    t.match(await fetchAll({ cache: temporaryFolder() }), [{ hash: sha256(weights), bytes: weights.length },
      { hash: sha256(tokenizer), licence: 'mit' }], `no paths-info, ${status}`)
    t.ok(hub.requests.some(({ method, url }) => method === 'HEAD' && url.includes('/resolve/')))
    hub.api = (request, response) => api(request) && refuse(response, status)
    t.match(await fetchAll({ cache: temporaryFolder() }),
      [{ hash: sha256(weights), commit: commitOf('Epiphqny/PAR') }, { licence: undefined }], `no API at all, ${status}`)
  }
  // Mirrors that give the file themselves, with headers of their own.
  const direct = (headers: http.OutgoingHttpHeaders, asHead?: number): Api => (request, response) => {
    if (paths(request)) return refuse(response, 404)
    if (!request.url!.includes('/resolve/')) return false
    const content = request.url!.endsWith('PAR-XL-4x.pt') ? weights : tokenizer
    if (request.method === 'HEAD' && asHead !== undefined) return refuse(response, asHead)
    const all = { etag: `"${sha256(content)}"`, 'content-length': content.length, ...headers }
    response.writeHead(200, Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)))
    response.end(request.method === 'HEAD' ? undefined : content)
    return true
  }
  for (const headers of [{}, { 'x-repo-commit': commitOf('x') }, { etag: undefined }] as http.OutgoingHttpHeaders[]) {
    hub.api = direct(headers)
    const got = fetchAll({ cache: temporaryFolder() })
    if ('etag' in headers) {
      t.match(await failure(got),
        { code: 'DOWNLOAD_FAILED', message: /is no full Hub.*the SHA-256 of PAR-XL-4x\.pt.*x-linked-etag/ })
    } else if ('x-repo-commit' in headers) {
      t.match(await failure(got), { code: 'DOWNLOAD_FAILED', message: /two commits/ })
    } else t.match(await got, [{ hash: sha256(weights) }, { hash: sha256(tokenizer) }])
  }
  for (const [headers, lacking] of [[{ etag: '"d41d8cd98f00b204e9800998ecf8427e"' }, 'SHA-256'],
    [{ etag: `"${'a'.repeat(40)}"` }, 'SHA-256'], [{ 'content-length': undefined, 'transfer-encoding': 'chunked' },
      'size'], [{ 'content-encoding': 'gzip' }, 'size']] as Array<[http.OutgoingHttpHeaders, string]>) {
    hub.api = direct(headers)
    t.match(await failure(fetchAll()),
      { code: 'DOWNLOAD_FAILED', message: new RegExp(`no full Hub.*the ${lacking} of`) }, lacking)
  }
  for (const status of [400, 405, 501]) {
    hub.api = direct({}, status)
    t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /is no full Hub/ })
  }
  hub.api = direct({}, 404)
  t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /404.*Was it moved/ })
  hub.api = (request, response) =>
    request.url!.includes('/revision/') ? json(response, { sha: commitOf('Epiphqny/PAR') }) : refuse(response, 404)
  t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /404/ })
})

t.test('refusals that name their end', async t => {
  const soon = (): string => new Date(Date.now() + 1000).toUTCString()
  for (const [status, headers] of [
    [429, { 'retry-after': '1' }], [503, { 'retry-after': '1' }],
    [429, { 'retry-after': soon, date: () => new Date().toUTCString() }],
    [429, { 'retry-after': () => 'Thu, 01 Jan 2099 00:00:01 GMT', date: () => 'Thu, 01 Jan 2099 00:00:00 GMT' }],
    [429, { ratelimit: '"api";r=0;t=1' }], [429, { ratelimit: 'limit=10, remaining=0, reset=1' }],
    [429, { 'x-ratelimit-reset': '1' }],
    [429, { 'x-ratelimit-reset': () => String(Math.ceil(Date.now() / 1000) + 1) }]
  ] as Array<[number, Record<string, string | (() => string)>]>) {
    let refused = 0
    const told: string[] = []
    hub.api = (_request, response) => {
      if (refused++ >= 1) return false
      return refuse(response, status,
        Object.fromEntries(
          Object.entries(headers).map(([name, value]) => [name, typeof value === 'string' ? value : value()])
        ))
    }
    const started = performance.now()
    // One failure would be too many, but a refusal that names its end is none.
    const pulled = await fetchAll({
      cache: temporaryFolder(), patience: { ...patience, attempts: 1, wait: 4000 },
      onProgress: ({ problem }) => { if (problem) told.push(problem) }
    })
    t.match(pulled, [{ downloaded: true }, {}], JSON.stringify(headers))
    t.ok(performance.now() - started > 900, 'it was waited')
    t.match(told, [/answered (429|503) and asks to wait [12] seconds/])
  }
  for (const after of ['86400', 'Thu, 01 Jan 2099 00:00:00 GMT', '1e9', '9'.repeat(400), '4']) {
    hub.api = (_request, response) => refuse(response, 429, { 'retry-after': after })
    const started = performance.now()
    t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /^(?!.*Infinity).*answered 429/ }, after)
    t.ok(performance.now() - started < 1500, 'not waited for')
  }
  hub.api = (_request, response) => refuse(response, 429, { 'retry-after': '1' })
  const started = performance.now()
  t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /asks to wait 1 seconds, which is too long/ },
    'again and again')
  t.ok(performance.now() - started < 8000, 'ends')
  hub.api = (_request, response) => refuse(response, 429, { 'retry-after': '2' })
  const late = performance.now()
  await failure(fetchAll({ signal: AbortSignal.timeout(100) }))
  t.ok(performance.now() - late < 1500, 'ends with the signal')
  for (const nonsense of ['-5', 'soon', '0', '']) {
    hub.api = (_request, response) => refuse(response, 503, { 'retry-after': nonsense })
    t.match(await failure(fetchAll()), { message: /answered 503, 3 times in a row/ }, nonsense)
  }
})

t.test('passwords are not followed and not shown', async t => {
  const secret = /hush|signature/
  const shown = (error: Error): string => {
    let text = ''
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      text += `${cause.stack} ${JSON.stringify(cause)}\n`
    }
    return text
  }
  for (const location of ['http://me:hush@127.0.0.1:1/', 'https://hush@127.0.0.1/', 'ftp://me:hush@host/', 'hush:hush',
    'file:///hush', 'http://[hush', 'http://127.0.0.1:1/?signature=hush',
    'http://hush-less.invalid/?signature=hush#hush']) {
    hub.api = (_request, response) => refuse(response, 302, { location })
    const error = await failure(fetchAll())
    t.equal(error.code, 'DOWNLOAD_FAILED', location)
    t.notMatch(shown(error).replaceAll('hush-less', ''), secret, location)
  }
  hub.reset()
  hub.storage = (_asked, response) => refuse(response, 302, { location: 'http://me:hush@127.0.0.1:1/?signature=hush' })
  t.notMatch(shown(await failure(fetchAll())), secret, 'of the storage')
  for (const given of ['https://me:hush@127.0.0.1:1', 'hush:hush@x', 'http://127.0.0.1:1/?hush']) {
    process.env.HF_ENDPOINT = given
    const started = performance.now()
    const error = await failure(fetchAll())
    t.equal(error.code, 'INVALID_OPTION')
    t.notMatch(shown(error), secret)
    t.ok(performance.now() - started < 500, 'at once')
  }
})

t.test('texts of a repository are shown as text', async t => {
  const evil = '\u001b]0;title\u0007\r\u202e\u009b2J' + 'x'.repeat(5000)
  for (const info of [
    { cardData: { license: evil } }, { tags: ['a', `license:${evil}`] },
    { cardData: { license: 'other', license_name: evil } }, { cardData: { license: [evil, evil, 5, null] } }
  ]) {
    hub.api = (request, response) => request.url!.includes('/revision/') && json(response,
      { sha: commitOf(request.url!.includes('PAR') ? 'Epiphqny/PAR' : 'FoundationVision/LlamaGen'), ...info })
    const [{ licence }] = await fetchAll({ cache: temporaryFolder() })
    t.ok(licence !== undefined && licence.startsWith('\\u001b]0;title') &&
      !/[\u0000-\u001f\u007f-\u009f\u202e]/.test(licence) && licence.length < 150, `${licence?.length} characters`)
  }
  for (const info of [{ cardData: 5 }, { cardData: { license: {} } }, { tags: 5 }, { tags: ['license:'] },
    { cardData: { license: [[[]]] } }, { cardData: { license: ' ' } }]) {
    hub.api = (request, response) => request.url!.includes('/revision/') && json(response,
      { sha: commitOf(request.url!.includes('PAR') ? 'Epiphqny/PAR' : 'FoundationVision/LlamaGen'), ...info })
    t.equal((await fetchAll({ cache: temporaryFolder() }))[0].licence, undefined)
  }
  for (const [name, value] of [['x-linked-etag', '"\u009b2J' + 'e'.repeat(3000) + '"'],
    ['x-linked-size', '\u009b' + '9'.repeat(3000)]] as const) {
    hub.api = (request, response) => request.url!.includes('/resolve/') &&
      refuse(response, 302, { location: hub.storageUrl + '/' + sha256(weights), [name]: value })
    const error = await failure(fetchAll())
    t.ok(error.code === 'DOWNLOAD_FAILED' && error.message.length < 800 &&
      !/[\u0000-\u001f\u007f-\u009f]/.test(error.message), error.message)
  }
})

t.test('answers without end', async t => {
  let sent = 0
  const endless = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (!api(request)) return false
    response.writeHead(200, { 'content-type': 'application/json' })
    response.write('{"sha": "')
    const piece = Buffer.alloc(1 << 20, 'a')
    const more = (): void => {
      if (response.destroyed || sent > 500e6) return
      sent += piece.length
      response.write(piece, () => setImmediate(more))
    }
    more()
    return true
  }
  hub.api = endless
  const before = process.memoryUsage().rss
  t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /more than 8 MB/ })
  t.ok(sent < 200e6, `${sent} bytes were taken`)
  t.ok(process.memoryUsage().rss - before < 300e6)
  for (const body of ['['.repeat(3e6),
    `{"sha":"${commitOf('x')}","cardData":${'{"a":'.repeat(2e5)}1${'}'.repeat(2e5)}}`,
    '{"sha":' + '1'.repeat(1e6) + '}', 'null', '"x"', '']) {
    hub.api = (request, response) => { if (!api(request)) return false; response.writeHead(200).end(body); return true }
    t.equal((await failure(fetchAll())).code, 'DOWNLOAD_FAILED', body.slice(0, 20))
  }
  t.notOk(fs.existsSync(process.env.HF_HOME! + '/hub'), 'nothing was written')
})
