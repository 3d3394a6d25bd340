// What the cache has, and what others have put into it: content counts by its hash, whatever name and size it has;
// nothing is written through links; and what is there needs neither the Hub nor a cache that can be written.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import fsp from 'node:fs/promises'
import path from 'node:path'
import { presetStatus } from '../../lib/hub/status.js'
import { Par } from '../../lib/api/par.js'
import { presetOf } from '../../lib/models/presets.js'
import { presetTokenizer, pull, type PullProgress } from '../../lib/hub/pull.js'
import { temporaryFolder } from '../cli/run.js'
import { commitOf, type FakeHub, sha256 } from '../support/hub.js'
import {
  afresh, cacheOf, everything, failure, fetchAll, folderOf, startHub, tokenizer, weights
} from '../support/pulling.js'

t.setTimeout(120_000)
let hub: FakeHub
t.before(async () => { hub = await startHub() })
t.beforeEach(() => afresh(hub))
t.teardown(async () => { await hub.stop() })
const par = (): string => folderOf('Epiphqny/PAR')
const blobs = (): string => path.join(par(), 'blobs')
const blob = (): string => path.join(blobs(), sha256(weights))
const system = (code: string): Error => Object.assign(new Error(code), { code })
const unix = { skip: process.platform === 'win32' && 'links and pipes of Unix' }

/** Nothing in the file system may be changed. */
function readOnly (test: { teardown: (undo: () => void) => void }, code = 'EROFS'): () => void {
  const { mkdir, open, rename, symlink, unlink, link, copyFile } = fsp
  const refuse = async (): Promise<never> => { throw system(code) }
  const undo = (): void => { Object.assign(fsp, { mkdir, open, rename, symlink, unlink, link, copyFile }) }
  Object.assign(fsp, {
    mkdir: refuse, rename: refuse, symlink: refuse, unlink: refuse, link: refuse, copyFile: refuse,
    open: async (file: string, flags?: string | number, ...rest: never[]) => {
      if (typeof flags === 'string'
        ? /[wa+]/.test(flags)
        : (flags ?? 0) & (fs.constants.O_WRONLY | fs.constants.O_RDWR)) {
        throw system(code)
      }
      return await open(file, flags, ...rest)
    }
  })
  test.teardown(undo)
  return undo
}

t.test('without a network', async t => {
  const [first] = await fetchAll()
  const before = everything(cacheOf())
  const expected = [
    {
      path: first.path, bytes: weights.length, hash: sha256(weights), commit: commitOf('Epiphqny/PAR'),
      downloaded: false
    },
    { bytes: tokenizer.length, hash: sha256(tokenizer), downloaded: false }
  ]
  for (const [what, prepare, why] of [
    ['forbidden', () => { process.env.HF_HUB_OFFLINE = '1' }, /HF_HUB_OFFLINE is set/],
    ['nobody there', () => { process.env.HF_ENDPOINT = 'http://127.0.0.1:9' }, /bad port|failed/],
    ['no such host', () => { process.env.HF_ENDPOINT = 'http://hub.invalid' }, /connection to hub\.invalid failed/],
    ['busy', () => { hub.api = (_request, response) => { response.writeHead(503).end(); return true } },
      /answered 503/],
    ['closed', () => { hub.token = 'hf_x' }, /401/],
    ['a login page', () => { hub.api = (_request, response) => { response.writeHead(200).end('<html>'); return true } },
      /none of the Hub's/]
  ] as Array<[string, () => unknown, RegExp]>) {
    hub.reset()
    Object.assign(process.env, { HF_ENDPOINT: hub.url })
    delete process.env.HF_HUB_OFFLINE
    await prepare()
    const started = performance.now()
    const seen: PullProgress[] = []
    const pulled = await fetchAll({ onProgress: progress => { seen.push(progress) } })
    t.match(pulled, expected, what)
    for (const { notCompared } of pulled) t.match(notCompared, why)
    t.ok(performance.now() - started < 5000, 'it is not insisted on')
    t.ok(seen.filter(({ bytes }) => bytes > 0)
      .every(({ phase, bytes }) => phase === 'checking' && bytes === weights.length + tokenizer.length))
    t.same(everything(cacheOf()), before, 'nothing was written')
  }
  process.env.HF_HUB_OFFLINE = '1'
  t.match(await pull('par-xl-4x'),
    { preset: 'par-xl-4x', transformer: { downloaded: false, notCompared: /HF_HUB_OFFLINE/ } })
  const controller = new AbortController()
  const aborted = failure(fetchAll({ signal: controller.signal, onProgress: () => controller.abort('enough') }))
  t.equal(await aborted, 'enough' as unknown)

  // What is missing is named, and what is there is not.
  fs.rmSync(folderOf('FoundationVision/LlamaGen'), { recursive: true })
  t.match(await failure(fetchAll()),
    {
      code: 'DOWNLOAD_FAILED',
      message: /^vq_ds16_c2i\.pt of FoundationVision\/LlamaGen: not in the cache \(.*\), and HF_HUB_OFFLINE is set/
    })
  fs.rmSync(par(), { recursive: true })
  t.match(await failure(fetchAll()), { code: 'DOWNLOAD_FAILED', message: /PAR-XL-4x\.pt of Epiphqny\/PAR/ })
})

t.test('damaged content', async t => {
  await fetchAll()
  for (const damage of [() => { const bytes = Buffer.from(weights); bytes[77]! ^= 4; fs.writeFileSync(blob(), bytes) },
    () => { fs.truncateSync(blob(), 99) }, () => { fs.appendFileSync(blob(), 'x') }]) {
    damage()
    process.env.HF_HUB_OFFLINE = '1'
    t.match(await failure(fetchAll()),
      { code: 'DOWNLOAD_FAILED', message: /PAR-XL-4x\.pt: it is damaged in the cache \(.*\), and HF_HUB_OFFLINE/ })
    delete process.env.HF_HUB_OFFLINE
    const [first, second] = await fetchAll()
    t.match([first, second], [{ downloaded: true, hash: sha256(weights) }, { downloaded: false }])
    t.ok(fs.readFileSync(first.path).equals(weights), 'fetched again')
    t.same(fs.readdirSync(blobs()), [sha256(weights)])
  }
})

t.test('a cache without links', async t => {
  const [first] = await fetchAll()
  // As huggingface_hub leaves it on Windows: the content itself in the snapshot, and no blob.
  fs.rmSync(first.path)
  fs.renameSync(blob(), first.path)
  hub.requests.length = 0
  t.match((await fetchAll())[0], { downloaded: false, hash: sha256(weights) })
  t.same(hub.requests.filter(({ host }) => host === 'storage'), [])
  process.env.HF_HUB_OFFLINE = '1'
  t.match((await fetchAll())[0], { downloaded: false, hash: sha256(weights), path: first.path })
})

t.test('a cache that cannot be written', async t => {
  const [first] = await fetchAll()
  const before = everything(cacheOf())
  const undo = readOnly(t)
  t.match(await fetchAll(), [{ path: first.path, downloaded: false, hash: sha256(weights) }, { downloaded: false }],
    'is enough where all is there')
  process.env.HF_HUB_OFFLINE = '1'
  t.match(await fetchAll(), [{ path: first.path, downloaded: false }, {}])
  delete process.env.HF_HUB_OFFLINE
  // A new commit that left the file as it was: the name of the old one is as good.
  hub.api = (request, response) => {
    if (!request.url!.includes('PAR/revision')) return false
    response.writeHead(200,
      { 'content-type': 'application/json' }).end(JSON.stringify({ sha: commitOf('Epiphqny/PAR').replace(/./, 'f') }))
    return true
  }
  const later = hub.api
  hub.api = (request, response) => {
    if (request.url!.includes('PAR/paths-info')) {
      response.writeHead(200, { 'content-type': 'application/json' }).end(
        JSON.stringify([{ type: 'file', path: 'PAR-XL-4x.pt', lfs: { oid: sha256(weights), size: weights.length } }])
      )
      return true
    }
    return later(request, response)
  }
  t.match((await fetchAll())[0],
    { path: first.path, commit: commitOf('Epiphqny/PAR'), downloaded: false, notCompared: undefined })
  undo()
  t.same(everything(cacheOf()), before)
})

t.test('whatever fails in the file system is told as such', async t => {
  for (const code of ['EACCES', 'EROFS', 'ENOSPC', 'EDQUOT', 'EIO', 'EMFILE', 'ESTALE', 'EPERM', 'ENOTDIR']) {
    const undo = readOnly(t, code)
    t.match(await failure(fetchAll({ cache: temporaryFolder() })),
      { code: 'FILE_NOT_FOUND', message: /cannot be (written|read): .*HF_HUB_CACHE/ }, code)
    undo()
  }
  for (const [what, prepare] of [
    ['refs is a file', () => { fs.writeFileSync(path.join(par(), 'refs'), '') }],
    ['the branch is a folder', () => { fs.mkdirSync(path.join(par(), 'refs', 'main'), { recursive: true }) }],
    ['snapshots is a file', () => { fs.writeFileSync(path.join(par(), 'snapshots'), '') }],
    ['the name in the commit is a folder', () => {
      fs.mkdirSync(path.join(par(), 'snapshots', commitOf('Epiphqny/PAR'), 'PAR-XL-4x.pt', 'x'), { recursive: true })
    }],
    ['blobs is a file', () => { fs.writeFileSync(blobs(), '') }],
    ['the blob is a folder', () => { fs.mkdirSync(path.join(blob(), 'x'), { recursive: true }) }],
    ['blobs leads nowhere', () => { fs.symlinkSync('/nowhere/at/all', blobs()) }],
    ['a circle', () => { fs.symlinkSync('blobs', blobs()) }]
  ] as Array<[string, () => void]>) {
    process.env.HF_HOME = temporaryFolder()
    fs.mkdirSync(par(), { recursive: true })
    prepare()
    t.match(await failure(fetchAll()), { code: 'FILE_NOT_FOUND' }, what)
  }
  // Errors of the caller's own are none of the file system, whatever they look like.
  const mine = system('ENOENT')
  process.env.HF_HOME = temporaryFolder()
  t.equal(await failure(fetchAll({ onProgress: () => { throw mine } })), mine as unknown)
})

t.test('things planted in a shared cache', unix, async t => {
  const victim = path.join(temporaryFolder(), 'victim.txt')
  const text = 'mine '.repeat(1000)
  const free = (): string => `${blob()}.parvis.incomplete`
  const stale = (): string => `${blob()}.parvis-00000000-1-0a0b0c0d.incomplete`
  const old = new Date(Date.now() - 3_600_000)
  const plants: Array<[what: string, plant: (name: string) => void, stays?: boolean]> = [
    ['a link to a file', name => { fs.symlinkSync(victim, name) }, true],
    ['a link to nothing', name => { fs.symlinkSync(victim + '2', name) }, true],
    ['a second name of a file', name => { fs.linkSync(victim, name) }, true],
    ['a pipe', name => { execFileSync('mkfifo', [name]) }, true],
    ['a folder', name => { fs.mkdirSync(path.join(name, 'x'), { recursive: true }) }, true],
    ['somebody else\'s file',
      name => {
        fs.writeFileSync(name, weights.subarray(0, 1000)); if (process.getuid!() === 0) {
          fs.chownSync(name,
            65534, 65534)
        }
      }]
  ]
  for (const name of [free, stale]) {
    for (const [what, plant] of plants) {
      process.env.HF_HOME = temporaryFolder()
      fs.writeFileSync(victim, text)
      fs.mkdirSync(blobs(), { recursive: true })
      plant(name())
      try { fs.lutimesSync(name(), old, old) } catch {}
      const [first] = await fetchAll({ signal: AbortSignal.timeout(20_000) })
      t.ok(fs.readFileSync(first.path).equals(weights), what)
      t.ok(fs.lstatSync(blob()).isFile() && fs.statSync(blob()).nlink === 1, 'the blob is a file of its own')
      t.equal(fs.readFileSync(victim, 'utf8'), text, 'nothing was written through it')
      t.notOk(fs.existsSync(victim + '2'))
    }
  }
  // Links in the place of the blob and of the name: replaced, not written through.
  process.env.HF_HOME = temporaryFolder()
  fs.mkdirSync(blobs(), { recursive: true })
  fs.symlinkSync(victim, blob())
  const snapshot = path.join(par(), 'snapshots', commitOf('Epiphqny/PAR'))
  fs.mkdirSync(snapshot, { recursive: true })
  fs.symlinkSync(victim, path.join(snapshot, 'PAR-XL-4x.pt'))
  fs.mkdirSync(path.join(par(), 'refs'))
  fs.symlinkSync(victim, path.join(par(), 'refs', 'main'))
  const [first] = await fetchAll()
  t.ok(fs.readFileSync(first.path).equals(weights))
  t.equal(fs.readFileSync(victim, 'utf8'), text)
  t.equal(fs.readFileSync(path.join(par(), 'refs', 'main'), 'utf8'), commitOf('Epiphqny/PAR'))
  t.ok(fs.lstatSync(path.join(par(), 'refs', 'main')).isFile())
  // A pipe where the branch is noted holds nobody up.
  fs.rmSync(path.join(par(), 'refs', 'main'))
  execFileSync('mkfifo', [path.join(par(), 'refs', 'main')])
  t.match((await fetchAll())[0], { downloaded: false })
})

t.test('parts whose time stamps tell nothing', async t => {
  for (const [owner, stamp] of [['deadbeef-1', '2099-01-01'],
    ['deadbeef-1', new Date(Date.now() + 3_600_000).toISOString()]] as const) {
    process.env.HF_HOME = temporaryFolder()
    fs.mkdirSync(blobs(), { recursive: true })
    const part = `${blob()}.parvis-${owner}-0a0b0c0d.incomplete`
    fs.writeFileSync(part, weights.subarray(0, 200_000))
    fs.utimesSync(part, new Date(stamp), new Date(stamp))
    const [first] = await fetchAll({ signal: AbortSignal.timeout(30_000) })
    t.ok(fs.readFileSync(first.path).equals(weights), stamp)
    t.match(hub.requests.find(({ host }) => host === 'storage'), { range: 'bytes=200000-' }, 'gone on with')
    t.same(fs.readdirSync(blobs()), [sha256(weights)])
    hub.requests.length = 0
  }
  // One that is still written to, by a clock that goes wrong, is waited for.
  process.env.HF_HOME = temporaryFolder()
  fs.mkdirSync(blobs(), { recursive: true })
  const part = `${blob()}.parvis-deadbeef-1-0a0b0c0d.incomplete`
  fs.writeFileSync(part, '')
  let beats = 0
  const timer = setInterval(
    () => { const stamp = new Date(Date.now() + 3_600_000 + ++beats); fs.utimesSync(part, stamp, stamp) }, 500
  )
  const phases = new Set<string>()
  const done = fetchAll({ onProgress: ({ phase }) => { phases.add(phase) }, signal: AbortSignal.timeout(60_000) })
  await new Promise(resolve => setTimeout(resolve, 5000))
  t.same([...phases], ['waiting'])
  clearInterval(timer)
  fs.rmSync(part)
  t.match((await done)[0], { downloaded: true })
})

t.test('a cache that cannot be looked through is not called empty', async t => {
  const file = path.join(temporaryFolder(), 'a-file')
  fs.writeFileSync(file, '')
  const isFile = {
    code: 'FILE_NOT_FOUND', message: /a-file: is no folder, so it is no cache\. HF_HUB_CACHE chooses another/
  }
  t.match(await failure(Par.load('par-xl-4x', { cache: file })), isFile)
  t.match(await failure(presetStatus(file)), isFile)
  t.match(await failure(presetStatus(path.join(file, 'hub'))),
    { code: 'FILE_NOT_FOUND', message: /a part of the path is no folder/ })
  t.match(await failure(presetTokenizer(presetOf('par-xl-4x'), file)), isFile)
  t.match(await failure(presetTokenizer(presetOf('par-xl-4x'), temporaryFolder())),
    { code: 'FILE_NOT_FOUND', message: /not in the cache .*parvis pull/ })

  await fetchAll()
  const { readdir, stat } = fsp
  t.teardown(() => Object.assign(fsp, { readdir, stat }))
  const refuse = async (): Promise<never> => { throw system('EACCES') }
  Object.assign(fsp, { readdir: refuse })
  t.match(await presetTokenizer(presetOf('par-xl-4x'), cacheOf()), /vq_ds16_c2i\.pt$/, 'what is found is enough')
  Object.assign(fsp, { stat: refuse })
  for (const work of [Par.load('par-xl-4x', { cache: cacheOf() }), presetStatus(cacheOf()), fetchAll()]) {
    t.match(await failure(work),
      { code: 'FILE_NOT_FOUND', message: /cannot be read: permission denied\. .*HF_HUB_CACHE chooses another/ })
  }
})
