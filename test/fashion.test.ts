// The embedded model: its files give the numbers that PyTorch computed from them, and its pictures show what was asked
// for, as judged by a classifier that was trained on real pictures only.

import path from 'node:path'
import t from 'tap'
import { Par } from '../lib/index.js'
import { createSchedule } from '../lib/decoding/schedule.js'
import { classifier } from './support/classifier.js'
import { interleave, readExpected, rows, worst } from './support/tensors.js'

const expected = readExpected(path.join(__dirname, 'fixtures/fashion/expected.safetensors'))
const { classId, greedyGuidanceScale, testClasses } = expected.metadata

t.test('the numbers of PyTorch, float32', async t => {
  const par = await Par.load({ precision: 'float32' })
  t.teardown(() => par.dispose())
  const codes = rows(expected.ints('codes'), 2)
  const decoded = rows(expected.floats('decoded'), 2).map(planes => interleave(planes, 32, 32))
  const images = await par.decode(codes, { format: 'float32' })
  images.forEach((image, i) => t.ok(worst(image.data, decoded[i]!) <= 1e-3, `pixels of picture ${i}`))
  const inputs = rows(expected.floats('encode.input'), 2).map(planes => interleave(planes, 32, 32))
  for (const [i, data] of inputs.entries()) {
    t.same(await par.encode({ data, width: 32, height: 32 }), rows(expected.ints('encode.codes'), 2)[i],
      `codes of picture ${i}`)
  }
  for (const n of [1, 4, 16]) {
    const schedule = createSchedule({ grid: [16, 16], n })
    const tokens = schedule.toRaster(expected.ints(`n${n}.tokens`))
    const [score] = await par.score({ tokens, classId: Number(classId), n })
    t.ok(worst(schedule.toSequence(score!.logProbs), expected.floats(`n${n}.logprobs`)) <= 1e-3,
      `log-probabilities, n = ${n}`)
    const image = await par.generate({
      classId: Number(classId), n, greedy: true, guidanceScale: Number(greedyGuidanceScale)
    })
    t.same(image.tokens, expected.ints(`n${n}.greedy`), `greedy tokens, n = ${n}`)
  }
})

t.test('the numbers of PyTorch, float32: ARPG', async t => {
  const par = await Par.load('fashion-arpg', { precision: 'float32' })
  t.teardown(() => par.dispose())
  t.match(par.info.transformer, {
    method: 'arpg', layers: 4, dim: 128, classes: 10, vocabularySize: 128, grid: [16, 16], defaultSteps: 32
  })
  const order = expected.ints('arpg.order')
  const [score] = await par.score({
    tokens: rows(expected.ints('codes'), 2)[0]!, classId: Number(classId), tokenOrder: order, steps: 256
  })
  t.ok(worst(Float32Array.from(order, cell => score!.logProbs[cell]!), expected.floats('arpg.logprobs')) <= 1e-3,
    'log-probabilities in another order')
  const steps: number[] = []
  for (const count of [256, 64, 32, 16, 8]) {
    const image = await par.generate({ classId: 7, seed: 2, steps: count })
    steps.push(image.steps)
    t.equal(image.tokenOrder[0], 136, `${count} steps: the cell in the middle comes first`)
  }
  t.same(steps, [256, 64, 32, 16, 8])
})

t.test('pictures are recognised', async t => {
  const judge = classifier()
  const real = rows(expected.floats('encode.input'), 2).map(planes => interleave(planes, 32, 32))
  t.same(real.map(x => judge(Uint8Array.from(x, v => 127.5 * v + 127.5))), testClasses!.split(',').map(Number),
    'real test pictures')

  const par = await Par.load()
  t.teardown(() => par.dispose())
  const perClass = 20
  const classIds = Array.from({ length: 10 * perClass }, (_, i) => Math.floor(i / perClass))
  for (const [n, least] of [[4, 0.75], [16, 0.65], [1, 0.65]] as const) {
    const images = await par.generate({ classId: classIds, n, seed: 1 })
    const share = images.filter(image => judge(image.data) === image.classId).length / images.length
    t.ok(share >= least,
      `n = ${n}: ${Math.round(share * 100)}% of ${images.length} pictures recognised, ${least * 100}% asked`)
    t.equal(new Set(images.map(image => Buffer.from(image.data).toString('base64'))).size, images.length,
      `n = ${n}: no two alike`)
  }
})
