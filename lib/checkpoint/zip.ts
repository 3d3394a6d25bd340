// Finds the entries of a torch zip file without reading them. yauzl reads the directory (zip64 included); what it
// leaves open is settled here, because tensors are read straight from the file: entries must not overlap, names must
// be unique, an entry that is used must be stored uncompressed, and its local header must agree with the directory.
// The directory is read in large blocks: a call to the system an entry would take seconds for 100,000 entries.

import yauzl from 'yauzl'
import { countBelow, Slices, sortInSlices } from '../base/slices.js'
import { quote, visible } from '../base/text.js'
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
}

const maxEntries = 1_000_000
const maxNameLength = 1024
const localHeaderBytes = 30

/** Reads ahead, because yauzl asks for 46 bytes at a time. Answers at once when the bytes are there already. */
class BlockReader extends yauzl.RandomAccessReader {
  private block: Buffer = Buffer.alloc(0)
  private blockStart = 0
  ahead = 1 << 20

  constructor (private readonly source: FileSource) { super() }

  override read (
    buffer: Buffer, offset: number, length: number, position: number, callback: (error: Error | null) => void
  ): void {
    if (!this.source.contains(position, length)) {
      callback(
        new Error(`it points outside the file (${length} bytes at ${position}, the file has ${this.source.size})`)
      )
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
    readonly entries: ReadonlyMap<string, ZipEntry>,
    /** Where entries begin, ascending, and behind them the directory: data must end before the next. */
    private readonly starts: Float64Array
  ) {}

  /** Reads the central directory. Errors: BAD_CHECKPOINT. */
  static async open (source: FileSource, signal?: AbortSignal): Promise<ZipDirectory> {
    const reader = new BlockReader(source)
    const slices = new Slices(signal)
    let zip: yauzl.ZipFile
    const entries = new Map<string, ZipEntry>()
    let directoryStart: number
    try {
      zip = await yauzl.fromRandomAccessReaderPromise(reader, source.size, { autoClose: false, lazyEntries: true })
      // Typed as a boolean, but it is the offset of the directory's first record.
      directoryStart = (zip as unknown as { readEntryCursor: number }).readEntryCursor
      if (zip.entryCount > maxEntries) {
        throw new Error(`it claims ${zip.entryCount} entries, the limit is ${maxEntries}`)
      }
      for await (const entry of zip.eachEntry()) {
        checkEntry(entry, entries, source.size)
        // Names, extra fields and comments may have 64 KB each.
        if (slices.spend(64 + entry.fileName.length + 4 * entry.extraFields.length + entry.fileComment.length)) {
          await slices.rest()
        }
      }
    } catch (error) {
      signal?.throwIfAborted()
      throw bad(source.file, `the zip directory cannot be read: ${reasonOf(error)}. ` +
        'The file is truncated or damaged: fetch it again.', error)
    }
    const starts = await checkOverlaps(entries, directoryStart, source, slices)
    reader.ahead = 4096
    return new ZipDirectory(source, zip, entries, starts)
  }

  /** Byte offset of the entry's data. Checks that it is stored uncompressed and that its local header agrees. */
  async dataStart (entry: ZipEntry): Promise<number> {
    const name = quote(entry.name)
    if (entry.encrypted) {
      throw bad(this.source.file, `zip entry ${name} is encrypted: save the checkpoint again with torch.save`)
    }
    if (entry.method !== 0 || entry.size !== entry.uncompressedSize) {
      throw bad(this.source.file,
        `zip entry ${name} is compressed (method ${entry.method}), torch.save stores entries as they are. ` +
        'Was the file zipped again? Unpack and pack it with "zip -0", or load it in PyTorch and torch.save it.')
    }
    const record = Object.assign(new yauzl.Entry(),
      { relativeOffsetOfLocalHeader: entry.headerOffset, compressedSize: entry.size })
    let header: yauzl.LocalFileHeader
    try {
      header = await this.zip.readLocalFileHeaderPromise(record)
    } catch (error) {
      throw bad(this.source.file, `the header of zip entry ${name} cannot be read: ${reasonOf(error)}. ` +
        'The file is truncated or damaged: fetch it again.', error)
    }
    const disagree = (what: string): never => {
      throw bad(this.source.file,
        `the header of zip entry ${name} disagrees with the zip directory about its ${what}: the file is damaged`)
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
    const limit = nextStart(this.starts, entry.headerOffset)
    if (end > limit) throw bad(this.source.file, `zip entry ${name} overlaps the one after it: the file is damaged`)
    if (end !== limit && !(later && await this.isDescriptor(entry, end, limit - end))) disagree('length')
    return header.fileDataStart
  }

  /**
   * Is what lies between the data and the next entry a data descriptor (bit 3)? Nothing else may lie there: a wrong
   * length in the local header shifts the data by a few bytes, and shifted weights are still numbers. A descriptor is
   * the checksum and both sizes of 4 or of 8 bytes; a signature before them may be missing.
   */
  private async isDescriptor (entry: ZipEntry, offset: number, length: number): Promise<boolean> {
    if (![12, 16, 20, 24].includes(length)) return false
    const bytes = await this.source.read(offset, length, 'a zip data descriptor')
    const signed = length === 16 || length === 24
    if (signed && bytes.readUInt32LE(0) !== 0x08074b50) return false
    const [crc, sizes] = [bytes.readUInt32LE(signed ? 4 : 0), bytes.subarray(signed ? 8 : 4)]
    const size = sizes.length === 8 ? sizes.readUInt32LE(0) : Number(sizes.readBigUInt64LE(0))
    return crc === entry.crc32 && size === entry.size
  }
}

// ---- checks of the directory ----

/** yauzl's reasons have names of entries in them. */
function reasonOf (error: unknown): string { return visible((error as Error).message.replace(/\.$/, ''), 300) }

function checkEntry (entry: yauzl.Entry, entries: Map<string, ZipEntry>, fileSize: number): void {
  const name = entry.fileName
  if (name.length > maxNameLength) throw new Error(`an entry's name has ${name.length} characters.`)
  if (entries.has(name)) throw new Error(`two entries are called ${quote(name)}.`)
  const sizes = [entry.relativeOffsetOfLocalHeader, entry.compressedSize, entry.uncompressedSize]
  if (!sizes.every(Number.isSafeInteger) ||
      entry.relativeOffsetOfLocalHeader + localHeaderBytes + entry.compressedSize > fileSize) {
    throw new Error(`entry ${quote(name)} (${entry.compressedSize} bytes at ${entry.relativeOffsetOfLocalHeader}) ` +
      `lies outside the file of ${fileSize} bytes.`)
  }
  entries.set(name, {
    name,
    headerOffset: entry.relativeOffsetOfLocalHeader,
    size: entry.compressedSize,
    uncompressedSize: entry.uncompressedSize,
    method: entry.compressionMethod,
    encrypted: (entry.generalPurposeBitFlag & 1) !== 0,
    crc32: entry.crc32
  })
}

/**
 * Returns where entries and the directory begin. The exact start of the data is known only from the local header: see
 * dataStart.
 */
async function checkOverlaps (
  entries: ReadonlyMap<string, ZipEntry>, directoryStart: number, source: FileSource, slices: Slices
): Promise<Float64Array> {
  let starts: Float64Array = new Float64Array(entries.size + 1)
  let count = 0
  for (const { headerOffset } of entries.values()) {
    starts[count++] = headerOffset
    if (slices.spend(1)) await slices.rest()
  }
  starts[count] = directoryStart
  starts = await sortInSlices(starts, slices)
  for (const { name, headerOffset, size } of entries.values()) {
    const limit = nextStart(starts, headerOffset)
    if (headerOffset + localHeaderBytes + size > limit) {
      const next = limit === directoryStart ? 'the zip directory' : 'the entry after it'
      throw bad(source.file, `zip entry ${quote(name)} overlaps ${next}: the file is damaged`)
    }
    if (slices.spend(4)) await slices.rest()
  }
  return starts
}

/** The start after the one at `offset`: the same offset where two entries begin there. */
function nextStart (starts: Float64Array, offset: number): number {
  return starts[countBelow(starts, offset) + 1] ?? 0
}
