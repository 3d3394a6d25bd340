// The public API on the CUDA backend, without a GPU: the addon is built against the SIMT layer.

import t from 'tap'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000) // a first build with sanitizers takes minutes

const script = 'Promise.resolve(require(process.argv[1]).cuda()).then(found => console.log(JSON.stringify(found)))'

t.test('the addon on the SIMT layer', async t => {
  for (const sanitize of [false, true]) {
    const { prebuild, env, sanitized } = await simtAddon({ sanitize })
    const name = `addon ${sanitized ? 'with' : 'without'} sanitizers`
    const addon = path.join(prebuild, 'build', 'Release', 'parvis.node')
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script, addon], { env: { ...env, PARVIS_SIMT: 'driver=13000' } })
    const found = JSON.parse(stdout) as { compiled: boolean, driver: number }
    t.equal(found.compiled, true, `${name}: has CUDA code`)
    t.equal(found.driver, 13000, `${name}: sees the driver of the layer`)
  }
})
