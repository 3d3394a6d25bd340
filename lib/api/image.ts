// Pictures as callers hold them: interleaved RGB, and the way to files and other formats. sharp does the encoding and
// is loaded by the first call that needs it, so that programs that only want tokens or pixels never pay for it.

import { Blob as NodeBlob } from 'node:buffer'
import path from 'node:path'
import { inspect } from 'node:util'
import type sharpModule from 'sharp'
import { outOfMemory, ParError } from '../base/errors.js'
import { outputPath, writeWhole } from '../base/files.js'
import { isFloat32Array, isUint8Array } from '../base/realm.js'
import { quote, visible } from '../base/text.js'
import { invalid, nonEmptyString, oneOf, show } from '../base/validate.js'

type Sharp = typeof sharpModule

/** Encodings of a picture; `raw` is the RGB bytes themselves. */
export type ImageFormat = 'png' | 'jpeg' | 'webp' | 'avif' | 'gif' | 'tiff' | 'raw'

const formats: readonly ImageFormat[] = ['png', 'jpeg', 'webp', 'avif', 'gif', 'tiff', 'raw']
const extensions: Record<string, ImageFormat> = {
  '.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.webp': 'webp', '.avif': 'avif', '.gif': 'gif', '.tif': 'tiff',
  '.tiff': 'tiff', '.raw': 'raw', '.rgb': 'raw'
}

/** sharp, at first use. */
export function loadSharp (): Sharp {
  try {
    return require('sharp') as Sharp
  } catch (cause) {
    throw new ParError('NATIVE_UNAVAILABLE',
      'Picture files need the package sharp, which could not be ' +
        `loaded: ${visible((cause as Error).message.replace(/\s+/g, ' '), 900)}`, { cause })
  }
}

/** The same memory as sharp takes it in any realm: it tells other arrays by the constructors of its own. */
export function asBuffer (bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** A picture. Pixels are in `data`; the methods encode them. */
export class Image<Data extends Uint8Array | Float32Array = Uint8Array<ArrayBuffer>> {
  /** RGB, [height, width, 3]: bytes, or floats that are nominally -1..1. Empty where no tokenizer was loaded. */
  readonly data: Data
  /** Pixels; 0 where no tokenizer was loaded. */
  readonly width: number
  /** Pixels; 0 where no tokenizer was loaded. */
  readonly height: number

  constructor (data: Data, width: number, height: number) {
    this.data = data
    this.width = width
    this.height = height
  }

  /** RGB bytes, [height, width, 3]. Floats become `clamp(127.5 x + 128, 0, 255)`, truncated, as the authors do. */
  bytes (): Uint8Array<ArrayBuffer> {
    const data: Uint8Array | Float32Array = this.data
    if (isUint8Array(data)) return data as Uint8Array<ArrayBuffer>
    if (!isFloat32Array(data)) {
      throw invalid(`data of a picture must be a Uint8Array or a Float32Array, not ${show(data)}`)
    }
    // A plain loop: Uint8Array.from() takes twenty times as long, all of it on this thread.
    const bytes = new Uint8Array(data.length)
    for (let i = 0; i < data.length; i++) {
      const x = data[i]!
      bytes[i] = x > -128 / 127.5 ? Math.min(255, 127.5 * x + 128) : 0 // clamping below 0 also takes NaN to 0
    }
    return bytes
  }

  /**
   * The picture in a file format.
   * @param format png where not given
   * @param options sharp's options for that format, e.g. `{ quality: 90 }`
   * @throws ParError `MISSING_PART` where there are no pixels; `INVALID_OPTION` where they were transferred, for an
   * unknown format or a wrong option; `OUT_OF_MEMORY`
   */
  async toBuffer (format: ImageFormat | 'jpg' = 'png', options: object = {}): Promise<Buffer<ArrayBuffer>> {
    const known = oneOf(format === 'jpg' ? 'jpeg' : format, 'format', formats)
    if (typeof options !== 'object' || options === null) {
      throw invalid(`options of a format must be an object, not ${show(options)}`)
    }
    if (known === 'raw') return ownBytes(this)
    const picture = this.sharp()
    try {
      return await picture.toFormat(known, options).toBuffer() as Buffer<ArrayBuffer>
    } catch (cause) {
      throw outOfMemory(cause) ??
        invalid(`Could not encode the picture as ${known}: ${visible((cause as Error).message, 300)}`, { cause })
    }
  }

  /**
   * Writes a file; its extension chooses the format (.png .jpg .webp .avif .gif .tiff .raw). Folders must exist.
   * The name never holds half a picture: a file that is replaced is there until the new one is whole, and passes on its
   * mode and, where possible, its owner.
   * @throws ParError `INVALID_OPTION` for another extension; `FILE_NOT_FOUND` where it cannot be written.
   */
  async toFile (file: string, options: object = {}): Promise<void> {
    const extension = path.extname(nonEmptyString(file, 'path')).toLowerCase()
    const format = extensions[extension]
    if (!format) {
      throw invalid(`The name ${show(file)} chooses no picture format; end it in ${Object.keys(extensions).join(', ')}`)
    }
    const target = outputPath(file) // before the picture is encoded
    await writeWhole(target, await this.toBuffer(format, options))
  }

  /**
   * The picture as an address that holds it, `data:image/png;base64,...`, for an `<img>` in HTML or JSON.
   * @param format png where not given; all but `raw`
   * @param options sharp's options for that format
   * @throws ParError as {@link Image.toBuffer} does
   */
  async toDataURL (format: Exclude<ImageFormat, 'raw'> | 'jpg' = 'png', options: object = {}): Promise<string> {
    if (format === 'raw' as string) throw invalid('A data: URL needs a picture format such as png; raw pixels are none')
    const bytes = await this.toBuffer(format, options)
    return `data:${mediaType(format)};base64,${bytes.toString('base64')}`
  }

  /**
   * The picture as a Blob of its media type, for `fetch`, `FormData` and `Response`.
   * @param format png where not given
   * @param options sharp's options for that format
   * @throws ParError as {@link Image.toBuffer} does
   */
  async toBlob (format: ImageFormat | 'jpg' = 'png', options: object = {}): Promise<Blob> {
    const bytes = await this.toBuffer(format, options)
    return new NodeBlob([bytes], { type: mediaType(format) }) as unknown as Blob
  }

  /** What the picture is, without pixels: for logs and answers. `toDataURL()` gives the pixels as text. */
  toJSON (): object {
    const { width, height } = this
    return { width, height }
  }

  /** @internal */
  [inspect.custom] (): string {
    return `Image { ${shownSize(this)}${isFloat32Array(this.data) ? ', float32' : ''} }`
  }

  /** A sharp pipeline on a copy of the pixels, to resize, compose or encode as you like. */
  sharp (): ReturnType<Sharp> {
    return loadSharp()(ownBytes(this), { raw: { width: this.width, height: this.height, channels: 3 } })
  }
}

// Functions, not private methods: those refuse a Proxy of a picture, such as frameworks of user interfaces make.

/** The bytes in memory of their own: they are read later, when the caller may have changed or transferred `data`. */
function ownBytes (image: Image<Uint8Array | Float32Array>): Buffer<ArrayBuffer> {
  const bytes = image.bytes()
  if (bytes.length === 0) throw noPixels(image)
  return bytes === image.data ? Buffer.from(asBuffer(bytes)) : Buffer.from(bytes.buffer)
}

function noPixels ({ width, height }: { width: number, height: number }): ParError {
  if (width === 0) {
    return new ParError('MISSING_PART',
      'This picture has tokens but no pixels, because no tokenizer was loaded; decode() of a tokenizer makes them')
  }
  return invalid(`data of this picture of ${width} x ${height} pixels is empty: its memory was transferred, to a ` +
    'worker for instance. ' +
    'Encode the picture before, or transfer a copy: data.slice()')
}

function mediaType (format: ImageFormat | 'jpg'): string {
  return format === 'raw' ? 'application/octet-stream' : `image/${format === 'jpg' ? 'jpeg' : format}`
}

function shownSize ({ width, height }: { width: number, height: number }): string {
  return width > 0 ? `${width} x ${height} px` : 'no pixels'
}

/** Milliseconds that the batch took in which the picture was made. */
export interface Timings {
  /** Steps of the transformer, first to last, with the time that a consumer of the stream took between them. */
  transformerMs: number
  /** 0 where no tokenizer was loaded. */
  decodeMs: number
  /** Both. */
  totalMs: number
}

/** A generated picture, and all that is needed to make it again. */
export class GeneratedImage extends Image {
  /** Raster order, [rows * columns]. */
  readonly tokens: Int32Array
  /**
   * Raster cells in the order in which they were drawn, [rows * columns]. As the option of that name it makes the same
   * picture again, for decoders that take it (ARPG, LPD, RandAR).
   */
  readonly tokenOrder: Int32Array
  /** 0 to classes - 1. */
  readonly classId: number
  /** Name of the class, where the model has names. */
  readonly label: string | undefined
  /** Tokens a step, of PAR; 1 for decoders whose steps differ in size. */
  readonly n: number
  /** `generate({ classId, seed })` with the same other options makes the same bytes, alone or in any list. */
  readonly seed: number
  /** Steps that the tokens were drawn in. */
  readonly steps: number
  /** Passes that the transformer ran for them: as many as steps, or fewer (option `passes`). */
  readonly passes: number
  /** How long it took. */
  readonly timings: Timings

  constructor (
    fields: Pick<GeneratedImage, 'data' | 'width' | 'height' | 'tokens' | 'tokenOrder' | 'classId' | 'label' | 'n' |
      'seed' | 'steps' | 'passes' | 'timings'>
  ) {
    super(fields.data, fields.width, fields.height)
    this.tokens = fields.tokens
    this.classId = fields.classId
    this.label = fields.label
    this.n = fields.n
    this.seed = fields.seed
    this.steps = fields.steps
    this.passes = fields.passes
    this.tokenOrder = fields.tokenOrder
    this.timings = fields.timings
  }

  /** What the picture is and how to make it again, without pixels and tokens: for logs and answers. */
  override toJSON (): object {
    const { width, height, classId, label, n, seed, steps, passes, timings } = this
    return { width, height, classId, label, n, seed, steps, passes, timings }
  }

  /** @internal */
  override [inspect.custom] (): string {
    const { classId, label, n, seed, steps, tokens, timings } = this
    const name = label === undefined ? '' : ` ${quote(label)}`
    return `GeneratedImage { ${shownSize(this)}, class ${classId}${name}, n ${n}, seed ${seed}, ${steps} ` +
      `steps, ${tokens.length} tokens, ${Math.round(timings.totalMs)} ms }`
  }
}
