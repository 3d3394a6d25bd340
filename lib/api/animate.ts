// A picture as it forms: a frame after every few steps, the finished picture last. Frames are kept as plain RGB at the
// model's own size, in one buffer whose length is known before the second step; they are enlarged when they are
// encoded.

import { inspect } from 'node:util'
import type { DefaultPar } from './default.js'
import { outOfMemory, type ParError } from '../base/errors.js'
import { outputPath, writeWhole } from '../base/files.js'
import { asBuffer, loadSharp, type GeneratedImage, type Image } from './image.js'
import { checkAnimate, type AnimateOptions } from './options.js'
import type { Par } from './par.js'
import { enlarge, pauses } from '../pictures/resample.js'
import { visible } from '../base/text.js'
import { invalid, isObject, nonEmptyString, oneOf, show } from '../base/validate.js'

/** Encodings of an animation. */
export type AnimationFormat = 'webp' | 'gif'

const formats: readonly AnimationFormat[] = ['webp', 'gif']

/** Pixels of all frames together, enlarged: 300 MB. */
const maxPixels = 100e6
/** Frames where the caller does not say how many. */
const usualFrames = 100
/** Longer side, in pixels, that small pictures are enlarged to where the caller does not say how much. */
const usualSide = 256
/** Longest side of a frame: that of WebP, the shorter limit of the two. */
const longestSide = 16383

/** A picture as it forms, ready to be encoded. */
export class Animation {
  /** Pixels of a frame, enlarged. */
  readonly width: number
  /** Pixels of a frame, enlarged. */
  readonly height: number
  /** Number of frames; the last one is the finished picture. */
  readonly frames: number
  /** Milliseconds that each frame is shown: [frames]. */
  readonly delays: readonly number[]
  /** The finished picture, as `generate` with the same options makes it. */
  readonly image: GeneratedImage
  readonly #pixels: Uint8Array
  readonly #scale: number

  /** @internal */
  constructor (pixels: Uint8Array, image: GeneratedImage, scale: number, delays: readonly number[]) {
    this.#pixels = pixels
    this.#scale = scale
    this.image = image
    this.delays = delays
    this.frames = delays.length
    this.width = image.width * scale
    this.height = image.height * scale
  }

  /**
   * The animation in a file format; it repeats for ever.
   * @param format webp where not given
   * @param options sharp's options for that format, e.g. `{ quality: 80, loop: 1 }`; enlarged WebP is lossless by
   * default
   * @throws ParError `INVALID_OPTION` for another format or a wrong option; `OUT_OF_MEMORY`
   */
  async toBuffer (format: AnimationFormat = 'webp', options: object = {}): Promise<Buffer<ArrayBuffer>> {
    const known = oneOf(format, 'format', formats)
    if (typeof options !== 'object' || options === null) {
      throw invalid(`options of a format must be an object, not ${show(options)}`)
    }
    const { width, height, frames } = this
    try {
      const given = { ...options } // as of now
      const input = {
        raw: { width, height: height * frames, channels: 3 as const, pageHeight: height }, limitInputPixels: false
      }
      const usual = { delay: [...this.delays], loop: 0, ...(known === 'webp' && this.#scale > 1 && { lossless: true }) }
      const pipeline = loadSharp()(asBuffer(await this.#enlarged()), input)
      return await pipeline.toFormat(known, { ...usual, ...given }).toBuffer() as Buffer<ArrayBuffer>
    } catch (cause) {
      throw outOfMemory(cause) ??
        invalid(`Could not encode the animation as ${known}: ${visible((cause as Error).message, 300)}`, { cause })
    }
  }

  /**
   * Writes a file; its extension, .webp or .gif, chooses the format. Folders must exist. The name never holds half a
   * picture.
   * @throws ParError `INVALID_OPTION` for another extension; `FILE_NOT_FOUND` where it cannot be written;
   * `OUT_OF_MEMORY`
   */
  async toFile (file: string, options: object = {}): Promise<void> {
    const format = formats.find(format => nonEmptyString(file, 'path').toLowerCase().endsWith(`.${format}`))
    if (!format) throw invalid(`The name ${show(file)} chooses no format of animations; end it in .webp or .gif`)
    const target = outputPath(file) // before the animation is encoded
    await writeWhole(target, await this.toBuffer(format, options))
  }

  async #enlarged (): Promise<Uint8Array> {
    if (this.#scale === 1) return this.#pixels
    const { image: { width, height }, frames } = this
    const into = {
      data: new Uint8Array(this.width * this.height * 3 * frames), width: this.width, height: this.height * frames
    }
    const pause = pauses()
    const length = width * height * 3
    for (let k = 0; k < frames; k++) {
      enlarge({ data: this.#pixels.subarray(k * length, (k + 1) * length), width, height }, this.#scale, into, 0,
        k * this.height)
      await pause()
    }
    return into.data
  }

  /** What it is, without the pixels. */
  toJSON (): object {
    const { width, height, frames, image } = this
    return {
      width, height, frames, durationMs: this.delays.reduce((sum, delay) => sum + delay, 0), image: image as unknown
    }
  }

  /** @internal */
  [inspect.custom] (): string {
    return `Animation { ${this.frames} frames, ${this.width} x ${this.height} px, image: ${inspect(this.image)} }`
  }
}

/**
 * Makes a picture of a class, and an animation of how it forms: a frame after every few steps, in which tokens that are
 * not drawn yet are shown as the nearest known ones, and the finished picture at the end. Every frame but the last
 * costs one decoding.
 *
 * ```js
 * const animation = await animate(par, { classId: 'sneaker', seed: 1 })
 * await animation.toFile('sneaker.webp')
 * ```
 * @param par an instance, or the default export
 * @throws ParError as `generate` does; `MISSING_PART` without a tokenizer; `INVALID_OPTION` also where all frames
 * together would have more than 100 million pixels
 */
export async function animate (par: Par | DefaultPar, options: AnimateOptions): Promise<Animation> {
  if (!isObject(par) || typeof par.stream !== 'function') throw noPar(par)
  const { every: asked, scale: given, delay, hold, generate } = checkAnimate(options)
  let pixels: Uint8Array | undefined
  let image: GeneratedImage | undefined
  let [every, frames, done, scale] = [1, 0, 0, 1]
  const events = par.stream(generate)
  if (!isObject(events) || typeof events[Symbol.asyncIterator] !== 'function') throw noPar(par)
  for await (const event of events) {
    every = asked ?? Math.ceil(event.steps / usualFrames)
    if (!event.images && event.step > 1 && event.step % every !== 0) continue
    image = event.images?.[0]
    // A preview says so where there are no pixels, and makes them again where a callback transferred them.
    const frame: Image = image?.data.length ? image : await event.preview()
    if (pixels === undefined) {
      frames = Math.floor((event.steps - 1) / every) + 1
      scale = given ?? Math.max(1, Math.floor(usualSide / Math.max(frame.width, frame.height)))
      checkSize(frame, scale, frames)
      pixels = new Uint8Array(frame.width * frame.height * 3 * frames)
    }
    // The first step was only looked at for the size, unless every step has a frame.
    if (image || event.step % every === 0) pixels.set(frame.data, done++ * frame.data.length)
  }
  if (!pixels || !image) throw noPar(par)
  return new Animation(pixels, image, scale, Array.from({ length: frames }, (_, k) => k === frames - 1 ? hold : delay))
}

function noPar (found: unknown): ParError {
  return invalid(`animate needs an instance of Par first, animate(par, { classId }), not ${show(found)}`)
}

function checkSize (frame: Image, scale: number, frames: number): void {
  const [width, height] = [frame.width * scale, frame.height * scale]
  if (Math.max(width, height) > longestSide) {
    throw invalid(`frames of ${width} x ${height} pixels are too large: ${longestSide} per side are possible. Give ` +
      'a smaller scale or size')
  }
  if (width * height * frames <= maxPixels) return
  throw invalid(`${frames} frames of ${width} x ${height} pixels are more than an animation may have ` +
    `(${maxPixels / 1e6} million pixels). ` +
    'Give a larger every, or a smaller scale or size')
}
