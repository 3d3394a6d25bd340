// parvis convert: the authors' .pt to a .safetensors that holds the weights only, in one type, with the architecture
// beside them. The conversion itself writes to a part file and renames it, so a stopped one leaves nothing.

import { Command, Option } from 'commander'
import { convertCheckpoint } from '../checkpoint/index.js'
import { ParError } from '../errors.js'
import type { DType } from '../native.js'
import { grid, integer } from './arguments.js'
import { checkWritable } from './picture.js'
import { bytesText, print, printJson, progressBar, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  precision?: DType
  heads?: number
  grid?: [number, number]
  tokensPerStep?: number
  tokenizer?: string
  checksum: boolean
  force?: boolean
}

export function convertCommand (signal: AbortSignal): Command {
  return new Command('convert')
    .description('Write a checkpoint as .safetensors: the weights alone, with the architecture in the metadata.')
    .argument('<in>', 'checkpoint (.pt or .safetensors), transformer or tokenizer')
    .argument('<out.safetensors>', 'file to write')
    .addOption(new Option('--precision <type>', 'type of all tensors (default: as they are)').choices(['float32', 'float16', 'bfloat16']))
    .option('--heads <number>', 'attention heads, where the checkpoint is of no known size', integer(1))
    .option('--grid <rows>x<columns>', 'token grid, where the checkpoint does not say', grid)
    .option('-n, --tokens-per-step <n>', 'fail unless the checkpoint is for n tokens a step', integer(1))
    .option('--tokenizer <file>', 'of a transformer: the tokenizer it belongs to; with another codebook it is then refused')
    .option('--no-checksum', 'do not read the whole input for its SHA-256')
    .option('--force', 'replace the file if it exists (of a link: what it leads to)')
    .action(async (input: string, output: string, flags: Flags) => {
      const { kind } = await checkWritable(output)
      // What is no file is refused by the conversion, with or without --force.
      if (!flags.force && kind === 'file') throw new ParError('INVALID_OPTION', `${output} exists already; --force replaces it`)
      const progress = progressBar(flags)
      try {
        const result = await convertCheckpoint(input, output, {
          precision: flags.precision,
          heads: flags.heads,
          grid: flags.grid,
          n: flags.tokensPerStep,
          tokenizer: flags.tokenizer,
          checksum: flags.checksum,
          signal,
          onProgress: (done, total) => progress.update(done, total, `${bytesText(done)} of ${bytesText(total)}`)
        })
        progress.stop()
        if (flags.json) await printJson(result)
        else await print(`${output}: ${result.kind}, ${result.tensors} tensors, ${bytesText(result.bytes)}\n`)
      } finally {
        progress.stop()
      }
    })
}
