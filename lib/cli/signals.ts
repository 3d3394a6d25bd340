// What a signal does. The first one ends the command in order: the work stops, and no half-written file is left. A
// thread that waits in the system (for the other end of a pipe, for a dead file server) hears of no abort, and a
// process does not exit while one does; so a second signal, or the end of a command that does not end, takes the
// system's own way out.

import { removeParts } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { clearBar } from './progress.js'

/** Why a call was aborted: the signal that came. */
export class Interruption extends Error {
  readonly code = 'INTERRUPTED'

  constructor (readonly signal: Name) {
    super(`stopped by ${signal}`)
  }

  /** With what is left of the work. As of now: what was in work when the signal came may have ended well. */
  get told (): string {
    const written = files === 0
      ? []
      : [`${files === 1 ? 'one file was' : `${files} files were`} written before, the last one ${shownPath(last)}`]
    const said = [...written, ...left === undefined ? [] : [left]]
    return `${this.message}; ${said.length > 0 ? said.join('; ') : 'no file was written'}`
  }

  get exitCode (): number {
    return exitCodes[this.signal]
  }
}

/** Files that this command has written. */
let [files, last] = [0, '']
/** What it leaves besides files, in words. */
let left: string | undefined

export function wrote (file: string): void {
  files++
  last = file
}

export function leaves (words: string): void {
  left = words
}

const exitCodes = { SIGHUP: 129, SIGINT: 130, SIGBREAK: 130, SIGTERM: 143 } as const
type Name = keyof typeof exitCodes
const names = Object.keys(exitCodes) as Name[]

/**
 * What a platform does with a signal. Windows has none, and Node.js makes some of what the console tells: Ctrl-C, and
 * SIGBREAK (Ctrl-Break), which is for programs that keep Ctrl-C for themselves and means the same.
 * @returns `end`: what this process sends itself to be ended at once; Node.js cannot send SIGHUP and SIGBREAK there.
 * `patience`: milliseconds that a command has to hear of the signal. Where the window of a console was closed (SIGHUP),
 * Windows ends what is still there after some 5 to 10 seconds, and then nobody removes what is half written.
 */
export function endingOf (
  name: Name, platform: string = process.platform
): { end: NodeJS.Signals, patience: number } {
  if (platform !== 'win32') return { end: name, patience: longestPatience }
  return { end: 'SIGKILL', patience: name === 'SIGHUP' ? 3000 : longestPatience }
}

/** Milliseconds that an interrupted command gets to end by itself once everything is said. */
const patience = 1000
/** Milliseconds that it gets to hear of the signal: a step of a large model, the end of a write. */
const longestPatience = 15_000

/** Aborts at the first of the signals. */
export function abortOnSignals (): AbortSignal {
  const controller = new AbortController()
  for (const name of names) {
    process.on(name, () => {
      if (controller.signal.aborted) endBy(name)
      else {
        controller.abort(new Interruption(name))
        // A terminal that was closed sends no second signal.
        setTimeout(() => endBy(name), endingOf(name).patience).unref()
      }
    })
  }
  return controller.signal
}

/** Ends the process at once as the signal does by itself; process.exit() would wait for threads. */
function endBy (name: Name): void {
  removeParts()
  clearBar() // with it the cursor comes back
  for (const other of names) process.removeAllListeners(other)
  process.kill(process.pid, endingOf(name).end)
}

/** After the last word of a command that a signal has stopped. */
export function endEvenIfStuck (signal: AbortSignal): void {
  if (!(signal.reason instanceof Interruption)) return
  const { signal: name } = signal.reason
  setTimeout(() => endBy(name), patience).unref() // rings only where something keeps the process alive
}

/** `work`, or the signal's reason as soon as it comes, whether or not the work can be stopped. */
export async function orAborted<T> (work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let stop!: () => void
  const aborted = new Promise<never>((_resolve, reject) => {
    // eslint-disable-next-line prefer-promise-reject-errors -- it is whatever the caller aborted with
    stop = () => { reject(signal.reason as Error) }
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
    work.catch(() => {}) // it may still fail when nobody waits for it any more
  }
}
