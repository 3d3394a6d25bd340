// What api.test.ts runs in child processes, one scenario each, on the machine that PARVIS_SIMT describes. A scenario
// prints one line of JSON: what it found. Checks are made by the parent, where a failure is counted. Plain JavaScript
// on the built package: a child starts in a fraction of the time.
//   node scenarios.js DIST LOAD_OPTIONS SCENARIO [ARGUMENT]
'use strict'

const path = require('node:path')
const { Worker } = require('node:worker_threads')

const [module_, options, scenario, argument] = process.argv.slice(2)
const small = JSON.parse(options)
const { Par } = require(module_)
const { addon } = require(path.join(path.dirname(module_), 'machine', 'native.js'))

const sampling = { classId: [3, 5], seed: 41, guidanceScale: 1.5, temperature: 0.9, topK: 100, topP: 0.95 }
const free = async () => (await addon().cudaMemory(0)).free

/** Code and message of a rejection, undefined where there was none. */
async function failure (work) {
  try {
    await work()
    return undefined
  } catch (error) {
    const { code, name, message } = error
    return { code: code ?? name, message }
  }
}

/** The small model of the golden fixtures: 8 x 8 tokens, n = 4. */
async function load (options = {}) {
  return await Par.load({ ...small, device: 'cuda', precision: 'float32', ...options })
}

const scenarios = {
  /** Where it runs, and what it says about that. */
  async info () {
    const par = await load({ precision: 'auto', device: argument ?? 'auto' })
    const { device, deviceReason, isa, threads, precision, precisionReason } = par.info
    await par.dispose()
    return { device, deviceReason, isa, threads, precision, precisionReason }
  },

  async refused () {
    return await failure(async () => await load({ device: argument }))
  },

  /** What is said of a tokenizer of these sizes whose file does not exist. */
  async sizes () {
    const { model, precision } = JSON.parse(argument)
    const engine = addon().createEngine({ device: 'cuda:0', threads: 0 })
    const found = await engine.loadTokenizer('/no/such/file', [], model, precision,
      addon().createCancel()).catch(({ parvisCode, message }) => ({ code: parvisCode, message }))
    await engine.dispose()
    return found
  },

  /** The same calls on both backends, in float32. */
  async same () {
    const found = []
    for (const device of ['cpu', 'cuda']) {
      const par = await load({ device })
      const images = await par.generate(sampling)
      const greedy = await par.generate({ classId: 1, greedy: true, size: 21 })
      const [score] = await par.score({ tokens: [images[0].tokens], classId: 3 })
      const code = await par.encode(images[1])
      found.push({
        tokens: images.map(image => [...image.tokens]),
        bytes: images.map(image => [...image.data]),
        greedy: [...greedy.tokens],
        resized: [...greedy.data],
        total: score.total,
        code: [...code]
      })
      await par.dispose()
    }
    return found
  },

  /** How steps are launched after two pictures, and their tokens. */
  async launches () {
    const par = await load({ precision: 'bfloat16' })
    const images = await par.generate(sampling)
    const { launches } = par.info
    await par.dispose()
    return { launches, tokens: images.map(image => [...image.tokens]) }
  },

  /** Completions of a list of pictures: of each mask the steps, and how many tokens differ from the pictures. */
  async complete () {
    const par = await load()
    const made = await par.generate(sampling)
    const found = []
    for (const mask of ['left', 'bottom', { outside: { row: 2, column: 1, rows: 3, columns: 6 } }]) {
      const again = await par.generate({ ...sampling, known: { tokens: made.map(image => image.tokens), mask } })
      const differ = again.flatMap(({ tokens }, i) =>
        [...tokens].filter((token, cell) => token !== made[i].tokens[cell]))
      found.push({ steps: again[0].steps, differ: differ.length })
    }
    await par.dispose()
    return found
  },

  /** Of two pictures, for each draw: steps, passes, passes where a pass may hold four of them, and other tokens. */
  async passes () {
    const par = await load()
    const found = []
    for (const draw of argument.split(',')) {
      const request = { classId: [3, 5], seed: 2, temperature: 0.05, draw }
      const sequential = await par.generate({ ...request, passes: 'sequential' })
      // Another one beside them, in steps of its own.
      const beside = par.generate({ classId: 7, seed: 9 })
      const made = await par.generate({ ...request, passes: 4 })
      found.push({
        steps: sequential[0].steps,
        auto: (await beside).passes,
        passes: made.map(image => image.passes),
        differ: made.flatMap(({ tokens }, i) =>
          [...tokens].filter((token, k) => token !== sequential[i].tokens[k])).length
      })
    }
    await par.dispose()
    return found
  },

  /** The last of three, and the same alone. */
  async batches () {
    const par = await load({ precision: 'bfloat16' })
    const [, , among] = await par.generate({ ...sampling, classId: [3, 5, 3] })
    const alone = await par.generate({ ...sampling, classId: 3, seed: among.seed })
    await par.dispose()
    return [among, alone].map(image => [[...image.tokens], [...image.data]])
  },

  /** Progress, a preview in the middle, the last picture. */
  async stream () {
    const par = await load({ precision: 'bfloat16' })
    const seen = []
    let preview = []
    let images = []
    for await (const progress of par.stream({ classId: 2, seed: 1 })) {
      seen.push(progress.tokensDone)
      if (progress.step === 6) {
        const image = await progress.preview()
        preview = [image.width, image.height, new Set(image.data).size]
      }
      if (progress.images) images = progress.images.map(image => image.tokens.filter(token => token >= 0).length)
    }
    await par.dispose()
    return { seen, preview, images }
  },

  /** Stopped in the middle, by signal, by break and by dispose; the memory is there again each time. */
  async stop () {
    const before = await (async () => { await (await load()).dispose(); return await free() })()
    const found = []
    const par = await load({ precision: 'bfloat16' })
    await par.generate({ classId: 1 }) // the tokenizer keeps what its pictures took
    const loaded = await free()
    const controller = new AbortController()
    found.push(
      await failure(async () =>
        await par.generate({
          classId: 1, signal: controller.signal,
          onProgress: ({ step }) => { if (step === 3) controller.abort(new Error('enough')) }
        }))
    )
    for await (const { step } of par.stream({ classId: 1 })) if (step === 3) break
    await par.generate({ classId: 1 }) // frees of what was stopped are enqueued before it
    found.push(loaded - await free())
    const running = failure(async () => await par.generate({ classId: [1, 2] }))
    await par.dispose()
    found.push(await running, before - await free())
    return found
  },

  /** Rounds of everything leave as much as they found. */
  async rounds () {
    const left = []
    for (let i = 0; i < 3; i++) {
      const par = await load({ precision: 'bfloat16' })
      const image = await par.generate({ classId: i })
      await par.encode(image)
      await par.score({ tokens: image.tokens, classId: i })
      await par.dispose()
      left.push(await free())
    }
    return left
  },

  /** A list that does not fit at once, with little memory: groups. */
  async long () {
    const par = await Par.load({ transformer: small.transformer, device: 'cuda', precision: 'bfloat16' })
    const images = await par.generate({ classId: Array.from({ length: Number(argument) }, (_, i) => i % 10), n: 4 })
    const alone = await par.generate({ classId: images.at(-1).classId, seed: images.at(-1).seed })
    await par.dispose()
    return [images.length, [...alone.tokens].join() === [...images.at(-1).tokens].join()]
  },

  /** Whatever fails is told, once, by a typed error; the process goes on. */
  async failing () {
    const first = await failure(async () => {
      const par = await load({ precision: 'bfloat16' })
      try {
        const image = await par.generate({ classId: 1 })
        await par.encode(image)
      } finally {
        await par.dispose()
      }
    })
    const cpu = await load({ device: 'cpu' })
    const { tokens } = await cpu.generate({ classId: 1, seed: 1 })
    await cpu.dispose()
    return { first, cpu: tokens.length }
  },

  /** Two instances and a worker thread on one device. */
  async together () {
    const script = `
      require(${JSON.stringify(module_)}).Par.load(${JSON.stringify({ ...small, device: 'cuda', precision: 'bfloat16' })})
        .then(async par => { const image = await par.generate({ classId: 2, seed: 9 }); require('node:worker_threads').parentPort.postMessage([...image.tokens]); await par.dispose() })`
    const worker = new Worker(script, { eval: true, execArgv: [] })
    const told = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    const [a, b] = await Promise.all([load({ precision: 'bfloat16' }), load({ precision: 'bfloat16' })])
    const [one, two, three] = await Promise.all([a.generate({ classId: 2, seed: 9 }),
      b.generate({ classId: 2, seed: 9 }), told])
    await Promise.all([a.dispose(), b.dispose()])
    return [[...one.tokens], [...two.tokens], three]
  },

  /** The process ends while the device works: draws, loads another model, or gives its memory back. */
  async exit () {
    const [work, milliseconds] = argument.split(':')
    const par = await load({ precision: 'bfloat16' })
    const drawing = par.generate({ classId: Array(4).fill(1) }).catch(() => {})
    if (work === 'load') load({ precision: 'bfloat16' }).catch(() => {})
    if (work === 'dispose') {
      await Promise.race([drawing, new Promise(resolve => setTimeout(resolve, 40))])
      void par.dispose()
    }
    if (work === 'disposed') await par.dispose()
    if (milliseconds === 'now') process.exit(7)
    setTimeout(() => process.exit(7), Number(milliseconds))
    return await new Promise(() => {})
  }
}

void scenarios[scenario]().then(found => console.log(JSON.stringify(found)))
