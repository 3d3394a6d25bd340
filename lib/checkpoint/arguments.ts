// The few training arguments that tell what shapes cannot: picture size, downsampling, number of classes... Trainers
// store them as numbers, as texts, as lists, as NumPy's numbers; under `args`, `config` or beside the weights. All of
// it is untrusted.

import type { Slices } from '../base/slices.js'
import { JsonError, readJson, type Json } from './json.js'
import { argumentNames as names, type ArgumentName, type Checkpoint } from './types.js'

/** Where trainers keep their arguments; '' is beside the weights. */
const places = ['args', '', 'config', 'cfg', 'hparams', 'hyper_parameters', 'hyper_parameters.args', 'opt', 'opts']

// ---- of the texts that the metadata of a .safetensors file are
const maxTextLength = 1e6
const maxDepth = 64
/** Memory that the values of one text may take while it is read. */
const textMemory = 64e6

/** Finds the arguments, in slices: each place is read once. */
export async function readArguments (checkpoint: Checkpoint, slices: Slices): Promise<void> {
  const found = new Map<ArgumentName, unknown>()
  for (const place of places) {
    const holder = place === ''
      ? checkpoint.metadata
      : place.split('.').reduce<unknown>((within, name) => field(within, name), checkpoint.metadata)
    const values = typeof holder === 'string' ? await fromJson(holder, slices) : (name: string) => field(holder, name)
    for (const name of names) {
      const value = values(name)
      if (value !== undefined && value !== null && !found.has(name)) found.set(name, value)
    }
  }
  checkpoint.trainingArguments = found
}

/** The value of the first of the places that has one. */
export function trainingArgument ({ trainingArguments }: Checkpoint, name: ArgumentName): unknown {
  return trainingArguments?.get(name)
}

function field (holder: unknown, name: string, depth = 0): unknown {
  if (typeof holder !== 'object' || holder === null) return undefined
  if (Object.hasOwn(holder, name)) return (holder as Record<string, unknown>)[name]
  // An object of an unknown class is its attributes.
  const state = Object.hasOwn(holder, 'global') && Object.hasOwn(holder, 'state')
    ? (holder as { state: unknown }).state
    : undefined
  return depth < 4 && state !== undefined ? field(state, name, depth + 1) : undefined
}

/** The fields of a text; of one that is no JSON object, none. */
async function fromJson (text: string, slices: Slices): Promise<(name: string) => Json | undefined> {
  if (text.length > maxTextLength || !/^\s*\{/.test(text)) return () => undefined
  try {
    const parsed = await readJson(Buffer.from(text), slices, { depth: maxDepth, memory: textMemory })
    return name => parsed instanceof Map ? shortened(parsed.get(name)) : undefined
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    return () => undefined
  }
}

/** A list that is no size is not kept: it may be long. */
function shortened (value: Json | undefined): Json | undefined {
  return Array.isArray(value) ? value.slice(0, 3) : value
}

/** A number: 256, 256.0, '256'. */
export function asNumber (value: unknown): number | undefined {
  if (typeof value === 'string' && /^\s*\d{1,9}(\.0*)?\s*$/.test(value)) return Number(value)
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Height and width: 256, '256', [256, 384], '256x384', '(256, 384)', [256]. */
export function asPair (value: unknown): [number, number] | undefined {
  if (typeof value === 'string' && value.length > 100) return undefined
  const list = typeof value === 'string'
    ? value.replace(/^\s*[[(]|[\])]\s*$/g, '').split(/[,x×*]/i).filter(part => part.trim() !== '')
    : Array.isArray(value)
      ? value as unknown[]
      : [value]
  if (list.length !== 1 && list.length !== 2) return undefined
  const [height, width] = [asNumber(list[0]), asNumber(list.at(-1))]
  return height === undefined || width === undefined ? undefined : [height, width]
}
