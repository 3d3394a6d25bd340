// Tells the architecture of a transformer from the names and shapes of its tensors. Two things cannot be told from
// shapes: the number of heads (any divisor of dim gives the same shapes), which comes from the caller, parvis's own
// metadata or the table of published models, and the token grid (grid.ts).

import { ParError } from '../base/errors.js'
import { hasN, methodNames, type Method } from '../decoding/method.js'
import type { TensorSource, TransformerModel, WeightSource } from '../machine/native.js'
import { limits } from '../machine/limits.js'
import {
  nbpCodes, nbpN, officialName, publishedClasses, publishedN, publishedNbp, publishedParallel, publishedSizes,
  publishedVocabulary,
  type PublishedParallel
} from '../models/published.js'
import { shownPath } from '../base/text.js'
import { asNumber, trainingArgument } from './arguments.js'
import { takeArpg } from './arpg.js'
import { refuseForeign } from './extras.js'
import type { Take, Taken } from './family.js'
import { takeLlamaGen } from './llamagen.js'
import { takeLpd } from './lpd.js'
import { takeNbp } from './nbp.js'
import { chooseGrid, framesOf, gridOption, type GridSource, type ModelGrid } from './grid.js'
import { readParvisMetadata, sourceOf, type SamplingDefaults, type TransformerMetadata } from './metadata.js'
import { tellingNames } from './names.js'
import { refuseOtherIntegers } from './quantized.js'
import { Needed, positiveOption } from './shapes.js'
import type { Checkpoint } from './types.js'

/** What the caller knows better than the file. */
export interface TransformerOverrides {
  /** Attention heads, 1 to 4096; needed where the width is not one of the published models'. */
  heads?: number
  /** Token grid: [rows, columns], [frames, rows, columns], or one number for a square; 1 to 1024 per side. */
  grid?: ModelGrid | number
  /** Tokens a step that the caller expects; another than the checkpoint's is UNSUPPORTED_N. */
  n?: number
  /** Pairs of a head's elements that are rotated by frame, by row and by column: half the head size in all. */
  rotationPairs?: [frame: number, row: number, column: number]
  /** Tokens that it draws, the codes of its tokenizer: of NBP's models, whose tables also hold text. */
  vocabularySize?: number
}

/** A transformer checkpoint, understood. */
export interface TransformerDescription {
  /** How its tokens are drawn. */
  method: Method
  model: TransformerModel
  /** Tokens a step: rows of the transition table + 1; 1 for methods without transition tokens. */
  n: number
  /** Tokens: [rows, columns], or [frames, rows, columns] of a video. */
  grid: ModelGrid
  /**
   * 'method': all models of this method have heads of one size. 'training arguments': in the file. 'assumed': of a
   * published model of that width which has another number of layers.
   */
  headsFrom: 'option' | 'metadata' | 'training arguments' | 'method' | 'published' | 'assumed'
  gridFrom: GridSource
  /** What was assumed, what contradicts what: sentences without a full stop. */
  warnings: string[]
  /** Class names, by class id. */
  labels?: string[]
  sampling?: SamplingDefaults
  /** ARPG: the raster cell with which every order begins that is drawn, where its metadata says. */
  firstCell?: number
  name?: string
  /** The official model with these dimensions: 'PAR-XL-4x', 'LlamaGen-L'... */
  official?: string
  /** What its authors say of it, where it is one of ARPG's, LPD's or RandAR's. */
  published?: PublishedParallel
  /** Hash of the codebook of the tokenizer that it belongs to, where its metadata says. */
  codebookSha256?: string
  /** What it was converted from, where its metadata says. */
  source?: { file: string, sha256?: string }
  /** Exactly the tensors that the native side needs. */
  tensors: TensorSource[]
  /** Tokens of text in front of those that are drawn; absent for models that read a class. */
  prefix?: number
  /** The same by their roles. */
  weights: WeightSource[]
}

/**
 * Architecture, grid, n and needed tensors of a transformer checkpoint.
 * @param codes of the tokenizer that it is used with, where there is one
 *
 * Errors: BAD_CHECKPOINT (a tensor missing or of the wrong shape or type, metadata that contradicts the shapes, heads
 * that nothing tells), UNSUPPORTED_N, INVALID_OPTION (an override out of range or that cannot fit the shapes).
 */
export function describeTransformer (
  checkpoint: Checkpoint, overrides: TransformerOverrides = {}, codes?: number
): TransformerDescription {
  const callerHeads = positiveOption('heads', overrides.heads, limits.heads)
  const callerN = positiveOption('n', overrides.n, limits.n)
  const callerGrid = gridOption(overrides.grid)
  const callerCodes = positiveOption('vocabularySize', overrides.vocabularySize, limits.vocabulary)
  const needed = new Needed(checkpoint, true)
  const metadata = transformerMetadata(checkpoint, needed)

  const taken = takerOf(needed)(needed, {
    n: metadata?.n, askedN: callerN, codes: callerCodes ?? metadata?.vocabularySize ?? codes
  })
  const { method, layers, dim, feedForward, vocabularySize, classes, n } = taken
  refuseForeign(needed, 'transformer')
  needed.limit(limits, { dim, feedForward, vocabulary: vocabularySize, classes, n })
  if (callerCodes !== undefined && callerCodes !== vocabularySize) {
    throw new ParError('INVALID_OPTION',
      `${shownPath(checkpoint.file)}: vocabularySize ${callerCodes} was given, and ` +
      `its tensors have ${vocabularySize} tokens`)
  }
  checkMetadata(metadata, { layers, dim, vocabularySize, classes, n }, needed)
  const attention = chooseHeads(needed, taken, callerHeads, metadata?.heads)
  const { heads, kvHeads, headSize } = attention
  needed.limit(limits, { heads, headSize })
  const official = officialOf(taken, heads)
  const { grid, gridFrom, warnings } = chooseGrid(needed, {
    n, option: callerGrid, metadata: metadata?.grid, convertedFrom: metadata?.sourceFile, official: official?.name,
    tokens: taken.tokens, arguments: taken.grid, isVideo: method === 'nbp'
  })
  const classWarning = method === 'nbp' ? [] : checkClasses(needed, classes + 1)
  if (callerN !== undefined && callerN !== n) {
    const words = hasN(method)
      ? `was trained for n = ${n} (${n - 1} transition tokens)`
      : `is decoded by ${methodNames[method]}, which has no n`
    const cure = n > 1 || method === 'llamagen'
      ? `Load a checkpoint for n = ${callerN}, or ask for n = ${n}.`
      : 'Leave n out.'
    throw new ParError('UNSUPPORTED_N', `${shownPath(checkpoint.file)}: n = ${callerN} was asked for, but this ` +
      `checkpoint ${words}. ${cure}`)
  }
  const name = metadata?.name ?? official?.name
  const model = rotated(needed, method, taken.model({ heads, kvHeads, headSize }), grid,
    { option: overrides.rotationPairs, metadata: metadata?.rotationPairs })
  if (taken.prefix !== undefined) checkPositions(needed, model.positions, taken.prefix, grid)
  const weights = taken.weights(model)
  refuseOtherIntegers(needed, weights)
  return {
    method,
    model,
    n,
    grid,
    headsFrom: attention.from,
    gridFrom,
    warnings: [...attention.warnings, ...warnings, ...classWarning],
    ...(metadata?.labels && { labels: metadata.labels }),
    ...(metadata?.sampling && { sampling: metadata.sampling }),
    ...firstCellOf(needed, method, grid, metadata?.firstCell),
    ...(name !== undefined && { name }),
    ...(official !== undefined && { official: official.name }),
    ...(official?.parallel && { published: official.parallel }),
    ...(metadata?.codebookSha256 !== undefined && { codebookSha256: metadata.codebookSha256 }),
    ...sourceOf(metadata),
    tensors: needed.tensors,
    ...(taken.prefix !== undefined && { prefix: taken.prefix }),
    weights
  }
}

/** Which family it is, by a tensor that no other one has. */
function takerOf (needed: Needed): Take {
  const { arpg, lpd, nbp } = tellingNames
  return needed.has(arpg) ? takeArpg : needed.has(lpd) ? takeLpd : needed.has(nbp) ? takeNbp : takeLlamaGen
}

function firstCellOf (
  needed: Needed, method: Method, grid: ModelGrid, firstCell: number | undefined
): { firstCell?: number } {
  if (firstCell === undefined) return {}
  const tokens = grid.reduce((product: number, side) => product * side, 1)
  if (method === 'arpg' && firstCell < tokens) return { firstCell }
  throw needed.bad(`its metadata says firstCell = ${firstCell}, ` + (method === 'arpg'
    ? `and its pictures have cells 0 to ${tokens - 1}`
    : `which is for ARPG, and this model is decoded by ${methodNames[method]}`))
}

function checkPositions (needed: Needed, positions: number, prefix: number, grid: ModelGrid): void {
  const tokens = grid.reduce((product: number, side) => product * side, 1)
  if (prefix + tokens <= positions) return
  throw needed.bad(`a grid of ${grid.join(' x ')} has ${tokens} tokens, which with the ${prefix} of the text need ` +
    `${prefix + tokens} positions; its table has ${positions}. Pass grid.`)
}

// ---- published models ----

function officialOf (
  { method, layers, dim, vocabularySize, classes, n, tokens }: Taken, heads: number
): { name: string, parallel?: PublishedParallel } | undefined {
  if (method === 'nbp') {
    const model = publishedNbp.find(model => model.layers === layers && model.dim === dim && model.heads === heads)
    return model && vocabularySize === nbpCodes && n === nbpN && classes > 0 ? { name: model.name } : undefined
  }
  if (vocabularySize !== publishedVocabulary || classes !== publishedClasses) return undefined
  if (hasN(method)) {
    const size = publishedSizes.find(model => model.layers === layers && model.dim === dim && model.heads === heads)
    return size && publishedN.includes(n) ? { name: officialName(size.name, n) } : undefined
  }
  const parallel = publishedParallel.find(model => model.method === method && model.layers === layers &&
    model.dim === dim && model.heads === heads && (tokens === undefined || model.side ** 2 === tokens))
  return parallel && { name: parallel.name, parallel }
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
  needed: Needed, taken: Taken, fromCaller: number | undefined, fromMetadata: number | undefined
): { heads: number, kvHeads: number, headSize: number, from: TransformerDescription['headsFrom'], warnings: string[] } {
  const { layers, dim, qkv } = taken
  const sizes = taken.method === 'nbp' ? publishedNbp : publishedSizes
  const ofThisSize = sizes.find(model => model.dim === dim && model.layers === layers)
  const ofThisWidth = ofThisSize ?? sizes.find(model => model.dim === dim)
  const ofMethod = taken.headSize === undefined ? undefined : dim / taken.headSize
  const heads = fromCaller ?? fromMetadata ?? taken.heads ?? ofMethod ?? ofThisWidth?.heads
  if (heads === undefined) {
    throw needed.bad(`the number of heads cannot be told: width ${dim} is none of the published models' ` +
      `(${sizes.map(model => model.dim).join(', ')}). Pass heads.`)
  }
  const from = fromCaller !== undefined
    ? 'option'
    : fromMetadata !== undefined
      ? 'metadata'
      : taken.heads !== undefined
        ? 'training arguments'
        : ofMethod !== undefined
          ? 'method'
          : ofThisSize
            ? 'published'
            : 'assumed'
  const words = {
    option: 'as given', metadata: 'from its metadata', 'training arguments': 'as its training arguments say',
    published: 'of the published model of this size',
    method: `heads of ${taken.headSize}, as all models of ${methodNames[taken.method]} have`,
    assumed: 'of the published model of this width'
  }[from]
  const headSize = dim / heads
  const kvHeads = (qkv.rows / headSize - heads) / 2
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
    throw wrong(`tensor "${qkv.name}" has shape [${qkv.rows}, ${dim}], expected [(heads + 2 * ` +
      `kvHeads) * ${headSize}, ${dim}] with kvHeads a divisor of heads`)
  }
  const warnings = from !== 'assumed'
    ? []
    : [`nothing in the file says its number of heads: ${heads} is assumed, that of ${ofThisWidth!.name}, which has ` +
      `the same width and ${ofThisWidth!.layers} layers. Give heads (--heads on the command line)`]
  return { heads, kvHeads, headSize, from, warnings }
}

// ---- rotation

type Pairs = TransformerModel['rotationPairs']

/**
 * The model with its pairs divided among frame, row and column. A picture's are halved between row and column unless
 * somebody says otherwise; how those of a video are divided, nothing but metadata or the caller tells.
 */
function rotated (
  needed: Needed, method: Method, model: TransformerModel, grid: ModelGrid,
  { option, metadata }: { option: Pairs | undefined, metadata: Pairs | undefined }
): TransformerModel {
  const frames = framesOf(grid)
  const size = grid.join(' x ')
  if (frames !== undefined && !hasN(method)) {
    throw needed.bad(`a grid of ${size} tokens is that of a video, and ${methodNames[method]} draws pictures. ` +
      'Pass grid.')
  }
  if (method === 'nbp' && frames === undefined) {
    throw needed.bad(`a grid of ${size} tokens is that of a picture, and NBP draws videos. Pass grid.`)
  }
  const pairs = method === 'nbp' ? option : option ?? metadata
  if (!pairs) {
    if (frames === undefined || method === 'nbp') return model
    throw needed.bad(`a video model (${size} tokens), and nothing says how its rotation is divided among frame, row ` +
      'and column. Pass rotationPairs.')
  }
  const wrong = (why: string): Error => {
    const message = `rotationPairs [${pairs.join(', ')}]${option ? '' : ' of its metadata'} cannot be: ${why}`
    return option
      ? new ParError('INVALID_OPTION', `${shownPath(needed.checkpoint.file)}: ${message}`)
      : needed.bad(`${message}. Pass rotationPairs.`)
  }
  if (method === 'nbp') throw wrong('NBP rotates nothing, its positions are learned')
  if (!hasN(method)) throw wrong(`${methodNames[method]} has a division of its own`)
  if (pairs.reduce((sum, count) => sum + count, 0) !== model.headSize / 2) {
    throw wrong(`a head of ${model.headSize} elements has ${model.headSize / 2} pairs`)
  }
  if (frames === undefined && pairs[0] > 0) throw wrong(`a picture of ${size} tokens has no frames`)
  return { ...model, rotationPairs: [...pairs] }
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
