// Rewrites a checkpoint as .safetensors: only the tensors that are needed, contiguous, in one precision if asked, with
// the architecture in the metadata. Streams in chunks, so that a 12 GB training checkpoint needs no more memory than
// one of its chunks; only a tensor that is stored with strides is held whole while it is gathered.

import { stat } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from '../errors.js'
import { addon, toParError, type DType, type TensorSource } from '../native.js'
import { describeTokenizer, describeTransformer, identify, type CheckpointKind, type TransformerOverrides } from './architecture.js'
import { bad, quote, showBytes } from './bad.js'
import { countElements, elementBytes } from './dtypes.js'
import { metadataKey, type ParvisMetadata } from './metadata.js'
import { openCheckpoint } from './open.js'
import { notRegular, tensorBytes, writeSafetensors, type TensorToWrite } from './safetensors-write.js'
import { showValue } from './shapes.js'
import { FileSource } from './source.js'
import type { Checkpoint } from './types.js'

/** The addon's conversion: little-endian elements in, elements out, rounded to nearest even. */
export type ConvertFloats = (data: Uint8Array, from: DType, to: DType) => Promise<Uint8Array>

export interface ConvertOptions extends TransformerOverrides {
  /** Type of all tensors in the output; default: each as it is stored. */
  precision?: DType
  /** Called with bytes of tensors written so far and in all, first with 0. */
  onProgress?: (doneBytes: number, totalBytes: number) => void
  signal?: AbortSignal
  /** Replaces the addon's conversion (tests). */
  convertFloats?: ConvertFloats
}

export interface ConvertResult {
  kind: CheckpointKind
  /** The output, as given. */
  file: string
  /** Size of the output file. */
  bytes: number
  /** Tensors written. */
  tensors: number
  /** What was written as metadata. */
  metadata: ParvisMetadata
}

const chunkBytes = 16 << 20
/** Gathering runs on this thread, so in small pieces. */
const gatherElements = 1 << 17
const maxStridedBytes = 1 << 30

/**
 * Converts a transformer or tokenizer checkpoint to `output` (.safetensors). The output appears when it is whole;
 * on failure or abort nothing is left behind. An existing output is replaced; where it is a link, what it leads to.
 *
 * Errors: as openCheckpoint and describeTransformer; INVALID_OPTION for a bad precision, when input and output are the
 * same file, or when the output is no regular file; FILE_NOT_FOUND when the output cannot be written. An aborted call rejects with `signal.reason`.
 */
export async function convertCheckpoint (input: string, output: string, options: ConvertOptions = {}): Promise<ConvertResult> {
  const { precision, onProgress, signal } = options
  if (precision !== undefined && !['float32', 'float16', 'bfloat16'].includes(precision)) {
    throw new ParError('INVALID_OPTION', `precision must be 'float32', 'float16' or 'bfloat16', got ${showValue(precision)}`)
  }
  if (typeof output !== 'string' || output === '' || output.includes('\0')) throw new ParError('INVALID_OPTION', 'output must be a path')
  const checkpoint = await openCheckpoint(input, { signal })
  await refuseSameFile(input, output)
  const { kind, tensors, metadata } = describe(checkpoint, options)
  const convertFloats = options.convertFloats ?? (async (data, from, to) => await addon().convertFloats(data, from, to))

  const source = await FileSource.open(input)
  try {
    const totalBytes = tensors.reduce((sum, { dtype, shape }) => sum + tensorBytes({ dtype: precision ?? dtype, shape }), 0)
    let doneBytes = 0
    onProgress?.(0, totalBytes)
    const toWrite = tensors.map((tensor): TensorToWrite => {
      const dtype = precision ?? tensor.dtype
      return {
        name: tensor.name,
        dtype,
        shape: tensor.shape,
        async * chunks () {
          for await (const chunk of readElements(source, tensor, signal)) {
            const converted = dtype === tensor.dtype ? chunk : await convertFloats(chunk, tensor.dtype, dtype)
            yield converted
            doneBytes += converted.length
            onProgress?.(doneBytes, totalBytes)
          }
        }
      }
    })
    const texts = { [metadataKey]: JSON.stringify({ ...metadata, sourceFile: path.basename(input) }) }
    const { bytes } = await writeSafetensors(output, toWrite, texts, signal)
    return { kind, file: output, bytes, tensors: tensors.length, metadata }
  } catch (error) {
    signal?.throwIfAborted()
    throw toParError(error)
  } finally {
    await source.close()
  }
}

// ---- what is written ----

function describe (checkpoint: Checkpoint, options: ConvertOptions): { kind: CheckpointKind, tensors: TensorSource[], metadata: ParvisMetadata } {
  if (identify(checkpoint) === 'tokenizer') {
    const { tensors, name, imageSize } = describeTokenizer(checkpoint)
    return { kind: 'tokenizer', tensors, metadata: { kind: 'tokenizer', ...(name !== undefined && { name }), ...(imageSize && { imageSize }) } }
  }
  const { heads, grid, n } = options
  const found = describeTransformer(checkpoint, { heads, grid, n })
  const { layers, dim, vocabularySize, classes } = found.model
  return {
    kind: 'transformer',
    tensors: found.tensors,
    metadata: {
      kind: 'transformer',
      layers,
      dim,
      heads: found.model.heads,
      vocabularySize,
      classes,
      n: found.n,
      grid: found.grid,
      ...(found.labels && { labels: found.labels }),
      ...(found.sampling && { sampling: found.sampling }),
      ...(found.name !== undefined && { name: found.name })
    }
  }
}

async function refuseSameFile (input: string, output: string): Promise<void> {
  const [from, to] = await Promise.all([stat(input, { bigint: true }), stat(output, { bigint: true }).catch(() => undefined)])
  if (path.resolve(input) === path.resolve(output) || (to && from.dev === to.dev && from.ino === to.ino)) {
    throw new ParError('INVALID_OPTION', `input and output are the same file: ${input}. Give another output.`)
  }
  if (to && !to.isFile()) throw notRegular(output, to.isDirectory() ? 'folder' : 'special')
}

// ---- elements of one tensor, in order ----

async function * readElements (source: FileSource, tensor: TensorSource, signal?: AbortSignal): AsyncIterable<Buffer> {
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
async function * gather (source: FileSource, tensor: TensorSource, strides: number[], signal?: AbortSignal): AsyncIterable<Buffer> {
  const { shape } = tensor
  const size = elementBytes(tensor.dtype)
  const count = countElements(shape)!
  if (count === 0) return
  const span = (shape.reduce((sum, sides, axis) => sum + (sides - 1) * strides[axis]!, 0) + 1) * size
  if (span > maxStridedBytes) {
    throw bad(source.file, `tensor ${quote(tensor.name)} is not contiguous and spreads over ${showBytes(span)} (at most ${showBytes(maxStridedBytes)}): ` +
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
