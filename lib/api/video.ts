// Videos as callers hold them: frames of RGB, and the way to files. sharp writes animated WebP and GIF; what needs a
// video encoder goes to the user's own ffmpeg.

import path from 'node:path'
import { inspect } from 'node:util'
import { outOfMemory, ParError } from '../base/errors.js'
import { absolute, outputPath, writeWhole } from '../base/files.js'
import { isFloat32Array, isUint8Array } from '../base/realm.js'
import { quote, visible } from '../base/text.js'
import { integer, invalid, nonEmptyString, oneOf, show } from '../base/validate.js'
import { encodeVideo } from '../pictures/ffmpeg.js'
import { writeNpyBytes } from '../pictures/npy.js'
import { writeY4m } from '../pictures/y4m.js'
import { asBuffer, Image, loadSharp, type Timings } from './image.js'

/**
 * Encodings of a video. `npy`: NumPy's bytes, [frames, height, width, 3]; `y4m`: YUV4MPEG2, 4:4:4; `raw`: the RGB bytes
 * themselves. `mp4` (H.264) and `webm` (VP9) need ffmpeg on the machine.
 */
export type VideoFormat = 'webp' | 'gif' | 'npy' | 'y4m' | 'raw' | 'mp4' | 'webm'

export const videoFormats: readonly VideoFormat[] = ['webp', 'gif', 'npy', 'y4m', 'raw', 'mp4', 'webm']
/** By the ending of a name. */
export const videoExtensions: Readonly<Record<string, VideoFormat>> = {
  '.webp': 'webp', '.gif': 'gif', '.npy': 'npy', '.y4m': 'y4m', '.raw': 'raw', '.rgb': 'raw', '.mp4': 'mp4',
  '.webm': 'webm'
}
/** Longest side of a frame of WebP and GIF, the shorter limit of the two. */
const longestSide = 16383

/** The number of a frame in a name: %d, or %03d with so many digits at least. */
const numbered = /%(?:0(\d))?d/

/** A video. Frames are in `data`; the methods encode them. */
export class Video<Data extends Uint8Array | Float32Array = Uint8Array<ArrayBuffer>> {
  /** RGB, [frames, height, width, 3]: bytes, or floats that are nominally 0..1. Empty where no tokenizer was loaded. */
  readonly data: Data
  /** Number of frames. */
  readonly frames: number
  /** Pixels; 0 where no tokenizer was loaded. */
  readonly width: number
  /** Pixels; 0 where no tokenizer was loaded. */
  readonly height: number
  /** Frames a second. */
  readonly fps: number

  constructor (
    { data, frames, width, height, fps }: Pick<Video<Data>, 'data' | 'frames' | 'width' | 'height' | 'fps'>
  ) {
    this.data = data
    this.frames = frames
    this.width = width
    this.height = height
    this.fps = fps
  }

  /** RGB bytes, [frames, height, width, 3]. Floats become `floor(255 x)`, clamped to 0..255, as the authors do. */
  bytes (): Uint8Array<ArrayBuffer> {
    const data: Uint8Array | Float32Array = this.data
    if (isUint8Array(data)) return data as Uint8Array<ArrayBuffer>
    if (!isFloat32Array(data)) {
      throw invalid(`data of a video must be a Uint8Array or a Float32Array, not ${show(data)}`)
    }
    const bytes = new Uint8Array(data.length)
    for (let i = 0; i < data.length; i++) {
      const x = data[i]!
      bytes[i] = x > 0 ? Math.min(255, Math.fround(255 * x)) : 0
    }
    return bytes
  }

  /**
   * One frame as a picture, with pixels of its own.
   * @param index 0 to frames - 1
   * @throws ParError `INVALID_OPTION`; `MISSING_PART` where there are no pixels
   */
  frame (index: number): Image {
    integer(index, 'index', 0, this.frames - 1)
    const length = this.width * this.height * 3
    return new Image(bytesOf(this).slice(index * length, (index + 1) * length), this.width, this.height)
  }

  /**
   * The video in a file format; WebP and GIF repeat for ever.
   * @param format webp where not given
   * @param options of WebP and GIF: sharp's options for that format, e.g. `{ lossless: true, loop: 1 }`
   * @throws ParError `MISSING_PART` where there are no pixels; `INVALID_OPTION`, also for a format of single pictures;
   * `NATIVE_UNAVAILABLE` where mp4 or webm is asked for and there is no ffmpeg; `OUT_OF_MEMORY`
   */
  async toBuffer (format: VideoFormat = 'webp', options: object = {}): Promise<Buffer<ArrayBuffer>> {
    const known = oneOf(format, 'format', videoFormats)
    if (typeof options !== 'object' || options === null) {
      throw invalid(`options of a format must be an object, not ${show(options)}`)
    }
    const data = Buffer.from(asBuffer(bytesOf(this))) // as of now: it is read later
    const { width, height, frames, fps } = this
    const isSharp = known === 'webp' || known === 'gif'
    if (!isSharp && Object.keys(options).length > 0) throw invalid(`${known} takes no options`)
    try {
      switch (known) {
        case 'webp': case 'gif': return await animated(this, data, known, { ...options })
        case 'npy': return writeNpyBytes(data, [frames, height, width, 3]) as Buffer<ArrayBuffer>
        case 'y4m': return await writeY4m(data, { width, height, fps }) as Buffer<ArrayBuffer>
        case 'raw': return data
        default: return await encodeVideo(data, { width, height, fps }, known) as Buffer<ArrayBuffer>
      }
    } catch (cause) {
      throw outOfMemory(cause) ?? cause
    }
  }

  /**
   * Writes a file; its extension chooses the format: .webp .gif .npy .y4m .raw .mp4 .webm. A name with `%d` or `%03d`
   * that ends as a picture does (.png .jpg ...) stands for a file for each frame. Folders must exist. A name never
   * holds half of a file.
   * @throws ParError as {@link Video.toBuffer} does; `INVALID_OPTION` for another extension; `FILE_NOT_FOUND` where it
   * cannot be written
   */
  async toFile (file: string, options: object = {}): Promise<void> {
    const name = path.basename(nonEmptyString(file, 'path'))
    const format = videoExtensions[path.extname(name).toLowerCase()]
    if (!format && numbered.test(name)) {
      const target = absolute(file)
      const video = new Video({ ...this, data: bytesOf(this) }) // floats become bytes once
      for (let index = 0; index < this.frames; index++) {
        const number = name.replace(numbered, (_, digits = '1') => String(index).padStart(Number(digits), '0'))
        await video.frame(index).toFile(path.join(path.dirname(target), number), options)
      }
      return
    }
    if (!format) {
      throw invalid(`The name ${show(file)} chooses no format of videos; end it in ` +
        `${Object.keys(videoExtensions).join(', ')}, or write frames: frame-%02d.png`)
    }
    const target = outputPath(file) // before the video is encoded
    await writeWhole(target, await this.toBuffer(format, options))
  }

  /** What the video is, without pixels: for logs and answers. */
  toJSON (): object {
    const { width, height, frames, fps } = this
    return { width, height, frames, fps }
  }

  /** @internal */
  [inspect.custom] (): string {
    return `Video { ${shownSize(this)} }`
  }
}

/** A generated video, and all that is needed to make it again. */
export class GeneratedVideo extends Video {
  /** Raster order, frame after frame: [latent frames * rows * columns]. */
  readonly tokens: Int32Array
  /** Tokens: [latent frames, rows, columns]. */
  readonly grid: [frames: number, rows: number, columns: number]
  /** 0 to classes - 1; undefined where text was given in its place. */
  readonly classId: number | undefined
  /** The text tokens that were given in place of a class. */
  readonly prefix: readonly number[] | undefined
  /** Name of the class, where the model has names. */
  readonly label: string | undefined
  /** Tokens a step. */
  readonly n: number
  /** `generateVideo({ classId, seed })` with the same other options makes the same bytes, alone or in any list. */
  readonly seed: number
  /** Steps that the tokens were drawn in. */
  readonly steps: number
  /** Passes that the transformer ran for them: as many as steps, or fewer (option `passes`). */
  readonly passes: number
  /** How long it took. */
  readonly timings: Timings

  constructor (fields: Pick<GeneratedVideo,
    'data' | 'frames' | 'width' | 'height' | 'fps' | 'tokens' | 'grid' | 'classId' | 'prefix' | 'label' | 'n' |
    'seed' | 'steps' | 'passes' | 'timings'>) {
    super(fields)
    this.tokens = fields.tokens
    this.grid = fields.grid
    this.classId = fields.classId
    this.prefix = fields.prefix
    this.label = fields.label
    this.n = fields.n
    this.seed = fields.seed
    this.steps = fields.steps
    this.passes = fields.passes
    this.timings = fields.timings
  }

  /** What the video is and how to make it again, without pixels and tokens: for logs and answers. */
  override toJSON (): object {
    const { width, height, frames, fps, classId, prefix, label, n, seed, steps, passes, timings } = this
    return { width, height, frames, fps, classId, prefix, label, n, seed, steps, passes, timings }
  }

  /** @internal */
  override [inspect.custom] (): string {
    const { classId, prefix, label, n, seed, steps, tokens, timings } = this
    const name = label === undefined ? '' : ` ${quote(label)}`
    const of = prefix ? `text ${prefix.join(' ')}` : `class ${classId}${name}`
    return `GeneratedVideo { ${shownSize(this)}, ${of}, n ${n}, seed ${seed}, ${steps} ` +
      `steps, ${tokens.length} tokens, ${Math.round(timings.totalMs)} ms }`
  }
}

type AnyVideo = Video<Uint8Array | Float32Array>

function shownSize ({ frames, width, height, fps }: AnyVideo): string {
  return width > 0 ? `${frames} frames of ${width} x ${height} px, ${fps} a second` : 'no pixels'
}

function bytesOf (video: AnyVideo): Uint8Array<ArrayBuffer> {
  const { data, frames, width, height } = video
  if (width === 0) {
    throw new ParError('MISSING_PART',
      'This video has tokens but no pixels, because no tokenizer was loaded')
  }
  if (data.length !== frames * width * height * 3) {
    throw invalid(`data of this video of ${frames} x ${width} x ${height} pixels has ${data.length} bytes: its ` +
      'memory was transferred, to a worker for instance. Encode the video before, or transfer a copy: data.slice()')
  }
  return video.bytes()
}

async function animated (
  { frames, width, height, fps }: AnyVideo, data: Buffer, format: 'webp' | 'gif', options: object
): Promise<Buffer<ArrayBuffer>> {
  if (Math.max(width, height) > longestSide) {
    throw invalid(`frames of ${width} x ${height} pixels are too large for ${format}: ${longestSide} per side are ` +
      'possible')
  }
  try {
    const pipeline = loadSharp()(data, {
      raw: { width, height: height * frames, channels: 3, pageHeight: height }, limitInputPixels: false
    })
    // One entry a frame: sharp takes a number for the first frame alone.
    const delay = Array.from({ length: frames }, () => Math.round(1000 / fps))
    return await pipeline.toFormat(format, { delay, loop: 0, ...options }).toBuffer() as Buffer<ArrayBuffer>
  } catch (cause) {
    throw outOfMemory(cause) ??
      invalid(`Could not encode the video as ${format}: ${visible((cause as Error).message, 300)}`, { cause })
  }
}
