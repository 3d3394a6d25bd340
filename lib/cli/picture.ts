// One picture of many: the images of a call side by side, enlarged by whole pixels. Done on plain bytes, because
// that is exact (an enlarged picture holds the very pixels the model made) and needs no image library; the
// library only packs the result into a file format.

import fs from 'node:fs/promises'
import path from 'node:path'
import { absolute, findTarget, systemReason, tryFolder, type Target } from '../files.js'
import { Image, type ImageFormat } from '../image.js'
import { enlarge } from '../resample.js'
import { shownPath } from '../text.js'
import { UsageError } from './terminal.js'

export const formats: readonly ImageFormat[] = ['png', 'jpeg', 'webp', 'avif', 'gif', 'tiff', 'raw']

/** RGB, [height, width, 3]. */
export interface Pixels {
  data: Uint8Array
  width: number
  height: number
}

export interface Sheet extends Pixels {
  /** Where each image lies, in the order given. */
  places: { x: number, y: number, width: number, height: number }[]
}

/** Sides of the sheet of `count` images, and of what is on it. */
function measure (count: number, one: { width: number, height: number }, columns: number, scale: number) {
  const [width, height] = [one.width * scale, one.height * scale]
  const gap = count > 1 ? Math.max(1, Math.round(width / 32)) : 0
  return { width, height, gap, sheetWidth: columns * (width + gap) - gap, sheetHeight: Math.ceil(count / columns) * (height + gap) - gap }
}

/** Pixels that sharp takes in one picture. */
const mostPixels = 0x3fff ** 2
/** Longest side by format, where it has such a limit. */
const longestSide: Partial<Record<ImageFormat, number>> = { webp: 16383, avif: 16384, jpeg: 65535, gif: 65535 }

/** Complains before the work about a sheet that no file could hold. */
export function checkSheet (count: number, one: { width: number, height: number }, columns: number, scale: number, format: ImageFormat): void {
  const { sheetWidth, sheetHeight } = measure(count, one, columns, scale)
  const longest = longestSide[format] ?? Infinity
  const why = sheetWidth * sheetHeight > mostPixels
    ? `at most ${mostPixels} pixels (${Math.sqrt(mostPixels)} x ${Math.sqrt(mostPixels)}) are possible`
    : Math.max(sheetWidth, sheetHeight) > longest ? `${format} goes up to ${longest} pixels a side` : undefined
  if (why) throw new UsageError(`the picture would be ${sheetWidth} x ${sheetHeight} pixels, but ${why}; choose a smaller --scale, --size or --count, or another number of --columns`)
}

/** Pictures in a row of a sheet at most, where the caller does not say how many. */
const longestRow = 12

/** Pictures in a row: a row a class where that is readable, else about as many rows as columns. */
export function columnsOf (classes: number, count: number): number {
  const row = count > 1 ? count : classes
  return row <= longestRow ? row : Math.ceil(Math.sqrt(classes * count))
}

/** Images of one size in rows of `columns`, each pixel repeated `scale` times, with a white gap between them. */
export function arrange (images: readonly Pixels[], columns: number, scale: number): Sheet {
  const { width, height, gap, sheetWidth, sheetHeight } = measure(images.length, images[0]!, columns, scale)
  const sheet: Sheet = {
    width: sheetWidth,
    height: sheetHeight,
    data: new Uint8Array(0),
    places: images.map((_, k) => ({ x: (k % columns) * (width + gap), y: Math.floor(k / columns) * (height + gap), width, height }))
  }
  sheet.data = new Uint8Array(sheet.width * sheet.height * 3).fill(255)
  images.forEach((image, k) => enlarge(image, scale, sheet, sheet.places[k]!.x, sheet.places[k]!.y))
  return sheet
}

/** The format asked for, or the one that the file name says, or PNG. */
export function formatOf (file: string, asked?: ImageFormat): ImageFormat {
  if (asked) return asked
  const extension = path.extname(file).slice(1).toLowerCase()
  if (file === '-' || extension === '') return 'png'
  const format = { jpg: 'jpeg', tif: 'tiff', rgb: 'raw' }[extension] ?? extension
  if (formats.includes(format as ImageFormat)) return format as ImageFormat
  throw new UsageError(`the name ${shownPath(file)} tells no picture format; end it in .png, .jpg, .webp, .avif, .gif or .tiff, or give --format`)
}

export async function encode ({ data, width, height }: Pixels, format: ImageFormat): Promise<Buffer> {
  return await new Image(data, width, height).toBuffer(format, format === 'jpeg' ? { quality: 95 } : {})
}

// ---- files

/** Complains before the work, not after it, about a name or a folder that cannot take the file. */
export async function checkWritable (file: string, tried = new Set<string>()): Promise<Target> {
  if (file === '') throw new UsageError('the name of the output file is empty; leave the option out for a name made of the options')
  const refused = (why: string, cause?: unknown): UsageError => new UsageError(`cannot write ${shownPath(file)}: ${why}`, { cause })
  const folder = path.dirname(absolute(file))
  if (!(await fs.stat(folder).catch(() => undefined))?.isDirectory()) throw refused(`there is no folder ${shownPath(folder)}`)
  let target: Target
  try {
    target = await findTarget(file)
    if (target.kind === 'special' || target.kind === 'file') await fs.access(file, fs.constants.W_OK)
  } catch (cause) {
    throw refused(systemReason(cause, 'written'), cause)
  }
  if (target.kind === 'folder') throw refused('it is a folder')
  const place = path.dirname(target.path)
  if (target.kind !== 'special' && !tried.has(place)) {
    await checkFolder(place)
    tried.add(place)
  }
  return target
}

/** The same for several files. Their folders are tried once each. */
export async function checkAllWritable (files: readonly string[]): Promise<void> {
  const tried = new Set<string>()
  for (const file of files) await checkWritable(file, tried)
}

/** Complains about a folder in which no file can be made. */
export async function checkFolder (folder: string): Promise<void> {
  await tryFolder(folder).catch((cause: unknown) => {
    throw new UsageError(`no file can be made in ${shownPath(absolute(folder))}: ${systemReason(cause, 'written')}`, { cause })
  })
}
