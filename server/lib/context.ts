// What the handlers of a server share.

import type { FastifyReply } from 'fastify'
import type { Engine, Listener, ModelInfo, PictureRequest, Result } from './engine.js'
import type { Metrics } from './metrics.js'

/** What handlers share. */
export interface Context {
  engine: Engine
  metrics: Metrics
  maxUploadBytes: number
  /**
   * Draws for a request: with its deadline, its disconnection, and the end of the server.
   * @throws ParError, EngineError; `disconnected` where nobody waits for the answer
   */
  draw: (reply: FastifyReply, request: PictureRequest, listener: Listener) => Promise<Result>
  /** The model of a request. @throws EngineError `MODEL_NOT_FOUND` */
  modelOf: (name: string | undefined) => ModelInfo
}

/** Why a request was given up: nobody is there to be told. */
export const disconnected = new Error('The client has gone')
