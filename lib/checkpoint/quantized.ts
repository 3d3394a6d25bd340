// Matrices of 8-bit integers in a .safetensors file: a tensor of I8 and, under its name with `_scale` behind it, the
// scales in F32, one for each 64 inputs of a row. Together they are one tensor of a checkpoint.

import type { ParError } from '../base/errors.js'
import { scaleInputs, type TensorSource, type WeightSource } from '../machine/native.js'
import { quote } from '../base/text.js'
import { countEntries, maxModelTensors } from './names.js'
import type { Checkpoint } from './types.js'

/** Behind the name of a matrix: the name of its scales. */
export const scaleSuffix = '_scale'

/** The largest scale whose products with integers are finite (common/tensors.cc). */
export const maxScale = 3.4028234663852886e38 / 128

/** Sizes of the scales of a matrix. */
export const scaleShape = ([rows, inputs]: readonly number[]): [number, number] =>
  [rows!, Math.ceil(inputs! / scaleInputs)]

/**
 * Integers that have their scales become tensors of weights; the others stay what they are. A file with more entries
 * than any model has is left as it is.
 */
export function pairScales (checkpoint: Checkpoint): void {
  if (countEntries(checkpoint) > maxModelTensors) return
  const { tensors, others } = checkpoint
  for (const [name, { dtype, shape, offset, bytes }] of others) {
    if (dtype !== 'int8' || shape.length !== 2) continue
    const scales = tensors.get(name + scaleSuffix)
    if (scales?.dtype !== 'float32' || scales.strides) continue
    const [rows, groups] = scaleShape(shape)
    if (scales.shape.length !== 2 || scales.shape[0] !== rows || scales.shape[1] !== groups) continue
    others.delete(name)
    tensors.delete(scales.name)
    tensors.set(name, { name, dtype, shape, offset, scales: scales.offset, bytes: bytes + scales.bytes })
  }
}

/** Roles of matrices that are multiplied with activations; the others are tables, norms and biases. */
const matrix = /(^head|\.(qkv|queries|keysValues|attentionOutput|gate|up|down)\.weight)$/

/** Names of the tensors of a transformer that int8 keeps as integers: no table shares them. */
export function quantizable (weights: readonly WeightSource[]): Set<string> {
  const names = (wanted: boolean): string[] =>
    weights.filter(({ role }) => matrix.test(role) === wanted).flatMap(({ parts }) => parts.map(({ name }) => name))
  const others = new Set(names(false))
  return new Set(names(true).filter(name => !others.has(name)))
}

/** @throws ParError `BAD_CHECKPOINT` where a table is stored as integers */
export function refuseOtherIntegers (
  needed: { tensors: readonly TensorSource[], bad: (message: string) => ParError }, weights: readonly WeightSource[]
): void {
  const matrices = quantizable(weights)
  const other = needed.tensors.find(({ name, dtype }) => dtype === 'int8' && !matrices.has(name))
  if (other) {
    throw needed.bad(`tensor ${quote(other.name)} is stored as int8, which only matrices of layers and the head are. ` +
      'Convert the model again.')
  }
}
