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

/** Which pixels make up each pixel of a line, and how much of each. */
interface Taps {
  /** [to] */
  first: Int32Array
  /** [to] */
  count: Int32Array
  /** [to, most] in units of 2^-22 */
  weights: Int32Array
  most: number
}

const precision = 22

function taps (from: number, to: number, filter: Filter): Taps {
  const scale = from / to
  const wide = Math.max(scale, 1)
  const support = filter.support * wide
  const most = Math.ceil(support) * 2 + 1
  const made: Taps = { first: new Int32Array(to), count: new Int32Array(to), weights: new Int32Array(to * most), most }
  const line = new Float64Array(most)
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale
    const first = Math.max(0, Math.trunc(centre - support + 0.5))
    const count = Math.min(from, Math.trunc(centre + support + 0.5)) - first
    let sum = 0
    for (let k = 0; k < count; k++) sum += line[k] = filter.weight((k + first - centre + 0.5) * (1 / wide))
    made.first[i] = first
    made.count[i] = count
    for (let k = 0; k < count; k++) {
      const weight = line[k]! / sum * 2 ** precision
      made.weights[i * most + k] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5)
    }
  }
  return made
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

async function across ({ data, width, height }: Rgb, to: number, filter: Filter, pause: Pause): Promise<Rgb> {
  const { first, count, weights, most } = taps(width, to, filter)
  const out = new Uint8ClampedArray(to * height * 3)
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < to; x++) {
      let from = (y * width + first[x]!) * 3
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
    const waiting = pause()
    if (waiting) await waiting
  }
  return { data: new Uint8Array(out.buffer), width: to, height }
}

async function down ({ data, width, height }: Rgb, to: number, filter: Filter, pause: Pause): Promise<Rgb> {
  const { first, count, weights, most } = taps(height, to, filter)
  const stride = width * 3
  const out = new Uint8ClampedArray(to * stride)
  const sums = new Int32Array(stride)
  for (let y = 0; y < to; y++) {
    sums.fill(1 << precision - 1)
    for (let k = 0; k < count[y]!; k++) {
      const weight = weights[y * most + k]!
      const from = (first[y]! + k) * stride
      for (let i = 0; i < stride; i++) sums[i]! += data[from + i]! * weight
    }
    for (let i = 0; i < stride; i++) out[y * stride + i] = sums[i]! >> precision
    const waiting = pause()
    if (waiting) await waiting
  }
  return { data: new Uint8Array(out.buffer), width, height: to }
}

/** As PIL's `resize`: a direction that keeps its length is left alone. */
async function resize (picture: Rgb, width: number, height: number, filter: Filter, pause: Pause): Promise<Rgb> {
  const wide = picture.width === width ? picture : await across(picture, width, filter, pause)
  return wide.height === height ? wide : await down(wide, height, filter, pause)
}

/** Halves while both sides stay at least those of the target. */
async function halved (picture: Rgb, width: number, height: number, pause: Pause): Promise<Rgb> {
  let half = picture
  while (half.width >= 2 * width && half.height >= 2 * height) half = await resize(half, half.width >> 1, half.height >> 1, box, pause)
  return half
}

/** The middle of the picture, width x height; for a square exactly the authors' `center_crop_arr`. */
export async function centreCrop (picture: Rgb, width: number, height: number, pause: Pause): Promise<Rgb> {
  const half = await halved(picture, width, height, pause)
  const scale = Math.max(width / half.width, height / half.height)
  const near = await resize(half, Math.max(width, roundToEven(half.width * scale)), Math.max(height, roundToEven(half.height * scale)), bicubic, pause)
  if (near.width === width && near.height === height) return near
  const [left, top] = [(near.width - width) >> 1, (near.height - height) >> 1]
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * near.width + left) * 3
    data.set(near.data.subarray(from, from + width * 3), y * width * 3)
  }
  return { data, width, height }
}

/** The whole picture, width x height, by the same filters; its sides' ratio gives way. */
export async function squeezed (picture: Rgb, width: number, height: number, pause: Pause): Promise<Rgb> {
  return await resize(await halved(picture, width, height, pause), width, height, bicubic, pause)
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
