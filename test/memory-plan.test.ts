// What lib/memory.ts says a model takes is what the CPU backend takes: the weights to the byte, a session within some
// percent of what the process grows by. The CUDA backend: test/cuda/memory-plan.test.ts.

import t from 'tap'
import fs from 'node:fs'
import { randomWeights } from '../lib/bench/weights.js'
import { transformerModel, transformerTensors } from '../lib/shapes.js'
import { sessionBytes, weightBytes } from '../lib/memory.js'
import { addon, type Precision, type TransformerModel } from '../lib/native.js'

const small = (changes: Partial<TransformerModel>): TransformerModel => ({
  layers: 2, dim: 200, heads: 2, kvHeads: 2, headSize: 100, feedForward: 530, vocabularySize: 321, classes: 10, transitions: 15, normEps: 1e-5, ropeBase: 10000, ...changes
})

/** Bytes of private memory that the process has asked for. */
function asked (): number {
  return Number(/VmData:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
}

const models: Array<[string, TransformerModel]> = [
  ['B', transformerModel('B', 4)],
  ['3B, two layers', { ...transformerModel('3B', 16), layers: 2, vocabularySize: 1000 }],
  ['odd sizes', small({})],
  ['shared keys and values', small({ dim: 256, heads: 4, kvHeads: 2, headSize: 64, transitions: 0 })]
]

t.test('weights and sessions', { skip: process.platform !== 'linux' && 'VmData is asked' }, async t => {
  const weights = await randomWeights(models.map(([, model]) => transformerTensors(model)))
  const threads = 3
  const engine = addon().createEngine({ device: 'cpu', threads })
  try {
    for (const [name, model] of models) {
      for (const precision of ['float32', 'bfloat16'] as Precision[]) {
        const native = await engine.loadTransformer(weights.file, weights.tensors(transformerTensors(model)), model, precision)
        t.equal(weightBytes('cpu', model, precision), native.bytes, `${name}, ${precision}: weights`)
        for (const [sequences, guided, maxRows] of [[1, true, 4], [4, false, 16], [16, true, 16]] as const) {
          const shape = { sequences, guided, slots: 576, maxRows, threads }
          const before = asked()
          const session = await sessionOf(native, shape)
          const grown = asked() - before
          session.dispose()
          await turn()
          const planned = sessionBytes('cpu', model, precision, shape)
          t.ok(Math.abs(grown - planned) < 0.02 * planned + 2e6, `${name}, ${precision}, ${sequences} ${guided ? 'guided' : ''}: ${planned / 1e6} MB planned, ${grown / 1e6} taken`)
        }
        native.dispose()
        await turn()
      }
    }
  } finally {
    await engine.dispose()
    await weights.remove()
  }

  /** Jobs run in turn: when this one has failed, what was disposed of before is free. */
  async function turn (): Promise<void> {
    await engine.loadTransformer('nowhere', [], models[0]![1], 'float32').catch(() => {})
  }

  async function sessionOf (native: Awaited<ReturnType<typeof engine.loadTransformer>>, { sequences, guided, slots, maxRows }: { sequences: number, guided: boolean, slots: number, maxRows: number }) {
    return await native.createSession({ classIds: new Int32Array(sequences), seeds: new BigUint64Array(sequences), guided, slots, tokens: slots, maxRows })
  }
})
