// @ts-check
// Pictures over HTTP: one Par for all requests, previews while a picture is made, work that ends with its client.
//
//   GET /pictures/:class            the picture, PNG; ?seed= &n= &guidanceScale= &temperature= &topK= &topP= &size=
//   GET /pictures/:class/preview    the same as server-sent events: `preview` now and then, `picture` at the end
//
//   npm install parvis fastify && node server.mjs        PORT=3000, HOST=127.0.0.1

import { pathToFileURL } from 'node:url'
import fastify from 'fastify'
import { Par, ParError } from 'parvis'

/** What a client is told. Anything else is the server's own fault, 500, and its message stays in the log. */
const statuses = /** @type {Partial<Record<import('parvis').ParErrorCode, number>>} */ ({
  BAD_CLASS_ID: 400,
  UNSUPPORTED_N: 400,
  INVALID_OPTION: 400,
  OUT_OF_MEMORY: 503,
  DISPOSED: 503
})

/**
 * A server that is ready to listen. `close()` lets running pictures finish for `grace` milliseconds, then ends what is
 * left, whatever its clients do, and disposes of the model.
 * @param {object} [options]
 * @param {import('parvis').LoadOptions} [options.model] for Par.load(); default: the embedded model
 * @param {number} [options.atOnce] pictures in work at the same time
 * @param {number} [options.waiting] requests that may wait for their turn; more are refused with 503
 * @param {number} [options.previews] previews of one picture, at most
 * @param {number} [options.grace]
 * @param {boolean} [options.logger]
 */
export async function createServer (
  { model, atOnce = 2, waiting = 32, previews = 12, grace = 5000, logger = false } = {}
) {
  const par = await Par.load(model)
  const turn = turns(atOnce, waiting)
  const closing = new AbortController()
  // Requests have no body to speak of, so one that is not here after some seconds never will be.
  const app = fastify({ logger, exposeHeadRoutes: false, requestTimeout: 10_000 }).decorate('par', par)

  const schema = {
    params: { type: 'object', properties: { class: { type: 'string' } } },
    querystring: {
      type: 'object',
      additionalProperties: false,
      properties: {
        seed: { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER },
        n: { type: 'integer', enum: par.info.transformer?.supportedN },
        guidanceScale: { type: 'number' },
        temperature: { type: 'number' },
        topK: { type: 'integer' },
        topP: { type: 'number' },
        size: { type: 'integer', minimum: 1, maximum: 1024 }
      }
    }
  }

  app.get('/pictures/:class', { schema }, async (request, reply) => {
    const signal = signalOf(reply)
    const image = await turn(signal, async () => await par.generate({ ...optionsOf(request), signal }))
    const png = await image.toBuffer('png')
    return reply.type('image/png').header('parvis-seed', image.seed).send(png)
  })

  app.get('/pictures/:class/preview', { schema }, async (request, reply) => {
    const signal = signalOf(reply)
    await turn(signal, async () => {
      const events = par.stream({ ...optionsOf(request), signal })
      let event = await events.next() // a bad option is refused here, while a status can still be sent
      reply.hijack()
      const headers = /** @type {import('node:http').OutgoingHttpHeaders} */ (reply.getHeaders())
      reply.raw.writeHead(200, { ...headers, 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
      /** @type {(name: string, data: object) => void} */
      const tell = (name, data) => { reply.raw.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`) }
      try {
        for (; !event.done; event = await events.next()) {
          const { step, steps, images = [], preview } = event.value
          for (const image of images) { // with the last step
            tell('picture', { step, steps, seed: image.seed, png: (await image.toBuffer('png')).toString('base64') })
          }
          // A client that reads slowly gets fewer previews: the picture does not wait for it.
          if (step < steps && step % Math.ceil(steps / previews) === 0 && !reply.raw.writableNeedDrain) {
            const png = await (await preview()).toBuffer('png')
            tell('preview', { step, steps, png: png.toString('base64') })
          }
        }
      } catch (error) {
        if (!signal.aborted) request.log.error(error)
        tell('failed', bodyOf(error)) // the status is sent already; writing to a client that has gone does nothing
      } finally {
        await events.return([]) // whatever happened, nothing goes on
        reply.raw.end()
      }
    })
  })

  app.setErrorHandler((error, request, reply) => {
    if (reply.raw.destroyed) return // the client has gone
    const status = statusOf(error)
    if (status === 503) request.log.warn({ code: error.code }, error.message) // expected under load: one line, no stack
    else if (status >= 500) request.log.error(error)
    if (status === 503) reply.header('retry-after', 1)
    return reply.code(status).send(bodyOf(error))
  })

  // ---- the end

  // server.close() waits for every connection, and stops the checks that would time them out. So connections without a
  // request are closed at once: silent ones, those kept alive, those that send a header byte by byte. The others close
  // with their answer, and what is left after `grace` is cut off.

  /** Requests in work by connection. @type {Map<import('node:net').Socket, number>} */
  const connections = new Map()
  let ending = false
  app.server.on('connection', socket => {
    connections.set(socket, 0)
    socket.once('close', () => connections.delete(socket))
  })
  app.server.prependListener('request', ({ socket }, response) => {
    connections.set(socket, (connections.get(socket) ?? 0) + 1)
    if (ending) response.setHeader('connection', 'close')
    response.once('close', () => {
      const left = (connections.get(socket) ?? 1) - 1
      if (!socket.destroyed) connections.set(socket, left)
      if (ending && left === 0) socket.destroySoon() // once what was written is sent
    })
  })

  /** @type {NodeJS.Timeout[]} */
  const timers = []
  app.addHook('preClose', async () => {
    ending = true
    for (const [socket, requests] of connections) if (requests === 0) socket.destroy()
    timers.push(setTimeout(() => {
      closing.abort(new HttpError(503, 'CLOSING', 'The server is closing'))
      timers.push(setTimeout(() => app.server.closeAllConnections(), 200)) // after the last answers
    }, grace))
  })
  app.addHook('onSend', async (request, reply) => {
    if (ending) reply.header('connection', 'close')
  })
  app.addHook('onClose', async () => { // no request is in work any more
    timers.forEach(clearTimeout)
    await par.dispose()
  })

  /**
   * Aborts when the client goes before it has its answer, and when the server closes. (The response tells; `close` of a
   * request only says that its body was read.)
   * @param {import('fastify').FastifyReply} reply
   */
  function signalOf ({ raw }) {
    const gone = new AbortController()
    raw.once(
      'close', () => { if (!raw.writableFinished) gone.abort(new HttpError(499, 'CLIENT_GONE', 'The client has gone')) }
    )
    return AbortSignal.any([gone.signal, closing.signal])
  }
  return app
}

/**
 * A class by number or by name, and the options of the query, which the schema has made numbers.
 * @param {import('fastify').FastifyRequest} request
 */
function optionsOf ({ params, query }) {
  const { class: name } = /** @type {{ class: string }} */ (params)
  return {
    ...(query), classId: /^\d+$/.test(name) ? Number(name) : name
  }
}

// ---- errors

class HttpError extends Error {
  /**
   * @param {number} statusCode
   * @param {string} code
   * @param {string} message
   */
  constructor (statusCode, code, message) {
    super(message)
    Object.assign(this, { statusCode, code })
  }
}

/** @param {any} error */
function statusOf (error) {
  return error instanceof ParError ? statuses[error.code] ?? 500 : error.statusCode ?? 500
}

/** @param {any} error */
function bodyOf (error) {
  if (statusOf(error) === 500) return { code: 'INTERNAL', message: 'The picture could not be made' }
  return { code: error.validation ? 'INVALID_OPTION' : error.code, message: error.message }
}

// ---- turns

/**
 * Runs `atOnce` works at the same time; later ones wait in order. Who aborts gives up the place.
 * @param {number} atOnce
 * @param {number} waiting
 */
function turns (atOnce, waiting) {
  let running = 0
  /** @type {Array<() => void>} */
  const queue = []
  /**
   * @template T
   * @param {AbortSignal} signal
   * @param {() => Promise<T>} work
   */
  return async (signal, work) => {
    signal.throwIfAborted()
    if (running < atOnce) running++
    else {
      if (queue.length >= waiting) throw new HttpError(503, 'BUSY', 'Too many pictures are waited for')
      await new Promise((/** @type {(value?: unknown) => void} */ resolve, reject) => {
        const start = () => { signal.removeEventListener('abort', leave); resolve() }
        const leave = () => { queue.splice(queue.indexOf(start), 1); reject(signal.reason) }
        signal.addEventListener('abort', leave, { once: true })
        queue.push(start)
      })
    }
    try {
      signal.throwIfAborted()
      return await work()
    } finally {
      const next = queue.shift()
      if (next) next() // which takes this one's place
      else running--
    }
  }
}

// ---- as a program

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await createServer({ logger: true })
  await app.listen({ port: Number(process.env.PORT ?? 3000), host: process.env.HOST ?? '127.0.0.1' })
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => { void app.close() })
}
