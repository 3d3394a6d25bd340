// NumPy's files and networks in ONNX's format, written for tests: whole ones, and ones with a lie in them.

import fs from 'node:fs'
import path from 'node:path'
import { crc32, deflateRawSync } from 'node:zlib'

export const fixtures = path.join(__dirname, '..', 'fixtures', 'evaluation')
export const fixture = (name: string): string => path.join(fixtures, name)

/** What NumPy computed: test/fixtures/make-evaluation.py. */
export const expected = JSON.parse(fs.readFileSync(fixture('expected.json'), 'utf8')) as
  Record<'many' | 'few' | 'odd' | 'far' | 'whole', { fid: number, precision: number, recall: number }> &
  Record<`inception, ${'size 5000' | 'size 100' | 'count 7'}`, [mean: number, deviation: number]> &
  Record<'few, statistics in float32', { fid: number }>

// ---- arrays

export function npy (descr: string, shape: readonly number[], data: Uint8Array, fortran = 'False'): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': ${fortran}, ` +
    `'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`
  const length = Math.ceil((10 + text.length + 1) / 64) * 64
  const start = Buffer.alloc(10)
  start.write('\x93NUMPY\x01\x00', 'latin1')
  start.writeUInt16LE(length - 10, 8)
  return Buffer.concat([start, Buffer.from(text.padEnd(length - 11) + '\n', 'latin1'), data])
}

export function bytesOf (values: ArrayLike<number>, kind: 'f8' | 'f4' | 'u1' = 'f8'): Uint8Array {
  const type = { f8: Float64Array, f4: Float32Array, u1: Uint8Array }[kind]
  return new Uint8Array(type.from(values).buffer)
}

/** Rows of numbers as an array of floats. */
export function rows (values: ReadonlyArray<ArrayLike<number>>, kind: 'f8' | 'f4' = 'f8'): Buffer {
  return npy(`<${kind}`, [values.length, values[0]!.length], bytesOf(values.flatMap(row => Array.from(row)), kind))
}

export interface Lies {
  /** What the directory and the local header say instead. */
  size?: number
  compressedSize?: number
  method?: number
  flags?: number
  crc?: number
}

/** A zip file as numpy.savez writes it, or numpy.savez_compressed. */
export function zip (
  entries: Record<string, Uint8Array> | Array<[name: string, bytes: Uint8Array, lies?: Lies]>, deflate = false
): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let at = 0
  const list = Array.isArray(entries) ? entries : Object.entries(entries)
  for (const [name, bytes, lies = {}] of list as Array<[string, Uint8Array, Lies?]>) {
    const data = deflate ? deflateRawSync(bytes) : Buffer.from(bytes)
    const file = Buffer.from(name)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(lies.flags ?? 0, 2)
    common.writeUInt16LE(lies.method ?? (deflate ? 8 : 0), 4)
    common.writeUInt32LE(lies.crc ?? crc32(bytes), 10)
    common.writeUInt32LE(lies.compressedSize ?? data.length, 14)
    common.writeUInt32LE(lies.size ?? bytes.length, 18)
    common.writeUInt16LE(file.length, 22)
    const [local, central] = [Buffer.alloc(30), Buffer.alloc(46)]
    local.write('PK\x03\x04', 'latin1')
    common.copy(local, 4)
    central.write('PK\x01\x02', 'latin1')
    central.writeUInt16LE(20, 4)
    common.copy(central, 6)
    central.writeUInt32LE(at, 42)
    parts.push(local, file, data)
    directory.push(central, file)
    at += local.length + file.length + data.length
  }
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(list.length, 8)
  end.writeUInt16LE(list.length, 10)
  end.writeUInt32LE(directory.reduce((sum, { length }) => sum + length, 0), 12)
  end.writeUInt32LE(at, 16)
  return Buffer.concat([...parts, ...directory, end])
}

/** The same numbers in every run. */
export function randoms (seed: number): () => number {
  let state = seed >>> 0
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state + 0.5) / 2 ** 32
  }
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
}

// ---- networks: protobuf, by the field numbers of onnx.proto

export interface NetworkShape {
  type: 'float32' | 'uint8'
  input: ReadonlyArray<number | string>
  /** Names of the outputs. */
  features?: string
  logits?: string
}

/** Class scores are made of the mean of each channel by this matrix. */
export const weights = [[1, 0, -1, 0.5], [0, 2, 0, -0.5], [0.5, 0.5, 0.5, 0.5]]

const varint = (value: number): number[] => value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]
const number = (field: number, value: number): number[] => [...varint(field << 3), ...varint(value)]
const bytes = (field: number, value: Iterable<number>): number[] => {
  const all = [...value]
  return [...varint((field << 3) | 2), ...varint(all.length), ...all]
}
const text = (field: number, value: string): number[] => bytes(field, Buffer.from(value))

/**
 * A network whose features are the means of the three channels: [N, 3, 1, 1] or, of [N, H, W, 3], [N, 1, 1, 3]; its
 * class scores are logits of four classes.
 */
export function onnx ({ type, input, features = 'features', logits }: NetworkShape): Buffer {
  const elements = { float32: 1, uint8: 2 }
  const value = (name: string, element: number, shape: ReadonlyArray<number | string>): number[] => [
    ...text(1, name),
    ...bytes(2, bytes(1, [...number(1, element), ...bytes(2, shape.flatMap(side =>
      bytes(1, typeof side === 'number' ? number(1, side) : text(2, side))))]))
  ]
  const ints = (name: string, values: readonly number[]): number[] =>
    bytes(5, [...text(1, name), ...number(20, 7), ...values.flatMap(each => number(8, each))])
  const int = (name: string, own: number): number[] => bytes(5, [...text(1, name), ...number(20, 2), ...number(3, own)])
  const node = (op: string, inputs: string[], output: string, ...attributes: number[][]): number[] =>
    bytes(1, [...inputs.flatMap(name => text(1, name)), ...text(2, output), ...text(4, op), ...attributes.flat()])
  const tensor = (name: string, dims: readonly number[], values: readonly number[]): number[] =>
    bytes(5, [...dims.flatMap(side => number(1, side)), ...number(2, 1), ...text(8, name),
      ...bytes(9, bytesOf(values, 'f4'))])
  const wide = input[3] === 3
  const nodes = [
    ...node('Cast', ['pictures'], 'floats', int('to', 1)),
    ...node('ReduceMean', ['floats'], features, ints('axes', wide ? [1, 2] : [2, 3]), int('keepdims', 1))
  ]
  if (logits !== undefined) {
    nodes.push(...node('Flatten', [features], 'flat', int('axis', 1)), ...node('MatMul', ['flat', 'weights'], logits))
  }
  const graph = [
    ...nodes, ...text(2, 'means'), ...logits === undefined ? [] : tensor('weights', [3, 4], weights.flat()),
    ...bytes(11, value('pictures', elements[type], input)),
    ...bytes(12, value(features, 1, [input[0]!, ...wide ? [1, 1, 3] : [3, 1, 1]])),
    ...logits === undefined ? [] : bytes(12, value(logits, 1, [input[0]!, 4]))
  ]
  return Buffer.from([...number(1, 7), ...bytes(7, graph), ...bytes(8, [...text(1, ''), ...number(2, 11)])])
}

/**
 * A folder with a package onnxruntime-node that does what the networks above do, for tests on machines without the real
 * one: NODE_PATH names it. Beside a network it looks for its description, name.onnx.json. With the real package in the
 * folder of PARVIS_ONNXRUNTIME, tests use that.
 */
export function runtimeFolder (folder: string): string {
  const real = process.env.PARVIS_ONNXRUNTIME
  if (real !== undefined) return real
  const place = path.join(folder, 'node_modules', 'onnxruntime-node')
  fs.mkdirSync(place, { recursive: true })
  fs.writeFileSync(path.join(place, 'index.js'), `
    const fs = require('node:fs')
    const weights = ${JSON.stringify(weights)}
    class Tensor { constructor (type, data, dims) { Object.assign(this, { type, data, dims }) } }
    class InferenceSession {
      static async create (file) {
        if (!fs.existsSync(file + '.json')) throw new Error('Failed to load model because protobuf parsing failed.')
        return new InferenceSession(JSON.parse(fs.readFileSync(file + '.json', 'utf8')))
      }
      constructor ({ type, input, features = 'features', logits, sabotage }) {
        Object.assign(this, { features, logits, sabotage })
        this.wide = input[3] === 3
        this.inputMetadata = [{ name: 'pictures', isTensor: true, type, shape: input }]
        this.outputMetadata = [
          { name: features, isTensor: true, type: 'float32', shape: [input[0], ...this.wide ? [1, 1, 3] : [3, 1, 1]] },
          ...logits === undefined ? [] : [{ name: logits, isTensor: true, type: 'float32', shape: [input[0], 4] }]
        ]
        if (sabotage === 'old') this.inputMetadata = this.outputMetadata = undefined
        this.input = input
      }
      async run ({ pictures: { type, data, dims } }, fetches) {
        if (type !== this.inputMetadata[0].type) throw new Error('Unexpected input data type')
        this.input.forEach((side, axis) => {
          if (typeof side === 'number' && side !== dims[axis]) throw new Error('Got invalid dimensions for input')
        })
        if (this.sabotage === 'run') throw new Error('Non-zero status code returned')
        const [n, pixels] = [dims[0], dims[this.wide ? 1 : 2] * dims[this.wide ? 2 : 3]]
        const means = new Float32Array(n * 3)
        for (let i = 0; i < n * 3; i++) {
          let sum = 0
          for (let k = 0; k < pixels; k++) {
            sum += data[this.wide ? (Math.floor(i / 3) * pixels + k) * 3 + i % 3 : i * pixels + k]
          }
          means[i] = this.sabotage === 'nan' ? NaN : sum / pixels
        }
        const logits = new Float32Array(n * 4)
        for (let i = 0; i < n * 4; i++) {
          for (let k = 0; k < 3; k++) logits[i] += means[Math.floor(i / 4) * 3 + k] * weights[k][i % 4]
        }
        return Object.fromEntries(fetches.map(name => [name, name === this.logits
          ? new Tensor('float32', logits, [n, 4])
          : new Tensor('float32', means, [n, ...this.wide ? [1, 1, 3] : [3, 1, 1]])]))
      }
      async release () {}
    }
    module.exports = { InferenceSession, Tensor }
  `)
  return path.join(folder, 'node_modules')
}

/** Writes a network, and its description for the package of `runtimeFolder`. */
export function writeNetwork (file: string, shape: NetworkShape & { sabotage?: 'old' | 'run' | 'nan' }): string {
  fs.writeFileSync(file, onnx(shape))
  fs.writeFileSync(`${file}.json`, JSON.stringify(shape))
  return file
}
