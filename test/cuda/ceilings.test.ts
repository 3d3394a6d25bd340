// The ceilings of a simulated device: they are numbers, all memory comes back, and a device that fails says so.

import t from 'tap'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { built } from '../support/built.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000) // a first build takes minutes

const script = `
  const { addon } = require(process.argv[1])
  const engine = addon().createEngine({ device: 'cuda:0', threads: 0 })
  const free = async () => (await addon().cudaMemory(0)).free
  void (async () => {
    const before = await free()
    const found = await engine.measureCeilings().catch(error => ({ code: error.parvisCode, message: error.message }))
    const left = before - await free().catch(() => 0)
    await engine.dispose()
    console.log(JSON.stringify({ ...found, left }))
  })()`

/** What an engine says, on a machine that PARVIS_SIMT describes. */
async function ceilings (machine: string): Promise<Record<string, unknown>> {
  const { env } = await simtAddon({ sanitize: true })
  const options = { env: { ...env, PARVIS_SIMT: machine }, timeout: 280_000 }
  const args = ['-e', script, path.join(await built(), 'machine', 'native.js')]
  const { stdout } = await promisify(execFile)(process.execPath, args, options)
  return JSON.parse(stdout)
}

t.test('numbers, and no memory is kept', async t => {
  const { left, ...found } = await ceilings('memory=32M,processors=2')
  t.same(Object.keys(found).sort(), ['bfloat16Flops', 'float32Flops', 'readBytesPerSecond'])
  for (const [name, value] of Object.entries(found)) t.ok(Number.isFinite(value) && value as number > 0, name)
  t.equal(left, 0)
})

t.test('a device that fails', async t => {
  for (const launch of [1, 8, 26]) {
    const found = await ceilings(`memory=32M,processors=2,fail=launch:${launch}`)
    t.match(found, { code: 'DEVICE_UNAVAILABLE', message: /CUDA failed while measuring ceilings/ }, `launch ${launch}`)
  }
})
