// What worker threads compute, piece by piece: each function does one piece, in float64, on matrices in shared memory.
// `fidelity.ts` says which pieces there are, and puts their results together.

import type { EigenvalueDecomposition, SingularValueDecomposition } from 'ml-matrix'
import { columnsOf, rowsOf, tileRows, type Kernel, type Matrix } from './kernel.js'
import { shared } from './memory.js'

/** Rows whose products with themselves, columns by columns, are a covariance: the rows of `matrix` less `shift`. */
export interface Factor {
  matrix: Matrix
  shift?: Float64Array
  /** Of each row. */
  scale: number
}

/** Where the tiles of so many rows begin. */
export function tiles (rows: number): number[] {
  return Array.from({ length: Math.ceil(rows / tileRows) }, (_, k) => k * tileRows)
}

function tileLength (rows: number, first: number): number {
  return Math.min(tileRows, rows - first)
}

// ---- means and covariances

export interface Moments {
  mean: Float64Array
  /** The sum of the variances. */
  trace: number
}

/** The mean is corrected by the mean of what is left: numbers far from 0 lose nothing. */
export function moments (_: Kernel, { x }: { x: Matrix }): Moments {
  const { data, rows, columns } = x
  const mean = shared(columns)
  for (const pass of [0, 1]) {
    const sums = new Float64Array(columns)
    for (let row = 0; row < rows; row++) addRow(data, row * columns, mean, sums)
    for (let k = 0; k < columns; k++) mean[k] = pass === 0 ? sums[k]! / rows : mean[k]! + sums[k]! / rows
  }
  const squares = new Float64Array(columns)
  for (let row = 0; row < rows; row++) addSquares(data, row * columns, mean, squares)
  let trace = 0
  for (const value of squares) trace += value
  return { mean, trace: trace / (rows - 1) }
}

function addRow (data: Matrix['data'], start: number, mean: Float64Array, sums: Float64Array): void {
  for (let k = 0; k < sums.length; k++) sums[k]! += data[start + k]! - mean[k]!
}

function addSquares (data: Matrix['data'], start: number, mean: Float64Array, sums: Float64Array): void {
  for (let k = 0; k < sums.length; k++) {
    const value = data[start + k]! - mean[k]!
    sums[k]! += value * value
  }
}

/** Rows `first` and on of the covariance of the columns, from the diagonal on, and the same columns. */
export function covariance (
  kernel: Kernel, { x, mean, out, first }: { x: Matrix, mean: Float64Array, out: Float64Array, first: number }
): void {
  const { rows, columns } = x
  const load = columnsOf(x, mean)
  const height = tileLength(columns, first)
  for (let left = first; left < columns; left += tileRows) {
    const width = tileLength(columns, left)
    const sums = kernel.products(load, first, height, load, left, width, rows)
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const value = sums[i * tileRows + j]! / (rows - 1)
        out[(first + i) * columns + left + j] = value
        out[(left + j) * columns + first + i] = value
      }
    }
  }
}

// ---- factors

/**
 * Cholesky's factor of a covariance, the largest of the variances that are left always next, as LAPACK's dpstrf has it.
 * It ends where nothing is left but rounding; undefined where something below that is left: then the matrix is no
 * covariance, or one that was rounded to fewer digits.
 */
export function cholesky (_: Kernel, { s, size }: { s: Float64Array, size: number }): Matrix | undefined {
  const left = new Float64Array(size)
  let largest = 0
  for (let i = 0; i < size; i++) {
    left[i] = s[i * size + i]!
    largest = Math.max(largest, left[i]!)
  }
  const rounding = size * Number.EPSILON * largest
  const order = Int32Array.from({ length: size }, (_, i) => i)
  const lower = Array.from({ length: size }, () => new Float64Array(size))
  let rank = 0
  for (; rank < size; rank++) {
    let next = rank
    for (let i = rank + 1; i < size; i++) if (left[i]! > left[next]!) next = i
    if (!(left[next]! > rounding)) break
    ;[order[rank], order[next]] = [order[next]!, order[rank]!]
    ;[left[rank], left[next]] = [left[next]!, left[rank]!]
    ;[lower[rank], lower[next]] = [lower[next]!, lower[rank]!]
    const row = lower[rank]!
    const root = Math.sqrt(left[rank]!)
    row[rank] = root
    const start = order[rank]! * size
    for (let i = rank + 1; i < size; i++) {
      const value = (s[start + order[i]!]! - dot(lower[i]!, row, rank)) / root
      lower[i]![rank] = value
      left[i]! -= value * value
    }
  }
  for (let i = rank; i < size; i++) if (left[i]! < -8 * rounding) return undefined
  const data = shared(rank * size)
  for (let i = 0; i < size; i++) for (let k = 0; k < rank; k++) data[k * size + order[i]!] = lower[i]![k]!
  return { data, rows: rank, columns: size }
}

function dot (a: Float64Array, b: Float64Array, length: number): number {
  let [one, two, three, four] = [0, 0, 0, 0]
  const most = length & ~3
  for (let k = 0; k < most; k += 4) {
    one += a[k]! * b[k]!
    two += a[k + 1]! * b[k + 1]!
    three += a[k + 2]! * b[k + 2]!
    four += a[k + 3]! * b[k + 3]!
  }
  for (let k = most; k < length; k++) one += a[k]! * b[k]!
  return one + two + three + four
}

/** The library, at first use. */
function library (): typeof import('ml-matrix') {
  return require('ml-matrix') as typeof import('ml-matrix')
}

function rowsAsArrays ({ data, rows, columns }: Matrix): Float64Array[] {
  return Array.from({ length: rows }, (_, row) => Float64Array.from(data.subarray(row * columns, (row + 1) * columns)))
}

/** A factor by eigenvalues and eigenvectors, for matrices that `cholesky` refuses; eigenvalues below 0 count as 0. */
export function eigenvectors (
  _: Kernel, { s, size }: { s: Float64Array, size: number }
): { factor: Matrix, least: number, largest: number } {
  const { Matrix: Dense, EVD } = library()
  const decomposed: EigenvalueDecomposition =
    new EVD(new Dense(rowsAsArrays({ data: s, rows: size, columns: size }) as unknown as number[][]),
      { assumeSymmetric: true })
  const { realEigenvalues: values, eigenvectorMatrix: vectors } = decomposed
  const positive = values.flatMap((value, k) => value > 0 ? [k] : [])
  const data = shared(positive.length * size)
  for (const [row, k] of positive.entries()) {
    const root = Math.sqrt(values[k]!)
    for (let i = 0; i < size; i++) data[row * size + i] = vectors.get(i, k) * root
  }
  return {
    factor: { data, rows: positive.length, columns: size },
    least: values.reduce((a, b) => Math.min(a, b), 0),
    largest: values.reduce((a, b) => Math.max(a, b), 0)
  }
}

/** Rows `first` and on of the products of the rows of two factors. */
export function product (
  kernel: Kernel, { a, b, out, first }: { a: Factor, b: Factor, out: Float64Array, first: number }
): void {
  const { rows, columns } = b.matrix
  const [loadA, loadB] = [rowsOf(a.matrix, a.shift), rowsOf(b.matrix, b.shift)]
  const height = tileLength(a.matrix.rows, first)
  for (let left = 0; left < rows; left += tileRows) {
    const width = tileLength(rows, left)
    const sums = kernel.products(loadA, first, height, loadB, left, width, columns)
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        out[(first + i) * rows + left + j] = sums[i * tileRows + j]! * a.scale * b.scale
      }
    }
  }
}

/** The sum of the singular values. */
export function singularValues (_: Kernel, { matrix }: { matrix: Matrix }): number {
  const { Matrix: Dense, SVD } = library()
  const decomposed: SingularValueDecomposition = new SVD(
    new Dense(rowsAsArrays(matrix) as unknown as number[][]),
    { computeLeftSingularVectors: false, computeRightSingularVectors: false, autoTranspose: true })
  return decomposed.diagonal.reduce((sum, value) => sum + value, 0)
}

// ---- distances

/** A set whose distances are looked at. */
export interface Points {
  x: Matrix
  /** What is taken off each row before products are formed, so that little cancels. */
  shift: Float64Array
  /** The sum of the squares of each row less `shift`. */
  norms: Float64Array
}

export function norms (_: Kernel, { x, shift, norms }: Points): void {
  const { data, rows, columns } = x
  for (let row = 0; row < rows; row++) {
    let sum = 0
    for (let k = 0; k < columns; k++) {
      const value = data[row * columns + k]! - shift[k]!
      sum += value * value
    }
    norms[row] = sum
  }
}

/** The squared distance of two rows, term by term: what every decision is made by. */
function distance (a: Matrix, i: number, b: Matrix, j: number): number {
  const { columns } = a
  return difference(a.data, i * columns, b.data, j * columns, columns)
}

function difference (a: Matrix['data'], from: number, b: Matrix['data'], other: number, length: number): number {
  let sum = 0
  for (let k = 0; k < length; k++) {
    const value = a[from + k]! - b[other + k]!
    sum += value * value
  }
  return sum
}

/**
 * How far a squared distance out of norms and products may be from the one that {@link distance} adds up, as a part of
 * the sum of both norms.
 */
function uncertainty (columns: number): number {
  return 4 * (columns + 16) * Number.EPSILON
}

/**
 * Distances of rows `first` and on to all rows after them. `nearest` has the least squared distances of each row, in
 * ascending order; it belongs to one thread. Products only tell which pairs need no closer look.
 */
export function neighbours (
  kernel: Kernel, { points, nearest, k, first }: { points: Points, nearest: Float64Array, k: number, first: number }
): void {
  const { x, shift, norms } = points
  const load = rowsOf(x, shift)
  const height = tileLength(x.rows, first)
  const unsure = uncertainty(x.columns)
  for (let left = first; left < x.rows; left += tileRows) {
    const width = tileLength(x.rows, left)
    const sums = kernel.products(load, first, height, load, left, width, x.columns)
    for (let i = 0; i < height; i++) {
      const row = first + i
      for (let j = left === first ? i + 1 : 0; j < width; j++) {
        const other = left + j
        const both = norms[row]! + norms[other]!
        const least = both * (1 - unsure) - 2 * sums[i * tileRows + j]!
        const limit = Math.max(nearest[row * k + k - 1]!, nearest[other * k + k - 1]!)
        if (least >= limit || limit === 0) continue
        const exact = distance(x, row, x, other)
        insert(nearest, row * k, k, exact)
        insert(nearest, other * k, k, exact)
      }
    }
  }
}

function insert (sorted: Float64Array, from: number, k: number, value: number): void {
  let at = from + k - 1
  if (!(value < sorted[at]!)) return
  for (; at > from && sorted[at - 1]! > value; at--) sorted[at] = sorted[at - 1]!
  sorted[at] = value
}

/** A set, the squared radius around each of its rows, and which rows lie within a radius of the other set. */
export interface Manifold {
  points: Points
  radii: Float64Array
  within: Uint8Array
}

/** Rows `first` and on of `a` against all rows of `b`, both ways. */
export function membership (kernel: Kernel, { a, b, first }: { a: Manifold, b: Manifold, first: number }): void {
  const { x } = a.points
  const [loadA, loadB] = [rowsOf(x, a.points.shift), rowsOf(b.points.x, b.points.shift)]
  const height = tileLength(x.rows, first)
  const unsure = uncertainty(x.columns)
  for (let left = 0; left < b.points.x.rows; left += tileRows) {
    const width = tileLength(b.points.x.rows, left)
    const sums = kernel.products(loadA, first, height, loadB, left, width, x.columns)
    for (let i = 0; i < height; i++) {
      const row = first + i
      const radius = a.radii[row]!
      for (let j = 0; j < width; j++) {
        const other = left + j
        const about = a.within[row] === 0 ? b.radii[other]! : -1
        const reach = b.within[other] === 0 ? Math.max(radius, about) : about
        if (reach < 0) continue
        const both = a.points.norms[row]! + b.points.norms[other]!
        if (both * (1 - unsure) - 2 * sums[i * tileRows + j]! > reach) continue
        const exact = distance(x, row, b.points.x, other)
        if (exact <= b.radii[other]!) a.within[row] = 1
        if (exact <= radius) b.within[other] = 1
      }
    }
  }
}

/** Every piece by its name, as messages call it. */
export const pieces = {
  moments, covariance, cholesky, eigenvectors, product, singularValues, norms, neighbours, membership
}
