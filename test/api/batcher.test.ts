// Continuous batching: pictures of all calls of an instance run together. Each has the bytes that it has alone, whoever
// comes and goes beside it; what fails one fails no other; nobody waits for who is slow; no seat is lost.

import t from 'tap'
import { addon, type NativeEngine, type NativeSession, type SessionOptions } from '../../lib/machine/native.js'
import { Par } from '../../lib/api/par.js'
import type { GenerateOptions } from '../../lib/api/options.js'
import type { GeneratedImage } from '../../lib/api/image.js'
import { Random } from '../fuzz/harness.js'
import {
  codeOf, device, parallelFile, rejection, smallPar, tokenizerFile, transformerFile
} from '../support/fixtures.js'
import { transformerOfOneNaN } from '../support/damaged.js'

const turn = async (ms = 0): Promise<void> => { await new Promise(resolve => setTimeout(resolve, ms)) }
const bytesOf = (image: GeneratedImage): string => Buffer.from(image.data).toString('base64')
const idle = { waiting: 0, running: 0, seats: 0 }

/** Steps `par` one step on, and says where it is. */
async function stepOf (stream: ReturnType<Par['stream']>): Promise<number> {
  const { value, done } = await stream.next()
  return done ? -1 : value.step
}

/** Whether all seats are given back, at once or a moment later. */
async function settled (par: Par): Promise<object> {
  for (let tries = 0; tries < 100; tries++) {
    const { waiting, running, seats } = par.activity
    if (waiting + running + seats === 0) break
    await turn(10)
  }
  const { steps: _, pictureSteps: _also, ...rest } = par.activity
  return rest
}

t.test('a picture joins others at their next step, and each has the bytes that it has alone', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const options: GenerateOptions[] = [
    { classId: 1, seed: 1 }, { classId: 2, seed: 2, guidanceScale: 3 }, { classId: 3, seed: 3, temperature: 0.7 },
    { classId: 4, seed: 4, topK: 20 }, { classId: 5, seed: 5, topP: 0.8, guidanceScale: 1 },
    { classId: [6, 6, 7], seed: 6 }, { classId: 8, seed: 8, tokensPerStep: 2 },
    { classId: 9, seed: 9, known: { mask: 'left', tokens: new Int32Array(64) } }
  ]
  const alone: GeneratedImage[][] = []
  for (const each of options) alone.push([await par.generate(each)].flat())
  t.match(par.activity, idle)
  const before = par.activity

  const first = par.stream(options[0]!)
  for (let step = 1; step <= 6; step++) t.equal(await stepOf(first), step)
  const others = options.slice(1).map(async each => [await par.generate(each)].flat())
  let images: GeneratedImage[] = []
  for (;;) {
    const { value, done } = await first.next()
    if (done) break
    if (value.images) images = value.images
  }
  const together = [images, ...await Promise.all(others)]
  t.same(together.map(list => list.map(bytesOf)), alone.map(list => list.map(bytesOf)))
  const { steps, pictureSteps } = par.activity
  const average = (pictureSteps - before.pictureSteps) / (steps - before.steps)
  t.ok(average > 2, `${average.toFixed(1)} pictures ran together on average`)
  t.match(await settled(par), idle)
})

t.test('pictures of different numbers of steps: ARPG', async t => {
  const par = await Par.load({
    transformer: parallelFile('arpg'), device, precision: 'float32'
  })
  t.teardown(() => par.dispose())
  const options = [64, 3, 17, 1, 32, 8].map((steps, i) => ({ classId: i, seed: i, steps }))
  const alone: GeneratedImage[] = []
  for (const each of options) alone.push(await par.generate(each))
  const ends: number[] = []
  const together = await Promise.all(options.map(async each => {
    const image = await par.generate(each)
    ends.push(each.steps)
    return image
  }))
  t.same(together.map(({ tokens }) => [...tokens]), alone.map(({ tokens }) => [...tokens]))
  t.equal(ends.at(-1), 64, 'nobody waits for the end of the longest')
  t.match(await settled(par), idle)
})

t.test('a caller that is slow keeps nobody waiting', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const alone = await par.generate({ classId: 2, seed: 5 })
  const slow = par.stream({ classId: 1, seed: 3 })
  await stepOf(slow)
  const other = par.generate({ classId: 2, seed: 5 })
  t.equal(bytesOf(await other), bytesOf(alone))
  t.equal(await stepOf(slow), 2, 'it goes on where it was')
  let last: GeneratedImage[] = []
  for await (const { images } of slow) last = images ?? last
  t.equal(bytesOf(last[0]!), bytesOf(await par.generate({ classId: 1, seed: 3 })))
  t.match(await settled(par), idle)
})

t.test('an abort ends its own picture, and its seat is free for the next one', async t => {
  const par = await smallPar({ maxBatchSize: 3 })
  t.teardown(() => par.dispose())
  const alone = await par.generate({ classId: [1, 2, 3], seed: 3 })
  const controller = new AbortController()
  const streams = [1, 2, 3].map(classId =>
    par.stream({ classId, seed: 3, ...(classId === 2 && { signal: controller.signal }) }))
  for (let step = 0; step < 4; step++) await Promise.all(streams.map(stepOf))
  t.equal(par.activity.running, 3)
  const late = par.generate({ classId: 2, seed: 3 })
  await turn(5)
  t.equal(par.activity.waiting, 1)
  controller.abort('enough')
  t.equal(await rejection(streams[1]!.next()), 'enough')
  t.equal(bytesOf(await late), bytesOf(alone[1]!), 'in a seat that was left in the middle')
  const drained = await Promise.all([streams[0]!, streams[2]!].map(async stream => {
    let images: GeneratedImage[] = []
    for await (const event of stream) images = event.images ?? images
    return bytesOf(images[0]!)
  }))
  t.same(drained, [bytesOf(alone[0]!), bytesOf(alone[2]!)])
  t.match(await settled(par), idle)
})

t.test('seats are given in the order of the calls', async t => {
  const par = await smallPar({ maxBatchSize: 1 })
  t.teardown(() => par.dispose())
  const ends: number[] = []
  await Promise.all([3, 1, 2, 5].map(async seed => {
    await par.generate({ classId: 1, seed })
    ends.push(seed)
  }))
  t.same(ends, [3, 1, 2, 5])
  t.equal(par.activity.steps, par.activity.pictureSteps, 'one at a time')
  t.same((await par.generate({ classId: [1, 2, 3], seed: 1 })).map(({ steps }) => steps), [19, 19, 19],
    'a list in groups of one')
})

t.test('a bound on those who wait', async t => {
  const par = await smallPar({ maxBatchSize: 1, maxQueueSize: 2 })
  t.teardown(() => par.dispose())
  const first = par.stream({ classId: 1 })
  await stepOf(first)
  const calls = [1, 2, 3, 4].map(async seed => await par.generate({ classId: 1, seed }).then(() => 'done',
    error => error))
  const [, , third, fourth] = calls
  t.match(await third, {
    name: 'ParError', code: 'QUEUE_FULL', message: /^2 calls wait already, as many as may.*maxQueueSize/
  })
  t.match(await fourth, { code: 'QUEUE_FULL' })
  await first.return([])
  t.same(await Promise.all(calls.slice(0, 2)), ['done', 'done'])
  t.ok(await par.generate({ classId: 1 }), 'and there is room again')
  const none = await smallPar({ maxBatchSize: 1, maxQueueSize: 0 })
  t.teardown(() => none.dispose())
  t.ok(await none.generate({ classId: 1 }), 'who need not wait is let in')
  for (const wrong of [{ maxBatchSize: 0 }, { maxBatchSize: 65 }, { maxQueueSize: -1 }, { maxQueueSize: 1.5 }]) {
    t.equal(await codeOf(smallPar(wrong)), 'INVALID_OPTION', JSON.stringify(wrong))
  }
})

t.test('a call that has begun is not refused in its middle', async t => {
  const par = await smallPar({ maxBatchSize: 1, maxQueueSize: 1 })
  t.teardown(() => par.dispose())
  const list = par.stream({ classId: [1, 2, 3], seed: 1 })
  await stepOf(list)
  const waits = par.generate({ classId: 4 })
  await turn(5)
  t.equal(par.activity.waiting, 1)
  const rest = (async () => {
    let images: GeneratedImage[] = []
    for await (const event of list) images = event.images ?? images
    return images
  })()
  const calls = [5, 6, 7].map(async seed => { // one waits at any time
    for (;;) {
      const outcome = await par.generate({ classId: 1, seed }).then(() => 'done', error => error.code)
      if (outcome === 'done') return outcome
      await turn(3)
    }
  })
  const scores = par.score({ tokens: Array(3).fill(new Int32Array(64)), classId: 1 }).then(list => list.length,
    error => error.code)
  t.equal((await rest).length, 3, 'a list in groups')
  t.ok(await waits)
  t.same(await Promise.all(calls), ['done', 'done', 'done'])
  t.ok([3, 'QUEUE_FULL'].includes(await scores))
})

t.test('logits that are not finite fail their own picture', async t => {
  const path = await transformerOfOneNaN(t.testdir(), 4)
  const par = await Par.load({
    transformer: { ...transformerFile('par-4x'), path }, tokenizer: tokenizerFile(), device, precision: 'float32'
  })
  t.teardown(() => par.dispose())
  const alone = await par.generate({ classId: [1, 2], seed: 3 })
  const calls = [1, 4, 2].map(async classId => await par.generate({ classId, seed: 3 }).then(bytesOf, error => error))
  const [one, nan, two] = await Promise.all(calls)
  t.match(nan, { name: 'ParError', code: 'NON_FINITE' })
  t.same([one, two], alone.map(bytesOf))
  t.match(await settled(par), idle)
})

t.test('a list that joins leaves seats to those who come behind it', async t => {
  const par = await smallPar({ maxBatchSize: 8 })
  t.teardown(() => par.dispose())
  await par.generate({ classId: [1, 2, 3, 4, 5, 6, 7, 8] }) // the next batch is as large
  const first = par.stream({ classId: 1 })
  await stepOf(first)
  t.match(par.activity, { running: 1, seats: 8 })
  const list = par.stream({ classId: Array(20).fill(2), seed: 1 })
  await stepOf(list)
  t.match(par.activity, { running: 5, seats: 8 }, 'half of what was free')
  const ends: string[] = []
  const images = (async () => {
    let images: GeneratedImage[] = []
    for await (const event of list) images = event.images ?? images
    ends.push('list')
    return images
  })()
  await par.generate({ classId: 3 })
  ends.push('one')
  t.equal((await images).length, 20)
  t.same(ends, ['one', 'list'])
  await first.return([])
})

// ---- the addon, watched

/** `object` with some methods replaced; native objects have read-only ones. */
function instead<T extends object> (object: T, methods: Partial<T>): T {
  return new Proxy(object, {
    get (target, name) {
      const value = methods[name as keyof T] ?? target[name as keyof T]
      return typeof value === 'function' ? value.bind(target) : value
    }
  })
}

const native = addon() as { createEngine: (...options: never[]) => NativeEngine }
const { createEngine } = native

/** A model whose sessions are made by `create`, and what they are told is told to `see`. */
async function watched (
  create: (options: SessionOptions, make: () => Promise<NativeSession>) => Promise<NativeSession>, options = {}
): Promise<Par> {
  native.createEngine = (...args) => {
    const engine = createEngine(...args)
    return instead(engine, {
      loadTransformer: async (...args: Parameters<NativeEngine['loadTransformer']>) => {
        const transformer = await engine.loadTransformer(...args)
        return instead(transformer, {
          createSession: async (options: SessionOptions) =>
            await create(options, async () => await transformer.createSession(options))
        })
      }
    })
  }
  try {
    return await smallPar(options)
  } finally {
    native.createEngine = createEngine
  }
}

t.test('memory that is gone when a batch is opened: those who joined it ask again', async t => {
  const asked: number[] = []
  const par = await watched(async ({ seats }, make) => {
    asked.push(seats)
    await turn(5)
    if (seats > 2) throw Object.assign(new Error('no memory'), { parvisCode: 'OUT_OF_MEMORY' })
    return await make()
  })
  t.teardown(() => par.dispose())
  const images = await Promise.all([1, 2, 3, 4, 5, 6, 7].map(async seed => await par.generate({ classId: 1, seed })))
  const alone = await smallPar()
  t.teardown(() => alone.dispose())
  for (const image of images) {
    t.equal(bytesOf(image), bytesOf(await alone.generate({ classId: 1, seed: image.seed })))
  }
  t.ok(asked.some(seats => seats > 2), `asked for ${asked.join(', ')}`)
  t.match(await settled(par), idle)
})

t.test('a device that fails at any step fails all who run on it, and the instance goes on', async t => {
  let steps = 0
  let failsAt = 0
  const par = await watched(async (_options, make) => {
    const session = await make()
    return instead(session, {
      pass: async (...args: Parameters<NativeSession['pass']>) => {
        if (++steps === failsAt) throw Object.assign(new Error('the device is gone'), { parvisCode: 'INTERNAL' })
        return await session.pass(...args)
      }
    })
  })
  t.teardown(() => par.dispose())
  for (failsAt of [1, 2, 8, 17, 18, 19]) { // of 19: those who are in their last step are no members any more
    steps = 0
    const calls = [1, 2, 3].map(async classId =>
      await par.generate({ classId, passes: 'sequential' }).then(() => 'done', error => error))
    for (const error of await Promise.all(calls)) {
      t.match(error, { code: 'INTERNAL', message: /the device is gone/ }, `step ${failsAt}`)
    }
    t.match(await settled(par), idle)
  }
  failsAt = 0
  t.ok(await par.generate({ classId: 1 }))
})

t.test('each seat is entered once and left once, and every session is freed', async t => {
  const open = { sessions: 0, seats: 0, most: 0 }
  const par = await watched(async (_options, make) => {
    const session = await make()
    open.sessions++
    return instead(session, {
      enter: async (...args: Parameters<NativeSession['enter']>) => {
        open.most = Math.max(open.most, ++open.seats)
        await session.enter(...args)
      },
      leave: async (seat: number) => {
        open.seats--
        await session.leave(seat)
      },
      dispose: async () => {
        open.sessions--
        await session.dispose()
      }
    })
  }, { maxBatchSize: 6 })
  t.teardown(() => par.dispose())
  await Promise.all(Array.from({ length: 30 }, async (_, seed) => await par.generate({ classId: 1, seed })))
  await settled(par)
  t.same([open.sessions, open.seats], [0, 0])
  t.ok(open.most > 3 && open.most <= 6 + 1, `${open.most} seats at a time`)
})

t.test('whatever calls do beside one another: own bytes, no seat lost', async t => {
  const par = await smallPar({ maxBatchSize: 7 })
  t.teardown(() => par.dispose())
  const optionsOf = (i: number): GenerateOptions & { classId: number } => ({
    classId: i % 10,
    seed: i,
    ...(i % 3 === 1 && { guidanceScale: 2 }),
    ...(i % 5 === 2 && { tokensPerStep: 2 }),
    ...(i % 4 === 3 && { temperature: 0.5, topK: 30 })
  })
  const kinds = 24
  const alone: string[] = []
  for (let i = 0; i < kinds; i++) alone.push(bytesOf(await par.generate(optionsOf(i))))
  const random = new Random(7)
  const wrong: string[] = []
  const ends: Record<string, number> = {}
  const one = async (i: number): Promise<void> => {
    await turn(random.int(400))
    const options = optionsOf(i)
    const how = random.pick(['whole', 'whole', 'abort', 'leave', 'slow', 'list', 'preview'])
    const controller = new AbortController()
    let end = how
    if (how === 'whole' || how === 'abort') {
      if (how === 'abort') setTimeout(() => { controller.abort('enough') }, random.int(60))
      const image = await par.generate({ ...options, signal: controller.signal }).catch(error => String(error))
      if (typeof image === 'string') end = image
      else if (bytesOf(image) !== alone[i]) wrong.push(`picture ${i}`)
    } else {
      const classId = how === 'list' ? [options.classId, (options.classId + 1) % 10] : options.classId
      let images: GeneratedImage[] = []
      for await (const event of par.stream({ ...options, classId })) {
        if (how === 'leave' && event.step === 1 + i % 15) break
        if (how === 'slow' && random.chance(0.2)) await turn(random.int(20))
        if (how === 'preview' && random.chance(0.3)) await event.preview()
        images = event.images ?? images
      }
      if (how !== 'leave' && bytesOf(images[0]!) !== alone[i]) wrong.push(`picture ${i}, ${how}`)
    }
    ends[end] = (ends[end] ?? 0) + 1
  }
  await Promise.all(Array.from({ length: 240 }, async (_, k) => await one(k % kinds)))
  t.same(wrong, [])
  t.comment(JSON.stringify(ends))
  t.equal(Object.values(ends).reduce((a, b) => a + b), 240)
  t.match(await settled(par), idle)
})
