// How far calls have come, as their callers are told.

import type { GeneratedImage, Image } from '../api/image.js'
import type { GeneratedVideo } from '../api/video.js'

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
   * Raster cells whose tokens are new with this step, in the order in which they are drawn: none of a picture whose
   * turn has not come, or is over. The first step of a completion also has those that were known.
   * @param index entry of the class list; default 0
   */
  cells (index?: number): Int32Array
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

/** A finished frame of a video that is being made. */
export interface VideoFrame {
  /** Entry of the class list. */
  video: number
  /** Number of the frame, from 0. */
  index: number
  /** Its pixels. */
  image: Image
}

/** How far a call that decodes or encodes a video has come. */
export interface FramesProgress {
  /** Frames done: of tokens for `decodeVideo`, of pixels for `encodeVideo`. */
  framesDone: number
  /** All of them. */
  frames: number
}

/** How far a call that makes videos has come; what `streamVideo()` yields and `onProgress` is given, once a step. */
export interface VideoProgress extends Pick<Progress, 'step' | 'steps' | 'tokensDone' | 'tokens'> {
  /** Of `streamVideo`, with a tokenizer: the frames that are finished with this step, in their order, of each video. */
  frames?: VideoFrame[]
  /**
   * The videos that are finished with this step, in the order of the list. A long list runs in several groups, and the
   * last step of each group has its videos.
   */
  finished?: GeneratedVideo[]
  /** With the last step, and only there: all videos, in the order of the list. */
  videos?: GeneratedVideo[]
}

/** How far `classify` has come. */
export interface ClassifyProgress {
  /** Classes compared so far. */
  classesDone: number
  /** Classes to compare. */
  classes: number
}
