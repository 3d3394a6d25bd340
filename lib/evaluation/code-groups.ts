// Fewer codes for larger tables. A table of two or three tokens has as many fields as the codebook to the power of two
// or three, and needs some pictures for each; where there are fewer, codes that stand beside the same codes are taken
// for one. That asks for no tokenizer: the tokens themselves tell. It is the agglomerative information bottleneck
// (Slonim and Tishby, 1999), which Brown's word classes are an instance of: of all pairs of groups the one is merged
// that loses the least information about the neighbours. Codes beyond the most frequent ones join a group afterwards.

import type { Slices } from '../base/slices.js'
import { countCodes, type TokenSet } from './token-set.js'

/** Codes that are merged pair by pair; the rarer ones join the groups that come of it. */
const merged = 256
/** Kinds of neighbours that are told apart; of more codes several share a kind. */
const kinds = 256
/** Codes told apart at all; the rarest of a larger codebook count as one. */
const told = 65536
/** Tokens whose neighbours are counted. */
const tokensRead = 2 ** 22

/** Groups at most, where codes have to be grouped. */
export const maxGroups = merged

export interface Groups {
  /** Code -> group, [largest code + 1]. */
  map: Uint16Array
  groups: number
  /** Codes that come in the pictures. */
  codes: number
  /** Whether two codes share a group. */
  grouped: boolean
}

/** @param wanted groups at most; codes stay themselves where there are no more of them than that */
export async function groupCodes (set: TokenSet, wanted: number, slices: Slices): Promise<Groups> {
  const counts = await countCodes(set, slices)
  let codes = 0
  for (let code = 0; code < counts.length; code++) if (counts[code]! > 0) codes++
  const byCount = new Uint32Array(codes)
  for (let code = 0, k = 0; code < counts.length; code++) if (counts[code]! > 0) byCount[k++] = code
  const map = new Uint16Array(counts.length)
  if (codes <= wanted) {
    byCount.forEach((code, k) => { map[code] = k })
    return { map, groups: codes, codes, grouped: false }
  }
  // The most frequent first; of equally frequent ones the smaller number.
  byCount.sort((a, b) => counts[b]! - counts[a]! || a - b)
  const rank = new Uint16Array(counts.length)
  byCount.forEach((code, k) => { rank[code] = Math.min(k, told - 1) })
  const different = Math.min(codes, told)
  const profiles = await neighbourCounts(set, rank, different, slices)
  const width = profiles.length / different
  const groups = Math.min(wanted, maxGroups)
  const own = await merge(profiles, Math.min(different, merged), width, groups, slices)
  const ofRank = await join(profiles, own, different, width, groups, slices)
  byCount.forEach(code => { map[code] = ofRank[rank[code]!]! })
  return { map, groups, codes, grouped: true }
}

/** How often each code stands beside each kind of code, above, below, left or right: [codes, kinds]. */
async function neighbourCounts (
  { grid: [rows, columns], tokens, pictures }: TokenSet, rank: Uint16Array, codes: number, slices: Slices
): Promise<Float64Array> {
  const width = Math.min(codes, kinds)
  const counts = new Float64Array(codes * width)
  const cells = rows * columns
  const read = Math.max(1, Math.min(pictures, Math.floor(tokensRead / cells)))
  for (let k = 0; k < read; k++) {
    const from = Math.floor(k * pictures / read) * cells
    for (let cell = 0; cell < cells; cell++) {
      const code = rank[tokens[from + cell]!]!
      for (const step of [1, columns]) {
        if (step === 1 ? cell % columns === columns - 1 : cell + columns >= cells) continue
        const other = rank[tokens[from + cell + step]!]!
        counts[code * width + other % width]!++
        counts[other * width + code % width]!++
      }
    }
    if (slices.spend(cells)) await slices.rest()
  }
  return counts
}

/** x log x, summed over a profile, less that of its sum: minus the entropy of its kinds, times how often it comes. */
function order (profile: Float64Array, from: number, width: number): number {
  let [sum, total] = [0, 0]
  for (let k = from; k < from + width; k++) {
    const value = profile[k]!
    if (value > 0) sum += value * Math.log(value)
    total += value
  }
  return total > 0 ? sum - total * Math.log(total) : 0
}

/** The group of each of the first `codes` codes. */
async function merge (
  profiles: Float64Array, codes: number, width: number, groups: number, slices: Slices
): Promise<Uint16Array> {
  const own = profiles.slice(0, codes * width)
  const orders = Float64Array.from({ length: codes }, (_, code) => order(own, code * width, width))
  const both = new Float64Array(width)
  /** Information about the neighbours that is lost where two groups become one. */
  const loss = (a: number, b: number): number => {
    for (let k = 0; k < width; k++) both[k] = own[a * width + k]! + own[b * width + k]!
    return orders[a]! + orders[b]! - order(both, 0, width)
  }
  const losses = new Float64Array(codes * codes).fill(Infinity)
  for (let a = 0; a < codes; a++) {
    for (let b = a + 1; b < codes; b++) losses[a * codes + b] = loss(a, b)
    if (slices.spend((codes - a) * width)) await slices.rest()
  }
  const into = Uint16Array.from({ length: codes }, (_, code) => code)
  for (let left = codes; left > groups; left--) {
    let best = 0
    for (let k = 1; k < losses.length; k++) if (losses[k]! < losses[best]!) best = k
    const [a, b] = [Math.floor(best / codes), best % codes]
    for (let k = 0; k < width; k++) own[a * width + k]! += own[b * width + k]!
    orders[a] = order(own, a * width, width)
    for (let code = 0; code < codes; code++) {
      if (into[code] === b) into[code] = a
      losses[Math.min(b, code) * codes + Math.max(b, code)] = Infinity
    }
    for (let code = 0; code < codes; code++) {
      if (code === a || into[code] !== code) continue
      losses[Math.min(a, code) * codes + Math.max(a, code)] = loss(Math.min(a, code), Math.max(a, code))
    }
    if (slices.spend(codes * width + losses.length / 8)) await slices.rest()
  }
  const names = new Map([...new Set(into)].sort((a, b) => a - b).map((code, k) => [code, k]))
  return into.map(code => names.get(code)!)
}

/** The other codes: each to the group whose neighbours are most likely to be its own. */
async function join (
  profiles: Float64Array, own: Uint16Array, codes: number, width: number, groups: number, slices: Slices
): Promise<Uint16Array> {
  const ofRank = new Uint16Array(codes)
  ofRank.set(own)
  const logs = new Float64Array(groups * width).fill(1 / width) // one neighbour, spread, keeps logarithms finite
  own.forEach((group, code) => {
    for (let k = 0; k < width; k++) logs[group * width + k]! += profiles[code * width + k]!
  })
  for (let group = 0; group < groups; group++) {
    const part = logs.subarray(group * width, (group + 1) * width)
    const total = part.reduce((sum, value) => sum + value, 0)
    part.forEach((value, k) => { part[k] = Math.log(value / total) })
  }
  for (let code = own.length; code < codes; code++) {
    let best = -Infinity
    for (let group = 0; group < groups; group++) {
      let sum = 0
      for (let k = 0; k < width; k++) sum += profiles[code * width + k]! * logs[group * width + k]!
      if (sum > best) [best, ofRank[code]] = [sum, group]
    }
    if (slices.spend(groups * width / 8)) await slices.rest()
  }
  return ofRank
}
