// Files of tokens: .npy, or JSON as `parvis encode` and `parvis generate --json --with-tokens` write it, or plain lists.
// A file comes from anywhere and is checked to the last number before a model sees it. Arrays of several axes leave open
// what an axis means; the model's own grid decides: a last axis as long as a whole picture is one, otherwise the last
// two axes are rows and columns.

import path from 'node:path'
import { ParError } from '../errors.js'
import { isNpy, readNpy, writeNpy, type Whole } from '../npy.js'
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
  throw new UsageError(`the name ${file} tells no format of tokens; end it in .json or .npy, or give --format`)
}

/** Tokens, as far as the first bytes tell; a picture otherwise. */
export function looksLikeTokens (bytes: Uint8Array): boolean {
  return isNpy(bytes) || /^(\xef\xbb\xbf)?\s*[[{]/.test(Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 1024)).toString('latin1'))
}

// ---- writing

export function tokensAsJson (tokenizer: { name?: string, path: string, codebookSize: number, factor: number }, pictures: readonly object[]): string {
  const { name, path, codebookSize, factor } = tokenizer
  return jsonText({ tokenizer: name ?? path, codebookSize, factor, pictures })
}

/** [rows, columns], or [pictures, rows, columns]. */
export function tokensAsNpy (pictures: readonly TokenPicture[]): Buffer {
  const [rows, columns] = pictures[0]!.grid
  if (pictures.length === 1) return writeNpy({ data: pictures[0]!.tokens, shape: [rows, columns] })
  if (pictures.some(({ grid }) => grid[0] !== rows || grid[1] !== columns)) {
    throw new UsageError('pictures of different grids make no .npy array; write JSON, give --size, or leave out --no-crop')
  }
  const data = new Int32Array(pictures.length * rows * columns)
  pictures.forEach(({ tokens }, k) => data.set(tokens, k * rows * columns))
  return writeNpy({ data, shape: [pictures.length, rows, columns] })
}

// ---- reading

/**
 * @param own the model's grid, where it has one
 * @param said that of the command line, which must fit
 * @throws ParError `BAD_TOKENS`
 */
export function readTokens (bytes: Uint8Array, file: string, own: Grid | undefined, said?: Grid): TokenPicture[] {
  const pictures = isNpy(bytes) ? split(readNpy(bytes, file), file, own, said) : fromJson(bytes, file, own, said)
  if (pictures.length === 0) throw bad(file, 'holds no picture')
  return pictures
}

function bad (file: string, why: string, cause?: unknown): ParError {
  return new ParError('BAD_TOKENS', `${file}: ${why}`, cause === undefined ? undefined : { cause })
}

function fromJson (bytes: Uint8Array, file: string, own: Grid | undefined, said: Grid | undefined): TokenPicture[] {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8').replace(/^\ufeff/, ''))
  } catch (cause) {
    throw bad(file, 'is neither a .npy file nor JSON', cause)
  }
  if (Array.isArray(value)) return split(nested(value, file), file, own, said)
  const record = value as { pictures?: unknown, images?: unknown, tokens?: unknown } | null
  const list = record?.pictures ?? record?.images ?? (record?.tokens === undefined ? undefined : [record])
  if (!Array.isArray(list)) throw bad(file, 'holds no tokens: a list of numbers is wanted, or what parvis encode writes')
  return list.flatMap((entry: unknown, k) => {
    const where = `${file}: pictures[${k}]`
    const { tokens, grid } = (entry ?? {}) as { tokens?: unknown, grid?: unknown }
    if (!Array.isArray(tokens)) throw bad(where, 'has no list of tokens')
    if (grid === undefined) return split(nested(tokens, where), where, own, said)
    const sides = Array.isArray(grid) ? grid as unknown[] : [grid, grid]
    if (sides.length !== 2 || !sides.every(side => Number.isInteger(side) && Number(side) > 0)) throw bad(where, 'has a grid that is not [rows, columns]')
    return split(nested(tokens, where), where, own, said ?? sides as [number, number])
  })
}

/** Lists of lists of equal lengths -> an array. */
function nested (value: unknown[], where: string): Whole {
  const shape: number[] = []
  for (let inner: unknown = value; Array.isArray(inner); inner = inner[0]) {
    shape.push(inner.length)
    if (shape.length > 32) throw bad(where, 'has lists that are nested too deeply')
  }
  const count = shape.reduce((product, side) => product * side, 1)
  const data: number[] = []
  const walk = (item: unknown, axis: number): void => {
    if (axis < shape.length) {
      if (!Array.isArray(item) || item.length !== shape[axis]) throw bad(where, 'has lists of different lengths')
      for (const inner of item as unknown[]) walk(inner, axis + 1)
    } else if (typeof item !== 'number' || !Number.isInteger(item) || item < 0 || item >= 2 ** 31) {
      throw bad(where, `holds ${JSON.stringify(item)?.slice(0, 40)} at place ${data.length}; tokens are whole numbers from 0`)
    } else data.push(item)
  }
  if (count > 0) walk(value, 0)
  return { data: Int32Array.from(data), shape }
}

function split ({ data, shape }: Whole, where: string, own: Grid | undefined, said: Grid | undefined): TokenPicture[] {
  if (data.length === 0 || shape.length === 0) throw bad(where, 'holds no tokens')
  const [last, before] = [shape.at(-1)!, shape.at(-2)]
  const whole = (grid: Grid): boolean => last === grid[0] * grid[1] || (last === grid[1] && before === grid[0])
  const grid = said ?? own
  if (grid && whole(grid)) return cut(data, grid)
  const text = shape.join(' x ')
  if (said) throw bad(where, `holds ${text} tokens, which are no pictures of ${said[0]} x ${said[1]}`)
  if (before !== undefined) return cut(data, [before, last])
  const side = Math.round(Math.sqrt(last))
  if (side * side !== last) throw bad(where, `holds ${last} tokens, which make no square; give --grid`)
  return cut(data, [side, side])
}

function cut (data: Int32Array, grid: Grid): TokenPicture[] {
  const length = grid[0] * grid[1]
  return Array.from({ length: data.length / length }, (_, k) => ({ tokens: data.slice(k * length, (k + 1) * length), grid }))
}
