// Fetching from the Hub, in this process, from one that misbehaves: whatever happens on the way, the cache holds the
// right bytes or none, and the error says what to do.

import t, { type Test } from 'tap'
import fs from 'node:fs'
import fsp from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import zlib from 'node:zlib'
import { ParError } from '../../lib/base/errors.js'
import { pull, pullFiles, type PullProgress } from '../../lib/hub/pull.js'
import { presetOf } from '../../lib/models/presets.js'
import { shownPath } from '../../lib/base/text.js'
import { temporaryFolder } from '../cli/run.js'
import { commitOf, FakeHub, noise, random, sha256 } from '../support/hub.js'

const seed = Number(process.env.PARVIS_SEED ?? Math.floor(Math.random() * 2 ** 31))
process.setMaxListeners(0) // each temporary folder has one
t.comment(`PARVIS_SEED=${seed}`)

const xl = presetOf('par-xl-4x')
const weights = noise(3_000_001, 1)
const tokenizer = noise(300_007, 2)
const files = [xl.transformer, xl.tokenizer]
const patience = { attempts: 4, delay: 2, idle: 500 }
let hub: FakeHub

t.before(async () => {
  hub = await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': weights } },
    'FoundationVision/LlamaGen': { licence: 'mit', files: { 'vq_ds16_c2i.pt': tokenizer } }
  })
  for (const name of Object.keys(process.env)) if (/^(HF_|HUGGING|XDG_CACHE)/.test(name)) delete process.env[name]
})
t.beforeEach(() => {
  hub.reset()
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: temporaryFolder() })
  for (const name of ['HF_TOKEN', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name]
})
t.teardown(async () => { await hub.stop() })

interface Setting { cache?: string, signal?: AbortSignal, onProgress?: (progress: PullProgress) => void }
async function fetchAll (
  { cache = path.join(process.env.HF_HOME!, 'hub'), signal, onProgress }: Setting = {}
): ReturnType<typeof pullFiles> {
  return await pullFiles(files, { cache, signal, onProgress, patience })
}
async function failure (work: Promise<unknown>): Promise<ParError> {
  return await work.then(() => { throw new Error('it went well') }, (error: ParError) => error)
}
const blobsOf = (repository: string): string =>
  path.join(process.env.HF_HOME!, 'hub', `models--${repository.replace('/', '--')}`, 'blobs')
const listed = (folder: string): string[] => fs.existsSync(folder) ? fs.readdirSync(folder) : []
/** Nothing that a reader of the cache would take for a file. */
function nothingCached (t: Test, repository = 'Epiphqny/PAR'): void {
  t.same(listed(blobsOf(repository)).filter(name => !name.endsWith('.incomplete')), [], 'no blob')
  t.same(listed(path.join(blobsOf(repository), '..', 'snapshots')), [], 'no snapshot')
}
const storageRequests = (): typeof hub.requests => hub.requests.filter(({ host }) => host === 'storage')

t.test('a preset, and the standard layout', async t => {
  process.env.HF_TOKEN = ' hf_secret\n'
  const seen: PullProgress[] = []
  const pulled = await pull('PAR-XL-4x' as 'par-xl-4x', { onProgress: progress => { seen.push(progress) } })
  const folder = path.join(process.env.HF_HOME!, 'hub', 'models--Epiphqny--PAR')
  const commit = commitOf('Epiphqny/PAR')
  t.same(pulled.transformer, {
    repository: 'Epiphqny/PAR', file: 'PAR-XL-4x.pt', path: path.join(folder, 'snapshots', commit, 'PAR-XL-4x.pt'),
    bytes: weights.length, hash: sha256(weights), commit, downloaded: true
  }, 'no licence where none is named')
  t.match(pulled.tokenizer, { licence: 'mit', downloaded: true })
  t.ok(fs.readFileSync(pulled.transformer.path).equals(weights))
  t.ok(fs.readFileSync(pulled.tokenizer.path).equals(tokenizer))
  t.equal(fs.readlinkSync(pulled.transformer.path), path.join('..', '..', 'blobs', sha256(weights)))
  t.equal(fs.readFileSync(path.join(folder, 'refs', 'main'), 'utf8'), commit)
  t.same(fs.readdirSync(path.join(folder, 'blobs')), [sha256(weights)])
  t.same(fs.readdirSync(path.join(folder, 'snapshots', commit)), ['PAR-XL-4x.pt'])
  t.ok(seen.every(({ bytes }) => bytes === weights.length + tokenizer.length))
  t.ok(seen.every(({ bytesDone }, k) => k === 0 || bytesDone >= seen[k - 1]!.bytesDone), 'progress only grows')
  t.equal(seen.at(-1)!.bytesDone, weights.length + tokenizer.length)

  t.ok(hub.requests.some(({ host, authorization }) => host === 'hub' && authorization === 'Bearer hf_secret'))
  t.same(storageRequests().map(({ authorization }) => authorization), [undefined, undefined],
    'the token stays with the Hub')

  hub.requests.length = 0
  const again = await pull('par-xl-4x')
  t.same([again.transformer.downloaded, again.tokenizer.downloaded], [false, false])
  t.equal(storageRequests().length, 0, 'nothing is fetched twice')
})

t.test('cut ten times at random and gone on with', async t => {
  const next = random(seed)
  let cuts = 0
  hub.storage = ({ file, content, from = undefined }, response) => {
    if (file !== 'PAR-XL-4x.pt' || cuts === 10) return false
    cuts++
    hub.send(response, content, from, 1 + Math.floor(next() * (content.length - (from ?? 0)) / 4))
    return true
  }
  const [first] = await fetchAll()
  t.equal(cuts, 10, `PARVIS_SEED=${seed}`)
  t.ok(fs.readFileSync(first!.path).equals(weights), 'the right bytes')
  t.ok(hub.sent < weights.length * 1.5 + tokenizer.length,
    `${hub.sent} bytes sent for ${weights.length + tokenizer.length}`)
  t.ok(storageRequests().filter(({ range }) => range !== undefined).length >= 8, 'ranges were asked for')
})

t.test('aborted ten times at random and gone on with', async t => {
  const next = random(seed + 1)
  hub.pause = 5
  hub.pieceSize = 1 << 14
  t.teardown(() => { hub.pieceSize = 1 << 16 })
  let most = 0
  for (let k = 0; k < 10; k++) {
    const controller = new AbortController()
    const reason = new Error('enough')
    const until = most + next() * 0.03 * weights.length
    const error = await failure(fetchAll({
      signal: controller.signal,
      onProgress: ({ bytesDone }) => {
        most = Math.max(most, bytesDone)
        if (bytesDone > until) controller.abort(reason)
      }
    }))
    t.equal(error, reason as unknown)
    nothingCached(t)
    t.ok(listed(blobsOf('Epiphqny/PAR')).length <= 1, 'one part')
  }
  hub.pause = 0
  const [first] = await fetchAll()
  t.ok(fs.readFileSync(first!.path).equals(weights), `PARVIS_SEED=${seed}`)
  t.ok(hub.sent < weights.length * 2.5, `${hub.sent} bytes sent`)
  t.same(fs.readdirSync(blobsOf('Epiphqny/PAR')), [sha256(weights)], 'no part is left')
  t.equal(await failure(fetchAll({ signal: AbortSignal.abort(7) })), 7 as unknown, 'aborted before')
  await t.rejects(fetchAll({ cache: temporaryFolder(), onProgress: () => { throw new Error('mine') } }),
    { message: 'mine' }, 'errors of onProgress end the call')
})

t.test('servers of all kinds', async t => {
  const once = (answer: FakeHub['storage']): FakeHub['storage'] => {
    let done = false
    return (asked, response, request) => {
      if (asked.file !== 'PAR-XL-4x.pt' || done) return false
      done = answer(asked, response, request)
      return done
    }
  }
  const cases: Array<[what: string, FakeHub['storage']]> = [
    ['ranges are ignored', (() => {
      let count = 0
      return ({ file, content }, response) => {
        if (file !== 'PAR-XL-4x.pt') return false
        hub.send(response, content, undefined, count++ === 0 ? 1_000_000 : undefined)
        return true
      }
    })()],
    ['too short a length',
      once(({ content }, response) => {
        response.writeHead(200, { 'content-length': 1000 }).end(content.subarray(0, 1000))
        return true
      })],
    ['too great a length',
      once(({ content }, response) => {
        hub.send(response, content, undefined, content.length, { 'content-length': content.length + 10 })
        return true
      })],
    ['no length, and an end before the end',
      once(({ content }, response) => {
        response.writeHead(200)
        response.end(content.subarray(0, 70_000))
        return true
      })],
    ['no length, and more than there is',
      once(({ content }, response) => {
        response.writeHead(200)
        response.end(Buffer.concat([content, content]))
        return true
      })],
    [
      'wrong bytes',
      once(({ content }, response) => {
        const wrong = Buffer.from(content); wrong[12345]! ^= 1; hub.send(response,
          wrong); return true
      })
    ],
    ['another part than was asked for', (() => {
      let count = 0
      return ({ file, content, from }, response) => {
        if (file !== 'PAR-XL-4x.pt' || count > 1) return false
        if (count++ === 0) hub.send(response, content, from, 500_000)
        else hub.send(response, content, from! - 7)
        return true
      }
    })()],
    ['gzip although it was not asked for', ({ file, content }, response) => {
      if (file !== 'PAR-XL-4x.pt') return false
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(zlib.gzipSync(content))
      return true
    }],
    ['an error page with status 200',
      once((_asked, response) => {
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Sign in</html>')
        return true
      })],
    ['503, and when to come again',
      once((_asked, response) => { response.writeHead(503, { 'retry-after': '0' }).end('busy'); return true })],
    ['a link that has expired', once((_asked, response) => { response.writeHead(403).end('expired'); return true })],
    ['silence', once(() => true)],
    ['silence after a while',
      once(({ content }, response) => {
        response.writeHead(200, { 'content-length': content.length }).write(content.subarray(0, 99_999))
        return true
      })],
    ['a connection that is closed at once', once((_asked, response) => { response.destroy(); return true })]
  ]
  for (const [what, answer] of cases) {
    hub.reset()
    process.env.HF_HOME = temporaryFolder()
    hub.storage = answer
    const [first] = await fetchAll()
    t.ok(fs.readFileSync(first!.path).equals(weights), what)
    t.same(fs.readdirSync(blobsOf('Epiphqny/PAR')), [sha256(weights)])
  }
})

t.test('what cannot be had', async t => {
  const every = (answer: FakeHub['storage']): void => {
    hub.storage = (asked, response, request) => asked.file === 'PAR-XL-4x.pt' && answer(asked, response, request)
  }
  const plain = (status: number, headers = {}) => (_request: unknown, response: http.ServerResponse): boolean => {
    response.writeHead(status, headers).end('{}')
    return true
  }
  const cases: Array<[what: string, prepare: () => void, message: RegExp]> = [
    ['no token', () => { hub.token = 'hf_right' }, /401.*Set HF_TOKEN/],
    ['the wrong token', () => { hub.token = 'hf_right'; process.env.HF_TOKEN = 'hf_wrong' },
      /access token of HF_TOKEN \(401\)/],
    ['terms not accepted, without a token', () => { hub.api = plain(403, { 'x-error-code': 'GatedRepo' }) },
      /Accept its terms at .*Epiphqny\/PAR.*HF_TOKEN/],
    ['terms not accepted', () => {
      process.env.HF_TOKEN = 'hf_a'
      hub.api = plain(403, { 'x-error-code': 'GatedRepo' })
    }, /token of HF_TOKEN may not read it.*Accept/],
    ['no such repository', () => { hub.api = plain(404) }, /404.*Was it moved/],
    ['no such file', () => { delete hub.repositories['Epiphqny/PAR']!.files['PAR-XL-4x.pt'] },
      /PAR-XL-4x.pt: Epiphqny\/PAR no longer has it/],
    ['a server that is always busy', () => { hub.api = plain(503) }, /answered 503, 4 times in a row/],
    ['a teapot', () => { hub.api = plain(418) }, /answered 418/],
    ['storage that is always busy', () => { every(plain(500) as never) }, /500, 4 times in a row/],
    ['links that are never good', () => { every(plain(403) as never) }, /refused the link.*4 times/],
    ['wrong bytes, again and again',
      () => {
        every(({ content, from }, response) => {
          const wrong = Buffer.from(content); wrong[5]! ^= 1; hub.send(response,
            wrong, from); return true
        })
      }, /damaged.*Nothing of it was kept/],
    ['wrong lengths, again and again', () => {
      every((_asked, response) => { response.writeHead(200, { 'content-length': 3 }).end('abc'); return true })
    }, /3 bytes where 3000001 belong/],
    ['cut at the same place, without ranges', () => {
      every(({ content }, response) => { hub.send(response, content, undefined, 100_000); return true })
    }, /4 times in a row/],
    ['a login page in the place of the API',
      () => {
        hub.api = (_request, response) => {
          response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Sign in')
          return true
        }
      }, /none of the Hub's.*HF_ENDPOINT/],
    ['JSON of something else', () => { hub.api = plain(200) }, /none of the Hub's/],
    ['a redirect in a circle', () => {
      hub.api = (request, response) => { response.writeHead(307, { location: request.url }).end(); return true }
    }, /in a circle/],
    ['a redirect to a file', () => { hub.api = plain(302, { location: 'file:///etc/passwd' }) }, /not followed/],
    ['nobody there', () => { process.env.HF_ENDPOINT = 'http://127.0.0.1:9' },
      /connection to 127\.0\.0\.1:9 failed|bad port/],
    ['an endpoint that is none', () => { process.env.HF_ENDPOINT = 'huggingface' }, /HF_ENDPOINT must be a URL/],
    ['a token that is none', () => { process.env.HF_TOKEN = 'a\nb' }, /HF_TOKEN.*characters/],
    ['offline', () => { process.env.HF_HUB_OFFLINE = '1' }, /HF_HUB_OFFLINE/]
  ]
  for (const [what, prepare, message] of cases) {
    hub.reset()
    Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: temporaryFolder() })
    for (const name of ['HF_TOKEN', 'HF_HUB_OFFLINE']) delete process.env[name]
    prepare()
    const error = await failure(fetchAll())
    t.ok(error instanceof ParError, what)
    t.match(
      error, { code: /must be a URL|characters/.test(error.message) ? 'INVALID_OPTION' : 'DOWNLOAD_FAILED', message }
    )
    t.notMatch(error.message, /hf_(wrong|right|a)\b/, 'a token is never shown')
    nothingCached(t)
    hub.repositories['Epiphqny/PAR']!.files['PAR-XL-4x.pt'] = weights
  }
})

t.test('the token', async t => {
  hub.token = 'hf_right'
  process.env.HF_TOKEN = 'hf_right'
  t.equal((await fetchAll()).length, 2, 'of HF_TOKEN')
  delete process.env.HF_TOKEN
  fs.writeFileSync(path.join(process.env.HF_HOME!, 'token'), 'hf_right\n')
  t.equal((await fetchAll({ cache: temporaryFolder() })).length, 2, 'of the file that hf auth login writes')
  t.ok(hub.requests.every(({ host, authorization }) => (authorization !== undefined) === (host === 'hub')))

  // A storage that redirects back to the Hub does not get the Hub to hear the token either.
  hub.requests.length = 0
  hub.storage = (_asked, response) => {
    response.writeHead(302, { location: `${hub.url}/elsewhere` }).end()
    return true
  }
  hub.api = (request, response) => {
    if (request.url !== '/elsewhere') return false
    response.writeHead(404).end()
    return true
  }
  await failure(fetchAll({ cache: temporaryFolder() }))
  const elsewhere = hub.requests.filter(({ url }) => url === '/elsewhere')
  t.ok(elsewhere.length > 0 && elsewhere.every(({ authorization }) => authorization === undefined))
})

t.test('folders', async t => {
  process.env.HF_HUB_CACHE = temporaryFolder()
  const { tokenizer: inCache } = await pull('par-xl-4x')
  t.ok(inCache.path.startsWith(process.env.HF_HUB_CACHE + path.sep), 'HF_HUB_CACHE')
  const own = temporaryFolder()
  t.ok((await pull('par-xl-4x', { cache: own })).tokenizer.path.startsWith(own + path.sep), 'cache')

  const blocked = path.join(temporaryFolder(), 'a-file')
  fs.writeFileSync(blocked, '')
  t.match(await failure(pull('par-xl-4x', { cache: blocked })),
    { code: 'FILE_NOT_FOUND', message: /a-file: is no folder, so it is no cache\. HF_HUB_CACHE/ })

  const planted = temporaryFolder()
  const [pointer] = await fetchAll({ cache: planted })
  fs.rmSync(pointer!.path)
  fs.mkdirSync(path.join(pointer!.path, 'x'), { recursive: true })
  const { message } = await failure(fetchAll({ cache: planted }))
  t.ok(message.startsWith(`${shownPath(pointer!.path)}: cannot be written: `),
    `a folder is reported by its own name: ${message}`)

  const { statfs, open, mkdir } = fsp
  t.teardown(() => Object.assign(fsp, { statfs, open, mkdir }))
  const refused = (code: string): Error => Object.assign(new Error(code), { code })
  Object.assign(fsp, { mkdir: async () => { throw refused('EACCES') } })
  t.match(await failure(fetchAll({ cache: temporaryFolder() })),
    { code: 'FILE_NOT_FOUND', message: /permission denied/ })
  Object.assign(fsp, { mkdir, statfs: async () => ({ bavail: 10, bsize: 4096, blocks: 1000 }) })
  t.match(await failure(fetchAll({ cache: temporaryFolder() })),
    { code: 'FILE_NOT_FOUND', message: /0\.003 GB are needed.*free.*HF_HUB_CACHE/ })
  // A disk that fills up on the way: what has arrived is kept.
  const full = temporaryFolder()
  let room = 1_000_000
  Object.assign(fsp, {
    statfs,
    open: async (...args: Parameters<typeof open>) => {
      const handle = await open(...args)
      const write = handle.write.bind(handle) as (bytes: Uint8Array, ...rest: unknown[]) => Promise<unknown>
      return Object.assign(handle, {
        write: async (bytes: Uint8Array, ...rest: unknown[]) => {
          if ((room -= bytes.length) < 0) throw refused('ENOSPC')
          return await write(bytes, ...rest)
        }
      })
    }
  })
  t.match(await failure(fetchAll({ cache: full })), { code: 'FILE_NOT_FOUND', message: /no space is left/ })
  Object.assign(fsp, { open })
  hub.requests.length = 0
  const [first] = await fetchAll({ cache: full })
  t.ok(fs.readFileSync(first!.path).equals(weights))
  t.match(storageRequests()[0], { range: /^bytes=\d{5,}-$/ }, 'gone on with')
})

t.test('several calls at once', async t => {
  hub.pause = 2
  const all = await Promise.all(Array.from({ length: 4 }, async () => await fetchAll()))
  for (const [first, second] of all) {
    t.ok(fs.readFileSync(first!.path).equals(weights))
    t.ok(fs.readFileSync(second!.path).equals(tokenizer))
  }
  t.ok(hub.sent < (weights.length + tokenizer.length) * 2, `${hub.sent} bytes sent: the others waited`)
  t.same(fs.readdirSync(blobsOf('Epiphqny/PAR')), [sha256(weights)])
})

t.test('what others have left', async t => {
  const blobs = blobsOf('Epiphqny/PAR')
  fs.mkdirSync(blobs, { recursive: true })
  const blob = path.join(blobs, sha256(weights))
  const old = new Date(Date.now() - 3_600_000)
  // Of a process that has gone, on another machine: its owner has been silent for long enough.
  const stale = `${blob}.parvis-00000000-1-00000000.incomplete`
  fs.writeFileSync(stale, weights.subarray(0, 2_000_000))
  fs.utimesSync(stale, old, old)
  fs.writeFileSync(`${blob}.incomplete`, 'of huggingface_hub') // not ours to touch
  const [first] = await fetchAll()
  t.ok(fs.readFileSync(first!.path).equals(weights))
  t.match(storageRequests()[0], { range: 'bytes=2000000-' })
  t.same(fs.readdirSync(blobs).sort(), [sha256(weights), `${sha256(weights)}.incomplete`])

  // Too much of it, or the wrong bytes: begun again.
  for (const left of [Buffer.alloc(weights.length + 1), noise(1_500_000, 9)]) {
    fs.rmSync(blob)
    fs.writeFileSync(`${blob}.parvis.incomplete`, left)
    const [again] = await fetchAll()
    t.ok(fs.readFileSync(again!.path).equals(weights))
  }
  // A blob of the wrong size is no blob.
  fs.writeFileSync(blob, 'short')
  t.equal((await fetchAll())[0]!.downloaded, true)
  t.ok(fs.readFileSync(blob).equals(weights))
})

t.test('options', async t => {
  for (const [preset, options] of [['par-xl', {}], ['par-xl-4x', { pul: 1 }], ['par-xl-4x', { cache: '' }],
    ['par-xl-4x', { signal: 1 }], ['par-xl-4x', { onProgress: 1 }], [undefined, {}]] as never[][]) {
    t.match(await failure(pull(preset as never, options as never)), { code: 'INVALID_OPTION' })
  }
  t.equal(hub.requests.length, 0)
})
