// parvis sample: thousands of pictures for an evaluation, in one .npz file or in a folder. A run that was stopped, by
// whatever, is continued by the same command; a run can be divided among machines and put together again. Either way
// the bytes are those of one uninterrupted run.

import { Command } from 'commander'
import fs from 'node:fs/promises'
import path from 'node:path'
import type { Par } from '../api/par.js'
import { maxSamples, sampleClass } from '../api/samples.js'
import { fromSystem, writeWhole } from '../base/files.js'
import { shownPath, visible } from '../base/text.js'
import { renameOver } from '../base/windows.js'
import { SampleFile, readComment, sampleFileBytes } from '../evaluation/sample-file.js'
import { countSamples, firstSample, runName, runText, writeSample } from '../evaluation/sample-folder.js'
import { hasN } from '../decoding/method.js'
import type { Sampling } from '../decoding/sampling.js'
import { differences, parseRun, rangeOf, sampledFile, type SampleRun } from '../evaluation/sample-run.js'
import { embedded } from '../models/embedded.js'
import { resolveClass } from '../models/labels.js'
import { fileName, integer, size } from './arguments.js'
import { examples } from './help.js'
import { checkModel, loadModel, modelOptions, withPar } from './model.js'
import type { Progress } from './progress.js'
import { pullReporter } from './pull.js'
import { merge } from './sample-merge.js'
import {
  classesOf, placeOf, rate, say, type Place, type SampleFlags, type SamplePicture, type SampleSource
} from './sample-place.js'
import { checkQueue, withQueue } from './sample-queue.js'
import { samplingOf, samplingOptions, stepOptions, stepsOf } from './sampling.js'
import { leaves, wrote } from './signals.js'
import { note, shown, UsageError } from './terminal.js'

export function sampleCommand (signal: AbortSignal): Command {
  const command = new Command('sample')
    .description('Make many pictures for an evaluation (`parvis eval`): an .npz file as the ADM evaluator reads it, ' +
      'or a folder of PNG files. The same command continues a run that was stopped. ' +
      '`parvis sample merge <parts...> --out <file>` puts the parts of --shard together.')
    .argument('[merge]', 'the word merge, to put parts together')
    .argument('[parts...]', 'with merge: the .npz files or the folders of all parts, in any order')
    .optionsGroup('What to make:')
    .option('--count <pictures>', 'pictures in all', integer(1, maxSamples))
    .option('--labels <classes>',
      'classes of the pictures: random, balanced, or a list such as 7,bag (default: random)')
    .option('--seed <number>', 'seed of the labels and of the pictures (default: 0)', integer(0))
    .option('--shard <k/of>', 'make only part k of so many', shard)
  stepOptions(samplingOptions(command))
    .optionsGroup('The file:')
    .option('-o, --out <file>', 'an .npz file, or a folder/')
    .option('--size <pixels>', 'size that the pictures are decoded to, bicubic: 256 or 256x192', size)
    .option('--overwrite', 'begin anew where the file is there already')
    .optionsGroup('Who makes the pictures:')
    .option('--queue <url>', 'workers of parvis-server on a queue on Redis: redis://host:6379; --model is theirs')
    .option('--queue-ca <file>', 'with --queue: certificate of the authority that signed that of Redis', fileName)
  return modelOptions(command)
    .addHelpText('after', examples(
      'parvis sample --count 1000 --out samples.npz',
      'parvis sample --count 50000 --seed 3 --model par-xl-4x --size 256 --out samples.npz',
      'parvis sample --count 50000 --shard 2/8 --out part-2.npz',
      'parvis sample --count 50000 --queue redis://host:6379 --out samples.npz',
      'parvis sample merge part-*.npz --out samples.npz'))
    .action(async (word: string | undefined, parts: string[], flags: SampleFlags) => {
      if (word === 'merge') return await merge(parts, flags, signal)
      if (word !== undefined) {
        throw new UsageError(`parvis sample takes no argument ${shownPath(word)}; the only one that it knows is merge`)
      }
      await sample(flags, signal)
    })
}

function shard (text: string): [k: number, of: number] {
  const [, k, of] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? []
  if (k === undefined || Number(k) < 1 || Number(k) > Number(of)) {
    throw new UsageError(`--shard ${visible(text, 40)}: give the part and the number of parts, such as 2/8`)
  }
  return [Number(k), Number(of)]
}

async function sample (flags: SampleFlags, signal: AbortSignal): Promise<void> {
  if (flags.count === undefined) throw new UsageError('how many pictures? Give --count')
  if (flags.queue === undefined) checkModel(flags)
  else checkQueue(flags)
  if (flags.transformer !== undefined && flags.tokenizer === undefined) {
    throw new UsageError('pictures need a tokenizer: give --tokenizer too')
  }
  const place = await placeOf(flags.out)
  const work = async (source: SampleSource, progress: Progress): Promise<void> => {
    await write(source, place, flags, progress, signal)
  }
  if (flags.queue !== undefined) return await withQueue(flags, signal, work)
  await withPar(flags, async progress => await loadModel(flags, signal, pullReporter(progress, flags)),
    async (par, progress) => { await work(await parSource(par, flags, signal), progress) })
}

async function write (
  source: SampleSource, place: Place, flags: SampleFlags, progress: Progress, signal: AbortSignal
): Promise<void> {
  const { run } = source
  const labels = labelsOf(source)
  const [start, end] = rangeOf(run)
  const total = end - start
  const store = place.kind === 'npz'
    ? await npzStore(place.file, run, labels, flags, signal)
    : await folderStore(place.file, run, labels, flags, signal)
  const before = store?.done ?? total
  const began = performance.now()
  let made = 0
  try {
    if (store) {
      if (before > 0) note(shown`parvis: ${flags.out!} has ${String(before)} of ${String(total)} pictures already`)
      for await (const image of source.pictures(start + before, end, done => {
        const seconds = (performance.now() - began) / 1000
        progress.update(before + done, total, `${before + Math.floor(done)}/${total} pictures, ` +
          `${rate(done / seconds)}/s`)
      })) {
        await store.add(start + before + made, image)
        made++
        leaves(`${shownPath(store.part)} has ${before + made} of ${total} pictures; the same command continues it`)
      }
      await store.finish()
      wrote(place.file)
    }
  } finally {
    await store?.close()
  }
  progress.stop()
  const seconds = (performance.now() - began) / 1000
  await say(flags, place, run, { pictures: total, made, ...(made > 0 && { seconds }) })
}

async function parSource (par: Par, flags: SampleFlags, signal: AbortSignal): Promise<SampleSource> {
  const run = await runOf(par, flags)
  const { count, classes, seed, width, height } = run
  return {
    run,
    classes: par.info.transformer!.classes,
    labels: par.labels,
    pictures: (start, end, onDone) => par.samples({
      count, classes, seed, start, end, ...samplingOf(flags), ...stepsOf(flags), size: { width, height }, signal,
      onProgress: ({ done }) => { onDone(done) }
    })
  }
}

async function runOf (par: Par, flags: SampleFlags): Promise<SampleRun> {
  const { transformer, tokenizer, device, isa, precision } = par.info
  const n = samplingOf(flags).n ?? transformer!.n
  // The embedded model has a file for each n.
  const isEmbedded = [...embedded.transformers.values()].includes(transformer!.path)
  const file = (isEmbedded ? embedded.transformers.get(n) : undefined) ?? transformer!.path
  const { size, seed = 0, count, shard } = flags
  const sampling = samplingOf(flags)
  const decoding = stepsOf(flags)
  const isUsual = Object.keys(decoding).length === 0
  const own = transformer!.size ?? tokenizer!.imageSize!
  const [height, width] = typeof own === 'number' ? [own, own] : own
  const list = classesOf(flags, transformer!.classes, par.labels)
  const given = Object.fromEntries(Object.entries({
    guidanceScale: sampling.guidanceScale,
    temperature: sampling.greedy ? 0 : sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    draw: sampling.draw
  }).filter(([, value]) => value !== undefined))
  return {
    format: 'parvis samples, version 1',
    transformer: await sampledFile(file),
    tokenizer: await sampledFile(tokenizer!.path),
    n,
    ...(!hasN(transformer!.method) && { method: transformer!.method }),
    // The guidance that is usual for another number of steps follows from that number.
    sampling: { ...isUsual ? transformer!.sampling : withoutGuidance(transformer!.sampling), ...given },
    ...(!isUsual && { decoding }),
    seed,
    classes: list,
    count: count!,
    ...(size === undefined ? { width, height } : typeof size === 'number' ? { width: size, height: size } : size),
    device,
    isa,
    precision,
    ...(shard && { shard })
  }
}

const withoutGuidance = ({ guidanceScale: _, ...sampling }: Sampling): Partial<Sampling> => sampling

/** The class of each picture of the run, or of the part of it. */
function labelsOf ({ run, classes, labels }: SampleSource): number[] {
  const [start, end] = rangeOf(run)
  return Array.from({ length: end - start }, (_, i) =>
    resolveClass(sampleClass(run.classes, run.seed, start + i, classes), classes, labels))
}

interface Store {
  /** What holds the pictures as long as some are missing. */
  part: string
  /** Pictures that were there. */
  done: number
  add (index: number, image: SamplePicture): Promise<void>
  finish (): Promise<void>
  close (): Promise<void>
}

function refuseOther (file: string, found: SampleRun | undefined, run: SampleRun): void {
  const why = found === undefined ? ['it was not written by parvis sample'] : differences(found, run)
  if (why.length === 0) return
  const reasons = visible(why.slice(0, 3).join('; '), 400)
  throw new UsageError(`${shownPath(file)} is there already, of another run: ${reasons}. ` +
    'Give the same options to continue it, another name, or --overwrite')
}

/** Undefined where the file is complete. */
async function npzStore (
  file: string, run: SampleRun, labels: number[], flags: SampleFlags, signal: AbortSignal
): Promise<Store | undefined> {
  const [part, about] = [`${file}.part`, `${file}.part.json`]
  const isThere = async (name: string): Promise<boolean> => await fs.stat(name).then(() => true, () => false)
  const remove = async (...names: string[]): Promise<void> => {
    for (const name of names) await fs.rm(name, { force: true })
  }
  const text = JSON.stringify(run)
  if (flags.overwrite) await remove(part, about)
  else if (await isThere(file)) {
    refuseOther(file, parseRun(await readComment(file)), run)
    await remove(part, about) // the end of the last run was not reached
    return undefined
  } else if (await isThere(about)) {
    refuseOther(part, parseRun(await fs.readFile(about, 'utf8').catch(() => '')), run)
  } else if (await isThere(part)) refuseOther(part, undefined, run)
  const shape = { pictures: labels.length, height: run.height, width: run.width }
  await checkSpace(path.dirname(file), sampleFileBytes(shape), part)
  await writeWhole(about, Buffer.from(text), () => signal.throwIfAborted())
  const samples = await SampleFile.open(part, shape, () => signal.throwIfAborted())
  let open = true
  return {
    part,
    done: samples.done,
    add: async (_, image) => { await samples.add(image.data) },
    finish: async () => {
      open = false
      await samples.finish(labels, text)
      await renameOver(part, file).catch((error: unknown) => { throw fromSystem(error, file, 'written') })
      await remove(about)
    },
    close: async () => { if (open) await samples.close() }
  }
}

/** Says at once what would fail after hours. */
async function checkSpace (folder: string, bytes: number, part: string): Promise<void> {
  const disk = await fs.statfs(folder).catch(() => undefined)
  const there = await fs.stat(part).then(({ size }) => size, () => 0)
  if (!disk || disk.bavail * disk.bsize >= bytes - there) return
  const free = (disk.bavail * disk.bsize / 1e9).toFixed(1)
  throw new UsageError(`the file will have ${(bytes / 1e9).toFixed(1)} GB, and ${free} GB are free in ` +
    `${shownPath(folder)}; free some, or divide the run (--shard)`)
}

async function folderStore (
  folder: string, run: SampleRun, labels: number[], flags: SampleFlags, signal: AbortSignal
): Promise<Store | undefined> {
  const about = path.join(folder, runName(run))
  const found = await fs.readFile(about, 'utf8').catch(() => undefined)
  const text = runText(run, labels)
  if (!flags.overwrite && found !== undefined && found !== text) {
    const other = parseRun(found)
    refuseOther(about, other && { ...other, ...{ labels: undefined } }, run)
  }
  if (!flags.overwrite && found === undefined) {
    const taken = await firstSample(folder, run)
    if (taken !== undefined) refuseOther(path.join(folder, taken), undefined, run)
  }
  const there = flags.overwrite || found === undefined ? 0 : await countSamples(folder, run)
  if (there === labels.length) return undefined
  const check = (): void => signal.throwIfAborted()
  await writeWhole(about, Buffer.from(text), check)
  return {
    part: folder,
    done: there,
    add: async (index, image) => { await writeSample(folder, index, run, await image.toBuffer(), check) },
    finish: async () => {},
    close: async () => {}
  }
}
