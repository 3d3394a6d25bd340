// Takes the tensors that a model needs out of a checkpoint, one by one, each with the shape it must have. What is not
// taken (buffers, EMA copies, masks) is ignored; what is missing or misshapen is named with both shapes.

import { ParError } from '../base/errors.js'
import type { Limits } from '../machine/limits.js'
import type { TensorSource } from '../machine/native.js'
import { quote } from '../base/text.js'
import { bad, oddTensor, showBytes, showShape } from './bad.js'
import { isThere } from './names.js'
import { scaleShape, scaleSuffix } from './quantized.js'
import type { Checkpoint, StoredTensor } from './types.js'

/** Expected sizes; a string names a size that the tensor itself decides. */
export type Expected = ReadonlyArray<number | string>

/** Collects the needed tensors of one model. */
export class Needed {
  readonly tensors: TensorSource[] = []
  private bytes = 0

  /** `mayBeQuantized`: its matrices may be 8-bit integers. */
  constructor (readonly checkpoint: Checkpoint, private readonly mayBeQuantized = false) {}

  has (name: string): boolean { return isThere(this.checkpoint, name) }

  /** The tensor's shape, checked against `expected`. Errors: BAD_CHECKPOINT. */
  take (name: string, expected: Expected): number[] {
    const tensor = this.find(name, expected)
    const { shape } = tensor
    const fits = shape.length === expected.length &&
      shape.every((size, axis) => size > 0 && (typeof expected[axis] === 'string' || size === expected[axis]))
    if (!fits) throw this.bad(`tensor ${quote(name)} has shape ${showShape(shape)}, expected ${showExpected(expected)}`)
    const { dtype, offset, strides, scales } = tensor
    this.tensors.push({
      name, dtype, shape, offset, ...(strides && { strides }), ...(scales !== undefined && { scales })
    })
    this.bytes += tensor.bytes
    // Tensors may share a storage (tied weights), but a small file must not ask for memory without bound.
    if (this.bytes > 2 * this.checkpoint.fileBytes) {
      throw this.bad(`its tensors share storages so that they would take more than ${showBytes(this.bytes)} of ` +
        `memory, from a file of ${showBytes(this.checkpoint.fileBytes)}`)
    }
    return shape
  }

  /** Is anything larger than parvis runs? Errors: BAD_CHECKPOINT. */
  limit (limits: Readonly<Limits>, sizes: Partial<Limits>): void {
    for (const [name, size] of Object.entries(sizes)) {
      const most = limits[name as keyof Limits]
      if (size > most) {
        throw this.bad(
          `its ${sizeNames[name as keyof Limits] ?? name} is ${size}, and parvis runs models up to ${most}`
        )
      }
    }
  }

  bad (message: string): ParError { return bad(this.checkpoint.file, message) }

  private find (name: string, expected: Expected): StoredTensor {
    const tensor = this.checkpoint.tensors.get(name)
    if (tensor && (tensor.dtype !== 'int8' || this.mayBeQuantized)) return tensor
    const other = this.checkpoint.others.get(name) ?? tensor
    if (other?.dtype === 'int8' && this.mayBeQuantized && other.shape.length === 2 &&
      this.checkpoint.format === 'safetensors') {
      const [rows, groups] = scaleShape(other.shape)
      throw this.bad(`tensor ${quote(name)} is stored as int8, without the scales that belong to it: a tensor ` +
        `${quote(name + scaleSuffix)} of float32, [${rows}, ${groups}]`)
    }
    if (other) {
      throw this.bad(`tensor ${quote(name)} is stored as ${other.dtype}, expected float32, float16 or bfloat16. ` +
        'Convert it in PyTorch (tensor.float()) and save the file again.')
    }
    const odd = this.checkpoint.odd?.get(name)
    if (odd !== undefined) throw oddTensor(this.checkpoint.file, name, odd)
    throw this.bad(`tensor ${quote(name)} is missing, expected shape ${showExpected(expected)}. Is the file ` +
      'complete, and of this kind of model?')
  }
}

/** How messages call a size. */
const sizeNames: Partial<Record<keyof Limits, string>> = {
  layers: 'number of layers', dim: 'width', heads: 'number of heads', headSize: 'head size',
  feedForward: 'feed-forward width',
  classes: 'number of classes', n: 'number of tokens per step', baseChannels: 'base width', levels: 'number of levels',
  multiplier: 'largest multiple of the base width', residualBlocks: 'number of residual blocks per level',
  zChannels: 'width between encoder and codebook',
  codebook: 'codebook size', codeSize: 'code size', gridSide: 'number of tokens per side'
}

function showExpected (expected: Expected): string { return `[${expected.join(', ')}]` }

/** A whole number from 1 that a caller gave, or undefined. Errors: INVALID_OPTION. */
export function positiveOption (name: string, value: unknown, most: number): number | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > most) {
    throw new ParError('INVALID_OPTION', `${name} must be a whole number from 1 to ${most}, got ${showValue(value)}`)
  }
  return value
}

/** Any caller's value, short. */
export function showValue (value: unknown): string {
  try {
    return (typeof value === 'string' ? JSON.stringify(value) : String(value)).slice(0, 80)
  } catch {
    return typeof value
  }
}
