// parvis bench: how fast this machine is, on random weights of the paper's sizes: no file is needed. The report goes to
// standard output; plots, which are several files, into a folder.

import path from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { findTorch } from '../bench/peers.js'
import { sharePlot, timePlot } from '../bench/plot.js'
import { formats, write, type Format } from '../bench/report.js'
import { runBench } from '../bench/run.js'
import { fromSystem, tryFolder } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import type { Precision } from '../machine/native.js'
import type { PublishedParallel } from '../models/published.js'
import type { Device } from '../machine/device.js'
import {
  paperSubject, parallelNames, parallelOf, parallelSubject, videoName, videoSubject, type Subject
} from '../bench/subjects.js'
import { modelNames } from '../models/shapes.js'
import { device, fileName, integer } from './arguments.js'
import { benchIsas, checkIsas } from './bench-isas.js'
import { writeOutput } from './outputs.js'
import { progressBar } from './progress.js'
import { print, UsageError, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  size?: string[]
  steps?: number[]
  model?: string[]
  tokensPerStep: number[]
  batch: number[]
  grid: number[]
  device: Device[]
  precision: Array<'auto' | Precision>
  isa?: string[]
  threads?: number
  repeats: number
  seconds: number
  full?: boolean
  decode: boolean
  operations?: boolean
  coldStart: boolean
  /** A path, false for --no-torch, true by default. */
  torch: string | boolean
  authors?: string
  format?: Format
  output?: Format
  plots?: string
}

const precisions = ['auto', 'float32', 'bfloat16', 'int8'] as const

export function benchCommand (signal: AbortSignal): Command {
  return new Command('bench')
    .description(
      "Measure the speed on random weights of the paper's sizes, and compare it with the limits of the machine."
    )
    .optionsGroup('What to measure (comma lists):')
    .option('--size <names>', `sizes of the paper: ${modelNames.join(', ')} (default: L)`, listOf(oneOf(modelNames)))
    .option('--model <names>', `models of other methods: ${parallelNames.join(', ')}; ${videoName}: videos as the ` +
      "paper's table 3 makes them, with a model of XL's shape",
    listOf(oneOf([...modelNames, ...parallelNames, ...shortNames, videoName]))) // sizes too: the name that --size had
    .option('--steps <numbers>', 'steps of a picture of those (default: the authors\' best)', listOf(integer(1)))
    .option('-n, --tokens-per-step <numbers>', 'tokens per step of the sizes', listOf(integer(1)), [1, 4, 16])
    .option('--batch <pictures>', 'pictures per batch', listOf(integer(1)), [1])
    .option('--grid <tokens>', 'tokens per side', listOf(integer(1)), [24])
    .option('--device <devices>', 'auto, cpu, cuda or cuda:<number>', listOf(device), ['auto'])
    .option('--precision <types>', `type of the weights: ${precisions.join(', ')}`, listOf(oneOf(precisions)), ['auto'])
    .option('--isa <names>', 'instruction sets of the CPU, one after another: baseline, avx2, avx512, avx512_bf16; ' +
      'on ARM baseline, neon_bf16 (default: the one that is used)', listOf(text => text))
    .option('--threads <number>', 'CPU threads (default: one per core)', integer(1))
    .option('--no-decode', 'do not measure the VQ-16 decoder')
    .option('--operations', 'also time every launch of a step and of a decode')
    .option('--no-cold-start', 'do not measure a new process with the embedded model')
    .option('--torch <file>', 'PyTorch program to compare with on the CPU (default: bench/torch/decode.py of the ' +
      'repository, if Python has torch)', fileName)
    .option('--no-torch', 'do not compare with PyTorch')
    .option('--authors <folder>', "also compare with a checkout of the authors' code (Epiphqny/PAR)", fileName)
    .optionsGroup('How long:')
    .option('--repeats <number>', 'timed runs: steps at each place of the cache, or whole pictures', integer(1), 5)
    .option('--seconds <seconds>', 'maximum time; fewer repeats if needed', integer(1), 240)
    .option('--full', 'time every step of whole pictures (always done on CUDA)')
    .optionsGroup('The report:')
    .addOption(new Option('--format <format>', 'its format (default: md)').choices(formats))
    .addOption(new Option('-o, --output <format>').choices(formats).hideHelp()) // the name it had
    .option('--plots <folder>', 'write time.svg and ceilings.svg there', fileName)
    .optionsGroup('Options:')
    .action(async (flags: Flags) => await bench(flags, signal))
}

async function bench (flags: Flags, signal: AbortSignal): Promise<void> {
  const asked = flags.format ?? flags.output
  if (flags.json && asked !== undefined && asked !== 'json') {
    throw new UsageError(`--json and --format ${asked} are two formats; choose one`)
  }
  const format = asked ?? (flags.json ? 'json' : 'md')
  for (const n of flags.tokensPerStep) {
    const side = Math.sqrt(n)
    const grid = Number.isInteger(side) ? flags.grid.find(grid => grid % side !== 0) : undefined
    if (grid !== undefined) {
      throw new UsageError(`--tokens-per-step ${n} cuts the grid into ${side} x ${side} regions, but ${side} does ` +
        `not divide --grid ${grid}`)
    }
  }
  const subjects = subjectsOf(flags)
  if (flags.plots !== undefined) await writable(flags.plots)
  const torch = await findTorch({
    plain: flags.torch !== false,
    ...(typeof flags.torch === 'string' && { script: flags.torch }),
    ...(flags.authors !== undefined && { authors: flags.authors })
  })
  if (!torch && (typeof flags.torch === 'string' || flags.authors !== undefined)) {
    throw new UsageError(`${flags.authors === undefined ? '--torch' : '--authors'} needs a python3 that imports torch`)
  }
  if (flags.isa) checkIsas(flags.isa, flags.device)
  const command = ['npx parvis', ...process.argv.slice(2)].join(' ')
  const progress = progressBar(flags)
  const onProgress = (done: number, total: number, text: string): void => { progress.update(done, total, text) }
  try {
    const report = flags.isa
      ? await benchIsas(flags.isa, argumentsOf(flags), command, signal, onProgress)
      : await runBench({
        subjects,
        batches: flags.batch,
        grids: flags.grid,
        devices: flags.device,
        precisions: flags.precision,
        threads: flags.threads ?? 0,
        repeats: flags.repeats,
        full: flags.full ?? false,
        seconds: flags.seconds,
        decode: flags.decode,
        operations: flags.operations ?? false,
        coldStart: flags.coldStart,
        torch,
        command,
        signal,
        onProgress
      })
    progress.stop()
    if (flags.plots !== undefined) {
      for (const [name, svg] of [['time.svg', timePlot(report)], ['ceilings.svg', sharePlot(report)]] as const) {
        await writeOutput(path.join(flags.plots, name), Buffer.from(svg), signal)
      }
    }
    await print(write(report, format))
  } finally {
    progress.stop()
  }
}

/** What makes the same measurements on one instruction set: each has its share of the time. */
function argumentsOf (flags: Flags): string[] {
  const lists = {
    size: flags.size, model: flags.model, steps: flags.steps, 'tokens-per-step': flags.tokensPerStep,
    batch: flags.batch, grid: flags.grid, precision: flags.precision
  }
  const numbers = {
    threads: flags.threads, repeats: flags.repeats, seconds: Math.ceil(flags.seconds / flags.isa!.length)
  }
  const { torch, authors } = flags
  return [
    ...Object.entries(lists).flatMap(([name, list]) => list === undefined ? [] : [`--${name}`, list.join()]),
    ...Object.entries(numbers).flatMap(([name, number]) => number === undefined ? [] : [`--${name}`, String(number)]),
    ...flags.full ? ['--full'] : [],
    ...flags.decode ? [] : ['--no-decode'],
    ...flags.operations ? ['--operations'] : [],
    ...flags.coldStart ? [] : ['--no-cold-start'],
    ...torch === false ? ['--no-torch'] : typeof torch === 'string' ? ['--torch', torch] : [],
    ...authors === undefined ? [] : ['--authors', authors]
  ]
}

/** 'lpd-l' for 'lpd-l-256'. */
const shortNames = parallelNames.filter(name => name.endsWith('-256')).map(name => name.slice(0, -4))

function subjectsOf ({ size, model = [], steps, tokensPerStep }: Flags): Subject[] {
  const sizes = [...size ?? [], ...model.filter(name => modelNames.includes(name))]
  const others = model.flatMap(name => parallelOf(name) ?? [])
  if (steps !== undefined && others.length === 0) {
    throw new UsageError('--steps is for models of other methods than PAR; give some with --model')
  }
  const videos = model.includes(videoName)
  const named = sizes.length === 0 && others.length === 0 && !videos ? ['L'] : sizes
  return [
    ...named.flatMap(name => tokensPerStep.map(n => paperSubject(name, n))),
    ...(videos ? tokensPerStep.map(videoSubject) : []),
    ...others.flatMap(published => steps === undefined
      ? [parallelSubject(published)]
      : steps.filter(count => isPossible(published, count)).map(count => parallelSubject(published, count)))
  ]
}

/** With several models a number of steps need not suit all of them. */
function isPossible (published: PublishedParallel, steps: number): boolean {
  try {
    parallelSubject(published, steps).plan(published.side)
    return true
  } catch {
    return false
  }
}

/** Before minutes of measuring. */
async function writable (folder: string): Promise<void> {
  try {
    await makeFolder(folder)
    await tryFolder(folder)
  } catch (error) {
    throw fromSystem(error, folder, 'written')
  }
}

// ---- arguments

/** A comma list, each value once. */
function listOf<T> (one: (text: string) => T): (text: string) => T[] {
  return text => [...new Set(text.split(',').map(part => one(part.trim())))]
}

function oneOf<T extends string> (choices: readonly T[]): (text: string) => T {
  return text => {
    const found = choices.find(choice => choice.toLowerCase() === text.toLowerCase())
    if (found === undefined) {
      throw new InvalidArgumentError(`Give ${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}.`)
    }
    return found
  }
}
