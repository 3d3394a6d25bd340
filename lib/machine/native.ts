// The whole native contract in one file: what the addon exports, and how it is found. Nothing here computes.
// `binding/` implements these interfaces; both backends (CPU, CUDA) stand behind them.
//
// The order of calls on one engine is the order of execution: an engine owns one executor thread, each call
// is a job in its queue, and its promise settles when the job is done. So TypeScript may enqueue several steps
// before it awaits the first. Errors, thrown or rejected with, carry `parvisCode`; `toParError` turns them into
// ParError in one place.

import { isNativeError } from 'node:util/types'
import { isCallersOwn, outOfMemory, ParError, type ParErrorCode } from '../base/errors.js'
import { addonPlaces, isThere, loadAddon, type Attempt } from './find-addon.js'
import { visible } from '../base/text.js'

/** Type of floats in a file. */
export type DType = 'float32' | 'float16' | 'bfloat16'
/** Element type of a stored tensor. */
export type StoredType = DType | 'int8'
/**
 * What a model is kept in. int8: 8-bit integers with a scale for each 64 inputs of a matrix of the transformer; all
 * else is as in bfloat16. Sums are float32 in each.
 */
export type Precision = 'float32' | 'bfloat16' | 'int8'

/** Inputs of a row of 8-bit integers that share a scale. */
export const scaleInputs = 64

/** Where the elements of one tensor lie in a checkpoint file. The native side reads them straight from there. */
export interface TensorSource {
  name: string
  dtype: StoredType
  /** Row-major sizes, outermost first. */
  shape: number[]
  /** Byte offset of element [0, 0, ...] in the file. */
  offset: number
  /** Elements between neighbours along each axis. Absent: contiguous. */
  strides?: number[]
  /**
   * Of a contiguous int8 matrix [rows, inputs]: byte offset of its scales, float32 [rows, ceil(inputs / scaleInputs)].
   */
  scales?: number
}

/** A weight of a model by what it is for: one tensor of the file, or several that are stacked by rows. */
export interface WeightSource {
  role: string
  parts: TensorSource[]
}

/** A transformer: sizes and flags. Its weights: lib/models/weights.ts. */
export interface TransformerModel {
  layers: number
  /**
   * Cross layers behind the layers (ARPG); 0: there are none. Rows without a slot run through them: they see one cache
   * that the layers fill and the cross layers share, and they alone predict.
   */
  crossLayers: number
  dim: number
  heads: number
  kvHeads: number
  headSize: number
  /** Rows of w1 and w3. */
  feedForward: number
  vocabularySize: number
  /** Tokens that a sequence may begin with, numbered behind the vocabulary; none is ever drawn. */
  textTokens: number
  /** Without the unconditional class, whose row in the table is `classes`. */
  classes: number
  /** Vectors that rows may read in place of a token: the transition tokens of PAR, n - 1. */
  specials: number
  /** Special vectors are rotated by the row's cell, head by head, as queries are (RandAR). */
  rotateSpecials: boolean
  /** Rows of the table of learned positions; 0: there is none. */
  positions: number
  /** How rows are normalised: RMSNorm, or LayerNorm with weight and bias. */
  norm: 'rms' | 'layer'
  /** silu(gate x) * up x, or gelu(up x) by the error function. */
  activation: 'swiglu' | 'gelu'
  /** The projections of a layer have biases; only with 'gelu'. */
  bias: boolean
  /** LayerNorm of the embeddings, learned positions included. */
  embeddingNorm: boolean
  /** Pairs of a head that are rotated by frame, row and column of a cell, in this order. */
  rotationPairs: [frame: number, row: number, column: number]
  normEps: number
  ropeBase: number
}

/** A layer of a tokenizer on a picture [height, width, channels]. Its weights: lib/models/weights.ts. */
export interface TokenizerLayer {
  /**
   * 'residual': two 3x3 convolutions, each behind a group norm and swish, and the input added (through a 1x1
   * convolution where the channels differ). 'attention': of all pixels to each other, one head, behind a group norm,
   * and the input added.
   */
  kind: 'convolution' | 'residual' | 'attention'
  channels: number
  outputs: number
  /** Side of the filter of a 'convolution'. */
  kernel: 1 | 3
  /** A 'convolution' behind a group norm and swish. */
  normed: boolean
  /** A 3x3 'convolution' of the picture repeated twice each way, or at every other pixel. */
  resample: 'none' | 'down' | 'up'
}

/** A tokenizer of pictures: two lists of layers with a codebook, whose rows are normalised, between them. */
export interface TokenizerModel {
  codebookSize: number
  codeSize: number
  /** Of the group norms. */
  groups: number
  normEps: number
  /** From 3 channels to `codeSize`. */
  encoder: TokenizerLayer[]
  /** From `codeSize` channels to 3, as often 'up' as the encoder 'down'. */
  decoder: TokenizerLayer[]
}

/**
 * A layer of a causal tokenizer of videos, on frames that come one after another; edges are replicated. Its weights:
 * lib/models/weights.ts.
 */
export interface VideoLayer {
  /** 'residual': two filters of 3, each behind a group norm of each frame and swish, and the input added. */
  kind: 'convolution' | 'residual'
  channels: number
  /** Before depth to space. */
  outputs: number
  /** Side of the filter of a 'convolution', in time and space. */
  kernel: 1 | 3
  /** A 'convolution' behind a group norm of each frame and swish. */
  normed: boolean
  /** 2: at every other frame; at every other pixel. */
  strideTime: number
  strideSpace: number
  /** 2: depth to space; of the first frame the earlier half is dropped. */
  expandTime: number
  expandSpace: number
}

/** A tokenizer of videos: two lists of layers with finite scalar quantisation between them. */
export interface VideoTokenizerModel {
  /** Levels of each channel of a code; their product is the number of codes. */
  levels: number[]
  /** Of the group norms. */
  groups: number
  normEps: number
  /** From 3 channels to one for each level. */
  encoder: VideoLayer[]
  decoder: VideoLayer[]
}

/** Ints of a row: stream, input, position, frame, row, column, slot, sees (include/parvis/step.h). */
export const rowStride = 8
/** 4-byte numbers of a prediction: row, unconditional, token, rule, kept (ints), guidance (a float). */
export const predictionStride = 6
/** 4-byte numbers of a sampling rule: mode (int), temperature (float), top-k (int), top-p (float). */
export const ruleStride = 4

/** `input` of the class slot; special vector k (k >= 1) is `-1 - k`; a sequence token is its index >= 0. */
export const classInput = -1

/**
 * A step of any number of sequences. `stream` of a row is `seat * streamsEach`, plus 1 for the unconditional stream.
 */
export interface NativeStep {
  /**
   * [rows, rowStride]; the rows of one stream follow each other. With cross layers: all rows with a slot first, then
   * those without one.
   */
  rows: Int32Array
  /** [predictions, predictionStride] */
  predictions: Int32Array
  /** [rules, ruleStride] */
  rules: Int32Array
}

/** Cooperative cancellation of a running native call: between layers, not only between steps. */
export interface NativeCancel { cancel(): void }

export interface SessionOptions {
  /** Sequences that the session has room for. */
  seats: number
  /** 2: each seat has an unconditional stream beside the conditional one. */
  streamsEach: 1 | 2
  /** Slots of the KV cache of a stream. */
  slots: number
  /** Tokens of a sequence. */
  tokens: number
  /** Max rows of one step, all streams together. */
  maxRows: number
  /** Rows of logits that a seat keeps for `readLogits`. */
  kept: number
}

export interface Sequence {
  classId: number
  /** Key of the counter-based random numbers, 0 .. 2^64 - 1. */
  seed: bigint
  /** Known tokens in sequence order, [tokens]; negative where unknown. Absent: all unknown. */
  known?: Int32Array | undefined
}

/** All steps of a sequence, told once. Passes run them. */
export interface NativePlan {
  /** [rows, rowStride] of one stream: first the token that is drawn (-1: none), then what a row of a step has. */
  rows: Int32Array
  /** [steps]: rows up to the end of each. */
  ends: Int32Array
  /** [rows]: a token is drawn at the guidance scale 1 + share (guidanceScale - 1). Absent: every share is 1. */
  shares?: Float32Array | undefined
  /**
   * [tokens]: the token of that index is the first guess of this one; -1: token 0 is. Absent: token 0 of all of them.
   */
  guesses?: Int32Array | undefined
  /** [ruleStride] */
  rule: Int32Array
  /** 1: the unconditional stream does not run. */
  guidanceScale: number
}

export interface NativeSession {
  /** Bytes of native memory that it takes. */
  readonly bytes: number
  /** Seats a sequence; the seat must be free. */
  enter(seat: number, sequence: Sequence): Promise<void>
  /** Frees a seat. */
  leave(seat: number): Promise<void>
  /**
   * Runs one step. Resolves with the seats whose logits are not finite, as far as that is known by then: on a GPU it
   * may be told some steps later.
   */
  step(step: NativeStep, cancel?: NativeCancel): Promise<number[]>
  /** What a seat runs in passes. */
  plan(seat: number, plan: NativePlan): Promise<void>
  /**
   * Runs the next step of each part, and those behind it on guesses of the tokens that these draw: as many as the part
   * says, or as fit in `maxRows`. Steps whose guesses were right are done (common/passes.h).
   * @param parts [parts, 2]: a seat, and the max steps of it
   * @returns [1 + 2 parts]: the rows that it had (on a GPU the places that rows were given); then the steps of each
   * part that are done by now, or -1 where the seat has failed, as far as that is known by then; then for each part 1
   * where it was in the pass, 0 where it was at its end. On a GPU the device compares guesses by itself, and what a
   * pass has shown is told a few passes later: a step for each pass is counted until then
   */
  pass(parts: Int32Array, cancel?: NativeCancel): Promise<Int32Array>
  /** [tokens], sequence order; -1 where unknown. Rejects with NON_FINITE where the seat failed, as all reads do. */
  readTokens(seat: number): Promise<Int32Array>
  /** [tokens], natural logarithm; NaN where not scored. */
  readLogProbs(seat: number): Promise<Float32Array>
  /** [kept, vocabularySize], after guidance, before temperature; NaN where not kept. */
  readLogits(seat: number): Promise<Float32Array>
  /** Records every launch of a step from now on, or none. Resolves with what was recorded since the last call. */
  profile(on: boolean): Promise<LaunchRecord[]>
  /** Frees all memory: resolves when that is done. Jobs already queued finish first. */
  dispose(): Promise<void>
}

export interface NativeTransformer {
  /** Bytes of native memory that the weights take. */
  readonly bytes: number
  createSession(options: SessionOptions): Promise<NativeSession>
  dispose(): void
}

export interface DecodeOptions {
  count: number
  /** Grid of tokens. */
  gridHeight: number
  gridWidth: number
  /** Picture size; bicubic on the float image where it differs from grid * 2^(levels-1). */
  outHeight: number
  outWidth: number
  format: 'uint8' | 'float32'
}

/** One launch of a profile: on the CPU a pass over an operation's input, on CUDA a kernel or a few for one purpose. */
export interface LaunchRecord {
  /** 'convolution', 'group norm', 'attention'... */
  name: string
  /** Sizes in a few words: '3x3, 512 -> 256, 24 x 24'. */
  shape: string
  ms: number
  /** Read or written at least once; elements count in the precision of the model. */
  bytes: number
  /** Multiplications and additions of matrix products. */
  flops: number
}

export interface NativeTokenizer {
  readonly bytes: number
  /**
   * Raster-order tokens [count, gridHeight * gridWidth] to RGB, [count, outHeight, outWidth, 3]; float32 is nominally
   * -1..1.
   */
  decode(tokens: Int32Array, options: DecodeOptions & { format: 'uint8' }, cancel?: NativeCancel): Promise<Uint8Array>
  decode(
    tokens: Int32Array, options: DecodeOptions & { format: 'float32' }, cancel?: NativeCancel
  ): Promise<Float32Array>
  /** RGB [count, height, width, 3], -1..1, to raster-order tokens [count, gridHeight * gridWidth]. */
  encode(
    pixels: Float32Array, options: { count: number, height: number, width: number }, cancel?: NativeCancel
  ): Promise<Int32Array>
  /** Records every launch from now on, or none. Resolves with what was recorded since the last call. */
  profile(on: boolean): Promise<LaunchRecord[]>
  dispose(): void
}

/** One video on its way to pixels, latent frame by latent frame. */
export interface NativeVideoDecoder {
  /**
   * Tokens of the next latent frame, [rows * columns], to RGB of the frames that it completes, [frames, height, width,
   * 3]: one frame of the first, then as many as the time factor says. float32 is nominally 0..1.
   */
  decode(tokens: Int32Array, options: { format: 'uint8' }, cancel?: NativeCancel): Promise<Uint8Array>
  decode(tokens: Int32Array, options: { format: 'float32' }, cancel?: NativeCancel): Promise<Float32Array>
  dispose(): void
}

/** One video on its way to tokens, frame by frame. */
export interface NativeVideoEncoder {
  /** RGB of the next frame, [height, width, 3] in 0..1, to the tokens of the latent frame that it completes, if any. */
  encode(pixels: Float32Array, cancel?: NativeCancel): Promise<Int32Array>
  dispose(): void
}

export interface NativeVideoTokenizer {
  readonly bytes: number
  /** @param options rows and columns of tokens */
  createDecoder(options: { rows: number, columns: number }): Promise<NativeVideoDecoder>
  createEncoder(options: { rows: number, columns: number }): Promise<NativeVideoEncoder>
  /** Records every launch from now on, or none. Resolves with what was recorded since the last call. */
  profile(on: boolean): Promise<LaunchRecord[]>
  dispose(): void
}

export interface NativeEngine {
  /** 'cpu' or 'cuda:N'. */
  readonly device: string
  /**
   * Instruction set chosen at run time: 'avx512_bf16', 'avx512', 'avx2', 'baseline'; of a CUDA device 'sm_90', once a
   * first job has taken the device, and '' before.
   */
  readonly isa: string
  /** CPU threads; 0 for CUDA. */
  readonly threads: number
  /** How steps are launched on a CUDA device, as far as that is known by now; '' on a CPU. */
  readonly launches: 'graphs' | 'plain graphs' | 'kernels' | ''
  /**
   * identity: device, inode, size and nanoseconds of the last change of the file that was described; BAD_CHECKPOINT
   * where it is another now.
   */
  loadTransformer(
    file: string, weights: WeightSource[], model: TransformerModel, precision: Precision, cancel?: NativeCancel,
    identity?: BigUint64Array
  ): Promise<NativeTransformer>
  loadTokenizer(
    file: string, weights: WeightSource[], model: TokenizerModel, precision: Precision, cancel?: NativeCancel,
    identity?: BigUint64Array
  ): Promise<NativeTokenizer>
  loadVideoTokenizer(
    file: string, weights: WeightSource[], model: VideoTokenizerModel, precision: Precision, cancel?: NativeCancel,
    identity?: BigUint64Array
  ): Promise<NativeVideoTokenizer>
  /**
   * Measures what the device can do at most, for benchmarks: a second or two; 512 MB, of a GPU an eighth of what is
   * free and 4 GiB at most.
   */
  measureCeilings(): Promise<{ readBytesPerSecond: number, float32Flops: number, bfloat16Flops: number }>
  /**
   * Ends the executor after the queued jobs, and takes from transformers, tokenizers and sessions what they hold; later
   * calls reject with DISPOSED. Resolves when all memory is free and all threads have ended.
   */
  dispose(): Promise<void>
  /**
   * For the end of the process: stops the running job, drops those behind it and waits for the executor to end; also
   * after `dispose`.
   */
  halt(): void
}

export interface CudaDevice {
  /** N of 'cuda:N'. */
  index: number
  name: string
  /** Compute capability. */
  capability: [major: number, minor: number]
  /** Bytes in all. */
  memory: number
  /** Why this build cannot use it, naming it. Absent: it can. */
  problem?: string
}

/** CUDA in this build and on this machine. Versions are 1000 * major + 10 * minor, 0: none. */
export interface CudaProbe {
  compiled: boolean
  driver: number
  runtime: number
  /** Compiled in, e.g. '80 90 90+PTX'; '' where that is not known. */
  architectures: string
  devices: CudaDevice[]
  /** Why no device can be used, to complete a "because". Absent: one can. */
  reason?: string
}

/** What this process may use of the machine: its own, and what the control groups that it is in leave of that. */
export interface CpuFacts {
  /** Instruction set of the kernels that are used: the fastest, or what PARVIS_ISA asks for. */
  isa: string
  /** Those that the processor can run. */
  isas: string[]
  /** They multiply bfloat16 numbers as such. Without that, numbers are widened to float32 where they are multiplied. */
  bfloat16: boolean
  /** Cores that the process may run on. */
  cores: number
  /** Threads of an engine where none are asked for: one a core, but no more than the quota gives. */
  threads: number
  /** Processors' worth of time, and the control group that has this quota; 0 and '' without one. */
  quota: number
  quotaGroup: string
  /**
   * Bytes by the tightest limit, 0 where unknown. `group`: the control group that has it, '' for the machine.
   * `checked`: allocations are compared with it.
   */
  memory: { total: number, free: number, group: string, checked: boolean }
}

export interface Addon {
  /** Backends compiled in: 'cpu', or 'cpu' and 'cuda'. Says nothing of devices. */
  readonly backends: string[]
  /** What it was made of, for benchmarks: commit ('' outside a checkout), C++ compiler, nvcc ('' without). */
  readonly build: { commit: string, compiler: string, cuda: string }
  /**
   * What the CPU backend would use here. `root`: the folder in which /proc and /sys are looked for; tests have trees of
   * their own.
   */
  cpu(root?: string): CpuFacts
  /**
   * Loads the NVIDIA driver where there is one (hundreds of milliseconds, off the JavaScript thread); takes no device.
   */
  cuda(): Promise<CudaProbe>
  /** Bytes of a CUDA device. Takes the device for this process: time, and some hundred megabytes of it. */
  cudaMemory(device: number): Promise<{ free: number, total: number }>
  /**
   * Bytes of the machine's memory that this process may still take: what the system and its limits leave, without what
   * the CPU backend has promised to sessions and weights that have not touched it yet. 0: unknown.
   */
  freeMemory(): number
  /**
   * Bytes that the weights of a model and a session of it take on a device, worked out by the code that takes them. It
   * needs no device, and no build with CUDA. `threads`: of the CPU backend, 0 to 1024.
   */
  plan(options: {
    device: 'cpu' | 'cuda', model: TransformerModel, precision: Precision, threads: number,
    session?: SessionOptions | undefined
  }): { weights: number, session: number }
  /**
   * device 'cpu' or 'cuda:N', which is taken by the engine's first job. threads 0: `threads` of {@link CpuFacts}, or as
   * many as the system grants; CUDA has none.
   */
  createEngine(options: { device: string, threads: number }): NativeEngine
  createCancel(): NativeCancel
  /**
   * out[i, j] += the sum over k of a[i, k] * b[j, k], on this thread: for worker threads. Rows begin every `stride`
   * numbers, a multiple of 8, and are padded with zeros; rowsA is a multiple of 4, rowsB of 2.
   */
  addProducts(products: {
    a: Float64Array, b: Float64Array, out: Float64Array,
    rowsA: number, rowsB: number, stride: number, outStride: number
  }): void
  /** Converts stored floats, off the JavaScript thread (rounds to nearest even). */
  convertFloats(data: Uint8Array, from: DType, to: DType): Promise<Uint8Array>
  /**
   * Rows of floats as 8-bit integers and their scales: float32 [rows, ceil(inputs / scaleInputs)], NaN where a number
   * is not finite. `inputs`: numbers of a row.
   */
  quantize(data: Uint8Array, from: DType, inputs: number): Promise<{ integers: Uint8Array, scales: Float32Array }>
  /** ... and back, as float32. */
  dequantize(integers: Uint8Array, scales: Float32Array, inputs: number): Promise<Uint8Array>
}

let loaded: { attempt: Attempt, addon: unknown } | undefined

/** The file that was loaded; before, the one that will be tried first. Undefined where there is none. */
export function addonFile (): Attempt | undefined {
  return loaded?.attempt ?? addonPlaces().find(({ file }) => isThere(file))
}

/** Loads the addon once; throws ParError `NATIVE_UNAVAILABLE` with the cure when it cannot. */
export function addon (): Addon {
  loaded ??= loadAddon()
  return loaded.addon as Addon
}

/**
 * Turns a rejection of the addon, or memory that JavaScript could not have, into a ParError; other errors pass
 * unchanged.
 */
export function toParError (error: unknown): unknown {
  if (error instanceof ParError || !isNativeError(error) || isCallersOwn(error)) return error
  const code = (error as { parvisCode?: unknown }).parvisCode
  if (typeof code !== 'string') return outOfMemory(error) ?? error
  // Names of files and tensors are in it as they are.
  return new ParError(code as ParErrorCode, visible(error.message), { cause: error })
}
