// Tells the architecture of a VQ tokenizer (design, section 1) from the shapes of its tensors: levels, widths, residual
// blocks, latent and codebook. Every tensor of encoder and decoder is then taken with the shape that follows, so that
// a tokenizer of another make (attention at other levels, other block counts) is refused, not misread.

import { limits } from '../limits.js'
import type { TensorSource, TokenizerModel } from '../native.js'
import { refuseForeign } from './extras.js'
import { readParvisMetadata, sourceOf } from './metadata.js'
import { tellingNames } from './names.js'
import { Needed } from './shapes.js'
import type { Checkpoint } from './types.js'

/** A tokenizer checkpoint, understood. The downsampling factor is 2^(multipliers.length - 1). */
export interface TokenizerDescription {
  model: TokenizerModel
  /** [height, width] of the pictures it was trained on, pixels, where the file tells. */
  imageSize?: [number, number]
  name?: string
  /** Which published tokenizer it is, where it has the shapes of those and a name of its file tells. */
  official?: PublishedTokenizer
  /** The published tokenizers that it may be, where nothing tells which: they have the same shapes. */
  mayBe?: PublishedTokenizer[]
  /** What could not be told, what will not work: sentences without a full stop. */
  warnings: string[]
  /** What it was converted from, where its metadata says. */
  source?: { file: string, sha256?: string }
  /** Exactly the tensors that the native side needs. */
  tensors: TensorSource[]
}

/** LlamaGen's, of one size: of the class-conditional models, which PAR took over, and of the text-to-image ones. */
export const publishedTokenizers = ['vq_ds16_c2i', 'vq_ds16_t2i'] as const
export type PublishedTokenizer = typeof publishedTokenizers[number]

const groups = 32

/**
 * Architecture and needed tensors of a tokenizer checkpoint.
 *
 * Errors: BAD_CHECKPOINT (a tensor missing or of the wrong shape or type, or metadata of another kind).
 */
export function describeTokenizer (checkpoint: Checkpoint): TokenizerDescription {
  const needed = new Needed(checkpoint)
  const metadata = readParvisMetadata(checkpoint)
  if (metadata && metadata.kind !== 'tokenizer') {
    throw needed.bad(`its metadata says it is a ${metadata.kind}, a tokenizer is expected`)
  }
  const take = new Taker(needed)

  const [codebookSize, codeSize] = needed.take(tellingNames.codebook, ['codes', 'code size']) as [number, number]
  const [, zChannels] = needed.take('quant_conv.weight', [codeSize, 'z channels', 1, 1]) as [number, number]
  needed.take('quant_conv.bias', [codeSize])
  take.convolution('post_quant_conv', zChannels, codeSize, 1)

  const { levels, residualBlocks } = countBlocks(needed)
  const [baseChannels] = needed.take('encoder.conv_in.weight', ['base width', 3, 3, 3]) as [number]
  needed.take('encoder.conv_in.bias', [baseChannels])
  const multipliers = takeEncoder(take, baseChannels, zChannels, levels, residualBlocks)
  takeDecoder(take, multipliers.map(multiplier => multiplier * baseChannels), zChannels, residualBlocks)

  refuseForeign(needed, 'tokenizer')
  needed.limit(
    limits, { baseChannels, multiplier: Math.max(...multipliers), zChannels, codebook: codebookSize, codeSize }
  )
  checkImageSize(needed, metadata?.imageSize, 2 ** (levels - 1))
  const model: TokenizerModel = {
    baseChannels, multipliers, residualBlocks, zChannels, codebookSize, codeSize, groups, normEps: 1e-6
  }
  const { official, mayBe, warnings } = published(model,
    [...checkpoint.names ?? [], metadata?.sourceFile ?? '', metadata?.name ?? ''])
  const name = metadata?.name ?? official
  return {
    model,
    ...(metadata?.imageSize && { imageSize: metadata.imageSize }),
    ...(name !== undefined && { name }),
    ...(official !== undefined && { official }),
    ...(mayBe && { mayBe }),
    warnings,
    ...sourceOf(metadata),
    tensors: needed.tensors
  }
}

/** A picture of more tokens per side than can be encoded and decoded. */
function checkImageSize (needed: Needed, imageSize: [number, number] | undefined, factor: number): void {
  if (imageSize && Math.max(...imageSize) / factor > limits.gridSide) {
    throw needed.bad(`its metadata says pictures of ${imageSize.join(' x ')} pixels; with ${factor} pixels per ` +
      `token parvis makes up to ${limits.gridSide * factor}`)
  }
}

/** Shapes tell that it is one of the published tokenizers; which one, only a name of the file does. */
function published (
  model: TokenizerModel, names: readonly string[]
): Pick<TokenizerDescription, 'official' | 'mayBe' | 'warnings'> {
  const alike = model.baseChannels === 128 && model.multipliers.join() === '1,1,2,2,4' && model.residualBlocks === 2 &&
    model.zChannels === 256 && model.codebookSize === 16384 && model.codeSize === 8
  if (!alike) return { warnings: [] }
  const [own, other] = publishedTokenizers
  const told = publishedTokenizers.filter(published => names.some(name => name.toLowerCase().includes(published)))
  if (told.length !== 1) {
    return {
      mayBe: [...publishedTokenizers],
      warnings: [`nothing in the file says which tokenizer it is, ${own} or ${other}, which have the same shapes: ` +
        `class-conditional models need ${own}`]
    }
  }
  return { official: told[0], warnings: told[0] === other
    ? [`${other} belongs to text-to-image models: with class-conditional ones, which need ${own}, pictures are noise`]
    : [] }
}

/** Levels and residual blocks a level of the encoder, from the names alone. */
function countBlocks (needed: Needed): { levels: number, residualBlocks: number } {
  let levels = 0
  while (levels <= limits.levels && needed.has(`encoder.conv_blocks.${levels}.res.0.conv1.weight`)) levels++
  let residualBlocks = 0
  while (residualBlocks <= limits.residualBlocks &&
    needed.has(`encoder.conv_blocks.0.res.${residualBlocks}.conv1.weight`)) {
    residualBlocks++
  }
  if (levels === 0) {
    throw needed.bad('tensor "encoder.conv_blocks.0.res.0.conv1.weight" is missing: the file has no encoder levels')
  }
  needed.limit(limits, { levels, residualBlocks })
  return { levels, residualBlocks }
}

// ---- encoder and decoder ----

function takeEncoder (take: Taker, base: number, zChannels: number, levels: number, residualBlocks: number): number[] {
  const multipliers: number[] = []
  let width = base
  for (let level = 0; level < levels; level++) {
    const coarsest = level === levels - 1
    const prefix = `encoder.conv_blocks.${level}`
    const wide = take.widthOf(`${prefix}.res.0.conv1.weight`, width)
    if (wide % base !== 0) {
      throw take.needed.bad(
        `level ${level} of the encoder is ${wide} wide, expected a multiple of the base width ${base}`
      )
    }
    multipliers.push(wide / base)
    for (let block = 0; block < residualBlocks; block++) {
      take.residual(`${prefix}.res.${block}`, block === 0 ? width : wide, wide)
      if (coarsest) take.attention(`${prefix}.attn.${block}`, wide)
    }
    width = wide
    if (!coarsest) take.convolution(`${prefix}.downsample.conv`, width, width, 3)
  }
  take.middle('encoder.mid', width)
  take.norm('encoder.norm_out', width)
  take.convolution('encoder.conv_out', zChannels, width, 3)
  return multipliers
}

function takeDecoder (take: Taker, widths: number[], zChannels: number, residualBlocks: number): void {
  let width = widths.at(-1)!
  take.convolution('decoder.conv_in', width, zChannels, 3)
  take.middle('decoder.mid', width)
  // Coarsest level first.
  for (const [index, wide] of widths.toReversed().entries()) {
    const prefix = `decoder.conv_blocks.${index}`
    for (let block = 0; block <= residualBlocks; block++) {
      take.residual(`${prefix}.res.${block}`, block === 0 ? width : wide, wide)
      if (index === 0) take.attention(`${prefix}.attn.${block}`, wide)
    }
    width = wide
    if (index !== widths.length - 1) take.convolution(`${prefix}.upsample.conv`, width, width, 3)
  }
  take.norm('decoder.norm_out', width)
  take.convolution('decoder.conv_out', 3, width, 3)
}

// ---- parts ----

class Taker {
  constructor (readonly needed: Needed) {}

  /** Outputs of a 3x3 convolution with `inputs` inputs, without taking it yet. */
  widthOf (name: string, inputs: number): number {
    const probe = new Needed(this.needed.checkpoint)
    return probe.take(name, ['width', inputs, 3, 3])[0]!
  }

  convolution (prefix: string, outputs: number, inputs: number, size: 1 | 3): void {
    this.needed.take(`${prefix}.weight`, [outputs, inputs, size, size])
    this.needed.take(`${prefix}.bias`, [outputs])
  }

  norm (prefix: string, width: number): void {
    if (width % groups !== 0) {
      throw this.needed.bad(`"${prefix}" normalises ${width} channels, expected a multiple of ${groups} (groups)`)
    }
    this.needed.take(`${prefix}.weight`, [width])
    this.needed.take(`${prefix}.bias`, [width])
  }

  residual (prefix: string, inputs: number, outputs: number): void {
    this.norm(`${prefix}.norm1`, inputs)
    this.convolution(`${prefix}.conv1`, outputs, inputs, 3)
    this.norm(`${prefix}.norm2`, outputs)
    this.convolution(`${prefix}.conv2`, outputs, outputs, 3)
    if (inputs !== outputs) this.convolution(`${prefix}.nin_shortcut`, outputs, inputs, 1)
  }

  attention (prefix: string, width: number): void {
    this.norm(`${prefix}.norm`, width)
    for (const part of ['q', 'k', 'v', 'proj_out']) this.convolution(`${prefix}.${part}`, width, width, 1)
  }

  middle (prefix: string, width: number): void {
    this.residual(`${prefix}.0`, width, width)
    this.attention(`${prefix}.1`, width)
    this.residual(`${prefix}.2`, width, width)
  }
}
