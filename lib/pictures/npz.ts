// NumPy's arrays in files: .npz, a zip file with a .npy file for each array, stored or deflated, and a .npy file by
// itself. Arrays are found by their headers and read in slices, first to last, so that an array may be far larger than
// the memory. The file comes from anywhere: yauzl reads the directory of the zip file, and what it says, what the
// header of an array says and what is there must agree; no size is taken for true before it could be.

import { constants } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import yauzl from 'yauzl'
import { ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { Slices } from '../base/slices.js'
import { quote, shownPath, visible } from '../base/text.js'
import { header, magic, maxAxes, maxHeader } from './npy.js'

/** Numbers of an array: i8 is a signed whole number of 8 bytes. */
export interface DType {
  kind: 'f' | 'i' | 'u'
  /** Bytes. */
  size: 1 | 2 | 4 | 8
  /** The byte order. */
  big: boolean
}

export interface StoredArray {
  /** Without `.npy`; empty where the file is a .npy file. */
  name: string
  /** One entry an axis; none of a single number. */
  shape: number[]
  /** Undefined where it holds no numbers: truth values, texts, dates, objects. */
  dtype: DType | undefined
  /** The type as NumPy writes it. */
  descr: string
  /** The first axis is the fastest. */
  fortran: boolean
  /** Numbers. */
  count: number
}

const maxEntries = 10_000
const maxNameLength = 1024
/** As much as deflate makes of a byte at most, and what its blocks may have at their ends. */
const [maxRatio, extra] = [1032, 1024]
/** Bytes of a slice, about. */
const sliceBytes = 1 << 20
/** Absent on Windows, where nothing of the kind is a file. */
const { O_NONBLOCK = 0 } = constants as { O_NONBLOCK?: number }

interface Place {
  array: StoredArray
  entry?: yauzl.Entry
  /** Bytes before the numbers. */
  headerBytes: number
}

/** An .npz or .npy file that is open. */
export class ArrayFile {
  readonly #places = new Map<string, Place>()
  #zip: yauzl.ZipFile | undefined
  #size = 0

  private constructor (readonly file: string, private readonly handle: FileHandle) {}

  /**
   * Opens a file and reads the headers of its arrays.
   * @throws ParError `FILE_NOT_FOUND`, `BAD_ARRAY`; the signal's reason
   */
  static async open (file: string, signal?: AbortSignal): Promise<ArrayFile> {
    let arrays: ArrayFile | undefined
    try {
      regular(await stat(file), file) // before opening: that alone may do something to a device
      const handle = await open(file, constants.O_RDONLY | O_NONBLOCK)
      arrays = new ArrayFile(file, handle)
      const found = await handle.stat()
      regular(found, file)
      arrays.#size = found.size
      await arrays.#find(signal)
      return arrays
    } catch (error) {
      await arrays?.close()
      signal?.throwIfAborted()
      throw fromSystem(error, file, 'read')
    }
  }

  async close (): Promise<void> { await this.handle.close().catch(() => {}) }

  /** In the order of the file. */
  get arrays (): StoredArray[] { return Array.from(this.#places.values(), ({ array }) => array) }

  get (name: string): StoredArray | undefined { return this.#places.get(name)?.array }

  /** How messages call an array. */
  shown (name: string): string {
    return name === '' ? shownPath(this.file) : `${shownPath(this.file)}: the array ${quote(name)}`
  }

  bad (name: string, why: string, cause?: unknown): ParError {
    return new ParError('BAD_ARRAY', `${this.shown(name)} ${why}`, cause === undefined ? undefined : { cause })
  }

  // ---- what there is

  async #find (signal?: AbortSignal): Promise<void> {
    const start = Buffer.alloc(6)
    const { bytesRead } = await this.handle.read(start, 0, 6, 0)
    if (bytesRead === 6 && magic.equals(start)) {
      await this.#add('', this.#size, undefined, signal)
      return
    }
    if (!start.subarray(0, 2).equals(Buffer.from('PK'))) {
      throw this.bad('', 'is no .npz and no .npy file. Write one with numpy.savez or numpy.save')
    }
    const damaged = (error: unknown): ParError => this.bad('',
      'cannot be read as a zip file, which an .npz file is: ' +
        `${visible((error as Error).message.replace(/\.$/, ''), 300)}. It is truncated or damaged: fetch or write it again`,
      error)
    const slices = new Slices(signal)
    const entries: yauzl.Entry[] = []
    const names = new Set<string>()
    try {
      this.#zip = await yauzl.fromFdPromise(this.handle.fd, { autoClose: false, lazyEntries: true })
      if (this.#zip.entryCount > maxEntries) {
        throw new Error(`it claims ${this.#zip.entryCount} entries, and at most ${maxEntries} are read`)
      }
      for await (const entry of this.#zip.eachEntry()) {
        const name = entry.fileName
        if (name.length > maxNameLength) throw new Error(`an entry's name has ${name.length} characters`)
        if (names.has(name)) throw new Error(`two entries are called ${quote(name)}`)
        names.add(name)
        if (name.endsWith('.npy')) entries.push(entry)
        if (slices.spend(1000)) await slices.rest()
      }
    } catch (error) {
      signal?.throwIfAborted()
      throw isOfSystem(error) ? error : damaged(error)
    }
    for (const entry of entries) {
      const name = entry.fileName.slice(0, -4)
      if (entry.isEncrypted()) throw this.bad(name, 'is encrypted. Write it again without a password')
      if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
        throw this.bad(name, `is compressed by method ${entry.compressionMethod}; numpy.savez stores, and ` +
          'numpy.savez_compressed deflates. Write it again with one of them')
      }
      const most = entry.compressionMethod === 0 ? entry.compressedSize : entry.compressedSize * maxRatio + extra
      if (!Number.isSafeInteger(entry.uncompressedSize) || entry.uncompressedSize > most ||
        entry.compressedSize > this.#size) {
        throw this.bad(name, `claims ${entry.uncompressedSize} bytes, which ${entry.compressedSize} in a file of ` +
          `${this.#size} cannot hold: the file is truncated or damaged`)
      }
      await this.#add(name, entry.uncompressedSize, entry, signal)
    }
  }

  /** Reads the header of an array. */
  async #add (name: string, bytes: number, entry: yauzl.Entry | undefined, signal?: AbortSignal): Promise<void> {
    const reader = await this.#reader(name, bytes, entry, signal)
    try {
      this.#places.set(name, { ...await this.#header(name, bytes, reader), ...entry && { entry } })
    } finally {
      reader.close()
    }
  }

  async #header (name: string, bytes: number, reader: Reader): Promise<Place> {
    const bad = (why: string): ParError => this.bad(name, why)
    const start = await reader.take(Math.min(12, bytes))
    if (!magic.equals(start.subarray(0, 6))) throw bad('is no .npy file')
    if (start.length < 12) throw bad('is truncated: its header is missing')
    const [version, minor] = [start[6]!, start[7]!]
    if (version < 1 || version > 3 || minor !== 0) {
      throw bad(`is of .npy version ${version}.${minor}; versions 1.0, 2.0 and 3.0 are known`)
    }
    const length = version === 1 ? start.readUInt16LE(8) : start.readUInt32LE(8)
    const headerBytes = (version === 1 ? 10 : 12) + length
    if (length > maxHeader) throw bad(`has a header of ${length} bytes; at most ${maxHeader} are read`)
    if (headerBytes > bytes || headerBytes < 12) {
      throw bad(`is truncated: its header ends at byte ${headerBytes}, the array at ${bytes}`)
    }
    const text = Buffer.concat([start.subarray(version === 1 ? 10 : 12), await reader.take(headerBytes - 12)])
    const known = other(text.toString('latin1'))
    if (known !== undefined) {
      return { array: { name, shape: [], dtype: undefined, descr: known, fortran: false, count: 0 }, headerBytes }
    }
    const { descr, fortran, shape } = header(text.toString('latin1'), bad, 'arrays of numbers are read')
    if (shape.length > maxAxes) throw bad(`has ${shape.length} axes; at most ${maxAxes} are possible`)
    const dtype = dtypeOf(descr)
    const count = shape.reduce((product, side) => product * side, 1)
    const expected = dtype && count * dtype.size
    if (expected !== undefined && expected !== bytes - headerBytes) {
      throw bad(`has the shape (${shape.join(', ')}) of ${visible(descr)}, which is ${expected} bytes, but ` +
        `${bytes - headerBytes} follow the header: it is truncated or damaged`)
    }
    return { array: { name, shape, dtype, descr, fortran, count }, headerBytes }
  }

  // ---- numbers

  /**
   * The bytes of an array, in slices of whole units, each of so many bytes.
   * @throws ParError `BAD_ARRAY` where the file ends, or is not what its checksum says
   */
  async * slices (name: string, unit: number, signal?: AbortSignal): AsyncGenerator<Buffer> {
    const { array: { count, dtype }, entry, headerBytes } = this.#places.get(name)!
    const bytes = count * dtype!.size
    const reader = await this.#reader(name, headerBytes + bytes, entry, signal)
    try {
      await reader.take(headerBytes)
      const most = Math.max(1, Math.floor(sliceBytes / unit)) * unit
      for (let done = 0; done < bytes;) {
        const slice = await reader.take(Math.min(most, bytes - done))
        done += slice.length
        yield slice
      }
      await reader.finish()
    } finally {
      reader.close()
    }
  }

  /** Numbers as floats, in the order of the file: `at` is the place of the first of each slice. */
  async * numbers (name: string, signal?: AbortSignal): AsyncGenerator<{ at: number, values: Float64Array }> {
    const { dtype } = this.get(name)!
    let at = 0
    for await (const slice of this.slices(name, dtype!.size, signal)) {
      const values = floats(slice, dtype!)
      yield { at, values }
      at += values.length
    }
  }

  async #reader (name: string, bytes: number, entry?: yauzl.Entry, signal?: AbortSignal): Promise<Reader> {
    signal?.throwIfAborted()
    const failed = (error: unknown): unknown => {
      signal?.throwIfAborted()
      if (error instanceof ParError) return error
      if (isOfSystem(error)) return fromSystem(error, this.file, 'read')
      const why = visible((error as Error).message.replace(/\.$/, ''), 300)
      return this.bad(name, `cannot be read: ${why}. The file is truncated or damaged: fetch or write it again`, error)
    }
    try {
      if (entry === undefined) return new Reader(this.#chunks(bytes), () => {}, undefined, failed, signal)
      const stream = await this.#zip!.openReadStreamPromise(entry)
      stream.on('error', () => {}) // it is told by the iterator, if anybody still asks
      const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
      return new Reader(chunks, () => stream.destroy(), entry.crc32, failed, signal)
    } catch (error) {
      throw failed(error)
    }
  }

  /** The bytes of a .npy file: a stream would close it. */
  async * #chunks (bytes: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes;) {
      const chunk = Buffer.allocUnsafe(Math.min(1 << 18, bytes - at))
      const { bytesRead } = await this.handle.read(chunk, 0, chunk.length, at)
      if (bytesRead === 0) return
      at += bytesRead
      yield chunk.subarray(0, bytesRead)
    }
  }
}

/** Takes bytes out of chunks, as many as are asked for. */
class Reader {
  #rest: Buffer = Buffer.alloc(0)
  #sum = 0

  constructor (
    private readonly chunks: AsyncIterator<Buffer>, readonly close: () => void,
    private readonly checksum: number | undefined, private readonly failed: (error: unknown) => unknown,
    private readonly signal?: AbortSignal
  ) {}

  async #next (): Promise<Buffer | undefined> {
    try {
      const { value, done } = await this.chunks.next() as IteratorResult<Buffer, undefined>
      this.signal?.throwIfAborted()
      if (done) return undefined
      if (this.checksum !== undefined) this.#sum = crc32(value, this.#sum)
      return value
    } catch (error) {
      throw this.failed(error)
    }
  }

  /** Memory grows with what has come, never with what was announced. */
  async take (bytes: number): Promise<Buffer> {
    const parts = [this.#rest.subarray(0, bytes)]
    let have = parts[0]!.length
    this.#rest = this.#rest.subarray(have)
    while (have < bytes) {
      const chunk = await this.#next()
      if (chunk === undefined) throw this.failed(new Error(`it ends ${bytes - have} bytes too early`))
      const part = chunk.subarray(0, bytes - have)
      parts.push(part)
      have += part.length
      this.#rest = chunk.subarray(part.length)
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts, bytes)
  }

  /** After the last byte: nothing may follow, and the checksum has to be right. */
  async finish (): Promise<void> {
    if (this.#rest.length > 0 || await this.#next() !== undefined) throw this.failed(new Error('it has too many bytes'))
    if (this.checksum !== undefined && this.#sum !== this.checksum) {
      throw this.failed(new Error('its checksum is wrong'))
    }
  }
}

function regular (found: { isFile (): boolean, isDirectory (): boolean }, file: string): void {
  if (found.isFile()) return
  throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be read: it is ` +
    `${found.isDirectory() ? 'a folder' : 'no regular file'}. Give the path of an .npz or .npy file.`)
}

function isOfSystem (error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException
  return typeof code === 'string' && typeof syscall === 'string'
}

/** What is no array of numbers, and may stand beside one: records, objects. Undefined for all else. */
function other (text: string): string | undefined {
  return /^\s*\{[^}]{0,200}'descr': (\[|'[|<>=]?O)/.test(text) ? 'records or objects' : undefined
}

function dtypeOf (descr: string): DType | undefined {
  const [, order, kind, bytes] = /^([<>|=])([fiu])([1248])$/.exec(descr) ?? []
  const size = Number(bytes) as DType['size']
  if (kind === undefined || (kind === 'f' && size === 1) || (order === '|' && size > 1)) return undefined
  return { kind: kind as DType['kind'], size, big: order === '>' }
}

// ---- numbers

/** Float64 has all of them exactly, but for whole numbers of 8 bytes beyond 2^53. */
function floats (bytes: Buffer, { kind, size, big }: DType): Float64Array {
  const count = bytes.length / size
  const values = new Float64Array(count)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const little = !big
  const read: Record<string, (at: number) => number> = {
    f8: at => view.getFloat64(at, little),
    f4: at => view.getFloat32(at, little),
    f2: at => half(view.getUint16(at, little)),
    i8: at => Number(view.getBigInt64(at, little)),
    i4: at => view.getInt32(at, little),
    i2: at => view.getInt16(at, little),
    i1: at => view.getInt8(at),
    u8: at => Number(view.getBigUint64(at, little)),
    u4: at => view.getUint32(at, little),
    u2: at => view.getUint16(at, little),
    u1: at => view.getUint8(at)
  }
  const number = read[`${kind}${size}`]!
  for (let i = 0; i < count; i++) values[i] = number(i * size)
  return values
}

/** A float of 2 bytes. */
function half (bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = bits >> 10 & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
