// Results that nobody measured.

import { shares, spread } from '../../lib/bench/figures.js'
import { decodeOperations, operationCopies, operationCost, operationShape, stepOperations, type OperationCase } from '../../lib/bench/operations.js'
import { stepCost, transformerModel, vq16 } from '../../lib/shapes.js'
import type { Ceilings, OperationResult, Report, Result, StepResult } from '../../lib/bench/types.js'
import { createSchedule } from '../../lib/schedule.js'

/** A model at n whose every step takes `step` milliseconds. */
export function pretend ({ model = 'L', n, step, batch = 1, ...more }: { n: number, step: number } & Partial<StepResult>): StepResult {
  const schedule = createSchedule({ grid: [24, 24], n })
  const cost = stepCost(transformerModel(model, n), 'bfloat16', { rows: n, sees: 288, sequences: 2 * batch })
  const steps = schedule.steps.length
  const bytes = cost.weightBytes + cost.cacheBytes
  const msPerImage = step * steps / batch
  return {
    operation: 'step', model, n, batch, grid: 24, precision: 'bfloat16', device: 'cpu', steps, timedSteps: 40, whole: false, ms: spread([step * 0.9, step, step * 1.2]),
    places: [{ sees: 288, ms: step, steps }], msPerBatch: step * steps, msPerImage, imagesPerSecond: 1000 / msPerImage, tokensPerSecond: 576000 / msPerImage, ...cost, bytes,
    gigabytesPerSecond: bytes / step / 1e6, gigaflops: cost.flops / step / 1e6, loadMs: 500, firstStepMs: 30, ceilings: null, torch: [], ...more
  }
}

const ceilings: Ceilings = { readBytesPerSecond: 40e9, float32Flops: 240e9, bfloat16Flops: 480e9 }

/** Operations that take half a millisecond each, those of a decode 100: of L and VQ-16 on a CPU, of B on a GPU without ceilings. */
export function pretendOperations (): OperationResult[] {
  const timed = (of: Pick<OperationResult, 'partOf' | 'model' | 'n' | 'batch' | 'grid' | 'precision' | 'device'>, ms: number, list: OperationCase[]): OperationResult[] => list.map(({ name, operation, times, summed }) => {
    const { bytes, flops } = operationCost(operation)
    const one = { gigabytesPerSecond: bytes / ms / 1e6, gigaflops: flops / ms / 1e6 }
    return {
      ...of, name, shape: operationShape(operation), times, summed, copies: operationCopies(operation), ms: spread([0.9 * ms, ms, 1.2 * ms]), msInAll: ms * times, bytes, flops, ...one,
      ...shares({ ...one, precision: of.precision }, of.device === 'cpu' ? ceilings : null)
    }
  })
  const [l, vq, b] = [{ n: 4, batch: 1, grid: 24, precision: 'bfloat16' }, { batch: 1, grid: 24, precision: 'bfloat16' }, { n: 1, batch: 2, grid: 8, precision: 'float32' }] as const
  return [
    ...timed({ partOf: 'step', model: 'L', device: 'cpu', ...l }, 0.5, stepOperations(transformerModel('L', 4), l)),
    ...timed({ partOf: 'decode', model: 'VQ-16', device: 'cpu', ...vq }, 100, decodeOperations(vq16, vq)),
    ...timed({ partOf: 'step', model: 'B', device: 'cuda:0', ...b }, 0.5, stepOperations(transformerModel('B', 1), b))
  ]
}

export function pretendReport (results: Result[]): Report {
  return {
    format: 'parvis-bench-3',
    command: 'npx parvis bench --model L',
    environment: {
      parvis: '0.1.0', commit: '0123456789ab', checkout: '0123456789ab', compiler: 'GNU 12.2.0', node: 'v20.20.2', platform: 'linux-x64', processor: 'A & B <"processor">', cores: 2, threads: 2,
      memoryBytes: 16e9, isa: 'avx2', gpus: [], load: 0, date: '2026-11-23'
    },
    results,
    operations: [],
    notRun: [],
    coldStart: []
  }
}
