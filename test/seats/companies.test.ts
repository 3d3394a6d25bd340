// A sequence gets in any company the tokens, log-probabilities and logits that it gets alone. On the simulated GPU:
// test/cuda/companies.test.ts.

import t from 'tap'
import { isParallel, parallelNames, transformerNames } from '../support/fixtures.js'
import { companies, failing, turns } from './companies.js'

t.setTimeout(300_000)

t.test('companies on the CPU', async t => {
  let count = 0
  for (const [i, name] of [...transformerNames, ...parallelNames].entries()) {
    for (const precision of ['float32', 'bfloat16']) {
      const wanted = isParallel(name) ? 15 : 35
      const env = { ...process.env, NODE_OPTIONS: '' }
      const found = await companies('cpu', name, wanted, 100 + i, precision, 1000, env)
      t.same(found.different, [], `${name}, ${precision}: ${found.sequences} sequences`)
      t.ok(found.sequences >= 2 * wanted && found.shared > found.steps / 4,
        `${found.shared} of ${found.steps} steps are shared`)
      count += found.companies
    }
  }
  t.ok(count >= 200, `${count} companies`)
})

t.test('sequences take turns at random, with several steps in a pass', async t => {
  for (const [name, precision, options] of [
    ['par-4x', 'float32', {}], ['par-4x', 'int8', {}], ['llamagen', 'bfloat16', {}],
    ['arpg', 'bfloat16', { steps: 20 }],
    ['lpd', 'float32', { groupSizes: [1, 2, 5, 8, 12, 16, 20] }], ['randar', 'float32', { steps: 22 }]
  ] as const) {
    for (const seed of [1, 2, 3]) {
      const { tokens, differ, alone, together } = await turns('cpu', name, options, precision, seed, process.env)
      t.same([tokens, differ], [6 * 64, 0], `${name}, ${precision}`)
      // The models are small and random: only some guesses hold.
      if (name === 'arpg') t.ok(together < 0.8 * alone, `${together} passes in place of ${alone}`)
      else t.ok(together <= alone, `${together} passes in place of ${alone}`)
    }
  }
})

t.test('a sequence whose logits are not finite fails alone', async t => {
  for (const precision of ['float32', 'bfloat16']) {
    const found = await failing('cpu', t.testdir(), precision, { ...process.env, NODE_OPTIONS: '' })
    t.same(found.codes, ['ok', 'NON_FINITE', 'ok'], precision)
    t.same(found.failed, [1], 'the step says which')
    t.same(found.equal, [true, true], 'the others get their own tokens')
    t.equal(found.after, true, 'and so does who takes the seat')
  }
})
