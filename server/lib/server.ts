// The HTTP server: OpenAI's image API, the page, and what operators ask for. It computes nothing: an engine does.

import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import multipart from '@fastify/multipart'
import Fastify, {
  type FastifyBaseLogger, type FastifyInstance, type FastifyReply, type FastifyRequest
} from 'fastify'
import { disconnected, type Context } from './context.js'
import { EngineError, type Engine, type ModelInfo } from './engine.js'
import { failureOf, RequestError } from './failures.js'
import { imageBody, pageBody, type ImageFields, type PageFields } from './fields.js'
import { readEdit } from './edits.js'
import { answer, pictureRequest, stream } from './images.js'
import { keyCheck } from './keys.js'
import { Metrics } from './metrics.js'
import { openApi } from './openapi.js'
import { drawEvents } from './page-events.js'

export interface ServerOptions {
  engine: Engine
  /** Keys of clients; with none, everybody is served. */
  apiKeys?: readonly string[]
  /** Max bytes of a JSON body. Default 64 KiB. */
  maxBodyBytes?: number
  /** Max bytes of an uploaded picture. Default 16 MiB. */
  maxUploadBytes?: number
  /** Seconds that a request may take, with its time in the queue: 1 to 86,400. Default 300. */
  deadline?: number
  /** Requests for pictures that may be in work, from their first byte to the last of the answer. Default 128. */
  maxRequests?: number
  /** Seconds that running requests are given when the server ends. Default 30. */
  grace?: number
  /** Origins of pages that browsers may let use the API; default: none but the server's own. */
  origins?: readonly string[]
  /** A pino logger, or whether there is one. Default: none. */
  logger?: FastifyBaseLogger | boolean
  /** Serve the page at `/`. Default true. */
  page?: boolean
}

const pageFiles: ReadonlyArray<[url: string, file: string, type: string]> = [
  ['/', 'index.html', 'text/html; charset=utf-8'], ['/page.js', 'page.js', 'text/javascript; charset=utf-8'],
  ['/page.css', 'page.css', 'text/css; charset=utf-8'], ['/icon.svg', 'icon.svg', 'image/svg+xml']
]
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
/** Requests that one with an upload counts as: it holds pictures of its own. */
const uploadWeight = 8
/** Milliseconds in which a request must have arrived. */
const arrivesWithin = 120_000

/** Who may ask without a key: probes, and the page, which asks for one. */
const open = new Set(['/healthz', '/readyz', ...pageFiles.map(([url]) => url)])

/** A server that does not listen yet. `close()` drains it; the engine is the caller's to close. */
export function createServer (options: ServerOptions): FastifyInstance {
  const {
    engine, apiKeys = [], maxBodyBytes = 64 << 10, maxUploadBytes = 16 << 20, grace = 30, maxRequests = 128,
    logger = false, page = true
  } = options
  const deadline = Math.min(86_400, options.deadline ?? 300)
  const origins = (options.origins ?? []).map(origin => new URL(origin).origin)
  const app = Fastify({
    bodyLimit: maxBodyBytes,
    ...(typeof logger === 'boolean' ? { logger } : { loggerInstance: logger }),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allowUnionTypes: true } },
    forceCloseConnections: true, // of those that are kept alive: what runs is drained before (preClose)
    genReqId: () => randomUUID(),
    return503OnClosing: false, // ours has OpenAI's shape
    requestTimeout: arrivesWithin, // for the request itself, not for the answer
    connectionTimeout: (deadline + 60) * 1000, // in which nothing is sent or read: of a reader that does not read
    pluginTimeout: 0, // it would cut the draining (preClose) after ten seconds
    routerOptions: { maxParamLength: 200 },
    frameworkErrors: (error, _request, reply) => {
      const { status, body } = failureOf(error)
      void (reply as FastifyReply).code(status).send(body)
    }
  }) as FastifyInstance
  const isKnownKey = keyCheck(apiKeys)
  const metrics = new Metrics(engine)
  const running = new Set<AbortController>()
  let answering = 0
  let busy = 0
  let isEnding = false

  const context: Context = {
    engine,
    metrics,
    maxUploadBytes,
    modelOf: name => {
      const models = engine.models()
      const found = name === undefined ? models[0] : models.find(model => model.name === name)
      if (found) return found
      throw new EngineError(name === undefined ? 'QUEUE_UNAVAILABLE' : 'MODEL_NOT_FOUND', name === undefined
        ? 'No model is served at the moment'
        : `No model is called '${name}'. GET /v1/models lists those that are served`)
    },
    draw: async (reply, request, listener) => {
      if (isEnding) throw shuttingDown()
      const controller = new AbortController()
      const gone = (): void => { if (!reply.raw.writableFinished) controller.abort(disconnected) }
      const timer = setTimeout(() => {
        controller.abort(new EngineError('DEADLINE_EXCEEDED', `The pictures were not finished in ${deadline} seconds`))
      }, deadline * 1000)
      const following = metrics.follow(request.model)
      const off = whenOver(reply.request, reply, gone)
      running.add(controller)
      try {
        if (reply.raw.destroyed || reply.request.raw.socket.destroyed) throw disconnected
        const result = await engine.draw(request, controller.signal, {
          ...listener,
          step: event => {
            following.step(event)
            listener.step?.(event)
          }
        })
        following.done(result.pictures.length)
        return result
      } finally {
        clearTimeout(timer)
        running.delete(controller)
        off()
      }
    }
  }

  app.addHook('onRequest', async (request, reply) => {
    answering++
    whenOver(request, reply, () => { answering-- })
    reply.header('x-content-type-options', 'nosniff').header('x-request-id', request.id)
    const { origin } = request.headers
    if (origins.length > 0) reply.header('vary', 'origin, access-control-request-headers')
    if (origin !== undefined && origins.includes(origin)) {
      const asked = request.headers['access-control-request-headers']
      reply.header('access-control-allow-origin', origin)
        .header('access-control-allow-headers', typeof asked === 'string' && /^[\w\-, ]{1,2000}$/.test(asked)
          ? asked // OpenAI's client sends many of its own
          : 'authorization, content-type')
        .header('access-control-allow-methods', 'GET, POST')
        .header('access-control-expose-headers', 'x-request-id, retry-after').header('access-control-max-age', '600')
      if (request.method === 'OPTIONS') return await reply.code(204).send()
    } else if (request.method === 'POST' && request.headers['sec-fetch-site'] === 'cross-site') {
      // A form of a page elsewhere may be sent without asking, though its answer cannot be read.
      throw new RequestError(403, 'forbidden_origin', 'Pages of this origin may not use the API')
    }
    if (isEnding) reply.header('connection', 'close')
    if (apiKeys.length === 0 || open.has(request.routeOptions.url ?? '')) return
    if (isKnownKey(request.headers.authorization)) return
    reply.header('www-authenticate', 'Bearer')
    throw new RequestError(401, 'invalid_api_key', request.headers.authorization === undefined
      ? 'An API key is needed: Authorization: Bearer KEY'
      : 'The API key is wrong')
  })
  app.addHook('onRequest', async (request, reply) => {
    if (request.method !== 'POST') return
    const weight = request.routeOptions.url === '/v1/images/edits' ? uploadWeight : 1
    if (busy + weight > maxRequests) {
      throw new EngineError('SERVER_BUSY', 'As many requests are in work as may be. Try again later')
    }
    busy += weight
    whenOver(request, reply, () => { busy -= weight })
  })
  app.addHook('onResponse', async (request, reply) => {
    metrics.request(request.routeOptions.url ?? 'none', reply.statusCode, reply.elapsedTime)
  })
  app.setErrorHandler(async (error, request, reply) => {
    if (error === disconnected) return reply.hijack()
    const { status, body, isDefect } = failureOf(error)
    if (isDefect) request.log.error(error)
    if (status === 429) reply.header('retry-after', await retryAfter(engine, request))
    if (status === 504) reply.header('x-should-retry', 'false') // OpenAI's client would ask again, and wait as long
    return await reply.code(status).send(body)
  })
  app.setNotFoundHandler(async request => {
    const address = request.url.split('?')[0]!.slice(0, 200)
    throw new RequestError(404, 'not_found', `There is no ${request.method} ${address}`)
  })
  void app.register(multipart, {
    limits: { fileSize: maxUploadBytes, files: 3, fields: 40, fieldSize: 4096, fieldNameSize: 100, headerPairs: 100 }
  })

  // ---- OpenAI's API

  app.post<{ Body: ImageFields }>('/v1/images/generations', {
    schema: { body: imageBody },
    preValidation: async ({ body }: { body: unknown }) => { withoutNulls(body) }
  }, async (request, reply) => {
    const wanted = pictureRequest(context, request, request.body)
    return request.body.stream === true
      ? await stream(context, request, reply, wanted, request.body, 'image_generation')
      : await answer(context, reply, wanted, request.body)
  })
  app.post('/v1/images/edits', async (request, reply) => {
    const { wanted, fields } = await readEdit(context, request)
    return fields.stream === true
      ? await stream(context, request, reply, wanted, fields, 'image_edit')
      : await answer(context, reply, wanted, fields)
  })
  const started = Math.floor(Date.now() / 1000)
  const modelObject = (model: ModelInfo): object => {
    const { name, kind, method, supportedN, n, defaultSteps, width, height, classes } = model
    return {
      id: name, object: 'model', created: started, owned_by: 'parvis', method, size: `${width}x${height}`, classes,
      tokens_per_step: supportedN, default_tokens_per_step: n, default_steps: defaultSteps, kind
    }
  }
  app.get('/v1/models', async () => ({ object: 'list', data: engine.models().map(modelObject) }))
  app.get<{ Params: { model: string } }>('/v1/models/:model',
    async request => modelObject(context.modelOf(request.params.model)))

  // ---- the page

  if (page) {
    app.get('/api/models', async () => ({ models: engine.models(), auth: apiKeys.length > 0 }))
    app.post<{ Body: PageFields }>('/api/draw', { schema: { body: pageBody } },
      async (request, reply) => await drawEvents(context, request, reply))
    for (const [url, file, type] of pageFiles) {
      const bytes = fs.readFileSync(path.join(__dirname, '..', 'page', file))
      app.get(url, async (_request, reply) =>
        await reply.header('content-security-policy', policy).header('referrer-policy', 'no-referrer')
          .header('cache-control', 'no-cache').type(type).send(bytes))
    }
  }

  // ---- operators

  app.get('/healthz', async () => ({ status: 'ok' }))
  app.get('/readyz', async (_request, reply) => {
    const problem = isEnding ? 'The server is about to end' : await engine.problem()
    return problem === undefined ? { status: 'ready' } : await reply.code(503).send({ status: 'not ready', problem })
  })
  app.get('/metrics', async (_request, reply) =>
    await reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()))
  app.get('/openapi.json', async () => openApi(apiKeys.length > 0))

  const drained = async (ms: number): Promise<void> => {
    const ends = Date.now() + ms
    while (answering > 0 && Date.now() < ends) await new Promise(resolve => setTimeout(resolve, 10))
  }
  // Drains: new requests are refused, running ones have their time, then they are aborted.
  app.addHook('preClose', async () => {
    isEnding = true
    await drained(grace * 1000)
    for (const controller of running) controller.abort(shuttingDown())
    await drained(1000)
  })
  return app
}

/**
 * Tells once that an answer is over. Node.js does not tell it of one that was pipelined behind another: that has no
 * socket yet. Returns how not to be told.
 */
function whenOver (request: FastifyRequest, reply: FastifyReply, tell: () => void): () => void {
  const { socket } = request.raw
  const off = (): void => {
    reply.raw.off('close', over)
    socket.off('close', over)
  }
  let isOver = false
  const over = (): void => {
    if (isOver) return // one of the two is told by the other
    isOver = true
    off()
    tell()
  }
  socket.setMaxListeners(0)
  reply.raw.once('close', over)
  socket.once('close', over)
  return off
}

/** Clients of OpenAI send null for what is not given. */
function withoutNulls (body: unknown): void {
  if (typeof body !== 'object' || body === null) return
  for (const [name, value] of Object.entries(body)) {
    if (value === null) delete (body as Record<string, unknown>)[name]
  }
}

function shuttingDown (): EngineError {
  return new EngineError('SHUTTING_DOWN', 'The server is about to end: try again')
}

/** Seconds after which a request that was refused may find a place: by what waits now. */
async function retryAfter (engine: Engine, request: FastifyRequest): Promise<number> {
  const { model = engine.models()[0]?.name } = request.body as { model?: string } ?? {}
  const waiting = model === undefined ? 0 : (await engine.load(model).catch(() => undefined))?.waiting ?? 0
  return Math.min(60, 1 + Math.floor(waiting / 10))
}
