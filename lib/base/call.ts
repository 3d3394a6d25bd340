// The life of one public call: cancelled by its AbortSignal or by dispose(), and freed of what it holds in either
// case. A call rejects at once, without waiting for the backend, which stops between two layers when it sees the
// same cancellation. Instance and signal hold their calls weakly: an iterator that a caller forgets half-way must be
// collectable, and what it holds is then freed.

import { callersOwn, ParError } from './errors.js'
import { addon, toParError, type NativeCancel } from '../machine/native.js'
import { NodeAbortController } from './realm.js'
import { isPromise } from './validate.js'

const nothing = (): void => {}

/** What a call holds until its end. `pause` and `resume`: while the caller has the turn, not the call. */
export interface Held {
  dispose(): unknown
  pause?(): void
  resume?(): void
}

/** What has to be undone at the end of a call, apart from it, so that it can be undone for one that was forgotten. */
class Estate {
  readonly held = new Set<Held>()
  readonly #undo: Array<() => void> = []

  constructor (readonly cancel: NativeCancel) {}

  // A method of its own: closures made in one function share what they hold, and these must not hold the call.
  enter (call: WeakRef<Call>, signal: AbortSignal | undefined, running: Set<object> | undefined): void {
    if (signal) this.#undo.push(listenerOf(signal).add(call))
    if (!running) return
    running.add(call)
    this.#undo.push(() => { running.delete(call) })
  }

  free (): void {
    this.cancel.cancel()
    for (const undo of this.#undo.splice(0)) undo()
    for (const held of this.held) held.dispose()
    this.held.clear()
  }
}

const forgotten = new FinalizationRegistry<Estate>(estate => { estate.free() })

// ---- signals

/** Calls that a signal ends. They share one listener: Node.js warns of a signal that has more than ten. */
const listeners = new WeakMap<AbortSignal, Listener>()

class Listener {
  readonly #calls = new Set<WeakRef<Call>>()
  readonly #signal: AbortSignal

  constructor (signal: AbortSignal) {
    this.#signal = signal
    signal.addEventListener('abort', this.#abort, { once: true })
  }

  readonly #abort = (): void => {
    for (const reference of [...this.#calls]) reference.deref()?.stop(reasonOf(this.#signal))
  }

  /** Returns how to undo it. */
  add (call: WeakRef<Call>): () => void {
    this.#calls.add(call)
    return () => {
      this.#calls.delete(call)
      // A polyfill may have no removeEventListener: then this listener stays, for the next call of the signal.
      if (this.#calls.size > 0 || typeof this.#signal.removeEventListener !== 'function') return
      this.#signal.removeEventListener('abort', this.#abort)
      listeners.delete(this.#signal)
    }
  }
}

function listenerOf (signal: AbortSignal): Listener {
  let listener = listeners.get(signal)
  if (!listener) {
    listener = new Listener(signal)
    listeners.set(signal, listener)
  }
  return listener
}

/** Polyfills may have no reason either. */
function reasonOf (signal: AbortSignal): unknown {
  return signal.reason === undefined ? new DOMException('This operation was aborted', 'AbortError') : signal.reason
}

// ---- calls

export class Call {
  /** For native jobs of this call. */
  readonly cancel: NativeCancel = addon().createCancel()
  readonly #estate = new Estate(this.cancel)
  readonly #interrupted: Promise<never>
  #interrupt!: (reason: unknown) => void
  #stopped: { reason: unknown } | undefined
  #over = false
  #controller: AbortController | undefined

  /**
   * @param running the calls of the instance: among them until the end. They are WeakRefs, which declarations must not
   * name: lib es2020 does not know them
   */
  constructor (signal?: AbortSignal, running?: Set<object>) {
    this.#interrupted = new Promise((_resolve, reject) => { this.#interrupt = reject })
    this.#interrupted.catch(nothing)
    if (signal?.aborted) {
      this.stop(reasonOf(signal))
      return
    }
    this.#estate.enter(new WeakRef(this), signal, running)
    forgotten.register(this, this.#estate, this)
  }

  /** Done, or broken off: what it held is freed. */
  get over (): boolean { return this.#over }

  /** Aborted when the call is stopped: for work in JavaScript. */
  get signal (): AbortSignal {
    this.#controller ??= new NodeAbortController()
    if (this.#stopped) this.#controller.abort(this.#stopped.reason)
    return this.#controller.signal
  }

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

  /** Calls back to the caller and waits for what that returns. An error of a callback ends the call as it is. */
  async tell<T> (callback: ((told: T) => unknown) | undefined, told: T): Promise<void> {
    try {
      const answer = callback?.(told)
      // Through the call, so that a callback which never settles can be aborted.
      if (isPromise(answer)) await this.wait(Promise.resolve(answer).catch(error => { throw callersOwn(error) }))
    } catch (error) {
      throw callersOwn(error)
    }
  }

  /** Waits for an object that is to be freed with the call, also where it comes too late. */
  async hold<T extends Held> (work: Promise<T>): Promise<T> {
    work.then(held => { this.keep(held) }, nothing)
    return await this.wait(work)
  }

  /** Frees `held` with the call: at once where that has ended. */
  keep (held: Held): void {
    if (this.#over || this.#stopped) held.dispose()
    else this.#estate.held.add(held)
  }

  /** Frees a held object early; returns what its `dispose` does. */
  release (held: Held): unknown {
    return this.#estate.held.delete(held) ? held.dispose() : undefined
  }

  /** The caller has the turn: it may take as long as it likes, and wait for other calls meanwhile. */
  pause (): void {
    for (const held of this.#estate.held) held.pause?.()
  }

  resume (): void {
    for (const held of this.#estate.held) held.resume?.()
  }

  /** Rejects what waits, cancels the native jobs and frees what is held. */
  stop (reason: unknown): void {
    if (this.#over || this.#stopped) return
    this.#stopped = { reason: callersOwn(reason) }
    this.#free()
    this.#controller?.abort(reason)
    this.#interrupt(reason)
  }

  /** The call is done, well or badly; jobs that are still queued (a broken-off iteration) are cancelled. */
  end (): void {
    if (this.#over) return
    this.#over = true
    this.#free()
  }

  #free (): void {
    forgotten.unregister(this)
    this.#estate.free()
  }
}

/** The running calls of one instance. */
export class Calls {
  readonly #running = new Set<WeakRef<Call>>()
  #disposed = false

  /** @throws the signal's reason where it is aborted already; ParError `DISPOSED`. */
  begin (signal?: AbortSignal): Call {
    if (this.#disposed) throw disposedError()
    const call = new Call(signal, this.#running)
    call.check()
    return call
  }

  /** Runs `work` as one call. */
  async run<T> (signal: AbortSignal | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    const call = this.begin(signal)
    try {
      return await work(call)
    } catch (error) {
      throw toParError(error) // memory that JavaScript could not have
    } finally {
      call.end()
    }
  }

  /** Stops all calls and refuses new ones. */
  dispose (): void {
    this.#disposed = true
    for (const reference of [...this.#running]) reference.deref()?.stop(disposedError())
    this.#running.clear()
  }
}

function disposedError (): ParError {
  return new ParError('DISPOSED', 'This Par was disposed')
}
