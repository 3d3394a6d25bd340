// What weights a model has, by role: the one list from which checkpoints are read, benchmarks make up weights and tests
// their models. common/transformer.h and common/picture-layers.h load the same roles.

import type {
  TokenizerLayer, TokenizerModel, TransformerModel, VideoLayer, VideoTokenizerModel
} from '../machine/native.js'

/** A weight and its row-major shape. */
export type Weight = readonly [role: string, shape: readonly number[]]

export function transformerWeights (m: TransformerModel): Weight[] {
  const norm = (role: string, kind: TransformerModel['norm']): Weight[] =>
    [[`${role}.weight`, [m.dim]], ...kind === 'layer' ? [[`${role}.bias`, [m.dim]] as const] : []]
  const projection = (role: string, outputs: number, inputs: number): Weight[] =>
    [[`${role}.weight`, [outputs, inputs]], ...m.bias ? [[`${role}.bias`, [outputs]] as const] : []]
  const table = (role: string, rows: number): Weight[] => rows > 0 ? [[role, [rows, m.dim]]] : []
  const width = m.heads * m.headSize
  const keysValues = 2 * m.kvHeads * m.headSize
  const layer = (role: string, attention: Weight[]): Weight[] => [
    ...norm(`${role}.attentionNorm`, m.norm),
    ...attention,
    ...projection(`${role}.attentionOutput`, m.dim, width),
    ...norm(`${role}.feedForwardNorm`, m.norm),
    ...m.activation === 'swiglu' ? [[`${role}.gate.weight`, [m.feedForward, m.dim]] as const] : [],
    ...m.activation === 'swiglu'
      ? [[`${role}.up.weight`, [m.feedForward, m.dim]] as const]
      : projection(`${role}.up`, m.feedForward, m.dim),
    ...projection(`${role}.down`, m.dim, m.feedForward)
  ]
  return [
    ...table('classes', m.classes + 1),
    ...table('tokens', m.vocabularySize + m.textTokens),
    ...table('specials', m.specials),
    ...table('positions', m.positions),
    ...m.embeddingNorm ? norm('embeddingNorm', 'layer') : [],
    ...Array.from({ length: m.layers }, (_, i) =>
      layer(`layers.${i}`, projection(`layers.${i}.qkv`, width + keysValues, m.dim))).flat(),
    ...m.crossLayers > 0 ? norm('shared.norm', m.norm) : [],
    ...m.crossLayers > 0 ? projection('shared.keysValues', keysValues, m.dim) : [],
    ...Array.from({ length: m.crossLayers }, (_, i) =>
      layer(`crossLayers.${i}`, projection(`crossLayers.${i}.queries`, width, m.dim))).flat(),
    ...norm('finalNorm', m.norm),
    ...table('head', m.vocabularySize)
  ]
}

/** The weights of a layer of a tokenizer, without the layer's own part of the role. */
export function layerWeights ({ kind, channels, outputs, kernel, normed }: TokenizerLayer): Weight[] {
  const norm = (part: string, size: number): Weight[] => [[`${part}.weight`, [size]], [`${part}.bias`, [size]]]
  const convolution = (part: string, from: number, to: number, side: number): Weight[] =>
    [[`${part}weight`, [to, from, side, side]], [`${part}bias`, [to]]]
  switch (kind) {
    case 'convolution':
      return [...convolution('', channels, outputs, kernel), ...normed ? norm('norm', channels) : []]
    case 'residual':
      return [
        ...norm('norm1', channels), ...convolution('conv1.', channels, outputs, 3),
        ...norm('norm2', outputs), ...convolution('conv2.', outputs, outputs, 3),
        ...channels === outputs ? [] : convolution('shortcut.', channels, outputs, 1)
      ]
    case 'attention':
      return [
        ...norm('norm', channels),
        ...['q.', 'k.', 'v.', 'out.'].flatMap(part => convolution(part, channels, channels, 1))
      ]
  }
}

/** The weights of a layer of a tokenizer of videos, without the layer's own part of the role. */
export function videoLayerWeights ({ kind, channels, outputs, kernel, normed }: VideoLayer): Weight[] {
  const norm = (part: string, size: number): Weight[] =>
    ['weight', 'bias', 'slope'].map(name => [`${part}.${name}`, [size]])
  const convolution = (part: string, from: number, to: number, side: number): Weight[] =>
    [[`${part}weight`, [to, from, side, side, side]], [`${part}bias`, [to]]]
  if (kind === 'convolution') {
    return [...convolution('', channels, outputs, kernel), ...normed ? norm('norm', channels) : []]
  }
  return [
    ...norm('norm1', channels), ...convolution('conv1.', channels, outputs, 3),
    ...norm('norm2', outputs), ...convolution('conv2.', outputs, outputs, 3),
    ...channels === outputs ? [] : convolution('shortcut.', channels, outputs, 1)
  ]
}

export function videoTokenizerWeights (m: VideoTokenizerModel): Weight[] {
  return (['encoder', 'decoder'] as const).flatMap(half => m[half].flatMap((layer, i) =>
    videoLayerWeights(layer).map(([part, shape]): Weight => [`${half}.${i}.${part}`, shape])))
}

export function tokenizerWeights (m: TokenizerModel): Weight[] {
  const half = (name: 'encoder' | 'decoder'): Weight[] => m[name].flatMap((layer, i) =>
    layerWeights(layer).map(([part, shape]): Weight => [`${name}.${i}.${part}`, shape]))
  return [['codebook', [m.codebookSize, m.codeSize]], ...half('encoder'), ...half('decoder')]
}
