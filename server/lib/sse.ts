// Server-sent events.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { disconnected } from './context.js'
import { failureOf } from './failures.js'

/** An answer that is a stream of events. What a slow client has not read yet is bounded by what `send` is told. */
export class EventStream {
  readonly #reply: FastifyReply
  #isOver = false

  constructor (reply: FastifyReply) {
    this.#reply = reply
    reply.raw.on('error', () => {}) // nobody is left to be told
    const headers = { ...reply.getHeaders() } as Record<string, string>
    reply.hijack()
    reply.raw.writeHead(200, {
      ...headers, 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store',
      'x-accel-buffering': 'no'
    })
    reply.raw.flushHeaders()
  }

  /** The client does not read as fast as is written: what can be left out should be. */
  get isFull (): boolean { return this.#isOver || this.#reply.raw.writableNeedDrain || this.#reply.raw.destroyed }

  send (event: string, data: object): void {
    if (this.#isOver || this.#reply.raw.destroyed) return // a preview may come late
    this.#reply.raw.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  end (): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#reply.raw.end()
  }
}

/**
 * An answer has gone wrong: a stream that has begun gets an event `error`, and a client that has gone nothing.
 * @throws the error, where no stream has begun: it gets a status
 */
export function failStream (
  request: FastifyRequest, reply: FastifyReply, events: EventStream | undefined, error: unknown
): void {
  if (error === disconnected) {
    reply.hijack()
    return
  }
  if (!events) throw error
  const { body, isDefect } = failureOf(error)
  if (isDefect) request.log.error(error)
  events.send('error', body)
}
