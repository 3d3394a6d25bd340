// What addon.plan says a model takes on a GPU is what the CUDA backend takes there, to the byte, on the simulated one;
// and free memory of the device before and after.

import t from 'tap'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { built } from '../support/built.js'
import { transformerFile, transformerNames } from '../support/fixtures.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(900_000)

const script = `
  const path = require('node:path')
  const [, dist, text] = process.argv
  const { addon } = require(path.join(dist, 'machine', 'native.js'))
  const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
  const { path: file, heads, grid } = JSON.parse(text)
  ;(async () => {
    const { model, weights } = describeTransformer(await openCheckpoint(file), { heads, grid })
    const native = addon()
    const engine = native.createEngine({ device: 'cuda:0', threads: 0 })
    const turn = () => engine.loadTransformer('nowhere', [], model, 'float32').catch(() => {})
    const free = async () => { await turn(); return (await native.cudaMemory(0)).free }
    const found = [], sessions = [] // all alive: one that ends leaves its memory to the next
    await turn()
    for (const precision of ['float32', 'bfloat16', 'int8']) {
      const transformer = await engine.loadTransformer(file, weights, model, precision)
      const plan = session => native.plan({ device: 'cuda', model, precision, threads: 0, session })
      found.push({ what: precision + ' weights', planned: plan().weights, taken: transformer.bytes })
      for (const seats of [1, 2, 4, 16, 33, 64]) {
        for (const [streamsEach, rows, kept] of [[2, 4, 0], [1, 16, 2]]) {
          const session = { seats, streamsEach, slots: 64, tokens: 64, maxRows: seats * streamsEach * rows, kept }
          const before = await free()
          sessions.push(await transformer.createSession(session))
          found.push({ what: precision + ' session of ' + seats, planned: plan(session).session, taken: sessions.at(-1).bytes, gone: before - await free() })
        }
      }
      for (const session of sessions.splice(0)) session.dispose()
      transformer.dispose()
    }
    console.log(JSON.stringify(found))
    await engine.dispose()
  })()`

t.test('weights and sessions', async t => {
  const { env } = await simtAddon({ sanitize: true })
  for (const name of transformerNames) {
    const { stdout } = await promisify(execFile)(process.execPath,
      ['-e', script, await built(), JSON.stringify(transformerFile(name))],
      { env: { ...env, PARVIS_SIMT: 'devices=1,memory=2048M' } })
    for (const { what, planned, taken, gone } of JSON.parse(
      stdout
    ) as Array<{ what: string, planned: number, taken: number, gone?: number }>) {
      t.equal(taken, planned, `${name}, ${what}`)
      if (gone !== undefined) t.ok(gone >= taken && gone < taken + 1e5, `${name}, ${what}: ${gone} bytes less are free`)
    }
  }
})
