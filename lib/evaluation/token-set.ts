// The tokens of many pictures in little memory, as statistics read them: a row a picture while they come in, then a
// column a cell, because every table that is counted pairs the same cells of all pictures.

import { ParError } from '../base/errors.js'
import type { Slices } from '../base/slices.js'
import { limits } from '../machine/limits.js'
import { shuffle, type Random } from './resampling.js'

export type Grid = readonly [rows: number, columns: number]

/** Tokens of pictures of one grid, raster order, [pictures, rows * columns]. */
export interface TokenSet {
  grid: Grid
  pictures: number
  tokens: Uint8Array | Uint16Array | Int32Array
}

/** Tokens that a set may hold; 2 to 4 bytes each. */
export const maxSetTokens = 2 ** 27

/** Gathers pictures, in the narrowest numbers that hold their tokens. */
export class TokenSetBuilder {
  private tokens: TokenSet['tokens'] = new Uint8Array(0)
  private length = 0
  private grid: Grid | undefined

  /**
   * @param tokens of one picture or several, raster order, whole numbers from 0
   * @param where what messages call them
   * @throws ParError `BAD_TOKENS` for another grid than that of the pictures before, or numbers that are no codes
   */
  add (tokens: Int32Array, grid: Grid, where: string): void {
    this.grid ??= grid
    if (grid[0] !== this.grid[0] || grid[1] !== this.grid[1]) {
      throw new ParError('BAD_TOKENS', `${where}: has ${grid.join(' x ')} tokens, the pictures before ` +
        `${this.grid.join(' x ')}. Statistics need pictures of one grid: give --size, or leave the other files out`)
    }
    let most = 0
    for (let i = 0; i < tokens.length; i++) if (tokens[i]! > most) most = tokens[i]!
    if (most >= limits.codebook) {
      throw new ParError('BAD_TOKENS', `${where}: holds the token ${most}; codebooks go up to ${limits.codebook} ` +
        'codes. Is it a file of tokens?')
    }
    const needed = this.length + tokens.length
    if (needed > maxSetTokens) {
      throw new ParError('BAD_TOKENS', `${where}: with it there are ${needed} tokens; statistics take at most ` +
        `${maxSetTokens} at a time. Give fewer files`)
    }
    const size = Math.max(this.tokens.BYTES_PER_ELEMENT, most < 256 ? 1 : most < 65536 ? 2 : 4)
    if (size !== this.tokens.BYTES_PER_ELEMENT || needed > this.tokens.length) {
      const room = needed > this.tokens.length ? Math.max(needed, Math.floor(this.length * 1.5)) : this.tokens.length
      const wider = size === 1 ? new Uint8Array(room) : size === 2 ? new Uint16Array(room) : new Int32Array(room)
      wider.set(this.tokens.subarray(0, this.length))
      this.tokens = wider
    }
    this.tokens.set(tokens, this.length)
    this.length = needed
  }

  /** Pictures so far. */
  get pictures (): number {
    return this.grid === undefined ? 0 : this.length / (this.grid[0] * this.grid[1])
  }

  /** @param chosen which pictures, by number; all where it is absent */
  finish (chosen?: Int32Array): TokenSet {
    const { grid = [0, 0] } = this
    const cells = grid[0] * grid[1]
    if (chosen === undefined) {
      return { grid, pictures: this.pictures, tokens: this.tokens.subarray(0, this.length) }
    }
    const tokens = this.tokens.slice(0, chosen.length * cells)
    chosen.forEach((picture, k) => {
      tokens.set(this.tokens.subarray(picture * cells, (picture + 1) * cells), k * cells)
    })
    return { grid, pictures: chosen.length, tokens }
  }
}

/** `wanted` of `count` numbers, evenly spaced: of files that are sorted by class every class stays. */
export function evenly (count: number, wanted: number): Int32Array {
  const some = Math.min(count, wanted)
  return Int32Array.from({ length: some }, (_, k) => Math.floor(k * count / some))
}

/** Whole numbers from 0 to `codes` - 1, a column a cell: [rows * columns, pictures]. */
export interface Columns {
  grid: Grid
  pictures: number
  codes: number
  values: Uint16Array
}

/** How often each code comes, [largest code + 1]. */
export async function countCodes ({ tokens }: TokenSet, slices: Slices): Promise<Uint32Array> {
  let most = 0
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i]! > most) most = tokens[i]!
    if ((i & 65535) === 0 && slices.spend(65536 / 16)) await slices.rest()
  }
  const counts = new Uint32Array(most + 1)
  for (let i = 0; i < tokens.length; i++) {
    counts[tokens[i]!]!++
    if ((i & 65535) === 0 && slices.spend(65536 / 16)) await slices.rest()
  }
  return counts
}

/**
 * Columns of a set, its pictures in random order: a picture's neighbour in a column is then any other picture, which is
 * what tables of independent tokens are made of.
 * @param map code -> number from 0 to `codes` - 1
 * @param order picture of each place
 */
export async function columnsOf (
  { grid, pictures, tokens }: TokenSet, map: Uint16Array, codes: number, order: Int32Array, slices: Slices
): Promise<Columns> {
  const cells = grid[0] * grid[1]
  const values = new Uint16Array(tokens.length)
  for (let place = 0; place < pictures; place++) {
    const from = order[place]! * cells
    for (let cell = 0; cell < cells; cell++) values[cell * pictures + place] = map[tokens[from + cell]!]!
    if (slices.spend(Math.ceil(cells / 8))) await slices.rest()
  }
  return { grid, pictures, codes, values }
}

/** The numbers from 0 to `count` - 1 in random order. */
export function randomOrder (count: number, random: Random): Int32Array {
  return shuffle(Int32Array.from({ length: count }, (_, k) => k), random)
}
