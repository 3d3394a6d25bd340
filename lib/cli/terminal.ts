// What every command shares with the terminal: where text goes, how an error looks, what a signal does. Standard
// output carries the result only (text, JSON or a picture), everything else goes to standard error, so that
// `parvis generate --json | jq` and `--out - | display` work. A reader that closes early (`| head`) is not an error.

import { SingleBar } from 'cli-progress'
import { ParError } from '../errors.js'
import { fromSystem } from '../files.js'
import { isError } from '../realm.js'

/** Flags that every command has. */
export interface CommonFlags {
  json?: boolean
  verbose?: boolean
}

/** The command line itself is wrong; exit code 2. */
export class UsageError extends Error {
  readonly code = 'USAGE'
}

/** Why a call was aborted: the signal that came. */
export class Interruption extends Error {
  readonly code = 'INTERRUPTED'

  constructor (readonly signal: 'SIGINT' | 'SIGTERM') {
    super(`stopped by ${signal}; nothing was written`)
  }

  get exitCode (): number {
    return this.signal === 'SIGINT' ? 130 : 143
  }
}

// ---- output

/** Writes to standard output and waits until it is taken. False where the reader has gone. */
export async function print (data: string | Uint8Array): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    process.stdout.write(data, error => {
      if (!error) resolve(true)
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE') resolve(false)
      else reject(fromSystem(error, 'standard output', 'written'))
    })
  })
}

/** Indented, with lists of numbers (shapes, tokens) on one line. A string holds no raw line break, so none is touched. */
export function jsonText (value: unknown): string {
  return JSON.stringify(value, undefined, 2).replace(/\[\n[\s\d.,e+-]+\]/g, list => list.replace(/\s+/g, ' ')) + '\n'
}

export async function printJson (value: unknown): Promise<void> {
  await print(jsonText(value))
}

export function note (text: string): void {
  process.stderr.write(text + '\n')
}

/**
 * Faults of standard output (a reader that has gone, a full disk) reach `print` through its callback; without listeners
 * they would end the process with a stack. Where standard error fails there is nobody left to tell.
 */
export function catchOutputErrors (): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
}

// ---- signals

/**
 * The first SIGINT or SIGTERM aborts, so that the command ends in order and leaves no half-written file; a second
 * one ends the process at once.
 */
export function abortOnSignals (): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      const reason = new Interruption(name)
      if (controller.signal.aborted) process.exit(reason.exitCode)
      controller.abort(reason)
    })
  }
  return controller.signal
}

// ---- progress

export interface Progress {
  update (done: number, total: number, text: string): void
  /** Clears the bar. */
  stop (): void
}

/** A bar on standard error where that is a terminal; nothing anywhere else. */
export function progressBar (flags: CommonFlags): Progress {
  if (!process.stderr.isTTY || flags.json) return { update () {}, stop () {} }
  const bar = new SingleBar({
    format: '{bar} {percentage}%  {text}',
    stream: process.stderr,
    barsize: 30,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false, // signals are ours: its own handler would end the process before anything is cleaned up
    fps: 20
  })
  let started = false
  return {
    update (done, total, text) {
      if (!started) bar.start(total, done, { text })
      else {
        bar.setTotal(total)
        bar.update(done, { text })
      }
      started = true
    },
    stop () {
      if (started) bar.stop()
      started = false
    }
  }
}

// ---- errors

/** Prints an error as one clear message (as JSON with --json) and returns the exit code. */
export function report (error: unknown, flags: CommonFlags): number {
  const { code, message } = describe(error)
  if (flags.json) note(JSON.stringify({ error: { code, message } }))
  else note(`parvis: ${message} [${code}]`)
  if (flags.verbose || process.env.PARVIS_DEBUG) {
    for (let cause = error; isError(cause); cause = cause.cause) note(cause.stack ?? String(cause))
  }
  if (error instanceof UsageError) return 2
  if (error instanceof Interruption) return error.exitCode
  return 1
}

function describe (error: unknown): { code: string, message: string } {
  if (error instanceof ParError) return { code: error.code, message: asFlags(error.message) }
  if (error instanceof UsageError || error instanceof Interruption) return { code: error.code, message: error.message }
  if (!isError(error)) return { code: 'UNKNOWN', message: String(error) }
  const code = (error as NodeJS.ErrnoException).code
  // System errors say what happened and to which file; anything else that comes here is a defect.
  if (typeof code === 'string') return { code, message: error.message }
  return { code: 'INTERNAL', message: `${error.message || error.name} (a defect in parvis; --verbose shows where)` }
}

/** The cures that the library gives in its own words, in those of the command line. */
function asFlags (message: string): string {
  return message
    .replace(/\bPass (heads|grid)\.$/, 'Pass --$1.')
    .replace(/; or ask Par\.load for it: \{ pull: true \}$/, '; or give --pull')
    .replace(/\bUse device: ('.*)$/, (_, devices: string) => 'Use ' + devices.replace(/'([^']+)'/g, '--device $1'))
}

// ---- words

/** Columns of text, two blanks apart, the last one ragged. */
export function table (rows: readonly string[][]): string {
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, k) => { widths[k] = Math.max(widths[k] ?? 0, cell.length) })
  return rows.map(row => '  ' + row.map((cell, k) => cell.padEnd(widths[k]!)).join('  ').trimEnd()).join('\n')
}

/** 3105489920 -> '3.11 GB' */
export function bytesText (bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const unit = Math.min(4, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1000 ** unit
  return `${value < 100 ? value.toPrecision(3) : value.toFixed(0)} ${['B', 'kB', 'MB', 'GB', 'TB'][unit]}`
}
