// Tokens as callers give them: one picture or a list, copied and checked as far as that needs no model.

import { isInt32Array, trueLength } from '../base/realm.js'
import { invalid, isList, show, snapshot } from '../base/validate.js'

/** Entries of one list; far below what numbers could hold, far above what a call should take. */
export const maxImages = 65536

/** Tokens of one picture, raster order, [rows * columns]: an Int32Array, or plain numbers, as JSON has them. */
export type Tokens = Int32Array | readonly number[]

/** Tokens that one picture may have; far above any real grid. */
export const maxTokens = 1 << 20

/**
 * One array of tokens or a list of them, copied, because callers may go on with theirs while the call runs. What the
 * tokens are is checked where vocabulary and length are known.
 */
export function tokenList (value: unknown, name: string): { list: unknown[], single: boolean } {
  if (isInt32Array(value)) return { list: [ownTokens(value, name)], single: true }
  if (!isList(value)) {
    throw invalid(`${name} must be an Int32Array, an array of numbers, or a list of these, not ${show(value)}`)
  }
  if (typeof value[0] === 'number') return { list: [wholeNumbers(value, name)], single: true }
  if (value.length === 0 || value.length > maxImages) {
    throw invalid(`${name} must hold 1 to ${maxImages} pictures, not ${value.length}`)
  }
  return {
    list: Array.from(
      value, (item: unknown, i) => isList(item) ? wholeNumbers(item, `${name}[${i}]`) : ownTokens(item, `${name}[${i}]`)
    ), single: false
  }
}

function ownTokens (value: unknown, name: string): unknown {
  if (!isInt32Array(value)) return value
  const length = trueLength(value)
  if (length > maxTokens) throw invalid(`${name} has ${length} numbers; a picture has at most ${maxTokens} tokens`)
  return snapshot(value)
}

function wholeNumbers (values: readonly unknown[], name: string): Int32Array {
  if (values.length > maxTokens) {
    throw invalid(`${name} has ${values.length} numbers; a picture has at most ${maxTokens} tokens`)
  }
  const tokens = new Int32Array(values.length)
  for (let i = 0; i < tokens.length; i++) {
    const value = values[i]
    tokens[i] = value as number
    if (tokens[i] !== value) throw invalid(`${name}[${i}] must be a whole number, not ${show(value)}`)
  }
  return tokens
}
