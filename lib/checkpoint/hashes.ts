// Checksums: of a whole file, so that a converted one tells what it was made of, and of a tokenizer's codebook, so that
// a transformer can say which one its tokens are numbers of. Two codebooks of one size are otherwise told apart by
// nothing, and the wrong one makes pictures that are noise.

import { createHash } from 'node:crypto'
import { addon, type DType } from '../machine/native.js'
import { Checksums } from './checksums.js'
import { countElements } from './dtypes.js'
import { readElements } from './elements.js'
import { readParvisMetadata } from './metadata.js'
import { tellingNames } from './names.js'
import { FileSource } from './source.js'
import type { Checkpoint } from './types.js'

/** Little-endian elements in, elements out, rounded to nearest even. */
export type ConvertFloats = (data: Uint8Array, from: DType, to: DType) => Promise<Uint8Array>

/** The addon's. */
export const convertNatively: ConvertFloats = async (data, from, to) => await addon().convertFloats(data, from, to)

/** A chunk is hashed on the JavaScript thread: a millisecond or less. */
const chunkBytes = 1 << 20

/**
 * SHA-256 of the file, in hexadecimal digits; as all of it is read, the checksums in it are compared, too. Errors:
 * BAD_CHECKPOINT where one does not match.
 */
export async function hashFile (
  source: FileSource, checked: Checkpoint['checked'], signal?: AbortSignal
): Promise<string> {
  const hash = createHash('sha256')
  const checksums = new Checksums(source.file, checked)
  for (let at = 0; at < source.size; at += chunkBytes) {
    signal?.throwIfAborted()
    const chunk = await source.read(at, Math.min(chunkBytes, source.size - at), 'the file')
    hash.update(chunk)
    checksums.add(at, chunk)
  }
  return hash.digest('hex')
}

/**
 * SHA-256 of a tokenizer's codebook: of its elements in row-major order, rounded to bfloat16, so that the same codebook
 * has the same hash in float32 and in bfloat16. What the metadata of a converted file says comes before it: that is of
 * the file it was made of, whatever it was rounded to. Errors: as describeTokenizer, of which this needs the codebook
 * alone.
 */
export async function codebookHash (
  checkpoint: Checkpoint, convertFloats: ConvertFloats = convertNatively, signal?: AbortSignal
): Promise<string | undefined> {
  const metadata = readParvisMetadata(checkpoint)
  if (metadata?.codebookSha256 !== undefined) return metadata.codebookSha256
  const codebook = checkpoint.tensors.get(tellingNames.codebook)
  if (!codebook || countElements(codebook.shape) === undefined) return undefined
  const { dtype } = codebook
  if (dtype === 'int8') return undefined // refused where it is read
  const source = await FileSource.open(checkpoint.file, checkpoint.identity)
  try {
    const hash = createHash('sha256')
    for await (const chunk of readElements(source, codebook, chunkBytes, signal)) {
      hash.update(dtype === 'bfloat16' ? chunk : await convertFloats(chunk, dtype, 'bfloat16'))
    }
    return hash.digest('hex')
  } finally {
    await source.close()
  }
}
