// What is measured: a size of the paper at some n, or a published model of another method at some number of steps.

import { decoderOf } from '../decoding/decoders.js'
import type { Plan } from '../decoding/decoder.js'
import type { TransformerModel } from '../machine/native.js'
import { publishedParallel, type PublishedParallel } from '../models/published.js'
import { parallelModel, transformerModel, videoTransformer } from '../models/shapes.js'

export interface Subject {
  /** What reports call it: 'XL', or 'arpg-l, 32 steps'. */
  name: string
  /** Tokens a step; 0 where steps differ in size. */
  n: number
  /** Its own grid, a side; undefined: any. */
  side: number | undefined
  /** Frames of tokens, of a model that makes videos. */
  frames?: number
  /** How tokens are drawn, where not as the paper's pictures. */
  sampling?: { guidanceScale: number, topK: number }
  model: TransformerModel
  /** @throws ParError `INVALID_OPTION` for a grid or a number of steps that does not fit */
  plan: (side: number) => Plan
}

export function paperSubject (size: string, n: number): Subject {
  const model = transformerModel(size, n)
  return {
    name: size, n, side: undefined, model,
    plan: side => decoderOf({ method: n === 1 ? 'llamagen' : 'par', grid: [side, side], n, model }, '').plan({})
  }
}

/** What `--model` calls it, and reports do. */
export const videoName = 'video'
/** 17 frames of 128 x 128 pixels (paper, section 4.1). */
const videoGrid = [5, 16, 16] as const

/**
 * Videos as the paper's table 3 makes them. The paper gives neither layers nor widths of its model (792M parameters):
 * this has the blocks of XL and the 64,000 codes of its tokenizer, 895M. Sampling: its table 6.
 */
export function videoSubject (n: number): Subject {
  const model = videoTransformer(n)
  const [frames, side] = videoGrid
  return {
    name: videoName, n, side, frames, model, sampling: { guidanceScale: 1.15, topK: 8000 },
    plan: () =>
      decoderOf({ method: n === 1 ? 'llamagen' : 'par', grid: [...videoGrid], n, model }, '').plan({})
  }
}

/** @param steps default: the model's own */
export function parallelSubject (published: PublishedParallel, steps = published.steps): Subject {
  const { method, name, side } = published
  const model = parallelModel(published)
  return {
    name: `${name.toLowerCase()}, ${steps} steps`, n: 0, side, model,
    plan: () => decoderOf({ method, grid: [side, side], n: 1, model, published }, '').plan({ steps })
  }
}

/** Names of the models of other methods: those of their presets, and without a picture size where that is 256 px. */
export const parallelNames: readonly string[] = publishedParallel.map(({ name }) => name.toLowerCase())

/** The model of a name: 'arpg-l', 'lpd-l-256' or 'lpd-l'. */
export function parallelOf (name: string): PublishedParallel | undefined {
  const wanted = name.toLowerCase()
  return publishedParallel.find(({ name }) => [wanted, `${wanted}-256`].includes(name.toLowerCase()))
}
