// Results that nobody measured.

import { spread } from '../../lib/bench/figures.js'
import { stepCost, transformerModel } from '../../lib/bench/shapes.js'
import type { Report, Result, StepResult } from '../../lib/bench/types.js'
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

export function pretendReport (results: Result[]): Report {
  return {
    format: 'parvis-bench-2',
    command: 'npx parvis bench --model L',
    environment: {
      parvis: '0.1.0', commit: '0123456789ab', checkout: '0123456789ab', compiler: 'GNU 12.2.0', node: 'v20.20.2', platform: 'linux-x64', processor: 'A & B <"processor">', cores: 2, threads: 2,
      memoryBytes: 16e9, isa: 'avx2', gpus: [], load: 0, date: '2026-11-23'
    },
    results,
    notRun: [],
    coldStart: []
  }
}
