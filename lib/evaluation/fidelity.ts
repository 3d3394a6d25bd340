// How close a set of generated pictures comes to a set of real ones, by features of both: the definitions. All of them
// are computed in float64; docs/evaluation.md names their sources.
//
// Frechet distance of two normal distributions: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), the covariances with
// N - 1. With any factors F'F = S, the last trace is the sum of the singular values of F1 F2'. That needs no root of a
// matrix, holds for singular covariances, and loses no digits to one: of fewer pictures than features the rows
// themselves, less their mean, are the factor.
//
// Precision and recall: a set's manifold is the union of balls around its rows, each as wide as the distance to the
// k-th nearest other row. Precision is the share of generated rows within the manifold of the real ones, recall the
// converse.
//
// Inception score: exp of the mean divergence of a picture's class probabilities from their mean, in splits.

import os from 'node:os'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { Slices } from '../base/slices.js'
import { visible } from '../base/text.js'
import type { Matrix } from './kernel.js'
import { checkMemory, shared } from './memory.js'
import { Pool } from './pool.js'
import { tiles, type Factor, type Manifold, type Points } from './work.js'

export type { Matrix } from './kernel.js'
export { Pool } from './pool.js'
export { shared } from './memory.js'

/** What the Frechet distance sees of a set: features, or mean and covariance of them. */
export type Source =
  | { features: Matrix }
  /** `name` is for messages. */
  | { mean: Float64Array, covariance: Float64Array, name: string }

// ---- the library

/** Complains where the library of linear algebra is not there. It is loaded by threads, and only for this. */
export function checkLinearAlgebra (): { name: string, version: string } {
  const name = 'ml-matrix'
  try {
    // Beside its main file, because it does not export it.
    const { version } = require(path.join(path.dirname(require.resolve(name)), 'package.json')) as { version: string }
    return { name, version }
  } catch (cause) {
    throw new ParError('NATIVE_UNAVAILABLE',
      `The Frechet distance needs the package ${name}, which could not be loaded. Install it beside parvis: npm ` +
        `install ${name} (${visible(String((cause as NodeJS.ErrnoException).code ?? cause), 100)})`, { cause })
  }
}

/** Threads that are used where nobody says how many. */
export function defaultThreads (): number {
  return Math.min(os.availableParallelism(), 32)
}

// ---- Frechet distance

interface Gaussian {
  mean: Float64Array
  trace: number
  factor: Factor
}

/** What a distance consists of. */
export interface Frechet {
  distance: number
  /** |m1 - m2|^2 */
  ofMeans: number
  /** tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) */
  ofCovariances: number
}

export async function frechet (a: Source, b: Source, pool: Pool): Promise<Frechet> {
  checkMemory(frechetBytes(a, b), 'covariances')
  const [one, two] = await Promise.all([gaussian(a, pool), gaussian(b, pool)])
  const [tall, wide] = one.factor.matrix.rows >= two.factor.matrix.rows ? [one, two] : [two, one]
  const [rows, columns] = [tall.factor.matrix.rows, wide.factor.matrix.rows]
  let root = 0
  if (columns > 0) {
    const out = shared(rows * columns)
    await Promise.all(tiles(rows).map(async first => await pool.run('product', {
      a: tall.factor, b: wide.factor, out, first
    }, { first: true, units: unitsOf.product(rows, columns, one.mean.length) / tiles(rows).length })))
    root = await pool.run('singularValues', { matrix: { data: out, rows, columns } },
      { first: true, units: unitsOf.singularValues(rows, columns) })
  }

  let ofMeans = 0
  let squares = 0
  for (let k = 0; k < one.mean.length; k++) {
    const [x, y] = [one.mean[k]!, two.mean[k]!]
    ofMeans += (x - y) ** 2
    squares += x * x + y * y
  }
  if (ofMeans <= (8 * Number.EPSILON) ** 2 * squares) ofMeans = 0
  const traces = one.trace + two.trace
  let ofCovariances = traces - 2 * root
  if (ofCovariances <= rounding(one.mean.length) * traces) ofCovariances = 0
  const distance = ofMeans + ofCovariances
  if (!Number.isFinite(distance + squares + traces)) {
    throw new ParError('NON_FINITE', 'The distance is not finite: the features are too large to be squared. Scale ' +
      'the features of both sets down by one factor')
  }
  return { distance, ofMeans, ofCovariances }
}

/** Below this part of both traces a difference is their rounding. */
export function rounding (dimensions: number): number {
  return 16 * Math.max(16, dimensions) * Number.EPSILON
}

async function gaussian (source: Source, pool: Pool): Promise<Gaussian> {
  if (!('features' in source)) {
    const { mean, covariance, name } = source
    let trace = 0
    for (let k = 0; k < mean.length; k++) trace += covariance[k * (mean.length + 1)]!
    return { mean, trace, factor: { matrix: await factorOf(covariance, mean.length, name, pool), scale: 1 } }
  }
  const { features: x } = source
  if (x.rows < 2) {
    throw new ParError('BAD_ARRAY', `A covariance needs 2 pictures at least, and this set has ${x.rows}`)
  }
  const { mean, trace } = await pool.run('moments', { x }, { first: true, units: x.rows * x.columns * 4 })
  if (x.rows <= x.columns) {
    return { mean, trace, factor: { matrix: x, shift: mean, scale: 1 / Math.sqrt(x.rows - 1) } }
  }
  const size = x.columns
  const out = shared(size * size)
  await Promise.all(tiles(size).map(async first => await pool.run('covariance', { x, mean, out, first },
    { first: true, units: unitsOf.covariance(x) / tiles(size).length })))
  return { mean, trace, factor: { matrix: await factorOf(out, size, undefined, pool), scale: 1 } }
}

/** @param name of what has the covariance; undefined where it was computed here */
async function factorOf (s: Float64Array, size: number, name: string | undefined, pool: Pool): Promise<Matrix> {
  const found = await pool.run('cholesky', { s, size }, { first: true, units: unitsOf.cholesky(size) })
  if (found !== undefined) return found
  const { factor, least, largest } = await pool.run('eigenvectors', { s, size }, { first: true })
  if (name !== undefined && -least > 1e-3 * largest) {
    throw new ParError('BAD_ARRAY', `${name}: sigma is no covariance: it has the eigenvalue ${least.toPrecision(3)} ` +
      `beside ${largest.toPrecision(3)}, and a covariance has none below 0. Compute it again: numpy.cov(features, ` +
      'rowvar=False)')
  }
  return factor
}

// ---- precision and recall

export interface Coverage {
  precision: number
  recall: number
}

/** @param k the neighbour that a radius reaches to; each set needs more rows than that */
export async function precisionAndRecall (
  generated: Matrix, real: Matrix, pool: Pool, { k = 3 }: { k?: number } = {}
): Promise<Coverage> {
  const { mean: shift } = await pool.run('moments', { x: real }, { units: real.rows * real.columns * 4 })
  const [a, b] = await Promise.all([real, generated].map(async x => await manifold(x, shift, k, pool)))
  const starts = tiles(real.rows)
  await Promise.all(starts.map(async first => await pool.run('membership', { a: a!, b: b!, first },
    { units: real.rows * generated.rows * real.columns / starts.length })))
  return { precision: share(b!.within), recall: share(a!.within) }
}

async function manifold (x: Matrix, shift: Float64Array, k: number, pool: Pool): Promise<Manifold> {
  if (x.rows <= k) {
    throw new ParError('BAD_ARRAY', `A set of ${x.rows} has no ${k} nearest neighbours; it needs ${k + 1} at least`)
  }
  const points: Points = { x, shift, norms: shared(x.rows) }
  await pool.run('norms', points)
  const nearest = Array.from({ length: pool.threads }, () => shared(x.rows * k).fill(Infinity))
  const starts = tiles(x.rows)
  await Promise.all(starts.map(async first => await pool.run('neighbours',
    thread => ({ points, nearest: nearest[thread]!, k, first }),
    { units: x.rows * x.rows / 2 * x.columns / starts.length })))
  const radii = shared(x.rows)
  for (let row = 0; row < x.rows; row++) {
    const all = nearest.flatMap(list => Array.from(list.subarray(row * k, (row + 1) * k))).sort((a, b) => a - b)
    radii[row] = all[k - 1]!
  }
  return { points, radii, within: new Uint8Array(new SharedArrayBuffer(x.rows)) }
}

function share (flags: Uint8Array): number {
  return flags.reduce((sum, flag) => sum + flag, 0) / flags.length
}

// ---- Inception score

export interface InceptionScore {
  mean: number
  /** Of the splits' scores, divided by their number. */
  standardDeviation: number
  splits: number
}

/** Pictures of one split: so many each, as ADM has it, or so many splits, as even as they can be. */
export type Splits = { size: number } | { count: number }

/** @param probabilities a row for each picture */
export async function inceptionScore (
  { data, rows, columns }: Matrix, splits: Splits, signal?: AbortSignal
): Promise<InceptionScore> {
  const slices = new Slices(signal)
  const count = 'size' in splits ? Math.ceil(rows / splits.size) : Math.min(splits.count, rows)
  const start = (split: number): number =>
    Math.min(rows, 'size' in splits ? split * splits.size : Math.floor(split * rows / count))
  const scores: number[] = []
  for (let split = 0; split < count; split++) {
    const [from, to] = [start(split), start(split + 1)]
    const mean = new Float64Array(columns)
    // The sum of p (log p - log q) is that of p log p, less that of q log q once for all.
    let sum = 0
    for (let row = from; row < to; row++) {
      sum += entropyOf(data, row * columns, mean)
      if (slices.spend(columns)) await slices.rest()
    }
    let own = 0
    for (const value of mean) {
      const q = value / (to - from)
      if (q > 0) own += q * Math.log(q)
    }
    scores.push(Math.exp(Math.max(0, sum / (to - from) - own)))
  }
  const mean = scores.reduce((sum, score) => sum + score, 0) / count
  const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / count
  return { mean, standardDeviation: Math.sqrt(variance), splits: count }
}

/** The sum of p log p, 0 where p is 0; adds p to `mean`. */
function entropyOf (data: Matrix['data'], start: number, mean: Float64Array): number {
  let sum = 0
  for (let k = 0; k < mean.length; k++) {
    const p = data[start + k]!
    mean[k]! += p
    if (p > 0) sum += p * Math.log(p)
  }
  return sum
}

// ---- how much work it is, in products of two numbers as `kernel.ts` forms them

const unitsOf = {
  covariance: ({ rows, columns }: Matrix) => rows * columns ** 2 / 2,
  cholesky: (size: number) => size ** 3,
  product: (rows: number, columns: number, inner: number) => rows * columns * inner,
  singularValues: (rows: number, columns: number) => 40 * rows * columns ** 2
}

/** What a distance takes beside the features: matrices of its own, and those that ml-matrix makes of their product. */
function frechetBytes (a: Source, b: Source): number {
  const [one, two] = [a, b].map(source => {
    const size = 'features' in source ? source.features.columns : source.mean.length
    const few = 'features' in source && source.features.rows <= size
    return few ? { own: 0, rows: source.features.rows } : { own: 3 * size ** 2, rows: size }
  }) as [{ own: number, rows: number }, { own: number, rows: number }]
  return 8 * (one.own + two.own + 4 * one.rows * two.rows + 2 * Math.min(one.rows, two.rows) ** 2)
}

/** Units of a distance. */
export function frechetUnits (a: Source, b: Source): number {
  const [one, two] = [a, b].map(source => {
    if (!('features' in source)) return { units: unitsOf.cholesky(source.mean.length), rows: source.mean.length }
    const { features: x } = source
    const own = x.rows * x.columns * 4
    if (x.rows <= x.columns) return { units: own, rows: x.rows }
    return { units: own + unitsOf.covariance(x) + unitsOf.cholesky(x.columns), rows: x.columns }
  }) as [{ units: number, rows: number }, { units: number, rows: number }]
  const inner = 'features' in a ? a.features.columns : a.mean.length
  const [rows, columns] = [Math.max(one.rows, two.rows), Math.min(one.rows, two.rows)]
  return one.units + two.units + unitsOf.product(rows, columns, inner) + unitsOf.singularValues(rows, columns)
}

/** Units of precision and recall. */
export function coverageUnits (generated: Matrix, real: Matrix): number {
  const { rows: m, columns } = real
  const { rows: n } = generated
  return m * columns * 4 + (m * m / 2 + n * n / 2 + m * n) * columns
}
