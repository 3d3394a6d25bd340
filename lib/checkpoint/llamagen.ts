// The LlamaGen family, to which PAR's models belong: its flags, and the names of its tensors.

import type { TensorSource, TransformerModel, WeightSource } from '../machine/native.js'
import { transformerWeights, type Weight } from '../models/weights.js'

/** Sizes of a model, which no flag of the family decides. */
export type LlamaGenSizes =
  Pick<TransformerModel, 'layers' | 'dim' | 'heads' | 'kvHeads' | 'headSize' | 'feedForward' | 'vocabularySize'
    | 'classes' | 'transitions'>

/** Pre-norm blocks with RMSNorm and SwiGLU, no biases; a quarter of a head each is rotated by row and column. */
export function llamaGenModel (sizes: LlamaGenSizes): TransformerModel {
  const quarter = sizes.headSize / 4
  return {
    ...sizes, positions: 0, norm: 'rms', activation: 'swiglu', bias: false, embeddingNorm: false,
    rotationPairs: [0, quarter, quarter], normEps: 1e-5, ropeBase: 10000
  }
}

const ofModel: Readonly<Record<string, string>> = {
  classes: 'cls_embedding.embedding_table.weight',
  tokens: 'tok_embeddings.weight',
  transitions: 'spe_tok_embeddings.special_embeddings.weight',
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

/** The tensors of a file by their roles. */
export function llamaGenWeights (model: TransformerModel, tensors: readonly TensorSource[]): WeightSource[] {
  const byName = new Map(tensors.map(tensor => [tensor.name, tensor]))
  return transformerWeights(model).map(([role]) => ({ role, parts: [byName.get(llamaGenName(role))!] }))
}
