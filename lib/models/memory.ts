// How much native memory a model takes, from its shapes, without loading it: the addon works it out with the code that
// takes it.

import {
  addon, type Precision, type SessionOptions, type TokenizerModel, type TransformerModel, type VideoTokenizerModel
} from '../machine/native.js'
import { factorsOf } from './video.js'

export type MemoryDevice = 'cpu' | 'cuda'

/** Sizes of a session that do not depend on how many sequences it has. */
export interface SessionShape {
  /** 2: unconditional rows run beside the conditional ones. */
  streamsEach: 1 | 2
  /** Slots of the cache of a stream. */
  slots: number
  /** Tokens of a sequence. */
  tokens: number
  /** Max rows of one stream in a step. */
  rows: number
  /** Rows of logits that are kept of a sequence. */
  kept: number
  /** Rows beside those, of one stream in a step of all sequences together: steps that run on guesses. */
  ahead?: number | undefined
}

/** What `createSession` is given for so many sequences. */
export const sessionShape = ({ rows, ahead = 0, ...shape }: SessionShape, seats: number): SessionOptions =>
  ({ ...shape, seats, maxRows: shape.streamsEach * (seats * rows + ahead) })

/** Kept logits lie in what is read from a session, and in each sequence's own. */
const keptElsewhere = 2

/** Bytes of a transformer's weights. */
export const weightBytes = (device: MemoryDevice, model: TransformerModel, precision: Precision): number =>
  addon().plan({ device, model, precision, threads: 0 }).weights

/** Bytes of a session of so many sequences, and of logits that are kept. `threads`: of the CPU. */
export function sessionBytes (
  device: MemoryDevice, model: TransformerModel, precision: Precision, shape: SessionShape, sequences: number,
  threads: number
): number {
  const { session } = addon().plan({ device, model, precision, threads, session: sessionShape(shape, sequences) })
  return session + sequences * shape.kept * model.vocabularySize * 4 * keptElsewhere
}

/**
 * About what one video takes on its way through the decoder or the encoder: of each filter the two frames before, as it
 * reads them, and at each layer the frames that wait or are in work. Without its result.
 */
export function videoBytes (
  m: VideoTokenizerModel, half: 'encoder' | 'decoder', [rows, columns]: readonly [rows: number, columns: number],
  precision: Precision, device: string
): number {
  const item = precision === 'float32' || (device === 'cpu' && !addon().cpu().bfloat16) ? 4 : 2
  const factor = half === 'decoder' ? 1 : factorsOf(m).space
  let [height, width] = [rows * factor, columns * factor]
  let kept = 0
  let work = 0
  for (const { kind, channels, outputs, kernel, strideSpace, expandTime, expandSpace } of m[half]) {
    const staged = (height + 2) * (width + 2) * item
    if (kernel === 3) kept += 2 * staged * channels
    if (kind === 'residual') kept += 2 * staged * outputs
    work = Math.max(work, 5 * 4 * height * width * Math.max(channels, outputs))
    height = height / strideSpace * expandSpace
    width = width / strideSpace * expandSpace
    if (expandTime > 1) kept += 4 * height * width * outputs / (expandTime * expandSpace ** 2)
  }
  return kept + work
}

/**
 * About what a tokenizer takes while it makes or reads one picture of so many tokens, without its result: at the layer
 * that has most numbers a picture before and after, one that is added, and the padded input of a convolution.
 */
export function pictureBytes (m: TokenizerModel, [rows, columns]: readonly [rows: number, columns: number]): number {
  let cells = rows * columns
  const numbers = m.decoder.map(({ resample, outputs }) => {
    if (resample === 'up') cells *= 4
    return cells * outputs
  })
  return 5 * 4 * Math.max(...numbers)
}
