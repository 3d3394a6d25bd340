// What both ways of `parvis sample` share: its flags, where the pictures go, and what is said of them in the end.

import fs from 'node:fs/promises'
import type { Size } from '../api/options.js'
import { absolute, fromSystem } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import { shownPath } from '../base/text.js'
import { methodNames } from '../decoding/method.js'
import type { SampleRun } from '../evaluation/sample-run.js'
import { classList } from './arguments.js'
import type { ModelFlags } from './model.js'
import { checkFolder, checkOneFile } from './outputs.js'
import type { SamplingFlags, StepFlags } from './sampling.js'
import { printJson, printSummary, shown, UsageError } from './terminal.js'

export interface SampleFlags extends ModelFlags, SamplingFlags, StepFlags {
  count?: number
  seed?: number
  labels?: string
  shard?: [k: number, of: number]
  size?: Size
  out?: string
  overwrite?: boolean
  queue?: string
  queueCa?: string
}

/** What makes the pictures of a run: a model in this process, or workers on a queue. */
export interface SampleSource {
  run: SampleRun
  /** Classes there are, and their names. */
  classes: number
  labels: readonly string[] | undefined
  /**
   * Pictures `start` to `end - 1` of the run, in their order.
   * @param onDone told how many are done, those in work in parts
   */
  pictures (start: number, end: number, onDone: (done: number) => void): AsyncIterable<SamplePicture>
}

export interface SamplePicture { data: Uint8Array, toBuffer (): Promise<Uint8Array> }

/** The file or the folder that is written. */
export interface Place { file: string, kind: 'npz' | 'folder' }

export async function placeOf (out: string | undefined): Promise<Place> {
  if (out === undefined) throw new UsageError('where to? Give --out an .npz file, or a folder/')
  if (out === '-') throw new UsageError('sample writes a file or a folder; give --out its name')
  if (/\.npz$/i.test(out)) {
    const target = await checkOneFile(out)
    if (target.kind === 'special') {
      throw new UsageError(`${shownPath(out)} is a device or a pipe; give the name of a file`)
    }
    return { file: absolute(target.path), kind: 'npz' }
  }
  const isFolder = /[/\\]$/.test(out) || await fs.stat(out).then(found => found.isDirectory(), () => false)
  if (!isFolder) {
    throw new UsageError(`${shownPath(out)} is neither an .npz file nor a folder; end it in .npz, or in / for a folder`)
  }
  const folder = absolute(out)
  await makeFolder(folder).catch((error: unknown) => { throw fromSystem(error, folder, 'written') })
  await checkFolder(folder)
  return { file: folder, kind: 'folder' }
}

/** What --labels asks for. */
export function classesOf (
  { labels = 'random' }: SampleFlags, classes: number, names: readonly string[] | undefined
): SampleRun['classes'] {
  if (labels === 'random' || labels === 'balanced') return labels
  const list = classList([labels], classes, names)
  if (list.length === 0) throw new UsageError('--labels is empty; give random, balanced or a list of classes')
  return list
}

/** Pictures a second, in a few digits. */
export const rate = (value: number): string => value >= 10 ? value.toFixed(0) : value.toPrecision(2)

export async function say (
  flags: SampleFlags, { file }: Place, run: SampleRun,
  { pictures, made, seconds, parts }: { pictures: number, made: number, seconds?: number, parts?: number }
): Promise<void> {
  const { width, height, seed, classes, n, method, decoding, count, shard, device } = run
  const name = method && methodNames[method]
  const steps = decoding?.steps
  if (flags.json) {
    const how = name === undefined ? { n } : { method, ...(steps !== undefined && { steps }) }
    return await printJson({
      file, pictures, made, width, height, seed, labels: classes, ...how, count, ...(shard && { shard }), device,
      ...(seconds !== undefined && { seconds, picturesPerSecond: made / seconds }), ...(parts && { parts })
    })
  }
  const labels = typeof classes === 'string' ? `${classes} labels` : `labels ${classes.join(', ')}`
  const part = shard ? ` (part ${shard[0]} of ${shard[1]} of ${count})` : ''
  const end = parts !== undefined
    ? `put together from ${parts} parts`
    : seconds === undefined ? 'it was complete already' : `${rate(made / seconds)} pictures a second`
  const what = `${pictures} pictures${part}, ${width} x ${height} px`
  const how = name === undefined ? `n = ${n}` : `${name}${steps === undefined ? '' : `, ${steps} steps`}`
  // The record of a part that is merged is anyone's.
  await printSummary(shown`${flags.out!}: ${what}, ${how}, seed ${String(seed)}, ${labels}; ${end}` + '\n')
}
