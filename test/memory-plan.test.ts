// What addon.plan says a model takes is what the backends take, to the byte: the CPU here, the simulated GPU in
// test/cuda/memory-plan.test.ts. And the process grows by that.

import t from 'tap'
import fs from 'node:fs'
import { randomWeights } from '../lib/models/random-weights.js'
import { llamaGenModel, type LlamaGenSizes } from '../lib/checkpoint/llamagen.js'
import { addon, type Precision, type SessionOptions, type TransformerModel } from '../lib/machine/native.js'
import { publishedParallel } from '../lib/models/published.js'
import { modelNames, parallelModel, transformerModel } from '../lib/models/shapes.js'
import { transformerWeights } from '../lib/models/weights.js'

const small = (changes: Partial<LlamaGenSizes>): TransformerModel => llamaGenModel({
  layers: 2, dim: 200, heads: 2, kvHeads: 2, headSize: 100, feedForward: 530, vocabularySize: 321, classes: 10,
  specials: 15, ...changes
})

/** Bytes of private memory that the process has asked for. */
function asked (): number {
  return Number(/VmData:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
}

// All sizes of the paper, with fewer layers, since they are alike; sizes that have to be padded; other flags.
const models: Array<[string, TransformerModel]> = [
  ...modelNames.map((name): [string, TransformerModel] =>
    [`${name}, two layers`, { ...transformerModel(name, 4), layers: 2, vocabularySize: 1000 }]),
  ['B', transformerModel('B', 16)],
  ['odd sizes', small({})],
  ['shared keys and values', small({ dim: 256, heads: 4, kvHeads: 2, headSize: 64, specials: 0 })],
  ['cross layers', { ...small({ specials: 1 }), crossLayers: 3 }],
  ['special vectors that rotate', { ...small({ specials: 1 }), rotateSpecials: true }],
  ...publishedParallel.filter(({ name }) => /-L($|-256)/.test(name)).map((published): [string, TransformerModel] => {
    const model = parallelModel(published)
    return [`${published.name}, fewer layers`, {
      ...model, layers: 2, crossLayers: Math.min(model.crossLayers, 2), vocabularySize: 1000
    }]
  }),
  ['other flags',
    {
      ...small({ headSize: 60 }), norm: 'layer', activation: 'gelu', bias: true, positions: 577, embeddingNorm: true,
      rotationPairs: [1, 2, 3]
    }]
]
const seats = [1, 2, 3, 4, 5, 8, 13, 16, 31, 32, 48, 63, 64]

t.test('weights and sessions', async t => {
  const weights = await randomWeights(models.map(([, model]) => transformerWeights(model)))
  const threads = 3
  const engine = addon().createEngine({ device: 'cpu', threads })
  const { PARVIS_MEMORY_CHECK: before } = process.env
  // the system gives memory when it is touched, and no session here touches its cache
  process.env.PARVIS_MEMORY_CHECK = '0'
  try {
    for (const [name, model] of models) {
      for (const precision of ['float32', 'bfloat16'] as Precision[]) {
        const plan = (session?: SessionOptions) => addon().plan({ device: 'cpu', model, precision, threads, session })
        const native = await engine.loadTransformer(weights.file, weights.weights(transformerWeights(model)), model,
          precision)
        t.equal(native.bytes, plan().weights, `${name}, ${precision}: weights`)
        const wrong: string[] = []
        for (const count of seats) {
          for (const [streamsEach, rows, kept] of [[2, 4, 0], [1, 16, 3]] as const) {
            const session = {
              seats: count, streamsEach, slots: 576, tokens: 576, maxRows: count * streamsEach * rows, kept
            }
            const start = process.platform === 'linux' ? asked() : 0
            const made = await native.createSession(session)
            const grown = process.platform === 'linux' ? asked() - start : plan(session).session
            if (made.bytes !== plan(session).session) {
              wrong.push(`${count} seats: ${made.bytes} taken, ${plan(session).session} planned`)
            }
            // What else a session has is small: who sits where, which slots are written.
            if (Math.abs(grown - made.bytes) > 0.02 * made.bytes + 4e6) {
              wrong.push(`${count} seats: the process grew by ${grown}, ${made.bytes} planned`)
            }
            await made.dispose()
          }
        }
        t.same(wrong, [], `${name}, ${precision}: sessions of up to 64 seats`)
        native.dispose()
      }
    }
  } finally {
    if (before === undefined) delete process.env.PARVIS_MEMORY_CHECK
    else process.env.PARVIS_MEMORY_CHECK = before
    await engine.dispose()
    await weights.remove()
  }
})

t.test('what cannot be planned', async t => {
  const model = small({})
  const plan = (changes: object): (() => unknown) =>
    () => addon().plan({
      device: 'cpu', model, precision: 'float32', threads: 1, ...changes
    } as Parameters<ReturnType<typeof addon>['plan']>[0])
  const code = (call: () => unknown): unknown => {
    try {
      return call()
    } catch (error) {
      return (error as { parvisCode?: string }).parvisCode
    }
  }
  t.equal(code(plan({ device: 'gpu' })), 'INTERNAL')
  t.equal(code(plan({ threads: 5000 })), 'INVALID_OPTION')
  t.equal(code(plan({ model: { ...model, layers: 0 } })), 'BAD_CHECKPOINT')
  t.equal(code(plan({ session: { seats: 0, streamsEach: 1, slots: 1, tokens: 1, maxRows: 1, kept: 0 } })),
    'INVALID_OPTION')
})
