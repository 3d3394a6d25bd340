// HTTP as the Hub speaks it. Redirects are followed by hand, because the token belongs to the Hub alone and never goes
// to the host that a redirect names, and because the Hub's own answer (before the redirect) says what the file is.
// What passes by itself (no connection, a busy server) is tried again, later each time; what does not is an error that
// says what to do.

import { clearTimeout, setTimeout } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { URL } from 'node:url'
import { ParError } from '../base/errors.js'
import { isError, NodeAbortController, nodeWeb } from '../base/realm.js'
import { visible } from '../base/text.js'
import { proxyHint, type Token } from './location.js'

/** How long to go on trying. */
export interface Patience {
  /** Failures in a row, nothing received between them, after which it is given up. */
  attempts: number
  /** Milliseconds before the second try; doubles each time. */
  delay: number
  /** Milliseconds without a byte after which a connection counts as dead. */
  idle: number
  /** Milliseconds, all together, that refusals are waited for which name their end. Default: a quarter of an hour. */
  wait?: number
}

export const defaultPatience: Patience = { attempts: 6, delay: 500, idle: 60_000 }
const defaultWait = 15 * 60_000

/** The Hub as one call sees it. */
export interface Hub {
  endpoint: string
  token: Token | undefined
  signal: AbortSignal | undefined
  patience: Patience
  /** Told why, before each new try. */
  onRetry?: (problem: string) => void
}

/** Something that may well go better next time. */
export class Passing extends Error {
  /** Seconds that the server asks to wait; 0 where it names no time. */
  readonly after: number
  /** Where no connection came about. */
  readonly address: URL | undefined

  constructor (
    message: string, { after = 0, address, cause }: { after?: number, address?: URL, cause?: unknown } = {}
  ) {
    super(message, { cause })
    this.after = after
    this.address = address
  }
}

/** Thrown by a caller's own function: nothing that a server or a file system did. */
export class Thrown extends Error {
  constructor (readonly thrown: unknown) { super('thrown by a callback') }
}

/** Longest pause between two tries of a server that names no time, in milliseconds. */
const longestBackoff = 120_000

/** Runs tries of one thing until one succeeds, another error than a passing one comes, or patience ends. */
export class Tries {
  #failures = 0
  #refusals = 0
  #waited = 0

  constructor (private readonly hub: Hub, private readonly what: string) {}

  /** Something was received: patience begins anew. */
  progress (): void { this.#failures = this.#refusals = this.#waited = 0 }

  /** Waits before the next try. @throws what ends the tries */
  async failed (error: unknown): Promise<void> {
    const { signal, patience } = this.hub
    signal?.throwIfAborted()
    if (!(error instanceof Passing)) throw error
    const named = error.after * 1000
    // A refusal that names its end is no failure: whoever waits is served then. But it is waited for less often each
    // time.
    if (named > 0) this.#refusals++
    else this.#failures++
    const backoff = patience.delay * 2 ** Math.min(20, this.#failures + this.#refusals - 1) * (0.75 + Math.random() / 2)
    const pause = Math.max(Math.min(longestBackoff, backoff), named)
    if (named > 0 && (this.#waited += pause) > (patience.wait ?? defaultWait)) {
      throw new ParError('DOWNLOAD_FAILED', `${this.what}: ${error.message}, which is too long to wait here. Run it ` +
        'again then: it goes on where it stopped.', { cause: error.cause ?? error })
    }
    if (this.#failures >= patience.attempts) {
      const hint = error.address ? proxyHint(error.address) : ''
      throw new ParError('DOWNLOAD_FAILED',
        `${this.what}: ${error.message}, ${this.#failures} times in a row.${hint} Check the connection and run it ` +
          'again: it goes on where it stopped.', { cause: error.cause ?? error })
    }
    this.hub.onRetry?.(error.message)
    await sleep(pause, undefined, { signal }).catch(() => signal!.throwIfAborted())
  }
}

/** Tries something again until it succeeds or patience ends. */
export async function tried<T> (hub: Hub, what: string, attempt: () => Promise<T>): Promise<T> {
  const tries = new Tries(hub, what)
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      await tries.failed(error)
    }
  }
}

/** An answer, with what the Hub itself said before it redirected. */
export interface Answer {
  response: Response
  /** Headers of the Hub's own answer. */
  hub: Headers
  /** Whether another host than the Hub gave it. */
  foreign: boolean
  /** What arrives, piece by piece. @throws Passing where the connection fails; the signal's reason */
  pieces: () => AsyncGenerator<Uint8Array, void, void>
  /** Ends the connection, for `why` where somebody still waits for it. To be called in any case. */
  end: (why?: Error) => void
}

export interface Request {
  method?: string
  headers?: Record<string, string>
  body?: string
  /** Whether the headers of an answer say all that is asked for: then a redirect is not followed. */
  enough?: (headers: Headers) => boolean
}

/**
 * One try. Redirects are followed; any other status is an answer.
 * @throws Passing where no answer came; the signal's reason
 */
export async function ask (hub: Hub, url: string, request: Request = {}): Promise<Answer> {
  const { signal, patience } = hub
  signal?.throwIfAborted()
  const controller = new NodeAbortController()
  const idle = setTimeout(
    () => controller.abort(new Passing(`no answer for ${Math.round(patience.idle / 1000)} seconds`)), patience.idle
  )
  const abort = (): void => controller.abort(signal!.reason)
  // Waited for beside each piece: fetch does not settle a read when it is aborted between the last byte and the end.
  const aborted = new Promise<never>((_resolve, reject) => {
    controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true })
  })
  aborted.catch(() => {})
  signal?.addEventListener('abort', abort, { once: true })
  const end = (why: Error = new Passing('ended')): void => {
    clearTimeout(idle)
    signal?.removeEventListener('abort', abort)
    controller.abort(why)
  }
  const home = new URL(hub.endpoint).origin
  let { method = 'GET', body } = request
  let at = new URL(url)
  let first: Headers | undefined
  let foreign = at.origin !== home
  try {
    for (let hops = 0; hops <= 10; hops++) {
      const response = await nodeWeb().fetch(at.href, {
        method,
        body,
        redirect: 'manual',
        signal: controller.signal,
        headers: {
          // Ranges and lengths count bytes of the file only where nothing is packed.
          'accept-encoding': 'identity',
          'user-agent': `parvis; node/${process.versions.node}`,
          ...request.headers,
          // Once away from the Hub never again, also where a foreign host redirects back.
          ...(!foreign && hub.token && { authorization: `Bearer ${hub.token.value}` })
        }
      })
      first ??= response.headers
      if (![301, 302, 303, 307, 308].includes(response.status) || request.enough?.(response.headers)) {
        idle.refresh()
        return { response, hub: first, foreign, pieces: () => pieces(response, at), end }
      }
      response.body?.cancel().catch(() => {}) // not waited for: a body may never end
      const location = response.headers.get('location')
      const next = location !== null && URL.canParse(location, at.href) ? new URL(location, at) : undefined
      if (!next || !['http:', 'https:'].includes(next.protocol) ||
        (at.protocol === 'https:' && next.protocol === 'http:')) {
        // Not the address itself: it may hold a password or a signature.
        const where = location === null
          ? 'nowhere'
          : !next
              ? 'what is no address'
              : next.protocol === 'http:'
                ? 'http instead of https'
                : 'an address of another kind than https'
        throw new ParError('DOWNLOAD_FAILED',
          `${at.host} redirects to ${where}, which is not followed. Check HF_ENDPOINT.`)
      }
      if (next.username !== '' || next.password !== '') {
        throw new ParError('DOWNLOAD_FAILED',
          `${at.host} redirects to an address with a password, which is not followed. Check HF_ENDPOINT.`)
      }
      if (response.status === 303 || (response.status < 303 && method === 'POST')) [method, body] = ['GET', undefined]
      if (next.origin !== home) foreign = true
      // renamed: what counts is said at the new name
      else if (!foreign && !sameFile(response.headers)) first = undefined
      at = next
    }
    throw new ParError('DOWNLOAD_FAILED', `${new URL(url).host} redirects in a circle. Check HF_ENDPOINT.`)
  } catch (error) {
    end()
    signal?.throwIfAborted()
    throw passing(error, at)
  }

  async function * pieces ({ body }: Response, from: URL): AsyncGenerator<Uint8Array, void, void> {
    if (!body) return
    const reader = body.getReader()
    try {
      for (;;) {
        const { value, done } = await Promise.race([reader.read(), aborted])
        if (done) return
        idle.refresh()
        yield value as Uint8Array
      }
    } catch (error) {
      signal?.throwIfAborted()
      throw passing(error, from)
    } finally {
      end()
      reader.cancel().catch(() => {})
    }
  }
}

function sameFile (headers: Headers): boolean {
  return headers.has('x-linked-etag') || headers.has('x-linked-size')
}

/** A certificate does not get better by itself. */
const certificate = /CERT|SIGNATURE|^ERR_TLS|^ERR_SSL/

/** fetch tells why in the cause, several layers down. */
function passing (error: unknown, at: URL): unknown {
  if (error instanceof ParError || error instanceof Passing || !isError(error)) return error
  let cause: Error = error
  for (let depth = 0; depth < 10 && isError(cause.cause); depth++) cause = cause.cause
  if (cause instanceof Passing) return cause
  const { code } = cause as NodeJS.ErrnoException
  const message = withoutSecrets(cause.message)
  const known = Object.assign(new Error(message), { code })
  if (typeof code === 'string' && certificate.test(code)) {
    return new ParError('DOWNLOAD_FAILED', `The certificate of ${at.host} is not accepted (${visible(code, 60)}). ` +
      'Where a proxy has its own, give Node.js its file: NODE_EXTRA_CA_CERTS', { cause: known })
  }
  const why = message === 'terminated' ? 'it was cut off' : typeof code === 'string' ? visible(code, 60) : message
  return new Passing(`the connection to ${at.host} failed (${why})`, { address: at, cause: known })
}

/**
 * Words of the system or of a server without what may be secret in them: users and passwords of addresses, queries,
 * tokens.
 */
export function withoutSecrets (text: string): string {
  const plain = text.slice(0, 2000).replace(/\/\/[^\s/]*@/g, '//...@').replace(/(\/\/\S*?)[?#]\S*/g,
    '$1?...').replace(/\bhf_\w+/g, 'hf_...')
  return visible(plain, 200)
}

const busy = new Set([408, 425, 429, 500, 502, 503, 504])

/**
 * What a status means for the request.
 * @throws Passing where another try may help; ParError `DOWNLOAD_FAILED` where only the caller can
 */
export function checkStatus (
  { response, foreign }: Pick<Answer, 'response' | 'foreign'>, hub: Hub, repository: string, what: string
): void {
  if (response.ok) return
  const { status } = response
  const host = URL.canParse(response.url) ? new URL(response.url).host : hub.endpoint
  if (busy.has(status) || status >= 500) {
    const after = secondsToWait(response.headers)
    throw new Passing(`${host} answered ${status}${after > 0 ? ` and asks to wait ${duration(after)}` : ''}`, { after })
  }
  // A link that the Hub signed for a while: asking again gives a new one.
  if (foreign && [400, 401, 403, 404, 410].includes(status)) {
    throw new Passing(`${host} refused the link that the Hub gave (${status})`)
  }
  const page = `${hub.endpoint}/${repository}`
  const refused = (message: string): ParError => new ParError('DOWNLOAD_FAILED', `${what}: ${message}`)
  const code = response.headers.get('x-error-code') ?? ''
  if (status === 401 && !hub.token) {
    throw refused('the Hub shows it only to those it knows (401), or there is no such repository. Set HF_TOKEN to ' +
      `an access token (${hub.endpoint}/settings/tokens); the page is ${page}`)
  }
  if (status === 401) {
    throw refused(`the Hub does not accept the access token of ${hub.token!.from} (401). Set HF_TOKEN to another ` +
      `(${hub.endpoint}/settings/tokens), or unset it`)
  }
  if (status === 403 || code === 'GatedRepo') {
    throw refused(hub.token
      ? `the account of the access token of ${hub.token.from} may not read it (${status}). Accept its terms ` +
        `at ${page}, or set HF_TOKEN to a token that may`
      : `the Hub refuses it (${status}). Accept its terms at ${page} and set HF_TOKEN to an access token of that ` +
        'account')
  }
  if (status === 404) {
    throw refused(
      `${hub.endpoint} has no such file (404). Was it moved? Look at ${page}, and give the file by its path`
    )
  }
  throw refused(`${host} answered ${status}. Try again later; the page is ${page}`)
}

/**
 * Until when a server refuses, in seconds from now; 0 where it does not say. Retry-After, else the headers for limits
 * of rates.
 */
function secondsToWait (headers: Headers): number {
  const after = headers.get('retry-after')?.trim() ?? ''
  if (/^\d+(\.\d+)?$/.test(after)) return Number(after)
  if (after !== '') {
    // By the server's own clock, where it tells that.
    const now = Date.parse(headers.get('date') ?? '')
    const seconds = (Date.parse(after) - (Number.isFinite(now) ? now : Date.now())) / 1000
    if (Number.isFinite(seconds)) return Math.max(0, seconds)
  }
  // `"api";r=0;t=55` of the present draft; `limit=10, remaining=0, reset=55` and headers of their own of earlier ones.
  const [, inside] = /(?:^|[;,\s])(?:t|reset)=(\d+)/.exec(headers.get('ratelimit') ?? '') ?? []
  const reset = Number(inside ?? headers.get('ratelimit-reset') ?? headers.get('x-ratelimit-reset') ?? NaN)
  if (!Number.isFinite(reset)) return 0
  // Some give the second (or the millisecond) of the clock instead.
  const seconds = reset > 1e11 ? (reset - Date.now()) / 1000 : reset > 1e9 ? reset - Date.now() / 1000 : reset
  return Math.max(0, seconds)
}

function duration (seconds: number): string {
  if (seconds < 120) return `${Math.ceil(seconds)} seconds`
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} minutes`
  return seconds < 1e7 ? `${Math.ceil(seconds / 3600)} hours` : 'for months'
}

/** Bytes and milliseconds that an answer of the API may take. */
const largestAnswer = 8e6
const longestAnswer = 120_000

/** All of an answer of the API, which is small. @throws ParError `DOWNLOAD_FAILED`; what `pieces` throws */
export async function readBody (answer: Answer, what: string): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  let size = 0
  const late = setTimeout(
    () => answer.end(new Passing(`an answer was not through after ${longestAnswer / 1000} seconds`)), longestAnswer
  )
  try {
    for await (const piece of answer.pieces()) {
      if ((size += piece.length) > largestAnswer) {
        throw new ParError('DOWNLOAD_FAILED',
          `${what}: an answer has more than ${largestAnswer / 1e6} MB, which is none of the Hub's. Check HF_ENDPOINT.`)
      }
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  } finally {
    clearTimeout(late)
    answer.end()
  }
}
