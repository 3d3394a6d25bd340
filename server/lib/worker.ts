// A worker: runs jobs of the queue with an engine of its own process.
//
// - A job is done when its answer stands in Redis, which is before BullMQ knows of it. A worker that dies in between
//   leaves a job that is run again, and found to be answered.
// - BullMQ's locks tell who has a job. They are renewed by a timer, which runs beside the engine: an engine that
//   computes does so off the thread of JavaScript. A worker that is gone loses its locks, and others take its jobs.
// - Nothing of a job is believed (messages.ts), nor BullMQ's own fields of it: whoever reaches Redis may have written
//   them.

import { randomUUID } from 'node:crypto'
import { UnrecoverableError, WaitingError, Worker, type Job as QueueJob } from 'bullmq'
import type { Redis } from 'ioredis'
import { ParError } from 'parvis'
import type { Engine, Listener, ModelInfo } from './engine.js'
import {
  answered, codeOf, errorFrame, isJobId, jobOf, jobOptions, Keys, maxAttempts, maxJobChars, maxModels, modelMessage,
  progressFrame, queueName, resultFrame, workerMessage, type Job, type ProgressEvent
} from './messages.js'
import { Address, within, type QueueAddress } from './redis.js'

export interface QueueWorkerOptions extends QueueAddress {
  /** Makes the pictures. Its models have hashes of their weights. The worker does not close it. */
  engine: Engine
  /** Those of its models that are served. Default: all. */
  models?: readonly string[]
  /**
   * Jobs at a time of each model, 1 to 1000: as many as the engine runs together well. Default 8. Where servers of both
   * sorts, with `mixed` and without, use the same workers, it is as many of each sort.
   */
  concurrency?: number
  /**
   * Milliseconds, 200 to 600,000, after which a worker that says nothing counts as dead; its jobs are run elsewhere
   * between one and two times so long after it was last heard of. Default 10,000.
   */
  lockMs?: number
  /** Milliseconds that jobs in work get to end in, when the worker is closed. Default 30,000. */
  graceMs?: number
}

/** Workers that one job may have seen die: it may be what they die of. */
const maxStalls = 8
/** Milliseconds between two signs of life. */
const heartbeat = 1000
/** Milliseconds after which a worker without a sign of life is not told of any more. */
const lifetime = 5 * heartbeat
/** What is told of a model outlives those who told it. */
const modelLifetime = 3_600_000
/** Milliseconds for which an error is kept: those who wait for the job get it, and who asks later tries again. */
const errorTtl = 5000
const connectFor = 5000
/** Milliseconds for which an answer is held where Redis takes none: it may be full. */
const answerFor = 60_000
/** Messages of progress on their way beyond which no previews are sent: the connection is too slow for them. */
const maxUnsent = 4

const retryable: ReadonlySet<string | undefined> =
  new Set(['OUT_OF_MEMORY', 'DEVICE_UNAVAILABLE', 'NATIVE_UNAVAILABLE', 'INTERNAL', 'QUEUE_FULL', undefined])

/** Why a job is aborted. */
const cancelled = Symbol('nobody waits for it')
const handBack = Symbol('the worker ends')

/** A job that is over, and whose client has been told why. */
class Answered extends UnrecoverableError {}

/** Takes jobs as they are in Redis, which may be any text: BullMQ parses it before anybody can look. */
class CarefulWorker extends Worker<unknown, void> {
  protected override createJob (...[found, id]: Parameters<Worker['createJob']>): QueueJob<unknown, void> {
    const create = (data: string): QueueJob<unknown, void> => super.createJob({
      ...found, data, opts: { ...jobOptions }, repeatJobKey: undefined, parentKey: undefined, parent: undefined
    }, id)
    try {
      if (found.data.length <= maxJobChars) return create(found.data)
    } catch {} // no JSON
    return create('"neither JSON nor of a size that a job may have"')
  }

  /** Ends without a word to Redis, which is gone: `close` would wait for it. */
  async abandon (): Promise<void> {
    await Promise.all([this.lockManager.close(), this.backend.close(true)])
  }
}

interface Running {
  id: string
  abort: AbortController
  /** Messages of progress that are on their way. */
  unsent: number
}

export class QueueWorker {
  readonly #address: Address
  readonly #keys: Keys
  readonly #engine: Engine
  readonly #served: ReadonlyMap<string, ModelInfo>
  readonly #seats: number
  readonly #graceMs: number
  readonly #redis: Redis
  readonly #subscriber: Redis
  readonly #id = randomUUID()
  readonly #workers: CarefulWorker[] = []
  /** One job may be there twice: where Redis was away for longer than its lock, the worker gets it again. */
  readonly #running = new Set<Running>()
  #timer: NodeJS.Timeout | undefined
  #closing: Promise<void> | undefined
  #isGone = false

  private constructor (
    address: Address, options: QueueWorkerOptions, served: ReadonlyMap<string, ModelInfo>, redis: Redis,
    subscriber: Redis
  ) {
    this.#address = address
    this.#keys = new Keys(address.prefix)
    this.#engine = options.engine
    this.#served = served
    this.#seats = options.concurrency ?? 8
    this.#graceMs = options.graceMs ?? 30_000
    this.#redis = redis
    this.#subscriber = subscriber
  }

  /**
   * Begins to take jobs.
   * @throws EngineError `QUEUE_UNAVAILABLE`; ParError `INVALID_OPTION`
   */
  static async open (options: QueueWorkerOptions): Promise<QueueWorker> {
    const { engine, models, concurrency = 8, lockMs = 10_000, graceMs = 30_000 } = options
    const check = (value: number, name: string, least: number, most: number): void => {
      if (Number.isInteger(value) && value >= least && value <= most) return
      throw new ParError('INVALID_OPTION', `${name} is an integer from ${least} to ${most}, not ${value}`)
    }
    check(concurrency, 'concurrency', 1, 1000)
    check(lockMs, 'lockMs', 200, 600_000)
    check(graceMs, 'graceMs', 0, 3_600_000)
    const served = new Map(engine.models().map(info => [info.name, info]))
    for (const name of models ?? []) {
      if (!served.has(name)) throw new ParError('INVALID_OPTION', `models has '${name}', which the engine has not`)
    }
    if (models) for (const name of served.keys()) if (!models.includes(name)) served.delete(name)
    check(served.size, 'The number of models', 1, maxModels)
    for (const { name, kind } of served.values()) {
      if (/^[0-9a-f]{16}$/.test(kind.weights)) continue
      throw new ParError('INVALID_OPTION', `The weights of '${name}' have no hash, which workers on a queue need`)
    }
    const address = new Address(options)
    const redis = await address.connect(connectFor)
    let worker: QueueWorker
    try {
      worker = new QueueWorker(address, options, served, redis, await address.connect(connectFor))
    } catch (error) {
      redis.disconnect()
      throw error
    }
    try {
      await worker.#begin(lockMs)
      return worker
    } catch (error) {
      await worker.#abandon()
      throw error
    }
  }

  /** Jobs in work. */
  get running (): number { return this.#running.size }

  async #begin (lockMs: number): Promise<void> {
    const late = (): Error => this.#address.unavailable()
    this.#subscriber.on('message', (_channel, id: string) => { this.#abort(cancelled, running => running.id === id) })
    await within(connectFor, this.#subscriber.subscribe(this.#keys.cancel), late)
    for (const info of this.#served.values()) {
      for (const kind of [info.kind, undefined]) this.#take(queueName(info.name, kind), lockMs)
    }
    await within(connectFor, Promise.all(this.#workers.map(worker => worker.waitUntilReady())), late)
    await within(connectFor, this.#beat(), late)
    this.#timer = setInterval(() => { void this.#beat() }, heartbeat)
  }

  #take (name: string, lockMs: number): void {
    const worker = new CarefulWorker(name, async (job, token) => { await this.#run(job, token!) }, {
      connection: this.#address.options, prefix: this.#address.prefix, concurrency: this.#seats, name: this.#id,
      lockDuration: lockMs, stalledInterval: lockMs / 2, maxStalledCount: maxStalls, runRetryDelay: 1000,
      removeOnComplete: { count: 0 }, removeOnFail: { count: 0 }
    })
    worker.on('error', error => { this.#address.trouble(error) })
    worker.on('failed', (job, error) => {
      // BullMQ has given it up, without asking the function that runs jobs.
      if (!job || !isJobId(job.id) || !(error instanceof UnrecoverableError) || error instanceof Answered) return
      void this.#answer(job.id, errorFrame(new ParError('INTERNAL', 'The workers that had the job have all died')),
        errorTtl).catch(error => { this.#address.trouble(error) })
    })
    worker.on('stalled', id => { void this.#endPoison(worker, id).catch(error => { this.#address.trouble(error) }) })
    this.#workers.push(worker)
  }

  /** Removes a job that BullMQ itself cannot read: it would go round for ever, since it never comes to be run. */
  async #endPoison (worker: CarefulWorker, id: string): Promise<void> {
    const key = worker.toKey(id)
    const stalls = Number(await this.#redis.hget(key, 'stc'))
    if (!(stalls > maxStalls + 1)) return
    this.#address.warn('A job that cannot be read was removed')
    await this.#redis.multi().lrem(worker.toKey('wait'), 0, id).del(key).exec()
  }

  #abort (reason: symbol, which: (running: Running) => boolean): void {
    for (const running of this.#running) if (which(running)) running.abort.abort(reason)
  }

  // ---- signs of life

  async #beat (): Promise<void> {
    if (this.#redis.status !== 'ready') return
    try {
      const told = [...this.#served.values()].map(modelMessage)
      const running = [...this.#running]
      const commands = this.#redis.pipeline()
      for (const { id } of running) commands.strlen(this.#keys.result(id))
      if (!this.#closing) {
        for (const { id, message } of told) commands.set(this.#keys.model(id), message, 'PX', modelLifetime)
        const card = workerMessage({ models: told.map(({ id }) => id), seats: this.#seats })
        commands.set(this.#keys.worker(this.#id), card, 'PX', lifetime).sadd(this.#keys.workers, this.#id)
      }
      const replies = await commands.exec() ?? []
      // Messages that cancel may be lost. What stands in Redis is not.
      for (const [index, { abort }] of running.entries()) {
        if (replies[index]?.[1] === answered.length) abort.abort(cancelled)
      }
    } catch (error) {
      this.#address.trouble(error)
    }
  }

  // ---- jobs

  async #run (job: QueueJob<unknown, void>, token: string): Promise<void> {
    const { id } = job
    if (!isJobId(id)) throw new Answered('Its id is none')
    // BullMQ may still take one that comes in the moment in which it is told to take no more.
    if (this.#closing) await this.#handBack(job, token)
    let wanted: Job
    try {
      wanted = jobOf(job.data, this.#served)
      if (queueName(wanted.request.model, wanted.kind) !== job.queueName) {
        throw new ParError('INVALID_OPTION', 'A job of the queue: it is in the queue of another model or kind')
      }
    } catch (error) {
      this.#address.warn(`A job was refused: ${(error as Error).message}`)
      await this.#answer(id, errorFrame(error), errorTtl)
      throw new Answered((error as Error).message)
    }
    const running: Running = { id, abort: new AbortController(), unsent: 0 }
    this.#running.add(running)
    try {
      if (await this.#redis.strlen(this.#keys.result(id)) > 0) return
      this.#tell(running, { type: 'began' })
      const { signal } = running.abort
      const result = await this.#engine.draw(wanted.request, signal, this.#listener(running, wanted))
      await this.#answer(id, resultFrame(result), wanted.resultTtlMs)
    } catch (error) {
      await this.#failed(job, token, running.abort.signal, error)
    } finally {
      this.#running.delete(running)
    }
  }

  /** Throws what tells BullMQ where the job belongs; returns where nobody waits for it. */
  async #failed (job: QueueJob<unknown, void>, token: string, signal: AbortSignal, error: unknown): Promise<void> {
    if (signal.reason === cancelled) return
    const code = codeOf(error)
    const isEnding = code === 'DISPOSED' || code === 'SHUTTING_DOWN'
    if (signal.reason === handBack || isEnding) {
      if (isEnding && !this.#closing) {
        this.#address.warn('The engine has ended, and the worker ends with it')
        void this.close() // before the job is back: it shall not come here again
      }
      await this.#handBack(job, token)
    }
    // As text: an error may carry what no log should have.
    const told = `${code ?? 'no code'}: ${(error as Partial<Error> | undefined)?.message ?? String(error)}`
    if (retryable.has(code) && job.attemptsMade + 1 < maxAttempts) {
      this.#address.warn(`A job has failed and is run again: ${told}`)
      throw new Error(told)
    }
    if (retryable.has(code)) this.#address.warn(`A job has failed: ${told}`)
    await this.#answer(job.id!, errorFrame(error), errorTtl)
    throw new Answered(told)
  }

  /** In front of the line. What it throws tells BullMQ so. */
  async #handBack (job: QueueJob<unknown, void>, token: string): Promise<never> {
    await job.moveToWait(token)
    throw new WaitingError()
  }

  /**
   * Stores the answer, unless there is one: another worker that took this one for dead has made the same, or nobody
   * waits any more. Where Redis is gone this waits for it.
   */
  async #answer (id: string, frame: Buffer, ttl: number): Promise<void> {
    const deadline = Date.now() + answerFor
    for (;;) {
      try {
        const stored = await this.#redis.set(this.#keys.result(id), frame, 'PX', ttl, 'NX')
        // Another job of the same key is another request as of now, unless it comes as long as the result is there.
        if (stored) await this.#redis.pexpire(this.#keys.body(id), ttl)
        await this.#redis.publish(this.#keys.progress(id), progressFrame({ type: 'done' }))
        return
      } catch (error) {
        this.#address.trouble(error)
        if (this.#isGone || Date.now() > deadline) throw error
        await new Promise(resolve => setTimeout(resolve, 200))
      }
    }
  }

  #listener (running: Running, { steps }: Job): Listener {
    return {
      ...(steps && { step: event => { this.#tell(running, { type: 'step', event }) } }),
      preview: (pixels, step) => {
        if (running.unsent < maxUnsent) this.#tell(running, { type: 'preview', pixels, step })
      }
    }
  }

  /** Tells how far a job has come. What does not arrive is no loss. */
  #tell (running: Running, event: ProgressEvent): void {
    if (this.#redis.status !== 'ready' || running.abort.signal.aborted) return
    running.unsent++
    this.#redis.publish(this.#keys.progress(running.id), progressFrame(event))
      .catch(error => { this.#address.trouble(error) })
      .finally(() => { running.unsent-- })
  }

  // ---- the end

  /**
   * Takes no more jobs, and lets those in work end. What has not ended after the time of grace goes back to the queue,
   * in front, for another worker.
   */
  close (): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close (): Promise<void> {
    const late = (): Error => this.#address.unavailable()
    const timer = setTimeout(() => {
      this.#abort(handBack, () => true)
    }, this.#graceMs)
    // Takes no more jobs as of now, and waits for those in work.
    const closed = Promise.all(this.#workers.map(worker => worker.close()))
    if (this.#redis.status === 'ready') {
      // So that no server counts on it. The signs of life go on without the card: they look for cancelled jobs.
      const leaving = this.#redis.multi().del(this.#keys.worker(this.#id)).srem(this.#keys.workers, this.#id).exec()
      await within(connectFor, leaving, late).catch(error => { this.#address.trouble(error) })
    }
    try {
      // Where Redis is gone it would wait for ever.
      await within(this.#graceMs + connectFor, closed, late)
    } catch (error) {
      this.#address.trouble(error)
      this.#abort(handBack, () => true)
    } finally {
      clearTimeout(timer)
      await this.#abandon()
    }
  }

  /** Frees what is left, without a word to Redis. */
  async #abandon (): Promise<void> {
    this.#isGone = true
    this.#address.end()
    clearInterval(this.#timer)
    this.#redis.disconnect()
    this.#subscriber.disconnect()
    await Promise.all(this.#workers.map(worker => worker.abandon().catch(() => {})))
  }
}
