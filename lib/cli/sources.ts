// Picture files that go in: read once (a pipe can be read no more often), described as far as what was done to them has
// to be said, and made what the tokenizer sees.

import { ParError } from '../errors.js'
import { readWhole } from '../files.js'
import { loadSharp, type Image } from '../image.js'
import type { Par, TokenizerInfo } from '../par.js'
import type { Size } from '../options.js'
import { UsageError, note, type CommonFlags } from './terminal.js'

export interface PictureFlags extends CommonFlags {
  size?: Size
  crop: boolean
  background: string
}

export interface Encoded {
  /** What the tokenizer saw. */
  picture: Image
  grid: [rows: number, columns: number]
  /** Raster order. */
  tokens: Int32Array
  /** What was done to the file's picture that its looks may not tell. */
  notes: string[]
}

/** A pipe, too. What it waits for ends with the signal. */
export async function readSource (file: string, signal: AbortSignal): Promise<Buffer> {
  return await readWhole(file, { pipes: true, check: () => signal.throwIfAborted() })
}

/** `--size` as tokens. */
export function gridOfSize (size: Size | undefined, { factor }: TokenizerInfo): [rows: number, columns: number] | undefined {
  if (size === undefined) return undefined
  const { width, height } = typeof size === 'number' ? { width: size, height: size } : size
  if (width % factor || height % factor) {
    throw new UsageError(`--size ${width}x${height}: a token of this tokenizer is ${factor} x ${factor} pixels, so both sides must be multiples of ${factor}`)
  }
  return [height / factor, width / factor]
}

/** Makes the tokens of a picture file. */
export async function encodeFile (par: Par, file: string, bytes: Buffer, flags: PictureFlags, signal: AbortSignal): Promise<Encoded> {
  const { factor } = par.info.tokenizer!
  const grid = gridOfSize(flags.size, par.info.tokenizer!)
  const picture = await par.prepare(bytes, { grid, crop: flags.crop, background: flags.background, signal }).catch((error: unknown) => {
    throw named(error, file)
  })
  const own: [number, number] = [picture.height / factor, picture.width / factor]
  const tokens = await par.encode({ data: picture.data, width: picture.width, height: picture.height }, { grid: own, signal })
  const notes = await notesOn(bytes, flags)
  if (!flags.json) for (const text of notes) note(`parvis: ${file}: ${text}`)
  return { picture, grid: own, tokens, notes }
}

/** The library was given bytes; whoever reads its errors gave a file. */
function named (error: unknown, file: string): unknown {
  if (!(error instanceof ParError) || error.code !== 'BAD_IMAGE') return error
  return new ParError(error.code, error.message.replace('the given picture', file), { cause: error })
}

async function notesOn (bytes: Buffer, { background }: PictureFlags): Promise<string[]> {
  const { pages = 1, orientation = 1, hasAlpha, space, depth } = await loadSharp()(bytes).metadata()
  return [
    ...(pages > 1 ? [`the first of ${pages} frames`] : []),
    ...(orientation > 1 ? [`turned upright (EXIF orientation ${orientation})`] : []),
    ...(hasAlpha ? [`transparency laid on ${background}`] : []),
    ...(space === 'cmyk' ? ['converted from CMYK'] : []),
    ...(depth && depth !== 'uchar' ? ['rounded to 8 bits'] : [])
  ]
}
