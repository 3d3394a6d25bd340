// What the paper says, to print beside what was measured: table 2 (steps and seconds of a picture) and the step counts
// of its video models (table 3). Its seconds are of other hardware than ours, and every table says so.

import { createSchedule } from '../decoding/schedule.js'
import { isStep } from './figures.js'
import { videoName } from './subjects.js'
import type { Report, StepResult } from './types.js'

/** Of the paper's seconds: figure 2, which has the same numbers. */
export const paperHardware = 'one A100, batch 1'

export interface PaperRow { name: string, model: string, n: number, steps: number, seconds: number }

/** Table 2, its AR rows on this tokenizer: 24 x 24 tokens. */
export const table2: readonly PaperRow[] = [
  { name: 'LlamaGen-L', model: 'L', n: 1, steps: 576, seconds: 12.58 },
  { name: 'LlamaGen-XL', model: 'XL', n: 1, steps: 576, seconds: 18.66 },
  { name: 'LlamaGen-XXL', model: 'XXL', n: 1, steps: 576, seconds: 24.91 },
  { name: 'LlamaGen-3B', model: '3B', n: 1, steps: 576, seconds: 12.41 },
  { name: 'PAR-L-4x', model: 'L', n: 4, steps: 147, seconds: 3.38 },
  { name: 'PAR-XL-4x', model: 'XL', n: 4, steps: 147, seconds: 4.94 },
  { name: 'PAR-XXL-4x', model: 'XXL', n: 4, steps: 147, seconds: 6.84 },
  { name: 'PAR-3B-4x', model: '3B', n: 4, steps: 147, seconds: 3.46 },
  { name: 'PAR-XXL-16x', model: 'XXL', n: 16, steps: 51, seconds: 2.28 },
  { name: 'PAR-3B-16x', model: '3B', n: 16, steps: 51, seconds: 1.31 }
]

/** Table 3: 17 frames of 128 x 128 pixels, 5 x 16 x 16 tokens; one video. No hardware stands beside it. */
export const table3 = [
  { name: 'PAR-1x', n: 1, steps: 1280, seconds: 43.30 },
  { name: 'PAR-4x', n: 4, steps: 323, seconds: 11.27 },
  { name: 'PAR-16x', n: 16, steps: 95, seconds: 3.44 }
] as const

/** What was measured of a row of table 3, with a model that the paper does not give: seconds of its transformer. */
export function measuredVideos (n: number, report: Report): StepResult[] {
  return report.results.filter(isStep).filter(one => one.model === videoName && one.n === n && one.batch === 1)
}

/** Steps of a picture, and of a video of the paper, by the schedule. */
export const stepsOfPicture = (n: number): number => createSchedule({ grid: [24, 24], n }).steps.length
export const stepsOfVideo = (n: number): number => createSchedule({ grid: [5, 16, 16], n }).steps.length

/** What was measured of a row: transformer and decoding, seconds; one entry a device and precision. */
export function measuredOf (
  row: PaperRow, report: Report
): Array<{ step: StepResult, transformer: number, decode: number | undefined }> {
  const wanted = report.results.filter(isStep)
    .filter(one => one.model === row.model && one.n === row.n && one.batch === 1 && one.grid === 24)
  return wanted.map(step => {
    const decode = report.results.find(one => one.operation === 'decode' && one.device === step.device &&
      one.precision === step.precision && one.batch === 1 && one.grid === 24)
    return { step, transformer: step.msPerImage / 1000, decode: decode && decode.msPerImage / 1000 }
  })
}
