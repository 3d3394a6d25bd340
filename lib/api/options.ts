// The options of the public calls: their types, which users read, and their checks, which turn anything a caller
// may pass into a plain record with every default filled in. Each option is listed once, here. Checks that need no
// model run before a model is touched; those that do (class ids, n) are given what they need.

import { randomInt } from 'node:crypto'
import type { Device } from '../machine/device.js'
import { ParError } from '../base/errors.js'
import type { GeneratedImage } from './image.js'
import type { ClassId } from '../models/labels.js'
import { limits } from '../machine/limits.js'
import type { Precision, TransformerModel } from '../machine/native.js'
import { embeddedNamed, type EmbeddedModel } from '../models/embedded.js'
import { presetOf, presets, type Preset } from '../models/presets.js'
import {
  nbpSampling, publishedClasses, publishedGuidance, publishedSizes, type PublishedParallel
} from '../models/published.js'
import type { ClassifyProgress, FramesProgress, Progress, VideoProgress } from '../base/progress.js'
import type { PullProgress } from '../hub/pull.js'
import { isUrl } from '../base/realm.js'
import { maxBatchSize } from '../decoding/batcher.js'
import { maxPassSteps } from '../decoding/lookahead.js'
import { hasN, type Method } from '../decoding/method.js'
import { draws, type Draw, type Sampling } from '../decoding/sampling.js'
import { decodingNames, parOptions, type CheckedDecoding, type DecodingOptions } from '../decoding/options.js'
import type { ParOptions } from '../decoding/schedule.js'
import { checkKnown, type CheckedKnown, type Known } from './known.js'
import { maxImages, maxTokens, tokenList, type Tokens } from './tokens.js'
import { shownPath } from '../base/text.js'
import {
  abortSignal, boolean, callback, finite, folderPath, gridOption, integer, invalid, isList, isObject, modelGridOption,
  nonEmptyString, oneOf, optionsObject, show, tokenArray
} from '../base/validate.js'

/** A transformer's file, with what it may not say itself. */
export interface TransformerFile {
  /** A .pt file of the authors, or a .safetensors file. */
  path: string
  /** Attention heads. Default: from the file's metadata or the table of published models. */
  heads?: number | undefined
  /**
   * Tokens a side, or [rows, columns]; [frames, rows, columns] of a model that makes videos. Default: from the
   * metadata; 24 for published models.
   */
  grid?: number | [rows: number, columns: number] | [frames: number, rows: number, columns: number] | undefined
  /**
   * How the rotated pairs of a head are divided among frame, row and column: half the head size in all. A model that
   * makes videos needs it where its metadata does not say. Default of the others: half each by row and column.
   */
  rotationPairs?: [frame: number, row: number, column: number] | undefined
  /**
   * Of NBP's models, whose tables also hold text: how many of their rows are video codes. Default: from the metadata or
   * the tokenizer; 64,000 for the published models.
   */
  vocabularySize?: number | undefined
  /** Tokens a step that the file was trained for. Default: from its transition tokens. */
  n?: number | undefined
  /** Which copy of the weights, where the file has both. Default: 'model'; an EMA copy that is alone is taken. */
  weights?: 'model' | 'ema' | undefined
}

/** Options of `Par.load`. With neither transformer nor tokenizer: the embedded model. */
export interface LoadOptions {
  /** Alone, without `tokenizer`: the instance generates and scores tokens, without pixels. */
  transformer?: string | TransformerFile | undefined
  /** Alone, without `transformer`: the instance encodes and decodes. */
  tokenizer?: string | {
    /** A .pt file of the authors, or a .safetensors file. */
    path: string
    /** Which copy of the weights, where the file has both. Default: 'model'; an EMA copy that is alone is taken. */
    weights?: 'model' | 'ema' | undefined
    /**
     * Of a tokenizer of videos: the levels of its finite scalar quantisation, 2 to 4096 each, one a channel. Files of
     * the authors do not hold them. Default: from the metadata; 8, 8, 8, 5, 5, 5 for six channels.
     */
    levels?: readonly number[] | undefined
  } | undefined
  /**
   * `auto` (default): the first GPU that this build can use, the CPU where there is none or where the model does not
   * fit in its memory; `info.deviceReason` says why. `cuda`: the first GPU that can be used; `cuda:1`: that one. What
   * is asked for is never replaced by another device.
   */
  device?: Device | undefined
  /**
   * What weights are kept in. `auto` (default): bfloat16, or what the file has, where those are 8-bit integers. `int8`:
   * integers with a scale for each 64 inputs in the matrices of the transformer, half of bfloat16's memory; the rest,
   * and the tokenizer, are bfloat16. Activations are bfloat16 on a GPU and where the CPU multiplies it, else float32.
   */
  precision?: 'auto' | Precision | undefined
  /**
   * CPU threads, 1 to 1024. Default: one a core, and no more than the CPU quota of a container gives. A GPU needs none.
   */
  threads?: number | undefined
  /**
   * Max pictures (or videos) that run together in a step, 1 to 64. Default 64. Memory may allow fewer; those of all
   * calls of the instance count together.
   */
  maxBatchSize?: number | undefined
  /**
   * Max calls that wait for their turn: one more rejects with `QUEUE_FULL`. Default: no limit. 0: nobody waits.
   */
  maxQueueSize?: number | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
}

/** Options of both forms of `Par.load`. */
const loadingNames = ['device', 'precision', 'threads', 'maxBatchSize', 'maxQueueSize', 'signal'] as const

/** Options of `Par.load` beside a name. The models that come with the package need no fetching. */
export interface PresetOptions extends Pick<LoadOptions, typeof loadingNames[number]> {
  /** Fetch what the cache lacks, as `pull` does. Default false: `FILE_NOT_FOUND` says what to run. */
  pull?: boolean | undefined
  /** Told what `pull: true` fetches, as `onProgress` of `pull`. */
  onPull?: ((progress: PullProgress) => void) | undefined
  /** The cache's folder. Default: HF_HUB_CACHE, else `hub` in HF_HOME, else `~/.cache/huggingface/hub`. */
  cache?: string | undefined
}

/** How a token is drawn from its logits. Defaults: those stored with the checkpoint, then those of the paper. */
export interface SamplingOptions {
  /** Classifier-free guidance, 1 (off) to 1000: `logits = u + scale (c - u)`. Paper's appendix: 1.345 to 1.6. */
  guidanceScale?: number | undefined
  /** 0 (the likeliest token) to 1000; below 0.0001 counts as 0. */
  temperature?: number | undefined
  /** Draw among the k likeliest tokens, ties kept. 0: off. */
  topK?: number | undefined
  /** Draw among the likeliest tokens whose probabilities reach p, 0 < p <= 1. 1: off. */
  topP?: number | undefined
  /**
   * `inverse` (default): a random number into the sums of the probabilities. `gumbel`: the token of the largest
   * log-probability plus a Gumbel number of its own. The distribution is the same, the pictures of a seed are others;
   * with `gumbel` more of the guesses of a pass hold (`passes`).
   */
  draw?: Draw | undefined
  /** Always the likeliest token; the same as temperature 0, and stronger than a temperature given beside it. */
  greedy?: boolean | undefined
}

/** Pixels: a side, or width and height; 1 to 8192 each. */
export type Size = number | {
  /** Pixels, 1 to 8192. */
  width: number
  /** Pixels, 1 to 8192. */
  height: number
}

// Two types, not one of `void | Promise<void>`, which would refuse `progress => list.push(progress)`.
/** Called after each step; may return a promise, which is waited for. */
export type OnProgress = ((progress: Progress) => void) | ((progress: Progress) => Promise<void>)

/** How many steps a pass of the transformer holds. The picture is the same, to the bit. */
export interface PassesOption {
  /**
   * A pass may hold the next steps of a picture, the later ones on guesses of the tokens before them: where a guess was
   * right, a step needs no pass of its own (Jacobi decoding; docs/passes.md). `auto` (default): as many steps as are
   * worth it on this machine, which is measured while pictures are made. `sequential`: one. A number, 1 to 32: so many
   * at most.
   */
  passes?: 'auto' | 'sequential' | number | undefined
}

/** Options of `generate`, `stream` and `images`. */
export interface GenerateOptions extends SamplingOptions, DecodingOptions, PassesOption {
  /** A class number or name, or a list of these: then the pictures are made side by side. */
  classId: ClassId | readonly ClassId[]
  /** Tokens a step. Default: the checkpoint's own; 4 for the embedded model. */
  n?: number | undefined
  /**
   * 0 to 2^53 - 1. Default: a random one below 2^32, reported as `seed` of each picture. A picture of a list has the
   * effective seed `seed + (number of earlier entries with the same class)` (modulo 2^53), so that a repeated class
   * gives different pictures; `generate({ classId, seed: picture.seed })` alone makes the identical bytes.
   */
  seed?: number | undefined
  /** Side, or width and height, in pixels (1 to 8192); bicubic. Default: the tokenizer's own size; 256 for presets. */
  size?: Size | undefined
  /**
   * Completes pictures: these cells are kept, the rest is drawn in the order of the schedule, and each drawn token sees
   * what that schedule lets it see. Known cells enter the cache many at a time, so it takes fewer steps. ARPG, LPD and
   * RandAR have known cells first in their order (also in a `tokenOrder`), so that every drawn token sees all of them,
   * and take the steps of their schedule that are left when so many tokens are known.
   */
  known?: Known | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
  /**
   * Called after each step with what `stream()` yields. Where it returns a promise, the call waits for it before it
   * goes on. An error thrown in it, or its rejection, ends the call with that error.
   */
  onProgress?: OnProgress | undefined
}

/** Called after each step; may return a promise, which is waited for. */
export type OnVideoProgress = ((progress: VideoProgress) => void) | ((progress: VideoProgress) => Promise<void>)

/** Options of `generateVideo` and `streamVideo`. */
export interface GenerateVideoOptions extends SamplingOptions, ParOptions, PassesOption {
  /** A class number or name, or a list of these: then the videos are made side by side. */
  classId?: ClassId | readonly ClassId[] | undefined
  /**
   * NBP's models read text: its tokens in place of `classId`, one list or one each. They are read as they are, and
   * filled up with `</s>` (2); the models were trained on `<s>` (1) and the name of a class, 8 tokens in all.
   */
  prefix?: readonly number[] | ReadonlyArray<readonly number[]> | undefined
  /** Tokens a step. Default: the checkpoint's own. */
  n?: number | undefined
  /** 0 to 2^53 - 1; as for `generate`. */
  seed?: number | undefined
  /** Frames a second that the files of the video say, 0.1 to 240. No pixel depends on it. Default 8 (supplement A). */
  fps?: number | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
  /**
   * Called after each step with what `streamVideo()` yields. Where it returns a promise, the call waits for it before
   * it goes on. An error thrown in it, or its rejection, ends the call with that error.
   */
  onProgress?: OnVideoProgress | undefined
}

/** Called after each frame; may return a promise, which is waited for. */
export type OnFrames = ((progress: FramesProgress) => void) | ((progress: FramesProgress) => Promise<void>)

/** Options of `decodeVideo`. */
export interface DecodeVideoOptions {
  /** Tokens: [frames, rows, columns]. Default: the transformer's. */
  grid?: [frames: number, rows: number, columns: number] | undefined
  /** `uint8` (default), or `float32`: nominally 0..1, as the tokenizer computes it. */
  format?: 'uint8' | 'float32' | undefined
  /** Frames a second that the files of the video say, 0.1 to 240. Default 8. */
  fps?: number | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
  /** Told after each frame of tokens. */
  onProgress?: OnFrames | undefined
}

/** Options of `encodeVideo`. */
export interface EncodeVideoOptions {
  /**
   * Tokens, [frames, rows, columns]: as many frames are taken, from the first, and squeezed to that size. Default: the
   * transformer's; without one, all frames in their own size.
   */
  grid?: [frames: number, rows: number, columns: number] | undefined
  /** Of a file that ffmpeg reads: frames a second that are taken, 0.1 to 240. Default: all. */
  fps?: number | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
  /** Told after each frame. */
  onProgress?: OnFrames | undefined
}

/** Options of `score`. */
export interface ScoreOptions extends DecodingOptions {
  /** Tokens of one picture or of several, raster order, [rows * columns] each; of videos frame after frame. */
  tokens: Tokens | readonly Tokens[]
  /** One class for all pictures, or one each. */
  classId?: ClassId | readonly ClassId[] | undefined
  /** Text tokens in place of `classId`, as for `generateVideo`: one list for all, or one each. */
  prefix?: readonly number[] | ReadonlyArray<readonly number[]> | undefined
  /** Tokens a step, as for `generate`: it decides what each token may see. */
  n?: number | undefined
  /** 1 to 1000. Default 1: the conditional distribution itself. */
  guidanceScale?: number | undefined
  /** Sequence positions (0 = first drawn) whose logits are wanted too. */
  logits?: readonly number[] | undefined
  /**
   * `full` (default): one pass over all slots under the block-wise mask. `cached`: the decoding steps with forced
   * tokens, slower, equal up to rounding; for checking one against the other. ARPG, LPD and RandAR run their steps in
   * both.
   */
  method?: 'full' | 'cached' | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
}

/** Options of `animate`. */
export interface AnimateOptions extends Omit<GenerateOptions, 'classId'> {
  /** A class number or name: one picture is animated. */
  classId: ClassId
  /** A frame after every so many steps, and one after the last. Default: so many that there are at most 100 frames. */
  every?: number | undefined
  /**
   * Repeats each pixel so often, each way: a whole number, 1 to 64. Default: as often as 256 pixels hold the longer
   * side.
   */
  scale?: number | undefined
  /** Milliseconds that a frame is shown, 20 to 60000. Default 80. */
  delay?: number | undefined
  /** Milliseconds that the last frame, the finished picture, is shown, 20 to 60000. Default 1500. */
  hold?: number | undefined
}

/** Called as classes are compared; may return a promise, which is waited for. */
export type OnClassified = ((progress: ClassifyProgress) => void) | ((progress: ClassifyProgress) => Promise<void>)

/** Options of `classify`. */
export interface ClassifyOptions extends DecodingOptions {
  /** Classes to compare, numbers or names. Default: all that the model has; each takes a pass of the transformer. */
  classes?: readonly ClassId[] | undefined
  /** Only so many of the likeliest classes are returned. Default: all that were compared. */
  top?: number | undefined
  /** Tokens per step, as for `generate`: it decides what each token may see. */
  n?: number | undefined
  /** 1 to 1000. Default 1: the conditional distribution itself. */
  guidanceScale?: number | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
  /**
   * Told after every few classes. Where it returns a promise, the call waits for it; an error thrown in it ends the
   * call.
   */
  onProgress?: OnClassified | undefined
}

/** Options of `decode`. */
export interface DecodeOptions {
  /** Default: the tokenizer's own size, i.e. grid times its factor. */
  size?: Size | undefined
  /** `uint8` (default), or `float32`: nominally -1..1, as the tokenizer computes it. */
  format?: 'uint8' | 'float32' | undefined
  /** Tokens a side, or [rows, columns]. Default: the transformer's; without one, a square. */
  grid?: number | [rows: number, columns: number] | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
}

/** Options of `encode` and `prepare`. */
export interface EncodeOptions {
  /** Tokens a side, or [rows, columns], that the picture is cropped and resized to. Default: the transformer's grid. */
  grid?: number | [rows: number, columns: number] | undefined
  /**
   * `true` (default): the middle of the picture, resized as the tokenizers' authors do (halved by a box filter while
   * that leaves enough, then bicubic, all as PIL computes it). `false`: the whole picture, squeezed to the grid;
   * without `grid` and without a transformer in its own shape, at most 64 tokens a side.
   */
  crop?: boolean | undefined
  /** What transparent pixels are laid on: a colour as sharp reads it, `'#ff8800'` or `'black'`. Default: white. */
  background?: string | undefined
  /** Aborts the call, which rejects with `signal.reason`; the instance stays usable. */
  signal?: AbortSignal | undefined
}

export type { GeneratedImage }

/** Options that were checked, and so copied, before: by the default instance, which may have to load a model first. */
export class CheckedOptions<T> {
  constructor (readonly request: T) {}
}

export function isChecked<T> (value: unknown): value is CheckedOptions<T> {
  return isObject(value) && value instanceof CheckedOptions
}

// ---- load

export interface CheckedLoad {
  transformer: TransformerFile & { grid?: [number, number] | [number, number, number] } | undefined
  tokenizer: { path: string, weights: 'model' | 'ema' | undefined, levels: number[] | undefined } | undefined
  device: Device
  precision: 'auto' | Precision
  threads: number
  maxBatchSize: number
  maxQueueSize: number | undefined
  signal: AbortSignal | undefined
  /** What is loaded by name and comes with the package. */
  embedded: EmbeddedModel | undefined
  /** What is loaded by name and published: its files are found (or fetched) before anything else. */
  preset: (Preset & Fetching) | undefined
}

interface Fetching {
  cache: string | undefined
  pull: boolean
  onPull: PresetOptions['onPull']
}

export function checkLoadPreset (name: unknown, value: unknown): CheckedLoad {
  const preset = embeddedNamed(name) ? undefined : presetNamed(name)
  const { pull, onPull, cache, ...others } = optionsObject(value, 'Par.load by name',
    [...loadingNames, 'pull', 'onPull', 'cache'])
  const fetching: Fetching = {
    pull: pull !== undefined && boolean(pull, 'pull'),
    onPull: callback(onPull, 'onPull'),
    cache: cache === undefined ? undefined : folderPath(cache, 'cache')
  }
  return {
    ...checkLoad(others), embedded: embeddedNamed(name), preset: preset && { ...preset, ...fetching }
  }
}

/** A text that is the name of no preset is often that of a file, or of a repository. */
function presetNamed (name: unknown): Preset {
  const text = String(name).trim()
  const repository = presets.filter(preset => preset.transformer.repository.toLowerCase() === text.toLowerCase())
  if (repository.length > 0) {
    throw invalid(`${show(name)} is a repository; give the name of one preset of it: ` +
      `Par.load('${repository[0]!.name}'). ` +
      `It has ${repository.map(({ name }) => name).join(', ')}`)
  }
  if (/\.(safetensors|pt|pth|bin|ckpt|gguf|onnx)$/i.test(text) || /^[~./\\]|:/.test(text)) {
    throw invalid(`Par.load takes the name of a preset, or files as options: Par.load({ transformer: ${show(name)} ` +
      '}), with tokenizer for pixels')
  }
  return presetOf(name)
}

export function checkLoad (value: unknown): CheckedLoad {
  if (isObject(value) && 'model' in value && !('transformer' in value)) {
    throw invalid("Par.load has no option 'model'. A preset is the first argument: Par.load('par-xl-4x', options); " +
      'files are { transformer, tokenizer }')
  }
  const options = optionsObject(value, 'Par.load',
    ['transformer', 'tokenizer', ...loadingNames])
  return {
    transformer: options.transformer === undefined ? undefined : transformerFile(options.transformer),
    tokenizer: options.tokenizer === undefined ? undefined : tokenizerFile(options.tokenizer),
    device: deviceOption(options.device === undefined ? 'auto' : options.device),
    precision: oneOf(options.precision === undefined ? 'auto' : options.precision, 'precision',
      ['auto', 'float32', 'bfloat16', 'int8'] as const),
    threads: options.threads === undefined ? 0 : integer(options.threads, 'threads', 1, 1024),
    maxBatchSize: options.maxBatchSize === undefined
      ? maxBatchSize
      : integer(options.maxBatchSize, 'maxBatchSize', 1, maxBatchSize),
    maxQueueSize: options.maxQueueSize === undefined
      ? undefined
      : integer(options.maxQueueSize, 'maxQueueSize', 0, Number.MAX_SAFE_INTEGER),
    signal: abortSignal(options.signal),
    embedded: undefined,
    preset: undefined
  }
}

function fileOption (value: unknown, name: string, known: string[]): Record<string, unknown> & { path: string } {
  if (typeof value === 'string') return { path: filePath(value, name) }
  if (!isObject(value) || isList(value) || isUrl(value)) {
    throw invalid(`${name} must be a path or an object with a path, not ${show(value)}`)
  }
  const fields = optionsObject(value, name, known)
  return { ...fields, path: filePath(fields.path, `${name}.path`) }
}

function filePath (value: unknown, name: string): string {
  const file = nonEmptyString(value, name)
  if (/^file:\/\//i.test(file)) {
    throw invalid(`${name} must be a path, not the URL ${shownPath(file)}: give fileURLToPath(url)`)
  }
  if (/^([a-z][a-z0-9+.-]+:\/\/|data:)/i.test(file)) {
    throw invalid(`${name} must be the path of a file, not the address ${shownPath(file)}: no address is fetched, ` +
      'but for presets by pull')
  }
  return file
}

function transformerFile (value: unknown): CheckedLoad['transformer'] {
  const fields = fileOption(value, 'transformer',
    ['path', 'heads', 'grid', 'n', 'rotationPairs', 'vocabularySize', 'weights'])
  return {
    path: fields.path,
    heads: fields.heads === undefined ? undefined : integer(fields.heads, 'transformer.heads', 1, limits.heads),
    grid: fields.grid === undefined ? undefined : modelGridOption(fields.grid, 'transformer.grid'),
    rotationPairs: rotationPairs(fields.rotationPairs),
    vocabularySize: fields.vocabularySize === undefined
      ? undefined
      : integer(fields.vocabularySize, 'transformer.vocabularySize', 1, limits.vocabulary),
    n: fields.n === undefined ? undefined : integer(fields.n, 'transformer.n', 1, limits.n),
    weights: weightsOption(fields.weights, 'transformer.weights')
  }
}

function tokenizerFile (value: unknown): CheckedLoad['tokenizer'] {
  const fields = fileOption(value, 'tokenizer', ['path', 'weights', 'levels'])
  return {
    path: fields.path, weights: weightsOption(fields.weights, 'tokenizer.weights'), levels: levels(fields.levels)
  }
}

function rotationPairs (value: unknown): [number, number, number] | undefined {
  if (value === undefined) return undefined
  const name = 'transformer.rotationPairs'
  if (!isList(value) || value.length !== 3) throw invalid(`${name} must be [frame, row, column], not ${show(value)}`)
  return [...value].map((pairs, k) => integer(pairs, `${name}[${k}]`, 0, limits.headSize)) as [number, number, number]
}

function levels (value: unknown): number[] | undefined {
  if (value === undefined) return undefined
  const name = 'tokenizer.levels'
  if (!isList(value) || value.length < 1 || value.length > 64) {
    throw invalid(`${name} must be a list of 1 to 64 numbers of levels, not ${show(value)}`)
  }
  return [...value].map((level, k) => integer(level, `${name}[${k}]`, 2, 4096))
}

function weightsOption (value: unknown, name: string): 'model' | 'ema' | undefined {
  return value === undefined ? undefined : oneOf(value, name, ['model', 'ema'] as const)
}

function deviceOption (value: unknown): Device {
  if (typeof value === 'string' && /^(auto|cpu|cuda|cuda:\d{1,4})$/.test(value)) return value as Device
  throw invalid(`device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not ${show(value)}`)
}

// ---- generate

export interface CheckedGenerate {
  classIds: unknown[]
  /** One class was given, not a list. */
  single: boolean
  n: number | undefined
  sampling: Partial<Sampling>
  passes: 'auto' | number
  seed: number
  /** Of each picture, in place of those that follow from `seed`. */
  seeds: number[] | undefined
  size: { width: number, height: number } | undefined
  known: CheckedKnown | undefined
  decoding: CheckedDecoding
  signal: AbortSignal | undefined
  onProgress: OnProgress | undefined
}

export const generateNames = ['classId', 'n', 'guidanceScale', 'temperature', 'topK', 'topP', 'draw', 'greedy', 'seed',
  'size', 'known', 'passes', 'signal', 'onProgress', ...decodingNames]

export function checkGenerate (value: unknown, call = 'generate'): CheckedGenerate {
  if (isChecked<CheckedGenerate>(value)) return value.request
  const options = optionsObject(value, call, generateNames)
  const classIds = classList(options.classId, call)
  return {
    classIds,
    single: !isList(options.classId),
    n: tokensAStep(options.n),
    sampling: sampling(options),
    passes: passesOption(options.passes),
    seed: options.seed === undefined ? randomSeed() : seedOption(options.seed),
    seeds: undefined,
    size: sizeOption(options.size),
    known: options.known === undefined ? undefined : checkKnown(options.known, classIds.length),
    decoding: decoding(options, classIds.length),
    signal: abortSignal(options.signal),
    onProgress: callback(options.onProgress, 'onProgress')
  }
}

/** That of the data which the paper's models were trained on (supplement A). */
const usualFps = 8

export interface CheckedGenerateVideo
  extends Pick<CheckedGenerate, 'classIds' | 'single' | 'n' | 'sampling' | 'passes' | 'seed' | 'decoding' | 'signal'> {
  /** Text in place of classes, of which there are none then. */
  prefixes: number[][] | undefined
  fps: number
  onProgress: OnVideoProgress | undefined
}

export function checkGenerateVideo (value: unknown, call = 'generateVideo'): CheckedGenerateVideo {
  if (isChecked<CheckedGenerateVideo>(value)) return value.request
  const options = optionsObject(value, call, ['classId', 'prefix', 'n', 'guidanceScale', 'temperature', 'topK', 'topP',
    'draw', 'greedy', 'passes', 'seed', 'fps', 'signal', 'onProgress', ...parOptions])
  const { classIds, single, prefixes } = classesOrPrefixes(options, call)
  return {
    classIds, single, prefixes,
    n: tokensAStep(options.n),
    sampling: sampling(options),
    passes: passesOption(options.passes),
    seed: options.seed === undefined ? randomSeed() : seedOption(options.seed),
    decoding: decoding(options, prefixes?.length ?? classIds.length),
    signal: abortSignal(options.signal),
    fps: options.fps === undefined ? usualFps : framesASecond(options.fps),
    onProgress: callback(options.onProgress, 'onProgress')
  }
}

/** A class or text, or a list of either. */
function classesOrPrefixes (
  { classId, prefix }: Record<string, unknown>, call: string
): { classIds: unknown[], single: boolean, prefixes: number[][] | undefined } {
  if (prefix === undefined) {
    return { classIds: classList(classId, call), single: !isList(classId), prefixes: undefined }
  }
  if (classId !== undefined) throw invalid('prefix takes the place of classId: give one of them')
  if (!isList(prefix) || prefix.length === 0) {
    throw invalid(`prefix must be a list of text tokens, or a list of such lists, not ${show(prefix)}`)
  }
  const single = !isList(prefix[0])
  const lists: readonly unknown[] = single ? [prefix] : [...prefix]
  if (lists.length > maxImages) {
    throw invalid(`A list of texts must hold 1 to ${maxImages} entries, not ${lists.length}`)
  }
  return {
    classIds: [],
    single,
    prefixes: lists.map((list, i) => {
      const name = single ? 'prefix' : `prefix[${i}]`
      if (!isList(list) || list.length === 0 || list.length > limits.prefix) {
        throw invalid(`${name} must be a list of 1 to ${limits.prefix} text tokens, not ${show(list)}`)
      }
      return [...list].map((token, k) => integer(token, `${name}[${k}]`, 0, limits.vocabulary - 1))
    })
  }
}

const framesASecond = (value: unknown): number => finite(value, 'fps', 0.1, 240)

function videoGridOption (value: unknown): [number, number, number] | undefined {
  if (value === undefined) return undefined
  if (!isList(value) || value.length !== 3) throw invalid(`grid must be [frames, rows, columns], not ${show(value)}`)
  return [...value].map((side, k) => integer(side, `grid[${k}]`, 1, limits.gridSide)) as [number, number, number]
}

export interface CheckedDecodeVideo {
  grid: [number, number, number] | undefined
  format: 'uint8' | 'float32'
  fps: number
  signal: AbortSignal | undefined
  onProgress: OnFrames | undefined
}

export function checkDecodeVideo (value: unknown): CheckedDecodeVideo {
  if (isChecked<CheckedDecodeVideo>(value)) return value.request
  const options = optionsObject(value, 'decodeVideo', ['grid', 'format', 'fps', 'signal', 'onProgress'])
  return {
    grid: videoGridOption(options.grid),
    format: oneOf(options.format === undefined ? 'uint8' : options.format, 'format', ['uint8', 'float32'] as const),
    fps: options.fps === undefined ? usualFps : framesASecond(options.fps),
    signal: abortSignal(options.signal),
    onProgress: callback(options.onProgress, 'onProgress')
  }
}

export interface CheckedEncodeVideo {
  grid: [number, number, number] | undefined
  fps: number | undefined
  signal: AbortSignal | undefined
  onProgress: OnFrames | undefined
}

export function checkEncodeVideo (value: unknown): CheckedEncodeVideo {
  if (isChecked<CheckedEncodeVideo>(value)) return value.request
  const options = optionsObject(value, 'encodeVideo', ['grid', 'fps', 'signal', 'onProgress'])
  return {
    grid: videoGridOption(options.grid),
    fps: options.fps === undefined ? undefined : framesASecond(options.fps),
    signal: abortSignal(options.signal),
    onProgress: callback(options.onProgress, 'onProgress')
  }
}

export interface CheckedAnimate {
  every: number | undefined
  scale: number | undefined
  delay: number
  hold: number
  /** What `stream` is given. */
  generate: GenerateOptions
}

export function checkAnimate (value: unknown): CheckedAnimate {
  const { every, scale, delay, hold, ...generate } = optionsObject(value, 'animate',
    [...generateNames, 'every', 'scale', 'delay', 'hold'])
  if (isList(generate.classId)) {
    throw invalid(`animate makes one picture: classId must be a number or a name, not ${show(generate.classId)}`)
  }
  checkGenerate(generate, 'animate')
  const milliseconds = (given: unknown, name: string, otherwise: number): number =>
    given === undefined ? otherwise : integer(given, name, 20, 60000)
  return {
    every: every === undefined ? undefined : integer(every, 'every', 1, 1 << 20),
    scale: scale === undefined ? undefined : integer(scale, 'scale', 1, 64),
    delay: milliseconds(delay, 'delay', 80),
    hold: milliseconds(hold, 'hold', 1500),
    generate: generate as unknown as GenerateOptions
  }
}

function passesOption (value: unknown): 'auto' | number {
  if (value === undefined || value === 'auto') return 'auto'
  if (value === 'sequential') return 1
  if (typeof value === 'number') return integer(value, 'passes', 1, maxPassSteps)
  throw invalid(`passes must be 'auto', 'sequential' or a number of steps, 1 to ${maxPassSteps}, not ${show(value)}`)
}

function sampling (options: Record<string, unknown>): Partial<Sampling> {
  const found: Partial<Sampling> = {}
  if (options.guidanceScale !== undefined) found.guidanceScale = guidance(options.guidanceScale)
  if (options.temperature !== undefined) found.temperature = finite(options.temperature, 'temperature', 0, 1000)
  if (options.topK !== undefined) found.topK = integer(options.topK, 'topK', 0, 2 ** 31 - 1)
  if (options.topP !== undefined) {
    found.topP = finite(options.topP, 'topP', 0, 1)
    if (Math.fround(found.topP) < 2 ** -126) throw invalid('topP must be above 0; greedy takes the likeliest token')
  }
  if (options.draw !== undefined) found.draw = oneOf(options.draw, 'draw', draws)
  if (options.greedy !== undefined && boolean(options.greedy, 'greedy')) found.temperature = 0
  return found
}

/**
 * Caller's options, then the checkpoint's, then those of the method's paper.
 * @param steps of a picture, where they are not the model's own number
 */
export function resolveSampling (
  given: Partial<Sampling>,
  { method, model, sampling: stored, published }: {
    method: Method, model: TransformerModel, sampling?: Partial<Sampling> | undefined,
    published?: PublishedParallel | undefined
  },
  steps = published?.steps ?? 1
): Sampling {
  const paper = model.classes === publishedClasses && hasN(method)
    ? publishedSizes.find(entry => entry.layers === model.layers && entry.dim === model.dim)
    : undefined
  const result: Sampling = {
    guidanceScale: published ? publishedGuidance(published, steps) : paper?.guidanceScale ?? 1,
    ...(method === 'nbp' ? nbpSampling : { temperature: 1, topK: 0, topP: 1 }), ...defined(stored), ...given
  }
  if (result.guidanceScale < 1) result.guidanceScale = 1 // a stored 0 means off too
  checkGuidance(method, result.guidanceScale)
  if (result.temperature < 1e-4) result.temperature = 0
  if (result.topK >= model.vocabularySize) result.topK = 0
  return result
}

/** @throws ParError `INVALID_OPTION` where the model cannot be guided */
export function checkGuidance (method: Method, guidanceScale: number): void {
  if (method !== 'nbp' || guidanceScale === 1) return
  throw invalid(`guidanceScale ${guidanceScale}: NBP's models were never trained without their text, which guidance ` +
    'needs. Leave guidanceScale out')
}

function defined (stored: Partial<Sampling> = {}): Partial<Sampling> {
  const names = ['guidanceScale', 'temperature', 'topK', 'topP', 'draw'] as const
  return Object.fromEntries(names.filter(name => stored[name] !== undefined).map(name => [name, stored[name]]))
}

/** A seed where the caller gives none: 32 bits, few enough digits to type again. */
export function randomSeed (): number {
  return randomInt(2 ** 32)
}

/** Effective seeds of a list, see {@link GenerateOptions.seed}. */
export function effectiveSeeds (classIds: readonly number[], seed: number): number[] {
  const earlier = new Map<number, number>()
  return classIds.map(classId => {
    const count = earlier.get(classId) ?? 0
    earlier.set(classId, count + 1)
    // BigInt: the sum may pass 2^53.
    return Number(BigInt.asUintN(53, BigInt(seed) + BigInt(count)))
  })
}

// ---- score, decode, encode

export interface CheckedScore {
  tokens: unknown[]
  classIds: unknown[]
  /** Text in place of classes, of which there are none then. */
  prefixes: number[][] | undefined
  single: boolean
  n: number | undefined
  guidanceScale: number
  logits: number[] | undefined
  method: 'full' | 'cached'
  decoding: CheckedDecoding
  signal: AbortSignal | undefined
}

export function checkScore (value: unknown): CheckedScore {
  if (isChecked<CheckedScore>(value)) return value.request
  const options = optionsObject(value, 'score',
    ['tokens', 'classId', 'prefix', 'n', 'guidanceScale', 'logits', 'method', 'signal', ...decodingNames])
  const tokens = tokenList(options.tokens, 'tokens').list
  const { classIds, prefixes, single } = classesOrPrefixes(options, 'score')
  const given = prefixes ?? classIds
  if (!single && given.length !== tokens.length) {
    const cure = tokens.length === 1 ? '. classify() compares the classes of one picture' : ''
    const what = prefixes ? ['text', 'texts'] : ['class', 'classes']
    throw invalid(
      `score needs one ${what[0]} for all pictures or one each: ${tokens.length} pictures, ${given.length} ${what[1]}${cure}`
    )
  }
  const { logits } = options
  if (logits !== undefined && !isList(logits)) {
    throw invalid(`logits must be an array of sequence positions, not ${show(logits)}`)
  }
  if (logits && logits.length > maxTokens) {
    throw invalid(`logits has ${logits.length} positions; at most ${maxTokens} can be asked for`)
  }
  return {
    tokens,
    classIds,
    prefixes,
    single,
    n: tokensAStep(options.n),
    guidanceScale: options.guidanceScale === undefined ? 1 : guidance(options.guidanceScale),
    logits: logits && [...logits as number[]], // a copy; holes become undefined, and are refused as such
    method: oneOf(options.method === undefined ? 'full' : options.method, 'method', ['full', 'cached'] as const),
    decoding: decoding(options, tokens.length),
    signal: abortSignal(options.signal)
  }
}

export interface CheckedClassify extends Pick<CheckedScore, 'n' | 'guidanceScale' | 'decoding' | 'signal'> {
  classes: unknown[] | undefined
  top: number | undefined
  onProgress: OnClassified | undefined
}

export function checkClassify (value: unknown): CheckedClassify {
  if (isChecked<CheckedClassify>(value)) return value.request
  const options = optionsObject(value, 'classify',
    ['classes', 'top', 'n', 'guidanceScale', 'signal', 'onProgress', ...decodingNames])
  const { classes } = options
  if (classes !== undefined && !isList(classes)) {
    throw invalid(`classes must be a list of class numbers or names, not ${show(classes)}`)
  }
  return {
    classes: classes === undefined ? undefined : classList(classes, 'classify'),
    top: options.top === undefined ? undefined : integer(options.top, 'top', 1, Number.MAX_SAFE_INTEGER),
    n: tokensAStep(options.n),
    guidanceScale: options.guidanceScale === undefined ? 1 : guidance(options.guidanceScale),
    decoding: decoding(options, 1),
    signal: abortSignal(options.signal),
    onProgress: callback(options.onProgress, 'onProgress')
  }
}

export interface CheckedDecode {
  size: { width: number, height: number } | undefined
  format: 'uint8' | 'float32'
  grid: [rows: number, columns: number] | undefined
  signal: AbortSignal | undefined
}

export function checkDecode (value: unknown): CheckedDecode {
  if (isChecked<CheckedDecode>(value)) return value.request
  const options = optionsObject(value, 'decode', ['size', 'format', 'grid', 'signal'])
  return {
    size: sizeOption(options.size),
    format: oneOf(options.format === undefined ? 'uint8' : options.format, 'format', ['uint8', 'float32'] as const),
    grid: options.grid === undefined ? undefined : gridOption(options.grid),
    signal: abortSignal(options.signal)
  }
}

export interface CheckedEncode extends Pick<CheckedDecode, 'grid' | 'signal'> {
  crop: boolean
  background: string
}

export function checkEncode (value: unknown, call = 'encode'): CheckedEncode {
  if (isChecked<CheckedEncode>(value)) return value.request
  const options = optionsObject(value, call, ['grid', 'crop', 'background', 'signal'])
  return {
    grid: options.grid === undefined ? undefined : gridOption(options.grid),
    crop: options.crop === undefined ? true : boolean(options.crop, 'crop'),
    background: options.background === undefined ? 'white' : nonEmptyString(options.background, 'background'),
    signal: abortSignal(options.signal)
  }
}

// ---- parts

/** Other programs have seeds of 64 bits, which no number of JavaScript holds. */
function seedOption (value: unknown): number {
  if (typeof value === 'bigint' && value >= 0n && value <= Number.MAX_SAFE_INTEGER) {
    throw invalid(`seed must be a number: Number(${value}n)`)
  }
  return integer(value, 'seed', 0, Number.MAX_SAFE_INTEGER)
}

/** 0 is what LlamaGen's own code takes for off. */
function guidance (value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value < 1) {
    throw invalid(`guidanceScale must be a number from 1 to 1000, not ${value}; 1 is off`)
  }
  return finite(value, 'guidanceScale', 1, 1000)
}

function classList (value: unknown, call: string): unknown[] {
  if (value === undefined) throw invalid(`${call} needs classId: a number, a name or a list of these`)
  if (!isList(value)) return [value]
  if (value.length === 0 || value.length > maxImages) {
    throw invalid(`A list of classes must hold 1 to ${maxImages} entries, not ${value.length}`)
  }
  return [...value] // holes become undefined, and are refused as such
}

function tokensAStep (value: unknown): number | undefined {
  return value === undefined ? undefined : integer(value, 'n', 1, limits.n)
}

/** @param pictures of the call, each of which may have an order of its own */
function decoding (options: Record<string, unknown>, pictures: number): CheckedDecoding {
  const found: CheckedDecoding = {}
  if (options.order !== undefined) found.order = oneOf(options.order, 'order', ['distant', 'raster'] as const)
  if (options.initial !== undefined) found.initial = oneOf(options.initial, 'initial', ['sequential', 'none'] as const)
  if (options.groupAttention !== undefined) {
    found.groupAttention = oneOf(options.groupAttention, 'groupAttention', ['full', 'causal'] as const)
  }
  if (options.tokensPerStep !== undefined) {
    found.tokensPerStep = integer(options.tokensPerStep, 'tokensPerStep', 1, limits.n)
  }
  if (options.steps !== undefined) found.steps = integer(options.steps, 'steps', 1, limits.tokens)
  if (options.groupSizes !== undefined) {
    if (options.steps !== undefined) throw invalid('groupSizes says how many steps there are: give one of them')
    found.groupSizes = groupSizes(options.groupSizes)
  }
  if (options.stepSchedule !== undefined) {
    found.stepSchedule = oneOf(options.stepSchedule, 'stepSchedule', ['arccos', 'cosine'] as const)
    if (found.groupSizes) throw invalid('groupSizes takes the place of stepSchedule: give one of them')
  }
  if (options.guidanceSchedule !== undefined) {
    found.guidanceSchedule = oneOf(options.guidanceSchedule, 'guidanceSchedule', ['linear', 'constant'] as const)
  }
  if (options.tokenOrder !== undefined) found.tokenOrder = tokenOrders(options.tokenOrder, pictures)
  return found
}

function groupSizes (value: unknown): number[] {
  if (!isList(value) || value.length === 0 || value.length > limits.tokens) {
    throw invalid(`groupSizes must be a list of 1 to ${limits.tokens} numbers of tokens, not ${show(value)}`)
  }
  return [...value].map((size, i) => integer(size, `groupSizes[${i}]`, 1, limits.tokens))
}

/** Cells are whole numbers; that each is there once is checked when the grid is known. */
function tokenOrders (value: unknown, pictures: number): Int32Array[] {
  const isNested = isList(value) && value.length > 0 && typeof value[0] !== 'number'
  const { list } = tokenList(isNested ? value : [value], 'tokenOrder')
  if (list.length !== 1 && list.length !== pictures) {
    throw invalid(`tokenOrder must be one list for all pictures or one each: ${pictures} pictures, ${list.length} lists`)
  }
  return list.map((order, i) =>
    tokenArray(order, isNested ? `tokenOrder[${i}]` : 'tokenOrder', limits.tokens, undefined).slice())
}

function sizeOption (value: unknown): { width: number, height: number } | undefined {
  const most = 8192
  if (value === undefined) return undefined
  if (typeof value !== 'object') {
    const side = integer(value, 'size', 1, most)
    return { width: side, height: side }
  }
  const fields = optionsObject(value, 'size', ['width', 'height'])
  return { width: integer(fields.width, 'size.width', 1, most), height: integer(fields.height, 'size.height', 1, most) }
}

/**
 * @param file the only one at hand; absent for the embedded model, which has several
 * @throws ParError `UNSUPPORTED_N`
 */
export function supportedN (n: number, supported: readonly number[], file?: string): number {
  if (supported.includes(n)) return n
  const all = `${supported.slice(0, -1).join(', ')}${supported.length > 1 ? ' and ' : ''}${supported.at(-1)}`
  const what = file === undefined ? 'the embedded model has' : `${shownPath(file)} was trained for`
  throw new ParError('UNSUPPORTED_N', `${what} n = ${all} tokens a step, not ${n}`)
}
