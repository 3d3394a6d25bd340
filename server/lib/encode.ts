// Pixels to files, and masks to cells.

import sharp from 'sharp'
import type { Pixels } from './engine.js'
import type { Format } from './fields.js'
import { RequestError } from './failures.js'

const quality = 90

/** A picture file. @param compression of jpeg and webp: 0 to 100 */
export async function fileOf ({ data, width, height }: Pixels, format: Format, compression = quality): Promise<Buffer> {
  const image = sharp(data, { raw: { width, height, channels: 3 } })
  switch (format) {
    case 'jpeg': return await image.jpeg({ quality: Math.max(1, compression) }).toBuffer()
    case 'webp': return await image.webp({ quality: Math.max(1, compression) }).toBuffer()
    default: return await image.png().toBuffer()
  }
}

export const dataUrl = (file: Buffer, format: Format): string =>
  `data:image/${format};base64,${file.toString('base64')}`

/** Max pixels of a picture that is sent: what is unpacked of it stays small. */
const maxPicturePixels = 1 << 24

/** By its first bytes, before any reader of libvips sees it: an SVG is a program. */
function isPicture (file: Uint8Array): boolean {
  const head = Buffer.from(file.buffer, file.byteOffset, Math.min(12, file.length)).toString('latin1')
  return head.startsWith('\x89PNG\r\n\x1a\n') || head.startsWith('\xff\xd8\xff') ||
    (head.startsWith('RIFF') && head.slice(8) === 'WEBP')
}

/** @throws RequestError for a file that is no picture, or too large a one */
export async function checkPicture (file: Uint8Array, param: 'mask' | 'image'): Promise<void> {
  const bad = (why: string): RequestError => new RequestError(400, 'bad_image', `The ${param} ${why}`, param)
  if (!isPicture(file)) throw bad('is no PNG, JPEG or WebP')
  await sharp(file, { limitInputPixels: maxPicturePixels }).metadata()
    .catch(() => { throw bad(`could not be read, or has more than ${maxPicturePixels} pixels`) })
}

/**
 * Which cells of a picture are kept, [rows * columns]: those that have no pixel which the mask lets through. Mask and
 * picture are cropped alike, to the middle of the shape of the grid.
 */
export async function keptCells (
  file: Uint8Array, [rows, columns]: readonly [rows: number, columns: number], param: 'mask' | 'image'
): Promise<boolean[]> {
  let alpha: Buffer
  let info: { width: number, height: number }
  try {
    const image = sharp(file, { limitInputPixels: maxPicturePixels }).autoOrient()
    if (!(await image.metadata()).hasAlpha) {
      throw new RequestError(400, 'invalid_value', param === 'mask'
        ? 'The mask has no transparency: its transparent pixels say where the picture is drawn anew'
        : 'Without a mask the image must have transparent pixels: they say where it is drawn anew', param)
    }
    ;({ data: alpha, info } = await image.ensureAlpha().extractChannel('alpha').raw()
      .toBuffer({ resolveWithObject: true }))
  } catch (error) {
    if (error instanceof RequestError) throw error
    throw new RequestError(400, 'bad_image', `The ${param} could not be read as a picture`, param)
  }
  const { width, height } = info
  const scale = Math.min(width / columns, height / rows) // pixels a cell
  const [left, top] = [(width - scale * columns) / 2, (height - scale * rows) / 2]
  const kept = new Array<boolean>(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = { x: Math.floor(left + column * scale), y: Math.floor(top + row * scale) }
      const to = {
        x: Math.max(from.x + 1, Math.ceil(left + (column + 1) * scale)),
        y: Math.max(from.y + 1, Math.ceil(top + (row + 1) * scale))
      }
      let isKept = true
      for (let y = from.y; y < Math.min(to.y, height) && isKept; y++) {
        for (let x = from.x; x < Math.min(to.x, width) && isKept; x++) isKept = alpha[y * width + x] !== 0
      }
      kept[row * columns + column] = isKept
    }
  }
  return kept
}
