// Profiles as rows of a report, on launches that no machine timed; and what sessions and tokenizers record.

import t from 'tap'
import { groupParts, limitOf } from '../../lib/bench/figures.js'
import { operationsOf } from '../../lib/bench/profile.js'
import { randomWeights } from '../../lib/models/random-weights.js'
import { addon, type LaunchRecord } from '../../lib/machine/native.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { decodeFlops, transformerModel } from '../../lib/models/shapes.js'
import { composeStep, seatedSession } from '../../lib/decoding/step.js'
import { vq16, vqTokenizer } from '../../lib/models/vq.js'
import { tokenizerWeights, transformerWeights } from '../../lib/models/weights.js'
import { device } from '../support/fixtures.js'
import { olderOperations, pretend, pretendOperations } from './pretend.js'

const of = { partOf: 'decode', model: 'VQ-16', device: 'cpu', batch: 1, grid: 24, precision: 'bfloat16' } as const

t.test('one row for each name and shape', async t => {
  const convolution = { name: 'convolution', bytes: 4e6, flops: 8e9 }
  const run = (ms: number): LaunchRecord[] => [
    { ...convolution, shape: 'a', ms },
    { name: 'group norm', shape: 'a', bytes: 2e6, flops: 0, ms: 1 },
    { ...convolution, shape: 'b', ms: 5 },
    { ...convolution, shape: 'a', ms: ms + 2 }
  ]
  const found = operationsOf([...run(1), ...run(2)], 2, of)
  t.same(found.map(({ name, shape, times }) => [name, shape, times]), [
    ['convolution', 'a', 2], ['group norm', 'a', 1], ['convolution', 'b', 1]
  ])
  t.match(found[0], {
    ...of, ms: { median: 2.5, least: 1, greatest: 4 }, msInAll: 5, bytes: 4e6, flops: 8e9, gigabytesPerSecond: 1.6,
    gigaflops: 3200, ceilings: null
  })
  const [still] = operationsOf([{ ...convolution, shape: 'a', ms: 0 }], 1, of)
  t.ok(Number.isFinite(still!.gigaflops), 'a clock that has not ticked')
  t.same(operationsOf([], 1, of), [])
})

t.test('sums and limits', async t => {
  const results = [pretend({ n: 4, step: 20 }), pretend({ n: 16, step: 30 })]
  const [step, decode, gpu] = groupParts(pretendOperations(), results)
  t.ok(Math.abs(step!.sum - 27 * 0.5) < 1e-9)
  t.equal(step!.whole, 20)
  t.ok(Math.abs(decode!.sum - 15 * 100) < 1e-6)
  t.same([decode!.whole, gpu!.whole], [undefined, undefined])
  const others = [pretend({ n: 4, step: 20, precision: 'float32' }), pretend({ n: 4, step: 20, batch: 2 })]
  t.equal(groupParts(pretendOperations(), others)[0]!.whole, undefined, 'of another one')
  t.equal(groupParts(olderOperations(), [])[0]!.sum, step!.sum, 'a part of a part is counted once')
  t.equal(limitOf({ ceilings: null }), undefined)
  t.equal(limitOf({ ceilings: null, ofReadCeiling: 0.5, ofArithmeticCeiling: 0.4 }), 'reading')
  t.equal(limitOf({ ceilings: null, ofReadCeiling: 0.3, ofArithmeticCeiling: 0.4 }), 'products')
})

/** Bytes of an activation in bfloat16. */
const activation = device !== 'cpu' || addon().cpu().bfloat16 ? 2 : 4

t.test('what a tokenizer records', async t => {
  const cpu = device === 'cpu'
  const engine = addon().createEngine({ device: cpu ? 'cpu' : 'cuda:0', threads: cpu ? 2 : 0 })
  const model = vqTokenizer(vq16)
  const list = tokenizerWeights(model)
  const weights = await randomWeights([list])
  t.teardown(async () => { await engine.dispose(); await weights.remove() })
  const tokenizer = await engine.loadTokenizer(weights.file, weights.weights(list), model, 'bfloat16')
  const size = { count: 1, gridHeight: 4, gridWidth: 4, outHeight: 64, outWidth: 64 }
  const tokens = Int32Array.from({ length: 16 }, (_, i) => i)
  const decode = async (): Promise<Uint8Array> => await tokenizer.decode(tokens, { ...size, format: 'uint8' })
  const sum = (records: LaunchRecord[]): number => records.reduce((total, { flops }) => total + flops, 0)

  const plain = await decode()
  t.same(await tokenizer.profile(true), [], 'nothing before it is asked for')
  t.same(await decode(), plain, 'the same picture')
  const records = await tokenizer.profile(true)
  const attentions = records.filter(({ name }) => name === 'attention')
  t.equal(attentions.length, 4)
  t.equal(sum(records), decodeFlops(4) + sum(attentions), 'the convolutions are those of a decode')
  t.equal(attentions[0]!.flops, 4 * 16 ** 2 * 512)
  t.match(attentions[0], { shape: '512, 4 x 4', bytes: 4 * 16 * 512 * activation })
  const shapes = records.filter(({ name }) => name === 'convolution').map(({ shape }) => shape)
  // Five levels of three residual blocks and two in the middle; 1x1: post_quant, two shortcuts, four in each attention.
  t.equal(shapes.filter(shape => shape.startsWith('3x3')).length, 1 + 2 * 17 + 4 + 1)
  t.equal(shapes.filter(shape => shape.startsWith('1x1')).length, 1 + 2 + 4 * 4)
  t.same(shapes.filter(shape => shape.endsWith(', up')), [
    '3x3, 512 -> 512, 4 x 4, up', '3x3, 256 -> 256, 8 x 8, up', '3x3, 256 -> 256, 16 x 16, up',
    '3x3, 128 -> 128, 32 x 32, up'
  ])
  t.equal(shapes.at(-1), '3x3, 128 -> 3, 64 x 64, normed')
  t.ok(records.every(({ ms }) => ms >= 0 && ms < 60_000))
  t.ok(records.some(({ ms }) => ms > 0))

  await tokenizer.encode(new Float32Array(32 * 48 * 3), { count: 1, height: 32, width: 48 })
  const encoded = await tokenizer.profile(false)
  t.equal(encoded.filter(({ shape }) => shape.endsWith(', down')).length, 4)
  const nearest = encoded.find(({ name }) => name === 'nearest code')
  t.match(nearest, { shape: '6 of 8, 16384 rows', flops: 2 * 6 * 16384 * 8 })
  await decode()
  t.same(await tokenizer.profile(false), [], 'nothing once it is off')
  tokenizer.dispose()
  t.match(await tokenizer.profile(true).catch(error => error), { parvisCode: 'DISPOSED' })
})

t.test('what a session records', async t => {
  const cpu = device === 'cpu'
  const engine = addon().createEngine({ device: cpu ? 'cpu' : 'cuda:0', threads: cpu ? 2 : 0 })
  const model = { ...transformerModel('B', 4), layers: 2 }
  const list = transformerWeights(model)
  const weights = await randomWeights([list])
  t.teardown(async () => { await engine.dispose(); await weights.remove() })
  const transformer = await engine.loadTransformer(weights.file, weights.weights(list), model, 'bfloat16')
  const schedule = createSchedule({ grid: [4, 4], n: 4 })
  /** Tokens of two pictures, guided; the last step's records where it is profiled. */
  const picture = async (profiled: boolean): Promise<{ tokens: Int32Array[], records: LaunchRecord[] }> => {
    const session = await seatedSession(transformer, {
      streamsEach: 2, slots: 16, tokens: 16, kept: 0, maxRows: 4 * schedule.maxRows
    }, [3, 5].map(classId => ({ classId, seed: 1n })))
    for (const rows of schedule.steps) {
      if (profiled) await session.profile(true)
      await session.step(composeStep([0, 1].map(seat => (
        { seat, rows, guidanceScale: 2, rule: { mode: 'inverse', temperature: 1, topK: 0, topP: 1 } }
      )), 2))
    }
    const tokens = [await session.readTokens(0), await session.readTokens(1)]
    const records = await session.profile(false)
    await session.dispose()
    t.match(await session.profile(true).catch(error => error), { parvisCode: 'DISPOSED' })
    return { tokens, records }
  }
  const plain = await picture(false)
  t.same(plain.records, [])
  const { tokens, records } = await picture(true)
  t.same(tokens, plain.tokens, 'the same tokens')
  // The last step: 16 rows, four a stream, each of which sees all 16 slots.
  const { dim, feedForward, heads, headSize, vocabularySize } = model
  const projections = records.filter(({ name }) => name === 'projection')
  const layer = [`16 x ${dim} -> ${3 * dim}`, `16 x ${dim} -> ${dim}, added`,
    `16 x ${dim} -> ${2 * feedForward}, swiglu`, `16 x ${feedForward} -> ${dim}, added`]
  t.same(projections.map(({ shape }) => shape), [...layer, ...layer, `16 x ${dim} -> ${vocabularySize}`])
  t.match(projections.at(-1), {
    flops: 2 * 16 * dim * vocabularySize,
    bytes: 2 * dim * vocabularySize + activation * 16 * dim + 4 * 16 * vocabularySize
  })
  const attentions = records.filter(({ name }) => name === 'attention')
  t.equal(attentions.length, 2)
  t.match(attentions[0], {
    shape: `16 rows, ${heads} heads of ${headSize}, 16 slots`, flops: 4 * 16 * 16 * dim,
    bytes: activation * 2 * 16 * dim + 2 * 2 * 4 * 16 * dim
  })
  t.same(records.filter(({ name }) => name === 'draw').map(({ shape }) => shape), [`8 of ${vocabularySize}`])
  t.equal(records.filter(({ name }) => name === 'embedding').length, 1)
  t.ok(records.every(({ ms }) => ms >= 0 && ms < 60_000) && records.some(({ ms }) => ms > 0))
  transformer.dispose()
})
