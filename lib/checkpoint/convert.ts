// Rewrites a checkpoint as .safetensors: only the tensors that are needed, contiguous, in one precision if asked, with
// the architecture and the checksum of what it was made of in the metadata. Streams in chunks, so that a 12 GB training
// checkpoint needs no more memory than one of its chunks; only a tensor that is stored with strides is held whole while
// it is gathered.

import { stat } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import { toParError, type DType, type TensorSource } from '../machine/native.js'
import { NodeAbortController } from '../base/realm.js'
import { shownPath } from '../base/text.js'
import {
  describeTokenizer, describeTransformer, describeVideoTokenizer, identify, type CheckpointKind,
  type TransformerOverrides
} from './architecture.js'
import { readElements } from './elements.js'
import { codebookHash, convertNatively, hashFile, type ConvertFloats } from './hashes.js'
import type { WeightsChoice } from './names.js'
import { metadataKey, type ParvisMetadata } from './metadata.js'
import { openCheckpoint } from './open.js'
import { notRegular, tensorBytes, writeSafetensors, type TensorToWrite } from './safetensors-write.js'
import { showValue } from './shapes.js'
import { FileSource } from './source.js'
import type { Checkpoint } from './types.js'

export type { ConvertFloats } from './hashes.js'

export interface ConvertOptions extends TransformerOverrides {
  /** Type of all tensors in the output; default: each as it is stored. */
  precision?: DType
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
  /** Tensors written. */
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
  if (precision !== undefined && !['float32', 'float16', 'bfloat16'].includes(precision)) {
    throw new ParError('INVALID_OPTION',
      `precision must be 'float32', 'float16' or 'bfloat16', got ${showValue(precision)}`)
  }
  if (typeof output !== 'string' || output === '' || output.includes('\0')) {
    throw new ParError('INVALID_OPTION', 'output must be a path')
  }
  // Before anything is waited for: relative names are of the folder in which the process is now.
  const [from, to] = [placeOf(input), placeOf(output)]
  const tokenizer = options.tokenizer === undefined ? undefined : placeOf(options.tokenizer)
  const checkpoint = await openCheckpoint(from, { signal, weights: options.weights })
  await refuseSameFile(from, to)
  const convertFloats = options.convertFloats ?? convertNatively
  const { kind, tensors, metadata, warnings } = await describe(checkpoint, { ...options, tokenizer }, convertFloats)

  // The places of the tensors are those of the file that was described.
  const source = await FileSource.open(from, checkpoint.identity)
  const failed = new NodeAbortController()
  // Beside the conversion, which reads other parts of the same file: it is known when the last tensor is written.
  const checksum = options.checksum === false
    ? undefined
    : hashFile(source, checkpoint.checked, signal ? AbortSignal.any([signal, failed.signal]) : failed.signal)
  checksum?.catch(() => {}) // waited for below
  try {
    const totalBytes = tensors.reduce(
      (sum, { dtype, shape }) => sum + tensorBytes({ dtype: precision ?? dtype, shape }), 0
    )
    let doneBytes = 0
    onProgress?.(0, totalBytes)
    const toWrite = tensors.map((tensor): TensorToWrite => {
      const dtype = precision ?? tensor.dtype
      return {
        name: tensor.name,
        dtype,
        shape: tensor.shape,
        async * chunks () {
          for await (const chunk of readElements(source, tensor, chunkBytes, signal)) {
            const converted = dtype === tensor.dtype ? chunk : await convertFloats(chunk, tensor.dtype, dtype)
            yield converted
            doneBytes += converted.length
            onProgress?.(doneBytes, totalBytes)
          }
          await source.refuseChanged()
        }
      }
    })
    const complete = (sourceSha256: string | undefined): ParvisMetadata => ({
      ...metadata, sourceFile: path.basename(input).slice(0, 1000), ...(sourceSha256 !== undefined && { sourceSha256 })
    })
    const texts = (sha256?: string): Record<string, string> => ({ [metadataKey]: JSON.stringify(complete(sha256)) })
    // As long as the checksum that takes its place.
    const first = texts(checksum && '0'.repeat(64))
    const final = checksum && (async () => texts(await checksum))
    const { bytes } = await writeSafetensors(to, toWrite, first, signal, final)
    return { kind, file: output, bytes, tensors: tensors.length, metadata: complete(await checksum), warnings }
  } catch (error) {
    signal?.throwIfAborted()
    throw toParError(error)
  } finally {
    failed.abort()
    await checksum?.catch(() => {})
    await source.close()
  }
}

// ---- what is written ----

async function describe (
  checkpoint: Checkpoint, options: ConvertOptions, convertFloats: ConvertFloats
): Promise<{ kind: CheckpointKind, tensors: TensorSource[], metadata: ParvisMetadata, warnings: string[] }> {
  const { heads, grid, n, rotationPairs, tokenizer, signal } = options
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
  const found = describeTransformer(checkpoint, { heads, grid, n, rotationPairs })
  const { layers, crossLayers, dim, vocabularySize, classes } = found.model
  const codebookSha256 = tokenizer === undefined
    ? found.codebookSha256
    : await hashOf(tokenizer, checkpoint.file, vocabularySize, convertFloats, signal)
  return {
    kind: 'transformer',
    tensors: found.tensors,
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
      ...(found.grid.length === 3 && { rotationPairs: found.model.rotationPairs }),
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
  if (absolute(input) === absolute(output) || (to && from.dev === to.dev && from.ino === to.ino)) {
    throw new ParError('INVALID_OPTION',
      `input and output are the same file: ${shownPath(input)}. Give another output.`)
  }
  if (to && !to.isFile()) throw notRegular(output, to.isDirectory() ? 'folder' : 'special')
}
