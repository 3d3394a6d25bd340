// What lib/memory.ts says a model takes on a GPU is what the CUDA backend takes there, on the simulated one: free memory of
// the device before and after.

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
  const { addon } = require(path.join(dist, 'native.js'))
  const { openCheckpoint, describeTransformer } = require(path.join(dist, 'checkpoint', 'index.js'))
  const { sessionBytes, weightBytes } = require(path.join(dist, 'memory.js'))
  const { path: file, heads, grid } = JSON.parse(text)
  ;(async () => {
    const { model, tensors } = describeTransformer(await openCheckpoint(file), { heads, grid })
    const native = addon()
    const engine = native.createEngine({ device: 'cuda:0', threads: 0 })
    const turn = () => engine.loadTransformer('nowhere', [], model, 'float32').catch(() => {})
    const free = async () => { await turn(); return (await native.cudaMemory(0)).free }
    const found = [], sessions = [] // all alive: one that ends leaves its memory to the next
    await turn()
    for (const precision of ['float32', 'bfloat16']) {
      const transformer = await engine.loadTransformer(file, tensors, model, precision)
      found.push({ what: precision + ' weights', planned: weightBytes('cuda', model, precision), taken: transformer.bytes })
      for (const [sequences, guided, maxRows] of [[1, true, 4], [4, false, 16], [16, true, 16]]) {
        const before = await free()
        sessions.push(await transformer.createSession({ classIds: new Int32Array(sequences), seeds: new BigUint64Array(sequences), guided, slots: 576, tokens: 576, maxRows }))
        const taken = before - await free()
        found.push({ what: precision + ' session of ' + sequences, planned: sessionBytes('cuda', model, precision, { sequences, guided, slots: 576, maxRows, threads: 0 }), taken })
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
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script, await built(), JSON.stringify(transformerFile(name))], { env: { ...env, PARVIS_SIMT: 'devices=1,memory=2048M' } })
    for (const { what, planned, taken } of JSON.parse(stdout) as Array<{ what: string, planned: number, taken: number }>) {
      t.ok(Math.abs(planned - taken) < 0.01 * planned + 5e4, `${name}, ${what}: ${planned} planned, ${taken} taken`)
    }
  }
})
