// images() hands out the pictures of a long list as they are finished: the same pictures as generate(), none of them
// kept.

import { createHash } from 'node:crypto'
import v8 from 'node:v8'
import vm from 'node:vm'
import t from 'tap'
import type { Progress } from '../../lib/base/progress.js'
import type { GeneratedImage } from '../../lib/api/image.js'
import par from '../../lib/index.js'
import { codeOf, rejection, smallPar, transformerOnly } from '../support/fixtures.js'

/** More pictures than one session takes (64), so that there are several groups. */
const classId = Array.from({ length: 70 }, (_, i) => i % 3)
const facts = ({ classId, seed, tokens, data }: GeneratedImage): unknown =>
  [classId, seed, tokens.join(), createHash('sha256').update(data).digest('hex')]

v8.setFlagsFromString('--expose-gc')
const collect = vm.runInNewContext('gc') as () => void

t.test('the pictures, their order and their seeds are those of generate()', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const expected = (await own.generate({ classId, seed: 5 })).map(facts)
  const found: unknown[] = []
  for await (const image of own.images({ classId, seed: 5 })) found.push(facts(image))
  t.same(found, expected)
  const single: unknown[] = []
  for await (const image of own.images({ classId: 2, seed: 5 })) single.push(facts(image))
  t.same(single, [expected[2]], 'a single class is a list of one')
})

t.test('groups are told by the stream as soon as each is finished', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const events: Progress[] = []
  for await (const event of own.stream({ classId, seed: 5 })) events.push(event)
  const ends = events.filter(event => event.finished)
  t.ok(ends.length > 1, `${ends.length} groups`)
  t.ok(ends.every(event => event.step % (events[0]!.steps / ends.length) === 0), 'with the last step of each group')
  t.ok(
    ends.every((event, i) =>
      event.tokensDone === 64 * ends.slice(0, i + 1).reduce((sum, { finished }) => sum + finished!.length, 0))
  )
  t.ok(ends.flatMap(event => event.finished!).every((image, i) => image === events.at(-1)!.images![i]),
    'the very pictures of the end')
  t.equal(ends.at(-1), events.at(-1))
  t.equal(events.filter(event => event.images).length, 1)
})

t.test('nothing of finished pictures is kept, and nothing is made ahead', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const gone: Array<WeakRef<Uint8Array>> = []
  const events: Progress[] = []
  let taken = 0
  for await (const image of own.images({
    classId, seed: 5, onProgress: event => { events.push({ ...event, finished: undefined }) }
  })) {
    if (taken++ === 0) {
      const { step } = events.at(-1)!
      await new Promise(resolve => setTimeout(resolve, 50))
      t.equal(events.at(-1)!.step, step, 'the next group waits until the loop asks for it')
    }
    if (taken <= 64) gone.push(new WeakRef(image.data))
    if (taken === 70) {
      t.ok(events.every(event => event.images === undefined))
      t.match(await rejection(events.at(-1)!.preview(0)), { code: 'INVALID_OPTION', message: /Picture 0 .*handed out/ })
      t.equal((await events.at(-1)!.preview(69)).width, 32, 'one of the group that is handed out now')
    }
  }
  t.equal(taken, classId.length)
  await new Promise(resolve => setImmediate(resolve)) // weak references hold their targets until the end of a task
  collect()
  t.ok(gone.every(reference => reference.deref() === undefined), 'pictures are collected')
})

t.test('errors, aborts and early ends', async t => {
  const own = await smallPar()
  const tokens = await transformerOnly('par-4x')
  t.teardown(async () => { await own.dispose(); await tokens.dispose(); await par.dispose() })
  t.equal(await codeOf(own.images({ classId: 99 }).next()), 'BAD_CLASS_ID')
  t.match(await rejection(own.images({ classId: 1, mask: 1 } as never).next()),
    { code: 'INVALID_OPTION', message: /^images has no option/ })
  const controller = new AbortController()
  let taken = 0
  t.equal(await rejection((async () => {
    for await (const _ of own.images({ classId, signal: controller.signal })) {
      if (++taken === 64) controller.abort('enough')
    }
  })()), 'enough')
  t.equal(taken, 64)
  for await (const _ of own.images({ classId })) break
  for await (const image of tokens.images({ classId: 1 })) {
    t.same([image.width, image.tokens.length], [0, 64], 'without a tokenizer: tokens')
  }
  for await (const image of par.images({ classId: 'sneaker' })) t.equal(image.label, 'Sneaker', 'of the default export')
  await own.dispose()
  t.equal(await codeOf(own.images({ classId: 1 }).next()), 'DISPOSED')
})

t.test('abort and dispose between two pictures of a finished group', async t => {
  const own = await smallPar()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  for (const instance of [own, par]) {
    const controller = new AbortController()
    const taken: number[] = []
    t.equal(await rejection((async () => {
      for await (const image of instance.images({ classId: [1, 2, 3], n: 4, signal: controller.signal })) {
        taken.push(image.classId)
        controller.abort('enough')
      }
    })()), 'enough')
    t.same(taken, [1])
    const images = instance.images({ classId: [1, 2, 3], n: 4 })
    await images.next()
    await instance.dispose()
    t.equal(await codeOf(images.next()), 'DISPOSED')
  }
})
