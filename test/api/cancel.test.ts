// Abort and dispose at any time: calls reject with the right reason, at once, and the backend is free within two
// steps. How long two steps take is measured first, on the same work.

import t from 'tap'
import type { Progress } from '../../lib/base/progress.js'
import { addon, type NativeEngine, type NativeSession, type SessionOptions } from '../../lib/machine/native.js'
import { Par } from '../../lib/api/par.js'
import { codeOf, device, rejection, smallPar, transformerFile } from '../support/fixtures.js'

/** Enough pictures at once that a step takes noticeable time. */
const classId = Array.from({ length: 48 }, (_, i) => i % 10)
/** A GPU may have done such small work before it can be stopped. */
const quick = device !== 'cpu'

t.test('abort ends within two steps', async t => {
  const par = await smallPar({}, 'llamagen')
  t.teardown(() => par.dispose())
  const reason = new Error('enough')
  const controller = new AbortController()
  const times: number[] = []
  const marker = async (): Promise<number> => { // waits its turn behind whatever still runs
    const start = performance.now()
    await par.decode(new Int32Array(64))
    return performance.now() - start
  }
  await marker()
  const alone = await marker()
  let [events, began, aborted] = [0, performance.now(), 0]
  const error = await rejection((async () => {
    for await (const event of par.stream({ classId: Array(64).fill(1), guidanceScale: 2, signal: controller.signal })) {
      events++
      times.push(performance.now() - began)
      began = performance.now()
      if (event.step === 10) { controller.abort(reason); aborted = performance.now() }
    }
  })())
  t.equal(error, reason, 'rejects with signal.reason')
  t.equal(events, 10, 'no event after the abort')
  t.ok(performance.now() - aborted < 50, 'at once')
  await marker()
  const freed = performance.now() - aborted - alone
  const step = Math.max(...times.slice(1))
  // 50 ms: other programs have the processor too.
  t.ok(freed < 2 * step + 50, `backend free after ${freed.toFixed(0)} ms, a step takes ${step.toFixed(0)} ms`)
})

t.test('abort, counted: nothing is enqueued after it, and at most two steps still run', async t => {
  // The real addon, its sessions watched.
  const native = addon() as { createEngine: (...options: never[]) => NativeEngine }
  const { createEngine } = native
  const seen = { enqueued: 0, ran: 0, cancelled: 0, disposed: 0 }
  native.createEngine = (...options) => {
    const engine = createEngine(...options)
    return instead(engine, {
      loadTransformer: async (...args: Parameters<NativeEngine['loadTransformer']>) => {
        const transformer = await engine.loadTransformer(...args)
        return instead(transformer, {
          createSession: async (options: SessionOptions) => {
            const session = await transformer.createSession(options)
            return instead(session, {
              step: (...args: Parameters<NativeSession['step']>) => {
                seen.enqueued++
                const done = session.step(...args)
                done.then(() => { seen.ran++ }, () => { seen.cancelled++ })
                return done
              },
              dispose: async () => { seen.disposed++; await session.dispose() }
            })
          }
        })
      }
    })
  }
  t.teardown(() => { native.createEngine = createEngine })
  const par = await smallPar({}, 'llamagen')
  t.teardown(() => par.dispose())
  for (const how of ['abort', 'break'] as const) {
    Object.assign(seen, { enqueued: 0, ran: 0, cancelled: 0, disposed: 0 })
    const controller = new AbortController()
    let atAbort = { ...seen }
    await (async () => {
      for await (const event of par.stream({ classId, signal: controller.signal })) {
        if (event.step < 10) continue
        atAbort = { ...seen }
        if (how === 'break') break
        controller.abort()
      }
    })().catch(() => {})
    await par.decode(new Int32Array(64)) // the queue is empty after it
    t.equal(seen.enqueued, atAbort.enqueued, `${how}: no step is enqueued`)
    t.ok(atAbort.enqueued - atAbort.ran <= 2, `${how}: ${atAbort.enqueued - atAbort.ran} were in flight`)
    t.equal(seen.ran + seen.cancelled, seen.enqueued, `${how}: all settled`)
    t.equal(seen.disposed, 1, `${how}: the session is freed`)
  }
})

t.test('abort in every phase leaves the instance usable', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 1, seed: 3 })
  t.equal(await rejection(par.generate({ classId, signal: AbortSignal.abort('before') })), 'before')
  for (const delay of [0, 1, 3, 10, 30]) {
    const controller = new AbortController()
    const timer = setTimeout(() => controller.abort('later'), delay)
    const outcome = await par.generate({ classId, signal: controller.signal }).then(() => 'done', error => error)
    clearTimeout(timer)
    t.ok(outcome === 'later' || outcome === 'done', `after ${delay} ms: ${String(outcome)}`)
  }
  const pictures = Array.from({ length: 40 }, () => image.tokens)
  for (const start of [
    (signal: AbortSignal) => par.score({ tokens: pictures, classId: 1, signal }),
    (signal: AbortSignal) => par.decode(pictures, { signal, size: 512 }),
    (signal: AbortSignal) =>
      par.encode({ data: new Float32Array(256 * 256 * 3), width: 256, height: 256 }, { signal, grid: 64 })
  ]) {
    const controller = new AbortController()
    const work = start(controller.signal).then(() => 'done', error => error)
    setTimeout(() => controller.abort('stop'), 2)
    const outcome = await work
    t.ok(outcome === 'stop' || (quick && outcome === 'done'), String(outcome))
  }
  const timeout = await par.generate({
    classId: Array(64).fill(1), n: 4, guidanceScale: 3, signal: AbortSignal.timeout(5)
  }).then(() => undefined, error => error)
  t.ok(timeout?.name === 'TimeoutError' || (quick && !timeout), String(timeout))
  t.same((await par.generate({ classId: 1, seed: 3 })).data, image.data)
})

t.test('abort while loading', async t => {
  t.equal(await rejection(Par.load({ transformer: transformerFile('par-4x'), signal: AbortSignal.abort('no') })), 'no')
  for (const delay of [0, 2, 5]) {
    const controller = new AbortController()
    setTimeout(() => controller.abort('stop'), delay)
    const outcome = await smallPar({ signal: controller.signal })
      .then(async par => { await par.dispose(); return 'done' }, error => error)
    t.ok(outcome === 'stop' || outcome === 'done', String(outcome))
  }
})

t.test('a signal that fires after the end does nothing', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const controller = new AbortController()
  await par.generate({ classId: 1, signal: controller.signal })
  controller.abort()
  t.ok(await par.generate({ classId: 1 }))
})

t.test('dispose ends running calls and refuses later ones', async t => {
  const par = await smallPar()
  const tokens = new Int32Array(64)
  const stream = par.stream({ classId: 1 })
  await stream.next() // suspended between two steps
  const running = [
    par.generate({ classId }),
    par.generate({ classId: 1 }),
    par.score({ tokens: Array(40).fill(tokens), classId: 1 }),
    par.decode(Array(40).fill(tokens), { size: 512 })
  ].map(async work => await work.then(() => 'done', error => error.code))
  await new Promise(resolve => setTimeout(resolve, 3))
  const began = performance.now()
  const first = par.dispose()
  const outcomes = await Promise.all(running)
  t.ok(outcomes.every(outcome => outcome === 'DISPOSED' || (quick && outcome === 'done')), outcomes.join(', '))
  t.ok(performance.now() - began < 200, 'promptly')
  t.equal(par.dispose(), first, 'idempotent')
  await first
  t.equal(await codeOf(stream.next()), 'DISPOSED')
  t.equal(await codeOf(par.generate({ classId: 1 })), 'DISPOSED')
  t.equal(await codeOf(par.stream({ classId: 1 }).next()), 'DISPOSED')
  t.equal(await codeOf(par.score({ tokens, classId: 1 })), 'DISPOSED')
  t.equal(await codeOf(par.decode(tokens)), 'DISPOSED')
  t.equal(await codeOf(par.encode({ data: new Float32Array(3072), width: 32, height: 32 })), 'DISPOSED')
})

t.test('Symbol.asyncDispose', async t => {
  const par = await smallPar()
  await par[Symbol.asyncDispose]()
  t.equal(await codeOf(par.generate({ classId: 1 })), 'DISPOSED')
})

/** `object` with some methods replaced; native objects have read-only ones. */
function instead<T extends object> (object: T, methods: Partial<T>): T {
  return new Proxy(object, {
    get (target, name) {
      const value = methods[name as keyof T] ?? target[name as keyof T]
      return typeof value === 'function' ? value.bind(target) : value
    }
  })
}

t.test('reasons of signals and errors of callbacks pass unchanged, whatever they look like', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const tokens = new Int32Array(64)
  const looks: Record<string, () => Error> = {
    'out of memory': () => new Error('cannot allocate memory'),
    'out of memory, by code': () => Object.assign(new Error('mine'), { code: 'ENOMEM' }),
    'of the addon': () => Object.assign(new Error('mine'), { parvisCode: 'WEIRD' }),
    'a range': () => new RangeError('Array buffer allocation failed')
  }
  for (const [look, make] of Object.entries(looks)) {
    const aborted: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
      generate: signal => par.generate({ classId, signal }),
      stream: async signal => { for await (const _ of par.stream({ classId, signal })); },
      images: async signal => { for await (const _ of par.images({ classId, signal })); },
      score: signal => par.score({ tokens: Array(40).fill(tokens), classId: 1, signal }),
      classify: signal => par.classify(tokens, { signal }),
      decode: signal => par.decode(Array(40).fill(tokens), { size: 512, signal }),
      encode: signal => par.encode(new ReadableStream() as never, { signal }),
      load: signal => smallPar({ signal })
    }
    for (const [name, call] of Object.entries(aborted)) {
      const reason = make()
      t.equal(await rejection(call(AbortSignal.abort(reason))), reason, `${name}, before: ${look}`)
      if (quick) continue
      const controller = new AbortController()
      const work = call(controller.signal)
      controller.abort(reason)
      t.equal(await rejection(work), reason, `${name}: ${look}`)
    }
    const called: Record<string, (onProgress: () => never) => Promise<unknown>> = {
      generate: onProgress => par.generate({ classId: 1, onProgress }),
      stream: onProgress => par.stream({ classId: 1, onProgress }).next(),
      images: onProgress => par.images({ classId: 1, onProgress }).next(),
      classify: onProgress => par.classify(tokens, { onProgress })
    }
    for (const [name, call] of Object.entries(called)) {
      const error = make()
      t.equal(await rejection(call(() => { throw error })), error, `${name}, thrown: ${look}`)
      t.equal(await rejection(call((async () => { throw error }) as () => never)), error, `${name}, rejected: ${look}`)
    }
    const reason = make()
    const controller = new AbortController()
    const { value } = await par.stream({ classId: 1, signal: controller.signal }).next()
    controller.abort(reason)
    t.equal(await rejection((value as Progress).preview()), reason, `a preview of a call that was aborted: ${look}`)
  }
})
