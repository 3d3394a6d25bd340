// How much native memory a model takes, from its shapes, without loading it: the same sums that the backends make when
// they plan theirs (cpu/weights.cc, cpu/session.cc; cuda/loader.cc, cuda/session.cc), which test/memory-plan.test.ts holds
// against what they then allocate. Of a GPU's session the tables of rows and predictions (kilobytes) are left out.

import type { Precision, TokenizerModel, TransformerModel } from './native.js'

export type MemoryDevice = 'cpu' | 'cuda'

/** Sizes of a session: what `createSession` is given. */
export interface SessionShape {
  sequences: number
  /** Unconditional rows run beside the conditional ones. */
  guided: boolean
  /** Slots of the cache, and tokens, a sequence. */
  slots: number
  /** Most rows of one step. */
  maxRows: number
  /** Of the CPU. */
  threads: number
  /** Positions whose logits are kept. */
  kept?: number
}

/** Kept logits lie in the session, in what is read from it and in each sequence's own. */
const keptCopies = 3

const up = (value: number, to: number): number => Math.ceil(value / to) * to
const itemBytes = (precision: Precision): number => precision === 'float32' ? 4 : 2
const sum = (parts: readonly number[], alignment: number): number => parts.reduce((total, part) => total + up(part, alignment), 0)

/** Rows of logits that exist at a time. */
const logitRows = { cpu: 256, cuda: 1024 }

/** Bytes of a transformer's weights. */
export function weightBytes (device: MemoryDevice, m: TransformerModel, precision: Precision): number {
  const item = itemBytes(precision)
  // On the CPU panels of 32 outputs, on a GPU in bfloat16 tiles of 16 x 16, in float32 rows as they are.
  const matrix = (outputs: number, inputs: number): number =>
    device === 'cpu' ? up(outputs, 32) * up(inputs, precision === 'float32' ? 1 : 2) * item
      : precision === 'float32' ? outputs * inputs * 4 : up(outputs, 16) * up(inputs, 16) * 2
  const gateUp = device === 'cpu' ? matrix(up(m.feedForward, 16) * 2, m.dim)
    : precision === 'float32' ? 2 * m.feedForward * m.dim * 4 : up(m.feedForward, 8) * 2 * up(m.dim, 16) * 2
  const vector = up(m.dim, device === 'cpu' ? 32 : 16) * 4
  const table = (rows: number): number => rows * m.dim * item
  const width = m.heads * m.headSize
  const layer = [vector, matrix(width + 2 * m.kvHeads * m.headSize, m.dim), matrix(m.dim, width), vector, gateUp, matrix(m.dim, m.feedForward)]
  const whole = [table(m.classes + 1), table(m.vocabularySize), table(m.transitions), vector, matrix(m.vocabularySize, m.dim)]
  const alignment = device === 'cpu' ? 64 : 256
  return m.layers * sum(layer, alignment) + sum(whole, alignment)
}

/** Bytes of keys, values and work space of a session, and of logits that are kept. */
export function sessionBytes (device: MemoryDevice, m: TransformerModel, precision: Precision, shape: SessionShape): number {
  return workBytes(device, m, precision, shape) + shape.sequences * (shape.kept ?? 0) * m.vocabularySize * 4 * keptCopies
}

function workBytes (device: MemoryDevice, m: TransformerModel, precision: Precision, shape: SessionShape): number {
  const { sequences, guided, slots, maxRows, threads } = shape
  const item = itemBytes(precision)
  const streams = sequences * (guided ? 2 : 1)
  const rows = streams * maxRows
  const width = m.heads * m.headSize
  if (device === 'cpu') {
    const step = precision === 'float32' ? 1 : 2
    const capacity = up(slots, 32)
    const chunk = Math.min(rows, logitRows.cpu)
    const head = capacity / 32 * Math.ceil(m.headSize / step) * 128 + up(m.headSize, 32) / 32 * (capacity / step) * 128
    const scratch = Math.max(8 * (capacity * 8 + up(m.headSize, 32) * 4) + 256, up(m.vocabularySize, 32) * 12) + 4096
    return sum([
      rows * up(m.dim, 32) * 4, rows * up(m.dim, 32) * item, rows * up(width + 2 * m.kvHeads * m.headSize, 32) * 4,
      rows * up(width, 32) * item, rows * up(m.feedForward, 32) * item,
      chunk * up(m.vocabularySize, 32) * 4, chunk * up(m.dim, 32) * item, scratch * threads, head * m.kvHeads * streams * m.layers
    ], 64)
  }
  const branches = guided ? 2 : 1
  const chunk = branches * Math.min(sequences * maxRows, logitRows.cuda / branches)
  const head = up(m.headSize, 16)
  // Attention splits the keys in spans of 128, for tiles of 16 queries; each has its sums.
  const shared = Math.max(1, m.heads / m.kvHeads)
  const queries = Math.max(1, Math.min(maxRows, Math.floor(64 / shared))) * shared
  const partials = streams * m.kvHeads * Math.ceil(queries / 16) * Math.ceil(slots / 128) * 16 * (head + 2) * 4
  return sum([
    rows * up(m.dim, 16) * 4, rows * up(m.dim, 16) * item, rows * m.heads * head * item, rows * up(width, 16) * item,
    rows * up(m.feedForward, 16) * item, chunk * up(m.vocabularySize, 16) * 4, chunk * up(m.dim, 16) * item,
    2 * m.layers * streams * m.kvHeads * slots * head * item, partials, sequences * slots * 8
  ], 256)
}

/**
 * About what a tokenizer takes while it makes or reads one picture of so many tokens, without its result: at the level that has
 * most numbers a picture before and after, one that is added, and the padded input of a convolution.
 */
export function pictureBytes (m: TokenizerModel, [rows, columns]: readonly [rows: number, columns: number]): number {
  const finest = m.multipliers.length - 1
  const numbers = m.multipliers.map((multiplier, level) => rows * columns * 4 ** (finest - level) * m.baseChannels * multiplier)
  return 5 * 4 * Math.max(...numbers)
}
