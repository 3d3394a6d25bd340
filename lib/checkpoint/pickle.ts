// Reads a pickle (protocols 2 to 5) as data. A pickle is a program for a stack machine whose REDUCE calls any
// function by name; this machine has no functions. A name is a `Global`, a call of an unknown name is an `Inert`
// record of what would have been called, and `construct` (torch.ts) turns the handful of known calls into values.
//
// Against hostile input: every length is checked against the bytes left; the heap that values take is estimated and
// limited, so that a small file cannot exhaust memory; nothing recurses; the machine runs in slices, charged by the
// work that instructions do, and one that adds many items does so over several slices.
// Traded: contents of long byte strings are dropped (only their length is kept), and of a long text all but its
// beginning, since no checkpoint needs them.

import { Slices } from '../base/slices.js'
import { quote } from '../base/text.js'
import { bad } from './bad.js'

/** A module-level name, e.g. `torch FloatStorage`. Never looked up anywhere. */
export class Global {
  readonly id: string
  constructor (readonly module: string, readonly name: string) { this.id = `${module} ${name}` }
}

/** A Python tuple; lists are arrays, dicts are Maps, sets are Sets, strings and numbers themselves. */
export class Tuple { constructor (readonly items: readonly unknown[]) {} }

/** A Python frozenset: it may be a key or a member, where a set may not. */
export class FrozenSet extends Set<unknown> {}

/** What an unknown call would have been: recorded, not made. */
export class Inert {
  state: unknown = undefined
  /** Name of what would have been called, and with what. */
  constructor (readonly global: string, readonly args: unknown) {}
}

/** A reference that the program outside resolves; torch.save uses it for storages. */
export class PersistentId { constructor (readonly id: unknown) {} }

/** bytes or bytearray; the content is kept only where it is short enough to be a few numbers (numpy.ts). */
export class Bytes { constructor (readonly length: number, readonly content?: Buffer) {} }

/**
 * Makes the value of a known call, or `undefined` when the name is unknown. Must not loop over `args` unboundedly, and
 * charges what it looks at by `spend`: the number of values.
 */
export type Construct = (global: Global, args: readonly unknown[], spend: (values: number) => void) => unknown

export interface PickleOptions {
  /** For messages. */
  file: string
  construct: Construct
  signal?: AbortSignal
  /** Estimated bytes of heap that the values may take. Default 256 MB. */
  maxHeap?: number
}

const maxSteps = 64_000_000
const maxStack = 4_000_000
const maxIntegerBytes = 1024
/** Of a byte string that is kept: four numbers of 64 bits. */
const maxKeptBytes = 32
/** Bytes of a text that are kept. */
const maxTextBytes = 1 << 16
/** Keys of a dict, members of a set: a larger table holds the thread whenever it grows. */
const maxKeys = 1_000_000
/** V8 makes room for 17 items when the first is put into an array. */
const firstItemBytes = 136
/** Items that one step adds; the next step goes on. */
const itemsAStep = 4096
/** The memo is a table of pages, since numbers in it may be far apart. */
const memoPage = 256

/** Runs a pickle. Errors: BAD_CHECKPOINT, naming the byte. */
export async function readPickle (bytes: Buffer, options: PickleOptions): Promise<unknown> {
  const machine = new Machine(bytes, options)
  const slices = new Slices(options.signal)
  while (!machine.run(slices)) await slices.rest()
  return machine.result
}

/** Items that are still to be added to what is on top of the stack. */
interface Adding { target: unknown[] | Map<unknown, unknown> | Set<unknown>, items: readonly unknown[], at: number }

class Machine {
  result: unknown
  private at = 0
  private steps = 0
  /** Work done by the running step. */
  private work = 0
  private heap = 0
  private adding: Adding | undefined
  private readonly maxHeap: number
  private stack: unknown[] = []
  private marks: number[] = []
  /** Height of the stack at the topmost mark: nothing below it can be popped. */
  private base = 0
  private readonly memo = new Map<number, unknown[]>()
  private memoSize = 0

  constructor (private readonly bytes: Buffer, private readonly options: PickleOptions) {
    this.maxHeap = options.maxHeap ?? 256e6
  }

  /** Runs until the slice is over; true when the pickle ended. */
  run (slices: Slices): boolean {
    for (;;) {
      this.work = 1
      const ended = this.adding === undefined ? this.step() : this.add(this.adding)
      this.steps += this.work
      if (ended) return true
      if (this.steps > maxSteps) this.fail(`it takes more than ${maxSteps} steps`)
      if (slices.spend(this.work)) return false
    }
  }

  // ---- one instruction ----

  private step (): boolean {
    const code = this.u8()
    switch (code) {
      case 0x80: { // PROTO
        const version = this.u8()
        if (version < 2 || version > 5) this.fail(`pickle protocol ${version} is not known (2 to 5 are)`)
        return false
      }
      case 0x95: this.length(8); return false // FRAME
      case 0x2e: this.result = this.pop(); return true // STOP
      case 0x28: this.mark(); return false // MARK
      case 0x30: this.popOrMark(); return false // POP
      case 0x31: this.popMark(); return false // POP_MARK
      case 0x32: this.push(this.top()); return false // DUP

      case 0x4e: this.push(null); return false // NONE
      case 0x88: this.push(true); return false // NEWTRUE
      case 0x89: this.push(false); return false // NEWFALSE
      case 0x4a: this.push(this.bytes.readInt32LE(this.take(4))); return false // BININT
      case 0x4b: this.push(this.u8()); return false // BININT1
      case 0x49: this.push(this.textInteger()); return false // INT, as protocol 1 has booleans
      case 0x4c: this.push(this.textInteger()); return false // LONG
      case 0x46: this.push(this.textFloat()); return false // FLOAT
      case 0x4d: this.push(this.bytes.readUInt16LE(this.take(2))); return false // BININT2
      case 0x8a: this.push(this.integer(this.u8())); return false // LONG1
      case 0x8b: this.push(this.integer(this.length(4))); return false // LONG4
      case 0x47: this.push(this.bytes.readDoubleBE(this.take(8))); return false // BINFLOAT

      case 0x58: this.push(this.text(this.length(4), 'utf8')); return false // BINUNICODE
      case 0x8c: this.push(this.text(this.u8(), 'utf8')); return false // SHORT_BINUNICODE
      case 0x8d: this.push(this.text(this.length(8), 'utf8')); return false // BINUNICODE8
      case 0x54: this.push(this.text(this.length(4), 'latin1')); return false // BINSTRING
      case 0x55: this.push(this.text(this.u8(), 'latin1')); return false // SHORT_BINSTRING
      case 0x42: this.skipBytes(this.length(4)); return false // BINBYTES
      case 0x43: this.skipBytes(this.u8()); return false // SHORT_BINBYTES
      case 0x8e: case 0x96: this.skipBytes(this.length(8)); return false // BINBYTES8, BYTEARRAY8

      case 0x29: this.tuple([]); return false // EMPTY_TUPLE
      case 0x85: this.tuple([this.pop()]); return false // TUPLE1
      case 0x86: { const b = this.pop(); this.tuple([this.pop(), b]); return false } // TUPLE2
      case 0x87: { const c = this.pop(); const b = this.pop(); this.tuple([this.pop(), b, c]); return false } // TUPLE3
      case 0x74: this.tuple(this.popMark()); return false // TUPLE

      case 0x5d: this.charge(48); this.push([]); return false // EMPTY_LIST
      // LIST
      case 0x6c: { const items = this.popMark(); this.charge(48 + 8 * items.length); this.push(items); return false }
      case 0x61: { const item = this.pop(); this.append([item]); return false } // APPEND
      case 0x65: this.append(this.popMark()); return false // APPENDS
      case 0x7d: this.charge(200); this.push(new Map()); return false // EMPTY_DICT
      // DICT
      case 0x64:
      { const items = this.popMark(); this.charge(200); this.push(new Map()); this.setItems(items); return false }
      // SETITEM
      case 0x73: { const value = this.pop(); const key = this.pop(); this.setItems([key, value]); return false }
      case 0x75: this.setItems(this.popMark()); return false // SETITEMS
      case 0x8f: this.charge(200); this.push(new Set()); return false // EMPTY_SET
      case 0x90: this.append(this.popMark()); return false // ADDITEMS
      case 0x91: { // FROZENSET
        const items = this.popMark()
        const set = new FrozenSet()
        this.charge(200)
        this.push(set)
        this.begin(set, items, 40)
        return false
      }

      case 0x71: this.put(this.u8()); return false // BINPUT
      case 0x72: this.put(this.bytes.readUInt32LE(this.take(4))); return false // LONG_BINPUT
      case 0x94: this.put(this.memoSize); return false // MEMOIZE
      case 0x68: this.get(this.u8()); return false // BINGET
      case 0x6a: this.get(this.bytes.readUInt32LE(this.take(4))); return false // LONG_BINGET

      case 0x63: { const module = this.line(); this.global(module, this.line()); return false } // GLOBAL
      case 0x93: { // STACK_GLOBAL
        const name = this.pop()
        const module = this.pop()
        if (typeof name !== 'string' || typeof module !== 'string') this.fail('a global name that is no string')
        else this.global(module, name)
        return false
      }
      case 0x51: this.charge(24); this.push(new PersistentId(this.pop())); return false // BINPERSID
      case 0x52: { const args = this.pop(); this.call(this.pop(), args); return false } // REDUCE
      case 0x81: { const args = this.pop(); this.call(this.pop(), args); return false } // NEWOBJ
      case 0x92: { this.pop(); const args = this.pop(); this.call(this.pop(), args); return false } // NEWOBJ_EX
      case 0x69: { // INST
        const module = this.line()
        const name = this.line()
        const args = this.popMark()
        this.global(module, name)
        this.call(this.pop(), this.tupleOf(args))
        return false
      }
      case 0x6f: { // OBJ
        const items = this.popMark()
        this.call(items[0], this.tupleOf(items.slice(1)))
        return false
      }
      case 0x62: { // BUILD: the state is noted on inert records only; nothing has a __setstate__ here
        const state = this.pop()
        const target = this.top()
        if (target instanceof Inert) target.state = state
        return false
      }
      default:
        return this.fail(`instruction 0x${code.toString(16).padStart(2, '0')} is not one that torch.save writes`)
    }
  }

  // ---- calls ----

  private call (callee: unknown, args: unknown): void {
    this.charge(96)
    const list = args instanceof Tuple ? args.items : undefined
    if (callee instanceof Global) {
      const made = list === undefined
        ? undefined
        : this.options.construct(callee, list, values => {
          this.work += values
          this.charge(48 * values)
        })
      if (made instanceof Map) this.charge(200)
      this.push(made === undefined ? new Inert(callee.id, args) : made)
    } else if (callee instanceof Inert) {
      // The result of an unknown call, called: still known by the first name.
      this.push(new Inert(callee.global, args))
    } else {
      this.fail('it calls something that is no global name')
    }
  }

  private global (module: string, name: string): void {
    if (module.length + name.length > 1024) this.fail('a global name of more than 1024 characters')
    this.charge(64 + 4 * (module.length + name.length))
    this.push(new Global(module, name))
  }

  // ---- containers ----

  private tuple (items: unknown[]): void { this.push(this.tupleOf(items)) }

  private tupleOf (items: unknown[]): Tuple {
    this.charge(72 + 8 * items.length)
    return new Tuple(items)
  }

  private append (items: unknown[]): void {
    const target = this.top()
    if (Array.isArray(target)) this.begin(target, items, 16)
    else if (target instanceof Set && !(target instanceof FrozenSet)) this.begin(target, items, 40)
    else if (!(target instanceof Inert)) this.fail('it appends to something that is no list')
  }

  private setItems (items: unknown[]): void {
    const target = this.top()
    if (items.length % 2 !== 0) this.fail('a dict with a key that has no value')
    if (target instanceof Map) this.begin(target, items, 24)
    else if (!(target instanceof Inert)) this.fail('it sets items of something that is no dict')
  }

  private begin (target: Adding['target'], items: readonly unknown[], bytes: number): void {
    this.charge(
      bytes * items.length + (Array.isArray(target) && target.length === 0 && items.length > 0 ? firstItemBytes : 0)
    )
    this.adding = { target, items, at: 0 }
    this.add(this.adding)
  }

  /** Adds some of the items. */
  private add (adding: Adding): false {
    const { target, items, at } = adding
    const end = Math.min(items.length, at + itemsAStep)
    this.work += end - at
    if (target instanceof Map) {
      for (let i = at; i < end; i += 2) target.set(this.hashable(items[i]), items[i + 1])
    } else if (target instanceof Set) {
      for (let i = at; i < end; i++) target.add(this.hashable(items[i]))
    } else {
      for (let i = at; i < end; i++) target.push(items[i])
    }
    if (!Array.isArray(target) && target.size > maxKeys) this.fail(`a dict or a set of more than ${maxKeys} entries`)
    if (end === items.length) this.adding = undefined
    else adding.at = end
    return false
  }

  /** A key or a member: what Python could not have put there is refused. */
  private hashable (value: unknown): unknown {
    if (isHashable(value)) return value
    return this.fail(`${describeValue(value)} as a key of a dict or a member of a set, which Python never makes`)
  }

  // ---- memo and stack ----

  private put (index: number): void {
    const number = Math.floor(index / memoPage)
    let page = this.memo.get(number)
    if (page === undefined) {
      this.charge(64 + 8 * memoPage)
      page = new Array<unknown>(memoPage)
      this.memo.set(number, page)
    }
    if (page[index % memoPage] === undefined) this.memoSize++
    page[index % memoPage] = this.top()
  }

  private get (index: number): void {
    const value = this.memo.get(Math.floor(index / memoPage))?.[index % memoPage]
    if (value === undefined) this.fail(`it uses memo ${index}, which was never set`)
    this.push(value)
  }

  private push (value: unknown): void {
    if (this.stack.length >= maxStack) this.fail(`its stack grows above ${maxStack} values`)
    this.stack.push(value)
  }

  private top (): unknown {
    if (this.stack.length <= this.base) this.fail('its stack is empty where a value is needed')
    return this.stack[this.stack.length - 1]
  }

  private pop (): unknown {
    const value = this.top()
    this.stack.length--
    return value
  }

  private mark (): void {
    if (this.marks.length >= maxStack) this.fail(`more than ${maxStack} open marks`)
    this.marks.push(this.base)
    this.base = this.stack.length
  }

  private popMark (): unknown[] {
    const outer = this.marks.pop()
    if (outer === undefined) return this.fail('a mark is missing')
    const items = this.stack.splice(this.base)
    this.work += items.length >> 3
    this.base = outer
    return items
  }

  private popOrMark (): void {
    if (this.stack.length > this.base) this.stack.length--
    else this.popMark()
  }

  // ---- bytes ----

  private take (length: number): number {
    const at = this.at
    if (length > this.bytes.length - at) this.fail(`it ends inside a value of ${length} bytes`)
    this.at += length
    return at
  }

  private u8 (): number { return this.bytes[this.take(1)]! }

  /** A length field of 4 or 8 bytes, not more than the bytes left. */
  private length (width: 4 | 8): number {
    const at = this.take(width)
    const length = this.bytes.readUInt32LE(at) + (width === 8 ? this.bytes.readUInt32LE(at + 4) * 2 ** 32 : 0)
    if (length > this.bytes.length - this.at) {
      this.fail(`it announces ${length} bytes where ${this.bytes.length - this.at} are left`)
    }
    return length
  }

  private text (length: number, encoding: 'utf8' | 'latin1'): string {
    const kept = Math.min(length, maxTextBytes)
    this.charge(32 + 2 * kept)
    this.work += kept >> 6
    const at = this.take(length)
    return this.bytes.toString(encoding, at, at + kept)
  }

  private skipBytes (length: number): void {
    this.charge(length > maxKeptBytes ? 24 : 160)
    const at = this.take(length)
    this.push(new Bytes(length, length > maxKeptBytes ? undefined : Buffer.from(this.bytes.subarray(at, at + length))))
  }

  /** A line that ends with a newline, as GLOBAL has them. */
  private line (what = 'a global name'): string {
    const end = this.bytes.subarray(this.at, this.at + 1025).indexOf(0x0a)
    if (end < 0) this.fail(`${what} without end`)
    const text = this.text(end, 'utf8')
    this.at++
    return text
  }

  /** '12', '-12L'; '00' and '01' are booleans. */
  private textInteger (): number | bigint | boolean {
    const text = this.line('a number')
    if (text === '00' || text === '01') return text === '01'
    if (!/^\s*[+-]?\d+L?\s*$/.test(text)) this.fail('an integer that is none')
    const digits = text.trim().replace(/^\+|L$/g, '')
    const value = Number(digits)
    return Number.isSafeInteger(value) ? value : BigInt(digits)
  }

  private textFloat (): number {
    const text = this.line('a number').trim()
    if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text)
    const special = /^([+-]?)(inf|nan)$/i.exec(text)
    if (!special) return this.fail('a number that is none')
    return special[2]!.toLowerCase() === 'nan' ? NaN : special[1] === '-' ? -Infinity : Infinity
  }

  /** Little-endian two's complement; a number where exact, else a bigint. */
  private integer (length: number): number | bigint {
    if (length > maxIntegerBytes) this.fail(`an integer of ${length} bytes (at most ${maxIntegerBytes})`)
    this.charge(32 + length)
    const at = this.take(length)
    if (length === 0) return 0
    const hex = Buffer.from(this.bytes.subarray(at, at + length)).reverse().toString('hex')
    const value = BigInt.asIntN(8 * length, BigInt(`0x${hex}`))
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
  }

  private charge (bytes: number): void {
    this.heap += bytes
    if (this.heap > this.maxHeap) this.fail(`its values would take more than ${Math.round(this.maxHeap / 1e6)} MB`)
  }

  private fail (why: string): never {
    throw bad(this.options.file,
      `the pickle is refused at byte ${this.at}: ${why}. The file is damaged, or no checkpoint.`)
  }
}

/**
 * Can Python have it as a key of a dict? A tuple of lists cannot be told from others without a look at all that is in
 * it.
 */
export function isHashable (value: unknown): boolean {
  return !Array.isArray(value) && !(value instanceof Map) && (!(value instanceof Set) || value instanceof FrozenSet)
}

/** Short description of a value for messages. */
export function describeValue (value: unknown): string {
  if (value instanceof Inert) return `a Python object made by ${quote(value.global)}`
  if (value instanceof Global) return `the Python name ${quote(value.id)}`
  if (value instanceof Map) return 'a dict'
  if (value instanceof Tuple) return 'a tuple'
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Set) return 'a set'
  if (value instanceof Bytes) return 'bytes'
  if (value instanceof PersistentId) return 'a storage'
  if (value === null) return 'None'
  return typeof value === 'string'
    ? 'a string'
    : typeof value === 'boolean'
      ? 'a bool'
      : typeof value === 'object'
        ? 'a tensor'
        : 'a number'
}
