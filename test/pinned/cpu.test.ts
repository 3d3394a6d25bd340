// "Same seed, same picture" across versions, on the CPU: every instruction set that this machine has.

import t from 'tap'
import { addon } from '../../lib/machine/native.js'
import { compute, embeddedModel, goldenModels, pinned } from './pinned.js'

t.setTimeout(600_000)

for (const isa of addon().cpu().isas) {
  t.test(isa, async t => {
    const env = { ...process.env, NODE_OPTIONS: '', PARVIS_ISA: isa }
    const found = await compute('cpu', { ...embeddedModel, ...goldenModels }, env)
    const wanted = pinned(found)
    if (!Object.keys(wanted).some(what => what.startsWith(`${isa},`))) {
      return t.pass(`no machine with ${isa} has added its hashes yet (PARVIS_PIN=write)`, { skip: true })
    }
    t.ok(Object.keys(found).length > 160, `${Object.keys(found).length} hashes`)
    for (const [what, hash] of Object.entries(found)) t.equal(hash, wanted[what], what)
  })
}
