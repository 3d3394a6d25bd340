// The rise from sequential to parallel prediction as trained models tell it: a model that predicts a group at once
// against one that predicts the same order token by token, on the same pictures. Which way a model predicts stands in
// its file beside the weights (`decoding`, JSON: the options of Par.score), or on the command line.

import { ParError } from '../base/errors.js'
import { shownPath, visible } from '../base/text.js'
import { openCheckpoint } from '../checkpoint/index.js'
import { parOptions } from '../decoding/options.js'
import { Par } from '../api/par.js'
import { createSchedule, type Order, type ParOptions, type Schedule } from '../decoding/schedule.js'
import type { TokenSet } from '../evaluation/token-set.js'
import type { MachineFlags } from './model.js'
import type { Progress } from './progress.js'
import { shown, UsageError } from './terminal.js'

/** Characters of decoding options at most. */
const longestDecoding = 4096

export interface ModelPair {
  parallel: string
  sequential: string
  parallelDecoding: ParOptions | undefined
  sequentialDecoding: ParOptions | undefined
}

/** The pairs that the command line names. @throws UsageError */
export function pairsOf (
  parallel: readonly string[], sequential: readonly string[], parallelDecoding: readonly string[],
  sequentialDecoding: readonly string[]
): ModelPair[] {
  if (parallel.length !== sequential.length) {
    throw new UsageError('a model that predicts in parallel is compared with one that predicts one by one; there are ' +
      `${parallel.length} --parallel and ${sequential.length} --sequential. Give one --sequential for each --parallel`)
  }
  for (const [name, list] of [['parallel', parallelDecoding], ['sequential', sequentialDecoding]] as const) {
    if (list.length > parallel.length) {
      throw new UsageError(`there are more --${name}-decoding than --${name}; give at most one for each`)
    }
  }
  const options = (list: readonly string[], k: number, flag: string): ParOptions | undefined => {
    const text = list[k]
    if (text === undefined) return undefined
    try {
      return parseDecoding(text)
    } catch (error) {
      throw new UsageError(`${flag}: ${(error as Error).message}`)
    }
  }
  return parallel.map((file, k) => ({
    parallel: file,
    sequential: sequential[k]!,
    parallelDecoding: options(parallelDecoding, k, '--parallel-decoding'),
    sequentialDecoding: options(sequentialDecoding, k, '--sequential-decoding')
  }))
}

/** @throws Error in words for whoever gave the text */
function parseDecoding (text: string): ParOptions {
  const example = 'give JSON such as {"order":"raster"}'
  if (text.length > longestDecoding) throw new Error(`decoding options have at most ${longestDecoding} characters`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Error(`decoding options that are no JSON; ${example}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`decoding options that are no object; ${example}`)
  }
  const options: Record<string, unknown> = {}
  for (const [name, option] of Object.entries(value)) {
    if (!(parOptions as readonly string[]).includes(name)) {
      throw new Error(`no decoding option is called ${visible(JSON.stringify(name), 60)}; there are ` +
        parOptions.join(', '))
    }
    options[name] = option
  }
  return options as ParOptions
}

/** What stands in a file beside its weights. */
async function ownDecoding (file: string, signal: AbortSignal): Promise<ParOptions> {
  const { metadata } = await openCheckpoint(file, { signal })
  const text = Object.hasOwn(metadata, 'decoding') ? metadata.decoding : undefined
  if (typeof text !== 'string') return {}
  try {
    return parseDecoding(text)
  } catch (error) {
    throw new ParError('BAD_CHECKPOINT', `${shownPath(file)}: ${(error as Error).message}`)
  }
}

export interface PairResult {
  order: Order
  /** Tokens a step of the parallel model. */
  tokensPerStep: number
  parallel: string
  sequential: string
  /** Bits a token, means over all tokens and pictures. */
  bits: { parallel: number, sequential: number }
  /** What a model that knows nothing needs. */
  blind: number
  /** Rise of each cell in bits, mean over the pictures; NaN where both models predict one by one. */
  cells: Float64Array
  tokens: number
  /** Mean over the first tokens of the groups, where parallel prediction leaves nothing out: what else differs. */
  firstOfGroup: number
  /** What each picture contributes to the mean over `tokens`. */
  contributions: Float64Array
}

interface Scored {
  /** log p, [pictures, cells] */
  logProbs: Float32Array
  schedule: Schedule
  vocabularySize: number
}

/** Pictures scored in one call. */
const atOnce = 32

/** @param chosen pictures of the set that are scored, by number; @param labels the class of each of these */
export async function scorePair (
  pair: ModelPair, set: TokenSet, chosen: Int32Array, labels: ReadonlyArray<number | string>,
  flags: MachineFlags & { heads?: number }, progress: Progress, signal: AbortSignal
): Promise<PairResult> {
  const scored: Record<'parallel' | 'sequential', Scored | undefined> = { parallel: undefined, sequential: undefined }
  for (const which of ['parallel', 'sequential'] as const) {
    const decoding = (which === 'parallel' ? pair.parallelDecoding : pair.sequentialDecoding) ??
      await ownDecoding(pair[which], signal)
    const known = scored.parallel?.schedule
    scored[which] = await scoreAll(pair[which], decoding, set, chosen, labels, flags, progress, signal, schedule => {
      checkSchedule(which, pair[which], schedule)
      if (known && known.cells.some((cell, q) => cell !== schedule.cells[q])) {
        throw new UsageError(shown`${pair.parallel} and ${pair.sequential} do not predict in one order ` +
          `(${known.order} with n = ${known.n}, ${schedule.order} with n = ${schedule.n}); their difference would be ` +
          'that of the orders too. Give a pair of one order')
      }
    })
  }
  const [parallel, sequential] = [scored.parallel!, scored.sequential!]
  const { tokensPerStep: group, cells: order, order: name, initial } = parallel.schedule
  const cells = order.length
  const first = initial === 'sequential' ? group : 0
  const result: PairResult = {
    order: name,
    tokensPerStep: group,
    parallel: pair.parallel,
    sequential: pair.sequential,
    bits: { parallel: bitsOf(parallel.logProbs), sequential: bitsOf(sequential.logProbs) },
    blind: Math.log2(parallel.vocabularySize),
    cells: new Float64Array(cells).fill(NaN),
    tokens: cells - first,
    firstOfGroup: 0,
    contributions: new Float64Array(chosen.length)
  }
  for (let q = first; q < cells; q++) {
    const cell = order[q]!
    let sum = 0
    for (let k = 0; k < chosen.length; k++) {
      const bits = (sequential.logProbs[k * cells + cell]! - parallel.logProbs[k * cells + cell]!) / Math.LN2
      sum += bits
      result.contributions[k]! += bits / result.tokens
    }
    result.cells[cell] = sum / chosen.length
    if (q % group === 0) result.firstOfGroup += sum / chosen.length / (result.tokens / group)
  }
  return result
}

function bitsOf (logProbs: Float32Array): number {
  let sum = 0
  for (let k = 0; k < logProbs.length; k++) sum += logProbs[k]!
  return -sum / logProbs.length / Math.LN2
}

function checkSchedule (which: 'parallel' | 'sequential', file: string, { tokensPerStep }: Schedule): void {
  const cure = `say how it predicts with --${which}-decoding, if its file does not`
  if (which === 'parallel' && tokensPerStep < 2) {
    throw new UsageError(shown`--parallel ${file} predicts one token a step; exchange it with --sequential, or ` + cure)
  }
  if (which === 'sequential' && tokensPerStep > 1) {
    throw new UsageError(shown`--sequential ${file} predicts ${tokensPerStep} tokens a step; give a model that was ` +
      `trained to predict one, or ${cure}`)
  }
}

async function scoreAll (
  file: string, decoding: ParOptions, set: TokenSet, chosen: Int32Array,
  labels: ReadonlyArray<number | string>, flags: MachineFlags & { heads?: number }, progress: Progress,
  signal: AbortSignal, check: (schedule: Schedule) => void
): Promise<Scored> {
  const { device, precision, threads, heads } = flags
  progress.update(0, 1, 'loading a model')
  const par = await Par.load({ transformer: { path: file, heads }, device, precision, threads, signal })
  try {
    const { n, grid, vocabularySize } = par.info.transformer!
    if (grid[0] !== set.grid[0] || grid[1] !== set.grid[1]) {
      throw new UsageError(shown`${file} predicts ${grid.join(' x ')} tokens, the pictures have ` +
        `${set.grid.join(' x ')}; give a model for them`)
    }
    let schedule: Schedule
    try {
      schedule = createSchedule({ grid, n, ...decoding })
    } catch (error) {
      throw new UsageError(shown`${file}: ${(error as Error).message}`)
    }
    check(schedule)
    const cells = grid[0] * grid[1]
    const logProbs = new Float32Array(chosen.length * cells)
    for (let from = 0; from < chosen.length; from += atOnce) {
      progress.update(from, chosen.length, `scored ${from}/${chosen.length} pictures`)
      const some = Array.from(chosen.subarray(from, from + atOnce))
      const tokens = some.map(k => Int32Array.from(set.tokens.subarray(k * cells, (k + 1) * cells)))
      const odd = tokens.flatMap(picture => Array.from(picture)).find(token => token >= vocabularySize)
      if (odd !== undefined) {
        throw new ParError('BAD_TOKENS', `a picture holds the token ${odd}, and ${shownPath(file)} knows ` +
          `${vocabularySize}; give a model for the tokenizer that the tokens are of`)
      }
      const scores = await par.score({ tokens, classId: labels.slice(from, from + atOnce), n, ...decoding, signal })
      scores.forEach((score, k) => logProbs.set(score.logProbs, (from + k) * cells))
    }
    return { logProbs, schedule, vocabularySize }
  } finally {
    await par.dispose()
  }
}
