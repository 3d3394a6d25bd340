// A session in which all sequences run the same steps of PAR's schedule, guided as the paper's pictures are.

import os from 'node:os'
import type { Call } from '../base/call.js'
import { ParError } from '../base/errors.js'
import {
  addon, rowStride, type NativeEngine, type NativeSession, type NativeTransformer, type TransformerModel
} from '../machine/native.js'
import { createSchedule, type Schedule } from '../decoding/schedule.js'
import { cacheBytes, transformerModel } from '../models/shapes.js'
import { composeStep, seatedSession, type SamplingRule } from '../decoding/step.js'
import type { StepCase } from './types.js'

const rule: SamplingRule = { mode: 'sample', temperature: 1, topK: 0, topP: 1 }
const guidanceScale = 1.5
/** Rows of all sequences in one table that fills the cache. */
const fillRows = 128

export interface BenchSession {
  model: TransformerModel
  schedule: Schedule
  /** Streams of the batch: two a picture. */
  streams: number
  native: NativeSession
  /** Enqueues a step of these rows for every sequence. */
  run: (rows: Int32Array) => Promise<unknown>
  /** Waits for everything that was enqueued. */
  finish: () => Promise<void>
  /** Fills the whole cache in large steps that predict nothing. Not where the session is for whole pictures. */
  fill: () => Promise<void>
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
  { engine, call }: { engine: NativeEngine, call: Call }, which: StepCase, transformer: NativeTransformer,
  whole: boolean
): Promise<BenchSession> {
  const model = transformerModel(which.model, which.n)
  const schedule = createSchedule({ grid: [which.grid, which.grid], n: which.n })
  const streams = 2 * which.batch
  checkMemory(engine, cacheBytes(model, which.precision, schedule.tokens, streams), 'The cache')
  const most = Math.max(schedule.maxRows, Math.floor(fillRows / streams))
  const shape = { streamsEach: 2, slots: schedule.tokens, tokens: schedule.tokens, kept: 0 } as const
  const known = whole
    ? undefined
    : Int32Array.from({ length: schedule.tokens }, (_, i) => i * 7919 % model.vocabularySize)
  const native = await call.hold(seatedSession(transformer,
    { ...shape, maxRows: streams * (whole ? schedule.maxRows : most) },
    Array.from({ length: which.batch }, (_, seat) => ({ classId: 207, seed: BigInt(seat), known }))))
  const run = async (rows: Int32Array): Promise<unknown> =>
    await native.step(composeStep(Array.from({ length: which.batch },
      (_, seat) => ({ seat, rows, guidanceScale, rule })), 2), call.cancel)
  const fill = async (): Promise<void> => {
    const all = schedule.fullSequence()
    for (let row = 0; row < schedule.tokens; row++) all[row * rowStride] = -1 // predicts nothing
    for (let row = 0; row < schedule.tokens; row += most) {
      await call.wait(run(all.slice(row * rowStride, (row + most) * rowStride)))
    }
  }
  return {
    model, schedule, streams, native, run, fill,
    finish: async () => { await call.wait(native.readTokens(0)) },
    release: () => { call.release(native) }
  }
}
