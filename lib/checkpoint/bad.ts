// How a checkpoint is refused. Text out of a file is shown by `quote`.

import { ParError } from '../base/errors.js'
import { quote, shownPath } from '../base/text.js'

/** A ParError `BAD_CHECKPOINT` that starts with the file. */
export function bad (file: string, message: string, cause?: unknown): ParError {
  return new ParError('BAD_CHECKPOINT', `${shownPath(file)}: ${message}`, cause === undefined ? undefined : { cause })
}

/** The refusal of an entry of the weights that is no plain tensor; `what` is as in Checkpoint.odd. */
export function oddTensor (file: string, name: string, what: string): ParError {
  return bad(file, `${quote(name)} of the weights is ${what}. ` +
    'parvis never runs code from a checkpoint: save the plain state_dict() of the model, with plain tensors.')
}

/** `[2, 3]`; long shapes are cut. */
export function showShape (shape: readonly number[]): string {
  return shape.length > 8 ? `[${shape.slice(0, 8).join(', ')}, ...]` : `[${shape.join(', ')}]`
}

/** A byte count for people: `1.5 GB`. */
export function showBytes (bytes: number): string {
  const units = ['bytes', 'KB', 'MB', 'GB', 'TB']
  let unit = 0
  let value = bytes
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit++ }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}
