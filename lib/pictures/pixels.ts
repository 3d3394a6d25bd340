// Tokens to pixels and back, in batches that bound native memory. A picture that goes in is turned upright, laid on a
// background where it is transparent, and cropped as the authors do for training (resample.ts). Floats of exact size
// go in untouched, because they are what the tokenizer was measured on.

import { Claim } from '../machine/budget.js'
import type { Call } from '../base/call.js'
import { outOfMemory, ParError } from '../base/errors.js'
import { asBuffer, Image, loadSharp } from '../api/image.js'
import { fileBytes, ImageFile, LaterBytes, type OwnImage, type RawImage } from '../api/image-input.js'
import { pictureBytes } from '../models/memory.js'
import type { TokenizerPart } from '../models/models.js'
import type { CheckedEncode } from '../api/options.js'
import { isFloat32Array, isUint8Array } from '../base/realm.js'
import { centreCrop, pauses, resizingBytes, squeezed, type Pause, type Rgb, type Size } from './resample.js'
import { shownPath, visible } from '../base/text.js'
import { invalid, show } from '../base/validate.js'

// ---- decode

/** Output pixels of one native call: seven pictures of 384 x 384. */
const pixelsAtOnce = 1 << 20

/** Pixels that so many tokens make where nobody asks for another size. */
export function fullSize ({ factor }: TokenizerPart, [rows, columns]: readonly [rows: number, columns: number]): Size {
  return { width: columns * factor, height: rows * factor }
}

/**
 * The memory of so many results, claimed.
 * @param cure what else to do where it is not there
 * @throws ParError `OUT_OF_MEMORY`
 */
export async function claimPictures (
  { device, model }: TokenizerPart, call: Call, count: number, grid: readonly [rows: number, columns: number],
  { width, height }: Size, format: 'uint8' | 'float32', cure = ''
): Promise<Claim> {
  const bytes = width * height * 3 * (format === 'uint8' ? 1 : 4)
  const pixels = count === 1 ? 'The pixels of a picture' : `The pixels of ${count} pictures`
  // Beside the results: one picture in work, as floats before and after it is resized, and a batch that is cut into
  // pictures.
  const work = (device === 'cpu' ? Math.max(pictureBytes(model, grid), 12 * width * height) : 0) +
    Math.min(bytes * count, 12 * pixelsAtOnce)
  return await Claim.of(call, count * bytes,
    {
      what: `${pixels} of ${width} x ${height}`,
      cure: `ask for ${count === 1 ? 'a smaller one' : 'fewer or smaller ones at a time'}${cure}`, work
    })
}

/**
 * @param pictures tokens in raster order, [rows * columns] each
 * @param size default: grid times the tokenizer's factor
 * @param claimed the memory that the results belong to; absent: it is claimed here
 */
export async function decodePictures (
  tokenizer: TokenizerPart,
  call: Call,
  pictures: readonly Int32Array[],
  grid: readonly [rows: number, columns: number],
  size: { width: number, height: number } | undefined,
  format: 'uint8' | 'float32',
  claimed?: Claim
): Promise<Array<Image<Uint8Array> | Image<Float32Array>>> {
  const [gridHeight, gridWidth] = grid
  const full = fullSize(tokenizer, grid)
  const { width, height } = size ?? full
  const largest = Math.max(width * height, full.width * full.height)
  const atOnce = Math.max(1, Math.floor(pixelsAtOnce / largest))
  const claim = claimed ?? await claimPictures(tokenizer, call, pictures.length, grid, { width, height }, format)
  const images: Array<Image<Uint8Array> | Image<Float32Array>> = []
  for (let from = 0; from < pictures.length; from += atOnce) {
    const some = pictures.slice(from, from + atOnce)
    const tokens = new Int32Array(some.length * gridHeight * gridWidth)
    some.forEach((picture, i) => tokens.set(picture, i * picture.length))
    const options = { count: some.length, gridHeight, gridWidth, outHeight: height, outWidth: width }
    const pixels = await tokenizer.turns.run<Uint8Array | Float32Array>(call, async () => format === 'uint8'
      ? await tokenizer.native.decode(tokens, { ...options, format }, call.cancel)
      : await tokenizer.native.decode(tokens, { ...options, format }, call.cancel))
    claim.took(pixels.byteLength)
    const length = height * width * 3
    for (let i = 0; i < some.length; i++) {
      // A copy each, so that keeping one picture does not keep the batch.
      const own = some.length === 1 ? pixels : pixels.slice(i * length, (i + 1) * length)
      images.push(isUint8Array(own) ? new Image(own, width, height) : new Image(own, width, height))
    }
  }
  if (!claimed) call.release(claim)
  return images
}

/** Grid of `length` tokens: the one given, or a square. */
export function gridOf (
  length: number, grid: readonly [number, number] | undefined, name: string
): [rows: number, columns: number] {
  if (grid) {
    if (grid[0] * grid[1] === length) return [grid[0], grid[1]]
    throw invalid(
      `${name} must hold ${grid[0] * grid[1]} tokens for a grid of ${grid[0]} x ${grid[1]}, found ${length}`
    )
  }
  const side = Math.round(Math.sqrt(length))
  if (length === 0 || side * side !== length) {
    throw invalid(`${name} holds ${length} tokens, which make no square; say the grid`)
  }
  return [side, side]
}

// ---- encode

/** Largest side, in tokens, that a picture is cropped to where nobody says a grid. */
const defaultSide = 24
/** Largest side, in tokens, of a whole picture where nobody says a grid. */
const wholeSide = 64

/**
 * Tokens in raster order of a picture. A file is read, and its picture unpacked, when it is this call's turn.
 * @param grid what it is resized to; where there is none, the picture decides
 */
export async function encodePicture (
  tokenizer: TokenizerPart,
  call: Call,
  given: OwnImage,
  request: CheckedEncode,
  grid: readonly [rows: number, columns: number] | undefined
): Promise<Int32Array> {
  const { factor } = tokenizer
  const image = await arrived(given, call)
  return await tokenizer.turns.run(call, async () => {
    const pause = pauses(() => call.check())
    let picture: { pixels: Float32Array, width: number, height: number }
    if (isFloat(image)) {
      picture = await floatPixels(image, factor, request.grid, pause)
    } else {
      const { data, width, height } = await prepared(image, factor, request, grid, call)
      picture = { pixels: await call.wait(floats(data, pause)), width, height }
    }
    const { pixels, width, height } = picture
    return await tokenizer.native.encode(pixels, { count: 1, height, width }, call.cancel)
  })
}

/**
 * Waits for bytes that come from elsewhere (a stream, a pipeline) before the call has its turn: they may take for ever,
 * or depend on another call of the same instance.
 */
async function arrived (image: OwnImage, call: Call): Promise<Exclude<OwnImage, LaterBytes>> {
  return image instanceof LaterBytes ? await call.wait(image.read(call)) : image
}

/** The picture whose tokens `encodePicture` finds. */
export async function preparePicture (
  tokenizer: TokenizerPart,
  call: Call,
  given: OwnImage,
  request: CheckedEncode,
  grid: readonly [rows: number, columns: number] | undefined
): Promise<Image> {
  const image = await arrived(given, call)
  return await tokenizer.turns.run(call, async () => {
    if (isFloat(image)) {
      const { pixels, width, height } = await floatPixels(image, tokenizer.factor, request.grid,
        pauses(() => call.check()))
      return new Image(new Image(pixels, width, height).bytes(), width, height)
    }
    const { data, width, height } = await prepared(image, tokenizer.factor, request, grid, call)
    return new Image(data as Uint8Array<ArrayBuffer>, width, height)
  })
}

function isFloat (image: OwnImage): image is RawImage & { channels: 3, data: Float32Array } {
  return 'data' in image && isFloat32Array(image.data)
}

/** The bytes as the tokenizer takes them, -1..1. */
async function floats (bytes: Uint8Array, pause: Pause): Promise<Float32Array> {
  const pixels = new Float32Array(bytes.length)
  for (let from = 0; from < bytes.length; from += valuesAtOnce) {
    for (let i = from, end = Math.min(from + valuesAtOnce, bytes.length); i < end; i++) {
      pixels[i] = bytes[i]! / 127.5 - 1
    }
    await pause()
  }
  return pixels
}

/** Values that are worked on before the event loop may go on. */
const valuesAtOnce = 1 << 19

async function floatPixels (
  raw: { data: Float32Array, width: number, height: number }, factor: number,
  grid: readonly [number, number] | undefined, pause: Pause
): Promise<{ pixels: Float32Array, width: number, height: number }> {
  const { data, width, height } = raw
  if (width % factor || height % factor) {
    throw invalid(
      `Width and height of a float image must be multiples of ${factor} (pixels a token), found ${width} x ${height}`
    )
  }
  if (grid && (height !== grid[0] * factor || width !== grid[1] * factor)) {
    throw invalid(`A float image for a grid of ${grid[0]} x ${grid[1]} is ${grid[1] * factor} x ${grid[0] * factor} ` +
      `pixels, found ${width} x ${height}`)
  }
  for (let from = 0; from < data.length; from += valuesAtOnce) {
    for (let i = from, end = Math.min(from + valuesAtOnce, data.length); i < end; i++) {
      if (!Number.isFinite(data[i])) throw invalid('data of the image has values that are not finite')
    }
    await pause()
  }
  return { pixels: data, width, height }
}

/** Upright RGB on the background, cropped or squeezed to the grid. */
async function prepared (
  input: Exclude<OwnImage, LaterBytes>, factor: number, request: CheckedEncode,
  grid: readonly [number, number] | undefined, call: Call
): Promise<Rgb> {
  const check = (): void => call.check()
  checkBackground(request.background)
  const target = (upright: Size): Size => {
    const [rows, columns] = grid ?? ownGrid(upright, factor, request.crop)
    return { width: columns * factor, height: rows * factor }
  }
  const source: Source = !(input instanceof ImageFile) && 'data' in input
    ? {
        bytes: input.data as Uint8Array, raw: { width: input.width, height: input.height, channels: input.channels },
        name: 'the given picture'
      }
    : {
        bytes: await call.wait(fileBytes(input, check)),
        name: input instanceof ImageFile ? shownPath(input.name) : 'the given picture'
      }
  const { width, height, unpacking } = await call.wait(measured(source, check))
  const end = target({ width, height })
  // The picture as it is unpacked, and what is made of it, down to the floats that the tokenizer takes.
  const bytes = Math.max(unpacking,
    3 * width * height + resizingBytes({ width, height }, end.width, end.height, request.crop) +
      12 * end.width * end.height)
  const claim = await Claim.of(call, bytes, {
    what: `A picture of ${width} x ${height} pixels and what is made of it`,
    cure: 'give a smaller one or a smaller grid', temporary: true
  })
  try {
    const upright = await call.wait(uprightPixels(source, request.background, check))
    claim.took(upright.data.length)
    const { width, height } = target(upright)
    return await call.wait((request.crop ? centreCrop : squeezed)(upright, width, height, pauses(check)))
  } finally {
    call.release(claim)
  }
}

/** The largest square inside the picture, or the picture's own shape. */
function ownGrid ({ width, height }: Size, factor: number, crop: boolean): [rows: number, columns: number] {
  if (crop) {
    const side = Math.min(defaultSide, Math.max(1, Math.floor(Math.min(width, height) / factor)))
    return [side, side]
  }
  const scale = Math.min(1 / factor, wholeSide / Math.max(width, height))
  const tokens = (pixels: number): number => Math.max(1, Math.round(pixels * scale))
  return [tokens(height), tokens(width)]
}

/** What libvips says of bytes that none of its readers knows, or was built for. */
const unknownFormat = /unsupported image format|not been built|no known loader/i

/** Bytes of a picture file, or pixels; and its name for messages. */
interface Source { bytes: Uint8Array, raw?: { width: number, height: number, channels: 1 | 3 | 4 }, name: string }

/**
 * Bytes a pixel that libvips holds at the peak, with the result: measured. Readers that go row by row need little more
 * than that.
 */
const bytesAPixel = { rows: 4, whole: 9, heif: 20 }

/** What a picture is, without unpacking it: its sides when it stands upright, and bytes that unpacking it takes. */
async function measured ({ bytes, raw, name }: Source, check: () => void): Promise<Size & { unpacking: number }> {
  if (raw) return { width: raw.width, height: raw.height, unpacking: bytesAPixel.rows * raw.width * raw.height }
  try {
    const { format, orientation = 1, isProgressive, autoOrient: { width, height } } = await loadSharp()(asBuffer(bytes))
      .metadata()
    const rows = ['png', 'jpeg', 'tiff'].includes(format) && orientation === 1 && !isProgressive
    return {
      width, height, unpacking: bytesAPixel[format === 'heif' ? 'heif' : rows ? 'rows' : 'whole'] * width * height
    }
  } catch (cause) {
    check()
    throw unreadable(name, cause)
  }
}

function unreadable (name: string, cause: unknown): ParError {
  const { message } = cause as Error
  const why = unknownFormat.test(message)
    ? 'it has none of the formats that are read: PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG'
    : visible(message, 300)
  return outOfMemory(cause) ?? new ParError('BAD_IMAGE', `Cannot read ${name}: ${why}`, { cause })
}

function checkBackground (background: CheckedEncode['background']): void {
  try {
    loadSharp()().flatten({ background }) // reads the colour, nothing else
  } catch (cause) {
    if (cause instanceof ParError) throw cause // there is no sharp
    throw invalid(`background must be a colour such as 'white' or '#ff8800', not ${show(background)}`, { cause })
  }
}

async function uprightPixels (
  { bytes, raw, name }: Source, background: CheckedEncode['background'], check: () => void
): Promise<Rgb> {
  try {
    const { data, info } = await loadSharp()(asBuffer(bytes), raw ? { raw } : {})
      .autoOrient().flatten({ background }).toColourspace('srgb').removeAlpha()
      .raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    const { width, height, channels } = info
    // no Buffer, to callers
    if (channels === 3) return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height }
    const rgb = new Uint8Array(width * height * 3)
    const pause = pauses(check)
    for (let y = 0, i = 0; y < height; y++) {
      for (const end = i + width; i < end; i++) {
        for (let c = 0; c < 3; c++) rgb[i * 3 + c] = data[i * channels + (channels > 3 ? c : 0)]!
      }
      await pause()
    }
    return { data: rgb, width, height }
  } catch (cause) {
    check()
    throw unreadable(name, cause)
  }
}
