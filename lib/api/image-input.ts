// Pictures as callers have them: a path, an address that is a file or holds the bytes itself, bytes in any container,
// pixels, a sharp pipeline. Whatever it is becomes one of three things here: a path, the bytes of a file, or pixels.
// Memory of the caller is copied before the call returns, because it is read later, when the caller may have changed or
// transferred it. No address is ever fetched: what a program asks for from the network is its own business.

import { types } from 'node:util'
import type { Sharp } from 'sharp'
import { outOfMemory, ParError } from '../base/errors.js'
import { absolute, readWhole } from '../base/files.js'
import { isFloat32Array, isUint8Array, isUint8ClampedArray, isUrl } from '../base/realm.js'
import { Slices } from '../base/slices.js'
import { shownPath, visible } from '../base/text.js'
import { integer, invalid, isObject, show, snapshot } from '../base/validate.js'
import { fileOfURL } from '../base/windows.js'

/**
 * RGB without a file format: bytes, or floats in -1..1 (then 3 channels and a size that the tokenizer's factor
 * divides).
 */
export interface RawImage {
  /** [height, width, channels] */
  data: Uint8Array | Uint8ClampedArray | Float32Array
  /** Pixels, 1 to 16384. */
  width: number
  /** Pixels, 1 to 16384. */
  height: number
  /** Bytes: 1 (grey), 3, or 4 (the fourth is opacity). Floats: 3. Default: what the length of `data` tells. */
  channels?: 1 | 3 | 4 | undefined
}

/**
 * A picture that goes in: the path of a file; a `file:` or `data:` URL, as text or object; the bytes of a file (PNG,
 * JPEG, WebP, AVIF, GIF, TIFF, SVG) in a typed array of bytes, an ArrayBuffer, a Blob or File, a Response of fetch or a
 * stream; pixels, of parvis or of a canvas (`ImageData`); or a sharp pipeline, which is taken as the picture that it
 * makes. http addresses are refused: fetch them and give the Response.
 */
export type ImageInput =
  string | URL | Uint8Array | Uint8ClampedArray | ArrayBuffer | SharedArrayBuffer | DataView | Blob | Response
    | AsyncIterable<Uint8Array> | ByteStream | RawImage | Sharp

/** A ReadableStream of bytes, as far as it is used: that of lib "dom" is no AsyncIterable by itself. */
export interface ByteStream {
  /** Its default reader. */
  getReader (): ByteReader
}

/** A reader of a {@link ByteStream}. */
export interface ByteReader {
  /** The next bytes of the picture, or that there are no more. */
  read (): Promise<ByteChunk>
  /** Says that nobody will read on. */
  cancel (): Promise<void>
}

/** What a {@link ByteReader} gives. */
export interface ByteChunk {
  /** Whether the stream has ended. */
  done: boolean
  /** Bytes of the picture; absent at the end. */
  value?: Uint8Array | undefined
}

/** A file: its name as given, and where that was then. The process may go to another folder before it is read. */
export class ImageFile {
  readonly name: string
  readonly place: string

  constructor (name: string) {
    this.name = name
    this.place = absolute(name)
  }
}

/** The call that reads: `check` is called now and then and throws where it was stopped; `signal` tells it at once. */
export interface Reader {
  check (): void
  readonly signal: AbortSignal
}

/** Bytes that are there later only: of a Blob, a stream or a pipeline. */
export class LaterBytes {
  readonly read: (by: Reader) => Promise<Uint8Array>

  constructor (read: (by: Reader) => Promise<Uint8Array>) {
    this.read = read
  }
}

/** A picture as parvis holds it: a file, the bytes of one, bytes that come later, or pixels. */
export type OwnImage = ImageFile | Uint8Array | LaterBytes | (RawImage & { channels: 1 | 3 | 4 })

/** Bytes of a picture that are read from a Blob or a stream: as many as {@link readWhole} takes of a file. */
const maxBytes = 2 ** 30

const kinds = 'a path, the bytes of a picture file, or { data, width, height, channels }'

/** The picture checked and, as far as it is memory of the caller, copied. */
export function ownImage (input: unknown): OwnImage {
  if (typeof input === 'string') return ofText(input)
  if (isUrl(input)) return ofText(String(input.href))
  if (isUint8Array(input) || isUint8ClampedArray(input) || types.isAnyArrayBuffer(input) || types.isDataView(input)) {
    return copyOf(input)
  }
  if (ArrayBuffer.isView(input)) {
    throw invalid(`An image is ${kinds}, not ${show(input)}; pixels need their width and height beside them`)
  }
  if (!isObject(input)) throw invalid(`An image is ${kinds}, not ${show(input)}`)
  if (input instanceof LaterBytes || input instanceof ImageFile) return input
  if ('data' in input && 'width' in input) return ofPixels(input as RawImage)
  return ofObject(input as Record<string | symbol, unknown>)
}

/** The bytes of a picture file. @throws ParError `FILE_NOT_FOUND`, `BAD_IMAGE` */
export async function fileBytes (input: ImageFile | Uint8Array, check: () => void): Promise<Uint8Array> {
  if (!(input instanceof ImageFile)) return input
  try {
    return await readWhole(input.place, { check })
  } catch (error) {
    if (!(error instanceof ParError) || !looksLikeBase64(input.name)) throw error
    throw new ParError(error.code,
      `${error.message} The text looks like base64: its bytes are Buffer.from(text, 'base64')`, { cause: error })
  }
}

// ---- text

function ofText (text: string): ImageFile | LaterBytes {
  if (text === '' || text.slice(0, 1 << 16).includes('\0')) {
    throw invalid(`An image path must be a non-empty string, not ${show(text)}`)
  }
  // One letter and a colon are a drive of Windows.
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text.slice(0, 64))?.[1]?.toLowerCase()
  if (scheme === 'data') return ofDataURL(text)
  if (scheme === 'file' && /^file:\/\//i.test(text)) return ofFileURL(text)
  if (scheme === 'blob' || (scheme !== undefined && text.startsWith('://', scheme.length))) {
    throw invalid(
      `${shownPath(text)}: no address is fetched. Fetch it yourself, and give par.encode the Response of fetch`
    )
  }
  return new ImageFile(text)
}

function ofFileURL (url: string): ImageFile {
  const file = fileOfURL(url)
  if (file !== undefined) return new ImageFile(file)
  throw invalid(`${shownPath(url)}: this is no address of a file on this machine. Give its path`)
}

function ofDataURL (url: string): LaterBytes {
  const comma = url.indexOf(',')
  if (comma < 0) throw invalid(`${shownPath(url)}: a data: URL has its data behind a comma`)
  const encoded = /;\s*base64\s*$/i.test(url.slice(Math.max(0, comma - 64), comma))
  // Later, in slices: text can have any length, and does not change.
  return later('the data: URL', async by => {
    const slices = new Slices()
    const parts: Buffer[] = []
    let rest = '' // of base64: characters that make no whole bytes yet
    for (let from = comma + 1; from < url.length;) {
      const end = endOfPart(url, from)
      const bytes = percentDecoded(url.slice(from, end))
      if (encoded) {
        const text = bytes.toString('latin1')
        if (/[^A-Za-z0-9+/_=\s-]/.test(text)) {
          throw invalid(`${shownPath(url)}: what stands behind the comma is no base64`)
        }
        const letters = rest + text.replace(/\s+/g, '')
        const whole = letters.length - letters.length % 4
        parts.push(Buffer.from(letters.slice(0, whole), 'base64'))
        rest = letters.slice(whole)
      } else parts.push(bytes)
      if (slices.spend(end - from)) {
        await slices.rest()
        by.check()
      }
      from = end
    }
    parts.push(Buffer.from(rest, 'base64'))
    return new Uint8Array(Buffer.concat(parts))
  })
}

/** Characters that are decoded at a stretch: some milliseconds. */
const lettersAtOnce = 1 << 17

/** Where a part of the text from `from` on ends, that cuts neither an escape nor a character in two. */
function endOfPart (text: string, from: number): number {
  let end = from + lettersAtOnce
  if (end >= text.length) return text.length
  const escape = text.slice(end - 2, end).indexOf('%')
  if (escape >= 0) end += escape - 2
  return /[\udc00-\udfff]/.test(text[end]!) ? end - 1 : end
}

/** The value of a hexadecimal digit; -1 for any other byte. */
const digits = new Int8Array(256).fill(-1)
for (let value = 0; value < 16; value++) {
  for (const digit of [value.toString(16), value.toString(16).toUpperCase()]) digits[digit.charCodeAt(0)] = value
}

/** %XX as the byte, everything else as UTF-8. */
function percentDecoded (text: string): Buffer {
  const bytes = Buffer.from(text)
  if (!text.includes('%')) return bytes
  let to = 0
  for (let from = 0; from < bytes.length; from++) {
    const [high, low] = [digits[bytes[from + 1] ?? 0]!, digits[bytes[from + 2] ?? 0]!]
    if (bytes[from] === 0x25 && high >= 0 && low >= 0) {
      bytes[to++] = high * 16 + low
      from += 2
    } else bytes[to++] = bytes[from]!
  }
  return bytes.subarray(0, to)
}

/** Longer than a file's name can be, or with the first bytes of a picture, and of those letters alone. */
function looksLikeBase64 (text: string): boolean {
  return (text.length > 255 || /^(iVBORw0KGgo|\/9j\/|R0lGOD|UklGR)/.test(text)) &&
    /^[A-Za-z0-9+/_=\s-]+$/.test(text.slice(0, 4096))
}

// ---- memory

function copyOf (input: Uint8Array | Uint8ClampedArray | ArrayBufferLike | DataView): Uint8Array {
  try {
    if (types.isAnyArrayBuffer(input)) return new Uint8Array(new Uint8Array(input))
    if (types.isDataView(input)) return new Uint8Array(new Uint8Array(input.buffer, input.byteOffset, input.byteLength))
  } catch {
    return new Uint8Array(0) // its memory was transferred
  }
  const bytes = snapshot(input)
  return isUint8Array(bytes) ? bytes : new Uint8Array(bytes.buffer)
}

function ofPixels (input: RawImage): RawImage & { channels: 1 | 3 | 4 } {
  const { data: given, width, height, channels: asked } = input
  const data = snapshot(given) // which has the length it says
  if (!isUint8Array(data) && !isUint8ClampedArray(data) && !isFloat32Array(data)) {
    throw invalid(`data of an image must be a Uint8Array or a Float32Array, not ${show(data)}`)
  }
  integer(width, 'width of the image', 1, 16384)
  integer(height, 'height of the image', 1, 16384)
  const pixels = width * height
  const channels = asked ?? ([3, 4, 1] as const).find(channels => data.length === pixels * channels)
  if (channels === undefined) {
    throw invalid(`data of the image has ${data.length} values; ${height} x ${width} pixels have ${pixels * 3} of ` +
      `RGB, ${pixels * 4} of RGBA`)
  }
  if (![1, 3, 4].includes(channels) || (isFloat32Array(data) && channels !== 3)) {
    throw invalid(`channels of ${isFloat32Array(data) ? 'a float image must be 3' : 'an image must be 1, 3 or 4'}, ` +
      `not ${show(channels)}`)
  }
  if (data.length !== pixels * channels) {
    throw invalid(`data of the image must hold ${height} x ${width} x ${channels} = ${pixels * channels} values, ` +
      `found ${data.length}`)
  }
  return { data, width, height, channels }
}

// ---- objects

/** Told by what they can do: Blobs and Responses come from several libraries and realms. */
function ofObject (input: Record<string | symbol, unknown>): LaterBytes {
  const can = (...names: Array<string | symbol>): boolean => names.every(name => typeof input[name] === 'function')
  if (can('clone', 'metadata', 'toFormat', 'toBuffer')) return ofSharp(input as unknown as Sharp)
  if (can('arrayBuffer', 'clone') && 'status' in input) return ofResponse(input as unknown as Response)
  if (can('arrayBuffer') && typeof input.size === 'number') return ofBlob(input as unknown as Blob)
  if (can(Symbol.asyncIterator) || can('getReader')) {
    return later('the stream', async by => await gather(input as unknown as AsyncIterable<unknown>, by))
  }
  throw invalid(`An image is ${kinds}, not ${show(input)}`)
}

/** What a caller's object throws is its own error; who reads ours learns which picture it was. */
function later (what: string, read: (by: Reader) => Promise<Uint8Array>): LaterBytes {
  return new LaterBytes(async by => {
    try {
      return await read(by)
    } catch (cause) {
      by.check()
      if (cause instanceof ParError) throw cause
      throw outOfMemory(cause) ?? new ParError('BAD_IMAGE',
        `Cannot read ${what}: ${visible(String((cause as Error)?.message ?? cause), 300)}`, { cause })
    }
  })
}

function ofSharp (pipeline: Sharp): LaterBytes {
  // Losslessly, whatever its depth and channels, and without a second way to read what it makes.
  return later('what the sharp pipeline makes',
    async () => new Uint8Array(await pipeline.clone().png({ compressionLevel: 0 }).toBuffer()))
}

function ofBlob (blob: Blob): LaterBytes {
  return later('the Blob', async () => {
    if (blob.size > maxBytes) throw tooLarge()
    const bytes: unknown = await blob.arrayBuffer()
    if (!types.isAnyArrayBuffer(bytes)) {
      throw invalid(`arrayBuffer() of the Blob must give an ArrayBuffer, not ${show(bytes)}`)
    }
    return copyOf(bytes) // another library's Blob may hand out its own memory
  })
}

function ofResponse (response: Response): LaterBytes {
  return later('the Response', async by => {
    if (!response.ok) {
      throw new ParError('BAD_IMAGE',
        `Cannot read the Response: its status is ${Number(response.status)}, so it is not the picture`)
    }
    if (response.bodyUsed) {
      throw new ParError('BAD_IMAGE',
        'Cannot read the Response: its body was read before. Give the bytes, or a clone()')
    }
    return response.body === null
      ? new Uint8Array(0)
      : await gather(response.body as unknown as AsyncIterable<unknown>, by)
  })
}

/** Where a stream is read from, and how it is told that nobody will read on, also while a read stands still. */
interface Source {
  next (): PromiseLike<{ done?: boolean | undefined, value?: unknown }>
  close (): unknown
}

function sourceOf (stream: AsyncIterable<unknown> | ByteStream): Source {
  // Not by its iterator, whose return() waits for the read that stands still.
  if ('getReader' in stream && typeof stream.getReader === 'function') {
    const reader = stream.getReader()
    return { next: async () => await reader.read(), close: () => reader.cancel() }
  }
  const iterator = (stream as AsyncIterable<unknown>)[Symbol.asyncIterator]()
  const { destroy } = stream as { destroy?: unknown }
  return {
    next: () => iterator.next(),
    // return() of a generator waits, too; a stream of Node.js can be destroyed at once.
    close: () => [typeof destroy === 'function' && destroy.call(stream), iterator.return?.()][1]
  }
}

async function gather (stream: AsyncIterable<unknown> | ByteStream, by: Reader): Promise<Uint8Array> {
  const { signal } = by
  const source = sourceOf(stream)
  const close = (): void => {
    // Its failure is no news: the call has failed already.
    void (async () => { await source.close() })().catch(() => {})
  }
  signal.addEventListener('abort', close, { once: true })
  const parts: Uint8Array[] = []
  let length = 0
  try {
    for (;;) {
      const { value: part, done } = await source.next()
      by.check()
      if (done) break
      if (!isUint8Array(part)) throw invalid(`A stream of a picture gives bytes (Uint8Array), not ${show(part)}`)
      length += part.byteLength
      if (length > maxBytes) throw tooLarge()
      parts.push(snapshot(part)) // the stream may use its memory again for the next part
    }
  } catch (error) {
    if (!signal.aborted) close()
    throw error
  } finally {
    signal.removeEventListener('abort', close)
  }
  const bytes = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

function tooLarge (): ParError {
  return new ParError('BAD_IMAGE',
    `Cannot read the given picture: it has more than ${maxBytes} bytes, which is the limit`)
}
