// Tells the architecture of a LlamaGen / PAR transformer from the shapes of its tensors. Two things cannot be told from
// shapes: the number of heads (any divisor of dim gives the same shapes), which comes from the caller, parvis's own
// metadata or the table of published models, and the token grid (grid.ts).

import { ParError } from '../base/errors.js'
import type { TensorSource, TransformerModel, WeightSource } from '../machine/native.js'
import { limits } from '../machine/limits.js'
import {
  officialName, publishedClasses, publishedN, publishedSizes, publishedVocabulary
} from '../models/published.js'
import { shownPath } from '../base/text.js'
import { asNumber, trainingArgument } from './arguments.js'
import { isHarmless, refuseForeign } from './extras.js'
import { llamaGenModel, llamaGenName, llamaGenWeights } from './llamagen.js'
import { chooseGrid, gridOption, type Grid, type GridSource } from './grid.js'
import { readParvisMetadata, sourceOf, type SamplingDefaults, type TransformerMetadata } from './metadata.js'
import { namesOf, tellingNames } from './names.js'
import { Needed, positiveOption } from './shapes.js'
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
  grid: Grid
  /** 'assumed': of a published model of that width which has another number of layers. */
  headsFrom: 'option' | 'metadata' | 'published' | 'assumed'
  gridFrom: GridSource
  /** What was assumed, what contradicts what: sentences without a full stop. */
  warnings: string[]
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
  /** The same by their roles. */
  weights: WeightSource[]
}

const transitionsName = llamaGenName('transitions')

/**
 * Architecture, grid, n and needed tensors of a transformer checkpoint.
 *
 * Errors: BAD_CHECKPOINT (a tensor missing or of the wrong shape or type, metadata that contradicts the shapes, heads
 * that nothing tells), UNSUPPORTED_N, INVALID_OPTION (an override out of range or that cannot fit the shapes).
 */
export function describeTransformer (
  checkpoint: Checkpoint, overrides: TransformerOverrides = {}
): TransformerDescription {
  const callerHeads = positiveOption('heads', overrides.heads, limits.heads)
  const callerN = positiveOption('n', overrides.n, limits.n)
  const callerGrid = gridOption(overrides.grid)
  const needed = new Needed(checkpoint)
  const metadata = transformerMetadata(checkpoint, needed)

  const [vocabularySize, dim] = needed.take(tellingNames.tokens, ['vocabulary', 'dim']) as [number, number]
  const classRows = needed.take(tellingNames.classes, ['classes + 1', dim])[0]!
  if (classRows < 2) {
    throw needed.bad(
      `tensor "${tellingNames.classes}" has one row, expected classes + 1 (the last is the unconditional class)`
    )
  }
  const transitions = needed.has(transitionsName) ? needed.take(transitionsName, ['n - 1', dim])[0]! : 0
  const { layers, qkvRows, feedForward } = takeLayers(needed, dim)
  needed.take(llamaGenName('finalNorm.weight'), [dim])
  needed.take(llamaGenName('head'), [vocabularySize, dim])

  const classes = classRows - 1
  refuseForeign(needed, 'transformer')
  const n = transitions + 1
  needed.limit(limits, { dim, feedForward, vocabulary: vocabularySize, classes, n })
  checkMetadata(metadata, { layers, dim, vocabularySize, classes, n }, needed)
  const attention = chooseHeads(needed, { layers, dim }, qkvRows, callerHeads, metadata?.heads)
  needed.limit(limits, { heads: attention.heads, headSize: attention.headSize })
  if (!Number.isInteger(Math.sqrt(n))) {
    throw needed.bad(`tensor "${transitionsName}" has ${transitions} rows, which means n = ${n}; n must be a square ` +
      '(rows 3, 15, 63...)')
  }
  const official = officialOf(layers, dim, attention.heads, vocabularySize, classes, n)
  const { grid, gridFrom, warnings } = chooseGrid(needed,
    { n, option: callerGrid, metadata: metadata?.grid, convertedFrom: metadata?.sourceFile, official })
  const classWarning = checkClasses(needed, classRows)
  if (callerN !== undefined && callerN !== n) {
    throw new ParError('UNSUPPORTED_N',
      `${shownPath(checkpoint.file)}: n = ${callerN} was asked for, but this checkpoint was trained for n = ${n} ` +
      `(${transitions} transition tokens). Load a checkpoint for n = ${callerN}, or ask for n = ${n}.`)
  }
  const name = metadata?.name ?? official
  const { heads, kvHeads, headSize } = attention
  const model = llamaGenModel({
    layers, dim, heads, kvHeads, headSize, feedForward, vocabularySize, classes, transitions
  })
  return {
    model,
    n,
    grid,
    headsFrom: attention.from,
    gridFrom,
    warnings: [...attention.warnings, ...warnings, ...classWarning],
    ...(metadata?.labels && { labels: metadata.labels }),
    ...(metadata?.sampling && { sampling: metadata.sampling }),
    ...(name !== undefined && { name }),
    ...(official !== undefined && { official }),
    ...(metadata?.codebookSha256 !== undefined && { codebookSha256: metadata.codebookSha256 }),
    ...sourceOf(metadata),
    tensors: needed.tensors,
    weights: llamaGenWeights(model, needed.tensors)
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
    const name = (part: string): string => llamaGenName(`layers.${i}.${part}.weight`)
    qkvRows = needed.take(name('qkv'), [qkvRows, dim])[0]!
    needed.take(name('attentionOutput'), [dim, dim])
    feedForward = needed.take(name('gate'), [feedForward, dim])[0]!
    needed.take(name('up'), [feedForward, dim])
    needed.take(name('down'), [dim, feedForward])
    needed.take(name('attentionNorm'), [dim])
    needed.take(name('feedForwardNorm'), [dim])
  }
  return { layers, qkvRows: qkvRows as number, feedForward: feedForward as number }
}

/**
 * One more than the highest layer that any entry names, so that a hole is reported as a missing tensor, and a layer of
 * another type as that. Buffers alone make no layer.
 */
function countLayers (checkpoint: Checkpoint): number {
  let layers = 0
  for (const name of namesOf(checkpoint)) {
    const match = /^layers\.(0|[1-9]\d{0,6})\./.exec(name)
    if (match && Number(match[1]) >= layers && !isHarmless(checkpoint, name)) layers = Number(match[1]) + 1
  }
  return layers
}

function officialOf (
  layers: number, dim: number, heads: number, vocabularySize: number, classes: number, n: number
): string | undefined {
  if (vocabularySize !== publishedVocabulary || classes !== publishedClasses || !publishedN.includes(n)) {
    return undefined
  }
  const size = publishedSizes.find(model => model.layers === layers && model.dim === dim && model.heads === heads)
  return size && officialName(size.name, n)
}

// ---- metadata ----

function transformerMetadata (checkpoint: Checkpoint, needed: Needed): TransformerMetadata | undefined {
  const metadata = readParvisMetadata(checkpoint)
  if (metadata && metadata.kind !== 'transformer') {
    throw needed.bad(`its metadata says it is a ${metadata.kind}, a transformer is expected`)
  }
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
  needed: Needed, { layers, dim }: { layers: number, dim: number }, qkvRows: number, fromCaller: number | undefined,
  fromMetadata: number | undefined
): { heads: number, kvHeads: number, headSize: number, from: TransformerDescription['headsFrom'], warnings: string[] } {
  const ofThisSize = publishedSizes.find(model => model.dim === dim && model.layers === layers)
  const ofThisWidth = ofThisSize ?? publishedSizes.find(model => model.dim === dim)
  const heads = fromCaller ?? fromMetadata ?? ofThisWidth?.heads
  if (heads === undefined) {
    throw needed.bad(`the number of heads cannot be told: width ${dim} is none of the published models' ` +
      `(${publishedSizes.map(model => model.dim).join(', ')}). Pass heads.`)
  }
  const from = fromCaller !== undefined
    ? 'option'
    : fromMetadata !== undefined
      ? 'metadata'
      : ofThisSize
        ? 'published'
        : 'assumed'
  const words = {
    option: 'as given', metadata: 'from its metadata', published: 'of the published model of this size',
    assumed: 'of the published model of this width'
  }[from]
  const headSize = dim / heads
  const kvHeads = (qkvRows / headSize - heads) / 2
  const wrong = (why: string): Error => {
    const message = `${heads} heads (${words}) cannot be: ${why}`
    return from === 'option'
      ? new ParError('INVALID_OPTION', `${shownPath(needed.checkpoint.file)}: ${message}`)
      : needed.bad(`${message}. Pass heads.`)
  }
  // Rotation turns pairs of elements, half of the pairs by row, half by column.
  if (!Number.isInteger(headSize) || headSize % 4 !== 0) {
    throw wrong(`the width ${dim} gives a head size of ${Number(headSize.toFixed(3))}, which must be a multiple of 4`)
  }
  if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) {
    throw wrong(`tensor "layers.0.attention.wqkv.weight" has shape [${qkvRows}, ${dim}], expected [(heads + 2 * ` +
      `kvHeads) * ${headSize}, ${dim}] with kvHeads a divisor of heads`)
  }
  const warnings = from !== 'assumed'
    ? []
    : [`nothing in the file says its number of heads: ${heads} is assumed, that of ${ofThisWidth!.name}, which has ` +
      `the same width and ${ofThisWidth!.layers} layers. Give heads (--heads on the command line)`]
  return { heads, kvHeads, headSize, from, warnings }
}

// ---- classes

/**
 * The last row of the class table is "no class", unless the model was trained without guidance (class_dropout_prob 0):
 * then it is a class like the others, and the table has as many rows as the training arguments say that there are
 * classes.
 */
function checkClasses (needed: Needed, rows: number): string[] {
  const told = asNumber(trainingArgument(needed.checkpoint, 'num_classes'))
  const dropout = asNumber(trainingArgument(needed.checkpoint, 'class_dropout_prob'))
  const guided = dropout !== undefined && dropout > 0
  if ((told === rows && !guided) || (dropout === 0 && told !== rows - 1)) {
    const why = told === rows
      ? `its training arguments say num_classes ${told}`
      : 'its training arguments say class_dropout_prob 0'
    throw needed.bad(`its class table has ${rows} rows and none of them is "no class": ${why}. ` +
      'parvis runs models that were trained with one (class_dropout_prob above 0), which guidance needs.')
  }
  if (told === undefined || told === rows - 1) return []
  return [`its training arguments say ${told} classes, its class table has ${rows} rows, of which the last is taken ` +
    'for "no class"']
}
