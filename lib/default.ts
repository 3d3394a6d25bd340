// The default export: a Par on the embedded model that is loaded by the first call that needs it. Importing the
// package does no work. `info` and `labels` are promises here, because they need the model; `await` works for both
// this and a Par.

import type { Progress } from './generation.js'
import type { GeneratedImage } from './image.js'
import type { GenerateOptions } from './options.js'
import { Par, type ParInfo } from './par.js'
import { ownImage } from './pixels.js'
import { snapshot } from './validate.js'

/**
 * The embedded model, loaded at first use. Methods are those of {@link Par}. `dispose()` frees it; a later call loads
 * it again, because the default instance belongs to the whole process and not to whoever disposed of it.
 */
export class DefaultPar {
  #loading: Promise<Par> | undefined

  /** The instance itself; loads it where need be. */
  load (): Promise<Par> {
    if (!this.#loading) {
      const loading = Par.load()
      this.#loading = loading
      loading.catch(() => { if (this.#loading === loading) this.#loading = undefined })
    }
    return this.#loading
  }

  get info (): Promise<ParInfo> { return this.load().then(par => par.info) }
  get labels (): Promise<readonly string[] | undefined> { return this.load().then(par => par.labels) }

  // Each takes a copy of what it is given before it waits for the model: the caller may go on with the original.

  readonly generate = (async (options: GenerateOptions) => {
    const own = snapshot(options)
    return await (await this.load()).generate(own)
  }) as Par['generate']

  readonly score: Par['score'] = async options => {
    const own = snapshot(options)
    return await (await this.load()).score(own)
  }

  readonly decode = (async (tokens: Int32Array, options: undefined) => {
    const own = snapshot({ tokens, options })
    return await (await this.load()).decode(own.tokens, own.options)
  }) as unknown as Par['decode']

  readonly encode: Par['encode'] = async (image, options) => {
    const own = { image: ownImage(image), options: snapshot(options) }
    return await (await this.load()).encode(own.image, own.options)
  }

  async * stream (options: GenerateOptions): AsyncGenerator<Progress, GeneratedImage[], void> {
    return yield * (await this.load()).stream(options)
  }

  async dispose (): Promise<void> {
    const loading = this.#loading
    this.#loading = undefined
    await (await loading?.catch(() => undefined))?.dispose()
  }
}

export const par = new DefaultPar()
