// The arithmetic of the benchmarks on numbers that no machine measured; costs against counts made by hand.

import t from 'tap'
import fs from 'node:fs'
import { better, explain, extrapolate, places, shares, speedUp, spread } from '../../lib/bench/figures.js'
import { stepsOfPicture, stepsOfVideo, table2, table3 } from '../../lib/bench/paper.js'
import { randomWeights } from '../../lib/models/random-weights.js'
import { rowStride } from '../../lib/machine/native.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import {
  decodeFlops, itemBytes, modelNames, stepCost, transformerModel
} from '../../lib/models/shapes.js'
import { vq16, vqTokenizer } from '../../lib/models/vq.js'
import { tokenizerWeights, transformerWeights } from '../../lib/models/weights.js'
import { pretend } from './pretend.js'

t.test('median, least, greatest', async t => {
  t.same(spread([3, 1, 2]), { median: 2, least: 1, greatest: 3 })
  t.same(spread([4, 1, 3, 2]), { median: 2.5, least: 1, greatest: 4 })
  t.same(spread([10, 9]), { median: 9.5, least: 9, greatest: 10 })
})

t.test('places stand for every step once', async t => {
  for (const [grid, n] of [[24, 1], [24, 4], [24, 16], [8, 16], [4, 4], [2, 4]] as const) {
    const schedule = createSchedule({ grid: [grid, grid], n })
    const chosen = places(schedule, 8)
    t.equal(chosen.reduce((sum, { steps }) => sum + steps, 0), schedule.steps.length, `${grid}, n = ${n}`)
    chosen.reduce((end, place) => {
      t.equal(place.from, end)
      t.ok(place.from <= place.step && place.step < place.to)
      t.equal(schedule.steps[place.step]!.length / rowStride, place.single ? 1 : n)
      return place.to
    }, 0)
    t.same(chosen.filter(({ single }) => single).map(({ steps }) => steps), n > 1 ? [n] : [])
  }
  // A clock by which a step costs 1 ms and a slot that it sees 0.01 ms: the middles of equal parts give the very sum.
  const schedule = createSchedule({ grid: [24, 24], n: 4 })
  const cost = (k: number): number => 1 + 0.01 * schedule.tokensAfter[k]!
  const exact = schedule.steps.reduce((sum, _, k) => sum + cost(k), 0)
  const found = extrapolate(places(schedule, 8).map(({ step, steps }) => ({ steps, ms: cost(step) })))
  t.ok(Math.abs(found / exact - 1) < 0.01, `${found} of ${exact}`)
})

t.test('speed-up over n = 1', async t => {
  // A step takes 20 ms whatever n is: the step counts are the speed-up.
  const same = [1, 4, 16].map(n => pretend({ n, step: 20 }))
  t.same(same.map(one => one.steps), [576, 147, 51])
  for (const one of same) {
    const up = speedUp(one, same)!
    t.ok(Math.abs(up.measured - 576 / one.steps) < 1e-9 && Math.abs(up.stepRatio - 1) < 1e-9)
    t.equal(explain(one, same), undefined, 'nothing to explain')
  }
  // At n = 16 it takes twice as long.
  const slow = [same[0]!, pretend({ n: 16, step: 40, ofReadCeiling: 0.4, ofArithmeticCeiling: 0.6 })]
  const up = speedUp(slow[1]!, slow)!
  t.ok(Math.abs(up.measured - 576 / 51 / 2) < 1e-9 && Math.abs(up.stepRatio - 2) < 1e-9)
  t.match(explain(slow[1]!, slow),
    /^L, n = 16, bfloat16, cpu: 5\.65x where the steps alone give 11\.29x, because an average step takes 2\.00x one .*Of its 40\.0 ms the machine's ceilings explain 16\.0 \(40%\) by reading and 24\.0 \(60%\) by products: products limit it/)
  t.match(explain({ ...slow[1]!, ofArithmeticCeiling: 0.3 }, slow), /neither is near/)
  t.match(explain({ ...slow[1]!, ofReadCeiling: 0.9 }, slow), /: reading limits it/)
  t.match(explain(pretend({ n: 4, step: 10 }), same), /the machine was slower while n = 1 was measured/)
  t.equal(speedUp(same[1]!, same.slice(1)), undefined, 'without n = 1')
  t.equal(speedUp(pretend({ n: 4, step: 20, batch: 2 }), same), undefined, 'another batch')
})

t.test('shares are of the greater measurement', async t => {
  const low = { readBytesPerSecond: 10e9, float32Flops: 200e9, bfloat16Flops: 300e9 }
  const high = { readBytesPerSecond: 40e9, float32Flops: 100e9, bfloat16Flops: 400e9 }
  const best = better(low, high)
  t.same(best, { readBytesPerSecond: 40e9, float32Flops: 200e9, bfloat16Flops: 400e9 })
  t.same(shares({ precision: 'bfloat16', gigabytesPerSecond: 20, gigaflops: 100 }, best),
    { ceilings: best, ofReadCeiling: 0.5, ofArithmeticCeiling: 0.25 })
  t.same(shares({ precision: 'float32', gigaflops: 100 }, best), { ceilings: best, ofArithmeticCeiling: 0.5 })
  t.same(shares({ precision: 'float32', gigaflops: 100 }, null), { ceilings: null }, 'none is invented')
})

t.test('what a step costs', async t => {
  // L by hand: 24 layers of 1024 x (3 + 1) x 1024 and 3 x 2816 x 1024, and the head of 16384 x 1024.
  const matrices = 24 * (4 * 1024 * 1024 + 3 * 2816 * 1024) + 16384 * 1024
  const cost = stepCost(transformerModel('L', 4), 'bfloat16', { rows: 4, sees: 288, sequences: 2 })
  t.equal(cost.weightBytes, 2 * matrices)
  t.equal(cost.cacheBytes, 2 * (288 + 4) * 24 * 2 * 1024 * 2)
  t.equal(cost.flops, 8 * (2 * matrices + 4 * 288 * 24 * 1024))
  t.equal(itemBytes('float32'), 4)
  // The published sizes: parameters of all tensors (design, section 1).
  const millions = modelNames.map(name =>
    transformerWeights(transformerModel(name, 1)).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b),
      0) / 1e6)
  t.same(millions.map(count => count < 1000 ? `${Math.round(count)}M` : `${(count / 1000).toFixed(1)}B`),
    ['111M', '343M', '775M', '1.4B', '3.1B'])
  t.ok(Math.abs(decodeFlops(24) / 567e9 - 1) < 0.01,
    `${decodeFlops(24) / 1e9} GFLOP a decode, of 567 in the design (which counts attention too)`)
})

t.test("the paper's tables follow from the schedule", async t => {
  for (const { name, n, steps } of table2) t.equal(stepsOfPicture(n), steps, name)
  for (const { name, n, steps } of table3) t.equal(stepsOfVideo(n), steps, name)
  t.same([1, 4, 16].map(stepsOfPicture), [576, 147, 51])
  t.same([1, 4, 16].map(stepsOfVideo), [1280, 323, 95])
})

t.test('random weights', async t => {
  const lists = [transformerWeights(transformerModel('B', 4)), tokenizerWeights(vqTokenizer(vq16))]
  const { file, weights, remove } = await randomWeights(lists)
  t.teardown(remove)
  const { size } = fs.statSync(file)
  t.ok(size < 40e6, 'no larger than the largest tensor, and some ones')
  const data = fs.readFileSync(file)
  for (const { name, shape, offset, dtype } of lists.flatMap(weights).map(({ parts }) => parts[0]!)) {
    const count = shape.reduce((a, b) => a * b, 1)
    if (offset + count * 2 > size || dtype !== 'bfloat16') t.fail(`${name} reaches beyond the file`)
    if (/norm.*\.weight$/i.test(name) !== (data.readUInt16LE(offset) === 0x3f80)) {
      t.fail(`${name}: norms are ones, and nothing else is`)
    }
  }
  const magnitudes = Array.from({ length: 1000 }, (_, i) => data.readUInt16LE(2 * i) & 0x7fff)
  t.ok(magnitudes.every(bits => bits >= 121 << 7 && bits < 122 << 7), '0.016 to 0.031')
  await remove()
  t.notOk(fs.existsSync(file))
  await t.rejects(randomWeights(lists, AbortSignal.abort(new Error('stop'))), { message: 'stop' })
})
