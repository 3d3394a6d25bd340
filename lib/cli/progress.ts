// The bar on standard error while a command works, where that is a terminal that can move its cursor; nothing
// elsewhere. A note that is written meanwhile takes the bar away first, and the next step draws it again below the
// note.

import { SingleBar } from 'cli-progress'
import { cut, visible } from '../base/text.js'

export interface Progress {
  /** `text` says what is in work or how much is done: '12/60 pictures'. The remaining time is added to it. */
  update (done: number, total: number, text: string): void
  /** Clears the bar. */
  stop (): void
}

const silent: Progress = { update () {}, stop () {} }
let drawn: SingleBar | undefined

/** Takes the bar away, so that other lines can be written; the next update draws it again. */
export function clearBar (): void {
  drawn?.stop()
  drawn = undefined
}

export function progressBar ({ json, quiet }: { json?: boolean, quiet?: boolean }): Progress {
  if (!process.stderr.isTTY || process.env.TERM === 'dumb' || json || quiet) return silent
  let last: { total: number, since: number, from: number } | undefined
  return {
    update (done, total, text) {
      // A new total is a new piece of work, whose speed is its own.
      if (last?.total !== total || done < last.from) last = { total, since: performance.now(), from: done }
      const seconds = (performance.now() - last.since) / 1000
      const payload = { text, seconds: seconds * (total - done) / (done - last.from) }
      if (drawn) {
        drawn.setTotal(total)
        drawn.update(done, payload)
      } else {
        drawn = newBar()
        drawn.start(total, done, payload)
      }
    },
    stop: clearBar
  }
}

function newBar (): SingleBar {
  return new SingleBar({
    format: (_, { progress }, payload: { text: string, seconds: number }) =>
      barText(progress, payload.text, payload.seconds, process.stderr.columns),
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false, // signals are ours: its own handler would end the process before anything is cleaned up
    fps: 20
  })
}

/**
 * The line of the bar: '███░░░░░░ 45% 12/60 pictures ETA 3 s', never as wide as the terminal. What there is no room for
 * is left out: first the bar, then the end of the text.
 * @param progress 0 to 1
 * @param seconds what is left; not finite where nothing is done yet
 */
export function barText (progress: number, text: string, seconds: number, columns: number): string {
  const percent = Math.floor(100 * Math.min(1, Math.max(0, Number.isFinite(progress) ? progress : 0)))
  const rest = Number.isFinite(seconds) && seconds >= 0.5 ? `  ETA ${remaining(seconds)}` : ''
  const words = `${String(percent).padStart(3)}%  ${visible(text)}${rest}`
  const room = columns - 1
  const size = Math.min(30, room - words.length - 1)
  if (size < 8) return cut(words.trimStart(), room)
  const full = Math.round(size * percent / 100)
  return `${'█'.repeat(full)}${'░'.repeat(size - full)} ${words}`
}

function remaining (seconds: number): string {
  if (seconds < 99.5) return `${Math.max(1, Math.round(seconds))} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
