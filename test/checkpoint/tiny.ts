// The smallest models with the real names, for tests that open thousands of files, and the judge of what may happen
// to a damaged one.

import { stat } from 'node:fs/promises'
import {
  describeTokenizer, describeTransformer, identify, openCheckpoint, type Checkpoint
} from '../../lib/checkpoint/index.js'
import { ParError } from '../../lib/base/errors.js'
import { py, type TensorSpec } from '../support/pt-writer.js'

export interface TinyOptions {
  layers?: number
  dim?: number
  vocabulary?: number
  classes?: number
  feedForward?: number
  /** Rows of the transition table; 0 leaves it out. */
  transitions?: number
  qkvRows?: number
}

/** Shapes of a transformer by name. Default: dim 8, 1 layer, n = 4; heads 2 make a head size of 4. */
export function transformerShapes (options: TinyOptions = {}): Map<string, number[]> {
  const {
    layers = 1, dim = 8, vocabulary = 6, classes = 3, feedForward = 12, transitions = 3, qkvRows = 3 * dim
  } = options
  const shapes = new Map<string, number[]>([
    ['cls_embedding.embedding_table.weight', [classes + 1, dim]],
    ['tok_embeddings.weight', [vocabulary, dim]]
  ])
  if (transitions > 0) shapes.set('spe_tok_embeddings.special_embeddings.weight', [transitions, dim])
  for (let i = 0; i < layers; i++) {
    shapes.set(`layers.${i}.attention.wqkv.weight`, [qkvRows, dim])
    shapes.set(`layers.${i}.attention.wo.weight`, [dim, dim])
    shapes.set(`layers.${i}.feed_forward.w1.weight`, [feedForward, dim])
    shapes.set(`layers.${i}.feed_forward.w3.weight`, [feedForward, dim])
    shapes.set(`layers.${i}.feed_forward.w2.weight`, [dim, feedForward])
    shapes.set(`layers.${i}.attention_norm.weight`, [dim])
    shapes.set(`layers.${i}.ffn_norm.weight`, [dim])
  }
  return shapes.set('norm.weight', [dim]).set('output.weight', [vocabulary, dim])
}

export interface ParallelSizes {
  /** Of ARPG those of both stacks. */
  layers?: number
  dim?: number
  vocabulary?: number
  classes?: number
  feedForward?: number
  tokens?: number
}
export type Shapes = Map<string, number[]>

export function arpgShapes (
  { layers = 2, dim = 128, vocabulary = 6, classes = 3, feedForward = 12 }: ParallelSizes = {}
): Shapes {
  const shapes: Shapes = new Map([['embeddings.weight', [vocabulary + classes + 3, dim]]])
  for (const [stack, projections] of [['self_dec', ['to_q', 'to_k', 'to_v', 'proj']],
    ['cross_dec', ['to_q', 'proj']]] as const) {
    for (let i = 0; i < layers / 2; i++) {
      for (const name of projections) shapes.set(`layers.${stack}.${i}.attn.${name}.weight`, [dim, dim])
      shapes.set(`layers.${stack}.${i}.ffn.w1.weight`, [feedForward, dim])
      shapes.set(`layers.${stack}.${i}.ffn.w2.weight`, [dim, feedForward])
      shapes.set(`layers.${stack}.${i}.ffn.w3.weight`, [feedForward, dim])
      for (const name of ['attn_norm', 'ffn_norm']) shapes.set(`layers.${stack}.${i}.${name}.weight`, [dim])
    }
  }
  return shapes.set('layers.norm.weight', [dim]).set('layers.to_k.weight', [dim, dim])
    .set('layers.to_v.weight', [dim, dim]).set('norm.weight', [dim]).set('head.weight', [vocabulary, dim])
}

export function lpdShapes (
  { layers = 1, dim = 128, vocabulary = 6, classes = 3, feedForward = 12, tokens = 16 }: ParallelSizes = {}
): Shapes {
  const shapes: Shapes = new Map([
    ['class_emb.weight', [classes, dim]], ['token_emb.weight', [vocabulary, dim]], ['fake_latent', [1, dim]],
    ['mask_token', [1, 1, dim]], ['pos_embed', [1, tokens + 1, dim]], ['z_proj_ln.weight', [dim]],
    ['z_proj_ln.bias', [dim]]
  ])
  for (let i = 0; i < layers; i++) {
    for (const [name, outputs, inputs] of [['attn.qkv', 3 * dim, dim], ['attn.proj', dim, dim],
      ['mlp.fc1', feedForward, dim], ['mlp.fc2', dim, feedForward]] as const) {
      shapes.set(`blocks.${i}.${name}.weight`, [outputs, inputs]).set(`blocks.${i}.${name}.bias`, [outputs])
    }
    for (const name of ['norm1', 'norm2']) {
      shapes.set(`blocks.${i}.${name}.weight`, [dim]).set(`blocks.${i}.${name}.bias`, [dim])
    }
  }
  return shapes.set('norm.weight', [dim]).set('norm.bias', [dim]).set('head.weight', [vocabulary, dim])
}

export const randarShapes = ({ dim = 128, ...sizes }: ParallelSizes = {}): Shapes =>
  transformerShapes({ ...sizes, dim, transitions: 0 }).set('pos_instruct_embeddings', [1, dim])

/** A checkpoint that exists on paper only: official files are too large for a test. */
export function paper (
  shapes: Map<string, number[]>, metadata: Record<string, unknown> = {}, dtype: 'float32' | 'bfloat16' = 'bfloat16'
): Checkpoint {
  let offset = 0
  const tensors: Checkpoint['tensors'] = new Map()
  for (const [name, shape] of shapes) {
    const bytes = shape.reduce((product, size) => product * size, dtype === 'float32' ? 4 : 2)
    tensors.set(name, { name, dtype, shape, offset, bytes })
    offset += bytes
  }
  return {
    file: 'paper', format: 'parvis' in metadata ? 'safetensors' : 'pt', fileBytes: offset, tensors, others: new Map(),
    metadata
  }
}

/** Tensors of an NBP transformer, with what stands beside its weights. Default: the tables of the published files. */
export function nbpShapes (
  { layers, dim, rows = 96016, positions = 5120, prefix = 8 }:
  { layers: number, dim: number, rows?: number, positions?: number, prefix?: number }
): Map<string, number[]> {
  const shapes: Array<[string, number[]]> = [
    ['pos_emb', [1, positions, dim]], ['uncond_embedding', [prefix, dim]], ['tok_emb.weight', [rows, dim]]
  ]
  for (let i = 0; i < layers; i++) {
    const block = (name: string, weight: number[]): void => {
      shapes.push([`blocks.${i}.${name}.weight`, weight], [`blocks.${i}.${name}.bias`, [weight[0]!]])
    }
    for (const norm of ['ln1', 'ln2']) block(norm, [dim])
    for (const part of ['key', 'query', 'value', 'proj']) block(`attn.${part}`, [dim, dim])
    shapes.push([`blocks.${i}.attn.mask`, [1, 1]])
    block('mlp.0', [4 * dim, dim])
    block('mlp.2', [dim, 4 * dim])
  }
  shapes.push(['ln_f.weight', [dim]], ['ln_f.bias', [dim]], ['head.weight', [rows, dim]])
  return new Map(shapes)
}

/** Float32 values that tell tensors and elements apart. */
export function values (count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => seed + i / 1024)
}

/** A state dict of tensors filled by `values`, seeds 1, 2, 3... in the order of the shapes. */
export function stateDict (
  shapes: Map<string, number[]>, spec: Partial<TensorSpec> = {}, prefix = ''
): Map<string, unknown> {
  let seed = 0
  return new Map([...shapes].map(([name, shape]) => {
    const data = values(shape.reduce((product, size) => product * size, 1), ++seed)
    return [prefix + name, py.tensor({ shape, data: new Uint8Array(data.buffer), ...spec })]
  }))
}

/** A .safetensors file in memory; `header` replaces entries. */
export function safetensorsFile (header: unknown, dataBytes: number, headerLength?: number): Buffer {
  const json = typeof header === 'string' ? Buffer.from(header) : Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(headerLength ?? json.length))
  return Buffer.concat([length, json, Buffer.alloc(dataBytes)])
}

/** Header entries that tile the data, and its size. */
export function tile (
  shapes: Map<string, number[]>, dtype = 'F32', itemSize = 4
): { entries: Record<string, unknown>, bytes: number } {
  const entries: Record<string, unknown> = {}
  let bytes = 0
  for (const [name, shape] of shapes) {
    const end = bytes + itemSize * shape.reduce((product, size) => product * size, 1)
    entries[name] = { dtype, shape, data_offsets: [bytes, end] }
    bytes = end
  }
  return { entries, bytes }
}

/**
 * What every file must end in: a ParError, or a checkpoint whose tensors lie inside the file (and which can be
 * described or is refused with a ParError). Throws otherwise.
 */
export async function judge (file: string): Promise<ParError | Checkpoint> {
  let checkpoint: Checkpoint
  try {
    checkpoint = await openCheckpoint(file)
  } catch (error) {
    return expected(error)
  }
  return checkRead(checkpoint, (await stat(file)).size)
}

/** Throws where a checkpoint that was read cannot be right, or its description ends in anything but a ParError. */
export function checkRead (checkpoint: Checkpoint, size: number): Checkpoint {
  for (const { name, shape, strides, offset, bytes } of [
    ...checkpoint.tensors.values(), ...checkpoint.others.values()
  ] as Array<{ name: string, shape: number[], strides?: number[], offset: number, bytes: number }>) {
    const count = shape.reduce((product, side) => product * side, 1)
    const span = strides && count > 0
      ? (shape.reduce((sum, side, axis) => sum + (side - 1) * strides[axis]!, 0) + 1) * (bytes / count)
      : bytes
    if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(span) && offset >= 0 && bytes >= 0 &&
      offset + span <= size && (strides !== undefined || offset + bytes <= size))) {
      throw new Error(`tensor ${name} lies outside the file: ${offset} + ${span} (${bytes}) of ${size}`)
    }
  }
  try {
    if (identify(checkpoint) === 'transformer') describeTransformer(checkpoint, { heads: 2, grid: 8 })
    else describeTokenizer(checkpoint)
  } catch (error) {
    expected(error)
  }
  return checkpoint
}

function expected (error: unknown): ParError {
  if (!(error instanceof ParError)) throw error
  if (error.message.includes('unexpected failure')) throw error.cause
  if (error.message.length > 2000) throw new Error(`a message of ${error.message.length} characters`)
  return error
}

/** Seeded numbers in [0, 1). */
export function random (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
