// What parvis writes beside the weights in its own .safetensors files: `__metadata__.parvis`, a JSON string. It tells
// what shapes cannot (heads, grid, class names, sampling defaults) and repeats what they can, as a check. It is read as
// untrusted as everything else in a file: types, ranges and agreement with the shapes.

import { limits } from '../machine/limits.js'
import { draws, type Draw } from '../decoding/sampling.js'
import type { Slices } from '../base/slices.js'
import { quote } from '../base/text.js'
import { bad } from './bad.js'
import { JsonError, readJson, type Json } from './json.js'
import type { Checkpoint } from './types.js'

/** Key in the `__metadata__` of a .safetensors file. */
export const metadataKey = 'parvis'

/** Default sampling options of a checkpoint. */
export interface SamplingDefaults {
  /** 0..1000; 1 is off. */
  guidanceScale?: number
  /** 0..1000; 0 takes the likeliest token. */
  temperature?: number
  /** Tokens kept; 0 is off. */
  topK?: number
  /** Above 0, at most 1; 1 is off. */
  topP?: number
  /** As the option of that name. */
  draw?: Draw
}

/** What a converted file was made of. */
interface Origin {
  /** Its name, without folders. */
  sourceFile?: string
  /** SHA-256 of the file, hexadecimal. */
  sourceSha256?: string
}

export interface TransformerMetadata extends Origin {
  kind: 'transformer'
  layers?: number
  dim?: number
  heads?: number
  vocabularySize?: number
  classes?: number
  n?: number
  /** Tokens: [rows, columns], or [frames, rows, columns] of a video. */
  grid?: [number, number] | [number, number, number]
  /** Pairs of a head's elements that are rotated by frame, by row and by column. */
  rotationPairs?: [number, number, number]
  /** ARPG: the raster cell with which every order begins that is drawn (lib/decoding/arpg.ts). */
  firstCell?: number
  /** Class names, by class id. */
  labels?: string[]
  sampling?: SamplingDefaults
  name?: string
  /** Hash of the codebook (hashes.ts) of the tokenizer that it belongs to. */
  codebookSha256?: string
}

export interface TokenizerMetadata extends Origin {
  kind: 'tokenizer'
  name?: string
  /** [height, width] of the pictures it was trained on, pixels. */
  imageSize?: [number, number]
  /** Of a tokenizer of videos: levels of each channel of a code. */
  levels?: number[]
  /** Hash of its codebook (hashes.ts), as it was before any rounding by a conversion. */
  codebookSha256?: string
}

export type ParvisMetadata = TransformerMetadata | TokenizerMetadata

/** Largest picture side that is believed. */
const maxImageSide = 65536
const maxLabels = 100_000
/** The smallest number that native code, which computes in float32, tells from 0. */
const leastTopP = 2 ** -126

/** Memory that the values of what parvis writes may take. */
const ownMemory = 32e6

/**
 * Parses `metadata.parvis` in slices; the text may be long. What is wrong with it is said by whoever describes the
 * model.
 */
export async function parseOwnMetadata (checkpoint: Checkpoint, slices: Slices): Promise<void> {
  const text = checkpoint.format === 'safetensors' ? checkpoint.metadata[metadataKey] : undefined
  if (typeof text !== 'string') return
  try {
    checkpoint.own = await readJson(Buffer.from(text), slices, { memory: ownMemory })
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    checkpoint.own = error
  }
}

/** Checks `metadata.parvis`; undefined where the file has none. Errors: BAD_CHECKPOINT, naming the field. */
export function readParvisMetadata (checkpoint: Checkpoint): ParvisMetadata | undefined {
  const parsed = checkpoint.own
  if (parsed === undefined) return undefined
  if (parsed instanceof JsonError) {
    throw bad(checkpoint.file, `__metadata__.${metadataKey} is no proper JSON: ${parsed.message}`, parsed)
  }
  if (!(parsed instanceof Map)) throw bad(checkpoint.file, `__metadata__.${metadataKey} is no JSON object`)
  const fields = new Fields(parsed, checkpoint.file)
  const kind = parsed.get('kind')
  if (kind === 'transformer') {
    return dropAbsent<TransformerMetadata>({
      kind,
      layers: fields.integer('layers', 1),
      dim: fields.integer('dim', 1),
      heads: fields.integer('heads', 1),
      vocabularySize: fields.integer('vocabularySize', 1),
      classes: fields.integer('classes', 0),
      n: fields.integer('n', 1),
      grid: fields.numbers('grid', [2, 3], 1, limits.gridSide) as TransformerMetadata['grid'],
      rotationPairs: fields.numbers('rotationPairs', [3], 0, limits.headSize) as TransformerMetadata['rotationPairs'],
      firstCell: fields.integer('firstCell', 0, limits.tokens - 1),
      labels: fields.labels(),
      sampling: fields.sampling(),
      name: fields.text('name'),
      codebookSha256: fields.sha256('codebookSha256'),
      sourceFile: fields.text('sourceFile'),
      sourceSha256: fields.sha256('sourceSha256')
    })
  }
  if (kind === 'tokenizer') {
    return dropAbsent<TokenizerMetadata>({
      kind,
      name: fields.text('name'),
      imageSize: fields.numbers('imageSize', [2], 1, maxImageSide) as TokenizerMetadata['imageSize'],
      levels: fields.numbers('levels', undefined, 2, 4096),
      codebookSha256: fields.sha256('codebookSha256'),
      sourceFile: fields.text('sourceFile'),
      sourceSha256: fields.sha256('sourceSha256')
    })
  }
  throw bad(checkpoint.file,
    `__metadata__.${metadataKey}.kind is ${typeof kind === 'string' ? quote(kind) : 'no string'}, expected ` +
      '"transformer" or "tokenizer"')
}

/** The part of a description that says what the file was converted from. */
export function sourceOf (metadata: ParvisMetadata | undefined): { source?: { file: string, sha256?: string } } {
  if (metadata?.sourceFile === undefined) return {}
  return {
    source: { file: metadata.sourceFile, ...(metadata.sourceSha256 !== undefined && { sha256: metadata.sourceSha256 }) }
  }
}

function dropAbsent<T extends object> (value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T
}

class Fields {
  constructor (
    private readonly map: Map<string, Json>, private readonly file: string, private readonly path = metadataKey
  ) {}

  oneOf<T extends string> (name: string, values: readonly T[]): T | undefined {
    const value = this.map.get(name)
    if (value === undefined || value === null) return undefined
    const found = values.find(one => one === value)
    if (!found) throw this.wrong(name, `one of ${values.join(', ')}`)
    return found
  }

  integer (name: string, least: number, most = 2 ** 31 - 1): number | undefined {
    const value = this.number(name, least, most)
    if (value !== undefined && !Number.isInteger(value)) throw this.wrong(name, 'a whole number')
    return value
  }

  number (name: string, least: number, most: number): number | undefined {
    const value = this.map.get(name)
    if (value === undefined || value === null) return undefined
    if (typeof value !== 'number' || !(value >= least && value <= most)) {
      throw this.wrong(name, `a number from ${least} to ${most}`)
    }
    return value
  }

  text (name: string): string | undefined {
    const value = this.map.get(name)
    if (value === undefined || value === null) return undefined
    if (typeof value !== 'string' || value.length > 1000) throw this.wrong(name, 'a string of at most 1000 characters')
    return value
  }

  sha256 (name: string): string | undefined {
    const value = this.map.get(name)
    if (value === undefined || value === null) return undefined
    if (typeof value !== 'string' || !/^[0-9a-f]{64}$/.test(value)) throw this.wrong(name, '64 hexadecimal digits')
    return value
  }

  /** A list of so many whole numbers; of 1 to `limits.codeSize` where nothing is said. */
  numbers (name: string, counts: readonly number[] | undefined, least: number, most: number): number[] | undefined {
    const value = this.map.get(name)
    if (value === undefined || value === null) return undefined
    const good = (number: Json): number is number =>
      typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most
    const many = (length: number): boolean =>
      counts ? counts.includes(length) : length >= 1 && length <= limits.codeSize
    if (!Array.isArray(value) || !many(value.length) || !value.every(good)) {
      const words = ['', 'one', 'two', 'three']
      const count = counts?.map(count => words[count]).join(' or ') ?? `1 to ${limits.codeSize}`
      throw this.wrong(name, `${count} whole numbers from ${least} to ${most}`)
    }
    return [...value]
  }

  labels (): string[] | undefined {
    const value = this.map.get('labels')
    if (value === undefined || value === null) return undefined
    if (!Array.isArray(value) || value.length > maxLabels ||
      !value.every(label => typeof label === 'string' && label.length <= 1000)) {
      throw this.wrong('labels', 'a list of class names')
    }
    return value as string[]
  }

  sampling (): SamplingDefaults | undefined {
    const value = this.map.get('sampling')
    if (value === undefined || value === null) return undefined
    if (!(value instanceof Map)) throw this.wrong('sampling', 'an object')
    const fields = new Fields(value, this.file, `${this.path}.sampling`)
    return dropAbsent({
      guidanceScale: fields.number('guidanceScale', 0, 1000),
      temperature: fields.number('temperature', 0, 1000),
      topK: fields.integer('topK', 0),
      topP: fields.number('topP', leastTopP, 1),
      draw: fields.oneOf('draw', draws)
    })
  }

  private wrong (name: string, expected: string): Error {
    return bad(this.file, `__metadata__.${this.path}.${name} is not ${expected}`)
  }
}
