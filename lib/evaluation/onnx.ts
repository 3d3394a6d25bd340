// Features of pictures by a network in ONNX's format, which onnxruntime-node runs. That package is the user's own: it
// is loaded here, and only if pictures have to become features.

import { stat } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { outOfMemory, ParError } from '../base/errors.js'
import { absolute, fromSystem } from '../base/files.js'
import { isFloat32Array, isFloat64Array } from '../base/realm.js'
import { quote, shownPath, visible } from '../base/text.js'
import { pauses, squeezed, type Rgb } from '../pictures/resample.js'
import { unlikelyRow, type Pictures } from './features.js'
import type { Matrix } from './kernel.js'
import { reserve } from './memory.js'

// ---- onnxruntime-node, as far as it is used

type Numbers = Float32Array | Float64Array | Uint8Array

interface Value { name: string, isTensor: boolean, type?: string, shape?: ReadonlyArray<number | string> }

interface Tensor { type: string, data: unknown, dims: readonly number[] }

interface Session {
  inputMetadata?: readonly Value[]
  outputMetadata?: readonly Value[]
  run (feeds: Record<string, Tensor>, fetches: readonly string[]): Promise<Record<string, Tensor>>
  release (): Promise<void>
}

interface Runtime {
  InferenceSession: { create (file: string, options: object): Promise<Session> }
  Tensor: new (type: string, data: Numbers, dims: readonly number[]) => Tensor
}

function runtime (): Runtime {
  try {
    return require('onnxruntime-node') as Runtime
  } catch (cause) {
    throw new ParError('NATIVE_UNAVAILABLE', 'Networks in ONNX format need the package onnxruntime-node, which could ' +
      'not be loaded. Install it beside parvis: npm install onnxruntime-node ' +
      `(${visible(String((cause as Error).message).split(/\r?\n/)[0]!, 300)})`, { cause })
  }
}

// ---- the network

export const layouts = ['nchw', 'nhwc'] as const
export type Layout = typeof layouts[number]
/** What 0 and 255 of a picture become for a network that takes floats. */
export const ranges = { '0..255': [0, 255], '0..1': [0, 1], '-1..1': [-1, 1] } as const
export type Range = keyof typeof ranges

export interface NetworkOptions {
  /** Default: where the 3 channels stand in the shape of the input. */
  layout?: Layout
  /** Default: 0..255. */
  range?: Range
  /** Names of outputs. Default: by name and shape. */
  features?: string
  probabilities?: string
  threads?: number
}

/** How a picture goes in. */
export interface Input {
  name: string
  type: 'uint8' | 'float32'
  layout: Layout
  /** Absent where the network takes any. */
  batch?: number
  width?: number
  height?: number
}

/** Which outputs are looked at. */
export interface Outputs {
  features: string
  probabilities?: string
}

/** Pictures of a batch at most, and numbers that go into a network at a time, about. */
const [maxBatch, maxNumbers] = [32, 1 << 25]
/** Sides of a picture that a network may ask for, and numbers of a row of features. */
const [maxSide, maxDimensions] = [4096, 1 << 20]

export class Network {
  /** What the network's class scores turned out to be. */
  #scores: 'probabilities' | 'logits' | undefined

  private constructor (
    readonly file: string, readonly input: Input, readonly outputs: Outputs, private readonly session: Session,
    private readonly range: Range, private readonly runtime: Runtime
  ) {}

  /** @throws ParError `NATIVE_UNAVAILABLE`, `FILE_NOT_FOUND`, `BAD_CHECKPOINT`, `INVALID_OPTION` */
  static async load (file: string, options: NetworkOptions = {}): Promise<Network> {
    const place = absolute(file)
    try {
      const found = await stat(place)
      if (!found.isFile()) {
        throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be read: it is ` +
          `${found.isDirectory() ? 'a folder' : 'no regular file'}. Give the path of an .onnx file.`)
      }
    } catch (error) {
      throw fromSystem(error, place, 'read')
    }
    const library = runtime()
    let session: Session
    try {
      session = await library.InferenceSession.create(place, {
        logSeverityLevel: 3, ...options.threads !== undefined && { intraOpNumThreads: options.threads }
      })
    } catch (cause) {
      throw outOfMemory(cause) ?? bad(file, 'onnxruntime cannot load it: ' +
        `${visible(String((cause as Error).message).replace(/\s+/g, ' '), 500)}. Is it a whole model in ONNX format?`,
      cause)
    }
    try {
      if (!session.inputMetadata || !session.outputMetadata) {
        throw new ParError('NATIVE_UNAVAILABLE', 'This onnxruntime-node does not tell the shapes of a network; ' +
          'version 1.22 and later do: npm install onnxruntime-node@latest')
      }
      const input = inputOf(file, session.inputMetadata, options.layout)
      const outputs = outputsOf(file, session.outputMetadata, options)
      return new Network(file, input, outputs, session, options.range ?? '0..255', library)
    } catch (error) {
      await session.release().catch(() => {})
      throw error
    }
  }

  async close (): Promise<void> { await this.session.release().catch(() => {}) }

  /**
   * The features of all pictures and, where the network has class scores, their probabilities.
   * @param onDone called with the number of pictures that are done
   */
  async read (
    pictures: Pictures, signal?: AbortSignal, onDone: (pictures: number) => void = () => {}
  ): Promise<{ features: Matrix, probabilities?: Matrix }> {
    const { input, outputs } = this
    let features: Matrix | undefined
    let probabilities: Matrix | undefined
    let done = 0
    let batch: Rgb[] = []
    const flush = async (): Promise<void> => {
      if (batch.length === 0) return
      const found = await this.#run(batch, signal)
      features = append(features, found.features, pictures.count, done, () => this.#odd(outputs.features))
      if (found.probabilities !== undefined) {
        probabilities = append(probabilities, found.probabilities, pictures.count, done,
          () => this.#odd(outputs.probabilities!))
      }
      done += batch.length
      batch = []
      onDone(done)
    }
    const pause = pauses(() => signal?.throwIfAborted())
    for await (const picture of pictures.read(signal)) {
      const width = input.width ?? picture.width
      const height = input.height ?? picture.height
      const fits = picture.width === width && picture.height === height
      const sized = fits ? picture : await squeezed(picture, width, height, pause)
      if (batch.length > 0 && (batch[0]!.width !== width || batch[0]!.height !== height)) await flush()
      batch.push(sized)
      const most = input.batch ?? Math.max(1, Math.min(maxBatch, Math.floor(maxNumbers / (3 * width * height))))
      if (batch.length >= most) await flush()
    }
    await flush()
    return { features: features!, ...probabilities !== undefined && { probabilities } }
  }

  #odd (output: string): ParError {
    return bad(this.file, `its output ${quote(output)} has rows of another length for some pictures: features must ` +
      'have one length')
  }

  async #run (pictures: readonly Rgb[], signal?: AbortSignal): Promise<{ features: Matrix, probabilities?: Matrix }> {
    const { input, outputs: { features, probabilities } } = this
    const size = input.batch ?? pictures.length
    const { width, height } = pictures[0]!
    const data = pack(pictures, size, input, this.range)
    const dims = input.layout === 'nchw' ? [size, 3, height, width] : [size, height, width, 3]
    const names = probabilities === undefined ? [features] : [features, probabilities]
    let results: Record<string, Tensor>
    try {
      results = await this.session.run({ [input.name]: new this.runtime.Tensor(input.type, data, dims) }, names)
    } catch (cause) {
      throw outOfMemory(cause) ?? bad(this.file, `onnxruntime cannot run it on pictures of ${width} x ${height} ` +
        `pixels: ${visible(String((cause as Error).message).replace(/\s+/g, ' '), 500)}`, cause)
    }
    // It holds the thread while it runs: a signal is heard now.
    await setImmediate()
    signal?.throwIfAborted()
    const rows = (name: string): Matrix => this.#rows(name, results[name], size, pictures.length)
    const scores = probabilities === undefined ? undefined : rows(probabilities)
    if (scores !== undefined) await this.#normalize(scores, signal)
    return { features: rows(features), ...scores !== undefined && { probabilities: scores } }
  }

  #rows (name: string, tensor: Tensor | undefined, size: number, used: number): Matrix {
    const refuse = (why: string): ParError => bad(this.file, `its output ${quote(name)} ${why}`)
    const data = tensor?.data
    if (!isFloat32Array(data) && !isFloat64Array(data)) {
      throw refuse(`is of the type ${visible(String(tensor?.type), 40)}; features are floats (float32, float64)`)
    }
    const dims = Array.from(tensor!.dims)
    const columns = data.length / size
    const isRow = dims[0] === size && Number.isInteger(columns) && dims.slice(1).filter(side => side !== 1).length <= 1
    if (!isRow || columns < 1 || columns > maxDimensions) {
      throw refuse(`has the shape [${dims.join(', ')}] for ${size} pictures; features are a row for each, [N, D] or ` +
        '[N, D, 1, 1]: choose another output with --features-output, or add a pooling layer to the network')
    }
    const own = data.slice(0, used * columns)
    if (!own.every(Number.isFinite)) {
      throw new ParError('NON_FINITE', `${shownPath(this.file)}: the network computed ${quote(name)} with NaN or ` +
        'infinite numbers. Check its weights, and --range')
    }
    return { data: own, rows: used, columns }
  }

  /** Logits become probabilities; which of them an output has is told by its first rows. */
  async #normalize (scores: Matrix, signal?: AbortSignal): Promise<void> {
    const row = this.#scores === 'logits' ? 0 : await unlikelyRow(scores, signal)
    this.#scores ??= row === undefined ? 'probabilities' : 'logits'
    if (this.#scores === 'logits') softmax(scores)
    else if (row !== undefined) {
      throw bad(this.file, `its output ${quote(this.outputs.probabilities!)} has probabilities for some pictures and ` +
        'none for others; name another one with --probabilities-output')
    }
  }
}

function bad (file: string, why: string, cause?: unknown): ParError {
  return new ParError('BAD_CHECKPOINT', `${shownPath(file)}: ${why}`, cause === undefined ? undefined : { cause })
}

function append (
  all: Matrix | undefined, { data, rows, columns }: Matrix, count: number, at: number, odd: () => ParError
): Matrix {
  const into = all ?? {
    data: reserve(count * columns, isFloat32Array(data) ? 4 : 8, 'features'), rows: count, columns
  }
  if (into.columns !== columns || at + rows > count) throw odd()
  into.data.set(data, at * columns)
  return into
}

function softmax ({ data, rows, columns }: Matrix): void {
  for (let row = 0; row < rows; row++) {
    const own = data.subarray(row * columns, (row + 1) * columns) as Float64Array
    const most = own.reduce((a, b) => Math.max(a, b), -Infinity)
    let sum = 0
    for (let k = 0; k < columns; k++) sum += own[k] = Math.exp(own[k]! - most)
    for (let k = 0; k < columns; k++) own[k]! /= sum
  }
}

/** Pictures as the network takes them; places beyond the last one stay 0. */
function pack (
  pictures: readonly Rgb[], size: number, { type, layout }: Input, range: Range
): Uint8Array | Float32Array {
  const { width, height } = pictures[0]!
  const pixels = width * height
  const data = type === 'uint8' ? new Uint8Array(size * pixels * 3) : new Float32Array(size * pixels * 3)
  const [low, high] = type === 'uint8' ? [0, 255] : ranges[range]
  const levels = Float32Array.from({ length: 256 }, (_, level) => low + (high - low) * level / 255)
  for (const [k, { data: own }] of pictures.entries()) {
    const start = k * pixels * 3
    if (layout === 'nhwc') for (let i = 0; i < pixels * 3; i++) data[start + i] = levels[own[i]!]!
    else {
      for (let i = 0; i < pixels; i++) {
        for (let channel = 0; channel < 3; channel++) {
          data[start + channel * pixels + i] = levels[own[i * 3 + channel]!]!
        }
      }
    }
  }
  return data
}

// ---- what a network says of itself

const shapeText = (shape: ReadonlyArray<number | string>): string => `[${shape.slice(0, 8).map(side =>
  typeof side === 'number' ? side : visible(side, 20)).join(', ')}]`

/** A side that the network fixes; undefined where it is a name, or unknown. */
function fixed (side: number | string | undefined): number | undefined {
  return typeof side === 'number' && side > 0 ? side : undefined
}

export function inputOf (file: string, values: readonly Value[], wanted?: Layout): Input {
  const [value] = values
  if (value === undefined || values.length > 1) {
    throw bad(file, `it has ${values.length} inputs; a network of features has one, pictures`)
  }
  const { name, type, shape = [] } = value
  if (!value.isTensor || (type !== 'uint8' && type !== 'float32')) {
    throw bad(file, `its input ${quote(name)} is of the type ${visible(String(type), 40)}; pictures go in as uint8 or ` +
      'float32')
  }
  if (shape.length !== 4) {
    throw bad(file, `its input ${quote(name)} has the shape ${shapeText(shape)}; pictures are [N, 3, H, W] or ` +
      '[N, H, W, 3]')
  }
  const [first, last] = [shape[1] === 3, shape[3] === 3]
  if (wanted === undefined && first === last) {
    throw new ParError('INVALID_OPTION', `${shownPath(file)}: its input has the shape ${shapeText(shape)}, which ` +
      'does not tell where the 3 channels stand. Give --layout nchw or --layout nhwc')
  }
  const layout = wanted ?? (first ? 'nchw' : 'nhwc')
  const [channels, height, width] = (layout === 'nchw' ? [1, 2, 3] : [3, 1, 2]).map(axis => fixed(shape[axis]))
  if (channels !== undefined && channels !== 3) {
    throw bad(file, `its input has the shape ${shapeText(shape)}, which as ${layout} has ${channels} channels; ` +
      'pictures have 3')
  }
  const batch = fixed(shape[0])
  if ([width, height].some(side => side !== undefined && side > maxSide) || (batch !== undefined && batch > 4096)) {
    throw bad(file, `its input has the shape ${shapeText(shape)}, which is too large: ${maxSide} pixels a side and ` +
      '4096 pictures at a time are the limits')
  }
  return {
    name, type, layout, ...batch !== undefined && { batch }, ...width !== undefined && { width },
    ...height !== undefined && { height }
  }
}

/** Numbers of classes of ImageNet, with and without classes for none of them. */
const classes: ReadonlyArray<number | undefined> = [1000, 1001, 1008]

/** Names that are asked for; else what names tell, then what shapes tell. */
export function outputsOf (
  file: string, values: readonly Value[], { features, probabilities }: NetworkOptions
): Outputs {
  const list = values.slice(0, 16).map(({ name, shape = [] }) => `${quote(name)} ${shapeText(shape)}`).join(', ')
  for (const [option, name] of [['features', features], ['probabilities', probabilities]] as const) {
    if (name !== undefined && !values.some(value => value.name === name)) {
      throw new ParError('INVALID_OPTION', `${shownPath(file)}: it has no output ${quote(name)}, which ` +
        `--${option}-output names; it has ${list}`)
    }
  }
  const rows = values.filter(({ isTensor, shape = [] }) =>
    isTensor && (shape.length === 2 || (shape.length > 2 && shape.slice(1).filter(side => side !== 1).length <= 1)))
  const columns = ({ shape = [] }: Value): number | undefined => shape.slice(1).map(fixed).find(side => side !== 1)
  const isScore = (value: Value): boolean => /prob|logit|softmax|classes/i.test(value.name) ||
    (rows.length > 1 && classes.includes(columns(value)))
  const scores = rows.filter(value => value.name !== features && isScore(value))
  const likely = rows.filter(value => value.name !== probabilities && !scores.includes(value))
  const named = likely.filter(({ name }) => /feat|pool|embed|activation/i.test(name))
  const one = named.length === 1 ? named : likely
  const chosen = features ?? (one.length === 1 ? one[0]!.name : undefined)
  if (chosen === undefined) {
    throw new ParError('INVALID_OPTION', `${shownPath(file)}: which of its outputs are the features? It has ${list}. ` +
      'Give --features-output, and --probabilities-output if it has class probabilities or logits')
  }
  const score = probabilities ?? (scores.length === 1 ? scores[0]!.name : undefined)
  return { features: chosen, ...score !== undefined && score !== chosen && { probabilities: score } }
}
