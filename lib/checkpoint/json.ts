// JSON for hostile files. JSON.parse reads a text at a stretch, whatever time and memory that takes, keeps the last of
// two equal keys without a word, so that one file could mean different things to different readers, and makes plain
// objects, where a key may be `__proto__`. Here a scanner tells one token after another, and whoever asks can pause
// between them, stop, or read on without keeping anything; trees are built of it within a budget. Objects are Maps,
// equal keys are an error, nesting is limited, and nothing recurses.

import { isUtf8 } from 'node:buffer'
import type { Slices } from '../base/slices.js'

export type Json = null | boolean | number | string | Json[] | Map<string, Json>

/** What is wrong and at which byte; the caller turns it into a ParError. */
export class JsonError extends Error {}

/** `more`: a long text or white space goes on, ask again. */
export type JsonToken = '{' | '}' | '[' | ']' | 'key' | 'string' | 'number' | 'true' | 'false' | 'null' | 'end' | 'more'

/** Bytes looked at before `more`. */
const stretch = 1 << 16
const maxNumberBytes = 140
const number = /^-?(?:0|[1-9]\d{0,63})(?:\.\d{1,64})?(?:[eE][+-]?\d{1,8})?$/

const enum Expects { value, valueOrEnd, key, keyOrEnd, colon, next, nothing }

export class JsonScanner {
  /** Bytes looked at. */
  at = 0
  /** Of the token 'number'. */
  number = 0
  private readonly bytes: Buffer
  private expects = Expects.value
  /** Open containers: 1 for an object. */
  private readonly open: Uint8Array
  private depth = 0
  // ---- the text of a key or string
  private inText: 'key' | 'string' | undefined
  private start = 0
  private end = 0
  private escaped = false

  constructor (bytes: Uint8Array, private readonly maxDepth = 8) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.open = new Uint8Array(maxDepth + 2)
    if (!isUtf8(this.bytes)) throw new JsonError('it is not UTF-8')
  }

  /** The next token. Errors: JsonError. */
  next (): JsonToken {
    if (this.inText !== undefined) return this.goOn()
    const { bytes } = this
    const pause = Math.min(bytes.length, this.at + stretch)
    while (this.at < pause && isSpace(bytes[this.at]!)) this.at++
    if (this.at === pause) {
      if (pause < bytes.length) return 'more'
      return this.expects === Expects.nothing ? 'end' : this.fail('it ends too early')
    }
    const byte = bytes[this.at]!
    switch (this.expects) {
      case Expects.colon:
        if (byte !== 0x3a) this.fail('":" is expected')
        this.at++
        this.expects = Expects.value
        return this.next()
      case Expects.next: {
        const inObject = this.open[this.depth] === 1
        if (byte === 0x2c) {
          this.at++
          this.expects = inObject ? Expects.key : Expects.value
          return this.next()
        }
        if (byte === (inObject ? 0x7d : 0x5d)) return this.close()
        return this.fail(`"," or "${inObject ? '}' : ']'}" is expected`)
      }
      case Expects.keyOrEnd:
        if (byte === 0x7d) return this.close()
        return this.key(byte)
      case Expects.key: return this.key(byte)
      case Expects.valueOrEnd:
        if (byte === 0x5d) return this.close()
        return this.value(byte)
      case Expects.value: return this.value(byte)
      default: return this.fail('something follows the value')
    }
  }

  // ---- the text of the last key or string

  /** Its bytes, escapes as they stand: never fewer than its characters. */
  get textBytes (): number { return this.end - this.start }

  /** Is it `word`, a plain one? Each of its letters may stand as an escape of six bytes. */
  is (word: string): boolean {
    if (this.escaped) return this.textBytes <= 6 * word.length && this.text() === word
    if (this.textBytes !== word.length) return false
    for (let i = 0; i < word.length; i++) if (this.bytes[this.start + i] !== word.charCodeAt(i)) return false
    return true
  }

  /** Takes time and memory in proportion to `textBytes`: look at it first. */
  text (): string {
    if (!this.escaped) return this.bytes.toString('utf8', this.start, this.end)
    try {
      return JSON.parse(this.bytes.toString('utf8', this.start - 1, this.end + 1)) as string
    } catch {
      return this.fail('an impossible escape in a string')
    }
  }

  fail (why: string): never { throw new JsonError(`${why} (byte ${this.at})`) }

  // ---- tokens

  private key (byte: number): JsonToken {
    if (byte !== 0x22) this.fail('a key is expected')
    return this.begin('key')
  }

  private value (byte: number): JsonToken {
    switch (byte) {
      case 0x7b: return this.enter('{')
      case 0x5b: return this.enter('[')
      case 0x22: return this.begin('string')
      case 0x74: return this.word('true')
      case 0x66: return this.word('false')
      case 0x6e: return this.word('null')
      default: return this.readNumber()
    }
  }

  private enter (token: '{' | '['): JsonToken {
    if (++this.depth > this.maxDepth + 1) this.fail(`nested deeper than ${this.maxDepth}`)
    this.open[this.depth] = token === '{' ? 1 : 0
    this.expects = token === '{' ? Expects.keyOrEnd : Expects.valueOrEnd
    this.at++
    return token
  }

  private close (): JsonToken {
    const token = this.open[this.depth] === 1 ? '}' : ']'
    this.depth--
    this.at++
    this.done()
    return token
  }

  private done (): void { this.expects = this.depth === 0 ? Expects.nothing : Expects.next }

  private begin (kind: 'key' | 'string'): JsonToken {
    this.inText = kind
    this.start = ++this.at
    this.escaped = false
    return this.goOn()
  }

  private goOn (): JsonToken {
    const { bytes } = this
    const pause = Math.min(bytes.length, this.at + stretch)
    while (this.at < pause) {
      const byte = bytes[this.at]!
      if (byte < 0x20) this.fail('a control character in a string')
      this.at++
      if (byte === 0x22) {
        this.end = this.at - 1
        const kind = this.inText!
        this.inText = undefined
        if (kind === 'key') this.expects = Expects.colon
        else this.done()
        return kind
      }
      if (byte === 0x5c) { // a pair, whose second may lie behind the pause
        this.escaped = true
        this.at++
      }
    }
    return this.at < bytes.length ? 'more' : this.fail('a string does not end')
  }

  private word (word: 'true' | 'false' | 'null'): JsonToken {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.at + i] !== word.charCodeAt(i)) this.fail('a value is expected')
    }
    this.at += word.length
    this.done()
    return word
  }

  private readNumber (): JsonToken {
    const { bytes, at } = this
    let end = at
    let value = 0
    while (end - at < 16 && isDigit(bytes[end])) value = value * 10 + bytes[end++]! - 0x30
    // At most 15 digits that begin with none of zero are exact as they are.
    const whole = end > at && end - at < 16 && (bytes[at] !== 0x30 || end - at === 1) && !isOfNumber(bytes[end])
    if (!whole) {
      while (end - at < maxNumberBytes && isOfNumber(bytes[end])) end++
      const text = bytes.toString('latin1', at, end)
      if (!number.test(text)) this.fail('a value is expected')
      value = Number(text)
    }
    this.number = value
    this.at = end
    this.done()
    return 'number'
  }
}

function isSpace (byte: number): boolean { return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09 }
function isDigit (byte: number | undefined): boolean { return byte !== undefined && byte >= 0x30 && byte <= 0x39 }
/** A digit, + - . e E */
function isOfNumber (byte: number | undefined): boolean {
  return isDigit(byte) || byte === 0x2b || byte === 0x2d || byte === 0x2e || byte === 0x45 || byte === 0x65
}

// ---- trees

export interface JsonLimits {
  /** Containers in each other. */
  depth?: number
  /** Memory that the values may take, bytes, roughly. */
  memory: number
}

const maxKeys = 1_000_000
/** V8 makes room for 17 items when the first is put into an array. */
const firstItemBytes = 136

/** Builds the value out of tokens, within a budget of memory. */
class Builder {
  result: Json = null
  private readonly stack: Array<Json[] | Map<string, Json>> = []
  private readonly keys: string[] = []
  private left: number

  constructor (private readonly scanner: JsonScanner, private readonly limits: JsonLimits) { this.left = limits.memory }

  accept (token: JsonToken): void {
    switch (token) {
      case '{': this.enter(new Map<string, Json>(), 200); return
      case '[': this.enter([], 64); return
      case '}': this.stack.pop(); this.keys.pop(); return
      case ']': this.stack.pop(); return
      case 'key': this.key(); return
      case 'string': this.charge(24 + 2 * this.scanner.textBytes); this.put(this.scanner.text()); return
      case 'number': this.put(this.scanner.number); return
      case 'true': this.put(true); return
      case 'false': this.put(false); return
      case 'null': this.put(null)
    }
  }

  private key (): void {
    const map = this.stack.at(-1) as Map<string, Json>
    this.charge(80 + 2 * this.scanner.textBytes)
    const key = this.scanner.text()
    if (map.has(key)) this.scanner.fail(`the key ${JSON.stringify(key.slice(0, 100))} stands twice`)
    if (map.size >= maxKeys) this.scanner.fail(`an object of more than ${maxKeys} keys`)
    this.keys[this.keys.length - 1] = key
  }

  private enter (container: Json[] | Map<string, Json>, bytes: number): void {
    this.charge(bytes)
    this.put(container)
    this.stack.push(container)
    if (!Array.isArray(container)) this.keys.push('')
  }

  private put (value: Json): void {
    this.charge(12)
    const top = this.stack.at(-1)
    if (top === undefined) this.result = value
    else if (Array.isArray(top)) {
      if (top.length === 0) this.charge(firstItemBytes)
      top.push(value)
    } else top.set(this.keys.at(-1)!, value)
  }

  private charge (bytes: number): void {
    this.left -= bytes
    if (this.left < 0) this.scanner.fail(`its values would take more than ${Math.round(this.limits.memory / 1e6)} MB`)
  }
}

/** Reads one JSON value in slices; white space may surround it. Errors: JsonError. */
export async function readJson (bytes: Uint8Array, slices: Slices, limits: JsonLimits): Promise<Json> {
  const scanner = new JsonScanner(bytes, limits.depth)
  const builder = new Builder(scanner, limits)
  await scan(scanner, token => { builder.accept(token) }, slices)
  return builder.result
}

/** Gives every token to `accept`, in slices. */
export async function scan (scanner: JsonScanner, accept: (token: JsonToken) => void, slices: Slices): Promise<void> {
  for (;;) {
    const before = scanner.at
    const token = scanner.next()
    if (token === 'end') return
    if (token !== 'more') accept(token)
    if (slices.spend(4 + (scanner.at - before) / 16)) await slices.rest()
  }
}
