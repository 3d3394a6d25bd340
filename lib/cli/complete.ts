// parvis complete: keeps a part of a picture and draws the rest. The picture is encoded first, so what is kept is what
// the tokenizer makes of it.

import { Command, InvalidArgumentError, Option } from 'commander'
import type { ImageFormat } from '../api/image.js'
import { knownSides, type KnownMask, type KnownSide } from '../api/known.js'
import { randomSeed } from '../api/options.js'
import type { Par } from '../api/par.js'
import { absolute } from '../base/files.js'
import { visible } from '../base/text.js'
import { integer } from './arguments.js'
import { pictureOptions } from './encode.js'
import { classesOf, how } from './generate.js'
import { examples } from './help.js'
import { checkModel, loadModel, modelOptions, withPar, type ModelFlags } from './model.js'
import { outputNames } from './names.js'
import { asFolder, prepare, writeOutput } from './outputs.js'
import { arrange, checkSheet, encode, formatOf, formats } from './picture.js'
import { pullReporter } from './pull.js'
import {
  samplingOf, samplingOptions, stepOptions, stepsOf, type SamplingFlags, type StepFlags
} from './sampling.js'
import { checkSources, encodeFile, readSource, sourceName, type PictureFlags } from './sources.js'
import { printJson, printSummary, shown, UsageError } from './terminal.js'

/** What is kept: a half, all outside a box in pixels, or what is white in the picture of a mask. */
type Keep = { side: KnownSide } | { box: [left: number, top: number, width: number, height: number] } |
  { mask: string }

interface Flags extends ModelFlags, PictureFlags, SamplingFlags, StepFlags {
  class?: string
  keep: Keep
  seed?: number
  count: number
  out?: string
  format?: ImageFormat
  scale: number
  withTokens?: boolean
}

export function completeCommand (signal: AbortSignal): Command {
  const command = new Command('complete')
    .description('Keep a part of a picture and draw the rest. PAR and LlamaGen draw tokens in the order of the model, ' +
      'each from what that order has before it; `--keep left` and `--keep top` give it most to go by. ARPG, LPD and ' +
      'RandAR see all that is kept.')
    .argument('<picture>', 'picture file (PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG); - reads standard input')
    .optionsGroup('What to make:')
    .requiredOption('--keep <part>', 'left, right, top or bottom half; outside:<left>,<top>,<width>,<height> for all ' +
      'but a box, in pixels of the picture as the model sees it; or a mask file, whose white pixels are kept', keep)
    .option('-c, --class <id or name>', 'class of the picture')
    .option('--count <pictures>', 'so many results, each with a seed of its own', integer(1, 1024), 1)
    .option('--seed <number>', 'the same seed makes the same picture (default: a random one, which is printed)',
      integer(0))
  stepOptions(samplingOptions(pictureOptions(command)))
    .optionsGroup('The file:')
    .option('-o, --out <file>', 'picture file, folder/, or pattern such as %03d.png; several results share a plain ' +
      'name, with numbers (default: named after the picture)')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else png)').choices(formats))
    .option('--scale <times>', 'enlarge the result by repeating each pixel', integer(1), 1)
    .option('--with-tokens', 'with --json: print the tokens of each result too')
  return modelOptions(command)
    .addHelpText('after', examples(
      'parvis complete shoe.png --class sneaker --keep left',
      'parvis complete shoe.png --class sneaker --keep outside:8,8,16,16 --count 4 --out shoes/',
      'parvis complete otter.jpg --class otter --keep mask.png --model par-xl-4x'))
    .action(async (file: string, flags: Flags) => await complete(file, flags, signal))
}

function keep (text: string): Keep {
  const side = knownSides.find(one => one === text)
  if (side) return { side }
  if (text.startsWith('outside:')) {
    const numbers = text.slice('outside:'.length).split(',').map(part => /^\d{1,6}$/.test(part) ? Number(part) : NaN)
    const [left, top, width, height] = numbers as [number, number, number, number]
    if (numbers.length === 4 && numbers.every(Number.isInteger) && width > 0 && height > 0) {
      return { box: [left, top, width, height] }
    }
    throw new InvalidArgumentError('Give left, top, width and height of the box in pixels: outside:8,8,16,16.')
  }
  if (text === '') throw new InvalidArgumentError('Give left, right, top, bottom, outside:... or a mask file.')
  return { mask: text }
}

async function complete (file: string, flags: Flags, signal: AbortSignal): Promise<void> {
  if (flags.class === undefined) {
    throw new UsageError('which class is the picture of? Give its name or number: --class sneaker; `parvis labels` ' +
      'lists the classes')
  }
  if (flags.withTokens && !flags.json) {
    throw new UsageError('--with-tokens adds the tokens to the JSON; give --json too')
  }
  if (flags.out === '-') throw new UsageError('complete writes files; give --out a name')
  checkModel(flags)
  if (flags.transformer !== undefined && flags.tokenizer === undefined) {
    throw new UsageError('a picture needs a tokenizer: give --tokenizer too')
  }
  const out = await asFolder(flags.out)
  const format = formatOf(out ?? '', flags.format)
  const sources = [file, ...'mask' in flags.keep ? [flags.keep.mask] : []]
  checkSources(sources)
  const names = outputNames(Array<string>(flags.count).fill(file), out, '-completed', format)
  await prepare(names, out, signal)
  const [bytes, maskBytes] = [await readSource(file, signal), sources[1] && await readSource(sources[1], signal)]

  await withPar(flags, async progress => await loadModel(flags, signal, pullReporter(progress, flags)), async (
    par, progress
  ) => {
    const [classId, ...others] = classesOf([flags.class!], par)
    if (others.length > 0) throw new UsageError('--class takes one class here')
    const { picture, tokens } = await encodeFile(par, file, bytes, flags, signal)
    checkGrid(par, tokens.length, flags)
    const mask = await maskOf(par, flags, picture, maskBytes || undefined, sources[1] ?? '', signal)
    checkSheet(1, picture, 1, flags.scale, format)
    const { seed = randomSeed(), count } = flags
    const images = await par.generate({
      classId: Array<number>(count).fill(classId!), known: { tokens, mask }, seed, ...samplingOf(flags),
      ...stepsOf(flags), signal,
      size: { width: picture.width, height: picture.height },
      onProgress: ({ tokensDone, tokens }) =>
        progress.update(tokensDone, tokens, `${Math.floor(count * tokensDone / tokens)}/${count} pictures`)
    })
    const made = []
    for (const [k, image] of images.entries()) {
      const sheet = arrange([image], 1, flags.scale)
      const bytes = await encode(sheet, format)
      signal.throwIfAborted()
      await writeOutput(names[k]!, bytes, signal)
      const { classId, label, n, seed, steps } = image
      made.push({
        file: absolute(names[k]!), classId, label, n, seed, steps, width: sheet.width, height: sheet.height,
        ...(flags.withTokens && { tokens: Array.from(image.tokens) })
      })
    }
    progress.stop()
    if (flags.json) return await printJson({ source: file, format, device: par.info.device, pictures: made })
    await printSummary(made.map(({ label, classId, n, seed, steps, width, height }, k) =>
      shown`${names[k]!}: ${label ?? 'class'} (${classId}), ${width} x ${height} px, ${how(par, n)}, ` +
      `${steps} steps, seed ${seed}`).join('\n') + '\n')
  })
}

/** A picture of another size than the model makes has tokens, but no schedule. */
function checkGrid (par: Par, tokens: number, { size, crop }: Flags): void {
  const { grid: [rows, columns] } = par.info.transformer!
  if (tokens === rows * columns) return
  const flag = size === undefined ? crop ? undefined : '--no-crop' : '--size'
  throw new UsageError(`the picture has ${tokens} tokens, and this model draws ${rows} x ${columns}` +
    `${flag === undefined ? '' : `; leave out ${flag}`}`)
}

/** The mask in cells: one is kept where all of its pixels are. */
async function maskOf (
  par: Par, { keep, crop }: Flags, { width, height }: { width: number, height: number }, bytes: Buffer | undefined,
  name: string, signal: AbortSignal
): Promise<KnownMask> {
  if ('side' in keep) return keep.side
  const { factor } = par.info.tokenizer!
  const { grid: [rows, columns] } = par.info.transformer!
  if ('box' in keep) {
    const [left, top, boxWidth, boxHeight] = keep.box
    if (left + boxWidth > width || top + boxHeight > height) {
      throw new UsageError(`the box of --keep reaches beyond the picture, which is ${width} x ${height} pixels here`)
    }
    const [row, column] = [Math.floor(top / factor), Math.floor(left / factor)]
    return {
      outside: {
        row,
        column,
        rows: Math.ceil((top + boxHeight) / factor) - row,
        columns: Math.ceil((left + boxWidth) / factor) - column
      }
    }
  }
  const mask = await par.prepare(bytes!, { grid: [rows, columns], crop, signal }).catch((error: unknown) => {
    throw new UsageError(`the mask ${sourceName(name)} is no picture: ${visible((error as Error).message, 300)}`,
      { cause: error })
  })
  const kept = Array<boolean>(rows * columns).fill(true)
  for (let pixel = 0; pixel < mask.width * mask.height; pixel++) {
    if (mask.data[3 * pixel]! + mask.data[3 * pixel + 1]! + mask.data[3 * pixel + 2]! >= 3 * 128) continue
    const [y, x] = [Math.floor(pixel / mask.width), pixel % mask.width]
    kept[Math.floor(y / factor) * columns + Math.floor(x / factor)] = false
  }
  return kept
}
