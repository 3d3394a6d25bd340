// Class names. A caller may say 7 or 'ankle boot'; native code knows numbers only. A name matches a whole label, or
// one of its synonyms where the label lists several ('tench, Tinca tinca'), without regard to case. Nothing is
// guessed: a part of a name and a mistyped name are errors that say which labels come near, and a name of several
// classes ('crane' is a bird and a machine, 'maillot' one of two bathing suits) is one that says which.

import { ParError } from '../base/errors.js'
import type { Pause } from '../pictures/resample.js'
import { invalid, show } from '../base/validate.js'

/** Names or numbers that a message lists at most. */
const maxListed = 10

/**
 * A class: its number, 0 .. classes - 1, or its name where the model has names: a whole label or one of its synonyms,
 * without regard to case. Digits in a string ('7', as parameters of an address are) are the number, unless a class has
 * that name.
 */
export type ClassId = number | string

/** The labels of one model, normalised. */
interface Index {
  /** By class. */
  names: string[]
  /** Classes by whole label. */
  whole: Map<string, number[]>
  /** Classes by synonym. */
  synonyms: Map<string, number[]>
  longest: number
}

const indexes = new WeakMap<readonly string[], Index>()

/** Yields between labels, so that a caller may let the event loop go on. */
function * buildIndex (labels: readonly string[]): Generator<undefined, Index> {
  const index: Index = { names: [], whole: new Map(), synonyms: new Map(), longest: 0 }
  const add = (map: Map<string, number[]>, name: string, id: number): void => {
    const ids = map.get(name)
    if (!ids) map.set(name, [id])
    else if (ids.at(-1) !== id) ids.push(id)
  }
  for (const [id, label] of labels.entries()) {
    const name = normal(label)
    index.names.push(name)
    index.longest = Math.max(index.longest, label.length)
    add(index.whole, name, id)
    for (const part of label.split(',')) add(index.synonyms, normal(part), id)
    yield
  }
  indexes.set(labels, index)
  return index
}

function indexOf (labels: readonly string[]): Index {
  const known = indexes.get(labels)
  if (known) return known
  const building = buildIndex(labels)
  for (;;) {
    const { value, done } = building.next()
    if (done) return value
  }
}

/**
 * The class number that a caller means.
 * @throws ParError `BAD_CLASS_ID` out of range, unknown or ambiguous; `INVALID_OPTION` of another type.
 */
export function resolveClass (value: unknown, classes: number, labels?: readonly string[]): number {
  if (typeof value === 'number') return inRange(value, classes)
  if (typeof value !== 'string') {
    throw invalid(`classId must be a number, a name or a list of these, not ${show(value)}`)
  }
  const digits = /^\s*\d{1,15}\s*$/.test(value)
  if (!labels) {
    if (digits) return inRange(Number(value), classes)
    throw new ParError('BAD_CLASS_ID',
      `This model has no class names, so ${show(value)} means nothing to it; class ids are 0 to ${classes - 1}`)
  }

  const index = indexOf(labels)
  const name = value.length > 2 * index.longest + 64 ? '' : normal(value) // longer than any label: no name
  // A list of synonyms is a name too, and stands above the single ones. An empty text means no class, whatever labels
  // there are.
  const found = name === '' ? [] : (name.includes(',') && index.whole.get(name)) || index.synonyms.get(name) || []
  if (found.length === 1) return found[0]!
  if (found.length > 1) {
    const some = found.slice(0, maxListed)
    const more = found.length > some.length ? ` and ${found.length - some.length} more` : ''
    throw new ParError('BAD_CLASS_ID',
      `The name ${show(value)} is that of several classes: ${some.join(', ')}${more} ` +
        `(${some.map(id => show(labels[id])).join(', ')}). Give the number`)
  }
  if (digits) return inRange(Number(value), classes)
  const near = nearest(name, index.names)
  const hint = near.length > 0
    ? `Did you mean ${near.map(id => `${show(labels[id])} (${id})`).join(' or ')}?`
    : `Some names: ${labels.slice(0, maxListed).map(show).join(', ')}`
  throw new ParError('BAD_CLASS_ID', `No class is called ${show(value)}. ${hint}`)
}

function inRange (id: number, classes: number): number {
  if (Number.isInteger(id) && id >= 0 && id < classes) return id
  throw new ParError('BAD_CLASS_ID', `There is no class ${id}: class ids of this model are 0 to ${classes - 1}`)
}

/** {@link resolveClass} of a list; lets the event loop go on, because lists of names and of labels may be long. */
export async function resolveClasses (
  values: readonly unknown[], classes: number, labels: readonly string[] | undefined, pause: Pause
): Promise<number[]> {
  if (labels && !indexes.has(labels)) {
    for (const _ of buildIndex(labels)) {
      const waiting = pause()
      if (waiting) await waiting
    }
  }
  const ids: number[] = []
  for (const value of values) {
    ids.push(resolveClass(value, classes, labels))
    const waiting = pause()
    if (waiting) await waiting
  }
  return ids
}

function normal (name: string): string {
  return name.toLowerCase().replace(/['’]/g, '').replace(/[\s_-]+/g, ' ').replace(/ ?, ?/g, ', ').trim()
}

/** Classes a part of whose name is `text`. */
export function searchLabels (labels: readonly string[], text: string): number[] {
  const part = normal(text)
  return indexOf(labels).names.flatMap((name, id) => name.includes(part) ? [id] : [])
}

// ---- names that come near

/** Labels that a message proposes at most. */
const maxProposed = 5
/** Longer names are not compared letter by letter: they are no typing mistakes. */
const longestCompared = 40
/** Pairs of letters that are compared for one name, some 50 ms: tens of thousands of labels of usual lengths. */
const maxCompared = 1 << 22

/**
 * Classes whose names come near: those with the text among their words, then those that a few typing mistakes turn into
 * it ('snaker' is near 'sneaker'), then those that hold it within a word.
 */
function nearest (name: string, names: readonly string[]): number[] {
  if (name.length < 2) return []
  const allowed = name.length < 3 || name.length > longestCompared ? 0 : Math.ceil(name.length / 4)
  const found: Array<[id: number, distance: number]> = []
  let left = maxCompared
  const mistakesIn = (part: string): number => {
    if (left < 0 || Math.abs(name.length - part.length) > allowed) return Infinity
    left -= name.length * Math.min(part.length, 2 * allowed + 1)
    return mistakesBetween(name, part, allowed)
  }
  for (const [id, own] of names.entries()) {
    if (` ${own}`.includes(` ${name}`) || (own.length > 1 && ` ${name} `.includes(` ${own} `))) found.push([id, 0])
    else {
      const mistakes = allowed === 0 ? Infinity : Math.min(...own.split(', ').map(mistakesIn))
      if (mistakes <= allowed) found.push([id, mistakes])
      else if (own.includes(name)) found.push([id, allowed + 1])
    }
  }
  return found.sort((a, b) => a[1] - b[1] || a[0] - b[0]).slice(0, maxProposed).map(([id]) => id)
}

/**
 * How many letters have to be put in, left out, replaced or swapped with their neighbour to turn one text into the
 * other (optimal string alignment distance); Infinity where that is more than `allowed`.
 */
export function mistakesBetween (a: string, b: string, allowed: number): number {
  if (Math.abs(a.length - b.length) > allowed) return Infinity
  const [width, beyond] = [b.length + 1, allowed + 1]
  let [before, above, row] = [new Uint16Array(width), Uint16Array.from({ length: width }, (_, k) => k),
    new Uint16Array(width)]
  for (let i = 1; i <= a.length; i++) {
    // Farther from the diagonal there are more letters to put in or leave out than are allowed.
    const [from, to] = [Math.max(1, i - allowed), Math.min(b.length, i + allowed)]
    let least = row[from - 1] = from === 1 ? i : beyond
    for (let k = from; k <= to; k++) {
      const letter = a.charCodeAt(i - 1)
      const other = b.charCodeAt(k - 1)
      let mistakes = Math.min(above[k]! + 1, row[k - 1]! + 1, above[k - 1]! + (letter === other ? 0 : 1))
      if (i > 1 && k > 1 && letter === b.charCodeAt(k - 2) && a.charCodeAt(i - 2) === other) {
        mistakes = Math.min(mistakes, before[k - 2]! + 1)
      }
      row[k] = mistakes
      least = Math.min(least, mistakes)
    }
    if (to < b.length) row[to + 1] = beyond
    if (least > allowed) return Infinity // it only grows from row to row
    ;[before, above, row] = [above, row, before]
  }
  return above[b.length]! <= allowed ? above[b.length]! : Infinity
}
