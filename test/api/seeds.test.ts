// Same seed, same picture: alone, in a list, in a list long enough for several sessions, and with any number of
// threads.

import t from 'tap'
import { effectiveSeeds } from '../../lib/api/options.js'
import { device, smallPar } from '../support/fixtures.js'
import { identical } from '../support/tensors.js'

t.test('alone, in a list and with another thread count: identical bytes', async t => {
  for (const precision of ['float32', 'bfloat16'] as const) {
    const one = await smallPar({ precision, threads: 1 })
    const three = await smallPar({ precision, threads: 3 })
    t.teardown(async () => { await one.dispose(); await three.dispose() })
    t.same([one.info.threads, three.info.threads], device === 'cpu' ? [1, 3] : [0, 0])
    const options = { seed: 41, guidanceScale: 1.5, temperature: 0.9, topK: 100, topP: 0.95 }
    const classId = [3, 5, 3, 0, 3]
    const list = await one.generate({ ...options, classId })
    t.same(list.map(image => image.seed), [41, 41, 42, 41, 43], 'a repeated class counts its seed up')
    t.notOk(identical(list[0]!.tokens, list[2]!.tokens), 'and gives another picture')
    t.same(list.map(image => image.classId), classId)
    const again = await three.generate({ ...options, classId })
    for (const [i, image] of list.entries()) {
      const alone = await three.generate({ ...options, classId: image.classId, seed: image.seed })
      t.same(alone.tokens, image.tokens, `${precision}: tokens of picture ${i}, alone, three threads`)
      t.same(alone.data, image.data, `${precision}: bytes of picture ${i}, alone, three threads`)
      t.same(again[i]!.data, image.data, `${precision}: bytes of picture ${i}, in the list, three threads`)
    }
  }
})

t.test('a list that needs several sessions', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const classId = Array.from({ length: 70 }, (_, i) => i % 10)
  const images = await par.generate({ classId, seed: 7 })
  t.equal(images.length, 70)
  for (const i of [0, 63, 64, 69]) {
    t.same((await par.generate({ classId: classId[i]!, seed: images[i]!.seed })).data, images[i]!.data, `picture ${i}`)
  }
})

t.test('overlapping calls do not disturb each other', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const apart = []
  for (let classId = 0; classId < 4; classId++) apart.push(await par.generate({ classId, seed: 5 }))
  const together = await Promise.all(apart.map(async image => await par.generate({ classId: image.classId, seed: 5 })))
  t.same(together.map(image => [...image.data]), apart.map(image => [...image.data]))
})

t.test('a random seed is reported and makes the picture again', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const first = await par.generate({ classId: 1 })
  const second = await par.generate({ classId: 1 })
  t.ok(Number.isSafeInteger(first.seed) && first.seed >= 0)
  t.not(first.seed, second.seed)
  t.same((await par.generate({ classId: 1, seed: first.seed })).data, first.data)
})

t.test('greedy does not depend on the seed, sampling does', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const greedy = await par.generate({ classId: 1, seed: 1, greedy: true })
  t.same((await par.generate({ classId: 1, seed: 2, temperature: 0 })).tokens, greedy.tokens)
  t.same((await par.generate({ classId: 1, seed: 3, topK: 1 })).tokens, greedy.tokens)
  t.notOk(identical((await par.generate({ classId: 1, seed: 2 })).tokens,
    (await par.generate({ classId: 1, seed: 3 })).tokens))
})

t.test('effective seeds stay in range', async t => {
  t.same(effectiveSeeds([1, 2, 1, 1], 10), [10, 10, 11, 12])
  t.same(effectiveSeeds([1, 1], Number.MAX_SAFE_INTEGER), [Number.MAX_SAFE_INTEGER, 0])
})
