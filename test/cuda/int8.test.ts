// ../int8.test.ts on the CUDA backend, on the SIMT layer.

import t from 'tap'
import path from 'node:path'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000) // a first build takes minutes

t.test('8-bit weights', async t => {
  const { env } = await simtAddon({ sanitize: false })
  const settings = {
    ...env, NODE_OPTIONS: process.env.NODE_OPTIONS ?? '', PARVIS_TEST_DEVICE: 'cuda', PARVIS_GOLDEN: 'brief',
    PARVIS_SIMT: 'seed=2'
  }
  // t.spawn gives the process hooks for modules, and those read no TypeScript as a main file.
  const file = path.join(__dirname, '..', 'int8.test.ts')
  await t.spawn(process.execPath, [...process.execArgv, '--eval', `require(${JSON.stringify(file)})`],
    { env: settings, timeout: 900_000 }, 'int8.test.ts')
})
