// Rewrites a checkpoint as .safetensors: only the tensors that are needed, contiguous, in one precision if asked, with
// the architecture and the checksum of what it was made of in the metadata. Streams in chunks, so that a 12 GB training
// checkpoint needs no more memory than one of its chunks; only a tensor that is stored with strides is held whole while
// it is gathered.

import { stat } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { absolute, refuseName } from '../base/files.js'
import { addon, toParError, type DType, type StoredType, type TensorSource } from '../machine/native.js'
import { NodeAbortController } from '../base/realm.js'
import { quote, shownPath } from '../base/text.js'
import { samePath } from '../base/windows.js'
import {
  describeTokenizer, describeTransformer, describeVideoTokenizer, identify, type CheckpointKind,
  type TransformerOverrides
} from './architecture.js'
import { bad } from './bad.js'
import { elementBytes } from './dtypes.js'
import { readElements } from './elements.js'
import { codebookHash, convertNatively, hashFile, type ConvertFloats } from './hashes.js'
import type { WeightsChoice } from './names.js'
import { metadataKey, type ParvisMetadata } from './metadata.js'
import { openCheckpoint } from './open.js'
import { maxScale, quantizable, scaleShape, scaleSuffix } from './quantized.js'
import { notRegular, tensorBytes, writeSafetensors, type TensorToWrite } from './safetensors-write.js'
import { showValue } from './shapes.js'
import { FileSource } from './source.js'
import type { Checkpoint } from './types.js'

export type { ConvertFloats } from './hashes.js'

export interface ConvertOptions extends TransformerOverrides {
  /**
   * Type of all tensors in the output; default: each as it is stored. int8 is for transformers: matrices become 8-bit
   * integers with a scale for each 64 inputs (quantized.ts), the rest bfloat16.
   */
  precision?: StoredType
  /**
   * Of a transformer: the tokenizer that it belongs to, whose codebook is noted. Default: what the input's metadata
   * says.
   */
  tokenizer?: string
  /** Of a tokenizer of videos: levels of each channel, which are noted. */
  levels?: readonly number[]
  /**
   * Whether the checksum of the input is noted, for which all of it is read, and those inside of it compared. Default:
   * true.
   */
  checksum?: boolean
  /** Called with bytes of tensors written so far and in all, first with 0. */
  onProgress?: (doneBytes: number, totalBytes: number) => void
  signal?: AbortSignal
  /** Which copy of the weights is converted, where the file has several. Default: the model's, else the EMA copy. */
  weights?: WeightsChoice
  /** Replaces the addon's conversion (tests). */
  convertFloats?: ConvertFloats
}

export interface ConvertResult {
  kind: CheckpointKind
  /** The output, as given. */
  file: string
  /** Size of the output file. */
  bytes: number
  /** Tensors written, those of scales included. */
  tensors: number
  /** What was written as metadata. */
  metadata: ParvisMetadata
  /** What was left out of the metadata because nothing told it, what contradicts what: sentences. */
  warnings: string[]
}

const chunkBytes = 16 << 20

/**
 * Converts a transformer or tokenizer checkpoint to `output` (.safetensors). The output appears when it is whole;
 * on failure or abort nothing is left behind. An existing output is replaced; where it is a link, what it leads to.
 *
 * Errors: as openCheckpoint and describeTransformer; INVALID_OPTION for a bad precision, when input and output are the
 * same file, or when the output is no regular file; TOKENIZER_MISMATCH when `tokenizer` is of another size than the
 * vocabulary; FILE_NOT_FOUND when the output cannot be written. An aborted call rejects with `signal.reason`.
 */
export async function convertCheckpoint (
  input: string, output: string, options: ConvertOptions = {}
): Promise<ConvertResult> {
  const { precision, onProgress, signal } = options
  if (precision !== undefined && !['float32', 'float16', 'bfloat16', 'int8'].includes(precision)) {
    throw new ParError('INVALID_OPTION',
      `precision must be 'float32', 'float16', 'bfloat16' or 'int8', got ${showValue(precision)}`)
  }
  if (typeof output !== 'string' || output === '' || output.includes('\0')) {
    throw new ParError('INVALID_OPTION', 'output must be a path')
  }
  // Before anything is waited for: relative names are of the folder in which the process is now.
  const [from, to] = [placeOf(input), placeOf(output)]
  refuseName(to)
  const tokenizer = options.tokenizer === undefined ? undefined : placeOf(options.tokenizer)
  const checkpoint = await openCheckpoint(from, { signal, weights: options.weights })
  await refuseSameFile(from, to)
  const convertFloats = options.convertFloats ?? convertNatively
  const { kind, tensors, matrices, metadata, warnings } =
    await describe(checkpoint, { ...options, tokenizer }, convertFloats)
  if (precision === 'int8' && !matrices) {
    throw new ParError('INVALID_OPTION', `precision 'int8' is for transformers, and ${shownPath(checkpoint.file)} is ` +
      'a tokenizer, which is kept in bfloat16 beside one')
  }

  // The places of the tensors are those of the file that was described.
  const source = await FileSource.open(from, checkpoint.identity)
  const failed = new NodeAbortController()
  // Beside the conversion, which reads other parts of the same file: it is known when the last tensor is written.
  const checksum = options.checksum === false
    ? undefined
    : hashFile(source, checkpoint.checked, signal ? AbortSignal.any([signal, failed.signal]) : failed.signal)
  checksum?.catch(() => {}) // waited for below
  try {
    const conversion = new Conversion(source, convertFloats, signal)
    const toWrite = tensors.flatMap(tensor => {
      const type = precision ?? tensor.dtype
      return conversion.tensor(tensor, type === 'int8' && !matrices?.has(tensor.name) ? 'bfloat16' : type)
    })
    const totalBytes = toWrite.reduce((sum, tensor) => sum + tensorBytes(tensor), 0)
    conversion.onProgress = done => onProgress?.(done, totalBytes)
    conversion.onProgress(0)
    const complete = (sourceSha256: string | undefined): ParvisMetadata => ({
      ...metadata, sourceFile: path.basename(input).slice(0, 1000), ...(sourceSha256 !== undefined && { sourceSha256 })
    })
    const texts = (sha256?: string): Record<string, string> => ({ [metadataKey]: JSON.stringify(complete(sha256)) })
    // As long as the checksum that takes its place.
    const first = texts(checksum && '0'.repeat(64))
    const final = checksum && (async () => texts(await checksum))
    const { bytes } = await writeSafetensors(to, toWrite, first, signal, final)
    return { kind, file: output, bytes, tensors: toWrite.length, metadata: complete(await checksum), warnings }
  } catch (error) {
    signal?.throwIfAborted()
    throw toParError(error)
  } finally {
    failed.abort()
    await checksum?.catch(() => {})
    await source.close()
  }
}

// ---- tensors ----

class Conversion {
  onProgress: (doneBytes: number) => void = () => {}
  private doneBytes = 0

  constructor (
    private readonly source: FileSource, private readonly convertFloats: ConvertFloats,
    private readonly signal: AbortSignal | undefined
  ) {}

  /** A tensor of the file in another type: one to write, or its integers and their scales. */
  tensor (from: TensorSource, type: StoredType): TensorToWrite[] {
    const { name, shape } = from
    if (type !== 'int8') return [this.counted({ name, dtype: type, shape, chunks: () => this.floats(from, type) })]
    const scales: Uint8Array[] = []
    return [
      this.counted({ name, dtype: type, shape, chunks: () => this.integers(from, scales) }),
      this.counted({
        name: name + scaleSuffix, dtype: 'float32', shape: scaleShape(shape),
        chunks: async function * () { while (scales.length > 0) yield scales.shift()! }
      })
    ]
  }

  private counted (tensor: TensorToWrite): TensorToWrite {
    const add = (bytes: number): void => { this.onProgress(this.doneBytes += bytes) }
    const { source } = this
    return {
      ...tensor,
      async * chunks () {
        for await (const chunk of tensor.chunks()) {
          yield chunk
          add(chunk.length)
        }
        await source.refuseChanged()
      }
    }
  }

  private async * floats (from: TensorSource, type: DType): AsyncIterable<Uint8Array> {
    const { dtype } = from
    if (dtype !== 'int8') {
      for await (const chunk of readElements(this.source, from, chunkBytes, this.signal)) {
        yield dtype === type ? chunk : await this.convertFloats(chunk, dtype, type)
      }
      return
    }
    const inputs = from.shape[1]!
    for await (const { integers, scales } of this.stored(from)) {
      const floats = await addon().dequantize(integers, scales, inputs)
      yield type === 'float32' ? floats : await this.convertFloats(floats, 'float32', type)
    }
  }

  /** Integers; their scales are put into `scales`. */
  private async * integers (from: TensorSource, scales: Uint8Array[]): AsyncIterable<Uint8Array> {
    const { name, dtype, shape } = from
    const keep = ({ buffer, byteOffset, byteLength }: Float32Array): void => {
      scales.push(new Uint8Array(buffer, byteOffset, byteLength))
    }
    if (dtype === 'int8') {
      for await (const { integers, scales: some } of this.stored(from)) {
        yield integers
        keep(some)
      }
      return
    }
    const inputs = shape[1]!
    const chunks = readElements(this.source, from, chunkBytes, this.signal)
    for await (const rows of inRows(chunks, inputs * elementBytes(dtype))) {
      const { integers, scales: some } = await addon().quantize(rows, dtype, inputs)
      if (!some.every(scale => scale <= maxScale)) {
        throw bad(this.source.file,
          `tensor ${quote(name)} holds numbers that are not finite, or too large, which no 8-bit integers stand for`)
      }
      yield integers
      keep(some)
    }
  }

  /** Rows of a tensor of integers, as they are stored. */
  private async * stored (from: TensorSource): AsyncIterable<{ integers: Uint8Array, scales: Float32Array }> {
    const [rows, inputs] = from.shape as [number, number]
    const groups = scaleShape(from.shape)[1]
    const each = Math.max(1, Math.floor(chunkBytes / 4 / inputs)) // as floats they are four times as large
    for (let row = 0; row < rows; row += each) {
      this.signal?.throwIfAborted()
      const count = Math.min(each, rows - row)
      const what = `tensor ${quote(from.name)}`
      const integers = await this.source.read(from.offset + row * inputs, count * inputs, what)
      const bytes = await this.source.read(from.scales! + 4 * row * groups, 4 * count * groups, what)
      const scales = new Float32Array(new Uint8Array(bytes).buffer)
      if (!scales.every(scale => scale > 0 && scale <= maxScale)) {
        throw bad(this.source.file,
          `the scales of ${what} must be positive, at most ${maxScale.toPrecision(3)}: the file is damaged`)
      }
      yield { integers, scales }
    }
  }
}

/** The same bytes in pieces that end with a row. */
async function * inRows (chunks: AsyncIterable<Buffer>, rowBytes: number): AsyncIterable<Buffer> {
  let rest = Buffer.alloc(0)
  for await (const chunk of chunks) {
    const all = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    const whole = all.length - all.length % rowBytes
    if (whole > 0) yield all.subarray(0, whole)
    rest = Buffer.from(all.subarray(whole))
  }
}

// ---- what is written ----

interface Described {
  kind: CheckpointKind
  tensors: TensorSource[]
  /** Of a transformer: names of those that int8 keeps as integers. */
  matrices?: Set<string>
  metadata: ParvisMetadata
  warnings: string[]
}

async function describe (
  checkpoint: Checkpoint, options: ConvertOptions, convertFloats: ConvertFloats
): Promise<Described> {
  const { heads, grid, n, rotationPairs, vocabularySize: codes, tokenizer, signal } = options
  const kind = identify(checkpoint)
  if (kind !== 'transformer') {
    if (tokenizer !== undefined) {
      throw new ParError('INVALID_OPTION',
        `tokenizer belongs to the conversion of a transformer, and ${shownPath(checkpoint.file)} is a tokenizer`)
    }
    if (kind === 'video tokenizer') {
      const { tensors, name, model, warnings } = describeVideoTokenizer(checkpoint, options.levels)
      const metadata: ParvisMetadata = {
        kind: 'tokenizer', ...(name !== undefined && { name }), levels: model.levels
      }
      return { kind, tensors, metadata, warnings }
    }
    const { tensors, name, imageSize, warnings } = describeTokenizer(checkpoint)
    const codebookSha256 = await codebookHash(checkpoint, convertFloats, signal)
    const metadata: ParvisMetadata = {
      kind: 'tokenizer', ...(name !== undefined && { name }), ...(imageSize && { imageSize }), codebookSha256
    }
    return { kind: 'tokenizer', tensors, metadata, warnings }
  }
  const found = describeTransformer(checkpoint, { heads, grid, n, rotationPairs, vocabularySize: codes })
  const { layers, crossLayers, dim, vocabularySize, classes } = found.model
  const codebookSha256 = tokenizer === undefined
    ? found.codebookSha256
    : await hashOf(tokenizer, checkpoint.file, vocabularySize, convertFloats, signal)
  return {
    kind: 'transformer',
    tensors: found.tensors,
    matrices: quantizable(found.weights),
    warnings: [...found.warnings,
      ...(found.gridFrom === 'assumed' ? ['the converted file records no grid, because nothing told it'] : [])],
    metadata: {
      kind: 'transformer',
      layers: layers + crossLayers,
      dim,
      // What was assumed is not written down: the next reader would take it for told.
      ...(found.headsFrom !== 'assumed' && { heads: found.model.heads }),
      vocabularySize,
      classes,
      n: found.n,
      ...(found.gridFrom !== 'assumed' && { grid: found.grid }),
      ...(found.grid.length === 3 && found.method !== 'nbp' && { rotationPairs: found.model.rotationPairs }),
      ...(found.firstCell !== undefined && { firstCell: found.firstCell }),
      ...(found.labels && { labels: found.labels }),
      ...(found.sampling && { sampling: found.sampling }),
      ...(found.name !== undefined && { name: found.name }),
      ...(codebookSha256 !== undefined && { codebookSha256 })
    }
  }
}

/** The hash of the codebook that a transformer's tokens are numbers of. */
async function hashOf (
  file: string, transformer: string, vocabulary: number, convertFloats: ConvertFloats, signal?: AbortSignal
): Promise<string | undefined> {
  const checkpoint = await openCheckpoint(file, { signal })
  const kind = identify(checkpoint)
  if (kind !== 'tokenizer') throw new ParError('INVALID_OPTION', `tokenizer: ${shownPath(file)} is a ${kind}`)
  const { codebookSize } = describeTokenizer(checkpoint).model
  if (codebookSize !== vocabulary) {
    throw new ParError('TOKENIZER_MISMATCH',
      `Transformer and tokenizer do not belong together: ${shownPath(transformer)} has a vocabulary ` +
        `of ${vocabulary} tokens, ${shownPath(file)} a codebook of ${codebookSize}`)
  }
  return await codebookHash(checkpoint, convertFloats, signal)
}

/** What is no path is left to whoever opens it. */
function placeOf (file: string): string {
  return typeof file === 'string' && file !== '' ? absolute(file) : file
}

async function refuseSameFile (input: string, output: string): Promise<void> {
  const [from, to] = await Promise.all([stat(input, { bigint: true }),
    stat(output, { bigint: true }).catch(() => undefined)])
  if (samePath(absolute(input), absolute(output)) || (to && from.dev === to.dev && from.ino === to.ino)) {
    throw new ParError('INVALID_OPTION',
      `input and output are the same file: ${shownPath(input)}. Give another output.`)
  }
  if (to && !to.isFile()) throw notRegular(output, to.isDirectory() ? 'folder' : 'special')
}
