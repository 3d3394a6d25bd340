// Scaling out: requests become jobs of a queue on Redis, which workers on any machines run (worker.ts).
//
// - A job is asked for until its answer is there. Messages tell of answers at once; what stands in Redis is looked at
//   every second beside them, so that one which is lost costs a second. A job that is nowhere, because Redis has lost
//   what it knew, is given to the queue again: its seed makes the same picture.
// - There is a queue for each model and kind of worker, since only workers of one kind make equal bytes, and one for
//   each model that all kinds take from, for those who have mixed them on purpose.
// - Nothing that comes out of Redis is believed (messages.ts).

import { randomUUID } from 'node:crypto'
import { Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import { ParError } from 'parvis'
import {
  EngineError, type Engine, type Kind, type Listener, type Load, type ModelInfo, type PictureRequest, type Result
} from './engine.js'
import {
  answered, checkedRequest, hashOfRequest, isQueueName, jobMessage, jobOfKey, jobOptions, Keys, longestTtl,
  maxModelBytes, maxResultBytes, maxWorkerBytes, modelOf, progressOf, queueName, resultOf, shortestTtl, textOfKind,
  workerOf, type JobMessage
} from './messages.js'
import { Address, untilReady, within, type QueueAddress } from './redis.js'

export interface QueueEngineOptions extends QueueAddress {
  /**
   * Requests that may wait for a worker of their kind, of all servers together; one more is refused with `QUEUE_FULL`.
   * Several servers that ask in the same moment may pass it by one each. Default 1000.
   */
  maxWaiting?: number
  /**
   * Milliseconds, 1000 to 24 hours, for which the result of a request with an idempotency key is kept. Default 600,000.
   * Others are kept until the client has them, and for as long as this engine waits for Redis at most.
   */
  resultTtlMs?: number
  /**
   * Let workers of any kind answer; the result says which did. By default a request goes to the kind that most workers
   * are of, so that requests of one seed get equal bytes as long as that does not change.
   */
  mixed?: boolean
  /** Milliseconds between two looks at what stands in Redis, 20 to 60,000. Default 1000. */
  pollMs?: number
  /** Milliseconds after which a new request is refused where Redis is away. Default 5000. */
  unavailableMs?: number
  /** Milliseconds for which requests wait where Redis, or the last worker of their kind, is gone. Default 60,000. */
  patienceMs?: number
}

/** Max jobs of a queue that are looked through for places in the line. */
const maxLine = 10_000
/** Events of BullMQ that are kept, which nobody here reads. */
const maxEvents = 100
/** Max workers that are counted. */
const maxWorkers = 10_000
/** Milliseconds for which it is remembered that nobody waits for a job: longer than a dead worker may hold it. */
const answeredTtl = 120_000
/** Times that a job is given to the queue again. */
const maxResubmissions = 5
/** Milliseconds after which a new request is looked for. */
const soon = 20
/** Milliseconds that the end waits for Redis. */
const endWithin = 3000

/**
 * A request under a client's key. It is the job of this key, if it is the same request: then this client is one more
 * that waits for it, and the queue of the job is returned; otherwise nothing is. A job that is neither in its queue nor
 * answered may be in another one from now on.
 * KEYS: body, result, clients. ARGV: hash of the request, its queue, milliseconds, the client, what the key of a job is
 * in front of and behind the name of its queue.
 */
const join = `
local known = redis.call('GET', KEYS[1])
if known and string.sub(known, 1, 64) ~= ARGV[1] then return '' end
if redis.call('STRLEN', KEYS[2]) == 1 then redis.call('DEL', KEYS[2]) end
local queue = known and string.sub(known, 66) or ARGV[2]
if redis.call('EXISTS', KEYS[2], ARGV[5] .. queue .. ARGV[6]) == 0 then queue = ARGV[2] end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. queue, 'PX', ARGV[3])
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return queue`

/**
 * A client waits no more. Returns 1 where it was the last one and the job is of no use.
 * KEYS: result, clients. ARGV: the client, what stands for an answer that nobody wants, milliseconds, '1': keep it.
 */
const leave = `
redis.call('SREM', KEYS[2], ARGV[1])
if redis.call('SCARD', KEYS[2]) > 0 then return 0 end
if ARGV[4] == '1' and redis.call('STRLEN', KEYS[1]) > 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`

/** A model, as workers of one kind serve it. */
interface Served {
  info: ModelInfo
  /** Workers that live, and the jobs that they take at a time. */
  workers: number
  seats: number
  /** Its place among the models of a worker: the first of them is what clients get that name none. */
  rank: number
  seenAt: number
}

type Living = Pick<Served, 'workers' | 'seats' | 'rank'>

/** Where a request goes. */
interface Route {
  name: string
  kind: Kind | undefined
}

/** A request that waits for its answer. */
interface Waiting {
  /** This client among those of a job. */
  client: string
  id: string
  hasKey: boolean
  route: Route
  /** Where the job is: in the queue of the route, unless it is the job of an earlier request of the same key. */
  queue: string
  request: PictureRequest
  message: JobMessage
  listener: Listener
  /** How far it has come: Redis may know of the request, of the job; the job is there, and lost where it is not. */
  isJoined: boolean
  isAdded: boolean
  isSubmitted: boolean
  isOver: boolean
  /** Looks that have not found it. */
  misses: number
  resubmissions: number
  /** As told last. */
  place: number | undefined
  step: number
  previewed: number
  /** Since when there has been no worker that could take it. */
  aloneSince: number | undefined
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

export class QueueEngine implements Engine {
  readonly #address: Address
  readonly #keys: Keys
  readonly #redis: Redis
  readonly #subscriber: Redis
  readonly #maxWaiting: number
  readonly #resultTtlMs: number
  readonly #mixed: boolean
  readonly #pollMs: number
  readonly #unavailableMs: number
  readonly #patienceMs: number
  readonly #queues = new Map<string, Queue>()
  /** Requests by job. */
  readonly #waiting = new Map<string, Set<Waiting>>()
  /** By model, then by kind. */
  readonly #served = new Map<string, Map<string, Served>>()
  /** What was told of models, by hash. */
  readonly #models = new Map<string, ModelInfo>()
  /** Jobs on their way into a queue. */
  readonly #adding = new Map<string, number>()
  /** What is told to Redis of requests that are over. */
  readonly #leaving = new Set<Promise<void>>()
  /** Answers that are being fetched, by job. */
  readonly #fetching = new Set<string>()
  #awaySince: number | undefined
  #timer: NodeJS.Timeout | undefined
  #soon: NodeJS.Timeout | undefined
  #isClosed = false

  private constructor (address: Address, redis: Redis, subscriber: Redis, options: QueueEngineOptions) {
    this.#address = address
    this.#keys = new Keys(address.prefix)
    this.#redis = redis
    this.#subscriber = subscriber
    this.#maxWaiting = options.maxWaiting ?? 1000
    this.#resultTtlMs = options.resultTtlMs ?? 600_000
    this.#mixed = options.mixed ?? false
    this.#pollMs = options.pollMs ?? 1000
    this.#unavailableMs = options.unavailableMs ?? 5000
    this.#patienceMs = options.patienceMs ?? 60_000
    subscriber.on('messageBuffer', (channel: Buffer, message: Buffer) => { this.#hear(channel.toString(), message) })
  }

  /**
   * Connects, and learns which workers there are.
   * @throws EngineError `QUEUE_UNAVAILABLE`; ParError `INVALID_OPTION`
   */
  static async open (options: QueueEngineOptions): Promise<QueueEngine> {
    const { maxWaiting, resultTtlMs, pollMs, unavailableMs = 5000, patienceMs } = options
    const check = (value: number | undefined, name: string, least: number, most: number): void => {
      if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) return
      throw new ParError('INVALID_OPTION', `${name} is an integer from ${least} to ${most}, not ${value}`)
    }
    check(maxWaiting, 'maxWaiting', 0, 1e6)
    check(resultTtlMs, 'resultTtlMs', shortestTtl, longestTtl)
    check(pollMs, 'pollMs', 20, 60_000)
    check(unavailableMs, 'unavailableMs', 1, 600_000)
    check(patienceMs, 'patienceMs', 1, 24 * 3_600_000)
    const address = new Address(options)
    const redis = await address.connect(unavailableMs)
    let subscriber: Redis | undefined
    try {
      subscriber = await address.connect(unavailableMs)
      const engine = new QueueEngine(address, redis, subscriber, options)
      await within(unavailableMs, engine.#learn(), () => address.unavailable())
      engine.#later()
      return engine
    } catch (error) {
      redis.disconnect()
      subscriber?.disconnect()
      throw error
    }
  }

  // ---- what workers serve

  models (): ModelInfo[] {
    return [...this.#served.values()].flatMap(kinds => this.#main(kinds) ?? [])
      .sort((one, other) => one.rank - other.rank || (one.info.name < other.info.name ? -1 : 1)).map(({ info }) => info)
  }

  /** Of all kinds of workers together. */
  async load (model: string): Promise<Load> {
    const kinds = this.#served.get(model)
    if (!kinds) throw this.#unknown(model)
    let [waiting, running, seats] = [0, 0, 0]
    for (const served of kinds.values()) seats += served.seats
    const names = [undefined, ...[...kinds.values()].map(({ info }) => info.kind)].map(kind => queueName(model, kind))
    await this.#ask(async () => {
      for (const counts of await Promise.all(names.map(name => this.#count(name)))) {
        waiting += counts.waiting
        running += counts.running
      }
    })
    return { waiting, running, seats }
  }

  async problem (): Promise<string | undefined> {
    if (this.#isClosed) return 'The server is about to end'
    if (this.#redis.status !== 'ready') return this.#address.unavailable().message
    const living = [...this.#served.values()].some(kinds => [...kinds.values()].some(({ workers }) => workers > 0))
    return living ? undefined : 'No worker is on the queue'
  }

  /** What most workers serve; among equals always the same. */
  #main (kinds: ReadonlyMap<string, Served>): Served | undefined {
    const [main] = [...kinds].sort(([a, one], [b, other]) => other.workers - one.workers || (a < b ? -1 : 1))
    return main?.[1]
  }

  #route (model: string): Route {
    const main = this.#served.has(model) ? this.#main(this.#served.get(model)!) : undefined
    if (!main) throw this.#unknown(model)
    const kind = this.#mixed ? undefined : main.info.kind
    return { name: queueName(model, kind), kind }
  }

  #unknown (model: string): EngineError {
    const names = [...this.#served.keys()]
    if (names.length === 0) return new EngineError('QUEUE_UNAVAILABLE', 'No worker is on the queue')
    return new EngineError('MODEL_NOT_FOUND', `No model is called '${model.slice(0, 100)}'. Workers have ` +
      names.join(', '))
  }

  /** Workers that could take a job. */
  #takers ({ model }: PictureRequest, { kind }: Route): { workers: number, seats: number } {
    const all = [...this.#served.get(model)?.values() ?? []]
    const fitting = kind ? all.filter(({ info }) => textOfKind(info.kind) === textOfKind(kind)) : all
    return {
      workers: fitting.reduce((sum, { workers }) => sum + workers, 0),
      seats: fitting.reduce((sum, { seats }) => sum + seats, 0)
    }
  }

  /** Learns which workers live. */
  async #learn (): Promise<void> {
    const ids = (await this.#redis.smembers(this.#keys.workers)).slice(0, maxWorkers)
    const cards = this.#redis.pipeline()
    // Ranges are bounded, whatever stands there.
    for (const id of ids) cards.getrange(this.#keys.worker(id), 0, maxWorkerBytes)
    const told = await cards.exec() ?? []
    const gone: string[] = []
    const living = new Map<string, Living>()
    for (const [index, id] of ids.entries()) {
      const [error, text] = told[index] ?? []
      if (!error && text === '') gone.push(id)
      const card = error || typeof text !== 'string' || text === '' ? undefined : this.#read(() => workerOf(text))
      for (const [place, model] of card?.models.entries() ?? []) {
        const one: Living = { workers: 1, seats: card!.seats, rank: place }
        living.set(model, sum(one, living.get(model)))
      }
    }
    if (gone.length > 0) await this.#redis.srem(this.#keys.workers, ...gone)
    for (const id of living.keys()) {
      if (this.#models.has(id)) continue
      const text = await this.#redis.getrange(this.#keys.model(id), 0, maxModelBytes)
      const info = text === '' ? undefined : this.#read(() => modelOf(id, text))
      if (info) this.#models.set(id, info)
    }
    this.#note(living)
  }

  #note (living: ReadonlyMap<string, Living>): void {
    const now = Date.now()
    for (const kinds of this.#served.values()) for (const served of kinds.values()) served.workers = served.seats = 0
    for (const [id, one] of living) {
      const info = this.#models.get(id)
      if (!info) continue
      const kinds = this.#served.get(info.name) ?? new Map<string, Served>()
      this.#served.set(info.name, kinds)
      const before = kinds.get(textOfKind(info.kind))
      // Told of in two ways where it is called by two devices.
      kinds.set(textOfKind(info.kind), { info, ...sum(one, before?.seenAt === now ? before : undefined), seenAt: now })
    }
    // Kinds are not forgotten at once: their workers may be about to come back.
    for (const [name, kinds] of this.#served) {
      for (const [key, { seenAt }] of kinds) if (now - seenAt > this.#patienceMs) kinds.delete(key)
      if (kinds.size === 0) this.#served.delete(name)
    }
    for (const id of this.#models.keys()) if (!living.has(id)) this.#models.delete(id)
  }

  /** What a check gives; undefined where it fails, which the log is told. */
  #read<T> (check: () => T): T | undefined {
    try {
      return check()
    } catch (error) {
      this.#address.trouble(error)
      return undefined
    }
  }

  // ---- requests

  /** Milliseconds for which it is remembered what a key stands for, counted from when somebody last waited. */
  get #bodyTtlMs (): number { return Math.max(this.#resultTtlMs, this.#patienceMs) }

  async draw (request: PictureRequest, signal: AbortSignal, listener: Listener): Promise<Result> {
    signal.throwIfAborted()
    if (this.#isClosed) throw new EngineError('SHUTTING_DOWN', 'The server is about to end')
    const checked = checkedRequest(request)
    const route = this.#route(checked.model)
    const { idempotencyKey } = checked
    const waiting: Waiting = {
      client: randomUUID(), id: idempotencyKey === undefined ? randomUUID() : jobOfKey(idempotencyKey),
      hasKey: idempotencyKey !== undefined, route, queue: route.name, request: checked,
      message: jobMessage({
        request: checked,
        kind: route.kind,
        resultTtlMs: idempotencyKey === undefined
          ? Math.min(this.#resultTtlMs, this.#patienceMs + shortestTtl)
          : this.#resultTtlMs,
        // Another client of the same key may want them.
        steps: listener.step !== undefined || idempotencyKey !== undefined
      }),
      listener, isJoined: false, isAdded: false, isSubmitted: false, isOver: false, misses: 0, resubmissions: 0,
      place: undefined, step: 0, previewed: 0, aloneSince: undefined, resolve: () => {}, reject: () => {}
    }
    const stop = (): void => { waiting.reject(signal.reason) }
    let isAnswered = false
    const result = new Promise<Result>((resolve, reject) => Object.assign(waiting, { resolve, reject }))
    signal.addEventListener('abort', stop, { once: true })
    const submitted = this.#submit(waiting)
    submitted.catch(waiting.reject)
    try {
      const found = await result
      isAnswered = true
      return found
    } finally {
      waiting.isOver = true
      signal.removeEventListener('abort', stop)
      const left = submitted.catch(() => {}).then(() => this.#leave(waiting, isAnswered)).finally(() => {
        this.#leaving.delete(left)
      })
      this.#leaving.add(left)
    }
  }

  async #submit (waiting: Waiting): Promise<void> {
    const { id, request, hasKey, client } = waiting
    await this.#ask(async () => {
      if (waiting.isOver) return
      if (hasKey) {
        const keys = [this.#keys.body(id), this.#keys.result(id), this.#keys.clients(id)]
        const name = await this.#redis.eval(join, 3, ...keys, hashOfRequest(request), waiting.route.name,
          this.#bodyTtlMs, client, `${this.#address.prefix}:`, `:${id}`)
        if (name === '') {
          throw new ParError('INVALID_OPTION', 'idempotencyKey is that of another request')
        }
        if (typeof name !== 'string' || !isQueueName(name)) {
          throw new ParError('INTERNAL', 'The queue of an earlier request of this idempotencyKey has no name')
        }
        waiting.isJoined = true
        waiting.queue = name // that of the kind that most workers were of when it was given to them
      }
      if (waiting.isOver) return
      const others = this.#waiting.get(id)
      if (others) others.add(waiting)
      else {
        this.#waiting.set(id, new Set([waiting]))
        await this.#subscriber.subscribe(this.#keys.progress(id))
      }
      if (!hasKey || !await this.#isKnown(waiting)) await this.#add(waiting)
      waiting.isSubmitted = true
    })
    this.#lookSoon()
  }

  /** The job is in the queue or done already. */
  async #isKnown ({ id, queue }: Waiting): Promise<boolean> {
    return await this.#redis.exists(this.#queue(queue).toKey(id), this.#keys.result(id)) > 0
  }

  /** @throws ParError `QUEUE_FULL` */
  async #add (waiting: Waiting): Promise<void> {
    const { route: { name } } = waiting
    const adding = this.#adding.get(name) ?? 0
    this.#adding.set(name, adding + 1)
    try {
      const counts = await this.#count(name)
      const free = Math.max(0, this.#takers(waiting.request, waiting.route).seats - counts.running)
      if (counts.waiting + adding >= this.#maxWaiting + free) {
        throw new ParError('QUEUE_FULL', `${this.#maxWaiting} requests wait already, as many as may. Ask again later`)
      }
      if (waiting.isOver) return
      waiting.isAdded = true
      // A job that is there already, of the same key, stays as it is.
      await this.#queue(name).add('draw', waiting.message, { ...jobOptions, jobId: waiting.id })
    } finally {
      this.#adding.set(name, this.#adding.get(name)! - 1)
    }
  }

  async #count (name: string): Promise<{ waiting: number, running: number }> {
    const { active = 0, ...others } =
      await this.#queue(name).getJobCounts('wait', 'prioritized', 'delayed', 'active')
    return { waiting: Object.values(others).reduce((sum, count) => sum + count, 0), running: active }
  }

  #queue (name: string): Queue {
    const known = this.#queues.get(name)
    if (known) return known
    const queue = new Queue(name, {
      connection: this.#redis, prefix: this.#address.prefix, streams: { events: { maxLen: maxEvents } }
    })
    queue.on('error', error => { this.#address.trouble(error) })
    this.#queues.set(name, queue)
    return queue
  }

  /**
   * What Redis says, as long as it says it soon.
   * @throws EngineError `QUEUE_UNAVAILABLE`
   */
  async #ask<T> (work: () => Promise<T>): Promise<T> {
    const late = (): Error => this.#address.unavailable()
    for (const redis of [this.#redis, this.#subscriber]) await untilReady(redis, this.#unavailableMs, late)
    try {
      return await within(this.#unavailableMs, work(), late)
    } catch (error) {
      if (error instanceof EngineError || error instanceof ParError) throw error
      throw this.#address.unavailable(error)
    }
  }

  /** Tells Redis that a request is over. Where Redis is away this is told when it is back. */
  async #leave (waiting: Waiting, isAnswered: boolean): Promise<void> {
    const { id, hasKey, client, queue } = waiting
    const others = this.#waiting.get(id)
    others?.delete(waiting)
    if (others?.size === 0) {
      this.#waiting.delete(id)
      this.#subscriber.unsubscribe(this.#keys.progress(id)).catch(error => { this.#address.trouble(error) })
    }
    if (!(hasKey ? waiting.isJoined : waiting.isAdded)) return
    // A client that has a key may come back for it.
    const keep = hasKey && (isAnswered || this.#isClosed)
    try {
      const clients = this.#keys.clients(id)
      if (keep) {
        await this.#redis.srem(clients, client)
        return
      }
      const isLast = await this.#redis.eval(leave, 2, this.#keys.result(id), clients, client, answered, answeredTtl,
        hasKey ? '1' : '0')
      if (isLast !== 1 || isAnswered) return
      await this.#redis.publish(this.#keys.cancel, id)
      await this.#queue(queue).remove(id)
    } catch (error) {
      this.#address.trouble(error)
    }
  }

  // ---- progress

  #hear (channel: string, message: Buffer): void {
    const id = channel.slice(this.#keys.progress('').length)
    const clients = this.#waiting.get(id)
    const event = clients && this.#read(() => progressOf(message))
    if (!event) return
    if (event.type === 'done') {
      void this.#fetch(id)
      return
    }
    for (const waiting of clients) {
      this.#tell(waiting, listener => {
        this.#place(waiting, 0)
        // A job that is run again begins anew; what was told is not told twice.
        if (event.type === 'step' && event.event.step > waiting.step) {
          waiting.step = event.event.step
          listener.step?.(event.event)
        } else if (event.type === 'preview' && event.step > waiting.previewed) {
          waiting.previewed = event.step
          listener.preview?.(event.pixels, event.step)
        }
      })
    }
  }

  /** Tells a listener; an error in it ends the request. */
  #tell (waiting: Waiting, tell: (listener: Listener) => void): void {
    if (waiting.isOver) return
    try {
      tell(waiting.listener)
    } catch (error) {
      waiting.reject(error)
    }
  }

  #place (waiting: Waiting, place: number): void {
    if (waiting.place === place) return
    waiting.place = place
    waiting.listener.queued?.(place)
  }

  // ---- answers

  /** Fetches the answer of a job for all who wait for it. */
  async #fetch (id: string): Promise<void> {
    const clients = this.#waiting.get(id)
    if (!clients || this.#fetching.has(id)) return
    this.#fetching.add(id)
    try {
      // One byte more than there may be: what is longer is found to be cut off.
      const bytes = await this.#redis.getrangeBuffer(this.#keys.result(id), 0, maxResultBytes)
      if (bytes.length <= answered.length) return
      for (const waiting of clients) {
        if (waiting.isOver) continue
        try {
          const kind = waiting.hasKey ? undefined : waiting.route.kind
          waiting.resolve(resultOf(bytes, waiting.request, kind))
        } catch (error) {
          waiting.reject(error)
        }
      }
    } catch (error) {
      this.#address.trouble(error) // the next look finds it
    } finally {
      this.#fetching.delete(id)
    }
  }

  #later (): void {
    if (this.#isClosed) return
    this.#timer = setTimeout(() => {
      void this.#poll().finally(() => { this.#later() })
    }, this.#pollMs)
  }

  async #poll (): Promise<void> {
    if (this.#redis.status !== 'ready' || this.#subscriber.status !== 'ready') {
      this.#awaySince ??= Date.now()
      if (Date.now() - this.#awaySince > this.#patienceMs) this.#rejectAll(this.#address.unavailable())
      return
    }
    this.#awaySince = undefined
    try {
      // Where the connection is lost meanwhile, they are answered when it is back: not waiting for that keeps count.
      const looked = Promise.all([this.#learn(), this.#look()])
      await within(this.#unavailableMs, looked, () => this.#address.unavailable())
    } catch (error) {
      this.#address.trouble(error)
    }
  }

  /** Many requests come at once: one look does for all. */
  #lookSoon (): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined
      void this.#look()
    }, soon)
  }

  /** Looks at all jobs that are waited for. */
  async #look (): Promise<void> {
    const jobs = [...this.#waiting].flatMap(([id, clients]) => {
      const waiting = [...clients].find(({ isSubmitted, isOver }) => isSubmitted && !isOver)
      return waiting ? [{ id, waiting, clients }] : []
    })
    if (jobs.length === 0 || this.#redis.status !== 'ready') return
    try {
      const names = [...new Set(jobs.map(({ waiting }) => waiting.queue))]
      const commands = this.#redis.pipeline()
      for (const name of names) commands.lrange(this.#queue(name).toKey('wait'), -maxLine, -1)
      for (const { id, waiting } of jobs) {
        // In this order: an answer is stored before the job is removed.
        commands.exists(this.#queue(waiting.queue).toKey(id)).strlen(this.#keys.result(id))
      }
      for (const { id, waiting } of jobs) {
        if (!waiting.hasKey) continue
        for (const key of [this.#keys.body(id), this.#keys.clients(id)]) commands.pexpire(key, this.#bodyTtlMs)
      }
      const replies = (await commands.exec() ?? []).map(([error, reply]) => error ? undefined : reply)
      const lines = new Map(names.map((name, index) => [name, placesOf(replies[index])]))
      for (const [index, { id, waiting, clients }] of jobs.entries()) {
        const [exists, length] = replies.slice(names.length + 2 * index) as [unknown, unknown]
        if (typeof exists !== 'number' || typeof length !== 'number') continue
        if (length > answered.length) await this.#fetch(id)
        else if (exists === 0) await this.#lost(waiting)
        else this.#found(clients, lines.get(waiting.queue)?.get(id) ?? 0)
      }
    } catch (error) {
      this.#address.trouble(error)
    }
  }

  /** @param place in the line; 0: it is in work, or is about to be tried again */
  #found (clients: ReadonlySet<Waiting>, place: number): void {
    for (const waiting of clients) {
      waiting.misses = 0
      this.#tell(waiting, () => { this.#place(waiting, place) })
      if (place === 0 || this.#takers(waiting.request, waiting.route).workers > 0) waiting.aloneSince = undefined
      else waiting.aloneSince ??= Date.now()
      if (waiting.aloneSince !== undefined && Date.now() - waiting.aloneSince > this.#patienceMs) {
        waiting.reject(new EngineError('QUEUE_UNAVAILABLE', 'No worker of its kind has come to take the request'))
      }
    }
  }

  /** Neither the job nor an answer is there. One look may have come between two changes; two mean that it is lost. */
  async #lost (waiting: Waiting): Promise<void> {
    if (++waiting.misses < 2 || waiting.isOver) return
    waiting.misses = 0
    if (++waiting.resubmissions > maxResubmissions) {
      waiting.reject(new ParError('INTERNAL', 'The queue has lost the request again and again'))
      return
    }
    this.#address.warn('Redis has lost a job, which is given to the queue again')
    const { id, message, route } = waiting
    waiting.queue = route.name
    await this.#redis.del(this.#keys.result(id))
    await this.#queue(route.name).add('draw', message, { ...jobOptions, jobId: id })
  }

  // ---- the end

  #rejectAll (error: Error): void {
    for (const clients of this.#waiting.values()) for (const waiting of clients) waiting.reject(error)
  }

  async close (): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#timer)
    clearTimeout(this.#soon)
    this.#rejectAll(new EngineError('SHUTTING_DOWN', 'The server is about to end'))
    await new Promise(resolve => setImmediate(resolve)) // what was rejected leaves
    const late = (): Error => this.#address.unavailable()
    await within(endWithin, Promise.all(this.#leaving), late).catch(error => { this.#address.trouble(error) })
    this.#address.end()
    const closed = Promise.all([...this.#queues.values()].map(queue => queue.close()))
    await within(endWithin, closed, late).catch(error => { this.#address.trouble(error) })
    this.#redis.disconnect()
    this.#subscriber.disconnect()
  }
}

function sum (one: Living, other: Living | undefined): Living {
  if (!other) return one
  return {
    workers: one.workers + other.workers, seats: one.seats + other.seats, rank: Math.min(one.rank, other.rank)
  }
}

/** Places in a line of which the last is the next, from 1. */
function placesOf (line: unknown): Map<string, number> {
  const ids = Array.isArray(line) ? line as string[] : []
  return new Map(ids.map((id, index) => [id, ids.length - index]))
}
