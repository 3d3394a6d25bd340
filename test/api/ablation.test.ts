// The paper's ablations (table 4) and grids that are no squares, through generate(). Greedy generation and scoring
// are two ways to the same distributions: the likeliest token at each position must be the one that was taken.

import t from 'tap'
import { Par } from '../../lib/api/par.js'
import type { DecodingOptions } from '../../lib/decoding/options.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { codeOf, smallPar, tokenizerFile, transformerFile } from '../support/fixtures.js'
import { identical } from '../support/tensors.js'

const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** Index of the largest of each row. */
function likeliest (logits: Float32Array, vocabulary: number): Int32Array {
  return Int32Array.from({ length: logits.length / vocabulary }, (_, row) => {
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary)
    return values.indexOf(values.reduce((a, b) => Math.max(a, b)))
  })
}

t.test('ablations', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const method = await par.generate({ classId: 1, greedy: true, guidanceScale: 1.5 })
  const cases: Array<[DecodingOptions, steps: number]> = [
    [{}, 19], [{ initial: 'none' }, 16], [{ groupAttention: 'causal' }, 19], [{ order: 'raster' }, 19],
    [{ tokensPerStep: 1 }, 64], [{ tokensPerStep: 2 }, 33],
    [{ order: 'raster', tokensPerStep: 1 }, 64], [{ order: 'raster', initial: 'none', groupAttention: 'causal' }, 16]
  ]
  for (const [ablation, steps] of cases) {
    const name = JSON.stringify(ablation)
    const image = await par.generate({ classId: 1, greedy: true, guidanceScale: 1.5, ...ablation })
    t.equal(image.steps, steps, name)
    t.equal(identical(image.tokens, method.tokens), name === '{}', `${name}: another schedule makes another picture`)
    const [score] = await par.score({
      tokens: image.tokens, classId: 1, guidanceScale: 1.5, logits: all(64), ...ablation
    })
    const schedule = createSchedule({ grid: [8, 8], n: 4, ...ablation })
    t.same(schedule.toRaster(likeliest(score!.logits!, 256)), image.tokens,
      `${name}: what was generated is what scores highest`)
    const sampled = await par.generate({ classId: [1, 1], seed: 5, ...ablation })
    t.same((await par.generate({ classId: 1, seed: 6, ...ablation })).data, sampled[1]!.data,
      `${name}: alone as in a list`)
  }
})

t.test('grids that are no squares', async t => {
  for (const grid of [[4, 12], [10, 2]] as Array<[number, number]>) {
    const par = await Par.load({
      transformer: { ...transformerFile('par-4x'), grid }, tokenizer: tokenizerFile(), precision: 'float32'
    })
    t.teardown(() => par.dispose())
    const image = await par.generate({ classId: 1, greedy: true })
    const count = grid[0] * grid[1]
    t.match({ width: image.width, height: image.height, tokens: image.tokens.length },
      { width: 4 * grid[1], height: 4 * grid[0], tokens: count })
    const [score] = await par.score({ tokens: image.tokens, classId: 1, logits: all(count) })
    t.same(createSchedule({ grid, n: 4 }).toRaster(likeliest(score!.logits!, 256)), image.tokens, grid.join(' x '))
    t.same((await par.decode(image.tokens)).data, image.data)
  }
  const odd = await codeOf(Par.load({ transformer: { ...transformerFile('par-4x'), grid: [7, 8] } }))
  t.equal(odd, 'INVALID_OPTION', 'n = 4 does not fit 7 x 8')
})
