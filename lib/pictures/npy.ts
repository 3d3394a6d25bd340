// NumPy's .npy files of whole numbers, read and written. The file comes from anywhere: its header is read by a grammar
// of the three entries that it must have, never evaluated, and every size in it is checked against the file's own.

import { ParError } from '../base/errors.js'
import { Slices } from '../base/slices.js'
import { shownPath, visible } from '../base/text.js'

/** Whole numbers in C order, the last axis fastest. */
export interface Whole {
  data: Int32Array
  /** One entry an axis; none of a single number. */
  shape: number[]
}

export const magic = Buffer.from('\x93NUMPY', 'latin1')
/** Far more tokens than a call takes; far fewer than what an array can hold. */
const maxElements = 1 << 24
export const maxAxes = 32
export const maxHeader = 1 << 16

export function isNpy (bytes: Uint8Array): boolean {
  return bytes.length >= magic.length && magic.equals(bytes.subarray(0, magic.length))
}

/**
 * Reads in slices: other work runs in between.
 * @param name of the file, for messages
 * @param most numbers that the array may have
 * @throws ParError `BAD_TOKENS`; the signal's reason
 */
export async function readNpy (
  bytes: Uint8Array, name: string, signal?: AbortSignal, most = maxElements
): Promise<Whole> {
  const bad = (why: string): ParError => new ParError('BAD_TOKENS', `${shownPath(name)}: ${visible(why, 1000)}`)
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!isNpy(file)) throw bad('is no .npy file')
  if (file.length < 12) throw bad('is truncated: its header is missing')
  const version = file[6]!
  if (version < 1 || version > 3 || file[7] !== 0) {
    throw bad(`is of .npy version ${version}.${file[7]}; versions 1.0, 2.0 and 3.0 are known`)
  }
  const from = version === 1 ? 10 : 12
  const start = from + (version === 1 ? file.readUInt16LE(8) : file.readUInt32LE(8))
  if (start > file.length) throw bad(`is truncated: its header ends at byte ${start}, the file at ${file.length}`)

  if (start - from > maxHeader) throw bad(`has a header of ${start - from} bytes; at most ${maxHeader} are read`)
  const { descr, fortran, shape } = header(file.toString('latin1', from, start), bad)
  const type = /^([<>|=])([iu])([1248])$/.exec(descr)
  if (!type) throw bad(`holds ${descr.slice(0, 40)}; tokens are whole numbers (i1, i2, i4, i8, u1, u2, u4, u8)`)
  const size = Number(type[3])
  if (type[1] === '|' && size > 1) throw bad(`holds ${descr}, which tells no byte order`)
  if (shape.length > maxAxes) throw bad(`has ${shape.length} axes; at most ${maxAxes} are possible`)
  const count = shape.reduce((product, side) => product * side, 1)
  if (!(count <= most)) {
    throw bad(`has the shape (${shape.join(', ')}); at most ${most} numbers are possible`)
  }
  if (file.length - start !== count * size) {
    throw bad(`has the shape (${shape.join(', ')}) of ${descr}, which is ${count * size} bytes, ` +
      `but ${file.length - start} follow the header`)
  }

  const numbers = new Int32Array(count)
  const read = reader(file, type[1] === '>', type[2] === 'i', size)
  const slices = new Slices(signal)
  for (let i = 0; i < count; i++) {
    const value = read(start + i * size)
    if (!(value >= 0 && value < 2 ** 31)) {
      throw bad(`holds ${value} at place ${i}; tokens are 0 or more, and far below 2^31`)
    }
    numbers[i] = value
    if (slices.spend(1)) await slices.rest()
  }
  return { data: fortran ? await toC(numbers, shape, slices) : numbers, shape }
}

/** '<i4', C order, version 1.0. */
export function writeNpy ({ data, shape }: Whole): Buffer {
  const start = npyHeader('<i4', shape)
  const file = Buffer.allocUnsafeSlow(start.length + data.length * 4)
  start.copy(file)
  for (let i = 0; i < data.length; i++) file.writeInt32LE(data[i]!, start.length + i * 4)
  return file
}

/** '|u1', C order, version 1.0: bytes of this shape. */
export function writeNpyBytes (data: Uint8Array, shape: readonly number[]): Buffer {
  return Buffer.concat([npyHeader('|u1', shape), data])
}

function npyHeader (descr: string, shape: readonly number[]): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ` +
    `(${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`
  // NumPy aligns the data to 64 bytes; a line end closes the header.
  const header = Buffer.alloc(Math.ceil((10 + text.length + 1) / 64) * 64, ' ')
  magic.copy(header)
  header[6] = 1
  header[7] = 0
  header.writeUInt16LE(header.length - 10, 8)
  header.write(text, 10, 'latin1')
  header[header.length - 1] = 0x0a
  return header
}

/** Exact below 2^53; what is above is far out of range in any case. */
function reader (file: Buffer, big: boolean, signed: boolean, size: number): (at: number) => number {
  if (size === 8) {
    if (signed) return big ? at => Number(file.readBigInt64BE(at)) : at => Number(file.readBigInt64LE(at))
    return big ? at => Number(file.readBigUInt64BE(at)) : at => Number(file.readBigUInt64LE(at))
  }
  if (signed) return big ? at => file.readIntBE(at, size) : at => file.readIntLE(at, size)
  return big ? at => file.readUIntBE(at, size) : at => file.readUIntLE(at, size)
}

/** First axis fastest -> last axis fastest. */
async function toC (data: Int32Array, shape: readonly number[], slices: Slices): Promise<Int32Array> {
  const out = new Int32Array(data.length)
  const index = new Array<number>(shape.length).fill(0)
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((product, side) => product * side, 1))
  for (let i = 0, from = 0; i < out.length; i++) {
    out[i] = data[from]!
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!
      if (++index[axis]! < shape[axis]!) break
      from -= strides[axis]! * shape[axis]!
      index[axis] = 0
    }
    if (slices.spend(1)) await slices.rest()
  }
  return out
}

// ---- the header: a Python dictionary of a string, a boolean and a tuple of numbers

export interface Header {
  descr: string
  /** The first axis is the fastest. */
  fortran: boolean
  shape: number[]
}

/** @param wanted what an array has to hold, for messages */
export function header (
  text: string, bad: (why: string) => ParError, wanted = 'tokens are whole numbers'
): Header {
  let at = 0
  const take = (pattern: RegExp): string | undefined => {
    const sticky = new RegExp(pattern.source, 'y')
    sticky.lastIndex = at
    const match = sticky.exec(text)
    if (!match) return undefined
    at = sticky.lastIndex
    return match[1] ?? match[0]
  }
  const need = (pattern: RegExp, what: string): string => {
    const found = take(pattern)
    if (found === undefined) throw bad(`has a header without ${what} at character ${at}`)
    return found
  }
  const found: { descr?: string, fortran?: boolean, shape?: number[] } = {}
  need(/\s*\{\s*/, 'an opening brace')
  while (take(/\}\s*/) === undefined) {
    const key = need(/['"](\w{1,32})['"]\s*:\s*/, 'a name')
    if (key === 'descr' && found.descr === undefined) {
      if (take(/\[/) !== undefined) throw bad(`holds records of several fields; ${wanted}`)
      found.descr = need(/'([^'\\]{1,64})'|"([^"\\]{1,64})"/, 'a type').replace(/^"|"$/g, '')
    } else if (key === 'fortran_order' && found.fortran === undefined) {
      found.fortran = need(/True|False/, 'True or False') === 'True'
    } else if (key === 'shape' && found.shape === undefined) {
      const tuple = need(/\(((?: ?\d{1,15}L?,){0,64} ?(?:\d{1,15}L?)? ?)\)/, 'a shape')
      found.shape = (tuple.match(/\d+/g) ?? []).map(Number)
    } else {
      throw bad(`has a header with the entry ${key}, which does not belong there`)
    }
    if (take(/\s*,\s*/) === undefined) need(/\s*(?=\})/, 'a closing brace')
  }
  if (at !== text.length) throw bad(`has a header that goes on after its end, at character ${at}`)
  const { descr, fortran, shape } = found
  if (descr === undefined || fortran === undefined || shape === undefined) {
    throw bad('has a header without descr, fortran_order and shape')
  }
  if (/^[|<>=]?O/.test(descr)) throw bad(`holds Python objects, which are never loaded; ${wanted}`)
  return { descr, fortran, shape }
}
