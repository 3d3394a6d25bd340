// Which model the commands on pictures load, and where it runs: the flags, listed once, and the instance made of them.

import { Command, Option } from 'commander'
import type { WeightsChoice } from '../checkpoint/index.js'
import { embedded, embeddedModels, embeddedNamed, type EmbeddedName } from '../models/embedded.js'
import type { Precision } from '../machine/native.js'
import type { Device } from '../machine/device.js'
import { Par, type ParInfo } from '../api/par.js'
import { presetOf, presets, type PresetName } from '../models/presets.js'
import { presetTokenizer, type PullProgress } from '../hub/pull.js'
import { shownPath, visible } from '../base/text.js'
import { show } from '../base/validate.js'
import { fileName, integer, modelGrid, rotationPairs } from './arguments.js'
import { progressBar, type Progress } from './progress.js'
import { note, shown, UsageError, type CommonFlags } from './terminal.js'

export interface MachineFlags extends CommonFlags {
  device?: Device
  precision?: 'auto' | Precision
  threads?: number
}

export interface TokenizerFlags extends MachineFlags {
  /** The name of a preset, or of a model that comes with the package. */
  model?: string
  tokenizer?: string
  weights?: WeightsChoice
}

export interface ModelFlags extends TokenizerFlags {
  pull?: boolean
  transformer?: string
  heads?: number
  grid?: [number, number] | [number, number, number]
  rotationPairs?: [number, number, number]
  vocabularySize?: number
}

function machineOptions (command: Command): Command {
  return command
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>')
    .addOption(new Option('--precision <type>', 'type of the weights').choices(['auto', 'float32', 'bfloat16', 'int8']))
    .option('--threads <number>', 'CPU threads (default: one per core)', integer(1))
    .optionsGroup('Options:')
}

/** Flags of a command that needs no transformer. */
export function tokenizerOptions (command: Command): Command {
  return machineOptions(command
    .optionsGroup('The model and the machine:')
    .option('-m, --model <name>', 'the tokenizer of a published checkpoint, such as par-xl-4x')
    .option('--tokenizer <file>', "VQ tokenizer checkpoint, .pt or .safetensors (default: the embedded model's)",
      fileName)
    .addOption(weightsOption('tokenizer')))
}

/** Flags of a command that needs a transformer. */
export function modelOptions (command: Command): Command {
  return machineOptions(command
    .optionsGroup('The model and the machine:')
    .option('-m, --model <name>', 'a model by name, such as par-xl-4x; `parvis models` lists them')
    .option('--pull', 'with --model: download files that are not in the cache')
    .option('--transformer <file>', 'PAR or LlamaGen checkpoint, .pt or .safetensors (default: the embedded model)',
      fileName)
    .option('--tokenizer <file>', 'VQ tokenizer checkpoint (.pt or .safetensors)', fileName)
    .option('--heads <number>', 'attention heads, if the checkpoint has no known size', integer(1))
    .option('--grid <rows>x<columns>', 'token grid, if the checkpoint does not say; FxRxC for videos', modelGrid)
    .option('--rotation-pairs <f,r,c>', 'for videos: pairs rotated by frame, row, column', rotationPairs)
    .option('--vocabulary-size <number>', 'for NBP: how many rows of its tables are video codes', integer(1))
    .addOption(weightsOption('transformer')))
}

function weightsOption (part: string): Option {
  return new Option('--weights <which>',
    `if the ${part} file has both: the model's weights or their moving average`).choices(['model', 'ema'])
}

/** Shows a bar and loads, for as long as `work` takes. */
export async function withPar (
  flags: CommonFlags, load: (progress: Progress) => Promise<Par>, work: (par: Par, progress: Progress) => Promise<void>
): Promise<void> {
  const progress = progressBar(flags)
  let par: Par | undefined
  try {
    progress.update(0, 1, 'loading the model')
    par = await load(progress)
    await work(par, progress)
  } finally {
    progress.stop()
    await par?.dispose()
  }
}

/** A name that is none is wrong usage. */
export function knownModel (name: string): PresetName | EmbeddedName {
  const embedded = embeddedNamed(name)
  if (embedded) return embedded.name
  try {
    return presetOf(name).name
  } catch {
    throw new UsageError(`there is no model ${show(name)}; ` +
      `the presets: ${presets.map(({ name }) => name).join(', ')}; in the package: ${embeddedModels.map(({ name }) => name).join(', ')}`)
  }
}

/** The tokenizer alone. */
export async function loadTokenizer (flags: TokenizerFlags, signal: AbortSignal): Promise<Par> {
  const { model, device, precision, threads, weights } = flags
  if (model !== undefined && flags.tokenizer !== undefined) {
    throw new UsageError('--model says what --tokenizer would; give one of them')
  }
  if (weights !== undefined && flags.tokenizer === undefined) {
    throw new UsageError('--weights is about the file of --tokenizer; give that too')
  }
  const name = model === undefined ? embedded.name : knownModel(model)
  const tokenizer = flags.tokenizer ?? embeddedNamed(name)?.tokenizer ?? await presetTokenizer(presetOf(name))
  return said(await Par.load({ tokenizer: { path: tokenizer, weights }, device, precision, threads, signal }), flags)
}

/**
 * @throws UsageError for flags that say the same, or nothing without another one; a tokenizer alone makes and scores no
 * tokens
 */
export function checkModel (flags: ModelFlags): void {
  if (flags.model !== undefined) {
    knownModel(flags.model)
    const other = (['transformer', 'tokenizer', 'heads', 'grid', 'rotationPairs', 'vocabularySize', 'weights'] as const)
      .find(name => flags[name] !== undefined)
    if (other) throw new UsageError(`--model says what --${flagOf(other)} would; give one of them`)
    return
  }
  if (flags.pull) throw new UsageError('--pull fetches what --model names; give that too')
  if (flags.transformer !== undefined) return
  if (flags.tokenizer !== undefined) {
    throw new UsageError('--tokenizer alone makes and scores no tokens; give --transformer too')
  }
  if ((flags.heads ?? flags.grid ?? flags.rotationPairs ?? flags.vocabularySize ?? flags.weights) !== undefined) {
    throw new UsageError('--heads, --grid, --rotation-pairs, --vocabulary-size and --weights are about the file of ' +
      '--transformer; give that too')
  }
}

/** 'rotationPairs' -> 'rotation-pairs' */
export const flagOf = (name: string): string => name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)

/** The preset, the files given, or the embedded model. */
export async function loadModel (
  flags: ModelFlags, signal: AbortSignal, onPull?: (progress: PullProgress) => void
): Promise<Par> {
  const { model, pull, transformer, tokenizer, device, precision, threads } = flags
  const { heads, grid, rotationPairs, vocabularySize, weights } = flags
  if (model !== undefined) {
    return said(await Par.load(knownModel(model), { pull, onPull, device, precision, threads, signal }), flags)
  }
  return said(await Par.load({
    ...(transformer !== undefined &&
      { transformer: { path: transformer, heads, grid, rotationPairs, vocabularySize, weights } }),
    ...(tokenizer !== undefined && { tokenizer }),
    device,
    precision,
    threads,
    signal
  }), flags)
}

/** What the file leaves open; with --verbose also what runs, where and why. */
function said (par: Par, flags: CommonFlags): Par {
  for (const part of [par.info.transformer, par.info.tokenizer]) {
    for (const warning of part?.warnings ?? []) note(`parvis: ${shownPath(part!.path)}: ${visible(warning)}`)
  }
  if (flags.verbose) {
    const { device, deviceReason, isa, threads, precision, precisionReason, transformer, tokenizer }: ParInfo = par.info
    const model = [transformer, tokenizer].flatMap(part => part ? [part.name ?? part.path] : []).join(' and ')
    const processor = threads > 0 ? `${isa}, ${threads} threads` : isa
    note(shown`model ${model} on ${device} (${deviceReason}; ${processor}) in ${precision} (${precisionReason})`)
  }
  return par
}
