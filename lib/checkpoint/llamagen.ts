// The LlamaGen family, to which the models of PAR and RandAR belong: its flags, and the names of its tensors.

import { limits } from '../machine/limits.js'
import type { TransformerModel, WeightSource } from '../machine/native.js'
import { transformerWeights, type Weight } from '../models/weights.js'
import { countIn } from './extras.js'
import { byName, type Taken } from './family.js'
import { tellingNames } from './names.js'
import type { Needed } from './shapes.js'

/** Sizes of a model, which no flag of the family decides. */
export type LlamaGenSizes =
  Pick<TransformerModel, 'layers' | 'dim' | 'heads' | 'kvHeads' | 'headSize' | 'feedForward' | 'vocabularySize'
    | 'classes' | 'specials'>

/** Pre-norm blocks with RMSNorm and SwiGLU, no biases; a quarter of a head each is rotated by row and column. */
export function llamaGenModel (sizes: LlamaGenSizes): TransformerModel {
  const quarter = sizes.headSize / 4
  return {
    ...sizes, textTokens: 0, crossLayers: 0, rotateSpecials: false, positions: 0, norm: 'rms', activation: 'swiglu',
    bias: false,
    embeddingNorm: false,
    rotationPairs: [0, quarter, quarter], normEps: 1e-5, ropeBase: 10000
  }
}

const ofModel: Readonly<Record<string, string>> = {
  classes: 'cls_embedding.embedding_table.weight',
  tokens: 'tok_embeddings.weight',
  specials: 'spe_tok_embeddings.special_embeddings.weight',
  'finalNorm.weight': 'norm.weight',
  head: 'output.weight'
}
const ofLayer: Readonly<Record<string, string>> = {
  'attentionNorm.weight': 'attention_norm.weight',
  'qkv.weight': 'attention.wqkv.weight',
  'attentionOutput.weight': 'attention.wo.weight',
  'feedForwardNorm.weight': 'ffn_norm.weight',
  'gate.weight': 'feed_forward.w1.weight',
  'up.weight': 'feed_forward.w3.weight',
  'down.weight': 'feed_forward.w2.weight'
}

/**
 * The tensor that has this role: 'head' is 'output.weight', 'layers.3.qkv.weight' is 'layers.3.attention.wqkv.weight'.
 */
export function llamaGenName (role: string): string {
  const [, layer, part] = /^(layers\.\d+\.)(.*)$/.exec(role) ?? []
  return layer === undefined ? ofModel[role]! : layer + ofLayer[part!]!
}

/** All tensors of a file, by name. */
export const llamaGenTensors = (model: TransformerModel): Weight[] =>
  transformerWeights(model).map(([role, shape]) => [llamaGenName(role), shape])

const transitionsName = llamaGenName('specials')

/** RandAR (Pang et al. 2024) has one vector more, which its queries read, and no transition tokens. */
export function takeLlamaGen (needed: Needed): Taken {
  const isRandar = needed.has(tellingNames.randar)
  const [vocabularySize, dim] = needed.take(tellingNames.tokens, ['vocabulary', 'dim']) as [number, number]
  const classRows = needed.take(tellingNames.classes, ['classes + 1', dim])[0]!
  if (classRows < 2) {
    throw needed.bad(
      `tensor "${tellingNames.classes}" has one row, expected classes + 1 (the last is the unconditional class)`
    )
  }
  if (isRandar) needed.take(tellingNames.randar, [1, dim])
  const hasTransitions = !isRandar && needed.has(transitionsName)
  const transitions = hasTransitions ? needed.take(transitionsName, ['n - 1', dim])[0]! : 0
  const layers = countIn(needed.checkpoint, /^layers\.(0|[1-9]\d{0,6})\./)
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
  needed.take(llamaGenName('finalNorm.weight'), [dim])
  needed.take(llamaGenName('head'), [vocabularySize, dim])
  const n = transitions + 1
  if (!Number.isInteger(Math.sqrt(n))) {
    throw needed.bad(`tensor "${transitionsName}" has ${transitions} rows, which means n = ${n}; n must be a square ` +
      '(rows 3, 15, 63...)')
  }
  const sizes = { layers, dim, feedForward: feedForward as number, vocabularySize, classes: classRows - 1 }
  const tensor = byName(needed)
  return {
    ...sizes,
    method: isRandar ? 'randar' : n === 1 ? 'llamagen' : 'par',
    n,
    qkv: { rows: qkvRows as number, name: llamaGenName('layers.0.qkv.weight') },
    ...isRandar && { headSize: 64 },
    model: heads => ({
      ...llamaGenModel({ ...sizes, ...heads, specials: isRandar ? 1 : transitions }), rotateSpecials: isRandar
    }),
    weights: model => transformerWeights(model).map(([role]): WeightSource =>
      ({ role, parts: [tensor(isRandar && role === 'specials' ? tellingNames.randar : llamaGenName(role))] }))
  }
}
