// Who of one instance may have memory, and when. Sessions of `generate`, `stream` and `score` ask here, group by group,
// for what is free then; what does not fit waits in turn instead of being promised at once. Nobody waits for ever:
//
// - Calls get memory in the order in which they asked. A call that is aborted leaves the line.
// - A call whose caller has the turn (a stream between two `next()`, an `onProgress` that has not settled) keeps its
//   session, and counts as paused after a moment. Nobody waits for a paused call: it may be waiting for the very call
//   that would wait (an `onProgress` that awaits another `generate` of the same instance). The next in line then gets
//   what is free, in smaller groups where it must, or OUT_OF_MEMORY.
// - Who holds a session never waits here for another one. Pictures (decode, encode, previews) have turns of their own,
//   and sessions leave room for them, so that a call which holds a session can always have its pictures.

import { performance } from 'node:perf_hooks'
import { clearTimeout, setTimeout } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Call, Held } from '../base/call.js'
import { ParError } from '../base/errors.js'
import { addon, toParError, type NativeSession } from './native.js'

/** Sessions that run at a time: they take turns step by step, so more would only make all of them slower. */
const maxActive = 8

/** Milliseconds after which a call whose caller has the turn counts as paused. */
const patience = 100

/** Milliseconds between two looks while somebody waits: other processes and instances free memory without telling. */
const lookAgain = 20

/** Bytes that were granted and are not taken from the device yet, of all instances of this thread, by device. */
const granted = new Map<string, number>()

export interface BudgetOptions {
  device: string
  /** Bytes that are free on the device; 0: unknown. */
  free: () => Promise<number>
  /** Bytes beyond which one session gains nothing. */
  most: number
  /** Bytes that pictures need while sessions run. */
  pictures: number
  /** Max calls that wait. Default: any number. */
  maxWaiting?: number | undefined
}

/** What is asked for. */
export interface Wanted<Seated = never> {
  /** Sequences wanted, as of now. */
  most: () => number
  /** Fewer, that a session is made for where there is no room for `most` of them, as of now. Default: `most`. */
  enough?: () => number
  bytesOf: (sequences: number) => number
  /** A place in a session that runs already, which goes before a session of one's own; undefined: there is none. */
  join?: () => Seated | undefined
  /** Makes of the memory what is asked for, at once: those behind it in the line may join that. Default: a lease. */
  open?: (lease: Lease) => Seated
  /** Sessions that run already will do: one of its own is not to be made now. */
  waits?: () => boolean
}

interface Waiting extends Wanted<unknown> {
  /** Set where memory was refused: number of sessions freed as of then. It is asked again once another is freed. */
  refusedAt: number | undefined
  resolve: (granted: unknown) => void
}

/** Whether a caller has the turn, and for how long. */
export class Patience {
  #since: number | undefined

  /** For longer than a moment. */
  get over (): boolean { return this.#since !== undefined && performance.now() - this.#since >= patience }

  pause (): void { this.#since = performance.now() }

  resume (): void { this.#since = undefined }
}

/** Memory of one session; freed with it. */
export class Lease implements Held {
  session!: NativeSession
  /** Set where several calls share the session: nobody in it goes on. */
  isPaused: (() => boolean) | undefined
  /** Its memory is free again, and counted as such. */
  isFreed = false
  readonly #patience = new Patience()
  #over = false

  constructor (readonly sequences: number, readonly bytes: number, readonly freed: () => void) {}

  get paused (): boolean { return this.isPaused?.() ?? this.#patience.over }

  pause (): void { this.#patience.pause() }

  resume (): void { this.#patience.resume() }

  dispose (): void {
    if (this.#over) return
    this.#over = true
    // Where there is no session: it could not be made.
    const freed = (): void => {
      this.isFreed = true
      this.freed()
    }
    void Promise.resolve((this.session as NativeSession | undefined)?.dispose()).then(freed, freed)
  }
}

export class Budget {
  readonly #options: BudgetOptions
  readonly #leases = new Set<Lease>()
  readonly #line = new Set<Waiting>()
  /** Calls that have had a turn: they are not refused in their middle for those who wait. */
  readonly #begun = new WeakSet<Call>()
  #freed = 0
  #looking = false
  #looked = Promise.resolve()
  /** Something has changed while it was looked. */
  #again = false
  #timer: NodeJS.Timeout | undefined

  constructor (options: BudgetOptions) {
    this.#options = options
  }

  /** Calls that wait for memory. */
  get waiting (): number { return this.#line.size }

  /**
   * A session of as many sequences as fit, at least one and at most `most`, when it is this call's turn.
   * @param bytesOf bytes that so many sequences take
   * @throws ParError `OUT_OF_MEMORY` where not even one fits and nobody will free anything; `QUEUE_FULL`
   */
  async session (
    call: Call, most: number, bytesOf: (sequences: number) => number,
    create: (sequences: number) => Promise<NativeSession>
  ): Promise<Lease> {
    const asking = new Asking(this, { most: () => most, bytesOf })
    for (;;) {
      const lease = await asking.turn(call)
      try {
        lease.session = await create(lease.sequences)
        this.took(lease)
        return lease
      } catch (error) {
        asking.refused(lease, error)
        call.check()
      }
    }
  }

  /** A session could not be made of what was granted. Returns whether nobody else has one who goes on. */
  failed (lease: Lease): boolean {
    this.took(lease)
    const alone = this.#active().filter(other => other !== lease).length === 0
    lease.dispose()
    return alone
  }

  /** As of when memory that was refused may be asked for again: another session has been freed then. */
  nextFreed ({ isFreed }: Lease): number { return this.#freed + (isFreed ? 1 : 2) } // this one is counted too

  // ---- the line

  /** Memory, or a place in a session, when it is this call's turn. */
  async turn<Seated extends Held> (
    call: Call, wanted: Wanted<Seated>, refusedAt: number | undefined
  ): Promise<Lease | Seated> {
    let waiting: Waiting
    const turn = new Promise<Lease | Seated>(resolve => {
      waiting = { ...wanted, refusedAt, resolve: resolve as Waiting['resolve'] }
    })
    if (refusedAt === undefined) this.#line.add(waiting!)
    else this.#first(waiting!)
    const looked = this.look()
    try {
      const { maxWaiting } = this.#options
      if (maxWaiting !== undefined && !this.#begun.has(call)) {
        await call.wait(looked)
        if ([...this.#line].indexOf(waiting!) >= maxWaiting) throw queueFull(maxWaiting)
      }
      const granted = await call.wait(turn)
      this.#begun.add(call)
      return granted
    } catch (error) {
      this.#line.delete(waiting!)
      void turn.then(granted => { // it came too late
        if (granted instanceof Lease) this.took(granted)
        granted.dispose()
      })
      throw error
    }
  }

  /** One that had its turn, and was refused, is before those that have not. */
  #first (waiting: Waiting): void {
    const others = [...this.#line]
    this.#line.clear()
    for (const each of [waiting, ...others]) this.#line.add(each)
  }

  /** Gives memory to those whose turn it is: something has changed. Resolves when the rest of the line has to wait. */
  look (): Promise<void> {
    if (this.#looking) this.#again = true
    else this.#looked = this.#look()
    return this.#looked
  }

  async #look (): Promise<void> {
    this.#looking = true
    clearTimeout(this.#timer)
    try {
      for (;;) {
        this.#again = false
        const [waiting] = this.#line
        if (!waiting) return
        const seated = waiting.join?.()
        if (seated !== undefined) {
          this.#line.delete(waiting)
          waiting.resolve(seated)
          continue
        }
        const sequences = waiting.waits?.() ? 0 : await this.#fitting(waiting)
        if (sequences > 0) {
          if (!this.#line.delete(waiting)) continue
          const lease = this.#lease(sequences, waiting.bytesOf(sequences))
          waiting.resolve(waiting.open?.(lease) ?? lease)
        } else if (!this.#again) break
      }
    } finally {
      this.#looking = false
      if (this.#line.size > 0) this.#timer = setTimeout(() => { void this.look() }, lookAgain)
    }
  }

  /** Sequences that the next in line may have now; 0: it waits. */
  async #fitting ({ most, enough: least = most, bytesOf, refusedAt }: Waiting): Promise<number> {
    const { device, most: cap, pictures } = this.#options
    const active = this.#active()
    if (active.length >= maxActive) return 0
    if (active.length > 0 && refusedAt !== undefined && this.#freed < refusedAt) return 0
    const held = active.reduce((sum, { bytes }) => sum + bytes, 0)
    // A failure to ask is found again, and told, where memory is taken.
    const free = await this.#options.free().catch(() => 0)
    const room = free === 0 ? cap : Math.max(0, free - (granted.get(device) ?? 0) - pictures) / 2
    const enough = least()
    const best = largest(most(), bytesOf, Math.min(cap, room, active.length > 0 ? 2 * cap - held : cap))
    const isEnough = best >= Math.min(enough, largest(enough, bytesOf, cap)) && bytesOf(best) <= room
    return isEnough || active.length === 0 ? best : 0
  }

  #active (): Lease[] {
    return [...this.#leases].filter(({ paused }) => !paused)
  }

  // ---- leases

  #lease (sequences: number, bytes: number): Lease {
    const { device } = this.#options
    const lease: Lease = new Lease(sequences, bytes, () => {
      this.#leases.delete(lease)
      this.#freed++
      void this.look()
    })
    this.#leases.add(lease)
    this.#untaken.add(lease)
    granted.set(device, (granted.get(device) ?? 0) + bytes)
    return lease
  }

  readonly #untaken = new Set<Lease>()

  /** The device knows of it by now. */
  took (lease: Lease): void {
    if (this.#untaken.delete(lease)) granted.set(this.#options.device, granted.get(this.#options.device)! - lease.bytes)
  }
}

function queueFull (most: number): ParError {
  return new ParError('QUEUE_FULL', `${most} calls wait already, as many as may. Call again later, or load with a ` +
    'larger maxQueueSize')
}

/** A call that asks for a session until it has one: for fewer sequences each time that memory is refused. */
export class Asking<Seated extends Held = never> {
  #refusedAt: number | undefined
  /** Sequences that are asked for at most, after a refusal. */
  #cap = Infinity

  constructor (readonly budget: Budget, readonly wanted: Wanted<Seated>) {}

  async turn (call: Call): Promise<Lease | Seated> {
    const { most, enough = most } = this.wanted
    return await this.budget.turn(call, {
      ...this.wanted, most: () => Math.min(most(), this.#cap), enough: () => Math.min(enough(), this.#cap)
    }, this.#refusedAt)
  }

  /**
   * No session could be made of what was granted.
   * @throws the error, where asking again would not help
   */
  refused (lease: Lease, error: unknown): void {
    this.#refusedAt = this.budget.nextFreed(lease)
    const alone = this.budget.failed(lease)
    const known = toParError(error)
    if (!(known instanceof ParError) || known.code !== 'OUT_OF_MEMORY' || (alone && lease.sequences === 1)) throw known
    if (alone) this.#cap = Math.ceil(lease.sequences / 2)
  }
}

// ---- memory of results, and of pictures that are unpacked

/** What takes less is not compared: asking the system costs more. The addon has the same number. */
const leastClaimed = 1 << 20

/** Looks before a claim is refused: V8 collects in the background. */
const looks = 10

/** Claims of memory that is given back without anybody's doing. */
const passing = new Set<Claim>()

export interface ClaimOptions {
  /** What takes the bytes, in the plural. */
  what: string
  /** What to ask for instead. */
  cure: string
  /** Bytes that the addon takes meanwhile, and gives back. */
  work?: number
  /**
   * All of it is free again when the work is done. Who has such a claim waits for no other one: others may wait for it.
   */
  temporary?: boolean
}

/**
 * Memory of JavaScript that a call is about to take, bit by bit, on any device in the machine's own memory. The sum is
 * compared with what is free before the first bit is taken: where the system finds in the middle that it has no more,
 * it ends the process.
 */
export class Claim implements Held {
  #left: number

  private constructor (bytes: number) {
    this.#left = bytes
    granted.set('cpu', (granted.get('cpu') ?? 0) + bytes)
  }

  /** @throws ParError `OUT_OF_MEMORY` */
  static async of (
    call: Call, bytes: number, { what, cure, work = 0, temporary = false }: ClaimOptions
  ): Promise<Claim> {
    for (let look = 1; ; look++) {
      const free = bytes < leastClaimed ? 0 : addon().freeMemory()
      const room = free - (granted.get('cpu') ?? 0)
      if (free === 0 || bytes + work <= room) {
        const claim = new Claim(bytes < leastClaimed ? bytes : bytes + work)
        if (temporary) passing.add(claim)
        call.keep(claim)
        return claim
      }
      if (passing.size === 0 && look >= looks) {
        const megabytes = (bytes: number): string => `${Math.ceil(Math.max(0, bytes) / 2 ** 20)} MB`
        const sizes = `${megabytes(bytes + work)} of memory and ${megabytes(room)} are free`
        throw new ParError('OUT_OF_MEMORY',
          `${what} need ${sizes}. Free memory, or ${cure}. PARVIS_MEMORY_CHECK=0 turns this check off.`)
      }
      nudge()
      await call.wait(sleep(lookAgain))
    }
  }

  /** So many bytes were taken: the system knows of them by now. */
  took (bytes: number): void {
    const taken = Math.min(bytes, this.#left)
    this.#left -= taken
    granted.set('cpu', granted.get('cpu')! - taken)
  }

  /** What was not taken will not be. */
  dispose (): void {
    passing.delete(this)
    this.took(this.#left)
  }
}

/**
 * Has V8 collect what pictures of earlier calls hold, which it otherwise does when it likes: it counts the bytes of
 * arrays that are asked for. These are never written to, so the system gives no memory for them.
 */
function nudge (): void {
  try {
    void new ArrayBuffer(1 << 26)
  } catch {} // not even that: then V8 has collected already
}

/** The largest number of at most `most` that takes at most `bytes`; at least 1. */
export function largest (most: number, bytesOf: (count: number) => number, bytes: number): number {
  let count = most
  while (count > 1 && bytesOf(count) > bytes) count--
  return count
}

/** Work that a few calls may do at a time, in the order in which they asked. Who has a turn waits for no other one. */
export class Turns {
  readonly #line = new Set<() => void>()
  #running = 0

  constructor (readonly most: number) {}

  /**
   * Does `work` when it is this call's turn; the turn lasts until `work` has settled, also where the call is over
   * before.
   */
  async run<T> (call: Call, work: () => Promise<T>): Promise<T> {
    call.check()
    if (this.#running < this.most) this.#running++
    else await this.#turn(call)
    let doing: Promise<T> | undefined
    try {
      doing = work()
      doing.then(this.#next, this.#next)
    } finally {
      if (!doing) this.#next()
    }
    return await call.wait(doing)
  }

  async #turn (call: Call): Promise<void> {
    let enter!: () => void
    const turn = new Promise<void>(resolve => { enter = resolve })
    this.#line.add(enter)
    try {
      await call.wait(turn)
    } catch (error) {
      if (!this.#line.delete(enter)) this.#next() // it came too late
      throw error
    }
  }

  readonly #next = (): void => {
    const [enter] = this.#line
    if (!enter) {
      this.#running--
      return
    }
    this.#line.delete(enter)
    enter()
  }
}
