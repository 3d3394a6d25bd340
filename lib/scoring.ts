// How likely a model finds pictures that exist: all slots in one pass under the block-wise mask, with the tokens
// known beforehand. The pass is cut at step boundaries, so that it can be cancelled and its logits stay small; a
// cut changes nothing, because no slot sees beyond its own group.

import { inspect } from 'node:util'
import type { Call } from './call.js'
import { mostAtOnce, scheduleFor } from './generation.js'
import { resolveClasses } from './labels.js'
import type { Models } from './models.js'
import { rowStride, type NativeSession, type StepRule } from './native.js'
import type { CheckedClassify, CheckedScore } from './options.js'
import { pauses, type Pause } from './resample.js'
import { integer, tokenArray } from './validate.js'

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
    return `Score { total: ${this.total}, ${this.logProbs.length} tokens${this.logits ? `, ${this.logits.length} logits` : ''} }`
  }
}

/** How likely one class is, given a picture. */
export interface Classification {
  /** 0 to classes - 1. */
  classId: number
  /** Name of the class, where the model has names. */
  label: string | undefined
  /** p(class | picture) among the classes that were compared, each as likely beforehand as the others. They add up to 1. */
  probability: number
  /** log p(picture | class), natural logarithm: `total` of {@link Score}. */
  logProb: number
}

/** How far `classify` has come. */
export interface ClassifyProgress {
  /** Classes compared so far. */
  classesDone: number
  /** Classes to compare. */
  classes: number
}

/** Classes that are compared in one call of `score`: what is kept of them stays small, and progress is told between. */
const classesAtOnce = 32

/**
 * Classes by how likely each is to have made the picture, the likeliest first; ties in the order of their numbers.
 * Only totals are kept, so memory does not grow with the number of classes.
 */
export async function classify (models: Models, tokens: unknown, request: CheckedClassify, call: Call): Promise<Classification[]> {
  const part = await models.transformerFor(request.n, call)
  const { classes } = part.model
  const classIds = request.classes === undefined
    ? Array.from({ length: classes }, (_, id) => id)
    : [...new Set(await resolveClasses(request.classes, classes, part.labels, pauses(() => call.check())))].sort((a, b) => a - b)
  const totals: number[] = []
  for (let from = 0; from < classIds.length; from += classesAtOnce) {
    const some = classIds.slice(from, from + classesAtOnce)
    const scores = await score(models, {
      tokens: some.map(() => tokens), classIds: some, single: false, n: request.n, guidanceScale: request.guidanceScale,
      logits: undefined, method: 'full', ablation: request.ablation, signal: undefined
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
    .map((classId, i) => ({ classId, label: part.labels?.[classId], probability: weights[i]! / sum, logProb: totals[i]! }))
    .sort((a, b) => b.logProb - a.logProb)
    .slice(0, request.top)
}

/** Rows of one native call in a full pass. */
const rowsAtOnce = 256

export async function score (models: Models, request: CheckedScore, call: Call): Promise<Score[]> {
  const part = await models.transformerFor(request.n, call)
  const schedule = scheduleFor(part, request.ablation)
  const { vocabularySize, classes } = part.model
  const length = schedule.tokens
  const tokens = await checkTokens(request.tokens, undefined, vocabularySize, length, pauses(() => call.check()))
  const resolved = await resolveClasses(request.classIds, classes, part.labels, pauses(() => call.check()))
  const classIds = request.single ? tokens.map(() => resolved[0]!) : resolved
  const wanted = request.logits?.map((position, i) => integer(position, `logits[${i}]`, 0, length - 1))
  const kept = wanted && [...new Set(wanted)].sort((a, b) => a - b)

  const tables = request.method === 'cached' ? schedule.steps : schedule.fullSequenceTables(rowsAtOnce)
  const maxRows = tables.reduce((most, table) => Math.max(most, table.length / rowStride), 0)
  const guided = request.guidanceScale > 1
  const rule: StepRule = { mode: 'score', guidanceScale: request.guidanceScale, temperature: 1, topK: 0, topP: 1 }
  const shape = { guided, slots: length, tokens: length, maxRows }
  const keepLogits = kept && kept.length > 0 ? Int32Array.from(kept) : undefined

  const scores: Score[] = []
  for (let from = 0; from < tokens.length;) {
    const begin = from
    const lease = await call.hold(models.budget.session(call, Math.min(mostAtOnce, tokens.length - begin), models.sessionBytes(part, shape, keepLogits?.length),
      async sequences => {
        const known = new Int32Array(sequences * length)
        for (let i = 0; i < sequences; i++) known.set(schedule.toSequence(tokens[begin + i]!), i * length)
        return await part.native.createSession({
          classIds: Int32Array.from(classIds.slice(begin, begin + sequences)),
          seeds: new BigUint64Array(sequences),
          ...shape,
          known,
          ...(keepLogits && { keepLogits })
        })
      }))
    const { session, sequences } = lease
    from += sequences
    await runAll(session, tables, rule, call)
    const logProbs = await call.wait(session.readLogProbs())
    const logits = keepLogits ? await call.wait(session.readLogits()) : new Float32Array(0)
    call.release(lease)
    for (let i = 0; i < sequences; i++) {
      const own = schedule.toRaster(logProbs.slice(i * length, (i + 1) * length))
      const result = new Score(own)
      if (wanted && kept) {
        result.logits = new Float32Array(wanted.length * vocabularySize)
        wanted.forEach((position, k) => {
          const row = i * kept.length + kept.indexOf(position)
          result.logits!.set(logits.subarray(row * vocabularySize, (row + 1) * vocabularySize), k * vocabularySize)
        })
      }
      scores.push(result)
    }
  }
  return scores
}

/** Tokens of pictures checked; lets the event loop go on, because lists may be long. */
export async function checkTokens (
  list: readonly unknown[], name: string | undefined, vocabulary: number, length: number | undefined, pause: Pause
): Promise<Int32Array[]> {
  const pictures: Int32Array[] = []
  for (const [i, picture] of list.entries()) {
    pictures.push(tokenArray(picture, name ?? `tokens[${i}]`, vocabulary, length))
    const waiting = pause()
    if (waiting) await waiting
  }
  return pictures
}

/** Runs tables in order, one enqueued ahead. */
async function runAll (session: NativeSession, tables: readonly Int32Array[], rule: StepRule, call: Call): Promise<void> {
  let current: Promise<void> | undefined
  for (const table of tables) {
    call.check()
    const next = session.step(table, rule, call.cancel)
    next.catch(() => {})
    if (current) await call.wait(current)
    current = next
  }
  if (current) await call.wait(current)
}
