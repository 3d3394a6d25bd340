// Sequences that share steps, compared with the same sequences alone. A company is a session whose seats are taken and
// left at random times by sequences of one model: other schedules, classes, seeds, guidance and sampling rules, at
// other places. Prints { companies, sequences, steps, shared, different: [what] } as JSON.
//   node run.js DIST DEVICE FILE HEADS GRID COMPANIES SEED PRECISION [STEPS]
// STEPS: sequences run so many steps at most.
'use strict'

const path = require('node:path')

const [dist, device, file, heads, grid, companies, seed, precision, limit = '1000'] = process.argv.slice(2)
const { addon, rowStride } = require(path.join(dist, 'machine', 'native.js'))
const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
const { decoderOf } = require(path.join(dist, 'decoding', 'decoders.js'))
const { composeStep, seatedSession } = require(path.join(dist, 'decoding', 'step.js'))

// ---- chance: mulberry32

let state = Number(seed)
function random () {
  state = state + 0x6D2B79F5 | 0
  let t = Math.imul(state ^ state >>> 15, 1 | state)
  t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
  return ((t ^ t >>> 14) >>> 0) / 4294967296
}
const below = count => Math.floor(random() * count)
const one = (...values) => values[below(values.length)]

const seats = 6

/** Options of the model's method: schedules that differ in the sizes of their steps, in what is seen, in guidance. */
function choices (method, tokens) {
  switch (method) {
    case 'arpg':
      return [{ steps: 9 }, { steps: 1 }, { steps: 17, stepSchedule: 'cosine' }, { steps: tokens },
        { groupSizes: [1, 40, tokens - 41], guidanceSchedule: 'constant' }]
    case 'lpd':
      return [{ groupSizes: [1, 2, 5, 8, 12, 16, 20] }, { groupSizes: [1, tokens - 1] }, { steps: tokens },
        { groupSizes: [1, 1, 30, 1, 31], guidanceSchedule: 'constant' }]
    case 'randar':
      return [{ steps: 9 }, { steps: 2 }, { steps: 22, guidanceSchedule: 'constant' }, { steps: tokens }]
    default:
      return [{}, { order: 'raster' }, { groupAttention: 'causal' }, { tokensPerStep: 1 },
        ...method === 'par' ? [{ initial: 'none' }] : []]
  }
}

async function main () {
  const described = describeTransformer(await openCheckpoint(file), { heads: Number(heads), grid: Number(grid) })
  const { method, model, weights, grid: size } = described
  const engine = addon().createEngine({ device, threads: device === 'cpu' ? 2 : 0 })
  const transformer = await engine.loadTransformer(file, weights, model, precision)
  const tokens = size[0] * size[1]
  const decoder = decoderOf(described, file)
  const plans = choices(method, tokens).map(options => decoder.plan(options))
  const whole = plans[0].picture(0).fullTables(16)
  const widest = Math.max(...plans.map(({ maxRows }) => maxRows), ...whole.map(({ rows }) => rows.length / rowStride))
  const crossLayers = model.crossLayers > 0
  const shape = { slots: plans[0].slots, tokens, kept: 2 }
  const pool = Array.from({ length: Number(limit) < 10 ? 8 : 12 }, (_, i) => {
    const scored = i % 4 === 3
    const seed = below(2 ** 31)
    const tables = scored ? whole : plans[below(plans.length)].picture(seed).steps
    return {
      classId: below(model.classes + 1),
      seed: BigInt(seed) << 20n | BigInt(i),
      known: scored ? Int32Array.from({ length: tokens }, () => below(model.vocabularySize)) : undefined,
      tables: tables.slice(0, 1 + below(Math.min(tables.length, Number(limit)))),
      guidanceScale: one(1, 1, 1.3, 4),
      rule: {
        mode: scored ? 'score' : one('inverse', 'gumbel'), temperature: one(0, 0.7, 1, 1), topK: one(0, 0, 3, 40),
        topP: one(1, 1, 0.9, 0.5)
      }
    }
  })
  const keeping = { kept: new Map([[0, 0], [3, 1]]) }
  const partOf = (who, seat, step) =>
    ({ seat, ...who.tables[step], guidanceScale: who.guidanceScale, rule: who.rule, ...keeping })
  const read = async (session, seat) => {
    const arrays = [await session.readTokens(seat), await session.readLogProbs(seat), await session.readLogits(seat)]
    return arrays.map(array => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('base64')).join()
  }

  // ---- alone
  const alone = []
  for (const who of pool) {
    const streamsEach = who.guidanceScale === 1 ? 1 : 2
    const session = await seatedSession(transformer, { ...shape, streamsEach, maxRows: streamsEach * widest }, [who])
    for (const step of who.tables.keys()) {
      await session.step(composeStep([partOf(who, 0, step)], streamsEach, crossLayers))
    }
    alone.push(await read(session, 0))
    await session.dispose()
  }

  // ---- together
  const found = { companies: 0, sequences: 0, steps: 0, shared: 0, different: [] }
  for (let company = 0; company < Number(companies); company++) {
    const session = await transformer.createSession({ ...shape, seats, streamsEach: 2, maxRows: 2 * seats * widest })
    const waiting = Array.from({ length: 2 + below(Number(limit) < 10 ? 4 : 7) }, () => below(pool.length))
    const sitting = new Map() // seat -> { index, step }
    while (waiting.length > 0 || sitting.size > 0) {
      const free = Array.from({ length: seats }, (_, seat) => seat).filter(seat => !sitting.has(seat))
      while (waiting.length > 0 && free.length > 0 &&
        (sitting.size === 0 || random() < (Number(limit) < 10 ? 0.9 : 0.4))) {
        const [seat] = free.splice(below(free.length), 1)
        const index = waiting.pop()
        await session.enter(seat, pool[index])
        sitting.set(seat, { index, step: 0 })
      }
      const running = [...sitting].filter(() => random() < 0.8)
      if (running.length === 0) continue
      if (random() < 0.5) running.reverse() // the order of parts is of no consequence
      const failed = await session.step(
        composeStep(running.map(([seat, { index, step }]) => partOf(pool[index], seat, step)), 2, crossLayers)
      )
      if (failed.length > 0) found.different.push(`company ${company}: seat ${failed[0]} failed`)
      found.steps++
      if (running.length > 1) found.shared++
      for (const [seat, at] of running) {
        const who = pool[at.index]
        if (++at.step < who.tables.length) continue
        if (await read(session, seat) !== alone[at.index]) {
          found.different.push(`company ${company}: sequence ${at.index} in seat ${seat}`)
        }
        found.sequences++
        await session.leave(seat)
        sitting.delete(seat)
      }
    }
    await session.dispose()
    found.companies++
  }
  transformer.dispose()
  await engine.dispose()
  console.log(JSON.stringify(found))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
