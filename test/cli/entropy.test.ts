// entropy: the figures on encoded pictures of clothes, the maps pixel by pixel, the same from models, and what is
// refused. What the figures are, test/evaluation/entropy.test.ts compares with sources that are known.

import t, { type Test } from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par, type Score } from '../../lib/index.js'
import { blue, drawMaps, grey, scaleOf } from '../../lib/cli/entropy-maps.js'
import { colour } from '../../lib/cli/heatmap.js'
import { writeNpy } from '../../lib/pictures/npy.js'
import { built } from '../support/built.js'
import { parvis, root, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (...names: string[]): string => path.join(folder, ...names)
const clothes = path.join(root, 'test', 'fixtures', 'fashion', 'tokens-2000.npy')
const model = (name: string): string => path.join(root, 'models', 'fashion', name)

interface Estimate { mean: number, interval: [number, number] }
interface Result {
  pictures: number
  grid: [number, number]
  codes: { used: number, codebookSize?: number }
  notes: string[]
  files?: string[]
  conditional: {
    groups: number
    picturesNeeded: number
    own: number[]
    lower: number
    references: Array<{
      cell: [number, number]
      neighbours: { entropy: number, share: number }
      far: { entropy: number, share: number }
      shareDifference: Estimate
      alike: { neighbours: number, far: number, difference: Estimate } | null
      entropy: number[]
      share: Array<number | null>
    }>
  }
  rise?: {
    n: number
    groups: number
    orders: Array<Estimate & { order: string, tokens: number, cells: Array<number | null> }>
    difference: Estimate
  }
  models?: {
    pictures: number
    pairs: Array<Estimate & {
      order: string, parallel: { bits: number }, sequential: { bits: number }, cells: Array<number | null>
    }>
    difference?: Estimate
  }
}

async function entropy (...args: string[]): Promise<Result> {
  const { code, stdout, stderr } = await parvis(['entropy', '--json', ...args])
  if (code !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as Result
}

/** The first `count` pictures of the fixture, or every one of some step. */
const [header, cells] = [128, 256]
const bytes = fs.readFileSync(clothes).subarray(header)
const picture = (k: number): Int32Array => Int32Array.from(bytes.subarray(k * cells, (k + 1) * cells))

/** Leaves out what a test does not look at. */
const few = ['-n', '1', '--reference', '8,8', '--bootstrap', '20']

/** Command lines that end with a code and a message, some at a time. */
async function refused (t: Test, cases: ReadonlyArray<[args: string[], code: number, message: RegExp]>): Promise<void> {
  for (let from = 0; from < cases.length; from += 4) {
    await Promise.all(cases.slice(from, from + 4).map(async ([args, code, message]) => {
      t.match(await parvis(['entropy', ...args, '--quiet']), { code, stdout: '', stderr: message },
        args.map(arg => path.basename(arg)).join(' '))
    }))
  }
}

t.before(built)

t.test('pictures of clothes: neighbours depend, and distant tokens may be drawn at once', async t => {
  const found = await entropy(clothes, '--out', at('maps/deep'))
  t.match(found, { pictures: 2000, grid: [16, 16], codes: { used: 128 }, conditional: { groups: 31, lower: 4 } })
  t.equal(found.conditional.picturesNeeded, 32768)
  t.match(found.notes.join('\n'), /128 codes in use are 31 groups.*need 32768 pictures.*there are 2000/)
  t.match(found.notes.join('\n'), /the rise: .* 7 groups .*8\.4e6 pictures/)
  t.same(found.conditional.references.map(({ cell }) => cell), [[4, 4], [4, 11], [11, 4], [11, 11]])
  for (const { cell, neighbours, far, shareDifference, alike } of found.conditional.references) {
    t.ok(neighbours.share < far.share && shareDifference.interval[1] < 0, `${cell.join()}: neighbours lower`)
    t.ok(alike!.neighbours < alike!.far && alike!.difference.interval[1] < 0, 'than far cells of like entropy')
  }
  const [distant, raster] = found.rise!.orders
  t.match([distant, raster], [{ order: 'distant', tokens: 252 }, { order: 'raster', tokens: 252 }])
  t.ok(distant!.mean < raster!.mean && found.rise!.difference.interval[0] > 0.05, 'distant raises entropy less')
  t.ok(Math.abs(raster!.mean - distant!.mean - found.rise!.difference.mean) < 1e-5)
  const mean = (list: Array<number | null>): number => list.reduce<number>((sum, value) => sum + (value ?? 0), 0) / 252
  for (const { cells, mean: said } of found.rise!.orders) {
    t.equal(cells.filter(value => value === null).length, 4, 'four are drawn one by one')
    t.ok(Math.abs(mean(cells) - said) < 1e-5)
  }

  // ---- the files
  t.same(found.files!.map(file => path.relative(folder, file)),
    ['conditional-entropy.png', 'rise.png', 'entropy.json'].map(name => path.join('maps', 'deep', name)))
  const { files, ...rest } = found
  t.same(JSON.parse(fs.readFileSync(files![2]!, 'utf8')), rest, 'the figures once more')
  const map = await sharp(files![0]).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  const rgb = (x: number, y: number): number[] =>
    Array.from(map.data.subarray((y * map.info.width + x) * 3, (y * map.info.width + x) * 3 + 3))
  // The first map begins below its section's title and its own; a token is 13 pixels; the scale is 0 to 8 bits or less.
  const { entropy: bits, cell: [row, column] } = found.conditional.references[0]!
  const centre = (k: number): number[] => rgb(24 + k % 16 * 13 + 6, 24 + 52 + Math.floor(k / 16) * 13 + 6)
  t.same(centre(row * 16 + column), [...blue], 'the reference is blue')
  const others = [found.conditional.own, ...found.conditional.references.map(one =>
    one.entropy.filter((_, k) => k !== one.cell[0] * 16 + one.cell[1]))].map(list => Float64Array.from(list))
  const [low, high] = scaleOf(others)
  const wrong = bits.filter((value, k) => k !== row * 16 + column &&
    centre(k).some((channel, c) => Math.abs(channel - colour((value - low) / (high - low))[c]!) > 1))
  t.equal(wrong.length, 0, 'every other cell has the colour of its bits')
  t.equal((await sharp(files![1]).metadata()).format, 'png')

  t.same(await entropy(clothes), rest, 'the same seed, the same figures')
  const other = await entropy(clothes, '--seed', '2', '--bootstrap', '100')
  t.not(other.rise!.difference.interval[0], found.rise!.difference.interval[0])
  t.ok(Math.abs(other.rise!.difference.mean - found.rise!.difference.mean) < 0.01, 'another seed: nearly the same')
})

t.test('text', async t => {
  const { code, stdout, stderr } = await parvis(['entropy', clothes, '--reference', '8,8', '--limit', '500',
    '--groups', '12', '-n', '16', '--past', '2', '--bootstrap', '50'])
  t.equal(code, 0)
  t.match(stderr, /500 pictures are few for 12 groups/)
  t.match(stdout, /^500 pictures of 16 x 16 tokens, 128 codes in use; all figures in bits\n/)
  t.match(stdout, /\n {2}8,8 +\d\.\d\d +\d\.\d\d +\d\.\d\d +\d\d\.\d% +\d\d\.\d% +yes\n/)
  t.match(stdout, /when 16 are predicted at once \(12 codes or groups, 2 earlier tokens given\)/)
  t.match(stdout, /\n {2}distant .*\n {2}raster .*\nraster - distant: -?0\.\d{4} \(-?0\.\d{4} to -?0\.\d{4}\)\n$/)
  t.match((await parvis(['entropy', clothes, '--limit', '40', '--quiet'])).stderr, /^$/)
})

t.test('inputs: arrays, JSON, folders, pictures', async t => {
  const some = Array.from({ length: 48 }, (_, k) => picture(k * 41))
  const data = Int32Array.from(some.flatMap(tokens => [...tokens]))
  fs.writeFileSync(at('flat.npy'), writeNpy({ data, shape: [48, 256] }))
  fs.writeFileSync(at('deep.npy'), writeNpy({ data, shape: [48, 16, 16] }))
  fs.writeFileSync(at('list.json'), JSON.stringify(some.map(tokens => [...tokens])))
  fs.writeFileSync(at('encoded.json'),
    JSON.stringify({ pictures: some.map(tokens => ({ grid: [16, 16], tokens: [...tokens] })) }))
  fs.mkdirSync(at('tokens'))
  fs.writeFileSync(at('tokens', 'a.npy'), writeNpy({ data: data.subarray(0, 20 * 256), shape: [20, 256] }))
  fs.writeFileSync(at('tokens', 'b.npy'), writeNpy({ data: data.subarray(20 * 256), shape: [28, 16, 16] }))
  const expected = await entropy(at('flat.npy'), ...few)
  for (const input of ['deep.npy', 'list.json', 'encoded.json', 'tokens']) {
    t.same(await entropy(at(input), ...few), expected, input)
  }
  t.same(await entropy(at('tokens', 'a.npy'), at('tokens', 'b.npy'), ...few), expected, 'two files')
  const { stdout } = await parvis(['entropy', '--json', '-', ...few], { input: fs.readFileSync(at('flat.npy')) })
  t.same(JSON.parse(stdout), expected, 'standard input')
  const wide = Buffer.concat([Buffer.from(fs.readFileSync(at('flat.npy')).subarray(0, 128).toString('latin1')
    .replace('<i4', '>u8'), 'latin1'), Buffer.alloc(data.length * 8)])
  data.forEach((token, k) => wide.writeBigUInt64BE(BigInt(token), 128 + k * 8))
  fs.writeFileSync(at('wide.npy'), wide)
  t.same(await entropy(at('wide.npy'), ...few), expected, 'numbers of 8 bytes')
  const lines = await entropy(at('flat.npy'), '--grid', '8x32', '-n', '1')
  t.same(lines.grid, [8, 32])

  const par = await Par.load()
  t.teardown(() => par.dispose())
  fs.mkdirSync(at('pictures', 'more'), { recursive: true })
  const encoded: number[] = []
  for (let k = 0; k < 34; k++) {
    const file = at('pictures', k < 4 ? '' : 'more', `${String(k).padStart(2, '0')}.png`)
    await (await par.decode(some[k]!)).toFile(file)
    encoded.push(...await par.encode(file))
  }
  fs.writeFileSync(at('pictures', 'read.me'), 'no picture')
  fs.writeFileSync(at('encoded.npy'), writeNpy({ data: Int32Array.from(encoded), shape: [34, 256] }))
  const { codes, ...figures } = await entropy(at('pictures'), '--groups', '2', ...few)
  const { codes: plain, ...same } = await entropy(at('encoded.npy'), '--groups', '2', ...few)
  t.same(figures, same, 'a folder of pictures: its folders, too')
  t.same(codes, { ...plain, codebookSize: 128 })
  t.equal((await entropy(at('pictures'), at('flat.npy'), '--limit', '32', ...few)).pictures, 32, 'both kinds')
})

t.test('the same from models', async t => {
  fs.writeFileSync(at('classes.json'), JSON.stringify(Array.from({ length: 2000 }, (_, k) =>
    k < 200 ? 'T-shirt/top' : Math.floor(k / 200))))
  fs.writeFileSync(at('classes.npy'), writeNpy({
    data: Int32Array.from({ length: 2000 }, (_, k) => Math.floor(k / 200)), shape: [2000]
  }))
  const pair = ['--parallel', model('par-4.safetensors'), '--sequential', model('par-4.safetensors'),
    '--sequential-decoding', '{"tokensPerStep":1}']
  const cheap = ['--limit', '100', '--scored', '5', '--precision', 'float32', ...few]
  const found = await entropy(clothes, ...pair, '--labels', at('classes.json'), '--out', at('models'), ...cheap)
  t.equal(found.models!.pictures, 5)
  t.ok(fs.existsSync(at('models', 'rise-models.png')))
  t.match(found.notes.join('\n'), /par-4\.safetensors needs .* a blind guess 7\.00: it was not trained/)

  const par = await Par.load({ precision: 'float32' })
  t.teardown(() => par.dispose())
  const numbers = [0, 400, 800, 1200, 1600] // 5 of 100 of 2000, evenly spaced
  const tokens = numbers.map(picture)
  const classId = numbers.map(k => Math.floor(k / 200))
  const [parallel, sequential] = [
    await par.score({ tokens, classId, n: 4 }), await par.score({ tokens, classId, n: 4, tokensPerStep: 1 })
  ]
  const stage1 = [0, 8, 128, 136]
  const truth = Array.from({ length: 256 }, (_, cell) => stage1.includes(cell)
    ? null
    : sequential.reduce((sum, { logProbs }, k) =>
      sum + (logProbs[cell]! - parallel[k]!.logProbs[cell]!) / Math.LN2 / 5, 0))
  const [only] = found.models!.pairs
  t.equal(only!.order, 'distant')
  t.ok(only!.cells.every((value, cell) => value === null
    ? truth[cell] === null
    : Math.abs(value - truth[cell]!) < 1e-4), 'differences of what Par.score says, cell by cell')
  const bits = (scores: Score[]): number => -scores.reduce((sum, { total }) => sum + total, 0) / 5 / 256 / Math.LN2
  t.ok(Math.abs(only!.parallel.bits - bits(parallel)) < 1e-4)
  t.ok(Math.abs(only!.sequential.bits - bits(sequential)) < 1e-4)
  t.same((await entropy(clothes, ...pair, '--labels', at('classes.npy'), ...cheap)).models, found.models)

  // ---- options that stand in the file
  const rewritten = (name: string, decoding: string): string => {
    const file = fs.readFileSync(model('par-4.safetensors'))
    const length = Number(file.readBigUInt64LE())
    const head = JSON.parse(file.toString('utf8', 8, 8 + length)) as { __metadata__: Record<string, string> }
    head.__metadata__.decoding = decoding
    const text = Buffer.from(JSON.stringify(head))
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(text.length))
    fs.writeFileSync(at(name), Buffer.concat([size, text, file.subarray(8 + length)]))
    return at(name)
  }
  const one = rewritten('one.safetensors', '{"tokensPerStep":1}')
  const own = await entropy(clothes, '--parallel', model('par-4.safetensors'), '--sequential', one,
    '--labels', at('classes.npy'), ...cheap)
  t.same(own.models!.pairs[0]!.cells, only!.cells)
  const lined = rewritten('raster.safetensors', '{"order":"raster"}')
  const both = await entropy(clothes, '--parallel', model('par-4.safetensors'), '--sequential', one,
    '--parallel', lined, '--sequential', model('par-1.safetensors'), '--labels', at('classes.npy'), ...cheap)
  t.same(both.models!.pairs.map(({ order }) => order), ['distant', 'raster'])
  t.ok(both.models!.difference!.interval[0] <= both.models!.difference!.interval[1])

  fs.writeFileSync(at('few.json'), '[1, 2]')
  fs.writeFileSync(at('words.json'), '{"labels": [1]}')
  fs.writeFileSync(at('wrong.json'), JSON.stringify(Array(2000).fill(10)))
  const labels = ['--labels', at('classes.npy')]
  const four = model('par-4.safetensors')
  const cases: Array<[string[], number, RegExp]> = [
    [['--parallel', four], 2, /1 --parallel and 0 --sequential.*Give one/],
    [['--parallel', four, '--sequential', one], 2, /give --labels/],
    [['--labels', at('classes.npy')], 2, /--labels is about the models/],
    [['--parallel', four, '--sequential', model('par-1.safetensors'), ...labels], 2, /do not predict in one order/],
    [['--parallel', one, '--sequential', one, ...labels], 2, /predicts one token a step; exchange it/],
    [['--parallel', four, '--sequential', four, ...labels], 2, /predicts 4 tokens a step; .*--sequential-decoding/],
    [[...pair, '--labels', at('few.json')], 1, /holds 2 classes, and there are 2000 pictures.*BAD_TOKENS/],
    [[...pair, '--labels', at('words.json')], 1, /no list of class numbers or names.*BAD_TOKENS/],
    [[...pair, '--labels', clothes], 1, /holds 512000 classes.*BAD_TOKENS/],
    [[...pair, '--labels', at('wrong.json')], 1, /BAD_CLASS_ID/],
    [[...pair, '--sequential-decoding', '{}', ...labels], 2, /more --sequential-decoding than/],
    [['--parallel', four, '--sequential', four, '--sequential-decoding', '{"tokens":1}', ...labels], 2,
      /no decoding option is called "tokens".*tokensPerStep/],
    [['--parallel', four, '--sequential', four, '--sequential-decoding', '{', ...labels], 2, /no JSON; give/],
    [['--parallel', rewritten('odd.safetensors', '[1]'), '--sequential', one, ...labels], 1,
      /odd\.safetensors: .*no object.*BAD_CHECKPOINT/],
    [['--parallel', rewritten('bad.safetensors', '{"order":7}'), '--sequential', one, ...labels], 2,
      /bad\.safetensors: order must be/],
    [['--parallel', clothes, '--sequential', one, ...labels], 1, /BAD_CHECKPOINT/],
    [['--parallel', at('none.pt'), '--sequential', one, ...labels], 1, /FILE_NOT_FOUND/]
  ]
  await refused(t, cases.map(([args, code, message]) =>
    [[clothes, ...args, '--limit', '40', ...few], code, message]))
})

t.test('what is refused', async t => {
  const array = (name: string, shape: number[], token = (k: number): number => k % 5): string => {
    const length = shape.reduce((a, b) => a * b, 1)
    fs.writeFileSync(at(name), writeNpy({ data: Int32Array.from({ length }, (_, k) => token(k)), shape }))
    return at(name)
  }
  fs.mkdirSync(at('empty'))
  fs.writeFileSync(at('floats.npy'), fs.readFileSync(array('x.npy', [64, 16])).toString('latin1').replace('<i4', '<f4'),
    'latin1')
  fs.writeFileSync(at('cut.npy'), fs.readFileSync(clothes).subarray(0, 5000))
  fs.writeFileSync(at('broken.json'), '[[1, 2')
  fs.writeFileSync(at('ragged.json'), '[[1, 2, 3, 4], [1, 2]]')
  fs.writeFileSync(at('minus.json'), '[[1, 2, 3, -4], [1, 2, 3, 4]]')
  fs.writeFileSync(at('false.png'), 'no picture')
  const good = array('good.npy', [64, 16])
  const cases: Array<[string[], number, RegExp]> = [
    [[], 2, /missing required argument/],
    [[at('nothing')], 1, /FILE_NOT_FOUND/],
    [[at('empty')], 2, /no pictures .* give another folder/],
    [[at('floats.npy')], 1, /whole numbers.*BAD_TOKENS/],
    [[at('cut.npy')], 1, /BAD_TOKENS/],
    [[at('broken.json')], 1, /BAD_TOKENS/],
    [[at('ragged.json')], 1, /different lengths.*BAD_TOKENS/],
    [[at('minus.json')], 1, /-4.*BAD_TOKENS/],
    [[at('false.png')], 1, /false\.png.*BAD_IMAGE/],
    [[array('huge.npy', [64, 16], k => k === 9 ? 2 ** 24 : 0)], 1, /16777216.*BAD_TOKENS/],
    [[array('square.npy', [16, 16])], 1, /one picture, or 16 pictures of 16.*--grid.*BAD_TOKENS/],
    [[array('odd.npy', [40, 15])], 1, /15 tokens, which make no square; give --grid.*BAD_TOKENS/],
    [[array('four.npy', [4, 4, 4, 4])], 1, /4 axes; give.*BAD_TOKENS/],
    [[good, '--grid', '3x3'], 1, /no pictures of 3 x 3.*BAD_TOKENS/],
    [[good, array('large.npy', [64, 36])], 1, /large\.npy: has 6 x 6 tokens, .* 4 x 4.*BAD_TOKENS/],
    [[array('few.npy', [31, 16])], 2, /31 pictures tell nothing .* at least 32/],
    [[array('one.npy', [64, 1])], 2, /-n 4/],
    [[good, '-n', '0'], 2, /at least 1/],
    [[good, '-n', '9'], 2, /-n 9: .*does not divide.*give another -n, or -n 1/],
    [[good, '-n', '5'], 2, /-n 5: n must be a square/],
    [[good, '-n', '16'], 2, /16 tokens, and all are drawn one by one; give a smaller/],
    [[good, '--reference', '4,0'], 2, /4 x 4 tokens, counted from 0/],
    [[good, '--reference', '1'], 2, /row and column/],
    [[good, '--past', '3'], 2, /from 1 to 2/],
    [[good, '--groups', '1'], 2, /groups.*at least 2/],
    [[good, '--groups', '257'], 2, /from 2 to 256/],
    [[good, '--bootstrap', '0'], 2, /bootstrap.*at least 20/],
    [[good, '--limit', '5'], 2, /at least 32/],
    [[good, '--seed', '-1'], 2, /seed/],
    [[good, '--out', '-'], 2, /--out is a folder/],
    [[good, '--out', ''], 2, /name of the output folder is empty/],
    [[good, '--out', clothes], 1, /FILE_NOT_FOUND/],
    [[good, '--out', '/proc/none'], 1, /FILE_NOT_FOUND/]
  ]
  await refused(t, cases)
  t.match(await parvis(['entropy', good, '--groups', '256', '--past', '2', '--quiet']), { code: 0 })
  const prime = await entropy(array('prime.npy', [64, 3, 7]), '-n', '1', '--out', at('prime'))
  t.same([prime.rise, prime.grid], [undefined, [3, 7]], 'a grid that no regions divide')
  t.same(fs.readdirSync(at('prime')).sort(), ['conditional-entropy.png', 'entropy.json'])
  const same = await parvis(['entropy', '--json', array('same.npy', [64, 16], () => 7)])
  t.equal(same.code, 0, 'pictures of one code')
  const { conditional, rise } = JSON.parse(same.stdout) as Result
  t.equal(conditional.lower, 0)
  t.ok(conditional.references.every(({ shareDifference, share }) =>
    shareDifference === null && share.every(value => value === null)))
  t.ok(rise!.orders.every(({ mean }) => Math.abs(mean) < 1e-9))
})

t.test('a signal ends it', async t => {
  const data = Int32Array.from({ length: 40_000 * 256 }, (_, k) => k * 7919 % 97)
  fs.writeFileSync(at('long.npy'), writeNpy({ data, shape: [40_000, 256] }))
  const { code, stdout, stderr } = await parvis(['entropy', at('long.npy'), '--out', at('never')], {
    started: child => { setTimeout(() => child.kill('SIGINT'), 2500) }
  })
  t.equal(code, 130)
  t.equal(stdout, '')
  t.match(stderr, /INTERRUPTED/)
  t.same(fs.readdirSync(at('never')), [], 'no file is left')
})

t.test('maps', async t => {
  const values = Float64Array.from({ length: 6 }, (_, k) => k)
  values[5] = NaN
  const map = drawMaps([2, 3], [
    { title: 'first', caption: 'bits', scale: { low: 0, high: 4 }, maps: [{ title: 'a', values, mark: 1 }] },
    {
      title: 'second',
      caption: 'percent',
      scale: { low: -2, high: 2, suffix: '%' },
      maps: Array.from({ length: 5 }, () => ({ title: 'a map with a long title', values }))
    }
  ])
  const rgb = (x: number, y: number): number[] =>
    Array.from(map.data.subarray((y * map.width + x) * 3, (y * map.width + x) * 3 + 3))
  t.equal(map.data.length, map.width * map.height * 3)
  t.equal(map.places.length, 6)
  map.places.forEach(({ x, y, width, height }, k) => {
    t.ok(x + width <= map.width && y + height <= map.height, `map ${k}`)
    const share = (value: number): number => k === 0 ? value / 4 : (value + 2) / 4
    const colours = Array.from(values, (value, cell): number[] =>
      k === 0 && cell === 1 ? [...blue] : Number.isNaN(value) ? [...grey] : colour(share(value)))
    const found = colours.map((_, cell) =>
      rgb(x + (cell % 3) * map.cell + 1, y + Math.floor(cell / 3) * map.cell + map.cell - 1))
    t.same(found, colours)
  })
  t.equal(map.places[5]!.x, map.places[1]!.x, 'a second row')
  t.ok(map.places[5]!.y > map.places[1]!.y + map.places[1]!.height)
  for (const { x, y, width, height } of map.bars) {
    t.same(rgb(x, y), [...colour(0)])
    t.same(rgb(x + width - 1, y + height - 1), [...colour(1)])
  }
  t.same(scaleOf([Float64Array.of(0, 3.9), Float64Array.of(NaN, 1)]), [0, 4])
  t.same(scaleOf([Float64Array.of(0.13, 0.71)], { from: 0 }), [0, 0.8])
  t.same(scaleOf([Float64Array.of(-0.01, 0.71)], { from: 0 }), [0, 0.8], 'a little below')
  t.same(scaleOf([Float64Array.of(-12, -4.1)], { from: 0 }), [-12, -4], 'far below')
  t.same(scaleOf([Float64Array.of(NaN)]), [0, 1])
  const [low, high] = scaleOf([Float64Array.of(2.4, 6.7)])
  t.ok(low <= 2.4 && high >= 6.7 && high - low <= 8)
})
