// cuda/attend.cu and cuda/attend-rows.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

t.test('attention', async t => {
  await checkFamily(t, 'attend', ['cuda/attend.cu', 'cuda/attend-rows.cu', 'cpu/isa/unit.cc'], 55, [smallest])
})
