// What makes pictures for the server: models in this process (local.ts), or workers on a queue (queue.ts). Requests and
// pictures are plain records, so that they can cross a queue.

import type { Method } from 'parvis'

/** Codes of errors that an engine gives beside those of ParError. */
export type EngineErrorCode =
  /** No model of this name is served. */
  | 'MODEL_NOT_FOUND'
  /** The queue cannot be reached, or no worker is there. */
  | 'QUEUE_UNAVAILABLE'
  /** As many requests are in work as may be. */
  | 'SERVER_BUSY'
  /** The server is about to end. */
  | 'SHUTTING_DOWN'
  /** The deadline of the request has passed. */
  | 'DEADLINE_EXCEEDED'

/** An error whose message may be shown to clients. Errors of parvis are `ParError`, which have a `code` too. */
export class EngineError extends Error {
  constructor (readonly code: EngineErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'EngineError'
  }
}

/** What a model can do, for clients and for the page. */
export interface ModelInfo {
  /** As it was given to --model. */
  name: string
  /** What makes the bytes: pictures of one seed are equal among engines of equal kinds. */
  kind: Kind
  method: Method
  /** n of PAR that it supports, ascending, and the default; empty and 1 for methods that have no n. */
  supportedN: number[]
  n: number
  /** Steps of a picture where nothing else is asked for. */
  defaultSteps: number
  /** Tokens: rows and columns. */
  grid: [rows: number, columns: number]
  /** Pixels of a picture where no size is asked for. */
  width: number
  height: number
  /** Class names by class id, where it has names. */
  labels: string[] | undefined
  classes: number
  guidanceScale: number
  device: string
}

/** Backend, precision and weights. Workers take jobs of their own kind only. */
export interface Kind {
  /** 'cpu-avx512_bf16', 'cuda-sm_90'. */
  backend: string
  precision: string
  /** Of the weights' files: 16 hex digits. */
  weights: string
}

/** Options of parvis's `generate` that clients may give. */
export interface DrawOptions {
  /** Tokens a step, of PAR. */
  n?: number
  steps?: number
  guidanceScale?: number
  temperature?: number
  topK?: number
  topP?: number
  draw?: 'inverse' | 'gumbel'
  greedy?: boolean
  stepSchedule?: 'arccos' | 'cosine'
  guidanceSchedule?: 'linear' | 'constant'
}

/** What is asked for. */
export interface PictureRequest {
  model: string
  /** A class number or name, as the client wrote it. */
  classId: number | string
  /** Pictures, 1 to 10: of the seeds `seed`, `seed + 1`, ... */
  count: number
  /** 0 to 2^53 - 1. Set by the server where the client gives none, so that a job that is run again makes the same. */
  seed: number
  options: DrawOptions
  size?: { width: number, height: number }
  /** Completion: a picture file, and for each cell in raster order whether it is kept. */
  known?: { image: Uint8Array, mask: boolean[] }
  /**
   * Previews that are wanted: so many of the first picture, evenly among the steps; 'all': as many as can be had
   * without slowing the steps.
   */
  previews: number | 'all'
  /**
   * Of a queue: requests of one key are one job, whose result each of them gets while it is kept. Another request under
   * the same key is refused with `INVALID_OPTION`. 1 to 200 characters.
   */
  idempotencyKey?: string
}

/** RGB bytes. */
export interface Pixels {
  /** [height, width, 3] */
  data: Uint8Array
  width: number
  height: number
}

export interface Picture extends Pixels {
  classId: number
  label: string | undefined
  seed: number
  steps: number
  n: number
  /** Raster cells in the order in which they were drawn. */
  tokenOrder: number[]
  /** Milliseconds of the steps, of the decoding, and of both with what lay between. */
  transformerMs: number
  decodeMs: number
  totalMs: number
}

/** A step that is done. */
export interface StepEvent {
  /** 1 .. steps */
  step: number
  steps: number
  /** Raster cells of the first picture that are new with this step. */
  cells: number[]
  /** Milliseconds since the first step was done: what came before may have been the loading of weights. */
  ms: number
}

/** What a request's progress is told to; a promise that they return is not waited for. */
export interface Listener {
  /** Where it is in the line, while it waits; 0: it has begun. */
  queued?: (place: number) => void
  step?: (event: StepEvent) => void
  /** The first picture as of a step. */
  preview?: (pixels: Pixels, step: number) => void
}

export interface Result {
  pictures: Picture[]
  kind: Kind
}

/** How busy an engine is. */
export interface Load {
  /** Requests that wait, requests in work. */
  waiting: number
  running: number
  /** Seats of batches that are open. Absent where that is not known. */
  seats?: number
  /** Since the start: steps, and pictures in them, added up. Absent where that is not known. */
  steps?: number
  pictureSteps?: number
}

export interface Engine {
  /** Models that are served. Of a queue: those that workers have told of. */
  models: () => ModelInfo[]
  load: (model: string) => Promise<Load>
  /** Why it cannot serve at the moment; undefined: it can. */
  problem: () => Promise<string | undefined>
  /**
   * Makes pictures.
   * @throws ParError, EngineError; the signal's reason where it is aborted, within two steps
   */
  draw: (request: PictureRequest, signal: AbortSignal, listener: Listener) => Promise<Result>
  /** Ends what runs, and frees everything. */
  close: () => Promise<void>
}
