// The one place that reads bytes of a checkpoint. Every read is checked against the size of the file first, so that
// no length found in a file can drive an allocation or a read past the end. Offsets are doubles: exact to 2^53.

import { constants, type BigIntStats, type Stats } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { bad } from './bad.js'

/** Opening a pipe that has taken the place of a file must not wait for a writer. Windows has no such flag. */
const withoutWaiting = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)

/**
 * Which file it is and in which state: device, inode, size, and nanoseconds of the last change. Whoever opens a file
 * again by its name compares it, as the addon does: another file may have taken its place.
 */
export type FileIdentity = BigUint64Array

function identityOf ({ dev, ino, size, mtimeNs }: BigIntStats): FileIdentity {
  return BigUint64Array.of(dev, ino, size, mtimeNs)
}

function regular (found: Stats | BigIntStats, file: string): void {
  if (found.isFile()) return
  throw new ParError('FILE_NOT_FOUND',
    `${shownPath(file)}: cannot be read: it is ${found.isDirectory() ? 'a folder' : 'no regular file'}. ` +
    'Give the path of a .pt or .safetensors file.')
}

function refuseOther (file: string, identity: FileIdentity, expected: FileIdentity | undefined): void {
  if (expected?.some((value, i) => value !== identity[i])) {
    throw bad(file, 'was replaced or written to while it was being loaded. Load it again when it is complete.')
  }
}

/** A file opened for reading. */
export class FileSource {
  private constructor (
    readonly file: string,
    readonly size: number,
    readonly identity: FileIdentity,
    private readonly handle: FileHandle
  ) {}

  /**
   * Opens a regular file. Errors: FILE_NOT_FOUND (absent, unreadable, a folder, a pipe or a device).
   * @param expected what it was when it was read before; BAD_CHECKPOINT where it is another now
   */
  static async open (file: string, expected?: FileIdentity): Promise<FileSource> {
    if (typeof file !== 'string' || file === '' || file.includes('\0')) {
      throw new ParError('INVALID_OPTION', 'a checkpoint is given as a path: a string that is not empty')
    }
    let handle: FileHandle | undefined
    try {
      // Asked before opening: opening a pipe waits for a writer.
      regular(await stat(file), file)
      handle = await open(file, withoutWaiting)
      const found = await handle.stat({ bigint: true })
      regular(found, file) // something else may bear the name by now
      const identity = identityOf(found)
      refuseOther(file, identity, expected)
      return new FileSource(file, Number(identity[2]), identity, handle)
    } catch (error) {
      await handle?.close()
      throw fromSystem(error, file, 'read')
    }
  }

  /** Is `[offset, offset + length)` inside the file? False for anything that is not a whole number of bytes. */
  contains (offset: number, length: number): boolean {
    return Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 &&
      offset <= this.size && length <= this.size - offset
  }

  /** Reads exactly `length` bytes. Errors: BAD_CHECKPOINT when they do not lie in the file. */
  async read (offset: number, length: number, what: string): Promise<Buffer> {
    if (!this.contains(offset, length)) {
      throw bad(this.file, `${what} lies outside the file (${length} bytes at ${offset}, the file has ${this.size}). ` +
        'The file is truncated or damaged: fetch it again.')
    }
    const bytes = Buffer.allocUnsafe(length)
    await this.readInto(bytes, offset, what)
    return bytes
  }

  /** Fills `bytes` from `offset`. Errors: BAD_CHECKPOINT when the file ends before (it shrank while being read). */
  async readInto (bytes: Uint8Array, offset: number, what: string): Promise<void> {
    let done = 0
    while (done < bytes.length) {
      const { bytesRead } = await this.handle.read(bytes, done, bytes.length - done, offset + done)
      if (bytesRead === 0) throw bad(this.file, `${what}: the file ended while being read. Was it replaced meanwhile?`)
      done += bytesRead
    }
  }

  /** Was it written to since it was opened? Errors: BAD_CHECKPOINT. */
  async refuseChanged (): Promise<void> {
    refuseOther(this.file, identityOf(await this.handle.stat({ bigint: true })), this.identity)
  }

  async close (): Promise<void> { await this.handle.close() }
}
