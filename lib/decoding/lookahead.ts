// How many steps a pass should try (Jacobi decoding: common/passes.h). More of them take longer, and those behind the
// first one count only where the guesses before them were right. Both are measured while sequences run: the time of a
// pass by its rows (pace.ts), and how often the guess at each depth was right. Trying costs time where guesses do not
// hold, so it is done on a budget.

import type { Pace } from './pace.js'

/** Steps of a pass that are considered. */
const candidates = [2, 3, 4, 6, 8, 12, 16, 24, 32]

/** Max steps of a pass. */
export const maxPassSteps = candidates.at(-1)!

/**
 * Share of the time that longer passes may have cost so far, in all, beside so many steps at the beginning. Trials stop
 * at half of it: what is known to win goes on a little longer, because it wins the rest back.
 */
const budget = 0.025
const credit = 2

/** Passes that are like the one before, before the question is asked again; so it costs them nothing. */
const alike = 8

/** Trials of a depth after which older ones count half. */
const remembered = 128

/** A longer pass is chosen where it is expected to be so much faster: less is within what time is known to. */
const worthIt = 1.03

interface Depth { tried: number, right: number }

/** What is known of one model on one device. */
export class Lookahead {
  readonly #pace: Pick<Pace, 'ms'>
  /** By the number of steps before: those of step 1 say how often the tokens of a pass's first step were guessed. */
  readonly #depths: Depth[] = []
  /** Milliseconds of all passes; those that longer passes have lost, less what they have won. */
  #total = 0
  #lost = 0
  /** What was chosen last, for how many rows and how much room, and for how many passes more. */
  #chosen = { rows: 0, room: 0, steps: 1, left: 0 }

  constructor (pace: Pick<Pace, 'ms'>) {
    this.#pace = pace
  }

  /**
   * Steps of the next pass, at most.
   * @param rows that it has with one step of each sequence
   * @param room max rows
   */
  steps (rows: number, room: number): number {
    const chosen = this.#chosen
    if (chosen.left > 0 && chosen.rows === rows && chosen.room === room) {
      chosen.left--
      return chosen.steps
    }
    const { trial, best } = this.#choose(rows, room)
    this.#chosen = { rows, room, steps: best, left: alike }
    return trial ?? best
  }

  /** @returns what is best as far as is known, and what might be better */
  #choose (rows: number, room: number): { best: number, trial?: number } {
    const alone = this.#pace.ms(rows)
    if (alone === undefined) return { best: 1 }
    let best = 1
    let bestRate = worthIt / alone
    let trial = 1
    let trialRate = bestRate
    for (const steps of candidates) {
      if (rows * steps > room) break
      const ms = this.#pace.ms(rows * steps)
      if (ms !== undefined && this.#advance(steps, 0) / ms > bestRate) {
        best = steps
        bestRate = this.#advance(steps, 0) / ms
      }
      // Where little is known, what might be. A pass is never quicker than a shorter one.
      const hoped = this.#advance(steps, 1) / Math.max(alone, ms ?? 0)
      if (hoped > trialRate) {
        trial = steps
        trialRate = hoped
      }
      if (ms === undefined) break // the sizes are tried one after another
    }
    const allowed = budget * this.#total + credit * alone
    if (this.#lost > allowed) return { best: 1 }
    return trialRate > bestRate && this.#lost <= allowed / 2 ? { best, trial } : { best }
  }

  /**
   * A pass is done.
   * @param rows that it would have had with one step of each sequence, and has had
   * @param asked steps of a sequence, at most
   * @param advanced by how many steps each sequence has come on
   * @param took milliseconds, where they were measured
   */
  add (
    rows: { alone: number, all: number }, asked: number, advanced: readonly number[], took: number | undefined
  ): void {
    for (const steps of advanced) {
      for (let depth = 0; depth < Math.min(asked - 1, steps); depth++) {
        const at = this.#depths[depth] ??= { tried: 0, right: 0 }
        at.tried++
        if (steps > depth + 1) at.right++
        if (at.tried >= 2 * remembered) {
          at.tried /= 2
          at.right /= 2
        }
      }
    }
    const alone = this.#pace.ms(rows.alone)
    if (alone === undefined || advanced.length === 0) return
    // Of a size that came a few times what is usual counts: a single one may have been disturbed.
    const all = this.#pace.ms(rows.all) ?? took ?? alone * rows.all / rows.alone
    this.#total += all
    if (asked === 1) return
    const mean = advanced.reduce((sum, steps) => sum + steps, 0) / advanced.length
    // What was won is spent on trials to come, but not for ever: what is true now may not be so later.
    this.#lost = Math.max(-budget * this.#total, this.#lost + all - mean * alone)
  }

  /** Steps that a pass is expected to come on. @param hope 1: as far as what was seen does not exclude it */
  #advance (steps: number, hope: 0 | 1): number {
    let sum = 1
    let all = 1
    let last: Depth = { tried: 0, right: 0 }
    for (let depth = 0; depth < steps - 1; depth++) {
      last = this.#depths[depth] ?? last
      const { tried, right } = last
      all *= Math.min(1, (tried === 0 ? 0 : right / tried) + hope / Math.sqrt(tried + 1))
      sum += all
    }
    return sum
  }
}
