// How many rows a step needs before more of them bring nothing, from how long steps take.

import t from 'tap'
import { Pace } from '../lib/decoding/pace.js'
import { Random } from './fuzz/harness.js'

/** What is found after steps of these sizes on a machine of which `msOf` says how long they take. */
function limitOf (sizes: readonly number[], msOf: (rows: number, random: Random) => number): number {
  const pace = new Pace()
  const random = new Random(3)
  for (let k = 0; k < 30; k++) for (const rows of sizes) pace.add(rows, msOf(rows, random))
  return pace.limit
}
const sizes = [2, 8, 16, 24, 32, 64]

t.test('rows beyond which nothing is gained', async t => {
  t.equal(limitOf(sizes, rows => 4 * rows), 2, 'each row costs its time: any number is as good')
  t.equal(limitOf(sizes, rows => Math.max(24, 3 * rows)), 8, 'reading bounds small steps, arithmetic large ones')
  t.equal(limitOf(sizes, () => 10), Infinity, 'rows are free: more would still help')
  t.equal(limitOf(sizes, rows => 20 + rows / 10), Infinity)
  t.equal(limitOf([8], rows => rows), Infinity, 'one size says nothing')
  t.equal(limitOf(sizes, (rows, random) => Math.max(24, 3 * rows) * (random.chance(0.2) ? 40 : 1)), 8,
    'steps that were disturbed do not count')
  const pace = new Pace()
  t.equal(pace.limit, Infinity, 'nothing is known')
  for (const [rows, ms] of [[0, 1], [4, 0], [4, NaN], [4, -1]] as const) pace.add(rows, ms)
  t.equal(pace.limit, Infinity, 'what makes no sense is not taken')
})

t.test('a machine that becomes another one is measured anew', async t => {
  const pace = new Pace()
  for (let k = 0; k < 40; k++) for (const rows of sizes) pace.add(rows, Math.max(24, 3 * rows))
  t.equal(pace.limit, 8)
  for (let k = 0; k < 40; k++) for (const rows of sizes) pace.add(rows, Math.max(96, 3 * rows))
  t.equal(pace.limit, 32)
})
