// From class ids to pictures. The async iterator is the implementation and generate() drains it. One step is always
// enqueued ahead, so the backend never waits for JavaScript. A list runs side by side in one native session; a long
// one in several, because the cache of a session grows with its pictures. The pictures do not depend on the
// grouping: random numbers are keyed by seed and sequence index alone.

import { performance } from 'node:perf_hooks'
import type { Call, Calls } from '../base/call.js'
import { GeneratedImage, Image } from '../api/image.js'
import { resolveClasses } from '../models/labels.js'
import { sessionShape } from '../models/memory.js'
import type { Models, TokenizerPart, TransformerPart } from '../models/models.js'
import type { NativeSession } from '../machine/native.js'
import { effectiveSeeds, resolveSampling, type CheckedGenerate } from '../api/options.js'
import { claimPictures, decodePictures, fullSize } from '../pictures/pixels.js'
import type { Progress } from '../base/progress.js'
import { pauses } from '../pictures/resample.js'
import { completion } from './completion.js'
import type { PicturePlan, Plan } from './decoder.js'
import type { CheckedDecoding } from './options.js'
import { StepMemory, seatedSession, stepDone, streamsOf, type SamplingRule, type StepPart } from './step.js'
import { ParError } from '../base/errors.js'
import { integer, invalid } from '../base/validate.js'

/** Beyond this many sequences a session gains nothing. */
export const maxAtOnce = 64

/** Plans of calls of a part, by their options: a burst of calls must not plan the same thousands of times. */
const planned = new WeakMap<TransformerPart, Map<string, Plan>>()
const maxPlanned = 16

/** The plan of a call; an n that does not fit the grid and transition tokens that are not there are errors. */
export function planFor (part: TransformerPart, options: CheckedDecoding): Plan {
  const known = planned.get(part) ?? new Map<string, Plan>()
  const key = JSON.stringify({ ...options, tokenOrder: options.tokenOrder !== undefined })
  const found = known.get(key)
  if (found) return found
  const plan = part.decoder.plan(options)
  if (known.size >= maxPlanned) known.clear()
  planned.set(part, known.set(key, plan))
  return plan
}

/** The order of each picture that a caller gave. @throws ParError `INVALID_OPTION` */
export function ordersOf (orders: readonly Int32Array[] | undefined, { tokens }: Plan): readonly Int32Array[] {
  for (const order of orders ?? []) {
    const isThere = new Uint8Array(tokens)
    for (const cell of order) if (cell < tokens) isThere[cell] = 1
    if (order.length !== tokens || isThere.includes(0)) {
      throw invalid(`tokenOrder must hold each of the cells 0 to ${tokens - 1} once; it has ${order.length} entries`)
    }
  }
  return orders ?? []
}

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
  const classIds = await resolveClasses(request.classIds, part.model.classes, part.labels, pauses(() => call.check()))
  const seeds = request.seeds ?? effectiveSeeds(classIds, request.seed)
  const whole = planFor(part, request.decoding)
  const sampling = resolveSampling(request.sampling, part, whole.tokensAfter.length)
  const { plan, rasters: known } = request.known
    ? await completion(models, part, whole, request.known, call)
    : { plan: whole, rasters: undefined }
  const orders = ordersOf(request.decoding.tokenOrder, plan)
  const { guidanceScale, ...drawing } = sampling
  const streamsEach = streamsOf(guidanceScale)
  const rule: SamplingRule = { mode: 'sample', ...drawing }
  const size = request.size ?? (models.preset && { width: models.preset.size, height: models.preset.size })
  const work: Work = { models, calls, part, plan, size, total: classIds.length, finished: new Map() }

  // Of all groups, before the first one is begun.
  const claim = keep && tokenizer
    ? await claimPictures(tokenizer, call, classIds.length, part.grid, size ?? fullSize(tokenizer, part.grid), 'uint8',
      ', or use images(), which keeps none')
    : undefined

  const stepCount = plan.tokensAfter.length
  const shape = { streamsEach, slots: plan.slots, tokens: plan.tokens, rows: plan.maxRows, kept: 0 }
  const images: GeneratedImage[] = []
  const pause = pauses(() => call.check()) // an order takes some milliseconds
  for (let [group, from] = [0, 0]; from < classIds.length; group++) {
    const begin = from
    const pictures: PicturePlan[] = []
    const planPictures = async (count: number): Promise<void> => {
      pictures.length = Math.min(pictures.length, count)
      while (pictures.length < count) {
        const waiting = pause()
        if (waiting) await waiting
        const index = begin + pictures.length
        pictures.push(plan.picture(seeds[index]!, orders[orders.length === 1 ? 0 : index]))
      }
    }
    const open = async (sequences: number): Promise<NativeSession> => {
      await planPictures(sequences)
      return await seatedSession(part.native, sessionShape(shape, sequences), pictures.map((picture, seat) => ({
        classId: classIds[begin + seat]!,
        seed: BigInt(seeds[begin + seat]!),
        known: known && picture.toSequence(known[known.length === 1 ? 0 : begin + seat]!)
      })))
    }
    const lease = await call.hold(models.budget.session(call, Math.min(maxAtOnce, classIds.length - begin),
      models.sessionBytes(part, shape), open))
    const { session, sequences: count } = lease
    const some = classIds.slice(begin, begin + count)
    const someSeeds = seeds.slice(begin, begin + count)
    from += count
    // The rest in groups of this size: more steps where memory gets scarce meanwhile.
    const steps = (group + 1 + Math.ceil((classIds.length - from) / count)) * stepCount
    const started = performance.now()

    // ---- steps, one ahead
    const tables = new StepMemory(part.model.crossLayers > 0)
    const parts = pictures.map((picture, seat): StepPart => ({ seat, ...picture.steps[0]!, guidanceScale, rule }))
    const enqueue = (k: number): Promise<void> | undefined => {
      if (k === stepCount) return undefined
      call.check()
      for (const [seat, part] of parts.entries()) {
        const { rows, shares } = pictures[seat]!.steps[k]!
        part.rows = rows
        part.shares = shares
      }
      const done = stepDone(session, session.step(tables.compose(parts, streamsEach), call.cancel))
      done.catch(() => {})
      return done
    }
    let current = enqueue(0)
    for (let k = 0; current; k++) {
      const next = enqueue(k + 1)
      await call.wait(current)
      current = next
      const finished = next ? undefined : await finish()
      const known = next ? plan.tokensAfter[k]! : plan.tokens
      const step = group * stepCount + k + 1
      const event = progress(work, call, next ? session : undefined, { step, steps, from: begin, pictures, known })
      const last = !next && from === classIds.length
      yield finished ? { ...event, finished, ...(last && keep && { images }) } : event
      if (!last) call.check()
    }

    async function finish (): Promise<GeneratedImage[]> {
      const sequences = await call.wait(Promise.all(some.map(async (_, seat) => await session.readTokens(seat))))
      call.release(lease)
      const transformerMs = performance.now() - started
      if (!keep) work.finished.clear()
      const rasters = sequences.map((sequence, i) => pictures[i]!.toRaster(sequence))
      rasters.forEach((raster, i) => work.finished.set(begin + i, raster))
      const decoded = tokenizer ? await decodePictures(tokenizer, call, rasters, part.grid, size, 'uint8', claim) : []
      const totalMs = performance.now() - started
      const timings = { transformerMs, decodeMs: tokenizer ? totalMs - transformerMs : 0, totalMs }
      const made = some.map((classId, i) => new GeneratedImage({
        data: (decoded[i]?.data ?? new Uint8Array(0)) as Uint8Array<ArrayBuffer>,
        width: decoded[i]?.width ?? 0,
        height: decoded[i]?.height ?? 0,
        tokens: rasters[i]!,
        tokenOrder: pictures[i]!.cells.slice(),
        classId,
        label: part.labels?.[classId],
        n: part.n,
        seed: someSeeds[i]!,
        steps: stepCount,
        timings
      }))
      if (keep) images.push(...made)
      return made
    }
  }
  return images
}

/** `from`, `count`: the pictures now in work, `known` tokens of each. */
function progress (
  work: Work, call: Call, session: NativeSession | undefined,
  at: { step: number, steps: number, from: number, pictures: readonly PicturePlan[], known: number }
): Progress {
  const { models, calls, part, plan: { tokens } } = work
  const count = at.pictures.length
  return {
    step: at.step,
    steps: at.steps,
    tokensDone: at.from * tokens + count * at.known,
    tokens: work.total * tokens,
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
    if (!work.finished.has(index) && session && index >= at.from && !call.over) {
      const reading = session.readTokens(index - at.from)
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
