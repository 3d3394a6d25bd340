// Writes a .safetensors file tensor by tensor, so that no more than one chunk is in memory. The file appears under its
// name only when it is whole (files.ts).

import type { FileHandle } from 'node:fs/promises'
import type { StoredType } from '../machine/native.js'
import { ParError } from '../base/errors.js'
import { findTarget, fromSystem, writePart, type Target } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { countElements, elementBytes } from './dtypes.js'

/** One tensor to write: its description, and its bytes (row-major, little-endian) in order. */
export interface TensorToWrite {
  name: string
  dtype: StoredType
  shape: number[]
  chunks (): AsyncIterable<Uint8Array>
}

const typeNames: Record<StoredType, string> = { float32: 'F32', float16: 'F16', bfloat16: 'BF16', int8: 'I8' }

/**
 * Writes `tensors` to `file`, replacing it at the end (a link stays, the file it leads to is replaced); on failure or
 * abort nothing is left behind. `last` gives the metadata that stands there at the end, as long as `metadata`.
 * Errors: FILE_NOT_FOUND when `file` cannot be written, INVALID_OPTION when it is no regular file, INTERNAL when a
 * tensor yields another number of bytes than its shape says.
 */
export async function writeSafetensors (
  file: string, tensors: TensorToWrite[], metadata: Record<string, string>, signal?: AbortSignal,
  last?: () => Promise<Record<string, string>>
): Promise<{ bytes: number }> {
  const header = makeHeader(tensors, metadata)
  let target: Target | undefined
  try {
    target = await findTarget(file)
    if (target.kind === 'folder' || target.kind === 'special') throw notRegular(file, target.kind)
    return await writePart(target.path, async handle => {
      let bytes = await writeAll(handle, header)
      for (const tensor of tensors) {
        let written = 0
        for await (const chunk of tensor.chunks()) {
          signal?.throwIfAborted()
          written += await writeAll(handle, chunk)
        }
        if (written !== tensorBytes(tensor)) {
          throw new ParError('INTERNAL',
            `tensor ${JSON.stringify(tensor.name)} yielded ${written} bytes, ${tensorBytes(tensor)} were expected`)
        }
        bytes += written
      }
      if (last) {
        const final = makeHeader(tensors, await last())
        if (final.length !== header.length) {
          throw new ParError('INTERNAL', `the header grew from ${header.length} to ${final.length} bytes`)
        }
        await handle.write(final, 0, final.length, 0)
      }
      signal?.throwIfAborted()
      return { bytes }
    })
  } catch (error) {
    throw fromSystem(error, file, 'written', target?.path)
  }
}

/** The refusal of an output that a rename would destroy. */
export function notRegular (file: string, kind: 'folder' | 'special'): ParError {
  const what = kind === 'folder'
    ? 'a folder'
    : 'no regular file (a device, a pipe or a socket), which a checkpoint cannot be written to'
  return new ParError('INVALID_OPTION', `output ${shownPath(file)} is ${what}: give the name of a file`)
}

/** Bytes that the tensor takes in the file. */
export function tensorBytes (tensor: { dtype: StoredType, shape: number[] }): number {
  return countElements(tensor.shape)! * elementBytes(tensor.dtype)
}

function makeHeader (tensors: TensorToWrite[], metadata: Record<string, string>): Buffer {
  // A Map keeps any name, `__proto__` too; fromEntries defines own properties.
  const entries = new Map<string, unknown>([['__metadata__', metadata]])
  let at = 0
  for (const tensor of tensors) {
    const end = at + tensorBytes(tensor)
    entries.set(tensor.name, { dtype: typeNames[tensor.dtype], shape: tensor.shape, data_offsets: [at, end] })
    at = end
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)))
  // Spaces, so that the data starts at a multiple of 8.
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, 0x20)
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0)
  json.copy(padded, 8)
  return padded
}

async function writeAll (handle: FileHandle, bytes: Uint8Array): Promise<number> {
  let done = 0
  while (done < bytes.length) done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten
  return bytes.length
}
