// Reads a .safetensors header: 8 bytes of length, JSON, then the tensors. The format's own rules are enforced in full,
// since they are what makes a file mean one thing only: no equal keys, offsets that tile the data without gap or
// overlap from its first byte to the end of the file, and as many bytes as shape and type say. The header is read by
// its grammar, token by token, in slices: only what a tensor is made of is ever kept, whatever else stands there. The
// format grows: keys of a tensor that are not known are passed over, as the format's own reader does, and types that
// are not known are listed by their name.

import { quote } from '../base/text.js'
import { countBelow, Slices, sortInSlices } from '../base/slices.js'
import { bad, showBytes, showShape } from './bad.js'
import { countElements, elementBits, isWeightType, safetensorsTypes } from './dtypes.js'
import { JsonError, JsonScanner, scan, type JsonToken } from './json.js'
import { metadataKey } from './metadata.js'
import { isThere, nameOf } from './names.js'
import { pairScales } from './quantized.js'
import type { FileSource } from './source.js'
import type { Checkpoint, OtherTensor, StoredTensor } from './types.js'

/** The format's own limit. */
const maxHeaderBytes = 100e6
const maxTensors = 1_000_000
const maxDimensions = 16
const maxNameLength = 1024
/** Bytes of a name in the header: each character may be an escape of six. */
const maxNameBytes = 6 * maxNameLength
// ---- of __metadata__
const maxEntries = 100_000
/** What parvis writes itself is read whole or not at all. */
const maxOwnBytes = 8e6
/** Longer texts of others are cut. */
const maxTextBytes = 1e6
const maxMetadataBytes = 16e6

/** Opens a .safetensors file. Errors: BAD_CHECKPOINT. */
export async function readSafetensors (source: FileSource, signal?: AbortSignal): Promise<Checkpoint> {
  const length = Number((await source.read(0, 8, 'the length of the header')).readBigUInt64LE(0))
  if (length > maxHeaderBytes) {
    throw bad(source.file,
      `its header claims ${showBytes(length)}, the format allows ${showBytes(maxHeaderBytes)}: the file is damaged`)
  }
  const bytes = await source.read(8, length, 'the header')
  const slices = new Slices(signal)
  let header: Header
  try {
    const scanner = new JsonScanner(bytes)
    const reading = new Header(scanner, source, 8 + length)
    await scan(scanner, token => { reading.accept(token) }, slices)
    header = reading
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    throw bad(source.file, `its header is no proper JSON: ${error.message}. The file is damaged: fetch it again.`,
      error)
  }
  await checkTiling(header, source.size - 8 - length, source, slices)
  if (header.count === 0) throw bad(source.file, 'it holds no tensor')
  pairScales(header.checkpoint)
  return header.checkpoint
}

const enum State { start, names, entry, fields, dtype, shape, sizes, offsets, places, unknown, metadata, texts, text }

/** What was read of a tensor so far. */
interface Entry { name: string, dtype?: string, shape?: number[], offsets?: number[] }

/** Takes the tokens of a header one after another. */
class Header {
  readonly checkpoint: Checkpoint
  /** Places of the tensors in the data, in the order of the header. */
  readonly begins: number[] = []
  readonly ends: number[] = []
  private state = State.start
  private entry: Entry = { name: '' }
  /** Open containers of a value that is passed over. */
  private depth = 0
  private hasMetadata = false
  private key = ''
  private entries = 0
  private metadataBytes = 0

  constructor (private readonly scanner: JsonScanner, private readonly source: FileSource, readonly dataStart: number) {
    this.checkpoint = {
      file: source.file, format: 'safetensors', fileBytes: source.size, tensors: new Map(), others: new Map(),
      metadata: Object.create(null) as Record<string, unknown>
    }
  }

  get count (): number { return this.begins.length }

  accept (token: JsonToken): void {
    switch (this.state) {
      case State.start:
        if (token !== '{') throw bad(this.source.file, 'its header is no JSON object')
        this.state = State.names
        return
      case State.names:
        if (token === 'key') this.beginEntry()
        return
      case State.entry:
        if (token !== '{') throw this.wrong('its entry is not { dtype, shape, data_offsets }')
        this.state = State.fields
        return
      case State.fields:
        if (token === 'key') this.beginField()
        else this.endEntry()
        return
      case State.dtype:
        if (token !== 'string') throw this.wrong('its dtype is no string and not known')
        if (this.scanner.textBytes > 64) {
          throw this.wrong(`its dtype, a text of ${this.scanner.textBytes} bytes, is not known`)
        }
        this.entry.dtype = this.scanner.text()
        this.state = State.fields
        return
      case State.shape:
        if (token !== '[') throw this.wrong('its shape is no list of sizes')
        this.entry.shape = []
        this.state = State.sizes
        return
      case State.sizes: this.size(token); return
      case State.offsets:
        if (token !== '[') throw this.wrong('its data_offsets are not two numbers')
        this.entry.offsets = []
        this.state = State.places
        return
      case State.places: this.place(token); return
      case State.unknown: this.passOver(token); return
      case State.metadata:
        if (token === 'null') this.state = State.names
        else if (token === '{') this.state = State.texts
        else throw bad(this.source.file, '__metadata__ is no JSON object')
        return
      case State.texts:
        if (token === 'key') this.beginText()
        else this.state = State.names
        return
      case State.text: this.endText(token)
    }
  }

  // ---- a tensor

  private beginEntry (): void {
    if (this.scanner.is('__metadata__')) {
      if (this.hasMetadata) this.scanner.fail('the key "__metadata__" stands twice')
      this.hasMetadata = true
      this.state = State.metadata
      return
    }
    const name = this.scanner.textBytes > maxNameBytes ? undefined : this.scanner.text()
    if (name === undefined || name.length > maxNameLength) {
      throw bad(this.source.file, `the name of a tensor has more than ${maxNameLength} characters`)
    }
    if (this.count >= maxTensors) throw bad(this.source.file, `more than ${maxTensors} tensors`)
    this.entry = { name }
    this.state = State.entry
  }

  private beginField (): void {
    const { scanner, entry } = this
    const once = (value: unknown, state: State): void => {
      if (value !== undefined) scanner.fail(`a key of tensor ${quote(entry.name)} stands twice`)
      this.state = state
    }
    if (scanner.is('dtype')) once(entry.dtype, State.dtype)
    else if (scanner.is('shape')) once(entry.shape, State.shape)
    else if (scanner.is('data_offsets')) once(entry.offsets, State.offsets)
    else this.state = State.unknown
  }

  private size (token: JsonToken): void {
    const shape = this.entry.shape!
    if (token === ']') this.state = State.fields
    else if (token !== 'number') throw this.wrong('its shape holds something that is no size, or has too many elements')
    else if (shape.push(this.scanner.number) > maxDimensions) {
      throw this.wrong(`its shape has more than ${maxDimensions} dimensions`)
    }
  }

  private place (token: JsonToken): void {
    const offsets = this.entry.offsets!
    if (token === ']' && offsets.length === 2) this.state = State.fields
    else if (token !== 'number' || offsets.push(this.scanner.number) > 2) {
      throw this.wrong('its data_offsets are not two numbers')
    }
  }

  private passOver (token: JsonToken): void {
    if (token === '{' || token === '[') this.depth++
    else if (token === '}' || token === ']') this.depth--
    else if (token === 'key') return
    if (this.depth === 0) this.state = State.fields
  }

  private endEntry (): void {
    const { dtype: stored, shape, offsets } = this.entry
    if (stored === undefined || shape === undefined || offsets === undefined) {
      throw this.wrong('its entry is not { dtype, shape, data_offsets }')
    }
    const known = safetensorsTypes.get(stored)
    if (known === undefined && !/^[A-Za-z]\w{0,31}$/.test(stored)) {
      throw this.wrong(`its dtype ${quote(stored)} is not known`)
    }
    const elements = countElements(shape)
    if (elements === undefined) throw this.wrong('its shape holds something that is no size, or has too many elements')
    const [begin, end] = offsets as [number, number]
    if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end) || begin < 0 || end < begin) {
      throw this.wrong(`its data_offsets [${begin}, ${end}] are impossible`)
    }
    const expected = known === undefined ? end - begin : elements * elementBits.get(known)! / 8
    if (end - begin !== expected) {
      throw this.wrong(
        `shape ${showShape(shape)} of ${known} takes ${expected} bytes, its data_offsets span ${end - begin}`
      )
    }
    this.begins.push(begin)
    this.ends.push(end)
    this.keep({ name: this.entry.name, shape, offset: this.dataStart + begin, bytes: expected }, known ?? stored)
    this.state = State.names
  }

  private keep (place: Omit<OtherTensor, 'dtype'>, dtype: string): void {
    const { checkpoint } = this
    if (isThere(checkpoint, place.name)) this.scanner.fail(`the key ${quote(place.name)} stands twice`)
    place.name = nameOf(place.name, checkpoint)
    if (isWeightType(dtype)) checkpoint.tensors.set(place.name, { ...place, dtype })
    else checkpoint.others.set(place.name, { ...place, dtype })
  }

  private wrong (message: string): Error {
    return bad(this.source.file,
      `tensor ${quote(this.entry.name)}: ${message}. The file is damaged, or written by a faulty program.`)
  }

  // ---- __metadata__

  private beginText (): void {
    if (++this.entries > maxEntries) throw bad(this.source.file, `__metadata__ has more than ${maxEntries} entries`)
    if (this.scanner.textBytes > maxNameBytes) {
      throw bad(this.source.file, `a key of __metadata__ has more than ${maxNameLength} characters`)
    }
    this.key = this.scanner.text()
    if (this.key in this.checkpoint.metadata) this.scanner.fail(`the key ${quote(this.key)} stands twice`)
    this.state = State.text
  }

  private endText (token: JsonToken): void {
    const { key, scanner } = this
    if (token !== 'string') throw bad(this.source.file, `__metadata__ entry ${quote(key)} is no string`)
    const own = key === metadataKey
    const { textBytes } = scanner
    if (own && textBytes > maxOwnBytes) {
      throw bad(this.source.file,
        `__metadata__ entry "${metadataKey}" has ${showBytes(textBytes)}, at most ${showBytes(maxOwnBytes)} are read`)
    }
    const fits = own || (textBytes <= maxTextBytes && this.metadataBytes + textBytes <= maxMetadataBytes)
    if (!own && fits) this.metadataBytes += textBytes
    this.checkpoint.metadata[key] = fits ? scanner.text() : `... (${showBytes(textBytes)} that parvis does not read)`
    this.state = State.texts
  }
}

// ---- the tensors fill the data

async function checkTiling (
  { begins, ends, checkpoint, dataStart }: Header, dataBytes: number, source: FileSource, slices: Slices
): Promise<void> {
  const total = isInOrder(begins, ends)
    ? ends.at(-1) ?? 0
    : await checkAnyOrder(begins, ends, at => name(at, begins), source, slices)
  if (total > dataBytes) {
    throw bad(source.file,
      `the file is truncated: its tensors take ${showBytes(total)}, ${showBytes(dataBytes)} are there ` +
      `(tensor ${quote(nameOfFirst())} is the first that is incomplete). Fetch it again.`)
  }
  if (total < dataBytes) {
    throw bad(source.file, `${dataBytes - total} bytes follow the last tensor: the file is damaged`)
  }

  function nameOfFirst (): string {
    let first = -1
    for (let i = 0; i < ends.length; i++) {
      if (ends[i]! > dataBytes && (first < 0 || begins[i]! < begins[first]!)) first = i
    }
    return name(begins[first]!, begins, first)
  }

  /** The tensor that begins at `begin`; where several do, the one at place `index` of the header. */
  function name (begin: number, begins: readonly number[], index = begins.indexOf(begin)): string {
    const all: Array<StoredTensor | OtherTensor> = []
    for (const map of [checkpoint.tensors, checkpoint.others]) {
      for (const tensor of map.values()) if (tensor.offset === dataStart + begin) all.push(tensor)
    }
    const end = ends[index]!
    return (all.find(({ bytes }) => bytes === end - begin) ?? all[0])!.name
  }
}

/** Does each tensor of the header begin where the one before ends? That is how files are written. */
function isInOrder (begins: readonly number[], ends: readonly number[]): boolean {
  let at = 0
  for (let i = 0; i < begins.length; i++) {
    if (begins[i] !== at) return false
    at = ends[i]!
  }
  return true
}

/**
 * Tensors in any order tile the data when their places, but for empty ones, begin where one ends: the sorted beginnings
 * are the sorted ends, moved on by one. Returns the end of the last.
 */
async function checkAnyOrder (
  begins: readonly number[], ends: readonly number[], name: (begin: number) => string, source: FileSource,
  slices: Slices
): Promise<number> {
  const empty: number[] = []
  let [from, to]: [Float64Array, Float64Array] = [new Float64Array(begins.length), new Float64Array(begins.length)]
  let filled = 0
  for (let i = 0; i < begins.length; i++) {
    if (begins[i] === ends[i]) empty.push(i)
    else {
      from[filled] = begins[i]!
      to[filled++] = ends[i]!
    }
    if (slices.spend(1)) await slices.rest()
  }
  from = await sortInSlices(from.subarray(0, filled), slices)
  to = await sortInSlices(to.subarray(0, filled), slices)
  const refuse = (begin: number, at: number): never => {
    throw bad(source.file, `tensor ${quote(name(begin))} begins at byte ${begin} of the data, expected ${at}: ` +
      `tensors ${begin < at ? 'overlap' : 'leave a gap'}, the file is damaged`)
  }
  let at = 0
  for (let i = 0; i < from.length; i++) {
    if (from[i] !== at) refuse(from[i]!, at)
    at = to[i]!
    if (slices.spend(1)) await slices.rest()
  }
  for (const i of empty) {
    const begin = begins[i]!
    const next = countBelow(from, begin)
    if (begin !== at && from[next] !== begin) refuse(begin, begin > at ? at : from[next] ?? at)
    if (slices.spend(4)) await slices.rest()
  }
  return at
}
