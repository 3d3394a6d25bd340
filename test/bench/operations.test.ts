// The table of operations: its sums against the counts of whole steps and decodes, which were made in another way; what a
// measurement of them asks of the engine.

import t from 'tap'
import { Call } from '../../lib/call.js'
import { groupParts, limitOf } from '../../lib/bench/figures.js'
import { measureOperations } from '../../lib/bench/measure-operations.js'
import { decodeOperations, edgeOperations, operationCopies, operationCost, operationShape, stepOperations } from '../../lib/bench/operations.js'
import { decodeFlops, modelNames, stepCost, transformerModel, vq16 } from '../../lib/shapes.js'
import type { NativeCancel, NativeEngine, Operation, OperationRun } from '../../lib/native.js'
import { pretend, pretendOperations } from './pretend.js'

t.test('the parts of a step add up to it', async t => {
  for (const model of modelNames) {
    for (const precision of ['float32', 'bfloat16'] as const) {
      for (const [n, batch, grid] of [[1, 1, 24], [4, 1, 24], [16, 3, 8]] as const) {
        const m = transformerModel(model, n)
        const cases = stepOperations(m, { n, batch, grid, precision })
        const whole = stepCost(m, precision, { rows: n, sees: grid * grid / 2, sequences: 2 * batch })
        const parts = cases.filter(({ summed }) => summed)
        const sum = (of: (operation: Operation) => number): number => parts.reduce((total, { operation, times }) => total + times * of(operation), 0)
        t.equal(sum(operation => operationCost(operation).flops), whole.flops, `${model}, n = ${n}`)
        t.equal(sum(operation => operation.kind === 'draw' ? 0 : operationCost(operation).bytes), whole.weightBytes + whole.cacheBytes, `${model}, n = ${n}`)
      }
    }
  }
  const cases = stepOperations(transformerModel('L', 4), { n: 4, batch: 2, grid: 24, precision: 'bfloat16' })
  t.same(cases.map(({ name, times, summed, operation }) => [name, times, summed, operationShape(operation)]), [
    ['attention', 24, true, '4 x 4 rows, 16 heads of 64, sees 288'], ['attention: qkv', 24, false, '16 x 1024 -> 3072'], ['attention out', 24, true, '16 x 1024 -> 1024'],
    ['gate, up', 24, true, '16 x 1024 -> 2 x 2816'], ['down', 24, true, '16 x 2816 -> 1024'], ['head', 1, true, '16 x 1024 -> 16384'], ['draw', 1, true, '8 of 16384, guided']
  ])
  t.equal((stepOperations(transformerModel('L', 16), { n: 16, batch: 1, grid: 4, precision: 'float32' })[0]!.operation as { sees: number }).sees, 16, 'at least its own rows')
  t.equal(operationCost(cases.at(-1)!.operation).bytes, 2 * 8 * 16384 * 4, 'both branches of the logits')
})

t.test('the parts of a decode add up to it', async t => {
  for (const [grid, batch] of [[24, 1], [8, 2]] as const) {
    const cases = decodeOperations(vq16, { grid, batch, precision: 'bfloat16' })
    // What decodeFlops leaves out: products of queries and keys, and of their shares and values.
    const scores = cases.flatMap(({ operation: o, times }) => o.kind === 'spatialAttention' ? times * batch * 4 * (o.height * o.width) ** 2 * o.channels : [])
    t.equal(cases.reduce((sum, { operation, times }) => sum + times * operationCost(operation).flops, 0), batch * decodeFlops(grid) + scores.reduce((a, b) => a + b))
    t.same(new Set(cases.map(({ operation }) => JSON.stringify(operation))).size, cases.length, 'each once')
  }
  const cases = decodeOperations(vq16, { grid: 24, batch: 1, precision: 'float32' })
  const times = (wanted: string): number => cases.filter(({ name }) => name === wanted).reduce((sum, one) => sum + one.times, 0)
  // Five levels of three residual blocks, two in the middle; 512 -> 256 and 256 -> 128 on the way.
  t.same(['conv1', 'conv2', 'attn', 'upsample.conv', 'nin_shortcut', 'post_quant_conv', 'conv_in', 'conv_out'].map(times), [17, 17, 4, 4, 2, 1, 1, 1])
  t.match(cases.at(-1)!.operation, { kind: 'convolution', height: 384, width: 384, channels: 128, outputs: 3, groups: 32, swish: true })
  t.same(cases.filter(({ name }) => name === 'upsample.conv').map(({ operation }) => operationShape(operation)),
    ['3x3, 512 -> 512, 24 x 24, up', '3x3, 256 -> 256, 48 x 48, up', '3x3, 256 -> 256, 96 x 96, up', '3x3, 128 -> 128, 192 x 192, up'])
})

t.test('costs by hand', async t => {
  const base = { precision: 'bfloat16', eps: 1e-5 } as const
  t.same(operationCost({ ...base, kind: 'projection', rows: 8, inputs: 10, outputs: 6, normed: true, epilogue: 'swiglu' }), { bytes: 240, flops: 2 * 8 * 120, copyBytes: 240 })
  t.same(operationCost({ ...base, kind: 'attention', streams: 2, rows: 3, sees: 10, dim: 16, heads: 4, kvHeads: 2, headSize: 8, grid: 8 }), {
    bytes: 2 * (64 * 16 + 2 * 2 * 16 * 13), flops: 6 * (2 * 64 * 16 + 4 * 10 * 32), copyBytes: 2 * (64 * 16 + 2 * 2 * 16 * 10)
  })
  const convolution = { ...base, kind: 'convolution', images: 2, height: 4, width: 6, channels: 8, outputs: 5, kernel: 3, groups: 0, swish: false } as const
  t.same(operationCost({ ...convolution, residual: true, resample: 'none' }), { bytes: 2 * (360 + 48 * 8 + 2 * 48 * 5), flops: 2 * 48 * 360, copyBytes: 720 })
  t.same(operationCost({ ...convolution, residual: false, resample: 'up' }), { bytes: 2 * (360 + 48 * 8 + 192 * 5), flops: 2 * 192 * 360, copyBytes: 720 })
  t.equal(operationCost({ ...convolution, residual: false, resample: 'down' }).flops, 2 * 12 * 360)
  t.same(operationCost({ ...base, kind: 'spatialAttention', images: 1, height: 3, width: 5, channels: 8, groups: 4 }), { bytes: 2 * (256 + 240), flops: 2 * 15 * 256 + 4 * 225 * 8, copyBytes: 512 })
})

t.test('copies reach beyond a cache', async t => {
  for (const model of modelNames) {
    for (const { operation, name } of stepOperations(transformerModel(model, 4), { n: 4, batch: 1, grid: 24, precision: 'bfloat16' })) {
      const copies = operationCopies(operation)
      const { copyBytes } = operationCost(operation)
      if (operation.kind === 'draw') t.equal(copies, 1)
      else t.ok(copies * copyBytes > 256 << 20 && (copies - 1) * copyBytes <= 256 << 20, `${model}, ${name}: ${copies}`)
    }
  }
  for (const { operation } of decodeOperations(vq16, { grid: 24, batch: 1, precision: 'bfloat16' })) t.equal(operationCopies(operation), 1)
  for (const { operation, name } of edgeOperations('bfloat16')) t.ok(operationCopies(operation) >= 1 && operationCopies(operation) <= 1 << 16, name)
})

t.test('edges: sizes that no model of the paper has', async t => {
  const all = edgeOperations('float32')
  t.equal(new Set(all.map(({ name }) => name)).size, all.length, 'each has a name of its own')
  const some = (what: string, test: (o: Operation) => boolean): void => { t.ok(all.some(({ operation }) => test(operation)), what) }
  for (const headSize of [4, 100, 128]) some(`heads of ${headSize}`, o => o.kind === 'attention' && o.headSize === headSize)
  for (const rows of [1, 8, 9, 33, 70]) some(`${rows} rows`, o => o.kind === 'projection' && o.rows === rows && o.inputs % 32 !== 0 || o.kind === 'projection' && o.rows === rows && o.outputs % 32 !== 0)
  some('shared keys', o => o.kind === 'attention' && o.kvHeads < o.heads)
  some('nothing before', o => o.kind === 'attention' && o.sees === o.rows)
  some('odd vocabulary', o => o.kind === 'draw' && o.vocabularySize % 2 === 1 && o.guided && o.rule.topK > 0 && o.rule.topP < 1)
  for (const resample of ['up', 'down'] as const) some(resample, o => o.kind === 'convolution' && o.resample === resample && o.channels % 16 !== 0)
  some('a residual', o => o.kind === 'convolution' && o.residual && o.kernel === 3 && o.groups > 0)
})

t.test('what a measurement asks for', async t => {
  const asked: Array<{ operation: Operation, run: OperationRun, cancel?: NativeCancel }> = []
  const engine = {
    runOperation: async (operation: Operation, run: OperationRun, cancel?: NativeCancel) => {
      asked.push({ operation, run, cancel })
      return { output: new Float32Array(0), ms: Float64Array.from({ length: run.repeats }, (_, i) => 3 - i % 3) }
    }
  } as unknown as NativeEngine
  const call = new Call()
  t.teardown(() => call.end())
  const shape = { n: 4, batch: 1, grid: 24, precision: 'bfloat16' } as const
  const cases = stepOperations(transformerModel('L', 4), shape)
  const of = { partOf: 'step', model: 'L', device: 'cpu', ...shape } as const
  const found = await measureOperations({ engine, call, repeats: 3, until: performance.now() + 60_000 }, of, cases)
  t.same(found.map(({ name }) => name), cases.map(({ name }) => name))
  t.match(found[0], { ...of, ms: { median: 2, least: 1, greatest: 3 }, times: 24, msInAll: 48, copies: operationCopies(cases[0]!.operation), ceilings: null })
  for (const [k, one] of found.entries()) {
    t.equal(one.gigabytesPerSecond, operationCost(cases[k]!.operation).bytes / 2e6)
    t.equal(one.gigaflops, operationCost(cases[k]!.operation).flops / 2e6)
    t.match(asked[k], { operation: cases[k]!.operation, run: { copies: one.copies, warmup: 1, repeats: one.name === 'draw' ? 30 : 3 } }, 'short ones oftener')
    t.notOk(asked[k]!.run.inputs, 'random numbers')
    t.equal(asked[k]!.cancel, call.cancel)
  }
  asked.length = 0
  await measureOperations({ engine, call, repeats: 3, until: 0 }, of, cases)
  t.ok(asked.every(({ run }) => run.repeats === 1), 'repeats give way to the time')
  asked.length = 0
  call.stop(new Error('stopped'))
  await t.rejects(measureOperations({ engine, call, repeats: 3, until: 0 }, of, cases), { message: 'stopped' })
  t.ok(asked.length <= 1, 'nothing is begun afterwards')
})

t.test('sums and limits', async t => {
  const [step, decode, gpu] = groupParts(pretendOperations(), [pretend({ n: 4, step: 20 }), pretend({ n: 16, step: 30 })])
  t.ok(Math.abs(step!.sum - (4 * 24 + 2) * 0.5) < 1e-9, 'QKV is in attention')
  t.equal(step!.whole, 20)
  t.ok(Math.abs(decode!.sum - 100 * (17 + 17 + 4 + 4 + 2 + 3)) < 1e-6)
  t.same([decode!.whole, gpu!.whole], [undefined, undefined])
  t.equal(groupParts(pretendOperations(), [pretend({ n: 4, step: 20, precision: 'float32' }), pretend({ n: 4, step: 20, batch: 2 })])[0]!.whole, undefined, 'of another one')
  t.equal(limitOf({ ceilings: null }), undefined)
  t.equal(limitOf({ ceilings: null, ofReadCeiling: 0.5, ofArithmeticCeiling: 0.4 }), 'reading')
  t.equal(limitOf({ ceilings: null, ofReadCeiling: 0.3, ofArithmeticCeiling: 0.4 }), 'products')
})
