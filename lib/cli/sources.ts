// Picture files that go in: read once (a pipe can be read no more often), described as far as what was done to them has
// to be said, and made what the tokenizer sees.

import fs from 'node:fs'
import { ParError } from '../base/errors.js'
import { fromSystem, readWhole } from '../base/files.js'
import { loadSharp, type Image } from '../api/image.js'
import { limits } from '../machine/limits.js'
import type { Par, TokenizerInfo } from '../api/par.js'
import type { Size } from '../api/options.js'
import { shownPath } from '../base/text.js'
import { fileOfURL } from '../base/windows.js'
import { orAborted } from './signals.js'
import { UsageError, note, shown, type CommonFlags } from './terminal.js'

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

// ---- reading

/** Bytes of one input at most; /dev/zero and a pipe that is never closed have to end somewhere. */
export const maxSourceBytes = 2 ** 28

/** How messages call an input. */
export function sourceName (file: string): string {
  return file === '-' ? 'standard input' : shownPath(file)
}

/** Complains about names that cannot be inputs, before anything is read or loaded. */
export function checkSources (files: readonly string[]): void {
  for (const file of files) checkSource(file)
  if (files.filter(file => file === '-').length > 1) {
    throw new UsageError('standard input can be read once only; give - once')
  }
}

function checkSource (file: string): void {
  const pipe = 'pipe the bytes into it and give - as the file'
  if (file === '') throw new UsageError('the name of an input file is empty')
  if (file === '-' && process.stdin.isTTY) {
    throw new UsageError('standard input is a terminal; pipe a file into it, or give the name of a file')
  }
  if (/^data:/i.test(file)) {
    throw new UsageError(`this is a data: URL, not the name of a file; decode it (base64 -d), then ${pipe}`)
  }
  if (/^file:\/\//i.test(file)) {
    const place = fileOfURL(file)
    throw new UsageError(`${shownPath(file)} is an address; give the path of the file` +
      `${place === undefined ? '' : `: ${shownPath(place)}`}`)
  }
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(file)) {
    throw new UsageError(
      `${shownPath(file)} is an address, and parvis fetches no pictures; fetch it yourself (curl), then ${pipe}`
    )
  }
  if (file.length > 1024 && /^[\w+/=\s-]+$/.test(file)) {
    throw new UsageError(
      `a text of ${file.length} characters is no name of a file; if it is base64, decode it (base64 -d), then ${pipe}`
    )
  }
}

/** The bytes of a file or a pipe or, for -, of standard input. @throws ParError `FILE_NOT_FOUND` */
export async function readSource (file: string, signal: AbortSignal): Promise<Buffer> {
  checkSource(file)
  if (file !== '-') {
    return await readWhole(file, { limit: maxSourceBytes, pipes: true, check: () => signal.throwIfAborted() })
  }
  try {
    // Node.js reads a folder as a stream without bytes.
    if (fs.fstatSync(0).isDirectory()) throw Object.assign(new Error('a folder'), { code: 'EISDIR' })
    return await orAborted(readStandardInput(), signal)
  } catch (error) {
    throw fromSystem(error, sourceName(file), 'read')
  } finally {
    process.stdin.destroy()
  }
}

async function readStandardInput (): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > maxSourceBytes) {
      throw new ParError('FILE_NOT_FOUND',
        `standard input: cannot be read: it has more than ${maxSourceBytes} bytes, which is the limit. Is it the ` +
          'right file?')
    }
  }
  return Buffer.concat(chunks)
}

// ---- pictures

/** `--size` as tokens. */
export function gridOfSize (
  size: Size | undefined, { factor }: TokenizerInfo
): [rows: number, columns: number] | undefined {
  if (size === undefined) return undefined
  const { width, height } = typeof size === 'number' ? { width: size, height: size } : size
  if (width % factor || height % factor) {
    throw new UsageError(`--size ${width}x${height}: a token of this tokenizer is ${factor} x ${factor} pixels, so ` +
      `both sides must be multiples of ${factor}`)
  }
  if (Math.max(width, height) > limits.gridSide * factor) {
    throw new UsageError(`--size ${width}x${height}: this tokenizer takes at most ${limits.gridSide * factor} ` +
      `pixels a side (${limits.gridSide} tokens)`)
  }
  return [height / factor, width / factor]
}

/** Makes the tokens of a picture file. */
export async function encodeFile (
  par: Par, file: string, bytes: Buffer, flags: PictureFlags, signal: AbortSignal
): Promise<Encoded> {
  const { factor } = par.info.tokenizer!
  const grid = gridOfSize(flags.size, par.info.tokenizer!)
  const picture = await par.prepare(bytes,
    { grid, crop: flags.crop, background: flags.background, signal }).catch((error: unknown) => {
    throw named(error, file)
  })
  const own: [number, number] = [picture.height / factor, picture.width / factor]
  const tokens = await par.encode({ data: picture.data, width: picture.width, height: picture.height },
    { grid: own, signal })
  const notes = await notesOn(bytes, flags)
  if (!flags.json) for (const text of notes) note(shown`parvis: ${sourceName(file)}: ${text}`)
  return { picture, grid: own, tokens, notes }
}

/** The library was given bytes; whoever reads its errors gave a file. */
function named (error: unknown, file: string): unknown {
  if (!(error instanceof ParError) || error.code !== 'BAD_IMAGE') return error
  return new ParError(error.code, error.message.replace('the given picture', () => sourceName(file)), { cause: error })
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
