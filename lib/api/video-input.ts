// Videos as callers have them: a path, the bytes of an animated WebP or GIF, frames. What sharp does not read goes to
// the user's own ffmpeg.

import { mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { outOfMemory, ParError } from '../base/errors.js'
import { fromSystem, readWhole } from '../base/files.js'
import { isFloat32Array, isUint8Array, isUint8ClampedArray, isUrl } from '../base/realm.js'
import { shownPath, visible } from '../base/text.js'
import { integer, invalid, isObject, show } from '../base/validate.js'
import { removal } from '../base/windows.js'
import { readVideo } from '../pictures/ffmpeg.js'
import { pauses, squeezed } from '../pictures/resample.js'
import type { RawFrames } from '../pictures/videos.js'
import { asBuffer, loadSharp } from './image.js'
import { ImageFile, ownImage } from './image-input.js'

/**
 * A video that goes in: the path of a file or its bytes (animated WebP and GIF; with ffmpeg on the machine whatever
 * that reads), or frames: a {@link Video}, or RGB bytes, or floats in 0..1, [frames, height, width, 3].
 */
export type VideoInput = string | URL | Uint8Array | {
  /** RGB, [frames, height, width, 3] */
  data: Uint8Array | Float32Array
  /** Number of frames. */
  frames: number
  /** Pixels. */
  width: number
  /** Pixels. */
  height: number
}

/** A video as parvis holds it. */
export type OwnVideo = ImageFile | Uint8Array | RawFrames

/** The video checked and, as far as it is memory of the caller, copied. */
export function ownVideo (input: unknown): OwnVideo {
  if (isObject(input) && 'data' in input && 'frames' in input) return ofFrames(input as unknown as RawFrames)
  if (input instanceof ImageFile) return input
  if (typeof input === 'string' || isUrl(input) || isUint8Array(input)) {
    const own = ownImage(input)
    if (own instanceof ImageFile || isUint8Array(own)) return own
  }
  throw invalid(`A video is a path, the bytes of a file, or { data, frames, width, height }, not ${show(input)}`)
}

const maxSide = 16384

function ofFrames ({ data, frames, width, height }: RawFrames): RawFrames {
  integer(frames, 'frames', 1, 1 << 20)
  integer(width, 'width', 1, maxSide)
  integer(height, 'height', 1, maxSide)
  if (!isUint8Array(data) && !isUint8ClampedArray(data) && !isFloat32Array(data)) {
    throw invalid(`data of a video must be a Uint8Array or a Float32Array, not ${show(data)}`)
  }
  if (data.length !== frames * width * height * 3) {
    throw invalid(`data of a video has ${data.length} numbers; ${frames} frames of ${width} x ${height} pixels have ` +
      `${frames * width * height * 3} (RGB)`)
  }
  return { data: isFloat32Array(data) ? data.slice() : Uint8Array.from(data as Uint8Array), frames, width, height }
}

export interface ReadOptions {
  /** Pixels that the frames get; absent: their own. */
  size: { width: number, height: number } | undefined
  /** The first so many; absent: all. */
  frames: number | undefined
  /** Of a file that ffmpeg reads. */
  fps: number | undefined
  signal: AbortSignal
  check: () => void
}

/**
 * The frames, squeezed to `size`.
 * @throws ParError `FILE_NOT_FOUND`, `BAD_IMAGE`, `NATIVE_UNAVAILABLE`, `OUT_OF_MEMORY`; `INVALID_OPTION` for fewer
 * frames than were asked for
 */
export async function framesOf (input: OwnVideo, options: ReadOptions): Promise<RawFrames> {
  const found = input instanceof ImageFile || isUint8Array(input) ? await ofFile(input, options) : input
  const { frames = found.frames, size } = options
  if (found.frames < frames) {
    throw invalid(`the video has ${found.frames} frames, and the grid asks for ${frames}. Give a grid of fewer frames` +
      (options.fps === undefined ? '' : ', or a higher fps'))
  }
  const length = found.width * found.height * 3
  const cut = { ...found, frames, data: found.data.subarray(0, frames * length) }
  if (!size || (size.width === found.width && size.height === found.height)) return cut
  if (isFloat32Array(cut.data)) {
    throw invalid(`float frames go in untouched: they have ${found.width} x ${found.height} pixels, and the grid ` +
      `asks for ${size.width} x ${size.height}`)
  }
  const data = new Uint8Array(frames * size.width * size.height * 3)
  const pause = pauses(options.check)
  for (let i = 0; i < frames; i++) {
    const picture = { data: cut.data.subarray(i * length, (i + 1) * length), width: found.width, height: found.height }
    const small = await squeezed(picture, size.width, size.height, pause)
    data.set(small.data, i * size.width * size.height * 3)
  }
  return { data, frames, ...size }
}

async function ofFile (input: ImageFile | Uint8Array, { fps, frames, signal, check }: ReadOptions): Promise<RawFrames> {
  if (input instanceof ImageFile) {
    if (!isAnimated(await beginning(input))) return await readVideo(input.place, { fps, frames, signal })
    return await bySharp(await readWhole(input.place, { check }), shownPath(input.name))
  }
  if (isAnimated(input)) return await bySharp(input, 'the video')
  const temporary = os.tmpdir()
  const folder = await mkdtemp(path.join(temporary, 'parvis-video-'))
    .catch((error: unknown) => { throw fromSystem(error, temporary, 'written') })
  try {
    const file = path.join(folder, 'video')
    await writeFile(file, input).catch((error: unknown) => { throw fromSystem(error, file, 'written') })
    return await readVideo(file, { fps, frames, signal })
  } finally {
    await rm(folder, removal).catch(() => {})
  }
}

/** The first bytes of a file, by which its format is known. */
async function beginning ({ name, place }: ImageFile): Promise<Uint8Array> {
  try {
    if (!(await stat(place)).isFile()) {
      throw new ParError('FILE_NOT_FOUND',
        `${shownPath(name)}: cannot be read: it is no file. Give the path of a file.`)
    }
    const handle = await open(place)
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(12), 0, 12, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw fromSystem(error, place, 'read')
  }
}

function isAnimated (bytes: Uint8Array): boolean {
  const text = asBuffer(bytes.subarray(0, 12)).toString('latin1')
  return /^GIF8[79]a/.test(text) || /^RIFF[^]{4}WEBP/.test(text)
}

/** Numbers of all frames of a file together. */
const maxNumbers = 2 ** 30

async function bySharp (bytes: Uint8Array, name: string): Promise<RawFrames> {
  try {
    const sharp = loadSharp()
    const options = { animated: true, limitInputPixels: false }
    const { width = 0, height: strip = 0 } = await sharp(asBuffer(bytes), options).metadata()
    if (width * strip * 3 > maxNumbers) {
      throw new ParError('BAD_IMAGE', `${name} has more than ${maxNumbers} bytes of pixels; cut it, or make it smaller`)
    }
    const { data, info } = await sharp(asBuffer(bytes), options)
      .removeAlpha().toColourspace('srgb').raw().toBuffer({ resolveWithObject: true })
    const height = info.pageHeight ?? info.height
    return { data, frames: info.height / height, width: info.width, height }
  } catch (cause) {
    if (cause instanceof ParError) throw cause
    throw outOfMemory(cause) ?? new ParError('BAD_IMAGE',
      `${name} cannot be read: ${visible((cause as Error).message, 300)}`, { cause })
  }
}
