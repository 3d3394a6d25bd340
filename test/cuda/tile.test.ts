// cuda/tile.cu on the SIMT layer: the bits of cuda/project.cu, and the CPU backend's numbers.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

const sources = [
  'cuda/pack.cu', 'cuda/tile.cu', 'cuda/project.cu', 'cuda/norm.cu', 'cpu/isa/unit.cc', 'common/floats.cc'
]

t.test('projections of many rows', async t => {
  await checkFamily(t, 'tile', sources, 79, [smallest])
})
