// parvis encode: picture files to tokens, in one file of JSON or NumPy, or as JSON on standard output.

import { Command, Option } from 'commander'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import { size } from './arguments.js'
import { loadTokenizer, tokenizerOptions, withPar, type TokenizerFlags } from './model.js'
import { checkOneFile, writeOutput } from './outputs.js'
import { checkSources, encodeFile, readSource, sourceName, type PictureFlags } from './sources.js'
import { print, printJson, printSummary, shown, UsageError } from './terminal.js'
import { tokenFormatOf, tokenFormats, tokensAsJson, tokensAsNpy, type TokenFormat } from './tokens.js'

interface Flags extends TokenizerFlags, PictureFlags {
  out?: string
  format?: TokenFormat
}

/** Flags about what is done to a picture before it is encoded. */
export function pictureOptions (command: Command): Command {
  return command
    .optionsGroup('The picture:')
    .option('--size <pixels>',
      'size that the picture is cropped and resized to: 256 or 256x192 (default: the size of the model)', size)
    .option('--no-crop', 'squeeze the whole picture into the size; without --size keep its own shape')
    .option('--background <colour>', 'what transparent pixels are laid on', 'white')
}

export function encodeCommand (signal: AbortSignal): Command {
  const command = new Command('encode')
    .description("Make tokens from pictures. Default tokenizer: the embedded model's.")
    .argument('<pictures...>', 'picture files (PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG); - reads standard input')
    .optionsGroup('The file:')
    .option('-o, --out <file>', '.json or .npy file, or - for standard output (default: JSON on standard output)')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else json)').choices(tokenFormats))
  return tokenizerOptions(pictureOptions(command))
    .action(async (files: string[], flags: Flags) => await encode(files, flags, signal))
}

async function encode (files: string[], flags: Flags, signal: AbortSignal): Promise<void> {
  const toStdout = flags.out === undefined || flags.out === '-'
  if (!toStdout) await checkOneFile(flags.out!)
  const format = tokenFormatOf(flags.out, flags.format)
  if (format === 'npy' && toStdout && process.stdout.isTTY) {
    throw new UsageError('standard output is a terminal; redirect it, or give --out a file')
  }
  if (format === 'npy' && toStdout && flags.json) {
    throw new UsageError('--json and a .npy array both write to standard output; give --out a file')
  }
  checkSources(files)
  await withPar(flags, async () => await loadTokenizer(flags, signal), async (par, progress) => {
    const pictures = []
    for (const [k, file] of files.entries()) {
      progress.update(k, files.length, `${k}/${count(files.length)}`)
      const { picture, grid, tokens, notes } = await encodeFile(par, file, await readSource(file, signal), flags,
        signal)
      pictures.push({ file, width: picture.width, height: picture.height, grid, notes, tokens })
    }
    progress.stop()

    const entries = pictures.map(({ notes, tokens, ...rest }) =>
      ({ ...rest, ...(notes.length > 0 && { notes }), tokens: Array.from(tokens) }))
    const bytes = format === 'npy' ? tokensAsNpy(pictures) : Buffer.from(tokensAsJson(par.info.tokenizer!, entries))
    signal.throwIfAborted()
    if (toStdout) {
      if (!await print(bytes)) {
        throw new ParError('BAD_TOKENS', 'standard output was closed before it had taken the tokens')
      }
      return
    }
    await writeOutput(flags.out!, bytes, signal)
    if (flags.json) {
      await printJson({
        file: absolute(flags.out!), format,
        pictures: entries.map(({ tokens, ...rest }) => ({ ...rest, tokens: tokens.length }))
      })
    } else {
      const lines = pictures.map(({ file, grid, width, height }) =>
        shown`${sourceName(file)}: ${grid[0]} x ${grid[1]} tokens of ${width} x ${height} px`)
      await printSummary([...lines, shown`${flags.out!}: ${count(pictures.length)}`].join('\n') + '\n')
    }
  })
}

export function count (pictures: number): string {
  return pictures === 1 ? '1 picture' : `${pictures} pictures`
}
