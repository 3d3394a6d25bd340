// Text on the command line -> values. Only what the line itself can decide is checked here (is it a number, does
// the list parse); whether a value suits the model is the API's question, and its errors are shown as they are.

import { InvalidArgumentError } from 'commander'
import { resolveClass } from '../models/labels.js'
import type { Device } from '../machine/device.js'

/** An integer of at least `least`, and at most as large as numbers of JavaScript are exact unless `most` says less. */
export function integer (least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return text => {
    const value = Number(text)
    if (!/^[+-]?\d+$/.test(text) || value < least) {
      throw new InvalidArgumentError(`Give a whole number of at least ${least}.`)
    }
    if (value > most) throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`)
    return value
  }
}

/** Numbers between commas, each as {@link integer} has it. */
export function integers (least: number): (text: string) => number[] {
  const one = integer(least)
  return text => text.split(',').map(part => one(part.trim()))
}

export function real (text: string): number {
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('Give a number.')
  if (!Number.isFinite(value)) {
    throw new InvalidArgumentError(`Give a number from ${-Number.MAX_VALUE} to ${Number.MAX_VALUE}.`)
  }
  return value
}

/** Two numbers of at least 1, or one for both; undefined for any other text. */
function sides (text: string, separators: string): [first: number, second: number, isOne: boolean] | undefined {
  const match = new RegExp(`^(\\d+)(?:[${separators}](\\d+))?$`, 'i').exec(text)
  if (!match) return undefined
  const [first, second] = [Number(match[1]), Number(match[2] ?? match[1])]
  if (Math.max(first, second) > Number.MAX_SAFE_INTEGER) {
    throw new InvalidArgumentError(`Give whole numbers from 1 to ${Number.MAX_SAFE_INTEGER}.`)
  }
  return Math.min(first, second) < 1 ? undefined : [first, second, match[2] === undefined]
}

/** `24x24`, or `24` for a square. */
export function grid (text: string): [number, number] {
  const found = sides(text, 'x×,')
  if (!found) throw new InvalidArgumentError('Give rows and columns of tokens, such as 24x24.')
  return [found[0], found[1]]
}

/** The same, or `5x16x16`: frames, rows and columns. */
export function modelGrid (text: string): [number, number] | [number, number, number] {
  const three = /^(\d{1,6})[x×,](\d{1,6})[x×,](\d{1,6})$/.exec(text)
  if (!three) return grid(text)
  const sides = three.slice(1).map(Number) as [number, number, number]
  if (sides.includes(0)) throw new InvalidArgumentError('Give frames, rows and columns of tokens, such as 5x16x16.')
  return sides
}

/** `8,12,12`: pairs by frame, row and column. */
export function rotationPairs (text: string): [number, number, number] {
  const three = /^(\d{1,6})[x×,](\d{1,6})[x×,](\d{1,6})$/.exec(text)
  if (!three) throw new InvalidArgumentError('Give the pairs of frame, row and column, such as 8,12,12.')
  return three.slice(1).map(Number) as [number, number, number]
}

/** `8,8,8,5,5,5`: levels of each channel. */
export function levels (text: string): number[] {
  const found = text.split(',').map(Number)
  if (!/^\d{1,5}(,\d{1,5})*$/.test(text) || found.some(level => level < 2)) {
    throw new InvalidArgumentError('Give the levels of each channel, such as 8,8,8,5,5,5.')
  }
  return found
}

/** `256`, or `256x192` (width by height). */
export function size (text: string): number | { width: number, height: number } {
  const found = sides(text, 'x×')
  if (!found) throw new InvalidArgumentError('Give pixels, such as 256 or 256x192 (width by height).')
  const [width, height, square] = found
  return square ? width : { width, height }
}

/** The name of a file that is read. */
export function fileName (text: string): string {
  if (text === '') throw new InvalidArgumentError('Give the name of a file.')
  return text
}

export function device (text: string): Device {
  if (!/^(auto|cpu|cuda|cuda:\d{1,4})$/.test(text)) {
    throw new InvalidArgumentError('Give auto, cpu, cuda or cuda:<number>.')
  }
  return text as Device
}

/** Repeatable option: gathers the values as they are. */
export function collect (text: string, before: string[] = []): string[] {
  return [...before, text]
}

/**
 * Class ids and names from `--class` values, each a comma list of both. A value that is a class name as it stands
 * (names may hold commas) is taken whole.
 */
export function classList (
  values: readonly string[], classes: number, labels: readonly string[] | undefined
): number[] {
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
