// cuda/attend.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily } from '../support/simt.js'

t.test('attention', async t => {
  await checkFamily(t, 'attend', ['cuda/attend.cu', 'cpu/isa/unit.cc'], 19)
})
