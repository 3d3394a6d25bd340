// The flags of how tokens are drawn, which every command that draws some has.

import type { Command } from 'commander'
import type { GenerateOptions, SamplingOptions } from '../api/options.js'
import { integer, real } from './arguments.js'

export interface SamplingFlags extends SamplingOptions {
  tokensPerStep?: number
}

export function samplingOptions (command: Command): Command {
  return command
    .optionsGroup("Sampling (default: the model's own):")
    .option('-n, --tokens-per-step <n>', 'tokens per step; a number that the model was trained for (1, 4 or 16)',
      integer(1))
    .option('--guidance-scale <scale>',
      'how strongly the picture follows the class (classifier-free guidance); 1 turns guidance off', real)
    .option('--temperature <t>', 'above 1 more varied, below 1 less; 0 always takes the most likely token', real)
    .option('--top-k <k>', 'choose among the k most likely tokens; 0 is off', integer(0))
    .option('--top-p <p>', 'choose among the most likely tokens whose probabilities reach p; 1 is off', real)
    .option('--greedy', 'always take the most likely token')
}

/** As the API takes them. */
export function samplingOf (
  { tokensPerStep: n, guidanceScale, temperature, topK, topP, greedy }: SamplingFlags
): Pick<GenerateOptions, 'n' | keyof SamplingOptions> {
  return { n, guidanceScale, temperature, topK, topP, greedy }
}
