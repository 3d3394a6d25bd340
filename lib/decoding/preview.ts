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
  const perFrame = rows * columns
  // Frames come one after another: those before this one are known as a whole, and none behind it has a known cell.
  const frame = Math.floor((known - 1) / perFrame)
  const inFrame = known - frame * perFrame
  const token = (f: number, row: number, column: number): number =>
    sequence[schedule.sequence[f * perFrame + row * columns + column]!]!

  const raster = new Int32Array(schedule.tokens)
  for (let cell = 0; cell < raster.length; cell++) {
    const index = schedule.sequence[cell]!
    if (index < known) {
      raster[cell] = sequence[index]!
      continue
    }
    const [row, column] = [Math.floor(cell % perFrame / columns), cell % columns]
    const [top, left] = [Math.floor(row / h), Math.floor(column / w)]
    // Every region is filled in rows, the regions in turn, so the known cells of one are the first of it.
    const region = top * s + left
    const own = Math.floor(inFrame / (s * s)) + (region < inFrame % (s * s) ? 1 : 0)
    const distanceToFrame = Math.floor(cell / perFrame) - frame
    let [nearest, distance] = [-1, Infinity]
    if (frame > 0) [nearest, distance] = [token(frame - 1, row, column), (distanceToFrame + 1) ** 2 * frameDistance]
    if (own > 0) {
      const [y, x] = nearestOfFirst(own, w, 1, 1, row - top * h, column - left * w)
      const inRegion = distanceToFrame ** 2 * frameDistance + (y + top * h - row) ** 2 + (x + left * w - column) ** 2
      if (inRegion < distance) nearest = token(frame, y + top * h, x + left * w)
    } else if (frame === 0) {
      // No more than the first cell of the first regions is known.
      nearest = token(0, ...nearestOfFirst(inFrame, s, h, w, row, column))
    }
    raster[cell] = nearest
  }
  return raster
}

/** Squared distance of two frames that follow each other: more than any two cells of a picture have. */
const frameDistance = 1e6

/**
 * Among the first `count` points of a lattice (rows of `columns` points, `dy` and `dx` apart), filled row by row: the
 * one that is nearest to (row, column), the first of several. Only two rows of it and the last, which may be shorter,
 * come into question.
 */
function nearestOfFirst (
  count: number, columns: number, dy: number, dx: number, row: number, column: number
): [row: number, column: number] {
  const last = Math.floor((count - 1) / columns)
  const above = Math.floor(row / dy)
  const before = Math.floor(column / dx)
  let [best, distance]: [[number, number], number] = [[0, 0], Infinity]
  for (const i of [Math.min(above, Math.max(0, last - 1)), Math.min(above + 1, Math.max(0, last - 1)), last]) {
    const length = i < last ? columns : count - last * columns
    for (const j of [Math.min(before, length - 1), Math.min(before + 1, length - 1)]) {
      const d = (i * dy - row) ** 2 + (j * dx - column) ** 2
      if (d < distance) [best, distance] = [[i * dy, j * dx], d]
    }
  }
  return best
}

/**
 * Raster order; every cell that is -1 takes the token of the nearest known one, counted in steps to neighbours.
 * Undefined where nothing is known.
 */
export function nearestKnown (
  { frames, rows, columns }: Pick<Schedule, 'frames' | 'rows' | 'columns'>, raster: Int32Array
): Int32Array | undefined {
  const filled = raster.slice()
  const queue = Array.from(raster.keys()).filter(cell => raster[cell]! >= 0)
  if (queue.length === 0) return undefined
  const perFrame = rows * columns
  for (const cell of queue) { // it grows meanwhile
    const [row, column] = [Math.floor(cell % perFrame / columns), cell % columns]
    const neighbours = [
      row > 0 ? cell - columns : -1, row < rows - 1 ? cell + columns : -1,
      column > 0 ? cell - 1 : -1, column < columns - 1 ? cell + 1 : -1,
      cell - perFrame, cell + perFrame < frames * perFrame ? cell + perFrame : -1
    ]
    for (const near of neighbours) {
      if (near < 0 || filled[near]! >= 0) continue
      filled[near] = filled[cell]!
      queue.push(near)
    }
  }
  return filled
}
