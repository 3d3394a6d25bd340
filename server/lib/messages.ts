// What crosses the queue: requests, progress, results, and what workers tell of themselves. Whoever reaches Redis can
// write anything there, so every message is built anew out of fields that were checked one by one, on either side.
//
// A request is JSON, since BullMQ keeps jobs so. What carries pixels is a frame:
//
//   uint32  length of the header in bytes, little-endian
//   bytes   the header, JSON
//   bytes   pixels, RGB, of each picture that the header names

import { createHash } from 'node:crypto'
import type { JobsOptions } from 'bullmq'
import { ParError, type Method, type ParErrorCode } from 'parvis'
import {
  EngineError, type DrawOptions, type EngineErrorCode, type Kind, type ModelInfo, type Picture, type PictureRequest,
  type Pixels, type Result, type StepEvent
} from './engine.js'

// ---- limits

/** Bytes of a picture that is to be completed. */
export const maxImageBytes = 16 * 2 ** 20
/** Characters of a job: such a picture in base64, and the rest. */
export const maxJobChars = 24 * 2 ** 20
/** Pixels a side. The server allows less. */
const maxSide = 8192
/** Cells of a picture. */
const maxCells = 1 << 16
export const maxPictures = 10
/** Bytes of a result: ten pictures of 2048 x 2048, and what is said of them. */
export const maxResultBytes = maxPictures * (3 * 2048 ** 2 + 2 ** 20)
/** Bytes of a header: as many cells as there may be, of each picture. */
const maxHeaderBytes = maxPictures * 2 ** 20
/** Bytes of what is told of a model, and of a worker. */
export const maxModelBytes = 2 ** 20
export const maxWorkerBytes = 2 ** 14
export const maxModels = 100
const maxClasses = 100_000
export const shortestTtl = 1000
export const longestTtl = 24 * 3600 * 1000

// ---- checks

/** A message that is not as it should be. It says which field, and nothing of what stood there. */
class BadMessage extends Error {}

type Fields = Readonly<Record<string, unknown>>

/** An object that has no other fields than these. What it is given back as has no prototype. */
function record (value: unknown, name: string, fields: readonly string[]): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new BadMessage(`${name} is no object`)
  const found: Record<string, unknown> = Object.create(null)
  for (const key of Object.keys(value)) {
    if (!fields.includes(key)) throw new BadMessage(`${name} has a field that is not known`)
    found[key] = (value as Record<string, unknown>)[key]
  }
  return found
}

function integer (value: unknown, name: string, least: number, most: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number
  throw new BadMessage(`${name} is no integer from ${least} to ${most}`)
}

function number (value: unknown, name: string, least: number, most: number): number {
  if (typeof value === 'number' && value >= least && value <= most) return value
  throw new BadMessage(`${name} is no number from ${least} to ${most}`)
}

function boolean (value: unknown, name: string): boolean {
  if (typeof value === 'boolean') return value
  throw new BadMessage(`${name} is neither true nor false`)
}

function text (value: unknown, name: string, most: number, least = 1): string {
  if (typeof value === 'string' && value.length >= least && value.length <= most) return value
  throw new BadMessage(`${name} is no text of ${least} to ${most} characters`)
}

function oneOf<T extends string> (value: unknown, name: string, all: readonly T[]): T {
  if (all.includes(value as T)) return value as T
  throw new BadMessage(`${name} is none of ${all.join(', ')}`)
}

function list<T> (value: unknown, name: string, most: number, each: (element: unknown, name: string) => T): T[] {
  if (!Array.isArray(value) || value.length > most) throw new BadMessage(`${name} is no list of at most ${most}`)
  return value.map(element => each(element, `each of ${name}`))
}

function optional<T> (value: unknown, check: (value: unknown) => T): T | undefined {
  return value === undefined ? undefined : check(value)
}

const cells = (value: unknown, name: string): number[] =>
  list(value, name, maxCells, element => integer(element, 'a cell', 0, maxCells - 1))

/** What `check` gives; an error of parvis where the message is not as it should be. */
function checked<T> (code: 'INVALID_OPTION' | 'INTERNAL', what: string, check: () => T): T {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof BadMessage)) throw error
    throw new ParError(code, `${what}: ${error.message}`)
  }
}

// ---- names

const hash = (value: string): string => createHash('sha256').update(value).digest('hex')

/** Jobs of a model for workers of one kind, or, without a kind, for all that serve the model. */
export function queueName (model: string, kind: Kind | undefined): string {
  return `q-${hash(model).slice(0, 16)}-${kind ? hash(textOfKind(kind)).slice(0, 16) : 'any'}`
}

export const textOfKind = ({ backend, precision, weights }: Kind): string =>
  JSON.stringify([backend, precision, weights])

export const isQueueName = (name: string): boolean => /^q-[0-9a-f]{16}-([0-9a-f]{16}|any)$/.test(name)

/** Ids of jobs are parts of keys. */
export const isJobId = (id: unknown): id is string => typeof id === 'string' && /^[A-Za-z0-9-]{1,100}$/.test(id)

/** The job of a key that a client has chosen. */
export const jobOfKey = (key: string): string => `key-${hash(key).slice(0, 48)}`

/** Keys in Redis beside BullMQ's own. */
export class Keys {
  constructor (readonly prefix: string) {}

  /** The result, or `answered`. */
  result (id: string): string { return `${this.prefix}:result:${id}` }

  /** Of a job with a client's key: the hash of its request, a blank, and its queue. */
  body (id: string): string { return `${this.prefix}:body:${id}` }

  /** Who waits for a job with a client's key. */
  clients (id: string): string { return `${this.prefix}:clients:${id}` }

  get workers (): string { return `${this.prefix}:workers` }

  worker (id: string): string { return `${this.prefix}:worker:${id}` }

  model (id: string): string { return `${this.prefix}:model:${id}` }

  /** Channel of what happens to a job. */
  progress (id: string): string { return `${this.prefix}:progress:${id}` }

  /** Channel of the ids of jobs that nobody waits for any more. */
  get cancel (): string { return `${this.prefix}:cancel` }
}

/**
 * In the place of a result that nobody waits for: the client has it, or has gone. A worker that has the job makes
 * nothing of it. It is shorter than any frame.
 */
export const answered = '-'

// ---- requests

/** Of a job whose worker has failed for want of something that another, or a later moment, may have. */
export const maxAttempts = 3

/** What BullMQ is told of each job, whatever stands in Redis. */
export const jobOptions: JobsOptions = {
  attempts: maxAttempts, backoff: { type: 'exponential', delay: 250 }, removeOnComplete: true, removeOnFail: true
}

/** A job. */
export interface Job {
  request: PictureRequest
  /** Of the worker; undefined: any may make it. */
  kind: Kind | undefined
  /** Milliseconds for which the result is kept. */
  resultTtlMs: number
  /** Whether steps are told. */
  steps: boolean
}

/** As JSON. The fields are in one order, so that equal requests are equal texts. */
export type JobMessage = Record<string, unknown>

export function jobMessage ({ request, kind, resultTtlMs, steps }: Job): JobMessage {
  return { v: 1, kind: kind ? kindFields(kind) : null, resultTtlMs, steps, request: requestMessage(request) }
}

const kindFields = ({ backend, precision, weights }: Kind): Kind => ({ backend, precision, weights })

function requestMessage ({ model, classId, count, seed, options, size, known, previews }: PictureRequest) {
  if (known && known.image.byteLength > maxImageBytes) {
    throw new ParError('BAD_IMAGE', `A picture to complete has at most ${maxImageBytes / 2 ** 20} MB`)
  }
  const { n, steps, guidanceScale, temperature, topK, topP, draw, greedy, stepSchedule, guidanceSchedule } = options
  return {
    model, classId, count, seed, previews,
    options: { n, steps, guidanceScale, temperature, topK, topP, draw, greedy, stepSchedule, guidanceSchedule },
    ...(size && { size: { width: size.width, height: size.height } }),
    ...(known && {
      known: {
        image: Buffer.from(known.image.buffer, known.image.byteOffset, known.image.byteLength).toString('base64'),
        mask: known.mask.map(kept => kept ? '1' : '0').join('')
      }
    })
  }
}

/** What tells whether two requests under one key are the same. 64 characters. */
export const hashOfRequest = (request: PictureRequest): string => hash(JSON.stringify(requestMessage(request)))

/**
 * A request as it goes to an engine, after the checks that it would get from a worker.
 * @throws ParError `INVALID_OPTION`, `BAD_IMAGE`
 */
export function checkedRequest (request: PictureRequest): PictureRequest {
  const { idempotencyKey } = request
  return checked('INVALID_OPTION', 'The request', () => {
    const key = optional(idempotencyKey, value => text(value, 'idempotencyKey', 200))
    // JSON leaves out what is undefined, as the queue will.
    const message = JSON.parse(JSON.stringify(requestMessage(request)))
    return { ...requestOf(message), ...(key !== undefined && { idempotencyKey: key }) }
  })
}

/**
 * A job out of the queue.
 * @param served what the worker serves, by name
 * @throws ParError `INVALID_OPTION`, EngineError `MODEL_NOT_FOUND`
 */
export function jobOf (message: unknown, served: ReadonlyMap<string, ModelInfo>): Job {
  return checked('INVALID_OPTION', 'A job of the queue', () => {
    const fields = record(message, 'it', ['v', 'kind', 'resultTtlMs', 'steps', 'request'])
    integer(fields.v, 'v', 1, 1)
    const kind = fields.kind === null ? undefined : kindOf(fields.kind)
    const resultTtlMs = integer(fields.resultTtlMs, 'resultTtlMs', shortestTtl, longestTtl)
    const steps = boolean(fields.steps, 'steps')
    const request = requestOf(fields.request)
    const info = served.get(request.model)
    if (!info) throw new EngineError('MODEL_NOT_FOUND', 'The worker serves no model of this name')
    if (kind && textOfKind(kind) !== textOfKind(info.kind)) throw new BadMessage('kind is not that of the worker')
    const { classId, known } = request
    if (typeof classId === 'number') integer(classId, 'classId', 0, info.classes - 1)
    const cells = info.grid[0] * info.grid[1]
    if (known && known.mask.length !== cells) throw new BadMessage(`known.mask has not ${cells} cells`)
    return { request, kind, resultTtlMs, steps }
  })
}

function requestOf (message: unknown): PictureRequest {
  const fields = record(message, 'request',
    ['model', 'classId', 'count', 'seed', 'options', 'size', 'known', 'previews'])
  const count = integer(fields.count, 'count', 1, maxPictures)
  const size = optional(fields.size, sizeOf)
  if (size && count * (3 * size.width * size.height + 2 ** 20) > maxResultBytes) {
    throw new BadMessage('size is too large for so many pictures')
  }
  const known = optional(fields.known, knownOf)
  return {
    model: text(fields.model, 'model', 200),
    classId: typeof fields.classId === 'string'
      ? text(fields.classId, 'classId', 1000)
      : integer(fields.classId, 'classId', 0, maxClasses),
    count,
    seed: integer(fields.seed, 'seed', 0, Number.MAX_SAFE_INTEGER),
    options: optionsOf(fields.options),
    ...(size && { size }),
    ...(known && { known }),
    previews: fields.previews === 'all' ? 'all' : integer(fields.previews, 'previews', 0, maxCells)
  }
}

/** Ranges are as wide as any model's: the engine checks them again, and says more. */
function optionsOf (message: unknown): DrawOptions {
  const fields = record(message, 'options', ['n', 'steps', 'guidanceScale', 'temperature', 'topK', 'topP', 'draw',
    'greedy', 'stepSchedule', 'guidanceSchedule'])
  const options: DrawOptions = {
    n: optional(fields.n, value => integer(value, 'n', 1, 4096)),
    steps: optional(fields.steps, value => integer(value, 'steps', 1, maxCells)),
    guidanceScale: optional(fields.guidanceScale, value => number(value, 'guidanceScale', 0, 1e6)),
    temperature: optional(fields.temperature, value => number(value, 'temperature', 0, 1e6)),
    topK: optional(fields.topK, value => integer(value, 'topK', 0, 2 ** 31 - 1)),
    topP: optional(fields.topP, value => number(value, 'topP', 0, 1)),
    draw: optional(fields.draw, value => oneOf(value, 'draw', ['inverse', 'gumbel'])),
    greedy: optional(fields.greedy, value => boolean(value, 'greedy')),
    stepSchedule: optional(fields.stepSchedule, value => oneOf(value, 'stepSchedule', ['arccos', 'cosine'])),
    guidanceSchedule:
      optional(fields.guidanceSchedule, value => oneOf(value, 'guidanceSchedule', ['linear', 'constant']))
  }
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

function sizeOf (message: unknown): { width: number, height: number } {
  const fields = record(message, 'size', ['width', 'height'])
  return {
    width: integer(fields.width, 'size.width', 1, maxSide), height: integer(fields.height, 'size.height', 1, maxSide)
  }
}

function knownOf (message: unknown): { image: Uint8Array, mask: boolean[] } {
  const fields = record(message, 'known', ['image', 'mask'])
  const encoded = text(fields.image, 'known.image', Math.ceil(maxImageBytes / 3) * 4)
  if (encoded.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) {
    throw new BadMessage('known.image is no base64')
  }
  const mask = text(fields.mask, 'known.mask', maxCells)
  if (!/^[01]+$/.test(mask)) throw new BadMessage('known.mask has other characters than 0 and 1')
  return { image: Buffer.from(encoded, 'base64'), mask: [...mask].map(cell => cell === '1') }
}

function kindOf (message: unknown): Kind {
  const fields = record(message, 'kind', ['backend', 'precision', 'weights'])
  const word = (name: keyof Kind): string => {
    const value = text(fields[name], `kind.${name}`, 64)
    if (!/^[\w.-]+$/.test(value)) throw new BadMessage(`kind.${name} has characters that it may not have`)
    return value
  }
  return { backend: word('backend'), precision: word('precision'), weights: word('weights') }
}

// ---- frames

function frame (header: object, pixels: readonly Uint8Array[] = []): Buffer {
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return Buffer.concat([length, json, ...pixels])
}

function unframed (bytes: Buffer): { header: unknown, payload: Buffer } {
  if (bytes.length < 4) throw new BadMessage('it is cut off')
  const length = bytes.readUInt32LE()
  if (length > maxHeaderBytes || length > bytes.length - 4) throw new BadMessage('its header is cut off, or too long')
  try {
    return { header: JSON.parse(bytes.toString('utf8', 4, 4 + length)), payload: bytes.subarray(4 + length) }
  } catch {
    throw new BadMessage('its header is no JSON')
  }
}

/** Pixels of pictures of these sizes, one after another. They are copied: a frame may be a part of a larger buffer. */
function pixelsOf<T extends { width: number, height: number }> (
  sizes: readonly T[], payload: Buffer
): Array<T & Pixels> {
  const total = sizes.reduce((sum, { width, height }) => sum + 3 * width * height, 0)
  if (payload.length !== total) throw new BadMessage('it has not as many pixels as it says')
  let from = 0
  return sizes.map(size => {
    const to = from + 3 * size.width * size.height
    const data = Uint8Array.from(payload.subarray(from, to))
    from = to
    return { ...size, data }
  })
}

// ---- progress

export type ProgressEvent =
  | { type: 'began' }
  | { type: 'step', event: StepEvent }
  | { type: 'preview', pixels: Pixels, step: number }
  /** The result is there. */
  | { type: 'done' }

export function progressFrame (event: ProgressEvent): Buffer {
  switch (event.type) {
    case 'step': {
      const { step, steps, cells, ms } = event.event
      return frame({ type: 'step', step, steps, cells, ms })
    }
    case 'preview': {
      const { data, width, height } = event.pixels
      return frame({ type: 'preview', step: event.step, width, height }, [data])
    }
    default: return frame({ type: event.type })
  }
}

/** @throws ParError `INTERNAL` */
export function progressOf (bytes: Buffer): ProgressEvent {
  return checked('INTERNAL', 'Progress of a worker', () => {
    const { header, payload } = unframed(bytes)
    const fields = record(header, 'it', ['type', 'step', 'steps', 'cells', 'ms', 'width', 'height'])
    const type = oneOf(fields.type, 'type', ['began', 'step', 'preview', 'done'])
    if (type === 'began' || type === 'done') return { type }
    const step = integer(fields.step, 'step', 1, maxCells)
    if (type === 'step') {
      const event: StepEvent = {
        step, steps: integer(fields.steps, 'steps', step, maxCells), cells: cells(fields.cells, 'cells'),
        ms: number(fields.ms, 'ms', 0, Number.MAX_SAFE_INTEGER)
      }
      return { type, event }
    }
    const [pixels] = pixelsOf([sizeOf({ width: fields.width, height: fields.height })], payload)
    return { type, pixels: pixels!, step }
  })
}

// ---- results

export function resultFrame ({ pictures, kind }: Result): Buffer {
  const told = pictures.map(({
    width, height, classId, label, seed, steps, n, tokenOrder, transformerMs, decodeMs, totalMs
  }) => ({ width, height, classId, label, seed, steps, n, tokenOrder, transformerMs, decodeMs, totalMs }))
  return frame({ type: 'result', kind: kindFields(kind), pictures: told }, pictures.map(({ data }) => data))
}

const pictureFields = ['width', 'height', 'classId', 'label', 'seed', 'steps', 'n', 'tokenOrder', 'transformerMs',
  'decodeMs', 'totalMs']

/**
 * The answer to a request.
 * @throws ParError, EngineError: what the worker has failed with; ParError `INTERNAL` where the answer is not one of
 * this request
 */
export function resultOf (bytes: Buffer, request: PictureRequest, kind: Kind | undefined): Result {
  const result = checked('INTERNAL', 'The answer of a worker', () => {
    const { header, payload } = unframed(bytes)
    const fields = record(header, 'it', ['type', 'kind', 'pictures', 'name', 'code', 'message'])
    if (oneOf(fields.type, 'type', ['result', 'error']) === 'error') return failureOf(fields)
    const answeredBy = kindOf(fields.kind)
    if (kind && textOfKind(kind) !== textOfKind(answeredBy)) throw new BadMessage('kind is another one')
    const told = list(fields.pictures, 'pictures', maxPictures, pictureOf)
    if (told.length !== request.count) throw new BadMessage('it has not as many pictures as were asked for')
    for (const [index, { seed }] of told.entries()) {
      if (seed !== seedAt(request.seed, index)) throw new BadMessage('seed is another one')
    }
    return { pictures: pixelsOf(told, payload), kind: answeredBy }
  })
  if (result instanceof Error) throw result
  return result
}

/** Of a request's pictures; after 2^53 - 1 comes 0. */
const seedAt = (seed: number, index: number): number => {
  const left = Number.MAX_SAFE_INTEGER - seed
  return index > left ? index - left - 1 : seed + index
}

function pictureOf (message: unknown): Omit<Picture, 'data'> {
  const fields = record(message, 'a picture', pictureFields)
  const { width, height } = sizeOf({ width: fields.width, height: fields.height })
  const milliseconds = (name: string): number => number(fields[name], name, 0, Number.MAX_SAFE_INTEGER)
  return {
    width,
    height,
    classId: integer(fields.classId, 'classId', 0, maxClasses),
    label: optional(fields.label, value => text(value, 'label', 1000, 0)),
    seed: integer(fields.seed, 'seed', 0, Number.MAX_SAFE_INTEGER),
    steps: integer(fields.steps, 'steps', 0, maxCells),
    n: integer(fields.n, 'n', 0, maxCells),
    tokenOrder: cells(fields.tokenOrder, 'tokenOrder'),
    transformerMs: milliseconds('transformerMs'),
    decodeMs: milliseconds('decodeMs'),
    totalMs: milliseconds('totalMs')
  }
}

// ---- errors

// Records, so that the compiler misses none.
const parCodes: Record<ParErrorCode, true> = {
  BAD_CLASS_ID: true, UNSUPPORTED_N: true, BAD_CHECKPOINT: true, FILE_NOT_FOUND: true, DOWNLOAD_FAILED: true,
  TOKENIZER_MISMATCH: true, MISSING_PART: true, DEVICE_UNAVAILABLE: true, OUT_OF_MEMORY: true, QUEUE_FULL: true,
  DISPOSED: true, INVALID_OPTION: true, BAD_IMAGE: true, BAD_TOKENS: true, BAD_ARRAY: true, NON_FINITE: true,
  NATIVE_UNAVAILABLE: true, INTERNAL: true
}
const engineCodes: Record<EngineErrorCode, true> =
  { MODEL_NOT_FOUND: true, SERVER_BUSY: true, QUEUE_UNAVAILABLE: true, SHUTTING_DOWN: true, DEADLINE_EXCEEDED: true }

/** The code of an error of parvis or of an engine, of any copy of the package. */
export function codeOf (error: unknown): ParErrorCode | EngineErrorCode | undefined {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown }
  return typeof code === 'string' && (Object.hasOwn(parCodes, code) || Object.hasOwn(engineCodes, code))
    ? code as ParErrorCode | EngineErrorCode
    : undefined
}

/** An error as an answer. Of one that is nobody's, only the worker's log says more. */
export function errorFrame (error: unknown): Buffer {
  const code = codeOf(error)
  if (code === undefined) return errorFrame(new ParError('INTERNAL', 'A worker has failed. Its log has the reason'))
  return frame({ type: 'error', code, message: (error as Error).message.slice(0, 8000) })
}

function failureOf ({ code, message }: Fields): ParError | EngineError {
  const shown = text(message, 'message', 8000, 0)
  const name = oneOf(code, 'code', [...Object.keys(parCodes), ...Object.keys(engineCodes)])
  if (Object.hasOwn(parCodes, name)) return new ParError(name as ParErrorCode, shown)
  return new EngineError(name as EngineErrorCode, shown)
}

// ---- workers

/** What a worker tells of itself, as long as it lives. */
export interface WorkerCard {
  /** Hashes of what it tells of its models. */
  models: string[]
  /** Jobs that it takes at a time, of each model. */
  seats: number
}

export const workerMessage = ({ models, seats }: WorkerCard): string => JSON.stringify({ v: 1, models, seats })

/** @throws ParError `INTERNAL` */
export function workerOf (message: string): WorkerCard {
  return checked('INTERNAL', 'What a worker tells', () => {
    const fields = record(parsed(message, maxWorkerBytes), 'it', ['v', 'models', 'seats'])
    integer(fields.v, 'v', 1, 1)
    return {
      models: list(fields.models, 'models', maxModels, value => {
        const name = text(value, 'a hash', 64, 64)
        if (!/^[0-9a-f]+$/.test(name)) throw new BadMessage('a hash has other characters than hex digits')
        return name
      }),
      seats: integer(fields.seats, 'seats', 1, 4096)
    }
  })
}

const modelFields = ['name', 'kind', 'method', 'supportedN', 'n', 'defaultSteps', 'grid', 'width', 'height', 'labels',
  'classes', 'guidanceScale', 'device'] as const satisfies ReadonlyArray<keyof ModelInfo>
const methods: Record<Method, true> = { par: true, llamagen: true, arpg: true, lpd: true, randar: true, nbp: true }

/** A model, and its hash, under which others find it. */
export function modelMessage (info: ModelInfo): { id: string, message: string } {
  const message = JSON.stringify(Object.fromEntries(modelFields.map(name => [name, info[name]])))
  return { id: hash(message), message }
}

/** @throws ParError `INTERNAL`, also where it is not what has this hash */
export function modelOf (id: string, message: string): ModelInfo {
  return checked('INTERNAL', 'What a worker tells of a model', () => {
    if (hash(message) !== id) throw new BadMessage('it is not what the worker has told of')
    const fields = record(parsed(message, maxModelBytes), 'it', modelFields)
    const { width, height } = sizeOf({ width: fields.width, height: fields.height })
    const [rows, columns] =
      list(fields.grid, 'grid', 2, value => integer(value, 'rows or columns', 1, maxCells)) as [number, number]
    if (columns === undefined || rows * columns > maxCells) throw new BadMessage('grid is no grid')
    return {
      name: text(fields.name, 'name', 200),
      kind: kindOf(fields.kind),
      method: oneOf(fields.method, 'method', Object.keys(methods) as Method[]),
      supportedN: list(fields.supportedN, 'supportedN', 100, value => integer(value, 'n', 1, maxCells)),
      n: integer(fields.n, 'n', 1, maxCells),
      defaultSteps: integer(fields.defaultSteps, 'defaultSteps', 1, maxCells),
      grid: [rows, columns],
      width,
      height,
      labels: optional(fields.labels,
        value => list(value, 'labels', maxClasses, label => text(label, 'a label', 1000, 0))),
      classes: integer(fields.classes, 'classes', 1, maxClasses),
      guidanceScale: number(fields.guidanceScale, 'guidanceScale', 0, 1e6),
      device: text(fields.device, 'device', 200)
    }
  })
}

function parsed (message: string, most: number): unknown {
  if (message.length > most) throw new BadMessage('it is too long')
  try {
    return JSON.parse(message)
  } catch {
    throw new BadMessage('it is no JSON')
  }
}
