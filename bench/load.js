'use strict'
// Load on one machine: requests that arrive at random, answered in three ways.
//
//   node bench/load.js [--model fashion] [--transformer FILE --tokenizer FILE] [-n 4] [--seconds 60] [--rounds 3]
//                      [--shares 0.5,0.9] [--ways waves,continuous] [--capacity PICTURES-A-SECOND] [--json FILE]
//
//   one-by-one   a request begins when the one before it is done
//   waves        all that wait begin together; those who come meanwhile wait for the last of them
//   continuous   each request begins at once: the library's batches take it in at their next step
//
// Capacity is what continuous batching makes with as many requests as it likes, measured first. Requests come as a
// Poisson process at a share of it; the three ways get the same arrivals, one after another in each round, so that a
// machine which is disturbed disturbs all of them. Latency is counted from the arrival to the pixels.

const { parseArgs } = require('node:util')
const fs = require('node:fs')
const { Par } = require('..')

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'fashion' },
    transformer: { type: 'string' },
    tokenizer: { type: 'string' },
    grid: { type: 'string' },
    n: { type: 'string', short: 'n', default: '4' },
    seconds: { type: 'string', default: '60' },
    rounds: { type: 'string', default: '3' },
    shares: { type: 'string', default: '0.5,0.9' },
    'max-batch': { type: 'string' },
    capacity: { type: 'string' },
    ways: { type: 'string', default: 'one-by-one,waves,continuous' },
    json: { type: 'string' }
  }
})
const n = Number(values.n)
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)
const size = values['max-batch'] ? { maxBatchSize: Number(values['max-batch']) } : {}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

/**
 * Times of arrival in seconds, the same for each way. A Poisson process of which the count is given has its arrivals at
 * uniformly random times: so a short run has the load that is asked for, and not by chance a tenth more.
 */
function arrivals (rate, seed) {
  let state = seed
  const times = Array.from({ length: Math.max(1, Math.round(rate * seconds)) }, () => {
    // A counter-based generator is not needed, a linear one will do.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32 * seconds
  })
  return times.sort((a, b) => a - b)
}

/** How a request is made, by the way; each returns a promise of its picture. */
const ways = {
  'one-by-one': par => {
    let last = Promise.resolve()
    return (classId, seed) => {
      const made = last.then(() => par.generate({ classId, seed, n }))
      last = made.catch(() => {})
      return made
    }
  },
  waves: par => {
    const waiting = []
    let running = false
    const begin = async () => {
      running = true
      while (waiting.length > 0) {
        const wave = waiting.splice(0, 64)
        // Side by side from the first step to the last, with the seeds of each.
        await Promise.all(wave.map(async ({ classId, seed, resolve }) => {
          resolve(par.generate({ classId, seed, n }))
        }))
        await Promise.all(wave.map(({ made }) => made))
      }
      running = false
    }
    return (classId, seed) => {
      const one = { classId, seed }
      one.made = new Promise(resolve => { one.resolve = resolve })
      waiting.push(one)
      if (!running) setImmediate(() => { if (!running) void begin() })
      return one.made
    }
  },
  continuous: par => (classId, seed) => par.generate({ classId, seed, n })
}

const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN

async function run (par, way, times) {
  const make = ways[way](par)
  const started = performance.now()
  const latencies = []
  let inTime = 0
  await Promise.all(times.map(async (time, i) => {
    await sleep(Math.max(0, started + 1000 * time - performance.now()))
    await make(i % par.info.transformer.classes, i)
    const ended = performance.now()
    latencies.push(ended - started - 1000 * time)
    if (ended - started <= 1000 * seconds) inTime++
  }))
  // To the end of the last one, as those who wait see it.
  return { latencies, made: latencies.length, inTime, took: (performance.now() - started) / 1000 }
}

async function main () {
  const par = values.transformer
    ? await Par.load({
      transformer: { path: values.transformer, n, ...(values.grid && { grid: Number(values.grid) }) },
      tokenizer: values.tokenizer,
      precision: 'bfloat16',
      ...size
    })
    : await Par.load(values.model, size)
  const { transformer, device, isa, precision } = { ...par.info }
  await par.generate({ classId: 0, n })
  let capacity = Number(values.capacity)
  if (!capacity) {
    // Closed loop. Pictures that begin together end together, so whole rounds of the clients are counted, all but the
    // first one.
    const clients = 16
    const ends = []
    let isOver = false
    const client = async seed => {
      while (!isOver) {
        await par.generate({ classId: seed % transformer.classes, seed, n })
        ends.push(performance.now())
        isOver ||= ends.length >= 3 * clients && ends.at(-1) - began > 1000 * Math.max(seconds, 40)
      }
    }
    const began = performance.now()
    await Promise.all(Array.from({ length: clients }, (_, seed) => client(seed)))
    const counted = (Math.floor(ends.length / clients) - 1) * clients
    capacity = counted / (ends[clients - 1 + counted] - ends[clients - 1]) * 1000
  }
  console.log(`${transformer.official ?? transformer.name}, n = ${n}, ${precision}, ${isa}, ${device}: ` +
    `${capacity.toFixed(2)} pictures a second at most`)
  const results = []
  for (const share of values.shares.split(',').map(Number)) {
    const all = Object.fromEntries(values.ways.split(',')
      .map(way => [way, { latencies: [], rounds: [], made: 0, inTime: 0, took: 0 }]))
    for (let round = 0; round < rounds; round++) {
      const times = arrivals(share * capacity, 12345 + round)
      for (const way of values.ways.split(',')) {
        const { latencies, made, inTime, took } = await run(par, way, times)
        all[way].latencies.push(...latencies)
        const sorted = latencies.sort((a, b) => a - b)
        all[way].rounds.push({ p50: at(sorted, 0.5), p95: at(sorted, 0.95), perSecond: made / took })
        all[way].made += made
        all[way].inTime += inTime
        all[way].took += took
      }
    }
    for (const [way, { latencies, rounds: perRound, made, inTime, took }] of Object.entries(all)) {
      latencies.sort((a, b) => a - b)
      const result = {
        share, way, requests: made, p50: at(latencies, 0.5), p95: at(latencies, 0.95), perSecond: made / took,
        inTime: inTime / (rounds * seconds), perRound
      }
      results.push(result)
      const [p50, p95, perSecond] = [result.p50, result.p95, result.perSecond].map(value => value.toFixed(2))
      console.log(`${(100 * share).toFixed(0)} %  ${way.padEnd(10)}  ${made} requests, p50 ${p50} ms, p95 ${p95} ms, ` +
        `${perSecond} a second (${result.inTime.toFixed(2)} in time)`)
    }
  }
  if (values.json) {
    fs.writeFileSync(values.json, JSON.stringify({
      date: new Date().toISOString().slice(0, 10), transformer: transformer.official ?? transformer.name, n, precision,
      isa, device, capacity, seconds, rounds, results
    }, null, 1))
  }
  await par.dispose()
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
