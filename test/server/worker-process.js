'use strict'
// A worker as a process of its own, for queue.test.ts: which kills it, or has it end in order. It tells on stdout which
// seeds it has begun and finished, and of a job that is aborted the steps that were made by then, and at the end.
//
//   node worker-process.js <folder of the compiled server/lib> <options of QueueWorker as JSON>

const path = require('node:path')

const [folder, json] = process.argv.slice(2)
const { LocalEngine } = require(path.join(folder, 'local.js'))
const { QueueWorker } = require(path.join(folder, 'worker.js'))

async function main () {
  const engine = await LocalEngine.open({
    models: ['fashion'], device: 'cpu', precision: 'float32', threads: 1, hash: true
  })
  const told = {
    models: () => engine.models(),
    load: model => engine.load(model),
    problem: () => engine.problem(),
    close: () => engine.close(),
    draw: async (request, signal, listener) => {
      console.log(`began ${request.seed}`)
      let [last, told] = [0, 0]
      signal.addEventListener('abort', () => {
        told = last
        setTimeout(() => { console.log(`aborted ${told} ${last}`) }, 200)
      })
      const result = await engine.draw(request, signal, {
        ...listener,
        step: event => {
          last = event.step
          listener.step?.(event)
        }
      })
      console.log(`finished ${request.seed}`)
      return result
    }
  }
  const log = { warn: text => { console.error(text) } }
  const worker = await QueueWorker.open({ ...JSON.parse(json), engine: told, log })
  process.stdin.resume().once('close', () => { process.exit() }) // the test is gone
  process.once('SIGTERM', () => {
    void worker.close().then(() => engine.close()).then(() => { process.exit() })
  })
  console.log('ready')
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
