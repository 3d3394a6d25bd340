// ARPG (Li et al. 2025): LlamaGen's blocks in two stacks, one embedding table for tokens, query vector and classes.

import { limits } from '../machine/limits.js'
import type { TransformerModel, WeightSource } from '../machine/native.js'
import { transformerWeights } from '../models/weights.js'
import { countIn } from './extras.js'
import { byName, rowsOf, type Taken } from './family.js'
import { llamaGenModel, type LlamaGenSizes } from './llamagen.js'
import { tellingNames } from './names.js'
import type { Needed } from './shapes.js'

/** Rows of the embedding table that are neither tokens nor classes: the query vector, "no class", and an unused one. */
const otherRows = 3

const ofModel: Readonly<Record<string, readonly string[]>> = {
  'shared.norm.weight': ['layers.norm.weight'],
  'shared.keysValues.weight': [tellingNames.arpg, 'layers.to_v.weight'],
  'finalNorm.weight': ['norm.weight'],
  head: ['head.weight']
}
const ofLayer: Readonly<Record<string, readonly string[]>> = {
  'attentionNorm.weight': ['attn_norm.weight'],
  'qkv.weight': ['attn.to_q.weight', 'attn.to_k.weight', 'attn.to_v.weight'],
  'queries.weight': ['attn.to_q.weight'],
  'attentionOutput.weight': ['attn.proj.weight'],
  'feedForwardNorm.weight': ['ffn_norm.weight'],
  'gate.weight': ['ffn.w1.weight'],
  'up.weight': ['ffn.w3.weight'],
  'down.weight': ['ffn.w2.weight']
}

/** The tensors that are stacked to this weight; the tables of vectors are parts of one tensor. */
function namesOf (role: string): string[] {
  const [, stack, layer, part] = /^(layers|crossLayers)\.(\d+)\.(.*)$/.exec(role) ?? []
  if (stack === undefined) return [...ofModel[role]!]
  const prefix = `layers.${stack === 'layers' ? 'self_dec' : 'cross_dec'}.${layer}.`
  return ofLayer[part!]!.map(name => prefix + name)
}

/** @param sizes.layers of the first stack */
export const arpgModel = (sizes: Omit<LlamaGenSizes, 'specials'>, crossLayers: number): TransformerModel =>
  ({ ...llamaGenModel({ ...sizes, specials: 1 }), crossLayers })

export function takeArpg (needed: Needed): Taken {
  const [vocabularySize, dim] = needed.take('head.weight', ['vocabulary', 'dim']) as [number, number]
  const rows = needed.take('embeddings.weight', ['vocabulary + classes + 3', dim])[0]!
  const classes = rows - vocabularySize - otherRows
  if (classes < 1) {
    throw needed.bad(`tensor "embeddings.weight" has ${rows} rows, expected those of ${vocabularySize} tokens, of the ` +
      'classes, and three more')
  }
  const stacks = (['self_dec', 'cross_dec'] as const).map(name =>
    countIn(needed.checkpoint, new RegExp(`^layers\\.${name}\\.(0|[1-9]\\d{0,6})\\.`)))
  const [layers, crossLayers] = stacks as [number, number]
  needed.limit(limits, { layers: Math.max(layers, crossLayers) })
  let feedForward: number | string = 'feed-forward width'
  const shapes: Readonly<Record<string, () => ReadonlyArray<number | string>>> = {
    'gate.weight': () => [feedForward, dim],
    'up.weight': () => [feedForward, dim],
    'down.weight': () => [dim, feedForward],
    'attentionNorm.weight': () => [dim],
    'feedForwardNorm.weight': () => [dim]
  }
  for (const [stack, count, projection] of [['layers', layers, 'qkv.weight'],
    ['crossLayers', crossLayers, 'queries.weight']] as const) {
    // One at least: a stack that is missing is named by its first tensor.
    for (let i = 0; i < Math.max(count, 1); i++) {
      for (const part of [projection, 'attentionOutput.weight', 'gate.weight', 'up.weight', 'down.weight',
        'attentionNorm.weight', 'feedForwardNorm.weight']) {
        for (const name of namesOf(`${stack}.${i}.${part}`)) {
          const shape = needed.take(name, shapes[part]?.() ?? [dim, dim])
          if (part === 'gate.weight') feedForward = shape[0]!
        }
      }
    }
  }
  for (const role of Object.keys(ofModel)) {
    if (role === 'head') continue
    for (const name of namesOf(role)) needed.take(name, role.includes('orm') ? [dim] : [dim, dim])
  }
  const tensor = byName(needed)
  const embeddings = tensor('embeddings.weight')
  const tables: Readonly<Record<string, readonly [begin: number, end: number]>> = {
    tokens: [0, vocabularySize],
    specials: [vocabularySize, vocabularySize + 1],
    classes: [vocabularySize + 1, vocabularySize + 1 + classes + 1]
  }
  return {
    method: 'arpg', layers: layers + crossLayers, dim, feedForward: feedForward as number, vocabularySize, classes,
    n: 1,
    qkv: { rows: 3 * dim, name: 'layers.self_dec.0.attn.to_q.weight' },
    headSize: 64,
    model: heads =>
      arpgModel({ layers, dim, ...heads, feedForward: feedForward as number, vocabularySize, classes }, crossLayers),
    weights: (model): WeightSource[] => transformerWeights(model).map(([role]) => ({
      role, parts: tables[role] ? [rowsOf(embeddings, ...tables[role])] : namesOf(role).map(tensor)
    }))
  }
}
