// Tokens to pixels and back, in batches that bound native memory. A picture that goes in is turned upright, laid on a
// background where it is transparent, and cropped as the authors do for training (resample.ts). Floats of exact size
// go in untouched, because they are what the tokenizer was measured on.

import type { Call } from './call.js'
import { outOfMemory, ParError } from './errors.js'
import { asBuffer, Image, loadSharp } from './image.js'
import { fileBytes, LaterBytes, type OwnImage, type RawImage } from './image-input.js'
import type { TokenizerPart } from './models.js'
import type { CheckedEncode } from './options.js'
import { isFloat32Array, isUint8Array } from './realm.js'
import { centreCrop, pauses, squeezed, type Pause, type Rgb } from './resample.js'
import { shownPath, visible } from './text.js'
import { invalid, show } from './validate.js'

// ---- decode

/** Output pixels of one native call: seven pictures of 384 x 384. */
const pixelsAtOnce = 1 << 20

/**
 * @param pictures tokens in raster order, [rows * columns] each
 * @param size default: grid times the tokenizer's factor
 */
export async function decodePictures (
  tokenizer: TokenizerPart,
  call: Call,
  pictures: readonly Int32Array[],
  grid: readonly [rows: number, columns: number],
  size: { width: number, height: number } | undefined,
  format: 'uint8' | 'float32'
): Promise<Array<Image<Uint8Array> | Image<Float32Array>>> {
  const [gridHeight, gridWidth] = grid
  const full = { width: gridWidth * tokenizer.factor, height: gridHeight * tokenizer.factor }
  const { width, height } = size ?? full
  const largest = Math.max(width * height, full.width * full.height)
  const atOnce = Math.max(1, Math.floor(pixelsAtOnce / largest))
  const images: Array<Image<Uint8Array> | Image<Float32Array>> = []
  for (let from = 0; from < pictures.length; from += atOnce) {
    const some = pictures.slice(from, from + atOnce)
    const tokens = new Int32Array(some.length * gridHeight * gridWidth)
    some.forEach((picture, i) => tokens.set(picture, i * picture.length))
    const options = { count: some.length, gridHeight, gridWidth, outHeight: height, outWidth: width }
    const pixels = await tokenizer.turns.run<Uint8Array | Float32Array>(call, async () => format === 'uint8'
      ? await tokenizer.native.decode(tokens, { ...options, format }, call.cancel)
      : await tokenizer.native.decode(tokens, { ...options, format }, call.cancel))
    const length = height * width * 3
    for (let i = 0; i < some.length; i++) {
      // A copy each, so that keeping one picture does not keep the batch.
      const own = some.length === 1 ? pixels : pixels.slice(i * length, (i + 1) * length)
      images.push(isUint8Array(own) ? new Image(own, width, height) : new Image(own, width, height))
    }
  }
  return images
}

/** Grid of `length` tokens: the one given, or a square. */
export function gridOf (length: number, grid: readonly [number, number] | undefined, name: string): [rows: number, columns: number] {
  if (grid) {
    if (grid[0] * grid[1] === length) return [grid[0], grid[1]]
    throw invalid(`${name} must hold ${grid[0] * grid[1]} tokens for a grid of ${grid[0]} x ${grid[1]}, found ${length}`)
  }
  const side = Math.round(Math.sqrt(length))
  if (length === 0 || side * side !== length) throw invalid(`${name} holds ${length} tokens, which make no square; say the grid`)
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
      const { data, width, height } = await call.wait(prepared(image, factor, request, grid, () => call.check()))
      picture = { pixels: await call.wait(floats(data, pause)), width, height }
    }
    const { pixels, width, height } = picture
    return await tokenizer.native.encode(pixels, { count: 1, height, width }, call.cancel)
  })
}

/**
 * Waits for bytes that come from elsewhere (a stream, a pipeline) before the call has its turn: they may take for ever, or
 * depend on another call of the same instance.
 */
async function arrived (image: OwnImage, call: Call): Promise<Exclude<OwnImage, LaterBytes>> {
  return image instanceof LaterBytes ? await call.wait(image.read(() => call.check())) : image
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
      const { pixels, width, height } = await floatPixels(image, tokenizer.factor, request.grid, pauses(() => call.check()))
      return new Image(new Image(pixels, width, height).bytes(), width, height)
    }
    const { data, width, height } = await call.wait(prepared(image, tokenizer.factor, request, grid, () => call.check()))
    return new Image(data as Uint8Array<ArrayBuffer>, width, height)
  })
}

function isFloat (image: OwnImage): image is RawImage & { channels: 3, data: Float32Array } {
  return typeof image === 'object' && 'data' in image && isFloat32Array(image.data)
}

/** The bytes as the tokenizer takes them, -1..1. */
async function floats (bytes: Uint8Array, pause: Pause): Promise<Float32Array> {
  const pixels = new Float32Array(bytes.length)
  for (let from = 0; from < bytes.length; from += valuesAtOnce) {
    for (let i = from, end = Math.min(from + valuesAtOnce, bytes.length); i < end; i++) pixels[i] = bytes[i]! / 127.5 - 1
    await pause()
  }
  return pixels
}

/** Values that are worked on before the event loop may go on. */
const valuesAtOnce = 1 << 19

async function floatPixels (
  raw: { data: Float32Array, width: number, height: number }, factor: number, grid: readonly [number, number] | undefined, pause: Pause
): Promise<{ pixels: Float32Array, width: number, height: number }> {
  const { data, width, height } = raw
  if (width % factor || height % factor) throw invalid(`Width and height of a float image must be multiples of ${factor} (pixels a token), found ${width} x ${height}`)
  if (grid && (height !== grid[0] * factor || width !== grid[1] * factor)) {
    throw invalid(`A float image for a grid of ${grid[0]} x ${grid[1]} is ${grid[1] * factor} x ${grid[0] * factor} pixels, found ${width} x ${height}`)
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
  input: OwnImage, factor: number, request: CheckedEncode,
  grid: readonly [number, number] | undefined, check: () => void
): Promise<Rgb> {
  const upright = await uprightPixels(input, request.background, check)
  const [rows, columns] = grid ?? ownGrid(upright, factor, request.crop)
  const [width, height] = [columns * factor, rows * factor]
  return await (request.crop ? centreCrop : squeezed)(upright, width, height, pauses(check))
}

/** The largest square inside the picture, or the picture's own shape. */
function ownGrid ({ width, height }: Rgb, factor: number, crop: boolean): [rows: number, columns: number] {
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

async function uprightPixels (input: OwnImage, background: string, check: () => void): Promise<Rgb> {
  const sharp = loadSharp()
  const raw = typeof input === 'object' && 'data' in input ? input : undefined
  const source = raw ? raw.data as Uint8Array : await fileBytes(input as Exclude<OwnImage, RawImage>, check)
  try {
    sharp().flatten({ background }) // reads the colour, nothing else
  } catch (cause) {
    throw invalid(`background must be a colour such as 'white' or '#ff8800', not ${show(background)}`, { cause })
  }
  try {
    const { data, info } = await sharp(asBuffer(source), raw ? { raw: { width: raw.width, height: raw.height, channels: raw.channels } } : {})
      .autoOrient().flatten({ background }).toColourspace('srgb').removeAlpha()
      .raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    const { width, height, channels } = info
    if (channels === 3) return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height } // no Buffer, to callers
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
    const name = typeof input === 'string' ? shownPath(input) : 'the given picture'
    const { message } = cause as Error
    const why = unknownFormat.test(message) ? 'it has none of the formats that are read: PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG' : visible(message, 300)
    throw outOfMemory(cause) ?? new ParError('BAD_IMAGE', `Cannot read ${name}: ${why}`, { cause })
  }
}
