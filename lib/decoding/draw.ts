// From class ids to tokens: the steps of a list, side by side, in the batches of its instance (batcher.ts); a long list
// in several groups, because the cache of a session grows with its pictures. One step is always asked for ahead, so the
// backend never waits for JavaScript. The tokens do not depend on the grouping, nor on who else runs: random numbers
// are keyed by seed and sequence index alone.

import { performance } from 'node:perf_hooks'
import type { Call } from '../base/call.js'
import type { Models, TransformerPart } from '../models/models.js'
import { pauses } from '../pictures/resample.js'
import { maxBatchSize } from './batcher.js'
import type { PicturePlan, Plan } from './decoder.js'
import type { Sampling } from './sampling.js'
import { neighbours, passPlan, type Passes } from './passes.js'
import { behind, streamsOf, type SamplingRule } from './step.js'

/** What is drawn. A picture here is whatever the tokens of one sequence make: a picture or a video. */
export interface Drawing {
  part: TransformerPart
  plan: Plan
  classIds: readonly number[]
  /** [pictures] */
  seeds: readonly number[]
  sampling: Sampling
  passes: Passes
  /** Raster cells in generation order, one for all pictures or one each; empty where the method has its own. */
  orders: readonly Int32Array[]
  /** What is known beforehand: raster order, -1 where a cell is drawn; one for all pictures or one each. */
  known: readonly Int32Array[] | undefined
  /** Tokens of text in front of each sequence (prefix.ts), where the plan has such. */
  prefixes?: readonly Int32Array[] | undefined
}

/** One picture, all tokens known. */
export interface Drawn {
  /** Raster order, [tokens]. */
  raster: Int32Array
  picture: PicturePlan
  classId: number
  seed: number
  /** Passes that its steps took. */
  passes: number
}

/** A step that is done. */
export interface DrawnStep {
  /** Steps done, and steps of the whole list. */
  step: number
  steps: number
  /** The pictures in work: the first of them, by its place in the list. */
  from: number
  pictures: readonly PicturePlan[]
  /** Tokens known of each, and before this step. */
  known: number
  knownBefore: number
  /** Tokens of one of them as of now, in sequence order, [tokens]; as long as the group is in work. */
  tokensOf: ((index: number) => Promise<Int32Array>) | undefined
  /** With the last step of a group: its pictures. */
  drawn?: Drawn[]
  /** When the first step of the group was enqueued; milliseconds of its steps. */
  started: number
  transformerMs: number
  /** The last step of the whole list. */
  last: boolean
}

/**
 * Rows of steps that run on guesses which memory is taken for, of one stream and all sequences together. As many where
 * nothing is guessed: who joins a batch finds it as the first one has opened it.
 */
const ahead = { usual: 64, max: 1024 }

function aheadOf (passes: Passes, { maxRows }: Plan, pictures: number): number {
  const wanted = passes === 'auto' ? 0 : (passes - 1) * maxRows * Math.min(pictures, maxBatchSize)
  return Math.max(ahead.usual, Math.min(ahead.max, wanted))
}

/** One yield a step. Returning early cancels what is enqueued and frees the session. */
export async function * draw (models: Models, call: Call, drawing: Drawing): AsyncGenerator<DrawnStep, void, void> {
  const { part, plan, classIds, seeds, orders, known } = drawing
  const { passes } = drawing
  const { guidanceScale, draw: mode = 'inverse', ...rest } = drawing.sampling
  const rule: SamplingRule = { mode, ...rest }
  const stepCount = plan.tokensAfter.length
  const shape = {
    streamsEach: streamsOf(guidanceScale), slots: plan.slots, tokens: plan.prefix + plan.tokens, rows: plan.maxRows,
    kept: 0, ahead: aheadOf(passes, plan, classIds.length)
  }
  const pause = pauses(() => call.check()) // an order takes some milliseconds
  for (let [group, from] = [0, 0]; from < classIds.length; group++) {
    const begin = from
    const member = await models.batcher.join(call, {
      part, shape, count: classIds.length - begin, bytesOf: models.sessionBytes(part, shape)
    })
    const count = member.seats.length
    from += count
    const pictures: PicturePlan[] = []
    while (pictures.length < count) {
      const waiting = pause()
      if (waiting) await waiting
      const index = begin + pictures.length
      pictures.push(plan.picture(seeds[index]!, orders[orders.length === 1 ? 0 : index]))
    }
    call.check()
    await call.wait(member.enter(pictures.map((picture, i) => ({
      classId: classIds[begin + i]!,
      seed: BigInt(seeds[begin + i]!),
      known: behind(drawing.prefixes?.[begin + i], plan,
        known && picture.toSequence(known[known.length === 1 ? 0 : begin + i]!)),
      plan: passPlan(picture, rule, guidanceScale, passes === 1
        ? undefined
        : neighbours(picture, [part.frames ?? 1, ...part.grid], plan.prefix))
    })), passes))
    // The rest in groups of this size: more steps where memory gets scarce meanwhile.
    const steps = (group + 1 + Math.ceil((classIds.length - from) / count)) * stepCount
    const started = performance.now()

    // ---- steps, one ahead
    const ask = (k: number): Promise<void> | undefined => {
      if (k === stepCount) return undefined
      call.check()
      const done = member.step()
      done.catch(() => {})
      return done
    }
    const read = async (): Promise<Drawn[]> => {
      const sequences = await call.wait(member.tokens())
      call.release(member)
      return sequences.map((sequence, i) => ({
        raster: pictures[i]!.toRaster(sequence.subarray(plan.prefix)), picture: pictures[i]!,
        classId: classIds[begin + i]!, seed: seeds[begin + i]!, passes: member.passesOf(i)
      }))
    }
    const tokensOf = async (index: number): Promise<Int32Array> =>
      (await member.tokensNow(index)).subarray(plan.prefix)
    let current = ask(0)
    for (let k = 0; current; k++) {
      const next = ask(k + 1)
      await call.wait(current)
      current = next
      const drawn = next ? undefined : await read()
      const last = !next && from === classIds.length
      yield {
        step: group * stepCount + k + 1, steps, from: begin, pictures, known: next ? plan.tokensAfter[k]! : plan.tokens,
        knownBefore: k === 0 ? 0 : plan.tokensAfter[k - 1]!,
        tokensOf: next ? tokensOf : undefined, ...(drawn && { drawn }), started,
        transformerMs: performance.now() - started, last
      }
      if (!last) call.check()
    }
  }
}
