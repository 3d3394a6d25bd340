// Every instruction set that this machine can run gives the numbers of the fixtures, not only the best one: the others
// are what other machines get. PARVIS_ISA asks for a lower one; each runs in a process of its own, on the built
// package.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import path from 'node:path'
import t from 'tap'
import { addon } from '../lib/machine/native.js'
import { built } from './support/built.js'
import { golden } from './support/golden.js'
import { interleave, readExpected, rows, worst } from './support/tensors.js'

const script = `
const { Par } = require(process.argv[1])
const [, , precision, transformer, tokenizer, tokens] = process.argv
async function main () {
  const par = await Par.load({ transformer: { path: transformer, heads: 2, grid: 8 }, tokenizer, precision })
  const image = await par.generate({ classId: 3, greedy: true, guidanceScale: 1.5 })
  const [score] = await par.score({ tokens: image.tokens, classId: 3 })
  const sampled = await par.generate({ classId: 3, seed: 5 })
  const decoded = await par.decode(Int32Array.from(JSON.parse(tokens)), { format: 'float32' })
  console.log(JSON.stringify({ isa: par.info.isa, greedy: [...image.tokens], logProbs: [...score.logProbs], sampled: [...sampled.tokens], decoded: [...decoded.data] }))
  await par.dispose()
}
main()`

interface Result { isa: string, greedy: number[], logProbs: number[], sampled: number[], decoded: number[] }

const passes = `
const { Par } = require(process.argv[1])
async function main () {
  const found = []
  for (const precision of ['float32', 'bfloat16', 'int8']) {
    const par = await Par.load('fashion', { precision })
    for (const n of [1, 4, 16]) for (const draw of ['inverse', 'gumbel']) {
      const request = { classId: [1, 8], seed: 4, n, draw, topP: 0.9 }
      const [alone, image] = await par.generate({ ...request, passes: 'sequential' })
      const [same, other] = await par.generate({ ...request, passes: 9 })
      found.push({
        isa: par.info.isa, fewer: alone.steps - same.passes,
        same: Buffer.compare(alone.data, same.data) === 0 && Buffer.compare(image.data, other.data) === 0
      })
    }
    await par.dispose()
  }
  console.log(JSON.stringify(found))
}
main()`

t.test('a pass of several steps makes the picture of the steps, on every instruction set', async t => {
  const entry = path.join(await built(), 'index.js')
  for (const isa of addon().cpu().isas) {
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', passes, entry],
      { env: { ...process.env, NODE_OPTIONS: '', PARVIS_ISA: isa } })
    const found = JSON.parse(stdout) as Array<{ isa: string, fewer: number, same: boolean }>
    t.equal(found.filter(one => one.isa === isa && one.same && one.fewer > 0).length, 3 * 3 * 2, isa)
  }
})

t.test('instruction sets', async t => {
  const entry = path.join(await built(), 'index.js')
  const transformer = readExpected(golden('par-4x/expected.safetensors'))
  const tokenizer = readExpected(golden('vq-small/expected.safetensors'))
  const greedy = rows(transformer.ints('greedy.raster'), 3)[1] // class 3
  const codes = rows(tokenizer.ints('codes'), 2)[0]!
  const pixels = interleave(rows(tokenizer.floats('decoded'), 2)[0]!, 32, 32)

  const { isa: used, isas: usable } = addon().cpu()
  t.ok(usable.includes(used), `this machine uses ${used} of ${usable.join(', ')}`)
  const run = async (isa: string, precision: string): Promise<Result> => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '-e', script, entry, precision, golden('par-4x/model.pt'), golden('vq-small/vq.pt'), JSON.stringify([...codes])
    ], { env: { ...process.env, NODE_OPTIONS: '', PARVIS_ISA: isa } })
    return JSON.parse(stdout) as Result
  }
  let rough: Result | undefined
  for (const isa of usable) {
    const exact = await run(isa, 'float32')
    t.equal(exact.isa, isa)
    t.same(exact.greedy, [...greedy!], `${isa}: greedy tokens`)
    t.ok(worst(Float32Array.from(exact.decoded), pixels) <= 1e-3, `${isa}: pixels`)
    const bfloat16 = await run(isa, 'bfloat16')
    rough ??= bfloat16
    const error = worst(Float32Array.from(bfloat16.decoded), Float32Array.from(rough.decoded))
    t.ok(error < 0.15, `${isa}: bfloat16 pixels as on the baseline within its rounding (${error.toFixed(3)})`)
  }
})
