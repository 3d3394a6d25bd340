// NBP (Next Block Prediction, Ren et al. 2025, 2502.07737), the models for classes of UCF-101: blocks of a vision
// transformer (LayerNorm, GELU, biases) with learned positions. A sequence begins with text, the name of the class;
// what follows is drawn as PAR draws (lib/decoding/nbp.ts). One table has special vectors, text and video codes, in
// this order: the begin of a video, the transition tokens, LLaMA's tokens, the codes of the tokenizer.

import { limits } from '../machine/limits.js'
import type { TensorSource, TransformerModel, WeightSource } from '../machine/native.js'
import { nbpCodes, nbpN } from '../models/published.js'
import { llamaTokens, ucfLabels } from '../models/ucf.js'
import { transformerWeights } from '../models/weights.js'
import { asNumber, trainingArgument } from './arguments.js'
import { countIn } from './extras.js'
import { byName, rowsOf, type Taken, type Told } from './family.js'
import type { LlamaGenSizes } from './llamagen.js'
import { tellingNames } from './names.js'
import type { ModelGrid } from './grid.js'
import type { Needed } from './shapes.js'

const tokensName = tellingNames.nbp
/**
 * A buffer that training without guidance leaves unused; it has a row for each text token that a sequence begins with.
 */
const prefixName = 'uncond_embedding'
const headName = 'head.weight'
/** Pixels and frames a token, of the published tokenizers. */
const factor = { time: 4, space: 8 }

const ofModel: Readonly<Record<string, string>> = {
  positions: 'pos_emb', 'finalNorm.weight': 'ln_f.weight', 'finalNorm.bias': 'ln_f.bias'
}
const ofLayer: Readonly<Record<string, readonly string[]>> = {
  attentionNorm: ['ln1'], qkv: ['attn.query', 'attn.key', 'attn.value'], attentionOutput: ['attn.proj'],
  feedForwardNorm: ['ln2'], up: ['mlp.0'], down: ['mlp.2']
}

function namesOf (role: string): string[] {
  const [, layer, part, kind] = /^layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(role) ?? []
  return layer === undefined ? [ofModel[role]!] : ofLayer[part!]!.map(name => `blocks.${layer}.${name}.${kind}`)
}

/** @param positions of the text in front, and of all tokens */
export const nbpModel = (sizes: LlamaGenSizes, textTokens: number, positions: number): TransformerModel => ({
  ...sizes, textTokens, crossLayers: 0, rotateSpecials: false, positions, norm: 'layer', activation: 'gelu', bias: true,
  embeddingNorm: false, rotationPairs: [0, 0, 0], normEps: 1e-5, ropeBase: 10000
})

export function takeNbp (needed: Needed, told: Told): Taken {
  const [rows, dim] = needed.take(tokensName, ['special tokens + text + codes', 'dim']) as [number, number]
  const prefix = needed.take(prefixName, ['text tokens of a sequence', dim])[0]!
  needed.limit(limits, { prefix })
  const positions = needed.take(namesOf('positions')[0]!, [1, 'positions', dim])[1]!
  if (positions > limits.tokens + limits.prefix) needed.limit(limits, { tokens: positions })
  for (const part of ['weight', 'bias']) needed.take(`ln_f.${part}`, [dim])
  needed.take(headName, [rows, dim])
  const layers = countIn(needed.checkpoint, /^blocks\.(0|[1-9]\d{0,6})\./)
  needed.limit(limits, { layers })
  let feedForward: number | string = 'feed-forward width'
  for (let i = 0; i < Math.max(layers, 1); i++) {
    for (const [part, names] of Object.entries(ofLayer)) {
      for (const name of names) {
        const outputs: number | string = part === 'up' ? feedForward : dim
        const shape = part.endsWith('Norm') ? [dim] : [outputs, part === 'down' ? feedForward : dim]
        const taken = needed.take(`blocks.${i}.${name}.weight`, shape)
        if (part === 'up') feedForward = taken[0]!
        needed.take(`blocks.${i}.${name}.bias`, [taken[0]!])
      }
    }
  }
  const { vocabularySize, n, textTokens } = partsOf(needed, rows, told)
  const classes = textTokens === llamaTokens ? ucfLabels.length : 0
  const heads = asNumber(trainingArgument(needed.checkpoint, 'n_head'))
  const tensor = byName(needed)
  const tokens = tensor(tokensName)
  // One table in another order, and what stands for every class: the begin of a video.
  const tables: Readonly<Record<string, (model: TransformerModel) => TensorSource[]>> = {
    classes: model => [repeated(rowsOf(tokens, 0, 1), model.classes + 1)],
    tokens: () => [rowsOf(tokens, rows - vocabularySize), rowsOf(tokens, n, n + textTokens)],
    specials: () => [rowsOf(tokens, 1, n)],
    positions: () => [rowsOf(tensor(ofModel.positions!))],
    head: () => [rowsOf(tensor(headName), rows - vocabularySize)]
  }
  return {
    method: 'nbp', layers, dim, feedForward: feedForward as number, vocabularySize, classes, n, prefix,
    qkv: { rows: 3 * dim, name: 'blocks.0.attn.query.weight' },
    ...(heads !== undefined && { heads }),
    grid: gridOfArguments(needed),
    model: attention => nbpModel({
      layers, dim, ...attention, feedForward: feedForward as number, vocabularySize, classes, specials: n - 1
    }, textTokens, positions),
    weights: (model): WeightSource[] => transformerWeights(model).map(([role]) =>
      ({ role, parts: tables[role]?.(model) ?? namesOf(role).map(tensor) }))
  }
}

/** A row, so many times. */
function repeated ({ strides, ...row }: TensorSource, count: number): TensorSource {
  return { ...row, shape: [count, row.shape[1]!], strides: [0, strides?.at(-1) ?? 1] }
}

/** How the rows of the table are divided: no shape tells. */
function partsOf (
  needed: Needed, rows: number, told: Told
): { vocabularySize: number, n: number, textTokens: number } {
  const n = told.n ?? asNumber(trainingArgument(needed.checkpoint, 'token_number_per_step')) ?? told.askedN
  const isPublished = rows === (n ?? nbpN) + llamaTokens + nbpCodes
  const codes = told.codes ?? (isPublished ? nbpCodes : undefined)
  if (codes === undefined) {
    throw needed.bad(`tensor "${tokensName}" has ${rows} rows, and nothing says how many of them are video codes. Load ` +
      'it with its tokenizer, or pass vocabularySize.')
  }
  const special = n ?? rows - codes - llamaTokens
  const textTokens = rows - codes - special
  if (!Number.isInteger(special) || special < 1 || special > limits.n || codes < 1 || textTokens < 1) {
    throw needed.bad(`tensor "${tokensName}" has ${rows} rows, of which ${codes} are video codes and ` +
      `${n === undefined ? `${llamaTokens} LLaMA's tokens` : `${n} special vectors (n)`}: nothing is left for ` +
      `${n === undefined ? 'special vectors' : 'text'}. Pass vocabularySize and n.`)
  }
  return { vocabularySize: codes, n: special, textTokens }
}

/** From the size of the clips that it was trained on. */
function gridOfArguments ({ checkpoint }: Needed): ModelGrid | undefined {
  const frames = asNumber(trainingArgument(checkpoint, 'sequence_length'))
  const side = asNumber(trainingArgument(checkpoint, 'resolution'))
  if (frames === undefined || side === undefined) return undefined
  const grid: ModelGrid = [1 + (frames - 1) / factor.time, side / factor.space, side / factor.space]
  return grid.every(size => Number.isInteger(size) && size >= 1 && size <= limits.gridSide) ? grid : undefined
}
