// Draws of whole sessions against an independent reference (support/draws.ts), whose random numbers are themselves
// checked against the known answers of their authors.

import t from 'tap'
import { describeTransformer, openCheckpoint } from '../lib/checkpoint/index.js'
import { addon, classInput } from '../lib/machine/native.js'
import { draws, type Draw } from '../lib/decoding/sampling.js'
import { composeStep, seatedSession } from '../lib/decoding/step.js'
import type { DrawRule } from './support/operations-addon.js'
import { drawReference, gumbelReference, mask, philox, uniform } from './support/draws.js'
import { golden } from './support/golden.js'

t.test('Philox4x32-10: known answers of Random123', async t => {
  t.same(philox([0n, 0n, 0n, 0n], [0n, 0n]), [0x6627e8d5n, 0xe169c58dn, 0xbc57ac4cn, 0x9b00dbd8n])
  t.same(philox([mask, mask, mask, mask], [mask, mask]), [0x408f276dn, 0x41c83b0en, 0xa20bc7c6n, 0x6d5451fdn])
  t.same(philox([0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n], [0xa4093822n, 0x299f31d0n]),
    [0xd16cfe09n, 0x94fdccebn, 0x5001e420n, 0x24126ea1n])
})

t.test('draws', async t => {
  const checkpoint = await openCheckpoint(golden('par-4x/model.pt'))
  const { model, weights } = describeTransformer(checkpoint, { heads: 2, grid: 8 })
  const engine = addon().createEngine({ device: 'cpu', threads: 2 })
  t.teardown(() => engine.dispose())
  const transformer = await engine.loadTransformer(checkpoint.file, weights, model, 'float32')
  const rows = Int32Array.of(0, classInput, -1, -1, -1, -1, 0, 1)

  /** First tokens of `count` sequences and the logits they were drawn from. */
  async function draw (mode: Draw, { guidanceScale, ...drawing }: DrawRule, count: number, firstSeed: bigint) {
    const sequences = Array.from({ length: count },
      (_, i) => ({ classId: i % 10, seed: firstSeed + BigInt(i) * 0x1_0000_0001n }))
    const session = await seatedSession(transformer,
      { streamsEach: 2, slots: 64, tokens: 64, maxRows: 2 * count, kept: 1 }, sequences)
    const rule = { mode, ...drawing }
    await session.step(
      composeStep(sequences.map((_, seat) => ({ seat, rows, guidanceScale, rule, kept: new Map([[0, 0]]) })), 2)
    )
    const drawn = await Promise.all(sequences.map(async ({ seed }, seat) =>
      ({ seed, token: (await session.readTokens(seat))[0]!, logits: await session.readLogits(seat) })))
    void session.dispose()
    return drawn
  }

  const plain: DrawRule = { guidanceScale: 1, temperature: 1, topK: 0, topP: 1 }
  const rules: Array<[string, Partial<DrawRule>]> = [
    ['plain', {}], ['guided', { guidanceScale: 3 }], ['cold', { temperature: 0.3 }], ['hot', { temperature: 4 }],
    ['greedy', { temperature: 0 }],
    ['top-k 1', { topK: 1 }], ['top-k 5', { topK: 5 }], ['top-k of all', { topK: 256 }], ['top-p 0.1', { topP: 0.1 }],
    ['top-p 0.9', { topP: 0.9 }],
    ['tiny top-p', { topP: 1e-6 }], ['all of them', { guidanceScale: 2, temperature: 0.7, topK: 40, topP: 0.8 }]
  ]
  for (const [name, part] of rules) {
    const rule = { ...plain, ...part }
    for (const mode of draws) {
      const drawn = await draw(mode, rule, 500, 0x9000_0000_0000_0000n)
      const wrong = drawn.filter(({ seed, token, logits }) => {
        const expected = mode === 'inverse'
          ? drawReference(logits, rule, uniform(seed, 0))
          : gumbelReference(logits, rule, seed, 0)
        return expected.token !== token && expected.margin > 2e-6 // nearer than float rounding: either neighbour
      })
      t.equal(wrong.length, 0, `${name}, ${mode}: 500 draws as the reference`)
    }
  }

  for (const mode of draws) {
    t.test(`frequencies are the probabilities: ${mode}`, async t => {
      const drawn = await draw(mode, { ...plain, temperature: 0.2 }, 4000, 1n)
      const counts = new Map<string, number>()
      for (const { token } of drawn) counts.set(String(token), (counts.get(String(token)) ?? 0) + 1)
      let statistic = 0
      let cells = 0
      for (let token = 0; token < model.vocabularySize; token++) {
        let expected = 0
        for (const { logits } of drawn.slice(0, 10)) { // ten classes, each as often
          const weights = Float64Array.from(logits, l => Math.exp(l / 0.2))
          expected += weights[token]! / weights.reduce((a, b) => a + b) * drawn.length / 10
        }
        if (expected < 5) continue
        cells++
        statistic += ((counts.get(String(token)) ?? 0) - expected) ** 2 / expected
      }
      t.ok(cells > 20, `${cells} tokens expected at least five times`)
      // Mean `cells`, standard deviation sqrt(2 cells): four of them.
      t.ok(statistic < cells + 4 * Math.sqrt(2 * cells), `chi-square ${statistic.toFixed(1)} for ${cells} cells`)
    })
  }
})
