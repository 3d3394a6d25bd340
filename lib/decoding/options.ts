// What a caller may vary of a method of decoding, and which method takes what.

import { invalid } from '../base/validate.js'
import type { StepSchedule } from './group-sizes.js'
import { methodNames, type Method } from './method.js'
import type { ParOptions } from './schedule.js'

/** How much of the guidance is in force: it grows with the tokens that are drawn, or does not change. */
export type GuidanceSchedule = 'linear' | 'constant'

/** What a caller may vary of ARPG, LPD and RandAR; each default is the authors' own. */
export interface ParallelOptions {
  /**
   * ARPG, LPD, RandAR: the number of steps. ARPG: 1 to the number of tokens. RandAR: 2 to the number of tokens. LPD:
   * those that its authors have group sizes for (8, 12, 16, 20, 24, 32, 64 and 256 on 16 x 16, 32, 48 and 1024 on
   * 32 x 32), or one a token. Default: `defaultSteps` of `info.transformer`.
   */
  steps?: number | undefined
  /** ARPG, LPD: tokens that each step draws, in place of `steps`. They add up to the tokens of a picture. */
  groupSizes?: readonly number[] | undefined
  /**
   * ARPG, LPD, RandAR: the raster cells in the order in which they are drawn, one list for all pictures or one each:
   * a permutation of 0 .. tokens - 1. Default: the method's own, drawn from the picture's seed (ARPG, RandAR: any
   * order; LPD: its locality-aware one). `score` and `classify`, which have no seed, draw it from seed 0.
   */
  tokenOrder?: ArrayLike<number> | ReadonlyArray<ArrayLike<number>> | undefined
  /** ARPG: how the number of tokens grows from step to step. Default: `arccos`. */
  stepSchedule?: StepSchedule | undefined
  /** ARPG, LPD, RandAR: whether the guidance scale grows from 1 to `guidanceScale`. Default: `linear`. */
  guidanceSchedule?: GuidanceSchedule | undefined
}

/** What a caller may vary of the method; which method takes what is said at each option. */
export interface DecodingOptions extends ParOptions, ParallelOptions {}

/** The same, checked as far as that needs no model. */
export type CheckedDecoding = Omit<DecodingOptions, 'groupSizes' | 'tokenOrder'> & {
  groupSizes?: readonly number[] | undefined
  /** One for all pictures, or one each. */
  tokenOrder?: readonly Int32Array[] | undefined
}

/** PAR's. */
export const parOptions = ['order', 'initial', 'groupAttention', 'tokensPerStep'] as const
const optionsOf: Readonly<Record<Method, ReadonlyArray<keyof DecodingOptions>>> = {
  par: parOptions,
  llamagen: parOptions,
  arpg: ['steps', 'groupSizes', 'tokenOrder', 'stepSchedule', 'guidanceSchedule'],
  lpd: ['steps', 'groupSizes', 'tokenOrder', 'guidanceSchedule'],
  randar: ['steps', 'tokenOrder', 'guidanceSchedule'],
  nbp: []
}

/** Every option of every method. */
export const decodingNames: ReadonlyArray<keyof DecodingOptions> = [...new Set(Object.values(optionsOf).flat())]

/** @throws ParError `INVALID_OPTION` for an option that another method has */
export function checkMethod (method: Method, options: CheckedDecoding): void {
  const own = optionsOf[method]
  for (const name of decodingNames) {
    if (options[name] === undefined || own.includes(name)) continue
    const others = (Object.keys(optionsOf) as Method[]).filter(other => optionsOf[other].includes(name))
    throw invalid(`${name} is an option of ${others.map(other => methodNames[other]).join(', ')}. This model is decoded ` +
      `by ${methodNames[method]}, which takes ${own.length === 0 ? 'none such' : own.join(', ')}`)
  }
}
