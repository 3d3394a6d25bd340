// Files written whole or not at all, and read without waiting for anybody: what goes wrong in a file system, what
// stands where a file should be, and processes that end in the middle.

import t from 'tap'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import fsp from 'node:fs/promises'
import path from 'node:path'
import { constants } from 'node:os'
import { ParError } from '../lib/base/errors.js'
import { convertCheckpoint, openCheckpoint } from '../lib/checkpoint/index.js'
import { fromSystem, readWhole, removeParts, writePart, writeWhole } from '../lib/base/files.js'
import { makeFolder } from '../lib/base/folders.js'
import { Image } from '../lib/api/image.js'
import { toParError } from '../lib/machine/native.js'
import { Par } from '../lib/api/par.js'
import { bin, root, temporaryFolder } from './cli/run.js'
import { built } from './support/built.js'
import { golden } from './support/golden.js'

process.setMaxListeners(0)
const picture = (value: number): Image => new Image(new Uint8Array(64 * 64 * 3).fill(value), 64, 64)
const failure = async (work: Promise<unknown>): Promise<ParError> =>
  await work.then(() => { throw new Error('it went well') }, (error: ParError) => error)
const system = (code: keyof typeof constants.errno): Error =>
  Object.assign(new Error(`${code}: words of the system, open '${'/very/long'.repeat(300)}\u001b[2J'`),
    { code, errno: -constants.errno[code] })
const root0 = process.getuid?.() === 0

t.test('a picture is there whole or not at all, and what was there stays', async t => {
  const folder = temporaryFolder()
  const file = path.join(folder, 'a.png')
  await picture(1).toFile(file)
  const before = fs.readFileSync(file)
  const { open, rename } = fsp
  t.teardown(() => Object.assign(fsp, { open, rename }))
  const broken = (what: 'writeFile' | 'datasync' | 'close', code: keyof typeof constants.errno): void => {
    Object.assign(fsp, {
      open: async (...args: Parameters<typeof open>) => {
        const handle = await open(...args)
        const close = handle.close.bind(handle)
        const failing = async (): Promise<never> => {
          if (what === 'writeFile') await handle.write(Buffer.from('half'))
          if (what === 'close') await close()
          throw system(code)
        }
        return Object.assign(handle, { [what]: failing })
      }
    })
  }
  for (const [what, code, message] of [
    ['writeFile', 'ENOSPC', /no space is left/], ['writeFile', 'EDQUOT', /quota/],
    ['writeFile', 'EFBIG', /larger than/], ['writeFile', 'EIO', /disk or the network failed/],
    ['datasync', 'ENOSPC', /no space/], ['datasync', 'EIO', /failed/], ['close', 'EDQUOT', /quota/]
  ] as const) {
    broken(what, code)
    t.match(await failure(picture(2).toFile(file)), { code: 'FILE_NOT_FOUND', message }, `${code} of ${what}`)
    t.match(await failure(picture(2).toFile(path.join(folder, 'new.png'))), { code: 'FILE_NOT_FOUND', message })
    t.same(fs.readdirSync(folder), ['a.png'], 'nothing else is left')
    t.ok(fs.readFileSync(file).equals(before), 'the old picture is as it was')
  }
  Object.assign(fsp, { open, rename: async () => { throw system('EBUSY') } })
  t.match(await failure(picture(2).toFile(file)), { code: 'FILE_NOT_FOUND', message: /in use/ })
  t.same(fs.readdirSync(folder), ['a.png'])
  // A file system that knows no synchronising is none that fails.
  broken('datasync', 'EINVAL')
  Object.assign(fsp, { rename })
  await picture(3).toFile(path.join(folder, 'b.png'))
  Object.assign(fsp, { open })
  t.match(await failure(picture(1).toFile(path.join(folder, 'no', 'such', 'a.png'))),
    { code: 'FILE_NOT_FOUND', message: `there is no folder ${path.join(folder, 'no', 'such')}. Make it` })
  t.match(await failure(picture(1).toFile(folder + '/a.png/b.png')), { code: 'FILE_NOT_FOUND', message: /no folder/ })
  fs.mkdirSync(path.join(folder, 'c.png'))
  t.match(await failure(picture(1).toFile(path.join(folder, 'c.png'))),
    { code: 'FILE_NOT_FOUND', message: /it is a folder/ })
})

const onLinux = { skip: process.platform !== 'linux' && 'names of Linux' }

t.test('names of what is open already are written to as it is open', onLinux, async t => {
  const folder = temporaryFolder()
  const [file, link, out] = ['a.bin', 'link.raw', 'out.bin'].map(name => path.join(folder, name)) as [string, string,
    string]
  fs.writeFileSync(file, 'before')
  const descriptor = fs.openSync(file, 'a')
  t.teardown(() => { fs.closeSync(descriptor) })
  fs.symlinkSync(`/dev/fd/${descriptor}`, link)
  await writeWhole(`/dev/fd/${descriptor}`, Buffer.from('1'))
  await writeWhole(`/proc/self/fd/${descriptor}`, Buffer.from('2'))
  await writeWhole(`/proc/${process.pid}/fd/${descriptor}`, Buffer.from('3'))
  await new Image(Buffer.from('456'), 1, 1).toFile(link)
  t.equal(fs.readFileSync(file, 'latin1'), 'before123456')
  t.same(fs.readdirSync(folder).sort(), ['a.bin', 'link.raw'])
  for (const absent of ['/dev/fd/987654', '/proc/self/fd/987654']) {
    t.match(await failure(writeWhole(absent, Buffer.from('1'))),
      { code: 'FILE_NOT_FOUND', message: /nothing open under that number/ })
  }
  fs.writeFileSync(out, 'before')
  const child = spawn(process.execPath, [bin, 'generate', '7', '-n', '16', '--out', '/dev/stdout', '--format', 'raw',
    '-q'], { stdio: ['ignore', fs.openSync(out, 'a'), 'inherit'] })
  t.same(await once(child, 'close'), [0, null])
  t.ok(fs.readFileSync(out, 'latin1').startsWith('before') && fs.statSync(out).size === 6 + 32 * 32 * 3)
})

t.test('why a file cannot be made', onLinux, async t => {
  const folder = temporaryFolder()
  const link = path.join(folder, 'dangling.png')
  fs.symlinkSync('absent/x.png', link)
  t.match(await failure(picture(1).toFile(link)),
    { code: 'FILE_NOT_FOUND', message: `${link}: cannot be written: there is no folder ${folder}/absent. Make it` })
})

t.test('a working directory that was removed', onLinux, async t => {
  const folder = temporaryFolder()
  const script = `
    const { Par } = require(process.argv[1])
    const [, , folder, tokenizer] = process.argv
    process.chdir(folder + '/gone')
    require('node:fs').rmdirSync(folder + '/gone')
    ;(async () => {
      const par = await Par.load({ device: 'cpu', threads: 1 })
      const image = await par.generate({ classId: 1, n: 16 })
      await image.toFile(folder + '/a.png')
      const tokens = await par.encode(folder + '/a.png')
      await (await Par.load({ tokenizer, device: 'cpu' })).dispose()
      const errors = await Promise.all([() => image.toFile('x.png'), () => par.encode('x.png'), () => Par.load({ tokenizer: 'x.pt' }), () => Par.load({ transformer: 'x.pt' })]
        .map(work => work().then(() => 'it went well', ({ name, code, message }) => ({ name, code, message }))))
      await par.dispose()
      console.log(JSON.stringify({ tokens: tokens.length, errors }))
    })()`
  fs.mkdirSync(path.join(folder, 'gone'))
  const printed = execFileSync(process.execPath,
    ['-e', script, path.join(await built(), 'index.js'), folder, golden('vq-small/vq.pt')], { encoding: 'utf8' })
  const { tokens, errors } = JSON.parse(printed) as { tokens: number, errors: object[] }
  t.equal(tokens, 256)
  const message = /^x\.\w+: cannot be found: the path is relative, and the working directory was removed\. /
  t.match(errors, Array(4).fill({ name: 'ParError', code: 'FILE_NOT_FOUND', message }))
})

t.test('no name of a file commands a terminal or fills a log', onLinux, async t => {
  const folder = path.join(temporaryFolder(), '\u001b[2J\u202e\n' + 'long'.repeat(50), 'long'.repeat(60),
    'long'.repeat(60))
  fs.mkdirSync(folder, { recursive: true })
  const at = (name: string): string => path.join(folder, name)
  fs.writeFileSync(at('empty.pt'), '')
  fs.copyFileSync(golden('par-4x/model.pt'), at('par.pt'))
  fs.copyFileSync(golden('vq-small/vq.pt'), at('vq.pt'))
  const load = async (options: object, path = at('par.pt')): Promise<unknown> =>
    await Par.load({ device: 'cpu', transformer: { path, heads: 2, grid: 8, ...options } })
  for (const [code, work] of [
    ['BAD_CHECKPOINT', async () => await openCheckpoint(at('empty.pt'))],
    ['FILE_NOT_FOUND', async () => await openCheckpoint(folder)], ['UNSUPPORTED_N', async () => await load({ n: 16 })],
    ['INVALID_OPTION', async () => await load({ grid: 7 })], ['INVALID_OPTION', async () => await load({ heads: 5 })],
    ['INVALID_OPTION', async () => await load({ weights: 'ema' })],
    ['BAD_CHECKPOINT', async () => await load({}, at('vq.pt'))],
    ['INVALID_OPTION', async () => await convertCheckpoint(at('vq.pt'), at('vq.pt'))],
    ['INVALID_OPTION', async () => await convertCheckpoint(at('vq.pt'), folder)],
    ['INVALID_OPTION',
      async () => await convertCheckpoint(at('par.pt'), at('x'), { heads: 2, grid: 8, tokenizer: at('par.pt') })],
    ['FILE_NOT_FOUND', async () => await Par.load('par-xl-4x', { cache: folder + '/x'.repeat(1e6) })],
    ['FILE_NOT_FOUND', async () => await picture(1).toFile(at('no/such.png'))]
  ] as Array<[string, () => Promise<unknown>]>) {
    const error = await failure(work())
    t.equal(error.code, code, error.message)
    t.notMatch(error.message, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/)
    t.ok(error.message.length < 1000, `${error.message.length} characters`)
  }
  const last = new ParError('INTERNAL', `\u001b[2J two\nlines ${'x'.repeat(1e6)} end`)
  t.match(last.message, /^\\u001b\[2J two\nlines x+\.\.\.x+ end$/)
  t.ok(last.message.length < 10_000)
  const native = toParError(Object.assign(new Error('Cannot open a\u001b[2J\nb.'),
    { parvisCode: 'FILE_NOT_FOUND' })) as ParError
  t.equal(native.message, 'Cannot open a\\u001b[2J\\u000ab.')
})

t.test('who reads meanwhile sees the old or the new', async t => {
  const file = path.join(temporaryFolder(), 'a.raw')
  const sides = [new Image(new Uint8Array(512 * 512 * 3).fill(1), 512, 512),
    new Image(new Uint8Array(512 * 512 * 3).fill(2), 512, 512)]
  await sides[0]!.toFile(file)
  let [writing, reads] = [true, 0]
  const write = (async () => {
    for (let k = 0; k < 60; k++) await sides[k % 2]!.toFile(file)
    writing = false
  })()
  while (writing) {
    const bytes = await fsp.readFile(file)
    reads++
    if (bytes.length !== 512 * 512 * 3 || bytes[0] !== bytes.at(-1)) {
      t.fail(`${bytes.length} bytes, ${bytes[0]} to ${bytes.at(-1)}`)
    }
  }
  await write
  t.ok(reads > 10, `${reads} reads`)
})

t.test('a folder that is changed meanwhile', async t => {
  const [first, second] = [temporaryFolder(), temporaryFolder()]
  const here = process.cwd()
  t.teardown(() => process.chdir(here))
  process.chdir(first)
  const done = picture(1).toFile('a.png')
  process.chdir(second)
  await done
  process.chdir(here)
  t.same([fs.readdirSync(first), fs.readdirSync(second)], [['a.png'], []],
    'the name means what it meant when the call was made')
})

t.test('mode and owner', { skip: process.platform === 'win32' && 'Windows has neither' }, async t => {
  const folder = temporaryFolder()
  const file = path.join(folder, 'a.png')
  const mode = (): string => (fs.statSync(file).mode & 0o7777).toString(8)
  const umask = process.umask(0o027)
  t.teardown(() => { process.umask(umask) })
  await picture(1).toFile(file)
  t.equal(mode(), '640', 'a new file by the umask')
  for (const kept of [0o600, 0o666, 0o604, 0o755]) {
    fs.chmodSync(file, kept)
    await picture(2).toFile(file)
    t.equal(mode(), kept.toString(8))
  }
  fs.chmodSync(file, 0o4755)
  await picture(2).toFile(file)
  t.equal(mode(), '755', 'no rights of its owner for new content')
  if (root0) {
    fs.chownSync(file, 65534, 12345)
    await picture(2).toFile(file)
    t.match(fs.statSync(file), { uid: 65534, gid: 12345 })
    fs.symlinkSync('a.png', path.join(folder, 'link.png'))
    await picture(2).toFile(path.join(folder, 'link.png'))
    t.match(fs.statSync(file), { uid: 65534, gid: 12345 }, 'also through a link')
  } else t.comment('not root: files cannot be given away here')

  // As somebody else: who may write a file but not give it away.
  const dist = await built()
  const program = `process.setgid?.(Number(process.argv[1])); process.setuid?.(Number(process.argv[1]));
    require(${JSON.stringify(path.join(dist, 'base', 'files.js'))}).writeWhole(process.argv[2], Buffer.from('new'))
      .then(() => console.log('written'), error => console.log(error.code + ' ' + error.message))`
  const as = (id: number): string =>
    execFileSync(process.execPath, ['-e', program, String(id), file], { encoding: 'utf8' })
  if (!root0) return t.comment('not root: nobody else can be tried')
  fs.chmodSync(folder, 0o777)
  for (const parent of [path.dirname(dist), path.dirname(folder)]) {
    t.ok(fs.statSync(parent).mode & 1, `${parent} is open to all`)
  }
  fs.chownSync(file, 0, 0)
  fs.chmodSync(file, 0o664)
  t.match(as(65534), /^FILE_NOT_FOUND .*permission denied/, 'who may not write it does not replace it either')
  fs.chmodSync(file, 0o662)
  t.equal(as(65534), 'written\n')
  t.match(fs.statSync(file), { uid: 65534, gid: 65534 })
  t.equal(mode(), '622', 'the new group gets no more than anybody had')
})

t.test('parts of processes that ended in the middle', async t => {
  const dist = await built()
  const folder = temporaryFolder()
  const writer = (end: string): ReturnType<typeof spawn> => spawn(process.execPath, ['-e', `
    const { writePart } = require(${JSON.stringify(path.join(dist, 'base', 'files.js'))})
    writePart(${JSON.stringify(path.join(folder, 'a.bin'))}, async handle => { await handle.writeFile('half'); console.log('ready'); await new Promise(resolve => setTimeout(resolve, 60_000)) })
    process.on('SIGTERM', () => { ${end} })`], { stdio: ['ignore', 'pipe', 'ignore'] })
  const parts = (): string[] => fs.readdirSync(folder).filter(name => name.endsWith('.part'))

  const killed = writer('')
  await once(killed.stdout!, 'data')
  t.match(parts(), [new RegExp(`^\\.parvis-[0-9a-f]{8}-${killed.pid}-[0-9a-f]{12}\\.part$`)],
    'its name says whose it is')
  await writeWhole(path.join(folder, 'b.bin'), Buffer.from('b'))
  t.equal(parts().length, 1, 'one that is being written stays')
  killed.kill('SIGKILL')
  await once(killed, 'close')
  t.equal(parts().length, 1)
  // The next process.
  execFileSync(process.execPath,
    [
      '-e',
      `require(${JSON.stringify(path.join(dist, 'base', 'files.js'))})
        .writeWhole(${JSON.stringify(path.join(folder, 'c.bin'))}, Buffer.from('c'))`
    ])
  t.same(fs.readdirSync(folder).sort(), ['b.bin', 'c.bin'])

  for (const end of ['process.exit(3)',
    `require(${JSON.stringify(path.join(dist, 'base', 'files.js'))}).removeParts(); process.kill(process.pid, 'SIGKILL')`,
    'throw new Error("mine")']) {
    const ended = writer(end)
    await once(ended.stdout!, 'data')
    t.equal(parts().length, 1)
    ended.kill('SIGTERM')
    await once(ended, 'close')
    t.same(parts(), [], end)
  }

  // Of another machine: only once nobody can work on it any more.
  const other = temporaryFolder()
  const [fresh, old, foreign] = ['00000000-1-000000000000', '00000000-1-000000000001', 'x']
    .map(name => path.join(other, `.parvis-${name}.part`)) as [string, string, string]
  for (const file of [fresh, old, foreign]) fs.writeFileSync(file, '')
  const long = new Date(Date.now() - 25 * 3600 * 1000)
  for (const file of [old, foreign]) fs.utimesSync(file, long, long)
  await writeWhole(path.join(other, 'a.bin'), Buffer.from('a'))
  t.same(fs.readdirSync(other).sort(), [path.basename(fresh), path.basename(foreign), 'a.bin'].sort())

  const listeners = process.listenerCount('exit')
  let during = 0
  await writePart(path.join(other, 'd.bin'), async () => { during = process.listenerCount('exit') })
  t.same([during, process.listenerCount('exit')], [listeners + 1, listeners], 'no listener stays')
  removeParts()
})

t.test('pipes and devices', { skip: process.platform === 'win32' && 'Windows has none as files' }, async t => {
  const folder = temporaryFolder()
  const pipe = path.join(folder, 'pipe.png')
  execFileSync('mkfifo', [pipe])
  const bytes = Buffer.alloc(3_000_001, 'abcdefg')
  const reason = new Error('enough')
  const stopsAfter = (milliseconds: number): () => void => {
    const until = performance.now() + milliseconds
    return () => { if (performance.now() > until) throw reason }
  }
  t.equal(await failure(writeWhole(pipe, bytes, stopsAfter(60))), reason as unknown, 'nobody reads')
  const written = writeWhole(pipe, bytes)
  await new Promise(resolve => setTimeout(resolve, 50))
  const [read] = await Promise.all([fsp.readFile(pipe), written])
  t.ok(read.equals(bytes), 'a reader that comes late gets everything')
  const slow = fs.openSync(pipe, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  t.equal(await failure(writeWhole(pipe, bytes, stopsAfter(100))), reason as unknown, 'a reader that takes nothing')
  const left = failure(writeWhole(pipe, bytes))
  await new Promise(resolve => setTimeout(resolve, 50))
  fs.closeSync(slow)
  t.match(await left, { code: 'FILE_NOT_FOUND', message: /reader has closed/ })
  t.ok(fs.lstatSync(pipe).isFIFO(), 'still a pipe')

  t.equal(await failure(readWhole(pipe, { pipes: true, check: stopsAfter(60) })), reason as unknown, 'nobody writes')
  const [got] = await Promise.all([readWhole(pipe, { pipes: true }), fsp.writeFile(pipe, bytes)])
  t.ok(got.equals(bytes))
  const open = fs.openSync(pipe, fs.constants.O_RDWR)
  t.equal(await failure(readWhole(pipe, { pipes: true, check: stopsAfter(60) })), reason as unknown,
    'a writer that writes nothing')
  fs.closeSync(open)
  t.match(await failure(readWhole(pipe)), { code: 'FILE_NOT_FOUND', message: /it is a pipe/ })
  t.match(await failure(readWhole('/dev/zero', { pipes: true })), { code: 'FILE_NOT_FOUND', message: /it is a device/ })
  t.match(await failure(readWhole(folder)), { code: 'FILE_NOT_FOUND', message: /it is a folder/ })

  const large = path.join(folder, 'large')
  fs.writeFileSync(large, '')
  fs.truncateSync(large, 2 ** 40)
  t.match(await failure(readWhole(large)), { code: 'FILE_NOT_FOUND', message: /1073741824/ })
  fs.truncateSync(large, 200_000_000)
  let looks = 0
  t.equal(await failure(readWhole(large, { check: () => { if (++looks > 3) throw reason } })), reason as unknown,
    'ends in the middle')
  t.ok((await readWhole('/proc/self/status')).toString().startsWith('Name:'), 'a file whose size says nothing')
  const grows = path.join(folder, 'grows')
  fs.writeFileSync(grows, 'x')
  looks = 0
  t.match(await failure(readWhole(
    grows, { limit: 100_000, check: () => { if (looks++ < 100) fs.appendFileSync(grows, Buffer.alloc(10_000)) } }
  )), { message: /more than 100000 bytes/ }, 'a file that grows')

  const par = await Par.load()
  t.teardown(async () => { await par.dispose() })
  for (const file of [pipe, '/dev/zero', '/dev/random', folder]) {
    t.match(await failure(par.encode(file)), { code: 'FILE_NOT_FOUND', message: /cannot be read: it is a/ }, file)
  }
  const { code, message } = await failure(par.encode(path.join(folder, 'x'.repeat(5000))))
  t.equal(code, 'FILE_NOT_FOUND')
  t.ok(message.length < 500, `${message.length} characters`)
})

t.test('a command that waits at a pipe ends with a signal', {
  skip: process.platform === 'win32' && 'Windows has none as files'
}, async t => {
  await built()
  const folder = temporaryFolder()
  const pipe = path.join(folder, 'pipe.png')
  execFileSync('mkfifo', [pipe])
  for (const [args, signal, code] of [
    [['encode', pipe], 'SIGINT', 130], [['score', pipe, '--class', '7'], 'SIGTERM', 143],
    [['generate', '--class', '7', '-n', '16', '--out', pipe], 'SIGINT', 130]
  ] as const) {
    // Before it listens to signals they end it at once: then it was not waiting yet, and is given more time.
    for (let wait = 1000; wait < 20_000; wait *= 2) {
      const child = spawn(process.execPath, [bin, ...args], { cwd: root, stdio: 'ignore' })
      const ended = once(child, 'close')
      const timers = [setTimeout(() => child.kill(signal), wait),
        setTimeout(() => child.kill('SIGKILL'), wait + 20_000)]
      const [exit, by] = await ended as [number | null, string | null]
      for (const timer of timers) clearTimeout(timer)
      if (by === signal) continue
      t.same([exit, by], [code, null], `${args[0]} ${signal}`)
      break
    }
  }
  t.same(fs.readdirSync(folder), ['pipe.png'])
})

t.test('errors of the file system', async t => {
  for (const code of Object.keys(constants.errno) as Array<keyof typeof constants.errno>) {
    for (const doing of ['read', 'written'] as const) {
      const error = fromSystem(system(code), `/a\u001b]0;title\u0007/${'b'.repeat(5000)}/c.pt`, doing) as ParError
      if (!(error instanceof ParError) || error.code !== 'FILE_NOT_FOUND') t.fail(`${code}: ${error.code}`)
      if (!/^\/a\\u001b\]0;title\\u0007\/b+\.\.\.b+\/c\.pt: cannot be (read|written): [a-z]\S* .*\.$/.test(
        error.message
      )) {
        t.fail(error.message)
      }
      if (error.message.length > 600 || /[\u0000-\u001f]|undefined|\/very/.test(error.message)) t.fail(error.message)
    }
  }
  for (const code of ['ERR_ACCESS_DENIED', 'ERR_FS_FILE_TOO_LARGE', 'UNKNOWN']) {
    t.match(fromSystem(Object.assign(new Error('x'), { code }), 'a', 'read'), { code: 'FILE_NOT_FOUND' })
  }
  const others = [new TypeError('x'), Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG_TYPE' }), undefined, null,
    5, new ParError('INTERNAL', 'x')]
  for (const other of others) t.equal(fromSystem(other, 'a', 'read'), other)

  const dist = await built()
  const folder = temporaryFolder()
  fs.writeFileSync(path.join(folder, 'a'), 'a')
  const flag = Number(process.versions.node.split('.')[0]) >= 24 ? '--permission' : '--experimental-permission'
  const program = `const files = require(${JSON.stringify(path.join(dist, 'base', 'files.js'))})
    const told = error => console.log(error.code, error.message)
    files.readWhole(process.argv[1] + '/a').catch(told).then(() => files.writeWhole(process.argv[1] + '/b', Buffer.from('b')).catch(told))`
  const said = execFileSync(process.execPath, [flag, `--allow-fs-read=${root}/*`, '-e', program, folder],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  t.match(said, /^FILE_NOT_FOUND .*permission model.*--allow-fs-read.*\nFILE_NOT_FOUND .*permission model.*\n$/)
})

t.test('folders are made a step at a time', async t => {
  const folder = temporaryFolder()
  const deep = path.join(folder, 'a', 'b', 'c')
  await Promise.all([makeFolder(deep), makeFolder(deep)])
  t.ok(fs.statSync(deep).isDirectory(), 'also where two make it')
  await makeFolder(deep)
  fs.writeFileSync(path.join(folder, 'file'), '')
  t.match(await failure(makeFolder(path.join(folder, 'file'))), { code: 'EEXIST' })
  t.match(await failure(makeFolder(path.join(folder, 'file', 'x'))), { code: 'ENOTDIR' })
  if (process.platform !== 'win32') {
    fs.symlinkSync('nowhere', path.join(folder, 'link'))
    for (const name of ['link', 'link/x']) {
      t.match(await failure(makeFolder(path.join(folder, name))),
        { code: 'FILE_NOT_FOUND', message: /\/link: .*a link to a folder that does not exist/ })
    }
  }
  if (!fs.existsSync('/proc/self')) return t.comment('there is no /proc')
  const refused = await failure(makeFolder('/proc/xx/yy'))
  t.match(fromSystem(refused, '/proc/xx', 'written'),
    { code: 'FILE_NOT_FOUND', message: /its file system takes no new files or folders/ })
  t.match(await failure(picture(1).toFile('/proc/x.png')),
    {
      code: 'FILE_NOT_FOUND',
      message: /\/proc\/x\.png: cannot be written: its file system takes no new files or folders/
    })
})
