// One sequence whose class is NaN runs with two others; then its seat is taken by a sound one. Prints what became of
// them: { failed: seats that steps told of, codes: of reading each seat, equal: of the others, after: of the one that
// came later }
//   node failing.js DIST DEVICE FILE HEADS GRID NAN_CLASS PRECISION
'use strict'

const path = require('node:path')

const [dist, device, file, heads, grid, nan, precision] = process.argv.slice(2)
const { addon } = require(path.join(dist, 'machine', 'native.js'))
const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
const { createSchedule } = require(path.join(dist, 'decoding', 'schedule.js'))
const { composeStep, seatedSession } = require(path.join(dist, 'decoding', 'step.js'))

async function main () {
  const { model, weights, n, grid: size } = describeTransformer(await openCheckpoint(file),
    { heads: Number(heads), grid: Number(grid) })
  const engine = addon().createEngine({ device, threads: device === 'cpu' ? 2 : 0 })
  const transformer = await engine.loadTransformer(file, weights, model, precision)
  const schedule = createSchedule({ grid: size, n })
  const rule = { mode: 'inverse', temperature: 1, topK: 0, topP: 1 }
  const shape = {
    streamsEach: 2, slots: schedule.tokens, tokens: schedule.tokens, maxRows: 3 * 2 * schedule.maxRows, kept: 0
  }
  const damaged = { classId: Number(nan), seed: 7n }
  const sound = [{ classId: 1, seed: 5n }, { classId: 4, seed: 6n }]
  const seen = new Set()
  const run = async (session, seats) => {
    for (const rows of schedule.steps) {
      const parts = seats.map(seat => ({ seat, rows, guidanceScale: 2, rule }))
      for (const seat of await session.step(composeStep(parts, 2))) seen.add(seat)
    }
  }
  const alone = []
  for (const who of sound) {
    const session = await seatedSession(transformer, shape, [who])
    await run(session, [0])
    alone.push(String(await session.readTokens(0)))
    await session.dispose()
  }
  const session = await seatedSession(transformer, shape, [sound[0], damaged, sound[1]])
  await run(session, [0, 1, 2])
  const reading = await Promise.all([0, 1, 2].map(seat => session.readTokens(seat).then(String, error => error)))
  await session.leave(1)
  await session.enter(1, sound[1])
  await run(session, [1])
  const later = String(await session.readTokens(1))
  await session.dispose()
  await engine.dispose()
  console.log(JSON.stringify({
    failed: [...seen],
    codes: reading.map(result => typeof result === 'string' ? 'ok' : result.parvisCode),
    equal: [reading[0] === alone[0], reading[2] === alone[1]],
    after: later === alone[1]
  }))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
