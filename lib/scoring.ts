// How likely a model finds pictures that exist: all slots in one pass under the block-wise mask, with the tokens
// known beforehand. The pass is cut at step boundaries, so that it can be cancelled and its logits stay small; a
// cut changes nothing, because no slot sees beyond its own group.

import type { Call } from './call.js'
import { scheduleFor, sequencesAtOnce } from './generation.js'
import type { Models } from './models.js'
import { rowStride, type NativeSession, type StepRule } from './native.js'
import { resolveClasses, type CheckedScore } from './options.js'
import { integer, tokenArray } from './validate.js'

/** How likely one picture is. */
export interface Score {
  /** log p(token | class, what it may see), natural logarithm, raster order, [rows * columns]. */
  logProbs: Float32Array
  /** Sum of `logProbs`: log p(picture | class). */
  total: number
  /** Where positions were asked for: [positions, vocabularySize], after guidance. */
  logits?: Float32Array
}

/** Rows of one native call in a full pass. */
const rowsAtOnce = 256

export async function score (models: Models, request: CheckedScore, call: Call): Promise<Score[]> {
  const part = await models.transformerFor(request.n, call)
  const schedule = scheduleFor(part, request.ablation)
  const { vocabularySize, classes } = part.model
  const length = schedule.tokens
  const tokens = request.tokens.map((picture, i) => tokenArray(picture, `tokens[${i}]`, vocabularySize, length))
  const resolved = resolveClasses(request.classIds, classes, part.labels)
  const classIds = request.single ? tokens.map(() => resolved[0]!) : resolved
  const wanted = request.logits?.map((position, i) => integer(position, `logits[${i}]`, 0, length - 1))
  const kept = wanted && [...new Set(wanted)].sort((a, b) => a - b)

  const tables = request.method === 'cached' ? schedule.steps : schedule.fullSequenceTables(rowsAtOnce)
  const maxRows = tables.reduce((most, table) => Math.max(most, table.length / rowStride), 0)
  const guided = request.guidanceScale > 1
  const rule: StepRule = { mode: 'score', guidanceScale: request.guidanceScale, temperature: 1, topK: 0, topP: 1 }
  const atOnce = sequencesAtOnce(models.sessionBytes, part, length, guided, maxRows, kept?.length)

  const scores: Score[] = []
  for (let from = 0; from < tokens.length; from += atOnce) {
    const some = tokens.slice(from, from + atOnce)
    const known = new Int32Array(some.length * length)
    some.forEach((picture, i) => known.set(schedule.toSequence(picture), i * length))
    const session = await call.hold(part.native.createSession({
      classIds: Int32Array.from(classIds.slice(from, from + atOnce)),
      seeds: new BigUint64Array(some.length),
      guided,
      slots: length,
      tokens: length,
      maxRows,
      known,
      ...(kept && kept.length > 0 && { keepLogits: Int32Array.from(kept) })
    }))
    await runAll(session, tables, rule, call)
    const logProbs = await call.wait(session.readLogProbs())
    const logits = kept && kept.length > 0 ? await call.wait(session.readLogits()) : new Float32Array(0)
    call.release(session)
    for (let i = 0; i < some.length; i++) {
      const own = schedule.toRaster(logProbs.slice(i * length, (i + 1) * length))
      const result: Score = { logProbs: own, total: own.reduce((sum, value) => sum + value, 0) }
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
