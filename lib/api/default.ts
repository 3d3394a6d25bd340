// The default export: a Par on the embedded model that is loaded by the first call that needs it. Importing the
// package does no work. `info` and `labels` are promises here, because they need the model; `await` works for both
// this and a Par.

import type { Progress, VideoProgress } from '../base/progress.js'
import type { GeneratedImage } from './image.js'
import type { GeneratedVideo } from './video.js'
import {
  CheckedOptions, checkClassify, checkDecode, checkDecodeVideo, checkEncode, checkEncodeVideo, checkGenerate,
  checkGenerateVideo, checkScore, type CheckedGenerate, type CheckedGenerateVideo, type GenerateOptions,
  type GenerateVideoOptions
} from './options.js'
import { tokenList } from './tokens.js'
import { checkSamples, type CheckedSamples } from './samples.js'
import { Par, pictureOrTokens, type ParInfo } from './par.js'
import { ownImage, type ImageInput } from './image-input.js'
import { ownVideo, type VideoInput } from './video-input.js'
import { forLater } from '../base/validate.js'

/**
 * The embedded model, loaded at first use. Methods are those of {@link Par}. `dispose()` frees it; a later call loads
 * it again, because the default instance belongs to the whole process and not to whoever disposed of it.
 */
export class DefaultPar {
  #loading: Promise<Par> | undefined

  // Every method is a property, so that it can be taken out of the instance: `const { stream } = par`.

  /** The instance itself; loads it where need be. */
  readonly load = (): Promise<Par> => {
    if (!this.#loading) {
      const loading = Par.load()
      this.#loading = loading
      loading.catch(() => { if (this.#loading === loading) this.#loading = undefined })
    }
    return this.#loading
  }

  /** What was loaded and where it runs ({@link Par.info}); loads the model where need be. */
  get info (): Promise<ParInfo> { return this.load().then(par => par.info) }
  /** Class names by class id ({@link Par.labels}); loads the model where need be. */
  get labels (): Promise<readonly string[] | undefined> { return this.load().then(par => par.labels) }

  // Each checks and copies what it is given before it waits for the model: the caller may go on with the original.

  /** Makes a picture of a class, or one of each class in a list: {@link Par.generate}. */
  readonly generate = (async (options: GenerateOptions) => {
    const own = checked(checkGenerate(options))
    return await (await this.load()).generate(own)
  }) as Par['generate']

  /** How likely the model finds pictures: {@link Par.score}. */
  readonly score: Par['score'] = async options => {
    const own = checked(checkScore(options))
    return await (await this.load()).score(own)
  }

  /** Which class a picture most likely is of: {@link Par.classify}. */
  readonly classify: Par['classify'] = async (picture, options) => {
    const own = { options: checked(checkClassify(options)), ...pictureOrTokens(picture) }
    return await (await this.load()).classify((own.tokens ?? own.image) as ImageInput, own.options)
  }

  /** Tokens to pixels: {@link Par.decode}. */
  readonly decode = (async (tokens: Int32Array, options: undefined) => {
    const own = { options: checked(checkDecode(options)), ...tokenList(tokens, 'tokens') }
    return await (await this.load()).decode((own.single ? own.list[0] : own.list) as Int32Array, own.options)
  }) as unknown as Par['decode']

  /** A picture to tokens: {@link Par.encode}. */
  readonly encode: Par['encode'] = async (image, options) => {
    const own = { options: checked(checkEncode(options)), image: ownImage(image) }
    return await (await this.load()).encode(own.image as ImageInput, own.options)
  }

  /** The picture that `encode` finds tokens of: {@link Par.prepare}. */
  readonly prepare: Par['prepare'] = async (image, options) => {
    const own = { options: checked(checkEncode(options, 'prepare')), image: ownImage(image) }
    return await (await this.load()).prepare(own.image as ImageInput, own.options)
  }

  /** `generate` step by step: {@link Par.stream}. */
  readonly stream: Par['stream'] = options => this.#stream(forLater(() => checkGenerate(options, 'stream')))

  async * #stream (request: () => CheckedGenerate): AsyncGenerator<Progress, GeneratedImage[], void> {
    const own = checked(request())
    return yield * (await this.load()).stream(own)
  }

  /** The pictures of a list, one after another, none of them kept: {@link Par.images}. */
  readonly images: Par['images'] = options => this.#images(forLater(() => checkGenerate(options, 'images')))

  async * #images (request: () => CheckedGenerate): AsyncGenerator<GeneratedImage, void, void> {
    const own = checked(request())
    yield * (await this.load()).images(own)
  }

  /** Makes a video of a class, with a model that can: {@link Par.generateVideo}. */
  readonly generateVideo = (async (options: GenerateVideoOptions) => {
    const own = checked(checkGenerateVideo(options))
    return await (await this.load()).generateVideo(own)
  }) as Par['generateVideo']

  /** Tokens of a video to its frames, with a tokenizer of videos: {@link Par.decodeVideo}. */
  readonly decodeVideo = (async (tokens: Int32Array, options: undefined) => {
    const own = { options: checked(checkDecodeVideo(options)), ...tokenList(tokens, 'tokens') }
    return await (await this.load()).decodeVideo((own.single ? own.list[0] : own.list) as Int32Array, own.options)
  }) as unknown as Par['decodeVideo']

  /** A video to tokens, with a tokenizer of videos: {@link Par.encodeVideo}. */
  readonly encodeVideo: Par['encodeVideo'] = async (video, options) => {
    const own = { options: checked(checkEncodeVideo(options)), video: ownVideo(video) }
    return await (await this.load()).encodeVideo(own.video as VideoInput, own.options)
  }

  /** `generateVideo` step by step: {@link Par.streamVideo}. */
  readonly streamVideo: Par['streamVideo'] = options =>
    this.#streamVideo(forLater(() => checkGenerateVideo(options, 'streamVideo')))

  async * #streamVideo (
    request: () => CheckedGenerateVideo
  ): AsyncGenerator<VideoProgress, GeneratedVideo[], void> {
    const own = checked(request())
    return yield * (await this.load()).streamVideo(own)
  }

  /** Pictures for an evaluation, one after another, none of them kept: {@link Par.samples}. */
  readonly samples: Par['samples'] = options => this.#samples(forLater(() => checkSamples(options)))

  async * #samples (request: () => CheckedSamples): AsyncGenerator<GeneratedImage, void, void> {
    const own = checked(request())
    yield * (await this.load()).samples(own)
  }

  /** Ends running calls with ParError `DISPOSED` and frees all native memory. A later call loads the model again. */
  readonly dispose = async (): Promise<void> => {
    const loading = this.#loading
    this.#loading = undefined
    await (await loading?.catch(() => undefined))?.dispose()
  }
}

/** As a Par takes it. */
function checked<T> (request: T): never {
  return new CheckedOptions(request) as never
}

/** The embedded model: ten classes of clothing, 32 x 32 pixels, n = 1, 4 or 16. Loaded by its first call. */
export const par = new DefaultPar()
