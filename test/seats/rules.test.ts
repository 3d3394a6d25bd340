// What a session refuses, and what it allows: seats, rows, slots, predictions.

import t from 'tap'
import { describeTransformer, openCheckpoint } from '../../lib/checkpoint/index.js'
import {
  addon, predictionStride, rowStride, type NativeSession, type NativeStep, type SessionOptions
} from '../../lib/machine/native.js'
import { StepMemory, composeStep, type StepPart } from '../../lib/decoding/step.js'
import { rejection, transformerFile } from '../support/fixtures.js'
import { golden } from '../support/golden.js'

const rule = { mode: 'inverse', temperature: 1, topK: 0, topP: 1 } as const
const shape: SessionOptions = { seats: 3, streamsEach: 2, slots: 64, tokens: 64, maxRows: 12, kept: 1 }
/** The class row: predicts token 0. */
const first = Int32Array.of(0, -1, -1, -1, -1, -1, 0, 1)

t.test('text in front of a sequence is never drawn or scored', async t => {
  const file = golden('nbp/model.ckpt')
  const { model, weights } = describeTransformer(await openCheckpoint(file), { vocabularySize: 60 })
  const engine = addon().createEngine({ device: 'cpu', threads: 1 })
  t.teardown(() => engine.dispose())
  const transformer = await engine.loadTransformer(file, weights, model, 'float32')
  const session = await transformer.createSession({ ...shape, streamsEach: 1, slots: 8, tokens: 8 })
  t.teardown(() => session.dispose())
  const known = Int32Array.of(60, 59, 61, -1, -1, -1, -1, -1)
  t.match(await rejection(session.enter(0, { classId: 0, seed: 1n, known: known.map(token => token + 50) })),
    { parvisCode: 'INVALID_OPTION', message: /Token 110 is outside 0\.\.109/ })
  await session.enter(0, { classId: 0, seed: 1n, known })
  const of = (token: number, mode: 'inverse' | 'score'): NativeStep => composeStep(
    [{ seat: 0, rows: Int32Array.of(token, -1, 0, -1, -1, -1, 0, 1), guidanceScale: 1, rule: { ...rule, mode } }], 1)
  for (const mode of ['inverse', 'score'] as const) {
    t.match(await rejection(session.step(of(0, mode))),
      { parvisCode: 'INVALID_OPTION', message: /predicts token 0, which is text/ }, mode)
  }
  t.same(await session.step(of(1, 'score')), [], 'a code beside it is scored')
})

t.test('seats and steps', async t => {
  const { path: file, ...options } = transformerFile('par-4x')
  const { model, weights } = describeTransformer(await openCheckpoint(file), options)
  const engine = addon().createEngine({ device: 'cpu', threads: 2 })
  t.teardown(() => engine.dispose())
  const transformer = await engine.loadTransformer(file, weights, model, 'float32')
  const invalid = async (work: Promise<unknown>, message: RegExp, name: string): Promise<void> => {
    t.match(await rejection(work), { parvisCode: 'INVALID_OPTION', message }, name)
  }

  for (const [name, wrong] of Object.entries({
    'no seats': { seats: 0 }, 'too many seats': { seats: 1 << 20 }, 'three streams': { streamsEach: 3 },
    'no slots': { slots: 0 }, 'no rows': { maxRows: 0 },
    'fewer than no logits': { kept: -1 }
  })) {
    await invalid((async () => await transformer.createSession({ ...shape, ...wrong } as SessionOptions))(),
      /session|seat/i, name)
  }

  const session = await transformer.createSession(shape)
  t.teardown(() => session.dispose())
  await invalid(session.enter(3, { classId: 1, seed: 1n }), /Seat 3 is outside 0\.\.2/, 'a seat beyond the last')
  await invalid(session.enter(-1, { classId: 1, seed: 1n }), /outside/, 'a seat before the first')
  await invalid(session.enter(0, { classId: model.classes + 1, seed: 1n }), /Class 11 is outside/,
    'a class that is not there')
  await invalid(session.enter(0, { classId: 1, seed: 1n, known: new Int32Array(3) }), /64 expected/,
    'too few known tokens')
  await invalid(session.enter(0, { classId: 1, seed: 1n, known: new Int32Array(64).fill(model.vocabularySize) }),
    /Token 256 is outside/, 'a token that is not there')
  await invalid(session.leave(0), /Nobody sits in seat 0/, 'leaving what was not taken')
  await invalid(session.readTokens(0), /Nobody sits in seat 0/, 'reading what was not taken')
  await session.enter(0, { classId: 1, seed: 1n })
  await session.enter(2, { classId: 2, seed: 2n, known: Int32Array.from({ length: 64 }, (_, i) => i) })
  await invalid(session.enter(0, { classId: 1, seed: 1n }), /Seat 0 is taken/, 'a seat that is taken')

  /** A step of seat 0 in which fields of rows and predictions are others. */
  const step = (change: (
    rows: Int32Array, predictions: Int32Array, floats: Float32Array, rules: Int32Array
  ) => void, guidanceScale = 1): NativeStep => {
    const { rows, predictions, rules } = composeStep([{ seat: 0, rows: first, guidanceScale, rule }], 2)
    change(rows, predictions, new Float32Array(predictions.buffer, predictions.byteOffset), rules)
    return { rows, predictions, rules }
  }
  for (const [name, change, message] of [
    ['a stream that is not there', rows => { rows[0] = 6 }, /nobody sits in stream 6/],
    ['a stream of a free seat', rows => { rows[0] = 2 }, /nobody sits in stream 2/],
    ['a special vector that is not there', rows => { rows[1] = -5 }, /input -5 does not exist/],
    ['a token that is not known', rows => { rows[1] = 0 }, /token 0, which is not known/],
    ['a learned position', rows => { rows[2] = 0 }, /learned position 0 does not exist/],
    ['a cell', rows => { rows[4] = -2 }, /bad rotation cell/],
    ['a far cell', rows => { rows[5] = 1 << 14 }, /bad rotation cell/],
    ['a slot beyond the cache', rows => { rows[6] = 64 }, /slot 64 is outside the cache/],
    ['sees nothing', rows => { rows[7] = 0 }, /sees 0 slots/],
    ['sees what nobody wrote', rows => { rows[7] = 2 }, /sees 2 slots, of which 1 are written/],
    ['sees its own slot only through a gap', rows => { rows[6] = 1; rows[7] = 2 },
      /sees 2 slots, of which 0 are written/],
    ['a row that is not there', (_, predictions) => { predictions[0] = 1 }, /row 1 does not exist/],
    ['guided by a row that is not there', (_, predictions) => { predictions[1] = 5 }, /row 5 does not exist/],
    ['a token beyond the sequence', (_, predictions) => { predictions[2] = 64 }, /token 64 does not exist/],
    ['a rule that is not there', (_, predictions) => { predictions[3] = 1 }, /rule 1 does not exist/],
    ['logits that are not kept', (_, predictions) => { predictions[4] = 1 }, /place 1 of kept logits/],
    ['endless guidance', (_, _ints, floats) => { floats[5] = Infinity }, /guidance scale is not finite/],
    ['a mode that is not there', (_, _ints, _floats, rules) => { rules[0] = 3 }, /sampling rule/],
    ['a negative top-k', (_, _ints, _floats, rules) => { rules[2] = -1 }, /sampling rule/],
    ['a score of what is not known', (_, _ints, _floats, rules) => { rules[0] = 1 },
      /scores token 0, which is not known/]
  ] as Array<[string, Parameters<typeof step>[0], RegExp]>) await invalid(session.step(step(change)), message, name)

  const two = composeStep([{ seat: 0, rows: Int32Array.of(...first, ...first), guidanceScale: 1, rule }], 2)
  await invalid(session.step(two), /slot 0 is written by another row too/, 'two rows with one slot')
  two.rows[rowStride + 6] = 1
  await invalid(session.step(two), /predicts token 0 a second time/, 'two predictions of one token')
  const shared = two.predictions.slice()
  shared[predictionStride] = 0
  shared[predictionStride + 2] = 1
  await invalid(session.step({ ...two, predictions: shared }), /is of row 0, which serves another one too/,
    'two predictions of one row')
  await invalid(session.step({ ...two, rows: new Int32Array(0), predictions: new Int32Array(0) }),
    /1\.\.12 rows, not 0/, 'no rows')
  await invalid(session.step(
    composeStep([0, 1, 2, 0, 1, 2, 0].map(seat => ({ seat, rows: first, guidanceScale: 2, rule })), 2)
  ), /rows, not 14/, 'too many rows')
  const apart = composeStep([{ seat: 0, rows: first, guidanceScale: 1, rule },
    { seat: 2, rows: first, guidanceScale: 1, rule }, { seat: 0, rows: first, guidanceScale: 1, rule }], 2)
  await invalid(session.step(apart), /rows of stream 0 do not follow each other|slot 0 is written/,
    'rows of a stream apart')
  const mixed = composeStep([{ seat: 0, rows: first, guidanceScale: 1, rule },
    { seat: 2, rows: first, guidanceScale: 1, rule }], 2)
  mixed.predictions[1] = 1
  await invalid(session.step(mixed), /guided by a row of another seat/, 'guided by another sequence')
  t.match(await rejection((async () => await session.step({ ...two, rows: new Int32Array(7) }))()),
    { parvisCode: 'INTERNAL', message: /rows ends inside a record/ })

  // A refused step changes nothing: the right one runs, and gives the token that a fresh session gives.
  const drawn = async (session: NativeSession): Promise<Int32Array> => {
    t.equal((await session.step(composeStep([{ seat: 0, rows: first, guidanceScale: 2, rule }], 2))).length, 0)
    return await session.readTokens(0)
  }
  const fresh = await transformer.createSession(shape)
  await fresh.enter(0, { classId: 1, seed: 1n })
  const tokens = await drawn(fresh)
  t.same(await drawn(session), tokens)
  t.ok(tokens[0]! >= 0 && tokens.subarray(1).every(token => token === -1))

  // A slot that is taken may be written again, and a row may write none: the next step sees what the last one wrote.
  const rows = (...slots: number[]): Int32Array =>
    Int32Array.from(slots.flatMap((slot, i) => [i + 1, 0, -1, 0, 0, i, slot, 2]))
  const then = async (session: NativeSession, table: Int32Array): Promise<Int32Array> => {
    await session.step(composeStep([{ seat: 0, rows: table, guidanceScale: 2, rule }], 2))
    return await session.readTokens(0)
  }
  await then(fresh, rows(1))
  const again = await then(fresh, rows(1, -1))
  const once = await then(session, rows(1, -1))
  t.same(again, once, 'writing a slot again leaves what the last row wrote')
  t.equal(predictionStride, 6)
  await fresh.dispose()
})

// Steps of other sizes, rules, seats and guidance in one memory: each as in a memory of its own.
t.test('memory that is used again', t => {
  const score = { ...rule, mode: 'score' } as const
  const silent = Int32Array.from(first)
  silent[0] = -1 // predicts nothing
  const three = Int32Array.of(...first, ...silent, ...first)
  const part = (seat: number, rows: Int32Array, guidanceScale: number, more: Partial<StepPart> = {}): StepPart =>
    ({ seat, rows, guidanceScale, rule, ...more })
  const memory = new StepMemory(false)
  for (const [name, parts] of Object.entries({
    'one guided row': [part(0, first, 2)],
    'more rows and seats': [part(0, three, 2), part(2, first, 1), part(1, three, 3)],
    'fewer again, not guided': [part(1, first, 1)],
    'rows that predict nothing': [part(0, silent, 2)],
    'another rule': [part(0, first, 2, { rule: score, kept: new Map([[0, 0]]) })],
    'two rules': [part(0, first, 2), part(1, first, 2, { rule: score }), part(2, first, 2)],
    'the first rule again': [part(0, first, 2)]
  })) {
    t.same(memory.compose(parts, 2), composeStep(parts, 2), name)
  }
  const { rows, predictions } = memory.compose([part(1, three, 2)], 2)
  t.same([...rows].filter((_, i) => i % rowStride === 0), [2, 2, 2, 3, 3, 3], 'streams of the seat')
  t.same([...predictions].filter((_, i) => i % predictionStride < 3), [0, 3, 0, 2, 5, 0], 'rows of the predictions')
  t.end()
})
