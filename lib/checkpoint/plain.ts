// Turns values of a pickle into plain data for listing (`parvis inspect`) and for the few training arguments that are
// read. The graph in a pickle may be cyclic or expand without bound (each list holding the one before twice), so the
// walk has a depth and a budget of nodes and of characters; what lies beyond is '...'. Objects have no prototype: keys
// are hostile.

import { numpyValue } from './numpy.js'
import { Bytes, Global, Inert, PersistentId, Tuple } from './pickle.js'

const maxDepth = 16
/** Of one value beside the weights. */
const maxNodes = 20_000
const maxCharacters = 200_000
/** Of all of them. */
const maxAllNodes = 200_000
const maxAllCharacters = 2_000_000
const maxText = 10_000
const maxKey = 1000

/** Walks have one budget in all, and one each, so that a long value leaves something for the others. */
export class PlainWalk {
  private nodes = 0
  private characters = 0
  private allNodes = maxAllNodes
  private allCharacters = maxAllCharacters

  /** Plain data: null, boolean, number, string, arrays and objects without prototype. */
  convert (value: unknown): unknown {
    this.nodes = Math.min(maxNodes, this.allNodes)
    this.characters = Math.min(maxCharacters, this.allCharacters)
    const [nodes, characters] = [this.nodes, this.characters]
    const plain = this.walk(value, 0)
    this.allNodes -= nodes - this.nodes
    this.allCharacters -= characters - this.characters
    return plain
  }

  private walk (value: unknown, depth: number): unknown {
    if (--this.nodes < 0 || depth > maxDepth) return '...'
    if (value === null || typeof value === 'boolean' || typeof value === 'number') return value
    if (typeof value === 'string') return this.text(value, maxText)
    if (typeof value === 'bigint') return this.text(value.toString(), maxText)
    if (value instanceof Global) return this.text(value.id.replace(' ', '.'), maxText)
    if (value instanceof Bytes) return `<${value.length} bytes>`
    if (value instanceof PersistentId) return '<storage>'
    if (value instanceof Tuple) return this.list(value.items, depth)
    if (Array.isArray(value) || value instanceof Set) return this.list(value, depth)
    if (value instanceof Map) return this.record(value, depth)
    if (value instanceof Inert) return this.inert(value, depth)
    return '<tensor>'
  }

  /** The text, as far as the budget goes. */
  private text (text: string, max: number): string {
    const kept = Math.max(0, Math.min(text.length, max, this.characters))
    this.characters -= kept
    return kept < text.length ? `${text.slice(0, kept)}...` : text
  }

  private list (values: Iterable<unknown>, depth: number): unknown[] {
    const list: unknown[] = []
    for (const value of values) {
      list.push(this.walk(value, depth + 1))
      if (this.nodes < 0) break
    }
    return list
  }

  private record (map: Map<unknown, unknown>, depth: number): Record<string, unknown> {
    const record = Object.create(null) as Record<string, unknown>
    for (const [key, value] of map) {
      record[this.key(key)] = this.walk(value, depth + 1)
      if (this.nodes < 0) break
    }
    return record
  }

  private key (key: unknown): string {
    if (typeof key === 'string') return this.text(key, maxKey)
    if (typeof key === 'number' || typeof key === 'boolean' || typeof key === 'bigint') {
      return this.text(key.toString(), maxKey)
    }
    return key === null ? '<None>' : '<object>'
  }

  private inert (value: Inert, depth: number): unknown {
    const number = numpyValue(value)
    if (number !== undefined) return number
    // A namespace is its attributes.
    if (value.global === 'argparse Namespace' && value.state instanceof Map) return this.record(value.state, depth)
    const record = Object.create(null) as Record<string, unknown>
    record.global = this.text(value.global, maxText)
    record.args = this.walk(value.args, depth + 1)
    if (value.state !== undefined) record.state = this.walk(value.state, depth + 1)
    return record
  }
}
