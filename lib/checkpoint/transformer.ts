// Tells the architecture of a LlamaGen / PAR transformer from the shapes of its tensors. Two things cannot be told from
// shapes: the number of heads (any divisor of dim gives the same shapes) and the token grid (positions are computed).
// They come, in this order, from the caller, parvis's own metadata, the published table or the training arguments.

import { ParError } from '../errors.js'
import type { TensorSource, TransformerModel } from '../native.js'
import { limits } from '../limits.js'
import { readParvisMetadata, sourceOf, type SamplingDefaults, type TransformerMetadata } from './metadata.js'
import { Needed, positiveOption, showValue } from './shapes.js'
import type { Checkpoint } from './types.js'

/** What the caller knows better than the file. */
export interface TransformerOverrides {
  /** Attention heads, 1 to 4096; needed where the width is not one of the published models'. */
  heads?: number
  /** Token grid: [rows, columns], or one number for a square; 1 to 1024 per side. */
  grid?: [number, number] | number
  /** Tokens a step that the caller expects; another than the checkpoint's is UNSUPPORTED_N. */
  n?: number
}

/** A transformer checkpoint, understood. */
export interface TransformerDescription {
  model: TransformerModel
  /** Tokens a step: rows of the transition table + 1. */
  n: number
  /** [rows, columns] of tokens. */
  grid: [number, number]
  headsFrom: 'caller' | 'metadata' | 'table'
  gridFrom: 'caller' | 'metadata' | 'args' | 'default'
  /** Class names, by class id. */
  labels?: string[]
  sampling?: SamplingDefaults
  name?: string
  /** The official model with these dimensions: 'PAR-XL-4x', 'LlamaGen-L'... */
  official?: string
  /** Hash of the codebook of the tokenizer that it belongs to, where its metadata says. */
  codebookSha256?: string
  /** What it was converted from, where its metadata says. */
  source?: { file: string, sha256?: string }
  /** Exactly the tensors that the native side needs. */
  tensors: TensorSource[]
}

/** Published models: design, section 1. */
export const published: ReadonlyArray<{ name: string, layers: number, dim: number, heads: number }> = [
  { name: 'B', layers: 12, dim: 768, heads: 12 },
  { name: 'L', layers: 24, dim: 1024, heads: 16 },
  { name: 'XL', layers: 36, dim: 1280, heads: 20 },
  { name: 'XXL', layers: 48, dim: 1536, heads: 24 },
  { name: '3B', layers: 24, dim: 3200, heads: 32 }
]
export const publishedVocabulary = 16384
export const publishedClasses = 1000
/** 1: LlamaGen. */
export const publishedN: readonly number[] = [1, 4, 16]
const defaultGrid = 24

export const transformerNames = {
  classes: 'cls_embedding.embedding_table.weight',
  tokens: 'tok_embeddings.weight',
  transitions: 'spe_tok_embeddings.special_embeddings.weight'
}

/**
 * Architecture, grid, n and needed tensors of a transformer checkpoint.
 *
 * Errors: BAD_CHECKPOINT (a tensor missing or of the wrong shape or type, metadata that contradicts the shapes, heads
 * that nothing tells), UNSUPPORTED_N, INVALID_OPTION (an override out of range or that cannot fit the shapes).
 */
export function describeTransformer (checkpoint: Checkpoint, overrides: TransformerOverrides = {}): TransformerDescription {
  const callerHeads = positiveOption('heads', overrides.heads, limits.heads)
  const callerN = positiveOption('n', overrides.n, limits.n)
  const callerGrid = gridOption(overrides.grid)
  const needed = new Needed(checkpoint)
  const metadata = transformerMetadata(checkpoint, needed)

  const [vocabularySize, dim] = needed.take(transformerNames.tokens, ['vocabulary', 'dim']) as [number, number]
  const classRows = needed.take(transformerNames.classes, ['classes + 1', dim])[0]!
  if (classRows < 2) throw needed.bad(`tensor "${transformerNames.classes}" has one row, expected classes + 1 (the last is the unconditional class)`)
  const transitions = needed.has(transformerNames.transitions) ? needed.take(transformerNames.transitions, ['n - 1', dim])[0]! : 0
  const { layers, qkvRows, feedForward } = takeLayers(needed, dim)
  needed.take('norm.weight', [dim])
  needed.take('output.weight', [vocabularySize, dim])

  const classes = classRows - 1
  const n = transitions + 1
  needed.limit(limits, { dim, feedForward, vocabulary: vocabularySize, classes, n })
  checkMetadata(metadata, { layers, dim, vocabularySize, classes, n }, needed)
  const attention = chooseHeads(needed, dim, qkvRows, callerHeads, metadata?.heads)
  needed.limit(limits, { heads: attention.heads, headSize: attention.headSize })
  const { grid, gridFrom } = chooseGrid(needed, n, callerGrid, metadata?.grid)
  if (callerN !== undefined && callerN !== n) {
    throw new ParError('UNSUPPORTED_N', `${checkpoint.file}: n = ${callerN} was asked for, but this checkpoint was trained for n = ${n} ` +
      `(${transitions} transition tokens). Load a checkpoint for n = ${callerN}, or ask for n = ${n}.`)
  }
  const official = officialName(layers, dim, attention.heads, vocabularySize, classes, n)
  const name = metadata?.name ?? official
  return {
    model: {
      layers, dim, heads: attention.heads, kvHeads: attention.kvHeads, headSize: attention.headSize,
      feedForward, vocabularySize, classes, transitions, normEps: 1e-5, ropeBase: 10000
    },
    n,
    grid,
    headsFrom: attention.from,
    gridFrom,
    ...(metadata?.labels && { labels: metadata.labels }),
    ...(metadata?.sampling && { sampling: metadata.sampling }),
    ...(name !== undefined && { name }),
    ...(official !== undefined && { official }),
    ...(metadata?.codebookSha256 !== undefined && { codebookSha256: metadata.codebookSha256 }),
    ...sourceOf(metadata),
    tensors: needed.tensors
  }
}

// ---- shapes ----

function takeLayers (needed: Needed, dim: number): { layers: number, qkvRows: number, feedForward: number } {
  const layers = countLayers(needed.checkpoint)
  if (layers === 0) throw needed.bad('tensor "layers.0.attention.wqkv.weight" is missing: the file has no layers')
  needed.limit(limits, { layers })
  let qkvRows: number | string = '(heads + 2 * kvHeads) * headSize'
  let feedForward: number | string = 'feed-forward width'
  for (let i = 0; i < layers; i++) {
    qkvRows = needed.take(`layers.${i}.attention.wqkv.weight`, [qkvRows, dim])[0]!
    needed.take(`layers.${i}.attention.wo.weight`, [dim, dim])
    feedForward = needed.take(`layers.${i}.feed_forward.w1.weight`, [feedForward, dim])[0]!
    needed.take(`layers.${i}.feed_forward.w3.weight`, [feedForward, dim])
    needed.take(`layers.${i}.feed_forward.w2.weight`, [dim, feedForward])
    needed.take(`layers.${i}.attention_norm.weight`, [dim])
    needed.take(`layers.${i}.ffn_norm.weight`, [dim])
  }
  return { layers, qkvRows: qkvRows as number, feedForward: feedForward as number }
}

/** One more than the highest layer that any tensor names, so that a hole is reported as a missing tensor. */
function countLayers (checkpoint: Checkpoint): number {
  let layers = 0
  for (const name of checkpoint.tensors.keys()) {
    const match = /^layers\.(0|[1-9]\d{0,6})\./.exec(name)
    if (match) layers = Math.max(layers, Number(match[1]) + 1)
  }
  return layers
}

function officialName (layers: number, dim: number, heads: number, vocabularySize: number, classes: number, n: number): string | undefined {
  if (vocabularySize !== publishedVocabulary || classes !== publishedClasses || !publishedN.includes(n)) return undefined
  const size = published.find(model => model.layers === layers && model.dim === dim && model.heads === heads)
  return size && (n === 1 ? `LlamaGen-${size.name}` : `PAR-${size.name}-${n}x`)
}

// ---- metadata ----

function transformerMetadata (checkpoint: Checkpoint, needed: Needed): TransformerMetadata | undefined {
  const metadata = readParvisMetadata(checkpoint)
  if (metadata && metadata.kind !== 'transformer') throw needed.bad(`its metadata says it is a ${metadata.kind}, a transformer is expected`)
  return metadata
}

type FromShapes = Record<'layers' | 'dim' | 'vocabularySize' | 'classes' | 'n', number>

function checkMetadata (metadata: TransformerMetadata | undefined, shapes: FromShapes, needed: Needed): void {
  if (!metadata) return
  for (const field of Object.keys(shapes) as Array<keyof FromShapes>) {
    const claimed = metadata[field]
    if (claimed !== undefined && claimed !== shapes[field]) {
      throw needed.bad(`its metadata says ${field} = ${claimed}, its tensors have ${field} = ${shapes[field]}`)
    }
  }
  if (metadata.labels && metadata.labels.length !== shapes.classes) {
    throw needed.bad(`its metadata names ${metadata.labels.length} classes, its tensors have ${shapes.classes}`)
  }
}

// ---- heads ----

function chooseHeads (
  needed: Needed, dim: number, qkvRows: number, fromCaller: number | undefined, fromMetadata: number | undefined
): { heads: number, kvHeads: number, headSize: number, from: TransformerDescription['headsFrom'] } {
  const fromTable = published.find(model => model.dim === dim)?.heads
  const heads = fromCaller ?? fromMetadata ?? fromTable
  if (heads === undefined) {
    throw needed.bad(`the number of heads cannot be told: width ${dim} is none of the published models' (${published.map(model => model.dim).join(', ')}). Pass heads.`)
  }
  const from = fromCaller !== undefined ? 'caller' : fromMetadata !== undefined ? 'metadata' : 'table'
  const headSize = dim / heads
  const kvHeads = (qkvRows / headSize - heads) / 2
  const wrong = (why: string): Error => {
    const message = `${heads} heads (from the ${from}) cannot be: ${why}`
    return from === 'caller' ? new ParError('INVALID_OPTION', `${needed.checkpoint.file}: ${message}`) : needed.bad(`${message}. Pass heads.`)
  }
  // Rotation turns pairs of elements, half of the pairs by row, half by column.
  if (!Number.isInteger(headSize) || headSize % 4 !== 0) throw wrong(`the width ${dim} gives a head size of ${Number(headSize.toFixed(3))}, which must be a multiple of 4`)
  if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) {
    throw wrong(`tensor "layers.0.attention.wqkv.weight" has shape [${qkvRows}, ${dim}], expected [(heads + 2 * kvHeads) * ${headSize}, ${dim}] with kvHeads a divisor of heads`)
  }
  return { heads, kvHeads, headSize, from }
}

// ---- grid ----

function gridOption (grid: unknown): [number, number] | undefined {
  if (grid === undefined) return undefined
  const sides: unknown[] = Array.isArray(grid) ? [...grid] : [grid, grid]
  const good = sides.length === 2 && sides.every(side => typeof side === 'number' && Number.isInteger(side) && side >= 1 && side <= limits.gridSide)
  if (!good) throw new ParError('INVALID_OPTION', `grid must be [rows, columns] or one number, whole numbers from 1 to ${limits.gridSide}, got ${showValue(grid)}`)
  return sides as [number, number]
}

function chooseGrid (
  needed: Needed, n: number, fromCaller: [number, number] | undefined, fromMetadata: [number, number] | undefined
): Pick<TransformerDescription, 'grid' | 'gridFrom'> {
  const root = Math.round(Math.sqrt(n))
  if (root * root !== n) {
    throw needed.bad(`tensor "${transformerNames.transitions}" has ${n - 1} rows, which means n = ${n}; n must be a square (rows 3, 15, 63...)`)
  }
  const fits = (grid: [number, number]): boolean => grid.every(side => side % root === 0)
  const does = (grid: [number, number]): string => `n = ${n} needs a grid whose sides are multiples of ${root}, got ${grid.join(' x ')}`
  if (fromCaller) {
    if (!fits(fromCaller)) throw new ParError('INVALID_OPTION', `${needed.checkpoint.file}: ${does(fromCaller)}`)
    return { grid: fromCaller, gridFrom: 'caller' }
  }
  if (fromMetadata) {
    if (!fits(fromMetadata)) throw needed.bad(`${does(fromMetadata)} from its metadata. Pass grid.`)
    return { grid: fromMetadata, gridFrom: 'metadata' }
  }
  const side = gridSideFromArgs(needed.checkpoint)
  if (side !== undefined && fits([side, side])) return { grid: [side, side], gridFrom: 'args' }
  if (!fits([defaultGrid, defaultGrid])) throw needed.bad(`${does([defaultGrid, defaultGrid])}, the published one. Pass grid.`)
  return { grid: [defaultGrid, defaultGrid], gridFrom: 'default' }
}

/** image_size / downsample_size of the training arguments, where both make sense. */
function gridSideFromArgs (checkpoint: Checkpoint): number | undefined {
  if (checkpoint.format !== 'pt') return undefined
  const { args } = checkpoint.metadata
  if (typeof args !== 'object' || args === null) return undefined
  const { image_size: imageSize, downsample_size: factor = 16 } = args as Record<string, unknown>
  if (typeof imageSize !== 'number' || typeof factor !== 'number' || !Number.isInteger(imageSize) || !Number.isInteger(factor) || factor < 1) return undefined
  const side = imageSize / factor
  return Number.isInteger(side) && side >= 1 && side <= limits.gridSide ? side : undefined
}
