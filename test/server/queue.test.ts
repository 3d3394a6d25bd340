// Scaling out: servers and workers on a real Redis. Workers that die, a Redis that dies, clients that go, and messages
// that nobody should have written.

import { spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Queue } from 'bullmq'
import t from 'tap'
import ts from 'typescript'
import { Par } from '../../lib/index.js'
import {
  EngineError, type Engine, type Kind, type Listener, type ModelInfo, type PictureRequest, type Result
} from '../../server/lib/engine.js'
import {
  answered, errorFrame, jobMessage, jobOf, Keys, modelMessage, modelOf, progressFrame, progressOf, queueName,
  resultFrame, resultOf, workerOf
} from '../../server/lib/messages.js'
import { QueueEngine, type QueueEngineOptions } from '../../server/lib/queue.js'
import { QueueWorker, type QueueWorkerOptions } from '../../server/lib/worker.js'
import { built, root } from '../support/built.js'
import { codeOf, rejection } from '../support/fixtures.js'
import { RedisServer } from './redis-server.js'

interface Test { teardown: (end: () => unknown) => unknown }

const never = new AbortController().signal
const kindA: Kind = { backend: 'cpu-avx2', precision: 'float32', weights: '0123456789abcdef' }
const kindB: Kind = { ...kindA, backend: 'cuda-sm_90' }
const kindC: Kind = { ...kindA, precision: 'bfloat16' }

const unhandled: unknown[] = []
process.on('unhandledRejection', error => { unhandled.push(error) })

const request = (seed: number, more: Partial<PictureRequest> = {}): PictureRequest =>
  ({ model: 'fake', classId: 1, count: 1, seed, options: {}, previews: 0, ...more })

async function until (what: string, test: () => unknown, milliseconds = 10_000): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (!await test()) {
    if (Date.now() > deadline) throw new Error(`It has not come: ${what}`)
    await sleep(10)
  }
}

/** Makes pictures of nothing but their seed, in steps of some milliseconds. */
class FakeEngine implements Engine {
  readonly drawn: number[] = []
  readonly steps = new Map<number, number>()
  /** What the next calls fail with. */
  readonly failures: unknown[] = []
  stepMs = 2
  readonly #info: ModelInfo

  constructor (readonly kind = kindA, name = 'fake') {
    this.#info = {
      name, kind, method: 'par', supportedN: [1, 4], n: 4, defaultSteps: 10, grid: [4, 4], width: 8, height: 8,
      labels: ['a', 'b'], classes: 2, guidanceScale: 1, device: 'none'
    }
  }

  models (): ModelInfo[] { return [this.#info] }

  async load (): Promise<{ waiting: number, running: number }> { return { waiting: 0, running: 0 } }

  async problem (): Promise<undefined> {}

  async close (): Promise<void> {}

  pixels (seed: number): Uint8Array { return Uint8Array.from({ length: 192 }, (_, i) => seed * 7 + i) }

  async draw ({ seed, count, classId }: PictureRequest, signal: AbortSignal, listener: Listener): Promise<Result> {
    this.drawn.push(seed)
    const failure = this.failures.shift()
    if (failure) throw failure
    for (let step = 1; step <= 10; step++) {
      await sleep(this.stepMs)
      signal.throwIfAborted()
      this.steps.set(seed, step)
      listener.step?.({ step, steps: 10, cells: [step], ms: step })
      if (step === 5) listener.preview?.({ data: this.pixels(seed + 1), width: 8, height: 8 }, step)
    }
    const pictures = Array.from({ length: count }, (_, i) => ({
      data: this.pixels(seed + i), width: 8, height: 8, classId: Number(classId), label: 'b', seed: seed + i, steps: 10,
      n: 4, tokenOrder: [0, 1], transformerMs: 1, decodeMs: 1, totalMs: 2
    }))
    return { pictures, kind: this.kind }
  }
}

const redis = RedisServer.start()
t.teardown(async () => { await (await redis).end() })
let prefixes = 0

/** Servers and workers that share a part of the database with nobody else. */
async function installation (t: Test) {
  const { url } = await redis
  const prefix = `test-${++prefixes}`
  const lines: string[] = []
  const log = { warn: (line: string) => { lines.push(line) } }
  const common = { url, prefix, log }
  const client = (await redis).client()
  t.teardown(() => { client.disconnect() })
  const keys = new Keys(prefix)
  return {
    client,
    keys,
    lines,
    common,
    worker: async (engine: Engine, options: Partial<QueueWorkerOptions> = {}): Promise<QueueWorker> => {
      const worker = await QueueWorker.open({ ...common, engine, lockMs: 1000, graceMs: 100, ...options })
      t.teardown(async () => { await worker.close() })
      return worker
    },
    engine: async (options: Partial<QueueEngineOptions> = {}): Promise<QueueEngine> => {
      const engine = await QueueEngine.open({ ...common, pollMs: 100, ...options })
      t.teardown(async () => { await engine.close() })
      return engine
    },
    queue: (kind: Kind | undefined, model = 'fake'): Queue => {
      const queue = new Queue(queueName(model, kind), { connection: client, prefix })
      queue.on('error', () => {})
      return queue
    },
    /** Bytes of all results that stand in Redis. */
    kept: async (): Promise<number> => {
      const found = await client.keys(keys.result('*'))
      return (await Promise.all(found.map(key => client.strlen(key)))).reduce((sum, length) => sum + length, 0)
    }
  }
}

t.test('progress, previews and pictures come through', async t => {
  const { worker, engine, kept, client, keys } = await installation(t)
  const fake = new FakeEngine()
  await worker(fake)
  const queue = await engine()
  t.same(queue.models(), JSON.parse(JSON.stringify(fake.models())))
  t.equal(await queue.problem(), undefined)
  t.same(await queue.load('fake'), { waiting: 0, running: 0, seats: 8 })
  const steps: number[] = []
  const places: number[] = []
  const previews: Array<[number, number[]]> = []
  const { pictures, kind } = await queue.draw(request(5, { count: 2, previews: 1 }), never, {
    step: ({ step, steps: all, cells, ms }) => {
      steps.push(step)
      t.same([all, cells, ms], [10, [step], step])
    },
    queued: place => { places.push(place) },
    preview: ({ data, width, height }, step) => { previews.push([step, [...data]]); t.same([width, height], [8, 8]) }
  })
  t.same(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  t.equal(places.at(-1), 0)
  t.same(previews, [[5, [...fake.pixels(6)]]])
  t.same(kind, kindA)
  t.same(pictures.map(({ data, seed, label, tokenOrder }) => [[...data], seed, label, tokenOrder]),
    [5, 6].map(seed => [[...fake.pixels(seed)], seed, 'b', [0, 1]]))
  await until('the pixels are gone from Redis', async () => await kept() === answered.length)
  t.equal(await client.strlen(keys.result('*')), 0)
  const last = await queue.draw(request(Number.MAX_SAFE_INTEGER - 3, { count: 2 }), never, {})
  t.equal(last.pictures[1]!.seed, Number.MAX_SAFE_INTEGER - 2)

  t.equal(await codeOf(queue.draw(request(1, { model: '../../etc/passwd' }), never, {})), 'MODEL_NOT_FOUND')
  t.match(await rejection(queue.draw(request(-1), never, {})), { code: 'INVALID_OPTION', message: /seed/ })
  t.match(await rejection(queue.draw(request(1, { classId: 7 }), never, {})),
    { name: 'ParError', code: 'INVALID_OPTION', message: /classId is no integer from 0 to 1/ })
  const mistake = new Error('mine')
  t.equal(await rejection(queue.draw(request(9), never, { step: () => { throw mistake } })), mistake)
})

t.test('errors of workers', async t => {
  const { worker, engine, lines, client, kept, queue: raw } = await installation(t)
  const fake = new FakeEngine()
  await worker(fake, { concurrency: 1 })
  const queue = await engine()
  const coded = (code: string, message: string): Error => Object.assign(new Error(message), { code })
  fake.failures.push(coded('BAD_IMAGE', 'no picture'))
  t.match(await rejection(queue.draw(request(1), never, {})),
    { name: 'ParError', code: 'BAD_IMAGE', message: 'no picture' })
  t.same(fake.drawn, [1], 'the same again would fail alike')
  fake.failures.push(coded('OUT_OF_MEMORY', 'full'), new Error('something of /home/me'))
  t.same((await queue.draw(request(2), never, {})).pictures[0]!.data, fake.pixels(2))
  t.same(fake.drawn, [1, 2, 2, 2], 'what may pass is tried again')
  fake.failures.push(...Array(3).fill(new Error('something of /home/me')))
  t.match(await rejection(queue.draw(request(3), never, {})),
    { code: 'INTERNAL', message: 'A worker has failed. Its log has the reason' })
  t.same(fake.drawn, [1, 2, 2, 2, 3, 3, 3], 'three times')
  t.ok(lines.some(line => line.includes('something of /home/me')))

  // BullMQ gives up a job whose workers have died again and again.
  const busy = queue.draw(request(4), never, {})
  const deadly = rejection(queue.draw(request(5), never, {}))
  await until('it waits', async () => await raw(kindA).getWaitingCount() === 1)
  const [job] = await raw(kindA).getWaiting()
  await client.hset(raw(kindA).toKey(job!.id!), 'defa', 'job stalled more than allowable limit')
  await busy
  t.match(await deadly, { code: 'INTERNAL', message: 'The workers that had the job have all died' })
  t.notOk(fake.drawn.includes(5))
  await until('errors do not stay', async () => await kept() === 5 * answered.length)
})

t.test('a cancelled job stops within two steps', async t => {
  const { worker, engine, client, keys, queue: raw } = await installation(t)
  const fake = new FakeEngine()
  fake.stepMs = 50
  await worker(fake, { concurrency: 1 })
  const queue = await engine()
  const controller = new AbortController()
  let seen = 0
  const running = queue.draw(request(1), controller.signal, {
    step: ({ step }) => {
      if (step === 3) controller.abort('enough')
      seen = step
    }
  })
  const second = new AbortController()
  const waiting = rejection(queue.draw(request(2), second.signal, {}))
  const places: number[] = []
  const third = queue.draw(request(3), never, { queued: place => { places.push(place) } })
  await until('two wait', () => places.includes(2))
  second.abort('enough')
  t.equal(await waiting, 'enough')
  await until('a cancelled job that waits is removed', async () => await raw(kindA).getWaitingCount() === 1)
  t.equal(await rejection(running), 'enough', "the signal's reason")
  await third
  t.same(places, [2, 1, 0], 'places in the line')
  t.equal(seen, 3, 'nothing is told afterwards')
  t.ok(fake.steps.get(1)! <= 5, `step ${fake.steps.get(1)}`)
  t.same(fake.drawn, [1, 3])
  await until('no job is left', async () => {
    const counts = await raw(kindA).getJobCounts()
    return Object.values(counts).every(count => count === 0)
  })
  t.equal(await rejection(queue.draw(request(4), AbortSignal.abort('before'), {})), 'before')

  // A message that cancels is lost: the worker finds what stands in Redis.
  const lonely = new AbortController()
  fake.stepMs = 1500
  const last = rejection(queue.draw(request(5), lonely.signal, { queued: () => {} }))
  await until('it runs', () => fake.drawn.includes(5))
  const [id] = await raw(kindA).getActive()
  await client.set(keys.result(id!.id!), answered)
  await until('it ends', async () => await raw(kindA).getActiveCount() === 0)
  t.ok(fake.steps.get(5) === undefined || fake.steps.get(5)! <= 2)
  lonely.abort('enough')
  t.equal(await last, 'enough')
})

t.test('a real engine stops within two steps', async t => {
  const { engine, common } = await installation(t)
  const worker = await WorkerProcess.start(t, await compiled(), { url: common.url, prefix: common.prefix })
  const queue = await engine()
  const controller = new AbortController()
  const drawing = rejection(queue.draw(
    request(1, { model: 'fashion', options: { n: 1 } }), controller.signal,
    { step: ({ step }) => { if (step === 20) controller.abort('enough') } }
  ))
  t.equal(await drawing, 'enough')
  await until('the worker hears of it', () => worker.aborted)
  const [told, last] = worker.aborted!
  t.ok(told >= 20 && last <= told + 2 && last < 256, `stopped at step ${last}, told at step ${told} of 256`)
  await worker.end()
})

t.test('three workers, two of them killed, Redis killed once: 200 pictures, each once', async t => {
  const { engine, common, queue: raw, kept } = await installation(t)
  const folder = await compiled()
  const workers = await Promise.all([1, 2, 3].map(async () => await WorkerProcess.start(t, folder, {
    url: common.url, prefix: common.prefix, concurrency: 8, lockMs: 1500, graceMs: 1000
  })))
  const queue = await engine()
  const par = await Par.load({ device: 'cpu', precision: 'float32', threads: 1 })
  t.teardown(async () => { await par.dispose() })
  const seeds = Array.from({ length: 200 }, (_, i) => 1000 + i)
  const answers = new Map<number, number>()
  const pictures = new Map<number, Uint8Array>()
  const drawing = seeds.map(async seed => {
    const asked = request(seed, { model: 'fashion', classId: seed % 10 })
    const result = await queue.draw(asked, never, {})
    answers.set(seed, (answers.get(seed) ?? 0) + 1)
    pictures.set(seed, result.pictures[0]!.data)
    t.equal(result.pictures.length, 1)
  })
  const all = Promise.all(drawing)
  const done = async (count: number): Promise<void> => {
    await Promise.race([until(`${count} answers`, () => answers.size >= count, 60_000), all])
  }
  await done(30)
  const first = await workers[0]!.kill()
  await done(70)
  await (await redis).kill()
  await sleep(500)
  await (await redis).begin()
  const atRestart = answers.size
  await done(120)
  const second = await workers[1]!.kill()
  t.ok(first.length > 0 && second.length > 0, `killed with ${first.length} and ${second.length} jobs in work`)
  await all
  t.ok(atRestart < 200)
  t.ok(first.every(seed => [workers[1]!, workers[2]!].some(({ finished }) => finished.has(seed))), 'run elsewhere')
  t.same([...answers.values()], Array(200).fill(1), 'each once')
  let wrong = 0
  for (const seed of seeds) {
    const { data } = await par.generate({ classId: seed % 10, seed })
    if (Buffer.compare(Buffer.from(data), Buffer.from(pictures.get(seed)!)) !== 0) wrong++
  }
  t.equal(wrong, 0, 'the bytes that par.generate makes alone')
  const counts = async (): Promise<number> =>
    Object.values(await raw(workers[2]!.kind(queue), 'fashion').getJobCounts()).reduce((sum, count) => sum + count, 0)
  await until('the queue is empty', async () => await counts() === 0)
  await until('no result is left', async () => await kept() <= 200 * answered.length)

  t.comment(`lost with the workers: ${first.length} + ${second.length} jobs`)
  await workers[2]!.end()
})

t.test('an idempotency key', async t => {
  const { worker, engine, queue: raw } = await installation(t)
  const fake = new FakeEngine()
  const first = await worker(fake)
  const queue = await engine()
  const other = await engine()
  const asked = request(3, { idempotencyKey: 'order 66' })
  const steps: number[] = []
  const [one, two, three] = await Promise.all([
    queue.draw(asked, never, {}), queue.draw(asked, never, {}),
    other.draw(asked, never, { step: ({ step }) => { steps.push(step) } })
  ])
  t.same([one, two, three].map(({ pictures }) => pictures[0]!.data), Array(3).fill(fake.pixels(3)))
  t.same(fake.drawn, [3], 'one job')
  t.ok(steps.length > 0, 'who joins is told of steps')
  t.same((await other.draw(asked, never, {})).pictures[0]!.data, fake.pixels(3))
  t.same(fake.drawn, [3], 'the result is kept')
  t.match(await rejection(queue.draw(request(4, { idempotencyKey: 'order 66' }), never, {})),
    { code: 'INVALID_OPTION', message: /idempotencyKey/ })
  t.equal(await codeOf(queue.draw(request(4, { idempotencyKey: '' }), never, {})), 'INVALID_OPTION')

  fake.stepMs = 40
  const controller = new AbortController()
  const leaving = rejection(queue.draw(request(5, { idempotencyKey: 'x' }), controller.signal, {}))
  const staying = other.draw(request(5, { idempotencyKey: 'x' }), never, { step: ({ step }) => { steps.push(step) } })
  await until('it runs', () => fake.drawn.includes(5))
  controller.abort('enough')
  t.equal(await leaving, 'enough')
  await staying
  t.same(fake.drawn, [3, 5], 'it went on for the other client')

  const last = new AbortController()
  const lonely = rejection(queue.draw(request(6, { idempotencyKey: 'y' }), last.signal, {}))
  await until('it runs', () => (fake.steps.get(6) ?? 0) > 0)
  last.abort('enough')
  await lonely
  t.same((await queue.draw(request(6, { idempotencyKey: 'y' }), never, {})).pictures[0]!.data, fake.pixels(6),
    'a key whose job was cancelled can be used again')

  // Its workers are gone, and others of another kind have come: the key stands for a request, not for a kind.
  await first.close()
  const lost = new AbortController()
  const unmade = rejection(queue.draw(request(8, { idempotencyKey: 'w' }), lost.signal, { queued: () => {} }))
  await until('it waits', async () => await raw(kindA).getWaitingCount() === 1)
  lost.abort('enough')
  await unmade
  const next = new FakeEngine(kindB)
  await worker(next)
  await until('they are seen', () => queue.models()[0]!.kind.backend === kindB.backend)
  await until('it is removed', async () => await raw(kindA).getWaitingCount() === 0)
  const [eighth, again] = await Promise.all([1, 2].map(async () =>
    await queue.draw(request(8, { idempotencyKey: 'w' }), never, {})))
  t.same([eighth!.kind, again!.kind, next.drawn], [kindB, kindB, [8]])
  t.same((await queue.draw(asked, never, {})).kind, kindA, 'a result that is kept says who made it')
  await worker(fake)
  await until('they are seen', async () => (await queue.load('fake')).seats === 16)

  const away = await engine()
  const cut = rejection(away.draw(request(7, { idempotencyKey: 'z' }), never, {}))
  await until('it runs', () => fake.drawn.includes(7))
  await away.close()
  t.match(await cut, { code: 'SHUTTING_DOWN' })
  const times = fake.drawn.length
  t.same((await queue.draw(request(7, { idempotencyKey: 'z' }), never, {})).pictures[0]!.data, fake.pixels(7))
  t.equal(fake.drawn.length, times, 'a server that ends leaves jobs that have a key to the next one')
})

t.test('results expire, and so do keys', async t => {
  const { worker, engine, client, keys } = await installation(t)
  const fake = new FakeEngine()
  await worker(fake)
  const queue = await engine({ resultTtlMs: 1000, patienceMs: 1000 })
  const asked = request(1, { idempotencyKey: 'k' })
  await queue.draw(asked, never, {})
  const [result] = await client.keys(keys.result('key-*'))
  const left = await client.pttl(result!)
  t.ok(left > 0 && left <= 1000, `${left} ms`)
  await until('it expires', async () => await client.exists(result!) === 0, 3000)
  await queue.draw(asked, never, {})
  t.same(fake.drawn, [1, 1], 'made again')
  await sleep(1200)
  t.same(await client.keys(keys.body('*')), [])
})

t.test('back-pressure', async t => {
  const { worker, engine, queue: raw } = await installation(t)
  const fake = new FakeEngine()
  fake.stepMs = 30
  await worker(fake, { concurrency: 2 })
  const queue = await engine({ maxWaiting: 3 })
  const running = [1, 2].map(async seed => await queue.draw(request(seed), never, {}))
  await until('two run', async () => await raw(kindA).getActiveCount() === 2)
  const more = await Promise.all(Array.from({ length: 20 }, async (_, i) =>
    await queue.draw(request(10 + i), never, {}).then(() => 'done', error => error)))
  t.equal(more.filter(end => end === 'done').length, 3, 'as many as may wait')
  t.same(new Set(more.filter(end => end !== 'done').map(({ name, code }) => `${name} ${code}`)),
    new Set(['ParError QUEUE_FULL']))
  await Promise.all(running)
  t.ok(await queue.draw(request(50), never, {}), 'there is room again')
  t.same(await queue.load('fake'), { waiting: 0, running: 0, seats: 2 })
})

t.test('kinds', async t => {
  const { worker, engine } = await installation(t)
  const fakes = [kindA, kindA, kindB, kindC].map(kind => new FakeEngine(kind))
  const [a, , b, c] = await Promise.all(fakes.map(async fake => await worker(fake, { concurrency: 1 })))
  const queue = await engine()
  const many = await Promise.all(Array.from({ length: 20 }, async (_, i) => await queue.draw(request(i), never, {})))
  t.same(many.map(({ kind }) => kind), Array(20).fill(kindA), 'the kind of most workers')
  t.ok(fakes[2]!.drawn.length === 0 && fakes[3]!.drawn.length === 0)
  t.equal(queue.models().length, 1)

  const mixed = await engine({ mixed: true })
  for (const fake of fakes) fake.stepMs = 20
  const any = await Promise.all(Array.from({ length: 16 }, async (_, i) => await mixed.draw(request(i), never, {})))
  const kinds = new Set(any.map(({ kind }) => kind.backend + kind.precision))
  t.equal(kinds.size, 3, 'all kinds have answered')
  for (const [index, { kind }] of any.entries()) {
    t.ok(fakes.some(fake => fake.kind.backend === kind.backend && fake.kind.precision === kind.precision &&
      fake.drawn.includes(index)), 'the answer says which')
  }

  // Of a kind whose workers are gone: the job waits for one, though others are idle.
  const patient = await engine({ patienceMs: 700 })
  await Promise.all([a!.close(), b!.close(), c!.close()])
  fakes[0]!.drawn.length = fakes[1]!.drawn.length = 0
  const d = await worker(new FakeEngine(kindB))
  await sleep(200)
  t.same((await patient.draw(request(70), never, {})).kind, kindA, 'one of the first kind is left')
  t.same(fakes[1]!.drawn, [70])
  await d.close()
})

t.test('no worker', async t => {
  const { worker, engine } = await installation(t)
  const queue = await engine({ patienceMs: 600 })
  t.match(await rejection(queue.draw(request(1), never, {})),
    { name: 'EngineError', code: 'QUEUE_UNAVAILABLE', message: 'No worker is on the queue' })
  t.equal(await queue.problem(), 'No worker is on the queue')
  const fake = new FakeEngine()
  const one = await worker(fake)
  await until('it is seen', () => queue.models().length === 1)
  await one.close()
  await until('it is gone', async () => await queue.problem() !== undefined)
  t.match(await rejection(queue.draw(request(2), never, {})), { code: 'QUEUE_UNAVAILABLE' })
  const again = await worker(new FakeEngine(kindA, 'other'))
  await until('another is seen', () => queue.models().some(({ name }) => name === 'other'))
  t.equal(await codeOf(queue.draw(request(2), never, {})), 'MODEL_NOT_FOUND')
  await again.close()
})

t.test('a worker that is closed hands back what has not ended', async t => {
  const { worker, engine } = await installation(t)
  const [slow, fast] = [new FakeEngine(), new FakeEngine()]
  slow.stepMs = 1000
  const first = await worker(slow, { concurrency: 2, graceMs: 150, lockMs: 60_000 })
  const queue = await engine()
  const drawing = [1, 2].map(async seed => await queue.draw(request(seed), never, {}))
  await until('both run', () => slow.drawn.length === 2)
  await worker(fast, { lockMs: 60_000 })
  const began = performance.now()
  await first.close()
  const took = performance.now() - began
  t.ok(took > 140 && took < 3000, `${took.toFixed(0)} ms`)
  t.same((await Promise.all(drawing)).map(({ pictures }) => pictures[0]!.data), [fast.pixels(1), fast.pixels(2)])
  t.same([...fast.drawn].sort(), [1, 2], 'long before the lock would have ended')
  t.equal(slow.steps.size, 0)

  const third = await worker(new FakeEngine(kindB), { graceMs: 5000 })
  await until('it is seen', async () => (await queue.load('fake')).seats === 16)
  await third.close()
  fast.stepMs = 20
  const last = queue.draw(request(3), never, {})
  await until('it runs', () => fast.drawn.includes(3))
  t.same((await last).pictures[0]!.data, fast.pixels(3))
})

t.test('an engine that has ended ends its worker, and loses nothing', async t => {
  const { worker, engine } = await installation(t)
  const [gone, other] = [new FakeEngine(), new FakeEngine()]
  gone.failures.push(new EngineError('SHUTTING_DOWN', 'it ends'))
  await worker(gone)
  const queue = await engine()
  const drawing = queue.draw(request(1), never, {})
  await until('it was asked', () => gone.drawn.length === 1)
  await worker(other)
  t.same((await drawing).pictures[0]!.data, other.pixels(1))
  t.same(gone.drawn, [1])
})

t.test('jobs that nobody should have written', async t => {
  const { worker, engine, queue: raw, client, keys, lines } = await installation(t)
  const fake = new FakeEngine()
  await worker(fake, { concurrency: 2 })
  const queue = raw(kindA)
  const good = JSON.parse(JSON.stringify(
    jobMessage({ request: request(1), kind: kindA, resultTtlMs: 60_000, steps: false })))
  const bad = (change: object): unknown => ({ ...good, request: { ...good.request, ...change } })
  const jobs: Record<string, unknown> = {
    nothing: {},
    null: null,
    number: 7,
    text: 'x',
    list: [],
    'a path as model': bad({ model: '../../etc/passwd' }),
    'a model that is not served': bad({ model: 'other' }),
    'an object as model': bad({ model: { toString: 'fake' } }),
    'a huge count': bad({ count: 1e9 }),
    'a fraction': bad({ seed: 0.5 }),
    'a huge seed': bad({ seed: 1e300 }),
    'a class of an object': bad({ classId: {} }),
    'a class beyond the last': bad({ classId: 2 }),
    'a prototype': JSON.parse(JSON.stringify(good).replace('"options":{', '"options":{"__proto__":{"n":4}')),
    'a constructor': bad({ constructor: { prototype: { polluted: 1 } } }),
    'options that are none': bad({ options: { load: '/etc/passwd' } }),
    'a temperature': bad({ options: { temperature: '1' } }),
    'a huge size': bad({ size: { width: 8192, height: 8192 } }),
    'a negative size': bad({ size: { width: -1, height: 8 } }),
    'a mask that is too short': bad({ known: { image: 'AAAA', mask: '1' } }),
    'a picture that is no base64': bad({ known: { image: '/etc/pass', mask: '1'.repeat(16) } }),
    previews: bad({ previews: -1 }),
    'another kind': { ...good, kind: kindB },
    'any kind in a queue of one': { ...good, kind: null },
    'no time to live': { ...good, resultTtlMs: 1e12 },
    'another version': { ...good, v: 2 },
    '100 MB': 'x'.repeat(100e6),
    '30 MB in a field': bad({ known: { image: 'A'.repeat(30e6), mask: '1'.repeat(16) } })
  }
  const codes: string[] = []
  for (const [what, data] of Object.entries(jobs)) {
    const id = `bad-${codes.length}`
    await queue.add('draw', data, { jobId: id })
    await until(what, async () => await client.exists(keys.result(id)) === 1)
    const answer = await client.getBuffer(keys.result(id))
    let code = 'none'
    try {
      resultOf(answer!, request(1), kindA)
    } catch (error) {
      code = (error as { code: string }).code
    }
    if (code !== 'INVALID_OPTION' && code !== 'MODEL_NOT_FOUND') t.fail(`${what}: ${code}`)
    codes.push(code)
  }
  t.equal(codes.filter(code => code === 'MODEL_NOT_FOUND').length, 2)
  t.same(fake.drawn, [], 'none of them has reached the engine')
  t.equal((Object.prototype as { polluted?: number }).polluted, undefined)
  t.ok(lines.every(line => line.length < 500 && !line.includes('passwd')))

  // What not even BullMQ can read, and options that would have it do more than run the job.
  const base = queue.toKey('')
  await client.hset(`${base}torn`, { name: 'draw', data: '{', opts: '{', timestamp: '1' })
  await client.hset(`${base}cut`, { name: 'draw', data: '{"v":', opts: '{}', timestamp: '1' })
  await client.hset(`${base}deep`, {
    name: 'draw', data: '['.repeat(1e6) + ']'.repeat(1e6), opts: '{}', timestamp: '1'
  })
  await client.hset(`${base}long`, {
    name: 'draw', data: ' '.repeat(30e6) + JSON.stringify(good), opts: '{}', timestamp: '1'
  })
  await client.lpush(`${base}wait`, 'torn', 'cut', 'deep', 'long', 'nowhere')
  await queue.add('draw', good, { jobId: 'a'.repeat(300) })
  await queue.add('draw', { ...good, v: 9 }, { attempts: 1e9, jobId: 'again' })
  const engineOf = await engine()
  t.same((await engineOf.draw(request(5), never, {})).pictures[0]!.data, fake.pixels(5), 'the worker works on')
  t.ok(fake.drawn.filter(seed => seed !== 5).length === 0)
  await until('one that cannot be parsed is refused', async () => await client.exists(`${base}cut`) === 0)
  await until('nor what is too long', async () => await client.exists(`${base}long`) === 0)
  t.same(fake.drawn, [5], 'though it would be a job without its blanks')
  await until('nor what is too deep', async () => await client.exists(`${base}deep`) === 0)
  await until('nor an id that is none', async () => await client.exists(base + 'a'.repeat(300)) === 0)
  await until('one is not tried for ever', async () => await client.exists(`${base}again`) === 0)
  await until('what cannot be read is removed in the end', async () => await client.exists(`${base}torn`) === 0, 25_000)
})

t.test('answers that nobody should have written', async t => {
  const { worker, engine, client, keys, queue: raw, lines } = await installation(t)
  const fake = new FakeEngine()
  fake.stepMs = 400
  await worker(fake)
  const queue = await engine()
  const good = (await new FakeEngine().draw(request(1), never, {}))
  const frames: Record<string, Buffer> = {
    cut: Buffer.from('abc'),
    'a long header': Buffer.from([255, 255, 255, 255, 0, 0]),
    'no JSON': Buffer.from([2, 0, 0, 0, 65, 65]),
    'another seed': resultFrame({ ...good, pictures: [{ ...good.pictures[0]!, seed: 2 }] }),
    'two pictures': resultFrame({ ...good, pictures: [...good.pictures, ...good.pictures] }),
    'too few pixels': resultFrame({ ...good, pictures: [{ ...good.pictures[0]!, data: new Uint8Array(3) }] }),
    'huge sides': resultFrame({ ...good, pictures: [{ ...good.pictures[0]!, width: 1e9 }] }),
    'another kind': resultFrame({ ...good, kind: kindB }),
    'a code that is none': Buffer.concat([Buffer.from([41, 0, 0, 0]),
      Buffer.from('{"type":"error","code":"X","message":"y"}')])
  }
  for (const [what, bytes] of Object.entries(frames)) {
    t.match(await rejection((async () => resultOf(bytes, request(1), kindA))()), { name: 'ParError', code: 'INTERNAL' },
      what)
  }
  const failure = errorFrame(new EngineError('SHUTTING_DOWN', 'x'))
  t.match(await rejection((async () => resultOf(failure, request(1), kindA))()),
    { name: 'EngineError', code: 'SHUTTING_DOWN' })

  const drawing = rejection(queue.draw(request(1), never, { step: () => t.fail('no step was made') }))
  await until('it runs', () => fake.drawn.length === 1)
  const [job] = await raw(kindA).getActive()
  await client.publish(keys.progress(job!.id!), 'garbage')
  await client.publish(keys.progress(job!.id!), progressFrame({
    type: 'step', event: { step: 3, steps: 2, cells: [1e9], ms: -1 }
  }))
  await client.set(keys.result(job!.id!), frames['another seed']!)
  await client.publish(keys.progress(job!.id!), progressFrame({ type: 'done' }))
  t.match(await drawing, { code: 'INTERNAL', message: /The answer of a worker: seed is another one/ })

  await client.sadd(keys.workers, 'liar', '', 'x'.repeat(1000))
  const model = modelMessage({ ...fake.models()[0]!, name: 'evil', classes: 1e12 })
  await client.set(keys.worker('liar'), JSON.stringify({ v: 1, models: [model.id, 'f'.repeat(64)], seats: 1 }))
  await client.set(keys.model(model.id), model.message)
  await client.set(keys.worker('x'.repeat(1000)), '{"__proto__":1}')
  await sleep(400)
  t.same(queue.models().map(({ name }) => name), ['fake'], 'what is told of models is checked')
  t.ok(lines.some(line => line.includes('What a worker tells')))
  t.throws(() => workerOf('[]'), { code: 'INTERNAL' })
  t.throws(() => modelOf(model.id, '{}'), { code: 'INTERNAL', message: /not what the worker has told/ })
  t.throws(() => progressOf(Buffer.from('abcdefgh')), { code: 'INTERNAL' })
  const served = new Map([['fake', fake.models()[0]!]])
  t.throws(() => jobOf({ v: 1 }, served), { code: 'INVALID_OPTION' })
})

t.test('passwords and addresses', async t => {
  const server = await redis
  const fake = new FakeEngine()
  const wrong = `redis://:wr0ng-pa55@127.0.0.1:${server.port}`
  for (const open of [
    async () => await QueueEngine.open({ url: wrong }),
    async () => await QueueWorker.open({ url: wrong, engine: fake }),
    async () => await QueueEngine.open({ url: `redis://127.0.0.1:${server.port}` })
  ]) {
    const began = performance.now()
    const error = await rejection(open()) as Error
    t.match(error, { name: 'EngineError', code: 'QUEUE_UNAVAILABLE', message: /it refuses the password/ })
    t.notOk(inspect(error, { depth: 10, showHidden: true }).includes('wr0ng'), 'which is not shown')
    t.ok(performance.now() - began < 3000, 'at once')
  }
  process.env.PARVIS_REDIS_PASSWORD = server.password
  t.teardown(() => { delete process.env.PARVIS_REDIS_PASSWORD })
  const engine = await QueueEngine.open({ url: `redis://127.0.0.1:${server.port}/0` })
  await engine.close()
  t.equal(await codeOf(engine.draw(request(1), never, {})), 'SHUTTING_DOWN')
  t.match(await rejection(QueueEngine.open({ url: 'redis://:top-secret@127.0.0.1:1', unavailableMs: 300 })),
    { code: 'QUEUE_UNAVAILABLE', message: /^Redis at redis:\/\/127.0.0.1:1 cannot be reached/ })
  for (const url of ['', 'http://x', 'redis://', 'redis://:top-secret@host:99999', 'redis://h/db', 'redis://%ff@h',
    'redis://h/0?x=1']) {
    const error = await rejection(QueueEngine.open({ url }))
    t.match(error, { name: 'ParError', code: 'INVALID_OPTION' }, url)
    t.notOk(inspect(error, { showHidden: true }).includes('top-secret'))
  }
  const unhashed = new FakeEngine({ ...kindA, weights: '' })
  t.match(await rejection(QueueWorker.open({ url: server.url, engine: unhashed })),
    { code: 'INVALID_OPTION', message: /no hash/ })
  t.equal(await codeOf(QueueWorker.open({ url: server.url, engine: fake, concurrency: 0 })), 'INVALID_OPTION')
  t.equal(await codeOf(QueueWorker.open({ url: server.url, engine: fake, models: ['x'] })), 'INVALID_OPTION')
})

t.test('TLS', async t => {
  const server = await RedisServer.start({ tls: true })
  t.teardown(async () => { await server.end() })
  const fake = new FakeEngine()
  const worker = await QueueWorker.open({ url: server.url, ca: server.ca, engine: fake, lockMs: 1000 })
  const queue = await QueueEngine.open({ url: server.url, ca: server.ca })
  t.same((await queue.draw(request(1), never, {})).pictures[0]!.data, fake.pixels(1))
  await queue.close()
  await worker.close()
  t.match(await rejection(QueueEngine.open({ url: server.url })),
    { code: 'QUEUE_UNAVAILABLE', message: /its certificate is not trusted/ })
})

t.test('Redis that goes away', async t => {
  const server = await RedisServer.start()
  t.teardown(async () => { await server.end() })
  const fake = new FakeEngine()
  fake.stepMs = 30
  const worker = await QueueWorker.open({ url: server.url, engine: fake, lockMs: 1000, graceMs: 100, concurrency: 1 })
  const queue = await QueueEngine.open({ url: server.url, pollMs: 100, unavailableMs: 300, patienceMs: 1500 })
  const going = queue.draw(request(1), never, {})
  await until('it runs', () => fake.drawn.length === 1)
  await server.kill()
  await until('it is noticed', async () => await queue.problem() !== undefined)
  t.match(await rejection(queue.draw(request(2), never, {})),
    { name: 'EngineError', code: 'QUEUE_UNAVAILABLE', message: /cannot be reached/ })
  await server.begin()
  t.same((await going).pictures[0]!.data, fake.pixels(1), 'an answer that came meanwhile is there')
  await until('it is back', async () => await queue.problem() === undefined)
  t.ok(await queue.draw(request(3), never, {}))

  // It comes back without what it knew.
  fake.stepMs = 150
  const lost = queue.draw(request(4), never, {})
  await until('it runs', () => fake.drawn.includes(4))
  const lostToo = queue.draw(request(6), never, {})
  await until('it waits', async () => (await queue.load('fake')).waiting === 1)
  const client = server.client()
  await client.flushall()
  client.disconnect()
  t.same((await lost).pictures[0]!.data, fake.pixels(4), 'a job that was lost in work')
  t.same((await lostToo).pictures[0]!.data, fake.pixels(6), 'a job that was lost is given to the queue again')

  const last = rejection(queue.draw(request(5), never, {}))
  await until('it runs', () => fake.drawn.includes(5))
  await server.kill()
  t.match(await last, { code: 'QUEUE_UNAVAILABLE' }, 'nobody waits for ever')
  const began = performance.now()
  await Promise.all([queue.close(), worker.close()])
  t.ok(performance.now() - began < 9000, 'the end does not wait for it')
})

t.test('no promise was left alone', async t => {
  await sleep(100)
  t.same(unhandled.map(error => inspect(error).slice(0, 500)), [])
})

// ---- workers as processes

let folder: Promise<string> | undefined

/** server/lib for plain Node.js, beside a built package. */
async function compiled (): Promise<string> {
  folder ??= compile()
  return await folder
}

async function compile (): Promise<string> {
  await built()
  const from = path.join(root, 'server', 'lib')
  const to = path.join(root, 'out', `queue-test-${process.pid}`) // within the clone, whose node_modules it needs
  fs.mkdirSync(to, { recursive: true })
  t.teardown(() => { fs.rmSync(to, { recursive: true, force: true }) })
  const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022, esModuleInterop: true }
  for (const name of ['engine', 'local', 'messages', 'redis', 'worker']) {
    const source = fs.readFileSync(path.join(from, `${name}.ts`), 'utf8')
    fs.writeFileSync(path.join(to, `${name}.js`), ts.transpileModule(source, { compilerOptions }).outputText)
  }
  return to
}

class WorkerProcess {
  readonly began = new Set<number>()
  readonly finished = new Set<number>()
  /** Of a job that was aborted: its step by then, and its last one. */
  aborted: [told: number, last: number] | undefined

  private constructor (readonly child: ChildProcess) {}

  static async start (t: Test, folder: string, options: Partial<QueueWorkerOptions>): Promise<WorkerProcess> {
    const script = path.join(root, 'test', 'server', 'worker-process.js')
    const child = spawn(process.execPath, [script, folder, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, NODE_OPTIONS: '' }
    })
    t.teardown(() => { child.kill('SIGKILL') })
    const worker = new WorkerProcess(child)
    let [said, complaints, isReady] = ['', '', false]
    child.stderr!.on('data', text => { complaints += text })
    child.stdout!.on('data', text => {
      const lines = (said + text).split('\n')
      said = lines.pop()!
      for (const line of lines) {
        const [what, seed, last] = line.split(' ')
        if (what === 'aborted') worker.aborted = [Number(seed), Number(last)]
        if (what === 'ready') isReady = true
        if (what === 'began') worker.began.add(Number(seed))
        if (what === 'finished') worker.finished.add(Number(seed))
      }
    })
    await until('a worker', () => {
      if (child.exitCode !== null) throw new Error(`A worker has not begun: ${complaints}`)
      return isReady
    }, 30_000)
    return worker
  }

  /** Kills it while jobs are in work, and says which. */
  async kill (): Promise<number[]> {
    const inWork = (): number[] => [...this.began].filter(seed => !this.finished.has(seed))
    await until('jobs are in work', () => inWork().length > 0)
    const ended = new Promise(resolve => this.child.once('close', resolve))
    this.child.kill('SIGKILL')
    await ended
    return inWork()
  }

  async end (): Promise<void> {
    const ended = new Promise(resolve => this.child.once('exit', resolve))
    this.child.kill('SIGTERM')
    await ended
    if (this.child.exitCode !== 0) throw new Error(`A worker ended with ${this.child.exitCode}`)
  }

  kind (engine: QueueEngine): Kind {
    return engine.models().find(({ name }) => name === 'fashion')!.kind
  }
}
