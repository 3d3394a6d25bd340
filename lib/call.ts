// The life of one public call: cancelled by its AbortSignal or by dispose(), and freed of what it holds in either
// case. A call rejects at once, without waiting for the backend, which stops between two layers when it sees the
// same cancellation. The instance holds its calls weakly: an iterator that a caller forgets half-way must be
// collectable, and its native session with it.

import { ParError } from './errors.js'
import { addon, toParError, type NativeCancel } from './native.js'

const nothing = (): void => {}

export class Call {
  /** For native jobs of this call. */
  readonly cancel: NativeCancel = addon().createCancel()
  readonly #signal: AbortSignal | undefined
  readonly #held = new Set<{ dispose(): void }>()
  readonly #interrupted: Promise<never>
  #interrupt!: (reason: unknown) => void
  #stopped: { reason: unknown } | undefined
  #over = false

  constructor (signal?: AbortSignal) {
    this.#signal = signal
    this.#interrupted = new Promise((_resolve, reject) => { this.#interrupt = reject })
    this.#interrupted.catch(nothing)
    if (signal?.aborted) this.stop(signal.reason)
    else signal?.addEventListener('abort', this.#abort, { once: true })
  }

  readonly #abort = (): void => this.stop(this.#signal!.reason)

  /** Done, or broken off: what it held is freed. */
  get over (): boolean { return this.#over }

  /** Throws the reason where the call was stopped. */
  check (): void {
    if (this.#stopped) throw this.#stopped.reason
  }

  /** Waits for native work or for the end of the call, whichever is first; native errors become ParError. */
  async wait<T> (work: Promise<T>): Promise<T> {
    work.catch(nothing) // its failure may come after the call has been rejected
    this.check()
    try {
      return await Promise.race([work, this.#interrupted])
    } catch (error) {
      this.check()
      throw toParError(error)
    }
  }

  /** Waits for a native object that is to be freed with the call, also where it comes too late. */
  async hold<T extends { dispose(): void }> (work: Promise<T>): Promise<T> {
    work.then(held => {
      if (this.#over || this.#stopped) held.dispose()
      else this.#held.add(held)
    }, nothing)
    return await this.wait(work)
  }

  /** Frees a held object early. */
  release (held: { dispose(): void }): void {
    if (this.#held.delete(held)) held.dispose()
  }

  /** Rejects what waits, cancels the native jobs and frees what is held. */
  stop (reason: unknown): void {
    if (this.#over || this.#stopped) return
    this.#stopped = { reason }
    this.#free()
    this.#interrupt(reason)
  }

  /** The call is done, well or badly; jobs that are still queued (a broken-off iteration) are cancelled. */
  end (): void {
    if (this.#over) return
    this.#over = true
    this.#free()
  }

  #free (): void {
    this.#signal?.removeEventListener('abort', this.#abort)
    this.cancel.cancel()
    for (const held of this.#held) held.dispose()
    this.#held.clear()
  }
}

/** The running calls of one instance. */
export class Calls {
  readonly #running = new Set<WeakRef<Call>>()
  #disposed = false

  /** @throws the signal's reason where it is aborted already; ParError `DISPOSED`. */
  begin (signal?: AbortSignal): Call {
    if (this.#disposed) throw disposedError()
    const call = new Call(signal)
    call.check()
    if (this.#running.size >= 64) {
      for (const reference of this.#running) if (!reference.deref()) this.#running.delete(reference)
    }
    this.#running.add(new WeakRef(call))
    return call
  }

  end (call: Call): void {
    call.end()
    for (const reference of this.#running) {
      if (reference.deref() === call) this.#running.delete(reference)
    }
  }

  /** Runs `work` as one call. */
  async run<T> (signal: AbortSignal | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    const call = this.begin(signal)
    try {
      return await work(call)
    } finally {
      this.end(call)
    }
  }

  /** Stops all calls and refuses new ones. */
  dispose (): void {
    this.#disposed = true
    for (const reference of this.#running) reference.deref()?.stop(disposedError())
    this.#running.clear()
  }
}

function disposedError (): ParError {
  return new ParError('DISPOSED', 'This Par was disposed')
}
