// The plans of calls, by their options.

import type { TransformerPart } from '../models/models.js'
import { invalid } from '../base/validate.js'
import type { Plan } from './decoder.js'
import type { CheckedDecoding } from './options.js'

/** Plans of calls of a part, by their options: a burst of calls must not plan the same thousands of times. */
const planned = new WeakMap<TransformerPart, Map<string, Plan>>()
const maxPlanned = 16

/** The plan of a call; an n that does not fit the grid and transition tokens that are not there are errors. */
export function planFor (part: TransformerPart, options: CheckedDecoding): Plan {
  const known = planned.get(part) ?? new Map<string, Plan>()
  const key = JSON.stringify({ ...options, tokenOrder: options.tokenOrder !== undefined })
  const found = known.get(key)
  if (found) return found
  const plan = part.decoder.plan(options)
  if (known.size >= maxPlanned) known.clear()
  planned.set(part, known.set(key, plan))
  return plan
}

/** The order of each picture that a caller gave. @throws ParError `INVALID_OPTION` */
export function ordersOf (orders: readonly Int32Array[] | undefined, { tokens }: Plan): readonly Int32Array[] {
  for (const order of orders ?? []) {
    const isThere = new Uint8Array(tokens)
    for (const cell of order) if (cell < tokens) isThere[cell] = 1
    if (order.length !== tokens || isThere.includes(0)) {
      throw invalid(`tokenOrder must hold each of the cells 0 to ${tokens - 1} once; it has ${order.length} entries`)
    }
  }
  return orders ?? []
}
