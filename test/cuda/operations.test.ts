// One operation by itself on the CUDA backend, without a GPU: the cases of ../operations.test.ts on the SIMT layer, in a
// process that has its addon, and what only a device has: ceilings of its own, and memory that must all come back.

import t from 'tap'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { built } from '../support/built.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000) // a first build takes minutes

interface Failure { code: string, message: string }

/** What a scenario printed, on a machine. */
async function run<T> (machine: string, scenario: string): Promise<T> {
  const { env } = await simtAddon({ sanitize: true })
  const args = [path.join(__dirname, 'operation-scenarios.js'), path.join(await built(), 'native.js'), scenario]
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...env, PARVIS_SIMT: machine }, timeout: 280_000, maxBuffer: 64 << 20 })
  return JSON.parse(stdout)
}

t.test('the cases of every backend', async t => {
  const { env } = await simtAddon({ sanitize: true })
  const settings = { ...env, NODE_OPTIONS: process.env.NODE_OPTIONS ?? '', PARVIS_TEST_DEVICE: 'cuda', PARVIS_OPERATIONS: 'small', PARVIS_SIMT: 'seed=2' }
  await t.spawn(process.execPath, [...process.execArgv, path.join(__dirname, '..', 'operations.test.ts')], { env: settings, timeout: 280_000 })
})
