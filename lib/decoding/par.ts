// PAR (Wang et al. 2024), and token-by-token decoding as its case n = 1.

import type { Decoder } from './decoder.js'
import { fillMissing } from './preview.js'
import { createSchedule } from './schedule.js'

export const parDecoder: Decoder = {
  plan (grid, n, options) {
    const schedule = createSchedule({ grid, n, ...options })
    return { ...schedule, preview: (sequence, known) => fillMissing(schedule, sequence, known) }
  }
}
