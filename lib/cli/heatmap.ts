// Bits of each token as colours, on the grid that the picture has, with the picture beside it and the scale below. Made
// of plain bytes, as sheets are: a colour of a map is exactly that of the scale, and no font has to be there (libraries
// draw text with those of the system, of which a container has none).

import type { Pixels } from './picture.js'

export interface Panel {
  title: string
  /** [rows * columns], raster order */
  bits: Float32Array
}

export interface Heatmap extends Pixels {
  /** Where the picture lies, then each panel. */
  places: Array<{ x: number, y: number, width: number, height: number }>
  /** Pixels of a token, each way. */
  cell: number
  /** Bits at the bright end of the scale; what is above looks the same. */
  top: number
}

// Dark to bright, so that order shows in grey and to the colour-blind alike (the perceptual map called inferno).
const stops = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10],
  [249, 201, 50], [252, 255, 164]] as const
export const [ink, faint, margin, gap, line] = [31, 140, 24, 24, 20]
/** A panel is about so long. */
const panelSide = 384
const maxColumns = 4

/** 0 .. 1 -> RGB */
export function colour (share: number): [red: number, green: number, blue: number] {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1)
  const [from, to] = [stops[Math.floor(at)]!, stops[Math.ceil(at)]!]
  const mix = (c: 0 | 1 | 2): number => Math.round(from[c] + (to[c] - from[c]) * (at - Math.floor(at)))
  return [mix(0), mix(1), mix(2)]
}

/** Where the scale ends: all but the last hundredth of the tokens lie below it. */
export function scaleTop (panels: readonly Panel[]): number {
  const all = Float32Array.from(panels.flatMap(({ bits }) => Array.from(bits))).sort()
  return Math.max(1, Math.ceil(all[Math.floor((all.length - 1) * 0.99)]!))
}

export function heatmap (
  picture: Pixels, grid: readonly [rows: number, columns: number], panels: readonly Panel[]
): Heatmap {
  const [rows, columns] = grid
  const cell = Math.max(1, Math.round(panelSide / Math.max(rows, columns)))
  const [width, height] = [columns * cell, rows * cell]
  const count = panels.length + 1
  const across = Math.min(count, maxColumns)
  // Titles must not run into each other where panels are narrow.
  const pitch = Math.max(width, ...panels.map(({ title }) => textWidth(title))) + gap
  const head = line + 8
  const body = Math.ceil(count / across) * (head + height + gap)
  const least = 2 * margin + Math.max(panelSide, textWidth(caption))
  const image: Pixels = { width: Math.max(least,
    2 * margin + across * pitch - gap), height: 2 * margin + body + 24 + 2 * (line + 8), data: new Uint8Array(0) }
  image.data = new Uint8Array(image.width * image.height * 3).fill(255)

  const places = Array.from({ length: count }, (_, k) => ({
    x: margin + k % across * pitch, y: margin + Math.floor(k / across) * (head + height + gap) + head, width, height
  }))
  const top = scaleTop(panels)
  const over = panels.some(({ bits }) => bits.some(value => value > top))

  write(image, places[0]!.x, places[0]!.y - head, 'picture')
  fill(image, places[0]!, (x, y) => {
    const at = (Math.floor(y * picture.height / height) * picture.width + Math.floor(x * picture.width / width)) * 3
    return [picture.data[at]!, picture.data[at + 1]!, picture.data[at + 2]!]
  })
  panels.forEach(({ title, bits }, k) => {
    const place = places[k + 1]!
    write(image, place.x, place.y - head, title)
    const colours = Array.from(bits, value => colour(value / top))
    fill(image, place, (x, y) => colours[Math.floor(y / cell) * columns + Math.floor(x / cell)]!)
  })

  // ---- the scale
  const bar = { x: margin, y: margin + body, width: panelSide, height: 24 }
  fill(image, bar, x => colour(x / (bar.width - 1)))
  const steps = [4, 5, 3, 2].find(steps => top % steps === 0) ?? (top === 1 ? 4 : top <= 8 ? top : 4)
  for (let k = 0; k <= steps; k++) {
    const value = top * k / steps
    const text = (Number.isInteger(value) ? String(value) : value.toFixed(2)) + (k === steps && over ? '+' : '')
    const x = bar.x + Math.round((bar.width - 1) * k / steps)
    fill(image, { x, y: bar.y + bar.height, width: 1, height: 5 }, () => [faint, faint, faint])
    // The first begins where the bar does, the last may go past its end.
    write(image, k === 0 ? x : x - Math.floor(textWidth(text) / 2), bar.y + bar.height + 8, text)
  }
  write(image, bar.x, bar.y + bar.height + 14 + line, caption)
  return { ...image, places, cell, top }
}

const caption = 'bits of a token: dark is expected, bright is a surprise'

export function fill (image: Pixels, place: { x: number, y: number, width: number, height: number }, at: (
  x: number, y: number
) => readonly [number, number, number]): void {
  for (let y = 0; y < place.height; y++) {
    for (let x = 0; x < place.width; x++) image.data.set(at(x, y), ((place.y + y) * image.width + place.x + x) * 3)
  }
}

// ---- text: 5 x 7 points a letter, a number a row, its bits from the left

const glyphs: Record<string, readonly number[]> = {
  0: [14, 17, 19, 21, 25, 17, 14], 1: [4, 12, 4, 4, 4, 4, 14], 2: [14, 17, 1, 2, 4, 8, 31], 3: [31, 2, 4, 2, 1, 17, 14],
  4: [2, 6, 10, 18, 31, 2, 2], 5: [31, 16, 30, 1, 1, 17, 14], 6: [6, 8, 16, 30, 17, 17, 14], 7: [31, 1, 2, 4, 8, 8, 8],
  8: [14, 17, 17, 14, 17, 17, 14], 9: [14, 17, 17, 15, 1, 2, 12],
  a: [0, 0, 14, 1, 15, 17, 15], b: [16, 16, 22, 25, 17, 17, 30], c: [0, 0, 14, 16, 16, 17, 14],
  d: [1, 1, 13, 19, 17, 17, 15],
  e: [0, 0, 14, 17, 31, 16, 14], f: [6, 9, 8, 28, 8, 8, 8], g: [0, 15, 17, 17, 15, 1, 14],
  h: [16, 16, 22, 25, 17, 17, 17],
  i: [4, 0, 12, 4, 4, 4, 14], k: [16, 16, 18, 20, 24, 20, 18], l: [12, 4, 4, 4, 4, 4, 14],
  j: [2, 0, 6, 2, 2, 18, 12], m: [0, 0, 26, 21, 21, 21, 21], n: [0, 0, 22, 25, 17, 17, 17],
  o: [0, 0, 14, 17, 17, 17, 14], p: [0, 0, 30, 17, 30, 16, 16],
  q: [0, 0, 13, 19, 15, 1, 1], r: [0, 0, 22, 25, 16, 16, 16],
  s: [0, 0, 14, 16, 14, 1, 30],
  t: [8, 8, 28, 8, 8, 9, 6], u: [0, 0, 17, 17, 17, 19, 13], v: [0, 0, 17, 17, 17, 10, 4],
  w: [0, 0, 17, 17, 21, 21, 10], x: [0, 0, 17, 10, 4, 10, 17], y: [0, 0, 17, 17, 15, 1, 14],
  z: [0, 0, 31, 2, 4, 8, 31], H: [17, 17, 17, 31, 17, 17, 17],
  '.': [0, 0, 0, 0, 0, 12, 12], '=': [0, 0, 31, 0, 31, 0, 0], '+': [0, 4, 4, 31, 4, 4, 0],
  ':': [0, 12, 12, 0, 12, 12, 0], ',': [0, 0, 0, 0, 12, 4, 8],
  '-': [0, 0, 0, 31, 0, 0, 0], '(': [2, 4, 8, 8, 8, 4, 2], ')': [8, 4, 2, 2, 2, 4, 8], '|': [4, 4, 4, 4, 4, 4, 4],
  '[': [14, 8, 8, 8, 8, 8, 14], ']': [14, 2, 2, 2, 2, 2, 14], '%': [24, 25, 2, 4, 8, 19, 3]
}
const point = 2

export function textWidth (text: string): number {
  return text.length * 6 * point
}

/** What has no glyph is a blank. */
export function write (image: Pixels, x: number, y: number, text: string): void {
  for (const [k, letter] of [...text].entries()) {
    glyphs[letter]?.forEach((bits, row) => {
      for (let column = 0; column < 5; column++) {
        if (bits >> 4 - column & 1) {
          fill(image, { x: x + (k * 6 + column) * point, y: y + row * point, width: point, height: point },
            () => [ink, ink, ink])
        }
      }
    })
  }
}
