// Numbers that NumPy wrote into a pickle: the training arguments of some trainers hold np.int64(256) where others
// hold 256.

import { Bytes, Inert, Tuple } from './pickle.js'

/** Elements of an array that are read: enough for a height and a width. */
const maxElements = 4

/** The number of a NumPy scalar, the list of a short NumPy array; undefined for anything else. */
export function numpyValue (value: Inert): number | number[] | undefined {
  const [module, name] = value.global.split(' ')
  if (module !== 'numpy.core.multiarray' && module !== 'numpy._core.multiarray') return undefined
  if (name === 'scalar') {
    const [type, bytes] = items(value.args)
    return elements(type, bytes, 1)?.[0]
  }
  if (name !== '_reconstruct') return undefined
  const [, shape, type, , bytes] = items(value.state)
  const sizes = items(shape)
  const count = sizes.length === 0 ? 1 : sizes.length === 1 && typeof sizes[0] === 'number' ? sizes[0] : 0
  const list = elements(type, bytes, count)
  return sizes.length === 0 ? list?.[0] : list
}

function items (value: unknown): readonly unknown[] {
  return value instanceof Tuple ? value.items : Array.isArray(value) ? value as unknown[] : []
}

function elements (type: unknown, stored: unknown, count: number): number[] | undefined {
  if (!(type instanceof Inert) || type.global !== 'numpy dtype' || !Number.isInteger(count) || count < 1 ||
    count > maxElements) {
    return undefined
  }
  const [format] = items(type.args)
  const [, order] = items(type.state)
  const match = typeof format === 'string' ? /^([iuf])([1248])$/.exec(format) : null
  const bytes = content(stored)
  if (!match || order === '>' || !bytes) return undefined
  const size = Number(match[2])
  if (bytes.length !== count * size) return undefined
  return Array.from({ length: count }, (_, i) => number(bytes, i * size, match[1] as 'i' | 'u' | 'f', size))
}

/** Bytes as protocol 3 and newer write them, or as protocol 2 does: `_codecs.encode(text, 'latin1')`. */
function content (value: unknown): Buffer | undefined {
  if (value instanceof Bytes) return value.content
  if (!(value instanceof Inert) || value.global !== '_codecs encode') return undefined
  const [text, encoding] = items(value.args)
  return typeof text === 'string' && encoding === 'latin1' && text.length <= 8 * maxElements
    ? Buffer.from(text, 'latin1')
    : undefined
}

function number (bytes: Buffer, at: number, kind: 'i' | 'u' | 'f', size: number): number {
  if (kind === 'f') return size === 8 ? bytes.readDoubleLE(at) : size === 4 ? bytes.readFloatLE(at) : NaN
  if (size === 8) return Number(kind === 'i' ? bytes.readBigInt64LE(at) : bytes.readBigUInt64LE(at))
  return kind === 'i' ? bytes.readIntLE(at, size) : bytes.readUIntLE(at, size)
}
