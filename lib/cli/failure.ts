// How an error looks, and which exit code it has: 1 failed, 2 wrong usage, 129, 130 or 143 stopped by a signal.

import { inspect } from 'node:util'
import type { Command } from 'commander'
import { ParError } from '../base/errors.js'
import { isError } from '../base/realm.js'
import { visible, visibleJson } from '../base/text.js'
import { Interruption } from './signals.js'
import { complain, paint, UsageError, type CommonFlags } from './terminal.js'

/** Characters of a message at most; what is longer has swallowed something that is no name. */
const longestMessage = 2000

/**
 * Prints an error as one clear message (as JSON with --json) and returns the exit code.
 * @param command the one that ran: its flags take the place of the library's option names
 */
export function report (error: unknown, flags: CommonFlags, command?: Command): number {
  const { code, message: whole, usage } = describe(error, command)
  const short = whole.length > longestMessage
    ? `${whole.slice(0, longestMessage - 200)} ... ${whole.slice(-150)}`
    : whole
  // Only what says how to build the addon has several lines; any other line break came with a text out of a file.
  const message = code === 'NATIVE_UNAVAILABLE' ? short : visible(short)
  if (flags.json) complain(visibleJson(JSON.stringify({ error: { code, message } })))
  else complain(`${paint('red', 'parvis:')} ${message} [${code}]`)
  if (flags.verbose || process.env.PARVIS_DEBUG) {
    for (let cause = error; isError(cause); cause = cause.cause) complain(cause.stack ?? String(cause))
  }
  if (error instanceof Interruption) return error.exitCode
  return usage ? 2 : 1
}

interface Failure {
  code: string
  message: string
  /** The command line itself is at fault, whatever files there are. */
  usage?: boolean
}

function describe (error: unknown, command: Command | undefined): Failure {
  if (error instanceof ParError) return inFlags(error, command)
  if (error instanceof UsageError) return { code: error.code, message: error.message, usage: true }
  if (error instanceof Interruption) return { code: error.code, message: error.told }
  if (!isError(error)) return { code: 'UNKNOWN', message: typeof error === 'string' ? error : inspect(error) }
  const code = (error as NodeJS.ErrnoException).code
  // System errors say what happened and to which file; anything else that comes here is a defect.
  if (typeof code === 'string') return { code, message: error.message }
  return { code: 'INTERNAL', message: `${error.message || error.name} (a defect in parvis; --verbose shows where)` }
}

// ---- the words of the command line

/** Options of the library whose flags have another name. */
const flagNames: Record<string, string> = { n: 'tokensPerStep', classId: 'class' }

/** What the library says about its options, and the cures that it gives, in words of the command line. */
function inFlags ({ code, message }: ParError, command: Command | undefined): Failure {
  const text = message
    .replace(/\bPass (heads|grid)\.$/, 'Pass --$1.')
    .replace(/\bPass rotationPairs\.$/, 'Pass --rotation-pairs.')
    .replace(/\bPass levels\.$/, 'Pass --levels.')
    .replace(/\bpass vocabularySize\.$/, 'pass --vocabulary-size.')
    .replace(/\bPass vocabularySize and n\.$/, 'Pass --vocabulary-size.')
    .replace(/; or ask Par\.load for it: \{ pull: true \}$/, '; or give --pull')
    .replace(/\bUse device: ('.*)$/, (_, devices: string) => 'Use ' + devices.replace(/'([^']+)'/g, '--device $1'))
  if (code !== 'INVALID_OPTION') return { code, message: text }
  let usage = false
  // 'guidanceScale must be', 'transformer.heads must be', 'size.width must be', 'grid[0] must be'
  const named = text.replace(/^(?:transformer\.|tokenizer\.)?([a-zA-Z]+)((?:\.[a-zA-Z]+|\[\d+\])*)(?= must )/, (
    whole, name: string, part: string
  ) => {
    const option = command?.options.find(option => option.attributeName() === (flagNames[name] ?? name))
    if (option?.long == null) return whole
    usage = true
    return option.long + (part === '' ? '' : ` (${part.replace(/^\./, '')})`)
  })
  return { code, message: named, usage }
}
