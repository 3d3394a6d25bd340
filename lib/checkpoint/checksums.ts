// Compares the checksums that a .pt file has of its data. Loading does not: it would read everything once more on one
// core. `parvis convert` and `parvis inspect` do, since a bit that flipped in a copy makes other pictures, not an
// error.

import { crc32 } from 'node:zlib'
import { bad } from './bad.js'
import { FileSource } from './source.js'
import type { Checked, Checkpoint } from './types.js'

/** A chunk is summed on the JavaScript thread: a millisecond or less. */
const chunkBytes = 1 << 20

/** Sums up what lies at the checked places of a file whose bytes come one chunk after another. */
export class Checksums {
  /** In the order of the file; they do not overlap. */
  readonly parts: readonly Checked[]
  private index = 0
  private sum = 0

  constructor (private readonly file: string, checked: readonly Checked[] = []) {
    this.parts = [...checked].sort((a, b) => a.offset - b.offset)
  }

  /** The bytes from `offset` on. Errors: BAD_CHECKPOINT, naming the first part that does not match. */
  add (offset: number, chunk: Buffer): void {
    const end = offset + chunk.length
    for (; this.index < this.parts.length; this.index++) {
      const part = this.parts[this.index]!
      const partEnd = part.offset + part.bytes
      if (part.offset >= end) return
      this.sum = crc32(chunk.subarray(Math.max(0, part.offset - offset), partEnd - offset), this.sum)
      if (partEnd > end) return
      if (this.sum !== part.crc32) {
        throw bad(this.file, `${part.what} does not match its checksum: the file is damaged, fetch it again`)
      }
      this.sum = 0
    }
  }
}

/**
 * Reads all data of the weights that has a checksum in the file.
 *
 * Errors: BAD_CHECKPOINT, naming the first part that does not match. An aborted call rejects with `signal.reason`.
 */
export async function compareChecksums (
  { file, checked, identity }: Pick<Checkpoint, 'file' | 'checked' | 'identity'>, signal?: AbortSignal
): Promise<void> {
  const checksums = new Checksums(file, checked)
  if (checksums.parts.length === 0) return
  const source = await FileSource.open(file, identity)
  try {
    for (const { what, offset, bytes } of checksums.parts) {
      for (let at = 0; at < bytes; at += chunkBytes) {
        signal?.throwIfAborted()
        checksums.add(offset + at, await source.read(offset + at, Math.min(chunkBytes, bytes - at), what))
      }
    }
    await source.refuseChanged()
  } finally {
    await source.close()
  }
}
