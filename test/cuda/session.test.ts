// The CUDA backend's sessions on the SIMT layer, all kernel families together, against the CPU backend's.

import t from 'tap'
import { checkFamily, cpuBackend, cudaSession, smallest } from '../support/simt.js'

t.setTimeout(900_000) // a minute where nothing else runs

t.test('sessions', async t => {
  // Kernels run before their turn in two of the three orders.
  await checkFamily(t, 'session', [...cudaSession, ...cpuBackend], 58, [smallest], ['', 'ahead=1', 'ahead=3'])
})
