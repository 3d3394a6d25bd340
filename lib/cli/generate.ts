// parvis generate: from class ids or names to one picture file, or to a file for each picture. Several pictures in one
// file make a sheet. It is one call of the API, whose seeds count up from `seed` within a class, so any picture of it
// can be made again alone.

import { Command, Option } from 'commander'
import { animate, type Animation } from '../api/animate.js'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import type { GeneratedImage, ImageFormat } from '../api/image.js'
import type { VideoFormat } from '../api/video.js'
import { effectiveSeeds, randomSeed, type GenerateOptions, type Size } from '../api/options.js'
import { maxImages } from '../api/tokens.js'
import type { Par, ParInfo } from '../api/par.js'
import { shownPath } from '../base/text.js'
import { hasN, methodNames } from '../decoding/method.js'
import { checkModel, flagOf, loadModel, modelOptions, withPar, type ModelFlags } from './model.js'
import { pullReporter } from './pull.js'
import { classList, collect, fileName, integer, real, size } from './arguments.js'
import { generateVideos, isOfVideos, onlyVideos, pictureFlags } from './generate-video.js'
import { readOrders } from './orders.js'
import { examples } from './help.js'
import { defaultName, isPattern, namesOf, type Named } from './names.js'
import { asFolder, checkFolder, checkOneFile, checkWritable, isSameFile, prepare, writeOutput } from './outputs.js'
import { arrange, checkSheet, columnsOf, encode, formatOf, formats, type Sheet } from './picture.js'
import type { Progress } from './progress.js'
import { samplingOf, samplingOptions, stepOptions, stepsOf, type SamplingFlags, type StepFlags } from './sampling.js'
import { wrote } from './signals.js'
import { note, print, printJson, printSummary, shown, UsageError } from './terminal.js'

interface Flags extends ModelFlags, SamplingFlags, StepFlags {
  class?: string[]
  prompt?: string
  count: number
  seed?: number
  out?: string
  format?: ImageFormat | VideoFormat
  fps?: number
  size?: Size
  scale: number
  columns?: number
  animate?: string
  each?: boolean
  withTokens?: boolean
  tokenOrder?: string
}

export function generateCommand (signal: AbortSignal): Command {
  const command = new Command('generate')
    .description('Make pictures of one or more classes. Classes are names or numbers out of a fixed list, which ' +
      '`parvis labels` shows; there are no text prompts. ' +
      'Without --model or --transformer, parvis uses the small model that comes with it: clothes, 32 x 32 pixels.')
    .argument('[classes...]', 'names or numbers of classes, such as: sneaker "ankle boot" 7')
    .optionsGroup('What to make:')
    .option('-c, --class <id or name>', 'class; the same as an argument. Several: repeat it, or separate with commas',
      collect)
    .option('--count <pictures>', 'pictures of each class', integer(1), 1)
    .option('--seed <number>', 'the same seed makes the same picture (default: a random one, which is printed)',
      integer(0))
    .addOption(new Option('-p, --prompt <text>').hideHelp())
  stepOptions(samplingOptions(command))
    .option('--token-order <file>', 'JSON file with the raster cells in the order in which they are drawn: one list, ' +
      'or a list for each picture, such as the order files of LPD', fileName)
    .optionsGroup('The file:')
    .option('-o, --out <file>', 'picture file, or - for standard output (default: named after class, n and seed)')
    .option(
      '--each', 'write one file per picture; --out may then be a folder/, or a pattern such as %03d-{class}-{seed}.png'
    )
    .option('--columns <number>', 'pictures per row, if one file holds several', integer(1))
    .option('--animate <file>',
      'also write an animation of how the picture is drawn, as .webp or .gif; for one picture')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else png, of videos webp)')
      .choices([...formats, ...onlyVideos]))
    .option('--fps <number>', 'of videos: frames a second (default: 8)', real)
    .option('--size <pixels>', 'size that the pictures are decoded to, bicubic: 256 or 256x192', size)
    .option('--scale <times>', 'enlarge the result by repeating each pixel', integer(1), 1)
    .option('--with-tokens', 'with --json: print the tokens of each picture too')
  return modelOptions(command)
    .addHelpText('after', examples(
      'parvis generate sneaker --scale 8',
      'parvis generate bag coat --count 4 --out sheet.png',
      'parvis generate bag --count 100 --each --out bags/',
      'parvis generate otter --model par-xl-4x --seed 1'))
    .action(async (classes: string[], flags: Flags) => await generate(classes, flags, signal))
}

async function generate (given: string[], flags: Flags, signal: AbortSignal): Promise<void> {
  if (flags.prompt !== undefined) throw new UsageError('parvis draws classes, not prompts; `parvis labels` lists them')
  const wanted = [...given, ...flags.class ?? []]
  if (wanted.length === 0) {
    throw new UsageError('which class? Give its name or number, for example: parvis generate sneaker; `parvis ' +
      'labels` lists the classes of the embedded model. --class does the same')
  }
  checkModel(flags)
  const place = placeOf(flags)
  const out = place === 'each' ? await asFolder(flags.out) : flags.out
  const ofVideos = isOfVideos(out, flags.format)
  const format = ofVideos ? 'png' : formatOf(out ?? '', flags.format as ImageFormat | undefined)
  if (flags.animate !== undefined) {
    if (!/\.(webp|gif)$/i.test(flags.animate)) {
      throw new UsageError(
        `the name ${shownPath(flags.animate)} tells no format of animations; end it in .webp or .gif`
      )
    }
    if (place === 'none') throw new UsageError('--animate shows pictures; give --tokenizer too')
    if (wanted.length > 1 || flags.count > 1 || place === 'each') {
      throw new UsageError('--animate is for one picture; give one class, without --count and --each')
    }
    await checkOneFile(flags.animate)
  }
  if (place === 'sheet') {
    if (out !== undefined) await checkWritable(out)
    else await checkFolder('.') // its name is made of what comes out
  }

  const load = async (progress: Progress): Promise<Par> =>
    await loadModel(flags, signal, pullReporter(progress, flags))
  await withPar(flags, load, async (par, progress) => {
    const { transformer } = par.info
    if (transformer!.frames !== undefined) {
      const other = pictureFlags.find(name => flags[name] !== undefined)
      if (other) throw new UsageError(`--${flagOf(other)} is about pictures, and this model makes videos: leave it out`)
      const { count, seed, fps, scale, json = false, withTokens = false } = flags
      return await generateVideos({
        par, classes: classesOf(wanted, par), count, seed, sampling: samplingOf(flags), fps, scale, place, out,
        format: flags.format, json, withTokens, progress, signal
      })
    }
    if (ofVideos || flags.fps !== undefined) {
      throw new UsageError(`this model makes pictures; ${flags.fps === undefined
        ? `${flags.format ?? shownPath(out!)} is a format of videos`
        : '--fps is about videos'}`)
    }
    const classes = classesOf(wanted, par)
    const count = classes.length * flags.count
    if (count > maxImages) {
      throw new UsageError(`${count} pictures are too many for one call; at most ${maxImages} are possible`)
    }
    const { size, seed = randomSeed() } = flags
    const sampling = { ...samplingOf(flags), ...stepsOf(flags) }
    const tokenOrder = flags.tokenOrder === undefined ? undefined : await readOrders(flags.tokenOrder, count, signal)
    // Row by row of the sheet: all pictures of the first class, then of the next.
    const classId = classes.flatMap(id => Array<number>(flags.count).fill(id))
    const request: Request = {
      classId, seed, ...sampling, tokenOrder, size, signal,
      onProgress: ({ step, steps, tokensDone, tokens }) => progress.update(tokensDone, tokens,
        count === 1 ? `${step}/${steps} steps` : `${Math.floor(count * tokensDone / tokens)}/${count} pictures`)
    }
    const one = place === 'none' ? undefined : pictureSize(par.info, size)
    const work: Work = { par, request, flags, format, progress }
    const seeds = effectiveSeeds(classId, seed)
    const pictures: Named[] = classId.map((id, k) =>
      ({ classId: id, label: par.labels?.[id], n: sampling.n ?? transformer!.n, method: transformer!.method,
        seed: seeds[k]! }))
    if (place === 'each') {
      checkSheet(1, one!, 1, flags.scale, format)
      return await oneByOne(work, pictures, out)
    }
    const columns = Math.min(count, flags.columns ?? columnsOf(classes.length, flags.count))
    if (one) {
      checkSheet(count, one, columns, flags.scale, format,
        'choose a smaller --scale, --size or --count, or another number of --columns')
    }
    const file = out ?? defaultName(pictures, format)
    if (place === 'sheet' && flags.animate !== undefined && await isSameFile(file, flags.animate)) {
      throw new UsageError(
        `the picture and its animation would both be ${shownPath(file)}; give --out or --animate another name`
      )
    }
    await together(work, place, columns, file)
  })
}

type Request = GenerateOptions & { classId: readonly number[], signal: AbortSignal }

interface Work {
  par: Par
  request: Request
  flags: Flags
  format: ImageFormat
  progress: Progress
}

/**
 * Where the pictures go: all into one file or to standard output, a file each, or nowhere, where only tokens are made.
 */
type Place = 'sheet' | 'stdout' | 'each' | 'none'

/** @throws UsageError for flags that do not go together */
function placeOf ({ out, each, columns, json, withTokens, transformer, tokenizer }: Flags): Place {
  if (withTokens && !json) throw new UsageError('--with-tokens adds the tokens to the JSON; give --json too')
  if (transformer !== undefined && tokenizer === undefined) {
    if (!(json && withTokens)) {
      throw new UsageError(
        'a picture needs a tokenizer: give --tokenizer, or --json --with-tokens for the tokens alone'
      )
    }
    return 'none'
  }
  if (out === '-') {
    if (json) throw new UsageError('--json and --out - both write to standard output; choose one')
    if (each) throw new UsageError('--each makes several files, and standard output takes one; give --out a folder')
    if (process.stdout.isTTY) throw new UsageError('standard output is a terminal; redirect it, or give --out a file')
    return 'stdout'
  }
  if (!each && !(out !== undefined && isPattern(out))) return 'sheet'
  if (columns !== undefined) {
    throw new UsageError('--columns is about a file of several pictures, and --each makes a file of each; choose one')
  }
  return 'each'
}

/** A name that is no class, but looks like a prompt, is answered as one. */
export function classesOf (wanted: readonly string[], par: Par): number[] {
  try {
    const classes = classList(wanted, par.info.transformer!.classes, par.labels)
    if (classes.length === 0) throw new UsageError('the class is empty; give a number or a name')
    return classes
  } catch (error) {
    if (!(error instanceof ParError) || error.code !== 'BAD_CLASS_ID' || !error.message.includes('. Some names: ')) {
      throw error
    }
    throw new ParError(error.code, `${error.message}. parvis draws classes, not prompts; \`parvis labels\` lists them`,
      { cause: error })
  }
}

// ---- one file

async function together (
  { par, request, flags, format, progress }: Work, place: Place, columns: number, file: string
): Promise<void> {
  const { signal } = request
  const started = performance.now()
  const film = flags.animate === undefined ? undefined : await filmed(par, request, flags)
  const images = film ? [film.image] : await par.generate(request)
  const milliseconds = Math.round(performance.now() - started)
  progress.stop()

  const sheet = place === 'none' ? undefined : arrange(images, columns, flags.scale)
  if (film) {
    await film.toFile(flags.animate!)
    wrote(flags.animate!)
  }
  if (sheet) {
    const bytes = await encode(sheet, format)
    signal.throwIfAborted()
    if (place === 'sheet') await writeOutput(file, bytes, signal)
    else if (!await print(bytes)) {
      throw new ParError('BAD_IMAGE', 'standard output was closed before it had taken the picture')
    }
  }
  if (flags.json) {
    return await printJson({
      ...(sheet && { file: absolute(file), format, width: sheet.width, height: sheet.height }),
      ...(film &&
        { animation: { file: absolute(flags.animate!), width: film.width, height: film.height, frames: film.frames } }),
      ...summary(images),
      device: par.info.device,
      milliseconds,
      images: images.map((image, k) =>
        ({ ...about(image), ...sheet?.places[k], ...(flags.withTokens && { tokens: Array.from(image.tokens) }) }))
    })
  }
  const text = describe(par, images, place === 'stdout' ? 'standard output' : file, sheet!, milliseconds) +
    (film ? '\n' + shown`${flags.animate!}: ${film.frames} frames, ${film.width} x ${film.height} px` : '')
  if (place === 'stdout') note(text)
  else await printSummary(text + '\n')
}

/** The picture as it forms. Enlarged as the picture is where --scale says so, else to a size that can be seen. */
async function filmed (par: Par, { classId, ...request }: Request, { scale }: Flags): Promise<Animation> {
  return await animate(par, { ...request, classId: classId[0]!, ...(scale > 1 && { scale }) })
}

function summary (images: readonly GeneratedImage[]): object {
  const { n, seed, steps } = images[0]!
  return images.length > 1 ? { n, seed, steps } : { ...about(images[0]!), n, seed, steps }
}

function about ({ classId, label, seed, timings }: GeneratedImage): object {
  return {
    classId, label, seed,
    timings: Object.fromEntries(Object.entries(timings).map(([name, ms]) => [name, rounded(ms as number)]))
  }
}

/** Microseconds are enough. */
function rounded (milliseconds: number): number {
  return Number(milliseconds.toFixed(3))
}

// ---- a file each

async function oneByOne (
  { par, request, flags, format, progress }: Work, pictures: readonly Named[], out: string | undefined
): Promise<void> {
  const { signal } = request
  const names = namesOf(pictures, out, format)
  await prepare(names, out, signal)
  const started = performance.now()
  const written: object[] = []
  for await (const image of par.images(request)) {
    const k = written.length
    const sheet = arrange([image], 1, flags.scale)
    const bytes = await encode(sheet, format)
    signal.throwIfAborted()
    await writeOutput(names[k]!, bytes, signal)
    written.push({ file: absolute(names[k]!), ...about(
      image
    ), width: sheet.width, height: sheet.height, ...(flags.withTokens && { tokens: Array.from(image.tokens) }) })
  }
  const milliseconds = Math.round(performance.now() - started)
  progress.stop()
  const { n, seed } = pictures[0]!
  if (flags.json) return await printJson({ format, n, seed, device: par.info.device, milliseconds, images: written })
  const files = names.length === 1
    ? names
    : [...names.slice(0, shownFiles),
        ...(names.length > shownFiles ? [`... ${names.length} files, the last one ${names.at(-1)!}`] : [])]
  await printSummary(
    [...files.map(file => shown`${file}`),
      `${how(par, n)}, ${seedsText(pictures)}, ${(milliseconds / 1000).toFixed(2)} s`].join('\n') + '\n'
  )
}

/** Names that are printed; of more files the last one. */
const shownFiles = 10

// ---- words

/** Pixels of one picture. */
function pictureSize ({ tokenizer, transformer }: ParInfo, asked: Size | undefined): { width: number, height: number } {
  const size = asked ?? transformer?.size
  if (typeof size === 'object') return size
  const [height, width] = size === undefined ? tokenizer!.imageSize! : [size, size]
  return { width, height }
}

/** 'seed 1', 'seeds 1 to 4', 'seeds 1 and up in each class' */
function seedsText (pictures: ReadonlyArray<{ classId: number, seed: number }>): string {
  const [first, last] = [pictures[0]!.seed, pictures.at(-1)!.seed]
  if (pictures.every(({ seed }) => seed === first)) return `seed ${first}`
  const classes = new Set(pictures.map(({ classId }) => classId)).size
  return classes === 1 ? `seeds ${first} to ${last}` : `seeds ${first} and up in each class`
}

function describe (
  par: Par, images: readonly GeneratedImage[], file: string, { width, height }: Sheet, milliseconds: number
): string {
  const { n, steps } = images[0]!
  const classes = [...new Set(
    images.map(({ label, classId }) => label === undefined ? `class ${classId}` : shown`${label} (${classId})`)
  )]
  const subject = classes.length > 4 ? `${classes.length} classes` : classes.join(', ')
  // For those who look at it; what reads the output of a program needs no advice.
  const hint = process.stdout.isTTY && width < 128 && height < 128 ? '; --scale 8 enlarges it' : ''
  return shown`${file}: ` + `${subject}, ${width} x ${height} px${hint}\n` +
    `${how(par, n)}, ${steps} steps, ${seedsText(images)}, ${(milliseconds / 1000).toFixed(2)} s`
}

/** 'n = 4', or the name of a method without n. */
export function how ({ info: { transformer } }: Par, n: number): string {
  return hasN(transformer!.method) ? `n = ${n}` : methodNames[transformer!.method]
}
