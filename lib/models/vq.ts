// LlamaGen's VQ tokenizers, which PAR uses too (design, section 1), as the layers that the native side runs, and under
// the names of their checkpoints: the one walk over such a tokenizer.

import type { TokenizerLayer, TokenizerModel } from '../machine/native.js'
import { layerWeights, type Weight } from './weights.js'

/** Sizes of a VQ tokenizer. The levels have `baseChannels * multipliers[i]` channels, the finest level first. */
export interface VqModel {
  baseChannels: number
  multipliers: number[]
  /** Residual blocks a level in the encoder; the decoder has one more. */
  residualBlocks: number
  zChannels: number
  codebookSize: number
  codeSize: number
  groups: number
  normEps: number
}

export const vq16: VqModel = {
  baseChannels: 128, multipliers: [1, 1, 2, 2, 4], residualBlocks: 2, zChannels: 256, codebookSize: 16384, codeSize: 8,
  groups: 32, normEps: 1e-6
}

export const codebookName = 'quantize.embedding.weight'

/** Pixels a token, each way. */
export const vqFactor = ({ multipliers }: VqModel): number => 2 ** (multipliers.length - 1)

/** A layer under its name in a checkpoint; `norm`: that of the norm before a convolution. */
interface NamedLayer {
  name: string
  norm?: string
  layer: TokenizerLayer
}

const halves = ['encoder', 'decoder'] as const

function layersOf (m: VqModel): Record<typeof halves[number], NamedLayer[]> {
  const widths = m.multipliers.map(multiplier => multiplier * m.baseChannels)
  const coarsest = widths.at(-1)!
  const plain = { kernel: 3, normed: false, resample: 'none' } as const
  const convolution = (
    name: string, channels: number, outputs: number, { norm, ...more }: Partial<TokenizerLayer> & { norm?: string } = {}
  ): NamedLayer => ({
    name,
    ...(norm !== undefined && { norm }),
    layer: { ...plain, kind: 'convolution', channels, outputs, normed: norm !== undefined, ...more }
  })
  const residual = (name: string, channels: number, outputs: number): NamedLayer =>
    ({ name, layer: { ...plain, kind: 'residual', channels, outputs } })
  const attention = (name: string, channels: number): NamedLayer =>
    ({ name, layer: { ...plain, kind: 'attention', channels, outputs: channels } })
  const middle = (half: string): NamedLayer[] => [
    residual(`${half}.mid.0`, coarsest, coarsest),
    attention(`${half}.mid.1`, coarsest),
    residual(`${half}.mid.2`, coarsest, coarsest)
  ]
  const levels = (
    half: string, order: number[], first: number, blocks: number, resample: 'down' | 'up'
  ): NamedLayer[] =>
    order.flatMap((width, i) => {
      const name = `${half}.conv_blocks.${i}`
      const attends = resample === 'down' ? i === order.length - 1 : i === 0
      return [
        ...Array.from({ length: blocks }, (_, block) => [
          residual(`${name}.res.${block}`, block === 0 ? order[i - 1] ?? first : width, width),
          ...attends ? [attention(`${name}.attn.${block}`, width)] : []
        ]).flat(),
        ...i < order.length - 1 ? [convolution(`${name}.${resample}sample.conv`, width, width, { resample })] : []
      ]
    })
  return {
    encoder: [
      convolution('encoder.conv_in', 3, m.baseChannels),
      ...levels('encoder', widths, m.baseChannels, m.residualBlocks, 'down'),
      ...middle('encoder'),
      convolution('encoder.conv_out', coarsest, m.zChannels, { norm: 'encoder.norm_out' }),
      convolution('quant_conv', m.zChannels, m.codeSize, { kernel: 1 })
    ],
    decoder: [
      convolution('post_quant_conv', m.codeSize, m.zChannels, { kernel: 1 }),
      convolution('decoder.conv_in', m.zChannels, coarsest),
      ...middle('decoder'),
      ...levels('decoder', widths.toReversed(), coarsest, m.residualBlocks + 1, 'up'),
      convolution('decoder.conv_out', widths[0]!, 3, { norm: 'decoder.norm_out' })
    ]
  }
}

/** The tokenizer as the native side takes it. */
export function vqTokenizer (m: VqModel): TokenizerModel {
  const { encoder, decoder } = layersOf(m)
  const { codebookSize, codeSize, groups, normEps } = m
  return {
    codebookSize, codeSize, groups, normEps, encoder: encoder.map(({ layer }) => layer),
    decoder: decoder.map(({ layer }) => layer)
  }
}

/** Its weights with their names in a checkpoint. */
export function vqTensors (m: VqModel): Array<{ role: string, name: string, shape: readonly number[] }> {
  const layers = layersOf(m)
  const nameOf = ({ name, norm, layer }: NamedLayer, part: string): string =>
    layer.kind === 'convolution' && part.startsWith('norm.')
      ? `${norm!}${part.slice('norm'.length)}`
      : `${name}.${part.replace('shortcut.', 'nin_shortcut.').replace('out.', 'proj_out.')}`
  return [
    { role: 'codebook', name: codebookName, shape: [m.codebookSize, m.codeSize] },
    ...halves.flatMap(half => layers[half].flatMap((named, i) => layerWeights(named.layer).map(
      ([part, shape]: Weight) => ({ role: `${half}.${i}.${part}`, name: nameOf(named, part), shape })
    )))
  ]
}
