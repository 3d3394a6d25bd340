'use strict'
// Sequences of one session that take turns at random, with a random number of steps in each pass; some are read in the
// middle, and a seat has a second sequence after its first. Prints how many of their tokens differ from those of the
// same sequences, one step a pass, and how many passes all sequences took with one step a pass, and with six.
//
//   node test/seats/passes.js DIST DEVICE FILE HEADS GRID OPTIONS PRECISION SEED
// OPTIONS: of the model's method, as JSON

const path = require('node:path')
const [dist, device, file, heads, grid, options, precision, seed] = process.argv.slice(2)
const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
const { addon } = require(path.join(dist, 'machine', 'native.js'))
const { decoderOf } = require(path.join(dist, 'decoding', 'decoders.js'))
const { neighbours, passPlan } = require(path.join(dist, 'decoding', 'passes.js'))

let state = Number(seed)
const below = count => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor(state / 2 ** 32 * count)
}
const seats = 3

async function main () {
  const engine = addon().createEngine({ device, threads: device === 'cpu' ? 2 : 0 })
  const described = describeTransformer(await openCheckpoint(file), { heads: Number(heads), grid: Number(grid) })
  const { model, weights, grid: size } = described
  const transformer = await engine.loadTransformer(file, weights, model, precision)
  const whole = decoderOf(described, file).plan(JSON.parse(options))
  // Two sequences for each seat, the second one behind the first.
  const sequences = Array.from({ length: 2 * seats }, (_, i) => {
    const picture = whole.picture(i)
    return {
      classId: i,
      seed: BigInt(i),
      plan: passPlan(picture, { mode: i % 2 === 0 ? 'inverse' : 'gumbel', temperature: 0.01, topK: 0, topP: 1 },
        i % seats === 2 ? 1 : 1.5, neighbours(picture, [1, ...size], whole.prefix))
    }
  })
  const run = async next => {
    const { slots, tokens: count, maxRows } = whole
    const session = await transformer.createSession(
      { seats, streamsEach: 2, slots, tokens: count, maxRows: 2 * (seats * maxRows + 24), kept: 0 })
    const tokens = []
    let passes = 0
    const sitting = new Map()
    const sit = async index => {
      const seat = index % seats
      await session.enter(seat, sequences[index])
      await session.plan(seat, sequences[index].plan)
      sitting.set(seat, { index, done: 0 })
    }
    for (let seat = 0; seat < seats; seat++) await sit(seat)
    while (sitting.size > 0) {
      const parts = [...sitting.keys()].flatMap(next)
      if (parts.length === 0) continue
      // Two at a time are under way, as batches have them.
      const running = [session.pass(Int32Array.from(parts)), session.pass(Int32Array.from(parts))]
      for (const [, ...told] of await Promise.all(running)) {
        const count = told.length / 2
        for (let i = 0; i < count; i++) {
          passes += told[count + i] // those at their end are in no pass
          sitting.get(parts[2 * i]).done = told[i]
        }
      }
      for (const [seat, { index, done }] of sitting) {
        const { ends } = sequences[index].plan
        if (done < ends.length) {
          if (below(8) > 0) continue
          // What is final stays so.
          const now = await session.readTokens(seat)
          const least = done === 0 ? 0 : whole.tokensAfter[done - 1]
          if (now.filter(token => token >= 0).length < least) throw new Error('tokens are missing')
          sitting.get(seat).now = now
          continue
        }
        const all = await session.readTokens(seat)
        const { now } = sitting.get(seat)
        if (now?.some((token, i) => token >= 0 && token !== all[i])) throw new Error('a final token has changed')
        tokens[index] = [...all]
        await session.leave(seat)
        sitting.delete(seat)
        if (index < seats) await sit(index + seats)
      }
    }
    await session.dispose()
    return { tokens: tokens.flat(), passes }
  }
  const alone = await run(seat => [seat, 1])
  const turns = await run(seat => below(3) === 0 ? [] : [seat, below(2) === 0 ? 1 : 1 + below(6)])
  const together = await run(seat => [seat, 6])
  const differ = [turns, together]
    .flatMap(({ tokens }) => tokens.filter((token, i) => token !== alone.tokens[i])).length
  transformer.dispose()
  await engine.dispose()
  console.log(JSON.stringify({
    tokens: alone.tokens.length, differ, alone: alone.passes, together: together.passes
  }))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
