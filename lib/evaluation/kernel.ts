// Products of the rows of two matrices in float64: what covariances, distances and the product of two factors are all
// made of. The addon multiplies tiles, which are put together here. A sum runs over its terms in the same order
// wherever in a tile it stands: equal rows have equal products.

import { addon } from '../machine/native.js'

/** Numbers in C order; of a set of features a row is a picture. `data` lies in shared memory. */
export interface Matrix {
  data: Float64Array | Float32Array
  rows: number
  columns: number
}

/** Rows of a tile at most, and numbers of a row that are multiplied at a stretch: a tile has 4 MB at most. */
export const tileRows = 256
const stretch = 2048

/** Puts `count` rows, `length` numbers of each from place `from` on, into `target`; a row begins every `stride`. */
export type Load = (
  target: Float64Array, stride: number, first: number, count: number, from: number, length: number
) => void

/** The rows of a matrix, less `shift` where that is given. */
export function rowsOf ({ data, columns }: Matrix, shift?: Float64Array): Load {
  return (target, stride, first, count, from, length) => {
    for (let row = 0; row < count; row++) {
      const start = (first + row) * columns + from
      const at = row * stride
      if (shift === undefined) target.set(data.subarray(start, start + length), at)
      else copyShifted(data, start, shift, from, target, at, length)
    }
  }
}

function copyShifted (
  data: Float64Array | Float32Array, start: number, shift: Float64Array, from: number, target: Float64Array, at: number,
  length: number
): void {
  for (let k = 0; k < length; k++) target[at + k] = data[start + k]! - shift[from + k]!
}

/** Its columns less `shift`, as rows. */
export function columnsOf ({ data, columns }: Matrix, shift: Float64Array): Load {
  return (target, stride, first, count, from, length) => {
    for (let k = 0; k < length; k++) {
      const start = (from + k) * columns + first
      for (let row = 0; row < count; row++) target[row * stride + k] = data[start + row]! - shift[first + row]!
    }
  }
}

export class Kernel {
  readonly #a = new Float64Array(tileRows * stretch)
  readonly #b = new Float64Array(tileRows * stretch)
  readonly #out = new Float64Array(tileRows ** 2)
  /** Which rows lie in `a`: the same stay there for one tile after another. */
  #held: { load: Load, first: number, from: number } | undefined

  /**
   * Products of rows of `a` and of `b`, at most {@link tileRows} of each, of `inner` numbers.
   * @returns [rows of a, {@link tileRows}], overwritten by the next call
   */
  products (
    a: Load, firstA: number, rowsA: number, b: Load, firstB: number, rowsB: number, inner: number
  ): Float64Array {
    const [paddedA, paddedB] = [roundUp(rowsA, 4), roundUp(rowsB, 2)]
    this.#out.fill(0, 0, paddedA * tileRows)
    for (let from = 0; from < inner; from += stretch) {
      const length = Math.min(stretch, inner - from)
      const stride = roundUp(length, 8)
      const held = this.#held
      if (held?.load !== a || held.first !== firstA || held.from !== from) {
        fill(this.#a, a, firstA, rowsA, paddedA, from, length, stride)
        this.#held = { load: a, first: firstA, from }
      }
      fill(this.#b, b, firstB, rowsB, paddedB, from, length, stride)
      // Few rows of b at a time, so that they stay in the cache while all of a passes by.
      const few = Math.max(2, roundUp(Math.floor((1 << 16) / stride), 2))
      for (let row = 0; row < paddedB; row += few) {
        addon().addProducts({
          a: this.#a,
          b: this.#b.subarray(row * stride),
          out: this.#out.subarray(row),
          rowsA: paddedA,
          rowsB: Math.min(few, paddedB - row),
          stride,
          outStride: tileRows
        })
      }
    }
    return this.#out
  }
}

function roundUp (value: number, step: number): number {
  return Math.ceil(value / step) * step
}

/** The rest of the last row and the rows that round up their number are zeros. */
function fill (
  target: Float64Array, load: Load, first: number, count: number, padded: number, from: number, length: number,
  stride: number
): void {
  if (stride !== length || padded !== count) target.fill(0, 0, padded * stride)
  load(target, stride, first, count, from, length)
}
