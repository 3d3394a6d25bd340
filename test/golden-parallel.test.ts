// ARPG, LPD and RandAR against their authors' code (float32), through the public API. Tolerances are those of the
// golden README: greedy tokens equal, logits 1e-3; bfloat16 logits within 3e-2 relative.

import t from 'tap'
import { Par } from '../lib/api/par.js'
import type { DecodingOptions } from '../lib/decoding/options.js'
import type { Precision } from '../lib/machine/native.js'
import { parallelFile, parallelNames, type ParallelName } from './support/fixtures.js'
import { golden } from './support/golden.js'
import { readExpected, relative, rows, worst } from './support/tensors.js'

/** One picture of the two: on the simulated GPU a step takes seconds (test/cuda/golden.test.ts). */
const pictures = process.env.PARVIS_GOLDEN === 'brief' ? 1 : 2
const device = (process.env.PARVIS_TEST_DEVICE ?? 'cpu') as 'cpu' | 'cuda'
const load = async (name: ParallelName, precision: Precision): Promise<Par> =>
  await Par.load({ transformer: parallelFile(name), device, precision })

for (const name of parallelNames) {
  t.test(name, async t => {
    const expected = readExpected(golden(`${name}/expected.safetensors`))
    const { metadata } = expected
    const classId = metadata.classIds!.split(',').map(Number).slice(0, pictures)
    const positions = metadata.logitPositions!.split(',').map(Number)
    const order = rows(expected.ints('order'), 2).slice(0, pictures)
    const raster = rows(expected.ints('greedy.raster'), 2).slice(0, pictures)
    const generated = rows(expected.ints('greedy.generated'), 2)
    const logits = rows(expected.floats('greedy.logits'), 2)
    const steps = Number(metadata.steps)
    const decoding: DecodingOptions = {
      tokenOrder: order,
      ...(name === 'lpd' ? { groupSizes: [...expected.ints('groupSizes')] } : { steps })
    }
    const guidanceScale = Number(metadata.cfg)

    const par = await load(name, 'float32')
    t.teardown(() => par.dispose())
    t.match(par.info.transformer, {
      method: name, layers: Number(metadata.layers), dim: 128, heads: 2, vocabularySize: 256, classes: 10, grid: [8, 8],
      warnings: []
    }, 'architecture')

    const images = await par.generate({ classId, greedy: true, guidanceScale, ...decoding })
    images.forEach((image, i) => {
      t.same(image.tokens, raster[i], `greedy tokens of picture ${i}`)
      t.same(image.tokenOrder, order[i])
      t.same(Array.from(order[i]!, cell => image.tokens[cell]), [...generated[i]!], 'in generation order')
      t.equal(image.steps, steps)
    })
    if (pictures > 1) {
      const alone = await par.generate({
        classId: classId[1]!, greedy: true, guidanceScale, ...decoding, tokenOrder: order[1]!
      })
      t.same(alone.tokens, raster[1], 'alone, with an order of its own')
    }

    const scores = await par.score({ tokens: raster, classId, guidanceScale, logits: positions, ...decoding })
    scores.forEach((score, i) => {
      const error = worst(score.logits!, logits[i]!)
      t.ok(error <= 1e-3, `logits of picture ${i}: ${error.toExponential(1)}`)
    })

    const low = await load(name, 'bfloat16')
    t.teardown(() => low.dispose())
    const rounded = await low.score({ tokens: raster, classId, guidanceScale, logits: positions, ...decoding })
    rounded.forEach((score, i) => {
      const error = relative(score.logits!, logits[i]!)
      t.ok(error <= 3e-2, `bfloat16 logits of picture ${i}: ${error.toExponential(1)} relative`)
    })
  })
}
