// The sequences of one call in a batch: how far each has come, what the call has asked for, and what it is told.

import type { Held } from '../base/call.js'
import { ParError } from '../base/errors.js'
import { Patience } from '../machine/budget.js'
import type { NativeSession, Sequence } from '../machine/native.js'
import type { PassPlan, Passes } from './passes.js'
import { streamsOf } from './step.js'

const nothing = (): void => {}

/** One sequence of a member. */
export interface SeatedSequence extends Sequence {
  /** With as many steps for all sequences of a member. */
  plan: PassPlan
}

/** The batch that it is in, as far as a member needs it. */
export interface MemberBatch {
  readonly session: NativeSession
  /** Rejects where there was no memory after all. */
  readonly opened: Promise<void>
}

/** What the batch is told. */
export interface MemberEvents {
  wake: () => void
  /** @param ended settled when the tokens are read, which the steps that are enqueued must be run for */
  leave: (ended: Promise<unknown> | undefined) => void
}

interface Waiting { resolve: () => void, reject: (error: unknown) => void }

/** The sequences of one call that run side by side. It leaves its seats by itself, with the last step. */
export class Member implements Held {
  readonly #events: MemberEvents
  readonly #patience = new Patience()
  #sequences: readonly SeatedSequence[] = []
  /** Steps of each sequence. */
  #steps = 0
  #passes: Passes = 1
  /** Steps that the call has asked for. */
  #asked = 0
  /** Of each sequence: steps that are done, and passes with it that are enqueued, each of which does one at least. */
  #done: number[] = []
  #inFlight: number[] = []
  /** Passes that each sequence took. */
  #took: number[] = []
  /** For each step that was asked for and is not done by all sequences. */
  readonly #waiting: Waiting[] = []
  #tokens: Promise<Int32Array[]> | undefined
  #error: { reason: unknown } | undefined
  #hasEntered = false
  #hasLeft = false

  constructor (readonly batch: MemberBatch, readonly seats: readonly number[], events: MemberEvents) {
    this.#events = events
  }

  get hasEntered (): boolean { return this.#hasEntered }

  /** Steps of it that a pass may hold. */
  get passes (): Passes { return this.#passes }

  get ready (): boolean {
    return this.#hasEntered && !this.#hasLeft && !this.#error && this.#sequences.some((_, i) => this.#wants(i))
  }

  /** A step of the sequence was asked for that is not sure to be done by what is enqueued. */
  #wants (i: number): boolean { return this.#done[i]! + this.#inFlight[i]! < this.#asked }

  get paused (): boolean { return this.#patience.over }

  pause (): void { this.#patience.pause() }

  resume (): void { this.#patience.resume() }

  /** Begins the sequences, one for each seat. */
  async enter (sequences: readonly SeatedSequence[], passes: Passes): Promise<void> {
    if (this.#error) throw this.#error.reason
    // Its seats are others' by now.
    if (this.#hasLeft) throw new ParError('INTERNAL', 'Sequences were begun behind the end')
    const { session } = this.batch
    this.#sequences = sequences
    this.#steps = sequences[0]!.plan.ends.length
    this.#passes = passes
    this.#done = sequences.map(() => 0)
    this.#inFlight = sequences.map(() => 0)
    this.#took = sequences.map(() => 0)
    const entering = sequences.map(async ({ classId, seed, known, plan }, i) => {
      const entered = session.enter(this.seats[i]!, { classId, seed, known })
      await Promise.all([entered, session.plan(this.seats[i]!, plan)])
    })
    this.#hasEntered = true
    await Promise.all(entering) // a pass with a sequence that could not enter would fail for everybody
  }

  /** Asks for the next step. Resolves when it is done; rejects where a sequence has failed. */
  async step (): Promise<void> {
    if (this.#error) throw this.#error.reason
    const done = new Promise<void>((resolve, reject) => { this.#waiting.push({ resolve, reject }) })
    done.catch(nothing)
    this.#asked++
    this.#answer() // a pass may have come further than was asked for
    this.#events.wake()
    await done
  }

  /** Tokens of all sequences, in sequence order, once the last step is done. */
  async tokens (): Promise<Int32Array[]> {
    if (!this.#tokens) throw new ParError('INTERNAL', 'Tokens were asked for before the last step')
    return await this.#tokens
  }

  /** Tokens of one sequence as of now, in sequence order; -1 where unknown. */
  async tokensNow (index: number): Promise<Int32Array> {
    if (this.#tokens) return (await this.#tokens)[index]!
    if (this.#hasLeft) throw new ParError('INTERNAL', 'Tokens were asked for behind the end')
    return await this.batch.session.readTokens(this.seats[index]!)
  }

  /** Passes that the sequence took. */
  passesOf (index: number): number { return this.#took[index]! }

  // ---- what the batch tells

  /** The sequences that are in the next pass. */
  next (): number[] {
    return this.#sequences.map((_, i) => i).filter(i => this.#wants(i))
  }

  /** Rows of a pass with one step of each of those, all streams together. */
  rowsOf (sequences: readonly number[]): number {
    let rows = 0
    for (const i of sequences) {
      const { ends, guidanceScale } = this.#sequences[i]!.plan
      const step = this.#done[i]! + this.#inFlight[i]!
      rows += (ends[step]! - (ends[step - 1] ?? 0)) * streamsOf(guidanceScale)
    }
    return rows
  }

  /** A pass with those is enqueued. Behind the last one the tokens are read, and the seats are free for others. */
  enqueued (sequences: readonly number[]): void {
    for (const i of sequences) this.#inFlight[i]!++
    this.#endWhereSure()
  }

  #endWhereSure (): void {
    if (this.#hasLeft || this.#done.some((done, i) => done + this.#inFlight[i]! < this.#steps)) return
    this.#tokens = Promise.all(this.seats.map(async seat => await this.batch.session.readTokens(seat)))
    this.#tokens.catch(nothing)
    this.#leave(this.#tokens)
  }

  /**
   * A pass with those sequences is done.
   * @param steps that are done of each of them; -1 where logits are not finite
   * @param inPass 0 for those that were at their end
   * @returns by how many steps each has come on
   */
  done (sequences: readonly number[], steps: readonly number[], inPass: readonly number[]): number[] {
    const advanced: number[] = []
    let failed: number | undefined
    for (const [at, i] of sequences.entries()) {
      this.#inFlight[i]!--
      const before = this.#done[i]!
      if (steps[at]! < 0) {
        failed ??= this.seats[i]
        continue
      }
      this.#done[i] = steps[at]!
      if (inPass[at] === 0) continue
      this.#took[i]!++
      advanced.push(steps[at]! - before)
    }
    if (failed === undefined || this.#error) {
      this.#answer()
      this.#endWhereSure()
      return advanced
    }
    const waiting = this.#waiting.shift()
    // What is read of it says why.
    const reason = this.#tokens ?? this.batch.session.readTokens(failed)
    const fail = (error: unknown): void => {
      waiting?.reject(error)
      this.fail(error)
    }
    reason.then(() => { fail(new ParError('INTERNAL', 'A sequence has failed without a reason')) }, fail)
    return advanced
  }

  #answer (): void {
    const done = Math.min(...this.#done)
    while (this.#waiting.length > 0 && this.#asked - this.#waiting.length < done) this.#waiting.shift()!.resolve()
  }

  fail (reason: unknown): void {
    this.#error ??= { reason }
    for (const { reject } of this.#waiting.splice(0)) reject(reason)
  }

  dispose (): void {
    this.#leave(undefined)
  }

  #leave (ended: Promise<unknown> | undefined): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    this.#events.leave(ended)
  }
}
