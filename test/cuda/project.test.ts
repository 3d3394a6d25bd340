// cuda/pack.cu and cuda/project.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

const sources = [
  'cuda/pack.cu', 'cuda/project.cu', 'cuda/plain.cu', 'cuda/norm.cu', 'cpu/isa/unit.cc', 'common/floats.cc'
]

t.test('skinny projections, and those in float32', async t => {
  await checkFamily(t, 'project', sources, 230, [smallest])
})
