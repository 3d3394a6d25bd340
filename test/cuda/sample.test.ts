// cuda/sample.cu on the SIMT layer against cpu/isa/sample.cc: the same tokens, bit for bit.

import t from 'tap'
import { checkFamily, smallest } from '../support/simt.js'

t.test('draws and scores', async t => {
  await checkFamily(t, 'sample', ['cuda/sample.cu', 'cpu/isa/sample.cc'], 58, [smallest])
})
