// The CUDA backend's tokenizer on the SIMT layer, all kernel families together, against the CPU backend's.

import t from 'tap'
import { checkFamily, cpuBackend, cudaTokenizer, smallest } from '../support/simt.js'

t.test('tokenizer', async t => {
  await checkFamily(t, 'vq-tokenizer', [...cudaTokenizer, ...cpuBackend], 33, [smallest])
})
