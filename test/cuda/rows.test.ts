// cuda/embed.cu and cuda/norm.cu on the SIMT layer against the CPU backend.

import t from 'tap'
import { checkFamily } from '../support/simt.js'

t.test('embedding and norm', async t => {
  await checkFamily(t, 'rows', ['cuda/embed.cu', 'cuda/norm.cu', 'cpu/isa/unit.cc'], 17)
})
