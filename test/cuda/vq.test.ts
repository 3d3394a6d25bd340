// The kernels of the VQ tokenizer on the SIMT layer against the CPU backend's operations.

import t from 'tap'
import { checkFamily, cpuBackend, smallest } from '../support/simt.js'

t.test('convolutions and group norm', async t => {
  await checkFamily(t, 'vq-convolve',
    ['convolve', 'convolve-plain', 'group-norm'].map(name => `cuda/${name}.cu`).concat(cpuBackend), 70, [smallest])
})

t.test('attention, codebook, resizing', async t => {
  await checkFamily(t, 'vq', ['codebook', 'convolve', 'convolve-plain', 'group-norm', 'picture', 'vq-attend']
    .map(name => `cuda/${name}.cu`).concat(cpuBackend), 25, [smallest])
})
