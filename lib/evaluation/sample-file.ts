// Pictures in one .npz file, as np.savez writes it and the ADM evaluator reads it: arr_0 uint8 [N, H, W, 3], arr_1
// int64 [N] (the classes), both stored, sizes in ZIP64. Its bytes depend on the pictures alone: no dates, one layout.
// A picture has its place from the start, so a file that is being written is continued where its whole pictures end.
// The comment of the archive says what the pictures are.

import { open, type FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { fromSystem } from '../base/files.js'

/** What a file of samples holds. */
export interface SampleShape {
  pictures: number
  height: number
  width: number
}

/** Bytes of the longest comment of an archive. */
const maxComment = 65535
/** Bytes that are copied or hashed at a time. */
const sliceBytes = 1 << 22

/** The header of an array file of NumPy, version 1.0. */
function npyHeader (type: '|u1' | '<i8', shape: readonly number[]): Buffer {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(', ')
  const text = `{'descr': '${type}', 'fortran_order': False, 'shape': (${sizes}), }`
  const length = Math.ceil((10 + text.length + 1) / 64) * 64
  const header = Buffer.alloc(length, ' ')
  header.write('\x93NUMPY\x01\x00', 'latin1')
  header.writeUInt16LE(length - 10, 8)
  header.write(text, 10, 'latin1')
  header.write('\n', length - 1)
  return header
}

// ---- the archive (APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3)

interface Entry { name: string, size: number, offset: number, crc: number }

/** 1 January 1980, the first day that the format knows. */
const noDate = 0x21
const zip64Version = 45

function localHeader ({ name, size, crc }: Omit<Entry, 'offset'>): Buffer {
  const header = Buffer.alloc(30 + name.length + 20)
  header.writeUInt32LE(0x04034b50, 0)
  header.writeUInt16LE(zip64Version, 4)
  header.writeUInt16LE(noDate, 12)
  header.writeUInt32LE(crc, 14)
  header.writeUInt32LE(0xffffffff, 18)
  header.writeUInt32LE(0xffffffff, 22)
  header.writeUInt16LE(name.length, 26)
  header.writeUInt16LE(20, 28)
  header.write(name, 30, 'latin1')
  extra(header, 30 + name.length, [size, size])
  return header
}

/** The ZIP64 field: numbers of 64 bits. */
function extra (to: Buffer, at: number, values: readonly number[]): void {
  to.writeUInt16LE(1, at)
  to.writeUInt16LE(8 * values.length, at + 2)
  values.forEach((value, i) => { to.writeBigUInt64LE(BigInt(value), at + 4 + 8 * i) })
}

function directory (entries: readonly Entry[], at: number, comment: Buffer): Buffer {
  const parts = entries.map(({ name, size, offset, crc }) => {
    const entry = Buffer.alloc(46 + name.length + 28)
    entry.writeUInt32LE(0x02014b50, 0)
    entry.writeUInt16LE(zip64Version, 4)
    entry.writeUInt16LE(zip64Version, 6)
    entry.writeUInt16LE(noDate, 14)
    entry.writeUInt32LE(crc, 16)
    entry.writeUInt32LE(0xffffffff, 20)
    entry.writeUInt32LE(0xffffffff, 24)
    entry.writeUInt16LE(name.length, 28)
    entry.writeUInt16LE(28, 30)
    entry.writeUInt32LE(0xffffffff, 42)
    entry.write(name, 46, 'latin1')
    extra(entry, 46 + name.length, [size, size, offset])
    return entry
  })
  const bytes = parts.reduce((sum, part) => sum + part.length, 0)
  const end = Buffer.alloc(56 + 20 + 22)
  end.writeUInt32LE(0x06064b50, 0) // the end of the directory, with numbers of 64 bits
  end.writeBigUInt64LE(44n, 4)
  end.writeUInt16LE(zip64Version, 12)
  end.writeUInt16LE(zip64Version, 14)
  end.writeBigUInt64LE(BigInt(entries.length), 24)
  end.writeBigUInt64LE(BigInt(entries.length), 32)
  end.writeBigUInt64LE(BigInt(bytes), 40)
  end.writeBigUInt64LE(BigInt(at), 48)
  end.writeUInt32LE(0x07064b50, 56) // where that is
  end.writeBigUInt64LE(BigInt(at + bytes), 64)
  end.writeUInt32LE(1, 72)
  end.writeUInt32LE(0x06054b50, 76) // the end of the archive
  end.writeUInt16LE(0xffff, 84)
  end.writeUInt16LE(0xffff, 86)
  end.writeUInt32LE(0xffffffff, 88)
  end.writeUInt32LE(0xffffffff, 92)
  end.writeUInt16LE(comment.length, 96)
  return Buffer.concat([...parts, end, comment])
}

// ---- the layout

const pixelsName = 'arr_0.npy'
const labelsName = 'arr_1.npy'

/** Where everything lies in a file of these samples. */
class Layout {
  readonly pictureBytes: number
  readonly #pictures: number
  readonly #pixelsHeader: Buffer
  readonly #labelsHeader: Buffer
  readonly #pixelsSize: number

  constructor ({ pictures, height, width }: SampleShape) {
    this.pictureBytes = height * width * 3
    this.#pictures = pictures
    this.#pixelsHeader = npyHeader('|u1', [pictures, height, width, 3])
    this.#labelsHeader = npyHeader('<i8', [pictures])
    this.#pixelsSize = this.#pixelsHeader.length + pictures * this.pictureBytes
  }

  /** What stands before the first picture. */
  head (crc: number): Buffer {
    return Buffer.concat([localHeader({ name: pixelsName, size: this.#pixelsSize, crc }), this.#pixelsHeader])
  }

  /** The checksum of an array without pictures. */
  get firstCrc (): number { return crc32(this.#pixelsHeader) }

  /** Where picture `index` lies. */
  place (index: number): number { return this.head(0).length + index * this.pictureBytes }

  /** Where the labels lie. */
  get labels (): number {
    return this.place(this.#pictures) + localHeader({ name: labelsName, size: 0, crc: 0 }).length +
      this.#labelsHeader.length
  }

  /** What stands behind the last picture. */
  tail (labels: readonly number[], crc: number, comment: Buffer): Buffer {
    const at = this.place(labels.length)
    const values = Buffer.alloc(labels.length * 8)
    labels.forEach((label, i) => { values.writeBigInt64LE(BigInt(label), i * 8) })
    const array = Buffer.concat([this.#labelsHeader, values])
    const entries = [
      { name: pixelsName, size: this.#pixelsSize, offset: 0, crc },
      { name: labelsName, size: array.length, offset: at, crc: crc32(array) }
    ]
    const local = localHeader(entries[1]!)
    return Buffer.concat([local, array, directory(entries, at + local.length + array.length, comment)])
  }
}

/** About the bytes that a file of these samples will have. */
export function sampleFileBytes (shape: SampleShape): number {
  return new Layout(shape).place(shape.pictures) + 8 * shape.pictures + 4096
}

// ---- writing

/** A file of samples in the making. */
export class SampleFile {
  readonly #file: string
  readonly #handle: FileHandle
  readonly #shape: SampleShape
  readonly #layout: Layout
  #crc: number
  #done = 0

  private constructor (file: string, handle: FileHandle, shape: SampleShape) {
    this.#file = file
    this.#handle = handle
    this.#shape = shape
    this.#layout = new Layout(shape)
    this.#crc = this.#layout.firstCrc
  }

  /**
   * Opens a file for pictures, and takes as done those that it holds whole.
   * @param check called now and then; an error thrown in it ends the opening with that error
   * @throws ParError `FILE_NOT_FOUND`
   */
  static async open (file: string, shape: SampleShape, check: () => void = () => {}): Promise<SampleFile> {
    let handle: FileHandle | undefined
    try {
      handle = await open(file, 'r+').catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
        return await open(file, 'wx+')
      })
      const samples = new SampleFile(file, handle, shape)
      await samples.#continue(check)
      return samples
    } catch (error) {
      await handle?.close().catch(() => {})
      throw fromSystem(error, file, 'written')
    }
  }

  /** Pictures that are in it. */
  get done (): number { return this.#done }

  async #continue (check: () => void): Promise<void> {
    const layout = this.#layout
    const head = layout.head(0)
    const { size } = await this.#handle.stat()
    const found = Buffer.alloc(head.length)
    const { bytesRead } = await this.#handle.read(found, 0, head.length, 0)
    // The checksum is filled in at the end, and may be there already.
    found.copy(head, 14, 14, 18)
    if (bytesRead < head.length || !found.equals(head)) {
      await this.#handle.truncate(0)
      await this.#writeAt(layout.head(0), 0)
      return
    }
    this.#done = Math.min(this.#shape.pictures, Math.floor((size - layout.place(0)) / layout.pictureBytes))
    await this.#handle.truncate(layout.place(this.#done))
    await eachSlice(this.#handle, layout.place(0), layout.place(this.#done), slice => {
      check()
      this.#crc = crc32(slice, this.#crc)
    })
  }

  /** Adds the next picture, RGB [height, width, 3]. */
  async add (pixels: Uint8Array): Promise<void> {
    if (pixels.length !== this.#layout.pictureBytes) throw new Error(`a picture of ${pixels.length} bytes`)
    await this.#guarded(async () => { await this.#writeAt(pixels, this.#layout.place(this.#done)) })
    this.#crc = crc32(pixels, this.#crc)
    this.#done++
  }

  /** Writes what stands behind the pictures, and closes the file: it is whole now. */
  async finish (labels: readonly number[], comment: string): Promise<void> {
    const text = Buffer.from(comment)
    if (text.length > maxComment) throw new Error(`a comment of ${text.length} bytes`)
    await this.#guarded(async () => {
      await this.#writeAt(this.#layout.tail(labels, this.#crc, text), this.#layout.place(this.#done))
      await this.#writeAt(this.#layout.head(this.#crc), 0)
      await this.#handle.datasync()
    })
    await this.close()
  }

  async close (): Promise<void> {
    await this.#guarded(async () => { await this.#handle.close() })
  }

  async #writeAt (bytes: Uint8Array, position: number): Promise<void> {
    for (let from = 0; from < bytes.length;) {
      from += (await this.#handle.write(bytes, from, bytes.length - from, position + from)).bytesWritten
    }
  }

  async #guarded (work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      throw fromSystem(error, this.#file, 'written')
    }
  }
}

async function eachSlice (
  handle: FileHandle, from: number, to: number, take: (slice: Buffer) => void | Promise<void>
): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(sliceBytes, to - from))
  for (let at = from; at < to;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, to - at), at)
    if (bytesRead === 0) throw Object.assign(new Error('it ends too soon'), { code: 'EIO' })
    await take(buffer.subarray(0, bytesRead))
    at += bytesRead
  }
}

// ---- reading

/** The comment of an archive; undefined where the file is none, or has none. */
export async function readComment (file: string): Promise<string | undefined> {
  const handle = await open(file, 'r').catch((error: unknown) => { throw fromSystem(error, file, 'read') })
  try {
    const { size } = await handle.stat()
    const end = Buffer.alloc(Math.min(size, 22 + maxComment))
    const { bytesRead } = await handle.read(end, 0, end.length, size - end.length)
    for (let at = bytesRead - 22; at >= 0; at--) {
      if (end.readUInt32LE(at) !== 0x06054b50 || at + 22 + end.readUInt16LE(at + 20) !== bytesRead) continue
      return end.toString('utf8', at + 22)
    }
    return undefined
  } catch (error) {
    throw fromSystem(error, file, 'read')
  } finally {
    await handle.close()
  }
}

/** The labels of a file of so many pictures; undefined where it is too short. @throws ParError `FILE_NOT_FOUND` */
export async function readLabels (file: string, shape: SampleShape): Promise<number[] | undefined> {
  const handle = await open(file, 'r').catch((error: unknown) => { throw fromSystem(error, file, 'read') })
  try {
    const at = new Layout(shape).labels
    if ((await handle.stat()).size < at + 8 * shape.pictures) return undefined
    const values = Buffer.alloc(8 * shape.pictures)
    await handle.read(values, 0, values.length, at)
    return Array.from({ length: shape.pictures }, (_, i) => Number(values.readBigInt64LE(8 * i)))
  } catch (error) {
    throw fromSystem(error, file, 'read')
  } finally {
    await handle.close()
  }
}

/**
 * The pictures of a file that {@link SampleFile} wrote, one after another.
 * @throws Error where its bytes are not those that were written: what is wrong, to complete a sentence
 */
export async function * readSamples (
  file: string, shape: SampleShape, labels: readonly number[], comment: string
): AsyncGenerator<Buffer, void, void> {
  const handle = await open(file, 'r')
  try {
    const layout = new Layout(shape)
    const head = Buffer.alloc(layout.place(0))
    await handle.read(head, 0, head.length, 0)
    const crc = head.readUInt32LE(14)
    const { size } = await handle.stat()
    const tail = layout.tail(labels, crc, Buffer.from(comment))
    const found = Buffer.alloc(tail.length)
    await handle.read(found, 0, found.length, layout.place(shape.pictures))
    if (size !== layout.place(shape.pictures) + tail.length || !head.equals(layout.head(crc)) || !found.equals(tail)) {
      throw new Error('it was changed, or not written by parvis sample')
    }
    let sum = layout.firstCrc
    const picture = Buffer.alloc(layout.pictureBytes)
    for (let index = 0; index < shape.pictures; index++) {
      await eachSlice(handle, layout.place(index), layout.place(index + 1), ((at = 0) => slice => {
        slice.copy(picture, at)
        at += slice.length
      })())
      sum = crc32(picture, sum)
      yield picture
    }
    if (sum !== crc) throw new Error('its pictures do not have the checksum that was written with them')
  } finally {
    await handle.close()
  }
}
