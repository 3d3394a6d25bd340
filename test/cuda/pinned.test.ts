// "Same seed, same picture" across versions, on the simulated GPU.

import t from 'tap'
import { compute, goldenModels, pinned } from '../pinned/pinned.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000)

t.test('simulated GPU', async t => {
  const { 'par-4x': par, llamagen } = goldenModels
  const { env } = await simtAddon({ sanitize: false })
  const found = await compute('cuda', { 'par-4x': { ...par, brief: true }, llamagen: { ...llamagen, brief: true } },
    env)
  const wanted = pinned(found)
  t.ok(Object.keys(found).length > 10, `${Object.keys(found).length} hashes`)
  for (const [what, hash] of Object.entries(found)) t.equal(hash, wanted[what], what)
})
