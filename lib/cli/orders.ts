// Orders of tokens from a JSON file: one list of cells, or a list of such lists, of which picture i takes entry i.
// LPD's authors publish files of 60,000 orders, 55 MB and more.

import { readWhole } from '../base/files.js'
import { shownPath, withoutMark } from '../base/text.js'
import { limits } from '../machine/limits.js'
import { UsageError } from './terminal.js'

/** Text of 60,000 orders of 1,024 cells is 300 MB. */
const maxBytes = 480 << 20

/** @param count pictures, each of which has an order */
export async function readOrders (
  file: string, count: number, signal: AbortSignal
): Promise<number[] | number[][]> {
  const fault = (why: string): UsageError => new UsageError(`${shownPath(file)}: ${why}; --token-order takes a JSON ` +
    'list of cells, or a list of such lists')
  const bytes = await readWhole(file, { limit: maxBytes, pipes: true, check: () => signal.throwIfAborted() })
  let value: unknown
  try {
    value = JSON.parse(withoutMark(bytes).toString())
  } catch {
    throw fault('no JSON')
  }
  const isOrder = (one: unknown): one is number[] =>
    Array.isArray(one) && one.length <= limits.tokens && one.every(cell => typeof cell === 'number')
  if (!Array.isArray(value)) throw fault('no list')
  if (isOrder(value)) return value
  if (value.length < count) throw fault(`${value.length} orders for ${count} pictures`)
  const orders = value.slice(0, count)
  if (!orders.every(isOrder)) throw fault('an entry is no list of numbers')
  return orders
}
