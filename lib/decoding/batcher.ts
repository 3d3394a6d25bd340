// Continuous batching: sequences of all calls of one instance run together. A batch is a native session with the
// members in it; a member is the sequences of one call that run side by side. New members join between two steps,
// whatever the others are doing, and leave with their last step. Nobody's tokens depend on who else is there (step.ts).
//
// - A sequence tells its steps once, when it enters; a pass runs the next step of each, or several of them (passes.ts).
// - Passes are enqueued one ahead, so that the backend never waits for JavaScript. A member whose caller has not asked
//   for its next step by then misses that one: it keeps its seats, and nobody waits for it.
// - The budget says how many seats a batch has, and who gets the next one: calls get them in the order in which they
//   asked. A batch that is too small for those who come is followed by a larger one, and ends with its members.
// - Where more rows make a step slower in proportion (pace.ts), a call that would join waits until another one is done:
//   the throughput is the same, and all of them are finished earlier.
// - What fails one sequence (logits that are not finite, an abort) ends its own member alone.

import { performance } from 'node:perf_hooks'
import { setImmediate } from 'node:timers'
import type { Call } from '../base/call.js'
import type { ParError } from '../base/errors.js'
import { Asking, type Budget, type Lease } from '../machine/budget.js'
import { addon, toParError, type NativeCancel, type NativeSession, type NativeTransformer } from '../machine/native.js'
import { sessionShape, type SessionShape } from '../models/memory.js'
import { Lookahead } from './lookahead.js'
import { Member, type MemberBatch } from './member.js'
import { Pace } from './pace.js'

/** Beyond this many sequences a batch gains nothing. */
export const maxBatchSize = 64

/** Passes of a batch that are enqueued at a time: one runs, one waits. */
const maxEnqueued = 2

/** Seats of a batch where nobody has wanted more yet, and memory allows: those who come next join at once. */
const usualSeats = 8

/** Calls that run together in any case, also where nothing is gained by it. */
const minTogether = 2

/** Milliseconds after which a batch that memory has kept small may be followed by a larger one. */
const memoryMayHaveChanged = 5000

/** A batch that follows one which was too small has so many times the seats that are wanted by then. */
const growth = 2

const nothing = (): void => {}

/** A loaded transformer, as far as batches need it. */
export interface BatchedModel {
  readonly native: NativeTransformer
}

/** What a call wants to run. */
export interface WantedSeats {
  part: BatchedModel
  /** Of each of its sequences. */
  shape: SessionShape
  /** Sequences. It gets at least one seat, and all of them where there is room. */
  count: number
  /** Bytes that a session of so many sequences takes. */
  bytesOf: (sequences: number) => number
}

/** What runs in an instance, and what waits. Calls of `score` and `classify` wait in the same line. */
export interface Activity {
  /** Calls that wait for their turn. */
  waiting: number
  /** Pictures that have a seat in a batch. */
  running: number
  /** Seats of all batches. */
  seats: number
  /** Passes that were run since the instance was loaded, of all batches: a step each, or several of them. */
  steps: number
  /** Pictures in those steps, added up. Divided by `steps`: how many ran together on average. */
  pictureSteps: number
}

/** The batches of one instance. */
export class Batcher {
  readonly #budget: Budget
  readonly #maxBatchSize: number
  readonly #toldLate: number
  readonly #batches = new Set<Batch>()
  readonly #wanting = new Set<WantedSeats>()
  /** Seats that the next batch of a part is opened with, where memory allows: what was wanted at once before. */
  readonly #expected = new WeakMap<BatchedModel, number>()
  readonly #paces = new WeakMap<BatchedModel, { pace: Pace, lookahead: Lookahead }>()
  /** Max seats of a part's next batch, after memory was refused to a larger one. */
  readonly #refused = new WeakMap<BatchedModel, number>()
  readonly #ran = { steps: 0, pictureSteps: 0 }

  /** @param toldLate passes later it is told what a pass has shown, and when it was done: 0 on a CPU */
  constructor (budget: Budget, maxBatchSize: number, toldLate = 0) {
    this.#budget = budget
    this.#maxBatchSize = maxBatchSize
    this.#toldLate = toldLate
  }

  get state (): Activity {
    let [running, seats] = [0, 0]
    for (const batch of this.#batches) {
      running += batch.taken
      seats += batch.seats
    }
    return { waiting: this.#budget.waiting, running, seats, ...this.#ran }
  }

  /**
   * Seats for a call, when it is its turn. The call holds the member: its seats are given back with the call.
   * @throws ParError `QUEUE_FULL`; `OUT_OF_MEMORY` where not even one sequence fits and nobody will free anything
   */
  async join (call: Call, given: WantedSeats): Promise<Member> {
    const wanted = { ...given, count: Math.min(given.count, this.#maxBatchSize) }
    let asked = 0
    let opened: Lease | undefined
    const asking = new Asking<Member>(this.#budget, {
      most: () => {
        asked = this.#seatsFor(wanted)
        return Math.min(asked, this.#refused.get(wanted.part) ?? Infinity)
      },
      enough: () => this.#enoughFor(wanted),
      bytesOf: wanted.bytesOf,
      join: () => this.#find(wanted, batch => batch.has(wanted.shape))?.seat(wanted),
      open: lease => {
        opened = lease
        return this.#open(wanted, lease, asked)
      },
      waits: () => this.#find(wanted, batch => batch.keepsWaiting(wanted.shape)) !== undefined
    })
    this.#wanting.add(wanted)
    try {
      for (;;) {
        opened = undefined
        const member = await asking.turn(call) as Member
        try {
          return await call.hold(member.batch.opened.then(() => member))
        } catch (error) {
          member.dispose()
          call.check()
          if (opened) asking.refused(opened, error)
          else if (!isOutOfMemory(error)) throw error
        }
      }
    } finally {
      this.#wanting.delete(wanted)
    }
  }

  /** The newest batch that a call could join, apart from its seats. */
  #find ({ part, shape }: WantedSeats, test: (batch: Batch) => boolean): Batch | undefined {
    return [...this.#batches].reverse().find(batch => !batch.outgrown && batch.fits(part, shape) && test(batch))
  }

  /** Seats of a batch that is opened now. */
  #seatsFor ({ part }: WantedSeats): number {
    let demand = 0
    let others = 1
    for (const other of this.#wanting) if (other.part === part) demand += other.count
    for (const batch of this.#batches) {
      if (batch.part !== part || batch.paused) continue
      demand += batch.taken
      others = growth
    }
    return Math.min(this.#maxBatchSize, Math.max(others * demand, this.#expected.get(part) ?? usualSeats))
  }

  /** A batch that takes the place of another one has more seats than that: a smaller one would make matters worse. */
  #enoughFor (wanted: WantedSeats): number {
    const current = this.#find(wanted, batch => !batch.isHeldUp)
    return Math.min(this.#maxBatchSize, Math.max(wanted.count, current ? current.seats + 1 : 1))
  }

  /** @param asked seats that the lease was asked for, which may have fewer */
  #open (wanted: WantedSeats, lease: Lease, asked: number): Member {
    const { part, shape } = wanted
    for (const batch of this.#batches) if (batch.fits(part, shape)) batch.outgrown = true
    this.#expected.set(part, asked)
    const openedAt = performance.now()
    const known = this.#paces.get(part) ?? { pace: new Pace(), lookahead: new Lookahead() }
    this.#paces.set(part, known)
    const batch: Batch = new Batch(part, shape, lease, { ...known, toldLate: this.#toldLate }, {
      isFinal: () => lease.sequences === this.#maxBatchSize ||
        (lease.sequences < asked && performance.now() - openedAt < memoryMayHaveChanged),
      took: () => { this.#budget.took(lease) },
      seatsFreed: () => { void this.#budget.look() },
      ran: sequences => {
        this.#ran.steps++
        this.#ran.pictureSteps += sequences
      },
      refused: () => { this.#refused.set(part, Math.ceil(lease.sequences / 2)) },
      ended: () => {
        this.#batches.delete(batch)
        this.#refused.delete(part) // there may be more memory now
        const expected = this.#expected.get(part) ?? usualSeats
        this.#expected.set(part, Math.max(batch.peak, Math.floor(expected / 2), usualSeats))
      }
    })
    this.#batches.add(batch)
    return batch.seat(wanted)
  }
}

function isOutOfMemory (error: unknown): boolean {
  return (toParError(error) as Partial<ParError>).code === 'OUT_OF_MEMORY'
}

interface BatchEvents {
  /** No larger one would be opened now: memory or the options allow none. */
  isFinal: () => boolean
  took: () => void
  /** There was no memory for it. */
  refused: () => void
  seatsFreed: () => void
  ran: (sequences: number) => void
  ended: () => void
}

/** Sequences that run together in one session. */
class Batch implements MemberBatch {
  /** Rejects where there was no memory after all. */
  readonly opened: Promise<void>
  /** A larger one has been opened: nobody joins this one any more. */
  outgrown = false
  /** Max sequences at a time so far. */
  peak = 0
  session!: NativeSession
  readonly #lease: Lease
  readonly #pace: Pace
  readonly #lookahead: Lookahead
  /** When a pass was done behind which the next one had been enqueued: that one's time begins then. */
  #nextBegan: number | undefined
  /** Passes that were alike, the last ones: what is told of one before them says nothing of them. */
  #alike = { rows: 0, steps: 0, passes: 0 }
  readonly #toldLate: number
  readonly #events: BatchEvents
  readonly #members = new Set<Member>()
  readonly #free: number[]
  /** Rows of a step that nobody has claimed. */
  #rows: number
  /** Members whose last step is enqueued and whose tokens are being read. */
  #ending = 0
  #enqueued = 0
  #isWoken = false
  #isCreated = false
  #isOver = false
  readonly #cancel: NativeCancel = addon().createCancel()

  constructor (
    readonly part: BatchedModel, readonly shape: SessionShape, lease: Lease,
    { pace, lookahead, toldLate }: { pace: Pace, lookahead: Lookahead, toldLate: number }, events: BatchEvents
  ) {
    this.#lease = lease
    this.#pace = pace
    this.#lookahead = lookahead
    this.#toldLate = toldLate
    this.#events = events
    this.#free = Array.from({ length: lease.sequences }, (_, seat) => lease.sequences - 1 - seat)
    this.#rows = lease.sequences * shape.rows
    lease.isPaused = () => this.paused
    this.opened = this.#create()
    this.opened.catch(nothing)
  }

  get seats (): number { return this.#lease.sequences }

  get taken (): number { return this.seats - this.#free.length }

  /** All callers of its members have the turn. */
  get paused (): boolean {
    return this.#ending === 0 && this.#members.size > 0 && [...this.#members].every(({ paused }) => paused)
  }

  /** Some callers of its members have the turn: their seats would be waited for in vain. */
  get isHeldUp (): boolean { return [...this.#members].some(({ paused }) => paused) }

  /** Sequences of this shape could run here. */
  fits (part: BatchedModel, { streamsEach, slots, tokens, rows, kept }: SessionShape): boolean {
    const own = this.shape
    return part === this.part && streamsEach <= own.streamsEach && slots <= own.slots && tokens === own.tokens &&
      rows <= own.rows * this.seats && kept === own.kept
  }

  /** It has a seat for one who would join. */
  has (shape: SessionShape): boolean {
    return this.#free.length > 0 && shape.rows <= this.#rows && !this.#isSaturated(shape)
  }

  /** Who cannot join had better wait for those who are here than have a batch beside this one. */
  keepsWaiting (shape: SessionShape): boolean {
    if (this.paused) return false
    return this.#isSaturated(shape) || (this.#events.isFinal() && !this.isHeldUp)
  }

  /** One more would make the others slower in proportion. Of a long list as much counts as of the one that comes. */
  #isSaturated ({ rows }: SessionShape): boolean {
    const own = rows * this.shape.streamsEach
    let inUse = 0
    for (const { paused, seats } of this.#members) {
      if (!paused) inUse += Math.min(own, seats.length * this.shape.rows * this.shape.streamsEach)
    }
    return inUse + own > Math.max(this.#pace.limit, minTogether * own)
  }

  /** Takes seats. A list that joins others leaves half of them to whoever comes next. */
  seat ({ count, shape: { rows } }: WantedSeats): Member {
    const free = Math.min(this.#free.length, Math.floor(this.#rows / rows))
    const most = this.taken === 0 ? free : Math.ceil(free / 2)
    const seats = this.#free.splice(-Math.min(count, most)).reverse()
    this.#rows -= seats.length * rows
    this.peak = Math.max(this.peak, this.taken)
    const member: Member = new Member(this, seats, {
      wake: () => { this.#wake() },
      leave: ended => { this.#leave(member, seats.length * rows, ended) }
    })
    this.#members.add(member)
    return member
  }

  async #create (): Promise<void> {
    try {
      this.session = this.#lease.session =
        await this.part.native.createSession(sessionShape(this.shape, this.seats))
    } catch (error) {
      this.#end()
      if (isOutOfMemory(error)) this.#events.refused()
      throw error
    } finally {
      this.#isCreated = true
      this.#events.took()
      if (this.#isOver) this.#lease.dispose()
    }
  }

  // ---- steps

  #wake (): void {
    if (this.#isWoken || this.#isOver) return
    this.#isWoken = true
    // Not at once: the other members are told of the same step, and are about to ask for their next one too.
    setImmediate(() => {
      this.#isWoken = false
      while (this.#enqueued < maxEnqueued && this.#enqueue());
    })
  }

  /** A pass of all who have asked for a step. Returns whether there was one. */
  #enqueue (): boolean {
    const members = [...this.#members].filter(({ ready }) => ready)
    if (members.length === 0 || this.#isOver) return false
    const running = members.map(member => ({ member, sequences: member.next() }))
    const rows = running.reduce((sum, { member, sequences }) => sum + member.rowsOf(sequences), 0)
    const room = sessionShape(this.shape, this.seats).maxRows
    const auto = members.some(({ passes }) => passes === 'auto') ? this.#lookahead.steps(rows, room) : 1
    const parts = running.flatMap(({ member, sequences }) => sequences.flatMap(i =>
      [member.seats[i]!, member.passes === 'auto' ? auto : member.passes]))
    this.#enqueued++
    if (this.#alike.rows !== rows || this.#alike.steps !== auto) this.#alike = { rows, steps: auto, passes: 0 }
    const isTold = this.#alike.passes++ >= this.#toldLate
    this.session.pass(Int32Array.from(parts), this.#cancel).then(([all, ...told]) => {
      this.#enqueued--
      const now = performance.now()
      const took = this.#nextBegan === undefined ? undefined : now - this.#nextBegan
      if (took !== undefined) this.#pace.add(all!, took)
      this.#nextBegan = this.#enqueued > 0 ? now : undefined
      const advanced: number[] = []
      const count = told.length / 2
      const inPass = told.slice(count)
      if (all! > 0) this.#events.ran(inPass.reduce((sum, one) => sum + one, 0))
      let at = 0
      for (const { member, sequences } of running) {
        const end = at + sequences.length
        const steps = member.done(sequences, told.slice(at, end), inPass.slice(at, end))
        at = end
        if (member.passes === 'auto') advanced.push(...steps)
      }
      if (isTold && all! > 0 && members.every(({ passes }) => passes === 'auto')) {
        this.#lookahead.add({ alone: rows, all: all! }, auto, advanced, took)
      }
      this.#wake()
    }, error => { this.#fail(error, members) })
    for (const { member, sequences } of running) member.enqueued(sequences)
    return true
  }

  /** @param ran whose step it was: who was in its last one is no member any more */
  #fail (error: unknown, ran: readonly Member[]): void {
    for (const member of new Set([...this.#members, ...ran])) member.fail(error)
    this.#end()
  }

  // ---- the end

  #leave (member: Member, rows: number, ended: Promise<unknown> | undefined): void {
    this.#members.delete(member)
    for (const seat of member.seats) {
      // In its turn: behind the steps that are enqueued, before whoever has the seat next.
      if (!this.#isOver && member.hasEntered) this.session.leave(seat).catch(nothing)
      this.#free.push(seat)
    }
    this.#rows += rows
    if (ended) {
      this.#ending++
      const over = (): void => {
        this.#ending--
        this.#endIfEmpty()
      }
      ended.then(over, over)
    }
    this.#endIfEmpty()
    this.#events.seatsFreed()
  }

  #endIfEmpty (): void {
    if (this.#members.size === 0 && this.#ending === 0) this.#end()
  }

  /** Cancels what still runs, which is nobody's, and frees the session. */
  #end (): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#cancel.cancel()
    this.#events.ended()
    if (this.#isCreated) this.#lease.dispose()
  }
}
