// From class ids to tokens: the steps of a list, side by side in one native session; a long list in several, because
// the cache of a session grows with its pictures. One step is always enqueued ahead, so the backend never waits for
// JavaScript. The tokens do not depend on the grouping: random numbers are keyed by seed and sequence index alone.

import { performance } from 'node:perf_hooks'
import type { Call } from '../base/call.js'
import { sessionShape } from '../models/memory.js'
import type { Models, TransformerPart } from '../models/models.js'
import type { NativeSession } from '../machine/native.js'
import { pauses } from '../pictures/resample.js'
import type { PicturePlan, Plan } from './decoder.js'
import type { Sampling } from './sampling.js'
import { StepMemory, seatedSession, stepDone, streamsOf, type SamplingRule, type StepPart } from './step.js'

/** Beyond this many sequences a session gains nothing. */
export const maxAtOnce = 64

/** What is drawn. A picture here is whatever the tokens of one sequence make: a picture or a video. */
export interface Drawing {
  part: TransformerPart
  plan: Plan
  classIds: readonly number[]
  /** [pictures] */
  seeds: readonly number[]
  sampling: Sampling
  /** Raster cells in generation order, one for all pictures or one each; empty where the method has its own. */
  orders: readonly Int32Array[]
  /** What is known beforehand: raster order, -1 where a cell is drawn; one for all pictures or one each. */
  known: readonly Int32Array[] | undefined
}

/** One picture, all tokens known. */
export interface Drawn {
  /** Raster order, [tokens]. */
  raster: Int32Array
  picture: PicturePlan
  classId: number
  seed: number
}

/** A step that is done. */
export interface DrawnStep {
  /** Steps done, and steps of the whole list. */
  step: number
  steps: number
  /** The pictures in work: the first of them, by its place in the list. */
  from: number
  pictures: readonly PicturePlan[]
  /** Tokens known of each. */
  known: number
  /** As long as the group is in work. */
  session: NativeSession | undefined
  /** With the last step of a group: its pictures. */
  drawn?: Drawn[]
  /** When the first step of the group was enqueued; milliseconds of its steps. */
  started: number
  transformerMs: number
  /** The last step of the whole list. */
  last: boolean
}

/** One yield a step. Returning early cancels what is enqueued and frees the session. */
export async function * draw (models: Models, call: Call, drawing: Drawing): AsyncGenerator<DrawnStep, void, void> {
  const { part, plan, classIds, seeds, orders, known } = drawing
  const { guidanceScale, ...rest } = drawing.sampling
  const streamsEach = streamsOf(guidanceScale)
  const rule: SamplingRule = { mode: 'sample', ...rest }
  const stepCount = plan.tokensAfter.length
  const shape = { streamsEach, slots: plan.slots, tokens: plan.tokens, rows: plan.maxRows, kept: 0 }
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
    const read = async (): Promise<Drawn[]> => {
      const sequences = await call.wait(Promise.all(pictures.map(async (_, seat) => await session.readTokens(seat))))
      call.release(lease)
      return sequences.map((sequence, seat) => ({
        raster: pictures[seat]!.toRaster(sequence), picture: pictures[seat]!, classId: classIds[begin + seat]!,
        seed: seeds[begin + seat]!
      }))
    }
    let current = enqueue(0)
    for (let k = 0; current; k++) {
      const next = enqueue(k + 1)
      await call.wait(current)
      current = next
      const drawn = next ? undefined : await read()
      const last = !next && from === classIds.length
      yield {
        step: group * stepCount + k + 1, steps, from: begin, pictures, known: next ? plan.tokensAfter[k]! : plan.tokens,
        session: next ? session : undefined, ...(drawn && { drawn }), started,
        transformerMs: performance.now() - started, last
      }
      if (!last) call.check()
    }
  }
}
