// Every operation written plainly, with sums in double precision: what the backend's fused and packed one must agree
// with. It rounds where the backend rounds: weights, what stands in caches, and where products of bfloat16 are made,
// activations before they are multiplied.

import { drawReference, gumbelReference, uniform } from './draws.js'
import type { Operation } from './operations-addon.js'

type Of<K extends Operation['kind']> = Extract<Operation, { kind: K }>

// ---- inputs

/** Row-major sizes of the inputs, in their order (test/operations-addon/operation.h). */
export function inputShapes (o: Operation): number[][] {
  switch (o.kind) {
    case 'projection': return [
      [o.rows, o.inputs], ...(o.normed ? [[o.inputs]] : []), [o.epilogue === 'swiglu' ? 2 * o.outputs : o.outputs,
        o.inputs], ...(o.epilogue === 'add' ? [[o.rows, o.outputs]] : [])
    ]
    case 'attention': {
      const cache = [o.streams, o.kvHeads, o.sees - o.rows, o.headSize]
      return [[o.streams * o.rows, o.dim], [o.dim], [(o.heads + 2 * o.kvHeads) * o.headSize, o.dim], cache, cache]
    }
    case 'draw': return Array.from({ length: o.guided ? 2 : 1 }, () => [o.draws, o.vocabularySize])
    case 'convolution': return [
      [o.images, o.height, o.width, o.channels], [o.outputs, o.channels, o.kernel, o.kernel], [o.outputs],
      ...(o.groups > 0 ? [[o.channels], [o.channels]] : []),
      ...(o.residual ? [[o.images, ...resampled(o), o.outputs]] : [])
    ]
    case 'spatialAttention': return [
      [o.images, o.height, o.width, o.channels], [o.channels], [o.channels],
      ...Array.from({ length: 4 }, () => [[o.channels, o.channels], [o.channels]]).flat()
    ]
  }
}

/**
 * Random numbers by which results are about 1: weights by their inputs, norms around 1, logits spread over some nats.
 */
export function randomInputs (o: Operation): Float32Array[] {
  let state = 12345
  const random = (): number => { // -1 to 1
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  }
  const shapes = inputShapes(o)
  return shapes.map((shape, k) => {
    const count = shape.reduce((a, b) => a * b, 1)
    const matrix = k > 0 && o.kind !== 'draw' &&
      ((shape.length === 2 && !(o.kind === 'projection' && o.epilogue === 'add' && k === shapes.length - 1)) ||
        (o.kind === 'convolution' && k === 1))
    const factor = matrix ? Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b)) : o.kind === 'draw' ? 4 : 1.5
    const normWeight = (o.kind === 'projection' && o.normed && k === 1) || (o.kind === 'attention' && k === 1) ||
      (o.kind === 'convolution' && o.groups > 0 && k === 3) || (o.kind === 'spatialAttention' && k === 1)
    return Float32Array.from({ length: count }, () => normWeight ? 1 + random() / 4 : random() * factor)
  })
}

// ---- results

const scratch = new DataView(new ArrayBuffer(4))

/** To the nearest bfloat16, ties to even. */
export function toBfloat16 (value: number): number {
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  scratch.setUint32(0, (bits + 0x7fff + (bits >>> 16 & 1)) & 0xffff0000)
  return scratch.getFloat32(0)
}

/** The nearest integer, of two the even one. */
function toEven (value: number): number {
  return Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)
}

/** Each row in groups of 64 inputs: integers of -127..127 times a scale by which the largest is 127. */
export function toInt8 (w: Float32Array, inputs: number): Float32Array {
  const out = new Float32Array(w.length)
  for (let row = 0; row < w.length; row += inputs) {
    for (let begin = 0; begin < inputs; begin += 64) {
      const group = w.subarray(row + begin, row + Math.min(begin + 64, inputs))
      const scale = Math.fround(group.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127)
      group.forEach((value, i) => {
        out[row + begin + i] = scale > 0 ? (toEven(Math.fround(value / scale)) + 0) * scale : 0
      })
    }
  }
  return out
}

/**
 * Of the output's length; tokens of draws.
 * @param multiplied the type of activations in precisions other than float32
 */
export function reference (
  o: Operation, inputs: readonly Float32Array[], multiplied: 'float32' | 'bfloat16'
): Float64Array {
  const kept = o.precision === 'float32' ? Math.fround : toBfloat16
  const rounded: Rounding = {
    matrix: o.precision === 'int8' ? toInt8 : w => w.map(kept),
    kept,
    activation: multiplied === 'float32' ? Math.fround : kept
  }
  switch (o.kind) {
    case 'projection': return projection(o, inputs, rounded)
    case 'attention': return attention(o, inputs, rounded)
    case 'draw': return draws(o, inputs)
    case 'convolution': return convolution(o, inputs, rounded)
    case 'spatialAttention': return spatialAttention(o, inputs, rounded)
  }
}

interface Rounding {
  /** Matrices of so many inputs. */
  matrix: (w: Float32Array, inputs: number) => Float32Array
  /** Keys and values of the cache, weights of norms. */
  kept: (value: number) => number
  /** Activations, and filters of tokenizers. */
  activation: (value: number) => number
}
type Numbers = Float32Array | Float64Array

/** x [rows, inputs] times the transpose of w [outputs, inputs] -> [rows, outputs] */
function product (x: Numbers, w: Numbers, rows: number, inputs: number, outputs: number): Float64Array {
  const y = new Float64Array(rows * outputs)
  for (let o = 0; o < outputs; o++) {
    for (let r = 0; r < rows; r++) {
      let sum = 0
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i]! * w[o * inputs + i]!
      y[r * outputs + o] = sum
    }
  }
  return y
}

const silu = (x: number): number => x / (1 + Math.exp(-x))

/** RMSNorm of each row. */
function rmsNorm (
  x: Numbers, weight: Numbers, dim: number, eps: number, { activation, kept }: Rounding
): Float64Array {
  const y = new Float64Array(x.length)
  for (let from = 0; from < x.length; from += dim) {
    let squares = 0
    for (let i = 0; i < dim; i++) squares += x[from + i]! ** 2
    const scale = 1 / Math.sqrt(squares / dim + eps)
    for (let i = 0; i < dim; i++) y[from + i] = activation(activation(x[from + i]! * scale) * kept(weight[i]!))
  }
  return y
}

/** exp(score - largest) over their sum; rounded where they are multiplied, not in the sum. */
function softmax (scores: Float64Array, { activation }: Rounding): Float64Array {
  const top = scores.reduce((a, b) => Math.max(a, b))
  const weights = scores.map(score => Math.exp(score - top))
  const sum = weights.reduce((a, b) => a + b)
  return weights.map(weight => activation(weight) / sum)
}

function projection (o: Of<'projection'>, inputs: readonly Float32Array[], rounded: Rounding): Float64Array {
  const rest = [...inputs]
  const x = rest.shift()!
  const multiplied = o.normed ? rmsNorm(x, rest.shift()!, o.inputs, o.eps, rounded) : x.map(rounded.activation)
  const w = rounded.matrix(rest.shift()!, o.inputs)
  const all = o.epilogue === 'swiglu' ? 2 * o.outputs : o.outputs
  const y = product(multiplied, w, o.rows, o.inputs, all)
  if (o.epilogue === 'store') return y
  if (o.epilogue === 'add') return y.map((value, i) => rest[0]![i]! + value)
  return Float64Array.from({ length: o.rows * o.outputs }, (_, k) => {
    const at = Math.floor(k / o.outputs) * all + k % o.outputs
    return silu(y[at]!) * y[at + o.outputs]!
  })
}

/** Two-dimensional rotation: the pairs (2p, 2p + 1) of a head's first half by its row, of the second by its column. */
function rotate (head: Float64Array, row: number, column: number): Float64Array {
  const half = head.length / 2
  return head.map((value, d) => {
    const inHalf = d % half
    const angle = (d < half ? row : column) * 10000 ** -(2 * Math.floor(inHalf / 2) / half)
    const other = head[d % 2 === 0 ? d + 1 : d - 1]!
    return d % 2 === 0
      ? value * Math.cos(angle) - other * Math.sin(angle)
      : value * Math.cos(angle) + other * Math.sin(angle)
  })
}

function attention (
  o: Of<'attention'>, [x, norm, wqkv, keys, values]: readonly Float32Array[], rounded: Rounding
): Float64Array {
  const { heads, kvHeads, headSize, rows, sees } = o
  const before = sees - rows
  const outputs = (heads + 2 * kvHeads) * headSize
  const qkv = product(rmsNorm(x!, norm!, o.dim, o.eps, rounded), rounded.matrix(wqkv!, o.dim),
    o.streams * rows, o.dim, outputs)
  const cell = (row: number): [number, number] => [Math.floor((before + row) / o.grid), (before + row) % o.grid]
  const part = (stream: number, row: number, first: number): Float64Array =>
    qkv.slice((stream * rows + row) * outputs + first, (stream * rows + row) * outputs + first + headSize)
  const out = new Float64Array(o.streams * rows * heads * headSize)
  for (let stream = 0; stream < o.streams; stream++) {
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head / (heads / kvHeads))
      const cached = (from: Float32Array, slot: number): Numbers => from.subarray(
        ((stream * kvHeads + kv) * before + slot) * headSize, ((stream * kvHeads + kv) * before + slot + 1) * headSize
      ).map(rounded.kept)
      const k = Array.from({ length: sees },
        (_, slot) => slot < before
          ? cached(keys!, slot)
          : rotate(part(stream, slot - before, (heads + kv) * headSize), ...cell(slot - before)).map(rounded.kept))
      const v = Array.from({ length: sees },
        (_, slot) => slot < before
          ? cached(values!, slot)
          : part(stream, slot - before, (heads + kvHeads + kv) * headSize).map(rounded.kept))
      for (let row = 0; row < rows; row++) {
        const q = rotate(part(stream, row, head * headSize), ...cell(row)).map(rounded.activation)
        const weights = softmax(Float64Array.from(k,
          key => q.reduce((sum, value, d) => sum + value * key[d]!, 0) / Math.sqrt(headSize)), rounded)
        const at = ((stream * rows + row) * heads + head) * headSize
        weights.forEach((weight, slot) => { for (let d = 0; d < headSize; d++) out[at + d]! += weight * v[slot]![d]! })
      }
    }
  }
  return out
}

function draws (o: Of<'draw'>, [conditional, unconditional]: readonly Float32Array[]): Float64Array {
  return Float64Array.from({ length: o.draws }, (_, i) => {
    const row = (of: Float32Array): Float32Array => of.subarray(i * o.vocabularySize, (i + 1) * o.vocabularySize)
    const u = o.guided ? row(unconditional!) : undefined
    const logits = row(conditional!)
      .map((c, k) => u ? Math.fround(o.rule.guidanceScale * Math.fround(c - u[k]!) + u[k]!) : c)
    return (o.rule.draw === 'gumbel'
      ? gumbelReference(logits, o.rule, 1n, i)
      : drawReference(logits, o.rule, uniform(1n, i))).token
  })
}

// ---- pictures [images, height, width, channels]

const resampled = (o: Of<'convolution'>): [number, number] => {
  const factor = o.resample === 'up' ? 2 : o.resample === 'down' ? 0.5 : 1
  return [o.height * factor, o.width * factor]
}

interface Sizes { images: number, height: number, width: number, channels: number }

function groupNorm (
  x: Numbers, { images, height, width, channels }: Sizes, groups: number, eps: number, weight: Numbers, bias: Numbers
): Float64Array {
  const y = new Float64Array(x.length)
  const size = channels / groups
  const pixels = height * width
  for (let image = 0; image < images; image++) {
    for (let group = 0; group < groups; group++) {
      const each = (work: (at: number, channel: number) => void): void => {
        for (let p = 0; p < pixels; p++) {
          for (let c = group * size; c < (group + 1) * size; c++) work((image * pixels + p) * channels + c, c)
        }
      }
      let [sum, squares] = [0, 0]
      each(at => { sum += x[at]! })
      const mean = sum / (pixels * size)
      each(at => { squares += (x[at]! - mean) ** 2 })
      const scale = 1 / Math.sqrt(squares / (pixels * size) + eps)
      each((at, c) => { y[at] = (x[at]! - mean) * scale * weight[c]! + bias[c]! })
    }
  }
  return y
}

function convolution (o: Of<'convolution'>, inputs: readonly Float32Array[], rounded: Rounding): Float64Array {
  const [x, w, bias, ...rest] = inputs as [Float32Array, Float32Array, Float32Array, ...Float32Array[]]
  const { images, height, width, channels, outputs, kernel, resample } = o
  let staged: Numbers = o.groups > 0 ? groupNorm(x, o, o.groups, o.eps, rest.shift()!, rest.shift()!) : x
  if (o.swish) staged = staged.map(silu)
  staged = staged.map(rounded.activation)
  const weights = w.map(rounded.activation)
  const [outHeight, outWidth] = resampled(o)
  const repeat = resample === 'up' ? 2 : 1
  const stride = resample === 'down' ? 2 : 1
  // down-sampling has its border at the right and at the bottom only
  const before = kernel === 3 && stride === 1 ? 1 : 0
  const y = new Float64Array(images * outHeight * outWidth * outputs)
  for (let at = 0; at < y.length / outputs; at++) {
    const image = Math.floor(at / (outHeight * outWidth))
    const [oy, ox] = [Math.floor(at / outWidth) % outHeight, at % outWidth]
    for (let ky = 0; ky < kernel; ky++) {
      for (let kx = 0; kx < kernel; kx++) {
        const [iy, ix] = [oy * stride + ky - before, ox * stride + kx - before]
        if (iy < 0 || ix < 0 || iy >= height * repeat || ix >= width * repeat) continue
        const from = ((image * height + Math.floor(iy / repeat)) * width + Math.floor(ix / repeat)) * channels
        for (let k = 0; k < outputs; k++) {
          let sum = 0
          for (let c = 0; c < channels; c++) {
            sum += staged[from + c]! * weights[((k * channels + c) * kernel + ky) * kernel + kx]!
          }
          y[at * outputs + k]! += sum
        }
      }
    }
    for (let k = 0; k < outputs; k++) y[at * outputs + k]! += bias[k]! + (o.residual ? rest[0]![at * outputs + k]! : 0)
  }
  return y
}

function spatialAttention (
  o: Of<'spatialAttention'>, [x, weight, bias, ...parts]: readonly Float32Array[], rounded: Rounding
): Float64Array {
  const { images, channels } = o
  const pixels = o.height * o.width
  const normed = groupNorm(x!, o, o.groups, o.eps, weight!, bias!).map(rounded.activation)
  /** A convolution of one pixel. */
  const linear = (from: Numbers, part: number): Float64Array => product(from, parts[2 * part]!.map(rounded.activation),
    images * pixels, channels, channels).map((value, i) => value + parts[2 * part + 1]![i % channels]!)
  const [q, k, v] = [0, 1, 2].map(part => linear(normed, part).map(rounded.activation)) as [Float64Array, Float64Array,
    Float64Array]
  const attended = new Float64Array(images * pixels * channels)
  for (let p = 0; p < images * pixels; p++) {
    const first = Math.floor(p / pixels) * pixels
    const scores = Float64Array.from({ length: pixels }, (_, slot) => {
      let sum = 0
      for (let c = 0; c < channels; c++) sum += q[p * channels + c]! * k[(first + slot) * channels + c]!
      return sum / Math.sqrt(channels)
    })
    softmax(scores, rounded).forEach((share, slot) => {
      for (let c = 0; c < channels; c++) attended[p * channels + c]! += share * v[(first + slot) * channels + c]!
    })
  }
  return linear(attended.map(rounded.activation), 3).map((value, i) => x![i]! + value)
}

/**
 * The largest difference as a part of the largest expected number; Infinity where anything is NaN or of another length.
 */
export function worstOfLargest (found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length) return Infinity
  let [most, largest] = [0, 0]
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!)
    if (!(difference <= Infinity)) return Infinity
    most = Math.max(most, difference)
    largest = Math.max(largest, Math.abs(expected[i]!))
  }
  return most / largest
}
