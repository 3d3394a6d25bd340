// The flags of how tokens are drawn, which every command that draws some has.

import { Option, type Command } from 'commander'
import type { GenerateOptions, PassesOption, SamplingOptions } from '../api/options.js'
import { draws } from '../decoding/sampling.js'
import type { ParallelOptions } from '../decoding/options.js'
import { integer, integers, real } from './arguments.js'

export interface SamplingFlags extends SamplingOptions, PassesOption {
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
    .addOption(new Option('--draw <name>', 'how a token is drawn from the probabilities (default: inverse)')
      .choices(draws))
    .option('--greedy', 'always take the most likely token')
    .option('--passes <steps>', 'steps that a pass of the transformer holds at most, the later ones on guesses: ' +
      'auto, sequential or a number; the picture is the same (default: auto)', passes)
}

export type StepFlags = Omit<ParallelOptions, 'tokenOrder'>

export function stepOptions (command: Command): Command {
  return command
    .optionsGroup('Steps of ARPG, LPD and RandAR:')
    .option('--steps <number>', 'steps of a picture (default: the authors\' best)', integer(1))
    .option('--group-sizes <sizes>', 'ARPG, LPD: tokens that each step draws, such as 1,5,10,48', integers(1))
    .addOption(new Option('--step-schedule <name>', 'ARPG: how the number of tokens grows (default: arccos)')
      .choices(['arccos', 'cosine']))
    .addOption(new Option('--guidance-schedule <name>',
      'whether the guidance grows with the tokens that are drawn (default: linear)').choices(['linear', 'constant']))
}

/** As the API takes them: what was given, nothing else. */
export function stepsOf ({ steps, groupSizes, stepSchedule, guidanceSchedule }: StepFlags): StepFlags {
  return Object.fromEntries(Object.entries({ steps, groupSizes, stepSchedule, guidanceSchedule })
    .filter(([, value]) => value !== undefined))
}

/** As the API takes it, which says what is wrong with it. */
const passes = (value: string): PassesOption['passes'] =>
  /^\d+$/.test(value) ? Number(value) : value as 'auto' | 'sequential'

/** As the API takes them. */
export function samplingOf (
  { tokensPerStep: n, guidanceScale, temperature, topK, topP, draw, greedy, passes }: SamplingFlags
): Pick<GenerateOptions, 'n' | keyof SamplingOptions | keyof PassesOption> {
  return { n, guidanceScale, temperature, topK, topP, draw, greedy, passes }
}
