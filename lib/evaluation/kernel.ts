// Products of the rows of two matrices in float64: what covariances, distances and the product of two factors are all
// made of. The inner loops are a function of WebAssembly with two numbers a vector, several times as fast as the same
// loops in JavaScript; its bytes are put together below, so that there is nothing to build and no binary to ship. A sum
// runs over its terms in the same order wherever in a tile it stands: equal rows have equal products.

import { ParError } from '../base/errors.js'

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

type Dots = (
  a: number, b: number, out: number, rowsA: number, rowsB: number, rowBytes: number, outBytes: number
) => void

/** As much of it as is used; the types of Node.js have none of it. */
declare const WebAssembly: {
  Memory: new (limits: { initial: number }) => { buffer: ArrayBuffer }
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object, imports: object) => { exports: Record<string, unknown> }
}

export class Kernel {
  readonly #dots: Dots
  readonly #a: Float64Array
  readonly #b: Float64Array
  readonly #out: Float64Array
  /** Which rows lie in `a`: the same stay there for one tile after another. */
  #held: { load: Load, first: number, from: number } | undefined

  constructor () {
    const tile = tileRows * stretch
    const memory = new WebAssembly.Memory({ initial: Math.ceil((2 * tile + tileRows ** 2) * 8 / 65536) })
    try {
      const { exports } = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()), { '': { '': memory } })
      this.#dots = exports.d as Dots
    } catch (cause) {
      throw new ParError('NATIVE_UNAVAILABLE', 'this Node.js runs no WebAssembly with vectors, which evaluations are ' +
        'computed with: start it without --jitless, on a processor that knows them', { cause })
    }
    this.#a = new Float64Array(memory.buffer, 0, tile)
    this.#b = new Float64Array(memory.buffer, tile * 8, tile)
    this.#out = new Float64Array(memory.buffer, 2 * tile * 8, tileRows ** 2)
  }

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
        this.#dots(0, this.#b.byteOffset + row * stride * 8, this.#out.byteOffset + row * 8, paddedA,
          Math.min(few, paddedB - row), stride * 8, tileRows * 8)
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

// ---- the module: out[i][j] += sum of a[i][k] * b[j][k], for four rows of a and two of b at a time

const [i32, v128] = [0x7f, 0x7b]

/** LEB128, unsigned. */
function leb (value: number): number[] {
  const bytes: number[] = []
  do {
    bytes.push((value & 127) | (value > 127 ? 128 : 0))
    value >>>= 7
  } while (value > 0)
  return bytes
}

const get = (local: number): number[] => [0x20, ...leb(local)]
const set = (local: number): number[] => [0x21, ...leb(local)]
const constant = (value: number): number[] => [0x41, ...leb(value)] // below 64: its sign is that of a signed number
const [plus, times, below] = [[0x6a], [0x6c], [0x49]]
/** Repeats `body` as long as local `at` is below local `end`; runs it once at least. */
const loop = (at: number, end: number, ...body: number[][]): number[] =>
  [0x03, 0x40, ...body.flat(), ...get(at), ...get(end), ...below, 0x0d, 0x00, 0x0b]
const load = (address: number, offset = 0): number[] => [...get(address), 0xfd, 0x00, 0x03, ...leb(offset)]
const [addVectors, multiplyVectors] = [[0xfd, 0xf0, 0x01], [0xfd, 0xf2, 0x01]]
/** Two numbers, one of each of two vectors: the lower ones (0) or the upper ones (8). */
const pair = (half: number): number[] => [0xfd, 0x0d, ...[0, 16].flatMap(from =>
  Array.from({ length: 8 }, (_, k) => from + half + k))]

function moduleBytes (): Uint8Array<ArrayBuffer> {
  const [a, b, out, rowsA, rowsB, rowBytes, outBytes] = [0, 1, 2, 3, 4, 5, 6]
  const [endA, endB, rowB, place, cell, end] = [7, 8, 9, 10, 11, 12]
  const [x, y] = [[13, 14, 15, 16], [17, 18]]
  const sums = [[19, 20], [21, 22], [23, 24], [25, 26]]
  const [factors, factor] = [[27, 28], 29]
  const advance = (local: number, by: number[]): number[] => [...get(local), ...by, ...plus, ...set(local)]

  const multiply = [0, 16, 32, 48].flatMap(offset => [
    ...y.flatMap((pointer, j) => [...load(pointer, offset), ...set(factors[j]!)]),
    ...x.flatMap((pointer, i) => [
      ...load(pointer, offset), ...set(factor),
      ...factors.flatMap((other, j) => [
        ...get(sums[i]![j]!), ...get(factor), ...get(other), ...multiplyVectors, ...addVectors, ...set(sums[i]![j]!)
      ])
    ])
  ])
  const sumUp = x.flatMap((_, i) => [
    ...get(cell), ...load(cell),
    ...[0, 8].flatMap(half => [...get(sums[i]![0]!), ...get(sums[i]![1]!), ...pair(half)]), ...addVectors,
    ...addVectors, 0xfd, 0x0b, 0x03, 0x00, // store
    ...advance(cell, get(outBytes))
  ])
  const code = [
    ...get(a), ...get(rowsA), ...get(rowBytes), ...times, ...plus, ...set(endA),
    ...get(b), ...get(rowsB), ...get(rowBytes), ...times, ...plus, ...set(endB),
    ...loop(a, endA,
      get(out), set(place), get(b), set(rowB),
      loop(rowB, endB,
        get(a), set(x[0]!), ...[1, 2, 3].map(i => [...get(x[i - 1]!), ...get(rowBytes), ...plus, ...set(x[i]!)]),
        get(rowB), set(y[0]!), get(rowB), get(rowBytes), plus, set(y[1]!),
        get(x[1]!), set(end),
        ...sums.flat().map(sum => [0xfd, 0x0c, ...Array<number>(16).fill(0), ...set(sum)]),
        loop(x[0]!, end, multiply, ...[...x, ...y].map(pointer => advance(pointer, [0x41, 0xc0, 0x00]))),
        get(place), set(cell), sumUp,
        advance(place, constant(16)),
        get(y[1]!), set(rowB)),
      get(x[3]!), set(a),
      ...[0, 1, 2, 3].map(() => advance(out, get(outBytes))))
  ]

  const section = (id: number, ...content: number[]): number[] => [id, ...leb(content.length), ...content]
  const locals = [2, ...leb(12), i32, ...leb(11), v128]
  const body = [...locals, ...code, 0x0b]
  return Uint8Array.of(
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version 1
    ...section(1, 1, 0x60, 7, ...Array<number>(7).fill(i32), 0), // the type of the function
    ...section(2, 1, 0, 0, 0x02, 0x00, 1), // memory, imported under two empty names
    ...section(3, 1, 0),
    ...section(7, 1, 1, 0x64, 0x00, 0), // exported as d
    ...section(10, 1, ...leb(body.length), ...body))
}
