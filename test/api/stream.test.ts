// stream() is the implementation and generate() wraps it: one event a step, previews, the pictures at the end, and
// nothing left behind when a consumer leaves early.

import t from 'tap'
import type { Progress } from '../../lib/base/progress.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { fillMissing } from '../../lib/decoding/preview.js'
import { codeOf, rejection, smallPar, transformerOnly } from '../support/fixtures.js'
import { identical } from '../support/tensors.js'

t.test('one event a step, pictures with the last', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const events: Progress[] = []
  for await (const event of par.stream({ classId: [1, 2], seed: 3 })) events.push(event)
  const schedule = createSchedule({ grid: [8, 8], n: 4 })
  t.same(events.map(event => event.step), Array.from({ length: 19 }, (_, i) => i + 1))
  t.ok(events.every(event => event.steps === 19 && event.tokens === 128))
  t.same(events.map(event => event.tokensDone), [...schedule.tokensAfter].map(known => 2 * known))
  t.ok(events.slice(0, -1).every(event => event.images === undefined))
  for (const [index, image] of events.at(-1)!.images!.entries()) {
    t.same(events.flatMap(event => [...event.cells(index)]), [...image.tokenOrder], `the cells of picture ${index}`)
    t.same(events.map(event => event.cells(index).length), [1, 1, 1, 1, ...Array(15).fill(4)])
  }
  t.throws(() => events[0]!.cells(2), { code: 'INVALID_OPTION' })
  const images = await par.generate({ classId: [1, 2], seed: 3 })
  t.same(events.at(-1)!.images!.map(image => [...image.data]), images.map(image => [...image.data]),
    'the same pictures as generate()')

  const stream = par.stream({ classId: 1, seed: 3 })
  for (;;) {
    const { value, done } = await stream.next()
    if (!done) continue
    t.same(value.map(image => [...image.tokens]), [[...images[0]!.tokens]], 'the return value is the pictures')
    break
  }
})

t.test('onProgress gets the same events; an error in it ends the call', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const steps: number[] = []
  const image = await par.generate({ classId: 1, seed: 3, onProgress: event => steps.push(event.step) })
  t.equal(steps.length, image.steps)
  const mistake = new Error('mine')
  let calls = 0
  t.equal(await rejection(par.generate({ classId: 1, onProgress: () => { calls++; throw mistake } })), mistake)
  t.equal(calls, 1)
  t.same((await par.generate({ classId: 1, seed: 3 })).data, image.data, 'the instance is usable')
})

t.test('a callback that returns a promise is waited for; its rejection ends the call', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  let [running, most, ended] = [0, 0, 0]
  const slow = async (): Promise<void> => {
    most = Math.max(most, ++running)
    await new Promise(resolve => setTimeout(resolve, 2))
    running--
    ended++
  }
  const image = await par.generate({ classId: 1, onProgress: slow })
  t.same([most, ended, running], [1, image.steps, 0], 'one at a time, all of them over')
  const mistake = new Error('mine')
  let calls = 0
  const failing = async (): Promise<void> => { calls++; await Promise.resolve(); throw mistake }
  t.equal(await rejection(par.generate({ classId: 1, onProgress: failing })), mistake)
  t.equal(await rejection(par.stream({ classId: 1, onProgress: failing }).next()), mistake)
  t.equal(calls, 2)
  const controller = new AbortController()
  const stuck = par.generate({
    classId: 1, signal: controller.signal, onProgress: () => new Promise<void>(() => { controller.abort('enough') })
  })
  t.equal(await rejection(stuck), 'enough', 'one that never settles can be aborted')
  t.ok(await par.generate({ classId: 1 }))
})

t.test('a preview after the loop was left', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  let late: Progress | undefined
  for await (const event of par.stream({ classId: 1 })) {
    late = event
    if (event.step === 3) break
  }
  t.match(await rejection(late!.preview()), { code: 'INVALID_OPTION', message: /belongs to a call that ended/ })
  await par.dispose()
  t.match(await rejection(late!.preview()), { code: 'DISPOSED', message: /This Par/ })
})

t.test('previews', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const seen: Uint8Array[] = []
  let late: Progress | undefined
  let final: Uint8Array | undefined
  for await (const event of par.stream({ classId: [1, 2], seed: 3 })) {
    if (event.step === 5) late = event
    if (event.step % 6 === 1) {
      const preview = await event.preview(1)
      t.match({ width: preview.width, height: preview.height }, { width: 32, height: 32 })
      seen.push(preview.data)
    }
    if (event.images) {
      final = event.images[1]!.data
      t.same((await event.preview(1)).data, final, 'the last preview is the picture')
    }
  }
  t.equal(seen.length, 4)
  t.same(seen.at(-1), final, 'step 19 is the last')
  t.notOk(identical(seen[0]!, seen[1]!))
  const afterwards = await late!.preview(1)
  t.notOk(identical(afterwards.data, final!), 'a preview asked for late still shows its own step')
  t.equal(await codeOf(late!.preview(2)), 'INVALID_OPTION')
  t.equal(await codeOf(late!.preview(NaN)), 'INVALID_OPTION')

  const small = await par.stream({ classId: 1, size: { width: 20, height: 10 } }).next()
  t.match(await (small.value as Progress).preview(), { width: 20, height: 10 })
})

t.test('missing cells come from the nearest known cell of their region', async t => {
  const schedule = createSchedule({ grid: [4, 4], n: 4 })
  const sequence = Int32Array.from({ length: 16 }, (_, i) => 10 + i)
  t.same([...fillMissing(schedule, sequence, 4)!], [10, 10, 11, 11, 10, 10, 11, 11, 12, 12, 13, 13, 12, 12, 13, 13])
  t.same([...fillMissing(schedule, sequence, 8)!], [10, 14, 11, 15, 10, 14, 11, 15, 12, 16, 13, 17, 12, 16, 13, 17])
  t.same([...fillMissing(schedule, sequence, 1)!], Array(16).fill(10), 'a region without any takes the nearest of all')
  t.equal(fillMissing(schedule, sequence, 0), undefined)
  t.same(fillMissing(schedule, sequence, 16), schedule.toRaster(sequence))
})

t.test('leaving the loop early frees the session and leaves the instance usable', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 1, seed: 3 })
  for (let round = 0; round < 20; round++) {
    for await (const event of par.stream({ classId: Array(20).fill(1) })) if (event.step === 3) break
  }
  const abandoned = par.stream({ classId: 1 })
  await abandoned.next()
  await abandoned.return([])
  t.equal((await abandoned.next()).done, true)
  t.same((await par.generate({ classId: 1, seed: 3 })).data, image.data)
})

t.test('several sessions in one stream', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const events: Progress[] = []
  for await (const event of par.stream({ classId: Array.from({ length: 65 }, (_, i) => i % 10), seed: 1 })) {
    events.push(event)
    if (event.step === 20) {
      t.same([...(await event.preview(64)).data.subarray(0, 3)].length, 3)
      t.same((await event.preview(0)).data.length, 32 * 32 * 3, 'a finished picture of an earlier group')
    }
    if (event.step === 2) t.ok((await event.preview(64)).data.every(byte => byte === 128), 'grey before its turn')
  }
  t.equal(events.length, 38)
  t.equal(events.at(-1)!.tokensDone, 65 * 64)
  t.ok(events.every((event, i) => i === 0 || event.tokensDone > events[i - 1]!.tokensDone), 'tokensDone grows')
  t.equal(events.at(-1)!.images!.length, 65)
})

t.test('without a tokenizer there are tokens and no pixels', async t => {
  const par = await transformerOnly('par-4x')
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 1, seed: 3 })
  t.equal(image.tokens.length, 64)
  t.match({ length: image.data.length, width: image.width, height: image.height }, { length: 0, width: 0, height: 0 })
  t.equal(await codeOf(image.toBuffer('png')), 'MISSING_PART')
  t.equal(await codeOf(image.toBuffer('raw')), 'MISSING_PART')
  t.equal(await codeOf(par.generate({ classId: 1, size: 64 })), 'MISSING_PART')
  const { value } = await par.stream({ classId: 1 }).next()
  t.equal(await codeOf((value as Progress).preview()), 'MISSING_PART')
})
