// parvis reconstruct: what a tokenizer keeps of a picture. Encodes, decodes and compares with what was encoded, which
// is the picture after cropping: what cropping takes away is no fault of the tokenizer.

import { Command, Option } from 'commander'
import type { ImageFormat } from '../api/image.js'
import { psnr, ssim } from '../pictures/quality.js'
import { absolute } from '../base/files.js'
import { integer } from './arguments.js'
import { count, pictureOptions } from './encode.js'
import { loadTokenizer, tokenizerOptions, withPar, type TokenizerFlags } from './model.js'
import { outputNames } from './names.js'
import { asFolder, prepare, writeOutput } from './outputs.js'
import { arrange, checkSheet, encode, formatOf, formats } from './picture.js'
import { checkSources, encodeFile, readSource, sourceName, type PictureFlags } from './sources.js'
import { print, printJson, shown, UsageError } from './terminal.js'

interface Flags extends TokenizerFlags, PictureFlags {
  out?: string
  format?: ImageFormat
  beside?: boolean
  scale: number
}

export function reconstructCommand (signal: AbortSignal): Command {
  const command = new Command('reconstruct')
    .description('Encode and decode pictures, and say how close the result is (PSNR, SSIM). Default tokenizer: the ' +
      "embedded model's.")
    .argument('<pictures...>', 'picture files (PNG, JPEG, WebP, AVIF, GIF, TIFF, SVG); - reads standard input')
    .optionsGroup('The files:')
    .option('-o, --out <file>', 'picture file, folder/, or pattern such as %03d.png; several pictures share a plain ' +
      'name, with numbers (default: no file is written)')
    .addOption(new Option('--format <format>', 'file format (default: by the name, else png)').choices(formats))
    .option('--beside', 'write the original to the left of the result')
    .option('--scale <times>', 'enlarge the result by repeating each pixel', integer(1), 1)
  return tokenizerOptions(pictureOptions(command))
    .action(async (files: string[], flags: Flags) => await reconstruct(files, flags, signal))
}

async function reconstruct (files: string[], flags: Flags, signal: AbortSignal): Promise<void> {
  if (flags.out === '-') throw new UsageError('the figures go to standard output; give --out a file')
  if (flags.out === undefined && (flags.beside || flags.format || flags.scale > 1)) {
    throw new UsageError('--beside, --format and --scale are about a file; give --out too')
  }
  const out = await asFolder(flags.out)
  const format = formatOf(out ?? '', flags.format)
  checkSources(files)
  const names = out === undefined ? [] : outputNames(files, out, '-reconstructed', format)
  await prepare(names, out, signal)
  await withPar(flags, async () => await loadTokenizer(flags, signal), async (par, progress) => {
    const { codebookSize } = par.info.tokenizer!
    const pictures = []
    for (const [k, file] of files.entries()) {
      progress.update(k, files.length, `${k}/${count(files.length)}`)
      const { picture, grid, tokens, notes } = await encodeFile(par, file, await readSource(file, signal), flags,
        signal)
      const back = await par.decode(tokens, { grid, signal })
      if (names[k] !== undefined) {
        const shown = flags.beside ? [picture, back] : [back]
        checkSheet(shown.length, back, shown.length, flags.scale, format,
          `choose a smaller --scale or --size${flags.beside ? ', or leave out --beside' : ''}`)
        const bytes = await encode(arrange(shown, shown.length, flags.scale), format)
        signal.throwIfAborted()
        await writeOutput(names[k], bytes, signal)
      }
      const { width, height } = picture
      pictures.push({
        file,
        ...(names[k] !== undefined && { out: absolute(names[k]) }),
        width,
        height,
        grid,
        ...(notes.length > 0 && { notes }),
        /** What the tokens take, each with the same number of bits. */
        bytes: Math.ceil(tokens.length * Math.log2(codebookSize) / 8),
        psnr: psnr(picture, back),
        ...(Math.min(width, height) >= 7 && { ssim: ssim(picture, back) })
      })
    }
    progress.stop()
    const mean = {
      psnr: average(pictures.map(({ psnr }) => psnr)),
      ssim: average(pictures.flatMap(({ ssim }) => ssim === undefined ? [] : [ssim]))
    }
    if (flags.json) return await printJson({ pictures, ...(pictures.length > 1 && { mean }), device: par.info.device })
    const lines = pictures.map(({ file, width, height, grid, bytes, psnr, ssim }) => {
      const tokens = `${grid[0]} x ${grid[1]} tokens (${bytes} bytes)`
      return shown`${sourceName(file)}: ${width} x ${height} px, ${tokens}, ${figures(psnr, ssim)}`
    })
    if (pictures.length > 1) lines.push(`mean of ${pictures.length}: ${figures(mean.psnr, mean.ssim)}`)
    await print([...lines, ...names.map(name => shown`${name}`)].join('\n') + '\n')
  })
}

function average (values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0) / values.length
}

function figures (psnr: number | undefined, ssim: number | undefined): string {
  return `PSNR ${psnr!.toFixed(2)} dB${ssim === undefined ? '' : `, SSIM ${ssim.toFixed(4)}`}`
}
