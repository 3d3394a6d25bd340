// The server as a library, for servers of one's own.

export { createServer, type ServerOptions } from './server.js'
export {
  EngineError, type Engine, type EngineErrorCode, type Kind, type Listener, type Load, type ModelInfo, type Picture,
  type PictureRequest, type Result
} from './engine.js'
export { QueueEngine, type QueueEngineOptions } from './queue.js'
export { QueueWorker, type QueueWorkerOptions } from './worker.js'
export { LocalEngine, type LocalOptions, type ModelSource } from './local.js'
