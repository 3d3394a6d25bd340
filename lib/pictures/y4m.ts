// YUV4MPEG2 (.y4m): a line of text, then frames of planes, which video tools read from files and pipes. 4:4:4, so that
// no colour is lost to subsampling; the colours are BT.601 in the range 16 to 235, which readers take for granted.

import { pauses } from './resample.js'

/**
 * @param frames RGB, [frames, height, width, 3]
 * @param fps frames a second
 */
export async function writeY4m (
  frames: Uint8Array, { width, height, fps }: { width: number, height: number, fps: number }
): Promise<Buffer> {
  const [rate, scale] = fraction(fps)
  const header = Buffer.from(`YUV4MPEG2 W${width} H${height} F${rate}:${scale} Ip A1:1 C444\n`, 'latin1')
  const mark = Buffer.from('FRAME\n', 'latin1')
  const pixels = width * height
  const count = frames.length / (3 * pixels)
  const file = Buffer.allocUnsafeSlow(header.length + count * (mark.length + 3 * pixels))
  header.copy(file)
  let to = header.length
  const pause = pauses()
  for (let frame = 0; frame < count; frame++) {
    await pause()
    to += mark.copy(file, to)
    for (let i = 0, from = frame * pixels * 3; i < pixels; i++, from += 3) {
      const [r, g, b] = [frames[from]!, frames[from + 1]!, frames[from + 2]!]
      // ITU-R BT.601-7, tables 1 and 3: luma and colour differences, quantised to 8 bits.
      const y = 0.299 * r + 0.587 * g + 0.114 * b
      file[to + i] = Math.round(16 + 219 / 255 * y)
      file[to + pixels + i] = Math.round(128 + 224 / 255 * (b - y) / 1.772)
      file[to + 2 * pixels + i] = Math.round(128 + 224 / 255 * (r - y) / 1.402)
    }
    to += 3 * pixels
  }
  return file
}

/** A number as a fraction of whole numbers: 29.97 is 2997 / 100. */
function fraction (value: number): [numerator: number, denominator: number] {
  let denominator = 1
  while (denominator < 1e6 && Math.abs(Math.round(value * denominator) - value * denominator) > 1e-9 * denominator) {
    denominator *= 10
  }
  return [Math.round(value * denominator), denominator]
}
