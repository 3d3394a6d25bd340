// The recipe's classifier, a plain convolutional network trained on real pictures only, as the judge of generated
// ones: nothing of it is the package's own code. Weights: models/fashion/recipe/classifier.safetensors (bfloat16).

import fs from 'node:fs'
import path from 'node:path'
import { root } from './built.js'

type Weights = (name: string) => Float32Array

function read (): Weights {
  const data = fs.readFileSync(path.join(root, 'models/fashion/recipe/classifier.safetensors'))
  const length = Number(data.readBigUInt64LE(0))
  const header = JSON.parse(data.toString('utf8', 8, 8 + length))
  return name => {
    const { dtype, data_offsets: [from, to] } = header[name]
    const bytes = Uint8Array.from(data.subarray(8 + length + from, 8 + length + to)).buffer
    if (dtype === 'F32') return new Float32Array(bytes)
    if (dtype !== 'BF16') throw new Error(`classifier: ${name} is ${dtype}`)
    return new Float32Array(Uint32Array.from(new Uint16Array(bytes), half => half << 16 >>> 0).buffer)
  }
}

/** 3x3 convolution with a border of zeros, ReLU, 2x2 maximum. x: [channels, size, size] */
function layer (
  x: Float32Array, channels: number, size: number, weight: Float32Array, bias: Float32Array
): Float32Array {
  const outputs = bias.length
  const half = size / 2
  const out = new Float32Array(outputs * half * half)
  const sums = new Float32Array(size * size)
  for (let o = 0; o < outputs; o++) {
    sums.fill(bias[o]!)
    for (let c = 0; c < channels; c++) {
      for (let ky = 0; ky < 3; ky++) {
        for (let kx = 0; kx < 3; kx++) {
          const w = weight[((o * channels + c) * 3 + ky) * 3 + kx]!
          for (let y = Math.max(0, 1 - ky); y < Math.min(size, size + 1 - ky); y++) {
            const from = (c * size + y + ky - 1) * size + kx - 1
            for (let col = Math.max(0, 1 - kx); col < Math.min(size, size + 1 - kx); col++) {
              sums[y * size + col]! += w * x[from + col]!
            }
          }
        }
      }
    }
    for (let y = 0; y < half; y++) {
      for (let col = 0; col < half; col++) {
        const at = 2 * y * size + 2 * col
        out[(o * half + y) * half + col] = Math.max(0, sums[at]!, sums[at + 1]!, sums[at + size]!, sums[at + size + 1]!)
      }
    }
  }
  return out
}

function dense (x: Float32Array, weight: Float32Array, bias: Float32Array): Float32Array {
  return bias.map((b, o) => {
    let sum = b
    for (let i = 0; i < x.length; i++) sum += weight[o * x.length + i]! * x[i]!
    return sum
  })
}

/** A judge of pictures, RGB bytes [32, 32, 3]: the class it sees. */
export function classifier (): (rgb: Uint8Array) => number {
  const weights = read()
  return rgb => {
    let x: Float32Array = Float32Array.from({ length: 32 * 32 },
      (_, i) => (rgb[3 * i]! + rgb[3 * i + 1]! + rgb[3 * i + 2]!) / 3 / 127.5 - 1)
    let [channels, size] = [1, 32]
    for (const name of ['conv1', 'conv2', 'conv3']) {
      const bias = weights(`${name}.bias`)
      x = layer(x, channels, size, weights(`${name}.weight`), bias)
      channels = bias.length
      size /= 2
    }
    const hidden = dense(x, weights('hidden.weight'), weights('hidden.bias')).map(v => Math.max(0, v))
    const logits = dense(hidden, weights('output.weight'), weights('output.bias'))
    return logits.indexOf(Math.max(...logits))
  }
}
