// Tells the architecture of a causal tokenizer of videos (the MAGVIT-v2 form of Next Block Prediction, Ren et al. 2025,
// 2502.07737) from the names and shapes of its tensors. Layers are numbered; those that hold no tensors (depth to
// space) leave a hole, and what they do follows from the widths around them. Two things no shape tells: the levels of
// the quantisation, and nothing else of it is stored.

import { isDeepStrictEqual } from 'node:util'
import { ParError } from '../base/errors.js'
import { quote, shownPath } from '../base/text.js'
import { limits } from '../machine/limits.js'
import type { TensorSource, VideoLayer, VideoTokenizerModel, WeightSource } from '../machine/native.js'
import { codesOf, nbpTokenizer } from '../models/video.js'
import { videoLayerWeights } from '../models/weights.js'
import { countIn, refuseForeign } from './extras.js'
import { readParvisMetadata, sourceOf } from './metadata.js'
import { Needed } from './shapes.js'
import type { Checkpoint } from './types.js'

/** A tokenizer of videos, understood. */
export interface VideoTokenizerDescription {
  model: VideoTokenizerModel
  levelsFrom: 'option' | 'metadata' | 'usual'
  name?: string
  /** That its shapes are those of NBP's tokenizers. */
  official?: 'NBP-tokenizer'
  warnings: string[]
  source?: { file: string, sha256?: string }
  /** Exactly the tensors that the native side needs. */
  tensors: TensorSource[]
  /** The same by role. */
  weights: WeightSource[]
}

const groups = 32
const normEps = 1e-5
/** Levels of the published models, by the number of channels. */
const usualLevels: Readonly<Record<number, readonly number[]>> = { 6: [8, 8, 8, 5, 5, 5] }
const halves = ['encoder', 'decoder'] as const
type Half = typeof halves[number]

/** A layer, and the names of its parts in the file: by what the native side calls them. */
interface Found {
  layer: VideoLayer
  names: Record<string, string>
}

/**
 * Architecture and needed tensors. @param levels of the quantisation, one a channel, where the caller knows them
 *
 * Errors: BAD_CHECKPOINT (a tensor missing or of the wrong shape or type, levels that nothing tells), INVALID_OPTION
 * (levels that do not fit the file).
 */
export function describeVideoTokenizer (checkpoint: Checkpoint, levels?: readonly number[]): VideoTokenizerDescription {
  const needed = new Needed(checkpoint)
  const metadata = readParvisMetadata(checkpoint)
  if (metadata && metadata.kind !== 'tokenizer') {
    throw needed.bad(`its metadata says it is a ${metadata.kind}, a tokenizer is expected`)
  }
  const encoder = readHalf(needed, 'encoder')
  const decoder = readHalf(needed, 'decoder')
  const channels = decoder[0]!.layer.channels
  const last = encoder.at(-1)!.layer
  if (last.outputs !== channels) {
    throw needed.bad(`its encoder ends with ${last.outputs} channels, its decoder begins with ${channels}`)
  }
  shareStrides(needed, encoder, decoder)
  const chosen = chooseLevels(needed, channels, levels, metadata?.levels)
  const weights = [...withRoles('encoder', encoder), ...withRoles('decoder', decoder)]
    .map(({ role, name, shape, stored }): WeightSource => {
      needed.take(name, stored)
      const source = needed.tensors.at(-1)!
      return { role, parts: [stored === shape ? source : { ...source, shape: [...shape], ...flat(source, shape) }] }
    })
  refuseForeign(needed, 'video tokenizer')
  const model = {
    levels: chosen.levels, groups, normEps, encoder: encoder.map(({ layer }) => layer),
    decoder: decoder.map(({ layer }) => layer)
  }
  const official = isDeepStrictEqual(model, nbpTokenizer) ? 'NBP-tokenizer' as const : undefined
  const name = metadata?.name ?? official
  return {
    model,
    levelsFrom: chosen.from,
    ...(name !== undefined && { name }),
    ...(official && { official }),
    warnings: [],
    ...sourceOf(metadata),
    tensors: needed.tensors,
    weights
  }
}

/** Strides of [1, channels, 1, 1, 1] as a vector. */
function flat ({ strides }: TensorSource, shape: readonly number[]): { strides?: number[] } {
  return strides && shape.length === 1 ? { strides: [strides[1]!] } : {}
}

// ---- layers

function readHalf (needed: Needed, half: Half): Found[] {
  const prefix = `${half}_layers.`
  const count = countIn(needed.checkpoint, new RegExp(`^${prefix}(0|[1-9]\\d{0,6})\\.`))
  needed.limit(limits, { tokenizerLayers: count })
  const shapeOf = (name: string): number[] | undefined => needed.checkpoint.tensors.get(name)?.shape
  const plain = { kernel: 3, normed: false, strideTime: 1, strideSpace: 1, expandTime: 1, expandSpace: 1 } as const
  const found: Found[] = []
  let width = half === 'encoder' ? 3 : undefined
  let norm: { index: number, channels: number } | undefined
  let hole = false
  for (let i = 0; i < count; i++) {
    const at = `${prefix}${i}.`
    const before = found.at(-1)
    if (needed.has(`${at}fn.0.weight`)) {
      const convolution = sides(needed, `${at}fn.2.conv.weight`)
      if (hole) expand(needed, before, convolution.channels)
      found.push({
        layer: { kind: 'residual', ...plain, channels: convolution.channels, outputs: convolution.outputs },
        names: {
          norm1: `${at}fn.0`, slope1: `${at}fn.1.beta`, conv1: `${at}fn.2.conv`, norm2: `${at}fn.3`,
          slope2: `${at}fn.4.beta`, conv2: `${at}fn.5.conv`, shortcut: `${at}residual_fn.0.conv`
        }
      })
    } else if (needed.has(`${at}conv.weight`) || shapeOf(`${at}weight`)?.length === 5) {
      const name = needed.has(`${at}conv.weight`) ? `${at}conv` : `${at.slice(0, -1)}`
      const convolution = sides(needed, `${name}.weight`)
      if (hole) expand(needed, before, convolution.channels)
      found.push({
        layer: { kind: 'convolution', ...plain, ...convolution, normed: norm !== undefined },
        names: {
          '': name, ...(norm && { norm: `${prefix}${norm.index}`, slope: `${prefix}${norm.index + 1}.beta` })
        }
      })
      if (norm && norm.channels !== convolution.channels) {
        throw needed.bad(`${quote(`${prefix}${norm.index}`)} normalises ${norm.channels} channels, ${quote(name)} ` +
          `reads ${convolution.channels}`)
      }
      norm = undefined
    } else if (shapeOf(`${at}weight`)?.length === 1 && needed.has(`${prefix}${i + 1}.beta`)) {
      norm = { index: i++, channels: shapeOf(`${at}weight`)![0]! }
      if (hole) expand(needed, before, norm.channels)
      hole = false
      continue
    } else if (before?.layer.kind === 'convolution' && !norm && !hole) {
      hole = true // a layer without tensors
      continue
    } else {
      throw needed.bad(`layer ${quote(at.slice(0, -1))} is none that parvis knows: a convolution, a residual unit, ` +
        'or a group norm with a swish behind it')
    }
    hole = false
    const { layer } = found.at(-1)!
    const reads = before === undefined ? width : before.layer.outputs / blocks(before.layer)
    if (reads !== undefined && layer.channels !== reads) {
      throw needed.bad(`layer ${quote(at.slice(0, -1))} reads ${layer.channels} channels, and ${reads} come before it`)
    }
    if (layer.outputs > 8 * limits.channels) needed.limit(limits, { channels: layer.outputs })
    width = layer.outputs
  }
  const end = half === 'encoder' ? undefined : 3
  if (found.length === 0) throw needed.bad(`tensor "${prefix}0.conv.weight" is missing: the file has no ${half}`)
  if (norm ?? hole) throw needed.bad(`its ${half} ends without a convolution`)
  if (end !== undefined && found.at(-1)!.layer.outputs !== end) {
    throw needed.bad(`its decoder ends with ${found.at(-1)!.layer.outputs} channels, expected 3 (RGB)`)
  }
  for (const { layer } of found) {
    if ((layer.kind === 'residual' || layer.normed) && (layer.channels % groups !== 0 ||
      (layer.kind === 'residual' && layer.outputs % groups !== 0))) {
      throw needed.bad(`a group norm of its ${half} has ${layer.channels} channels, expected a multiple of ${groups}`)
    }
  }
  return found
}

const blocks = ({ expandTime, expandSpace }: VideoLayer): number => expandTime * expandSpace * expandSpace

/** Sizes of a filter of 3 x 3 x 3 or 1 x 1 x 1. */
function sides (needed: Needed, name: string): { channels: number, outputs: number, kernel: 1 | 3 } {
  const shape = new Needed(needed.checkpoint).take(name, ['outputs', 'channels', 'kernel', 'kernel', 'kernel'])
  const [outputs, channels, kernel, ...others] = shape as [number, number, number, number, number]
  if ((kernel !== 1 && kernel !== 3) || others.some(side => side !== kernel)) {
    throw needed.bad(`tensor ${quote(name)} has shape [${shape.join(', ')}], expected a filter of 1 or 3 each way`)
  }
  return { channels, outputs, kernel }
}

/** A hole behind a convolution: depth to space, as what comes next has fewer channels. */
function expand (needed: Needed, before: Found | undefined, next: number): void {
  const ratio = before ? before.layer.outputs / next : 0
  if (ratio !== 8 && ratio !== 4) {
    throw needed.bad(`a layer without tensors stands between ${before?.layer.outputs ?? 0} channels and ${next}; ` +
      'depth to space of 2 x 2 x 2 or 1 x 2 x 2 makes an eighth or a quarter of them')
  }
  if (next % 32 !== 0) throw needed.bad(`depth to space leaves ${next} channels, expected a multiple of 32`)
  before!.layer = { ...before!.layer, expandTime: ratio === 8 ? 2 : 1, expandSpace: 2 }
}

/** The encoder shrinks as the decoder grows, in the reverse order, at its convolutions between residual units. */
function shareStrides (needed: Needed, encoder: Found[], decoder: readonly Found[]): void {
  const grows = decoder.map(({ layer }) => layer).filter(layer => blocks(layer) > 1).reverse()
  const shrinks = encoder.filter(({ layer }, i) =>
    i > 0 && layer.kind === 'convolution' && layer.kernel === 3 && !layer.normed)
  if (shrinks.length !== grows.length) {
    throw needed.bad(`its encoder has ${shrinks.length} convolutions that shrink the video, its decoder ` +
      `${grows.length} that enlarge it`)
  }
  shrinks.forEach((found, i) => {
    found.layer = { ...found.layer, strideTime: grows[i]!.expandTime, strideSpace: grows[i]!.expandSpace }
  })
}

interface Role { role: string, name: string, shape: readonly number[], stored: readonly number[] }

function withRoles (half: Half, layers: readonly Found[]): Role[] {
  return layers.flatMap(({ layer, names }, i) => videoLayerWeights(layer).map(([part, shape]): Role => {
    const role = `${half}.${i}.${part}`
    const dot = part.lastIndexOf('.')
    const [place, kind] = [part.slice(0, Math.max(dot, 0)), part.slice(dot + 1)]
    if (kind === 'slope') {
      return { role, name: names[place.replace('norm', 'slope')]!, shape, stored: [1, shape[0]!, 1, 1, 1] }
    }
    return { role, name: `${names[place]!}.${kind}`, shape, stored: shape }
  }))
}

// ---- levels

function chooseLevels (
  needed: Needed, channels: number, option: readonly number[] | undefined, metadata: readonly number[] | undefined
): { levels: number[], from: VideoTokenizerDescription['levelsFrom'] } {
  const usual = usualLevels[channels]
  const levels = option ?? metadata ?? usual
  if (!levels) {
    throw needed.bad(`the levels of its quantisation cannot be told: it has ${channels} channels, the published ` +
      'models have 6. Pass levels.')
  }
  const from = option ? 'option' : metadata ? 'metadata' : 'usual'
  const codes = codesOf({ levels: [...levels] })
  const why = levels.length !== channels
    ? `the file has ${channels} channels, and each has one number of levels`
    : codes > limits.codebook
      ? `they make ${codes} codes, and parvis runs tokenizers of up to ${limits.codebook}`
      : undefined
  if (why === undefined) return { levels: [...levels], from }
  const message = `levels [${levels.join(', ')}]${from === 'metadata' ? ' of its metadata' : ''} cannot be: ${why}`
  throw from === 'option'
    ? new ParError('INVALID_OPTION', `${shownPath(needed.checkpoint.file)}: ${message}`)
    : needed.bad(`${message}. Pass levels.`)
}
