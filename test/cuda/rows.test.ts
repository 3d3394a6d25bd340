// cuda/embed.cu, cuda/norm.cu and cuda/rotate.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily } from '../support/simt.js'

t.test('embedding, norm, rotation and append', async t => {
  await checkFamily(t, 'rows', ['cuda/embed.cu', 'cuda/norm.cu', 'cuda/rotate.cu', 'cpu/isa/unit.cc'], 29)
})
