// Random numbers that a seed repeats, and intervals by drawing pictures again (bootstrap, percentile method).

import type { Slices } from '../base/slices.js'

/** 0 to 2^32 - 1 at each call. */
export type Random = () => number

/** Of a seed of 32 bits (Bob Jenkins's small fast counter generator, sfc32). */
export function randomOf (seed: number): Random {
  let [a, b, c, counter] = [0x9e3779b9, 0x243f6a88, seed | 0, 1]
  const next = (): number => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + sum | 0
    return sum >>> 0
  }
  for (let k = 0; k < 16; k++) next() // until the seed is in all bits
  return next
}

/** From 0 to `count` - 1. */
export function below (count: number, random: Random): number {
  return Math.floor(random() / 2 ** 32 * count)
}

/** Fisher and Yates, in place. */
export function shuffle<T extends Int32Array> (values: T, random: Random): T {
  for (let k = values.length - 1; k > 0; k--) {
    const other = below(k + 1, random)
    const kept = values[k]!
    values[k] = values[other]!
    values[other] = kept
  }
  return values
}

/** A mean over pictures, and where it lies in 95 of 100 draws of as many pictures. */
export interface Estimate {
  mean: number
  interval: [low: number, high: number]
}

/** Share of the draws that an interval holds. */
const inside = 0.95

/**
 * Means of contributions of pictures, with intervals. All lists are drawn together, so that differences of two lists
 * are paired.
 * @param lists [pictures] each: what each picture contributes to a mean
 */
export async function bootstrap (
  lists: readonly Float64Array[], draws: number, random: Random, slices: Slices
): Promise<Estimate[]> {
  const pictures = lists[0]?.length ?? 0
  const means = lists.map(list => list.reduce((sum, value) => sum + value, 0) / pictures)
  const drawn = lists.map(() => new Float64Array(draws))
  const weights = new Uint32Array(pictures)
  for (let draw = 0; draw < draws; draw++) {
    weights.fill(0)
    for (let k = 0; k < pictures; k++) {
      weights[below(pictures, random)]!++
      if ((k & 8191) === 8191 && slices.spend(8192 / 4)) await slices.rest()
    }
    for (const [which, list] of lists.entries()) {
      let sum = 0
      for (let k = 0; k < pictures; k++) sum += weights[k]! * list[k]!
      drawn[which]![draw] = sum / pictures
      if (slices.spend(Math.ceil(pictures / 16))) await slices.rest()
    }
  }
  return drawn.map((values, which) => {
    values.sort()
    return {
      mean: means[which]!, interval: [quantile(values, (1 - inside) / 2), quantile(values, (1 + inside) / 2)]
    }
  })
}

/** Of ascending values, between two of them in proportion. */
function quantile (values: Float64Array, share: number): number {
  const at = (values.length - 1) * share
  const [low, high] = [values[Math.floor(at)]!, values[Math.ceil(at)]!]
  return low + (high - low) * (at - Math.floor(at))
}

/** a - b, picture by picture. */
export function differenceOf (a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, k) => value - b[k]!)
}
