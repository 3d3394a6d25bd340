// complete: what --keep keeps, names of the results, and what is said where it cannot be done.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par } from '../../lib/index.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
let par: Par
let tokens: Int32Array
t.before(async () => {
  par = await Par.load()
  await (await par.generate({ classId: 'bag', seed: 1 })).toFile(at('bag.png'))
  tokens = await par.encode(at('bag.png'))
})
t.teardown(() => par.dispose())

interface Result { pictures: Array<{ file: string, steps: number, seed: number, tokens: number[] }> }
const complete = async (...flags: string[]): Promise<Result['pictures']> => {
  const { code, stdout, stderr } = await parvis(
    ['complete', at('bag.png'), '--class', 'bag', '--seed', '4', '--json', '--with-tokens', ...flags], { cwd: folder })
  t.equal(code, 0, stderr)
  return (JSON.parse(stdout) as Result).pictures
}

t.test('what is kept', async t => {
  // White above a line that cuts through the cells of row 5, which are drawn for that.
  const mask = Buffer.alloc(32 * 32, 255).fill(0, 32 * 11)
  await sharp(mask, { raw: { width: 32, height: 32, channels: 1 } }).png().toFile(at('mask.png'))
  for (const [keep, isKept] of [
    ['left', (_, column) => column < 8], ['bottom', row => row >= 8],
    ['outside:9,6,5,4', (row, column) => row < 3 || row > 4 || column < 4 || column > 6],
    [at('mask.png'), row => row < 5]
  ] as Array<[string, (row: number, column: number) => boolean]>) {
    const kept = Array.from({ length: 256 }, (_, cell) => isKept(Math.floor(cell / 16), cell % 16))
    const [made] = await complete('--keep', keep)
    const same = await par.generate({ classId: 'bag', seed: 4, known: { tokens, mask: kept } })
    t.same(made!.tokens, Array.from(same.tokens), `${keep}: as the API makes it`)
    t.equal(made!.file, at('bag-completed.png'))
    t.ok((await sharp(made!.file).removeAlpha().raw().toBuffer()).equals(Buffer.from(same.data)))
    t.equal(made!.steps, same.steps)
  }
})

t.test('several results', async t => {
  const made = await complete('--keep', 'left', '--count', '3', '--out', at('more/'), '--scale', '2')
  t.same(made.map(({ file }) => path.basename(file)),
    ['bag-completed-1.png', 'bag-completed-2.png', 'bag-completed-3.png'])
  t.same(made.map(({ seed }) => seed), [4, 5, 6])
  t.equal(new Set(made.map(({ tokens }) => tokens.join())).size, 3)
  for (const { file } of made) t.match(await sharp(file).metadata(), { width: 64, height: 64 })
  const { code, stdout } = await parvis(['complete', '-', '--class', '8', '--keep', 'top', '--out', at('piped.png')],
    { input: fs.readFileSync(at('bag.png')) })
  t.equal(code, 0)
  t.match(stdout, /piped\.png: Bag \(8\), 32 x 32 px, n = 4, \d+ steps, seed \d+/)
})

t.test('what is refused', async t => {
  const bag = at('bag.png')
  for (const [name, flags, code, message] of [
    ['no part', [bag, '--class', 'bag'], 2, /required option '--keep <part>'/],
    ['no class', [bag, '--keep', 'left'], 2, /which class is the picture of\?/],
    ['a box that is none', [bag, '--class', 'bag', '--keep', 'outside:1,2,0,4'], 2, /Give left, top, width and height/],
    ['a box beyond', [bag, '--class', 'bag', '--keep', 'outside:20,2,16,4'], 2, /beyond the picture, which is 32 x 32/],
    ['no mask', [bag, '--class', 'bag', '--keep', 'missing.png'], 1, /missing\.png: cannot be read: there is no such/],
    ['a mask that is none', [bag, '--class', 'bag', '--keep', path.join(__dirname, 'run.ts')], 2,
      /the mask .* no picture/],
    ['no such class', [bag, '--class', 'hat', '--keep', 'left'], 1, /hat/],
    ['two classes', [bag, '--class', 'bag,coat', '--keep', 'left'], 2, /one class/],
    ['another size', [bag, '--class', 'bag', '--keep', 'left', '--size', '64'], 2, /1024 tokens, and this model draws/],
    ['all', [bag, '--class', 'bag', '--keep', at('white.png')], 1, /nothing is left to draw/],
    ['standard output', [bag, '--class', 'bag', '--keep', 'left', '--out', '-'], 2, /writes files/],
    ['tokens without JSON', [bag, '--class', 'bag', '--keep', 'left', '--with-tokens'], 2, /give --json too/],
    ['no tokenizer', [bag, '--class', 'bag', '--keep', 'left', '--transformer', 'a.pt'], 2, /needs a tokenizer/]
  ] as Array<[string, string[], number, RegExp]>) {
    await sharp({ create: { width: 9, height: 9, channels: 3, background: 'white' } }).png().toFile(at('white.png'))
    t.match(await parvis(['complete', ...flags], { cwd: folder }), { code, stdout: '', stderr: message }, name)
  }
  t.same(fs.readdirSync(folder).filter(name => name.includes('missing')), [])
})
