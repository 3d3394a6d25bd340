// The options of `samples`: pictures for an evaluation. The number of a picture decides its class and its seed, so a
// run can be stopped, continued and divided among machines.

import { createHash } from 'node:crypto'
import { callback, integer, invalid, isList, optionsObject, show } from '../base/validate.js'
import { limits } from '../machine/limits.js'
import type { ClassId } from '../models/labels.js'
import { checkGenerate, generateNames, isChecked, type CheckedGenerate, type GenerateOptions } from './options.js'

/** Far above what an evaluation takes. */
export const maxSamples = 10_000_000

/**
 * Which class each picture has. `random`: each class is equally likely, by the seed and the number of the picture.
 * `balanced`: class 0, 1, 2 and so on, and again from the first. A list: its entries, and again from the first.
 */
export type SampleClasses = 'random' | 'balanced' | readonly ClassId[]

/** How far `samples` is. */
export interface SamplesProgress {
  /** Pictures finished, and those in work in parts: 12.5 where the 13th is half drawn. */
  done: number
  /** Pictures in all, `end - start`. */
  pictures: number
}

/** Options of `samples`. */
export interface SamplesOptions extends Omit<GenerateOptions, 'classId' | 'known' | 'onProgress'> {
  /** Pictures of the whole run, 1 to 10,000,000. */
  count: number
  /** Default `random`. */
  classes?: SampleClasses | undefined
  /** 0 to 2^53 - 1, default 0. Picture i has the seed `seed + i` (modulo 2^53). */
  seed?: number | undefined
  /** First picture that is made, default 0: those before it are there already, or somebody else makes them. */
  start?: number | undefined
  /** The picture before which to stop, default `count`. */
  end?: number | undefined
  /** Called after each step. An error thrown in it ends the call with that error. */
  onProgress?: ((progress: SamplesProgress) => void) | undefined
}

export interface CheckedSamples {
  classes: SampleClasses
  seed: number
  start: number
  end: number
  /** What each list of pictures is generated with, but for classes and seeds. */
  generate: CheckedGenerate
  onProgress: SamplesOptions['onProgress']
}

export function checkSamples (value: unknown): CheckedSamples {
  if (isChecked<CheckedSamples>(value)) return value.request
  const { count, classes = 'random', seed = 0, start = 0, end = count, onProgress, ...rest } =
    optionsObject(value, 'samples', sampleNames) as Record<string, number>
  const generate = checkGenerate({ ...rest, classId: 0 }, 'samples')
  if (count === undefined) throw invalid('samples needs count: how many pictures')
  integer(count, 'count', 1, maxSamples)
  return {
    classes: classesOption(classes),
    seed: integer(seed, 'seed', 0, Number.MAX_SAFE_INTEGER),
    start: integer(start, 'start', 0, count),
    end: integer(end, 'end', start, count),
    generate,
    onProgress: callback(onProgress, 'onProgress')
  }
}

const sampleNames = ['count', 'classes', 'start', 'end',
  ...generateNames.filter(name => name !== 'known' && name !== 'classId')]

function classesOption (value: unknown): SampleClasses {
  if (value === 'random' || value === 'balanced') return value
  if (!isList(value)) throw invalid(`classes must be 'random', 'balanced' or a list of classes, not ${show(value)}`)
  if (value.length === 0 || value.length > limits.tokens) {
    throw invalid(`classes must hold 1 to ${limits.tokens} entries, not ${value.length}`)
  }
  return [...value as ClassId[]]
}

/**
 * The class of picture `index`; of a list, its entry.
 * @param count classes there are
 */
export function sampleClass (classes: SampleClasses, seed: number, index: number, count: number): ClassId {
  if (typeof classes !== 'string') return classes[index % classes.length]!
  if (classes === 'balanced') return index % count
  // 48 bits of a hash: equally likely to 1 in 2^38.
  const bits = createHash('sha256').update(`parvis samples ${seed} ${index}`).digest().readUIntBE(0, 6)
  return Math.floor(bits / 2 ** 48 * count)
}

/** The seed of picture `index`. BigInt: the sum may pass 2^53. */
export const sampleSeed = (seed: number, index: number): number =>
  Number(BigInt.asUintN(53, BigInt(seed) + BigInt(index)))
