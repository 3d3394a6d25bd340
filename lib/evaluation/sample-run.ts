// What a run of samples is: everything that decides its bytes. It is written beside the pictures. A run is continued,
// and parts are put together, only where all of this is the same.

import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import path from 'node:path'
import type { SampleClasses } from '../api/samples.js'
import { fromSystem } from '../base/files.js'
import { isObject } from '../base/validate.js'
import type { Method } from '../decoding/method.js'
import type { ParallelOptions } from '../decoding/options.js'
import type { Sampling } from '../decoding/sampling.js'

/** A model file: its name, and a hash of its size, its first and its last mebibyte. */
export interface SampledFile { file: string, hash: string }

export interface SampleRun {
  format: 'parvis samples, version 1'
  transformer: SampledFile
  tokenizer: SampledFile
  n: number
  /** Of the models that have no n. */
  method?: Method
  /** Without guidanceScale where that follows from `decoding`. */
  sampling: Partial<Sampling>
  /** Steps that are not the usual ones. */
  decoding?: Omit<ParallelOptions, 'tokenOrder'>
  seed: number
  classes: SampleClasses
  count: number
  width: number
  height: number
  /** Results of other devices, precisions and instruction sets differ in their last bits. */
  device: string
  isa: string
  precision: string
  /** [k, of], k from 1; absent: the whole. */
  shard?: [k: number, of: number]
}

/** @throws ParError `FILE_NOT_FOUND` */
export async function sampledFile (file: string): Promise<SampledFile> {
  const handle = await open(file, 'r').catch((error: unknown) => { throw fromSystem(error, file, 'read') })
  try {
    const { size } = await handle.stat()
    const hash = createHash('sha256').update(String(size))
    const part = Buffer.alloc(2 ** 20)
    for (const at of [0, Math.max(0, size - part.length)]) {
      const { bytesRead } = await handle.read(part, 0, part.length, at)
      hash.update(part.subarray(0, bytesRead))
    }
    return { file: path.basename(file), hash: hash.digest('hex').slice(0, 16) }
  } catch (error) {
    throw fromSystem(error, file, 'read')
  } finally {
    await handle.close()
  }
}

/** First picture of a part, and the one behind its last. */
export function rangeOf ({ count, shard: [k, of] = [1, 1] }: Pick<SampleRun, 'count' | 'shard'>): [number, number] {
  return [Math.floor((k - 1) * count / of), Math.floor(k * count / of)]
}

/** The run that a text describes; undefined where it is none. What it says of itself is not believed further. */
export function parseRun (text: string | undefined): SampleRun | undefined {
  try {
    const run = JSON.parse(text ?? '') as SampleRun
    return isObject(run) && run.format === 'parvis samples, version 1' ? run : undefined
  } catch {
    return undefined
  }
}

/** What differs between two runs, in words: 'seed 3, not 4'. Empty where they are the same. */
export function differences (one: SampleRun, other: SampleRun): string[] {
  const text = (value: unknown): string => value === undefined ? 'none' : JSON.stringify(value).slice(0, 200)
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])] as Array<keyof SampleRun>
  return names.filter(name => JSON.stringify(one[name]) !== JSON.stringify(other[name]))
    .map(name => `${name} ${text(one[name])}, not ${text(other[name])}`)
}
