// The paper's section 3 in code: grid -> order -> steps. Pure integer arithmetic, no I/O, so that every property of
// the method (each cell once, nothing read before it is written) is tested without a model. A schedule is worked out
// once a call as one row table; a step is a view on consecutive rows of it, and the full-sequence pass is the whole
// table at once. That costs 32 bytes a token and leaves nothing for native code to decide.
//
// Every slot x predicts sequence token x; what differs between methods is the slot's input:
//   slot 0                        class embedding
//   slot k < g                    token k-1 (first group one by one) or, without stage 1, transition token M_k
//   slots g .. 2g-1, one step     token g-1, M_1 .. M_(g-1) (first group one by one), else the group before
//   every later group, one step   the group before
// with g tokens a step. g = 1 falls out of it: slot x reads token x-1.

import { limits } from '../machine/limits.js'
import { classInput, rowStride } from '../machine/native.js'
import { invalid, isList, oneOf, optionsObject, show } from '../base/validate.js'

/** Order of the tokens: `distant` takes the same place of every region (paper, section 3.2), `raster` scans rows. */
export type Order = 'distant' | 'raster'
/**
 * Stage 1: the first group token by token (section 3.2, table 4a `w`), or at once with the others (`none`, table 4a
 * `w/o`).
 */
export type InitialStage = 'sequential' | 'none'
/** Inside a group: every token sees the whole group before it (`full`) or a causal prefix only (table 4c). */
export type GroupAttention = 'full' | 'causal'

/** What a caller may vary of PAR (ablations of the paper); each default is the paper's own. */
export interface ParOptions {
  /** PAR: order of the tokens (table 4d). Default: `distant`. */
  order?: Order | undefined
  /** PAR: whether the first group is drawn token by token (table 4a). Default: `sequential`. */
  initial?: InitialStage | undefined
  /** PAR: what the tokens of a group see of each other (table 4c). Default: `full`. */
  groupAttention?: GroupAttention | undefined
  /** PAR: tokens drawn a step; divides the number of tokens. Default: n. */
  tokensPerStep?: number | undefined
}

/** The grid and the choices that {@link createSchedule} plans for. */
export interface ScheduleOptions extends ParOptions {
  /**
   * Rows and columns of tokens, or frames, rows and columns for video (regions are spatial, frames come one after
   * another).
   */
  grid: readonly [rows: number, columns: number] | readonly [frames: number, rows: number, columns: number]
  /**
   * Regions, hence tokens a step: a square s*s where s divides rows and columns. With `order: 'raster'` any divisor of
   * the tokens.
   */
  n: number
}

/** Which tokens each step draws, from which inputs and seeing what (paper, section 3). */
export interface Schedule {
  /** Of a video; 1 for a picture. */
  readonly frames: number
  /** Tokens from top to bottom. */
  readonly rows: number
  /** Tokens from left to right. */
  readonly columns: number
  /** Regions, s * s. */
  readonly n: number
  /** Tokens drawn in a step of stage 2. */
  readonly tokensPerStep: number
  /** As asked for, or the default. */
  readonly order: Order
  /** As asked for, or the default. */
  readonly initial: InitialStage
  /** As asked for, or the default. */
  readonly groupAttention: GroupAttention
  /** Tokens of the sequence, and slots of the cache: each slot predicts the token of its own index. */
  readonly tokens: number
  /** Transition tokens M_1 .. M_k that the rows refer to. */
  readonly transitions: number
  /**
   * One row table a step, [rows, 8] ints: the token that is predicted (-1: none), input, learned position (-1: none),
   * frame, row and column that rotate (-1: none), cache slot, slots that are seen.
   * Views on one buffer: read them, never write.
   */
  readonly steps: readonly Int32Array[]
  /** Tokens known when the step is done: [steps]. */
  readonly tokensAfter: Int32Array
  /** Most rows in one step. */
  readonly maxRows: number
  /** Sequence index -> raster cell, `(frame * rows + row) * columns + column`. */
  readonly cells: Int32Array
  /** Raster cell -> sequence index. */
  readonly sequence: Int32Array
  /** Sequence index -> [frame, row, column]. */
  cell (index: number): [frame: number, row: number, column: number]
  /** All slots in one table under the block-wise mask (section 3.3): what scoring a known image runs. */
  fullSequence (): Int32Array
  /** The same rows cut at step boundaries into tables of at most `limit` rows (a longer step stays whole). */
  fullSequenceTables (limit: number): Int32Array[]
  /** Tokens in sequence order -> raster order, [tokens]. */
  toRaster<T extends Int32Array | Float32Array> (sequence: T): T
  /** Tokens in raster order -> sequence order, [tokens]. */
  toSequence<T extends Int32Array | Float32Array> (raster: T): T
}

/**
 * Works out order, slots, inputs and steps for a grid.
 *
 * Steps: `n + (N - n) / n` for the method itself, so 576 / 147 / 51 for n = 1 / 4 / 16 on 24 x 24, and
 * 1280 / 323 / 95 on 5 x 16 x 16; `N / n` without stage 1.
 * @throws ParError `INVALID_OPTION` for a grid and n that do not fit together.
 */
export function createSchedule (options: ScheduleOptions): Schedule {
  const { frames, rows, columns, n, group, order, initial, groupAttention } = check(options)
  const count = frames * rows * columns
  const cells = order === 'raster' ? rasterOrder(count) : distantOrder(frames, rows, columns, Math.sqrt(n))
  const sequence = new Int32Array(count)
  cells.forEach((cell, index) => { sequence[cell] = index })

  // ---- rows
  const sequential = initial === 'sequential'
  const table = new Int32Array(count * rowStride)
  let transitions = 0
  for (let slot = 0; slot < count; slot++) {
    const place = slot % group
    const input = inputOf(slot, group, sequential)
    if (input < classInput) transitions = Math.max(transitions, -1 - input)
    const cell = input < 0 ? -1 : cells[input]!
    const alone = groupAttention === 'causal' || (sequential && slot < group)
    const rotated = cell < 0
      ? [-1, -1, -1]
      : [Math.floor(cell / (rows * columns)), Math.floor(cell / columns) % rows, cell % columns]
    table.set([slot, input, -1, ...rotated, slot, alone ? slot + 1 : slot - place + group], slot * rowStride)
  }

  // ---- steps
  const ends: number[] = []
  if (sequential) for (let slot = 0; slot < group; slot++) ends.push(slot + 1)
  else ends.push(group)
  for (let end = 2 * group; end <= count; end += group) ends.push(end)
  const part = (from: number, to: number): Int32Array => table.subarray(from * rowStride, to * rowStride)

  return {
    frames, rows, columns, n, order, initial, groupAttention, transitions, cells, sequence,
    tokensPerStep: group,
    tokens: count,
    steps: ends.map((end, k) => part(ends[k - 1] ?? 0, end)),
    tokensAfter: Int32Array.from(ends),
    maxRows: ends.reduce((most, end, k) => Math.max(most, end - (ends[k - 1] ?? 0)), 0),
    cell (index) {
      const cell = cells[index]
      if (cell === undefined) throw invalid(`No sequence index ${show(index)}: there are ${count} tokens`)
      return [Math.floor(cell / (rows * columns)), Math.floor(cell / columns) % rows, cell % columns]
    },
    fullSequence: () => table.slice(),
    fullSequenceTables (limit) {
      const tables: Int32Array[] = []
      let from = 0
      ends.forEach((end, k) => {
        const next = ends[k + 1]
        if (next !== undefined && next - from <= limit) return
        tables.push(part(from, end))
        from = end
      })
      return tables
    },
    toRaster: values => permute(values, sequence),
    toSequence: values => permute(values, cells)
  }
}

// ---- order

function rasterOrder (count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, index) => index)
}

/** Sequence index ((f*h + i)*w + j)*n + a*s + b holds place (i, j) of region (a, b) in frame f. */
function distantOrder (frames: number, rows: number, columns: number, s: number): Int32Array {
  const [h, w] = [rows / s, columns / s]
  const cells = new Int32Array(frames * rows * columns)
  let q = 0
  for (let f = 0; f < frames; f++) {
    for (let i = 0; i < h; i++) {
      for (let j = 0; j < w; j++) {
        for (let a = 0; a < s; a++) {
          for (let b = 0; b < s; b++) cells[q++] = (f * rows + a * h + i) * columns + b * w + j
        }
      }
    }
  }
  return cells
}

// ---- inputs

/** Sequence index that the slot reads, or the class (-1), or transition token M_k (-1 - k). */
function inputOf (slot: number, group: number, sequential: boolean): number {
  const place = slot % group
  if (slot === 0) return classInput
  if (slot < group) return sequential ? slot - 1 : -1 - place
  if (slot < 2 * group && sequential) return place === 0 ? group - 1 : -1 - place
  return slot - group
}

/** out[i] = values[from[i]]. @throws ParError `INVALID_OPTION` for another number of values */
export function permute<T extends Int32Array | Float32Array> (values: T, from: Int32Array): T {
  if (values.length !== from.length) {
    throw invalid(`Expected ${from.length} values, found ${values.length}`)
  }
  const out = values.slice() as T
  for (let i = 0; i < from.length; i++) out[i] = values[from[i]!]!
  return out
}

// ---- checks

const optionNames = ['grid', 'n', 'order', 'initial', 'groupAttention', 'tokensPerStep']

function check (given: ScheduleOptions) {
  const options = optionsObject(given, 'createSchedule', optionNames)
  const {
    grid: shape, n, order: inOrder = 'distant', initial: stage = 'sequential', groupAttention: attention = 'full',
    tokensPerStep = n
  } = options
  // Spread, so that the holes of a sparse array are looked at too.
  const sizes: unknown[] = isList(shape) && shape.length <= 3 ? [...shape] : []
  if ((sizes.length !== 2 && sizes.length !== 3) ||
    !sizes.every(size => Number.isInteger(size) && size as number >= 1)) {
    throw invalid(`grid must be [rows, columns] or [frames, rows, columns], integers of at least 1, not ${show(shape)}`)
  }
  const [frames, rows, columns] = (sizes.length === 3 ? sizes : [1, ...sizes]) as [number, number, number]
  const count = frames * rows * columns
  // Far above any real grid; keeps a mistaken one from filling memory.
  if (count > limits.tokens) {
    throw invalid(`grid ${sizes.join(' x ')} has ${count} tokens; at most ${limits.tokens} are possible`)
  }
  const order = oneOf(inOrder, 'order', ['distant', 'raster'] as const)
  const initial = oneOf(stage, 'initial', ['sequential', 'none'] as const)
  const groupAttention = oneOf(attention, 'groupAttention', ['full', 'causal'] as const)
  if (!isCount(n)) throw invalid(`n must be an integer of at least 1, not ${show(n)}`)
  if (order === 'distant') {
    const s = Math.round(Math.sqrt(n))
    if (s * s !== n) {
      throw invalid(`n must be a square (1, 4, 9, 16, ...) so that the grid falls into regions; found ${n}`)
    }
    if (rows % s || columns % s) {
      throw invalid(
        `n = ${n} cuts the grid into ${s} x ${s} regions, but ${s} does not divide both sides of ${sizes.join(' x ')}`
      )
    }
  }
  if (!isCount(tokensPerStep) || count % tokensPerStep) {
    throw invalid(`tokens a step must be an integer that divides the ${count} tokens of the ` +
      `grid ${sizes.join(' x ')}; found ${show(tokensPerStep)}`)
  }
  return { frames, rows, columns, n, group: tokensPerStep, order, initial, groupAttention }
}

function isCount (value: unknown): value is number {
  return Number.isInteger(value) && value as number >= 1
}
