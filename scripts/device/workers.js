'use strict'
// node scripts/device/workers.js [--device cuda] [--count 5]: worker threads that each load the embedded model, make
// one picture and end, one after another. Node takes the addon out of the process with a worker that ends, while the
// device's context stays: a leak or a crash shows here. Prints JSON: { passed, failures, residentMegabytes }, the last
// after each worker.

const { parseArgs } = require('node:util')
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads')

async function picture () {
  const { Par } = require('../../dist/index.js')
  const par = await Par.load('fashion', { device: workerData.device, precision: 'bfloat16' })
  const image = await par.generate({ classId: 3, seed: 11 })
  await par.dispose()
  parentPort.postMessage(Buffer.from(image.data).toString('base64'))
}

/** What a worker said; an error where it failed or ended without a word. */
function one (device) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: { device } })
    let said
    worker.on('message', message => {
      said = message
      void worker.terminate()
    })
    worker.on('error', reject)
    worker.on('exit', () => said === undefined ? reject(new Error('a worker ended without a picture')) : resolve(said))
  })
}

async function main () {
  const { values } = parseArgs({
    options: { device: { type: 'string', default: 'cuda' }, count: { type: 'string', default: '5' } }
  })
  const result = { passed: 0, failures: [], residentMegabytes: [] }
  let first
  for (let i = 0; i < Number(values.count); i++) {
    try {
      const data = await one(values.device)
      first = first ?? data
      if (data === first) result.passed++
      else result.failures.push(`worker ${i} made another picture from the same seed`)
    } catch (error) {
      result.failures.push(`worker ${i}: ${error.message}`)
      if (i === 0) break // the others would say the same
    }
    result.residentMegabytes.push(Math.round(process.memoryUsage().rss / 2 ** 20))
  }
  console.log(JSON.stringify(result))
  process.exitCode = result.failures.length > 0 ? 1 : 0
}

if (isMainThread) void main()
else void picture()
