// What a method of decoding is to generation, scoring and previews.

import type { Method } from './method.js'
import type { CheckedDecoding } from './options.js'

/** What one picture does in a step. */
export interface PlannedStep {
  /**
   * [rows, 8] ints: the token that is predicted (-1: none), then what a row of a step has behind its stream
   * (include/parvis/step.h).
   */
  readonly rows: Int32Array
  /** [rows]: a token is drawn at the guidance scale 1 + share (guidanceScale - 1). Absent: every share is 1. */
  readonly shares?: Float32Array | undefined
}

/** What one picture runs. */
export interface PicturePlan {
  readonly steps: readonly PlannedStep[]
  /** Sequence index -> raster cell: the cells in the order in which they are drawn. */
  readonly cells: Int32Array
  /**
   * The same tokens, known beforehand, for scores: in tables of at most `limit` rows (a longer step stays whole), or,
   * where what is seen depends on the steps, the steps themselves.
   */
  fullTables (limit: number): readonly PlannedStep[]
  /** Tokens in sequence order -> raster order, [tokens]. */
  toRaster<T extends Int32Array | Float32Array> (sequence: T): T
  /** Tokens in raster order -> sequence order, [tokens]. */
  toSequence<T extends Int32Array | Float32Array> (raster: T): T
  /**
   * @param sequence tokens in sequence order, [tokens]; those at `known` and later are ignored
   * @returns raster order, [tokens], missing cells filled from known ones; undefined where nothing is known
   */
  preview (sequence: Int32Array, known: number): Int32Array | undefined
}

/** What the pictures of a call have in common. */
export interface Plan {
  /** Tokens of a picture. */
  readonly tokens: number
  /** Tokens of text in front of them in a sequence, which rows count too; 0 for models that read a class. */
  readonly prefix: number
  /** Slots of the cache of a stream. */
  readonly slots: number
  /** Max rows of one stream in a step. */
  readonly maxRows: number
  /** Tokens known when each step is done: [steps]. */
  readonly tokensAfter: Int32Array
  /**
   * @param seed of the picture, from which its order is drawn where the method has none of its own
   * @param order raster cells in generation order, where the caller gives one
   */
  picture (seed: number, order?: Int32Array): PicturePlan
  /**
   * The plan that draws the rest of pictures of which a part is known.
   * @param keep raster order, [tokens]: 1 where a cell is known, for at least one cell and not for all
   */
  completing (keep: Uint8Array): Plan
}

export interface Decoder {
  readonly method: Method
  /** @throws ParError `INVALID_OPTION` for options that do not fit the grid, or belong to other methods */
  plan (options: CheckedDecoding): Plan
}
