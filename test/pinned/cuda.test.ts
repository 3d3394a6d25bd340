// "Same seed, same picture" across versions, on the simulated GPU.

import t from 'tap'
import { simtAddon } from '../support/simt-addon.js'
import { compute, goldenModels, pinned } from './pinned.js'

t.setTimeout(1_800_000) // a first build takes minutes

t.test('the simulated GPU', async t => {
  const { env } = await simtAddon({ sanitize: true })
  const found = await compute('cuda', goldenModels, env)
  const wanted = pinned(found)
  t.ok(Object.keys(found).length > 60, `${Object.keys(found).length} hashes`)
  for (const [what, hash] of Object.entries(found)) t.equal(hash, wanted[what], what)
})
