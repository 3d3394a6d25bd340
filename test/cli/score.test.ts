// score: the figures are those of Par.score on the same tokens; classes in order; the heat map shows those figures.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par, type Score } from '../../lib/index.js'
import { colour } from '../../lib/cli/heatmap.js'
import { writeNpy } from '../../lib/pictures/npy.js'
import { golden } from '../support/golden.js'
import { worst } from '../support/tensors.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

interface Result {
  classId: number
  label: string
  classGiven: boolean
  grid: [number, number]
  scores: Array<{ n: number, logProb: number, bits: number, bitsPerToken: number, logProbs: number[] }>
  classes?: Array<{ classId: number, label: string, logProb: number, probability: number }>
}
async function score (...args: string[]): Promise<Result> {
  const { code, stdout, stderr } = await parvis(['score', '--json', ...args])
  if (code !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as Result
}

let par: Par
let tokens: Int32Array
t.before(async () => {
  par = await Par.load()
  const image = await par.generate({ classId: 'sneaker', seed: 5 }) // clearly a sneaker in every precision
  await image.toFile(at('sneaker.png'))
  tokens = await par.encode(at('sneaker.png'))
  fs.writeFileSync(at('sneaker.npy'), writeNpy({ data: tokens, shape: [16, 16] }))
})
t.teardown(() => par.dispose())

t.test('the figures of Par.score, several n side by side', async t => {
  const { scores, ...rest } = await score(at('sneaker.png'), '--class', 'sneaker', '-n', '1,4,16')
  t.match(rest, { classId: 7, label: 'Sneaker', classGiven: true, grid: [16, 16] })
  t.same(scores.map(({ n }) => n), [1, 4, 16])
  for (const { n, logProb, bits, bitsPerToken, logProbs } of scores) {
    const [own] = await par.score({ tokens, classId: 7, n }) as [Score]
    t.ok(worst(logProbs, own.logProbs) === 0, `n = ${n}`)
    t.equal(logProb, own.total)
    t.ok(Math.abs(bits + own.total / Math.log(2)) < 1e-9 && Math.abs(bitsPerToken - bits / 256) < 1e-12)
    t.ok(bitsPerToken > 0 && bitsPerToken < 7, 'less than a blind guess')
  }
  t.same((await score(at('sneaker.npy'), '--class', '7', '-n', '1,4,16')).scores, scores, 'a file of tokens')
  t.equal((await score(at('sneaker.npy'), '--class', '7')).scores[0]!.n, 4, 'n of the model')
  const guided = await score(at('sneaker.npy'), '--class', '7', '--guidance-scale', '2')
  t.equal(guided.scores[0]!.logProb, (await par.score({ tokens, classId: 7, guidanceScale: 2 }))[0]!.total)
})

t.test('classes by likelihood', async t => {
  const totals = (await par.score({
    tokens: Array<Int32Array>(10).fill(tokens), classId: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  })).map(({ total }) => total)
  const order = totals.map((_, k) => k).sort((a, b) => totals[b]! - totals[a]!)
  const all = await score(at('sneaker.png'), '--top', '10')
  t.same(all.classes!.map(({ classId }) => classId), order)
  t.same(all.classes!.map(({ logProb }) => logProb), order.map(k => totals[k]!))
  t.ok(Math.abs(all.classes!.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-9)
  t.equal(all.classId, order[0], 'the likeliest is taken where none is given')
  t.equal(all.classId, 7)
  t.equal(all.classGiven, false)
  const given = await score(at('sneaker.png'), '--class', 'bag', '--top', '2')
  t.equal(given.classId, 8)
  t.equal(given.classes!.length, 2)
  t.equal((await score(at('sneaker.png'))).classes, undefined)
})

t.test('text', async t => {
  const { code, stdout, stderr } = await parvis(['score', at('sneaker.png'), '-n', '1,16', '--top', '2', '--per-token'])
  t.equal(code, 0)
  t.equal(stderr, '')
  t.match(
    stdout,
    /sneaker\.png as Sneaker \(7\), the likeliest class: 16 x 16 tokens; a blind guess takes 7\.00 bits a token\n {2}n +bits +bits a token +log probability\n {2}1 .*\n {2}16 .*\nlikeliest classes at n = 1/
  )
  t.match(stdout, / {2}7 {2}Sneaker +[\d.]+ bits +[\d.]+%\n/)
  t.equal(stdout.split('\n').filter(line => /^( *\d+\.\d ?){16}$/.test(line)).length, 32,
    'a line a row of the grid, for each n')
})

t.test('the heat map', async t => {
  const out = at('heat.png')
  const { scores } = await score(at('sneaker.png'), '--class', '7', '-n', '1,4', '--heatmap', out)
  const { data, info } = await sharp(out).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  const rgb = (x: number, y: number): number[] =>
    Array.from(data.subarray((y * info.width + x) * 3, (y * info.width + x) * 3 + 3))
  const all = scores.flatMap(({ logProbs }) => logProbs.map(value => Math.fround(-value / Math.LN2)))
    .sort((a, b) => a - b)
  const top = Math.ceil(all[Math.floor(511 * 0.99)]!)
  scores.forEach(({ logProbs }, k) => {
    const wrong = logProbs.filter((value, token) => {
      const x = 24 + (k + 1) * (384 + 24) + token % 16 * 24 + 12
      const y = 24 + 28 + Math.floor(token / 16) * 24 + 12
      return worst(rgb(x, y), colour(-value / Math.LN2 / top)) > 1
    })
    t.equal(wrong.length, 0, `n = ${scores[k]!.n}: the colour of every token`)
  })
  const picture = await par.prepare(at('sneaker.png'))
  for (const pixel of [0, 500, 527, 1000]) {
    t.same(rgb(24 + pixel % 32 * 12 + 6, 52 + Math.floor(pixel / 32) * 12 + 6),
      Array.from(picture.data.subarray(pixel * 3, pixel * 3 + 3)), 'the picture')
  }
  t.equal((await parvis(['score', at('sneaker.npy'), '--class', '7', '--heatmap', at('tokens.png')])).code, 0,
    'of tokens: their decoded picture')
  t.match(await sharp(at('tokens.png')).metadata(), { format: 'png' })
})

t.test('a checkpoint given, without its tokenizer', async t => {
  const model = ['--transformer', golden('par-4x/model.pt'), '--heads', '2', '--grid', '8x8', '--precision', 'float32']
  const own = Int32Array.from({ length: 64 }, (_, k) => k * 11 % 256)
  fs.writeFileSync(at('two.json'), JSON.stringify([Array(64).fill(3), Array.from(own)]))
  const whole = await Par.load({
    transformer: { path: golden('par-4x/model.pt'), heads: 2, grid: 8 }, precision: 'float32'
  })
  const [expected] = await whole.score({ tokens: own, classId: 1 }) as [Score]
  await whole.dispose()
  const { scores } = await score(at('two.json'), '--picture', '2', '--class', '1', ...model)
  t.equal(scores[0]!.logProb, expected.total)
  t.match(await parvis(['score', at('two.json'), '--picture', '3', '--class', '1', ...model]),
    { code: 2, stderr: /2 pictures; there is no --picture 3/ })
  t.match(await parvis(['score', at('sneaker.png'), '--class', '1', ...model]), { code: 2, stderr: /give --tokenizer/ })
  t.match(await parvis(['score', at('two.json'), '--class', '1', '-n', '1', ...model]),
    { code: 1, stderr: /UNSUPPORTED_N/ })
})

t.test('what is refused', async t => {
  fs.writeFileSync(at('large.json'), JSON.stringify(Array(256).fill(128)))
  fs.writeFileSync(at('small.json'), JSON.stringify(Array(255).fill(1)))
  const cases: Array<[string[], number, RegExp]> = [
    [[at('sneaker.png'), '--class', 'sandwich'], 1, /BAD_CLASS_ID/],
    [[at('sneaker.png'), '--class', '1,2'], 2, /one class/],
    [[at('sneaker.png'), '-n', '9', '--class', '7'], 1, /UNSUPPORTED_N/],
    [[at('sneaker.png'), '-n', '1,x'], 2, /whole number/],
    [[at('sneaker.png'), '--size', '64'], 2, /32 x 32 pixels; leave out --size/],
    [[at('large.json'), '--class', '7'], 1, /tokens\[0\]\[0\] is 128.*BAD_TOKENS|tokens\[0\] is 128.*BAD_TOKENS/],
    [[at('small.json'), '--class', '7'], 1, /255 tokens, which are no pictures of 16 x 16.*BAD_TOKENS/],
    [[at('sneaker.png'), '--tokenizer', 'a.pt'], 2, /--transformer/],
    [[at('sneaker.png'), '--heatmap', '-'], 2, /standard output/],
    [[at('sneaker.png'), '--heatmap', at('no/h.png')], 2, /no folder/],
    [[at('none.png')], 1, /FILE_NOT_FOUND/]
  ]
  for (const [args, code, message] of cases) {
    t.match(await parvis(['score', ...args]), { code, stdout: '', stderr: message }, args.join(' '))
  }
})
