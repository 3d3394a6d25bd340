// Reads a .safetensors header: 8 bytes of length, JSON, then the tensors. The format's own rules are enforced in full,
// since they are what makes a file mean one thing only: no equal keys, offsets that tile the data without gap or
// overlap from its first byte to the end of the file, and as many bytes as shape and type say.

import { setImmediate } from 'node:timers/promises'
import { TextDecoder } from 'node:util'
import { quote } from '../text.js'
import { bad, showBytes, showShape } from './bad.js'
import { countElements, elementBits, isWeightType, safetensorsTypes } from './dtypes.js'
import { JsonError, parseJson, type Json } from './json.js'
import { nameOf } from './names.js'
import type { FileSource } from './source.js'
import type { Checkpoint } from './types.js'

/** The format's own limit. */
const maxHeaderBytes = 100e6
const maxTensors = 1_000_000
const maxDimensions = 16
const maxNameLength = 1024

/** Opens a .safetensors file. Errors: BAD_CHECKPOINT. */
export async function readSafetensors (source: FileSource, signal?: AbortSignal): Promise<Checkpoint> {
  const { header, dataStart } = await readHeader(source)
  signal?.throwIfAborted()
  const checkpoint: Checkpoint = {
    file: source.file, format: 'safetensors', fileBytes: source.size, tensors: new Map(), others: new Map(), metadata: readMetadata(header, source)
  }
  if (header.size > maxTensors) throw bad(source.file, `more than ${maxTensors} tensors`)
  const ranges: Range[] = []
  for (const [name, entry] of header) {
    if (name === '__metadata__') continue
    if (ranges.length % 4096 === 4095) {
      await setImmediate()
      signal?.throwIfAborted()
    }
    const tensor = readEntry(name, entry, source)
    ranges.push(tensor)
    const place = { name: nameOf(name, checkpoint), shape: tensor.shape, offset: dataStart + tensor.begin, bytes: tensor.end - tensor.begin }
    if (isWeightType(tensor.dtype)) checkpoint.tensors.set(place.name, { ...place, dtype: tensor.dtype })
    else checkpoint.others.set(place.name, { ...place, dtype: tensor.dtype })
  }
  checkTiling(ranges, source.size - dataStart, source)
  if (ranges.length === 0) throw bad(source.file, 'it holds no tensor')
  return checkpoint
}

interface Range { name: string, begin: number, end: number }

async function readHeader (source: FileSource): Promise<{ header: Map<string, Json>, dataStart: number }> {
  const length = Number((await source.read(0, 8, 'the length of the header')).readBigUInt64LE(0))
  if (length > maxHeaderBytes) throw bad(source.file, `its header claims ${showBytes(length)}, the format allows ${showBytes(maxHeaderBytes)}: the file is damaged`)
  const bytes = await source.read(8, length, 'the header')
  let header: Json
  try {
    header = parseJson(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch (error) {
    const why = error instanceof JsonError ? error.message : 'it is not UTF-8'
    throw bad(source.file, `its header is no proper JSON: ${why}. The file is damaged: fetch it again.`, error)
  }
  if (!(header instanceof Map)) throw bad(source.file, 'its header is no JSON object')
  return { header, dataStart: 8 + length }
}

function readMetadata (header: Map<string, Json>, source: FileSource): Record<string, unknown> {
  const metadata = Object.create(null) as Record<string, unknown>
  const stored = header.get('__metadata__')
  if (stored === undefined) return metadata
  if (!(stored instanceof Map)) throw bad(source.file, '__metadata__ is no JSON object')
  for (const [key, value] of stored) {
    if (typeof value !== 'string') throw bad(source.file, `__metadata__ entry ${quote(key)} is no string`)
    metadata[key] = value
  }
  return metadata
}

function readEntry (name: string, entry: Json, source: FileSource): Range & { dtype: string, shape: number[] } {
  const wrong = (message: string): Error => bad(source.file, `tensor ${quote(name)}: ${message}. The file is damaged, or written by a faulty program.`)
  if (name.length > maxNameLength) throw wrong(`its name has ${name.length} characters`)
  if (!(entry instanceof Map) || entry.size !== 3) throw wrong('its entry is not { dtype, shape, data_offsets }')
  const stored = entry.get('dtype')
  const dtype = typeof stored === 'string' ? safetensorsTypes.get(stored) : undefined
  if (dtype === undefined) throw wrong(`its dtype ${typeof stored === 'string' ? quote(stored) : 'is no string and'} is not known`)
  const shape = entry.get('shape')
  if (!Array.isArray(shape) || shape.length > maxDimensions) throw wrong('its shape is no list of sizes')
  const count = countElements(shape)
  if (count === undefined) throw wrong('its shape holds something that is no size, or has too many elements')
  const offsets = entry.get('data_offsets')
  if (!Array.isArray(offsets) || offsets.length !== 2) throw wrong('its data_offsets are not two numbers')
  const [begin, end] = offsets
  if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end) || (begin as number) < 0 || (end as number) < (begin as number)) {
    throw wrong(`its data_offsets [${String(begin).slice(0, 40)}, ${String(end).slice(0, 40)}] are impossible`)
  }
  const range = { name, dtype, shape: shape as number[], begin: begin as number, end: end as number }
  const expected = count * elementBits.get(dtype)! / 8
  if (range.end - range.begin !== expected) {
    throw wrong(`shape ${showShape(range.shape)} of ${dtype} takes ${expected} bytes, its data_offsets span ${range.end - range.begin}`)
  }
  return range
}

function checkTiling (ranges: Range[], dataBytes: number, source: FileSource): void {
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end)
  let at = 0
  for (const range of ranges) {
    if (range.begin !== at) {
      throw bad(source.file, `tensor ${quote(range.name)} begins at byte ${range.begin} of the data, expected ${at}: tensors ${range.begin < at ? 'overlap' : 'leave a gap'}, the file is damaged`)
    }
    at = range.end
  }
  if (at > dataBytes) {
    throw bad(source.file, `the file is truncated: its tensors take ${showBytes(at)}, ${showBytes(dataBytes)} are there ` +
      `(tensor ${quote(ranges.find(range => range.end > dataBytes)!.name)} is the first that is incomplete). Fetch it again.`)
  }
  if (at < dataBytes) throw bad(source.file, `${dataBytes - at} bytes follow the last tensor: the file is damaged`)
}
