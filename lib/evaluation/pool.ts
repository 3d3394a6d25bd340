// Worker threads for pieces of one evaluation. What matters for the end comes first in the line; an abort ends the
// threads in the middle of whatever they do.

import { Worker } from 'node:worker_threads'
import { outOfMemory, ParError, type ParErrorCode } from '../base/errors.js'
import { visible } from '../base/text.js'
import type { pieces } from './work.js'

type Pieces = typeof pieces
type Args<P extends keyof Pieces> = Parameters<Pieces[P]>[1]

interface Order {
  piece: keyof Pieces
  args: (thread: number) => unknown
  units: number
  resolve: (result: never) => void
  reject: (error: unknown) => void
}

interface Answer {
  result?: unknown
  error?: { code: ParErrorCode, message: string, stack: string }
}

export class Pool {
  readonly #line: Order[] = []
  readonly #workers: Array<{ worker: Worker, order?: Order }> = []
  #done = 0
  #fault: { error: unknown } | undefined

  /**
   * @param threads workers at most; each begins when there is something for it
   * @param onDone called after each piece with the units that are done
   */
  constructor (
    readonly threads: number, private readonly signal?: AbortSignal,
    private readonly onDone: (units: number) => void = () => {}
  ) {
    signal?.addEventListener('abort', this.#aborted, { once: true })
  }

  readonly #aborted = (): void => { this.#fail(this.signal!.reason) }

  /**
   * Has a thread do a piece of work.
   * @param args of that piece, for whichever thread does it
   * @param units how much work it is
   * @param first before everything that waits: something else waits for it
   */
  async run<P extends keyof Pieces> (
    piece: P, args: Args<P> | ((thread: number) => Args<P>), { units = 0, first = false } = {}
  ): Promise<ReturnType<Pieces[P]>> {
    this.signal?.throwIfAborted()
    if (this.#fault) throw this.#fault.error
    return await new Promise<ReturnType<Pieces[P]>>((resolve, reject) => {
      const order: Order = { piece, args: typeof args === 'function' ? args : () => args, units, resolve, reject }
      if (first) this.#line.unshift(order)
      else this.#line.push(order)
      this.#next()
    })
  }

  #next (): void {
    while (this.#line.length > 0) {
      let thread = this.#workers.findIndex(({ order }) => order === undefined)
      if (thread < 0) {
        if (this.#workers.length >= this.threads) return
        thread = this.#start()
      }
      const order = this.#line.shift()!
      const at = this.#workers[thread]!
      at.order = order
      at.worker.ref()
      at.worker.postMessage({ piece: order.piece, args: order.args(thread) })
    }
  }

  #start (): number {
    const worker = new Worker(require.resolve('./worker.js'))
    const thread = this.#workers.push({ worker }) - 1
    worker.on('message', ({ result, error }: Answer) => {
      const at = this.#workers[thread]
      const order = at?.order
      if (order === undefined) return // the threads are ended already
      delete at!.order
      worker.unref()
      if (error) {
        this.#fail(Object.assign(new ParError(error.code, error.message), error.stack ? { stack: error.stack } : {}))
        return
      }
      this.#done += order.units
      this.onDone(this.#done)
      order.resolve(result as never)
      this.#next()
    })
    worker.on('error', error => {
      const text = visible(String((error as Error).message), 300)
      this.#fail((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY'
        ? new ParError('OUT_OF_MEMORY', `Not enough memory: ${text}. Free memory, or evaluate fewer pictures`)
        : outOfMemory(error) ?? new ParError('INTERNAL', `a thread of the evaluation ended: ${text}`, { cause: error }))
    })
    return thread
  }

  /** Everything that was asked for fails, and the threads end. */
  #fail (error: unknown): void {
    this.#fault ??= { error }
    const orders = [...this.#workers.flatMap(({ order }) => order ? [order] : []), ...this.#line.splice(0)]
    void this.close()
    for (const { reject } of orders) reject(error)
  }

  async close (): Promise<void> {
    this.signal?.removeEventListener('abort', this.#aborted)
    await Promise.all(this.#workers.splice(0).map(async ({ worker }) => await worker.terminate()))
  }
}
