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
const { createSchedule } = require(path.join(dist, 'decoding', 'schedule.js'))
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

async function main () {
  const { model, weights, n, grid: size } = describeTransformer(await openCheckpoint(file),
    { heads: Number(heads), grid: Number(grid) })
  const engine = addon().createEngine({ device, threads: device === 'cpu' ? 2 : 0 })
  const transformer = await engine.loadTransformer(file, weights, model, precision)
  const tokens = size[0] * size[1]
  const schedules = [{}, { order: 'raster' }, { initial: 'none' }, { groupAttention: 'causal' }, { tokensPerStep: 1 }]
    .map(ablation => createSchedule({ grid: size, n, ...ablation }))
    .filter(({ transitions }) => transitions <= model.transitions)
  const whole = schedules[0].fullSequenceTables(16)
  const widest = Math.max(...schedules.map(({ maxRows }) => maxRows), ...whole.map(table => table.length / rowStride))
  const shape = { slots: tokens, tokens, kept: 2 }
  const pool = Array.from({ length: Number(limit) < 10 ? 8 : 12 }, (_, i) => {
    const scored = i % 4 === 3
    const tables = scored ? whole : schedules[below(schedules.length)].steps
    return {
      classId: below(model.classes + 1),
      seed: BigInt(below(2 ** 31)) << 20n | BigInt(i),
      known: scored ? Int32Array.from({ length: tokens }, () => below(model.vocabularySize)) : undefined,
      tables: tables.slice(0, 1 + below(Math.min(tables.length, Number(limit)))),
      guidanceScale: one(1, 1, 1.3, 4),
      rule: { mode: scored ? 'score' : 'sample', temperature: one(0, 0.7, 1, 1), topK: one(0, 0, 3, 40), topP: one(1, 1,
        0.9, 0.5) }
    }
  })
  const keeping = { kept: new Map([[0, 0], [3, 1]]) }
  const partOf = (who, seat, step) =>
    ({ seat, rows: who.tables[step], guidanceScale: who.guidanceScale, rule: who.rule, ...keeping })
  const read = async (session, seat) => {
    const arrays = [await session.readTokens(seat), await session.readLogProbs(seat), await session.readLogits(seat)]
    return arrays.map(array => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('base64')).join()
  }

  // ---- alone
  const alone = []
  for (const who of pool) {
    const streamsEach = who.guidanceScale === 1 ? 1 : 2
    const session = await seatedSession(transformer, { ...shape, streamsEach, maxRows: streamsEach * widest }, [who])
    for (const step of who.tables.keys()) await session.step(composeStep([partOf(who, 0, step)], streamsEach))
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
        composeStep(running.map(([seat, { index, step }]) => partOf(pool[index], seat, step)), 2)
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
