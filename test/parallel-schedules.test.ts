// Group sizes and orders of ARPG, LPD and RandAR: the tables of the papers and their code, to the number; and the
// generator that orders are drawn with, against the known answers of its authors.

import t from 'tap'
import { arpgDecoder } from '../lib/decoding/arpg.js'
import { arpgGroupSizes, lpdGroupSizes, lpdSteps, randarGroupSizes } from '../lib/decoding/group-sizes.js'
import { OrderDraws, philox } from '../lib/decoding/random.js'
import { localityOrder, randomOrder } from '../lib/decoding/token-order.js'

/** '1x3 2 2' -> [1, 1, 1, 2, 2] */
const list = (text: string): number[] => text.trim().split(/\s+/).flatMap(item => {
  const [size, times = '1'] = item.split('x')
  return new Array<number>(Number(times)).fill(Number(size))
})
const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0)

t.test('tables', t => {
  const arpg: Array<[number, number, 'arccos' | 'cosine', string]> = [
    [256, 32, 'arccos', '6 5 5 5 5 5 5 6 5 5 6 5 6 5 6 6 6 6 6 7 6 7 7 8 8 8 9 10 11 14 17 40'],
    [256, 64, 'arccos', '3 3 2 3 2 3 2 3 2 3 3 2 3 2 3 3 2 3 3 2 3 3 2 3 3 3 2 3 3 3 3 3 3 3 3 3 3 3 3 4 3 3 4 3 4 3 ' +
      '4 4 4 4 4 4 5 4 5 5 6 5 7 7 7 10 12 28'],
    [256, 24, 'arccos', '7 7 7 7 7 7 7 7 7 8 7 8 8 8 9 8 10 10 10 12 13 15 20 47'],
    [256, 16, 'arccos', '11 10 10 11 10 11 11 12 12 13 13 15 16 19 25 57'],
    [256, 64, 'cosine', '1x13 2 3 2 2 3 3 3 3 3 3 4 3 4 4 4 4 4 4 4 5 5 4 5 5 5 5 5 6 5 5 6 5 6 6 6 5 6 6 6 6 6 6 7 ' +
      '6 6 6 6 7 6 6 6'],
    [16, 5, 'arccos', '3 2 2 3 6'],
    [16, 5, 'cosine', '1 3 3 5 4']
  ]
  for (const [tokens, steps, schedule, sizes] of arpg) {
    t.same(arpgGroupSizes(tokens, steps, schedule), list(sizes), `ARPG, ${steps} steps, ${schedule}`)
  }
  t.same(randarGroupSizes(256, 88), list('1x24 2 2 2 2 2 2 3 2 3 2 3 3 2 3 3 3 3 3 3 3 4 3 3 4 3 4 3 4 4 3 4 4 4 4 4 ' +
    '4 4 4 4 4 4 5 4 4 4 5 4 4 5 4 5 4 5 4 5 4 5 4 5 4 5 4 5 4'), 'RandAR, 88 steps')
  t.same(randarGroupSizes(16, 6), [1, 2, 2, 3, 4, 4])
  const lpd: Array<[number, string]> = [
    [20, '1 2 4 5 7 8 10 11 12 14 15 16 17 18 18 19 19 20 20 20'],
    [32, '1 1 2 2 3 3 4 5 5 6 6 7 7 8 8 9 9 10 10 10 11 11 11 11 12 12 12 12 12 12 12 12'],
    [24, '1 2 3 4 5 6 7 8 9 10 11 11 12 13 14 14 14 15 15 16 16 16 17 17'],
    [16, '1 4 6 8 11 13 15 17 19 20 22 23 24 24 24 25'], [12, '1 7 11 15 19 22 25 28 30 32 33 33'],
    [8, '1 15 24 32 40 45 49 50'], [64, '1x10 2x7 3x7 4x9 5x11 6x20'], [256, '1x256']
  ]
  for (const [steps, sizes] of lpd) t.same(lpdGroupSizes(256, steps), list(sizes), `LPD, ${steps} steps`)
  t.same(lpdGroupSizes(1024, 48), [...Array.from({ length: 22 }, (_, i) => i + 1),
    ...list('23 23 24 25 26 26 27 28 28 29 29 30 30 31 31 32 32 32 33 33 33 33 33 33 33 34')], 'LPD, 512 px, 48 steps')
  t.same(lpdGroupSizes(1024, 32), list('1 4 6 9 11 13 16 18 20 23 25 27 29 31 33 35 36 38 40 41 42 44 45 46 47 48 48 ' +
    '49 49 50 50 50'), 'LPD, 512 px, 32 steps')
  t.same(lpdSteps(256), [8, 12, 16, 20, 24, 32, 64, 256])
  t.same(lpdSteps(1024), [32, 48, 1024])
  t.same(lpdSteps(64), [64])
  t.equal(lpdGroupSizes(256, 33), undefined)
  t.end()
})

t.test('sizes are at least 1 and add up, for every number of steps', t => {
  for (const tokens of [16, 64, 256, 1024]) {
    const bad: string[] = []
    const check = (name: string, steps: number, sizes: readonly number[]): void => {
      if (sizes.length !== steps || sum(sizes) !== tokens || sizes.some(size => size < 1)) bad.push(`${name} ${steps}`)
    }
    for (let steps = 1; steps <= tokens; steps++) {
      for (const schedule of ['arccos', 'cosine'] as const) {
        check(schedule, steps, arpgGroupSizes(tokens, steps, schedule))
      }
      if (steps > 1) check('randar', steps, randarGroupSizes(tokens, steps))
    }
    for (const steps of lpdSteps(tokens)) check('lpd', steps, lpdGroupSizes(tokens, steps)!)
    t.same(bad, [], `${tokens} tokens`)
  }
  t.end()
})

t.test('the generator', t => {
  // Random123, kat_vectors: philox4x32, 10 rounds.
  const all = 0xffffffff
  t.same(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
  t.same(philox([all, all, all, all], [all, all]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd])
  t.same(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1])
  const draws = new OrderDraws(2 ** 53 - 1)
  const counts = new Array<number>(6).fill(0)
  for (let i = 0; i < 6000; i++) counts[draws.below(6)]!++
  t.ok(counts.every(count => Math.abs(count - 1000) < 150), `a die falls ${counts.join(', ')} times`)
  t.not(new OrderDraws(0).below(2 ** 30), new OrderDraws(2 ** 32).below(2 ** 30), 'all bits of a seed count')
  t.end()
})

const isPermutation = (order: Int32Array): boolean =>
  [...order].sort((a, b) => a - b).every((cell, index) => cell === index)

t.test('random orders', t => {
  const first = randomOrder(256, 7)
  t.ok(isPermutation(first))
  t.same(randomOrder(256, 7), first, 'the same seed, the same order')
  t.notSame(randomOrder(256, 8), first)
  // Where cell 0 comes, over many seeds: uniform within four standard errors.
  const places = Array.from({ length: 2000 }, (_, seed) => randomOrder(16, seed).indexOf(0))
  const mean = places.reduce((a, b) => a + b) / places.length
  t.ok(Math.abs(mean - 7.5) < 4 * 4.61 / Math.sqrt(2000), `on average at ${mean.toFixed(2)} of 0 to 15`)
  t.end()
})

t.test("LPD's orders", t => {
  const grid = [16, 16] as const
  const sizes = lpdGroupSizes(256, 20)!
  const [row, column] = [(cell: number) => Math.floor(cell / 16), (cell: number) => cell % 16]
  for (const repulsion of [2, 3]) {
    for (const seed of [1, 2, 3]) {
      const order = localityOrder(grid, sizes, repulsion, seed)
      t.ok(isPermutation(order))
      t.same(localityOrder(grid, sizes, repulsion, seed), order)
      t.notSame(localityOrder(grid, sizes, repulsion, seed + 1), order)
      // The order read back by the rule of the paper: cells in front of the first one that is beside no known cell, or
      // close to another of its group, are beside known cells and far from each other.
      const known = new Set<number>()
      let done = 0
      let [near, close] = [0, 0]
      for (const size of sizes) {
        const group = [...order.subarray(done, done + size)]
        const score = (cell: number): number => {
          let total = 0
          for (const other of known) {
            const [dr, dc] = [Math.abs(row(other) - row(cell)), Math.abs(column(other) - column(cell))]
            if (dr <= 1 && dc <= 1) total += 1 / Math.hypot(dr, dc)
          }
          return total
        }
        const isClose = (a: number, b: number): boolean =>
          Math.abs(row(a) - row(b)) <= repulsion && Math.abs(column(a) - column(b)) <= repulsion
        const first = group.findIndex((cell, i) =>
          score(cell) < 1 || group.slice(0, i).some(other => isClose(cell, other)))
        near += first < 0 ? size : first
        // Nothing that could have been taken by the first rule was passed over.
        const taken = first < 0 ? group : group.slice(0, first)
        if (first >= 0) {
          const free = Array.from({ length: 256 }, (_, cell) => cell).filter(cell => !known.has(cell) &&
            !taken.includes(cell) && score(cell) >= 1 && !taken.some(other => isClose(cell, other)))
          close += free.length
        }
        // The highest scores first.
        const scores = taken.map(score)
        t.ok(scores.every((value, i) => i === 0 || value <= scores[i - 1]! + 1e-9))
        group.forEach(cell => known.add(cell))
        done += size
      }
      t.ok(near > 100, `${near} cells by their neighbours`)
      t.equal(close, 0, 'cells beside known ones come first, as many as are far from each other')
    }
  }
  t.ok(isPermutation(localityOrder([4, 4], [16], 2, 5)), 'one group')
  t.ok(isPermutation(localityOrder([1, 7], [1, 6], 2, 5)), 'one row')
  t.end()
})

t.test('ARPG: a first cell that every drawn order begins with', async t => {
  const grid = [4, 6] as const
  const free = arpgDecoder(grid, 5).plan({})
  const bound = arpgDecoder(grid, 5, 17).plan({})
  const after = (sizes: readonly number[]): number[] => sizes.map((_, k) => sum(sizes.slice(0, k + 1)))
  t.same(Array.from(bound.tokensAfter), after([1, ...arpgGroupSizes(23, 4, 'arccos')]), 'it is drawn alone')
  t.same(Array.from(arpgDecoder(grid, 1, 17).plan({}).tokensAfter), [24], 'but in a single step')
  for (const seed of [0, 1, 7, 123456789]) {
    const order = Array.from(free.picture(seed).cells)
    t.same(Array.from(bound.picture(seed).cells), [17, ...order.filter(cell => cell !== 17)],
      'the others in their order')
  }
  const given = Int32Array.from({ length: 24 }, (_, k) => 23 - k)
  t.same(bound.picture(1, given).cells, given, 'an order that is given stays as it is')
})
