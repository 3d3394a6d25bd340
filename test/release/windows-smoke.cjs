'use strict'
// What a user of Windows does first, for windows.test.ts: on Windows's Node under wine and on this machine's, whose
// results are compared. Writes one JSON object to a file, since wine's pipes do not do for Node's standard output.
//   node windows-smoke.cjs PACKAGE OUT PART ...
const { createHash } = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')
const { Worker, isMainThread, workerData } = require('node:worker_threads')

const [, , packageName, out, ...wanted] = process.argv
const { Par } = require(isMainThread ? packageName : workerData)
const hash = data => createHash('sha256').update(data).digest('hex').slice(0, 16)

const parts = {
  async generate () {
    const par = await Par.load({})
    const pictures = []
    for (const n of [1, 4, 16]) pictures.push(hash((await par.generate({ classId: 7, n, seed: 1 })).data))
    const batch = await par.generate({ classId: [2, 9], n: 4, seed: 5, guidanceScale: 2 })
    pictures.push(...batch.map(image => hash(image.data)))
    await par.dispose()
    return pictures
  },
  async int8 () {
    const par = await Par.load({ precision: 'int8' })
    const image = await par.generate({ classId: 3, n: 4, seed: 2 })
    await par.dispose()
    return hash(image.data)
  },
  async score () {
    const par = await Par.load({})
    const image = await par.generate({ classId: 7, n: 4, seed: 1 })
    const scores = await par.score({ tokens: image.tokens, classId: 7, n: 4 })
    await par.dispose()
    return [].concat(scores).map(score => hash(Buffer.from(score.logProbs.buffer)))
  },
  async pixels () {
    const par = await Par.load({})
    const image = await par.generate({ classId: 7, n: 4, seed: 1 })
    const { data, width, height } = await par.decode(image.tokens)
    const floats = await par.decode(image.tokens, { format: 'float32' })
    const pixels = Float32Array.from(data, byte => byte / 127.5 - 1)
    const tokens = await par.encode({ data: pixels, width, height, channels: 3 })
    await par.dispose()
    return [hash(data), hash(Buffer.from(floats.data.buffer)), hash(Buffer.from(tokens.buffer))]
  },
  async files () {
    const par = await Par.load({})
    const image = await par.generate({ classId: 7, n: 4, seed: 1 })
    const folder = path.join(path.dirname(out), 'Bilder mit Ümläuten', 'x'.repeat(100), 'y'.repeat(100), 'z'.repeat(60))
    fs.mkdirSync(folder, { recursive: true })
    const file = path.join(folder, 'stiefel.png')
    await image.toFile(file)
    const tokens = await par.encode(file)
    await par.dispose()
    return hash(Buffer.from(tokens.buffer))
  },
  async abort () {
    const par = await Par.load({})
    const controller = new AbortController()
    const drawing = par.generate({ classId: 7, n: 1, seed: 1, signal: controller.signal })
    setTimeout(() => controller.abort(), 20)
    const name = await drawing.then(() => 'finished', error => error.name)
    const after = hash((await par.generate({ classId: 7, n: 4, seed: 1 })).data)
    await par.dispose()
    const gone = await par.generate({ classId: 1 }).then(() => 'finished', error => error.code)
    return [name, after, gone]
  },
  async worker () {
    const worker = new Worker(__filename, { workerData: packageName, argv: [packageName, out, 'inside'] })
    return await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  },
  async exit () {
    const par = await Par.load({})
    par.generate({ classId: 7, n: 1, seed: 1 }).catch(() => {})
    setTimeout(() => {
      fs.writeFileSync(out, JSON.stringify({ exit: { result: 'in the middle' } }))
      process.exit(7)
    }, 30)
    return await new Promise(() => {})
  },
  async isa () {
    const par = await Par.load({})
    const { isa } = par.info
    await par.dispose()
    return isa
  }
}

async function main () {
  const found = {}
  for (const part of wanted) {
    const began = performance.now()
    found[part] = await parts[part]().then(result => ({ result }), error => ({ error: error.stack }))
    found[part].ms = Math.round(performance.now() - began)
  }
  fs.writeFileSync(out, JSON.stringify(found))
}

if (isMainThread) main()
else {
  Par.load({}).then(async par => {
    const image = await par.generate({ classId: 7, n: 4, seed: 1 })
    await par.dispose()
    require('node:worker_threads').parentPort.postMessage(hash(image.data))
  })
}
