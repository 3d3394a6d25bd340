// The crop that tokenizers were trained on: the ADM recipe as the authors run it, with PIL. Halved by a box filter
// while that leaves enough, then bicubic to the target's shorter side, then the middle. PIL's resampling is done here,
// to the last bit, because the picture is part of the tokenizer's input and no kernel of sharp is the same: cubic with
// a = -0.5, its support widened by the ratio, rows first, weights of 22 bits, bytes after each of the two passes.

import { performance } from 'node:perf_hooks'
import { setImmediate } from 'node:timers'

/** RGB bytes, [height, width, 3]. */
export interface Rgb {
  data: Uint8Array
  width: number
  height: number
}

interface Filter {
  /** Half the width, in pixels of a picture that is not made smaller. */
  support: number
  weight: (x: number) => number
}

const box: Filter = { support: 0.5, weight: x => x > -0.5 && x <= 0.5 ? 1 : 0 }

const a = -0.5
const bicubic: Filter = {
  support: 2,
  weight: distance => {
    const x = Math.abs(distance)
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a
    return 0
  }
}

/** Neighbouring pixels of a line (a row or a column). */
interface Span { start: number, length: number }

/** One direction of a resizing: the line's length before and after it, and which of the pixels after it are wanted. */
interface Pass { from: number, to: number, filter: Filter, wanted: Span }

const precision = 22

/** Pixels of a line that make up pixel `i` of the resized one. */
function reach ({ from, to, filter }: Omit<Pass, 'wanted'>, i: number): Span {
  const scale = from / to
  const support = filter.support * Math.max(scale, 1)
  const centre = (i + 0.5) * scale
  const start = Math.max(0, Math.trunc(centre - support + 0.5))
  return { start, length: Math.min(from, Math.trunc(centre + support + 0.5)) - start }
}

/** Pixels of a line that the wanted ones of the resized line are made of. */
function needed (pass: Pass): Span {
  const { from, to, wanted } = pass
  if (from === to) return wanted
  const { start } = reach(pass, wanted.start)
  const last = reach(pass, wanted.start + wanted.length - 1)
  return { start, length: last.start + last.length - start }
}

/** How much of each pixel of its reach is in pixel `i`, in units of 2^-22, written from place `at` of `into` on. */
function weigh ({ from, to, filter }: Pass, i: number, { start, length }: Span, into: Int32Array, at: number): void {
  const scale = from / to
  const centre = (i + 0.5) * scale
  const wide = 1 / Math.max(scale, 1)
  let sum = 0
  for (let k = 0; k < length; k++) sum += filter.weight((k + start - centre + 0.5) * wide)
  for (let k = 0; k < length; k++) {
    const weight = filter.weight((k + start - centre + 0.5) * wide) / sum * 2 ** precision
    into[at + k] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5)
  }
}

/** Pixels that one pixel can be made of. */
function maxTaps ({ from, to, filter }: Pass): number {
  return Math.ceil(filter.support * Math.max(from / to, 1)) * 2 + 1
}

/** Called between rows; may wait, so that the event loop goes on, or throw. */
export type Pause = () => Promise<void> | undefined

/** Lets the event loop go on after each few milliseconds of work. */
export function pauses (check: () => void = () => {}): Pause {
  let since = performance.now()
  return () => {
    if (performance.now() - since < 4) return undefined
    return new Promise<void>(resolve => setImmediate(resolve)).then(() => {
      check()
      since = performance.now()
    })
  }
}

/** Pixels that are added up between two looks at the clock: less than a millisecond. */
const unitsALook = 1 << 16

/** Weights that are kept at a time. */
const maxWeights = 1 << 16

/** What is held of a picture, which need not be all of it, and where in the picture that lies. */
interface Region extends Rgb { x: number, y: number }

/**
 * Which pixels of a row make up each of some neighbouring columns, and how much of each: [columns], and [columns,
 * most].
 */
interface Taps { columns: number, most: number, first: Int32Array, count: Int32Array, weights: Int32Array }

/**
 * Columns of one row, from place `at` of `out` on. No async function: V8 leaves loops in those unoptimized for long.
 */
function mix (
  data: Uint8Array, row: number, { columns, most, first, count, weights }: Taps, out: Uint8ClampedArray, at: number
): void {
  for (let x = 0; x < columns; x++) {
    let from = (row + first[x]!) * 3
    let red = 1 << precision - 1
    let green = red
    let blue = red
    for (let k = x * most, end = k + count[x]!; k < end; k++) {
      const weight = weights[k]!
      red += data[from++]! * weight
      green += data[from++]! * weight
      blue += data[from++]! * weight
    }
    out[at++] = red >> precision
    out[at++] = green >> precision
    out[at++] = blue >> precision
  }
}

/** Resizes the rows `rows`, as far as the pass wants it. */
async function across (region: Region, pass: Pass, rows: Span, pause: Pause): Promise<Region> {
  const { data, width } = region
  const { wanted } = pass
  const out = new Uint8ClampedArray(wanted.length * rows.length * 3)
  const most = maxTaps(pass)
  // In strips of so many columns that their weights stay few, however long a row is.
  const widest = Math.min(wanted.length, Math.max(1, Math.floor(maxWeights / most)))
  const strip: Taps = {
    columns: 0, most, weights: new Int32Array(widest * most), first: new Int32Array(widest),
    count: new Int32Array(widest)
  }
  let units = 0
  for (let begin = 0; begin < wanted.length; begin += widest) {
    const columns = strip.columns = Math.min(widest, wanted.length - begin)
    for (let x = 0; x < columns; x++) {
      const i = wanted.start + begin + x
      const own = reach(pass, i)
      weigh(pass, i, own, strip.weights, x * most)
      strip.first[x] = own.start - region.x
      strip.count[x] = own.length
    }
    units += columns * most
    for (let y = 0; y < rows.length; y++) {
      mix(data, (rows.start - region.y + y) * width, strip, out, (y * wanted.length + begin) * 3)
      if ((units += columns * most) < unitsALook) continue
      units = 0
      const waiting = pause()
      if (waiting) await waiting
    }
  }
  return { data: new Uint8Array(out.buffer), width: wanted.length, height: rows.length, x: wanted.start, y: rows.start }
}

function add (data: Uint8Array, from: number, weight: number, sums: Int32Array, length: number): void {
  for (let i = 0; i < length; i++) sums[i]! += data[from + i]! * weight
}

/** Resizes the columns `columns`, as far as the pass wants it. */
async function down (region: Region, pass: Pass, columns: Span, pause: Pause): Promise<Region> {
  const { data, width } = region
  const { wanted } = pass
  const stride = columns.length * 3
  const out = new Uint8ClampedArray(wanted.length * stride)
  const weights = new Int32Array(maxTaps(pass))
  const sums = new Int32Array(Math.min(stride, unitsALook))
  let units = 0
  for (let y = 0; y < wanted.length; y++) {
    const own = reach(pass, wanted.start + y)
    weigh(pass, wanted.start + y, own, weights, 0)
    units += own.length
    // A stretch of the row at a time, so that the clock is looked at within long rows too.
    for (let begin = 0; begin < stride; begin += sums.length) {
      const length = Math.min(sums.length, stride - begin)
      sums.fill(1 << precision - 1)
      for (let k = 0; k < own.length; k++) {
        const weight = weights[k]!
        const from = ((own.start - region.y + k) * width + columns.start - region.x) * 3 + begin
        add(data, from, weight, sums, length)
        if ((units += length) < unitsALook) continue
        units = 0
        const waiting = pause()
        if (waiting) await waiting
      }
      for (let i = 0, at = y * stride + begin; i < length; i++) out[at + i] = sums[i]! >> precision
    }
  }
  return {
    data: new Uint8Array(out.buffer), width: columns.length, height: wanted.length, x: columns.start, y: wanted.start
  }
}

/** One step of a resizing, both directions. */
interface Step { columns: Pass, rows: Pass }

/**
 * From the picture's size to `to`: halved by a box filter while both sides stay at least those of `least`, then
 * bicubic. From what is wanted in the end each step learns what it has to make: a picture that is long and thin would
 * become huge.
 */
function stepsOf (
  from: Size, to: (halved: Size) => Size, least: Size, columns: (width: number) => Span, rows: (height: number) => Span
): Step[] {
  const sizes = [from]
  let half = from
  while (half.width >= 2 * least.width && half.height >= 2 * least.height) {
    sizes.push(half = { width: half.width >> 1, height: half.height >> 1 })
  }
  const end = to(half)
  sizes.push(end)
  const steps: Step[] = []
  let wanted = { columns: columns(end.width), rows: rows(end.height) }
  for (let k = sizes.length - 1; k > 0; k--) {
    const [before, after] = [sizes[k - 1]!, sizes[k]!]
    const filter = k === sizes.length - 1 ? bicubic : box
    const step: Step = {
      columns: { from: before.width, to: after.width, filter, wanted: wanted.columns },
      rows: { from: before.height, to: after.height, filter, wanted: wanted.rows }
    }
    steps.unshift(step)
    wanted = { columns: needed(step.columns), rows: needed(step.rows) }
  }
  return steps
}

/** Bytes that the steps take beside the picture, at most: what one has made may lie there until the end. */
function bytesOf (steps: readonly Step[]): number {
  return steps.reduce((sum, { columns, rows }) =>
    sum + columns.wanted.length * ((columns.from === columns.to ? 0 : needed(rows).length) + rows.wanted.length) * 3, 0)
}

/** Does the steps, as PIL's `resize` does each of them: a direction that keeps its length is left alone. */
async function resize (picture: Rgb, steps: readonly Step[], pause: Pause): Promise<Rgb> {
  let region: Region = { ...picture, x: 0, y: 0 }
  for (const { columns, rows } of steps) {
    if (columns.from !== columns.to) region = await across(region, columns, needed(rows), pause)
    if (rows.from !== rows.to) region = await down(region, rows, columns.wanted, pause)
  }
  const { columns: { wanted: columns }, rows: { wanted: rows } } = steps.at(-1)!
  return await cutOut(region, columns, rows, pause)
}

async function cutOut (region: Region, columns: Span, rows: Span, pause: Pause): Promise<Rgb> {
  const [width, height] = [columns.length, rows.length]
  if (region.width === width && region.height === height) return { data: region.data, width, height }
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const from = ((rows.start - region.y + y) * region.width + columns.start - region.x) * 3
    data.set(region.data.subarray(from, from + width * 3), y * width * 3)
    const waiting = pause()
    if (waiting) await waiting
  }
  return { data, width, height }
}

export interface Size { width: number, height: number }

/**
 * How a picture of that size becomes its middle, width x height; for a square exactly as the authors'
 * `center_crop_arr`.
 */
function cropSteps (from: Size, width: number, height: number): Step[] {
  const near = (half: Size): Size => {
    const scale = Math.max(width / half.width, height / half.height)
    return { width: Math.max(width, roundToEven(half.width * scale)), height: Math.max(height,
      roundToEven(half.height * scale)) }
  }
  const middle = (length: number) => (all: number): Span => ({ start: Math.floor((all - length) / 2), length })
  return stepsOf(from, near, { width, height }, middle(width), middle(height))
}

/** How a picture of that size becomes width x height, whatever its own shape. */
function squeezeSteps (from: Size, width: number, height: number): Step[] {
  const size = { width, height }
  const whole = (length: number): Span => ({ start: 0, length })
  return stepsOf(from, () => size, size, whole, whole)
}

/** The middle of the picture, width x height; for a square exactly the authors' `center_crop_arr`. */
export async function centreCrop (picture: Rgb, width: number, height: number, pause: Pause): Promise<Rgb> {
  return await resize(picture, cropSteps(picture, width, height), pause)
}

/** The whole picture, width x height, by the same filters; its sides' ratio gives way. */
export async function squeezed (picture: Rgb, width: number, height: number, pause: Pause): Promise<Rgb> {
  return await resize(picture, squeezeSteps(picture, width, height), pause)
}

/** Bytes that `centreCrop`, or `squeezed`, takes beside a picture of that size. */
export function resizingBytes (from: Size, width: number, height: number, crop: boolean): number {
  return bytesOf((crop ? cropSteps : squeezeSteps)(from, width, height))
}

/** Repeats each pixel `scale` times each way, from place (x, y) of a larger picture on. Exact: no pixels are mixed. */
export function enlarge (picture: Rgb, scale: number, into: Rgb, x = 0, y = 0): void {
  const [from, to] = [picture.data, into.data]
  const stride = into.width * 3
  for (let row = 0, pixel = 0; row < picture.height; row++) {
    const start = (y + row * scale) * stride + x * 3
    let at = start
    for (let column = 0; column < picture.width; column++, pixel += 3) {
      for (let k = 0; k < scale; k++) {
        to[at++] = from[pixel]!
        to[at++] = from[pixel + 1]!
        to[at++] = from[pixel + 2]!
      }
    }
    for (let k = 1; k < scale; k++) to.copyWithin(start + k * stride, start, at)
  }
}

/** Python's `round`. */
function roundToEven (x: number): number {
  const below = Math.floor(x)
  if (x - below !== 0.5) return Math.round(x)
  return below % 2 === 0 ? below : below + 1
}
