/// <reference lib="esnext.disposable" preserve="true" />
// The public class: checks options, opens a call, hands over to the file that does the work. It computes nothing.

import { Calls, type Call } from '../base/call.js'
import type { Method } from '../decoding/method.js'
import type { Activity } from '../decoding/batcher.js'
import { run } from '../decoding/generation.js'
import { planFor } from '../decoding/plans.js'
import { needPictures, runVideo, videoGrid } from '../decoding/video.js'
import { claimVideos, decodeVideoTokens, encodeFrames, videoGridOf, videoSize } from '../pictures/videos.js'
import { framesOf, ownVideo, type VideoInput } from './video-input.js'
import type { Progress, VideoProgress } from '../base/progress.js'
import type { Sampling } from '../decoding/sampling.js'
import type { GeneratedImage, Image } from './image.js'
import { Video, type GeneratedVideo } from './video.js'
import { Models } from '../models/models.js'
import { toParError, type Precision } from '../machine/native.js'
import {
  checkClassify, checkDecode, checkDecodeVideo, checkEncode, checkEncodeVideo, checkGenerate, checkGenerateVideo,
  checkLoad, checkLoadPreset, checkScore,
  resolveSampling, type CheckedEncode, type CheckedGenerate, type CheckedGenerateVideo, type ClassifyOptions,
  type DecodeOptions, type DecodeVideoOptions, type EncodeOptions, type EncodeVideoOptions, type GenerateOptions,
  type GenerateVideoOptions, type LoadOptions,
  type PresetOptions, type ScoreOptions
} from './options.js'
import { checkSamples, sampleClass, sampleSeed, type CheckedSamples, type SamplesOptions } from './samples.js'
import { maxImages, tokenList, type Tokens } from './tokens.js'
import { checkTokens } from '../decoding/tokens.js'
import { ownImage, type ImageInput, type OwnImage } from './image-input.js'
import { decodePictures, encodePicture, gridOf, preparePicture } from '../pictures/pixels.js'
import type { EmbeddedName } from '../models/embedded.js'
import type { PresetName } from '../models/presets.js'
import { isInt32Array } from '../base/realm.js'
import { pauses } from '../pictures/resample.js'
import { classify, score, type Classification, type Score } from '../decoding/scoring.js'
import type { ClassId } from '../models/labels.js'
import { distrust } from './self-check.js'
import { forLater, invalid, isList, show } from '../base/validate.js'

/** What an instance is: device, precision and the models in it. */
export interface ParInfo {
  /** Which preset was loaded by name; absent where files were, or a model that comes with the package. */
  preset?: PresetName
  /** 'cpu' or 'cuda:N'. */
  device: string
  /** Why this device: asked for, or what `auto` found. */
  deviceReason: string
  /** Instruction set in use, e.g. 'avx512_bf16', or 'sm_90' on a GPU. */
  isa: string
  /** CPU threads; 0 on a GPU. */
  threads: number
  /**
   * How the kernels of a step are launched, on a GPU alone: as CUDA graphs in which they overlap, as graphs of kernels
   * that follow each other (before compute capability 9.0, with `PARVIS_OVERLAP=0`, or where the driver fails at the
   * former), or one by one (with `PARVIS_GRAPHS=0`, or where it fails at graphs). It is known after the first pictures,
   * which are the same in each way.
   */
  launches?: 'graphs' | 'plain graphs' | 'kernels'
  /** Type of weights and multiplied activations. */
  precision: Precision
  /** Why this precision: asked for, or what `auto` found. */
  precisionReason: string
  /** Absent where only a tokenizer was loaded. */
  transformer?: TransformerInfo
  /** Absent where only a transformer was loaded. */
  tokenizer?: TokenizerInfo
}

/** A loaded transformer: its architecture, and what `generate` does where the caller gives nothing. */
export interface TransformerInfo {
  /** Its file, as given; of the embedded model, where it lies in the package. */
  path: string
  /** From its metadata, or the published model that it is. */
  name?: string
  /** Which published model has these dimensions, e.g. 'PAR-XL-4x'. */
  official?: string
  /** How its tokens are drawn, told from the tensors of its file. */
  method: Method
  /** Blocks of attention and feed-forward; of ARPG both stacks. */
  layers: number
  /** Width: elements of a token's vector. */
  dim: number
  /** Attention heads. */
  heads: number
  /** Elements of a head, `dim / heads`. */
  headSize: number
  /** Tokens there are: 0 to vocabularySize - 1. */
  vocabularySize: number
  /** Classes there are: ids 0 to classes - 1. */
  classes: number
  /** Steps of a picture where the caller asks for nothing else. */
  defaultSteps: number
  /** Tokens a step where `generate` is given no n; 1 for methods that have no n. */
  n: number
  /** All n at hand, ascending. */
  supportedN: number[]
  /** Tokens: [rows, columns], of a video those of each frame. */
  grid: [rows: number, columns: number]
  /** Frames of tokens, of a model that makes videos; absent for pictures. */
  frames?: number
  /** Pairs of a head that are rotated by frame, row and column; of a model that makes videos. */
  rotationPairs?: [frame: number, row: number, column: number]
  /**
   * What told the grid, which the shapes of most models do not: the option, the preset, the file's metadata, training
   * arguments or name, a table of learned positions, or the published models of these dimensions. `assumed`: nothing
   * did, and with another grid the pictures are bad.
   */
  gridFrom:
    | 'option' | 'preset' | 'metadata' | 'training arguments' | 'file name' | 'shapes' | 'published' | 'assumed'
  /** What was assumed, what in the file contradicts what: sentences for people. Empty where all is clear. */
  warnings: string[]
  /** What `generate` uses where the caller gives nothing. */
  sampling: Sampling
  /** Pixels a side that `generate` makes where it is given no size; absent where that is the tokenizer's own. */
  size?: number
  /** Native memory that the weights take, those of this n. */
  bytes: number
}

/** A loaded tokenizer: VQ of pictures, or of videos. */
export interface TokenizerInfo {
  /** Its file, as given; of the embedded model, where it lies in the package. */
  path: string
  /** From its metadata, or the published tokenizer that it is. */
  name?: string
  /** Codes there are; the transformer's vocabulary is the same. */
  codebookSize: number
  /** Elements of a code. */
  codeSize: number
  /** Pixels a token, each way. */
  factor: number
  /** Of videos: frames that each frame of tokens makes; the first one makes one. */
  factorTime?: number
  /** Of videos: levels of the quantisation, one a channel; their product is `codebookSize`. */
  levels?: number[]
  /** Size of decoded pictures, [height, width] in pixels, where transformer or file tell the grid. */
  imageSize?: [height: number, width: number]
  /** What could not be told, what will not work: sentences without a full stop. */
  warnings: string[]
  /** Native memory that the weights take. */
  bytes: number
}

// Absent before Node 18.18; the package must load all the same where a bundler targets such engines.
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose') as never

/**
 * A loaded model: class ids to pictures, pictures to scores, tokens to pixels and back.
 *
 * All work runs off the JavaScript thread. Calls of one instance may overlap and take turns, step by step. Every
 * call rejects with `signal.reason` when its signal is aborted, and with ParError `DISPOSED` after `dispose()`.
 */
export class Par {
  readonly #models: Models
  readonly #calls: Calls
  #disposed: Promise<void> | undefined

  private constructor (models: Models, calls: Calls) {
    if (!(models instanceof Models)) throw invalid('Par has no public constructor: await Par.load() makes an instance')
    this.#models = models
    this.#calls = calls
  }

  /**
   * Loads a transformer, a tokenizer or both; with neither, the embedded model.
   *
   * By name: a published checkpoint out of the Hugging Face cache, with the authors' sampling options and ImageNet's
   * class names. Where it is not there, the error says which command fetches it; `pull: true` fetches it at once. The
   * embedded models have names too, 'fashion', 'fashion-arpg' and 'moving'.
   * @throws ParError `FILE_NOT_FOUND`, `BAD_CHECKPOINT`, `TOKENIZER_MISMATCH`, `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`,
   * `NATIVE_UNAVAILABLE`, `INVALID_OPTION`; with `pull` also `DOWNLOAD_FAILED`
   */
  static load (options?: LoadOptions): Promise<Par>
  static load (model: PresetName | EmbeddedName, options?: PresetOptions): Promise<Par>
  static async load (what?: LoadOptions | PresetName | EmbeddedName, options?: PresetOptions): Promise<Par> {
    if (typeof what !== 'string' && options !== undefined) {
      throw invalid('Par.load takes a second argument only behind the name of a model. Give one object: Par.load({ ' +
        'transformer, tokenizer, threads, ... })')
    }
    const checked = typeof what === 'string' ? checkLoadPreset(what, options) : checkLoad(what)
    const calls = new Calls()
    return await calls.run(checked.signal, async call => new Par(await Models.open(checked, call, distrust), calls))
  }

  /** What was loaded and where it runs. */
  get info (): ParInfo {
    const { choice, engine, transformer, tokenizer, supportedN, preset } = this.#models
    const info: ParInfo = {
      ...(preset && { preset: preset.name }), ...choice, isa: engine.isa, threads: engine.threads,
      ...(engine.launches !== '' && { launches: engine.launches })
    }
    if (transformer) {
      const { model, grid, frames } = transformer
      info.transformer = {
        path: transformer.file,
        ...(transformer.name !== undefined && { name: transformer.name }),
        ...(transformer.official !== undefined && { official: transformer.official }),
        method: transformer.method,
        layers: model.layers + model.crossLayers,
        dim: model.dim,
        heads: model.heads,
        headSize: model.headSize,
        vocabularySize: model.vocabularySize,
        classes: model.classes,
        defaultSteps: planFor(transformer, {}).tokensAfter.length,
        n: transformer.n,
        supportedN: [...supportedN],
        grid: [...grid],
        ...(frames !== undefined && { frames, rotationPairs: [...model.rotationPairs] as [number, number, number] }),
        gridFrom: transformer.gridFrom,
        warnings: [...transformer.warnings],
        sampling: resolveSampling({}, transformer),
        ...(preset && frames === undefined && { size: preset.size }),
        bytes: transformer.native.bytes
      }
    }
    if (tokenizer) {
      const grid = transformer?.grid ?? tokenizer.grid
      info.tokenizer = {
        path: tokenizer.file,
        ...(tokenizer.name !== undefined && { name: tokenizer.name }),
        codebookSize: tokenizer.model.codebookSize,
        codeSize: tokenizer.model.codeSize,
        factor: tokenizer.factor,
        ...(grid && { imageSize: [grid[0] * tokenizer.factor, grid[1] * tokenizer.factor] as [number, number] }),
        warnings: [...tokenizer.warnings],
        bytes: tokenizer.native.bytes
      }
    }
    const { videoTokenizer: videos } = this.#models
    if (videos) {
      const grid = transformer?.grid
      info.tokenizer = {
        path: videos.file,
        ...(videos.name !== undefined && { name: videos.name }),
        codebookSize: videos.codes,
        codeSize: videos.model.levels.length,
        factor: videos.factor,
        factorTime: videos.factorTime,
        levels: [...videos.model.levels],
        ...(grid && { imageSize: [grid[0] * videos.factor, grid[1] * videos.factor] as [number, number] }),
        warnings: [...videos.warnings],
        bytes: videos.native.bytes
      }
    }
    return info
  }

  /** What runs now and what waits, for a server's own figures. */
  get activity (): Activity {
    return this.#models.batcher.state
  }

  /** Class names by class id, where the model has them. */
  get labels (): readonly string[] | undefined {
    return this.#models.transformer?.labels
  }

  /**
   * Makes a picture of a class, or one of each class in a list (paper, section 3.2: `n + (N - n) / n` steps).
   * Same seed, options, device and precision: identical bytes, alone or in a list, with any number of threads.
   * Without a tokenizer the results have `tokens` and no pixels.
   * @throws ParError `BAD_CLASS_ID`, `UNSUPPORTED_N`, `MISSING_PART`, `OUT_OF_MEMORY`, `NON_FINITE`, `INVALID_OPTION`
   */
  generate (options: GenerateOptions & { classId: ClassId }): Promise<GeneratedImage>
  generate (options: GenerateOptions & { classId: readonly ClassId[] }): Promise<GeneratedImage[]>
  generate (options: GenerateOptions): Promise<GeneratedImage | GeneratedImage[]>
  async generate (options: GenerateOptions): Promise<GeneratedImage | GeneratedImage[]> {
    const request = checkGenerate(options)
    const events = this.#stream(() => request)
    for (;;) {
      const { value, done } = await events.next()
      if (done) return request.single ? value[0]! : value
    }
  }

  /**
   * The same, step by step: yields {@link Progress} once per step. The last step of each group of a long list carries
   * the pictures that are `finished`, and the last step of all carries `images` (a list, also for a single class),
   * which are the iterator's return value too. Bad options reject the first `next()`. Leaving the
   * loop early ends the work and frees its memory.
   */
  stream (options: GenerateOptions): AsyncGenerator<Progress, GeneratedImage[], void> {
    return this.#stream(forLater(() => checkGenerate(options, 'stream')))
  }

  /**
   * The pictures of a list, one after another, each as soon as its group is finished, and none is kept: memory stays
   * the same for a list of any length. Pictures, their order and their seeds are those of {@link Par.generate} with the
   * same options. The next group is begun when the loop asks for its first picture. Bad options reject the first
   * `next()`. Leaving the loop early ends the work and frees its memory.
   * @throws ParError as `generate` does
   */
  images (options: GenerateOptions): AsyncGenerator<GeneratedImage, void, void> {
    return this.#images(forLater(() => checkGenerate(options, 'images')))
  }

  /**
   * Pictures for an evaluation, one after another, none of them kept. Picture i has a class and a seed of its own,
   * which depend on the options and on i alone: `start` and `end` give the same pictures as the whole run, in any
   * number of parts. `generate({ classId, seed })` with those of a picture makes it again. Bad options reject the first
   * `next()`.
   * @throws ParError as `generate` does
   */
  samples (options: SamplesOptions): AsyncGenerator<GeneratedImage, void, void> {
    return this.#samples(forLater(() => checkSamples(options)))
  }

  async * #samples (checked: () => CheckedSamples): AsyncGenerator<GeneratedImage, void, void> {
    const { classes, seed, start, end, generate, onProgress } = checked()
    const { classes: count } = (await this.#calls.run(generate.signal,
      async call => await this.#models.transformerFor(generate.n, call))).model
    for (let from = start; from < end; from += maxImages) {
      const numbers = Array.from({ length: Math.min(maxImages, end - from) }, (_, i) => from + i)
      yield * this.#images(() => ({
        ...generate,
        classIds: numbers.map(index => sampleClass(classes, seed, index, count)),
        seeds: numbers.map(index => sampleSeed(seed, index)),
        onProgress: onProgress && (({ tokensDone, tokens }) => {
          onProgress({ done: from - start + tokensDone / tokens * numbers.length, pictures: end - start })
        })
      }))
    }
  }

  async * #images (checked: () => CheckedGenerate): AsyncGenerator<GeneratedImage, void, void> {
    const request = checked()
    const call = this.#calls.begin(request.signal)
    for await (const { finished } of this.#run(request, call, false)) {
      for (const image of finished ?? []) {
        call.check() // the loop may take long over each picture of a group
        yield image
      }
    }
  }

  async * #stream (checked: () => CheckedGenerate): AsyncGenerator<Progress, GeneratedImage[], void> {
    const request = checked()
    return yield * this.#run(request, this.#calls.begin(request.signal), true)
  }

  #run (request: CheckedGenerate, call: Call, keep: boolean): AsyncGenerator<Progress, GeneratedImage[], void> {
    return this.#told(run(this.#models, this.#calls, request, call, keep), call, request.onProgress, [])
  }

  /** The events of a call, of which a callback is told first. @param nothing what an iterator that was left returns */
  async * #told<Event, Result> (
    events: AsyncGenerator<Event, Result, void>, call: Call,
    onProgress: ((event: Event) => void) | ((event: Event) => Promise<void>) | undefined, nothing: Result
  ): AsyncGenerator<Event, Result, void> {
    try {
      for (;;) {
        const { value, done } = await events.next().catch(error => { throw toParError(error) })
        if (done) return value
        call.pause() // the caller has the turn
        await call.tell(onProgress, value)
        yield value
        call.resume()
      }
    } finally {
      call.end()
      await events.return(nothing)
    }
  }

  /**
   * Makes a video of a class, or one of each class in a list, with a model on a grid of frames, rows and columns: the
   * frames are drawn one after another, each as {@link Par.generate} draws a picture (paper, section 3.3). Same seed,
   * options, device and precision: identical bytes, alone or in a list. Without a tokenizer of videos the results have
   * `tokens` and no pixels.
   * @throws ParError `BAD_CLASS_ID`, `UNSUPPORTED_N`, `MISSING_PART`, `OUT_OF_MEMORY`, `NON_FINITE`, `INVALID_OPTION`,
   * also for a model that makes pictures
   */
  generateVideo (options: GenerateVideoOptions & { classId: ClassId }): Promise<GeneratedVideo>
  generateVideo (options: GenerateVideoOptions & { classId: readonly ClassId[] }): Promise<GeneratedVideo[]>
  generateVideo (options: GenerateVideoOptions & { prefix: readonly number[] }): Promise<GeneratedVideo>
  generateVideo (
    options: GenerateVideoOptions & { prefix: ReadonlyArray<readonly number[]> }
  ): Promise<GeneratedVideo[]>
  generateVideo (options: GenerateVideoOptions): Promise<GeneratedVideo | GeneratedVideo[]>
  async generateVideo (options: GenerateVideoOptions): Promise<GeneratedVideo | GeneratedVideo[]> {
    const request = checkGenerateVideo(options)
    const events = this.#streamVideo(() => request, false)
    for (;;) {
      const { value, done } = await events.next()
      if (done) return request.single ? value[0]! : value
    }
  }

  /**
   * The same, step by step: yields {@link VideoProgress} once per step. Each frame is made as soon as its tokens are
   * known, and the step that completes it carries it. The last step of all carries `videos`, which are the iterator's
   * return value too. Bad options reject the first `next()`. Leaving the loop early ends the work
   * and frees its memory.
   */
  streamVideo (options: GenerateVideoOptions): AsyncGenerator<VideoProgress, GeneratedVideo[], void> {
    return this.#streamVideo(forLater(() => checkGenerateVideo(options, 'streamVideo')), true)
  }

  async * #streamVideo (
    checked: () => CheckedGenerateVideo, streaming: boolean
  ): AsyncGenerator<VideoProgress, GeneratedVideo[], void> {
    const request = checked()
    const call = this.#calls.begin(request.signal)
    return yield * this.#told(runVideo(this.#models, request, call, streaming), call, request.onProgress, [])
  }

  /**
   * Tokens of a video to its frames.
   * @param tokens raster order, frame after frame: [frames * rows * columns]
   * @throws ParError `MISSING_PART` without a tokenizer of videos; `OUT_OF_MEMORY`, `INVALID_OPTION`
   */
  decodeVideo (tokens: Tokens, options: DecodeVideoOptions & { format: 'float32' }): Promise<Video<Float32Array>>
  decodeVideo (tokens: Tokens, options?: DecodeVideoOptions & { format?: 'uint8' | undefined }): Promise<Video>
  decodeVideo (tokens: Tokens, options?: DecodeVideoOptions): Promise<Video | Video<Float32Array>>
  async decodeVideo (
    tokens: Tokens, options?: DecodeVideoOptions
  ): Promise<Video<Uint8Array<ArrayBuffer> | Float32Array>> {
    const request = checkDecodeVideo(options)
    const { list, single } = tokenList(tokens, 'tokens')
    if (!single) throw invalid('decodeVideo takes the tokens of one video')
    const tokenizer = this.#models.videoTokenizerPart()
    const [own] = await checkTokens(list, 'tokens', tokenizer.codes, undefined, pauses())
    const { transformer } = this.#models
    const grid = videoGridOf(own!.length, request.grid ?? (transformer && videoGrid(transformer)), 'tokens')
    const [frames, height, width] = videoSize(tokenizer, grid)
    return await this.#calls.run(request.signal, async call => {
      const claim = await claimVideos(tokenizer, call, 1, grid, request.format)
      const data = await decodeVideoTokens(tokenizer, call, own!, grid, request.format, claim, async done => {
        await call.tell(request.onProgress, { framesDone: done, frames: grid[0] })
      })
      return new Video({ data, frames, height, width, fps: request.fps })
    })
  }

  /**
   * A video to tokens in raster order, frame after frame: [frames * rows * columns]. Frames that the grid does not ask
   * for are left out; the others are squeezed to its size.
   * @throws ParError `MISSING_PART` without a tokenizer of videos; `FILE_NOT_FOUND`, `BAD_IMAGE`, `OUT_OF_MEMORY`,
   * `INVALID_OPTION`; `NATIVE_UNAVAILABLE` for a file that needs ffmpeg where there is none
   */
  async encodeVideo (video: VideoInput, options?: EncodeVideoOptions): Promise<Int32Array> {
    const request = checkEncodeVideo(options)
    const tokenizer = this.#models.videoTokenizerPart()
    const own = ownVideo(video)
    const { transformer } = this.#models
    const grid = request.grid ?? (transformer && videoGrid(transformer))
    const [frames, height, width] = grid ? videoSize(tokenizer, grid) : []
    return await this.#calls.run(request.signal, async call => {
      const found = await framesOf(own, {
        size: height === undefined ? undefined : { height, width: width! }, frames, fps: request.fps,
        signal: call.signal, check: () => call.check()
      })
      const { tokens } = await encodeFrames(tokenizer, call, found, async done => {
        await call.tell(request.onProgress, { framesDone: done, frames: found.frames })
      })
      return tokens
    })
  }

  /**
   * How likely the model finds pictures: log-probabilities of their tokens (block-wise mask, paper, section 3.3).
   * One picture under many classes is what {@link Par.classify} is for.
   * @returns one per picture; a single picture gives a list of one
   * @throws ParError `BAD_CLASS_ID`, `UNSUPPORTED_N`, `MISSING_PART`, `OUT_OF_MEMORY`, `NON_FINITE`, `INVALID_OPTION`
   */
  async score (options: ScoreOptions): Promise<Score[]> {
    const request = checkScore(options)
    return await this.#calls.run(request.signal, async call => await score(this.#models, request, call))
  }

  /**
   * Which class a picture most likely is of: every class of the model, or those of option `classes`, the likeliest
   * first. It asks for each class how likely the model finds the picture ({@link Par.score}) and takes all classes to
   * be equally likely beforehand; so it runs the transformer once per class. Memory does not grow with the number of
   * classes.
   * @param picture its tokens, raster order, or a picture as {@link Par.encode} takes it (that needs a tokenizer)
   * @throws ParError `BAD_CLASS_ID`, `UNSUPPORTED_N`, `MISSING_PART`, `OUT_OF_MEMORY`, `NON_FINITE`, `INVALID_OPTION`,
   * and those of `encode`
   */
  async classify (picture: Tokens | ImageInput, options?: ClassifyOptions): Promise<Classification[]> {
    const request = checkClassify(options)
    const given = pictureOrTokens(picture)
    return await this.#calls.run(request.signal, async call => {
      const part = await this.#models.transformerFor(request.n, call)
      if (given.image) needPictures(part)
      const tokens = given.tokens ??
        await encodePicture(this.#models.tokenizerPart(), call, given.image!, checkEncode({}), part.grid)
      return await classify(this.#models, tokens, request, call)
    })
  }

  /**
   * Tokens to pixels.
   * @param tokens raster order, [rows * columns], or a list of such
   * @throws ParError `MISSING_PART` without a tokenizer; `OUT_OF_MEMORY`, `INVALID_OPTION`
   */
  decode (tokens: Tokens, options: DecodeOptions & { format: 'float32' }): Promise<Image<Float32Array>>
  decode (
    tokens: readonly Tokens[], options: DecodeOptions & { format: 'float32' }
  ): Promise<Array<Image<Float32Array>>>
  decode (tokens: Tokens, options?: DecodeOptions & { format?: 'uint8' | undefined }): Promise<Image>
  decode (tokens: readonly Tokens[], options?: DecodeOptions & { format?: 'uint8' | undefined }): Promise<Image[]>
  decode (
    tokens: Tokens | readonly Tokens[], options?: DecodeOptions & { format?: 'uint8' | undefined }
  ): Promise<Image | Image[]>
  decode (tokens: Tokens, options?: DecodeOptions): Promise<Image | Image<Float32Array>>
  decode (tokens: readonly Tokens[], options?: DecodeOptions): Promise<Image[] | Array<Image<Float32Array>>>
  decode (
    tokens: Tokens | readonly Tokens[], options?: DecodeOptions
  ): Promise<Image | Image<Float32Array> | Image[] | Array<Image<Float32Array>>>
  async decode (tokens: Tokens | readonly Tokens[], options?: DecodeOptions): Promise<unknown> {
    const request = checkDecode(options)
    const { list, single } = tokenList(tokens, 'tokens')
    const tokenizer = this.#models.tokenizerPart()
    const pictures = await checkTokens(list, single ? 'tokens' : undefined, tokenizer.model.codebookSize, undefined,
      pauses())
    const grid = gridOf(pictures[0]!.length, request.grid ?? this.#models.transformer?.grid,
      single ? 'tokens' : 'tokens[0]')
    const odd = pictures.findIndex(picture => picture.length !== pictures[0]!.length)
    if (odd >= 0) {
      throw invalid(`All pictures of a list must have the same number of tokens; tokens[${odd}] ` +
        `has ${pictures[odd]!.length}, tokens[0] ${pictures[0]!.length}`)
    }
    const images = await this.#calls.run(request.signal, async call =>
      await decodePictures(tokenizer, call, pictures, grid, request.size, request.format))
    return single ? images[0]! : images
  }

  /**
   * A picture to tokens in raster order, [rows * columns]. Files and bytes are first made what {@link Par.prepare}
   * gives; a Float32Array (RGB, -1..1, sides that the tokenizer's factor divides) goes in untouched.
   * Without a transformer the grid is option `grid`, that of the tokenizer's own pictures where its file tells, or the
   * largest square that fits, at most 24 x 24.
   * @param image a path, the bytes of a picture file, pixels, and more: {@link ImageInput}
   * @throws ParError `MISSING_PART` without a tokenizer; `FILE_NOT_FOUND`, `BAD_IMAGE`, `OUT_OF_MEMORY`,
   * `INVALID_OPTION`
   */
  async encode (image: ImageInput, options?: EncodeOptions): Promise<Int32Array> {
    const request = checkEncode(options)
    const tokenizer = this.#models.tokenizerPart()
    const own = ownImage(image)
    return await this.#calls.run(request.signal,
      async call => await encodePicture(tokenizer, call, own, request, this.#encodeGrid(request)))
  }

  /**
   * The picture that {@link Par.encode} finds tokens of, with the same options: upright, on a background where it was
   * transparent, cropped or squeezed to the grid. Its sides tell the grid; `decode` of its tokens is to be compared
   * with it.
   * @param image a path, the bytes of a picture file, pixels, and more: {@link ImageInput}
   * @throws ParError as `encode` does
   */
  async prepare (image: ImageInput, options?: EncodeOptions): Promise<Image> {
    const request = checkEncode(options, 'prepare')
    const tokenizer = this.#models.tokenizerPart()
    const own = ownImage(image)
    return await this.#calls.run(request.signal,
      async call => await preparePicture(tokenizer, call, own, request, this.#encodeGrid(request)))
  }

  /** What pictures are resized to; undefined where each has its own. */
  #encodeGrid (request: CheckedEncode): [rows: number, columns: number] | undefined {
    return request.grid ?? this.#models.transformer?.grid ??
      (request.crop ? this.#models.tokenizerPart().grid : undefined)
  }

  /** Ends running calls with ParError `DISPOSED` and frees all native memory. Calling it again does nothing more. */
  dispose (): Promise<void> {
    this.#disposed ??= (async () => {
      this.#calls.dispose()
      await this.#models.dispose()
    })()
    return this.#disposed
  }

  /** `dispose()` at the end of a block: `await using par = await Par.load()`. */
  async [asyncDispose] (): Promise<void> {
    await this.dispose()
  }
}

/** What `classify` is given, copied: the caller may go on with the original. */
export function pictureOrTokens (picture: unknown): { tokens?: unknown, image?: OwnImage } {
  if (!isInt32Array(picture) && !isList(picture)) return { image: ownImage(picture) }
  const { list, single } = tokenList(picture, 'picture')
  if (!single) throw invalid(`classify takes one picture, not ${show(picture)} of them`)
  return { tokens: list[0] }
}
