// test/seats/companies.test.ts on the simulated GPU: graphs are captured and replayed for steps of other company.

import t from 'tap'
import { companies, failing, turns } from '../seats/companies.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_500_000)

t.test('companies on the simulated GPU', async t => {
  const { env } = await simtAddon({ sanitize: false })
  let count = 0
  for (const [name, precision, wanted] of [['par-4x', 'bfloat16', 80], ['par-4x', 'float32', 20],
    ['par-16x-hd100', 'bfloat16', 60], ['llamagen', 'bfloat16', 40], ['arpg', 'bfloat16', 15], ['arpg', 'float32', 5],
    ['lpd', 'bfloat16', 10], ['randar', 'bfloat16', 10]] as const) {
    const found = await companies('cuda:0', name, wanted, 200 + count, precision, 2, env)
    t.same(found.different, [], `${name}, ${precision}: ${found.sequences} sequences`)
    t.ok(found.shared > found.steps / 4, `${found.shared} of ${found.steps} steps are shared`)
    count += found.companies
  }
  t.ok(count >= 200, `${count} companies`)
})

t.test('sequences take turns at random, with several steps in a pass', async t => {
  const { env } = await simtAddon({ sanitize: false })
  for (const [name, precision, options, seed] of [
    ['par-4x', 'bfloat16', {}, 1], ['arpg', 'float32', { steps: 20 }, 2], ['randar', 'bfloat16', { steps: 22 }, 3]
  ] as const) {
    const { tokens, differ, alone, together } = await turns('cuda:0', name, options, precision, seed, env)
    t.same([tokens, differ], [6 * 64, 0], `${name}, ${precision}`)
    if (name === 'arpg') t.ok(together < 0.8 * alone, `${together} passes in place of ${alone}`)
    else t.ok(together <= alone, `${together} passes in place of ${alone}`)
  }
})

t.test('a sequence whose logits are not finite fails alone', async t => {
  const { env } = await simtAddon({ sanitize: false })
  const found = await failing('cuda:0', t.testdir(), 'bfloat16', env)
  t.same(found.codes, ['ok', 'NON_FINITE', 'ok'])
  t.same(found.failed, [1], 'a later step says which')
  t.same(found.equal, [true, true], 'the others get their own tokens')
  t.equal(found.after, true, 'and so does who takes the seat')
})
