// cuda/attend.cu, cuda/attend-rows.cu and cuda/plain.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

const sources = ['cuda/attend.cu', 'cuda/attend-rows.cu', 'cuda/plain.cu', 'cpu/isa/unit.cc']

t.test('attention', async t => {
  await checkFamily(t, 'attend', sources, 89, [smallest])
})
