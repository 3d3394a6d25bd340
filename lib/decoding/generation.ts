// From class ids to pictures. The async iterator is the implementation and generate() drains it. What draws the tokens
// is draw.ts; here they become pictures, and previews.

import { performance } from 'node:perf_hooks'
import type { Call, Calls } from '../base/call.js'
import { GeneratedImage, Image } from '../api/image.js'
import { resolveClasses } from '../models/labels.js'
import type { Models, TokenizerPart, TransformerPart } from '../models/models.js'
import { effectiveSeeds, resolveSampling, type CheckedGenerate } from '../api/options.js'
import { claimPictures, decodePictures, fullSize } from '../pictures/pixels.js'
import type { Progress } from '../base/progress.js'
import { pauses } from '../pictures/resample.js'
import { completion } from './completion.js'
import type { Plan } from './decoder.js'
import { draw, type Drawn, type DrawnStep } from './draw.js'
import { ordersOf, planFor } from './plans.js'
import { ParError } from '../base/errors.js'
import { integer, invalid } from '../base/validate.js'
import { needPictures } from './video.js'

/** What one call makes; shared with its previews, which may outlive it. */
interface Work {
  models: Models
  calls: Calls
  part: TransformerPart
  plan: Plan
  size: CheckedGenerate['size']
  total: number
  /** Tokens in raster order of finished pictures, by their place in the list. */
  finished: Map<number, Int32Array>
}

/**
 * One yield a step; the last carries the pictures, which are also the generator's return value. Returning early
 * (`break`) cancels what is enqueued and frees the session.
 * @param keep false: pictures are handed out with the last step of their group, and none is kept after it
 */
export async function * run (
  models: Models, calls: Calls, request: CheckedGenerate, call: Call, keep = true
): AsyncGenerator<Progress, GeneratedImage[], void> {
  const { tokenizer } = models
  if (request.size && !tokenizer) models.tokenizerPart()
  const part = await models.transformerFor(request.n, call)
  needPictures(part)
  const classIds = await resolveClasses(request.classIds, part.model.classes, part.labels, pauses(() => call.check()))
  const seeds = request.seeds ?? effectiveSeeds(classIds, request.seed)
  const whole = planFor(part, request.decoding)
  const sampling = resolveSampling(request.sampling, part, whole.tokensAfter.length)
  const { plan, rasters: known } = request.known
    ? await completion(models, part, whole, request.known, call)
    : { plan: whole, rasters: undefined }
  const orders = ordersOf(request.decoding.tokenOrder, plan)
  const size = request.size ?? (models.preset && { width: models.preset.size, height: models.preset.size })
  const work: Work = { models, calls, part, plan, size, total: classIds.length, finished: new Map() }

  // Of all groups, before the first one is begun.
  const claim = keep && tokenizer
    ? await claimPictures(tokenizer, call, classIds.length, part.grid, size ?? fullSize(tokenizer, part.grid), 'uint8',
      ', or use images(), which keeps none')
    : undefined

  const images: GeneratedImage[] = []
  const { passes } = request
  for await (const done of draw(models, call, { part, plan, passes, classIds, seeds, sampling, orders, known })) {
    const finished = done.drawn && await finish(done, done.drawn)
    const event = progress(work, call, done)
    yield finished ? { ...event, finished, ...(done.last && keep && { images }) } : event
  }
  return images

  async function finish ({ from, started, transformerMs }: DrawnStep, drawn: Drawn[]): Promise<GeneratedImage[]> {
    if (!keep) work.finished.clear()
    const rasters = drawn.map(({ raster }) => raster)
    rasters.forEach((raster, i) => work.finished.set(from + i, raster))
    const decoded = tokenizer ? await decodePictures(tokenizer, call, rasters, part.grid, size, 'uint8', claim) : []
    const totalMs = performance.now() - started
    const timings = { transformerMs, decodeMs: tokenizer ? totalMs - transformerMs : 0, totalMs }
    const made = drawn.map(({ raster, picture, classId, seed, passes }, i) => new GeneratedImage({
      data: (decoded[i]?.data ?? new Uint8Array(0)) as Uint8Array<ArrayBuffer>,
      width: decoded[i]?.width ?? 0,
      height: decoded[i]?.height ?? 0,
      tokens: raster,
      tokenOrder: picture.cells.slice(),
      classId,
      label: part.labels?.[classId],
      n: part.n,
      seed,
      steps: plan.tokensAfter.length,
      passes,
      timings
    }))
    if (keep) images.push(...made)
    return made
  }
}

function progress (work: Work, call: Call, at: DrawnStep): Progress {
  const { models, calls, part, plan: { tokens } } = work
  const { tokensOf } = at
  const count = at.pictures.length
  return {
    step: at.step,
    steps: at.steps,
    tokensDone: at.from * tokens + count * at.known,
    tokens: work.total * tokens,
    cells: (index = 0) => {
      integer(index, 'index', 0, work.total - 1)
      const picture = at.pictures[index - at.from]
      return picture ? picture.cells.slice(at.knownBefore, at.known) : new Int32Array(0)
    },
    preview: async (index = 0) => {
      integer(index, 'index', 0, work.total - 1)
      const tokenizer = models.tokenizerPart()
      return await calls.run(undefined, async own => {
        const known = index < at.from ? tokens : index < at.from + count ? at.known : 0
        const raster = known === 0 ? undefined : await current(index, known, own)
        if (!raster) return grey(work, tokenizer)
        return (await decodePictures(tokenizer, own, [raster], part.grid, work.size, 'uint8'))[0] as Image
      })
    }
  }

  /** Tokens of one picture in raster order, from what is finished or from the running session. */
  async function current (index: number, known: number, own: Call): Promise<Int32Array | undefined> {
    if (!work.finished.has(index)) call.check() // stopped: the session is gone
    if (!work.finished.has(index) && tokensOf && index >= at.from && !call.over) {
      const reading = tokensOf(index - at.from)
      const sequence = await own.wait(reading).catch(error => {
        own.check()
        if (!work.finished.has(index) && !call.over) throw error
      })
      if (sequence) return at.pictures[index - at.from]!.preview(sequence, known)
    }
    const finished = work.finished.get(index)
    if (!finished && !call.over) {
      throw invalid(`Picture ${index} of the list was handed out before, and images() keeps none`)
    }
    if (!finished) {
      throw new ParError('INVALID_OPTION', 'This preview belongs to a call that ended before it was asked for')
    }
    if (index < at.from) return finished
    const picture = at.pictures[index - at.from]! // it may have been finished after this step
    return picture.preview(picture.toSequence(finished), known)
  }
}

function grey (work: Work, tokenizer: TokenizerPart): Image {
  const { width, height } = work.size ?? fullSize(tokenizer, work.part.grid)
  return new Image(new Uint8Array(width * height * 3).fill(128), width, height)
}
