// What one Par holds in native memory: an engine, transformers keyed by n, a tokenizer. Files are described before
// any weight is read, so that a wrong pair of files costs nothing. The embedded model has a file for each n, read
// when first asked for; concurrent callers share one read, which no single caller's abort can spoil.

import path from 'node:path'
import {
  codebookHash, describeTokenizer, describeTransformer, describeVideoTokenizer, frameGrid, framesOf, identify,
  openCheckpoint, type Checkpoint, type GridSource, type TransformerDescription, type VideoTokenizerDescription,
  type WeightsChoice
} from '../checkpoint/index.js'
import { Budget, Turns } from '../machine/budget.js'
import type { Call } from '../base/call.js'
import { choose, cpuAfterAll, freeMemory, maxSessionBytes, passesInFlight, type Choice } from '../machine/device.js'
import { embedded, needEmbedded, type EmbeddedModel } from './embedded.js'
import { imagenetLabels } from './imagenet.js'
import { ParError } from '../base/errors.js'
import { createEngine } from '../machine/engine.js'
import { pictureBytes, sessionBytes, videoBytes, type SessionShape } from './memory.js'
import {
  addon, toParError, type NativeEngine, type NativeTokenizer, type NativeTransformer, type NativeVideoTokenizer,
  type Precision, type TokenizerModel, type TransformerModel, type VideoTokenizerModel, type WeightSource
} from '../machine/native.js'
import { supportedN, type CheckedLoad } from '../api/options.js'
import type { Sampling } from '../decoding/sampling.js'
import { publishedSampling, type Preset } from './presets.js'
import type { PublishedParallel } from './published.js'
import { absolute } from '../base/files.js'
import { Batcher } from '../decoding/batcher.js'
import type { Decoder } from '../decoding/decoder.js'
import { hasN, methodNames, type Method } from '../decoding/method.js'
import { decoderOf } from '../decoding/decoders.js'
import { presetFiles } from '../hub/pull.js'
import { shownPath } from '../base/text.js'
import { invalid } from '../base/validate.js'
import { nativePath } from '../base/windows.js'
import { ucfLabels } from './ucf.js'
import { codesOf, factorsOf } from './video.js'
import { vqFactor, vqTokenizer } from './vq.js'

export interface TransformerPart {
  method: Method
  /** As given. */
  file: string
  n: number
  /** Rows and columns of a picture, or of each frame. */
  grid: [rows: number, columns: number]
  /** Frames of tokens of a video; undefined for pictures. */
  frames: number | undefined
  gridFrom: GridSource | 'preset'
  /** What was assumed, what contradicts what. */
  warnings: readonly string[]
  model: TransformerModel
  /** Tokens of text in front of those that are drawn; 0 for models that read a class. */
  prefix: number
  decoder: Decoder
  labels: readonly string[] | undefined
  sampling: Partial<Sampling> | undefined
  name: string | undefined
  /** Which published model has these dimensions. */
  official: string | undefined
  /** How the authors of ARPG, LPD and RandAR run it, where it is theirs. */
  published: PublishedParallel | undefined
  /** Hash of the codebook that its tokens are numbers of, where the file tells. */
  codebookSha256: string | undefined
  native: NativeTransformer
}

export interface TokenizerPart {
  /** As given. */
  file: string
  model: TokenizerModel
  /** Pixels a token, each way. */
  factor: number
  /** Tokens of the pictures it was trained on, where that is known. */
  grid: [rows: number, columns: number] | undefined
  name: string | undefined
  /** What could not be told, what will not work. */
  warnings: readonly string[]
  /** Hash of its codebook: read from the file when a transformer first asks for it. */
  codebookSha256: () => Promise<string | undefined>
  native: NativeTokenizer
  /** 'cpu' or 'cuda:N'. */
  device: string
  /** Pictures are made and read by few calls at a time, in turn. */
  turns: Turns
}

/** A tokenizer of videos. */
export interface VideoTokenizerPart {
  /** As given. */
  file: string
  model: VideoTokenizerModel
  /** Codes there are. */
  codes: number
  levelsFrom: VideoTokenizerDescription['levelsFrom']
  /** Pixels a token, each way. */
  factor: number
  /** Frames that each frame of tokens makes; the first one makes one. */
  factorTime: number
  name: string | undefined
  warnings: readonly string[]
  native: NativeVideoTokenizer
  precision: Precision
  device: string
  /** Videos are made and read by few calls at a time, in turn. */
  turns: Turns
}

/** Where the native side finds the weights of a file that was described. */
interface Placing {
  /** The absolute path: the process may go to another folder meanwhile. */
  place: string
  identity: BigUint64Array | undefined
}

/** A transformer file that was looked at, its weights unread. */
type Described = Omit<TransformerPart, 'native'> & Placing & { weights: WeightSource[] }
type DescribedTokenizer = Omit<TokenizerPart, 'native' | 'device'> & Placing & { weights: WeightSource[] }
type DescribedVideoTokenizer =
  Omit<VideoTokenizerPart, 'native' | 'precision' | 'device'> & Placing & { weights: WeightSource[] }
type AnyTokenizer = DescribedTokenizer | DescribedVideoTokenizer
const isOfVideos = (tokenizer: AnyTokenizer | undefined): tokenizer is DescribedVideoTokenizer =>
  tokenizer !== undefined && 'levelsFrom' in tokenizer

/** A file by the name that was given, and where that was when it was given. */
interface Placed { file: string, place: string }

/**
 * The choice, or the CPU where `auto` has chosen a device that cannot be trusted.
 * @throws ParError `DEVICE_UNAVAILABLE` where that device was asked for
 */
async function trusted (
  choice: Choice, { device, precision }: Pick<CheckedLoad, 'device' | 'precision'>, call: Call,
  distrust?: (device: string, call: Call) => Promise<string | undefined>
): Promise<Choice> {
  if (choice.device === 'cpu' || !distrust) return choice
  const problem = await distrust(choice.device, call)
  if (problem === undefined) return choice
  if (device === 'auto') return cpuAfterAll(addon().cpu(), choice, problem, precision)
  throw new ParError('DEVICE_UNAVAILABLE',
    `Device ${choice.device} is not available: ${problem}. Use device: 'cpu' or 'auto'`)
}

/** An engine with the weights in it. */
interface Loaded {
  engine: NativeEngine
  choice: Choice
  transformer: NativeTransformer | undefined
  tokenizer: NativeTokenizer | undefined
  videoTokenizer: NativeVideoTokenizer | undefined
}

export class Models {
  readonly engine: NativeEngine
  readonly choice: Choice
  /** Memory of everything that runs. */
  readonly budget: Budget
  /** What draws tokens runs here. */
  readonly batcher: Batcher
  /** n at hand, ascending. */
  readonly supportedN: readonly number[]
  /** n where the caller gives none. */
  readonly defaultN: number
  /** Of pictures. */
  readonly tokenizer: TokenizerPart | undefined
  readonly videoTokenizer: VideoTokenizerPart | undefined
  /** The transformer for `defaultN`: what the instance says about itself. */
  readonly transformer: TransformerPart | undefined
  /** What was loaded by name. */
  readonly preset: Preset | undefined
  readonly #embedded: EmbeddedModel | undefined
  readonly #files: ReadonlyMap<number, string>
  readonly #parts = new Map<number, Promise<TransformerPart>>()
  readonly #closing = addon().createCancel()

  private constructor (
    { engine, choice }: Loaded, own: EmbeddedModel | undefined, { maxBatchSize, maxQueueSize, preset }: CheckedLoad,
    transformer: TransformerPart | undefined, tokenizer: TokenizerPart | undefined,
    videoTokenizer: VideoTokenizerPart | undefined
  ) {
    this.engine = engine
    this.choice = choice
    const { device } = choice
    this.budget = new Budget({
      device,
      free: async () => await freeMemory(device),
      most: maxSessionBytes(device),
      pictures: tokenizer
        ? pictureBytes(tokenizer.model, transformer?.grid ?? tokenizer.grid ?? [24, 24])
        : videoTokenizer
          ? videoBytes(videoTokenizer.model, 'decoder', transformer?.grid ?? [16, 16], videoTokenizer.precision, device)
          : 0,
      maxWaiting: maxQueueSize
    })
    this.batcher = new Batcher(this.budget, maxBatchSize, passesInFlight(device))
    this.#embedded = own
    this.#files = own?.transformers ?? new Map(transformer ? [[transformer.n, transformer.file]] : [])
    this.supportedN = [...this.#files.keys()].sort((a, b) => a - b)
    this.defaultN = transformer?.n ?? 0
    this.transformer = transformer
    this.tokenizer = tokenizer
    this.videoTokenizer = videoTokenizer
    this.preset = preset
    if (transformer) this.#parts.set(transformer.n, Promise.resolve(transformer))
  }

  static async open (
    given: CheckedLoad, call: Call, distrust?: (device: string, call: Call) => Promise<string | undefined>
  ): Promise<Models> {
    // Before anything is waited for: relative names are of the folder in which the process is now.
    const place = placesNow()
    const options = given.preset ? await call.wait(placed(given, given.preset)) : given
    const choice = await trusted(await call.wait(choose(options.device, options.precision)), options, call, distrust)
    const own = options.embedded ??
      (options.transformer === undefined && options.tokenizer === undefined ? embedded : undefined)
    if (own) needEmbedded(own)
    const transformerFile = own ? { path: own.transformers.get(own.n)! } : options.transformer
    const tokenizerFile = own ? { path: own.tokenizer, weights: undefined, levels: undefined } : options.tokenizer

    // ---- descriptions: cheap, and every mistake about files shows here
    const tokenizer = tokenizerFile === undefined
      ? undefined
      : await call.wait(describeTokenizerFile(place(tokenizerFile.path), tokenizerFile, call.signal))
    const codes = isOfVideos(tokenizer) ? tokenizer.codes : undefined
    const described = transformerFile &&
      await call.wait(describe(place(transformerFile.path), transformerFile, codes, call.signal, options.preset))
    if (described && tokenizer) await call.wait(checkPair(described, tokenizer))

    // ---- weights
    const isQuantized = described?.weights.some(({ parts }) => parts.some(({ dtype }) => dtype === 'int8')) ?? false
    const load = async (choice: Choice): Promise<Loaded> => {
      const settled: Choice = options.precision === 'auto' && isQuantized
        ? { ...choice, precision: 'int8', precisionReason: 'auto: the file has 8-bit integers' }
        : choice
      return await loadWeights(settled, options.threads, described, tokenizer, call)
    }
    const loaded = await load(choice).catch(async (error: unknown) => {
      if (options.device !== 'auto' || choice.device === 'cpu' || !(error instanceof ParError) ||
        !unfit.has(error.code)) {
        throw error
      }
      return await load(cpuAfterAll(addon().cpu(), choice, error.message, options.precision))
    })
    const { device, precision } = loaded.choice
    return new Models(loaded, own, options, described && part(described, loaded.transformer!),
      tokenizer && !isOfVideos(tokenizer) ? { ...part(tokenizer, loaded.tokenizer!), device } : undefined,
      isOfVideos(tokenizer) ? { ...part(tokenizer, loaded.videoTokenizer!), precision, device } : undefined)
  }

  /** The transformer for n, or for the default n. @throws ParError `MISSING_PART`, `UNSUPPORTED_N` */
  async transformerFor (n: number | undefined, call: Call): Promise<TransformerPart> {
    if (!this.transformer) {
      throw new ParError('MISSING_PART',
        'This needs a transformer, and only a tokenizer was loaded; give Par.load a transformer too')
    }
    const { method } = this.transformer
    if (n !== undefined && !hasN(method)) {
      throw invalid(`n is an option of PAR. This model is decoded by ${methodNames[method]}: leave n out`)
    }
    const wanted = supportedN(n ?? this.defaultN, this.supportedN,
      this.#embedded ? undefined : this.transformer.file)
    let loading = this.#parts.get(wanted)
    if (!loading) {
      loading = this.#load(wanted, this.#files.get(wanted)!)
      this.#parts.set(wanted, loading)
      loading.catch(() => { this.#parts.delete(wanted) }) // the next call tries again
    }
    return await call.wait(loading)
  }

  /** @throws ParError `MISSING_PART` */
  tokenizerPart (): TokenizerPart {
    if (!this.tokenizer && this.videoTokenizer) {
      throw new ParError('MISSING_PART', 'This needs a tokenizer of pictures, and the one that was loaded is of ' +
        'videos: generateVideo, decodeVideo and encodeVideo use it')
    }
    if (!this.tokenizer) {
      throw new ParError('MISSING_PART',
        'This needs a tokenizer, and only a transformer was loaded; give Par.load a tokenizer too')
    }
    return this.tokenizer
  }

  /** @throws ParError `MISSING_PART` */
  videoTokenizerPart (): VideoTokenizerPart {
    if (this.videoTokenizer) return this.videoTokenizer
    throw new ParError('MISSING_PART', this.tokenizer
      ? 'This needs a tokenizer of videos, and the one that was loaded is of pictures: generate, decode and encode ' +
        'use it'
      : 'This needs a tokenizer of videos, and only a transformer was loaded; give Par.load a tokenizer too')
  }

  async #load (n: number, file: string): Promise<TransformerPart> {
    const described = await describe({ file, place: file }, {}, undefined)
    if (described.n !== n) {
      throw new ParError('BAD_CHECKPOINT', `${shownPath(file)} is for n = ${described.n}; expected n = ${n}`)
    }
    if (this.tokenizer) await checkPair(described, this.tokenizer)
    try {
      const { place, weights, model, identity } = described
      return part(described,
        await this.engine.loadTransformer(nativePath(place), weights, model, this.choice.precision, this.#closing,
          identity))
    } catch (error) {
      throw toParError(error)
    }
  }

  /** Bytes that so many sequences of a session take. */
  sessionBytes (part: TransformerPart, shape: SessionShape): (sequences: number) => number {
    const device = this.choice.device === 'cpu' ? 'cpu' : 'cuda'
    const { threads } = this.engine
    return sequences => sessionBytes(device, part.model, this.choice.precision, shape, sequences, threads)
  }

  /** Resolves when the queued jobs are done, all memory is free and all threads have ended. */
  async dispose (): Promise<void> {
    this.#closing.cancel()
    await this.engine.dispose()
  }
}

/** Calls that make or read pictures at a time: one works, the next one has its picture unpacked meanwhile. */
const maxPictures = 2

/**
 * Faults of a device while weights are loaded after which `auto` goes on with the CPU; INTERNAL: it failed in mid-work.
 */
const unfit = new Set(['OUT_OF_MEMORY', 'DEVICE_UNAVAILABLE', 'INTERNAL'])

async function loadWeights (
  choice: Choice, threads: number, transformer: Described | undefined, tokenizer: AnyTokenizer | undefined, call: Call
): Promise<Loaded> {
  const engine = createEngine(choice.device, threads)
  // Not the call's own: where this device fails, the call goes on with another.
  const cancel = addon().createCancel()
  try {
    // Inside: native code that refuses an argument throws at once, and the engine must not stay behind.
    const { precision } = choice
    const [transformerNative, tokenizerNative, videoTokenizer] = await call.wait(Promise.all([
      transformer && engine.loadTransformer(nativePath(transformer.place), transformer.weights, transformer.model,
        precision, cancel, transformer.identity),
      tokenizer && !isOfVideos(tokenizer)
        ? engine.loadTokenizer(nativePath(tokenizer.place), tokenizer.weights, tokenizer.model, precision,
          cancel, tokenizer.identity)
        : undefined,
      isOfVideos(tokenizer)
        ? engine.loadVideoTokenizer(nativePath(tokenizer.place), tokenizer.weights, tokenizer.model, precision,
          cancel, tokenizer.identity)
        : undefined
    ]))
    return { engine, choice, transformer: transformerNative, tokenizer: tokenizerNative, videoTokenizer }
  } catch (error) {
    cancel.cancel()
    const gone = engine.dispose()
    // A call that was aborted rejects at once, even where the system holds a read; one that failed leaves nothing
    // behind.
    if (call.signal.aborted) gone.catch(() => {})
    else await gone
    throw toParError(error)
  }
}

/** What was described, with its weights. */
function part<D extends Placing & { weights: unknown }, N> (
  described: D, native: N
): Omit<D, keyof Placing | 'weights'> & { native: N } {
  const { weights: _, place: _place, identity: _identity, ...rest } = described
  return { ...rest, native }
}

// ---- files

/** Absolute names need no working directory, and there may be none: it may have been removed. */
function placesNow (): (file: string) => Placed {
  let folder = ''
  try {
    folder = process.cwd()
  } catch {}
  return file => ({ file, place: folder === '' ? absolute(file) : path.resolve(folder, file) })
}

/** The options with a preset's files in them. */
async function placed (options: CheckedLoad, preset: NonNullable<CheckedLoad['preset']>): Promise<CheckedLoad> {
  const { cache, pull, onPull, heads, grid, n } = preset
  const files = await presetFiles(preset, { cache, pull, onPull, signal: options.signal })
  return {
    ...options, transformer: { path: files.transformer, heads, grid: [...grid], n },
    tokenizer: { path: files.tokenizer, weights: undefined, levels: undefined }
  }
}

async function describe (
  { file, place }: Placed,
  { heads, grid, n, rotationPairs, vocabularySize, weights }: Omit<NonNullable<CheckedLoad['transformer']>, 'path'>,
  codes: number | undefined, signal?: AbortSignal, preset?: Preset
): Promise<Described> {
  const checkpoint = await open(place, weights, 'transformer', signal)
  const found = describeTransformer(checkpoint, { heads, grid, n, rotationPairs, vocabularySize }, codes)
  return {
    file,
    place,
    identity: checkpoint.identity,
    method: found.method,
    n: found.n,
    grid: frameGrid(found.grid),
    frames: framesOf(found.grid),
    gridFrom: preset && found.gridFrom === 'option' ? 'preset' : found.gridFrom,
    warnings: found.warnings,
    model: found.model,
    prefix: found.prefix ?? 0,
    decoder: decoderOf(found, file),
    published: found.published,
    labels: (found.labels && Object.freeze(found.labels)) ?? usualLabels(found, preset),
    sampling: found.sampling ??
      (found.published ? undefined : preset?.sampling ?? publishedSampling(found.official)),
    name: found.name,
    official: found.official,
    codebookSha256: found.codebookSha256,
    weights: found.weights
  }
}

/** The authors' files hold no labels; what has their dimensions (16384 tokens, 1000 classes) counts as theirs. */
function usualLabels (
  { method, model, official }: TransformerDescription, preset: Preset | undefined
): readonly string[] | undefined {
  if (method === 'nbp') return model.classes > 0 ? ucfLabels : undefined
  return official !== undefined || preset ? imagenetLabels() : undefined
}

async function describeTokenizerFile (
  { file, place }: Placed, choice: Pick<NonNullable<CheckedLoad['tokenizer']>, 'weights' | 'levels'>,
  signal: AbortSignal
): Promise<AnyTokenizer> {
  const checkpoint = await open(place, choice.weights, 'tokenizer', signal)
  if (identify(checkpoint) === 'video tokenizer') {
    const { model, levelsFrom, name, warnings, weights } = describeVideoTokenizer(checkpoint, choice.levels)
    const { space, time } = factorsOf(model)
    return {
      file, place, identity: checkpoint.identity, model, levelsFrom, name, warnings, weights,
      codes: codesOf(model),
      factor: space,
      factorTime: time,
      turns: new Turns(maxPictures)
    }
  }
  if (choice.levels) {
    throw invalid(`levels is an option of tokenizers of videos, and ${shownPath(file)} is one of pictures: leave it ` +
      'out')
  }
  const { model, name, official, mayBe, warnings, imageSize, weights } = describeTokenizer(checkpoint)
  let hash: Promise<string | undefined> | undefined
  const factor = vqFactor(model)
  const [height, width] = imageSize ?? (official ?? mayBe ? [384, 384] : [0, 0])
  const whole = height > 0 && width > 0 && height % factor === 0 && width % factor === 0
  return {
    file,
    place,
    identity: checkpoint.identity,
    model: vqTokenizer(model),
    factor,
    grid: whole ? [height / factor, width / factor] : undefined,
    name,
    warnings,
    codebookSha256: async () => await (hash ??= codebookHash(checkpoint)),
    turns: new Turns(maxPictures),
    weights
  }
}

async function open (
  file: string, weights: WeightsChoice | undefined, kind: 'transformer' | 'tokenizer', signal?: AbortSignal
): Promise<Checkpoint> {
  const checkpoint = await openCheckpoint(file, { weights, signal })
  const found = identify(checkpoint)
  const other = kind === 'transformer' ? 'tokenizer' : 'transformer'
  if ((found === 'transformer') !== (kind === 'transformer')) {
    throw new ParError('BAD_CHECKPOINT',
      `${shownPath(file)} is a ${other}, given as the ${kind}; were the two exchanged?`)
  }
  return checkpoint
}

async function checkPair (
  transformer: Described, tokenizer: AnyTokenizer | TokenizerPart | VideoTokenizerPart
): Promise<void> {
  const refuse = (why: string): never => {
    throw new ParError('TOKENIZER_MISMATCH', `Transformer and tokenizer do not belong together: ${why}`)
  }
  const ofVideos = 'levelsFrom' in tokenizer
  if ((transformer.frames !== undefined) !== ofVideos) {
    const [makes, is] = ofVideos ? ['pictures', 'videos'] : ['videos', 'pictures']
    refuse(`${shownPath(transformer.file)} makes ${makes}, ${shownPath(tokenizer.file)} is a tokenizer of ${is}. ` +
      'Without tokenizer, tokens alone can be generated and scored')
  }
  const vocabulary = transformer.model.vocabularySize
  const codebook = ofVideos ? tokenizer.codes : tokenizer.model.codebookSize
  if (vocabulary !== codebook) {
    refuse(`${shownPath(transformer.file)} has a vocabulary of ${vocabulary} tokens, ${shownPath(tokenizer.file)} ` +
      (ofVideos ? `${codebook} codes (levels ${tokenizer.model.levels.join(', ')})` : `a codebook of ${codebook}`))
  }
  if (ofVideos) return
  if (transformer.codebookSha256 === undefined) return
  const found = await tokenizer.codebookSha256()
  if (found === undefined || found === transformer.codebookSha256) return
  refuse(`${shownPath(transformer.file)} was converted for a codebook with the ` +
    `hash ${transformer.codebookSha256.slice(0, 16)}..., ` +
    `that of ${shownPath(tokenizer.file)} has ${found.slice(0, 16)}...: the same size, other codes`)
}
