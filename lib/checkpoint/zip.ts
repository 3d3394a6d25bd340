// Finds the entries of a torch zip file without reading them. yauzl reads the directory (zip64 included); what it
// leaves open is settled here, because tensors are read straight from the file: entries must not overlap, names must
// be unique, an entry that is used must be stored uncompressed, and its local header must agree with the directory.
// The directory is read in large blocks: a call to the system an entry would take seconds for 100,000 entries.

import { setImmediate } from 'node:timers/promises'
import yauzl from 'yauzl'
import { quote } from '../text.js'
import { bad } from './bad.js'
import type { FileSource } from './source.js'

/** One file in the zip, as the central directory tells it. */
export interface ZipEntry {
  name: string
  headerOffset: number
  /** Stored size, bytes. */
  size: number
  uncompressedSize: number
  method: number
  encrypted: boolean
  crc32: number
  /** Where the next entry (or the directory) starts: the data must end before. */
  limit: number
}

const maxEntries = 4_000_000
const maxNameLength = 1024
const localHeaderBytes = 30

/** Reads ahead, because yauzl asks for 46 bytes at a time. Answers at once when the bytes are there already. */
class BlockReader extends yauzl.RandomAccessReader {
  private block: Buffer = Buffer.alloc(0)
  private blockStart = 0
  ahead = 1 << 20

  constructor (private readonly source: FileSource) { super() }

  override read (buffer: Buffer, offset: number, length: number, position: number, callback: (error: Error | null) => void): void {
    if (!this.source.contains(position, length)) {
      callback(new Error(`it points outside the file (${length} bytes at ${position}, the file has ${this.source.size})`))
      return
    }
    const from = position - this.blockStart
    if (from >= 0 && from + length <= this.block.length) {
      this.block.copy(buffer, offset, from, from + length)
      callback(null)
      return
    }
    const size = Math.min(Math.max(length, this.ahead), this.source.size - position)
    this.source.read(position, size, 'the zip directory').then(block => {
      this.block = block
      this.blockStart = position
      block.copy(buffer, offset, 0, length)
      callback(null)
    }, callback)
  }
}

/** The directory of a zip file. */
export class ZipDirectory {
  private constructor (
    private readonly source: FileSource,
    private readonly zip: yauzl.ZipFile,
    readonly entries: ReadonlyMap<string, ZipEntry>
  ) {}

  /** Reads the central directory. Errors: BAD_CHECKPOINT. */
  static async open (source: FileSource, signal?: AbortSignal): Promise<ZipDirectory> {
    const reader = new BlockReader(source)
    let zip: yauzl.ZipFile
    const list: ZipEntry[] = []
    const entries = new Map<string, ZipEntry>()
    let directoryStart: number
    try {
      zip = await yauzl.fromRandomAccessReaderPromise(reader, source.size, { autoClose: false, lazyEntries: true })
      // Typed as a boolean, but it is the offset of the directory's first record.
      directoryStart = (zip as unknown as { readEntryCursor: number }).readEntryCursor
      if (zip.entryCount > maxEntries) throw new Error(`it claims ${zip.entryCount} entries, the limit is ${maxEntries}`)
      for await (const entry of zip.eachEntry()) {
        if (list.length % 1024 === 1023) {
          await setImmediate()
          signal?.throwIfAborted()
        }
        list.push(checkEntry(entry, entries, source.size))
      }
    } catch (error) {
      signal?.throwIfAborted()
      throw bad(source.file, `the zip directory cannot be read: ${(error as Error).message.replace(/\.?$/, '.')} ` +
        'The file is truncated or damaged: fetch it again.', error)
    }
    checkOverlaps(list, directoryStart, source)
    reader.ahead = 4096
    return new ZipDirectory(source, zip, entries)
  }

  /** Byte offset of the entry's data. Checks that it is stored uncompressed and that its local header agrees. */
  async dataStart (entry: ZipEntry): Promise<number> {
    const name = quote(entry.name)
    if (entry.encrypted) throw bad(this.source.file, `zip entry ${name} is encrypted: save the checkpoint again with torch.save`)
    if (entry.method !== 0 || entry.size !== entry.uncompressedSize) {
      throw bad(this.source.file, `zip entry ${name} is compressed (method ${entry.method}), torch.save stores entries as they are. ` +
        'Was the file zipped again? Unpack and pack it with "zip -0", or load it in PyTorch and torch.save it.')
    }
    const record = Object.assign(new yauzl.Entry(), { relativeOffsetOfLocalHeader: entry.headerOffset, compressedSize: entry.size })
    let header: yauzl.LocalFileHeader
    try {
      header = await this.zip.readLocalFileHeaderPromise(record)
    } catch (error) {
      throw bad(this.source.file, `the header of zip entry ${name} cannot be read: ${(error as Error).message}. ` +
        'The file is truncated or damaged: fetch it again.', error)
    }
    const disagree = (what: string): never => {
      throw bad(this.source.file, `the header of zip entry ${name} disagrees with the zip directory about its ${what}: the file is damaged`)
    }
    const localName = yauzl.getFileNameLowLevel(header.generalPurposeBitFlag, header.fileName, [], false)
    if (localName !== entry.name) disagree('name')
    if (header.compressionMethod !== 0) disagree('compression')
    if ((header.generalPurposeBitFlag & 1) !== 0) disagree('encryption')
    // Sizes may stand after the data (bit 3) or in the zip64 field (all ones).
    const later = (header.generalPurposeBitFlag & 8) !== 0
    for (const size of [header.compressedSize, header.uncompressedSize]) {
      if (size !== entry.size && size !== 0xffffffff && !(later && size === 0)) disagree('size')
    }
    const end = header.fileDataStart + entry.size
    if (end > entry.limit) throw bad(this.source.file, `zip entry ${name} overlaps the one after it: the file is damaged`)
    if (end !== entry.limit && !(later && await this.isDescriptor(end, entry.limit - end))) disagree('length')
    return header.fileDataStart
  }

  /**
   * Is what lies between the data and the next entry a data descriptor (bit 3)? Nothing else may lie there: a wrong
   * length in the local header shifts the data by a few bytes, and shifted weights are still numbers.
   */
  private async isDescriptor (offset: number, length: number): Promise<boolean> {
    if (length !== 16 && length !== 24) return false
    return (await this.source.read(offset, 4, 'a zip data descriptor')).readUInt32LE(0) === 0x08074b50
  }
}

// ---- checks of the directory ----

function checkEntry (entry: yauzl.Entry, entries: Map<string, ZipEntry>, fileSize: number): ZipEntry {
  const name = entry.fileName
  if (name.length > maxNameLength) throw new Error(`an entry's name has ${name.length} characters.`)
  if (entries.has(name)) throw new Error(`two entries are called ${quote(name)}.`)
  const sizes = [entry.relativeOffsetOfLocalHeader, entry.compressedSize, entry.uncompressedSize]
  if (!sizes.every(Number.isSafeInteger) ||
      entry.relativeOffsetOfLocalHeader + localHeaderBytes + entry.compressedSize > fileSize) {
    throw new Error(`entry ${quote(name)} (${entry.compressedSize} bytes at ${entry.relativeOffsetOfLocalHeader}) lies outside the file of ${fileSize} bytes.`)
  }
  const found: ZipEntry = {
    name,
    headerOffset: entry.relativeOffsetOfLocalHeader,
    size: entry.compressedSize,
    uncompressedSize: entry.uncompressedSize,
    method: entry.compressionMethod,
    encrypted: (entry.generalPurposeBitFlag & 1) !== 0,
    crc32: entry.crc32,
    limit: fileSize
  }
  entries.set(name, found)
  return found
}

/** Sets each entry's limit. The exact start of the data is known only from the local header: see dataStart. */
function checkOverlaps (list: ZipEntry[], directoryStart: number, source: FileSource): void {
  list.sort((a, b) => a.headerOffset - b.headerOffset)
  for (let i = 0; i < list.length; i++) {
    const entry = list[i]!
    const next = list[i + 1]
    entry.limit = next ? next.headerOffset : directoryStart
    if (entry.headerOffset + localHeaderBytes + entry.size > entry.limit) {
      throw bad(source.file, `zip entry ${quote(entry.name)} overlaps ${next ? `entry ${quote(next.name)}` : 'the zip directory'}: the file is damaged`)
    }
  }
}
