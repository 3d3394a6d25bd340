// The heat map: each token's square has the colour of its bits, the picture is there, the scale says what colours mean.

import t from 'tap'
import { colour, heatmap, scaleTop } from '../../lib/cli/heatmap.js'

const picture = { data: Uint8Array.from({ length: 8 * 6 * 3 }, (_, i) => i), width: 8, height: 6 }
const grid = [3, 4] as const
const bits = Float32Array.from({ length: 12 }, (_, k) => k * 0.5)
const map = heatmap(picture, grid, [{ title: 'n = 1', bits }, { title: 'n = 4', bits: bits.map(value => 5.5 - value) }])
const at = (x: number, y: number): number[] =>
  Array.from(map.data.subarray((y * map.width + x) * 3, (y * map.width + x) * 3 + 3))

t.test('colours', async t => {
  t.same(colour(0), [0, 0, 4])
  t.same(colour(1), [252, 255, 164])
  t.same(colour(7), colour(1), 'above the scale')
  t.same(colour(-1), colour(0))
  const light = ([red, green, blue]: number[]): number => 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!
  let last = -1
  for (let k = 0; k <= 100; k++) {
    const now = light(colour(k / 100))
    if (now <= last) t.fail(`not brighter at ${k}%`)
    last = now
  }
  t.pass('ever brighter')
})

t.test('every token', async t => {
  t.equal(map.data.length, map.width * map.height * 3)
  t.equal(map.top, 6)
  t.equal(map.cell, 96)
  t.equal(map.places.length, 3)
  for (const [panel, of] of [[1, (k: number) => k * 0.5], [2, (k: number) => 5.5 - k * 0.5]] as const) {
    const place = map.places[panel]!
    t.same([place.width, place.height], [4 * 96, 3 * 96])
    let wrong = 0
    for (let y = 0; y < place.height; y++) {
      for (let x = 0; x < place.width; x++) {
        const expected = colour(of(Math.floor(y / 96) * 4 + Math.floor(x / 96)) / 6)
        if (at(place.x + x, place.y + y).some((value, c) => value !== expected[c])) wrong++
      }
    }
    t.equal(wrong, 0, `panel ${panel}`)
  }
  const { x, y, width, height } = map.places[0]!
  for (const [column, row] of [[0, 0], [7, 0], [3, 4], [7, 5]] as const) {
    const from = (row * 8 + column) * 3
    t.same(at(x + Math.floor((column + 0.5) * width / 8), y + Math.floor((row + 0.5) * height / 6)),
      [from, from + 1, from + 2], 'the picture')
  }
})

t.test('places and scale', async t => {
  const bar = map.places[0]!.y + map.places[0]!.height + 24
  t.same(at(24, bar + 5), [...colour(0)], 'the scale begins dark')
  t.same(at(24 + 383, bar + 5), [...colour(1)], 'and ends bright')
  for (const [k, place] of map.places.entries()) {
    t.ok(place.x + place.width <= map.width && place.y + place.height < map.height)
    if (k > 0) t.ok(place.x >= map.places[k - 1]!.x + place.width, 'beside each other')
  }
  const dark = (top: number, bottom: number): boolean =>
    map.data.subarray(top * map.width * 3, bottom * map.width * 3).some(value => value < 60)
  t.ok(dark(24, 38), 'titles')
  t.ok(dark(bar + 24, map.height), 'figures of the scale')
  t.equal(scaleTop([{ title: '', bits: new Float32Array(10) }]), 1)
  const one = new Float32Array(1000).fill(2.5)
  one[0] = 30
  t.equal(scaleTop([{ title: '', bits: one }]), 3, 'one token does not make all others dark')
  t.equal(heatmap(picture, [24, 24], Array.from({ length: 6 },
    () => ({ title: 'x', bits: new Float32Array(576) }))).places[4]!.x, map.places[0]!.x, 'a second row')
})
