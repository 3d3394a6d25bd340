// Turns values of a pickle into plain data for listing (`parvis inspect`) and for the few training arguments that are
// read. The graph in a pickle may be cyclic or expand without bound (each list holding the one before twice), so the
// walk has a depth and a budget of nodes; what lies beyond is '...'. Objects have no prototype: keys are hostile.

import { numpyValue } from './numpy.js'
import { Bytes, Global, Inert, PersistentId, Tuple } from './pickle.js'

const maxDepth = 16
const maxNodes = 20_000

/** One walk has one budget, whatever the graph shares. */
export class PlainWalk {
  private nodes = 0

  /** Plain data: null, boolean, number, string, arrays and objects without prototype. */
  convert (value: unknown, depth = 0): unknown {
    if (value === null || typeof value === 'boolean' || typeof value === 'number') return value
    if (++this.nodes > maxNodes || depth > maxDepth) return '...'
    if (typeof value === 'string') return value.length > 10_000 ? `${value.slice(0, 10_000)}...` : value
    if (typeof value === 'bigint') return value.toString()
    if (value instanceof Global) return value.id.replace(' ', '.')
    if (value instanceof Bytes) return `<${value.length} bytes>`
    if (value instanceof PersistentId) return '<storage>'
    if (value instanceof Tuple) return this.list(value.items, depth)
    if (Array.isArray(value) || value instanceof Set) return this.list(value, depth)
    if (value instanceof Map) return this.record(value, depth)
    if (value instanceof Inert) return this.inert(value, depth)
    return '<tensor>'
  }

  private list (values: Iterable<unknown>, depth: number): unknown[] {
    const list: unknown[] = []
    for (const value of values) {
      list.push(this.convert(value, depth + 1))
      if (++this.nodes > maxNodes) break
    }
    return list
  }

  private record (map: Map<unknown, unknown>, depth: number): Record<string, unknown> {
    const record = Object.create(null) as Record<string, unknown>
    for (const [key, value] of map) {
      const name = typeof key === 'object' ? `<${key === null ? 'None' : 'object'}>` : String(key)
      record[name.slice(0, 1000)] = this.convert(value, depth + 1)
      if (++this.nodes > maxNodes) break
    }
    return record
  }

  private inert (value: Inert, depth: number): unknown {
    const number = numpyValue(value)
    if (number !== undefined) return number
    // A namespace is its attributes.
    if (value.global === 'argparse Namespace' && value.state instanceof Map) return this.record(value.state, depth)
    const record = Object.create(null) as Record<string, unknown>
    record.global = value.global
    record.args = this.convert(value.args, depth + 1)
    if (value.state !== undefined) record.state = this.convert(value.state, depth + 1)
    return record
  }
}
