// cuda/tile.cu on the SIMT layer: the bits of cuda/project.cu, and the CPU backend's numbers.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

t.test('projections of many rows', async t => {
  await checkFamily(t, 'tile', ['cuda/pack.cu', 'cuda/tile.cu', 'cuda/project.cu', 'cuda/norm.cu', 'cuda/rotate.cu', 'cpu/isa/unit.cc'], 34, [smallest])
})
