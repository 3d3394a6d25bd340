// The arithmetic between clock readings and tables. Pure: tests give it numbers that no machine measured.

import type { Schedule } from '../decoding/schedule.js'
import type { Ceilings, OperationResult, PeerResult, Result, Shares, Spread, StepResult } from './types.js'

export function spread (times: readonly number[]): Spread {
  const sorted = [...times].sort((a, b) => a - b)
  const half = sorted.length >> 1
  const median = sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
  return { median, least: sorted[0]!, greatest: sorted.at(-1)! }
}

/** A step to time, which stands for `steps` of them. */
export interface Place {
  /** Index of a step. */
  step: number
  /** It and its neighbours. */
  from: number
  to: number
  steps: number
  /** Stage 1: one token at a time. */
  single: boolean
}

/**
 * Steps to time instead of all: the middles of equal parts, because a step's cost grows evenly with the slots that it
 * sees. Stage 1 (n steps of one row) is a part of its own.
 */
export function places (
  schedule: { steps: { length: number } } & Pick<Schedule, 'tokensPerStep' | 'initial'>, count: number): Place[] {
  const { steps, tokensPerStep } = schedule
  const first = tokensPerStep > 1 && schedule.initial === 'sequential' ? tokensPerStep : 0
  const part = (from: number, to: number, single: boolean): Place =>
    ({ step: (from + to - 1) >> 1, from, to, steps: to - from, single })
  const rest = steps.length - first
  const parts = Math.min(count, rest)
  const groups = Array.from({ length: parts },
    (_, i) => part(first + Math.floor(rest * i / parts), first + Math.floor(rest * (i + 1) / parts), false))
  return first > 0 ? [part(0, first, true), ...groups] : groups
}

/** All steps from those that were timed: each place's median times the steps it stands for. */
export function extrapolate (timed: ReadonlyArray<{ steps: number, ms: number }>): number {
  return timed.reduce((sum, { steps, ms }) => sum + steps * ms, 0)
}

/** The greater of two measurements of a ceiling: what else runs on a machine can only lower them. */
export function better (a: Ceilings, b: Ceilings): Ceilings {
  return {
    readBytesPerSecond: Math.max(a.readBytesPerSecond, b.readBytesPerSecond),
    float32Flops: Math.max(a.float32Flops, b.float32Flops),
    bfloat16Flops: Math.max(a.bfloat16Flops, b.bfloat16Flops)
  }
}

export function shares (
  result: { precision: string, gigaflops: number, gigabytesPerSecond?: number }, ceilings: Ceilings | null
): Shares {
  if (!ceilings) return { ceilings }
  const peak = result.precision === 'float32' ? ceilings.float32Flops : ceilings.bfloat16Flops
  return {
    ceilings,
    ...(result.gigabytesPerSecond !== undefined &&
      { ofReadCeiling: result.gigabytesPerSecond * 1e9 / ceilings.readBytesPerSecond }),
    ofArithmeticCeiling: result.gigaflops * 1e9 / peak
  }
}

// ---- speed-up over n = 1

export interface SpeedUp {
  /** Of a picture. */
  measured: number
  /** If every step took as long as one at n = 1. */
  bySteps: number
  /** What an average step takes, of one at n = 1: bySteps / measured. */
  stepRatio: number
}

export const isStep = (result: Result): result is StepResult => result.operation === 'step'

/** The same at n = 1, in the same run. */
export function baseline (result: StepResult, results: readonly Result[]): StepResult | undefined {
  return results.filter(isStep).find(one => one.n === 1 && one.model === result.model && one.device === result.device &&
    one.precision === result.precision && one.batch === result.batch && one.grid === result.grid)
}

/** Undefined where n = 1 was not run. */
export function speedUp (result: StepResult, results: readonly Result[]): SpeedUp | undefined {
  const one = baseline(result, results)
  if (!one) return undefined
  const measured = one.msPerImage / result.msPerImage
  const bySteps = one.steps / result.steps
  return { measured, bySteps, stepRatio: bySteps / measured }
}

/** Up to this ratio of steps the step counts tell the speed-up. */
export const consistent = 1.15

/** From this share of a ceiling on, that is what limits. */
const near = 0.6

/** Why a speed-up is not that of the step counts; undefined where it is, or where there is nothing to compare. */
export function explain (result: StepResult, results: readonly Result[]): string | undefined {
  const up = speedUp(result, results)
  const one = baseline(result, results)
  if (!up || !one || result.n <= 1 || (up.stepRatio <= consistent && up.stepRatio >= 1 / consistent)) return undefined
  const batch = result.batch > 1 ? `, batch ${result.batch}` : ''
  const grid = result.grid !== 24 ? `, grid ${result.grid}` : ''
  const name = `${result.model}, n = ${result.n}${batch}${grid}, ${result.precision}, ${result.device}`
  const head = `${name}: ${up.measured.toFixed(2)}x where the steps alone give ${up.bySteps.toFixed(2)}x, because ` +
    `an average step takes ${up.stepRatio.toFixed(2)}x one at n = 1.`
  if (up.stepRatio < 1) return `${head} It cannot do with less: the machine was slower while n = 1 was measured.`
  const work = `It makes ${(result.flops / one.flops).toFixed(1)} times the products ` +
    `on ${(result.bytes / one.bytes).toFixed(2)} times the bytes`
  if (result.ofArithmeticCeiling === undefined || result.ofReadCeiling === undefined) return `${head} ${work}.`
  const [products, reading] = [result.ofArithmeticCeiling, result.ofReadCeiling]
  const text = (share: number): string => `${(share * result.ms.median).toFixed(1)} (${Math.round(share * 100)}%)`
  const limit = Math.max(products, reading) < near
    ? 'neither is near, so the limit is in the kernels, or in what else the machine did'
    : products > reading ? 'products limit it' : 'reading limits it'
  return `${head} ${work}. Of its ${result.ms.median.toFixed(1)} ms the machine's ceilings explain ${text(reading)} ` +
    `by reading and ${text(products)} by products: ${limit}.`
}

/** Its row's name, also in older reports, whose peers have threads and no names. */
export const peerName = ({ name, threads = 0 }: Pick<PeerResult, 'name' | 'threads'>): string =>
  name ?? `${threads} thread${threads === 1 ? '' : 's'}`

// ---- operations

/** What an operation would wait for longest on a device that reaches both its ceilings; undefined without ceilings. */
export function limitOf ({ ofReadCeiling, ofArithmeticCeiling }: Shares): 'reading' | 'products' | undefined {
  if (ofReadCeiling === undefined || ofArithmeticCeiling === undefined) return undefined
  return ofReadCeiling >= ofArithmeticCeiling ? 'reading' : 'products'
}

/** The operations of one step or decode, in the order in which they run. */
export interface Parts {
  parts: OperationResult[]
  /** Milliseconds of all that count. */
  sum: number
  /** The same step or decode, measured as a whole in the same run; undefined where it was not. */
  whole: number | undefined
}

export function groupParts (operations: readonly OperationResult[], results: readonly Result[]): Parts[] {
  const key = (one: Pick<OperationResult, 'model' | 'n' | 'batch' | 'grid' | 'precision' | 'device'>): string =>
    [one.model, one.n, one.batch, one.grid, one.precision, one.device].join()
  const groups = new Map<string, OperationResult[]>()
  for (const one of operations) groups.set(key(one), [...groups.get(key(one)) ?? [], one])
  return [...groups].map(([name, parts]) => ({
    parts,
    sum: parts.filter(({ summed }) => summed !== false).reduce((sum, { msInAll }) => sum + msInAll, 0),
    whole: results.find(one =>
      one.operation === parts[0]!.partOf && key(isStep(one) ? one : { ...one, n: undefined }) === name)?.ms.median
  }))
}
