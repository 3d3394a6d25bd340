// cuda/pack.cu and cuda/project.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

t.test('skinny projections', async t => {
  await checkFamily(t, 'project', ['cuda/pack.cu', 'cuda/project.cu', 'cuda/norm.cu', 'cuda/rotate.cu', 'cpu/isa/unit.cc'], 30, [smallest])
})
