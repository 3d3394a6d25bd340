// parvis sample merge: the parts of a run, which --shard made, put together to what one run would have made.

import fs from 'node:fs/promises'
import path from 'node:path'
import { maxSamples } from '../api/samples.js'
import { fromSystem, withPart, writeWhole } from '../base/files.js'
import { shownPath, visible } from '../base/text.js'
import { renameOver } from '../base/windows.js'
import { SampleFile, readComment, readLabels, readSamples } from '../evaluation/sample-file.js'
import { countSamples, firstSample, runName, runText, sampleName, writeSample } from '../evaluation/sample-folder.js'
import { differences, parseRun, rangeOf, type SampleRun } from '../evaluation/sample-run.js'
import { placeOf, say, type SampleFlags } from './sample-place.js'
import { wrote } from './signals.js'
import { UsageError } from './terminal.js'

export async function merge (parts: string[], flags: SampleFlags, signal: AbortSignal): Promise<void> {
  if (parts.length === 0) {
    throw new UsageError('which parts? parvis sample merge part-1.npz part-2.npz --out samples.npz')
  }
  const place = await placeOf(flags.out)
  const isNpz = place.kind === 'npz'
  const found: Array<{ part: string, run: SampleRun, labels: number[] }> = []
  for (const part of parts) {
    signal.throwIfAborted()
    found.push({ part, ...isNpz ? await npzPart(part) : await folderPart(part) })
  }
  const of = found[0]!.run.shard![1]
  const whole: SampleRun = { ...found[0]!.run }
  delete whole.shard
  for (const { part, run } of found) {
    const why = differences({ ...whole, shard: [1, of] }, { ...run, shard: [1, run.shard![1]] })
    if (why.length > 0) {
      throw new UsageError(`${shownPath(part)} is a part of another run than ${shownPath(parts[0]!)}: ` +
        visible(why.slice(0, 3).join('; '), 400))
    }
  }
  const numbers = found.map(({ run }) => run.shard![0])
  const missing = Array.from({ length: of }, (_, i) => i + 1).filter(k => !numbers.includes(k))
  if (missing.length > 0) throw new UsageError(`part ${missing.slice(0, 10).join(', ')} of ${of} is missing`)
  if (numbers.length > of) throw new UsageError(`there are ${of} parts, and ${numbers.length} were given`)
  found.sort((a, b) => a.run.shard![0] - b.run.shard![0])
  const taken = isNpz
    ? await fs.stat(place.file).then(() => place.file, () => undefined)
    : await firstSample(place.file, whole)
  if (taken !== undefined && !flags.overwrite) {
    throw new UsageError(`${shownPath(taken)} is there already; give another name, or --overwrite`)
  }
  const labels = found.flatMap(({ labels }) => labels)
  if (isNpz) await mergeFiles(place.file, whole, labels, found, signal)
  else await mergeFolders(place.file, whole, labels, found, signal)
  wrote(place.file)
  await say(flags, place, whole, { pictures: labels.length, made: 0, parts: of })
}

type Part = Awaited<ReturnType<typeof npzPart>> & { part: string }

function notAPart (part: string, why: string): UsageError {
  return new UsageError(`${shownPath(part)} is no finished part of parvis sample --shard: ${why}`)
}

function checkedPart (part: string, run: SampleRun | undefined): SampleRun & { shard: [number, number] } {
  const isCount = (value: unknown, most: number): boolean =>
    Number.isInteger(value) && value as number >= 1 && value as number <= most
  if (!run) throw notAPart(part, 'it says nothing of a run')
  const { shard, count, width, height } = run
  if (shard === undefined) throw notAPart(part, 'it is a whole run')
  if (!Array.isArray(shard) || !isCount(shard[1], 1e6) || !isCount(shard[0], shard[1]) || !isCount(count, maxSamples) ||
    !isCount(width, 8192) || !isCount(height, 8192)) {
    throw notAPart(part, 'what it says of its run makes no sense')
  }
  return run as SampleRun & { shard: [number, number] }
}

/** The labels of a file are those that its own run gives, which is checked with its bytes. */
async function npzPart (part: string): Promise<{ run: SampleRun, labels: number[] }> {
  const run = checkedPart(part, parseRun(await readComment(part)))
  const [start, end] = rangeOf(run)
  const labels = await readLabels(part, { pictures: end - start, height: run.height, width: run.width })
  if (!labels) throw notAPart(part, 'it ends too soon')
  return { run, labels }
}

async function folderPart (part: string): Promise<{ run: SampleRun, labels: number[] }> {
  const names = await fs.readdir(part).catch((error: unknown) => { throw fromSystem(error, part, 'read') })
  const about = names.filter(name => /^samples-\d+-of-\d+\.json$/.test(name))
  if (about.length !== 1) {
    throw notAPart(part, `it has ${about.length} files samples-<k>-of-<parts>.json, and one is needed`)
  }
  const { labels, ...run } = (parseRun(await fs.readFile(path.join(part, about[0]!), 'utf8')) ?? {}) as SampleRun & {
    labels?: unknown
  }
  const checked = checkedPart(part, 'format' in run ? run : undefined)
  const [start, end] = rangeOf(checked)
  if (!Array.isArray(labels) || labels.length !== end - start || !labels.every(Number.isInteger)) {
    throw notAPart(part, 'its labels are not those of its run')
  }
  if (await countSamples(part, checked) < end - start) throw notAPart(part, 'it lacks pictures')
  return { run: checked, labels: labels as number[] }
}

async function mergeFiles (
  file: string, whole: SampleRun, labels: number[], parts: Part[], signal: AbortSignal
): Promise<void> {
  const shape = { pictures: labels.length, height: whole.height, width: whole.width }
  await withPart(path.dirname(file), async name => {
    const samples = await SampleFile.open(name, shape)
    try {
      for (const { part, run, labels: own } of parts) {
        try {
          for await (const picture of readSamples(part, { ...shape, pictures: own.length }, own, JSON.stringify(run))) {
            signal.throwIfAborted()
            await samples.add(picture)
          }
        } catch (error) {
          signal.throwIfAborted()
          const known = fromSystem(error, part, 'read')
          throw known === error && (error as Error).name === 'Error' ? notAPart(part, (error as Error).message) : known
        }
      }
      await samples.finish(labels, JSON.stringify(whole))
    } catch (error) {
      await samples.close().catch(() => {})
      throw error
    }
    await renameOver(name, file).catch((error: unknown) => { throw fromSystem(error, file, 'written') })
  })
}

async function mergeFolders (
  folder: string, whole: SampleRun, labels: number[], parts: Part[], signal: AbortSignal
): Promise<void> {
  const check = (): void => signal.throwIfAborted()
  for (const { part, run } of parts) {
    const [start, end] = rangeOf(run)
    for (let index = start; index < end; index++) {
      const name = sampleName(index, whole.count)
      const png = await fs.readFile(path.join(part, name)).catch((error: unknown) => {
        throw fromSystem(error, path.join(part, name), 'read')
      })
      await writeSample(folder, index, whole, png, check)
    }
  }
  await writeWhole(path.join(folder, runName(whole)), Buffer.from(runText(whole, labels)), check)
}
