// HTTP as the Hub speaks it. Redirects are followed by hand, because the token belongs to the Hub alone and never goes
// to the host that a redirect names, and because the Hub's own answer (before the redirect) says what the file is.
// What passes by itself (no connection, a busy server) is tried again, later each time; what does not is an error that
// says what to do.

import { clearTimeout, setTimeout } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { URL } from 'node:url'
import { ParError } from '../errors.js'
import { isError, NodeAbortController, nodeWeb } from '../realm.js'
import type { Token } from './location.js'

/** How long to go on trying. */
export interface Patience {
  /** Failures in a row, nothing received between them, after which it is given up. */
  attempts: number
  /** Milliseconds before the second try; doubles each time. */
  delay: number
  /** Milliseconds without a byte after which a connection counts as dead. */
  idle: number
}

export const defaultPatience: Patience = { attempts: 6, delay: 500, idle: 60_000 }

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
  /** @param after seconds that the server asks to wait */
  constructor (message: string, readonly after = 0, options?: { cause?: unknown }) { super(message, options) }
}

/** Runs tries of one thing until one succeeds, another error than a passing one comes, or patience ends. */
export class Tries {
  #failures = 0

  constructor (private readonly hub: Hub, private readonly what: string) {}

  /** Something was received: patience begins anew. */
  progress (): void { this.#failures = 0 }

  /** Waits before the next try. @throws what ends the tries */
  async failed (error: unknown): Promise<void> {
    const { signal, patience } = this.hub
    signal?.throwIfAborted()
    if (!(error instanceof Passing)) throw error
    if (++this.#failures >= patience.attempts) {
      throw new ParError('DOWNLOAD_FAILED', `${this.what}: ${error.message}, ${this.#failures} times in a row. Check the connection and run it again: it goes on where it stopped.`, { cause: error.cause ?? error })
    }
    this.hub.onRetry?.(error.message)
    const backoff = patience.delay * 2 ** (this.#failures - 1) * (0.75 + Math.random() / 2)
    await sleep(Math.min(120_000, Math.max(backoff, error.after * 1000)), undefined, { signal }).catch(() => signal!.throwIfAborted())
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
  /** Ends the connection. To be called in any case. */
  end: () => void
}

export interface Request { method?: string, headers?: Record<string, string>, body?: string }

/**
 * One try. Redirects are followed; any other status is an answer.
 * @throws Passing where no answer came; the signal's reason
 */
export async function ask (hub: Hub, url: string, request: Request = {}): Promise<Answer> {
  const { signal, patience } = hub
  signal?.throwIfAborted()
  const controller = new NodeAbortController()
  const idle = setTimeout(() => controller.abort(new Passing(`no answer for ${Math.round(patience.idle / 1000)} seconds`)), patience.idle)
  const abort = (): void => controller.abort(signal!.reason)
  // Waited for beside each piece: fetch does not settle a read when it is aborted between the last byte and the end.
  const aborted = new Promise<never>((_resolve, reject) => { controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true }) })
  aborted.catch(() => {})
  signal?.addEventListener('abort', abort, { once: true })
  const end = (): void => {
    clearTimeout(idle)
    signal?.removeEventListener('abort', abort)
    controller.abort(new Passing('ended'))
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
      if (![301, 302, 303, 307, 308].includes(response.status)) {
        idle.refresh()
        return { response, hub: first, foreign, pieces: () => pieces(response, at), end }
      }
      await response.body?.cancel()
      const location = response.headers.get('location')
      const next = location !== null && URL.canParse(location, at.href) ? new URL(location, at) : undefined
      if (!next || !['http:', 'https:'].includes(next.protocol) || (at.protocol === 'https:' && next.protocol === 'http:')) {
        throw new ParError('DOWNLOAD_FAILED', `${at.host} redirects to ${location === null ? 'nowhere' : `'${location.slice(0, 80)}'`}, which is not followed. Check HF_ENDPOINT.`)
      }
      if (response.status === 303 || (response.status < 303 && method === 'POST')) [method, body] = ['GET', undefined]
      if (next.origin !== home) foreign = true
      else if (!foreign && !sameFile(response.headers)) first = undefined // renamed: what counts is said at the new name
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

/** fetch tells why in the cause, several layers down. */
function passing (error: unknown, at: URL): unknown {
  if (error instanceof ParError || error instanceof Passing) return error
  if (!isError(error)) return error
  let cause: unknown = error
  while (isError(cause) && isError(cause.cause)) cause = cause.cause
  if (cause instanceof Passing) return cause
  const { code, message } = cause as NodeJS.ErrnoException
  return new Passing(`the connection to ${at.host} failed (${message === 'terminated' ? 'it was cut off' : code ?? message})`, 0, { cause: error })
}

const busy = new Set([408, 425, 429, 500, 502, 503, 504])

/**
 * What a status means for the request.
 * @throws Passing where another try may help; ParError `DOWNLOAD_FAILED` where only the caller can
 */
export function checkStatus ({ response, foreign }: Pick<Answer, 'response' | 'foreign'>, hub: Hub, repository: string, what: string): void {
  if (response.ok) return
  const { status } = response
  const host = URL.canParse(response.url) ? new URL(response.url).host : hub.endpoint
  if (busy.has(status) || status >= 500) throw new Passing(`${host} answered ${status}`, retryAfter(response))
  // A link that the Hub signed for a while: asking again gives a new one.
  if (foreign && [400, 401, 403, 404, 410].includes(status)) throw new Passing(`${host} refused the link that the Hub gave (${status})`)
  const page = `${hub.endpoint}/${repository}`
  const refused = (message: string): ParError => new ParError('DOWNLOAD_FAILED', `${what}: ${message}`)
  const code = response.headers.get('x-error-code') ?? ''
  if (status === 401 && !hub.token) {
    throw refused(`the Hub shows it only to those it knows (401), or there is no such repository. Set HF_TOKEN to an access token (${hub.endpoint}/settings/tokens); the page is ${page}`)
  }
  if (status === 401) throw refused(`the Hub does not accept the access token of ${hub.token!.from} (401). Set HF_TOKEN to another (${hub.endpoint}/settings/tokens), or unset it`)
  if (status === 403 || code === 'GatedRepo') {
    throw refused(hub.token
      ? `the account of the access token of ${hub.token.from} may not read it (${status}). Accept its terms at ${page}, or set HF_TOKEN to a token that may`
      : `the Hub refuses it (${status}). Accept its terms at ${page} and set HF_TOKEN to an access token of that account`)
  }
  if (status === 404) throw refused(`${hub.endpoint} has no such file (404). Was it moved? Look at ${page}, and give the file by its path`)
  throw refused(`${host} answered ${status}. Try again later; the page is ${page}`)
}

/** Seconds; a date as well. */
function retryAfter (response: Response): number {
  const text = response.headers.get('retry-after') ?? ''
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000
  return Number.isFinite(seconds) ? Math.min(120, Math.max(0, seconds)) : 0
}
