// The command line's table of contents, and the one place where its errors become messages and exit codes:
// 0 done, 1 failed, 2 wrong usage, 129, 130 or 143 stopped by a signal. Each command is a file of its own.

import { Command, CommanderError } from 'commander'
import { mistakesBetween } from '../models/labels.js'
import { show } from '../base/validate.js'
import { benchCommand } from './bench.js'
import { completeCommand } from './complete.js'
import { convertCommand } from './convert.js'
import { decodeCommand } from './decode.js'
import { doctorCommand } from './doctor.js'
import { encodeCommand } from './encode.js'
import { entropyCommand } from './entropy.js'
import { evalCommand } from './eval.js'
import { report } from './failure.js'
import { generateCommand } from './generate.js'
import { examples, styleHelp } from './help.js'
import { inspectCommand } from './inspect.js'
import { labelsCommand } from './labels.js'
import { modelsCommand } from './models.js'
import { pullCommand } from './pull.js'
import { reconstructCommand } from './reconstruct.js'
import { sampleCommand } from './sample.js'
import { scoreCommand } from './score.js'
import { abortOnSignals, endEvenIfStuck } from './signals.js'
import { catchOutputErrors, hush, print, printJson, UsageError, type CommonFlags } from './terminal.js'

const { version } = require('../../package.json') as { version: string }

/** The commands by what they are about, each with the line that stands in the list of all; its own help says more. */
function groups (signal: AbortSignal): Array<[title: string, commands: Array<[command: Command, summary: string]>]> {
  return [
    ['Pictures:', [
      [generateCommand(signal), 'make pictures of classes'],
      [completeCommand(signal), 'keep a part of a picture and draw the rest'],
      [labelsCommand(signal), 'list the classes of a model']
    ]],
    ['Tokens:', [
      [encodeCommand(signal), 'pictures to tokens'],
      [decodeCommand(signal), 'tokens to pictures'],
      [reconstructCommand(signal), 'encode, decode and compare'],
      [scoreCommand(signal), 'how probable a picture is for a model']
    ]],
    ['Evaluation:', [
      [sampleCommand(signal), 'many pictures, for an evaluation'],
      [evalCommand(signal), 'compare generated pictures with real ones: FID, precision and recall'],
      [entropyCommand(signal), 'what tokens tell of each other, over many pictures']
    ]],
    ['Models:', [
      [modelsCommand(), 'list the published models'],
      [pullCommand(signal), 'download a published model'],
      [inspectCommand(signal), 'show what a checkpoint file is'],
      [convertCommand(signal), 'write a checkpoint as .safetensors']
    ]],
    ['This machine:', [
      [doctorCommand(signal), 'show which device parvis uses, and why'],
      [benchCommand(signal), 'measure how fast it is']
    ]]
  ]
}

export function program (signal: AbortSignal): Command {
  const program = new Command('parvis')
    .description(
      'Make pictures with PAR and LlamaGen models. You choose a class ("sneaker", "otter"), not a text prompt.'
    )
    .usage('<command> [options]')
    .version(`parvis ${version}`, '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', examples(
      'parvis generate sneaker --scale 8',
      'parvis models',
      'parvis pull par-xl-4x',
      'parvis generate otter --model par-xl-4x',
      'parvis help generate'))
  for (const [title, commands] of groups(signal)) {
    for (const [command, summary] of commands) {
      program.addCommand(command
        .summary(summary)
        .helpGroup(title)
        .option('--json', 'print the result (and errors, on standard error) as JSON')
        .option('-q, --quiet', 'print results and errors only: no progress, no notes')
        .option('--verbose', 'show the device and precision; print the stack of an error'))
    }
  }
  program.addCommand(new Command('version').summary('print the version').helpGroup('Help:').option('--json',
    'print it as JSON')
    .action(async ({ json }: CommonFlags) => { await (json ? printJson({ version }) : print(`parvis ${version}\n`)) }))
  program.addHelpCommand(
    new Command('help').summary('print the help of a command').argument('[command]').helpGroup('Help:')
  )
  return program
}

/** Runs one command line (as in process.argv); the exit code. */
export async function main (argv: readonly string[], signal = abortOnSignals()): Promise<number> {
  // Commander has not parsed anything yet when it finds fault with the line.
  const flags: CommonFlags = { json: argv.includes('--json'), verbose: argv.includes('--verbose') }
  const commands = program(signal)
  let running: Command | undefined
  commands.hook('preAction', (_, command) => {
    running = command
    if ((command.opts() as CommonFlags).quiet) hush()
  })
  let help: Promise<unknown> = Promise.resolve()
  for (const command of [commands, ...commands.commands]) {
    styleHelp(command)
    command.exitOverride()
    // Through print, so that help which cannot be written is an error too.
    command.configureOutput({
      outputError: () => {}, writeOut: text => { help = help.then(async () => await print(text)) }
    })
  }
  try {
    const words = asCommand(argv.slice(2))
    const [first, second] = words
    if (first === 'help' && second !== undefined && !second.startsWith('-')) knownCommand(commands, second)
    await commands.parseAsync([...argv.slice(0, 2), ...words])
    return 0
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error, flags, running)
    if (error.exitCode === 0) { // --help, --version
      return await help.then(() => 0, (fault: unknown) => report(fault, flags))
    }
    if (error.code === 'commander.help') return 2 // no command: the help is printed already
    const command = commands.commands.find(command => argv[2] === command.name())
    const hint = `parvis ${command ? command.name() + ' ' : ''}--help lists what there is`
    const fault = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ').replace(/\.$/, '')
    return report(new UsageError(`${fault}; ${hint}`), flags)
  }
}

/**
 * Words that stand for a command, as that command: --version may be asked for as JSON, and the help of `help` is all of
 * it.
 */
function asCommand (words: readonly string[]): readonly string[] {
  const versions = words.filter(word => ['-v', '-V', '--version'].includes(word))
  if (versions.length > 0 && words.every(word => word === '--json' || versions.includes(word))) {
    return ['version', ...words.filter(word => word === '--json')]
  }
  if (words[0] === 'help' && words[1] === 'help') return ['help', ...words.slice(2)]
  return words
}

function knownCommand ({ commands }: Command, name: string): void {
  const names = commands.map(command => command.name())
  if (names.includes(name)) return
  const near = names.find(other => mistakesBetween(name, other, 2) <= 2)
  throw new UsageError(`there is no command ${show(name)}${near === undefined ? '' : ` (Did you mean ${near}?)`}; ` +
    'parvis --help lists the commands')
}

/** What bin/parvis.js calls. The process ends by itself, so that pending output is flushed. */
export function run (argv: readonly string[]): void {
  catchOutputErrors()
  const signal = abortOnSignals()
  void main(argv, signal).then(code => {
    process.exitCode = code
    endEvenIfStuck(signal)
  })
}
