// A PAR transformer on a grid of three axes against an independent reference (no code for video was published), through
// the public API. Tolerances are those of the golden README: greedy tokens equal, logits 1e-3; bfloat16 logits within
// 3e-2 relative.

import t from 'tap'
import { Par } from '../lib/api/par.js'
import { createSchedule } from '../lib/decoding/schedule.js'
import type { Precision } from '../lib/machine/native.js'
import { device } from './support/fixtures.js'
import { golden } from './support/golden.js'
import { readExpected, relative, rows, worst } from './support/tensors.js'

/** One video of the two: on the simulated GPU a step takes seconds (test/cuda/golden.test.ts). */
const videos = process.env.PARVIS_GOLDEN === 'brief' ? 1 : 2

const expected = readExpected(golden('par-video-4x/expected.safetensors'))
const { metadata } = expected
const list = (text: string): number[] => text.split(',').map(Number)
const grid = list(metadata.grid!) as [number, number, number]
const rotationPairs = list(metadata.rotationPairs!) as [number, number, number]
const classId = list(metadata.classIds!).slice(0, videos)
const positions = list(metadata.logitPositions!)
const guidanceScale = Number(metadata.cfg)
const raster = rows(expected.ints('greedy.raster'), 2).slice(0, videos)
const generated = rows(expected.ints('greedy.generated'), 2)
const logits = rows(expected.floats('greedy.logits'), 2)

const load = async (precision: Precision): Promise<Par> => await Par.load({
  transformer: { path: golden('par-video-4x/model.pt'), heads: 2, grid, rotationPairs }, device, precision
})

t.test('par-video-4x', async t => {
  const par = await load('float32')
  t.teardown(() => par.dispose())
  t.match(par.info.transformer, {
    method: 'par', layers: 2, dim: 128, heads: 2, vocabularySize: 240, classes: 10, n: 4, grid: [8, 8], frames: 3,
    rotationPairs, defaultSteps: 4 + (192 - 4) / 4, gridFrom: 'option', warnings: []
  }, 'architecture')

  const schedule = createSchedule({ grid, n: 4 })
  const made = await par.generateVideo({ classId, greedy: true, guidanceScale, seed: 1 })
  made.forEach((video, i) => {
    t.same(video.tokens, raster[i], `greedy tokens of video ${i}`)
    t.same(schedule.toSequence(video.tokens), generated[i], 'in generation order')
    t.match(video, {
      classId: classId[i], n: 4, steps: 51, seed: 1, grid, fps: 8, frames: 0, width: 0, height: 0, data: { length: 0 }
    })
  })

  const scores = await par.score({ tokens: raster, classId, guidanceScale, logits: positions })
  scores.forEach((score, i) => {
    const error = worst(score.logits!, logits[i]!)
    t.ok(error <= 1e-3, `logits of video ${i}: ${error.toExponential(1)}`)
  })

  const low = await load('bfloat16')
  t.teardown(() => low.dispose())
  const rounded = await low.score({ tokens: raster, classId, guidanceScale, logits: positions })
  rounded.forEach((score, i) => {
    const error = relative(score.logits!, logits[i]!)
    t.ok(error <= 3e-2, `bfloat16 logits of video ${i}: ${error.toExponential(1)} relative`)
  })
})
