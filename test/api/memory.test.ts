// Memory comes back: after dispose(), and from iterators that nobody finished. Measured in plain processes, because
// the test runner's own threads give their heaps back when they like.

import { transformerModel } from '../../lib/models/shapes.js'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { largest } from '../../lib/machine/budget.js'
import { sessionBytes } from '../../lib/models/memory.js'
import { built } from '../support/built.js'
import { tokenizerFile, transformerFile } from '../support/fixtures.js'

/** Runs the body of an async function in a process of its own; it has `load`, `resident` and returns MB. */
async function megabytes (body: string): Promise<number> {
  const script = `
    const { Par } = require(${JSON.stringify(path.join(await built(), 'index.js'))})
    const load = () => Par.load(${JSON.stringify({ transformer: transformerFile('par-4x'), tokenizer: tokenizerFile(), precision: 'float32', threads: 1 })})
    // Without the heap of JavaScript, which V8 lets grow to some 20 MB of garbage before it gives any back.
    async function resident () {
      let least = Infinity
      for (let i = 0; i < 5; i++) {
        gc()
        await new Promise(resolve => setTimeout(resolve, 40)) // pages go back in the background
        const { rss, heapTotal } = process.memoryUsage()
        least = Math.min(least, (rss - heapTotal) / 1e6)
      }
      return least
    }
    ;(async () => { ${body} })().then(value => console.log(value), error => { console.error(error); process.exit(1) })`
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '-e', script],
    { env: { ...process.env, NODE_OPTIONS: '' } })
  return Number(stdout)
}

t.test('kept logits count among the bytes of a session', async t => {
  const model = transformerModel('B', 4)
  const atOnce = (kept: number): number =>
    largest(64, sequences => sessionBytes('cpu', model, 'float32',
      { streamsEach: 1, slots: 576, tokens: 576, rows: 256, kept }, sequences, 2), 2 ** 30)
  const few = atOnce(0)
  const kept = atOnce(576)
  t.ok(kept >= 1 && kept < few, `${kept} of ${few}`)
  t.ok(kept * 576 * 16384 * 4 * 3 <= 2 ** 30, 'the logits and their copies fit in a gigabyte')
})

t.test('100 rounds of loading and disposing leave resident memory level', async t => {
  // The instances are kept, so that the collector cannot free for them what dispose() should have freed.
  const grown = await megabytes(`
    const kept = []
    async function round () {
      const par = await load()
      kept.push(par)
      await par.generate({ classId: 1, seed: 1 })
      await par.dispose()
    }
    for (let i = 0; i < 40; i++) await round() // allocators settle
    const before = await resident()
    for (let i = 0; i < 100; i++) await round()
    return await resident() - before`)
  // One instance holds some 3 MB of weights and as much of session: a leak of either would show as 300 MB.
  t.ok(grown < 30, `${grown.toFixed(1)} MB more after 100 rounds`)
})

t.test('an iterator that is forgotten half-way is collected, with its session', async t => {
  const grown = await megabytes(`
    const par = await load()
    async function forget () { await par.stream({ classId: Array(64).fill(1), guidanceScale: 2 }).next() }
    for (let i = 0; i < 3; i++) await forget()
    const before = await resident()
    for (let i = 0; i < 30; i++) {
      await forget()
      if (i % 3 === 2) await resident()
    }
    return await resident() - before`)
  // The cache of 64 guided sequences takes 17 MB, that of 30 such iterators 500.
  t.ok(grown < 60, `${grown.toFixed(1)} MB more after 30 forgotten iterators`)
})

t.test('50 worker threads in turn, each of which loads and generates, leave resident memory level', async t => {
  t.setTimeout(300000)
  const module = path.join(await built(), 'index.js')
  const grown = await megabytes(`
    const { Worker } = require('node:worker_threads')
    const body = \`require(\${JSON.stringify(${JSON.stringify(module)})}).default.generate({ classId: 7, n: 16 }).then(image => require('node:worker_threads').parentPort.postMessage(image.tokens.length))\`
    async function turn () {
      const worker = new Worker(body, { eval: true, execArgv: [] })
      const said = new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject) })
      if (await said !== 256) throw new Error('no picture')
      await worker.terminate()
    }
    for (let i = 0; i < 25; i++) await turn() // allocators settle
    const before = await resident()
    for (let i = 0; i < 50; i++) await turn()
    return await resident() - before`)
  // The weights of the default model take some 3 MB, a thread's stack and heap more.
  t.ok(grown < 30, `${grown.toFixed(1)} MB more after 50 threads`)
})
