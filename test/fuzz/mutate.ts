// Changes to inputs that were right: of bytes, and of the parts of JSON.

import type { Random } from './harness.js'

const bytesAtEdges = [0, 1, 0x22, 0x2c, 0x30, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d, 0x7f, 0x80, 0xc3, 0xff]

/** One to a few changes of bytes: flipped, replaced, inserted, removed, repeated, cut, lengths set. */
export function mutateBytes (input: Buffer, random: Random, others: readonly Buffer[] = []): Buffer {
  let bytes: Buffer = Buffer.from(input)
  for (let changes = 1 + random.int(random.chance(0.2) ? 20 : 4); changes > 0; changes--) {
    const at = random.int(bytes.length + 1)
    switch (random.int(8)) {
      case 0: if (at < bytes.length) bytes[at]! ^= 1 << random.int(8); break
      case 1: if (at < bytes.length) bytes[at] = random.chance(0.5) ? random.pick(bytesAtEdges) : random.int(256); break
      case 2:
        bytes = splice(bytes, at, 0, Buffer.from(Array.from({ length: 1 + random.int(8) }, () => random.int(256))))
        break
      case 3: bytes = splice(bytes, at, 1 + random.int(random.chance(0.2) ? 200 : 8)); break
      case 4: { // a part once more, or often
        const part = bytes.subarray(at, at + 1 + random.int(40))
        bytes = splice(bytes, at, 0,
          Buffer.concat(Array.from({ length: random.chance(0.05) ? 1 + random.int(200) : 1 }, () => part)))
        break
      }
      case 5: if (random.chance(0.2)) bytes = bytes.subarray(0, at); break
      case 6: { // a length or an offset
        const width = random.pick([1, 2, 4, 8])
        if (at + width > bytes.length) break
        const value = BigInt.asUintN(8 * width, random.size())
        for (let k = 0; k < width; k++) bytes[at + k] = Number((value >> BigInt(8 * k)) & 255n)
        break
      }
      default: {
        if (others.length === 0) break
        const other = random.pick(others)
        const from = random.int(other.length)
        bytes = splice(bytes, at, random.int(20), other.subarray(from, from + random.int(60)))
      }
    }
  }
  return bytes
}

function splice (bytes: Buffer, at: number, remove: number, insert: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)])
}

const jsonParts = [
  '{', '}', '[', ']', ':', ',', '""', '"a"', '"\\u0061"', '"\\ud800"', '"\\x"', '"', '\\', ' ', '\n', '\u00a0',
  '\ufeff', 'null', 'true', 'false', 'nul', 'NaN',
  '0', '-0', '-1', '01', '1.', '0.5', '1e5', '1e999', '-1e-999', '9007199254740993', '18446744073709551615',
  '1'.repeat(70), '"__proto__"', '"constructor"',
  '[[[[[[[[[[[[', ']]]]]]]]]]]]', '{"a":', '{},'.repeat(50), '[],'.repeat(50), '"a":{},'.repeat(20), ' '.repeat(500),
  '"' + '\\"'.repeat(100) + '"', '"' + 'n'.repeat(2000) + '"'
]

/** Changes to a JSON text, a part at a time. */
export function mutateJson (text: string, random: Random, words: readonly string[] = []): string {
  const parts = text.match(/"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|./gs) ?? []
  const fresh = (): string => random.chance(0.3) && words.length > 0
    ? random.pick(words)
    : random.chance(0.2)
      ? String(random.size())
      : random.pick(jsonParts)
  for (let changes = 1 + random.int(random.chance(0.2) ? 12 : 3); changes > 0; changes--) {
    const at = random.int(parts.length + 1)
    switch (random.int(5)) {
      case 0: parts.splice(at, 1, fresh()); break
      case 1: parts.splice(at, 0, fresh()); break
      case 2: parts.splice(at, 1 + random.int(4)); break
      case 3: parts.splice(at, 0, ...parts.slice(at, at + 1 + random.int(30))); break
      default: { // two parts change places
        const other = random.int(parts.length)
        if (at >= parts.length || parts.length === 0) break
        ;[parts[at], parts[other]] = [parts[other]!, parts[at]!]
      }
    }
  }
  return parts.join('')
}
