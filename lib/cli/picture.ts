// One picture of many: the images of a call side by side, enlarged by whole pixels. Done on plain bytes, because
// that is exact (an enlarged picture holds the very pixels the model made) and needs no image library; the
// library only packs the result into a file format.

import fs from 'node:fs/promises'
import path from 'node:path'
import { Image, type ImageFormat } from '../image.js'
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

/** Images of one size in rows of `columns`, each pixel repeated `scale` times, with a white gap between them. */
export function arrange (images: readonly Pixels[], columns: number, scale: number): Sheet {
  const first = images[0]!
  const [width, height] = [first.width * scale, first.height * scale]
  const rows = Math.ceil(images.length / columns)
  const gap = images.length > 1 ? Math.max(1, Math.round(width / 32)) : 0
  const sheet: Sheet = {
    width: columns * (width + gap) - gap,
    height: rows * (height + gap) - gap,
    data: new Uint8Array(0),
    places: images.map((_, k) => ({ x: k % columns * (width + gap), y: Math.floor(k / columns) * (height + gap), width, height }))
  }
  sheet.data = new Uint8Array(sheet.width * sheet.height * 3).fill(255)
  images.forEach((image, k) => {
    const { x, y } = sheet.places[k]!
    for (let row = 0; row < height; row++) {
      const from = Math.floor(row / scale) * image.width
      let to = ((y + row) * sheet.width + x) * 3
      for (let column = 0; column < width; column++) {
        const pixel = (from + Math.floor(column / scale)) * 3
        sheet.data[to++] = image.data[pixel]!
        sheet.data[to++] = image.data[pixel + 1]!
        sheet.data[to++] = image.data[pixel + 2]!
      }
    }
  })
  return sheet
}

/** The format asked for, or the one that the file name says, or PNG. */
export function formatOf (file: string, asked?: ImageFormat): ImageFormat {
  if (asked) return asked
  const extension = path.extname(file).slice(1).toLowerCase()
  if (file === '-' || extension === '') return 'png'
  const format = { jpg: 'jpeg', tif: 'tiff', rgb: 'raw' }[extension] ?? extension
  if (formats.includes(format as ImageFormat)) return format as ImageFormat
  throw new UsageError(`the name ${file} tells no picture format; end it in .png, .jpg, .webp, .avif, .gif or .tiff, or give --format`)
}

export async function encode ({ data, width, height }: Pixels, format: ImageFormat): Promise<Buffer> {
  return await new Image(data, width, height).toBuffer(format, format === 'jpeg' ? { quality: 95 } : {})
}

// ---- files

/** Complains before the work, not after it, about a folder that cannot take the file. */
export async function checkWritable (file: string): Promise<void> {
  const folder = path.dirname(path.resolve(file))
  const stat = await fs.stat(folder).catch(() => undefined)
  if (!stat?.isDirectory()) throw new UsageError(`cannot write ${file}: there is no folder ${folder}`)
  await fs.access(folder, fs.constants.W_OK).catch(() => { throw new UsageError(`cannot write ${file}: no permission to write in ${folder}`) })
  if ((await fs.stat(file).catch(() => undefined))?.isDirectory()) throw new UsageError(`cannot write ${file}: it is a folder`)
}

/** Writes beside the file and renames, so that the name never holds half a picture. */
export async function writeWhole (file: string, bytes: Uint8Array): Promise<void> {
  const part = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.part`)
  try {
    await fs.writeFile(part, bytes)
    await fs.rename(part, file)
  } catch (error) {
    await fs.rm(part, { force: true })
    throw error
  }
}
