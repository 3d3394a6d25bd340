// Models in this process. Requests are calls of the library, which batches them.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Par, type GenerateOptions, type LoadOptions, type Progress } from 'parvis'
import {
  EngineError, type Engine, type Kind, type Listener, type Load, type ModelInfo, type Picture, type PictureRequest,
  type Result
} from './engine.js'

/** A model by its name: an embedded one, a preset, or files. */
export interface ModelSource {
  /** What clients call it. */
  name: string
  /** Options of `Par.load`; absent: the name is that of an embedded model or a preset. */
  load?: LoadOptions
}

export interface LocalOptions extends Pick<LoadOptions,
  'device' | 'precision' | 'threads' | 'maxBatchSize' | 'maxQueueSize' | 'signal'> {
  models: ReadonlyArray<string | ModelSource>
  /** Hash the files of weights, which takes some seconds for a large model: workers on a queue need it. */
  hash?: boolean
}

/** Previews of 'all' take at most so much of the time: each costs a decoding. */
const previewShare = 0.2

export class LocalEngine implements Engine {
  readonly #served: ReadonlyMap<string, { par: Par, info: ModelInfo }>

  private constructor (served: ReadonlyMap<string, { par: Par, info: ModelInfo }>) {
    this.#served = served
  }

  /** Loads the models. @throws ParError as `Par.load` does */
  static async open ({ models, hash = false, ...options }: LocalOptions): Promise<LocalEngine> {
    const served = new Map<string, { par: Par, info: ModelInfo }>()
    try {
      for (const model of models) {
        const { name, load } = typeof model === 'string' ? { name: model, load: undefined } : model
        const par = load ? await Par.load({ ...load, ...options }) : await Par.load(name as 'fashion', options)
        try {
          served.set(name, { par, info: await infoOf(name, par, hash) })
        } catch (error) {
          await par.dispose()
          throw error
        }
      }
      return new LocalEngine(served)
    } catch (error) {
      await Promise.all([...served.values()].map(({ par }) => par.dispose()))
      throw error
    }
  }

  models (): ModelInfo[] { return [...this.#served.values()].map(({ info }) => info) }

  async load (model: string): Promise<Load> { return this.#find(model).par.activity }

  async problem (): Promise<undefined> { return undefined }

  async draw (request: PictureRequest, signal: AbortSignal, listener: Listener): Promise<Result> {
    const { par, info } = this.#find(request.model)
    const { classId, count, seed, options, size, known, previews } = request
    const { waiting } = par.activity
    if (waiting > 0) listener.queued?.(waiting)
    let began: number | undefined
    const making = new Set<Promise<void>>()
    let preview = previewing(previews, async (event, step) => {
      const { data, width, height } = await event.preview()
      listener.preview?.({ data, width, height }, step)
    }, making)
    const generate: GenerateOptions = {
      ...options, classId: count === 1 ? classId : Array(count).fill(classId), seed, signal,
      ...(size && { size }), ...(known && { known })
    }
    const pictures: Picture[] = []
    for await (const event of par.stream(generate)) {
      if (began === undefined) {
        began = performance.now()
        if (waiting > 0) listener.queued?.(0)
      }
      const { step, steps } = event
      listener.step?.({ step, steps, cells: [...event.cells()], ms: performance.now() - began })
      for (const image of event.finished ?? []) {
        const { data, width, height, label, steps, n, timings } = image
        pictures.push({
          data, width, height, classId: image.classId, label, seed: image.seed, steps, n,
          tokenOrder: [...image.tokenOrder], ...timings
        })
      }
      if (!event.images) preview(event)
      else preview = () => {}
    }
    await Promise.all(making)
    return { pictures, kind: info.kind }
  }

  async close (): Promise<void> {
    await Promise.all([...this.#served.values()].map(({ par }) => par.dispose()))
  }

  #find (model: string): { par: Par, info: ModelInfo } {
    const found = this.#served.get(model)
    if (found) return found
    throw new EngineError('MODEL_NOT_FOUND', `No model is called '${model}'. This server has ` +
      [...this.#served.keys()].join(', '))
  }
}

/**
 * Has previews made beside the steps, which do not wait for them.
 * @param making those that are not done; one that fails is left out: the call itself says why
 */
function previewing (
  wanted: number | 'all', make: (event: Progress, step: number) => Promise<void>, making: Set<Promise<void>>
): (event: Progress) => void {
  let [done, freeAt] = [0, 0]
  const begin = (event: Progress): void => {
    const started = performance.now()
    const work: Promise<void> = make(event, event.step).catch(() => {}).then(() => {
      const ended = performance.now()
      freeAt = ended + (ended - started) * (1 / previewShare - 1)
      making.delete(work)
    })
    making.add(work)
  }
  return event => {
    if (wanted === 'all') {
      if (making.size === 0 && performance.now() >= freeAt) begin(event)
    } else if (done < wanted && event.step >= Math.round((done + 1) * event.steps / (wanted + 1))) {
      done++
      begin(event)
    }
  }
}

async function infoOf (name: string, par: Par, hash: boolean): Promise<ModelInfo> {
  const { info, labels } = par
  const { transformer, tokenizer } = info
  if (!transformer || transformer.frames !== undefined || !tokenizer?.imageSize) {
    throw new EngineError('MODEL_NOT_FOUND',
      `'${name}' makes no pictures: a server needs a transformer of pictures and its tokenizer`)
  }
  const [height, width] = transformer.size === undefined
    ? tokenizer.imageSize
    : [transformer.size, transformer.size] as const
  const kind: Kind = {
    backend: `${info.device.startsWith('cuda') ? 'cuda' : 'cpu'}-${info.isa}`, precision: info.precision,
    weights: hash ? await hashOf(transformer.path, tokenizer.path) : ''
  }
  return {
    name, kind, method: transformer.method, supportedN: transformer.supportedN, n: transformer.n,
    defaultSteps: transformer.defaultSteps, grid: transformer.grid, width, height,
    labels: labels && [...labels], classes: transformer.classes, guidanceScale: transformer.sampling.guidanceScale,
    device: info.device
  }
}

/** Of the files of a model: an embedded one has a file for each n beside the one that is named. */
async function hashOf (transformer: string, tokenizer: string): Promise<string> {
  const siblings = path.dirname(transformer) === path.dirname(tokenizer)
    ? fs.readdirSync(path.dirname(transformer)).filter(name => /^par-\d+\.safetensors$/.test(name))
      .sort().map(name => path.join(path.dirname(transformer), name))
    : []
  const all = createHash('sha256')
  for (const file of new Set([transformer, ...siblings, tokenizer])) {
    const one = createHash('sha256')
    await pipeline(fs.createReadStream(file), one)
    all.update(one.digest())
  }
  return all.digest('hex').slice(0, 16)
}
