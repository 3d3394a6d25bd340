// Files of ARPG, LPD and RandAR: told by their tensors, whatever they are called and however they are wrapped; the
// published models by their dimensions; and what is missing, of another shape or foreign is refused by name.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { convertCheckpoint, describeTransformer, identify, openCheckpoint } from '../../lib/checkpoint/index.js'
import { ParError } from '../../lib/base/errors.js'
import { Par } from '../../lib/api/par.js'
import { parallelFile, parallelNames } from '../support/fixtures.js'
import { py, writePt } from '../support/pt-writer.js'
import { identical } from '../support/tensors.js'
import {
  arpgShapes, judge, lpdShapes, paper, randarShapes, safetensorsFile, stateDict, tile, type Shapes, type ParallelSizes
} from './tiny.js'

const families = { arpg: arpgShapes, lpd: lpdShapes, randar: randarShapes }
const kinds = Object.entries(families) as Array<[keyof typeof families, (sizes?: ParallelSizes) => Shapes]>

t.test('published models by their dimensions', t => {
  const [L, XL, XXL] = [[24, 1024, 16], [36, 1280, 20], [48, 1536, 24]] as const
  // Parameters: the papers' specification.
  for (const [name, family, [layers, dim, heads], feedForward, side, parameters] of [
    ['ARPG-L', 'arpg', L, 2816, 16, 319_845_376], ['ARPG-XL', 'arpg', XL, 3584, 16, 718_997_760],
    ['ARPG-XXL', 'arpg', XXL, 4096, 16, 1_302_449_664], ['LPD-L-256', 'lpd', L, 4096, 16, 337_157_120],
    ['LPD-XL-256', 'lpd', XL, 5120, 16, 751_947_520], ['LPD-XXL-256', 'lpd', XXL, 6144, 16, 1_412_184_576],
    ['LPD-L-512', 'lpd', L, 4096, 32, 337_157_120 + 768 * 1024],
    ['LPD-XL-512', 'lpd', XL, 5120, 32, 751_947_520 + 768 * 1280],
    ['RandAR-L', 'randar', L, 2816, 16, 342_912_000], ['RandAR-XL', 'randar', XL, 3584, 16, 774_700_800]
  ] as const) {
    const shapes = families[family]({ layers, dim, vocabulary: 16384, classes: 1000, feedForward, tokens: side ** 2 })
    const found = describeTransformer(paper(shapes))
    t.match(found, {
      method: family, official: name, name, model: { dim, heads, kvHeads: heads, headSize: 64, feedForward },
      grid: [side, side], warnings: []
    }, name)
    t.equal(found.model.layers + found.model.crossLayers, layers)
    t.equal(found.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0), parameters,
      `${name}: parameters`)
    t.equal(describeTransformer(paper(families[family]({
      layers, dim, vocabulary: 16384, classes: 999, feedForward, tokens: side ** 2
    })), { grid: side }).official, undefined)
  }
  t.end()
})

t.test('every tensor is needed, in its shape', t => {
  for (const [method, family] of kinds) {
    const shapes = family()
    t.equal(identify(paper(shapes)), 'transformer', method)
    t.match(describeTransformer(paper(shapes), { grid: 4 }), { method, grid: [4, 4] })
    const wrong: string[] = []
    for (const [name, shape] of shapes) {
      const attempt = (change: Shapes): string => {
        try {
          describeTransformer(paper(change), { grid: 4 })
          return 'taken'
        } catch (error) {
          return error instanceof ParError && error.code === 'BAD_CHECKPOINT' && error.message.includes(`"${name}"`)
            ? 'named'
            : `${(error as Error).name}: ${(error as Error).message.slice(0, 200)}`
        }
      }
      const missing = attempt(new Map([...shapes].filter(([other]) => other !== name)))
      // Without the tensor by which it is told, it is taken for one of another family.
      const telling = ['layers.to_k.weight', 'token_emb.weight', 'pos_instruct_embeddings'].includes(name)
      if (missing !== 'named' && !telling) wrong.push(`${name} missing: ${missing}`)
      const flat = attempt(new Map(shapes).set(name, [...shape, 1]))
      if (flat !== 'named') wrong.push(`${name} with an axis more: ${flat}`)
    }
    t.same(wrong, [], method)
    const foreign = new Map(shapes).set('layers.0.attention.q_norm.weight', [64])
    t.throws(() => describeTransformer(paper(foreign), { grid: 4 }),
      { code: 'BAD_CHECKPOINT', message: /q_norm\.weight.*normalises queries/ }, `${method}: a foreign parameter`)
  }
  t.throws(() => describeTransformer(paper(arpgShapes({ layers: 2, classes: 0 })), { grid: 4 }),
    { code: 'BAD_CHECKPOINT', message: /embeddings\.weight.*rows/ }, 'no classes')
  t.throws(() => describeTransformer(paper(lpdShapes()), { grid: [4, 5] }),
    { code: 'INVALID_OPTION', message: /16 tokens, not for a grid of 4 x 5/ }, 'another grid than the positions')
  t.match(describeTransformer(paper(lpdShapes({ tokens: 15 })), { grid: [3, 5] }), { grid: [3, 5] })
  t.throws(() => describeTransformer(paper(lpdShapes({ tokens: 15 }))), { code: 'BAD_CHECKPOINT' }, 'no square')
  t.throws(() => describeTransformer(paper(arpgShapes()), { grid: 4, n: 4 }),
    { code: 'UNSUPPORTED_N', message: /ARPG, which has no n.*Leave n out/ })
  t.throws(() => describeTransformer(paper(arpgShapes({ dim: 96 })), { grid: 4 }),
    { code: 'BAD_CHECKPOINT', message: /heads of 64/ }, 'a width that heads of 64 do not divide')
  t.match(describeTransformer(paper(arpgShapes({ dim: 96 })), { grid: 4, heads: 3 }), { headsFrom: 'option' })
  t.end()
})

t.test('however they are wrapped', async t => {
  const folder = t.testdir()
  for (const [method, family] of kinds) {
    const weights = stateDict(family())
    const optimizer = new Map<string, unknown>([['state', new Map([[0, new Map([['exp_avg', py.tensor({ shape: [2, 2],
      data: new Uint8Array(16) })]])]])], ['param_groups', []]])
    const args = py.namespace({ epochs: 450, batch_size: 2048, resume: '' })
    for (const [name, root] of Object.entries({
      bare: weights,
      state_dict: new Map([['state_dict', weights]]),
      module: new Map([['module', weights]]),
      training: new Map<string, unknown>([['model', weights], ['optimizer', optimizer], ['epoch', 449],
        ['scaler', new Map([['scale', 65536]])], ['args', args]]),
      compiled: stateDict(family(), {}, '_orig_mod.'),
      wrapped: stateDict(family(), {}, 'model.')
    })) {
      const file = path.join(folder, `${name}.pt`)
      writePt(file, root)
      t.match(describeTransformer(await openCheckpoint(file), { grid: 4 }), { method, grid: [4, 4] },
        `${method}, ${name}`)
    }
    const { entries, bytes } = tile(family())
    const plain = path.join(folder, 'llamagen-l.safetensors') // its name tells nothing
    fs.writeFileSync(plain, safetensorsFile(entries, bytes))
    t.match(describeTransformer(await openCheckpoint(plain), { grid: 4 }), { method }, `${method}, .safetensors`)
  }
})

t.test('cut off anywhere', async t => {
  const folder = t.testdir()
  for (const name of parallelNames) {
    const whole = fs.readFileSync(parallelFile(name).path)
    const file = path.join(folder, `${name}.${name === 'randar' ? 'safetensors' : 'pt'}`)
    for (let i = 1; i < 40; i++) {
      fs.writeFileSync(file, whole.subarray(0, Math.floor(whole.length * i / 40)))
      t.ok(await judge(file) instanceof ParError, `${name}, ${i} fortieths`)
    }
  }
})

t.test('converted, and loaded again: the same pictures', async t => {
  const folder = t.testdir()
  for (const name of parallelNames) {
    const { path: input, grid } = parallelFile(name)
    const output = path.join(folder, `${name}.safetensors`)
    const { metadata, warnings } = await convertCheckpoint(input, output, { ...(grid !== undefined && { grid }) })
    t.same(warnings, [], name)
    t.match(metadata, { kind: 'transformer', dim: 128, heads: 2, grid: [8, 8], n: 1 })
    const [before, after] = [await Par.load({ transformer: parallelFile(name), device: 'cpu', precision: 'float32' }),
      await Par.load({ transformer: output, device: 'cpu', precision: 'float32' })]
    t.same(after.info.transformer?.warnings, [])
    const options = { classId: [1, 3], seed: 5, guidanceScale: 3, steps: name === 'lpd' ? 64 : 9 }
    const [first, second] = [await before.generate(options), await after.generate(options)]
    first.forEach((image, i) => t.ok(identical(image.tokens, second[i]!.tokens), `${name}, picture ${i}`))
    await before.dispose()
    await after.dispose()
  }
})
