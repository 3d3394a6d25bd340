// Tokens to pixels and back, in batches that bound native memory. A picture that goes in is turned upright, laid on a
// background where it is transparent, and cropped as the authors do for training (resample.ts). Floats of exact size
// go in untouched, because they are what the tokenizer was measured on.

import type { Call } from './call.js'
import { ParError } from './errors.js'
import { readWhole } from './files.js'
import { asBuffer, Image, loadSharp } from './image.js'
import type { TokenizerPart } from './models.js'
import type { CheckedEncode } from './options.js'
import { isFloat32Array, isUint8Array, isUint8ClampedArray } from './realm.js'
import { centreCrop, pauses, squeezed, type Rgb } from './resample.js'
import { integer, invalid, show, snapshot } from './validate.js'

/** RGB without a file format: bytes, or floats in -1..1 (then 3 channels and a size that the tokenizer's factor divides). */
export interface RawImage {
  /** [height, width, channels] */
  data: Uint8Array | Uint8ClampedArray | Float32Array
  /** Pixels, 1 to 16384. */
  width: number
  /** Pixels, 1 to 16384. */
  height: number
  /** Bytes: 1 (grey), 3, or 4 (the fourth is opacity). Floats: 3. Default 3. */
  channels?: 1 | 3 | 4
}

/** A picture that goes in: the path of a file, the bytes of a file (PNG, JPEG, WebP, ...), or pixels. */
export type ImageInput = string | Uint8Array | RawImage

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
    const pixels = format === 'uint8'
      ? await call.wait(tokenizer.native.decode(tokens, { ...options, format }, call.cancel))
      : await call.wait(tokenizer.native.decode(tokens, { ...options, format }, call.cancel))
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
 * Tokens in raster order of a picture.
 * @param grid what it is resized to; where there is none, the picture decides
 */
export async function encodePicture (
  tokenizer: TokenizerPart,
  call: Call,
  input: unknown,
  request: CheckedEncode,
  grid: readonly [rows: number, columns: number] | undefined
): Promise<Int32Array> {
  const { factor } = tokenizer
  const image = ownImage(input)
  let picture: { pixels: Float32Array, width: number, height: number }
  if (isFloat(image)) {
    picture = floatPixels(image, factor, request.grid)
  } else {
    const { data, width, height } = await call.wait(prepared(image, factor, request, grid, () => call.check()))
    picture = { pixels: Float32Array.from(data, byte => byte / 127.5 - 1), width, height }
  }
  const { pixels, width, height } = picture
  return await call.wait(tokenizer.native.encode(pixels, { count: 1, height, width }, call.cancel))
}

/** The picture whose tokens `encodePicture` finds. */
export async function preparePicture (
  tokenizer: TokenizerPart,
  call: Call,
  input: unknown,
  request: CheckedEncode,
  grid: readonly [rows: number, columns: number] | undefined
): Promise<Image> {
  const image = ownImage(input)
  if (isFloat(image)) {
    const { pixels, width, height } = floatPixels(image, tokenizer.factor, request.grid)
    return new Image(new Image(pixels, width, height).bytes(), width, height)
  }
  const { data, width, height } = await call.wait(prepared(image, tokenizer.factor, request, grid, () => call.check()))
  return new Image(data, width, height)
}

function isFloat (image: string | Uint8Array | Required<RawImage>): image is Required<RawImage> & { data: Float32Array } {
  return typeof image === 'object' && 'data' in image && isFloat32Array(image.data)
}

/**
 * The image checked, its bytes or values copied: they are read after the call has returned, when the caller may have
 * changed or transferred them.
 */
export function ownImage (input: unknown): string | Uint8Array | Required<RawImage> {
  if (typeof input === 'string') return input
  if (isUint8Array(input)) return snapshot(input)
  if (typeof input !== 'object' || input === null || !('data' in input)) {
    throw invalid(`An image is a path, the bytes of a picture file, or { data, width, height, channels }, not ${show(input)}`)
  }
  const { data: given, width, height, channels = 3 } = input as RawImage
  const data = snapshot(given) // which has the length it says
  if (!isUint8Array(data) && !isUint8ClampedArray(data) && !isFloat32Array(data)) {
    throw invalid(`data of an image must be a Uint8Array or a Float32Array, not ${show(data)}`)
  }
  integer(width, 'width of the image', 1, 16384)
  integer(height, 'height of the image', 1, 16384)
  if (![1, 3, 4].includes(channels) || (isFloat32Array(data) && channels !== 3)) {
    throw invalid(`channels of ${isFloat32Array(data) ? 'a float image must be 3' : 'an image must be 1, 3 or 4'}, not ${show(channels)}`)
  }
  if (data.length !== width * height * channels) {
    throw invalid(`data of the image must hold ${height} x ${width} x ${channels} = ${width * height * channels} values, found ${data.length}`)
  }
  return { data, width, height, channels }
}

function floatPixels (raw: { data: Float32Array, width: number, height: number }, factor: number, grid: readonly [number, number] | undefined) {
  const { data, width, height } = raw
  if (width % factor || height % factor) throw invalid(`Width and height of a float image must be multiples of ${factor} (pixels a token), found ${width} x ${height}`)
  if (grid && (height !== grid[0] * factor || width !== grid[1] * factor)) {
    throw invalid(`A float image for a grid of ${grid[0]} x ${grid[1]} is ${grid[1] * factor} x ${grid[0] * factor} pixels, found ${width} x ${height}`)
  }
  if (!data.every(Number.isFinite)) throw invalid('data of the image has values that are not finite')
  return { pixels: data, width, height }
}

/** Upright RGB on the background, cropped or squeezed to the grid. */
async function prepared (
  input: string | Uint8Array | Required<RawImage>, factor: number, request: CheckedEncode,
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

async function uprightPixels (input: string | Uint8Array | Required<RawImage>, background: string, check: () => void): Promise<Rgb> {
  const sharp = loadSharp()
  const raw = typeof input === 'string' || isUint8Array(input) ? undefined : input
  const source = typeof input === 'string' || isUint8Array(input) ? await bytesOf(input, check) : input.data as Uint8Array
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
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) rgb[i * 3 + c] = data[i * channels + (channels > 3 ? c : 0)]!
    }
    return { data: rgb, width, height }
  } catch (cause) {
    const name = typeof input === 'string' ? input : 'the given picture'
    throw new ParError('BAD_IMAGE', `Cannot read ${name}: ${(cause as Error).message}`, { cause })
  }
}

async function bytesOf (input: string | Uint8Array, check: () => void): Promise<Uint8Array> {
  if (typeof input !== 'string') return input
  if (input === '' || input.includes('\0')) throw invalid(`An image path must be a non-empty string, not ${show(input)}`)
  return await readWhole(input, { check })
}
