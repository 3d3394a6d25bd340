// Answers of a Hub that went wrong on the way, or never was one: each input is a pull through a fetch that changes what
// a proper Hub would say (statuses, headers, JSON, bytes, redirects, connections). Whatever comes, a pull ends with a
// ParError or with the right files, it leaves nothing under a name that readers look at but right content, writes
// nothing outside the cache, and sends the token to nobody but the Hub.

import { createHash } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pullFiles } from '../../lib/hub/pull.js'
import type { Fuzzer, Random } from './harness.js'

const repository = 'a/b'
const file = 'w.pt'
const content = Buffer.alloc(3001, 'the content of the file ')
const other = Buffer.alloc(3001, 'another content of it ')
const oid = createHash('sha256').update(content).digest('hex')
const commit = 'c'.repeat(40)
const endpoint = 'https://hub.test'
const storage = 'https://storage.test'
const token = 'hf_fuzzed'

/** What is done to the answer number `at`. */
interface Change {
  at: number
  /** Also to every later one. */
  on?: true
  status?: number
  headers?: Record<string, string | null>
  body?: { kind: 'text', text: string } | { kind: 'cut' | 'flip' | 'more' | 'other', value: number } | {
    kind: 'endless' | 'broken' | 'silent'
  }
  fails?: string
}

const statuses = [200, 201, 204, 206, 206, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 404, 405, 408,
  410, 416, 418, 425, 429, 500, 501, 502, 503, 504, 599]
const texts = [
  '', ' ', '0', '-1', '1', '3001', '3000', '1e400', 'NaN', '9007199254740993', '99999999999999999999', 'null', oid,
  `"${oid}"`, `W/"${oid}"`, 'f'.repeat(64), 'f'.repeat(40), commit, '../../../../x',
  '..', '/etc/passwd', 'x'.repeat(5000), '\u009b2J', 'a\u00e9', 'bytes 0-3000/3001', 'bytes 1-3000/3001',
  'bytes 9-1/3001', 'bytes */3001', 'gzip', 'identity', 'br', 'Thu, 01 Jan 2099 00:00:00 GMT',
  '"api";r=0;t=1', 'GatedRepo', 'RepoNotFound', `${endpoint}/elsewhere`, `${storage}/elsewhere`, '/relative',
  '//storage.test/x', 'http://hub.test/', 'file:///etc/passwd', 'https://me:hush@storage.test/',
  'https://[', 'javascript:1', 'data:,x', '?x', '#x', 'https://hub.test:99999/'
]
const headerNames = ['location', 'content-length', 'content-range', 'content-encoding', 'etag', 'x-linked-etag',
  'x-linked-size', 'x-repo-commit', 'x-error-code', 'retry-after', 'ratelimit', 'x-ratelimit-reset', 'date',
  'content-type']
const codes = ['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'UND_ERR_SOCKET', 'EPROTO', 'CERT_HAS_EXPIRED', 'ENOENT',
  'ERR_ACCESS_DENIED', '\u001b[2J', '']

function hostile (random: Random, depth = 0): unknown {
  const kind = random.int(depth > 2 ? 8 : 11)
  if (kind < 2) return random.pick(texts)
  if (kind < 4) return random.pick([0, -1, 1.5, 3001, 3000, 2 ** 53, 1e300, -0])
  if (kind < 6) return random.pick([null, true, false])
  if (kind < 8) return random.pick([[], {}, '', '\ud800'])
  if (kind === 8) return Array.from({ length: random.int(4) }, () => hostile(random, depth + 1))
  return Object.fromEntries(Array.from({ length: random.int(4) },
    () => [random.pick(['sha', 'oid', 'size', 'lfs', 'path', 'type', '__proto__', 'license', 'toString', 'lastCommit']),
      hostile(random, depth + 1)]))
}

/** JSON with some of its values replaced, taken away or doubled. */
function garbled (random: Random, value: unknown): unknown {
  if (random.chance(0.15)) return hostile(random)
  if (Array.isArray(value)) {
    return random.chance(0.1)
      ? [...value as unknown[], ...value as unknown[]]
      : value.map(item => garbled(random, item))
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).filter(() => !random.chance(0.05)).map(([name, item]) => [name, garbled(random, item)])
  )
}

const info = {
  _id: '0', id: repository, sha: commit, private: false, gated: false, likes: 1, downloads: 1,
  lastModified: '2024-12-20T00:00:00.000Z', tags: ['license:mit'], cardData: { license: 'mit' }
}
const pathsInfo = [
  {
    type: 'file', path: file, oid: 'd'.repeat(40), size: content.length,
    lfs: { oid, size: content.length, pointerSize: 134 }
  }
]

function change (random: Random): Change {
  const made: Change = { at: random.int(5), ...(random.chance(0.3) && { on: true as const }) }
  const kind = random.int(12)
  if (kind < 3) made.status = random.pick(statuses)
  if (kind === 2 || (kind > 2 && kind < 7)) {
    made.headers = Object.fromEntries(Array.from({ length: 1 + random.int(3) },
      () => [random.pick(headerNames), random.chance(0.2) ? null : random.pick(texts)]))
  }
  if (kind === 6) made.status = random.pick([301, 302, 307, 308, 206, 429, 503])
  if (kind === 7) {
    made.body = { kind: 'text', text: JSON.stringify(garbled(random, random.pick([info, pathsInfo]))) ?? '' }
  }
  if (kind === 8) {
    made.body = {
      kind: 'text', text: random.pick(['', '<html>', '{', '[', '['.repeat(100_000), '{"sha":'.repeat(1000), 'null',
        'NaN', '\ufeff{}', '"', '\u0000'])
    }
  }
  if (kind === 9 || kind === 10) {
    made.body = { kind: random.pick(['cut', 'flip', 'more', 'other'] as const), value: random.int(4000) }
  }
  if (kind === 11) {
    if (random.chance(0.6)) made.fails = random.pick(codes)
    else made.body = { kind: random.chance(0.02) ? 'endless' : random.chance(0.1) ? 'silent' : 'broken' }
  }
  return made
}

/** What the proper Hub says. */
function proper (
  url: URL, method: string, range: string | undefined
): { status: number, headers: Record<string, string>, body: Buffer } {
  const json = (value: unknown) =>
    ({ status: 200, headers: { 'content-type': 'application/json' }, body: Buffer.from(JSON.stringify(value)) })
  const none = Buffer.alloc(0)
  if (url.origin === endpoint && url.pathname.startsWith('/api/')) return json(method === 'POST' ? pathsInfo : info)
  const of = { 'x-linked-etag': `"${oid}"`, 'x-linked-size': String(content.length), 'x-repo-commit': commit }
  if (url.origin === endpoint && url.pathname.includes('/resolve/')) {
    return { status: 302, headers: { ...of, location: `${storage}/${oid}?signature=hush` }, body: none }
  }
  if (url.origin !== storage) return { status: 404, headers: {}, body: none }
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  const part = content.subarray(from)
  return {
    status: range === undefined ? 200 : 206,
    headers: { 'content-length': String(part.length), ...(range !== undefined &&
      { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` }) }, body: part
  }
}

function bodyOf (right: Buffer, wanted: Change['body']): Buffer {
  if (!wanted || !('kind' in wanted)) return right
  switch (wanted.kind) {
    case 'text': return Buffer.from(wanted.text)
    case 'cut': return right.subarray(0, wanted.value % (right.length + 1))
    case 'more': return Buffer.concat([right, Buffer.alloc(wanted.value, 'y')])
    case 'other': return other.subarray(0, right.length)
    case 'flip': {
      const wrong = Buffer.from(right)
      if (wrong.length > 0) wrong[wanted.value % wrong.length]! ^= 1 << wanted.value % 8
      return wrong
    }
    default: return right
  }
}

/** A fetch as changed as told. Faults that it sees go into `faults`. */
function changed (changes: readonly Change[], faults: string[]): typeof fetch {
  let count = 0
  const run = async (address: string, init: RequestInit): Promise<Response> => {
    const [at, url] = [count++, new URL(address)]
    const headers = init.headers as Record<string, string>
    if (headers.authorization !== undefined && url.origin !== endpoint) faults.push(`the token went to ${url.origin}`)
    if (!['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.password !== '') {
      faults.push(`${url.protocol} was asked, or a password sent`)
    }
    if (count > 200) faults.push('more than 200 requests')
    const mine = changes.filter(change => change.at === at || (change.on && change.at < at))
    const signal = init.signal!
    setMaxListeners(0, signal)
    signal.throwIfAborted()
    const fails = mine.find(change => change.fails !== undefined)
    if (fails) {
      throw Object.assign(new TypeError('fetch failed'),
        { cause: Object.assign(new Error(`words about https://me:hush@hub.test/?key=hush ${fails.fails}`),
          { code: fails.fails || undefined }) })
    }
    const right = proper(url, init.method!, headers.range)
    const said = new Headers(right.headers)
    let { status, body } = right
    let kind: string | undefined
    for (const change of mine) {
      status = change.status ?? status
      body = bodyOf(body, change.body)
      kind = change.body?.kind ?? kind
      for (const [name, value] of Object.entries(change.headers ?? {})) {
        try { value === null ? said.delete(name) : said.set(name, value) } catch {} // what no header can hold
      }
    }
    if (init.method === 'HEAD' || [204, 304].includes(status)) return new Response(null, { status, headers: said })
    if (kind === 'silent') {
      return await new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
    }
    let place = 0
    const stream = new ReadableStream({
      start: controller =>
        signal.addEventListener('abort', () => { try { controller.error(signal.reason) } catch {} }, { once: true }),
      pull: controller => {
        if (kind === 'endless') return controller.enqueue(new Uint8Array(1 << 19).fill(32))
        if (kind === 'broken' && place > 0) {
          return controller.error(Object.assign(new TypeError('terminated'),
            { cause: Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' }) }))
        }
        const piece = body.subarray(place, place + 1000)
        place += piece.length
        if (piece.length > 0) controller.enqueue(new Uint8Array(piece))
        else controller.close()
      }
    })
    return new Response(stream, { status, headers: said })
  }
  return run as typeof fetch
}

/** Where the caches are: in memory, where the system has such a place. */
const place = fs.mkdtempSync(path.join(fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir(), 'parvis-fuzz-'))
process.on('exit', () => fs.rmSync(place, { recursive: true, force: true }))

/** What is wrong with a cache, whatever happened. */
function faultsOf (cache: string, faults: string[]): void {
  for (const name of fs.readdirSync(cache, { recursive: true, encoding: 'utf8' })) {
    const found = fs.lstatSync(path.join(cache, name))
    if (found.isDirectory() || /\.incomplete$|refs[\\/]main$/.test(name)) continue
    const right = fs.readFileSync(path.join(cache, name)).equals(content)
    // Content under the hash that a garbled answer named is no fault, as long as it has that hash.
    const named = /^[0-9a-f]{40,64}$/.test(path.basename(name))
    if (!right && !named && !found.isSymbolicLink()) faults.push(`${name} was left`)
    if (named && path.basename(name) === oid && !right) faults.push('wrong content under the right hash')
    if (/\.part$/.test(name)) faults.push('a part was left')
  }
  const refs = path.join(cache, 'models--a--b', 'refs', 'main')
  if (fs.existsSync(refs) && !/^[0-9a-f]{40}$/.test(fs.readFileSync(refs, 'utf8'))) faults.push('no commit in refs')
}

export const hubFuzzer: Fuzzer = {
  name: 'hub',
  codes: ['DOWNLOAD_FAILED', 'FILE_NOT_FOUND'],
  make: random => Buffer.from(JSON.stringify(Array.from({ length: 1 + random.int(3) }, () => change(random)))),
  async read (input) {
    const changes = JSON.parse(input.toString()) as Change[]
    const [cache, faults] = [path.join(place, 'cache'), [] as string[]]
    fs.mkdirSync(cache)
    const own = globalThis.fetch
    globalThis.fetch = changed(changes, faults)
    let refusal: unknown
    try {
      const [pulled] = await pullFiles([{ repository, file }],
        { cache, signal: undefined, onProgress: undefined, patience: { attempts: 2, delay: 0.1, idle: 50, wait: 5 } })
      const bytes = fs.readFileSync(pulled!.path)
      const hash = pulled!.hash.length === 64
        ? createHash('sha256').update(bytes)
        : createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes)
      if (hash.digest('hex') !== pulled!.hash) faults.push('the hash is not that of the file')
    } catch (error) {
      const text = `${(error as Error).stack} ${String((error as Error).cause)}`
      if (/hush|hf_fuzzed/.test(text)) faults.push(`a secret is shown: ${text}`)
      refusal = error
    } finally {
      globalThis.fetch = own
      faultsOf(cache, faults)
      const strays = fs.readdirSync(place).filter(name => name !== 'cache')
      if (strays.length > 0) faults.push(`written outside of the cache: ${strays.join()}`)
      fs.rmSync(cache, { recursive: true })
    }
    if (faults.length > 0) throw new Error(faults.join('; '))
    if (refusal !== undefined) throw refusal
  }
}

/** As a pull finds it: to be set before, and taken away after. */
export const environment = { HF_ENDPOINT: endpoint, HF_TOKEN: token }
