// Whole steps of a small transformer on the SIMT layer, all kernel families together, against the CPU backend's session.

import t from 'tap'
import { checkFamily, cpuBackend } from '../support/simt.js'

t.test('steps', async t => {
  await checkFamily(t, 'step', ['attend', 'attend-rows', 'embed', 'norm', 'pack', 'plain', 'project', 'rotate', 'sample', 'tile'].map(name => `cuda/${name}.cu`).concat(cpuBackend), 12)
})
