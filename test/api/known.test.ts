// Completion: known cells stay, and the rest is what a pass over all tokens gives with the same draws.

import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Par, createSchedule, type ParOptions, type KnownMask, type Progress } from '../../lib/index.js'
import { rowStride } from '../../lib/machine/native.js'
import { parDecoder } from '../../lib/decoding/par.js'
import { readNpy } from '../../lib/pictures/npy.js'
import { classifier } from '../support/classifier.js'
import { drawReference, uniform } from '../support/draws.js'
import { device, rejection, smallPar } from '../support/fixtures.js'

const [rows, columns] = [16, 16]
const perClass = 10

/** Tokens of the first test pictures of each class (models/fashion/recipe/tokens.py), one class after another. */
async function testTokens (): Promise<Int32Array[]> {
  const name = path.join(__dirname, '../fixtures/fashion/tokens-2000.npy')
  const { data } = await readNpy(fs.readFileSync(name), name)
  return Array.from({ length: 10 * perClass }, (_, i) => {
    const at = Math.floor(i / perClass) * 200 + i % perClass // 200 of each class
    return data.slice(at * 256, (at + 1) * 256)
  })
}

const masks: Array<[name: string, mask: KnownMask, isKept: (row: number, column: number) => boolean]> = [
  ['left', 'left', (_, column) => column < 8],
  ['right', 'right', (_, column) => column >= 8],
  ['top', 'top', row => row < 8],
  ['bottom', 'bottom', row => row >= 8],
  ['outside a box', { outside: { row: 3, column: 5, rows: 6, columns: 8 } },
    (row, column) => row < 3 || row >= 9 || column < 5 || column >= 13],
  ['cells', Uint8Array.from({ length: 256 }, (_, cell) => Number(cell * 7919 % 5 < 2)),
    (row, column) => (row * 16 + column) * 7919 % 5 < 2],
  ['all but one', Array.from({ length: 256 }, (_, cell) => cell !== 37), (row, column) => row * 16 + column !== 37]
]

const methods: Array<[n: number, decoding: ParOptions]> = [
  [1, {}], [4, {}], [16, {}], [4, { initial: 'none' }], [4, { groupAttention: 'causal' }], [4, { order: 'raster' }],
  [16, { tokensPerStep: 4 }], [4, { tokensPerStep: 1 }]
]

t.test('the rest is what a full pass gives with the same draws', async t => {
  const par = await Par.load({ precision: 'float32', device })
  t.teardown(() => par.dispose())
  const tokens = await testTokens()
  const rule = { temperature: 0.9, topK: 60, topP: 0.95, guidanceScale: 1.5 }
  const seed = 11
  for (const [n, decoding] of methods) {
    const schedule = createSchedule({ grid: [rows, columns], n, ...decoding })
    for (const [name, mask, isKept] of masks) {
      const given = tokens[37]!
      const image = await par.generate({
        classId: 3, n, seed, ...rule, ...decoding, known: { tokens: given, mask }
      })
      const kept = Array.from({ length: 256 }, (_, cell) => isKept(Math.floor(cell / 16), cell % 16))
      t.ok(kept.every((is, cell) => !is || image.tokens[cell] === given[cell]), `${name}: what was known is unchanged`)
      // Logits of every drawn token in one pass over the finished picture, and the definition of a draw.
      const drawn = [...schedule.cells.keys()].filter(q => !kept[schedule.cells[q]!])
      const [score] = await par.score({
        tokens: image.tokens, classId: 3, n, guidanceScale: 1.5, logits: drawn, ...decoding
      })
      const sequence = schedule.toSequence(image.tokens)
      const wrong = drawn.filter((q, i) => {
        const logits = score!.logits!.subarray(i * 128, (i + 1) * 128)
        const { token, margin } = drawReference(logits, rule, uniform(BigInt(seed), q))
        return token !== sequence[q] && margin > 1e-4
      })
      t.same(wrong, [], `n = ${n} ${JSON.stringify(decoding)}, ${name}: ${drawn.length} draws`)
      t.ok(image.steps <= schedule.steps.length, `${image.steps} of ${schedule.steps.length} steps`)
    }
  }
})

t.test('a picture completes itself: same seed, same picture', async t => {
  const par = await Par.load({ device })
  t.teardown(() => par.dispose())
  for (const n of [1, 4, 16]) {
    const made = await par.generate({ classId: [2, 7, 7], n, seed: 5 })
    const again = await par.generate({
      classId: [2, 7, 7], n, seed: 5, known: { tokens: made.map(image => image.tokens), mask: 'left' }
    })
    t.same(again.map(image => image.tokens), made.map(image => image.tokens), `n = ${n}`)
    t.same(again.map(image => image.data), made.map(image => image.data))
    const nothing = await par.generate({
      classId: 2, n, seed: 5, known: { tokens: made[1]!.tokens, mask: new Uint8Array(256) }
    })
    t.same(nothing.tokens, made[0]!.tokens, 'nothing is known: the whole picture is drawn')
    t.equal(nothing.steps, made[0]!.steps)
  }
})

t.test('known rows enter the cache many at a time', t => {
  for (const [n, decoding] of methods) {
    const plan = parDecoder({ grid: [rows, columns], n, transitions: n - 1, file: '' }).plan(decoding)
    const { schedule } = plan
    for (const [name, , isKept] of masks) {
      const keep = Uint8Array.from({ length: 256 }, (_, cell) => Number(isKept(Math.floor(cell / 16), cell % 16)))
      const { picture, tokensAfter, maxRows } = plan.completing(keep)
      const steps = picture(0).steps.map(step => step.rows)
      const slots = steps.flatMap(step => [...step].filter((_, i) => i % rowStride === 6))
      t.same(slots, Array.from(slots.keys()), `n = ${n}, ${name}: every slot up to the last one, once, in order`)
      const predicted = steps.map(step => [...step].filter((token, i) => i % rowStride === 0 && token >= 0))
      t.same(predicted.flat().map(token => schedule.cells[token]!).sort((a, b) => a - b),
        Array.from(keep.keys()).filter(cell => keep[cell] === 0), 'what is not known is predicted once')
      // A token that is drawn is read in a later step only.
      const before = new Set(Array.from(keep.keys()).filter(cell => keep[cell] === 1)
        .map(cell => schedule.sequence[cell]!))
      const early = steps.flatMap((step, k) => {
        const read = [...step].filter((input, i) => i % rowStride === 1 && input >= 0 && !before.has(input))
        predicted[k]!.forEach(token => before.add(token))
        return read
      })
      t.same(early, [], 'nothing is read before it is known')
      t.equal(tokensAfter.at(-1), 256)
      t.ok(maxRows <= 128, `${maxRows} rows`)
      const empty = predicted.slice(0, -1).filter((tokens, k) =>
        tokens.length === 0 && steps[k]!.length < 100 * rowStride)
      t.same(empty, [], 'a step without a draw is full')
    }
  }
  t.end()
})

t.test('pictures completed from their left half are recognised', async t => {
  const par = await Par.load({ device })
  t.teardown(() => par.dispose())
  const judge = classifier()
  const tokens = await testTokens()
  const classId = tokens.map((_, i) => Math.floor(i / perClass))
  for (const n of [1, 4, 16]) {
    const images = await par.generate({ classId, n, seed: 1, known: { tokens, mask: 'left' } })
    const changed = images.filter((image, i) =>
      image.tokens.some((token, cell) => cell % 16 < 8 && token !== tokens[i]![cell]))
    t.equal(changed.length, 0)
    const share = images.filter(image => judge(image.data) === image.classId).length / images.length
    t.ok(share >= 0.85, `n = ${n}: ${Math.round(share * 100)}% of ${images.length} are recognised as their class`)
  }
})

t.test('pictures as input, progress and previews', async t => {
  const par = await Par.load({ device })
  t.teardown(() => par.dispose())
  const picture = await par.generate({ classId: 'bag', seed: 1 })
  const tokens = await par.encode(await picture.toBuffer())
  const events: Progress[] = []
  const [image, other] = await par.generate({
    classId: ['bag', 'bag'], seed: 2, known: { image: [await picture.toBuffer(), picture], mask: 'top' },
    onProgress: event => { events.push(event) }
  })
  for (const made of [image!, other!]) {
    t.same(made.tokens.subarray(0, 128), tokens.subarray(0, 128), 'the upper half is what the tokenizer makes of it')
  }
  t.notSame(image!.tokens, other!.tokens, 'and the rest is drawn')
  t.equal(events.length, image!.steps)
  t.ok(events[0]!.tokensDone >= 256, 'known tokens are done from the start')
  t.equal(events.at(-1)!.tokensDone, 512)
  let previews = 0
  for await (const event of par.stream({ classId: 'bag', seed: 2, known: { tokens, mask: 'bottom' } })) {
    if (previews++ !== 3) continue
    const preview = await event.preview()
    const whole = await par.decode(tokens)
    const below = (pixels: ArrayLike<number>): number[] => Array.from(pixels).slice(32 * 24 * 3)
    t.ok(below(preview.data).every((value, i) => Math.abs(value - below(whole.data)[i]!) < 40),
      'a preview shows what is known')
  }
  t.ok(previews > 3)
})

t.test('another model: without a tokenizer, and other grids', async t => {
  const par = await smallPar({ device })
  t.teardown(() => par.dispose())
  const { grid: [height, width], vocabularySize } = par.info.transformer!
  const tokens = Array.from({ length: height * width }, (_, i) => i % vocabularySize)
  const made = await par.generate({ classId: 1, seed: 1, known: { tokens, mask: 'right' } })
  t.ok(made.tokens.every((token, cell) => cell % width < width / 2 || token === tokens[cell]))
})

t.test('what is refused', async t => {
  const par = await smallPar({ device })
  t.teardown(() => par.dispose())
  const { grid: [height, width] } = par.info.transformer!
  const tokens = new Int32Array(height * width)
  const refuse = async (known: unknown, message: RegExp, classId: number | number[] = 1): Promise<void> => {
    t.match(await rejection(par.generate({ classId: classId as 1, known: known as never })),
      { code: 'INVALID_OPTION', message }, String(message))
  }
  await refuse('left', /known must be an object with tokens or image/)
  await refuse({ mask: 'left' }, /either tokens or image/)
  await refuse({ tokens, image: 'a.png', mask: 'left' }, /either tokens or image/)
  await refuse({ tokens }, /needs mask: 'left', 'right'/)
  await refuse({ tokens, mask: 'middle' }, /known.mask must be 'left' or 'right'/)
  await refuse({ tokens, mask: 3 }, /known.mask must be left, right/)
  await refuse({ tokens, mask: { outside: { row: 0, column: 0, rows: 0, columns: 1 } } },
    /outside.rows must be an integer/)
  await refuse({ tokens, mask: { inside: 1 } }, /no option 'inside'/)
  await refuse({ tokens, mask: { outside: { row: 0, column: 0, rows: 1 } } }, /outside.columns must be an integer/)
  await refuse({ tokens, mask: new Uint8Array(3) }, /known.mask has 3 cells; a picture of this model has 8 x 8/)
  await refuse({ tokens, mask: [] }, /known.mask has 0 cells/)
  await refuse({ tokens, mask: new Uint8Array(64).fill(2) }, /known.mask\[0\] must be true, false, 1 or 0, not 2/)
  await refuse({ tokens, mask: new Array(64) }, /known.mask\[0\] must be true/)
  await refuse({ tokens, mask: new Uint8Array(64).fill(1) }, /nothing is left to draw/)
  await refuse({ tokens, mask: 'left', rest: 1 }, /known has no option 'rest'/)
  await refuse({ tokens: [tokens, tokens], mask: 'left' }, /one for each: 3 are made, 2 are given/, [1, 1, 1])
  await refuse({ tokens: new Int32Array(5), mask: 'left' }, /must hold 64 tokens, found 5/)
  await refuse({ tokens: new Int32Array(64).fill(100000), mask: 'left' }, /is 100000; tokens are 0 to/)
  await refuse({ tokens: [1.5], mask: 'left' }, /must be a whole number/)
  await refuse({ image: 5, mask: 'left' }, /An image is/)
  const far = Int32Array.from(tokens, (_, cell) => cell % width < width / 2 ? 1 : -7)
  const made = await par.generate({ classId: 1, known: { tokens: far, mask: 'left' } })
  t.ok(made.tokens.every((token, cell) => cell % width >= width / 2 || token === 1),
    'tokens that are not kept are not read')
})
