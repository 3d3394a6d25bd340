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
 */
export function localityOrder (
  [rows, columns]: readonly [rows: number, columns: number], groupSizes: readonly number[], repulsion: number,
  seed: number
): Int32Array {
  const draws = new OrderDraws(seed)
  const count = rows * columns
  const known = new Uint8Array(count)
  const order = new Int32Array(count)
  let done = 0
  for (const size of groupSizes) {
    const group = groupOf(size)
    for (const cell of group) {
      known[cell] = 1
      order[done++] = cell
    }
  }
  return order

  /** Sum of 1 / distance over known cells around. */
  function proximity (cell: number): number {
    const [row, column] = [Math.floor(cell / columns), cell % columns]
    let sum = 0
    for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++) {
      for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) {
        if (known[y * columns + x] === 1) sum += y === row || x === column ? 1 : Math.SQRT1_2
      }
    }
    return sum
  }

  function groupOf (size: number): number[] {
    const candidates: number[] = []
    for (let cell = 0; cell < count; cell++) if (known[cell] === 0) candidates.push(cell)
    const scores = candidates.map(proximity)
    const scoreOf = new Map(candidates.map((cell, i) => [cell, scores[i]!]))
    draws.shuffle(candidates)
    candidates.sort((a, b) => scoreOf.get(b)! - scoreOf.get(a)!) // stable: ties stay shuffled
    const firstFar = candidates.findIndex(cell => scoreOf.get(cell)! < 1)
    const near = firstFar < 0 ? candidates : candidates.slice(0, firstFar)
    const far = firstFar < 0 ? [] : candidates.slice(firstFar)
    const group: number[] = []
    const refused: number[] = []
    let read = 0
    for (; read < near.length && group.length < size; read++) {
      const cell = near[read]!
      const isClose = group.some(other =>
        Math.abs(Math.floor(other / columns) - Math.floor(cell / columns)) <= repulsion &&
        Math.abs(other % columns - cell % columns) <= repulsion)
      if (isClose) refused.push(cell)
      else group.push(cell)
    }
    if (group.length < size) fillUp(group, size, [...far, ...refused, ...near.slice(read)])
    return group
  }

  /** Farthest-point sampling: each next cell is the one whose nearest cell of the group is farthest away. */
  function fillUp (group: number[], size: number, pool: readonly number[]): void {
    if (pool.length <= size - group.length) {
      group.push(...pool)
      return
    }
    const squared = (a: number, b: number): number =>
      (Math.floor(a / columns) - Math.floor(b / columns)) ** 2 + (a % columns - b % columns) ** 2
    if (group.length === 0) group.push(pool[draws.below(pool.length)]!)
    const distances = pool.map(cell => group.reduce((min, other) => Math.min(min, squared(cell, other)), Infinity))
    while (group.length < size) {
      let best = 0
      distances.forEach((distance, i) => { if (distance > distances[best]!) best = i })
      const cell = pool[best]!
      group.push(cell)
      pool.forEach((other, i) => { distances[i] = Math.min(distances[i]!, squared(other, cell)) })
    }
  }
}
