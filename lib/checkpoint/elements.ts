// The elements of one tensor in order, without its weights ever being in memory as a whole: only one that is stored
// with strides is held while it is gathered.

import type { TensorSource } from '../machine/native.js'
import { quote } from '../base/text.js'
import { bad, showBytes } from './bad.js'
import { countElements, elementBytes } from './dtypes.js'
import type { FileSource } from './source.js'

/** Gathering runs on this thread, so in small pieces. */
const gatherElements = 1 << 17
const maxStridedBytes = 1 << 30

/** Row-major elements as they are stored, in chunks of at most `chunkBytes`. */
export async function * readElements (
  source: FileSource, tensor: TensorSource, chunkBytes: number, signal?: AbortSignal
): AsyncIterable<Buffer> {
  const size = elementBytes(tensor.dtype)
  const total = countElements(tensor.shape)! * size
  if (tensor.strides) {
    yield * gather(source, tensor, tensor.strides, signal)
    return
  }
  for (let at = 0; at < total; at += chunkBytes) {
    signal?.throwIfAborted()
    yield await source.read(tensor.offset + at, Math.min(chunkBytes, total - at), `tensor ${quote(tensor.name)}`)
  }
}

/** Reads the span of a strided tensor once and yields its elements in row-major order. */
async function * gather (
  source: FileSource, tensor: TensorSource, strides: number[], signal?: AbortSignal
): AsyncIterable<Buffer> {
  const { shape } = tensor
  const size = elementBytes(tensor.dtype)
  const count = countElements(shape)!
  if (count === 0) return
  const span = (shape.reduce((sum, sides, axis) => sum + (sides - 1) * strides[axis]!, 0) + 1) * size
  if (span > maxStridedBytes) {
    throw bad(source.file,
      `tensor ${quote(tensor.name)} is not contiguous and spreads over ${showBytes(span)} (at ` +
        `most ${showBytes(maxStridedBytes)}): ` +
      'save it with .contiguous() in PyTorch')
  }
  const bytes = await source.read(tensor.offset, span, `tensor ${quote(tensor.name)}`)
  const from = size === 4 ? asArray(Uint32Array, bytes) : asArray(Uint16Array, bytes)
  const index = new Array<number>(shape.length).fill(0)
  let at = 0
  for (let done = 0; done < count; done += gatherElements) {
    signal?.throwIfAborted()
    const length = Math.min(gatherElements, count - done)
    const to = size === 4 ? new Uint32Array(length) : new Uint16Array(length)
    for (let i = 0; i < length; i++) {
      to[i] = from[at]!
      // Counts `index` up by one, keeping `at` = sum(index * strides).
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        at += strides[axis]!
        if (++index[axis]! < shape[axis]!) break
        at -= strides[axis]! * shape[axis]!
        index[axis] = 0
      }
    }
    yield Buffer.from(to.buffer, 0, length * size)
  }
}

function asArray<T> (type: new (buffer: ArrayBufferLike, offset: number, length: number) => T, bytes: Buffer): T {
  // Small buffers come from a pool at any offset.
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : Buffer.from(new Uint8Array(bytes).buffer)
  const width = (type as unknown as { BYTES_PER_ELEMENT: number }).BYTES_PER_ELEMENT
  return new type(aligned.buffer, aligned.byteOffset, bytes.length / width)
}
