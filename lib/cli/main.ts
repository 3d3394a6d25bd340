// The command line's table of contents, and the one place where its errors become messages and exit codes:
// 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped by a signal. Each command is a file of its own.

import { Command, CommanderError } from 'commander'
import { benchCommand } from './bench.js'
import { convertCommand } from './convert.js'
import { decodeCommand } from './decode.js'
import { doctorCommand } from './doctor.js'
import { encodeCommand } from './encode.js'
import { generateCommand } from './generate.js'
import { inspectCommand } from './inspect.js'
import { labelsCommand } from './labels.js'
import { pullCommand } from './pull.js'
import { reconstructCommand } from './reconstruct.js'
import { scoreCommand } from './score.js'
import { abortOnSignals, catchOutputErrors, print, report, UsageError, type CommonFlags } from './terminal.js'

// eslint-disable-next-line @typescript-eslint/no-require-imports
const { version } = require('../../package.json') as { version: string }

export function program (signal: AbortSignal): Command {
  const program = new Command('parvis')
    .description('Images from parallelized autoregressive (PAR) transformers.')
    .version(`parvis ${version}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .addHelpText('after', `
Examples:
  $ parvis generate --class 7 -n 4 --seed 1 --out boot.png
  $ parvis generate --class sneaker,bag --count 4 --scale 8 --out sheet.png
  $ parvis pull par-xl-4x && parvis generate --model par-xl-4x --class otter
  $ parvis encode boot.png --out boot.npy
  $ parvis score boot.png --class 7 -n 1,4,16 --heatmap heat.png
  $ parvis inspect PAR-XL-4x.pt
  $ parvis convert PAR-XL-4x.pt PAR-XL-4x.safetensors --precision bfloat16
  $ parvis doctor
  $ parvis bench --model L -n 1,4,16`)
  for (const command of [generateCommand(signal), encodeCommand(signal), decodeCommand(signal), reconstructCommand(signal), scoreCommand(signal),
    inspectCommand(signal), convertCommand(signal), labelsCommand(signal), pullCommand(signal), doctorCommand(signal), benchCommand(signal)]) {
    command
      .option('--json', 'print the result (and errors, on standard error) as JSON')
      .option('--verbose', 'say what runs where; print the stack of an error')
    program.addCommand(command)
  }
  return program
}

/** Runs one command line (as in process.argv); the exit code. */
export async function main (argv: readonly string[]): Promise<number> {
  // Commander has not parsed anything yet when it finds fault with the line.
  const flags: CommonFlags = { json: argv.includes('--json'), verbose: argv.includes('--verbose') }
  const commands = program(abortOnSignals())
  let help: Promise<unknown> = Promise.resolve()
  for (const command of [commands, ...commands.commands]) {
    command.exitOverride()
    // Through print, so that help which cannot be written is an error too.
    command.configureOutput({ outputError: () => {}, writeOut: text => { help = help.then(async () => await print(text)) } })
  }
  try {
    await commands.parseAsync(argv)
    return 0
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error, flags)
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

/** What bin/parvis.js calls. The process ends by itself, so that pending output is flushed. */
export function run (argv: readonly string[]): void {
  catchOutputErrors()
  void main(argv).then(code => { process.exitCode = code })
}
