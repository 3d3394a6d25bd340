// Signals as servers have them: one for the whole process, shared by any number of calls, and those of polyfills, which
// have fewer methods than Node's own.

import { getEventListeners } from 'node:events'
import t from 'tap'
import { outOfMemory } from '../../lib/base/errors.js'
import { rejection, smallPar } from '../support/fixtures.js'

/** What a polyfill of the first days has: no removeEventListener, no reason, no throwIfAborted. */
class PlainSignal {
  aborted = false
  readonly listeners: Array<() => void> = []
  addEventListener (name: string, listener: () => void): void { if (name === 'abort') this.listeners.push(listener) }
  abort (): void {
    this.aborted = true
    for (const listener of this.listeners) listener()
  }
}

t.test('one signal for many calls', async t => {
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', onWarning)
  t.teardown(() => process.off('warning', onWarning))
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const controller = new AbortController()
  const { signal } = controller
  const tokens = new Int32Array(64)
  const own = (): void => {}
  signal.addEventListener('abort', own)
  const calls = Array.from({ length: 30 },
    (_, i) => i % 2 ? par.generate({ classId: 1, signal }) : par.decode(tokens, { signal }))
  t.equal(getEventListeners(signal, 'abort').length, 2, 'one listener of ours beside that of the program')
  await Promise.all(calls)
  t.same(getEventListeners(signal, 'abort'), [own], 'none is left')

  const aborted = Array.from({ length: 30 },
    async () => await rejection(par.generate({ classId: Array(40).fill(1), signal })))
  const reason = new Error('enough')
  setTimeout(() => { controller.abort(reason) }, 5)
  t.ok((await Promise.all(aborted)).every(error => error === reason), 'all of them end')
  t.ok(await par.generate({ classId: 1 }))
  await new Promise(resolve => setImmediate(resolve))
  t.same(warnings, [])
})

t.test('a signal of a polyfill', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const plain = new PlainSignal()
  const signal = plain as unknown as AbortSignal
  const image = await par.generate({ classId: 1, seed: 2, signal })
  t.equal(image.tokens.length, 64, 'a call that has ended well stays so')
  t.equal((await par.decode(image.tokens, { signal })).width, 32)
  t.equal(plain.listeners.length, 1, 'calls in turn leave one listener')
  const running = rejection(par.generate({ classId: Array(64).fill(1), guidanceScale: 2, signal }))
  setTimeout(() => { plain.abort() }, 2)
  t.match(await running, { name: 'AbortError' })
  t.match(await rejection(par.generate({ classId: 1, signal })), { name: 'AbortError' }, 'aborted before')
  t.match(await rejection(smallPar({ signal })), { name: 'AbortError' }, 'also for Par.load')
})

t.test('a failed allocation by whatever name is OUT_OF_MEMORY', async t => {
  let thrown: unknown
  try {
    thrown = new Float64Array(2 ** 33 * 1024)
  } catch (error) {
    thrown = error
  }
  t.match(outOfMemory(thrown), { name: 'ParError', code: 'OUT_OF_MEMORY', cause: thrown })
  for (const error of [new RangeError('Array buffer allocation failed'),
    new Error('vips__file_open_read: out of memory'), Object.assign(new Error('read'), { code: 'ENOMEM' })]) {
    t.match(outOfMemory(error), { code: 'OUT_OF_MEMORY', cause: error }, error.message)
  }
  t.equal(outOfMemory(new RangeError('Invalid string length')), undefined)
  t.equal(outOfMemory('out of memory'), undefined)
  t.equal(outOfMemory(outOfMemory(thrown)), undefined, 'what is one already')
})
