// What weights a transformer has, by role: the one list from which checkpoints are read, benchmarks make up weights and
// tests their models. common/transformer.h loads the same roles.

import type { TransformerModel } from './native.js'

/** A weight and its row-major shape. */
export type Weight = readonly [role: string, shape: readonly number[]]

export function transformerWeights (m: TransformerModel): Weight[] {
  const norm = (role: string, kind: TransformerModel['norm']): Weight[] =>
    [[`${role}.weight`, [m.dim]], ...kind === 'layer' ? [[`${role}.bias`, [m.dim]] as const] : []]
  const projection = (role: string, outputs: number, inputs: number): Weight[] =>
    [[`${role}.weight`, [outputs, inputs]], ...m.bias ? [[`${role}.bias`, [outputs]] as const] : []]
  const table = (role: string, rows: number): Weight[] => rows > 0 ? [[role, [rows, m.dim]]] : []
  const width = m.heads * m.headSize
  return [
    ...table('classes', m.classes + 1),
    ...table('tokens', m.vocabularySize),
    ...table('transitions', m.transitions),
    ...table('positions', m.positions),
    ...m.embeddingNorm ? norm('embeddingNorm', 'layer') : [],
    ...Array.from({ length: m.layers }, (_, i) => [
      ...norm(`layers.${i}.attentionNorm`, m.norm),
      ...projection(`layers.${i}.qkv`, width + 2 * m.kvHeads * m.headSize, m.dim),
      ...projection(`layers.${i}.attentionOutput`, m.dim, width),
      ...norm(`layers.${i}.feedForwardNorm`, m.norm),
      ...m.activation === 'swiglu' ? [[`layers.${i}.gate.weight`, [m.feedForward, m.dim]] as const] : [],
      ...m.activation === 'swiglu'
        ? [[`layers.${i}.up.weight`, [m.feedForward, m.dim]] as const]
        : projection(`layers.${i}.up`, m.feedForward, m.dim),
      ...projection(`layers.${i}.down`, m.dim, m.feedForward)
    ]).flat(),
    ...norm('finalNorm', m.norm),
    ...table('head', m.vocabularySize)
  ]
}
