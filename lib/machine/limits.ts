// The largest sizes of a model that parvis runs. The table lies beside the native code, which is built with the same
// numbers (cmake/limits.cmake): what a file may hold according to the reader, the addon takes.

export interface Limits {
  // ---- a transformer
  layers: number
  /** Elements of a token's vector. */
  dim: number
  heads: number
  /** Elements of a head. */
  headSize: number
  /** Width of the feed-forward part. */
  feedForward: number
  /** Tokens there are. */
  vocabulary: number
  classes: number
  /** Tokens per step. */
  n: number

  // ---- a picture
  /** Tokens per side. */
  gridSide: number
  /** Tokens of one sequence. */
  tokens: number
  /** Rows in front of the tokens of a sequence: the class, or text. */
  prefix: number
  /** Rows of one step, all pictures together. */
  stepRows: number
  /** Pictures of one session. */
  seats: number

  // ---- a tokenizer
  /** Channels of the first convolution. */
  baseChannels: number
  /** Channels of a level, in units of `baseChannels`. */
  multiplier: number
  levels: number
  /** Residual blocks per level. */
  residualBlocks: number
  /** Channels between encoder and codebook. */
  zChannels: number
  /** Channels of a layer: `baseChannels * multiplier`. */
  channels: number
  /** Layers of an encoder or of a decoder. */
  tokenizerLayers: number
  /** Codes there are. */
  codebook: number
  /** Elements of a code. */
  codeSize: number
}

export const limits = require('../../include/parvis/limits.json') as Readonly<Limits>
