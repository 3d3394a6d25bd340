// decode: pictures that the API makes of the same tokens, from every file of tokens; names of the files; what is
// refused.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par } from '../../lib/index.js'
import { writeNpy } from '../../lib/pictures/npy.js'
import { golden } from '../support/golden.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const pixels = async (file: string | Buffer): Promise<Buffer> => await sharp(file).removeAlpha().raw().toBuffer()

const tokens = Int32Array.from({ length: 256 }, (_, k) => k * 7 % 128)
const other = Int32Array.from({ length: 256 }, (_, k) => k * 5 % 128)
let par: Par
t.before(async () => { par = await Par.load() })
t.teardown(() => par.dispose())

t.test('every file of tokens', async t => {
  const expected = [Buffer.from((await par.decode(tokens)).data), Buffer.from((await par.decode(other)).data)]
  const list = Array.from(tokens)
  const both = [list, Array.from(other)]
  const rows = (values: number[]): number[][] => Array.from({ length: 16 }, (_, y) => values.slice(16 * y, 16 * y + 16))
  const files: Array<[string, string | Buffer, number]> = [
    ['flat.npy', writeNpy({ data: tokens, shape: [256] }), 1],
    ['rows.npy', writeNpy({ data: tokens, shape: [16, 16] }), 1],
    ['several.npy', writeNpy({ data: Int32Array.from(both.flat()), shape: [2, 256] }), 2],
    ['axes.npy', writeNpy({ data: Int32Array.from(both.flat()), shape: [1, 2, 256] }), 2],
    ['grids.npy', writeNpy({ data: Int32Array.from(both.flat()), shape: [2, 16, 16] }), 2],
    ['flat.json', JSON.stringify(list), 1],
    ['rows.json', JSON.stringify(rows(list)), 1],
    ['several.json', '\ufeff ' + JSON.stringify(both), 2],
    ['one.json', JSON.stringify({ tokens: list }), 1],
    ['pictures.json', JSON.stringify({ pictures: both.map(tokens => ({ tokens, grid: [16, 16] })) }), 2],
    ['images.json', JSON.stringify({ images: both.map(tokens => ({ tokens })) }), 2]
  ]
  for (const [name, content, count] of files) {
    fs.writeFileSync(at(name), content)
    const { code, stdout, stderr } = await parvis(['decode', '--json', at(name), '--out', at('out.png')])
    t.equal(code, 0, name + stderr)
    const { pictures } = JSON.parse(stdout) as {
      pictures: Array<{ file: string, grid: number[], width: number, height: number }>
    }
    t.equal(pictures.length, count)
    for (const [k, { file, grid, width, height }] of pictures.entries()) {
      t.same({ file, grid, width, height },
        { file: at(count === 1 ? 'out.png' : `out-${k + 1}.png`), grid: [16, 16], width: 32, height: 32 })
      t.ok((await pixels(file)).equals(expected[k]!), `${name}: picture ${k + 1}`)
    }
  }
})

t.test('encode and decode make what went in', async t => {
  const image = await par.generate({ classId: 3, seed: 4 })
  await image.toFile(at('dress.png'))
  t.equal((await parvis(['encode', at('dress.png'), '--out', at('dress.json')])).code, 0)
  t.match(await parvis(['decode', at('dress.json')], { cwd: folder }),
    { code: 0, stdout: `dress-decoded.png: 32 x 32 px of ${at('dress.json')}\n` }, 'a name of its own')
  t.ok((await pixels(at('dress-decoded.png')))
    .equals(Buffer.from((await par.decode(await par.encode(at('dress.png')))).data)))

  const made = await parvis(['generate', '--class', '3', '--seed', '4', '--json', '--with-tokens', '--out',
    at('dress.png')])
  fs.writeFileSync(at('made.json'), made.stdout)
  const piped = await parvis(['decode', at('made.json'), '--out', '-'])
  t.ok((await pixels(piped.bytes)).equals(Buffer.from(image.data)),
    'tokens of generate --json --with-tokens; standard output')
  t.match(piped.stderr, /^standard output: 32 x 32 px/)
})

t.test('size, scale, grid, another tokenizer', async t => {
  fs.writeFileSync(at('t.npy'), writeNpy({ data: tokens, shape: [256] }))
  t.match(await parvis(['decode', at('t.npy'), '--size', '48x40', '--scale', '2', '--out', at('s.webp')]), { code: 0 })
  t.match(await sharp(at('s.webp')).metadata(), { format: 'webp', width: 96, height: 80 })
  t.equal((await parvis(['decode', at('t.npy'), '--grid', '8x32', '--out', at('wide.png')])).code, 0)
  t.ok((await pixels(at('wide.png'))).equals(Buffer.from((await par.decode(tokens, { grid: [8, 32] })).data)))
  const small = ['--tokenizer', golden('vq-small/vq.pt'), '--precision', 'float32']
  t.equal((await parvis(['decode', at('t.npy'), ...small, '--out', at('vq.png')])).code, 0)
  t.match(await sharp(at('vq.png')).metadata(), { width: 64, height: 64 })
})

t.test('what is refused', async t => {
  const deep = '['.repeat(50) + ']'.repeat(50)
  const files: Record<string, [string | Buffer, RegExp]> = {
    'text.json': ['tokens', /neither a \.npy file nor JSON/],
    'number.json': ['7', /holds no tokens/],
    'null.json': ['null', /holds no tokens/],
    'empty.json': ['[]', /holds no tokens/],
    'none.json': ['{"pictures": []}', /holds no picture/],
    'list.json': ['{"pictures": [{"tokens": "1, 2"}]}', /pictures\[0\]: has no list/],
    'entry.json': ['{"pictures": [null]}', /pictures\[0\]: has no list/],
    'words.json': ['["a", "b", "c", "d"]', /holds "a" at place 0/],
    'part.json': ['[1, 2, 3.5, 4]', /holds 3\.5 at place 2/],
    'ragged.json': ['[[1, 2], [3]]', /different lengths/],
    'deep.json': [deep, /nested deeper than/],
    'grid.json': ['{"tokens": [1, 2, 3, 4], "grid": [2, 3]}', /no pictures of 2 x 3/],
    'sides.json': ['{"tokens": [1, 2, 3, 4], "grid": "2x2"}', /not \[rows, columns\]/],
    'square.json': ['[1, 2, 3]', /no square; give --grid/],
    'many.npy': [writeNpy({ data: new Int32Array(70_000), shape: [70_000, 1, 1] }),
      /holds 70000 pictures; at most 65536/],
    'many.json': [`{"pictures":[${'{"tokens":[1]},'.repeat(70_000)}{"tokens":[1]}]}`,
      /holds 65537 pictures; at most 65536/],
    'large.json': ['[1, 2, 3, 128]', /tokens\[3\] is 128; tokens are 0 to 127/],
    'float.npy': [Buffer.concat([Buffer.from('\x93NUMPY\x01\0\x46\0', 'latin1'),
      Buffer.from("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".padEnd(70))]), /<f8/]
  }
  for (const [name, [content, message]] of Object.entries(files)) {
    fs.writeFileSync(at(name), content)
    const { code, stdout, stderr } = await parvis(['decode', at(name), '--out', at('never.png')])
    t.same({ code, stdout }, { code: 1, stdout: '' }, name)
    t.match(stderr, message)
    t.match(stderr, /^parvis: .*\[BAD_TOKENS\]\n$/)
  }
  fs.writeFileSync(at('two.json'), JSON.stringify([Array.from(tokens), Array.from(tokens)]))
  const usage: Array<[string[], RegExp]> = [
    [[at('two.json'), '--out', '-'], /one picture; these are 2/],
    [[at('two.json'), '--out', at('a.xyz')], /--format/],
    [[at('two.json'), '--out', '-', '--json'], /standard output/],
    [[at('two.json'), '--scale', '100000', '--out', at('never.png')],
      /pixels.*choose a smaller --scale or --size \[USAGE\]/]
  ]
  for (const [args, message] of usage) {
    t.match(await parvis(['decode', ...args]), { code: 2, stderr: message }, args.join(' '))
  }
  t.match(await parvis(['decode', at('nowhere.npy')]), { code: 1, stderr: /FILE_NOT_FOUND/ })
  t.notOk(fs.existsSync(at('never.png')))
})
