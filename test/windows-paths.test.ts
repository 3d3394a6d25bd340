// What parvis would do on Windows, asked on any system: functions that are told the platform, and a file system that
// refuses what that of Windows does. Nothing here has run on Windows.

import t from 'tap'
import fs from 'node:fs'
import fsp from 'node:fs/promises'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { flush, refuseName, systemReason, writePart, writeWhole } from '../lib/base/files.js'
import { makeFolder } from '../lib/base/folders.js'
import { withoutMark } from '../lib/base/text.js'
import { fileOfURL, isDevice, nameProblem, nativePath, renameOver, samePath } from '../lib/base/windows.js'
import { pythonNames } from '../lib/bench/peers.js'
import { convertCheckpoint } from '../lib/checkpoint/index.js'
import { namesOf, outputNames, safeName } from '../lib/cli/names.js'
import { readOrders } from '../lib/cli/orders.js'
import { checkWritable } from '../lib/cli/outputs.js'
import { abortOnSignals, endingOf, Interruption } from '../lib/cli/signals.js'
import { hasGone } from '../lib/cli/terminal.js'
import { readLabels } from '../lib/cli/token-inputs.js'
import { areOne } from '../lib/hub/cache.js'
import { cacheFolder, userCaches } from '../lib/hub/location.js'
import { programPlaces } from '../lib/pictures/ffmpeg.js'
import { Image } from '../lib/api/image.js'
import { temporaryFolder } from './cli/run.js'
import { golden } from './support/golden.js'
import { commitOf, type FakeHub, sha256 } from './support/hub.js'
import { afresh, failure, fetchAll, folderOf, startHub, tokenizer, weights } from './support/pulling.js'

t.setTimeout(120_000)
const system = (code: string): Error => Object.assign(new Error(code), { code })

/** What the library reads when it asks where it runs; until the end of the test. */
function onWindows (test: { teardown: (undo: () => void) => void }): void {
  const own = Object.getOwnPropertyDescriptor(process, 'platform')!
  Object.defineProperty(process, 'platform', { ...own, value: 'win32' })
  test.teardown(() => Object.defineProperty(process, 'platform', own))
}

/** Functions of the file system in the place of its own, until the end of the test. */
function instead (test: { teardown: (undo: () => void) => void }, functions: Partial<typeof fsp>): void {
  const own = Object.fromEntries(Object.keys(functions).map(name => [name, fsp[name as keyof typeof fsp]]))
  Object.assign(fsp, functions)
  test.teardown(() => { Object.assign(fsp, own) })
}

// ---- names

t.test('names of devices', async t => {
  for (const name of ['con', 'CON', 'Con.png', 'prn', 'aux.tar.gz', 'nul', 'NUL.', 'com1', 'COM9.txt', 'lpt1', 'LPT9.x',
    'com\u00b9', 'com\u00b2.png', 'LPT\u00b3', 'conin$', 'CONOUT$.log', 'nul .png', 'con  ', 'aux..png']) {
    t.ok(isDevice(name), JSON.stringify(name))
  }
  for (const name of ['console', 'con-1.png', 'com', 'com10', 'com0', 'lpt', 'lpt10.png', 'nulls', 'xcon', ' con',
    'picture.con', 'con_', 'aux-n4.png', '', '.con', 'com\u2074']) {
    t.notOk(isDevice(name), JSON.stringify(name))
  }
})

t.test('names that no file should have', async t => {
  const refused: Array<[file: string, why: RegExp]> = [
    ['con.png', /"con" is a device of Windows/], ['C:\\out\\NUL', /"NUL" is a device/],
    ['C:aux.png', /"aux" is a device/], ['\\\\server\\share\\lpt1.png', /device/], ['out/com1.png', /device/],
    ['\\\\?\\C:\\out\\prn.txt', /device/], ['out/con/', /device/], ['a\\con .npz', /device/],
    ['a.', /dot/], ['a ', /blank/], ['C:\\a\\b.png.', /dot/], ['out/x. .', /dot/], ['...', /dot/],
    ['C:\\a:b', /no ":"/], ['nul:', /no ":"/], ['a<b', /no "<"/], ['a>b', /no ">"/],
    ['a"b', /no "\\""/], ['a|b', /no "\|"/], ['a?.png', /no "\?"/], ['*.png', /no "\*"/], ['a\tb', /no "\\t"/],
    ['a\u0001b', /no "\\u0001"/], ['\\\\server\\share\\a?b', /no "\?"/]
  ]
  for (const [file, why] of refused) {
    t.match(nameProblem(file, 'win32'), why, JSON.stringify(file))
    t.equal(nameProblem(file, 'linux'), undefined, 'any name elsewhere')
  }
  for (const file of ['a.png', 'C:\\out\\a.png', 'C:a.png', 'c:/out\\mixed/a.png', '\\\\server\\share\\a.png',
    '//server/share/a.png', '\\\\?\\C:\\a.png', '\\\\?\\UNC\\server\\share\\a.png', '..', '.', 'C:\\a\\..', 'out\\',
    'Zoë\\größe.png', '写真.png', 'a b.png', ' a', '.hidden', 'con\\a.png', 'C:\\', '',
    /* on the drive a: */ 'a:b.png']) {
    t.equal(nameProblem(file, 'win32'), undefined, JSON.stringify(file))
  }
})

t.test('what would be written under them is refused before anything is there', async t => {
  const folder = temporaryFolder()
  const at = (name: string): string => path.join(folder, name)
  fs.mkdirSync(at('aux'))
  t.throws(() => refuseName(at('con.png'), 'win32'), {
    code: 'FILE_NOT_FOUND',
    message: /con\.png: cannot be written: "con" is a device of Windows, whatever follows it\. Choose another name\.$/
  })
  t.doesNotThrow(() => refuseName(at('con.png'), 'linux'))
  await t.rejects(checkWritable(at('con.png'), new Set(), 'win32'), {
    code: 'USAGE', message: /^cannot write .*con\.png: "con" is a device of Windows.*; choose another name$/
  })
  await t.rejects(checkWritable(at('a?.npz'), new Set(), 'win32'), { code: 'USAGE', message: /no "\?"/ })
  t.match(await checkWritable(at('con.png'), new Set(), 'linux'), { kind: 'absent' })

  const before = fs.readdirSync(folder)
  onWindows(t)
  const picture = new Image(new Uint8Array(12), 2, 2)
  const refusal = { code: 'FILE_NOT_FOUND', message: /cannot be written: .*Choose another name/ }
  await t.rejects(picture.toFile(at('con.png')), refusal) // before sharp is asked for, which is not there on `win32`
  await t.rejects(writeWhole(at('ab:c.txt'), Buffer.from('x')), refusal)
  await t.rejects(makeFolder(at('nul')), refusal)
  await t.rejects(makeFolder(at('prn/below')), refusal)
  await t.rejects(convertCheckpoint(golden('par-4x/model.pt'), at('lpt1.safetensors')), refusal)
  t.same(fs.readdirSync(folder), before, 'nothing was made')
  await makeFolder(at('aux'))
  await writeWhole(at('aux/a.txt'), Buffer.from('x'))
  t.equal(fs.readFileSync(at('aux/a.txt'), 'utf8'), 'x', 'a folder that is there, whatever made it, is used')
})

t.test('parvis makes up no such name, wherever it runs', async t => {
  const labels = ['con', 'NUL', 'aux.', 'com1', 'LPT9', 'com\u00b9', 'conin$', 'prn, printer', 'nul .', 'a. ', 'CON.',
    '-con-', `${'x'.repeat(119)}. y`, '\u0007', 'a<b>c:d"e/f\\g|h?i*j']
  for (const label of labels) {
    const pictures = [{ classId: 3, label, seed: 1, n: 1 }]
    for (const name of [safeName(label), ...namesOf(pictures, undefined, 'png'), ...namesOf(pictures, '{class}', 'png'),
      ...namesOf(pictures, 'x/{class}.png', 'png'), ...namesOf(pictures, '{class}{n}.png', 'png')]) {
      t.equal(nameProblem(name, 'win32'), undefined, `${JSON.stringify(label)}: ${name}`)
    }
    for (const name of outputNames([`/in/${label.replaceAll('/', '')}.png`], 'out/', '', 'png')) {
      t.equal(nameProblem(name, 'win32'), undefined, name)
    }
  }
  t.same(namesOf([{ classId: 3, label: 'com', seed: 5, n: 1 }], 'a/{class}{n}.png', 'png'), ['a/picture-com1.png'])
  t.same(namesOf([{ classId: 3, label: 'com', seed: 5, n: 1 }], 'com%d.png', 'png'), ['com1.png'], 'as was asked for')
  t.equal(safeName('con'), 'picture-con')
  t.equal(safeName('com\u00b9.x'), 'picture-com\u00b9.x')
  t.same(outputNames(['/a/Cat.png', '/b/cat.png', '/c/dog.png'], 'out/', '-d', 'png'),
    ['out/Cat-d-1.png', 'out/cat-d-2.png', 'out/dog-d.png'], 'names that differ in case alone are one name there')
})

// ---- paths

t.test('one path or two', async t => {
  for (const [one, other, same] of [
    ['C:\\Out\\a.png', 'c:\\out\\A.PNG', true], ['C:\\out\\a.png', 'C:/out/a.png', true],
    ['C:\\out\\x\\..\\a.png', 'C:\\out\\a.png', true], ['\\\\Server\\Share\\a', '//server/share/A', true],
    ['\\\\?\\C:\\out\\a', 'C:\\out\\a', true], ['\\\\?\\UNC\\server\\share\\a', '\\\\server\\share\\a', true],
    ['C:\\Größe', 'c:\\GRÖSSE', false], ['C:\\ÖL', 'c:\\öl', true], ['C:\\a', 'D:\\a', false],
    ['C:\\a', 'C:\\a.png', false], ['\\\\server\\a\\x', '\\\\server\\b\\x', false]
  ] as const) t.equal(samePath(one, other, 'win32'), same, `${one} and ${other}`)
  t.notOk(samePath('/out/a.png', '/out/A.png', 'linux'))
  t.ok(samePath('/out/a.png', '/out/a.png', 'linux'))

  // The same file as input and as output, told by its name alone: by its number it is not, with links that are cut.
  onWindows(t)
  const folder = temporaryFolder()
  const [input, output] = [path.join(folder, 'Model.pt'), path.join(folder, 'model.PT')]
  fs.copyFileSync(golden('par-4x/model.pt'), input)
  await t.rejects(convertCheckpoint(input, output), { code: 'INVALID_OPTION', message: /are the same file/ })
})

t.test('numbers of files that are alike as doubles', async t => {
  const { stat } = fsp
  const big = 0x7fff_0000_0000_1000n
  const numbers: Record<string, bigint> = { one: big, two: big + 1n, three: big }
  t.equal(Number(big), Number(big + 1n), 'they are')
  instead(t, {
    stat: (async (file: string, options?: { bigint?: boolean }) => {
      const found = await stat(__filename, options as { bigint: true })
      return Object.assign(found, { ino: options?.bigint ? numbers[file] : Number(numbers[file]) })
    }) as unknown as typeof stat
  })
  t.equal(await areOne('one', 'two'), false)
  t.equal(await areOne('one', 'three'), true)
})

t.test('long names for native code, which Node.js itself would make long', async t => {
  const long = 'C:\\' + 'a\\'.repeat(130) + 'model.pt'
  t.equal(nativePath(long, 'win32'), '\\\\?\\' + long)
  t.equal(nativePath('\\\\server\\share\\' + 'a\\'.repeat(130) + 'x', 'win32'),
    '\\\\?\\UNC\\server\\share\\' + 'a\\'.repeat(130) + 'x')
  t.equal(nativePath('\\\\?\\' + long, 'win32'), '\\\\?\\' + long, 'once')
  t.equal(nativePath('C:\\models\\model.pt', 'win32'), 'C:\\models\\model.pt', 'a short one is as it was given')
  t.equal(nativePath('/' + 'a/'.repeat(200), 'linux'), '/' + 'a/'.repeat(200))
})

t.test('addresses of files', async t => {
  for (const [url, file] of [
    ['file:///C:/out/a.png', 'C:\\out\\a.png'], ['file:///c:/a%20b/gr%C3%B6%C3%9Fe.png', 'c:\\a b\\größe.png'],
    ['file://server/share/a.png', '\\\\server\\share\\a.png'], ['FILE:///D:/x', 'D:\\x'],
    ['file:///no/drive', undefined], ['file:///C:/a%2Fb', undefined], ['file:///C:/a%5Cb', undefined],
    ['file:///C:/a%00b', undefined], ['https://host/a', undefined], ['C:\\a', undefined]
  ] as const) t.equal(fileOfURL(url, 'win32'), file, url)
  t.equal(fileOfURL('file:///out/a%20b.png', 'linux'), '/out/a b.png')
  t.equal(fileOfURL('file://server/share/a.png', 'linux'), undefined)
  t.equal(fileOfURL(pathToFileURL(__filename).href), __filename)
})

t.test('the cache of Hugging Face', async t => {
  const USERPROFILE = 'C:\\Users\\Zoë'
  for (const [env, expected] of [
    [{}, 'C:\\Users\\Zoë\\.cache\\huggingface\\hub'],
    [{ HOME: '/c/Users/zoe' }, 'C:\\Users\\Zoë\\.cache\\huggingface\\hub'], // of Git's shell: none of ours
    [{ HF_HOME: 'D:\\hf' }, 'D:\\hf\\hub'], [{ HF_HOME: 'D:/hf/' }, 'D:\\hf\\hub'],
    [{ HF_HUB_CACHE: '\\\\server\\share\\hub' }, '\\\\server\\share\\hub'],
    [{ HF_HOME: '~\\hf' }, 'C:\\Users\\Zoë\\hf\\hub'], [{ HF_HOME: '~/hf' }, 'C:\\Users\\Zoë\\hf\\hub'],
    [{ HF_HUB_CACHE: '~' }, USERPROFILE],
    [{ HF_HOME: '%LOCALAPPDATA%\\hf', LOCALAPPDATA: 'C:\\L' }, 'C:\\L\\hf\\hub'],
    [{ HF_HOME: '$SCRATCH/${SUB}', SCRATCH: 'E:\\s', SUB: 'x' }, 'E:\\s\\x\\hub'],
    [{ HF_HOME: 'C:\\$A', A: '%B%', B: 'no' }, 'C:\\%B%\\hub'], // once, not again
    [{ HF_HOME: 'C:\\50% of %NONE%' }, 'C:\\50% of %NONE%\\hub'],
    [{ XDG_CACHE_HOME: 'D:\\c' }, 'D:\\c\\huggingface\\hub']
  ] as Array<[Record<string, string>, string]>) {
    t.equal(cacheFolder({ USERPROFILE, ...env }, 'win32'), expected, JSON.stringify(env))
  }
  t.equal(userCaches({ USERPROFILE }, 'win32'), 'C:\\Users\\Zoë\\.cache')
  for (const HF_HOME of ['~somebody\\hf', '~tmp']) {
    t.throws(() => cacheFolder({ USERPROFILE, HF_HOME }, 'win32'), { code: 'INVALID_OPTION', message: /another user/ })
  }
  t.equal(cacheFolder({ HOME: '/home/me', USERPROFILE }, 'linux'), '/home/me/.cache/huggingface/hub')
  t.throws(() => cacheFolder({ HOME: '/home/me', HF_HOME: '~\\hf' }, 'linux'), { code: 'INVALID_OPTION' },
    'where a backslash is a letter')
})

t.test('folders of programs', async t => {
  t.same(programPlaces('ffmpeg', 'C:\\bin;"C:\\Program Files\\ffmpeg\\bin"; D:\\x ;;.;rel\\bin;C:here', 'win32'),
    ['C:\\bin\\ffmpeg.exe', 'C:\\Program Files\\ffmpeg\\bin\\ffmpeg.exe', 'D:\\x\\ffmpeg.exe'])
  t.same(programPlaces('ffmpeg', '/usr/bin:.::/opt/a b', 'linux'), ['/usr/bin/ffmpeg', '/opt/a b/ffmpeg'])
  t.same(programPlaces('ffmpeg', undefined, 'win32'), [])
  t.same(pythonNames('win32'), ['python', 'py', 'python3'])
  t.equal(pythonNames('linux')[0], 'python3')
  // A path in a line that is to be typed.
  const { quoted } = require('../scripts/addon.js') as { quoted: (file: string, platform: string) => string }
  for (const [file, platform, text] of [
    ['C:\\Users\\me\\app', 'win32', 'C:\\Users\\me\\app'], ['C:\\Program Files\\x', 'win32', '"C:\\Program Files\\x"'],
    ['C:\\a&b', 'win32', '"C:\\a&b"'], ['/home/me/app', 'linux', '/home/me/app'],
    ["/home/it's $HOME", 'linux', "'/home/it'\\''s $HOME'"]
  ] as const) t.equal(quoted(file, platform), text)
})

// ---- files

t.test('a rename while somebody has the file open', async t => {
  const attempt = async (codes: string[], platform: string) => {
    const waits: number[] = []
    let tries = 0
    const move = async (): Promise<void> => {
      const code = codes[tries++]
      if (code !== undefined) throw system(code)
    }
    const error = await renameOver('a', 'b', { platform, move, wait: async ms => { waits.push(ms) } })
      .then(() => undefined, (error: NodeJS.ErrnoException) => error.code)
    return { tries, error, waited: waits.reduce((sum, ms) => sum + ms, 0) }
  }
  t.match(await attempt([], 'win32'), { tries: 1, error: undefined, waited: 0 })
  for (const code of ['EPERM', 'EACCES', 'EBUSY']) {
    t.match(await attempt([code], 'win32'), { tries: 2, error: undefined }, code)
    t.match(await attempt([code, code, code], 'win32'), { tries: 4, error: undefined })
    t.match(await attempt(Array<string>(99).fill(code), 'win32'), { tries: 8, error: code, waited: 1000 }, 'a second')
    t.match(await attempt([code], 'linux'), { tries: 1, error: code }, 'elsewhere it means what it says')
  }
  t.match(await attempt(['EBUSY', 'ENOENT'], 'win32'), { tries: 2, error: 'ENOENT' }, 'others count at once')
  t.match(await attempt(['ENOSPC'], 'win32'), { tries: 1, error: 'ENOSPC', waited: 0 })

  // The same below a file that is written: what was there stays until then, and nothing is left behind.
  onWindows(t)
  const folder = temporaryFolder()
  const file = path.join(folder, 'a.txt')
  const { rename } = fsp
  let refusals = 2
  instead(t, {
    rename: async (from, to) => {
      if (refusals-- > 0) throw system('EPERM')
      await rename(from, to)
    }
  })
  await writePart(file, async handle => { await handle.writeFile('new') })
  t.equal(fs.readFileSync(file, 'utf8'), 'new')
  refusals = Infinity
  const held = await failure(writeWhole(file, Buffer.from('newer')))
  t.match(held, { code: 'FILE_NOT_FOUND', message: /another program has it open\. Close that program/ })
  t.same(fs.readdirSync(folder), ['a.txt'])
  t.equal(fs.readFileSync(file, 'utf8'), 'new')
})

t.test('a file system that tells no real path', async t => {
  const folder = temporaryFolder()
  const [file, linked] = [path.join(folder, 'a.txt'), path.join(folder, 'b.txt')]
  fs.writeFileSync(file, 'old')
  fs.symlinkSync('a.txt', linked)
  instead(t, { realpath: (async () => { throw system('UNKNOWN') }) as unknown as typeof fsp.realpath })
  await writeWhole(file, Buffer.from('new'))
  t.equal(fs.readFileSync(file, 'utf8'), 'new', 'a file that is no link bears its own name')
  const error = await failure(writeWhole(linked, Buffer.from('newer')))
  t.match(error, { code: 'FILE_NOT_FOUND' }, 'a link cannot be followed')
  t.equal(fs.readFileSync(file, 'utf8'), 'new')
  t.ok(fs.lstatSync(linked).isSymbolicLink(), 'and is not replaced')
})

t.test('what the system says', async t => {
  for (const code of ['EPERM', 'EACCES', 'EBUSY']) {
    t.match(systemReason(system(code), 'written', undefined, 'win32'), /another program has it open/, code)
    t.notMatch(systemReason(system(code), 'written', undefined, 'linux'), /another program/)
  }
  t.match(systemReason(system('ENOSPC'), 'written', undefined, 'win32'), /no space is left/)
  t.ok(hasGone(system('EOF')))
  t.ok(hasGone(system('EPIPE')))
  t.notOk(hasGone(system('ENOSPC')))
  // A file system that cannot be asked to write down what it holds: EISDIR there, of a plain file.
  const flushed = async (code: string): Promise<unknown> => await flush({
    datasync: async () => { throw system(code) }
  } as unknown as fsp.FileHandle).then(() => 'well', (error: NodeJS.ErrnoException) => error.code)
  t.same(await Promise.all(['EISDIR', 'EINVAL', 'EIO', 'ENOSPC'].map(flushed)), ['well', 'well', 'EIO', 'ENOSPC'])
})

t.test('a drive that is not there', async t => {
  const missing = async (): Promise<never> => { throw system('ENOENT') }
  instead(t, { mkdir: missing as typeof fsp.mkdir, stat: missing as unknown as typeof fsp.stat })
  await t.rejects(makeFolder('/some/folder'), { code: 'ENOENT' }, 'is missing; it does not take no folders')
})

t.test('text as editors of Windows write it', async t => {
  const mark = '\ufeff'
  const folder = temporaryFolder()
  const file = (text: string): string => {
    const name = path.join(folder, 'text.json')
    fs.writeFileSync(name, text)
    return name
  }
  const { signal } = new AbortController()
  for (const front of ['', mark]) {
    t.same(await readLabels(file(`${front}[\r\n  7,\r\n  "Bag"\r\n]\r\n`), 2, signal), [7, 'Bag'])
    t.same(await readOrders(file(`${front}[\r\n  [0, 1],\r\n  [1, 0]\r\n]\r\n`), 2, signal), [[0, 1], [1, 0]])
  }
  await t.rejects(readLabels(file(`${mark}${mark}[7]`), 1, signal), { code: 'BAD_TOKENS' }, 'one mark')
  t.equal(withoutMark(Buffer.from(`${mark}a`)).toString(), 'a')
  t.equal(withoutMark(Buffer.from('a')).toString(), 'a')
  t.equal(withoutMark(Buffer.from([0xef, 0xbb])).length, 2)
})

// ---- signals

t.test('signals', async t => {
  const known = ['SIGHUP', 'SIGINT', 'SIGBREAK', 'SIGTERM'] as const
  for (const name of known) {
    t.equal(endingOf(name, 'win32').end, 'SIGKILL', 'what Node.js can send there, whatever came')
    t.equal(endingOf(name, 'linux').end, name, 'the signal itself, whose exit status tells of it')
  }
  t.ok(endingOf('SIGHUP', 'win32').patience < 5000, 'before Windows ends the process')
  t.ok(endingOf('SIGHUP', 'linux').patience > 10_000)
  t.equal(endingOf('SIGBREAK', 'win32').patience, endingOf('SIGINT', 'win32').patience)
  t.same(known.map(name => new Interruption(name).exitCode), [129, 130, 130, 143])

  const before = process.rawListeners('SIGBREAK')
  t.teardown(() => {
    for (const name of known) process.rawListeners(name).slice(-1).forEach(own => process.off(name, own as () => void))
  })
  const signal = abortOnSignals()
  t.equal(process.listenerCount('SIGBREAK'), before.length + 1)
  process.emit('SIGBREAK')
  t.match(signal.reason, { code: 'INTERRUPTED', signal: 'SIGBREAK', message: 'stopped by SIGBREAK' })
})

// ---- the cache

t.test('a cache where nobody may make symbolic links', async t => {
  const hub: FakeHub = await startHub()
  t.teardown(async () => { await hub.stop() })
  const par = (): string => folderOf('Epiphqny/PAR')
  const blob = (): string => path.join(par(), 'blobs', sha256(weights))
  const { link } = fsp
  for (const code of ['EPERM', 'UNKNOWN', 'none']) {
    await t.test(code === 'none' ? 'a link that is not there; hard links' : `${code}; hard links`, async t => {
      afresh(hub)
      let asked = 0
      instead(t, {
        symlink: async () => {
          asked++
          if (code !== 'none') throw system(code)
        }
      })
      const [first, second] = await fetchAll()
      t.match([first, second], [{ downloaded: true, hash: sha256(weights) }, { downloaded: true }])
      t.equal(asked, 1, 'it is not tried again for every file')
      t.notOk(fs.lstatSync(first.path).isSymbolicLink())
      t.ok(fs.readFileSync(first.path).equals(weights))
      t.equal(fs.statSync(first.path).ino, fs.statSync(blob()).ino, 'one content')
      t.match(await fetchAll(), [{ downloaded: false, path: first.path }, { downloaded: false }])
      process.env.HF_HUB_OFFLINE = '1'
      t.match(await fetchAll(), [{ downloaded: false, path: first.path, hash: sha256(weights) }, {}])
    })
  }

  await t.test('no hard links either: the content itself, as huggingface_hub leaves it', async t => {
    afresh(hub)
    let copies = 0
    const { copyFile } = fsp
    instead(t, {
      symlink: async () => { throw system('EPERM') },
      link: async () => { throw system('EPERM') },
      copyFile: async (...args: Parameters<typeof copyFile>) => { copies++; await copyFile(...args) }
    })
    const [first, second] = await fetchAll()
    t.ok(fs.lstatSync(first.path).isFile())
    t.ok(fs.readFileSync(first.path).equals(weights))
    t.ok(fs.readFileSync(second.path).equals(tokenizer))
    t.same(fs.readdirSync(path.join(par(), 'blobs')), [], 'it was moved, and takes its place once')
    t.equal(copies, 0)
    hub.requests.length = 0
    t.match(await fetchAll(), [{ downloaded: false, path: first.path, hash: sha256(weights) }, { downloaded: false }])
    t.same(hub.requests.filter(({ host }) => host === 'storage'), [], 'and is found there')

    // A blob that was there before may have other names: it is copied.
    fs.copyFileSync(first.path, blob())
    fs.rmSync(first.path)
    t.match((await fetchAll())[0], { downloaded: false })
    t.equal(copies, 1)
    t.ok(fs.readFileSync(first.path).equals(weights) && fs.existsSync(blob()))

    // Damaged content is replaced, and what is there stays where that fails.
    fs.rmSync(blob())
    fs.writeFileSync(first.path, 'damaged')
    t.match((await fetchAll())[0], { downloaded: true })
    t.ok(fs.readFileSync(first.path).equals(weights))
    fs.rmSync(first.path)
    const { rename } = fsp
    instead(t, {
      rename: async (from, to) => {
        if (to === first.path) throw system('EACCES')
        await rename(from, to)
      }
    })
    t.match(await failure(fetchAll()), { code: 'FILE_NOT_FOUND' })
    t.ok(fs.readFileSync(blob()).equals(weights), 'the download is not lost')
  })

  await t.test('two processes at once: the other one has moved the blob', async t => {
    afresh(hub)
    const pointer = (): string => path.join(par(), 'snapshots', commitOf('Epiphqny/PAR'), 'PAR-XL-4x.pt')
    instead(t, {
      symlink: async () => { throw system('EPERM') },
      link: (async (from: string, to: string) => {
        if (!String(from).includes(sha256(weights))) return await link(from, to)
        fs.renameSync(from, pointer())
        throw system('EPERM')
      }) as typeof link
    })
    const [first] = await fetchAll()
    t.equal(first.path, pointer())
    t.ok(fs.readFileSync(pointer()).equals(weights))
  })

  await t.test('a scanner has the new blob open', async t => {
    afresh(hub)
    const own = Object.getOwnPropertyDescriptor(process, 'platform')!
    const { rename } = fsp
    let refusals = 3
    instead(t, {
      rename: async (from, to) => {
        if (/[/\\](blobs[/\\][0-9a-f]{64}|PAR-XL-4x\.pt)$/.test(String(to)) && refusals-- > 0) throw system('EBUSY')
        await rename(from, to)
      }
    })
    Object.defineProperty(process, 'platform', { ...own, value: 'win32' })
    t.teardown(() => Object.defineProperty(process, 'platform', own))
    t.match((await fetchAll())[0], { downloaded: true, hash: sha256(weights) })
    t.ok(refusals < 0)
  })
})
