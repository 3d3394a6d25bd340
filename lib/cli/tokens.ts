// Files of tokens: .npy, or JSON as `parvis encode` and `parvis generate --json --with-tokens` write it, or plain
// lists. A file comes from anywhere and is checked to the last number before a model sees it. Arrays of several axes
// leave open what an axis means; the model's own grid decides: a last axis as long as a whole picture is one, otherwise
// the last two axes are rows and columns.

import path from 'node:path'
import { ParError } from '../base/errors.js'
import { JsonError, readJson, type Json } from '../checkpoint/json.js'
import { maxImages } from '../api/tokens.js'
import { isNpy, readNpy, writeNpy, type Whole } from '../pictures/npy.js'
import { Slices } from '../base/slices.js'
import { shownPath, visible, withoutMark } from '../base/text.js'
import { jsonText, UsageError } from './terminal.js'

export type Grid = readonly [rows: number, columns: number]

export interface TokenPicture {
  /** Raster order. */
  tokens: Int32Array
  grid: Grid
}

export const tokenFormats = ['json', 'npy'] as const
export type TokenFormat = typeof tokenFormats[number]

/** The format asked for, or the one that the file name says, or JSON. */
export function tokenFormatOf (file: string | undefined, asked: TokenFormat | undefined): TokenFormat {
  if (asked) return asked
  const extension = path.extname(file ?? '').toLowerCase()
  if (file === undefined || file === '-' || extension === '.json') return 'json'
  if (extension === '.npy') return 'npy'
  throw new UsageError(
    `the name ${shownPath(file)} tells no format of tokens; end it in .json or .npy, or give --format`
  )
}

/** Tokens, as far as the first bytes tell; a picture otherwise. */
export function looksLikeTokens (bytes: Uint8Array): boolean {
  return isNpy(bytes) || /^(\xef\xbb\xbf)?\s*[[{]/.test(Buffer.from(bytes.buffer, bytes.byteOffset,
    Math.min(bytes.length, 1024)).toString('latin1'))
}

// ---- writing

export function tokensAsJson (
  tokenizer: { name?: string, path: string, codebookSize: number, factor: number }, pictures: readonly object[]
): string {
  const { name, path, codebookSize, factor } = tokenizer
  return jsonText({ tokenizer: name ?? path, codebookSize, factor, pictures })
}

/** [rows, columns], or [pictures, rows, columns]. */
export function tokensAsNpy (pictures: readonly TokenPicture[]): Buffer {
  const [rows, columns] = pictures[0]!.grid
  if (pictures.length === 1) return writeNpy({ data: pictures[0]!.tokens, shape: [rows, columns] })
  if (pictures.some(({ grid }) => grid[0] !== rows || grid[1] !== columns)) {
    throw new UsageError(
      'pictures of different grids make no .npy array; write JSON, give --size, or leave out --no-crop'
    )
  }
  const data = new Int32Array(pictures.length * rows * columns)
  pictures.forEach(({ tokens }, k) => data.set(tokens, k * rows * columns))
  return writeNpy({ data, shape: [pictures.length, rows, columns] })
}

// ---- reading

/** Memory that the values of a JSON file may take: some 16 million tokens. */
const jsonMemory = 256e6
const maxDepth = 34

/**
 * Reads in slices: other work runs in between.
 * @param own the model's grid, where it has one
 * @param said that of the command line, which must fit
 * @throws ParError `BAD_TOKENS`; the signal's reason
 */
export async function readTokens (
  bytes: Uint8Array, file: string, own: Grid | undefined, said?: Grid, signal?: AbortSignal
): Promise<TokenPicture[]> {
  const pictures = isNpy(bytes)
    ? split(await readNpy(bytes, file, signal), file, own, said)
    : await fromJson(bytes, file, own, said, new Slices(signal))
  if (pictures.length === 0) throw bad(file, 'holds no picture')
  return pictures
}

function bad (file: string, why: string, cause?: unknown): ParError {
  return new ParError('BAD_TOKENS', `${shownPath(file)}: ${visible(why, 1000)}`,
    cause === undefined ? undefined : { cause })
}

async function fromJson (
  bytes: Uint8Array, file: string, own: Grid | undefined, said: Grid | undefined, slices: Slices
): Promise<TokenPicture[]> {
  let value: Json
  try {
    value = await readJson(withoutMark(bytes), slices, { depth: maxDepth, memory: jsonMemory })
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause
    throw bad(file, `is neither a .npy file nor JSON: ${cause.message}`, cause)
  }
  if (Array.isArray(value)) return split(await nested(value, file, slices), file, own, said)
  const list = value instanceof Map
    ? value.get('pictures') ?? value.get('images') ?? (value.has('tokens') ? [value] : undefined)
    : undefined
  if (!Array.isArray(list)) {
    throw bad(file, 'holds no tokens: a list of numbers is wanted, or what parvis encode writes')
  }
  const pictures: TokenPicture[] = []
  for (const [k, entry] of list.entries()) {
    const where = `${shownPath(file)}: pictures[${k}]`
    const [tokens, grid] = entry instanceof Map ? [entry.get('tokens'), entry.get('grid')] : []
    if (!Array.isArray(tokens)) throw bad(where, 'has no list of tokens')
    const sides = grid === undefined ? undefined : Array.isArray(grid) ? grid : [grid, grid]
    if (sides && (sides.length !== 2 || !sides.every(side => Number.isInteger(side) && Number(side) > 0))) {
      throw bad(where, 'has a grid that is not [rows, columns]')
    }
    for (const picture of split(await nested(tokens, where, slices), where, own,
      said ?? sides as [number, number] | undefined)) {
      pictures.push(picture)
    }
    checkCount(pictures.length, file)
    if (slices.spend(16)) await slices.rest()
  }
  return pictures
}

/** Lists of lists of equal lengths -> an array. */
async function nested (value: Json[], where: string, slices: Slices): Promise<Whole> {
  const shape: number[] = []
  for (let inner: Json | undefined = value; Array.isArray(inner); inner = inner[0]) {
    shape.push(inner.length)
    if (shape.length > 32) throw bad(where, 'has lists that are nested too deeply')
  }
  const different = (): ParError => bad(where, 'has lists of different lengths')
  let items: Json[] = value
  // Opens the lists axis by axis; the tokens are what is left.
  for (const side of shape.slice(1)) {
    const inner: Json[] = []
    for (const list of items) {
      if (!Array.isArray(list) || list.length !== side) throw different()
      for (const item of list) {
        inner.push(item)
        if (slices.spend(1)) await slices.rest()
      }
      if (slices.spend(1)) await slices.rest()
    }
    items = inner
  }
  const data = new Int32Array(items.length)
  for (let k = 0; k < items.length; k++) {
    const item = items[k]
    if (Array.isArray(item)) throw different()
    if (typeof item !== 'number' || !Number.isInteger(item) || item < 0 || item >= 2 ** 31) {
      throw bad(where, `holds ${shown(item)} at place ${k}; tokens are whole numbers from 0`)
    }
    data[k] = item
    if (slices.spend(1)) await slices.rest()
  }
  return { data, shape }
}

function shown (item: Json | undefined): string {
  return item instanceof Map
    ? 'an object'
    : (typeof item === 'string' ? JSON.stringify(item.slice(0, 38)) : String(item)).slice(0, 40)
}

function split ({ data, shape }: Whole, where: string, own: Grid | undefined, said: Grid | undefined): TokenPicture[] {
  if (data.length === 0 || shape.length === 0) throw bad(where, 'holds no tokens')
  const [last, before] = [shape.at(-1)!, shape.at(-2)]
  const whole = (grid: Grid): boolean => last === grid[0] * grid[1] || (last === grid[1] && before === grid[0])
  const grid = said ?? own
  if (grid && whole(grid)) return cut(data, grid, where)
  const text = shape.join(' x ')
  if (said) throw bad(where, `holds ${text} tokens, which are no pictures of ${said[0]} x ${said[1]}`)
  if (before !== undefined) return cut(data, [before, last], where)
  const side = Math.round(Math.sqrt(last))
  if (side * side !== last) throw bad(where, `holds ${last} tokens, which make no square; give --grid`)
  return cut(data, [side, side], where)
}

function cut (data: Int32Array, grid: Grid, where: string): TokenPicture[] {
  const length = grid[0] * grid[1]
  const count = data.length / length
  checkCount(count, where)
  return Array.from({ length: count }, (_, k) => ({ tokens: data.subarray(k * length, (k + 1) * length), grid }))
}

/** A file of a few bytes a picture is no file of pictures, and each would be an object and a file of its own. */
export function checkCount (count: number, where: string): void {
  if (count > maxImages) throw bad(where, `holds ${count} pictures; at most ${maxImages} are made at a time`)
}
