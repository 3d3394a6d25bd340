// A layer of a published model's sizes on a GPU and on the CPU, for the check that a GPU goes through before it is
// trusted (self-check.ts): the embedded model is so small that most of a kernel's loops run once.

import type { Call } from '../base/call.js'
import { composeStep, seatedSession, type SamplingRule } from '../decoding/step.js'
import { createEngine } from '../machine/engine.js'
import { classInput, rowStride, type Precision, type TransformerModel } from '../machine/native.js'
import { randomWeights, type RandomWeights } from '../models/random-weights.js'
import { transformerModel } from '../models/shapes.js'
import { transformerWeights } from '../models/weights.js'

/** Of L, with a part of its vocabulary: the CPU takes a tenth of a second. */
const model: TransformerModel = { ...transformerModel('L', 4), layers: 1, vocabularySize: 1024 }
/** Tokens of each step: single ones first, then two groups, so that kernels for few and for more rows run. */
const groups = [1, 1, 1, 1, 4, 16]
const tokens = groups.reduce((a, b) => a + b)
const guidanceScale = 1.5
const rule: SamplingRule = { mode: 'score', temperature: 1, topK: 0, topP: 1 }

/**
 * The largest difference of logits between a GPU in bfloat16 and the CPU in float32, as a share of the CPU's largest
 * logit; NaN where one of them is. With random weights and known tokens. 0 where the system has no place for the file
 * of weights: that is not the device's fault.
 * @param device 'cuda:N'
 */
export async function layerDifference (device: string, call: Call): Promise<number> {
  const weights = await randomWeights([transformerWeights(model)]).catch(() => undefined)
  if (!weights) return 0
  try {
    const own = await logitsOn(device, 'bfloat16', weights, call)
    const right = await logitsOn('cpu', 'float32', weights, call)
    let [most, difference] = [0, own.length === right.length ? 0 : Infinity]
    for (const [i, logit] of right.entries()) {
      most = Math.max(most, Math.abs(logit))
      const by = Math.abs(own[i]! - logit)
      if (!(by <= difference)) difference = by
    }
    return difference / most
  } finally {
    await weights.remove()
  }
}

async function logitsOn (
  device: string, precision: Precision, weights: RandomWeights, call: Call
): Promise<Float32Array> {
  const engine = createEngine(device, 0)
  try {
    const native = await call.hold(
      engine.loadTransformer(weights.file, weights.weights(transformerWeights(model)), model, precision, call.cancel))
    const known = Int32Array.from({ length: tokens }, (_, i) => i * 389 % model.vocabularySize)
    const session = await call.hold(seatedSession(native,
      { streamsEach: 2, slots: tokens, tokens, kept: tokens, maxRows: 2 * Math.max(...groups) },
      [{ classId: 207, seed: 1n, known }]))
    const kept = new Map(Array.from({ length: tokens }, (_, i) => [i, i]))
    let first = 0
    for (const count of groups) {
      const rows = new Int32Array(count * rowStride)
      for (let i = 0; i < count; i++) {
        const input = first === 0 ? classInput : first < 4 ? first + i - 1 : first + i - 4
        const cell = input < 0 ? [-1, -1] : [input >> 2, input & 3]
        rows.set([first + i, input, -1, 0, ...cell, first + i, first + count], i * rowStride)
      }
      await call.wait(session.step(composeStep([{ seat: 0, rows, guidanceScale, rule, kept }], 2), call.cancel))
      first += count
    }
    return await call.wait(session.readLogits(0))
  } finally {
    await engine.dispose()
  }
}
