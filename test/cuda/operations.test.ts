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

t.test('ceilings', async t => {
  const { left, ...found } = await run<Record<string, number>>('memory=32M,processors=2', 'ceilings')
  t.same(Object.keys(found).sort(), ['bfloat16Flops', 'float32Flops', 'readBytesPerSecond'])
  for (const [name, value] of Object.entries(found)) t.ok(Number.isFinite(value) && value > 0, `${name}: ${value}`)
  t.equal(left, 0, 'all of its memory is free again')
})

t.test('timed or cancelled, all memory comes back', async t => {
  const found = await run<Array<{ kind: string, ms: number, cancelled: string, left: number }>>('seed=3', 'memory')
  t.equal(found.length, 12)
  for (const { kind, ...rest } of found) t.same(rest, { ms: 2, cancelled: 'CANCELLED', left: 0 }, kind)
})

t.test('too little memory', async t => {
  const { found, afterwards } = await run<{ found: Array<Failure & { kind: string, left: number }>, afterwards: number }>('memory=8M', 'tooLarge')
  for (const { kind, ...rest } of found) t.match(rest, { code: 'OUT_OF_MEMORY', message: /numbers of an operation need .* 8 MB are free/, left: 0 }, kind)
  t.equal(afterwards, 2, 'the device goes on')
  const first = await run<{ found: Failure[] }>('memory=32M,processors=2,fail=malloc:1', 'failing')
  t.match(first.found[0], { code: 'OUT_OF_MEMORY', message: /in one piece/ })
  t.same(first.found.slice(1).filter(Boolean), [], 'the next ones have it')
})

t.test('what no kernel is built for', async t => {
  const { found, afterwards } = await run<{ found: Failure[], afterwards: number }>('seed=1', 'refused')
  for (const one of found) t.match(one, { code: 'INVALID_OPTION', message: /^The CUDA backend cannot run this operation: / })
  t.equal(found.length, 8)
  t.equal(afterwards, 2, 'the device goes on')
})

t.test('a device that fails', async t => {
  for (const launch of [1, 6, 12, 20]) {
    const { found, ceilings } = await run<{ found: Failure[], ceilings: Failure }>(`fail=launch:${launch}`, 'failing')
    const failed = found.findIndex(Boolean)
    t.ok(failed >= 0, `launch ${launch} fails operation ${failed}`)
    for (const one of [...found.slice(failed), ceilings]) t.match(one, { code: 'DEVICE_UNAVAILABLE', message: /CUDA failed while/ })
  }
})
