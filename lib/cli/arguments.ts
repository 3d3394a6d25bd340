// Text on the command line -> values. Only what the line itself can decide is checked here (is it a number, does
// the list parse); whether a value suits the model is the API's question, and its errors are shown as they are.

import { InvalidArgumentError } from 'commander'
import { resolveClass } from '../labels.js'

/** An integer of at least `least`. */
export function integer (least: number): (text: string) => number {
  return text => {
    const value = Number(text)
    if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`Give a whole number of at least ${least}.`)
    }
    return value
  }
}

export function real (text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Give a number.')
  return value
}

/** `24x24`, or `24` for a square. */
export function grid (text: string): [number, number] {
  const match = /^(\d+)(?:[x×,](\d+))?$/i.exec(text)
  const [rows, columns] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
  if (!match || rows < 1 || columns < 1) throw new InvalidArgumentError('Give rows and columns of tokens, such as 24x24.')
  return [rows, columns]
}

/** `256`, or `256x192` (width by height). */
export function size (text: string): number | { width: number, height: number } {
  const match = /^(\d+)(?:[x×](\d+))?$/i.exec(text)
  const [width, height] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
  if (!match || width < 1 || height < 1) throw new InvalidArgumentError('Give pixels, such as 256 or 256x192 (width by height).')
  return match[2] === undefined ? width : { width, height }
}

/** Repeatable option: gathers the values as they are. */
export function collect (text: string, before: string[] = []): string[] {
  return [...before, text]
}

/**
 * Class ids and names from `--class` values, each a comma list of both. A value that is a class name as it stands
 * (names may hold commas) is taken whole.
 */
export function classList (values: readonly string[], classes: number, labels: readonly string[] | undefined): number[] {
  const isNumber = (text: string): boolean => /^[+-]?\d+$/.test(text)
  return values.flatMap(value => {
    if (value.includes(',')) {
      try {
        return [resolveClass(value, classes, labels)]
      } catch {} // not one name, so a list
    }
    const parts = value.split(',').map(part => part.trim()).filter(Boolean)
    return parts.map(part => resolveClass(isNumber(part) ? Number(part) : part, classes, labels))
  })
}
