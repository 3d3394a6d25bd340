// Every operation of the CPU backend by itself against a plain reference in double precision (support/operations.ts),
// in the shapes of support/operation-cases.ts. An addon of its own runs them (support/operations-addon.ts).

import t from 'tap'
import { addon as native, type Precision } from '../lib/machine/native.js'
import { transformerModel } from '../lib/models/shapes.js'
import { vq16, vqTokenizer } from '../lib/models/vq.js'
import { rejection } from './support/fixtures.js'
import { decodeOperations, edgeOperations, stepOperations, type OperationCase } from './support/operation-cases.js'
import { operationsAddon, type Operation, type OperationsAddon } from './support/operations-addon.js'
import { inputShapes, randomInputs, reference, worstOfLargest } from './support/operations.js'

t.setTimeout(1_200_000) // a first build takes minutes
let addon: OperationsAddon
t.before(async () => { addon = await operationsAddon() })
const run = (operation: Operation, inputs: Float32Array[]): Float32Array => addon.run(operation, inputs, 2)
const failure = async (operation: Operation, inputs: Float32Array[]): Promise<unknown> =>
  await rejection((async () => run(operation, inputs))())

const kinds = ['projection', 'attention', 'draw', 'convolution', 'spatialAttention'] as const

/** Model L at n = 4, and VQ-16 on 2 x 2 tokens: the channels of a real one, few pixels. */
function official (precision: Precision): OperationCase[] {
  return [
    ...stepOperations(transformerModel('L', 4), { n: 4, batch: 1, grid: 24, precision }),
    ...decodeOperations(vqTokenizer(vq16), { grid: 2, batch: 1, precision })
  ].map(({ name, operation }) => ({ name: `official ${name}`, operation }))
}

const { isa, isas, bfloat16 } = native().cpu()
const multiplied = bfloat16 ? 'bfloat16' : 'float32'

/**
 * Of the largest number. A sum of k products is off by some sqrt(k) roundings of 6e-8. Inputs are rounded here as
 * there; what is left of bfloat16 are numbers between two products, whose rounding (2^-9) falls to the other side.
 */
function tolerance (precision: Precision, kind: Operation['kind']): number {
  const between = multiplied === 'bfloat16' || kind === 'attention'
  return precision !== 'float32' && between ? 1e-2 : 1e-5
}

/** Asked for in a process of its own: the shapes of real models take long in the reference. */
const isOther = process.env.PARVIS_ISA !== undefined
if (!isOther) {
  for (const other of isas.filter(name => name !== isa)) {
    // t.spawn gives the process hooks for modules, and those read no TypeScript as a main file.
    t.spawn(process.execPath, [...process.execArgv, '--eval', `require(${JSON.stringify(__filename)})`],
      { env: { ...process.env, PARVIS_ISA: other } }, other)
  }
}

for (const precision of ['float32', 'bfloat16', 'int8'] as const) {
  const cases = [...edgeOperations(precision), ...isOther ? [] : official(precision)]
  for (const kind of kinds) {
    t.test(`${kind}, ${precision}, ${isa}`, async t => {
      let greatest = 0
      for (const { name, operation } of cases.filter(one => one.operation.kind === kind)) {
        const inputs = randomInputs(operation)
        const output = run(operation, inputs)
        const expected = reference(operation, inputs, multiplied)
        if (kind === 'draw') {
          t.same([...output], [...expected], name)
          continue
        }
        const error = worstOfLargest(output, expected)
        greatest = Math.max(greatest, error)
        t.ok(error <= tolerance(precision, kind), `${name}: ${error.toExponential(1)}`)
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

t.test('what cannot be run is refused', async t => {
  const of = <K extends Operation['kind']> (kind: K): Extract<Operation, { kind: K }> =>
    edgeOperations('float32').find(one => one.operation.kind === kind)!.operation as Extract<Operation, { kind: K }>
  const refuses = async (o: Operation, inputs: Float32Array[], message: RegExp, name: string): Promise<void> => {
    t.match(await failure(o, inputs), { parvisCode: 'INVALID_OPTION', message }, `${o.kind}: ${name}`)
  }
  const pictures = { images: 1, height: 4, width: 4, channels: 8, groups: 4 } as const
  const [projection, attention, draw] = [of('projection'), of('attention'), of('draw')]
  const convolution = { ...of('convolution'), ...pictures }
  const spatialAttention = { ...of('spatialAttention'), ...pictures }
  const wrong: Array<[string, Operation]> = [
    ['no rows', { ...projection, rows: 0 }],
    ['no inputs', { ...projection, inputs: 0 }],
    ['negative outputs', { ...projection, outputs: -1 }],
    ['eps', { ...projection, eps: 0 }],
    ['eps', { ...projection, eps: NaN }],
    ['more rows than it sees', { ...attention, rows: 5, sees: 4 }],
    ['heads that do not divide', { ...attention, heads: 5, kvHeads: 2 }],
    ['a head of 6', { ...attention, headSize: 6 }],
    ['no grid', { ...attention, grid: 0 }],
    ['a cell beyond the last', { ...attention, sees: (1 << 14) + 1, grid: 1 }],
    ['no vocabulary', { ...draw, vocabularySize: 0 }],
    ['negative temperature', { ...draw, rule: { ...draw.rule, temperature: -1 } }],
    ['top-p 0', { ...draw, rule: { ...draw.rule, topP: 0 } }],
    ['kernel 2', { ...convolution, kernel: 2 as 3 }],
    ['1x1 that resamples', { ...convolution, kernel: 1, resample: 'up' }],
    ['odd height halved', { ...convolution, height: 5, kernel: 3, resample: 'down' }],
    ['groups that do not divide', { ...convolution, groups: 3 }],
    ['attention without a norm', { ...spatialAttention, groups: 0 }],
    ['no channels', { ...spatialAttention, channels: 0 }]
  ]
  for (const [name, operation] of wrong) await refuses(operation, [], /outside its range/, name)
  for (const kind of kinds) {
    const operation = edgeOperations('float32').filter(one => one.operation.kind === kind).at(-1)!.operation
    const inputs = randomInputs(operation)
    const counts = inputShapes(operation).map(shape => shape.reduce((a, b) => a * b, 1))
    t.same(inputs.map(({ length }) => length), counts)
    await refuses(operation, inputs.slice(1), /shapes/, 'too few inputs')
    await refuses(operation, [...inputs, new Float32Array(1)], /shapes/, 'too many inputs')
    await refuses(operation, inputs.map((one, k) => k === 0 ? one.slice(1) : one), /shapes/, 'a short input')
  }
})

t.test('logits that no token can be drawn from', async t => {
  const drawn = ({ operation: o }: OperationCase): boolean => o.kind === 'draw' && o.vocabularySize > 1
  const { operation } = edgeOperations('float32').find(drawn)!
  const inputs = randomInputs(operation)
  inputs[0]![1] = NaN
  t.match(await failure(operation, inputs), { parvisCode: 'NON_FINITE' })
})
