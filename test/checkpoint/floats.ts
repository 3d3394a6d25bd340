// Plain conversions of 16-bit floats, the reference that tests hold the readers and the converter against.

import { readFileSync } from 'node:fs'
import type { Checkpoint, ConvertFloats } from '../../lib/checkpoint/index.js'
import type { DType, TensorSource } from '../../lib/machine/native.js'

const bits = new Uint32Array(1)
const single = new Float32Array(bits.buffer)

export function fromBits (value: number, dtype: DType): number {
  if (dtype === 'float16') {
    const sign = value & 0x8000 ? -1 : 1
    const exponent = (value >> 10) & 31
    const fraction = value & 1023
    if (exponent === 31) return fraction ? NaN : sign * Infinity
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
  }
  bits[0] = dtype === 'bfloat16' ? value << 16 : value
  return single[0]!
}

/** Rounds to nearest even. */
export function toBits (value: number, dtype: DType): number {
  if (dtype === 'float16') return halfBits(value)
  single[0] = value
  if (dtype === 'float32') return bits[0]!
  if (Number.isNaN(value)) return 0x7fc0
  return (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) >>> 16
}

function halfBits (value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (Number.isNaN(size)) return 0x7e00
  if (size >= 65520) return sign | 0x7c00
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 1e-30)))
  const scaled = size / 2 ** (exponent - 10)
  const floor = Math.floor(scaled)
  const rest = scaled - floor
  const rounded = floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0)
  return sign | (rounded + (exponent === -14 ? 0 : (exponent + 14) * 1024))
}

const width = (dtype: DType): 2 | 4 => dtype === 'float32' ? 4 : 2

export function decode (bytes: Buffer, dtype: DType): Float32Array {
  const size = width(dtype)
  return Float32Array.from({ length: bytes.length / size }, (_, i) =>
    fromBits(size === 4 ? bytes.readUInt32LE(4 * i) : bytes.readUInt16LE(2 * i), dtype))
}

/** What the addon does, in plain JavaScript. */
export const convertFloats: ConvertFloats = async (data, from, to) => {
  const floats = decode(Buffer.from(data), from)
  const size = width(to)
  const out = Buffer.alloc(floats.length * size)
  for (const [i, value] of floats.entries()) {
    size === 4 ? out.writeUInt32LE(toBits(value, to), 4 * i) : out.writeUInt16LE(toBits(value, to), 2 * i)
  }
  return out
}

/** Reads one tensor where the checkpoint says that it lies, element by element. */
export function readTensor (checkpoint: Checkpoint, name: string): Float32Array {
  return readSource(checkpoint.file, checkpoint.tensors.get(name)!)
}

export function readSource (path: string, tensor: TensorSource): Float32Array {
  const file = readFileSync(path)
  const { shape, offset } = tensor
  const dtype = tensor.dtype as DType // not for 8-bit integers
  const strides = tensor.strides ??
    shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1))
  const count = shape.reduce((product, size) => product * size, 1)
  return Float32Array.from({ length: count }, (_, index) => {
    let rest = index
    let at = 0
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += (rest % shape[axis]!) * strides[axis]!
      rest = Math.floor(rest / shape[axis]!)
    }
    const place = offset + at * width(dtype)
    return fromBits(width(dtype) === 4 ? file.readUInt32LE(place) : file.readUInt16LE(place), dtype)
  })
}
