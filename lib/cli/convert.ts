// parvis convert: the authors' .pt to a .safetensors that holds the weights only, in one type, with the architecture
// beside them. The conversion itself writes to a part file and renames it, so a stopped one leaves nothing.

import { Command, Option } from 'commander'
import { convertCheckpoint, type WeightsChoice } from '../checkpoint/index.js'
import { ParError } from '../base/errors.js'
import type { StoredType } from '../machine/native.js'
import { shownPath, visible } from '../base/text.js'
import { fileName, integer, levels, modelGrid, rotationPairs } from './arguments.js'
import { checkOneFile } from './outputs.js'
import { progressBar } from './progress.js'
import { bytesText, note, printJson, printSummary, shown, UsageError, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  precision?: StoredType
  heads?: number
  grid?: [number, number] | [number, number, number]
  rotationPairs?: [number, number, number]
  vocabularySize?: number
  levels?: number[]
  tokensPerStep?: number
  tokenizer?: string
  weights?: WeightsChoice
  checksum: boolean
  force?: boolean
}

export function convertCommand (signal: AbortSignal): Command {
  return new Command('convert')
    .description('Write a checkpoint as .safetensors: the weights alone, with the architecture in the metadata.')
    .argument('<in>', 'checkpoint (.pt or .safetensors), transformer or tokenizer', fileName)
    .argument('<out.safetensors>', 'file to write')
    .addOption(new Option('--precision <type>',
      'type of all tensors (default: as stored)').choices(['float32', 'float16', 'bfloat16', 'int8']))
    .option('--heads <number>', 'attention heads, if the file does not say', integer(1))
    .option('--grid <rows>x<columns>', 'token grid, if the file does not say; an assumed grid is not recorded',
      modelGrid)
    .option('--rotation-pairs <f,r,c>', 'for videos: pairs rotated by frame, row, column', rotationPairs)
    .option('--vocabulary-size <number>', 'for NBP: how many rows of its tables are video codes', integer(1))
    .option('--levels <list>', 'for tokenizers of videos: levels of each channel, such as 8,8,8,5,5,5', levels)
    .option('-n, --tokens-per-step <n>', 'fail unless the checkpoint is for n tokens per step', integer(1))
    .option('--tokenizer <file>',
      'for a transformer: the tokenizer that it needs, recorded so that another one is refused', fileName)
    .addOption(new Option('--weights <which>',
      'where the file has both: the model\'s weights or their moving average').choices(['model', 'ema']))
    .option('--no-checksum', 'do not read the whole input for its SHA-256')
    .option('--force', 'replace the file if it exists; for a link, replaces its target')
    .action(async (input: string, output: string, flags: Flags) => {
      if (output === '-') {
        throw new UsageError(
          'a checkpoint is not written to standard output; give the name of a file (./- for one that is called so)'
        )
      }
      const { kind } = await checkOneFile(output)
      // What is no file is refused by the conversion, with or without --force.
      if (!flags.force && kind === 'file') {
        throw new ParError('INVALID_OPTION', `${shownPath(output)} exists already; --force replaces it`)
      }
      const progress = progressBar(flags)
      try {
        const result = await convertCheckpoint(input, output, {
          precision: flags.precision,
          heads: flags.heads,
          grid: flags.grid,
          rotationPairs: flags.rotationPairs,
          vocabularySize: flags.vocabularySize,
          levels: flags.levels,
          n: flags.tokensPerStep,
          tokenizer: flags.tokenizer,
          weights: flags.weights,
          checksum: flags.checksum,
          signal,
          onProgress: (done, total) => progress.update(done, total, `${bytesText(done)} of ${bytesText(total)}`)
        })
        progress.stop()
        for (const warning of result.warnings) note(`parvis: ${shownPath(input)}: ${visible(warning)}`)
        if (flags.json) await printJson(result)
        else {
          await printSummary(
            shown`${output}: ${result.kind}, ${result.tensors} tensors, ${bytesText(result.bytes)}` + '\n'
          )
        }
      } finally {
        progress.stop()
      }
    })
}
