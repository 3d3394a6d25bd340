// Class names that nearly are one: what a message proposes, and how mistakes are counted.

import t from 'tap'
import { imagenetLabels } from '../lib/models/imagenet.js'
import { mistakesBetween, resolveClass, resolveClasses } from '../lib/models/labels.js'

const clothes = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag',
  'Ankle boot']

t.test('mistakes between two texts', async t => {
  // Known distances, worked out by hand: kitten to sitting is the textbook's example.
  for (const [a, b, mistakes] of [
    ['sneaker', 'sneaker', 0], ['snaker', 'sneaker', 1], ['sneakers', 'sneaker', 1], ['snaeker', 'sneaker', 1],
    ['kitten', 'sitting', 3],
    ['abcdefgh', 'bcdefghi', 2], ['', 'bag', 3], ['bag', '', 3], ['ca', 'abc', 3], ['abcd', 'badc', 2]
  ] as const) {
    t.equal(mistakesBetween(a, b, 9), mistakes, `${a} and ${b}`)
    t.equal(mistakesBetween(b, a, 9), mistakes, `${b} and ${a}`)
    if (mistakes > 0) t.equal(mistakesBetween(a, b, mistakes - 1), Infinity, 'more than are allowed')
  }
})

t.test('a mistyped name is refused with the names that come near', async t => {
  const imagenet = imagenetLabels()
  const cases: Array<[string, readonly string[], RegExp]> = [
    ['snaker', clothes, /Did you mean 'Sneaker' \(7\)\?$/],
    ['SNAEKER', clothes, /Did you mean 'Sneaker' \(7\)\?$/],
    ['trowser', clothes, /Did you mean 'Trouser' \(1\)\?$/],
    ['anklle-boot', clothes, /Did you mean 'Ankle boot' \(9\)\?$/],
    ['boot', clothes, /Did you mean 'Ankle boot' \(9\)\?$/],
    ['oter', imagenet, /Did you mean 'otter' \(360\)/],
    ['goldfihs', imagenet, /Did you mean 'goldfish, Carassius auratus' \(1\)\?$/]
  ]
  for (const [name, labels, message] of cases) {
    t.throws(() => resolveClass(name, labels.length, labels), { code: 'BAD_CLASS_ID', message }, name)
  }
})

t.test('nothing is proposed where nothing comes near', async t => {
  for (const name of ['-', '', ' ', '--', 'x', 'zebra crossing', 'a photo of a dog on the moon', 'q'.repeat(100_000)]) {
    t.throws(() => resolveClass(name, clothes.length, clothes),
      { code: 'BAD_CLASS_ID', message: /^No class is called .{1,80}\. Some names: 'T-shirt\/top', / },
      name.slice(0, 40))
  }
})

t.test('many long names are compared quickly', async t => {
  const labels = Array.from({ length: 20_000 }, (_, k) => `${'nomen '.repeat(20)}${k}, sneaker ${k}`)
  const began = performance.now()
  t.throws(() => resolveClass('snaeker 19999', labels.length, labels), { message: /\(19999\)/ })
  t.ok(performance.now() - began < 5000)
})

t.test('many labels that are all alike do not hold the thread', async t => {
  const labels = Array.from({ length: 90_000 }, (_, k) => 'a'.repeat(34) + String(k).padStart(6, '0'))
  resolveClass(labels[0]!, labels.length, labels) // makes the index
  const began = performance.now()
  t.throws(() => resolveClass('a'.repeat(39) + 'z', labels.length, labels),
    { code: 'BAD_CLASS_ID', message: /Did you mean/ })
  t.ok(performance.now() - began < 1500, `${performance.now() - began} ms`)
})

t.test('digits in a string are the number, unless a class has that name', async t => {
  t.equal(resolveClass('7', 10, clothes), 7)
  t.equal(resolveClass(' 07 ', 10, clothes), 7)
  t.equal(resolveClass('7', 10), 7, 'of a model without names, too')
  t.equal(resolveClass('7', 3, ['nine', '7', 'eight']), 1)
  for (const labels of [clothes, undefined]) {
    for (const text of ['10', '99999999999999']) {
      t.throws(() => resolveClass(text, 10, labels), { code: 'BAD_CLASS_ID', message: /0 to 9/ }, text)
    }
    for (const text of ['', ' ', '-1', '1.5', '1e1', '0x1', 'NaN', '9'.repeat(400)]) {
      t.throws(() => resolveClass(text, 10, labels), { code: 'BAD_CLASS_ID' }, text)
    }
  }
  t.throws(() => resolveClass('', 2, ['', 'bag']), { code: 'BAD_CLASS_ID' },
    'an empty text is no class, whatever labels there are')
  t.throws(() => resolveClass('bag', 5000, Array<string>(5000).fill('bag')),
    { code: 'BAD_CLASS_ID', message: /^.{1,400}4990 more.{1,400}$/ })
})

t.test('tens of thousands of names among as many labels: quick, and the event loop goes on', async t => {
  const labels = Array.from({ length: 65_536 }, (_, k) => `${'nomen '.repeat(15)}${k}, species ${k}`)
  const names = labels.map((_, k) => `Species_${65_535 - k}`)
  let [last, longest] = [performance.now(), 0]
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 1)
  let pauses = 0
  const began = performance.now()
  const found = await resolveClasses(names, labels.length, labels,
    () => ++pauses % 500 === 0 ? new Promise(resolve => setImmediate(resolve)) : undefined)
  clearInterval(timer)
  t.ok(found.every((id, k) => id === 65_535 - k))
  // minutes, where every name goes through all labels
  t.ok(performance.now() - began < 20_000, `${Math.round(performance.now() - began)} ms`)
  t.ok(pauses === 2 * 65_536, 'a pause is offered after every label and every name')
  t.ok(longest < 5000, `${Math.round(longest)} ms`)
})
