// ARPG, LPD and RandAR through the public API, beyond their golden fixtures: seeds and orders, what a step depends on,
// one full pass against many steps, previews, options that are refused.

import fs from 'node:fs'
import t from 'tap'
import { describeTransformer, openCheckpoint } from '../../lib/checkpoint/index.js'
import { decoderOf } from '../../lib/decoding/decoders.js'
import { nearestKnown } from '../../lib/decoding/preview.js'
import { Par, type GenerateOptions, type Score, type ScoreOptions } from '../../lib/index.js'
import {
  codeOf, device, parallelFile, parallelNames, rejection, tokenizerFile, type ParallelName
} from '../support/fixtures.js'
import { reference, type ReferenceRow } from '../support/reference.js'
import { identical, worst } from '../support/tensors.js'

const load = async (name: ParallelName, threads?: number): Promise<Par> => await Par.load({
  transformer: parallelFile(name), tokenizer: tokenizerFile(), device, precision: 'float32',
  ...(threads !== undefined && { threads })
})
const sizes = [1, 2, 3, 5, 8, 13, 32]
/** The same numbers of steps are not possible for all of them. */
const stepsOf = (name: ParallelName): Pick<GenerateOptions, 'steps' | 'groupSizes'> =>
  name === 'lpd' ? { groupSizes: sizes } : { steps: 9 }

for (const name of parallelNames) {
  t.test(`${name}: a picture completes itself`, async t => {
    const par = await load(name)
    t.teardown(() => par.dispose())
    // Known tokens enter as if they had been drawn one at a time, so that is how this picture is drawn.
    const known = 22
    const sampling = { classId: 5, seed: 9, guidanceScale: 3, topK: 50 }
    const how = name === 'randar' ? { steps: 64 } : { groupSizes: [...Array<number>(known).fill(1), 6, 15, 21] }
    const whole = await par.generate({ ...sampling, ...how })
    const mask = new Uint8Array(64)
    whole.tokenOrder.slice(0, known).forEach(cell => { mask[cell] = 1 })
    const tokenOrder = whole.tokenOrder
    const same = await par.generate({ ...sampling, ...how, tokenOrder, known: { tokens: whole.tokens, mask } })
    t.same(same.tokens, whole.tokens)
    t.equal(same.steps, whole.steps - known)
    if (name === 'randar') { // of the others the last groups saw each other
      const mask = Array.from({ length: 64 }, (_, cell) => cell !== tokenOrder[63])
      const last = await par.generate({ ...sampling, ...how, tokenOrder, known: { tokens: whole.tokens, mask } })
      t.same([last.tokens, last.steps], [whole.tokens, 1], 'all but the last one')
    }
    const none = await par.generate({ ...sampling, ...how, known: { tokens: whole.tokens, mask: Array(64).fill(0) } })
    t.same([none.tokens, none.steps], [whole.tokens, whole.steps], 'nothing is known')
  })

  t.test(`${name}: what is known stays, in every company`, async t => {
    const par = await load(name)
    t.teardown(() => par.dispose())
    const tokens = [3, 5].map(step => Int32Array.from({ length: 64 }, (_, cell) => cell * step % 32))
    const options = { known: { tokens, mask: 'top' as const }, guidanceScale: 2, ...stepsOf(name) }
    const pair = await par.generate({ classId: [1, 2], seed: 4, ...options })
    for (const [i, image] of pair.entries()) {
      t.same(image.tokens.slice(0, 32), tokens[i]!.slice(0, 32), `picture ${i}`)
      t.same([...image.tokenOrder.slice(0, 32)].sort((a, b) => a - b), Array.from({ length: 32 }, (_, cell) => cell),
        'known cells come first')
      const { known: { mask }, ...others } = options
      const alone = { classId: image.classId, seed: image.seed, ...others, known: { tokens: tokens[i]!, mask } }
      t.same((await par.generate(alone)).tokens, image.tokens, 'alone')
      t.same((await par.generate({ ...alone, tokenOrder: image.tokenOrder })).tokens, image.tokens, 'by its order')
      // The schedule is entered where 32 tokens are known. After its steps ARPG has ..., 30, 37, 45, 64 of them,
      // RandAR ..., 32, 43, 53, 64, and LPD with these sizes 32, 64.
      t.equal(image.steps, name === 'lpd' ? 1 : 3)
    }
    t.notSame(pair[0]!.tokens.slice(32), tokens[0]!.slice(32), 'the rest is drawn')
    const steps = par.stream({ classId: 1, seed: 4, ...options, known: { tokens: tokens[0]!, mask: 'top' } })
    const done: number[] = []
    for await (const { tokensDone, preview } of steps) {
      done.push(tokensDone)
      t.equal((await preview()).width, 32)
    }
    t.ok(done[0]! > 32 && done.at(-1) === 64, done.join())
  })

  t.test(`${name}: the same seed, the same picture`, async t => {
    const [par, other] = [await load(name, 1), await load(name, 2)]
    t.teardown(async () => { await Promise.all([par.dispose(), other.dispose()]) })
    const options = { seed: 77, guidanceScale: 3, topK: 50, ...stepsOf(name) }
    const list = await par.generate({ classId: [4, 2, 4], ...options })
    const threads = await other.generate({ classId: [4, 2, 4], ...options })
    for (const [i, image] of list.entries()) {
      const alone = await par.generate({ classId: image.classId, ...options, seed: image.seed })
      t.ok(identical(alone.data, image.data) && identical(alone.tokens, image.tokens), `picture ${i} alone`)
      t.ok(identical(threads[i]!.data, image.data), `picture ${i} by two threads`)
      const again = await par.generate({ classId: image.classId, ...options, seed: image.seed,
        tokenOrder: image.tokenOrder })
      t.ok(identical(again.data, image.data), `picture ${i} by its order`)
      t.same([...image.tokenOrder].sort((a, b) => a - b), Array.from({ length: 64 }, (_, cell) => cell))
    }
    t.notSame(list[0]!.tokenOrder, list[2]!.tokenOrder, 'another seed, another order')
    const orders = list.map(image => Array.from(image.tokenOrder))
    const given = await par.generate({ classId: [4, 2, 4], ...options, tokenOrder: orders })
    given.forEach((image, i) => t.ok(identical(image.data, list[i]!.data), `an order each, picture ${i}`))
    const one = await par.generate({ classId: [4, 2], ...options, tokenOrder: orders[1]! })
    t.same(one.map(image => Array.from(image.tokenOrder)), [orders[1], orders[1]], 'one order for all')
    t.ok(identical(one[1]!.tokens, list[1]!.tokens))
  })

  t.test(`${name}: steps against one full pass`, async t => {
    const file = parallelFile(name).path
    const described = describeTransformer(await openCheckpoint(file), { grid: 8 })
    const { model } = described
    const bytes = fs.readFileSync(file)
    const weights = new Map(described.weights.map(({ role, parts }) => {
      const all = parts.map(({ offset, shape, dtype, strides }) => {
        if (dtype !== 'float32' || strides) throw new Error(`${role} is not stored as plain float32`)
        return new Float32Array(Uint8Array.from(
          bytes.subarray(offset, offset + 4 * shape.reduce((a, b) => a * b))
        ).buffer)
      })
      return [role, { data: Float32Array.from(all.flatMap(part => [...part])) }]
    }))
    const plan = decoderOf(described, file).plan(stepsOf(name))
    const picture = plan.picture(3)
    const par = await load(name)
    t.teardown(() => par.dispose())
    const tokens = Int32Array.from({ length: 64 }, (_, cell) => cell * 37 % 256)
    const classId = 6
    const all = Array.from({ length: 64 }, (_, k) => k)
    const [score] = await par.score({ tokens, classId, logits: all, tokenOrder: picture.cells, ...stepsOf(name) })

    // Every row of every step once, and in the full pass to whom it attends. What a step writes again has the same
    // input, so the last row of a slot stands for what is seen of it; but a row of a query that is provisional sees the
    // ones beside it.
    const rows: ReferenceRow[] = []
    const asked: Array<[token: number, row: number]> = []
    const ofSlot = new Map<number, number>()
    const queries: Array<{ token: number, row: ReferenceRow }> = []
    for (const { rows: table } of picture.steps) {
      const own: Array<{ sees: number, row: ReferenceRow }> = []
      for (let at = 0; at < table.length; at += 8) {
        const [token, input, position, frame, line, column, slot, sees] = [...table.subarray(at, at + 8)]
        const row: ReferenceRow = { input: input!, position: position!, cell: [frame!, line!, column!], sees: [] }
        if (slot! < 0) {
          queries.push({ token: token!, row: { ...row, isQuery: true, sees: Array.from({ length: sees! },
            (_, s) => ofSlot.get(s)!) } })
          continue
        }
        ofSlot.set(slot!, rows.length)
        if (token! >= 0) asked.push([token!, rows.length])
        rows.push(row)
        own.push({ sees: sees!, row })
      }
      for (const { sees, row } of own) row.sees = Array.from({ length: sees }, (_, s) => ofSlot.get(s)!)
    }
    for (const { token, row } of queries) asked.push([token, rows.push(row) - 1])
    const logits = reference(model, weights, classId, picture.toSequence(tokens), rows)
    t.equal(asked.length, 64)
    const error = asked.reduce((max, [token, row]) =>
      Math.max(max, worst(score!.logits!.subarray(token * 256, token * 256 + 256), Float32Array.from(logits[row]!))), 0)
    t.ok(error < 1e-3, `logits ${error.toExponential(1)} apart`)
    for (const [token, row] of asked) {
      const top = Math.max(...logits[row]!)
      const sum = logits[row]!.reduce((total, logit) => total + Math.exp(logit - top), 0)
      const cell = picture.cells[token]!
      const logProb = logits[row]![tokens[cell]!]! - top - Math.log(sum)
      if (Math.abs(logProb - score!.logProbs[cell]!) > 1e-3) t.fail(`log-probability of cell ${cell}`)
    }
    const [cached] = await par.score({ tokens, classId, method: 'cached', tokenOrder: picture.cells, ...stepsOf(name) })
    t.ok(identical(cached!.logProbs, score!.logProbs), 'both ways of scoring run the steps')
  })

  t.test(`${name}: previews, lists one by one, aborting`, async t => {
    const par = await load(name)
    t.teardown(() => par.dispose())
    const options = { classId: [1, 5], seed: 9, ...stepsOf(name) }
    const whole = await par.generate(options)
    let steps = 0
    for await (const event of par.stream(options)) {
      steps++
      t.equal(event.tokens, 128)
      const preview = await event.preview(1)
      t.same([preview.width, preview.height], [32, 32])
      if (event.images) {
        t.ok(identical(preview.data, whole[1]!.data), 'the last preview is the picture')
        t.ok(identical(event.images[0]!.data, whole[0]!.data))
      }
    }
    t.equal(steps, whole[0]!.steps)
    const one: Uint8Array[] = []
    for await (const image of par.images(options)) one.push(image.data)
    t.ok(one.every((data, i) => identical(data, whole[i]!.data)), 'images()')
    const controller = new AbortController()
    const reason = new Error('enough')
    const aborted = rejection(par.generate({
      ...options, signal: controller.signal, onProgress: ({ step }) => { if (step === 2) controller.abort(reason) }
    }))
    t.equal(await aborted, reason)
    const after = await par.generate(options)
    t.ok(identical(after[0]!.data, whole[0]!.data), 'the instance stays usable')
    const [best] = await par.classify(whole[0]!.tokens, { top: 1, ...stepsOf(name) })
    t.ok(best!.classId >= 0 && best!.probability > 0)
  })
}

t.test('what the logits of a query depend on', async t => {
  const order = Array.from({ length: 64 }, (_, cell) => cell * 11 % 64)
  const tokens = Int32Array.from({ length: 64 }, (_, cell) => cell * 29 % 256)
  const of = async (name: ParallelName, groupSizes: number[]): Promise<Score> => {
    const par = await load(name)
    const options: ScoreOptions = { tokens, classId: 2, logits: [7, 8], tokenOrder: order, groupSizes }
    const [score] = await par.score(options)
    await par.dispose()
    return score!
  }
  const [few, many] = [[7, 2, 55], [7, 57]]
  const [arpgFew, arpgMany] = [await of('arpg', few), await of('arpg', many)]
  t.ok(worst(arpgFew.logits!, arpgMany.logits!) < 1e-5, 'ARPG: queries that join or leave a step change nothing')
  const [lpdFew, lpdMany] = [await of('lpd', few), await of('lpd', many)]
  t.ok(worst(lpdFew.logits!, lpdMany.logits!) > 1e-2, 'LPD: they see each other')
})

t.test('a preview takes the nearest known cell', t => {
  const [rows, columns] = [5, 7]
  const raster = new Int32Array(35).fill(-1)
  const known = [3, 16, 30, 34]
  for (const cell of known) raster[cell] = 100 + cell
  const filled = nearestKnown({ frames: 1, rows, columns }, raster)!
  const distance = (a: number, b: number): number =>
    Math.abs(Math.floor(a / columns) - Math.floor(b / columns)) + Math.abs(a % columns - b % columns)
  filled.forEach((token, cell) => {
    const least = Math.min(...known.map(other => distance(cell, other)))
    t.equal(distance(cell, token - 100), least, `cell ${cell}`)
  })
  t.equal(nearestKnown({ frames: 1, rows, columns }, new Int32Array(35).fill(-1)), undefined)
  t.end()
})

t.test('options', async t => {
  const cases: Array<[ParallelName, object, RegExp]> = [
    ['arpg', { order: 'raster' }, /order is an option of PAR, LlamaGen\. .*ARPG, which takes steps, groupSizes, /],
    ['lpd', { initial: 'none' }, /initial is an option of PAR/],
    ['randar', { tokensPerStep: 4 }, /which takes steps, tokenOrder, guidanceSchedule/],
    ['lpd', { stepSchedule: 'cosine' }, /stepSchedule is an option of ARPG/],
    ['randar', { groupSizes: [1, 63] }, /groupSizes is an option of ARPG, LPD/],
    ['arpg', { n: 4 }, /n is an option of PAR/],
    ['arpg', { steps: 65 }, /steps must be from 1 to 64/],
    ['randar', { steps: 1 }, /steps must be from 2 to 64/],
    ['randar', { steps: 65 }, /steps must be from 2 to 64/],
    ['lpd', { steps: 20 }, /no group sizes for 20 steps on 8 x 8 tokens: steps can be 64\. For others give groupSizes/],
    ['arpg', { groupSizes: [1, 62] }, /add up to 63.*64 tokens/],
    ['arpg', { groupSizes: [] }, /groupSizes must be a list/],
    ['arpg', { groupSizes: [0, 64] }, /groupSizes\[0\]/],
    ['arpg', { groupSizes: [1, 63], steps: 2 }, /give one of them/],
    ['arpg', { groupSizes: [1, 63], stepSchedule: 'cosine' }, /give one of them/],
    ['arpg', { stepSchedule: 'linear' }, /stepSchedule/],
    ['arpg', { guidanceSchedule: 'cosine' }, /guidanceSchedule/],
    ['arpg', { steps: 2.5 }, /steps/],
    ['lpd', { tokenOrder: [0, 1, 2] }, /each of the cells 0 to 63 once; it has 3 entries/],
    ['lpd', { tokenOrder: new Int32Array(64) }, /each of the cells 0 to 63 once/],
    ['lpd', { tokenOrder: Array.from({ length: 64 }, (_, i) => i - 1) }, /tokenOrder/],
    ['lpd', { tokenOrder: [[0], [1]] }, /1 pictures, 2 lists|one list for all pictures or one each/],
    ['lpd', { tokenOrder: 'raster' }, /tokenOrder/]
  ]
  const pars = Object.fromEntries(await Promise.all(parallelNames.map(async name => [name, await load(name)]))) as
    Record<ParallelName, Par>
  for (const [name, options, message] of cases) {
    t.match(await rejection(pars[name].generate({ classId: 1, ...options })), { code: 'INVALID_OPTION', message },
      `${name}, ${JSON.stringify(options).slice(0, 60)}`)
  }
  t.equal(await codeOf(pars.lpd.score({ tokens: new Int32Array(64), classId: 1, order: 'raster' })), 'INVALID_OPTION')
  t.match(pars.arpg.info.transformer,
    { method: 'arpg', defaultSteps: 32, layers: 4, n: 1, sampling: { guidanceScale: 1 } })
  t.match(pars.lpd.info.transformer, { method: 'lpd', defaultSteps: 64, gridFrom: 'shapes' })
  t.match(pars.randar.info.transformer, { method: 'randar', defaultSteps: 64 })
  // Guidance that does not grow, and another schedule, make other pictures.
  const [linear, constant, cosine] = [{}, { guidanceSchedule: 'constant' }, { stepSchedule: 'cosine' }] as const
  const made = await Promise.all([linear, constant, cosine].map(async options =>
    await pars.arpg.generate({ classId: 3, seed: 1, guidanceScale: 6, steps: 9, ...options })))
  t.notSame(made[1]!.tokens, made[0]!.tokens)
  t.notSame(made[2]!.tokens, made[0]!.tokens)
  await Promise.all(parallelNames.map(async name => await pars[name].dispose()))
})
