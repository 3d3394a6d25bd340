// Conversions of stored floats by the addon: every 16-bit pattern, and rounding to nearest even of float32 values,
// checked by comparing with both neighbours, not by rounding again.

import t from 'tap'
import { addon, type DType } from '../lib/machine/native.js'

const bytes = (data: ArrayBufferView): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
const floats = (data: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(data).buffer)
const halves = (data: Uint8Array): Uint16Array => new Uint16Array(Uint8Array.from(data).buffer)

/** The value of a 16-bit pattern by the definition of its format. */
function value (h: number, type: DType): number {
  const exponentBits = type === 'float16' ? 5 : 8
  const mantissaBits = 15 - exponentBits
  const sign = h & 0x8000 ? -1 : 1
  const exponent = h >> mantissaBits & (1 << exponentBits) - 1
  const mantissa = h & (1 << mantissaBits) - 1
  const bias = (1 << exponentBits - 1) - 1
  if (exponent === (1 << exponentBits) - 1) return mantissa ? NaN : sign * Infinity
  return sign * (exponent === 0
    ? mantissa * 2 ** (1 - bias - mantissaBits)
    : (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias))
}

for (const type of ['float16', 'bfloat16'] as const) {
  t.test(type, async t => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i)
    const wide = floats(await addon().convertFloats(bytes(all), type, 'float32'))
    t.equal(
      wide.findIndex((v, i) => !Object.is(v, Math.fround(value(i, type))) &&
        !(Number.isNaN(v) && Number.isNaN(value(i, type)))), -1, 'widened: all 65536 patterns'
    )
    const back = halves(await addon().convertFloats(bytes(wide), 'float32', type))
    t.equal(back.findIndex((h, i) => Number.isNaN(wide[i]!) ? !Number.isNaN(value(h, type)) : h !== i), -1, 'and back')

    // Random bit patterns, and the exact middles between neighbours.
    let state = 1
    const some = Float32Array.from({ length: 100_000 }, (_, i) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      if (i % 2 === 0) return floats(bytes(Uint32Array.of(state)))[0]!
      const h = state >>> 17
      return (value(h, type) + value(h + 1, type)) / 2 * (state & 1 ? 1 : -1)
    })
    const rounded = halves(await addon().convertFloats(bytes(some), 'float32', type))
    const wrong = some.findIndex((v, i) => {
      const h = rounded[i]!
      if (Number.isNaN(v)) return !Number.isNaN(value(h, type))
      // Infinity stands for the next power of two, as far as rounding goes.
      const finite = (p: number): number =>
        Number.isFinite(value(p, type)) ? Math.abs(value(p, type)) : type === 'float16' ? 65536 : 2 ** 128
      if (!Number.isFinite(v)) return value(h, type) !== v
      if ((h & 0x8000) !== (Object.is(v, -0) || v < 0 ? 0x8000 : 0)) return true
      const magnitude = h & 0x7fff
      const error = Math.abs(Math.abs(v) - finite(magnitude))
      const infinite = !Number.isFinite(value(magnitude, type))
      if (infinite) return Math.abs(v) - finite(magnitude - 1) < error
      const others = [magnitude - 1, magnitude + 1].filter(p => p >= 0).map(p => Math.abs(Math.abs(v) - finite(p)))
      return others.some(other => other < error || (other === error && magnitude % 2 === 1))
    })
    t.equal(wrong, -1, `nearest even: ${wrong < 0 ? 'all' : String(some[wrong])}`)
  })
}
