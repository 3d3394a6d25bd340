// Random orders of tokens, by the counter-based generator that native code draws tokens with (include/parvis/random.h):
// an order depends on the picture's seed alone.

const [multiplier0, multiplier1, weyl0, weyl1] = [0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85]

/** High half of the product of two 32-bit numbers. */
function high (a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16]
  const first = aHigh * bLow + (aLow * bLow >>> 16)
  const second = aLow * bHigh + (first & 0xffff)
  return aHigh * bHigh + (first >>> 16) + (second >>> 16) >>> 0
}

/**
 * Philox4x32-10 (Salmon et al. 2011).
 * @param counter four 32-bit words, the lowest first
 * @param key two 32-bit words
 */
export function philox (
  counter: readonly [number, number, number, number], key: readonly [number, number]
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const next0 = (high(multiplier1, c2) ^ c1 ^ k0) >>> 0
    const next2 = (high(multiplier0, c0) ^ c3 ^ k1) >>> 0
    c1 = Math.imul(multiplier1, c2) >>> 0
    c3 = Math.imul(multiplier0, c0) >>> 0
    c0 = next0
    c2 = next2
    k0 = k0 + weyl0 >>> 0
    k1 = k1 + weyl1 >>> 0
  }
  return [c0, c1, c2, c3]
}

/** Word 2 of the counter: draws of tokens have 0 there, so an order never shares a draw with a token. */
const purposeOfOrders = 1

/** Whole numbers that are drawn one after the other for the order of a picture. */
export class OrderDraws {
  #count = 0
  readonly #key: [number, number]

  /** @param seed of the picture, 0 to 2^53 - 1 */
  constructor (seed: number) {
    this.#key = [seed >>> 0, Math.floor(seed / 2 ** 32)]
  }

  /** Uniform in 0 .. below - 1. */
  below (below: number): number {
    const [low, more] = philox([this.#count++, 0, purposeOfOrders, 0], this.#key)
    return Math.floor(((more >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53 * below)
  }

  /** Shuffles in place (Fisher and Yates). */
  shuffle (values: { [index: number]: number, length: number }): void {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const value = values[i]!
      values[i] = values[j]!
      values[j] = value
    }
  }
}
