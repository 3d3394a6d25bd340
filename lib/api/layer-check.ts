// A layer of a published model's sizes on a GPU and on the CPU, for the check that a GPU goes through before it is
// trusted (self-check.ts): the embedded model is so small that most of a kernel's loops run once.

import type { Call } from '../base/call.js'
import { createSchedule } from '../decoding/schedule.js'
import { composeStep, seatedSession, type SamplingRule } from '../decoding/step.js'
import { createEngine } from '../machine/engine.js'
import type { NativeSession, NativeTransformer, Precision, TransformerModel } from '../machine/native.js'
import { randomWeights, type RandomWeights } from '../models/random-weights.js'
import { transformerModel } from '../models/shapes.js'
import { transformerWeights } from '../models/weights.js'

const n = 4
/** Of L, with a part of its vocabulary: the CPU takes a tenth of a second. */
const model: TransformerModel = { ...transformerModel('L', n), layers: 1, vocabularySize: 1024 }
const schedule = createSchedule({ grid: [4, 4], n })
const { tokens } = schedule
/** Pictures: with guidance, steps have 8 rows and then 32, so that kernels for few and for more rows run. */
const seats = [0, 1, 2, 3]
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
  let native: NativeTransformer | undefined
  let session: NativeSession | undefined
  try {
    native = await call.hold(
      engine.loadTransformer(weights.file, weights.weights(transformerWeights(model)), model, precision, call.cancel))
    session = await call.hold(seatedSession(native,
      { streamsEach: 2, slots: tokens, tokens, kept: tokens, maxRows: 2 * schedule.maxRows * seats.length },
      seats.map(seat => ({
        classId: 207 + seat,
        seed: 1n,
        known: Int32Array.from({ length: tokens }, (_, i) => (i + seat * tokens) * 389 % model.vocabularySize)
      }))))
    const kept = new Map(Array.from({ length: tokens }, (_, i) => [i, i]))
    for (const rows of schedule.steps) {
      const parts = seats.map(seat => ({ seat, rows, guidanceScale, rule, kept }))
      await call.wait(session.step(composeStep(parts, 2), call.cancel))
    }
    const all = new Float32Array(seats.length * tokens * model.vocabularySize)
    for (const seat of seats) {
      all.set(await call.wait(session.readLogits(seat)), seat * tokens * model.vocabularySize)
    }
    return all
  } finally {
    for (const held of [session, native]) if (held) call.release(held)
    await engine.dispose()
  }
}
