// What `parvis inspect` says about running a checkpoint: the memory that it takes, from the library's own sums, and the
// time of an image at best, from the device's ceilings. Nothing is loaded for either.

import type { TokenizerDescription, TransformerDescription } from '../checkpoint/index.js'
import { largest } from '../machine/budget.js'
import { choose, maxSessionBytes, type Device } from '../machine/device.js'
import { sessionBytes, weightBytes, type MemoryDevice } from '../models/memory.js'
import { createEngine } from '../machine/engine.js'
import { addon, toParError, type Precision } from '../machine/native.js'
import { resolveSampling } from '../api/options.js'
import { decoderOf } from '../decoding/decoders.js'
import { decodeFlops, rowCounts, stepCost } from '../models/shapes.js'
import { vq16, vqFactor } from '../models/vq.js'
import { streamsOf } from '../decoding/step.js'
import { table } from './terminal.js'

/** Of transformers. */
const precisions = ['bfloat16', 'int8', 'float32'] as const

// ---- memory

export interface Need {
  device: MemoryDevice
  precision: Precision
  guided: boolean
  /** Bytes. */
  weights: number
  batches: Array<{
    batch: number
    /** Pictures that run side by side; the others come after them. */
    atOnce: number
    /** Weights, caches and work space. */
    bytes: number
  }>
}

const batches = [1, 4, 16, 64]

/**
 * Memory for every device, precision and batch; the library's sampling defaults decide whether it is guided. Undefined
 * without the addon, which works it out.
 */
export function memoryNeeds (about: TransformerDescription): Need[] | undefined {
  if (!hasAddon()) return undefined
  const { model } = about
  const { guidanceScale } = resolveSampling({}, about)
  const { slots, tokens, maxRows } = decoderOf(about, '').plan({})
  const shape = { streamsEach: streamsOf(guidanceScale), slots, tokens, rows: maxRows, kept: 0 }
  const here = addon().cpu().threads
  return (['cpu', 'cuda'] as const).flatMap(device => precisions.map(precision => {
    const weights = weightBytes(device, model, precision)
    const bytesOf = (sequences: number): number => sessionBytes(device, model, precision, shape, sequences, here)
    return {
      device,
      precision,
      guided: guidanceScale > 1,
      weights,
      batches: batches.map(batch => {
        const atOnce = largest(batch, bytesOf, maxSessionBytes(device)) // where there is plenty
        return { batch, atOnce, bytes: weights + bytesOf(atOnce) }
      })
    }
  }))
}

function hasAddon (): boolean {
  try {
    addon()
    return true
  } catch {
    return false
  }
}

// ---- speed

export interface Speed {
  device: string
  ceilings: { readBytesPerSecond: number, float32Flops: number, bfloat16Flops: number }
  /** An image of a transformer, or a decode of a tokenizer, when every step runs at the nearer ceiling. */
  atBest: Array<{
    precision: Precision
    batch: number
    secondsAnImage: number
    /** What most of the time goes to. */
    limit: 'reading' | 'products'
  }>
  steps?: number
  guided?: boolean
}

/** Measures the device. Errors: DEVICE_UNAVAILABLE; those of the addon. */
export async function expectedSpeed (
  about: TransformerDescription | TokenizerDescription, device: Device
): Promise<Speed> {
  const { device: chosen } = await choose(device, 'auto')
  const engine = createEngine(chosen, 0)
  try {
    const ceilings = await engine.measureCeilings()
    const flops = (precision: Precision): number =>
      precision === 'float32' ? ceilings.float32Flops : ceilings.bfloat16Flops
    if (!('n' in about)) {
      const grid = (about.imageSize?.[0] ?? 384) / vqFactor(vq16)
      // The sums are those of VQ-16; of another tokenizer nothing is said.
      const known = (about.official ?? about.mayBe) !== undefined && about.model.codebookSize === vq16.codebookSize
      return {
        device: chosen, ceilings,
        atBest: known
          ? (['bfloat16', 'float32'] as const).map(precision =>
              ({ precision, batch: 1, secondsAnImage: decodeFlops(grid) / flops(precision), limit: 'products' }))
          : []
      }
    }
    const { model } = about
    const guided = resolveSampling({}, about).guidanceScale > 1
    const { slots, tokens, maxRows, picture } = decoderOf(about, '').plan({})
    const { steps } = picture(0)
    const kind = chosen === 'cpu' ? 'cpu' : 'cuda'
    const here = addon().cpu().threads
    const atBest = precisions.flatMap(precision => [1, 16].map(batch => {
      const shape = {
        streamsEach: guided ? 2 : 1, slots, tokens, rows: maxRows, kept: 0
      } as const
      const atOnce = largest(batch, sequences => sessionBytes(kind, model, precision, shape, sequences, here),
        maxSessionBytes(chosen))
      let [total, reading] = [0, 0]
      for (const { rows: table } of steps) {
        const cost = stepCost(model, precision,
          { ...rowCounts(model, table), sequences: atOnce * (guided ? 2 : 1) })
        const read = (cost.weightBytes + cost.cacheBytes) / ceilings.readBytesPerSecond
        const multiplied = cost.flops / flops(precision)
        total += Math.max(read, multiplied)
        if (read >= multiplied) reading += read
      }
      return { precision, batch: atOnce, secondsAnImage: total / atOnce, limit: reading > total / 2
        ? 'reading' as const
        : 'products' as const }
    }))
    return { device: chosen, ceilings, atBest, steps: steps.length, guided }
  } catch (error) {
    throw toParError(error)
  } finally {
    await engine.dispose()
  }
}

const seconds = (value: number): string =>
  value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} s`

export function speedText ({ device, ceilings, atBest, steps, guided }: Speed): string {
  const { readBytesPerSecond, float32Flops, bfloat16Flops } = ceilings
  const head = `${device} reads ${(readBytesPerSecond / 1e9).toFixed(0)} GB/s and ` +
    `multiplies ${(bfloat16Flops / 1e12).toPrecision(2)} TFLOPS in bfloat16, ` +
    `${(float32Flops / 1e12).toPrecision(2)} in float32, measured just now.`
  if (atBest.length === 0) return `${head} Of a tokenizer of this shape nothing more is said.`
  const what = steps === undefined
    ? 'A decode'
    : `An image, ${steps} steps, ${guided ? 'guided' : 'not guided'}, the transformer alone`
  return `${head}\n${what}, takes at best (parvis bench says what it takes):\n` +
    table(
      atBest.map(({ precision, batch, secondsAnImage, limit }) =>
        [precision, batch === 1 ? 'one alone' : `${batch} side by side`, `${seconds(secondsAnImage)} an image`,
          `limited by ${limit}`])
    )
}
