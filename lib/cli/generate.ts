// parvis generate: from class ids or names to one picture file. Several classes, or several pictures of each, make
// one sheet: a row a class. The sheet is one call of the API, whose seeds count up from `seed` within a class, so any
// picture of it can be made again alone.

import path from 'node:path'
import { Command, Option } from 'commander'
import { ParError } from '../errors.js'
import { writeWhole } from '../files.js'
import type { GeneratedImage, ImageFormat } from '../image.js'
import { mostImages, type Size } from '../options.js'
import type { Par, ParInfo } from '../par.js'
import { checkModel, loadModel, modelOptions, type ModelFlags } from './model.js'
import { pullReporter } from './pull.js'
import { classList, collect, integer, real, size } from './arguments.js'
import { arrange, checkFolder, checkSheet, checkWritable, encode, formatOf, formats } from './picture.js'
import { note, print, printJson, progressBar, UsageError } from './terminal.js'

interface Flags extends ModelFlags {
  class?: string[]
  count: number
  tokensPerStep?: number
  seed?: number
  guidanceScale?: number
  temperature?: number
  topK?: number
  topP?: number
  greedy?: boolean
  out?: string
  format?: ImageFormat
  size?: Size
  scale: number
  withTokens?: boolean
}

export function generateCommand (signal: AbortSignal): Command {
  return modelOptions(new Command('generate')
    .description('Make pictures of one or more classes. Without --model, --transformer and --tokenizer: the embedded model.')
    .optionsGroup('What to make:')
    .option('-c, --class <id or name>', 'class, repeatable or a comma list; `parvis labels` lists names', collect)
    .option('--count <pictures>', 'pictures of each class', integer(1), 1)
    .option('-n, --tokens-per-step <n>', 'tokens a step, a number the model was trained for (1, 4, 16)', integer(1))
    .option('--seed <number>', 'the same seed makes the same picture (default: a random one)', integer(0))
    .optionsGroup('Sampling (default: what the model asks for):')
    .option('--guidance-scale <scale>', 'classifier-free guidance; 1 is off', real)
    .option('--temperature <t>', 'above 1 more varied, below 1 less; 0 takes the likeliest token', real)
    .option('--top-k <k>', 'sample from the k likeliest tokens; 0 is off', integer(0))
    .option('--top-p <p>', 'sample from the likeliest tokens that make up the probability p; 1 is off', real)
    .option('--greedy', 'always take the likeliest token')
    .optionsGroup('The file:')
    .option('-o, --out <file>', 'picture file, or - for standard output (default: a name made of the options)')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else png)').choices(formats))
    .option('--size <pixels>', 'size that the pictures are decoded to, bicubic: 256 or 256x192', size)
    .option('--scale <times>', 'enlarge the result by repeating each pixel', integer(1), 1)
    .option('--with-tokens', 'with --json: print the tokens of each picture too'))
    .action(async (flags: Flags) => await generate(flags, signal))
}

async function generate (flags: Flags, signal: AbortSignal): Promise<void> {
  const toStdout = flags.out === '-'
  const tokensOnly = flags.transformer !== undefined && flags.tokenizer === undefined
  if (!flags.class) throw new UsageError('which class? Give --class <id or name>, for example --class 7; parvis labels lists the names of the embedded model')
  checkModel(flags)
  if (flags.json && toStdout) throw new UsageError('--json and --out - both write to standard output; choose one')
  if (toStdout && process.stdout.isTTY) throw new UsageError('standard output is a terminal; redirect it, or give --out a file')
  if (tokensOnly && !(flags.json && flags.withTokens)) {
    throw new UsageError('a picture needs a tokenizer: give --tokenizer, or --json --with-tokens for the tokens alone')
  }
  const format = formatOf(flags.out ?? '', flags.format)
  if (!toStdout && !tokensOnly) {
    if (flags.out !== undefined) await checkWritable(flags.out)
    else await checkFolder('.') // its name is made of what comes out
  }

  const progress = progressBar(flags)
  let par: Par | undefined
  try {
    progress.update(0, 1, 'loading the model')
    par = await loadModel(flags, signal, pullReporter(progress, flags))
    const classes = classList(flags.class, par.info.transformer!.classes, par.labels)
    if (classes.length === 0) throw new UsageError('--class is empty; give an id or a name')
    const count = classes.length * flags.count
    if (count > mostImages) throw new UsageError(`${count} pictures are too many for one call; at most ${mostImages} are possible`)
    const { tokensPerStep: n, seed, guidanceScale, temperature, topK, topP, greedy, size } = flags
    if (!tokensOnly) checkSheet(count, pictureSize(par.info, size), flags.count, flags.scale, format)
    const started = performance.now()
    const images = await par.generate({
      // Row by row of the sheet: all pictures of the first class, then of the next.
      classId: classes.flatMap(id => Array<number>(flags.count).fill(id)),
      n, seed, guidanceScale, temperature, topK, topP, greedy, size, signal,
      onProgress: ({ step, steps, tokensDone, tokens }) => progress.update(tokensDone, tokens, `step ${step} of ${steps}`)
    })
    const milliseconds = Math.round(performance.now() - started)
    progress.stop()

    const sheet = tokensOnly ? undefined : arrange(images, flags.count, flags.scale)
    const file = sheet && (toStdout ? '-' : flags.out ?? defaultName(images, format))
    if (sheet && file !== undefined) {
      const bytes = await encode(sheet, format)
      signal.throwIfAborted()
      if (!toStdout) await writeWhole(file, bytes, () => signal.throwIfAborted())
      else if (!await print(bytes)) throw new ParError('BAD_IMAGE', 'standard output was closed before it had taken the picture')
    }

    if (flags.json) {
      await printJson({
        ...(sheet && { file: path.resolve(file!), format, width: sheet.width, height: sheet.height }),
        ...summary(images),
        device: par.info.device,
        milliseconds,
        images: images.map((image, k) => ({
          classId: image.classId,
          label: image.label,
          seed: image.seed,
          ...sheet?.places[k],
          timings: image.timings,
          ...(flags.withTokens && { tokens: Array.from(image.tokens) })
        }))
      })
    } else {
      const text = describe(images, sheet!, file!, milliseconds)
      if (toStdout) note(text)
      else await print(text + '\n')
    }
  } finally {
    progress.stop()
    await par?.dispose()
  }
}

/** Pixels of one picture. */
function pictureSize ({ tokenizer, transformer }: ParInfo, asked: Size | undefined): { width: number, height: number } {
  const size = asked ?? transformer?.size
  if (typeof size === 'object') return size
  const [height, width] = size === undefined ? tokenizer!.imageSize! : [size, size]
  return { width, height }
}

// ---- what is said about it

function summary (images: readonly GeneratedImage[]): object {
  const first = images[0]!
  const { n, seed, steps } = first
  if (images.length > 1) return { n, seed, steps }
  return { classId: first.classId, label: first.label, n, seed, steps, timings: first.timings }
}

function defaultName (images: readonly GeneratedImage[], format: ImageFormat): string {
  // The first of its synonyms: with all of them the name could be too long for a file.
  const names = [...new Set(images.map(image => image.label?.split(',')[0] ?? `class ${image.classId}`))]
  const subject = names.length > 3 ? `${names.length} classes` : names.join(' ')
  const { n, seed } = images[0]!
  const count = images.length === 1 ? '' : `-x${images.length}`
  return `${subject.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-')}${count}-n${n}-seed${seed}.${format === 'jpeg' ? 'jpg' : format}`
}

function describe (images: readonly GeneratedImage[], sheet: { width: number, height: number }, file: string, milliseconds: number): string {
  const first = images[0]!
  const classes = [...new Set(images.map(image => image.label ? `${image.label} (${image.classId})` : `class ${image.classId}`))]
  const subject = classes.length > 4 ? `${classes.length} classes` : classes.join(', ')
  const last = images.at(-1)!
  const seeds = first.seed === last.seed ? `seed ${first.seed}` : `seeds ${first.seed} to ${last.seed} in each row`
  const written = file === '-' ? 'standard output' : file
  const hint = sheet.width < 128 && sheet.height < 128 ? '; --scale 8 enlarges it' : ''
  return `${written}: ${subject}, ${sheet.width} x ${sheet.height} px${hint}\n` +
    `n = ${first.n}, ${first.steps} steps, ${seeds}, ${(milliseconds / 1000).toFixed(2)} s`
}
