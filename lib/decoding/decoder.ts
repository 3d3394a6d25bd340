// What a method of decoding is to generation, scoring and previews.

import type { DecodingOptions, Schedule } from './schedule.js'

/** What a call runs: the rows of every step, and what the picture looks like before the last one. */
export interface Plan extends Schedule {
  /**
   * @param sequence tokens in sequence order, [tokens]; those at `known` and later are ignored
   * @returns raster order, [tokens], missing cells filled from known ones; undefined where nothing is known
   */
  preview (sequence: Int32Array, known: number): Int32Array | undefined
}

export interface Decoder {
  /** @throws ParError `INVALID_OPTION` for options that do not fit the grid or n */
  plan (grid: readonly [rows: number, columns: number], n: number, options: DecodingOptions): Plan
}
