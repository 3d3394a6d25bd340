// The few training arguments that tell what shapes cannot: picture size, downsampling, number of classes. Trainers store
// them as numbers, as texts, as lists, as NumPy's numbers; under `args`, `config` or beside the weights. All of it is untrusted.

import type { Checkpoint } from './types.js'

/** Where trainers keep their arguments; '' is beside the weights. */
const places = ['args', '', 'config', 'cfg', 'hparams', 'hyper_parameters', 'opt', 'opts']

/** The value of the first of the places that has one. */
export function trainingArgument (checkpoint: Checkpoint, name: string): unknown {
  for (const place of places) {
    const value = field(place === '' ? checkpoint.metadata : field(checkpoint.metadata, place), name)
    if (value !== undefined && value !== null) return value
  }
  return undefined
}

function field (holder: unknown, name: string, depth = 0): unknown {
  if (typeof holder === 'string') return fromJson(holder, name)
  if (typeof holder !== 'object' || holder === null) return undefined
  if (Object.hasOwn(holder, name)) return (holder as Record<string, unknown>)[name]
  // An object of an unknown class is its attributes.
  const state = Object.hasOwn(holder, 'global') && Object.hasOwn(holder, 'state') ? (holder as { state: unknown }).state : undefined
  return depth < 4 && state !== undefined ? field(state, name, depth + 1) : undefined
}

/** The metadata of a .safetensors file are texts. */
function fromJson (text: string, name: string): unknown {
  if (text.length > 1e6 || !/^\s*\{/.test(text)) return undefined
  try {
    const parsed: unknown = JSON.parse(text)
    return typeof parsed === 'object' && parsed !== null && Object.hasOwn(parsed, name) ? (parsed as Record<string, unknown>)[name] : undefined
  } catch {
    return undefined
  }
}

/** A number: 256, 256.0, '256'. */
export function asNumber (value: unknown): number | undefined {
  if (typeof value === 'string' && /^\s*\d{1,9}(\.0*)?\s*$/.test(value)) return Number(value)
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Height and width: 256, '256', [256, 384], '256x384', '(256, 384)', [256]. */
export function asPair (value: unknown): [number, number] | undefined {
  if (typeof value === 'string' && value.length > 100) return undefined
  const list = typeof value === 'string' ? value.replace(/^\s*[[(]|[\])]\s*$/g, '').split(/[,x×*]/i).filter(part => part.trim() !== '') : Array.isArray(value) ? value as unknown[] : [value]
  if (list.length !== 1 && list.length !== 2) return undefined
  const [height, width] = [asNumber(list[0]), asNumber(list.at(-1))]
  return height === undefined || width === undefined ? undefined : [height, width]
}
