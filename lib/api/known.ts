// The option `known` of `generate`: which cells of which pictures are there already.

import { isUint8Array, trueLength } from '../base/realm.js'
import { integer, invalid, isList, isObject, oneOf, optionsObject, show } from '../base/validate.js'
import { limits } from '../machine/limits.js'
import { ownImage, type ImageInput, type OwnImage } from './image-input.js'
import { tokenList, type Tokens } from './tokens.js'

/** A half of a picture. */
export type KnownSide = 'left' | 'right' | 'top' | 'bottom'
export const knownSides: readonly KnownSide[] = ['left', 'right', 'top', 'bottom']
const boxNames = ['row', 'column', 'rows', 'columns'] as const

/** A part of the token grid. */
export interface CellBox {
  /** First row, from 0. */
  row: number
  /** First column, from 0. */
  column: number
  /** Rows, at least 1. */
  rows: number
  /** Columns, at least 1. */
  columns: number
}

/**
 * Which cells of the token grid are kept: a half (of an odd number of rows or columns the smaller one), all outside a
 * box, or a number for each cell in raster order, [rows * columns]: true or 1 is kept, false or 0 is drawn.
 */
export type KnownMask = KnownSide | {
  /** The cells that are drawn. */
  outside: CellBox
} | ReadonlyArray<boolean | number> | Uint8Array

/** What is there already of the pictures that `generate` completes: `tokens` or `image`. */
export interface Known {
  /**
   * Tokens of one picture for all, or of one for each, raster order, [rows * columns]. Only those kept are looked at.
   */
  tokens?: Tokens | readonly Tokens[] | undefined
  /** A picture for all, or one for each: cropped to the grid and encoded, as `encode` does. */
  image?: ImageInput | readonly ImageInput[] | undefined
  /** The cells that are kept; the rest is drawn. */
  mask: KnownMask
}

export interface CheckedKnown {
  tokens: unknown[] | undefined
  images: OwnImage[] | undefined
  mask: KnownSide | CellBox | Uint8Array
}

// ---- before a model is touched

/** @param pictures how many are made */
export function checkKnown (value: unknown, pictures: number): CheckedKnown {
  if (!isObject(value)) throw invalid(`known must be an object with tokens or image, and mask; not ${show(value)}`)
  const { tokens, image, mask } = optionsObject(value, 'known', ['tokens', 'image', 'mask'])
  if ((tokens === undefined) === (image === undefined)) throw invalid('known takes either tokens or image')
  if (mask === undefined) {
    throw invalid("known needs mask: 'left', 'right', 'top', 'bottom', { outside: { row, column, rows, columns } }, " +
      'or a number for each cell')
  }
  const found = {
    tokens: tokens === undefined ? undefined : tokenList(tokens, 'known.tokens').list,
    images: image === undefined ? undefined : (isList(image) ? [...image] : [image]).map(ownImage),
    mask: maskOption(mask)
  }
  const count = (found.tokens ?? found.images)!.length
  if (count !== 1 && count !== pictures) {
    throw invalid(`known needs one picture for all or one for each: ${pictures} are made, ${count} are given`)
  }
  return found
}

function maskOption (value: unknown): CheckedKnown['mask'] {
  if (typeof value === 'string') return oneOf(value, 'known.mask', knownSides)
  if (isUint8Array(value) || isList(value)) return cells(value)
  if (!isObject(value) || ArrayBuffer.isView(value)) {
    throw invalid(`known.mask must be ${knownSides.join(', ')}, { outside } or a list of cells, not ${show(value)}`)
  }
  const box = optionsObject(optionsObject(value, 'known.mask', ['outside']).outside, 'known.mask.outside', boxNames)
  const [row, column, rows, columns] = boxNames.map((name, i) =>
    integer(box[name], `known.mask.outside.${name}`, i < 2 ? 0 : 1, limits.gridSide))
  return { row: row!, column: column!, rows: rows!, columns: columns! }
}

function cells (value: Uint8Array | unknown[]): Uint8Array {
  const length = isList(value) ? value.length : trueLength(value)
  if (length === 0 || length > limits.tokens) {
    throw invalid(`known.mask has ${length} cells; a picture has 1 to ${limits.tokens}`)
  }
  const keep = new Uint8Array(length)
  for (let i = 0; i < length; i++) {
    const cell: unknown = value[i]
    if (cell !== true && cell !== false && cell !== 0 && cell !== 1) {
      throw invalid(`known.mask[${i}] must be true, false, 1 or 0, not ${show(cell)}`)
    }
    keep[i] = Number(cell)
  }
  return keep
}

// ---- with a model

/** Raster order, [rows * columns]: 1 where a cell is kept. @throws ParError `INVALID_OPTION` where nothing is drawn */
export function keptCells (
  mask: CheckedKnown['mask'], [rows, columns]: readonly [rows: number, columns: number]
): Uint8Array {
  let keep: Uint8Array
  if (isUint8Array(mask)) {
    if (mask.length !== rows * columns) {
      throw invalid(`known.mask has ${mask.length} cells; a picture of this model has ${rows} x ${columns}`)
    }
    keep = mask
  } else {
    const [halfRows, halfColumns] = [Math.floor(rows / 2), Math.floor(columns / 2)]
    const isKept = (row: number, column: number): boolean => {
      switch (mask) {
        case 'left': return column < halfColumns
        case 'right': return column >= columns - halfColumns
        case 'top': return row < halfRows
        case 'bottom': return row >= rows - halfRows
        default: return row < mask.row || row >= mask.row + mask.rows ||
          column < mask.column || column >= mask.column + mask.columns
      }
    }
    keep = Uint8Array.from({ length: rows * columns }, (_, cell) =>
      Number(isKept(Math.floor(cell / columns), cell % columns)))
  }
  if (!keep.includes(0)) throw invalid('known.mask keeps every cell of the grid; nothing is left to draw')
  return keep
}
