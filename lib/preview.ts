// A picture of tokens that are not all known yet. A missing cell takes the nearest known cell of its own region,
// because the distant order fills every region from its top left; before a region has any, the nearest of the whole
// grid. With nothing known there is nothing to show but grey.

import type { Schedule } from './schedule.js'

/**
 * @param sequence tokens in sequence order, [tokens]; those at `known` and later are ignored
 * @returns raster order, [tokens]; undefined where nothing is known
 */
export function fillMissing (schedule: Schedule, sequence: Int32Array, known: number): Int32Array | undefined {
  if (known === 0) return undefined
  const { rows, columns, n, order } = schedule
  const s = order === 'distant' ? Math.sqrt(n) : 1
  const [h, w] = [rows / s, columns / s]
  const regionOf = (row: number, column: number): number => Math.floor(row / h) * s + Math.floor(column / w)

  // Known cells by region; the last entry holds all of them.
  const cells: Array<Array<[frame: number, row: number, column: number, token: number]>> = Array.from({ length: s * s + 1 }, () => [])
  for (let index = 0; index < known; index++) {
    const [frame, row, column] = schedule.cell(index)
    const entry: [number, number, number, number] = [frame, row, column, sequence[index]!]
    cells[regionOf(row, column)]!.push(entry)
    cells[s * s]!.push(entry)
  }

  const raster = new Int32Array(schedule.tokens)
  for (let index = 0; index < schedule.tokens; index++) {
    const [frame, row, column] = schedule.cell(index)
    let token = sequence[index]!
    if (index >= known) {
      const own = cells[regionOf(row, column)]!
      let nearest = Infinity
      for (const [f, r, c, candidate] of own.length > 0 ? own : cells[s * s]!) {
        const distance = (f - frame) ** 2 * 1e6 + (r - row) ** 2 + (c - column) ** 2
        if (distance < nearest) { nearest = distance; token = candidate }
      }
    }
    raster[schedule.cells[index]!] = token
  }
  return raster
}
