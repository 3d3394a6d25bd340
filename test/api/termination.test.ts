// Ending worker threads and processes in mid-work, at any moment: nothing aborts. Each case is a child process, whose
// exit code is the assertion; times are spread over loading, generating and disposing.

import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { built } from '../support/built.js'
import { tokenizerFile, transformerFile } from '../support/fixtures.js'

/** Runs a script on the built package; the exit code, or the signal that ended it. */
async function exitOf (script: string, ...values: string[]): Promise<number | string> {
  const module = path.join(await built(), 'index.js')
  const options = JSON.stringify({
    transformer: transformerFile('par-4x'), tokenizer: tokenizerFile(), precision: 'float32', threads: 2
  })
  try {
    await promisify(execFile)(process.execPath, ['-e', script, module, options, ...values],
      { env: { ...process.env, NODE_OPTIONS: '' }, timeout: 120_000 })
    return 0
  } catch (error) {
    const { code, signal, stderr } = error as { code?: number, signal?: string, stderr?: string }
    return `${signal ?? code}: ${stderr?.trim().split('\n').slice(-3).join(' | ')}`
  }
}

const work = `
  const [, module, options] = typeof workerData === 'undefined' || !workerData ? process.argv : ['', ...workerData]
  const { Par } = require(module)
  ;(async () => {
    for (;;) {
      const par = await Par.load(JSON.parse(options))
      await Promise.all([par.generate({ classId: Array(8).fill(1), guidanceScale: 2 }), par.generate({ classId: 2 }), par.score({ tokens: new Int32Array(64), classId: 1 })])
      par.dispose()
    }
  })().catch(() => {})`

t.test('worker threads terminated at any moment', async t => {
  const script = `
    const { Worker } = require('node:worker_threads')
    const body = "const { workerData } = require('node:worker_threads');" + ${JSON.stringify(work)}
    const [, module, options] = process.argv
    ;(async () => {
      let at = 0
      const one = async () => {
        while (at < 60) {
          const worker = new Worker(body, { eval: true, execArgv: [], workerData: [module, options] })
          worker.on('error', () => {})
          await new Promise(resolve => worker.once('online', resolve))
          await new Promise(resolve => setTimeout(resolve, at++ * 3))
          await worker.terminate()
        }
      }
      await Promise.all([one(), one(), one()])
    })()`
  t.equal(await exitOf(script), 0, '60 threads')
})

t.test('process.exit() at any moment', async t => {
  t.setTimeout(300000)
  const script = `setTimeout(() => process.exit(7), Number(process.argv[3])); const workerData = undefined; ${work}`
  const results: Array<number | string> = []
  let at = 0
  const some = async (): Promise<void> => { while (at < 100) results.push(await exitOf(script, String(20 + at++ * 4))) }
  await Promise.all([some(), some()])
  t.equal(results.length, 100)
  t.same(results.filter(result => typeof result === 'number' || !/^7: $/.test(result)), [],
    '100 processes of 100 end with their exit code and say nothing')
})
