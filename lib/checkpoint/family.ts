// What is read of a transformer's file before its heads are known, alike for every family of models.

import type { Method } from '../decoding/method.js'
import type { TensorSource, TransformerModel, WeightSource } from '../machine/native.js'
import { elementBytes } from './dtypes.js'
import type { ModelGrid } from './grid.js'
import { scaleShape } from './quantized.js'
import type { Needed } from './shapes.js'

export interface Heads { heads: number, kvHeads: number, headSize: number }

/** What the tensors of a file tell. */
export interface Taken {
  method: Method
  /** All of them; of ARPG both stacks. */
  layers: number
  dim: number
  feedForward: number
  vocabularySize: number
  classes: number
  /** Tokens a step; 1 for methods that have no such number. */
  n: number
  /** Rows of the projection to queries, keys and values, and the tensor that has them. */
  qkv: { rows: number, name: string }
  /** Tokens of a picture, where a table of positions tells. */
  tokens?: number | undefined
  /** Size of a head where nothing else tells. */
  headSize?: number | undefined
  /** Heads, as its training arguments say. */
  heads?: number | undefined
  /** The grid, as its training arguments say. */
  grid?: ModelGrid | undefined
  /** Tokens of text in front of those that are drawn; absent for models that read a class. */
  prefix?: number | undefined
  model: (heads: Heads) => TransformerModel
  weights: (model: TransformerModel) => WeightSource[]
}

/** What callers or metadata tell of a file. */
export interface Told {
  /** By the metadata. */
  n: number | undefined
  /** By the caller. */
  askedN: number | undefined
  /** Codes of its tokenizer. */
  codes: number | undefined
}

export type Take = (needed: Needed, told: Told) => Taken

/** Rows [begin, end) of a tensor, as a matrix: what is in front of its last two axes is 1. */
export function rowsOf (
  { name, dtype, shape, offset, strides, scales }: TensorSource, begin = 0, end?: number
): TensorSource {
  const [rows, columns] = shape.slice(-2) as [number, number]
  const part = { name, dtype, shape: [(end ?? rows) - begin, columns] }
  const bytes = elementBytes(dtype)
  if (scales !== undefined) {
    return { ...part, offset: offset + begin * columns, scales: scales + begin * 4 * scaleShape(shape.slice(-2))[1] }
  }
  if (!strides) return { ...part, offset: offset + begin * columns * bytes }
  const last = strides.slice(-2)
  return { ...part, offset: offset + begin * last[0]! * bytes, strides: last }
}

/** The tensors that were taken, by name. */
export function byName (needed: Needed): (name: string) => TensorSource {
  const tensors = new Map(needed.tensors.map(tensor => [tensor.name, tensor]))
  return name => tensors.get(name)!
}
