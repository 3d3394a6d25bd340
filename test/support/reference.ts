// A transformer in plain double precision, by its flags: what both backends are compared with.

import type { TransformerModel } from '../../lib/machine/native.js'

const erf = (x: number): number => { // Taylor series: sums of up to 200 terms are exact enough up to 5
  if (Math.abs(x) > 5) return Math.sign(x)
  let [sum, term] = [0, x]
  for (let k = 0; k < 200; k++) {
    sum += term / (2 * k + 1)
    term *= -x * x / (k + 1)
  }
  return 2 / Math.sqrt(Math.PI) * sum
}

/**
 * A row that attends to other rows: to the first ones, or to those of a list. Queries run through the cross layers,
 * attend to nobody but the others, and come behind them.
 */
export interface ReferenceRow {
  /** As rows of a step have it: a token of the sequence, -1 the class, -1-k special vector k. */
  input: number
  /** -1: none. */
  position: number
  cell: readonly number[]
  sees: number | readonly number[]
  isQuery?: boolean
}

/** Weights by role, [outputs, inputs]. */
export type ReferenceWeights = ReadonlyMap<string, { data: Float32Array }>

/** Logits of every row of one sequence, which all go in one pass: [rows][vocabulary]. */
export function reference (
  model: TransformerModel, weights: ReferenceWeights, classId: number, tokens: Int32Array, rows: readonly ReferenceRow[]
): number[][] {
  const weight = (role: string): Float32Array => weights.get(role)!.data
  const multiply = (role: string, x: number[]): number[] => {
    const w = weight(`${role}.weight`)
    const bias = weights.get(`${role}.bias`)?.data
    return Array.from({ length: w.length / x.length },
      (_, o) => x.reduce((sum, v, i) => sum + v * w[o * x.length + i]!, bias?.[o] ?? 0))
  }
  const norm = (role: string, x: number[], kind = model.norm): number[] => {
    const w = weight(`${role}.weight`)
    const mean = kind === 'layer' ? x.reduce((a, b) => a + b) / x.length : 0
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length + model.normEps)
    return x.map((v, i) => (v - mean) * scale * w[i]! + (kind === 'layer' ? weight(`${role}.bias`)[i]! : 0))
  }
  const add = (x: number[], y: number[]): number[] => x.map((v, i) => v + y[i]!)
  const entry = (role: string, row: number): number[] =>
    [...weight(role).subarray(row * model.dim, (row + 1) * model.dim)]
  const turn = (x: number[], cell: readonly number[]): number[] => {
    const out = [...x]
    let pair = 0
    model.rotationPairs.forEach((pairs, axis) => {
      for (let k = 0; k < pairs; k++, pair++) {
        const angle = cell[axis]! * model.ropeBase ** (-k / pairs)
        const [c, s] = cell[axis]! < 0 ? [0, 0] : [Math.cos(angle), Math.sin(angle)]
        out[2 * pair] = x[2 * pair]! * c - x[2 * pair + 1]! * s
        out[2 * pair + 1] = x[2 * pair]! * s + x[2 * pair + 1]! * c
      }
    })
    return out
  }
  const rotated = (x: number[], cell: readonly number[]): number[] => !model.rotateSpecials
    ? x
    : Array.from({ length: model.heads }, (_, head) =>
      turn(x.slice(head * model.headSize, (head + 1) * model.headSize), cell)).flat()
  let stream = rows.map(({ input, position, cell }) => {
    let x = input >= 0
      ? entry('tokens', tokens[input]!)
      : input === -1
        ? entry('classes', classId)
        : rotated(entry('specials', -2 - input), cell)
    if (position >= 0) x = add(x, entry('positions', position))
    return model.embeddingNorm ? norm('embeddingNorm', x, 'layer') : x
  })
  const { heads, kvHeads, headSize } = model
  const headOf = (x: number[], head: number): number[] => x.slice(head * headSize, (head + 1) * headSize)
  /** @param keysValues [slots]: keys of all heads, then values */
  const attend = (queries: number[], row: ReferenceRow, keysValues: number[][]): number[] =>
    Array.from({ length: heads }, (_, head) => {
      const query = turn(headOf(queries, head), row.cell)
      const own = Math.floor(head * kvHeads / heads)
      const seen = typeof row.sees === 'number' ? Array.from({ length: row.sees }, (_, s) => s) : row.sees
      const scores = seen.map(s => {
        const key = turn(headOf(keysValues[s]!, own), rows[s]!.cell)
        return key.reduce((sum, v, d) => sum + v * query[d]!, 0) / Math.sqrt(headSize)
      })
      const top = Math.max(...scores)
      const e = scores.map(score => Math.exp(score - top))
      const total = e.reduce((a, b) => a + b)
      return Array.from({ length: headSize },
        (_, d) => e.reduce((sum, p, i) =>
          sum + p / total * keysValues[seen[i]!]![(kvHeads + own) * headSize + d]!, 0))
    }).flat()
  const feedForward = (layer: string, x: number[]): number[] => {
    const normed = norm(`${layer}.feedForwardNorm`, x)
    const up = multiply(`${layer}.up`, normed)
    const hidden = model.activation === 'gelu'
      ? up.map(v => 0.5 * v * (1 + erf(v / Math.SQRT2)))
      : multiply(`${layer}.gate`, normed).map((gate, k) => gate / (1 + Math.exp(-gate)) * up[k]!)
    return add(x, multiply(`${layer}.down`, hidden))
  }
  const inLayers = rows.filter(({ isQuery }) => !isQuery).length
  for (let i = 0; i < model.layers; i++) {
    const layer = `layers.${i}`
    const qkv = stream.slice(0, inLayers).map(x => multiply(`${layer}.qkv`, norm(`${layer}.attentionNorm`, x)))
    const keysValues = qkv.map(x => x.slice(heads * headSize))
    stream = stream.map((x, r) => r >= inLayers
      ? x
      : feedForward(layer,
        add(x, multiply(`${layer}.attentionOutput`, attend(qkv[r]!, rows[r]!, keysValues)))))
  }
  if (model.crossLayers > 0) {
    const keysValues = stream.slice(0, inLayers).map(x => multiply('shared.keysValues', norm('shared.norm', x)))
    for (let i = 0; i < model.crossLayers; i++) {
      const layer = `crossLayers.${i}`
      stream = stream.map((x, r) => {
        if (r < inLayers) return x
        const queries = multiply(`${layer}.queries`, norm(`${layer}.attentionNorm`, x))
        return feedForward(layer,
          add(x, multiply(`${layer}.attentionOutput`, attend(queries, rows[r]!, keysValues))))
      })
    }
  }
  return stream.map(x => {
    const normed = norm('finalNorm', x)
    const head = weight('head')
    return Array.from({ length: model.vocabularySize },
      (_, o) => normed.reduce((sum, v, i) => sum + v * head[o * model.dim + i]!, 0))
  })
}
