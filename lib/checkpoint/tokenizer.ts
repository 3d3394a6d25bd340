// Tells the architecture of a VQ tokenizer (design, section 1) from the shapes of its tensors: levels, widths, residual
// blocks, latent and codebook. Every tensor of encoder and decoder is then taken with the shape that follows, so that
// a tokenizer of another make (attention at other levels, other block counts) is refused, not misread.

import { isDeepStrictEqual } from 'node:util'
import { limits } from '../machine/limits.js'
import type { TensorSource, WeightSource } from '../machine/native.js'
import { publishedTokenizers, type PublishedTokenizer } from '../models/published.js'
import { codebookName, vq16, vqFactor, vqTensors, type VqModel } from '../models/vq.js'
import { refuseForeign } from './extras.js'
import { readParvisMetadata, sourceOf } from './metadata.js'
import { quote } from '../base/text.js'
import { Needed } from './shapes.js'
import type { Checkpoint } from './types.js'

/** A tokenizer checkpoint, understood. */
export interface TokenizerDescription {
  model: VqModel
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
  /** The same by role. */
  weights: WeightSource[]
}

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
  const model = readSizes(needed, new Needed(checkpoint))
  const weights = vqTensors(model).map(({ role, name, shape }): WeightSource => {
    if (/norm\d?\.weight$/.test(role) && shape[0]! % groups !== 0) {
      throw needed.bad(`${quote(name.replace(/\.weight$/, ''))} normalises ${shape[0]!} channels, expected a multiple ` +
        `of ${groups} (groups)`)
    }
    needed.take(name, shape)
    return { role, parts: [needed.tensors.at(-1)!] }
  })
  refuseForeign(needed, 'tokenizer')
  checkImageSize(needed, metadata?.imageSize, vqFactor(model))
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
    tensors: needed.tensors,
    weights
  }
}

/** The sizes by the shapes of a few tensors; all of them are looked at later. */
function readSizes (needed: Needed, probe: Needed): VqModel {
  const [codebookSize, codeSize] = probe.take(codebookName, ['codes', 'code size']) as [number, number]
  const [, zChannels] = probe.take('quant_conv.weight', [codeSize, 'z channels', 1, 1]) as [number, number]
  const { levels, residualBlocks } = countBlocks(needed)
  const [baseChannels] = probe.take('encoder.conv_in.weight', ['base width', 3, 3, 3]) as [number]
  let width = baseChannels
  const multipliers = Array.from({ length: levels }, (_, level) => {
    width = probe.take(`encoder.conv_blocks.${level}.res.0.conv1.weight`, ['width', width, 3, 3])[0]!
    if (width % baseChannels !== 0) {
      throw needed.bad(`level ${level} of the encoder is ${width} wide, expected a multiple of the base width ` +
        String(baseChannels))
    }
    return width / baseChannels
  })
  needed.limit(
    limits, { baseChannels, multiplier: Math.max(...multipliers), zChannels, codebook: codebookSize, codeSize }
  )
  return { baseChannels, multipliers, residualBlocks, zChannels, codebookSize, codeSize, groups, normEps: 1e-6 }
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
  model: VqModel, names: readonly string[]
): Pick<TokenizerDescription, 'official' | 'mayBe' | 'warnings'> {
  if (!isDeepStrictEqual(model, vq16)) return { warnings: [] }
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
