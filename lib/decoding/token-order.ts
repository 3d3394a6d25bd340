// In which order a parallel decoder draws the cells of a picture. All of it is drawn from the picture's seed.

import { OrderDraws } from './random.js'

/** Any order is as likely as any other: [cells], raster cells in generation order. */
export function randomOrder (cells: number, seed: number): Int32Array {
  const order = Int32Array.from({ length: cells }, (_, cell) => cell)
  new OrderDraws(seed).shuffle(order)
  return order
}

/**
 * LPD's locality-aware order (2507.01957, section 3.3): a group takes cells beside known ones, none of them close to
 * another of the group; where there are too few of these, cells that are far from those of the group.
 * @param repulsion cells of a group that are neighbours of known ones are more than this apart, in rows or in columns
 * @param keep 1 where a cell is known beforehand: those come first, row by row, and the sizes go on behind them
 */
export function localityOrder (
  [rows, columns]: readonly [rows: number, columns: number], groupSizes: readonly number[], repulsion: number,
  seed: number, keep?: Uint8Array
): Int32Array {
  const draws = new OrderDraws(seed)
  const count = rows * columns
  const rowOf = Int32Array.from({ length: count }, (_, cell) => Math.floor(cell / columns))
  const columnOf = Int32Array.from({ length: count }, (_, cell) => cell % columns)
  const known = new Uint8Array(count)
  /** Known cells beside a cell, and known cells that touch its corners. */
  const [sides, corners] = [new Uint8Array(count), new Uint8Array(count)]
  /** Sum of 1 / distance over the known cells around. */
  const scoreOf = (cell: number): number => sides[cell]! + corners[cell]! * Math.SQRT1_2
  const order = new Int32Array(count)
  let done = 0
  const add = (cell: number): void => {
    makeKnown(cell)
    order[done++] = cell
  }
  keep?.forEach((kept, cell) => { if (kept === 1) add(cell) })
  let end = 0
  for (const size of groupSizes) {
    end += size
    if (end > done) groupOf(end - done).forEach(add)
  }
  return order

  function makeKnown (cell: number): void {
    known[cell] = 1
    const [row, column] = [rowOf[cell]!, columnOf[cell]!]
    for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++) {
      for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) {
        if (y === row || x === column) sides[y * columns + x]!++
        else corners[y * columns + x]!++
      }
    }
  }

  function groupOf (size: number): number[] {
    const candidates: number[] = []
    for (let cell = 0; cell < count; cell++) if (known[cell] === 0) candidates.push(cell)
    draws.shuffle(candidates)
    candidates.sort((a, b) => scoreOf(b) - scoreOf(a)) // stable: ties stay shuffled
    let near = 0 // candidates that touch known cells enough
    while (near < candidates.length && scoreOf(candidates[near]!) >= 1) near++
    const group: number[] = []
    const refused: number[] = []
    let read = 0
    for (; read < near && group.length < size; read++) {
      const cell = candidates[read]!
      if (isClose(cell, group)) refused.push(cell)
      else group.push(cell)
    }
    if (group.length < size) {
      fillUp(group, size, [...candidates.slice(near), ...refused, ...candidates.slice(read, near)])
    }
    return group
  }

  function isClose (cell: number, group: readonly number[]): boolean {
    const [row, column] = [rowOf[cell]!, columnOf[cell]!]
    for (const other of group) {
      if (Math.abs(rowOf[other]! - row) <= repulsion && Math.abs(columnOf[other]! - column) <= repulsion) return true
    }
    return false
  }

  /** Farthest-point sampling: each next cell is the one whose nearest cell of the group is farthest away. */
  function fillUp (group: number[], size: number, pool: readonly number[]): void {
    if (pool.length <= size - group.length) {
      group.push(...pool)
      return
    }
    /** Squared, to the nearest cell of the group. */
    const distances = new Float64Array(pool.length).fill(Infinity)
    const approach = (cell: number): void => {
      const [row, column] = [rowOf[cell]!, columnOf[cell]!]
      for (let i = 0; i < pool.length; i++) {
        const [dy, dx] = [rowOf[pool[i]!]! - row, columnOf[pool[i]!]! - column]
        const squared = dy * dy + dx * dx
        if (squared < distances[i]!) distances[i] = squared
      }
    }
    if (group.length === 0) group.push(pool[draws.below(pool.length)]!)
    group.forEach(approach)
    while (group.length < size) {
      let best = 0
      for (let i = 1; i < pool.length; i++) if (distances[i]! > distances[best]!) best = i
      const cell = pool[best]!
      group.push(cell)
      approach(cell)
    }
  }
}
