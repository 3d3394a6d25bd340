// LPD (Zhang et al. 2025): blocks of a vision transformer (LayerNorm, GELU, biases) with learned positions.

import { limits } from '../machine/limits.js'
import type { TransformerModel, WeightSource } from '../machine/native.js'
import { transformerWeights } from '../models/weights.js'
import { countIn } from './extras.js'
import { byName, rowsOf, type Taken } from './family.js'
import type { LlamaGenSizes } from './llamagen.js'
import { tellingNames } from './names.js'
import type { Needed } from './shapes.js'

const ofModel: Readonly<Record<string, readonly string[]>> = {
  classes: ['class_emb.weight', 'fake_latent'],
  tokens: [tellingNames.lpd],
  specials: ['mask_token'],
  positions: ['pos_embed'],
  'embeddingNorm.weight': ['z_proj_ln.weight'],
  'embeddingNorm.bias': ['z_proj_ln.bias'],
  'finalNorm.weight': ['norm.weight'],
  'finalNorm.bias': ['norm.bias'],
  head: ['head.weight']
}
const ofLayer: Readonly<Record<string, string>> = {
  attentionNorm: 'norm1', qkv: 'attn.qkv', attentionOutput: 'attn.proj', feedForwardNorm: 'norm2', up: 'mlp.fc1',
  down: 'mlp.fc2'
}

function namesOf (role: string): string[] {
  const [, layer, part, kind] = /^layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(role) ?? []
  return layer === undefined ? [...ofModel[role]!] : [`blocks.${layer}.${ofLayer[part!]}.${kind}`]
}

/** @param positions tokens of a picture, and the class */
export const lpdModel = (sizes: Omit<LlamaGenSizes, 'specials'>, positions: number): TransformerModel => ({
  ...sizes, textTokens: 0, crossLayers: 0, specials: 1, rotateSpecials: false, positions, norm: 'layer',
  activation: 'gelu',
  bias: true, embeddingNorm: true, rotationPairs: [0, 0, 0], normEps: 1e-6, ropeBase: 10000
})

export function takeLpd (needed: Needed): Taken {
  const [vocabularySize, dim] = needed.take(tellingNames.lpd, ['vocabulary', 'dim']) as [number, number]
  const classes = needed.take('class_emb.weight', ['classes', dim])[0]!
  needed.take('fake_latent', [1, dim])
  needed.take('mask_token', [1, 1, dim])
  const positions = needed.take('pos_embed', [1, 'tokens + 1', dim])[1]!
  if (positions < 2) throw needed.bad('tensor "pos_embed" has one row, expected tokens + 1')
  for (const name of ['z_proj_ln', 'norm']) for (const part of ['weight', 'bias']) needed.take(`${name}.${part}`, [dim])
  needed.take('head.weight', [vocabularySize, dim])
  const layers = countIn(needed.checkpoint, /^blocks\.(0|[1-9]\d{0,6})\./)
  needed.limit(limits, { layers })
  let feedForward: number | string = 'feed-forward width'
  for (let i = 0; i < Math.max(layers, 1); i++) {
    const take = (name: string, outputs: number | string, inputs: number): number => {
      const rows = needed.take(`blocks.${i}.${name}.weight`, [outputs, inputs])[0]!
      needed.take(`blocks.${i}.${name}.bias`, [rows])
      return rows
    }
    for (const norm of ['norm1', 'norm2']) {
      for (const part of ['weight', 'bias']) needed.take(`blocks.${i}.${norm}.${part}`, [dim])
    }
    take('attn.qkv', 3 * dim, dim)
    take('attn.proj', dim, dim)
    feedForward = take('mlp.fc1', feedForward, dim)
    take('mlp.fc2', dim, feedForward)
  }
  const tensor = byName(needed)
  const tables = ['classes', 'specials', 'positions']
  return {
    method: 'lpd', layers, dim, feedForward: feedForward as number, vocabularySize, classes, n: 1,
    qkv: { rows: 3 * dim, name: 'blocks.0.attn.qkv.weight' },
    tokens: positions - 1,
    headSize: 64,
    model: heads =>
      lpdModel({ layers, dim, ...heads, feedForward: feedForward as number, vocabularySize, classes }, positions),
    weights: (model): WeightSource[] => transformerWeights(model).map(([role]) => ({
      role, parts: namesOf(role).map(tensor).map(part => tables.includes(role) ? rowsOf(part) : part)
    }))
  }
}
