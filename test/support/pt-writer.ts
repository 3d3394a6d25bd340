// Writes files in torch.save's zip format, for tests: any Python value with any global in it, zip64, prefixes, sparse
// storages above 4 GiB, storages that are made while they are written. It also tells where every length and offset of
// the zip stands, so that tests can damage them.

import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'

// ---- Python values ----

/** A value that writes its own instructions. */
export class Py { constructor (readonly emit: (out: Pickler) => void) {} }

/** Bytes that are made chunk by chunk, so that a file may be larger than memory. */
export interface Streamed { length: number, chunks: () => Iterable<Uint8Array> }

/** A number is that many zero bytes, sparse in the file. */
export type Data = Uint8Array | Streamed | number

const storageClasses: Record<string, [string, number]> = {
  float32: ['FloatStorage', 4], float16: ['HalfStorage', 2], bfloat16: ['BFloat16Storage', 2],
  float64: ['DoubleStorage', 8],
  int64: ['LongStorage', 8], int32: ['IntStorage', 4], uint8: ['ByteStorage', 1], bool: ['BoolStorage', 1]
}

export interface TensorSpec {
  dtype?: keyof typeof storageClasses
  shape: number[]
  strides?: unknown[]
  offset?: number
  /** Raw storage; a number is that many zero bytes, sparse in the file. Default: zeros for the shape. */
  data?: Data
  /** Storages with equal keys are one. Default: its own. */
  key?: string
  /** Elements that the pickle claims for the storage. */
  declared?: number
  /** Wraps it in torch.nn.Parameter. */
  parameter?: boolean
}

export const py = {
  raw: (...bytes: number[]) => new Py(out => { out.bytes(Buffer.from(bytes)) }),
  buffer: (bytes: Uint8Array) => new Py(out => { out.bytes(bytes) }),
  global: (id: string) =>
    new Py(out => { const [module, name] = id.split(' '); out.bytes(Buffer.from(`c${module}\n${name}\n`)) }),
  stackGlobal: (id: string) => new Py(out => { for (const part of id.split(' ')) out.value(part); out.op(0x93) }),
  tuple: (...items: unknown[]) =>
    new Py(out => { out.op(0x28); for (const item of items) out.value(item); out.op(0x74) }),
  reduce: (callee: unknown, args: unknown) => new Py(out => { out.value(callee); out.value(args); out.op(0x52) }),
  newObject: (callee: unknown, args: unknown) => new Py(out => { out.value(callee); out.value(args); out.op(0x81) }),
  build: (object: unknown, state: unknown) => new Py(out => { out.value(object); out.value(state); out.op(0x62) }),
  persistent: (id: unknown) => new Py(out => { out.value(id); out.op(0x51) }),
  orderedDict: (entries: Iterable<[unknown, unknown]>) => new Py(out => {
    out.value(py.reduce(py.global('collections OrderedDict'), py.tuple()))
    out.items(entries)
  }),
  namespace: (attributes: Record<string, unknown>) =>
    py.build(py.newObject(py.global('argparse Namespace'), py.tuple()), attributes),
  tensor: (spec: TensorSpec) => new Py(out => { out.tensor(spec) })
}

/** Writes one pickle and collects the storages that its tensors refer to. */
export class Pickler {
  readonly storages = new Map<string, Data>()
  private readonly parts: Uint8Array[] = []

  constructor (protocol = 2) { this.bytes(Buffer.from([0x80, protocol])) }

  static dump (value: unknown, protocol = 2): { pickle: Buffer, storages: Map<string, Data> } {
    const out = new Pickler(protocol)
    out.value(value)
    out.op(0x2e)
    return { pickle: Buffer.concat(out.parts), storages: out.storages }
  }

  op (code: number): void { this.bytes(Buffer.from([code])) }
  bytes (bytes: Uint8Array): void { this.parts.push(bytes) }

  value (value: unknown): void {
    if (value instanceof Py) value.emit(this)
    else if (value === null || value === undefined) this.op(0x4e)
    else if (typeof value === 'boolean') this.op(value ? 0x88 : 0x89)
    else if (typeof value === 'string') {
      const text = Buffer.from(value)
      const length = Buffer.alloc(5, 0x58)
      length.writeUInt32LE(text.length, 1)
      this.bytes(Buffer.concat([length, text]))
    } else if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) < 2 ** 31) {
      const bytes = Buffer.alloc(5, 0x4a)
      bytes.writeInt32LE(value, 1)
      this.bytes(bytes)
    } else if (typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value))) {
      const bytes = Buffer.alloc(10, 0x8a)
      bytes[1] = 8
      bytes.writeBigInt64LE(BigInt(value), 2)
      this.bytes(bytes)
    } else if (typeof value === 'number') {
      const bytes = Buffer.alloc(9, 0x47)
      bytes.writeDoubleBE(value, 1)
      this.bytes(bytes)
    } else if (Array.isArray(value)) {
      this.bytes(Buffer.from([0x5d, 0x28]))
      for (const item of value) this.value(item)
      this.op(0x65)
    } else {
      this.op(0x7d)
      this.items(value instanceof Map ? value : Object.entries(value))
    }
  }

  items (entries: Iterable<[unknown, unknown]>): void {
    this.op(0x28)
    for (const [key, item] of entries) { this.value(key); this.value(item) }
    this.op(0x75)
  }

  tensor (spec: TensorSpec): void {
    const [storageClass, itemSize] = storageClasses[spec.dtype ?? 'float32']!
    const count = spec.shape.reduce((product, size) => product * size, 1)
    const data = spec.data ?? count * itemSize
    const key = spec.key ?? String(this.storages.size)
    this.storages.set(key, data)
    const declared = spec.declared ?? (typeof data === 'number' ? data : data.length) / itemSize
    const strides = spec.strides ??
      spec.shape.map((_, axis) => spec.shape.slice(axis + 1).reduce((product, size) => product * size, 1))
    const storage = py.persistent(py.tuple('storage', py.global(`torch ${storageClass}`), key, 'cpu', declared))
    const hooks = py.reduce(py.global('collections OrderedDict'), py.tuple())
    const tensor = py.reduce(py.global('torch._utils _rebuild_tensor_v2'),
      py.tuple(storage, spec.offset ?? 0, py.tuple(...spec.shape), py.tuple(...strides), false, hooks))
    this.value(
      spec.parameter ? py.reduce(py.global('torch._utils _rebuild_parameter'), py.tuple(tensor, true, hooks)) : tensor
    )
  }
}

// ---- the zip ----

export interface ZipItem {
  name: string
  data: Data
  method?: number
  crc?: number
  /** Size that the headers tell, where it is not that of the stored data. */
  uncompressedSize?: number
}

/** Where a length or an offset stands in the file. */
export interface Field { what: string, offset: number, width: 2 | 4 | 8 }

export interface ZipOptions {
  /** Sizes and offsets in zip64 fields even where they fit. */
  zip64?: boolean
  /** Start of data at multiples of it, by padding in the extra field, as torch does. 0: none. */
  alignment?: number
}

/** Writes a zip file and tells its fields. */
export function writeZip (file: string, items: ZipItem[], options: ZipOptions = {}): { size: number, fields: Field[] } {
  const fields: Field[] = []
  const descriptor = openSync(file, 'w')
  let at = 0
  const put = (bytes: Uint8Array): void => {
    let done = 0
    while (done < bytes.length) done += writeSync(descriptor, bytes, done, bytes.length - done, at + done)
    at += bytes.length
  }
  const field = (what: string, base: number, places: Array<[string, number, 2 | 4 | 8]>): void => {
    for (const [name, offset, width] of places) fields.push({ what: `${what}: ${name}`, offset: base + offset, width })
  }
  try {
    const central: Buffer[] = []
    for (const item of items) {
      const name = Buffer.from(item.name)
      const size = typeof item.data === 'number' ? item.data : item.data.length
      const uncompressed = item.uncompressedSize ?? size
      const start = at
      const wide = options.zip64 === true || size >= 0xffffffff || start >= 0xffffffff
      let crc = item.crc ?? (item.data instanceof Uint8Array ? crc32(item.data) : 0)
      const alignment = options.alignment ?? 64
      const wideLocal = wide ? 20 : 0
      const padding = alignment === 0
        ? 0
        : (alignment - (start + 30 + name.length + wideLocal + 4) % alignment) % alignment
      const extra = Buffer.alloc(wideLocal + (alignment === 0 ? 0 : 4 + padding), 0x5a)
      if (wide) {
        extra.writeUInt16LE(1, 0)
        extra.writeUInt16LE(16, 2)
        extra.writeBigUInt64LE(BigInt(uncompressed), 4)
        extra.writeBigUInt64LE(BigInt(size), 12)
      }
      if (alignment !== 0) {
        extra.writeUInt16LE(0x4246, wideLocal)
        extra.writeUInt16LE(padding, wideLocal + 2)
      }
      const local = Buffer.alloc(30)
      local.writeUInt32LE(0x04034b50, 0)
      local.writeUInt16LE(0x0800, 6)
      local.writeUInt16LE(item.method ?? 0, 8)
      local.writeUInt32LE(crc, 14)
      local.writeUInt32LE(wide ? 0xffffffff : size, 18)
      local.writeUInt32LE(wide ? 0xffffffff : uncompressed, 22)
      local.writeUInt16LE(name.length, 26)
      local.writeUInt16LE(extra.length, 28)
      field(`local ${item.name}`, start, [
        ['signature', 0, 4], ['flags', 6, 2], ['method', 8, 2], ['crc', 14, 4], ['compressed size', 18, 4],
        ['size', 22, 4], ['name length', 26, 2], ['extra length', 28, 2]
      ])
      if (wide) {
        field(`local ${item.name}`, start + 30 + name.length, [['zip64 size', 4, 8], ['zip64 compressed size', 12, 8]])
      }
      put(Buffer.concat([local, name, extra]))
      if (typeof item.data === 'number') at += item.data
      else if (item.data instanceof Uint8Array) put(item.data)
      else {
        for (const chunk of item.data.chunks()) {
          crc = crc32(chunk, crc)
          put(chunk)
        }
        local.writeUInt32LE(crc, 14)
        writeSync(descriptor, local, 0, local.length, start)
      }

      const record = Buffer.alloc(46)
      record.writeUInt32LE(0x02014b50, 0)
      record.writeUInt16LE(0x0800, 8)
      record.writeUInt16LE(item.method ?? 0, 10)
      record.writeUInt32LE(crc, 16)
      record.writeUInt32LE(wide ? 0xffffffff : size, 20)
      record.writeUInt32LE(wide ? 0xffffffff : uncompressed, 24)
      record.writeUInt16LE(name.length, 28)
      record.writeUInt16LE(wide ? 28 : 0, 30)
      record.writeUInt32LE(wide ? 0xffffffff : start, 42)
      const wideExtra = Buffer.alloc(wide ? 28 : 0)
      if (wide) {
        wideExtra.writeUInt16LE(1, 0)
        wideExtra.writeUInt16LE(24, 2)
        wideExtra.writeBigUInt64LE(BigInt(uncompressed), 4)
        wideExtra.writeBigUInt64LE(BigInt(size), 12)
        wideExtra.writeBigUInt64LE(BigInt(start), 20)
      }
      central.push(Buffer.concat([record, name, wideExtra]))
    }
    const directoryStart = at
    for (const [index, record] of central.entries()) {
      const what = `central ${items[index]!.name}`
      field(what, at, [
        ['signature', 0, 4], ['flags', 8, 2], ['method', 10, 2], ['crc', 16, 4], ['compressed size', 20, 4],
        ['size', 24, 4],
        ['name length', 28, 2], ['extra length', 30, 2], ['comment length', 32, 2], ['header offset', 42, 4]
      ])
      const nameLength = record.readUInt16LE(28)
      if (record.readUInt16LE(30) > 0) {
        field(what, at + 46 + nameLength, [['zip64 length', 2, 2], ['zip64 size', 4, 8],
          ['zip64 compressed size', 12, 8], ['zip64 header offset', 20, 8]])
      }
      put(record)
    }
    const directorySize = at - directoryStart
    const wide = options.zip64 === true || directoryStart >= 0xffffffff || items.length >= 0xffff
    if (wide) {
      const end64 = Buffer.alloc(76)
      end64.writeUInt32LE(0x06064b50, 0)
      end64.writeBigUInt64LE(44n, 4)
      end64.writeUInt16LE(45, 12)
      end64.writeUInt16LE(45, 14)
      end64.writeBigUInt64LE(BigInt(items.length), 24)
      end64.writeBigUInt64LE(BigInt(items.length), 32)
      end64.writeBigUInt64LE(BigInt(directorySize), 40)
      end64.writeBigUInt64LE(BigInt(directoryStart), 48)
      end64.writeUInt32LE(0x07064b50, 56)
      end64.writeBigUInt64LE(BigInt(at), 64)
      end64.writeUInt32LE(1, 72)
      field('end64', at, [
        ['signature', 0, 4], ['disk', 16, 4], ['entries', 32, 8], ['directory size', 40, 8],
        ['directory offset', 48, 8], ['locator signature', 56, 4], ['offset', 64, 8]
      ])
      put(end64)
    }
    const end = Buffer.alloc(22)
    end.writeUInt32LE(0x06054b50, 0)
    end.writeUInt16LE(wide ? 0xffff : items.length, 8)
    end.writeUInt16LE(wide ? 0xffff : items.length, 10)
    end.writeUInt32LE(wide ? 0xffffffff : directorySize, 12)
    end.writeUInt32LE(wide ? 0xffffffff : directoryStart, 16)
    field('end', at, [['signature', 0, 4], ['disk', 4, 2], ['entries', 10, 2], ['directory size', 12, 4],
      ['directory offset', 16, 4], ['comment length', 20, 2]])
    put(end)
    ftruncateSync(descriptor, at)
    return { size: at, fields }
  } finally {
    closeSync(descriptor)
  }
}

export interface PtOptions extends ZipOptions {
  protocol?: number
  /** Folder in the zip. */
  prefix?: string
  byteOrder?: string
  /** Checksum of data.pkl; 0 says that there is none. */
  crc?: number
  /** Changes the entries before they are written. */
  edit?: (items: ZipItem[]) => ZipItem[]
}

/** Writes `root` as torch.save would. Storages come after the pickle, in the order of their first use. */
export function writePt (
  file: string, root: unknown, options: PtOptions = {}
): { size: number, fields: Field[], pickle: Buffer } {
  const { pickle, storages } = Pickler.dump(root, options.protocol)
  return { ...writePickle(file, pickle, storages, options), pickle }
}

/** As writePt, with the pickle's bytes given. */
export function writePickle (
  file: string, pickle: Buffer, storages: Map<string, Data>, options: PtOptions = {}
): { size: number, fields: Field[] } {
  const prefix = options.prefix ?? 'archive'
  const items: ZipItem[] = [{ name: `${prefix}/data.pkl`, data: pickle, crc: options.crc }]
  if (options.byteOrder !== undefined) items.push({ name: `${prefix}/byteorder`, data: Buffer.from(options.byteOrder) })
  for (const [key, data] of storages) items.push({ name: `${prefix}/data/${key}`, data })
  items.push({ name: `${prefix}/version`, data: Buffer.from('3\n') })
  return writeZip(file, options.edit ? options.edit(items) : items, options)
}
