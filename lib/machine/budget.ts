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
}

interface Waiting {
  /** Sequences wanted. */
  most: number
  bytesOf: (sequences: number) => number
  /** Set where memory was refused: number of sessions freed as of then. It is asked again once another is freed. */
  refusedAt: number | undefined
  resolve: (lease: Lease) => void
}

/** Memory of one session; freed with it. */
export class Lease implements Held {
  session!: NativeSession
  #since: number | undefined
  #over = false

  constructor (readonly sequences: number, readonly bytes: number, readonly freed: () => void) {}

  get paused (): boolean { return this.#since !== undefined && performance.now() - this.#since >= patience }

  pause (): void { this.#since = performance.now() }

  resume (): void { this.#since = undefined }

  dispose (): void {
    if (this.#over) return
    this.#over = true
    // Where there is no session: it could not be made.
    void Promise.resolve((this.session as NativeSession | undefined)?.dispose()).then(this.freed, this.freed)
  }
}

export class Budget {
  readonly #options: BudgetOptions
  readonly #leases = new Set<Lease>()
  readonly #line = new Set<Waiting>()
  #freed = 0
  #looking = false
  #timer: NodeJS.Timeout | undefined

  constructor (options: BudgetOptions) {
    this.#options = options
  }

  /**
   * A session of as many sequences as fit, at least one and at most `most`, when it is this call's turn.
   * @param bytesOf bytes that so many sequences take
   * @throws ParError `OUT_OF_MEMORY` where not even one fits and nobody will free anything
   */
  async session (call: Call, most: number, bytesOf: (sequences: number) => number, create: (
    sequences: number
  ) => Promise<NativeSession>): Promise<Lease> {
    let refusedAt: number | undefined
    for (;;) {
      const lease = await this.#turn(call, { most, bytesOf, refusedAt })
      try {
        lease.session = await create(lease.sequences)
        this.#took(lease)
        return lease
      } catch (error) {
        this.#took(lease)
        const alone = this.#active().filter(other => other !== lease).length === 0
        refusedAt = this.#freed + 2 // this one is freed too
        lease.dispose()
        const known = toParError(error)
        if (!(known instanceof ParError) || known.code !== 'OUT_OF_MEMORY' || (alone && lease.sequences === 1)) {
          throw known
        }
        if (alone) most = Math.ceil(lease.sequences / 2)
        call.check()
      }
    }
  }

  // ---- the line

  async #turn (call: Call, wanted: Omit<Waiting, 'resolve'>): Promise<Lease> {
    let waiting: Waiting
    const turn = new Promise<Lease>(resolve => { waiting = { ...wanted, resolve } })
    if (wanted.refusedAt === undefined) this.#line.add(waiting!)
    else this.#first(waiting!)
    void this.#look()
    try {
      return await call.wait(turn)
    } catch (error) {
      this.#line.delete(waiting!)
      void turn.then(lease => { // it came too late
        this.#took(lease)
        lease.dispose()
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

  /** Gives memory to those whose turn it is. */
  async #look (): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    clearTimeout(this.#timer)
    try {
      for (;;) {
        const [waiting] = this.#line
        if (!waiting) return
        const sequences = await this.#fitting(waiting)
        if (sequences === 0) break
        if (this.#line.delete(waiting)) waiting.resolve(this.#lease(sequences, waiting.bytesOf(sequences)))
      }
    } finally {
      this.#looking = false
      if (this.#line.size > 0) this.#timer = setTimeout(() => { void this.#look() }, lookAgain)
    }
  }

  /** Sequences that the next in line may have now; 0: it waits. */
  async #fitting ({ most, bytesOf, refusedAt }: Waiting): Promise<number> {
    const { device, most: cap, pictures } = this.#options
    const active = this.#active()
    if (active.length >= maxActive) return 0
    if (active.length > 0 && refusedAt !== undefined && this.#freed < refusedAt) return 0
    const held = active.reduce((sum, { bytes }) => sum + bytes, 0)
    const best = largest(most, bytesOf, cap)
    if (active.length > 0 && held + bytesOf(best) > 2 * cap) return 0
    // A failure to ask is found again, and told, where memory is taken.
    const free = await this.#options.free().catch(() => 0)
    const room = free === 0 ? cap : Math.max(0, free - (granted.get(device) ?? 0) - pictures) / 2
    if (bytesOf(best) <= room) return best
    return active.length > 0 ? 0 : largest(best, bytesOf, room)
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
      void this.#look()
    })
    this.#leases.add(lease)
    this.#untaken.add(lease)
    granted.set(device, (granted.get(device) ?? 0) + bytes)
    return lease
  }

  readonly #untaken = new Set<Lease>()

  /** The device knows of it by now. */
  #took (lease: Lease): void {
    if (this.#untaken.delete(lease)) granted.set(this.#options.device, granted.get(this.#options.device)! - lease.bytes)
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
