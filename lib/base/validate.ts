// The checks that every public call shares. A caller's JavaScript may pass anything, and what reaches native code
// must be right; so each check returns the narrowed value or throws ParError INVALID_OPTION that names the option,
// the range and what was found instead.

import { types } from 'node:util'
import { ParError } from './errors.js'
import { absolute } from './files.js'
import { limits } from '../machine/limits.js'
import { isFloat32Array, isInt32Array, isUint8Array, isUint8ClampedArray, isUrl, nodeSignal } from './realm.js'
import { cut, visible } from './text.js'

export function invalid (message: string, options?: { cause?: unknown }): ParError {
  return new ParError('INVALID_OPTION', message, options)
}

/** What was found, short enough for a message. */
export function show (value: unknown): string {
  if (typeof value === 'string') {
    return value.length > 60 ? `'${visible(value.slice(0, 60))}...'` : `'${visible(value)}'`
  }
  if (typeof value === 'bigint') return `${cut(String(value), 60)}n`
  if (isRevoked(value)) return 'a Proxy that was revoked'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (ArrayBuffer.isView(value)) return `a ${visible(String(value.constructor?.name), 60)}`
  if (typeof value === 'function') return 'a function'
  if (isUrl(value)) return 'a URL (of a file: give fileURLToPath(url))'
  if (typeof value === 'object' && value !== null) return 'an object'
  return visible(String(value), 60) // a symbol may have any description
}

/** Nothing can be asked of a Proxy that was revoked: even Array.isArray() throws. */
function isRevoked (value: unknown): boolean {
  if (!types.isProxy(value)) return false
  try {
    Array.isArray(value)
    return false
  } catch {
    return true
  }
}

/** Something that has properties, and can be asked for them. */
export function isObject (value: unknown): value is object {
  return typeof value === 'object' && value !== null && !isRevoked(value)
}

export function isList (value: unknown): value is unknown[] {
  return isObject(value) && Array.isArray(value)
}

/** A typed array as it is now, in memory of its own. A transferred one has no elements, and is refused for that. */
export function snapshot<T> (value: T): T {
  const own = isInt32Array(value)
    ? Int32Array
    : isFloat32Array(value)
      ? Float32Array
      : isUint8Array(value)
        ? Uint8Array
        : isUint8ClampedArray(value)
          ? Uint8ClampedArray
          : undefined
  if (!own) return value
  const array = value as Uint8Array
  return (array.byteLength > 0 ? new own(array) : new own(0)) as T
}

/**
 * An options object, all of whose names are known; absent is empty. A misspelt option must not pass silently.
 * @returns a record of its own, each option read once, wherever it is: in a getter, in a class, or not enumerable
 */
export function optionsObject (value: unknown, call: string, known: readonly string[]): Record<string, unknown> {
  if (value === undefined) return {}
  if (!isObject(value) || isList(value) || ArrayBuffer.isView(value)) {
    throw invalid(`${call} takes an object of options, not ${show(value)}`)
  }
  const unknown = Object.keys(value).find(name => !known.includes(name))
  if (unknown !== undefined) throw invalid(`${call} has no option ${show(unknown)}; it knows ${known.join(', ')}`)
  const options: Record<string, unknown> = {}
  for (const name of known) {
    const option = (value as Record<string, unknown>)[name]
    if (option !== undefined) options[name] = option
  }
  return options
}

/** What a check finds now, to be told when somebody asks: what it throws, too. */
export function forLater<T> (check: () => T): () => T {
  try {
    const checked = check()
    return () => checked
  } catch (error) {
    return () => { throw error }
  }
}

export function integer (value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw invalid(`${name} must be an integer from ${least} to ${most}, not ${show(value)}`)
  }
  return value
}

export function finite (value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !(value >= least && value <= most)) {
    throw invalid(`${name} must be a number from ${least} to ${most}, not ${show(value)}`)
  }
  return value
}

export function boolean (value: unknown, name: string): boolean {
  if (typeof value !== 'boolean') throw invalid(`${name} must be true or false, not ${show(value)}`)
  return value
}

export function oneOf<T extends string> (value: unknown, name: string, choices: readonly T[]): T {
  if (!choices.includes(value as T)) {
    throw invalid(`${name} must be ${choices.map(show).join(' or ')}, not ${show(value)}`)
  }
  return value as T
}

export function nonEmptyString (value: unknown, name: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) {
    throw invalid(`${name} must be a non-empty string, not ${show(value)}`)
  }
  return value
}

/** The path of a folder, as of now: the working directory may change. */
export function folderPath (value: unknown, name: string): string {
  return absolute(nonEmptyString(value, name))
}

export function abortSignal (value: unknown, name = 'signal'): AbortSignal | undefined {
  if (value === undefined) return undefined
  const signal = value as AbortSignal
  if (!isObject(value) || typeof signal.aborted !== 'boolean' || typeof signal.addEventListener !== 'function') {
    throw invalid(`${name} must be an AbortSignal, not ${show(value)}`)
  }
  return nodeSignal(signal)
}

export function callback<T> (value: unknown, name: string): T | undefined {
  if (value !== undefined && typeof value !== 'function') {
    throw invalid(`${name} must be a function, not ${show(value)}`)
  }
  return value as T | undefined
}

/** What a callback returned: something to wait for, or not. */
export function isPromise (value: unknown): value is PromiseLike<unknown> {
  return isObject(value) && typeof (value as { then?: unknown }).then === 'function'
}

/** One number for both sides, or [rows, columns]. */
export function gridOption (value: unknown, name = 'grid'): [rows: number, columns: number] {
  const most = limits.gridSide
  if (isList(value)) {
    if (value.length !== 2) throw invalid(`${name} must be a number or [rows, columns], not ${show(value)}`)
    return [integer(value[0], `${name}[0]`, 1, most), integer(value[1], `${name}[1]`, 1, most)]
  }
  const side = integer(value, name, 1, most)
  return [side, side]
}

/** The same, or [frames, rows, columns] of a video. */
export function modelGridOption (
  value: unknown, name = 'grid'
): [rows: number, columns: number] | [frames: number, rows: number, columns: number] {
  if (!isList(value)) return gridOption(value, name)
  if (value.length !== 2 && value.length !== 3) {
    throw invalid(`${name} must be a number, [rows, columns] or [frames, rows, columns], not ${show(value)}`)
  }
  return [...value].map((side, k) => integer(side, `${name}[${k}]`, 1, limits.gridSide)) as [number, number]
}

/** Tokens of one picture: whole numbers of the vocabulary. */
export function tokenArray (value: unknown, name: string, vocabulary: number, length?: number): Int32Array {
  if (!isInt32Array(value)) throw invalid(`${name} must be an Int32Array, not ${show(value)}`)
  if (length !== undefined && value.length !== length) {
    throw invalid(`${name} must hold ${length} tokens, found ${value.length}`)
  }
  const wrong = value.findIndex(token => token < 0 || token >= vocabulary)
  if (wrong >= 0) throw invalid(`${name}[${wrong}] is ${value[wrong]}; tokens are 0 to ${vocabulary - 1}`)
  return value
}
