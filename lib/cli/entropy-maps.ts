// Numbers of each cell as colours: maps of one grid in sections, each with a scale of its own below it. The colours,
// the letters and why no font is used are those of heatmap.ts.

import { colour, faint, fill, gap, line, margin, textWidth, write } from './heatmap.js'
import type { Pixels } from './picture.js'

export interface CellMap {
  title: string
  /** [rows * columns], raster order; NaN: nothing to show. */
  values: Float64Array
  /** A cell that is marked in blue. */
  mark?: number
}

export interface Section {
  title: string
  /** What the colours mean. */
  caption: string
  /** Ends of the scale; `suffix` stands behind its numbers. */
  scale: { low: number, high: number, suffix?: string }
  maps: CellMap[]
}

export interface Maps extends Pixels {
  /** Where each map lies, section by section. */
  places: Array<{ x: number, y: number, width: number, height: number }>
  /** Where each section's scale lies. */
  bars: Array<{ x: number, y: number, width: number, height: number }>
  /** Pixels of a token, each way. */
  cell: number
}

/** What is marked, and what has no number. */
export const [blue, grey] = [[40, 120, 255], [222, 222, 222]] as const
/** A map is about so long, or so long where there are no more than two beside each other. */
const [mapSide, largeSide] = [208, 320]
const maxColumns = 4
const barWidth = 384

export function drawMaps (grid: readonly [rows: number, columns: number], sections: readonly Section[]): Maps {
  const [rows, columns] = grid
  const across = Math.min(maxColumns, Math.max(...sections.map(({ maps }) => maps.length)))
  const cell = Math.max(1, Math.round((across > 2 ? mapSide : largeSide) / Math.max(rows, columns)))
  const [width, height] = [columns * cell, rows * cell]
  const maps = sections.flatMap(({ maps }) => maps)
  const pitch = Math.max(width, ...maps.map(({ title }) => textWidth(title))) + gap
  const [head, foot] = [line + 6, 24 + 2 * (line + 8) + gap]
  const tall = sections.map(({ maps }) => head + Math.ceil(maps.length / across) * (head + height + gap) + foot)
  const texts = sections.flatMap(({ title, caption }) => [title, caption])
  const image: Pixels = {
    width: 2 * margin + Math.max(across * pitch - gap, barWidth + 24, ...texts.map(textWidth)),
    height: 2 * margin + tall.reduce((sum, part) => sum + part, 0) - gap,
    data: new Uint8Array(0)
  }
  image.data = new Uint8Array(image.width * image.height * 3).fill(255)

  const [places, bars]: [Maps['places'], Maps['bars']] = [[], []]
  let top = margin
  sections.forEach(({ title, caption, scale: { low, high, suffix = '' }, maps }, k) => {
    write(image, margin, top, title)
    const share = (value: number): number => high > low ? (value - low) / (high - low) : 0
    maps.forEach(({ title, values, mark }, m) => {
      const place = {
        x: margin + m % across * pitch,
        y: top + 2 * head + Math.floor(m / across) * (head + height + gap),
        width,
        height
      }
      places.push(place)
      write(image, place.x, place.y - head, title)
      const colours = Array.from(values, (value, at) =>
        at === mark ? blue : Number.isNaN(value) ? grey : colour(share(value)))
      fill(image, place, (x, y) => colours[Math.floor(y / cell) * columns + Math.floor(x / cell)]!)
    })
    // ---- the scale
    const bar = { x: margin, y: top + tall[k]! - foot, width: barWidth, height: 24 }
    bars.push(bar)
    fill(image, bar, x => colour(x / (bar.width - 1)))
    const [below, above] = [maps.some(({ values }) => values.some(value => value < low - 1e-9)),
      maps.some(({ values }) => values.some(value => value > high + 1e-9))]
    const ticks = 4
    for (let tick = 0; tick <= ticks; tick++) {
      const value = low + (high - low) * tick / ticks
      const digits = high - low >= 20 || (Number.isInteger(low) && Number.isInteger((high - low) / ticks))
        ? 0
        : high - low >= 2 ? 1 : high - low >= 0.2 ? 2 : 3
      const text = value.toFixed(digits) + suffix + ((tick === 0 && below) ? '-' : tick === ticks && above ? '+' : '')
      const x = bar.x + Math.round((bar.width - 1) * tick / ticks)
      fill(image, { x, y: bar.y + bar.height, width: 1, height: 5 }, () => [faint, faint, faint])
      // The first begins where the bar does, the last may go past its end.
      write(image, tick === 0 ? x : x - Math.floor(textWidth(text) / 2), bar.y + bar.height + 8, text)
    }
    write(image, bar.x, bar.y + bar.height + 14 + line, caption)
    top += tall[k]!
  })
  return { ...image, places, bars, cell }
}

/**
 * Ends of a scale for values: round numbers that hold all but the outermost hundredth of them.
 * @param from where it begins, unless values lie far below
 */
export function scaleOf (
  lists: readonly Float64Array[], { from }: { from?: number } = {}
): [low: number, high: number] {
  const all = Float64Array.from(lists.flatMap(values => [...values]).filter(value => !Number.isNaN(value))).sort()
  if (all.length === 0) return [from ?? 0, (from ?? 0) + 1]
  const [lowest, most] = [all[Math.floor((all.length - 1) * 0.01)]!, all[Math.ceil((all.length - 1) * 0.99)]!]
  const least = from === undefined || lowest < from - Math.abs(most - from) / 8 ? lowest : from
  const step = stepOf(Math.max(most - least, 1e-3) / 4)
  const low = Math.floor(least / step + 1e-9) * step
  // Four equal steps, each a round number.
  let each = step
  while (low + 4 * each < most - 1e-9) each = stepOf(each * 1.01)
  return [low, low + 4 * each]
}

/** The next of 1, 2, 2.5, 5 and 10 times a power of ten. */
function stepOf (value: number): number {
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 2.5, 5].map(factor => factor * power).find(step => step >= value * (1 - 1e-9)) ?? 10 * power
}
