// sample: runs that are killed and continued, divided and put together have the bytes of one run.

import t from 'tap'
import { fork } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import yauzl from 'yauzl'
import { crc32 } from 'node:zlib'
import { Par } from '../../lib/index.js'
import { bin, parvis, temporaryFolder, type Outcome } from './run.js'

const folder = temporaryFolder()
const at = (...names: string[]): string => path.join(folder, ...names)
const sample = async (...flags: string[]): Promise<Outcome> =>
  await parvis(['sample', '-n', '16', ...flags], { cwd: folder })

interface Array_ { header: string, data: Buffer }

/** The arrays of an .npz file, by another reader of archives, checksums compared. */
async function arrays (file: string): Promise<Record<string, Array_>> {
  const zip = await yauzl.openPromise(file)
  const found: Record<string, Array_> = {}
  for await (const entry of zip.eachEntry()) {
    const parts: Buffer[] = []
    for await (const part of await zip.openReadStreamPromise(entry)) parts.push(part as Buffer)
    const bytes = Buffer.concat(parts)
    if (crc32(bytes) !== entry.crc32) throw new Error(`checksum of ${entry.fileName}`)
    const end = 10 + bytes.readUInt16LE(8)
    if (bytes.toString('latin1', 0, 8) !== '\x93NUMPY\x01\x00' || end % 64 !== 0) throw new Error(entry.fileName)
    found[entry.fileName] = { header: bytes.toString('latin1', 10, end).trim(), data: bytes.subarray(end) }
  }
  return found
}

t.test('an .npz file', async t => {
  const { code, stdout, stderr } = await sample('--count', '70', '--seed', '3', '--out', 'whole.npz', '--json')
  t.equal(code, 0, stderr)
  t.match(JSON.parse(stdout), {
    file: at('whole.npz'), pictures: 70, made: 70, width: 32, height: 32, seed: 3, labels: 'random', n: 16, count: 70
  })
  const found = await arrays(at('whole.npz'))
  t.same(Object.keys(found), ['arr_0.npy', 'arr_1.npy'])
  t.equal(found['arr_0.npy']!.header, "{'descr': '|u1', 'fortran_order': False, 'shape': (70, 32, 32, 3), }")
  t.equal(found['arr_1.npy']!.header, "{'descr': '<i8', 'fortran_order': False, 'shape': (70,), }")
  const par = await Par.load()
  t.teardown(() => par.dispose())
  let i = 0
  for await (const { data, classId } of par.samples({ count: 70, seed: 3, n: 16 })) {
    t.ok(found['arr_0.npy']!.data.subarray(i * 3072, (i + 1) * 3072).equals(data), `picture ${i} is that of the API`)
    t.equal(found['arr_1.npy']!.data.readBigInt64LE(8 * i++), BigInt(classId))
  }
  t.equal(i, 70)
  t.same(fs.readdirSync(folder), ['whole.npz'], 'nothing else is left')

  const again = await sample('--count', '70', '--seed', '3', '--out', 'whole.npz')
  t.match(again, { code: 0, stdout: /it was complete already/ })
  for (const [flags, message] of [
    [['--count', '70', '--seed', '4'], /of another run: seed 3, not 4/],
    [['--count', '71', '--seed', '3'], /count 70, not 71/],
    [['--count', '70', '--seed', '3', '--top-k', '5'], /sampling/]
  ] as Array<[string[], RegExp]>) {
    t.match(await sample(...flags, '--out', 'whole.npz'), { code: 2, stdout: '', stderr: message })
  }
  t.match(await sample('--count', '2', '--out', 'whole.npz', '--overwrite'), { code: 0 })
  t.equal((await arrays(at('whole.npz')))['arr_1.npy']!.data.length, 16)
})

t.test('killed ten times and continued', async t => {
  const flags = ['--count', '300', '--seed', '3']
  t.match(await sample(...flags, '--out', 'one.npz'), { code: 0 })
  const { size } = fs.statSync(at('one.npz'))
  const kill = async (out: string, when: () => boolean): Promise<boolean> => {
    const child = fork(bin, ['sample', '-n', '16', ...flags, '--out', out], { cwd: folder, silent: true })
    const timer = setInterval(() => { if (when()) child.kill('SIGKILL') }, 1)
    const code = await new Promise(resolve => { child.once('exit', resolve) })
    clearInterval(timer)
    return code === null
  }
  const written = (): number => fs.statSync(at('two.npz.part'), { throwIfNoEntry: false })?.size ?? 0
  // A seeded draw of where: by the bytes that are written, and beyond them by the clock.
  let state = 7
  const random = (): number => { state = state * 48271 % 2147483647; return state / 2147483647 }
  let kills = 0
  for (let i = 0; i < 10; i++) {
    const from = written()
    const to = from + random() * (size - from) / (10 - i) * 2
    const late = Date.now() + 20_000
    if (await kill('two.npz', () => written() >= Math.min(to, size - 1) || Date.now() > late)) kills++
  }
  t.ok(kills >= 8, `${kills} kills`)
  const { code, stdout, stderr } = await sample(...flags, '--out', 'two.npz')
  t.equal(code, 0, stderr)
  t.match(stdout, /300 pictures/)
  t.ok(fs.readFileSync(at('one.npz')).equals(fs.readFileSync(at('two.npz'))), 'the bytes of an uninterrupted run')
  t.same(fs.readdirSync(folder).filter(name => name.includes('part')), [])

  const png = ['--count', '40', '--seed', '3']
  t.match(await sample(...png, '--out', 'folder/'), { code: 0 })
  for (let i = 0; i < 3; i++) {
    const child = fork(bin, ['sample', '-n', '16', ...png, '--out', 'again/'], { cwd: folder, silent: true })
    const timer = setInterval(() => {
      const there = fs.existsSync(at('again')) ? fs.readdirSync(at('again')).length : 0
      if (there > 12 * (i + 1)) child.kill('SIGKILL')
    }, 1)
    await new Promise(resolve => { child.once('exit', resolve) })
    clearInterval(timer)
  }
  t.match(await sample(...png, '--out', 'again/'), { code: 0 })
  const names = fs.readdirSync(at('folder')).sort()
  t.same(names, [...Array.from({ length: 40 }, (_, i) => `${String(i).padStart(6, '0')}.png`), 'samples.json'])
  t.same(fs.readdirSync(at('again')).sort(), names, 'no part files are left')
  for (const name of names) t.ok(fs.readFileSync(at('folder', name)).equals(fs.readFileSync(at('again', name))), name)
  const { data } = (await arrays(at('one.npz')))['arr_0.npy']!
  const pixels = await sharp(at('folder', '000039.png')).removeAlpha().raw().toBuffer()
  t.ok(pixels.equals(data.subarray(39 * 3072, 40 * 3072)), 'a folder has the pictures of the file')
  const { labels } = JSON.parse(fs.readFileSync(at('folder', 'samples.json'), 'utf8')) as { labels: number[] }
  t.equal(labels.length, 40)
})

t.test('Ctrl-C says what is there', async t => {
  const { code, stderr } = await parvis(['sample', '-n', '16', '--count', '100000', '--out', 'long.npz'], {
    cwd: folder,
    started: child => {
      const timer = setInterval(() => {
        if ((fs.statSync(at('long.npz.part'), { throwIfNoEntry: false })?.size ?? 0) < 3072 * 70) return
        clearInterval(timer)
        child.kill('SIGINT')
      }, 5)
    }
  })
  t.equal(code, 130)
  t.match(stderr, /long\.npz\.part has \d+ of 100000 pictures; the same command continues it/)
  t.notOk(fs.existsSync(at('long.npz')))
  t.match(await sample('--count', '99', '--out', 'long.npz'),
    { code: 2, stderr: /of another run: count 100000, not 99/ })
  fs.rmSync(at('long.npz.part'))
  fs.rmSync(at('long.npz.part.json'))
})

t.test('parts put together', async t => {
  const flags = ['--count', '31', '--seed', '9', '--labels', 'balanced', '--size', '20x10']
  t.match(await sample(...flags, '--out', 'all.npz'), { code: 0 })
  t.match(await sample(...flags, '--out', 'all/'), { code: 0 })
  for (const k of [1, 2, 3]) {
    t.match(await sample(...flags, '--shard', `${k}/3`, '--out', `part-${k}.npz`), { code: 0 })
    t.match(await sample(...flags, '--shard', `${k}/3`, '--out', `part-${k}/`), { code: 0 })
  }
  const merge = async (...args: string[]): Promise<Outcome> =>
    await parvis(['sample', 'merge', ...args], { cwd: folder })
  t.match(await merge('part-3.npz', 'part-1.npz', 'part-2.npz', '--out', 'merged.npz'),
    { code: 0, stdout: /31 pictures, 20 x 10 px.*put together from 3 parts/ })
  t.ok(fs.readFileSync(at('merged.npz')).equals(fs.readFileSync(at('all.npz'))), 'the bytes of one run')
  t.match(await merge('part-2', 'part-1/', 'part-3', '--out', 'merged/'), { code: 0 })
  for (const name of [...fs.readdirSync(at('all')), ...fs.readdirSync(at('merged'))]) {
    t.ok(fs.readFileSync(at('all', name)).equals(fs.readFileSync(at('merged', name))), name)
  }

  const damaged = fs.readFileSync(at('part-2.npz'))
  damaged[700]! ^= 1
  fs.writeFileSync(at('damaged.npz'), damaged)
  fs.writeFileSync(at('short.npz'), damaged.subarray(0, 900))
  fs.writeFileSync(at('empty.npz'), '')
  t.match(await sample('--count', '31', '--seed', '8', '--shard', '2/3', '--out', 'other.npz'), { code: 0 })
  for (const [parts, message] of [
    [['part-1.npz', 'part-3.npz'], /part 2 of 3 is missing/],
    [['part-1.npz', 'part-2.npz', 'part-3.npz', 'part-3.npz'], /there are 3 parts, and 4 were given/],
    [['part-1.npz', 'other.npz', 'part-3.npz'], /part of another run than.*seed 9, not 8/],
    [['part-1.npz', 'damaged.npz', 'part-3.npz'], /checksum/], [['all.npz'], /it is a whole run/],
    [['part-1.npz', 'short.npz', 'part-3.npz'], /says nothing of a run/], [['empty.npz'], /says nothing of a run/],
    [[], /which parts\?/]
  ] as Array<[string[], RegExp]>) {
    t.match(await merge(...parts, '--out', 'wrong.npz'), { code: 2, stdout: '', stderr: message }, String(message))
  }
  t.match(await merge('missing.npz', '--out', 'wrong.npz'), { code: 1, stderr: /there is no such file/ })
  t.match(await merge('part-1.npz', 'part-2.npz', 'part-3.npz', '--out', 'all.npz'),
    { code: 2, stderr: /there already/ })
  t.match(await merge('part-1', 'part-2', 'part-3', '--out', 'merged/'),
    { code: 2, stderr: /\d+\.png is there already/ })
  fs.rmSync(at('part-2', '000015.png'))
  t.match(await merge('part-1', 'part-2', 'part-3', '--out', 'wrong/'), { code: 2, stderr: /it lacks pictures/ })
  t.notOk(fs.existsSync(at('wrong.npz')))
})

t.test('what is refused', async t => {
  fs.writeFileSync(at('foreign.npz'), 'no archive')
  fs.writeFileSync(at('mine.npz.part'), 'something')
  for (const [flags, code, message] of [
    [['--out', 'a.npz'], 2, /how many pictures\?/], [['--count', '5'], 2, /where to\?/],
    [['--count', '5', '--out', 'a.png'], 2, /neither an .npz file nor a folder/],
    [['--count', '5', '--out', '-'], 2, /writes a file or a folder/],
    [['--count', '5', '--out', 'a.npz', '--shard', '3/2'], 2, /--shard 3\/2/],
    [['--count', '5', '--out', 'a.npz', '--shard', 'x'], 2, /--shard x/],
    [['--count', '5', '--out', 'a.npz', '--labels', 'hat'], 1, /hat/],
    [['--count', '5', '--out', 'a.npz', '--labels', ','], 2, /--labels is empty/],
    [['--count', '5', '--out', 'foreign.npz'], 2, /foreign\.npz is there already.*not written by parvis sample/],
    [['--count', '5', '--out', 'mine.npz'], 2, /mine\.npz\.part is there already/],
    [['--count', '10000000', '--size', '8192', '--out', 'a.npz'], 2, /the file will have \d+\.\d GB/],
    [['more', '--count', '5'], 2, /the only one that it knows is merge/],
    [['--count', '5', '--transformer', 'a.pt', '--out', 'a.npz'], 2, /need a tokenizer/]
  ] as Array<[string[], number, RegExp]>) {
    t.match(await sample(...flags), { code, stdout: '', stderr: message }, flags.join(' '))
  }
  fs.mkdirSync(at('album'))
  fs.writeFileSync(at('album', '000003.png'), 'a picture of the user')
  t.match(await sample('--count', '5', '--out', 'album/'),
    { code: 2, stderr: /000003\.png is there already.*not written by parvis sample/ })
  t.equal(fs.readFileSync(at('album', '000003.png'), 'utf8'), 'a picture of the user')
  t.same(fs.readdirSync(at('album')), ['000003.png'])
  t.match(await sample('--count', '3', '--out', 'album/'), { code: 0 }, 'names that the run has no use for')
  t.match(JSON.parse(fs.readFileSync(at('album', 'samples.json'), 'utf8')),
    { transformer: { file: 'par-16.safetensors' } }, 'the file of this n')
  t.equal(fs.readFileSync(at('foreign.npz'), 'utf8'), 'no archive')
  t.equal(fs.readFileSync(at('mine.npz.part'), 'utf8'), 'something')
  t.notOk(fs.existsSync(at('a.npz.part')))
})
