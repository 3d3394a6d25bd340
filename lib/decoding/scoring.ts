// How likely a model finds pictures that exist: all slots in one pass under the block-wise mask, with the tokens
// known beforehand. The pass is cut at step boundaries, so that it can be cancelled and its logits stay small; a
// cut changes nothing, because no slot sees beyond its own group.

import { inspect } from 'node:util'
import type { Call } from '../base/call.js'
import { maxBatchSize } from './batcher.js'
import { ordersOf, planFor } from './plans.js'
import { checkPrefixes, prefixesOf } from './prefix.js'
import { resolveClasses } from '../models/labels.js'
import type { Models } from '../models/models.js'
import { rowStride } from '../machine/native.js'
import { sessionShape } from '../models/memory.js'
import { checkGuidance, type CheckedClassify, type CheckedScore } from '../api/options.js'
import { pauses } from '../pictures/resample.js'
import type { PicturePlan, PlannedStep } from './decoder.js'
import { StepMemory, behind, seatedSession, stepDone, streamsOf, type SamplingRule, type StepPart } from './step.js'
import { checkTokens } from './tokens.js'
import { integer } from '../base/validate.js'

/** How likely one picture is. */
export class Score {
  /** log p(token | class, what it may see), natural logarithm, raster order, [rows * columns]. */
  logProbs: Float32Array
  /** Sum of `logProbs`: log p(picture | class). */
  total: number
  /** Where positions were asked for: [positions, vocabularySize], after guidance. */
  declare logits?: Float32Array

  /** @internal */
  constructor (logProbs: Float32Array) {
    this.logProbs = logProbs
    this.total = logProbs.reduce((sum, value) => sum + value, 0)
  }

  /** The total and the log-probabilities as plain numbers, without logits: for logs and answers. */
  toJSON (): object {
    return { total: this.total, logProbs: Array.from(this.logProbs) }
  }

  /** @internal */
  [inspect.custom] (): string {
    return `Score { total: ${this.total}, ${this.logProbs.length} ` +
      `tokens${this.logits ? `, ${this.logits.length} logits` : ''} }`
  }
}

/** How likely one class is, given a picture. */
export interface Classification {
  /** 0 to classes - 1. */
  classId: number
  /** Name of the class, where the model has names. */
  label: string | undefined
  /**
   * p(class | picture) among the classes that were compared, each as likely beforehand as the others. They add up to 1.
   */
  probability: number
  /** log p(picture | class), natural logarithm: `total` of {@link Score}. */
  logProb: number
}

/** Classes that are compared in one call of `score`: what is kept of them stays small, and progress is told between. */
const classesAtOnce = 32

/**
 * Classes by how likely each is to have made the picture, the likeliest first; ties in the order of their numbers.
 * Only totals are kept, so memory does not grow with the number of classes.
 */
export async function classify (
  models: Models, tokens: unknown, request: CheckedClassify, call: Call
): Promise<Classification[]> {
  const part = await models.transformerFor(request.n, call)
  const { classes } = part.model
  const classIds = request.classes === undefined
    ? Array.from({ length: classes }, (_, id) => id)
    : [...new Set(await resolveClasses(request.classes, classes, part.labels, pauses(() => call.check())))]
        .sort((a, b) => a - b)
  const totals: number[] = []
  for (let from = 0; from < classIds.length; from += classesAtOnce) {
    const some = classIds.slice(from, from + classesAtOnce)
    const scores = await score(models, {
      tokens: some.map(() => tokens), classIds: some, prefixes: undefined, single: false, n: request.n,
      guidanceScale: request.guidanceScale,
      logits: undefined, method: 'full', decoding: request.decoding, signal: undefined
    }, call)
    totals.push(...scores.map(({ total }) => total))
    await call.tell(request.onProgress, { classesDone: totals.length, classes: classIds.length })
    call.check()
  }
  // Divided by the largest, so that the likeliest class is counted as 1 and nothing overflows.
  const most = totals.reduce((a, b) => Math.max(a, b), -Infinity)
  const weights = totals.map(total => Math.exp(total - most))
  const sum = weights.reduce((a, b) => a + b, 0)
  return classIds
    .map((
      classId, i
    ) => ({ classId, label: part.labels?.[classId], probability: weights[i]! / sum, logProb: totals[i]! }))
    .sort((a, b) => b.logProb - a.logProb)
    .slice(0, request.top)
}

/** What is run of one picture. */
interface Run { picture: PicturePlan, tables: readonly PlannedStep[] }

/** Rows of one native call in a full pass. */
const rowsAtOnce = 256

export async function score (models: Models, request: CheckedScore, call: Call): Promise<Score[]> {
  const part = await models.transformerFor(request.n, call)
  const plan = planFor(part, request.decoding)
  const orders = ordersOf(request.decoding.tokenOrder, plan)
  const { vocabularySize, classes } = part.model
  const length = plan.tokens
  const tokens = await checkTokens(request.tokens, undefined, vocabularySize, length, pauses(() => call.check()))
  checkGuidance(part.method, request.guidanceScale)
  checkPrefixes(part, request.prefixes)
  const forAll = <T>(given: readonly T[]): readonly T[] => request.single ? tokens.map(() => given[0]!) : given
  const classIds = request.prefixes
    ? tokens.map(() => 0)
    : forAll(await resolveClasses(request.classIds, classes, part.labels, pauses(() => call.check())))
  const texts = prefixesOf(part, classIds, request.prefixes && forAll(request.prefixes))
  const wanted = request.logits?.map((position, i) => integer(position, `logits[${i}]`, 0, length - 1))
  const kept = wanted && [...new Set(wanted)].sort((a, b) => a - b)

  const runOf = (order: Int32Array | undefined): Run => {
    const picture = plan.picture(0, order)
    return { picture, tables: request.method === 'cached' ? picture.steps : picture.fullTables(rowsAtOnce) }
  }
  const first = runOf(orders[0])
  const maxRows = first.tables.reduce((max, { rows }) => Math.max(max, rows.length / rowStride), 0)
  const { guidanceScale } = request
  const streamsEach = streamsOf(guidanceScale)
  const rule: SamplingRule = { mode: 'score', temperature: 1, topK: 0, topP: 1 }
  const places = new Map(kept?.map((position, place) => [plan.prefix + position, place]))
  const shape = { streamsEach, slots: plan.slots, tokens: plan.prefix + length, rows: maxRows, kept: places.size }

  const scores: Score[] = []
  for (let from = 0; from < tokens.length;) {
    const begin = from
    let runs: Run[] = []
    const lease = await call.hold(models.budget.session(call, Math.min(maxBatchSize, tokens.length - begin),
      models.sessionBytes(part, shape),
      async sequences => {
        runs = await runsOf(begin, sequences)
        return await seatedSession(part.native, sessionShape(shape, sequences), runs.map(({ picture }, seat) => ({
          classId: classIds[begin + seat]!,
          seed: 0n,
          known: behind(texts?.[begin + seat], plan, picture.toSequence(tokens[begin + seat]!))
        })))
      }))
    const { session, sequences } = lease
    from += sequences
    const seats = Array.from({ length: sequences }, (_, seat) => seat)
    const stepTables = new StepMemory(part.model.crossLayers > 0)
    let current: Promise<void> | undefined
    for (let k = 0; k < first.tables.length; k++) { // one enqueued ahead
      call.check()
      const parts = runs.map(({ tables }, seat): StepPart =>
        ({ seat, ...tables[k]!, guidanceScale, rule, kept: places }))
      const next = stepDone(session, session.step(stepTables.compose(parts, streamsEach), call.cancel))
      next.catch(() => {})
      if (current) await call.wait(current)
      current = next
    }
    if (current) await call.wait(current)
    const logProbs = await call.wait(Promise.all(seats.map(async seat => await session.readLogProbs(seat))))
    const logits = places.size > 0
      ? await call.wait(Promise.all(seats.map(async seat => await session.readLogits(seat))))
      : []
    call.release(lease)
    for (const seat of seats) {
      const result = new Score(runs[seat]!.picture.toRaster(logProbs[seat]!.subarray(plan.prefix)))
      if (wanted) {
        result.logits = new Float32Array(wanted.length * vocabularySize)
        wanted.forEach((position, k) => {
          const row = places.get(plan.prefix + position)!
          result.logits!.set(logits[seat]!.subarray(row * vocabularySize, (row + 1) * vocabularySize),
            k * vocabularySize)
        })
      }
      scores.push(result)
    }
  }
  return scores

  /** Of so many pictures; they share one where they share an order. Lets the event loop go on. */
  async function runsOf (begin: number, count: number): Promise<Run[]> {
    const pause = pauses(() => call.check())
    const runs: Run[] = []
    while (runs.length < count) {
      const waiting = pause()
      if (waiting) await waiting
      runs.push(orders.length <= 1 ? first : runOf(orders[begin + runs.length]))
    }
    return runs
  }
}
