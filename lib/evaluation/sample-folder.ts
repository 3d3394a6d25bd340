// Pictures in a folder, a PNG file each, named by their numbers. Each is written whole or not at all, so a folder is
// continued at the first number that is missing. A JSON file says what the pictures are and which class each has.

import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { writeWhole } from '../base/files.js'
import { rangeOf, type SampleRun } from './sample-run.js'

/** '000123.png': six digits, or as many as the largest number of the run has. */
export function sampleName (index: number, count: number): string {
  return `${String(index).padStart(Math.max(6, String(count - 1).length), '0')}.png`
}

/** The JSON file of a run or of a part of it. */
export function runName ({ shard }: Pick<SampleRun, 'shard'>): string {
  return shard === undefined ? 'samples.json' : `samples-${shard[0]}-of-${shard[1]}.json`
}

/** The content of that file. */
export function runText (run: SampleRun, labels: readonly number[]): string {
  return JSON.stringify({ ...run, labels }) + '\n'
}

/** Pictures at the beginning of a run that are there already. */
export async function countSamples (folder: string, run: SampleRun): Promise<number> {
  const names = new Set(await readdir(folder).catch(() => []))
  const [start, end] = rangeOf(run)
  let index = start
  while (index < end && names.has(sampleName(index, run.count))) index++
  return index - start
}

/** A file that bears the name of a picture of the run. */
export async function firstSample (folder: string, run: SampleRun): Promise<string | undefined> {
  const [start, end] = rangeOf(run)
  return (await readdir(folder).catch(() => [])).find(name => {
    const index = /^\d+\.png$/.test(name) ? Number.parseInt(name, 10) : -1
    return index >= start && index < end && name === sampleName(index, run.count)
  })
}

/** @throws ParError `FILE_NOT_FOUND`; what `check` throws */
export async function writeSample (
  folder: string, index: number, run: SampleRun, png: Uint8Array, check: () => void
): Promise<void> {
  await writeWhole(path.join(folder, sampleName(index, run.count)), png, check)
}
