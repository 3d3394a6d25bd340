// generate from end to end on the embedded model: the file, the JSON beside it, sheets, formats, tokens alone, and
// the ways it can end early.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par } from '../../lib/index.js'
import { golden } from '../support/golden.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

interface Result {
  file: string
  width: number
  height: number
  images: Array<{
    classId: number, label?: string, seed: number, x: number, y: number, width: number, height: number,
    tokens?: number[]
  }>
}

/** RGB bytes of a picture file. */
async function pixels (file: string): Promise<{ data: Buffer, width: number, height: number }> {
  const { data, info } = await sharp(file).removeAlpha().toColourspace('srgb').raw()
    .toBuffer({ resolveWithObject: true })
  return { data, width: info.width, height: info.height }
}

t.test('one class', async t => {
  const out = at('boot.png')
  const { code, stdout, stderr } = await parvis(['generate', '--class', '7', '-n', '4', '--seed', '1', '--out', out])
  t.equal(code, 0)
  t.equal(stderr, '', 'no bar where there is no terminal')
  t.match(stdout, /boot\.png: Sneaker \(7\), 32 x 32 px.*\nn = 4, 67 steps, seed 1, /)

  const par = await Par.load()
  const image = await par.generate({ classId: 7, n: 4, seed: 1 })
  await par.dispose()
  const { data, width, height } = await pixels(out)
  t.same({ width, height }, { width: 32, height: 32 })
  t.ok(data.equals(image.data), 'the picture that the API makes')
})

t.test('--json', async t => {
  const out = at('json.png')
  const { code, stdout, stderr } = await parvis(['generate', '--json', '--with-tokens', '--class', 'sneaker', '-n',
    '16', '--seed', '5', '--out', out])
  t.equal(code, 0)
  t.equal(stderr, '')
  const result = JSON.parse(stdout) as Result
  t.match(
    result,
    {
      file: out, format: 'png', width: 32, height: 32, classId: 7, label: 'Sneaker', n: 16, seed: 5, steps: 31,
      timings: { totalMs: Number }, device: String
    }
  )
  t.equal(result.images.length, 1)
  t.equal(result.images[0]!.tokens!.length, 256)
  t.ok(fs.existsSync(out))
})

t.test('several classes make a sheet, a row a class', async t => {
  const out = at('sheet.png')
  const args = ['generate', '--json', '--class', '3,bag', '--class', 'Ankle boot', '--count', '2', '-n', '16', '--seed',
    '7', '--scale', '2', '--out', out]
  const { code, stdout } = await parvis(args)
  t.equal(code, 0)
  const result = JSON.parse(stdout) as Result
  t.same(result.images.map(({ classId, seed }) => [classId, seed]), [[3, 7], [3, 8], [8, 7], [8, 8], [9, 7], [9, 8]])
  const sheet = await pixels(out)
  t.same([sheet.width, sheet.height], [result.width, result.height])
  t.equal(sheet.width, 2 * 64 + 2)
  t.equal(sheet.height, 3 * 64 + 4)

  // Every picture of the sheet is the one that its class and seed make alone, each pixel twice as wide and high.
  const par = await Par.load()
  for (const { classId, seed, x, y } of result.images) {
    const { data, width } = await par.generate({ classId, n: 16, seed })
    let equal = true
    for (let row = 0; row < 64; row++) {
      for (let column = 0; column < 64; column++) {
        const here = ((y + row) * sheet.width + x + column) * 3
        const there = ((row >> 1) * width + (column >> 1)) * 3
        if (sheet.data.readUIntBE(here, 3) !== Buffer.from(data.buffer).readUIntBE(data.byteOffset + there, 3)) {
          equal = false
        }
      }
    }
    t.ok(equal, `class ${classId}, seed ${seed}`)
  }
  await par.dispose()
})

t.test('formats, names and standard output', async t => {
  const args = ['generate', '--class', '0', '-n', '16', '--seed', '3']
  t.equal((await parvis([...args, '--out', at('a.jpg')])).code, 0)
  t.equal((await sharp(at('a.jpg')).metadata()).format, 'jpeg')
  t.equal((await parvis([...args, '--out', at('b.dat'), '--format', 'webp', '--size', '48x40'])).code, 0)
  t.match(await sharp(at('b.dat')).metadata(), { format: 'webp', width: 48, height: 40 })

  t.equal((await parvis(args, { cwd: folder })).code, 0)
  t.ok(fs.existsSync(at('t-shirt-top-n16-seed3.png')), 'a name made of the options')

  const piped = await parvis([...args, '--out', '-'])
  t.equal(piped.code, 0)
  t.match(piped.stderr, /standard output: T-shirt/)
  t.ok(piped.bytes.equals(fs.readFileSync(at('t-shirt-top-n16-seed3.png'))), 'the same file on standard output')
})

t.test('sampling options reach the model', async t => {
  const seeds = async (...options: string[]): Promise<number[]> => {
    const { stdout } = await parvis(['generate', '--json', '--with-tokens', '--class', '1', '-n', '16', '--out',
      at('s.png'), ...options])
    return (JSON.parse(stdout) as Result).images[0]!.tokens!
  }
  const greedy = await seeds('--greedy', '--seed', '1')
  t.same(await seeds('--greedy', '--seed', '2'), greedy, 'greedy needs no seed')
  t.same(await seeds('--temperature', '0'), greedy)
  t.same(await seeds('--top-k', '1', '--seed', '3'), greedy)
  t.notSame(await seeds('--seed', '1'), await seeds('--seed', '2'))
  t.notSame(await seeds('--greedy', '--guidance-scale', '1'), await seeds('--greedy', '--guidance-scale', '4'))
  t.same(await seeds('--seed', '4', '--threads', '1'), await seeds('--seed', '4', '--threads', '2'))
})

t.test('a transformer alone prints tokens', async t => {
  const args = ['generate', '--transformer', golden('par-4x/model.pt'), '--heads', '2', '--grid', '8x8', '--class', '1',
    '--json', '--with-tokens', '--precision', 'float32']
  const { code, stdout } = await parvis(args)
  t.equal(code, 0)
  const result = JSON.parse(stdout) as Result
  t.notOk('file' in result)
  t.equal(result.images[0]!.tokens!.length, 64)
})

t.test('links are written through, pipes and devices written to', async t => {
  const place = temporaryFolder()
  const inside = (name: string): string => path.join(place, name)
  const generate = async (out: string) =>
    await parvis(['generate', '--class', '7', '-n', '16', '--seed', '1', '--format', 'png', '--out', out])
  t.equal((await generate(inside('plain.png'))).code, 0)
  const expected = fs.readFileSync(inside('plain.png'))

  fs.mkdirSync(inside('real'))
  fs.writeFileSync(inside('real/old.png'), 'old')
  fs.symlinkSync('real/old.png', inside('link.png'))
  fs.symlinkSync('real/new.png', inside('dangling.png'))
  for (const [name, target] of [['link', 'old'], ['dangling', 'new']] as const) {
    t.equal((await generate(inside(`${name}.png`))).code, 0)
    t.ok(fs.lstatSync(inside(`${name}.png`)).isSymbolicLink(), 'the link stays')
    t.ok(fs.readFileSync(inside(`real/${target}.png`)).equals(expected))
  }
  t.same(fs.readdirSync(inside('real')).sort(), ['new.png', 'old.png'], 'no part file')

  execFileSync('mkfifo', [inside('pipe')])
  const [read, { code }] = await Promise.all([fs.promises.readFile(inside('pipe')), generate(inside('pipe'))])
  t.equal(code, 0)
  t.ok(read.equals(expected))
  t.ok(fs.lstatSync(inside('pipe')).isFIFO(), 'still a pipe')
  t.equal((await generate('/dev/null')).code, 0)
  t.ok(fs.lstatSync('/dev/null').isCharacterDevice(), 'still a device')
  if (fs.existsSync('/dev/full')) {
    t.match(await generate('/dev/full'),
      { code: 1, stderr: /^parvis: \/dev\/full: cannot be written: no space is left.* \[FILE_NOT_FOUND\]\n$/ })
  }

  const long = inside(`${'x'.repeat(245)}.png`)
  t.equal((await generate(long)).code, 0, 'a name of 249 bytes')
  t.ok(fs.readFileSync(long).equals(expected))
  t.match(await generate(inside(`${'x'.repeat(252)}.png`)), { code: 2, stderr: /name is too long/ })
})

t.test('what could not be written is refused before the work', async t => {
  for (const scale of ['600', '100000', '9007199254740991']) {
    t.match(await parvis(['generate', '--class', '7', '--scale', scale, '--out', at('never.png')]),
      { code: 2, stdout: '', stderr: /pixels.*--scale.*\[USAGE\]/ }, scale)
  }
  t.match(await parvis(['generate', '--class', '7', '--count', '600', '--columns', '600', '--out', at('never.webp')]),
    { code: 2, stderr: /webp goes up to 16383/ })
  t.match(await parvis(['generate', '--class', '7', '--count', '9007199254740991', '--out', at('never.png')]),
    { code: 2, stderr: /too many/ })
  // Nobody, root neither, makes files in /proc.
  if (fs.existsSync('/proc/self')) {
    const started = performance.now()
    t.match(await parvis(['generate', '--class', '7', '--count', '2000', '-n', '1'], { cwd: '/proc' }),
      { code: 2, stdout: '', stderr: /no file can be made in \/proc: / })
    t.ok(performance.now() - started < 5000, 'at once')
  }
  t.notOk(fs.existsSync(at('never.png')))
})

t.test('cures are in the words of the command line', async t => {
  const args = ['generate', '--class', '1', '--transformer', golden('par-4x/model.pt'), '--tokenizer',
    golden('vq-small/vq.pt'), '--out', at('never.png')]
  t.match((await parvis(args)).stderr, /Pass --heads\./)
  t.match((await parvis(['generate', '--class', '1', '--device', 'cuda:9999', '--out', at('never.png')])).stderr,
    /Use (--device cuda:\d+, )*--device cpu or --device auto \[/)
})

t.test('what the model refuses', async t => {
  const cases: Array<[string[], string, RegExp]> = [
    [['--class', '10'], 'BAD_CLASS_ID', /0 to 9/],
    [['--class', '-1'], 'BAD_CLASS_ID', /0 to 9/],
    [['--class', 'boot'], 'BAD_CLASS_ID', /Ankle boot/],
    [['--class', '7', '-n', '9'], 'UNSUPPORTED_N', /embedded model has n = 1, 4 and 16/],
    [['--class', '7', '--guidance-scale', '-2'], 'INVALID_OPTION',
      /^parvis: --guidance-scale must be a number from 1 to 1000, not -2 /],
    [['--class', '7', '--top-p', '2'], 'INVALID_OPTION', /^parvis: --top-p must be/],
    [['--class', '7', '--device', 'tpu'], 'INVALID_OPTION', /^parvis: --device must be/],
    [['--class', '7', '--transformer', at('none.pt'), '--tokenizer', at('none.pt')], 'FILE_NOT_FOUND', /none\.pt/]
  ]
  for (const [args, code, message] of cases) {
    const out = at('never.png')
    const result = await parvis(['generate', ...args, '--out', out])
    t.match(result, { code: code === 'INVALID_OPTION' ? 2 : 1, stdout: '' }, args.join(' '))
    t.match(result.stderr, message)
    t.match(result.stderr, new RegExp(`^parvis: .* \\[${code}\\]\n$`))
    t.notOk(fs.existsSync(out))
  }
  t.match(await parvis(['generate', '--class', '10', '--json']),
    { code: 1, stderr: /^\{"error":\{"code":"BAD_CLASS_ID"/ })
})

for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
  t.test(`${signal} leaves no file`, async t => {
    const place = temporaryFolder()
    const out = path.join(place, 'sheet.png')
    fs.writeFileSync(out, 'what was there before')
    let sent = 0
    const outcome = await parvis(['generate', '--class', '0,1,2,3,4,5,6,7,8,9', '--count', '300', '-n', '1', '--out',
      out, '--verbose'], {
      started: child => {
        // The first line of --verbose: the model is loaded, the work begins.
        child.stderr!.once('data', () => setTimeout(() => { sent = performance.now(); child.kill(signal) }, 300))
      }
    })
    t.match(outcome, { code, signal: null, stdout: '', stderr: new RegExp(`stopped by ${signal}.*\\[INTERRUPTED\\]`) })
    t.ok(performance.now() - sent < 3000, 'at once')
    t.same(fs.readdirSync(place), ['sheet.png'], 'no part file')
    t.equal(fs.readFileSync(out, 'utf8'), 'what was there before')
  })
}

t.test('a reader of the picture that has gone', async t => {
  const { code, signal, stderr } = await parvis(['generate', '--class', '7', '--out', '-'],
    { started: child => child.stdout!.destroy() })
  t.same({ code, signal }, { code: 1, signal: null })
  t.match(stderr, /^parvis: standard output was closed.*\n$/)
})
