// The published tokenizer of videos: that of Next Block Prediction (Ren et al. 2025, 2502.07737), a reproduction of
// MAGVIT-v2 with finite scalar quantisation. NBP-tokenizer-ucf and NBP-tokenizer-k600 have the same shapes.

import type { VideoLayer, VideoTokenizerModel } from '../machine/native.js'

/** Codes there are. */
export const codesOf = ({ levels }: Pick<VideoTokenizerModel, 'levels'>): number =>
  levels.reduce((product, level) => product * level, 1)

/** Pixels a token, each way, and frames that each frame of tokens makes; the first one makes one. */
export function factorsOf ({ decoder }: Pick<VideoTokenizerModel, 'decoder'>): { space: number, time: number } {
  const product = (side: 'expandTime' | 'expandSpace'): number =>
    decoder.reduce((product, layer) => product * layer[side], 1)
  return { space: product('expandSpace'), time: product('expandTime') }
}

const plain = { kernel: 3, normed: false, strideTime: 1, strideSpace: 1, expandTime: 1, expandSpace: 1 } as const

const convolution = (channels: number, outputs: number, more: Partial<VideoLayer> = {}): VideoLayer =>
  ({ kind: 'convolution', ...plain, channels, outputs, ...more })

/** So many residual units, the first of which changes the width. */
const residuals = (count: number, channels: number, outputs: number): VideoLayer[] =>
  Array.from({ length: count }, (_, i) =>
    ({ kind: 'residual', ...plain, channels: i === 0 ? channels : outputs, outputs }))

const smaller = (width: number, strideTime: number): VideoLayer =>
  convolution(width, width, { strideTime, strideSpace: 2 })
const larger = (width: number, expandTime: number, outputs: number): VideoLayer =>
  convolution(width, outputs * 4 * expandTime, { expandTime, expandSpace: 2 })

/** 17 x 128 x 128 pixels are 5 x 16 x 16 tokens of 64,000 codes. */
export const nbpTokenizer: VideoTokenizerModel = {
  levels: [8, 8, 8, 5, 5, 5],
  groups: 32,
  normEps: 1e-5,
  encoder: [
    convolution(3, 128), ...residuals(4, 128, 128), smaller(128, 1), ...residuals(4, 128, 256), smaller(256, 2),
    ...residuals(4, 256, 256), smaller(256, 2), ...residuals(8, 256, 512),
    convolution(512, 6, { kernel: 1, normed: true })
  ],
  decoder: [
    convolution(6, 512), ...residuals(8, 512, 512), larger(512, 2, 512), ...residuals(4, 512, 256), larger(256, 2, 256),
    ...residuals(4, 256, 256), larger(256, 1, 256), ...residuals(4, 256, 128), convolution(128, 3, { normed: true })
  ]
}

/** Names of the published files of these shapes, without their ending. */
export const nbpTokenizerFiles = ['magvit2_ucf', 'magvit2_k600']
