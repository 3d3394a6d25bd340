// What a set is: statistics (mean and covariance of features), features, pictures, or several of them. A set is
// recognized by what is in it, never by its name, and opened before anything of it is read: the headers tell what can
// be computed.

import { opendir, stat } from 'node:fs/promises'
import path from 'node:path'
import { loadSharp } from '../api/image.js'
import { outOfMemory, ParError } from '../base/errors.js'
import { absolute, fromSystem, readWhole } from '../base/files.js'
import { Slices } from '../base/slices.js'
import { quote, shownPath, visible } from '../base/text.js'
import { ArrayFile, type StoredArray } from '../pictures/npz.js'
import type { Rgb } from '../pictures/resample.js'
import type { Matrix } from './kernel.js'
import { reserve } from './memory.js'

/** Pictures one after another. */
export interface Pictures {
  /** How many. */
  count: number
  /** How messages call them. */
  name: string
  read (signal?: AbortSignal): AsyncGenerator<Rgb>
}

/** What a set has, as its headers tell. */
export interface SetFile {
  /** As given. */
  file: string
  statistics?: { dimensions: number, read (signal?: AbortSignal): Promise<Statistics> }
  features?: { count: number, dimensions: number, read: Read }
  /** Class probabilities, a row for each picture. */
  probabilities?: { count: number, classes: number, read: Read }
  pictures?: Pictures
  /** Arrays of the file that nothing is computed of. */
  unused: string[]
  close (): Promise<void>
}

export interface Statistics {
  mean: Float64Array
  /** [dimensions, dimensions] */
  covariance: Float64Array
  /** How messages call them. */
  name: string
}

type Read = (signal?: AbortSignal, onRows?: (rows: number) => void) => Promise<Matrix>

/** A number beyond which squares and their sums may be infinite. */
const largest = 1e100
/** Sides of a picture at most. */
const maxSide = 16384
/** Bytes of the file of one picture at most. */
const maxPictureBytes = 2 ** 28

const inputs = 'pictures (uint8 [N, H, W, 3]), features (floats [N, D]) or statistics (mu [D] and sigma [D, D])'

/**
 * Opens a folder of pictures, an .npz or a .npy file.
 * @throws ParError `FILE_NOT_FOUND`, `BAD_ARRAY`; the signal's reason
 */
export async function openSet (file: string, signal?: AbortSignal): Promise<SetFile> {
  const place = absolute(file)
  let isFolder: boolean
  try {
    isFolder = (await stat(place)).isDirectory()
  } catch (error) {
    throw fromSystem(error, place, 'read')
  }
  if (isFolder) return await openFolder(file, place, signal)
  const arrays = await ArrayFile.open(place, signal)
  try {
    return { file, ...recognized(arrays), close: async () => await arrays.close() }
  } catch (error) {
    await arrays.close()
    throw error
  }
}

function recognized (arrays: ArrayFile): Omit<SetFile, 'file' | 'close'> {
  const bad = (name: string, why: string): ParError => arrays.bad(name, why)
  const used = new Set<string>()
  const found: Omit<SetFile, 'file' | 'close' | 'unused'> = {}
  const take = (name: string): StoredArray | undefined => {
    const array = arrays.get(name)
    if (array === undefined) return undefined
    used.add(name)
    if (array.dtype === undefined) throw bad(name, `holds ${visible(array.descr, 60)}, and numbers are needed`)
    return array
  }

  const [mu, sigma] = [take('mu'), take('sigma')]
  if (mu !== undefined && sigma !== undefined) found.statistics = statisticsOf(arrays, mu, sigma)
  else if (mu ?? sigma) {
    throw bad((mu ?? sigma)!.name, 'stands alone; statistics are two arrays, mu and sigma. Add the other one')
  }

  let features = take('features')
  const probabilities = take('probabilities')
  const rest = arrays.arrays.filter(({ name }) => !used.has(name))
  const pictures = picturesAmong(rest)
  if (pictures !== undefined) used.add(pictures.name)
  if (features === undefined && pictures === undefined && found.statistics === undefined) {
    const likely = rest.filter(({ dtype, shape }) => dtype !== undefined && shape.length === 2 && dtype.kind === 'f')
    if (likely.length === 1) features = take(likely[0]!.name)
  }
  if (features !== undefined) found.features = matrixOf(arrays, features, 'features')
  if (probabilities !== undefined) {
    const { count, dimensions, read } = matrixOf(arrays, probabilities, 'probabilities')
    if (found.features !== undefined && found.features.count !== count) {
      throw bad('probabilities', `has ${count} rows, and there are ${found.features.count} of features: both have ` +
        'one for each picture')
    }
    found.probabilities = { count, classes: dimensions, read: checkedProbabilities(arrays, read) }
  }
  if (pictures !== undefined) found.pictures = picturesOf(arrays, pictures)

  if (Object.keys(found).length === 0) {
    const all = arrays.arrays.slice(0, 8).map(({ name, shape, descr }) =>
      `${name === '' ? 'one array' : quote(name)} [${shape.join(', ')}] of ${visible(descr, 40)}`)
    throw new ParError('BAD_ARRAY', `${shownPath(arrays.file)}: holds nothing that can be evaluated: ` +
      `${all.length === 0 ? 'it has no arrays' : all.join(', ')}${arrays.arrays.length > 8 ? ', ...' : ''}. ` +
      `A set is ${inputs}`)
  }
  return { ...found, unused: rest.flatMap(({ name }) => used.has(name) ? [] : [name]) }
}

// ---- statistics

function statisticsOf (
  arrays: ArrayFile, mu: StoredArray, sigma: StoredArray
): { dimensions: number, read (signal?: AbortSignal): Promise<Statistics> } {
  const dimensions = mu.count
  if (mu.shape.length > 1) throw arrays.bad('mu', `has the shape (${mu.shape.join(', ')}); a mean has one axis`)
  if (dimensions === 0) throw arrays.bad('mu', 'is empty')
  const square = sigma.shape.length === 2 && sigma.shape.every(side => side === dimensions)
  if (!square && !(dimensions === 1 && sigma.count === 1)) {
    throw arrays.bad('sigma', `has the shape (${sigma.shape.join(', ')}), and mu has ${dimensions} numbers; it must ` +
      `be (${dimensions}, ${dimensions})`)
  }
  const read = async (signal?: AbortSignal): Promise<Statistics> => {
    const [mean, covariance] = [reserve(dimensions, 8, 'mu'), reserve(sigma.count, 8, 'sigma')]
    for (const [{ name }, into] of [[mu, mean], [sigma, covariance]] as const) {
      for await (const { at, values } of arrays.numbers(name, signal)) {
        checkFinite(values, at, arrays, name)
        into.set(values, at)
      }
    }
    // The order of the axes is nothing to a symmetric matrix.
    const slices = new Slices(signal)
    let most = 0
    for (const value of covariance) most = Math.max(most, Math.abs(value))
    for (let i = 0; i < dimensions; i++) {
      for (let j = 0; j < i; j++) {
        const [a, b] = [covariance[i * dimensions + j]!, covariance[j * dimensions + i]!]
        if (Math.abs(a - b) > 1e-3 * most) {
          throw arrays.bad('sigma', `is not symmetric: ${a} at [${i}, ${j}], ${b} at [${j}, ${i}]. It must be a ` +
            'covariance: numpy.cov(features, rowvar=False)')
        }
        covariance[i * dimensions + j] = covariance[j * dimensions + i] = (a + b) / 2
      }
      const variance = covariance[i * (dimensions + 1)]!
      if (variance < -1e-3 * most) {
        throw arrays.bad('sigma', `has the variance ${variance} at [${i}, ${i}], and variances are not negative`)
      }
      if (slices.spend(dimensions)) await slices.rest()
    }
    return { mean, covariance, name: shownPath(arrays.file) }
  }
  return { dimensions, read }
}

// ---- features

function matrixOf (
  arrays: ArrayFile, array: StoredArray, what: string
): { count: number, dimensions: number, read: Read } {
  const { name, shape, dtype, fortran } = array
  // [N, D, 1, 1], as pooling leaves it, is [N, D].
  const sides = shape.length > 2 ? shape.filter((side, axis) => axis === 0 || side !== 1) : shape
  if (shape.length < 2 || sides.length > 2) {
    throw arrays.bad(name, `has the shape (${shape.join(', ')}); ${what} are a row for each picture: (N, D)`)
  }
  const [count, dimensions] = [sides[0]!, sides[1] ?? 1]
  if (count === 0 || dimensions === 0) throw arrays.bad(name, `has the shape (${shape.join(', ')}): it is empty`)
  const read: Read = async (signal, onRows) => {
    const data = reserve(count * dimensions, exactInFloat32(dtype!) ? 4 : 8, what)
    for await (const { at, values } of arrays.numbers(name, signal)) {
      checkFinite(values, at, arrays, name)
      if (!fortran) data.set(values, at)
      else {
        for (let i = 0; i < values.length; i++) {
          data[(at + i) % count * dimensions + Math.floor((at + i) / count)] = values[i]!
        }
      }
      onRows?.(Math.floor((at + values.length) / dimensions))
    }
    return { data, rows: count, columns: dimensions }
  }
  return { count, dimensions, read }
}

function exactInFloat32 ({ kind, size }: NonNullable<StoredArray['dtype']>): boolean {
  return kind === 'f' ? size <= 4 : size <= 2
}

function checkFinite (values: Float64Array, at: number, arrays: ArrayFile, name: string): void {
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(values[i]!) < largest) continue
    throw arrays.bad(name, `holds ${values[i]} at place ${at + i}; numbers must be finite, and below ${largest}`)
  }
}

/** Rows of probabilities that are as good as 1 together. */
function checkedProbabilities (arrays: ArrayFile, read: Read): Read {
  return async (signal, onRows) => {
    const matrix = await read(signal, onRows)
    const row = await unlikelyRow(matrix, signal)
    if (row !== undefined) {
      throw arrays.bad('probabilities', `has a row, ${row}, that is none of probabilities: they are from 0 to 1, and ` +
        '1 together. Of logits take the softmax first')
    }
    return matrix
  }
}

/** The first row that is none of probabilities. */
export async function unlikelyRow ({ data, rows, columns }: Matrix, signal?: AbortSignal): Promise<number | undefined> {
  const slices = new Slices(signal)
  for (let row = 0; row < rows; row++) {
    let sum = 0
    let least = 0
    for (let k = 0; k < columns; k++) {
      const value = data[row * columns + k]!
      sum += value
      least = Math.min(least, value)
    }
    if (!(Math.abs(sum - 1) < 0.01 && least > -1e-6)) return row
    if (slices.spend(columns)) await slices.rest()
  }
  return undefined
}

// ---- pictures

function isPictures ({ dtype, shape }: StoredArray): boolean {
  return dtype !== undefined && dtype.kind === 'u' && dtype.size === 1 && shape.length === 4
}

/** `arr_0`, as numpy.savez and ADM name it, or the only array of that kind. */
function picturesAmong (rest: readonly StoredArray[]): StoredArray | undefined {
  const likely = rest.filter(isPictures)
  return likely.find(({ name }) => name === 'arr_0') ?? (likely.length === 1 ? likely[0] : undefined)
}

function picturesOf (arrays: ArrayFile, { name, shape, fortran }: StoredArray): Pictures {
  const [count, height, width, channels] = shape as [number, number, number, number]
  if (channels !== 3 && channels !== 1) {
    throw arrays.bad(name, `has the shape (${shape.join(', ')}); pictures are (N, height, width, 3), or 1 where they ` +
      'are grey')
  }
  if (count === 0 || height < 1 || width < 1) throw arrays.bad(name, `has the shape (${shape.join(', ')}): it is empty`)
  if (Math.max(height, width) > maxSide) {
    throw arrays.bad(name, `has pictures of ${width} x ${height} pixels; at most ${maxSide} a side are read`)
  }
  if (fortran) {
    throw arrays.bad(name, 'has its first axis as the fastest; write it again: numpy.ascontiguousarray(pictures)')
  }
  const bytes = height * width * channels
  return {
    count,
    name: arrays.shown(name),
    async * read (signal) {
      for await (const slice of arrays.slices(name, bytes, signal)) {
        for (let from = 0; from < slice.length; from += bytes) {
          const own = slice.subarray(from, from + bytes)
          yield { data: channels === 3 ? own : grey(own), width, height }
        }
      }
    }
  }
}

function grey (values: Uint8Array): Uint8Array {
  const data = new Uint8Array(values.length * 3)
  for (let i = 0; i < values.length; i++) data.fill(values[i]!, i * 3, i * 3 + 3)
  return data
}

const extensions = ['.png', '.jpg', '.jpeg', '.webp']

async function openFolder (file: string, place: string, signal?: AbortSignal): Promise<SetFile> {
  const names: string[] = []
  try {
    for await (const entry of await opendir(place)) {
      signal?.throwIfAborted()
      if (entry.name.startsWith('.') || !extensions.includes(path.extname(entry.name).toLowerCase())) continue
      if (!entry.isDirectory()) names.push(entry.name)
    }
  } catch (error) {
    throw fromSystem(error, place, 'read')
  }
  if (names.length === 0) {
    throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: the folder has no pictures (${extensions.join(', ')}). ` +
      'Give the folder that holds them; folders in it are not looked into')
  }
  names.sort((a, b) => a < b ? -1 : 1)
  return {
    file,
    unused: [],
    pictures: {
      count: names.length,
      name: shownPath(file),
      async * read (signal) {
        for (const name of names) yield await readPicture(path.join(place, name), signal)
      }
    },
    close: async () => {}
  }
}

/** Upright, transparent pixels laid on white, as the other commands read pictures. */
async function readPicture (file: string, signal?: AbortSignal): Promise<Rgb> {
  const bytes = await readWhole(file, { limit: maxPictureBytes, check: () => signal?.throwIfAborted() })
  const sharp = loadSharp()
  try {
    const { data, info } = await sharp(bytes).rotate().flatten({ background: 'white' }).toColourspace('srgb')
      .raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    return { data: info.channels === 1 ? grey(data) : data, width: info.width, height: info.height }
  } catch (cause) {
    throw outOfMemory(cause) ?? new ParError('BAD_IMAGE',
      `${shownPath(file)}: cannot be decoded: ${visible((cause as Error).message.replace(/\s+/g, ' '), 300)}`, { cause })
  }
}
