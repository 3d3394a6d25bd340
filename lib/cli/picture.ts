// One picture of many: the images of a call side by side, enlarged by whole pixels. Done on plain bytes, because
// that is exact (an enlarged picture holds the very pixels the model made) and needs no image library; the
// library only packs the result into a file format.

import path from 'node:path'
import { Image, type ImageFormat } from '../api/image.js'
import { enlarge } from '../pictures/resample.js'
import { shownPath } from '../base/text.js'
import { isFolderName } from './names.js'
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
  return {
    width, height, gap, sheetWidth: columns * (width + gap) - gap,
    sheetHeight: Math.ceil(count / columns) * (height + gap) - gap
  }
}

/** Pixels that sharp takes in one picture. */
const maxPixels = 0x3fff ** 2
/** Longest side by format, where it has such a limit. */
const longestSide: Partial<Record<ImageFormat, number>> = { webp: 16383, avif: 16384, jpeg: 65535, gif: 65535 }

/**
 * Complains before the work about a sheet that no file could hold.
 * @param cure what the command has that makes it smaller
 */
export function checkSheet (
  count: number, one: { width: number, height: number }, columns: number, scale: number, format: ImageFormat,
  cure = 'choose a smaller --scale or --size'
): void {
  const { sheetWidth, sheetHeight } = measure(count, one, columns, scale)
  const longest = longestSide[format] ?? Infinity
  const why = sheetWidth * sheetHeight > maxPixels
    ? `at most ${maxPixels} pixels (${Math.sqrt(maxPixels)} x ${Math.sqrt(maxPixels)}) are possible`
    : Math.max(sheetWidth, sheetHeight) > longest ? `${format} goes up to ${longest} pixels a side` : undefined
  if (why) throw new UsageError(`the picture would be ${sheetWidth} x ${sheetHeight} pixels, but ${why}; ${cure}`)
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
    places: images.map((_, k) =>
      ({ x: (k % columns) * (width + gap), y: Math.floor(k / columns) * (height + gap), width, height }))
  }
  sheet.data = new Uint8Array(sheet.width * sheet.height * 3).fill(255)
  images.forEach((image, k) => enlarge(image, scale, sheet, sheet.places[k]!.x, sheet.places[k]!.y))
  return sheet
}

/**
 * The format asked for, or the one that the file name says, or PNG.
 * @param cure the command's flag that asks for one, as a half sentence
 */
export function formatOf (file: string, asked?: ImageFormat, cure = ', or give --format'): ImageFormat {
  if (asked) return asked
  const extension = path.extname(file).slice(1).toLowerCase()
  if (file === '-' || extension === '' || isFolderName(file)) return 'png'
  const format = { jpg: 'jpeg', tif: 'tiff', rgb: 'raw' }[extension] ?? extension
  if (formats.includes(format as ImageFormat)) return format as ImageFormat
  throw new UsageError(
    `the name ${shownPath(file)} tells no picture format; end it in .png, .jpg, .webp, .avif, .gif or .tiff${cure}`
  )
}

export async function encode ({ data, width, height }: Pixels, format: ImageFormat): Promise<Buffer> {
  return await new Image(data, width, height).toBuffer(format, format === 'jpeg' ? { quality: 95 } : {})
}
