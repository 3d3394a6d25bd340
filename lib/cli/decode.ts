// parvis decode: tokens to pictures, a file each. A file of tokens is read whole and checked before a model is loaded.

import { Command, Option } from 'commander'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import type { ImageFormat } from '../api/image.js'
import type { Size } from '../api/options.js'
import { shownPath } from '../base/text.js'
import { grid, integer, size } from './arguments.js'
import { count } from './encode.js'
import { loadTokenizer, tokenizerOptions, withPar, type TokenizerFlags } from './model.js'
import { isPattern, outputNames } from './names.js'
import { asFolder, checkFolder, checkWritable, prepare, writeOutput } from './outputs.js'
import { arrange, checkSheet, encode, formatOf, formats } from './picture.js'
import { checkSources, readSource, sourceName } from './sources.js'
import { note, print, printJson, printSummary, shown, UsageError } from './terminal.js'
import { checkCount, readTokens, type TokenPicture } from './tokens.js'

interface Flags extends TokenizerFlags {
  out?: string
  format?: ImageFormat
  size?: Size
  scale: number
  grid?: [number, number]
}

export function decodeCommand (signal: AbortSignal): Command {
  const command = new Command('decode')
    .description("Make pictures from tokens. Default tokenizer: the embedded model's.")
    .argument('<tokens...>',
      '.npy files, or JSON as encode and generate --json --with-tokens write it; - reads standard input')
    .optionsGroup('The files:')
    .option('-o, --out <file>', 'picture file, folder/, pattern such as %03d.png, or - for standard output; several ' +
      'pictures share a plain name, with numbers (default: named after the token file)')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else png)').choices(formats))
    .option('--size <pixels>', 'size that the pictures are decoded to, bicubic: 256 or 256x192', size)
    .option('--scale <times>', 'enlarge the result by repeating each pixel', integer(1), 1)
    .option('--grid <rows>x<columns>', 'rows and columns of a picture, if the files do not say', grid)
  return tokenizerOptions(command)
    .action(async (files: string[], flags: Flags) => await decode(files, flags, signal))
}

async function decode (files: string[], flags: Flags, signal: AbortSignal): Promise<void> {
  const out = await asFolder(flags.out)
  const format = formatOf(out ?? '', flags.format)
  const toStdout = flags.out === '-'
  if (flags.json && toStdout) throw new UsageError('--json and --out - both write to standard output; choose one')
  if (toStdout && process.stdout.isTTY) {
    throw new UsageError('standard output is a terminal; redirect it, or give --out a file')
  }
  if (!toStdout && out === undefined) await checkFolder('.')
  else if (!toStdout && !isPattern(out!)) await checkWritable(out!)
  checkSources(files)
  const sources: Array<{ file: string, bytes: Buffer }> = []
  for (const file of files) sources.push({ file, bytes: await readSource(file, signal) })
  await withPar(flags, async () => await loadTokenizer(flags, signal), async (par, progress) => {
    const { factor, imageSize } = par.info.tokenizer!
    const own = imageSize && [imageSize[0] / factor, imageSize[1] / factor] as const
    const pictures: Array<TokenPicture & { file: string }> = []
    for (const { file, bytes } of sources) {
      for (const picture of await readTokens(bytes, sourceName(file), own, flags.grid, signal)) {
        pictures.push({ file, ...picture })
      }
      checkCount(pictures.length, sourceName(file))
    }
    if (toStdout && pictures.length > 1) {
      throw new UsageError(`standard output takes one picture; these are ${pictures.length}. Give --out a name`)
    }
    for (const { grid: [rows, columns] } of pictures) {
      const one = flags.size === undefined
        ? { width: columns * factor, height: rows * factor }
        : typeof flags.size === 'number'
          ? { width: flags.size, height: flags.size }
          : flags.size
      checkSheet(1, one, 1, flags.scale, format)
    }
    const names = outputNames(pictures.map(({ file }) => file), out, '-decoded', format)
    if (!toStdout) await prepare(names, out, signal)
    const written = []
    for (const [k, { file, grid, tokens }] of pictures.entries()) {
      progress.update(k, pictures.length, `${k}/${count(pictures.length)}`)
      const image = await par.decode(tokens, { grid: [...grid], size: flags.size, signal }).catch((error: unknown) => {
        throw inFile(error, sourceName(file))
      })
      const sheet = arrange([image], 1, flags.scale)
      const bytes = await encode(sheet, format)
      signal.throwIfAborted()
      if (!toStdout) await writeOutput(names[k]!, bytes, signal)
      else if (!await print(bytes)) {
        throw new ParError('BAD_IMAGE', 'standard output was closed before it had taken the picture')
      }
      written.push({
        file: toStdout ? '-' : absolute(names[k]!), tokens: file, grid, width: sheet.width, height: sheet.height
      })
    }
    progress.stop()
    if (flags.json) return await printJson({ format, device: par.info.device, pictures: written })
    const text = written.map(({ tokens, width, height }, k) =>
      shown`${toStdout ? 'standard output' : names[k]!}: ${width} x ${height} px of ${sourceName(tokens)}`)
    if (toStdout) note(text.join('\n'))
    else await printSummary([...text, ...(text.length > 1 ? [count(text.length)] : [])].join('\n') + '\n')
  })
}

/** A fault of tokens (one that the codebook does not have) is one of their file. */
export function inFile (error: unknown, file: string): unknown {
  if (!(error instanceof ParError) || error.code !== 'INVALID_OPTION' || !error.message.startsWith('tokens')) {
    return error
  }
  return new ParError('BAD_TOKENS', `${shownPath(file)}: ${error.message}`, { cause: error })
}
