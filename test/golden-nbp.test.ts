// NBP's generator against the authors' code, through the public API. Tolerances are those of the golden README: greedy
// tokens equal, logits 1e-3; bfloat16 logits within 3e-2 relative.

import t from 'tap'
import { Par } from '../lib/api/par.js'
import type { Precision } from '../lib/machine/native.js'
import { device } from './support/fixtures.js'
import { golden } from './support/golden.js'
import { readExpected, relative, rows, worst } from './support/tensors.js'

/** One video of the two: on the simulated GPU a step takes seconds (test/cuda/golden.test.ts). */
const videos = process.env.PARVIS_GOLDEN === 'brief' ? 1 : 2

const expected = readExpected(golden('nbp/expected.safetensors'))
const { metadata } = expected
const list = (text: string): number[] => text.split(',').map(Number)
const grid = list(metadata.grid!) as [number, number, number]
const positions = list(metadata.logitPositions!)
const vocabularySize = Number(metadata.codes)
const prefix = rows(expected.ints('textTokens'), 2).slice(0, videos).map(text => Array.from(text))
const raster = rows(expected.ints('greedy.tokens'), 2).slice(0, videos)
const logits = rows(expected.floats('greedy.logits'), 2)

const load = async (precision: Precision): Promise<Par> => await Par.load({
  transformer: { path: golden('nbp/model.ckpt'), vocabularySize }, device, precision
})

t.test('nbp', async t => {
  const par = await load('float32')
  t.teardown(() => par.dispose())
  t.match(par.info.transformer, {
    method: 'nbp', layers: 2, dim: 128, heads: 2, vocabularySize, classes: 0, n: 4, grid: grid.slice(1),
    frames: grid[0], defaultSteps: 4 + (32 - 4) / 4, gridFrom: 'training arguments', warnings: [],
    sampling: { guidanceScale: 1, temperature: 1, topK: 0, topP: 0.9 }
  }, 'architecture')

  const made = await par.generateVideo({ prefix, greedy: true, seed: 1 })
  made.forEach((video, i) => {
    t.same(video.tokens, raster[i], `greedy tokens of video ${i}`)
    t.match(video, { prefix: prefix[i], n: 4, steps: 11, seed: 1, grid, frames: 0, width: 0 })
    t.equal(video.classId, undefined)
  })
  const short = await par.generateVideo({ prefix: prefix[0]!.slice(0, 4), greedy: true })
  t.same(short.tokens, raster[0], 'a shorter text is filled up with </s>')

  for (const method of ['full', 'cached'] as const) {
    const scores = await par.score({ tokens: raster, prefix, logits: positions, method })
    scores.forEach((score, i) => {
      const error = worst(score.logits!, logits[i]!)
      t.ok(error <= 1e-3, `${method} pass, logits of video ${i}: ${error.toExponential(1)}`)
      t.ok(score.logProbs.length === 32 && score.logProbs.every(x => x < 0), 'a log-probability for each code')
    })
  }

  const low = await load('bfloat16')
  t.teardown(() => low.dispose())
  const rounded = await low.score({ tokens: raster, prefix, logits: positions })
  rounded.forEach((score, i) => {
    const error = relative(score.logits!, logits[i]!)
    t.ok(error <= 3e-2, `bfloat16 logits of video ${i}: ${error.toExponential(1)} relative`)
  })
})
