// A tokenizer of videos with random weights, as a file in the authors' form, and what it computes by plain loops in
// double precision over whole videos (../shared/video.md, sections 2.1 and 2.2): an independent reference for the
// engine, which runs frame by frame.

import fs from 'node:fs'
import { random, tile } from '../checkpoint/tiny.js'

/** [frames, height, width, channels] */
export interface Cube { data: Float64Array, frames: number, height: number, width: number, channels: number }

export interface TinyVideo {
  file: string
  levels: number[]
  tensors: Map<string, Float64Array>
}

type Shapes = Map<string, number[]>

/**
 * Two levels: 2 frames and 4 pixels a token. Encoder 3 -> 32, 32 -> 64, 3 levels; decoder 3 -> 64 -> 32.
 * @param prefix of the names in the file
 */
export function tinyVideoShapes (channels = 3, prefix = ''): Shapes {
  const shapes: Shapes = new Map()
  const conv = (name: string, from: number, to: number, side = 3): void => {
    shapes.set(`${prefix}${name}.weight`, [to, from, side, side, side])
    shapes.set(`${prefix}${name}.bias`, [to])
  }
  const norm = (name: string, slope: string, size: number): void => {
    shapes.set(`${prefix}${name}.weight`, [size])
    shapes.set(`${prefix}${name}.bias`, [size])
    shapes.set(`${prefix}${slope}.beta`, [1, size, 1, 1, 1])
  }
  const residual = (name: string, from: number, to: number): void => {
    norm(`${name}.fn.0`, `${name}.fn.1`, from)
    conv(`${name}.fn.2.conv`, from, to)
    norm(`${name}.fn.3`, `${name}.fn.4`, to)
    conv(`${name}.fn.5.conv`, to, to)
    if (from !== to) conv(`${name}.residual_fn.0.conv`, from, to, 1)
  }
  conv('encoder_layers.0.conv', 3, 32)
  residual('encoder_layers.1', 32, 32)
  conv('encoder_layers.2.conv', 32, 32)
  residual('encoder_layers.3', 32, 64)
  conv('encoder_layers.4.conv', 64, 64)
  norm('encoder_layers.5', 'encoder_layers.6', 64)
  conv('encoder_layers.7', 64, channels, 1)
  conv('decoder_layers.0.conv', channels, 64)
  residual('decoder_layers.1', 64, 64)
  conv('decoder_layers.2.conv', 64, 256)
  residual('decoder_layers.4', 32, 32)
  conv('decoder_layers.5.conv', 32, 128)
  norm('decoder_layers.7', 'decoder_layers.8', 32)
  conv('decoder_layers.9.conv', 32, 3)
  return shapes
}

/** Writes a .safetensors file. */
export function writeTinyVideo (
  file: string,
  { levels = [8, 6, 5], prefix = '', metadata }: { levels?: number[], prefix?: string, metadata?: object } = {}
): TinyVideo {
  const shapes = tinyVideoShapes(levels.length, prefix)
  const { entries, bytes } = tile(shapes)
  const header = { ...entries, ...metadata && { __metadata__: { parvis: JSON.stringify(metadata) } } }
  const next = random(7)
  const tensors = new Map<string, Float64Array>()
  const data = new Float32Array(bytes / 4)
  let at = 0
  for (const [name, shape] of shapes) {
    const count = shape.reduce((product, side) => product * side, 1)
    const inputs = count / shape[0]!
    for (let i = 0; i < count; i++) {
      const noise = 2 * next() - 1
      data[at + i] = /beta$/.test(name)
        ? 1 + 0.5 * noise
        : shape.length === 1
          ? (/fn\.[03]\.weight|_layers\.[57]\.weight/.test(name) ? 1 : 0) + 0.3 * noise
          : noise * Math.sqrt(3 / inputs)
    }
    tensors.set(name.slice(prefix.length), Float64Array.from(data.subarray(at, at + count)))
    at += count
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  fs.writeFileSync(file, Buffer.concat([length, json, Buffer.from(data.buffer)]))
  return { file, levels, tensors }
}

function cube (frames: number, height: number, width: number, channels: number): Cube {
  return { data: new Float64Array(frames * height * width * channels), frames, height, width, channels }
}

const clamp = (value: number, most: number): number => Math.min(Math.max(value, 0), most)

/** Edges repeated: two frames before, a pixel around. */
function convolve (t: TinyVideo, x: Cube, name: string, [st, ss]: readonly [number, number] = [1, 1]): Cube {
  const [weight, bias] = [t.tensors.get(`${name}.weight`)!, t.tensors.get(`${name}.bias`)!]
  const outputs = bias.length
  const side = Math.round(Math.cbrt(weight.length / outputs / x.channels))
  const y = cube(Math.ceil(x.frames / st), x.height / ss, x.width / ss, outputs)
  const taps = side ** 3
  let at = 0
  for (let f = 0; f < y.frames; f++) {
    for (let r = 0; r < y.height; r++) {
      for (let c = 0; c < y.width; c++) {
        const sums = Float64Array.from(bias)
        for (let tap = 0; tap < taps; tap++) {
          const [dt, dy, dx] = [Math.floor(tap / side ** 2), Math.floor(tap / side) % side, tap % side]
          const before = side === 3 ? [2, 1, 1] as const : [0, 0, 0] as const
          const from = ((clamp(f * st + dt - before[0], x.frames - 1) * x.height +
            clamp(r * ss + dy - before[1], x.height - 1)) * x.width +
            clamp(c * ss + dx - before[2], x.width - 1)) * x.channels
          for (let i = 0; i < x.channels; i++) {
            const value = x.data[from + i]!
            for (let o = 0; o < outputs; o++) sums[o]! += value * weight[(o * x.channels + i) * taps + tap]!
          }
        }
        y.data.set(sums, at)
        at += outputs
      }
    }
  }
  return y
}

/** Group norm of each frame, 32 groups, then x sigmoid(beta x). */
function normed (t: TinyVideo, x: Cube, name: string, slope: string): Cube {
  const [weight, bias, beta] = [`${name}.weight`, `${name}.bias`, `${slope}.beta`].map(key => t.tensors.get(key)!)
  const y = { ...x, data: new Float64Array(x.data.length) }
  const pixels = x.height * x.width
  const size = x.channels / 32
  for (let f = 0; f < x.frames; f++) {
    for (let g = 0; g < 32; g++) {
      const places = Array.from({ length: pixels * size }, (_, k) =>
        (f * pixels + Math.floor(k / size)) * x.channels + g * size + k % size)
      const mean = places.reduce((sum, at) => sum + x.data[at]!, 0) / places.length
      const variance = places.reduce((sum, at) => sum + (x.data[at]! - mean) ** 2, 0) / places.length
      for (const at of places) {
        const c = at % x.channels
        const v = (x.data[at]! - mean) / Math.sqrt(variance + 1e-5) * weight![c]! + bias![c]!
        y.data[at] = v / (1 + Math.exp(-beta![c]! * v))
      }
    }
  }
  return y
}

function residual (t: TinyVideo, x: Cube, name: string): Cube {
  const h = convolve(t, normed(t, x, `${name}.fn.0`, `${name}.fn.1`), `${name}.fn.2.conv`)
  const y = convolve(t, normed(t, h, `${name}.fn.3`, `${name}.fn.4`), `${name}.fn.5.conv`)
  const side = x.channels === y.channels ? x : convolve(t, x, `${name}.residual_fn.0.conv`)
  return { ...y, data: y.data.map((value, i) => value + side.data[i]!) }
}

/** The block is the outer part of a channel; the first bt - 1 frames are dropped. */
function depthToSpace (x: Cube, bt: number, bs: number): Cube {
  const channels = x.channels / (bt * bs * bs)
  const y = cube(x.frames * bt - (bt - 1), x.height * bs, x.width * bs, channels)
  for (let f = 0; f < y.frames; f++) {
    const source = f + bt - 1
    for (let r = 0; r < y.height; r++) {
      for (let c = 0; c < y.width; c++) {
        const block = ((source % bt) * bs + r % bs) * bs + c % bs
        const row = Math.floor(source / bt) * x.height + Math.floor(r / bs)
        const from = (row * x.width + Math.floor(c / bs)) * x.channels
        for (let k = 0; k < channels; k++) {
          y.data[((f * y.height + r) * y.width + c) * channels + k] = x.data[from + block * channels + k]!
        }
      }
    }
  }
  return y
}

/** [frames, height, width, 3], nominally 0..1, not clamped. */
export function decodeReference (
  t: TinyVideo, tokens: ArrayLike<number>, [frames, rows, columns]: readonly [number, number, number]
): Cube {
  const x = cube(frames, rows, columns, t.levels.length)
  for (let i = 0; i < tokens.length; i++) {
    let rest = tokens[i]!
    t.levels.forEach((level, c) => {
      const half = Math.floor(level / 2)
      x.data[i * t.levels.length + c] = (rest % level - half) / half
      rest = Math.floor(rest / level)
    })
  }
  let y = residual(t, convolve(t, x, 'decoder_layers.0.conv'), 'decoder_layers.1')
  y = depthToSpace(convolve(t, y, 'decoder_layers.2.conv'), 2, 2)
  y = residual(t, y, 'decoder_layers.4')
  y = depthToSpace(convolve(t, y, 'decoder_layers.5.conv'), 1, 2)
  return convolve(t, normed(t, y, 'decoder_layers.7', 'decoder_layers.8'), 'decoder_layers.9.conv')
}

/** Tokens, and how far each channel of each token is from a tie between two levels. */
export function encodeReference (t: TinyVideo, pixels: Cube): { tokens: Int32Array, margin: number } {
  let x = residual(t, convolve(t, pixels, 'encoder_layers.0.conv'), 'encoder_layers.1')
  x = convolve(t, x, 'encoder_layers.2.conv', [1, 2])
  x = residual(t, x, 'encoder_layers.3')
  x = convolve(t, x, 'encoder_layers.4.conv', [2, 2])
  x = convolve(t, normed(t, x, 'encoder_layers.5', 'encoder_layers.6'), 'encoder_layers.7')
  let margin = Infinity
  const tokens = new Int32Array(x.data.length / t.levels.length)
  for (let i = 0; i < tokens.length; i++) {
    let basis = 1
    t.levels.forEach((level, c) => {
      const half = (level - 1) * 0.999 / 2
      const offset = level % 2 === 0 ? 0.5 : 0
      const bounded = Math.tanh(x.data[i * t.levels.length + c]! + Math.tan(offset / half)) * half - offset
      margin = Math.min(margin, Math.abs(bounded - Math.floor(bounded) - 0.5))
      tokens[i]! += (Math.round(bounded) + Math.floor(level / 2)) * basis
      basis *= level
    })
  }
  return { tokens, margin }
}

/** Codes of the tiny model: levels 8, 6, 5. */
export const tinyCodes = 240

/** Tokens of a video. */
export function someTokens (count: number, seed: number): Int32Array {
  const next = random(seed)
  return Int32Array.from({ length: count }, () => Math.floor(next() * tinyCodes))
}
