// A JSON parser for hostile headers. JSON.parse keeps the last of two equal keys without a word, so one file could
// mean different tensors to different readers; it also makes plain objects, where a key may be `__proto__`. Here
// objects are Maps, equal keys are an error, and nesting is limited (the recursion goes no deeper than that).

export type Json = null | boolean | number | string | Json[] | Map<string, Json>

/** What is wrong and at which character; the caller turns it into a ParError. */
export class JsonError extends Error {}

const maxDepth = 8
const number = /-?(?:0|[1-9]\d{0,63})(?:\.\d{1,64})?(?:[eE][+-]?\d{1,8})?/y

/** Parses one JSON value; white space may surround it. Errors: JsonError. */
export function parseJson (text: string): Json {
  const parser = new Parser(text)
  const value = parser.value(0)
  parser.end()
  return value
}

class Parser {
  private at = 0
  constructor (private readonly text: string) {}

  value (depth: number): Json {
    if (depth > maxDepth) this.fail(`nested deeper than ${maxDepth}`)
    this.space()
    switch (this.text[this.at]) {
      case '{': return this.object(depth)
      case '[': return this.array(depth)
      case '"': return this.string()
      case 't': return this.word('true', true)
      case 'f': return this.word('false', false)
      case 'n': return this.word('null', null)
      default: return this.number()
    }
  }

  end (): void {
    this.space()
    if (this.at < this.text.length) this.fail('something follows the value')
  }

  private object (depth: number): Map<string, Json> {
    const map = new Map<string, Json>()
    this.at++
    if (this.peek() === '}') { this.at++; return map }
    for (;;) {
      if (this.peek() !== '"') this.fail('a key is expected')
      const key = this.string()
      if (map.has(key)) this.fail(`the key ${JSON.stringify(key.slice(0, 100))} stands twice`)
      if (this.peek() !== ':') this.fail('":" is expected')
      this.at++
      map.set(key, this.value(depth + 1))
      const next = this.peek()
      this.at++
      if (next === '}') return map
      if (next !== ',') this.fail('"," or "}" is expected')
    }
  }

  private array (depth: number): Json[] {
    const list: Json[] = []
    this.at++
    if (this.peek() === ']') { this.at++; return list }
    for (;;) {
      list.push(this.value(depth + 1))
      const next = this.peek()
      this.at++
      if (next === ']') return list
      if (next !== ',') this.fail('"," or "]" is expected')
    }
  }

  private string (): string {
    const start = this.at++
    let escaped = false
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      if (Number.isNaN(code)) this.fail('a string does not end')
      if (code < 0x20) this.fail('a control character in a string')
      this.at++
      if (code === 0x22) break
      if (code === 0x5c) { escaped = true; this.at++ }
    }
    if (!escaped) return this.text.slice(start + 1, this.at - 1)
    try {
      return JSON.parse(this.text.slice(start, this.at)) as string
    } catch {
      return this.fail('an impossible escape in a string')
    }
  }

  private number (): number {
    number.lastIndex = this.at
    const match = number.exec(this.text)
    if (!match) return this.fail('a value is expected')
    this.at += match[0].length
    return Number(match[0])
  }

  private word<T> (word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fail('a value is expected')
    this.at += word.length
    return value
  }

  private peek (): string | undefined {
    this.space()
    return this.text[this.at]
  }

  private space (): void {
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.at++
    }
  }

  private fail (why: string): never { throw new JsonError(`${why} (character ${this.at})`) }
}
