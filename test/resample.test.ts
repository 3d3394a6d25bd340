// The authors' crop against what PIL made of the same pictures (test/fixtures/make-crop.py), byte for byte.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { centreCrop, pauses, squeezed, type Rgb } from '../lib/pictures/resample.js'
import { identical } from './support/tensors.js'

interface Case { width: number, height: number, rgb: string }
const expected = JSON.parse(fs.readFileSync(path.join(__dirname, 'fixtures', 'crop', 'pil.json'), 'utf8')) as
  { crops: Array<Case & { size: number }>, squeezed: Case & { to: [number, number] } }

/** The formula of make-crop.py. */
function picture (width: number, height: number): Rgb {
  const data = new Uint8Array(width * height * 3)
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        data[i++] = Math.floor((x * x * 3 + y * 7 + x * y * 5 * (c + 1)) / 64) +
          (Math.floor(x / 9) + Math.floor(y / 6)) % 2 * 120
      }
    }
  }
  return { data, width, height }
}

t.test('the crop is that of PIL', async t => {
  t.ok(expected.crops.length >= 7)
  for (const { width, height, size, rgb } of expected.crops) {
    const made = await centreCrop(picture(width, height), size, size, pauses())
    t.match(made, { width: size, height: size })
    t.ok(identical(made.data, Buffer.from(rgb, 'base64')), `${width} x ${height} to ${size}`)
  }
})

t.test('the whole picture, squeezed', async t => {
  const { width, height, to, rgb } = expected.squeezed
  const made = await squeezed(picture(width, height), ...to, pauses())
  t.ok(identical(made.data, Buffer.from(rgb, 'base64')))
})

t.test('targets that are no square', async t => {
  const from = picture(200, 120)
  for (const [width, height] of [[32, 16], [16, 32], [48, 48], [200, 120], [1, 1], [300, 40]] as const) {
    const made = await centreCrop(from, width, height, pauses())
    t.match({ width: made.width, height: made.height, bytes: made.data.length },
      { width, height, bytes: width * height * 3 })
  }
  t.ok(identical((await centreCrop(from, 200, 120, pauses())).data, from.data), 'one of its own size stays')
  const flat = { data: new Uint8Array(90 * 50 * 3).fill(77), width: 90, height: 50 }
  t.ok((await centreCrop(flat, 13, 17, pauses())).data.every(byte => byte === 77), 'an even colour stays')
})

t.test('of a long thin picture only the part that stays is made', async t => {
  const cut = ({ data, width }: Rgb, left: number, top: number, side: number): Buffer =>
    Buffer.concat(Array.from({ length: side },
      (_, y) => data.subarray(((top + y) * width + left) * 3, ((top + y) * width + left + side) * 3)))
  const wide = await squeezed(picture(60, 3), 600, 30, pauses())
  t.ok(identical((await centreCrop(picture(60, 3), 30, 30, pauses())).data, cut(wide, 285, 0, 30)),
    'the same bytes as out of the whole')
  const tall = await squeezed(picture(3, 61), 30, 610, pauses())
  t.ok(identical((await centreCrop(picture(3, 61), 30, 30, pauses())).data, cut(tall, 0, 290, 30)))
  // The whole would be 960 million pixels wide, and as many high.
  for (const size of [{ width: 2_500_000, height: 1 }, { width: 1, height: 2_500_000 }]) {
    const made = await centreCrop({ data: new Uint8Array(7_500_000).fill(99), ...size }, 384, 384, pauses())
    t.ok(made.data.length === 384 * 384 * 3 && made.data.every(byte => byte === 99))
  }
})

t.test('the event loop goes on within a row and within a column', async t => {
  for (const [size, to] of [[{ width: 4_000_000, height: 1 }, [64, 1]],
    [{ width: 1, height: 4_000_000 }, [1, 64]]] as const) {
    const long = { data: new Uint8Array(12_000_000).fill(5), ...size }
    let [turns, running] = [0, true]
    const count = (): void => {
      turns++
      if (running) setImmediate(count)
    }
    count()
    const made = await squeezed(long, to[0], to[1], pauses())
    running = false
    t.ok(turns > 5, `${turns} turns`)
    t.ok(made.data.length === 64 * 3 && made.data.every(byte => byte === 5))
  }
})

t.test('the event loop goes on, and work can be stopped', async t => {
  const large = { data: new Uint8Array(4000 * 3000 * 3), width: 4000, height: 3000 }
  let turns = 0
  const timer = setInterval(() => { turns++ }, 1)
  await centreCrop(large, 256, 256, pauses())
  clearInterval(timer)
  t.ok(turns > 3, `${turns} turns`)
  await t.rejects(centreCrop(large, 256, 256, pauses(() => { throw new Error('stopped') })), { message: 'stopped' })
})
