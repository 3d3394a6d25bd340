// What tokens tell of each other, counted over many pictures: the conditional entropies of the paper's figure 9, and
// the rise in entropy of its figure 10, when the tokens of a step are predicted at once instead of one by one. All in
// bits.
//
// The estimator is Grassberger's (2003): where a value came n times in N pictures, log N - G(n) takes the place of
// log N - log n. Plain counts (the plug-in estimator) make entropies too small by about (fields in use - 1) / 2N nats;
// G takes most of that away, and all but exponentially little of it where a field has a few pictures on average. An
// estimate is a mean over pictures of such differences, so each picture contributes a number, and intervals come from
// drawing these contributions again (resampling.ts). The tables are held meanwhile: that is the bootstrap to first
// order, and without the bias that repeated pictures bring into entropies that are counted anew.

import type { Slices } from '../base/slices.js'
import type { Schedule } from '../decoding/schedule.js'
import { invalid } from '../base/validate.js'
import type { Columns } from './token-set.js'

// ---- the estimator

/**
 * Pictures that a table of `tokens` tokens of `codes` codes each needs: two for each field of a table of two tokens,
 * and twice as many with every further token, because the differences that are sought become smaller.
 */
export function picturesFor (codes: number, tokens: number): number {
  return (2 * codes) ** tokens / 2
}

/** Codes, or groups of codes, for which `pictures` fill a table of `tokens` tokens; 2 at least. */
export function codesFor (pictures: number, tokens: number): number {
  const codes = Math.max(2, Math.floor((2 * pictures) ** (1 / tokens) / 2))
  return picturesFor(codes + 1, tokens) <= pictures ? codes + 1 : codes // roots are rounded
}

const euler = 0.5772156649015329

/** Grassberger's G(n) for n = 0 to `most`, in nats. It comes near log n. */
export function grassberger (most: number): Float64Array {
  const table = new Float64Array(most + 2)
  table[1] = -euler - Math.LN2
  table[2] = 2 + table[1]
  for (let n = 3; n <= most; n++) table[n] = n % 2 === 1 ? table[n - 1]! : table[n - 2]! + 2 / (n - 1)
  return table.subarray(0, most + 1)
}

/** log n for n = 0 to `most`: what makes the plug-in estimate of the same sums. */
function logarithms (most: number): Float64Array {
  return Float64Array.from({ length: most + 1 }, (_, n) => n === 0 ? 0 : Math.log(n))
}

/** Sets the fields of a table that pictures are in back to 0, whichever way is shorter. */
function clear (table: Int32Array, fields: Int32Array): void {
  if (table.length < fields.length) table.fill(0)
  else for (let k = 0; k < fields.length; k++) table[fields[k]!] = 0
}

function column ({ values, pictures }: Columns, cell: number): Uint16Array {
  return values.subarray(cell * pictures, (cell + 1) * pictures)
}

function checkColumns ({ pictures, codes }: Columns): void {
  if (pictures < 2) throw invalid(`pictures must be 2 or more, found ${pictures}`)
  if (codes ** 2 > 2 ** 26) throw invalid(`codes must be at most 8192 for a table of two tokens, found ${codes}`)
}

/** Work that Slices is charged for going once over a column. */
function pass (pictures: number): number {
  return Math.ceil(pictures / 16)
}

/** H(token) of each cell. */
export async function ownEntropies (columns: Columns, slices: Slices): Promise<Float64Array> {
  const { pictures, codes, grid } = columns
  const table = new Int32Array(codes)
  const known = grassberger(pictures)
  const entropies = new Float64Array(grid[0] * grid[1])
  for (let cell = 0; cell < entropies.length; cell++) {
    const values = column(columns, cell)
    table.fill(0)
    for (let k = 0; k < pictures; k++) table[values[k]!]!++
    let sum = 0
    for (let code = 0; code < codes; code++) sum += table[code]! * known[table[code]!]!
    entropies[cell] = Math.max(0, Math.log(pictures) - sum / pictures) / Math.LN2
    if (slices.spend(pass(pictures))) await slices.rest()
  }
  return entropies
}

// ---- figure 9: H(token | reference token)

/** Bits that a token must have of its own, so that the share that is left says something. */
export const leastOwn = 0.05
/** Bits by which the own entropies of cells may differ that are compared as like with like. */
const alike = 0.25

/** Cells of one kind around a reference: means over them. */
export interface Around {
  cells: number
  /** H(token). */
  own: number
  /** H(token | reference). */
  entropy: number
  /** H(token | reference) / H(token). */
  share: number
}

export interface Conditional {
  reference: number
  /** H(token | reference) of each cell; 0 of the reference itself. */
  entropy: Float64Array
  /** The same as a share of H(token); NaN where a token has hardly any entropy of its own. */
  share: Float64Array
  /** The cells that touch the reference. */
  neighbours: Around
  /** The cells at least half the longer side of the grid away, in rows or in columns. */
  far: Around
  /** Neighbours and those far cells whose own entropy is alike (0.25 bits): H(token | reference). */
  alike: { neighbours: number, far: number, cells: number }
  /** By how much the plug-in estimate lies below: mean over the cells. */
  plugInBias: number
  /** Estimate - H(token) where the reference is one of another picture, so that the truth is 0: mean over the cells. */
  residualBias: number
  /** What each picture contributes to the share of neighbours - that of far cells. */
  shareDifference: Float64Array
  /** What each picture contributes to the entropy of neighbours - that of far cells alike; empty without such cells. */
  alikeDifference: Float64Array
}

/** Rows or columns, whichever are more, between two cells. */
function distance (a: number, b: number, columns: number): number {
  return Math.max(Math.abs(Math.floor(a / columns) - Math.floor(b / columns)), Math.abs(a % columns - b % columns))
}

/** H(token | reference token) of every cell. @param own {@link ownEntropies} of the same columns */
export async function conditionalEntropy (
  columns: Columns, reference: number, own: Float64Array, slices: Slices
): Promise<Conditional> {
  checkColumns(columns)
  const { pictures, codes, grid } = columns
  const cells = grid[0] * grid[1]
  if (!(Number.isInteger(reference) && reference >= 0 && reference < cells)) {
    throw invalid(`reference must be a cell from 0 to ${cells - 1}, not ${reference}`)
  }
  const [known, plain] = [grassberger(pictures), logarithms(pictures)]
  const given = column(columns, reference)
  const givenCounts = new Int32Array(codes)
  for (let k = 0; k < pictures; k++) givenCounts[given[k]!]!++

  const all = Array.from({ length: cells }, (_, cell) => cell).filter(cell => cell !== reference)
  const half = Math.max(1, Math.floor(Math.max(...grid) / 2))
  const near = all.filter(cell => distance(cell, reference, grid[1]) === 1)
  const far = all.filter(cell => distance(cell, reference, grid[1]) >= Math.max(2, half))
  const telling = (list: number[]): number[] => list.filter(cell => own[cell]! >= leastOwn)
  const matched = near.map(cell => [cell, far.filter(other => Math.abs(own[other]! - own[cell]!) <= alike)] as const)
    .filter(([, others]) => others.length > 0)
  // The differences are sums over cells with these weights.
  const [shareWeights, alikeWeights] = [new Float64Array(cells), new Float64Array(cells)]
  for (const cell of telling(near)) shareWeights[cell] = 1 / telling(near).length
  for (const cell of telling(far)) shareWeights[cell] = -1 / telling(far).length
  for (const [cell, others] of matched) {
    alikeWeights[cell] = 1 / matched.length
    for (const other of others) alikeWeights[other]! -= 1 / matched.length / others.length
  }

  const entropy = new Float64Array(cells)
  const shareDifference = new Float64Array(pictures)
  const alikeDifference = new Float64Array(matched.length > 0 ? pictures : 0)
  const table = new Int32Array(codes * codes)
  const fields = new Int32Array(pictures)
  const ownCounts = new Int32Array(codes)
  let [plugIn, residual] = [0, 0]
  for (const cell of all) {
    const values = column(columns, cell)
    // ---- of another picture: the one before in the random order
    let before = given[pictures - 1]!
    for (let k = 0; k < pictures; k++) {
      const field = before * codes + values[k]!
      fields[k] = field
      table[field]!++
      before = given[k]!
    }
    let sum = 0
    before = given[pictures - 1]!
    for (let k = 0; k < pictures; k++) {
      sum += known[givenCounts[before]!]! - known[table[fields[k]!]!]!
      before = given[k]!
    }
    residual += sum / pictures / Math.LN2 - own[cell]!
    clear(table, fields)

    // ---- of the same picture
    for (let k = 0; k < pictures; k++) {
      const field = given[k]! * codes + values[k]!
      fields[k] = field
      table[field]!++
    }
    let plainSum = 0
    sum = 0
    for (let k = 0; k < pictures; k++) {
      const [both, alone] = [table[fields[k]!]!, givenCounts[given[k]!]!]
      sum += known[alone]! - known[both]!
      plainSum += plain[alone]! - plain[both]!
    }
    entropy[cell] = sum / pictures / Math.LN2
    plugIn += (sum - plainSum) / pictures / Math.LN2

    // ---- what each picture contributes to the differences
    const [shareWeight, alikeWeight] = [shareWeights[cell]!, alikeWeights[cell]!]
    if (shareWeight !== 0 || alikeWeight !== 0) {
      ownCounts.fill(0)
      for (let k = 0; k < pictures; k++) ownCounts[values[k]!]!++
      const share = entropy[cell]! / own[cell]!
      for (let k = 0; k < pictures; k++) {
        const bits = (known[givenCounts[given[k]!]!]! - known[table[fields[k]!]!]!) / Math.LN2
        if (shareWeight !== 0) {
          // A ratio of two means, to first order.
          const alone = (Math.log(pictures) - known[ownCounts[values[k]!]!]!) / Math.LN2
          shareDifference[k]! += shareWeight * (share + (bits - share * alone) / own[cell]!)
        }
        if (alikeWeight !== 0) alikeDifference[k]! += alikeWeight * bits
      }
    }
    clear(table, fields)
    if (slices.spend(6 * pass(pictures))) await slices.rest()
  }
  // An estimate may fall below 0 where the truth is 0; nothing else may.
  for (let cell = 0; cell < cells; cell++) entropy[cell] = Math.max(0, entropy[cell]!)
  const share = entropy.map((bits, cell) => own[cell]! >= leastOwn ? bits / own[cell]! : NaN)
  const around = (list: number[]): Around => ({
    cells: list.length,
    own: mean(list, own),
    entropy: mean(list, entropy),
    share: mean(telling(list), share)
  })
  return {
    reference,
    entropy,
    share,
    neighbours: around(near),
    far: around(far),
    alike: {
      neighbours: mean(matched.map(([cell]) => cell), entropy),
      far: matched.reduce((sum, [, others]) => sum + mean(others, entropy), 0) / matched.length,
      cells: matched.length
    },
    plugInBias: plugIn / all.length,
    residualBias: residual / all.length,
    shareDifference,
    alikeDifference
  }
}

/** NaN of no cells. */
function mean (list: readonly number[], of: Float64Array): number {
  return list.reduce((sum, cell) => sum + of[cell]!, 0) / list.length
}

// ---- figure 10: the rise from sequential to parallel prediction

/** Pictures that choose what a token is predicted from. */
const choosing = 16384
/** Pairs of tokens counted for the choice, about; more pairs of cells are counted over fewer pictures. */
const choosingWork = 2e9
/** Rows and columns around a token in which the earlier ones are looked at, at most. */
const maxReach = 15
/** Pairs of cells whose information is kept. */
const maxPairs = 2 ** 24

/** What the tokens of each pair of cells tell of each other, in bits, for pairs of cells that are not far apart. */
export interface PairInformation {
  reach: number
  of (a: number, b: number): number | undefined
}

export async function pairInformation (columns: Columns, slices: Slices): Promise<PairInformation> {
  checkColumns(columns)
  const { codes, grid: [rows, width] } = columns
  const cells = rows * width
  const reach = Math.max(1, Math.min(maxReach, Math.floor((Math.sqrt(maxPairs / cells) - 1) / 2)))
  const side = 2 * reach + 1
  const pairs = cells * Math.min(side ** 2, cells) / 2
  const pictures = Math.min(columns.pictures, choosing,
    Math.max(4 * codes ** 2, Math.floor(choosingWork / pairs)))
  const known = grassberger(pictures)
  const table = new Int32Array(codes * codes)
  const alone = new Int32Array(codes)
  const fields = new Int32Array(pictures)
  const entropies = new Float64Array(cells)
  const sumOf = (counts: Int32Array): number => {
    let sum = 0
    for (let k = 0; k < counts.length; k++) sum += counts[k]! * known[counts[k]!]!
    return sum / pictures
  }
  for (let cell = 0; cell < cells; cell++) {
    const values = column(columns, cell)
    alone.fill(0)
    for (let k = 0; k < pictures; k++) alone[values[k]!]!++
    entropies[cell] = Math.log(pictures) - sumOf(alone)
  }
  const information = new Float32Array(cells * side ** 2)
  const place = (a: number, b: number): number | undefined => {
    const [down, right] = [Math.floor(b / width) - Math.floor(a / width), b % width - a % width]
    if (Math.abs(down) > reach || Math.abs(right) > reach) return undefined
    return (a * side + down + reach) * side + right + reach
  }
  for (let a = 0; a < cells; a++) {
    const first = column(columns, a)
    for (let b = a + 1; b < cells; b++) {
      const at = place(a, b)
      if (at === undefined) continue
      const second = column(columns, b)
      if (table.length < pictures) {
        table.fill(0)
        for (let k = 0; k < pictures; k++) table[first[k]! * codes + second[k]!]!++
      } else {
        for (let k = 0; k < pictures; k++) fields[k] = first[k]! * codes + second[k]!
        for (let k = 0; k < pictures; k++) table[fields[k]!]!++
      }
      let sum = 0
      if (table.length < pictures) sum = sumOf(table)
      else {
        for (let k = 0; k < pictures; k++) sum += known[table[fields[k]!]!]! / pictures
        clear(table, fields)
      }
      const bits = (entropies[a]! + entropies[b]! - Math.log(pictures) + sum) / Math.LN2
      information[at] = bits
      information[place(b, a)!] = bits
      if (slices.spend(2 * pass(pictures))) await slices.rest()
    }
  }
  return {
    reach,
    of: (a, b) => {
      const at = place(a, b)
      return at === undefined ? undefined : information[at]
    }
  }
}

export interface Rise {
  /** Bits of each cell; NaN where the token is drawn alone in any case. */
  cells: Float64Array
  /** Bits of each cell with what is known before the step; NaN as above. */
  parallel: Float64Array
  /** Cells that the best token of the own group is taken from; -1 where there is none. */
  chosen: Int32Array
  /** Tokens that are predicted with others. */
  tokens: number
  /** Means over them. */
  mean: number
  meanParallel: number
  /** The same rise where the own group's token is one of another picture, so that the truth is 0. */
  residualBias: number
  /** By how much the plug-in estimate lies above. */
  plugInBias: number
  /** What each picture contributes to the mean. */
  contributions: Float64Array
}

/** Earlier tokens that a prediction may be given, beside that of the own group. */
export const mostPast = 2

/**
 * The rise in entropy of each token that is predicted in one step with others: I(x; y | c), where c is what tells most
 * of x among the tokens of earlier groups, and y the token that tells most of x, given c, among those of its own group
 * that come before it. Given c alone x is predicted in parallel, given c and y one by one.
 * @param past how many tokens c is
 */
export async function parallelRise (
  columns: Columns, schedule: Schedule, information: PairInformation, past: number, slices: Slices
): Promise<Rise> {
  const { pictures, codes, grid } = columns
  checkRise(columns, schedule, past)
  const { cells: order, tokensPerStep: group } = schedule
  const cells = grid[0] * grid[1]
  const [known, plain] = [grassberger(pictures), logarithms(pictures)]
  const result: Rise = {
    cells: new Float64Array(cells).fill(NaN), parallel: new Float64Array(cells).fill(NaN),
    chosen: new Int32Array(cells).fill(-1), tokens: 0, mean: 0, meanParallel: 0, residualBias: 0, plugInBias: 0,
    contributions: new Float64Array(pictures)
  }

  const context = new Int32Array(pictures)
  const contexts = codes ** past
  const [ofContext, ofBoth] = [new Int32Array(contexts), new Int32Array(contexts * codes)]
  const [ofOther, ofAll] = [new Int32Array(contexts * codes), new Int32Array(contexts * codes * codes)]
  const [both, other, whole] = [new Int32Array(pictures), new Int32Array(pictures), new Int32Array(pictures)]
  const last = new Int32Array(contexts)
  const shuffled = new Uint16Array(pictures)
  let [kept, trial] = [new Float64Array(pictures), new Float64Array(pictures)]

  /** I(x; y | c), each picture's part of it in `into`; the plug-in estimate beside it. */
  const rise = (values: Uint16Array, from: Uint16Array, into: Float64Array): [bits: number, plugIn: number] => {
    for (let k = 0; k < pictures; k++) {
      const field = context[k]! * codes + from[k]!
      other[k] = field
      whole[k] = field * codes + values[k]!
      ofOther[field]!++
      ofAll[whole[k]!]!++
    }
    let [sum, plainSum] = [0, 0]
    for (let k = 0; k < pictures; k++) {
      const [c, xc, yc, xyc] = [ofContext[context[k]!]!, ofBoth[both[k]!]!, ofOther[other[k]!]!, ofAll[whole[k]!]!]
      const part = known[xyc]! + known[c]! - known[xc]! - known[yc]!
      sum += part
      plainSum += plain[xyc]! + plain[c]! - plain[xc]! - plain[yc]!
      into[k] = part
    }
    clear(ofOther, other)
    clear(ofAll, whole)
    return [sum / pictures / Math.LN2, plainSum / pictures / Math.LN2]
  }

  for (let q = group; q < order.length; q++) {
    const cell = order[q]!
    const begin = q - q % group
    const values = column(columns, cell)
    result.tokens++
    result.cells[cell] = 0

    // ---- what is known before the step
    context.fill(0)
    for (const one of mostTelling(schedule, begin, cell, information, past)) {
      const given = column(columns, one)
      for (let k = 0; k < pictures; k++) context[k] = context[k]! * codes + given[k]!
    }
    let sum = 0
    for (let k = 0; k < pictures; k++) {
      both[k] = context[k]! * codes + values[k]!
      ofContext[context[k]!]!++
      ofBoth[both[k]!]!++
    }
    for (let k = 0; k < pictures; k++) sum += known[ofContext[context[k]!]!]! - known[ofBoth[both[k]!]!]!
    result.parallel[cell] = Math.max(0, sum / pictures / Math.LN2)
    result.meanParallel += result.parallel[cell]!

    // ---- what the own group adds
    let [most, mostPlugIn, mostShuffled] = [-Infinity, 0, -Infinity]
    for (let before = begin; before < q; before++) {
      const from = column(columns, order[before]!)
      const [bits, plugIn] = rise(values, from, trial)
      if (bits > most) {
        ;[most, mostPlugIn, result.chosen[cell]] = [bits, plugIn, order[before]!]
        ;[kept, trial] = [trial, kept]
      }
      // Of the picture before in the random order with the same c; the first has that of the last.
      last.fill(-1)
      for (let k = 0; k < pictures; k++) last[context[k]!] = from[k]!
      for (let k = 0; k < pictures; k++) {
        shuffled[k] = last[context[k]!]!
        last[context[k]!] = from[k]!
      }
      mostShuffled = Math.max(mostShuffled, rise(values, shuffled, trial)[0])
      if (slices.spend(8 * pass(pictures))) await slices.rest()
    }
    clear(ofContext, context)
    clear(ofBoth, both)
    if (q > begin) {
      result.cells[cell] = most
      result.mean += most
      result.plugInBias += mostPlugIn - most
      result.residualBias += mostShuffled
      for (let k = 0; k < pictures; k++) result.contributions[k]! += kept[k]! / Math.LN2
    }
    if (slices.spend(8 * pass(pictures))) await slices.rest()
  }
  const { tokens } = result
  for (const name of ['mean', 'meanParallel', 'residualBias', 'plugInBias'] as const) result[name] /= tokens
  for (let k = 0; k < pictures; k++) result.contributions[k]! /= tokens
  return result
}

function checkRise (columns: Columns, { cells, tokensPerStep }: Schedule, past: number): void {
  const { codes, grid } = columns
  checkColumns(columns)
  if (!Number.isInteger(past) || past < 1 || past > mostPast) {
    throw invalid(`past must be 1 or ${mostPast}, not ${past}`)
  }
  if (cells.length !== grid[0] * grid[1]) {
    throw invalid(`the schedule has ${cells.length} tokens, the pictures have ${grid[0] * grid[1]}`)
  }
  if (tokensPerStep < 2 || tokensPerStep >= cells.length) {
    throw invalid(`n must be from 2 to ${cells.length - 1}, so that some tokens are predicted at once after others; ` +
      `found ${tokensPerStep}`)
  }
  if (codes ** (past + 2) > 2 ** 26) {
    throw invalid(`groups must be at most ${Math.floor(2 ** (26 / (past + 2)))} for a table of ${past + 2} tokens, ` +
      `found ${codes}`)
  }
}

/** The `count` cells that tell most of `cell`, of the first `end` of the order; the last one where none is near. */
function mostTelling (
  { cells: order, sequence, rows, columns }: Schedule, end: number, cell: number, { of, reach }: PairInformation,
  count: number
): number[] {
  const found: Array<[cell: number, bits: number]> = []
  const [row, column] = [Math.floor(cell / columns), cell % columns]
  for (let y = Math.max(0, row - reach); y <= Math.min(rows - 1, row + reach); y++) {
    for (let x = Math.max(0, column - reach); x <= Math.min(columns - 1, column + reach); x++) {
      const other = y * columns + x
      if (sequence[other]! >= end) continue
      const bits = of(cell, other)!
      if (found.length === count && bits <= found[count - 1]![1]) continue
      if (found.length === count) found.pop()
      found.push([other, bits])
      found.sort((a, b) => b[1] - a[1])
    }
  }
  return found.length > 0 ? found.map(([cell]) => cell) : [order[end - 1]!]
}
