// PSNR and SSIM against their definitions, written out plainly here, and against values worked out by hand.

import t from 'tap'
import { Image, psnr, ssim } from '../lib/index.js'

function noise (width: number, height: number, seed: number, near?: Image): Image {
  let state = seed
  return new Image(Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0
    return near ? Math.min(255, Math.max(0, near.data[i]! + (state >>> 27) - 16)) : state >>> 24
  }), width, height)
}

/** Each window by itself, moments by two passes. */
function plainSsim (a: Image, b: Image): number {
  let [total, windows] = [0, 0]
  for (let c = 0; c < 3; c++) {
    for (let top = 0; top + 7 <= a.height; top++) {
      for (let left = 0; left + 7 <= a.width; left++) {
        const of = (image: Image): number[] => Array.from({ length: 49 },
          (_, k) => image.data[((top + Math.floor(k / 7)) * image.width + left + k % 7) * 3 + c]!)
        const [p, q] = [of(a), of(b)]
        const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / 49
        const [mp, mq] = [mean(p), mean(q)]
        const covariance = (u: number[], mu: number, v: number[], mv: number): number =>
          u.reduce((sum, value, k) => sum + (value - mu) * (v[k]! - mv), 0) / 48
        const [c1, c2] = [6.5025, 58.5225]
        total += (2 * mp * mq + c1) * (2 * covariance(p, mp, q, mq) + c2) /
          ((mp ** 2 + mq ** 2 + c1) * (covariance(p, mp, p, mp) + covariance(q, mq, q, mq) + c2))
        windows++
      }
    }
  }
  return total / windows
}

const even = (value: number): Image => new Image(new Uint8Array(9 * 8 * 3).fill(value), 9, 8)

t.test('values worked out by hand', async t => {
  t.equal(psnr(even(7), even(7)), Infinity)
  t.equal(psnr(even(0), even(255)), 0)
  t.ok(Math.abs(psnr(even(100), even(101)) - 48.130803609) < 1e-8, 'a difference of 1 everywhere')
  const one = even(50)
  one.data[5] = 60
  t.ok(Math.abs(psnr(one, even(50)) - 10 * Math.log10(65025 * 216 / 100)) < 1e-9)
  t.equal(ssim(even(7), even(7)), 1)
  // Without variance only the term of the means is left.
  t.ok(Math.abs(ssim(even(10), even(20)) - (2 * 10 * 20 + 6.5025) / (100 + 400 + 6.5025)) < 1e-12)
})

t.test('the definition', async t => {
  for (const [width, height] of [[7, 7], [19, 12], [8, 30]] as const) {
    const a = noise(width, height, 1)
    const b = noise(width, height, 2, a)
    const other = noise(width, height, 3)
    t.ok(Math.abs(ssim(a, b) - plainSsim(a, b)) < 1e-10, `${width} x ${height}: ${ssim(a, b)}`)
    t.ok(Math.abs(ssim(a, other) - plainSsim(a, other)) < 1e-10)
    t.ok(ssim(a, other) < ssim(a, b) && psnr(a, other) < psnr(a, b))
    t.equal(psnr(a, b), psnr(b, a))
    t.equal(ssim(a, a), 1)
  }
})

t.test('what cannot be compared', async t => {
  const small = new Image(new Uint8Array(6 * 9 * 3), 6, 9)
  t.throws(() => ssim(small, small), { code: 'INVALID_OPTION', message: /7 x 7/ })
  t.equal(psnr(small, small), Infinity)
  for (const call of [psnr, ssim]) {
    t.throws(() => call(even(1), small), { code: 'INVALID_OPTION', message: /9 x 8 and 6 x 9/ })
    t.throws(() => call(even(1), { data: new Uint8Array(5), width: 9, height: 8 }), { code: 'INVALID_OPTION' })
    t.throws(() => call(new Image(new Float32Array(3), 1, 1) as never, even(1)),
      { code: 'INVALID_OPTION', message: /Uint8Array/ })
    t.throws(() => call(new Image(new Uint8Array(0), 0, 0), new Image(new Uint8Array(0), 0, 0)),
      { code: 'INVALID_OPTION' })
  }
})
