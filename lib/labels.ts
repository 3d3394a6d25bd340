// Class names. A caller may say 7 or 'ankle boot'; native code knows numbers only. A name matches a whole label, or
// one of its synonyms where the label lists several ('tench, Tinca tinca'), without regard to case. Nothing is
// guessed: a part of a name and a mistyped name are errors that say which labels come near, and a name of several
// classes ('crane' is a bird and a machine, 'maillot' one of two bathing suits) is one that says which.

import { ParError } from './errors.js'
import { invalid, show } from './validate.js'

/** A class: its number, 0 .. classes - 1, or its name where the model has names. */
export type ClassId = number | string

/**
 * The class number that a caller means.
 * @throws ParError `BAD_CLASS_ID` out of range, unknown or ambiguous; `INVALID_OPTION` of another type.
 */
export function resolveClass (value: unknown, classes: number, labels?: readonly string[]): number {
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0 && value < classes) return value
    throw new ParError('BAD_CLASS_ID', `There is no class ${value}: class ids of this model are 0 to ${classes - 1}`)
  }
  if (typeof value !== 'string') throw invalid(`classId must be a number, a name or a list of these, not ${show(value)}`)
  if (!labels) throw new ParError('BAD_CLASS_ID', `This model has no class names, so ${show(value)} means nothing to it; class ids are 0 to ${classes - 1}`)

  const name = normal(value)
  // A list of synonyms is a name too, and stands above the single ones.
  const whole = name.includes(',') ? matches(labels, label => normal(label) === name) : []
  const found = whole.length > 0 ? whole : matches(labels, label => label.split(',').some(part => normal(part) === name))
  if (found.length === 1) return found[0]!
  if (found.length > 1) {
    throw new ParError('BAD_CLASS_ID', `The name ${show(value)} is that of several classes: ${found.join(', ')} (${found.map(id => show(labels[id])).join(', ')}). Give the number`)
  }
  const near = nearest(name, labels)
  const hint = near.length > 0
    ? `Did you mean ${near.map(id => `${show(labels[id])} (${id})`).join(' or ')}?`
    : `Some names: ${labels.slice(0, 10).map(show).join(', ')}`
  throw new ParError('BAD_CLASS_ID', `No class is called ${show(value)}. ${hint}`)
}

function normal (name: string): string {
  return name.toLowerCase().replace(/['’]/g, '').replace(/[\s_-]+/g, ' ').replace(/ ?, ?/g, ', ').trim()
}

// ---- names that come near

/** Labels that a message proposes at most. */
const mostProposed = 5
/** Longer names are not compared letter by letter: they are no typing mistakes. */
const longestCompared = 40

/**
 * Classes whose names come near: those with the text among their words, then those that a few typing mistakes turn into it
 * ('snaker' is near 'sneaker'), then those that hold it within a word.
 */
function nearest (name: string, labels: readonly string[]): number[] {
  if (name.length < 2) return []
  const allowed = name.length < 3 || name.length > longestCompared ? 0 : Math.ceil(name.length / 4)
  const found: Array<[id: number, distance: number]> = []
  for (const [id, label] of labels.entries()) {
    const own = normal(label)
    if (` ${own}`.includes(` ${name}`) || (own.length > 1 && ` ${name} `.includes(` ${own} `))) found.push([id, 0])
    else {
      const mistakes = allowed === 0 ? Infinity : Math.min(...own.split(', ').map(part => mistakesBetween(name, part, allowed)))
      if (mistakes <= allowed) found.push([id, mistakes])
      else if (own.includes(name)) found.push([id, allowed + 1])
    }
  }
  return found.sort((a, b) => a[1] - b[1] || a[0] - b[0]).slice(0, mostProposed).map(([id]) => id)
}

/**
 * How many letters have to be put in, left out, replaced or swapped with their neighbour to turn one text into the other
 * (optimal string alignment distance); Infinity where that is more than `allowed`.
 */
export function mistakesBetween (a: string, b: string, allowed: number): number {
  if (Math.abs(a.length - b.length) > allowed) return Infinity
  let before: number[] = []
  let above = Array.from({ length: b.length + 1 }, (_, k) => k)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let k = 1; k <= b.length; k++) {
      const same = a[i - 1] === b[k - 1]
      let mistakes = Math.min(above[k]! + 1, row[k - 1]! + 1, above[k - 1]! + (same ? 0 : 1))
      if (i > 1 && k > 1 && a[i - 1] === b[k - 2] && a[i - 2] === b[k - 1]) mistakes = Math.min(mistakes, before[k - 2]! + 1)
      row.push(mistakes)
    }
    if (Math.min(...row) > allowed) return Infinity // it only grows from row to row
    ;[before, above] = [above, row]
  }
  return above[b.length]! <= allowed ? above[b.length]! : Infinity
}

/** Classes a part of whose name is `text`. */
export function searchLabels (labels: readonly string[], text: string): number[] {
  return matches(labels, label => normal(label).includes(normal(text)))
}

function matches (labels: readonly string[], test: (label: string) => boolean): number[] {
  return labels.flatMap((label, id) => test(label) ? [id] : [])
}
