// Connections to Redis, which come back by themselves, and never say a password.

import type { ConnectionOptions } from 'bullmq'
import { Redis, type RedisOptions } from 'ioredis'
import { ParError } from 'parvis'
import { EngineError } from './engine.js'

/** What operators are told of troubles. Loggers of pino are such. */
export interface Log {
  warn: (message: string) => void
}

/** Where Redis is, and how it is reached. */
export interface QueueAddress {
  /**
   * `redis://[user[:password]@]host[:port][/database]`; `rediss://` for TLS. A password that is in the environment as
   * PARVIS_REDIS_PASSWORD does not stand in the list of processes.
   */
  url: string
  /** The authorities, in PEM, that the certificate of Redis is checked against. Default: those of Node.js. */
  ca?: string | Buffer
  /** What all keys begin with, for several installations in one database: 1 to 50 of A-Z, a-z, 0-9, _ and -. */
  prefix?: string
  log?: Log
}

/** Max milliseconds between two tries to connect. */
const slowestRetry = 2000
/** One line of the log for each kind of trouble in so many milliseconds. */
const quietFor = 10_000

export class Address {
  /** For messages: without the password. */
  readonly shown: string
  readonly prefix: string
  readonly #options: RedisOptions
  readonly #log: Log | undefined
  readonly #logged = new Map<string, number>()
  readonly #secret: string | undefined
  #isOver = false

  /** @throws ParError `INVALID_OPTION` */
  constructor ({ url, ca, prefix = 'parvis', log }: QueueAddress) {
    this.#log = log
    let parsed: URL
    let [username, password]: Array<string | undefined> = []
    try {
      parsed = new URL(url)
      username = decodeURIComponent(parsed.username) || undefined
      password = decodeURIComponent(parsed.password) || process.env.PARVIS_REDIS_PASSWORD || undefined
    } catch { // whose message has the address, and thereby the password
      throw badAddress()
    }
    const { protocol, hostname, port, pathname, search, hash } = parsed
    const database = /^\/?(\d{0,5})$/.exec(pathname)
    if (!['redis:', 'rediss:'].includes(protocol) || !hostname || !database || search || hash) throw badAddress()
    if (!/^[\w-]{1,50}$/.test(prefix)) {
      throw new ParError('INVALID_OPTION', 'The prefix of the queue is 1 to 50 of A-Z, a-z, 0-9, _ and -')
    }
    const host = hostname.replace(/^\[(.*)\]$/, '$1')
    this.prefix = prefix
    this.shown = `${protocol}//${hostname}:${port || 6379}`
    this.#secret = password
    this.#options = {
      host,
      port: Number(port || 6379),
      db: Number(database[1] || 0),
      ...(username && { username }),
      ...(password && { password }),
      ...(protocol === 'rediss:' && { tls: { ...(ca !== undefined && { ca }) } }),
      // Commands wait for the connection to come back; who cannot wait so long leaves them (`within`).
      maxRetriesPerRequest: null,
      retryStrategy: tries =>
        this.#isOver ? null : Math.min(50 * 2 ** Math.min(tries, 10), slowestRetry) * (0.5 + Math.random() / 2)
    }
  }

  /** For BullMQ, which makes connections of its own. */
  get options (): ConnectionOptions { return { ...this.#options } as unknown as ConnectionOptions }

  /**
   * A connection that is ready.
   * @throws EngineError `QUEUE_UNAVAILABLE` after so many milliseconds; at once where the password or the certificate
   * is wrong
   */
  async connect (milliseconds: number): Promise<Redis> {
    const redis = new Redis(this.#options)
    let last: unknown
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => { reject(this.unavailable(last)) }, milliseconds)
        redis.on('error', error => {
          this.trouble(error)
          last = error
          if (!isFinal(error)) return
          clearTimeout(timer)
          reject(this.unavailable(error))
        })
        redis.once('ready', () => {
          clearTimeout(timer)
          resolve()
        })
      })
      return redis
    } catch (error) {
      redis.disconnect()
      throw error
    }
  }

  /** Connections that are lost stay so, also those of BullMQ. */
  end (): void { this.#isOver = true }

  unavailable (error?: unknown): EngineError {
    const why = error === undefined ? '' : `: ${this.describe(error)}`
    return new EngineError('QUEUE_UNAVAILABLE', `Redis at ${this.shown} cannot be reached${why}`)
  }

  /**
   * What has failed. Not the error itself: ioredis puts the arguments of a command into it, and those of AUTH are the
   * password.
   */
  describe (error: unknown): string {
    const { message = String(error), code } = error as { message?: string, code?: string }
    if (/^(WRONGPASS|NOAUTH)/.test(message)) return 'it refuses the password'
    if (isCertificateError(error)) return `its certificate is not trusted (${code})`
    const text = (message || code || 'unknown').slice(0, 300)
    return this.#secret ? text.replaceAll(this.#secret, '***') : text
  }

  /** Tells the log, unless it has been told the same a moment ago. */
  trouble (error: unknown): void {
    const text = this.describe(error)
    const now = Date.now()
    if (now - (this.#logged.get(text) ?? 0) < quietFor) return
    if (this.#logged.size > 100) this.#logged.clear()
    this.#logged.set(text, now)
    this.warn(`Redis at ${this.shown}: ${text}`)
  }

  warn (message: string): void {
    try {
      this.#log?.warn(message)
    } catch {} // a log that fails stops no work
  }
}

function badAddress (): ParError {
  return new ParError('INVALID_OPTION',
    'The address of the queue is redis://host:port, redis://:password@host:port/database, or the same with rediss://')
}

function isCertificateError (error: unknown): boolean {
  const { code } = error as { code?: string }
  return typeof code === 'string' && /CERT|ERR_TLS|UNABLE_TO_VERIFY/.test(code)
}

/** Trying again will not help. */
function isFinal (error: Error): boolean {
  return /^(WRONGPASS|NOAUTH|NOPERM)/.test(error.message) || isCertificateError(error)
}

/** What `work` gives, or `late()` as an error, after so many milliseconds. */
export async function within<T> (milliseconds: number, work: Promise<T>, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const end = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => { reject(late()) }, milliseconds)
  })
  try {
    return await Promise.race([work, end])
  } finally {
    clearTimeout(timer)
  }
}

/** Waits for a connection that is being made again. */
export async function untilReady (redis: Redis, milliseconds: number, late: () => Error): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (redis.status !== 'ready') {
    if (Date.now() >= deadline) throw late()
    await new Promise(resolve => setTimeout(resolve, Math.min(20, milliseconds)))
  }
}
