// What a preview shows where tokens are missing: the nearest known cell by its definition, looked for among all of
// them.

import t from 'tap'
import { fillMissing } from '../lib/decoding/preview.js'
import { createSchedule, type Schedule } from '../lib/decoding/schedule.js'

/**
 * The definition, cell by cell: the nearest known one of the same region, of the whole grid where that has none; the
 * first of several.
 */
function byDefinition (schedule: Schedule, known: number): Int32Array {
  const { rows, columns, n, order } = schedule
  const s = order === 'distant' ? Math.sqrt(n) : 1
  const regionOf = (row: number, column: number): number =>
    Math.floor(row / (rows / s)) * s + Math.floor(column / (columns / s))
  const cells = Array.from({ length: schedule.tokens }, (_, index) => schedule.cell(index))
  const raster = new Int32Array(schedule.tokens)
  for (const [index, [frame, row, column]] of cells.entries()) {
    const all = cells.slice(0, known).map((cell, k) => [k, ...cell] as const)
    const own = all.filter(([, , r, c]) => regionOf(r, c) === regionOf(row, column))
    let [nearest, least] = [index, index < known ? -1 : Infinity]
    for (const [k, f, r, c] of own.length > 0 ? own : all) {
      const distance = (f - frame) ** 2 * 1e6 + (r - row) ** 2 + (c - column) ** 2
      if (distance < least) [nearest, least] = [k, distance]
    }
    raster[schedule.cells[index]!] = nearest
  }
  return raster
}

t.test('the nearest known cell, at every step', async t => {
  for (const [grid, n, order] of [
    [[6, 9], 9, 'distant'], [[8, 8], 4, 'distant'], [[4, 12], 16, 'distant'], [[5, 7], 1, 'distant'],
    [[4, 6], 4, 'raster'], [[3, 4, 4], 4, 'distant'],
    [[2, 6, 3], 9, 'distant'], [[3, 3, 4], 3, 'raster'], [[1, 6], 1, 'distant'], [[10, 10], 25, 'distant']
  ] as const) {
    const schedule = createSchedule({ grid, n, order })
    const sequence = Int32Array.from({ length: schedule.tokens }, (_, index) => index)
    for (let known = 1; known <= schedule.tokens; known++) {
      const found = fillMissing(schedule, sequence, known)!
      const expected = byDefinition(schedule, known)
      if (!found.every((token, i) => token === expected[i])) {
        t.same([...found], [...expected], `${grid.join(' x ')}, n = ${n}, ${order}, ${known} known`)
        return
      }
    }
    t.pass(`${grid.join(' x ')}, n = ${n}, ${order}`)
  }
})

t.test('a grid of 256 x 256 takes no longer than a look at each cell', async t => {
  for (const n of [1, 4, 1024]) {
    const schedule = createSchedule({ grid: [256, 256], n })
    const sequence = new Int32Array(schedule.tokens)
    for (const known of [n - 1 || 1, 3 * n, schedule.tokens / 2]) {
      const began = performance.now()
      t.equal(fillMissing(schedule, sequence, known)!.length, 65536)
      // 7 s and more, where each looks at all known ones
      t.ok(performance.now() - began < 1000, `${Math.round(performance.now() - began)} ms`)
    }
  }
})
