// How far calls have come, as their callers are told.

import type { GeneratedImage, Image } from '../api/image.js'

/** How far a call has come; what `stream()` yields and `onProgress` is given, once a step. */
export interface Progress {
  /** Steps done, 1 .. steps. */
  step: number
  /**
   * Steps of the whole call. A long list runs in several groups, one after another, each with all its steps; there are
   * more groups than foreseen where memory gets scarce meanwhile.
   */
  steps: number
  /** Tokens known so far, of all pictures together. */
  tokensDone: number
  /** Tokens of all pictures together. */
  tokens: number
  /**
   * The picture as of this step: what is missing is taken from the nearest known place of the same region. A picture
   * of a list whose turn has not come is grey. It costs one decoding, on the backend that also makes the steps.
   * @param index entry of the class list; default 0
   * @throws ParError `MISSING_PART` without a tokenizer
   */
  preview (index?: number): Promise<Image>
  /**
   * The pictures that are finished with this step, in the order of the list. A long list runs in several groups, and
   * the last step of each group has its pictures.
   */
  finished?: GeneratedImage[]
  /** With the last step, and only there: all pictures, in the order of the list. Events of `images()` have none. */
  images?: GeneratedImage[]
}

/** How far `classify` has come. */
export interface ClassifyProgress {
  /** Classes compared so far. */
  classesDone: number
  /** Classes to compare. */
  classes: number
}
