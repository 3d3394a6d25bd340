// A session in which all sequences run the same steps, guided as the paper's pictures are.

import os from 'node:os'
import type { Call } from '../base/call.js'
import { ParError } from '../base/errors.js'
import {
  addon, rowStride, type NativeEngine, type NativeSession, type NativeTransformer, type TransformerModel
} from '../machine/native.js'
import type { Plan, PlannedStep } from '../decoding/decoder.js'
import { isParPlan } from '../decoding/par.js'
import { cacheBytes } from '../models/shapes.js'
import { composeStep, seatedSession, type SamplingRule } from '../decoding/step.js'
import type { Subject } from './subjects.js'
import type { Case } from './types.js'

const usualSampling = { guidanceScale: 1.5, topK: 0 }
/** Rows of all sequences in one table that fills the cache. */
const fillRows = 128

export interface BenchSession {
  model: TransformerModel
  plan: Plan
  /** Of the first sequence; the others differ in the order of their tokens at most. */
  steps: readonly PlannedStep[]
  /** Streams of the batch: two a picture. */
  streams: number
  native: NativeSession
  /** Enqueues a step of this number for every sequence. */
  run: (step: number) => Promise<unknown>
  /** Waits for everything that was enqueued. */
  finish: () => Promise<void>
  /** Fills the cache as far as the step reads it. Not where the session is for whole pictures. */
  fill: (step: number) => Promise<void>
  release: () => void
}

export const isCpu = (engine: NativeEngine): boolean => engine.device === 'cpu'

/** A machine that runs out of memory may take other processes with it: refused before it happens. */
export function checkMemory (engine: NativeEngine, bytes: number, what: string): void {
  const free = addon().cpu().memory.free || os.freemem()
  if (isCpu(engine) && bytes > 0.9 * free) {
    throw new ParError('OUT_OF_MEMORY',
      `${what} would take ${(bytes / 1e9).toFixed(1)} GB, and ${(free / 1e9).toFixed(1)} GB are free`)
  }
}

/**
 * @param whole for whole pictures; else for single steps at any place, of tokens that are known
 * @throws ParError OUT_OF_MEMORY
 */
export async function openSession (
  { engine, call }: { engine: NativeEngine, call: Call }, subject: Subject, which: Case,
  transformer: NativeTransformer, whole: boolean
): Promise<BenchSession> {
  const { model, sampling: { guidanceScale, topK } = usualSampling } = subject
  const rule: SamplingRule = { mode: 'inverse', temperature: 1, topK, topP: 1 }
  const plan = subject.plan(which.grid)
  const { tokens, slots } = plan
  const streams = 2 * which.batch
  checkMemory(engine, cacheBytes(model, which.precision, slots, streams), 'The cache')
  const seats = Array.from({ length: which.batch }, (_, seat) => ({ seat, picture: plan.picture(seat) }))
  const crossLayers = model.crossLayers > 0
  // PAR's slots can be filled many at a time.
  const schedule = isParPlan(plan) ? plan.schedule : undefined
  const most = Math.max(plan.maxRows, Math.floor(fillRows / streams))
  const shape = { streamsEach: 2, slots, tokens, kept: 0 } as const
  const known = whole ? undefined : Int32Array.from({ length: tokens }, (_, i) => i * 7919 % model.vocabularySize)
  const native = await call.hold(seatedSession(transformer,
    { ...shape, maxRows: streams * (whole || !schedule ? plan.maxRows : most) },
    seats.map(({ seat }) => ({ classId: Math.min(207, model.classes - 1), seed: BigInt(seat), known }))))
  const enqueue = async (of: (seat: typeof seats[number]) => PlannedStep): Promise<unknown> =>
    await native.step(composeStep(seats.map(one => ({ seat: one.seat, ...of(one), guidanceScale, rule })), 2,
      crossLayers), call.cancel)
  const run = async (step: number): Promise<unknown> => await enqueue(({ picture }) => picture.steps[step]!)
  const fill = async (step: number): Promise<void> => {
    if (!schedule) {
      for (let k = 0; k < step; k++) await call.wait(run(k))
      return
    }
    const all = schedule.fullSequence()
    for (let row = 0; row < tokens; row++) all[row * rowStride] = -1 // predicts nothing
    for (let row = 0; row < tokens; row += most) {
      const rows = all.slice(row * rowStride, (row + most) * rowStride)
      await call.wait(enqueue(() => ({ rows })))
    }
  }
  return {
    model, plan, steps: seats[0]!.picture.steps, streams, native, run, fill,
    finish: async () => { await call.wait(native.readTokens(0)) },
    release: () => { call.release(native) }
  }
}
