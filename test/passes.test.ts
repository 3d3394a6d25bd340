// Passes in place of steps: whatever a pass holds, the tokens are those of the steps one after another, to the bit. The
// sequential picture of the same instance is the reference; it is itself checked against the authors' implementation in
// golden.test.ts.

import t from 'tap'
import { Par } from '../lib/api/par.js'
import type { GenerateOptions, LoadOptions } from '../lib/api/options.js'
import { Lookahead } from '../lib/decoding/lookahead.js'
import { neighbours } from '../lib/decoding/passes.js'
import { describeTransformer, openCheckpoint } from '../lib/checkpoint/index.js'
import { packRules } from '../lib/decoding/step.js'
import { addon, type NativePlan } from '../lib/machine/native.js'
import { createSchedule } from '../lib/decoding/schedule.js'
import { draws } from '../lib/decoding/sampling.js'
import { Random } from './fuzz/harness.js'
import { codeOf, device, parallelFile, rejection, smallPar, transformerFile } from './support/fixtures.js'

const tokensOf = async (par: Par, options: GenerateOptions): Promise<number[][]> =>
  [await par.generate(options)].flat().map(({ tokens }) => [...tokens])

const bytesOf = ({ data }: { data: ArrayLike<number> }): string => Buffer.from(Uint8Array.from(data)).toString('base64')

t.test('the embedded models', async t => {
  for (const precision of ['float32', 'bfloat16', 'int8'] as const) {
    const par = await Par.load('fashion', { device, precision })
    for (const n of [1, 4, 16]) {
      for (const draw of draws) {
        const request = { classId: [7, 2], n, seed: 3, topP: 0.95, draw }
        const sequential = [await par.generate({ ...request, passes: 'sequential' })].flat()
        t.same(sequential.map(({ passes }) => passes), sequential.map(({ steps }) => steps))
        for (const passes of n === 1 && precision === 'float32' ? [2, 3, 4, 8, 16, 32] : [5, 32]) {
          const images = await par.generate({ ...request, passes }) as typeof sequential
          t.same(images.map(bytesOf), sequential.map(bytesOf), `${precision}, n = ${n}, ${passes} steps`)
          const took = images.map(image => image.passes)
          t.ok(images.every(image => image.passes < image.steps), `${took} passes, ${draw}`)
        }
      }
    }
    await par.dispose()
  }
})

t.test('random requests', async t => {
  const models: Array<[LoadOptions, Array<Partial<GenerateOptions>>]> = [
    [{ transformer: transformerFile('par-4x') },
      [{}, { groupAttention: 'causal' }, { order: 'raster' }, { tokensPerStep: 2 }]],
    [{ transformer: transformerFile('par-16x-hd100') }, [{}, { initial: 'sequential' }]],
    [{ transformer: transformerFile('llamagen') }, [{}]],
    [{ transformer: parallelFile('arpg') }, [{ steps: 16 }, { steps: 64 }, { steps: 5, guidanceSchedule: 'constant' }]],
    [{ transformer: parallelFile('lpd') }, [{}]],
    [{ transformer: parallelFile('randar') }, [{}, { steps: 64 }]]
  ]
  const random = new Random(24)
  const count = 500
  let saved = 0
  let wrong = 0
  for (const [at, [load, variants]] of models.entries()) {
    const par = await Par.load({ ...load, device, precision: random.pick(['float32', 'bfloat16', 'int8']) })
    const { classes, grid } = par.info.transformer!
    const tokens = grid.reduce((product, side) => product * side)
    for (let i = at; i < count; i += models.length) {
      const known = random.chance(0.2) && { known: { mask: 'left', tokens: new Int32Array(tokens) } as const }
      const request: GenerateOptions = {
        classId: Array.from({ length: 1 + random.int(3) }, () => random.int(classes)),
        seed: random.int(1000), guidanceScale: random.pick([1, 1.5, 4]), temperature: random.pick([0, 0.3, 1, 1]),
        topK: random.pick([0, 0, 5]), topP: random.pick([1, 0.9, 0.5]), draw: random.pick(draws),
        ...random.pick(variants), ...known
      }
      const passes = 2 + random.int(31)
      // Another call beside it, in the same batch, at its own pace.
      const other = { classId: random.int(classes), seed: random.int(1000), passes: 1 + random.int(8) }
      const [images, beside] = await Promise.all([par.generate({ ...request, passes }), tokensOf(par, other)])
      const alone = await par.generate({ ...request, passes: 'sequential' })
      const same = (a: number[][], b: number[][]): boolean => JSON.stringify(a) === JSON.stringify(b)
      const list = (of: typeof images): number[][] => [of].flat().map(image => [...image.tokens])
      if (!same(list(images), list(alone)) ||
        !same(beside, await tokensOf(par, { ...other, passes: 'sequential' }))) {
        wrong++
        t.fail(`${JSON.stringify({ ...request, known: Boolean(known), passes })} of ${JSON.stringify(load)}`)
      }
      for (const image of [images].flat()) {
        if (image.passes > image.steps) t.fail(`${image.passes} passes for ${image.steps} steps`)
        saved += image.steps - image.passes
      }
    }
    await par.dispose()
  }
  t.equal(wrong, 0, `${count} requests`)
  t.ok(saved > count, `${saved} passes fewer than steps`)
})

t.test('progress goes by steps, previews by final tokens', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const request = { classId: [1, 2], seed: 5 }
  const of = async (passes: 'sequential' | number) => {
    const events = []
    for await (const event of par.stream({ ...request, passes })) {
      events.push({
        step: event.step, done: event.tokensDone, cells: [0, 1].map(i => [...event.cells(i)]),
        previews: await Promise.all([0, 1].map(async i => bytesOf(await event.preview(i))))
      })
    }
    return events
  }
  const sequential = await of('sequential')
  t.equal(sequential.length, 19)
  t.same(await of(16), sequential)
})

t.test('auto tries, keeps what wins and leaves what loses', async t => {
  // Passes of a machine that reads weights for 10 ms, whatever the rows, and multiplies for 0.25 ms a row.
  const ms = (rows: number): number => 10 + rows / 4
  const run = (right: (depth: number) => number, passes: number): { time: number, steps: number, last: number } => {
    const random = new Random(1)
    const lookahead = new Lookahead()
    let [time, steps, last] = [0, 0, 1]
    for (let i = 0; i < passes; i++) {
      const asked = last = lookahead.steps(2, 64)
      let advanced = 1
      while (advanced < asked && random.chance(right(advanced))) advanced++
      lookahead.add({ alone: 2, all: 2 * asked }, asked, [advanced], ms(2 * asked))
      time += ms(2 * asked)
      steps += advanced
    }
    return { time, steps, last }
  }
  const never = run(() => 0, 2000)
  t.ok(never.time <= 1.03 * never.steps * ms(2), `${(100 * never.time / never.steps / ms(2) - 100).toFixed(1)} % lost`)
  t.equal(never.last, 1)
  const often = run(() => 0.6, 3000)
  t.ok(often.steps * ms(2) / often.time > 1.6, `${(often.steps * ms(2) / often.time).toFixed(2)} times as fast`)
  t.ok(often.last >= 4, `${often.last} steps a pass`)
})

t.test('the first guess is a neighbour that comes before', async t => {
  for (const n of [1, 4, 16]) {
    const schedule = createSchedule({ grid: [8, 8], n })
    const guesses = neighbours(schedule, [1, 8, 8], 0)
    for (const [index, from] of guesses.entries()) {
      if (from < 0) continue
      const [[, row, column], [, otherRow, otherColumn]] = [schedule.cell(index), schedule.cell(from)]
      if (from >= index || Math.abs(row - otherRow) + Math.abs(column - otherColumn) !== 1) {
        t.fail(`n = ${n}: token ${index} is guessed from ${from}`)
      }
    }
    t.ok(guesses.filter(from => from < 0).length <= n, `n = ${n}: all but the first of each region have one`)
  }
})

t.test('options that are none', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  for (const passes of [0, 33, 1.5, 'all', null]) {
    t.equal(await codeOf(par.generate({ classId: 1, passes: passes as 'auto' })), 'INVALID_OPTION', String(passes))
  }
  t.equal(await codeOf(par.generate({ classId: 1, draw: 'best' as 'gumbel' })), 'INVALID_OPTION')
})

t.test('a session refuses what is no plan and no pass, and goes on', async t => {
  const { path: file, ...options } = transformerFile('par-4x')
  const { model, weights } = describeTransformer(await openCheckpoint(file), options)
  const engine = addon().createEngine({ device: 'cpu', threads: 1 })
  t.teardown(() => engine.dispose())
  const transformer = await engine.loadTransformer(file, weights, model, 'float32')
  const session = await transformer.createSession(
    { seats: 2, streamsEach: 1, slots: 64, tokens: 64, maxRows: 9, kept: 0 })
  const { steps } = createSchedule({ grid: [8, 8], n: 4 })
  const rule = packRules([{ mode: 'inverse', temperature: 1, topK: 0, topP: 1 }])
  const rows = Int32Array.from(steps.flatMap(step => [...step]))
  const ends = Int32Array.from(createSchedule({ grid: [8, 8], n: 4 }).tokensAfter) // a row draws a token
  const plan: NativePlan = { rows, ends, rule, guidanceScale: 1 }
  const change = (index: number, value: number): Int32Array => Object.assign(rows.slice(), { [index]: value })
  const refused = async (work: Promise<unknown>, message: RegExp): Promise<void> => {
    t.match(await rejection(work), { parvisCode: 'INVALID_OPTION', message })
  }
  await refused(session.plan(0, plan), /Nobody sits in seat 0/)
  await session.enter(0, { classId: 1, seed: 1n })
  await session.enter(1, { classId: 1, seed: 1n })
  await refused(session.pass(Int32Array.of(0, 1)), /Seat 0 has no plan/)
  for (const [bad, message] of [
    [{ ends: ends.slice(0, -1) }, /must end with its rows/], [{ ends: new Int32Array(0) }, /must end with its rows/],
    [{ ends: Int32Array.of(2, 2, 64) }, /Each step of a plan needs rows/],
    [{ shares: new Float32Array(3) }, /a share for each row/],
    [{ guesses: new Int32Array(3) }, /a guess for each token/],
    [{ guesses: new Int32Array(64).fill(64) }, /no token of the sequence/],
    [{ rows: change(0, 64) }, /outside the sequence/], [{ rows: change(6, 64) }, /outside the sequence/],
    [{ guidanceScale: NaN }, /not finite/], [{ guidanceScale: 2 }, /needs two streams/]
  ] as Array<[Partial<NativePlan>, RegExp]>) await refused(session.plan(0, { ...plan, ...bad }), message)
  await session.plan(0, plan)
  await session.plan(1, { ...plan, rows: change(7, 3) }) // its first row sees what nobody has written
  await refused(session.pass(Int32Array.of(0, 0)), /one step of a sequence, or more/)
  await refused(session.pass(Int32Array.of(0, 1, 0, 1)), /in a pass twice/)
  await refused(session.pass(Int32Array.of(2, 1)), /Seat 2 is outside/)
  await refused(session.pass(Int32Array.of(1, 1)), /sees 3 slots, of which 1 are written/)
  // As many rows as there is memory for: four of single tokens and one group of four.
  t.same([...await session.pass(Int32Array.of(0, 1000))][0], 8)
  let done = 0
  while (done < steps.length) done = (await session.pass(Int32Array.of(0, 3)))[1]!
  t.same([...await session.pass(Int32Array.of(0, 3))], [0, steps.length, 0], 'nothing is left')
  t.ok((await session.readTokens(0)).every(token => token >= 0))
  await session.dispose()
})
