// Class names. A caller may say 7 or 'ankle boot'; native code knows numbers only. A name matches a whole label, or
// one of its synonyms where the label lists several ('tench, Tinca tinca'), without regard to case. Nothing is
// guessed: a part of a name is an error that says which labels come near, and a name of several classes ('crane' is a
// bird and a machine, 'maillot' one of two bathing suits) is one that says which.

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
    throw new ParError('BAD_CLASS_ID', `The name ${show(value)} is that of several classes: ${found.join(', ')} (${found.map(id => `'${labels[id]}'`).join(', ')}). Give the number`)
  }
  const near = name === '' ? [] : matches(labels, label => normal(label).includes(name) || name.includes(normal(label))).slice(0, 5)
  const hint = near.length > 0
    ? `Did you mean ${near.map(id => `'${labels[id]}' (${id})`).join(' or ')}?`
    : `Some names: ${labels.slice(0, 10).map(label => `'${label}'`).join(', ')}`
  throw new ParError('BAD_CLASS_ID', `No class is called ${show(value)}. ${hint}`)
}

function normal (name: string): string {
  return name.trim().toLowerCase().replace(/['’]/g, '').replace(/[\s_-]+/g, ' ').replace(/ ?, ?/g, ', ')
}

/** Classes a part of whose name is `text`. */
export function searchLabels (labels: readonly string[], text: string): number[] {
  return matches(labels, label => normal(label).includes(normal(text)))
}

function matches (labels: readonly string[], test: (label: string) => boolean): number[] {
  return labels.flatMap((label, id) => test(label) ? [id] : [])
}
