// Reads the expected numbers of the golden fixtures. Deliberately not the package's own reader: a fixture must not be
// read by what it tests.

import fs from 'node:fs'

export interface Expected {
  metadata: Record<string, string>
  ints (name: string): Int32Array
  floats (name: string): Float32Array
  bytes (name: string): Uint8Array
  shape (name: string): number[]
}

export function readExpected (file: string): Expected {
  const data = fs.readFileSync(file)
  const length = Number(data.readBigUInt64LE(0))
  const header = JSON.parse(data.toString('utf8', 8, 8 + length))
  const part = (name: string, dtype: string): Uint8Array => {
    const entry = header[name]
    if (entry?.dtype !== dtype) throw new Error(`${file}: ${name} is ${entry?.dtype}, expected ${dtype}`)
    const [from, to] = entry.data_offsets
    return Uint8Array.from(data.subarray(8 + length + from, 8 + length + to))
  }
  return {
    metadata: header.__metadata__,
    ints: name => new Int32Array(part(name, 'I32').buffer),
    floats: name => new Float32Array(part(name, 'F32').buffer),
    bytes: name => part(name, 'U8'),
    shape: name => header[name].shape
  }
}

/** Rows of a [count, ...] tensor. */
export function rows<T extends Int32Array | Float32Array | Uint8Array> (data: T, count: number): T[] {
  const length = data.length / count
  return Array.from({ length: count }, (_, i) => data.slice(i * length, (i + 1) * length) as T)
}

/** Largest |a - b|; NaN where anything is NaN, Infinity where the lengths differ. */
export function worst (a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity
  let most = 0
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!)
    if (!(difference <= most)) most = difference
    if (Number.isNaN(most)) return NaN
  }
  return most
}

/** ||a - b|| / ||b|| */
export function relative (a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, norm] = [0, 0]
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return Math.sqrt(difference / norm)
}

/** [3, height, width] -> [height, width, 3] */
export function interleave (planes: Float32Array, height: number, width: number): Float32Array {
  const out = new Float32Array(planes.length)
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < height * width; i++) out[i * 3 + c] = planes[c * height * width + i]!
  }
  return out
}

/** Equal bytes. tap's own comparison works out a difference even where it is not shown, which takes seconds. */
export function identical (a: ArrayBufferView, b: ArrayBufferView): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))
}
