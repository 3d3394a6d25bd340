// The definition of a draw, written without regard for speed: Philox in BigInt arithmetic, probabilities in double
// precision, sets of top-k and top-p by sorting. The native side draws by integer arithmetic without sorting, so the
// two share nothing but the definition.

import type { DrawRule } from './operations-addon.js'

export const mask = 0xffffffffn

/** Philox4x32-10: counter and key, four and two words -> four words. */
export function philox (counter: bigint[], key: bigint[]): bigint[] {
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
export function uniform (seed: bigint, index: number): number {
  const words = philox([BigInt(index), 0n, 0n, 0n], [seed & mask, seed >> 32n])
  return Number(words[1]! << 32n | words[0]!) / 2 ** 64
}

/**
 * Probabilities, not normalised, of the tokens that may be drawn (design, section 1: temperature, top-k with ties,
 * top-p with the token above p), and the tokens in the order of their logits. The rule's temperature is not 0.
 */
function keptWeights (logits: Float32Array, rule: DrawRule): { weights: Float64Array, order: number[] } {
  const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b)
  const top = logits[order[0]!]!
  const weights = Float64Array.from(logits, l => Math.exp((l - top) / rule.temperature))
  const threshold = rule.topK > 0 ? logits[order[Math.min(rule.topK, order.length) - 1]!]! : -Infinity
  weights.forEach((_, i) => { if (logits[i]! < threshold) weights[i] = 0 })
  const total = weights.reduce((a, b) => a + b)
  let before = 0
  for (const i of order) {
    const weight = weights[i]!
    if (before > rule.topP * total) weights[i] = 0
    before += weight
  }
  return { weights, order }
}

/** The token that is drawn by a random number into the sums of the probabilities, and how near another one is. */
export function drawReference (logits: Float32Array, rule: DrawRule, u: number): { token: number, margin: number } {
  if (rule.temperature === 0) return { token: logits.indexOf(Math.max(...logits)), margin: 1 }
  const { weights, order } = keptWeights(logits, rule)
  const total = weights.reduce((a, b) => a + b)
  let sum = 0
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!
    if (sum > u * total) return { token: i, margin: Math.min(sum / total - u, u - (sum - weights[i]!) / total) }
  }
  return { token: order[0]!, margin: 0 }
}

/** The token of the largest log-probability plus a Gumbel number, and how far the next one is behind. */
export function gumbelReference (
  logits: Float32Array, rule: DrawRule, seed: bigint, index: number
): { token: number, margin: number } {
  if (rule.temperature === 0) return { token: logits.indexOf(Math.max(...logits)), margin: 1 }
  const { weights } = keptWeights(logits, rule)
  const scores = Array.from(weights, (weight, v) => {
    const words = philox([BigInt(index), 0n, 2n, BigInt(v >> 2)], [seed & mask, seed >> 32n])
    const uniform = (Number(words[v & 3]! >> 1n) + 0.5) / 2 ** 31
    return Math.log(weight) - Math.log(-Math.log(uniform))
  })
  const token = scores.indexOf(Math.max(...scores))
  return { token, margin: scores[token]! - Math.max(...scores.filter((_, i) => i !== token)) }
}
