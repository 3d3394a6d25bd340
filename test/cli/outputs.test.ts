// Where commands write: folders and patterns mean the same in each of them, what cannot be written is refused for its
// true reason, and a command that was stopped says what it has written.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { tokenFormatOf } from '../../lib/cli/tokens.js'
import { built } from '../support/built.js'
import { bin, parvis, root, temporaryFolder } from './run.js'

const unix = { skip: process.platform === 'win32' && 'links and users of Unix' }
const place = temporaryFolder()
const inside = (name: string): string => path.join(place, name)
const run = async (...args: string[]) => await parvis(args, { cwd: place })
const listed = (folder: string): string[] => fs.readdirSync(inside(folder)).sort()
const model = path.join(root, 'models', 'fashion', 'par-4.safetensors')

t.before(async () => {
  await built()
  t.equal((await run('generate', 'bag', '-n', '16', '--seed', '1', '--out', 'a.png')).code, 0)
  fs.copyFileSync(inside('a.png'), inside('b.png'))
  for (const name of ['a', 'b']) t.equal((await run('encode', `${name}.png`, '--out', `${name}.json`)).code, 0)
})

t.test('a file for each picture, in a folder or by a pattern', async t => {
  fs.mkdirSync(inside('there.d'))
  const cases: Array<[line: string[], folder: string, files: string[]]> = [
    [['decode', 'a.json', '--out', 'one/'], 'one', ['a-decoded.png']],
    [['decode', 'a.json', 'b.json', '--format', 'webp', '--out', 'two.d/deep/'], 'two.d/deep',
      ['a-decoded.webp', 'b-decoded.webp']],
    [['decode', 'a.json', 'b.json', '--out', 'there.d'], 'there.d', ['a-decoded.png', 'b-decoded.png']],
    [['decode', 'a.json', 'b.json', '--out', 'three/p%02d.png'], '.', []],
    [['reconstruct', 'a.png', 'a.png', '--out', 'four/'], 'four', ['a-reconstructed-1.png', 'a-reconstructed-2.png']],
    [['reconstruct', 'a.png', '--out', 'there.d'], 'there.d',
      ['a-decoded.png', 'a-reconstructed.png', 'b-decoded.png']],
    [['generate', 'bag', '--seed', '1', '-n', '16', '--out', 'five.d/'], 'five.d', ['bag-n16-seed1.png']],
    [['generate', 'bag', '--seed', '1', '-n', '16', '--each', '--out', 'there.d'], 'there.d',
      ['a-decoded.png', 'a-reconstructed.png', 'b-decoded.png', 'bag-n16-seed1.png']]
  ]
  for (const [line, folder, files] of cases) {
    const { code, stderr } = await run(...line)
    if (files.length > 0) {
      t.equal(code, 0, `${line.join(' ')}: ${stderr}`)
      t.same(listed(folder), files)
    } else {
      t.match({ code, stderr }, { code: 2, stderr: /there is no folder .*three/ },
        'only a name with places for its folder makes one')
    }
  }
  t.equal((await run('decode', 'a.json', 'b.json', '--out', 'p%02d.png')).code, 0)
  t.equal((await run('reconstruct', 'a.png', '--out', 'r%d.png')).code, 0)
  t.same(listed('.').filter(name => /^[pr]\d/.test(name)), ['p01.png', 'p02.png', 'r1.png'])
})

t.test('what is no name of the file that is written', async t => {
  const before = listed('.')
  const cases: Array<[line: string[], message: RegExp]> = [
    [['encode', 'a.png', '--format', 'json', '--out', 'e/'], /e\/ names a folder/],
    [['encode', 'a.png', '--out', 'e%d.json'], /e%d\.json stands for several files/],
    [['convert', model, 'c/'], /c\/ names a folder/],
    [['convert', model, '-'], /not written to standard output/],
    [['score', 'a.png', '--heatmap', 'h/'], /h\/ names a folder/],
    [['generate', 'bag', '--animate', 'f%d.webp'], /f%d\.webp stands for several files/],
    [['decode', 'a.json', '--out', '{seed}.png'], /\{seed\}.*parvis generate/],
    ...[['decode', 'a.json', 'b.json'], ['reconstruct', 'a.png', 'b.png'], ['encode', 'a.png'], ['generate', 'bag'],
      ['generate', 'bag', '--each']].map((line): [string[], RegExp] =>
      [[...line, '--out', ''], /the name of the output file is empty/])
  ]
  for (const [line, message] of cases) {
    t.match(await run(...line), { code: 2, stdout: '', stderr: message }, line.join(' '))
  }
  t.same(listed('.'), before)
  t.throws(() => tokenFormatOf(`${'a'.repeat(300)}.txt`, undefined),
    { code: 'USAGE', message: /^the name a+\.\.\.a+\.txt tells no format of tokens/ })
})

t.test('a picture and its animation are two files', unix, async t => {
  fs.symlinkSync('same.webp', inside('link.webp'))
  fs.symlinkSync('.', inside('here'))
  const line = ['generate', 'bag', '--seed', '1', '-n', '16']
  const cases = [['same.webp', 'same.webp'], ['./same.webp', inside('same.webp')], ['same.webp', 'link.webp'],
    ['here/same.webp', 'same.webp']] as const
  for (const [out, animation] of cases) {
    t.match(await run(...line, '--out', out, '--animate', animation), { code: 2, stderr: /would both be/ },
      `${out}, ${animation}`)
  }
  t.match(await run(...line, '--format', 'webp', '--animate', 'bag-n16-seed1.webp'),
    { code: 2, stderr: /would both be bag-n16-seed1\.webp/ })
  t.notOk(fs.existsSync(inside('same.webp')))
})

t.test('why a folder cannot be used', unix, async t => {
  fs.symlinkSync('nowhere', inside('dangling'))
  t.match(await run('generate', 'bag', '--out', 'dangling/x.png'),
    { code: 2, stderr: /dangling is a link to a folder that does not exist/ })
  t.match(await run('generate', 'bag', '--each', '--out', 'dangling/'),
    { code: 1, stderr: /\/dangling: .*a link to a folder that does not exist/ })
  t.match(await run('generate', 'bag', '--out', 'a.png/x.png'), { code: 2, stderr: /a\.png is no folder/ })

  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? '--permission'
    : '--experimental-permission'
  const confined = spawnSync(process.execPath,
    [permission, '--allow-addons', `--allow-fs-read=${root}/*`, bin, 'generate', 'bag', '--out', inside('x.png')],
    { encoding: 'utf8' })
  t.equal(confined.status, 2)
  t.match(confined.stderr, /cannot write .*: Node's permission model forbids it\. Start node with --allow-fs-read/)

  if (process.getuid?.() !== 0) return t.comment('not root: nobody else can be tried')
  fs.chmodSync(place, 0o755)
  fs.mkdirSync(inside('closed/sub'), { recursive: true })
  fs.chmodSync(inside('closed'), 0o700)
  for (const line of [['generate', 'bag'], ['decode', inside('a.json')]]) {
    const { status, stderr } = spawnSync(process.execPath, [bin, ...line, '--out', inside('closed/sub/x.png')],
      { encoding: 'utf8', uid: 65534, gid: 65534 })
    t.equal(status, 2)
    t.match(stderr, /cannot write .*: permission denied\./, line[0]!)
  }
})

t.test('folders that no file system makes', { skip: !fs.existsSync('/proc/self') && 'there is no /proc' }, async t => {
  const started = performance.now()
  for (const line of [['generate', 'bag', '--each', '--out', '/proc/xx/yy/'],
    ['decode', 'a.json', '--out', '/proc/xx/'], ['bench', '--plots', '/proc/xx']]) {
    t.match(await run(...line),
      {
        code: 1, stdout: '', stderr: /\/proc\/xx\S*: cannot be written: its file system takes no new files or folders\./
      }, line.join(' '))
  }
  t.match(await run('generate', 'bag', '--out', '/proc/x.png'),
    { code: 2, stderr: /no file can be made in \/proc: its file system takes no new/ })
  t.ok(performance.now() - started < 60_000, 'none of them hangs')
})

t.test('what was written before a signal', async t => {
  const { pictures: [{ tokens }] } = JSON.parse(fs.readFileSync(inside('a.json'), 'utf8')) as {
    pictures: [{ tokens: number[] }]
  }
  fs.writeFileSync(inside('many.json'), JSON.stringify(Array.from({ length: 5000 }, () => tokens)))
  for (const line of [['generate', 'bag', '--count', '3000', '--each', '-n', '16'], ['decode', 'many.json']]) {
    const folder = inside(`stopped-${line[0]!}`)
    const { code, stderr } = await parvis([...line, '--out', folder + path.sep], {
      cwd: place,
      started: child => {
        const watch = setInterval(() => {
          if (!fs.existsSync(folder) || fs.readdirSync(folder).filter(name => name.endsWith('.png')).length < 3) return
          clearInterval(watch)
          child.kill('SIGINT')
        }, 10)
        child.on('close', () => clearInterval(watch))
      }
    })
    t.equal(code, 130)
    t.match(stderr, new RegExp(`stopped by SIGINT; ${fs.readdirSync(folder).length} files were written before, the ` +
      'last one .*\\.png \\[INTERRUPTED\\]\n$'))
  }
})
