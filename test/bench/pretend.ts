// Results that nobody measured.

import { shares, spread } from '../../lib/bench/figures.js'
import { operationsOf } from '../../lib/bench/profile.js'
import type { Ceilings, OperationResult, Report, Result, StepResult } from '../../lib/bench/types.js'
import type { LaunchRecord } from '../../lib/machine/native.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { stepCost, transformerModel } from '../../lib/models/shapes.js'

/** A model at n whose every step takes `step` milliseconds. */
export function pretend (
  { model = 'L', n, step, batch = 1, ...more }: { n: number, step: number } & Partial<StepResult>
): StepResult {
  const schedule = createSchedule({ grid: [24, 24], n })
  const cost = stepCost(transformerModel(model, n), 'bfloat16', { rows: n, sees: 288, sequences: 2 * batch })
  const steps = schedule.steps.length
  const bytes = cost.weightBytes + cost.cacheBytes
  const msPerImage = step * steps / batch
  return {
    operation: 'step', model, n, batch, grid: 24, precision: 'bfloat16', device: 'cpu', steps, timedSteps: 40,
    whole: false, ms: spread([step * 0.9, step, step * 1.2]),
    places: [{ sees: 288, ms: step, steps }], msPerBatch: step * steps, msPerImage, imagesPerSecond: 1000 / msPerImage,
    tokensPerSecond: 576000 / msPerImage, ...cost, bytes,
    gigabytesPerSecond: bytes / step / 1e6, gigaflops: cost.flops / step / 1e6, loadMs: 500, firstStepMs: 30,
    ceilings: null, torch: [], ...more
  }
}

const ceilings: Ceilings = { readBytesPerSecond: 40e9, float32Flops: 240e9, bfloat16Flops: 480e9 }

type Launch = Omit<LaunchRecord, 'ms'>

/** A launch `times` times, each of which took ms, 0.9 ms or 1.2 ms. */
function launches (launch: Launch, times: number, ms: number): LaunchRecord[] {
  return Array.from({ length: times }, (_, i) => ({ ...launch, ms: ms * [1, 0.9, 1.2][i % 3]! }))
}

export const decodeLaunches: Array<[launch: Launch, times: number]> = [
  [{ name: 'convolution', shape: '3x3, 128 -> 128, 384 x 384, normed, residual', bytes: 113.5e6, flops: 43.5e9 }, 6],
  [{ name: 'group norm', shape: '128, 384 x 384', bytes: 37.7e6, flops: 0 }, 6],
  [{ name: 'attention', shape: '512, 24 x 24', bytes: 2.4e6, flops: 0.68e9 }, 3]
]
const stepLaunches: Array<[launch: Launch, times: number]> = [
  [{ name: 'attention', shape: '2 x 4 rows, 16 heads of 64, sees 288', bytes: 8.7e6, flops: 60e6 }, 24],
  [{ name: 'logits', shape: '8 x 1024 -> 16384', bytes: 33.6e6, flops: 268e6 }, 3]
]

/** Launches of half a millisecond, of a decode 100 ms: of L and VQ-16 on a CPU, of B on a GPU without ceilings. */
export function pretendOperations (): OperationResult[] {
  const timed = (of: Parameters<typeof operationsOf>[2], ms: number, list: typeof stepLaunches): OperationResult[] => {
    const records = list.flatMap(([launch, times]) => launches(launch, 3 * times, ms))
    const measured = of.device === 'cpu' ? ceilings : null
    return operationsOf(records, 3, of).map(one => ({ ...one, ...shares(one, measured) }))
  }
  const l = { n: 4, batch: 1, grid: 24, precision: 'bfloat16' } as const
  const vq = { batch: 1, grid: 24, precision: 'bfloat16' } as const
  const b = { n: 1, batch: 2, grid: 8, precision: 'float32' } as const
  return [
    ...timed({ partOf: 'step', model: 'L', device: 'cpu', ...l }, 0.5, stepLaunches),
    ...timed({ partOf: 'decode', model: 'VQ-16', device: 'cpu', ...vq }, 100, decodeLaunches),
    ...timed({ partOf: 'step', model: 'B', device: 'cuda:0', ...b }, 0.5, stepLaunches)
  ]
}

/** As reports of form 3 have them: with a part of another operation, which no sum counts. */
export function olderOperations (): OperationResult[] {
  const [attention, ...rest] = pretendOperations()
  const part = { ...attention!, name: 'attention: qkv', shape: '8 x 1024 -> 3072', summed: false }
  return [{ ...attention!, summed: true }, part, ...rest.map(one => ({ ...one, summed: true }))]
}

export function pretendReport (results: Result[]): Report {
  return {
    format: 'parvis-bench-4',
    command: 'npx parvis bench --model L',
    environment: {
      parvis: '0.1.0', commit: '0123456789ab', checkout: '0123456789ab', compiler: 'GNU 12.2.0', node: 'v20.20.2',
      platform: 'linux-x64', processor: 'A & B <"processor">', cores: 2, threads: 2,
      memoryBytes: 16e9, isa: 'avx2', gpus: [], load: 0, date: '2026-11-23'
    },
    results,
    operations: [],
    notRun: [],
    coldStart: []
  }
}
