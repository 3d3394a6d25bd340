// How many steps a pass should try (Jacobi decoding: common/passes.h). More of them take longer, and those behind the
// first one count only where the guesses before them were right. Both are measured while sequences run: the time of a
// pass by its rows, and how often the guess at each depth was right. Trying costs time where guesses do not hold, so it
// is done on a budget.

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

/**
 * Passes of one kind, before the question is asked again. Their mean time counts: answers come in bursts, so that the
 * time between two of them says little.
 */
const alike = 8

/** Choices of which one is for a single step where several are better: the machine may be another one by then. */
const again = 24

/** Sizes of passes whose times are kept. */
const maxSizes = 256

/** Mean times that are kept of a size, the last ones: their median counts. */
const kept = 5

/** Trials of a depth after which older ones count half. */
const remembered = 128

/** A longer pass is chosen where it is expected to be so much faster: less is within what time is known to. */
const worthIt = 1.03

interface Depth { tried: number, right: number }

/** Times of the passes of one size, milliseconds. */
class Times {
  #sum = 0
  #count = 0
  readonly #means: number[] = []
  #usual: number | undefined

  add (ms: number): void {
    this.#sum += ms
    if (++this.#count < alike) return
    this.#means.push(this.#sum / this.#count)
    if (this.#means.length > kept) this.#means.shift()
    this.#usual = [...this.#means].sort((a, b) => a - b)[this.#means.length >> 1]
    this.#sum = this.#count = 0
  }

  get usual (): number | undefined { return this.#usual }
}

/** What is known of one model on one device. */
export class Lookahead {
  /** By rows. */
  readonly #times = new Map<number, Times>()
  /** By the number of steps before: those of step 1 say how often the tokens of a pass's first step were guessed. */
  readonly #depths: Depth[] = []
  /** Milliseconds of all passes; those that longer passes have lost, less what they have won. */
  #total = 0
  #lost = 0
  #choices = 0
  /** What was chosen last, for how many rows and how much room, and for how many passes more. */
  #chosen = { rows: 0, room: 0, steps: 1, left: 0 }

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
    const best = this.#choose(rows, room)
    const steps = best > 1 && ++this.#choices % again === 0 ? 1 : best
    this.#chosen = { rows, room, steps, left: alike - 1 }
    return steps
  }

  #ms (rows: number): number | undefined { return this.#times.get(rows)?.usual }

  /** What is best as far as is known, or what might be better. */
  #choose (rows: number, room: number): number {
    const alone = this.#ms(rows)
    if (alone === undefined) return 1
    let best = 1
    let bestRate = worthIt / alone
    let trial = 1
    let trialRate = bestRate
    for (const steps of candidates) {
      if (rows * steps > room) break
      const ms = this.#ms(rows * steps)
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
    if (this.#lost > allowed) return 1
    return trialRate > bestRate && this.#lost <= allowed / 2 ? trial : best
  }

  /**
   * A pass is done.
   * @param rows that it would have had with one step of each sequence, and has had
   * @param asked steps of a sequence, at most
   * @param advanced by how many steps each sequence has come on
   * @param took milliseconds from the answer of the one before, where that had been waited for by this one
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
    if (took !== undefined) {
      const times = this.#times.get(rows.all) ?? new Times()
      this.#times.set(rows.all, times)
      times.add(took)
      if (this.#times.size > maxSizes) this.#times.delete(this.#times.keys().next().value!)
    }
    const alone = this.#ms(rows.alone)
    if (alone === undefined || advanced.length === 0) return
    // Of a size that came a few times what is usual counts: a single one may have been disturbed.
    const all = this.#ms(rows.all) ?? took ?? alone * rows.all / rows.alone
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
