// The bodies of requests: their JSON schemas, which Fastify checks and the OpenAPI document shows, and what they ask of
// an engine.

import { createHash, randomInt } from 'node:crypto'
import type { DrawOptions } from './engine.js'
import { RequestError } from './failures.js'

export const formats = ['png', 'jpeg', 'webp'] as const
export type Format = typeof formats[number]

/** Fields of sampling and decoding that are not OpenAI's own. */
export interface DrawFields {
  seed?: number
  tokens_per_step?: number
  steps?: number
  guidance_scale?: number
  temperature?: number
  top_k?: number
  top_p?: number
  draw?: 'inverse' | 'gumbel'
  greedy?: boolean
  step_schedule?: 'arccos' | 'cosine'
  guidance_schedule?: 'linear' | 'constant'
}

export interface ImageFields extends DrawFields {
  model?: string
  prompt: string | number
  n?: number
  size?: string
  response_format?: 'b64_json' | 'url'
  output_format?: Format
  output_compression?: number
  stream?: boolean
  partial_images?: number
}

export const maxSeed = Number.MAX_SAFE_INTEGER
/** Max pictures of a request, as OpenAI has it. */
export const maxPictures = 10
export const maxPartialImages = 3
/** Max pixels a side. */
export const maxSide = 2048

/** Ranges are those of the library, which says more of each: docs/api.md. */
export const drawProperties = {
  seed: { type: 'integer', minimum: 0, maximum: maxSeed, description: 'The same seed gives the same picture.' },
  tokens_per_step: {
    type: 'integer', minimum: 1, maximum: 4096,
    description: 'Of PAR: tokens that are drawn at once, one of the values that the model supports.'
  },
  steps: { type: 'integer', minimum: 1, maximum: 65536, description: 'Of ARPG, LPD and RandAR: the number of steps.' },
  guidance_scale: {
    type: 'number', minimum: 1, maximum: 1000, description: 'Classifier-free guidance; 1 turns it off.'
  },
  temperature: { type: 'number', minimum: 0, maximum: 1000 },
  top_k: { type: 'integer', minimum: 0, maximum: 2 ** 31 - 1, description: '0: off.' },
  top_p: { type: 'number', exclusiveMinimum: 0, maximum: 1, description: '1: off.' },
  draw: { type: 'string', enum: ['inverse', 'gumbel'], description: 'How a token is drawn from the probabilities.' },
  greedy: { type: 'boolean', description: 'Always the likeliest token.' },
  step_schedule: { type: 'string', enum: ['arccos', 'cosine'], description: 'Of ARPG.' },
  guidance_schedule: { type: 'string', enum: ['linear', 'constant'], description: 'Of ARPG, LPD and RandAR.' }
} as const

const ignored = 'Accepted from clients of OpenAI, and ignored.'
export const imageProperties = {
  model: { type: 'string', maxLength: 200, description: 'One of GET /v1/models. Default: the first of them.' },
  prompt: {
    anyOf: [{ type: 'string', minLength: 1, maxLength: 1000 }, { type: 'integer', minimum: 0 }],
    description: 'A class: its name, or its number.'
  },
  n: { type: 'integer', minimum: 1, maximum: maxPictures, default: 1, description: 'Pictures: of seed, seed + 1, ...' },
  size: {
    type: 'string', pattern: '^(auto|[1-9]\\d{0,3}x[1-9]\\d{0,3})$', default: 'auto',
    description: `Width x height in pixels, at most ${maxSide} each; auto: the model's own.`
  },
  response_format: { type: 'string', enum: ['b64_json', 'url'], default: 'b64_json', description: 'url: a data: URL.' },
  output_format: { type: 'string', enum: [...formats], default: 'png' },
  output_compression: {
    type: 'integer', minimum: 0, maximum: 100, description: 'Quality of jpeg (default 90) and webp (default 90).'
  },
  stream: { type: 'boolean', default: false, description: 'Server-sent events, with partial_images.' },
  partial_images: { type: 'integer', minimum: 0, maximum: maxPartialImages, default: 0 },
  ...drawProperties,
  quality: { type: 'string', maxLength: 100, description: ignored },
  style: { type: 'string', maxLength: 100, description: ignored },
  background: { type: 'string', enum: ['auto', 'opaque'], description: `${ignored} Pictures are opaque.` },
  moderation: { type: 'string', maxLength: 100, description: ignored },
  input_fidelity: { type: 'string', maxLength: 100, description: ignored },
  user: { type: 'string', maxLength: 1000, description: ignored }
} as const

export const imageBody = {
  type: 'object', required: ['prompt'], additionalProperties: false, properties: imageProperties
} as const

/** Of `POST /api/draw`, which the page uses. */
export interface PageFields {
  model?: string
  class: string | number
  seed?: number
  n?: number
  steps?: number
  guidance_scale?: number
}
export const pageBody = {
  type: 'object',
  required: ['class'],
  additionalProperties: false,
  properties: {
    model: imageProperties.model, class: imageProperties.prompt, seed: drawProperties.seed,
    n: drawProperties.tokens_per_step, steps: drawProperties.steps, guidance_scale: drawProperties.guidance_scale
  }
} as const

/** The library's options; what is not given is left to the model. */
export function drawOptions (fields: DrawFields): DrawOptions {
  const options: DrawOptions = {
    n: fields.tokens_per_step, steps: fields.steps, guidanceScale: fields.guidance_scale,
    temperature: fields.temperature, topK: fields.top_k, topP: fields.top_p, draw: fields.draw,
    greedy: fields.greedy,
    stepSchedule: fields.step_schedule, guidanceSchedule: fields.guidance_schedule
  }
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

/**
 * A random one is drawn here, so that a job which is run again makes the same picture. With an idempotency key it
 * follows from the key: a request that is sent again is the same one.
 */
export function seedOf (seed: number | undefined, key?: string): number {
  if (seed !== undefined) return seed
  return key === undefined ? randomInt(2 ** 32) : createHash('sha256').update(key).digest().readUInt32BE()
}

/** The `Idempotency-Key` of a request. @throws RequestError */
export function idempotencyKey (headers: Readonly<Record<string, unknown>>): string | undefined {
  const key = headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key === 'string' && /^[\x21-\x7e]{1,200}$/.test(key)) return key
  throw new RequestError(400, 'invalid_value', 'Idempotency-Key is 1 to 200 printable characters, no blanks')
}

/** Max pixels of all pictures of a request. */
const maxPixels = 1 << 24

/** @param count pictures */
export function sizeOf (size: string | undefined, count: number): { width: number, height: number } | undefined {
  if (size === undefined || size === 'auto') return undefined
  const [width, height] = size.split('x').map(Number) as [number, number]
  if (width > maxSide || height > maxSide) {
    throw new RequestError(400, 'invalid_value', `size is at most ${maxSide}x${maxSide} pixels, not ${size}`, 'size')
  }
  if (count * width * height > maxPixels) {
    throw new RequestError(400, 'invalid_value',
      `${count} pictures of ${size} have more than ${maxPixels} pixels: ask for fewer or smaller ones`, 'size')
  }
  return { width, height }
}
