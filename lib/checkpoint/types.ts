// What an opened checkpoint is: names, shapes and places of tensors, and the inert data beside them. No weight is
// ever read here; the native side reads each tensor from its place in the file, so weights exist once in memory.

import type { TensorSource } from '../machine/native.js'
import type { Json, JsonError } from './json.js'
import type { FileIdentity } from './source.js'

/** Training arguments that tell what shapes cannot. */
export const argumentNames = ['image_size', 'downsample_size', 'num_classes', 'class_dropout_prob',
  // NBP's
  'n_head', 'token_number_per_step', 'resolution', 'sequence_length'] as const
export type ArgumentName = typeof argumentNames[number]

/** A tensor of float32, float16 or bfloat16 elements, or of 8-bit integers with scales, wholly inside the file. */
export interface StoredTensor extends TensorSource {
  /**
   * Elements times element size, and the scales. With `strides` the elements may be spread over more of the file than
   * this, or over less.
   */
  bytes: number
}

/** A tensor that is no weight: int64 counters, bool masks, float64, int8 without scales... Listed, never loaded. */
export interface OtherTensor {
  name: string
  /** As PyTorch names it: 'int64', 'bool', 'float64'... A type that is not known is named as the file names it. */
  dtype: string
  shape: number[]
  /** Byte offset of element [0, 0, ...] in the file. */
  offset: number
  /**
   * Elements times element size. With `strides` the elements may be spread over more of the file than this, or over
   * less.
   */
  bytes: number
  /** Elements from one to the next along each axis, where they do not follow each other. */
  strides?: number[]
}

/** A part of a file whose checksum stands in the file. */
export interface Checked {
  /** For messages. */
  what: string
  offset: number
  bytes: number
  crc32: number
}

/** A checkpoint file, opened and checked. Every tensor in it lies inside the file. */
export interface Checkpoint {
  /** The path as given. */
  file: string
  format: 'pt' | 'safetensors'
  fileBytes: number
  /** The file that this describes, as it was then: the places of tensors are of no other. */
  identity?: FileIdentity
  /** By name, without what wrappers of training put into names (names.ts). */
  tensors: Map<string, StoredTensor>
  /** Tensors that are not float32, float16 or bfloat16, by name; for listing only. */
  others: Map<string, OtherTensor>
  /**
   * Entries of the weights that are no plain tensors (Python objects, sparse or quantised tensors), by name: what they
   * are. Harmless unless the model needs them. Only a .pt file can have them.
   */
  odd?: Map<string, string>
  /**
   * Data of the weights that has a checksum: only a .pt file has them. Opening it compares none of them: checksums.ts
   * does.
   */
  checked?: Checked[]
  /**
   * What stood beside the weights, as plain data: steps, epoch, the training arguments; of a .safetensors file its
   * `__metadata__` strings. Objects have no prototype. Unknown Python objects are `{ global, args, state }`.
   */
  metadata: Record<string, unknown>
  /** Of a .safetensors file: what parvis wrote beside the weights, parsed, or why it cannot be (metadata.ts). */
  own?: Json | JsonError
  /** The training arguments that are asked for, as they stood there (arguments.ts). */
  trainingArguments?: ReadonlyMap<ArgumentName, unknown>
  /**
   * Key the weights stood under: 'model', 'module', 'state_dict', or that of an EMA copy; absent when they were at the
   * top.
   */
  wrapper?: string
  /** Names of the file, without folders: as given, of links on the way, its own, those in the cache that it lies in. */
  names?: string[]
  /** Whether it does no harm to leave an entry out, as far as its name tells (extras.ts). */
  harmless?: ReadonlyMap<string, boolean>
  /** What stood before the names by which a model is known: '' for plain names, 'model.', 'ema.'... */
  prefixes?: string[]
  /** Keys or prefixes of EMA copies of the weights that stand beside those that were taken. */
  copies?: string[]
  /** Present where the weights are an EMA copy. */
  weights?: 'ema'
}
