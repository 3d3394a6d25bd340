'use strict'
// What the run on a machine with a GPU does, in which order, and how long each part may take. A device is lent for
// minutes: one call that is planned to end inside them, and a second one for what the first left open. Every limit
// follows from these tables. A part that ends early leaves its time to the next; a part that is slow, or a build that
// was not planned, takes time from others only down to the least that makes each of them worth starting.

/** Seconds that each call keeps for its table and for ending what it started. */
const reserve = 10

/**
 * Parts of a call in their order: { name, seconds: what is planned, least: below that it is not begun, what: in words,
 * groups: what bench/cuda/measure.cc is asked for, beside: the part before, which it runs with and whose time it
 * shares, quiet: PyTorch stops compiling meanwhile, because what it runs on the GPU would be measured too }.
 */
const calls = {
  1: {
    minutes: 6.6,
    peer: { model: 'XXL', n: 4, seconds: 130 },
    parts: [
      { name: 'probe', seconds: 10, least: 4, groups: 'probe', what: 'memory, graphs and edges that overlap' },
      { name: 'cases', seconds: 30, least: 12, what: 'programs of cases, six at a time' },
      {
        name: 'same',
        seconds: 40,
        least: 8,
        groups: 'same:XXL:4,same:L:4,same:3B:4',
        what: 'the same tokens 20 times, with overlap 0, 1, 2 and without graphs'
      },
      {
        name: 'constants',
        seconds: 16,
        least: 6,
        groups: 'read,constants',
        quiet: true,
        what: 'reading, boundaries between kernels, a flag, a cold stream'
      },
      {
        name: 'sweep',
        seconds: 62,
        least: 16,
        groups: 'sweep:XXL:4,step:XXL:4,sweep:XXL:16,sweep:3B:4,step:3B:4,sweep:L:4',
        quiet: true,
        what: 'a step with each switch on and off, in one process'
      },
      {
        name: 'trace',
        seconds: 10,
        least: 4,
        groups: 'trace:XXL:4',
        quiet: true,
        what: 'when the blocks of one layer start, wait and end'
      },
      { name: 'ncu', seconds: 22, least: 8, quiet: true, what: 'counters of twelve kernels by Nsight Compute' },
      { name: 'peer', seconds: 36, least: 14, what: 'pictures of XXL in turn with those of PyTorch, compiled' },
      {
        name: 'generate',
        seconds: 28,
        least: 10,
        groups: 'generate:XXL:4,generate:XXL:16,generate:L:4,generate:L:16,generate:3B:4,generate:3B:16',
        what: 'pictures to their pixels'
      },
      { name: 'vq', seconds: 8, least: 3, groups: 'vq', what: 'decoding, and its operations one by one' },
      { name: 'golden', seconds: 16, least: 6, what: 'golden fixtures under Node' },
      { name: 'api', seconds: 22, least: 8, what: 'tests of the library on the GPU' },
      { name: 'package', seconds: 22, least: 10, models: 'XXL:4', what: 'pictures by Par.generate' },
      { name: 'workers', seconds: 10, least: 4, what: 'five worker threads, started and ended' },
      {
        name: 'batch',
        seconds: 20,
        least: 8,
        groups: 'generate:L:4:64,generate:L:16:64',
        what: '64 pictures at once'
      },
      { name: 'shapes', seconds: 32, least: 12, what: "layers of the paper's sizes against the CPU" },
      { name: 'sanitizer', beside: 'shapes', what: 'memcheck of nine programs, racecheck of four' }
    ]
  },
  2: {
    minutes: 4.6,
    peer: { model: '3B', n: 4, seconds: 90 },
    parts: [
      { name: 'probe', seconds: 8, least: 4, groups: 'probe', what: 'memory, graphs and edges that overlap' },
      { name: 'shapes', seconds: 44, least: 10, what: "layers of the paper's sizes against the CPU" },
      { name: 'sanitizer', beside: 'shapes', what: 'programs that the first call did not finish' },
      {
        name: 'constants',
        seconds: 14,
        least: 6,
        groups: 'read,constants',
        quiet: true,
        what: 'reading, boundaries between kernels, a flag, a cold stream'
      },
      {
        name: 'sweep',
        seconds: 52,
        least: 16,
        groups: 'sweep:XXL:4,sweep:3B:4,sweep:3B:16',
        quiet: true,
        what: 'the switches again, on the same machine'
      },
      { name: 'peer', seconds: 40, least: 14, what: 'pictures of 3B in turn with those of PyTorch, compiled' },
      {
        name: 'generate',
        seconds: 26,
        least: 10,
        groups: 'generate:XL:4,generate:XL:16,generate:B:4,generate:3B:16',
        what: 'pictures of the models that are left'
      },
      {
        name: 'kernels',
        seconds: 22,
        least: 8,
        groups: 'draws,projections:XXL,attention:XXL,vq',
        what: 'kernels by themselves'
      },
      {
        name: 'package',
        seconds: 40,
        least: 14,
        models: 'XXL:4,XXL:4:int8,L:1:sequential,L:1:passes',
        what: 'pictures by Par.generate: 8-bit weights, passes on guesses'
      },
      { name: 'batch', seconds: 18, least: 8, groups: 'generate:XL:4:64,generate:L:4:8', what: '64 and 8 pictures' }
    ]
  }
}

/** Parts of `npm run test:cuda`: what is right or wrong, nothing that is fast or slow, and as long as they take. */
const testParts = ['cases', 'shapes', 'golden', 'api']

/** Parts that take time of their own: not those that run beside another. */
const timed = parts => parts.filter(part => part.beside === undefined)

/**
 * Seconds that a part may take. `later`: the parts after it; `left`: seconds until the table. 0: it is not begun. What
 * is there for all is divided as planned. Where it is not, each gets its least as long as there is any, in their order:
 * what comes first matters most. Twice what is planned is enough for all but the last part: one that hangs must not use
 * up what others have saved.
 */
function limitOf (part, later, left) {
  if (left < part.least) return 0
  const planned = timed(later).reduce((total, { seconds }) => total + seconds, 0)
  const enough = later.length > 0 ? 2 * part.seconds : Infinity
  return Math.min(enough, Math.max(part.least, left - planned))
}

/** The plan of both calls in lines, for people. */
function text () {
  return Object.entries(calls).flatMap(([number, { minutes, parts }]) => {
    const all = timed(parts).reduce((total, { seconds }) => total + seconds, 0)
    return [
      `call ${number}: ${minutes} minutes = ${Math.round(minutes * 60)} s, of which ${all} s are planned and ` +
        `${reserve} s are kept for the table`,
      '  seconds  least  part       what',
      ...parts.map(({ name, seconds, least, beside, what }) => {
        const times = beside ? ['beside', ''] : [String(seconds), String(least)]
        return `  ${[times[0].padStart(7), times[1].padStart(5), name.padEnd(9), what].join('  ')}`
      })
    ]
  }).join('\n')
}

module.exports = { reserve, calls, testParts, timed, limitOf, text }
