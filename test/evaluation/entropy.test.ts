// The statistics of tokens: on sources whose entropies are known in closed form, on small samples whose expectation is
// summed exactly, and on encoded pictures. The command line is in test/cli/entropy.test.ts.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { Slices } from '../../lib/base/slices.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { groupCodes } from '../../lib/evaluation/code-groups.js'
import {
  codesFor, conditionalEntropy, grassberger, ownEntropies, pairInformation, parallelRise, picturesFor
} from '../../lib/evaluation/entropy.js'
import { bootstrap, differenceOf, randomOf } from '../../lib/evaluation/resampling.js'
import {
  columnsOf, evenly, randomOrder, TokenSetBuilder, type Columns, type Grid, type TokenSet
} from '../../lib/evaluation/token-set.js'
import { readNpy } from '../../lib/pictures/npy.js'

const slices = new Slices()
const log2 = (value: number): number => value > 0 ? Math.log2(value) : 0
const near = (found: number, expected: number, tolerance: number): boolean => Math.abs(found - expected) <= tolerance

/** A set of pictures whose tokens `draw` makes. */
function setOf (pictures: number, grid: Grid, draw: (tokens: Int32Array, uniform: () => number) => void, seed = 1) {
  const random = randomOf(seed)
  const builder = new TokenSetBuilder()
  const tokens = new Int32Array(grid[0] * grid[1])
  for (let k = 0; k < pictures; k++) {
    draw(tokens, () => random() / 2 ** 32)
    builder.add(tokens, grid, 'test')
  }
  return builder.finish()
}

async function columnsFrom (set: TokenSet, codes: number): Promise<Columns> {
  const map = Uint16Array.from({ length: codes }, (_, code) => code)
  return await columnsOf(set, map, codes, randomOrder(set.pictures, randomOf(9)), slices)
}

/** Rows that are Markov chains of their own: a token stays what it was with probability `stay`, else any other. */
const chains = (codes: number, stay: number) => (tokens: Int32Array, uniform: () => number, columns = 8): void => {
  for (let k = 0; k < tokens.length; k++) {
    if (k % columns === 0) tokens[k] = Math.floor(uniform() * codes)
    else if (uniform() < stay) tokens[k] = tokens[k - 1]!
    else tokens[k] = (tokens[k - 1]! + 1 + Math.floor(uniform() * (codes - 1))) % codes
  }
}

/** H(X[t + steps] | X[t]) of such a chain. */
function chainEntropy (codes: number, stay: number, steps: number): number {
  const second = 1 - (1 - stay) * codes / (codes - 1) // the second eigenvalue of the transition matrix
  const same = 1 / codes + (1 - 1 / codes) * second ** steps
  const other = (1 - same) / (codes - 1)
  return -same * log2(same) - (codes - 1) * other * log2(other)
}

t.test('the estimator', async t => {
  const table = grassberger(2000)
  const gamma = 0.5772156649015329
  t.ok(near(table[1]!, -gamma - Math.LN2, 1e-12) && near(table[2]!, 2 - gamma - Math.LN2, 1e-12))
  t.equal(table[3], table[2])
  t.ok(near(table[4]!, table[2]! + 2 / 3, 1e-12))
  t.ok(near(table[1000]!, Math.log(1000), 1e-5), 'comes near the logarithm')

  // The expectation of an entropy is a sum over fields of expectations over binomial counts: exact, without drawing.
  const expected = (probabilities: number[], pictures: number, of: (n: number) => number): number => {
    let sum = 0
    for (const p of probabilities) {
      let chance = (1 - p) ** pictures
      for (let n = 0; n <= pictures; n++) {
        if (n > 0) {
          sum += chance * n * (Math.log(pictures) - of(n)) / pictures
        }
        chance *= (pictures - n) / (n + 1) * p / (1 - p)
      }
    }
    return sum
  }
  for (const [name, weights, pictures] of [
    ['uniform, two pictures a field', Array<number>(50).fill(1), 100],
    ['uniform, four pictures a field', Array<number>(50).fill(1), 200],
    ['frequent and rare', Array.from({ length: 50 }, (_, k) => 1 / (k + 1)), 100]
  ] as const) {
    const total = weights.reduce((a, b) => a + b, 0)
    const shares = weights.map(weight => weight / total)
    const truth = -shares.reduce((sum, p) => sum + p * Math.log(p), 0)
    const plain = expected(shares, pictures, Math.log) - truth
    const corrected = expected(shares, pictures, n => table[n]!) - truth
    t.ok(plain < -0.1, `${name}: the plug-in estimate is ${plain.toFixed(3)} nats off`)
    t.ok(Math.abs(corrected) < 0.1 * Math.abs(plain), `${name}: corrected ${corrected.toFixed(4)}`)
  }
  t.equal(picturesFor(128, 2), 32768)
  t.equal(picturesFor(16384, 2), 2 ** 29)
  for (const [pictures, tokens] of [[32, 2], [2000, 2], [2000, 3], [60000, 3], [32768, 2], [8388608, 3]] as const) {
    const codes = codesFor(pictures, tokens)
    t.ok(codes >= 2 && (codes === 2 || picturesFor(codes, tokens) <= pictures), `${codes} codes for ${pictures}`)
    t.ok(picturesFor(codes + 1, tokens) > pictures, 'and no more')
  }
  t.equal(codesFor(8388608, 3), 128, 'exact powers are not rounded down')
})

t.test('conditional entropies in closed form', async t => {
  const [codes, stay] = [4, 0.7]
  const set = setOf(20_000, [2, 12], (tokens, uniform) => chains(codes, stay)(tokens, uniform, 12))
  const columns = await columnsFrom(set, codes)
  const own = await ownEntropies(columns, slices)
  for (const bits of own) if (!near(bits, 2, 0.005)) t.fail(`a token has ${bits} bits of its own, not 2`)
  const found = await conditionalEntropy(columns, 0, own, slices)
  t.equal(found.entropy[0], 0)
  for (let steps = 1; steps < 12; steps++) {
    const [bits, truth] = [found.entropy[steps]!, chainEntropy(codes, stay, steps)]
    t.ok(near(bits, truth, 0.02), `${steps} steps away: ${bits.toFixed(3)}, in truth ${truth.toFixed(3)}`)
  }
  for (let cell = 12; cell < 24; cell++) {
    if (!near(found.entropy[cell]!, 2, 0.005)) t.fail(`the other row is independent: ${found.entropy[cell]}`)
  }
  t.ok(near(found.residualBias, 0, 0.002))
  t.ok(found.plugInBias > 0 && found.plugInBias < 0.002)
  t.same([found.neighbours.cells, found.far.cells], [3, 12])
  t.ok(near(found.neighbours.entropy, (chainEntropy(codes, stay, 1) + 4) / 3, 0.02))

  // What pictures contribute adds up to the figures.
  const mean = (list: Float64Array): number => list.reduce((a, b) => a + b, 0) / list.length
  t.ok(near(mean(found.shareDifference), found.neighbours.share - found.far.share, 1e-9))
  t.ok(near(mean(found.alikeDifference), found.alike.neighbours - found.alike.far, 1e-9))
  t.equal(found.alike.cells, 3)

  const copies = setOf(500, [3, 3], (tokens, uniform) => { tokens.fill(Math.floor(uniform() * 3)) })
  const equal = await columnsFrom(copies, 3)
  const none = await conditionalEntropy(equal, 4, await ownEntropies(equal, slices), slices)
  t.ok(none.entropy.every(bits => near(bits, 0, 1e-9)), 'of exact copies nothing is left')

  const still = setOf(100, [2, 4], tokens => { tokens.fill(3) })
  const silent = await columnsFrom(still, 4)
  const nothing = await conditionalEntropy(silent, 0, await ownEntropies(silent, slices), slices)
  t.ok(nothing.share.every(value => Number.isNaN(value)), 'a token that never changes has no share')
  await t.rejects(conditionalEntropy(silent, 8, new Float64Array(8), slices), { code: 'INVALID_OPTION' })
})

t.test('small samples are told honestly', async t => {
  const set = setOf(800, [1, 16], (tokens, uniform) => { tokens.forEach((_, k) => { tokens[k] = uniform() * 20 }) })
  const columns = await columnsFrom(set, 20)
  const own = await ownEntropies(columns, slices)
  const found = await conditionalEntropy(columns, 0, own, slices)
  const bits = found.entropy.subarray(1).reduce((a, b) => a + b, 0) / 15
  t.ok(found.plugInBias > 0.3, `plain counts would be ${found.plugInBias.toFixed(2)} bits too low`)
  t.ok(near(bits, Math.log2(20), 0.03), `${bits.toFixed(3)} bits, in truth ${Math.log2(20).toFixed(3)}`)
  t.ok(near(found.residualBias, 0, 0.03), 'and what is left of the bias is said')
})

/** The rise of both orders at n = 4. */
async function bothOrders (set: TokenSet, codes: number, past = 1) {
  const columns = await columnsFrom(set, codes)
  const information = await pairInformation(columns, slices)
  const rise = async (order: 'distant' | 'raster') =>
    await parallelRise(columns, createSchedule({ grid: set.grid, n: 4, order }), information, past, slices)
  return { distant: await rise('distant'), raster: await rise('raster') }
}

t.test('the rise of a chain in closed form', async t => {
  const [codes, stay] = [3, 0.6]
  const entropy = (steps: number): number => chainEntropy(codes, stay, steps)
  const set = setOf(30_000, [8, 8], chains(codes, stay))
  const { distant, raster } = await bothOrders(set, codes)

  // Raster: in the second half of a row the last token of the group before is known; in the first half nothing is.
  for (let place = 0; place < 8; place++) {
    const truth = place % 4 === 0
      ? 0
      : place > 4 ? entropy(place - 3) - entropy(1) : Math.log2(codes) - entropy(1)
    for (const row of [1, 5]) {
      const found = raster.cells[row * 8 + place]!
      t.ok(near(found, truth, 0.015), `raster, place ${place}: ${found.toFixed(3)}, in truth ${truth.toFixed(3)}`)
    }
    if (place % 4 > 0) t.equal(raster.chosen[8 + place], 8 + place - 1, 'the neighbour tells most')
  }
  t.ok(raster.cells.subarray(0, 4).every(value => Number.isNaN(value)), 'the first group is drawn one by one')
  t.equal(raster.tokens, 60)
  const mean = (cells: Float64Array): number => cells.reduce((a, b) => a + (Number.isNaN(b) ? 0 : b), 0) / 60
  t.ok(near(raster.mean, mean(raster.cells), 1e-9))
  t.ok(near(raster.contributions.reduce((a, b) => a + b, 0) / 30_000, raster.mean, 1e-9))
  t.ok(near(raster.residualBias, 0, 0.001))

  // Distant: the left neighbour is known, so nothing else of the row tells anything; but for the first column of the
  // right regions, where the token four places to the left does.
  for (const cell of [1, 2, 3, 5, 6, 7].map(place => 16 + place)) {
    t.ok(near(distant.cells[cell]!, 0, 0.003), `distant, place ${cell % 8}: ${distant.cells[cell]!.toFixed(4)}`)
  }
  t.ok(near(distant.cells[8 + 4]!, Math.log2(codes) - entropy(4), 0.005))

  const [, , difference] = await bootstrap([distant.contributions, raster.contributions,
    differenceOf(raster.contributions, distant.contributions)], 100, randomOf(1), slices)
  t.ok(difference!.interval[0] > 0.1, 'neighbours depend strongly: distant raises less than raster')
})

t.test('the converse source', async t => {
  // The four regions hold the same picture of independent tokens, with some noise.
  const set = setOf(5000, [8, 8], (tokens, uniform) => {
    const picture = Array.from({ length: 16 }, () => Math.floor(uniform() * 4))
    for (let cell = 0; cell < 64; cell++) {
      const [row, column] = [Math.floor(cell / 8), cell % 8]
      tokens[cell] = uniform() < 0.1 ? Math.floor(uniform() * 4) : picture[row % 4 * 4 + column % 4]!
    }
  })
  const { distant, raster } = await bothOrders(set, 4)
  t.ok(distant.mean > 0.8, `distant ${distant.mean.toFixed(3)}`)
  t.ok(near(raster.mean, 0, 0.005), `raster ${raster.mean.toFixed(4)}`)
  const [difference] = await bootstrap([differenceOf(raster.contributions, distant.contributions)], 100, randomOf(1),
    slices)
  t.ok(difference!.interval[1] < -0.7, 'far tokens depend: distant raises more than raster')
})

t.test('two earlier tokens', async t => {
  // Each token is the sum of the two before it in its row, or not: only both together tell.
  const set = setOf(4000, [4, 8], (tokens, uniform) => {
    for (let k = 0; k < 32; k++) {
      tokens[k] = k % 8 < 2 || uniform() < 0.1 ? Math.floor(uniform() * 2) : tokens[k - 1]! ^ tokens[k - 2]!
    }
  })
  const one = await bothOrders(set, 2, 1)
  const two = await bothOrders(set, 2, 2)
  t.ok(two.raster.meanParallel < one.raster.meanParallel + 0.01)
  t.ok(two.raster.cells.every(value => Number.isNaN(value) || value > -0.01), 'never below 0')
  await t.rejects(bothOrders(set, 2, 3), { code: 'INVALID_OPTION', message: /past must be 1 or 2/ })
})

t.test('intervals hold the truth', async t => {
  const truth = (Math.log2(2) - chainEntropy(2, 0.8, 1)) // of each of the last three tokens of a group
  const draw = chains(2, 0.8)
  let inside = 0
  const repeats = 120
  for (let repeat = 0; repeat < repeats; repeat++) {
    const set = setOf(300, [2, 4], (tokens, uniform) => draw(tokens, uniform, 4), 100 + repeat)
    const columns = await columnsFrom(set, 2)
    const rise = await parallelRise(columns, createSchedule({ grid: [2, 4], n: 4, order: 'raster' }),
      await pairInformation(columns, slices), 1, slices)
    const [{ interval: [low, high] }] = await bootstrap([rise.contributions], 200, randomOf(repeat), slices) as
      [{ mean: number, interval: [number, number] }]
    if (low <= truth * 3 / 4 && truth * 3 / 4 <= high) inside++
  }
  t.ok(inside / repeats > 0.88 && inside / repeats <= 1, `${inside} of ${repeats} intervals of 95% hold it`)

  const random = randomOf(5)
  const values = Float64Array.from({ length: 1000 }, () => random() / 2 ** 32)
  const [found] = await bootstrap([values], 2000, randomOf(6), slices)
  const [low, high] = found!.interval
  t.ok(near(high - low, 2 * 1.96 * Math.sqrt(1 / 12 / 1000), 0.003), 'as wide as the normal distribution says')
  t.same(await bootstrap([values], 50, randomOf(6), slices), await bootstrap([values], 50, randomOf(6), slices))
})

t.test('groups of codes', async t => {
  // Three states, each with several codes that mean the same; states stay along a row.
  const hidden = (codesEach: number) => (tokens: Int32Array, uniform: () => number): void => {
    const states = new Int32Array(tokens.length)
    chains(3, 0.8)(states, uniform)
    states.forEach((state, k) => { tokens[k] = state + 3 * Math.floor(uniform() * codesEach) })
  }
  for (const [codesEach, pictures] of [[4, 300], [200, 3000]] as const) {
    const set = setOf(pictures, [8, 8], hidden(codesEach))
    const { map, groups, codes, grouped } = await groupCodes(set, 3, slices)
    t.same([groups, codes, grouped], [3, 3 * codesEach, true])
    const wrong = Array.from(map).filter((group, code) => group !== map[code % 3]).length
    t.ok(wrong <= 0.01 * codes && new Set(map.subarray(0, 3)).size === 3,
      `${codes} codes are their three states, ${wrong} are not`)
    t.same((await groupCodes(set, 3, slices)).map, map, 'the same again')
  }
  const few = await groupCodes(setOf(10, [2, 2], tokens => { tokens.set([7, 3, 7, 900]) }), 3, slices)
  t.same([few.groups, few.codes, few.grouped, few.map[3], few.map[7], few.map[900]], [3, 3, false, 0, 1, 2])
})

t.test('sets of tokens', async t => {
  for (const [token, type] of [[255, Uint8Array], [256, Uint16Array], [65536, Int32Array]] as const) {
    const builder = new TokenSetBuilder()
    builder.add(Int32Array.of(1, 2, 3, 4), [2, 2], 'a')
    builder.add(Int32Array.of(5, 6, 7, token, 1, 1, 1, 0), [2, 2], 'b')
    const set = builder.finish()
    t.ok(set.tokens instanceof type, `${token} in a ${type.name}`)
    t.same([set.pictures, ...set.tokens], [3, 1, 2, 3, 4, 5, 6, 7, token, 1, 1, 1, 0])
    t.same([...builder.finish(Int32Array.of(2, 0)).tokens], [1, 1, 1, 0, 1, 2, 3, 4])
    t.throws(() => builder.add(Int32Array.of(1, 2), [1, 2], 'c'),
      { code: 'BAD_TOKENS', message: /c: has 1 x 2.*2 x 2.*give --size/ })
    t.throws(() => builder.add(Int32Array.of(2 ** 24, 0, 0, 0), [2, 2], 'd'), { code: 'BAD_TOKENS' })
  }
  t.same([...evenly(10, 4)], [0, 2, 5, 7])
  t.same([...evenly(3, 5)], [0, 1, 2])
  t.same([...randomOrder(100, randomOf(3))].sort((a, b) => a - b), Array.from({ length: 100 }, (_, k) => k))
})

t.test('encoded pictures of clothes', async t => {
  const file = path.join(__dirname, '..', 'fixtures', 'fashion', 'tokens-2000.npy')
  const { data } = await readNpy(fs.readFileSync(file), file)
  const builder = new TokenSetBuilder()
  builder.add(data, [16, 16], file)
  const set = builder.finish()
  const order = randomOrder(set.pictures, randomOf(1))

  const pairs = await groupCodes(set, codesFor(2000, 2), slices)
  const columns = await columnsOf(set, pairs.map, pairs.groups, order, slices)
  const own = await ownEntropies(columns, slices)
  for (const cell of [4 * 16 + 4, 4 * 16 + 11, 11 * 16 + 4, 11 * 16 + 11]) {
    const { neighbours, far, alike, shareDifference, alikeDifference } = await conditionalEntropy(columns, cell, own,
      slices)
    t.ok(neighbours.share < far.share && alike.neighbours < alike.far, `reference ${cell}: neighbours below far cells`)
    const [share, bits] = await bootstrap([shareDifference, alikeDifference], 200, randomOf(1), slices)
    t.ok(share!.interval[1] < 0 && bits!.interval[1] < 0, 'beyond doubt')
  }

  const threes = await groupCodes(set, codesFor(2000, 3), slices)
  const small = await columnsOf(set, threes.map, threes.groups, order, slices)
  const information = await pairInformation(small, slices)
  const [distant, raster] = [
    await parallelRise(small, createSchedule({ grid: [16, 16], n: 4 }), information, 1, slices),
    await parallelRise(small, createSchedule({ grid: [16, 16], n: 4, order: 'raster' }), information, 1, slices)
  ]
  t.ok(distant.mean - distant.residualBias > 0.02 && distant.mean < raster.mean)
  const [difference] = await bootstrap([differenceOf(raster.contributions, distant.contributions)], 200, randomOf(1),
    slices)
  t.ok(difference!.interval[0] > 0.05, `raster - distant: ${difference!.interval.map(value => value.toFixed(3))}`)
})
