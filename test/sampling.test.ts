// Draws against an independent reference: Philox in BigInt arithmetic (itself checked against the known answers of
// its authors), probabilities in double precision, sets of top-k and top-p by sorting. The native side draws by
// integer arithmetic without sorting, so the two share nothing but the definition.

import t from 'tap'
import { describeTransformer, openCheckpoint } from '../lib/checkpoint/index.js'
import { addon, classInput, type StepRule } from '../lib/native.js'
import { golden } from './support/golden.js'

const mask = 0xffffffffn

/** Philox4x32-10: counter and key, four and two words -> four words. */
function philox (counter: bigint[], key: bigint[]): bigint[] {
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint]
  let [k0, k1] = key as [bigint, bigint]
  for (let round = 0; round < 10; round++) {
    const p0 = 0xD2511F53n * c0
    const p1 = 0xCD9E8D57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask]
    k0 = (k0 + 0x9E3779B9n) & mask
    k1 = (k1 + 0xBB67AE85n) & mask
  }
  return [c0, c1, c2, c3]
}

/** A number in [0, 1) for the token at `index` of the sequence with this seed. */
function uniform (seed: bigint, index: number): number {
  const words = philox([BigInt(index), 0n, 0n, 0n], [seed & mask, seed >> 32n])
  return Number(words[1]! << 32n | words[0]!) / 2 ** 64
}

/** The token that the definition draws (design, section 1: temperature, top-k with ties, top-p with the token above p). */
function reference (logits: Float32Array, rule: StepRule, u: number): { token: number, margin: number } {
  const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b)
  if (rule.temperature === 0) return { token: order[0]!, margin: 1 }
  const top = logits[order[0]!]!
  const weights = Float64Array.from(logits, l => Math.exp((l - top) / rule.temperature))
  const threshold = rule.topK > 0 ? logits[order[Math.min(rule.topK, order.length) - 1]!]! : -Infinity
  weights.forEach((_, i) => { if (logits[i]! < threshold) weights[i] = 0 })
  let total = weights.reduce((a, b) => a + b)
  let before = 0
  for (const i of order) {
    const weight = weights[i]!
    if (before > rule.topP * total) weights[i] = 0
    before += weight
  }
  total = weights.reduce((a, b) => a + b)
  let sum = 0
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!
    if (sum > u * total) return { token: i, margin: Math.min(sum / total - u, u - (sum - weights[i]!) / total) }
  }
  return { token: order[0]!, margin: 0 }
}

t.test('Philox4x32-10: known answers of Random123', async t => {
  t.same(philox([0n, 0n, 0n, 0n], [0n, 0n]), [0x6627e8d5n, 0xe169c58dn, 0xbc57ac4cn, 0x9b00dbd8n])
  t.same(philox([mask, mask, mask, mask], [mask, mask]), [0x408f276dn, 0x41c83b0en, 0xa20bc7c6n, 0x6d5451fdn])
  t.same(philox([0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n], [0xa4093822n, 0x299f31d0n]), [0xd16cfe09n, 0x94fdccebn, 0x5001e420n, 0x24126ea1n])
})

t.test('draws', async t => {
  const checkpoint = await openCheckpoint(golden('par-4x/model.pt'))
  const { model, tensors } = describeTransformer(checkpoint, { heads: 2, grid: 8 })
  const engine = addon().createEngine({ device: 'cpu', threads: 2 })
  t.teardown(() => engine.dispose())
  const transformer = await engine.loadTransformer(checkpoint.file, tensors, model, 'float32')
  const row = Int32Array.of(classInput, 0, -1, -1, 1, 1, 0)

  /** First tokens of `count` sequences and the logits they were drawn from. */
  async function draw (rule: StepRule, count: number, firstSeed: bigint) {
    const seeds = BigUint64Array.from({ length: count }, (_, i) => firstSeed + BigInt(i) * 0x1_0000_0001n)
    const session = await transformer.createSession({
      classIds: Int32Array.from({ length: count }, (_, i) => i % 10), seeds, guided: true, slots: 64, tokens: 64, maxRows: 4, keepLogits: Int32Array.of(0)
    })
    await session.step(row, rule)
    const tokens = await session.readTokens()
    const logits = await session.readLogits()
    session.dispose()
    return Array.from({ length: count }, (_, i) => ({
      seed: seeds[i]!, token: tokens[i * 64]!, logits: logits.subarray(i * model.vocabularySize, (i + 1) * model.vocabularySize)
    }))
  }

  const plain: StepRule = { mode: 'sample', guidanceScale: 1, temperature: 1, topK: 0, topP: 1 }
  const rules: Array<[string, Partial<StepRule>]> = [
    ['plain', {}], ['guided', { guidanceScale: 3 }], ['cold', { temperature: 0.3 }], ['hot', { temperature: 4 }], ['greedy', { temperature: 0 }],
    ['top-k 1', { topK: 1 }], ['top-k 5', { topK: 5 }], ['top-k of all', { topK: 256 }], ['top-p 0.1', { topP: 0.1 }], ['top-p 0.9', { topP: 0.9 }],
    ['tiny top-p', { topP: 1e-6 }], ['all of them', { guidanceScale: 2, temperature: 0.7, topK: 40, topP: 0.8 }]
  ]
  for (const [name, part] of rules) {
    const rule = { ...plain, ...part }
    const drawn = await draw(rule, 500, 0x9000_0000_0000_0000n)
    const wrong = drawn.filter(({ seed, token, logits }) => {
      const expected = reference(logits, rule, uniform(seed, 0))
      return expected.token !== token && expected.margin > 1e-6 // nearer than float rounding: either neighbour
    })
    t.equal(wrong.length, 0, `${name}: 500 draws as the reference`)
  }

  t.test('frequencies are the probabilities', async t => {
    const drawn = await draw({ ...plain, temperature: 0.2 }, 4000, 1n)
    const counts = new Map<string, number>()
    for (const { token }  of drawn) counts.set(String(token), (counts.get(String(token)) ?? 0) + 1)
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
})
