// Model shapes of the paper (design: section 1) and a checkpoint of random weights in their place: one small file of
// random numbers that all tensors point into. The native side packs each tensor into memory of its own, so memory
// traffic is that of the real model, and nothing of its size is ever on disk.
'use strict'

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const shapes = {
  B: { layers: 12, dim: 768, heads: 12 },
  L: { layers: 24, dim: 1024, heads: 16 },
  XL: { layers: 36, dim: 1280, heads: 20 },
  XXL: { layers: 48, dim: 1536, heads: 24 },
  '3B': { layers: 24, dim: 3200, heads: 32 }
}

/** Transformer of the paper by name, for `n` tokens a step (lib/native.ts: TransformerModel). */
function transformerModel (name, n) {
  const { layers, dim, heads } = shapes[name]
  const feedForward = Math.ceil(Math.floor(2 * 4 * dim / 3) / 256) * 256
  return {
    layers, dim, heads, kvHeads: heads, headSize: dim / heads, feedForward, vocabularySize: 16384, classes: 1000,
    transitions: n - 1, normEps: 1e-5, ropeBase: 10000
  }
}

function transformerTensors (m) {
  const list = [
    ['cls_embedding.embedding_table.weight', [m.classes + 1, m.dim]],
    ['tok_embeddings.weight', [m.vocabularySize, m.dim]],
    ['norm.weight', [m.dim]],
    ['output.weight', [m.vocabularySize, m.dim]]
  ]
  if (m.transitions > 0) list.push(['spe_tok_embeddings.special_embeddings.weight', [m.transitions, m.dim]])
  for (let i = 0; i < m.layers; i++) {
    list.push([`layers.${i}.attention.wqkv.weight`, [3 * m.dim, m.dim]], [`layers.${i}.attention.wo.weight`, [m.dim, m.dim]],
      [`layers.${i}.feed_forward.w1.weight`, [m.feedForward, m.dim]], [`layers.${i}.feed_forward.w3.weight`, [m.feedForward, m.dim]],
      [`layers.${i}.feed_forward.w2.weight`, [m.dim, m.feedForward]], [`layers.${i}.attention_norm.weight`, [m.dim]],
      [`layers.${i}.ffn_norm.weight`, [m.dim]])
  }
  return list
}

/** VQ-16 (lib/native.ts: TokenizerModel). */
const vq16 = { baseChannels: 128, multipliers: [1, 1, 2, 2, 4], residualBlocks: 2, zChannels: 256, codebookSize: 16384, codeSize: 8, groups: 32, normEps: 1e-6 }

function tokenizerTensors (m) {
  const list = []
  const conv = (name, from, to, k) => list.push([`${name}.weight`, [to, from, k, k]], [`${name}.bias`, [to]])
  const norm = (name, c) => list.push([`${name}.weight`, [c]], [`${name}.bias`, [c]])
  const res = (name, from, to) => {
    norm(`${name}.norm1`, from)
    conv(`${name}.conv1`, from, to, 3)
    norm(`${name}.norm2`, to)
    conv(`${name}.conv2`, to, to, 3)
    if (from !== to) conv(`${name}.nin_shortcut`, from, to, 1)
  }
  const attention = (name, c) => {
    norm(`${name}.norm`, c)
    for (const part of ['q', 'k', 'v', 'proj_out']) conv(`${name}.${part}`, c, c, 1)
  }
  const widths = m.multipliers.map(x => x * m.baseChannels)
  const levels = widths.length
  const coarsest = widths[levels - 1]
  const half = (name, order, blocks, first, resample) => {
    let channels = first
    order.forEach((level, i) => {
      for (let b = 0; b < blocks; b++) {
        res(`${name}.conv_blocks.${i}.res.${b}`, channels, widths[level])
        channels = widths[level]
        if (level === levels - 1) attention(`${name}.conv_blocks.${i}.attn.${b}`, channels)
      }
      if (i < levels - 1) conv(`${name}.conv_blocks.${i}.${resample}.conv`, channels, channels, 3)
    })
    res(`${name}.mid.0`, coarsest, coarsest)
    attention(`${name}.mid.1`, coarsest)
    res(`${name}.mid.2`, coarsest, coarsest)
    norm(`${name}.norm_out`, channels)
    return channels
  }
  const down = widths.map((_, i) => i)
  conv('encoder.conv_in', 3, m.baseChannels, 3)
  half('encoder', down, m.residualBlocks, m.baseChannels, 'downsample')
  conv('encoder.conv_out', coarsest, m.zChannels, 3)
  conv('decoder.conv_in', m.zChannels, coarsest, 3)
  const last = half('decoder', [...down].reverse(), m.residualBlocks + 1, coarsest, 'upsample')
  conv('decoder.conv_out', last, 3, 3)
  conv('quant_conv', m.zChannels, m.codeSize, 1)
  conv('post_quant_conv', m.codeSize, m.zChannels, 1)
  list.push(['quantize.embedding.weight', [m.codebookSize, m.codeSize]])
  return list
}

/** Writes the file and returns { file, tensors, remove }. bfloat16, uniform in +-0.03; norms 1. */
function randomWeights (list) {
  const size = Math.max(...list.map(([, shape]) => shape.reduce((a, b) => a * b)))
  const data = new Uint16Array(size + 8192)
  let state = 1
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    // sign, exponent 2^-6 and random mantissa: magnitudes 0.016 to 0.031
    data[i] = (state >>> 31 << 15) | (121 << 7) | (state >>> 20 & 127)
  }
  data.fill(0x3f80, size) // ones
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-bench-')), 'random.bin')
  fs.writeFileSync(file, data)
  const tensors = list.map(([name, shape]) => ({
    name, dtype: 'bfloat16', shape, offset: /norm(\d|_out)?\.weight$/.test(name) ? size * 2 : 0
  }))
  return { file, tensors, remove: () => fs.rmSync(path.dirname(file), { recursive: true }) }
}

module.exports = { shapes, transformerModel, transformerTensors, vq16, tokenizerTensors, randomWeights }
