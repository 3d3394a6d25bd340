'use strict'
// Sequences of one session that take turns at random, with a random number of steps in each pass: prints how many of
// their tokens differ from those of the same sequences, one step a pass.
//
//   node test/seats/passes.js DIST DEVICE FILE HEADS GRID N PRECISION SEED

const path = require('node:path')
const [dist, device, file, heads, grid, n, precision, seed] = process.argv.slice(2)
const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
const { addon } = require(path.join(dist, 'machine', 'native.js'))
const { neighbours, passPlan } = require(path.join(dist, 'decoding', 'passes.js'))
const { createSchedule } = require(path.join(dist, 'decoding', 'schedule.js'))

let state = Number(seed)
const below = count => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor(state / 2 ** 32 * count)
}

async function main () {
  const engine = addon().createEngine({ device, threads: 2 })
  const { model, weights } = describeTransformer(await openCheckpoint(file),
    { heads: Number(heads), grid: Number(grid) })
  const transformer = await engine.loadTransformer(file, weights, model, precision)
  const side = Number(grid)
  const schedule = createSchedule({ grid: [side, side], n: Number(n) })
  const picture = { ...schedule, steps: schedule.steps.map(rows => ({ rows })) }
  const count = 3
  const plans = Array.from({ length: count }, (_, i) => passPlan(picture,
    { mode: i % 2 === 0 ? 'inverse' : 'gumbel', temperature: 0.1, topK: 0, topP: 1 }, i === 2 ? 1 : 1.5,
    neighbours(picture, [1, side, side], 0)))
  const run = async next => {
    const session = await transformer.createSession(
      { seats: count, streamsEach: 2, slots: schedule.tokens, tokens: schedule.tokens, maxRows: 64, kept: 0 })
    for (const [seat, plan] of plans.entries()) {
      await session.enter(seat, { classId: seat, seed: BigInt(seat) })
      await session.plan(seat, plan)
    }
    const done = plans.map(() => 0)
    let passes = 0
    while (done.some(steps => steps < schedule.steps.length)) {
      const parts = next().flat()
      if (parts.length === 0) continue
      const [, ...steps] = await session.pass(Int32Array.from(parts))
      steps.forEach((step, i) => { done[parts[2 * i]] = step })
      passes++
    }
    const tokens = await Promise.all(plans.map(async (_, seat) => [...await session.readTokens(seat)]))
    await session.dispose()
    return { tokens: tokens.flat(), passes }
  }
  const alone = await run(() => plans.map((_, seat) => [seat, 1]))
  const turns = await run(() =>
    plans.map((_, seat) => [seat, below(2) === 0 ? 1 : 1 + below(6)]).filter(() => below(3) > 0))
  const differ = turns.tokens.filter((token, i) => token !== alone.tokens[i]).length
  transformer.dispose()
  await engine.dispose()
  console.log(JSON.stringify({ tokens: alone.tokens.length, differ }))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
