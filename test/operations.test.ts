// Every operation by itself against a plain reference in double precision (support/operations.ts), in the shapes of
// support/operation-cases.ts. On the device that PARVIS_TEST_DEVICE names. PARVIS_OPERATIONS=small leaves out the
// official shapes (for the simulated GPU).

import t from 'tap'
import { addon, type Operation, type OperationRun, type Precision } from '../lib/native.js'
import { transformerModel, vq16 } from '../lib/shapes.js'
import { device, rejection } from './support/fixtures.js'
import { decodeOperations, edgeOperations, stepOperations, type OperationCase } from './support/operation-cases.js'
import { inputShapes, randomInputs, reference, worstOfLargest } from './support/operations.js'

const small = process.env.PARVIS_OPERATIONS === 'small'
const engine = addon().createEngine({ device: device === 'cuda' ? 'cuda:0' : device, threads: device === 'cpu' ? 2 : 0 })
t.teardown(() => engine.dispose())

const kinds = ['projection', 'attention', 'draw', 'convolution', 'spatialAttention'] as const
const once: OperationRun = { copies: 1, warmup: 0, repeats: 0 }

/** Model L at n = 4, and VQ-16 on 2 x 2 tokens: the channels of a real one, few pixels. */
function official (precision: Precision): OperationCase[] {
  return [
    ...stepOperations(transformerModel('L', 4), { n: 4, batch: 1, grid: 24, precision }),
    ...decodeOperations(vq16, { grid: 2, batch: 1, precision })
  ].map(({ name, operation }) => ({ name: `official ${name}`, operation }))
}

/**
 * Of the largest number. float32: a sum of k products is off by some sqrt(k) roundings of 6e-8. bfloat16: inputs are rounded
 * here as there; what is left are results, and numbers between two products, whose rounding (2^-9) falls to the other side.
 */
const tolerance = { float32: 1e-5, bfloat16: 1e-2 } as const

/** A width that the CUDA backend refuses, of models as of operations. */
const odd = (o: Operation): boolean => device !== 'cpu' && ((o.kind === 'projection' && o.inputs % 2 !== 0) || (o.kind === 'attention' && o.dim % 2 !== 0))
const runnable = (precision: Precision): OperationCase[] =>
  edgeOperations(precision).filter(({ operation }) => !odd(operation))
/**
 * Its group norms take the squares' sum less the sum's square. Over two numbers that are nearly the same, both in float32,
 * that leaves few digits: the worst of the table loses 1e-3.
 */
const fewNormed = (o: Operation): boolean => device !== 'cpu' && (o.kind === 'convolution' || o.kind === 'spatialAttention') && o.groups > 0 && o.images * o.height * o.width * o.channels / o.groups <= 2

for (const precision of ['float32', 'bfloat16'] as const) {
  const cases = [...runnable(precision), ...small ? [] : official(precision)]
  for (const kind of kinds) {
    t.test(`${kind}, ${precision}`, async t => {
      let greatest = 0
      for (const { name, operation } of cases.filter(one => one.operation.kind === kind)) {
        const inputs = randomInputs(operation)
        const { output, ms } = await engine.runOperation(operation, { ...once, inputs })
        const expected = reference(operation, inputs, device)
        t.equal(ms.length, 0)
        if (kind === 'draw') {
          t.same([...output], [...expected], name)
          continue
        }
        const error = worstOfLargest(output, expected)
        greatest = Math.max(greatest, error)
        t.ok(error <= (fewNormed(operation) ? 1e-2 : tolerance[precision]), `${name}: ${error.toExponential(1)}`)
      }
      if (kind !== 'draw') t.comment(`greatest error: ${greatest.toExponential(1)} of the largest number`)
    })
  }
}

t.test('edges: sizes that no model of the paper has', async t => {
  const all = edgeOperations('float32')
  t.equal(new Set(all.map(({ name }) => name)).size, all.length, 'each has a name of its own')
  const some = (what: string, test: (o: Operation) => boolean): void => {
    t.ok(all.some(({ operation }) => test(operation)), what)
  }
  for (const size of [4, 100, 128]) some(`heads of ${size}`, o => o.kind === 'attention' && o.headSize === size)
  for (const rows of [1, 8, 9, 33, 70]) {
    const odd = (size: number): boolean => size % 32 !== 0
    some(`${rows} rows`, o => o.kind === 'projection' && o.rows === rows && (odd(o.inputs) || odd(o.outputs)))
  }
  some('shared keys', o => o.kind === 'attention' && o.kvHeads < o.heads)
  some('nothing before', o => o.kind === 'attention' && o.sees === o.rows)
  some('odd vocabulary', o =>
    o.kind === 'draw' && o.vocabularySize % 2 === 1 && o.guided && o.rule.topK > 0 && o.rule.topP < 1)
  for (const resample of ['up', 'down'] as const) {
    some(resample, o => o.kind === 'convolution' && o.resample === resample && o.channels % 16 !== 0)
  }
  some('a residual', o => o.kind === 'convolution' && o.residual && o.kernel === 3 && o.groups > 0)
})

t.test('timed on random numbers', async t => {
  for (const precision of ['float32', 'bfloat16'] as const) {
    for (const kind of kinds) {
      const { operation, name } = runnable(precision).filter(one => one.operation.kind === kind).at(small ? 1 : -1)!
      const { output, ms } = await engine.runOperation(operation, { copies: 3, warmup: 1, repeats: 4 })
      t.same([output.length, ms.length], [0, 4], name)
      t.ok(ms.every(time => time > 0 && time < 60_000), name)
    }
  }
  const { operation } = runnable('float32').find(({ operation }) => operation.kind === 'projection' && operation.epilogue === 'add')!
  const inputs = randomInputs(operation)
  const both = await engine.runOperation(operation, { inputs, copies: 1, warmup: 1, repeats: 2 })
  const alone = await engine.runOperation(operation, { ...once, inputs })
  t.same([both.output, both.ms.length], [alone.output, 2], 'the output is that of the first run')
})

t.test('what cannot be run is refused', async t => {
  const of = <K extends Operation['kind']> (kind: K): Extract<Operation, { kind: K }> => edgeOperations('float32').find(one => one.operation.kind === kind)!.operation as Extract<Operation, { kind: K }>
  const pictures = { images: 1, height: 4, width: 4, channels: 8, groups: 4 } as const
  const wrong: Array<[string, Operation, Partial<OperationRun>?]> = [
    ['no rows', { ...of('projection'), rows: 0 }], ['no inputs', { ...of('projection'), inputs: 0 }], ['negative outputs', { ...of('projection'), outputs: -1 }], ['eps', { ...of('projection'), eps: 0 }],
    ['eps', { ...of('projection'), eps: NaN }], ['no copies', of('projection'), { copies: 0 }], ['negative repeats', of('projection'), { repeats: -1 }],
    ['more rows than it sees', { ...of('attention'), rows: 5, sees: 4 }], ['heads that do not divide', { ...of('attention'), heads: 5, kvHeads: 2 }], ['a head of 6', { ...of('attention'), headSize: 6 }],
    ['no grid', { ...of('attention'), grid: 0 }], ['a cell beyond the last', { ...of('attention'), sees: (1 << 14) + 1, grid: 1 }],
    ['no vocabulary', { ...of('draw'), vocabularySize: 0 }], ['negative temperature', { ...of('draw'), rule: { ...of('draw').rule, temperature: -1 } }], ['top-p 0', { ...of('draw'), rule: { ...of('draw').rule, topP: 0 } }],
    ['score', { ...of('draw'), rule: { ...of('draw').rule, mode: 'score' } }],
    ['kernel 2', { ...of('convolution'), ...pictures, kernel: 2 as 3 }], ['1x1 that resamples', { ...of('convolution'), ...pictures, kernel: 1, resample: 'up' }],
    ['odd height halved', { ...of('convolution'), ...pictures, height: 5, kernel: 3, resample: 'down' }], ['groups that do not divide', { ...of('convolution'), ...pictures, groups: 3 }],
    ['attention without a norm', { ...of('spatialAttention'), ...pictures, groups: 0 }], ['no channels', { ...of('spatialAttention'), ...pictures, channels: 0 }]
  ]
  for (const [name, operation, run] of wrong) t.match(await rejection(engine.runOperation(operation, { ...once, ...run })), { parvisCode: 'INVALID_OPTION', message: /outside its range/ }, `${operation.kind}: ${name}`)
  for (const kind of kinds) {
    const operation = edgeOperations('float32').filter(one => one.operation.kind === kind).at(-1)!.operation
    const inputs = randomInputs(operation)
    t.same(inputs.map(({ length }) => length), inputShapes(operation).map(shape => shape.reduce((a, b) => a * b, 1)))
    for (const changed of [inputs.slice(1), [...inputs, new Float32Array(1)], inputs.map((one, k) => k === 0 ? one.slice(1) : one)]) {
      if (changed.length === 0) continue // those are random numbers
      t.match(await rejection(engine.runOperation(operation, { ...once, inputs: changed })), { parvisCode: 'INVALID_OPTION', message: /shapes/ }, `${kind}: other inputs`)
    }
    t.match(await rejection(engine.runOperation(operation, { ...once, copies: 2, inputs })), { parvisCode: 'INVALID_OPTION' }, `${kind}: copies of given numbers`)
  }
})

t.test('odd widths', { skip: device === 'cpu' ? 'the CPU runs them' : false }, async t => {
  for (const { name, operation } of edgeOperations('bfloat16').filter(one => odd(one.operation))) {
    t.match(await rejection(engine.runOperation(operation, { ...once, inputs: randomInputs(operation) })), { parvisCode: 'INVALID_OPTION', message: /cannot run .* is odd/ }, name)
  }
})

t.test('logits that no token can be drawn from', async t => {
  const { operation } = edgeOperations('float32').find(one => one.operation.kind === 'draw' && one.operation.vocabularySize > 1)!
  const inputs = randomInputs(operation)
  inputs[0]![1] = NaN
  t.match(await rejection(engine.runOperation(operation, { ...once, inputs })), { parvisCode: 'NON_FINITE' })
})

t.test('what does not fit into memory is refused, and what was cancelled ends', async t => {
  const huge: Operation = { precision: 'float32', eps: 1e-5, kind: 'projection', rows: 1, inputs: 1 << 20, outputs: 1 << 22, normed: false, epilogue: 'store' }
  for (const copies of [1, 1 << 16]) t.match(await rejection(engine.runOperation(huge, { copies, warmup: 0, repeats: 1 })), { parvisCode: 'OUT_OF_MEMORY', message: /need \d+/ })
  const cancel = addon().createCancel()
  const { operation } = runnable('float32')[0]!
  const running = engine.runOperation(operation, { copies: 1, warmup: 0, repeats: 1 << 20 }, cancel)
  cancel.cancel()
  t.match(await rejection(running), { parvisCode: 'CANCELLED' })
})
