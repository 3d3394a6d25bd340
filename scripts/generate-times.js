'use strict'
// How long a picture takes by the package itself: Par.generate, from the call to its pixels, with everything in between
// (checks, a session, steps, decoding). Batch 1, guided, bfloat16. Checkpoints of random weights of the published sizes
// are written to the temporary folder before (XXL 2.8 GB, 3B 6.3 GB) and removed after. It needs dist/ and the addon.
//
// Beside the times, what only a device at full size can show: the same seed makes the same picture, to the byte, again
// and again, and (the first model) where kernels of a step do not overlap.
//
//   node scripts/generate-times.js [--out FILE] [--models XXL:4,XXL:16,3B:4] [--device cuda] [--repeats 7] [--seconds
//   60]
//
// MODEL:N[:WAY] is a model, its tokens a step and one of: int8 (8-bit weights), sequential (a pass a step), passes (the
// next eight steps in a pass, on guesses, which random weights never fulfil: so the time of such a pass shows). None is
// begun after so many seconds. JSON, in FILE after every model. TMPDIR=/dev/shm keeps the files in memory.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')
const { writeBigCheckpoint } = require('../test/support/big-checkpoint.js')
const { Par } = require('../dist/index.js')
const { addon } = require('../dist/machine/native.js')

const { values: options } = parseArgs({
  options: {
    out: { type: 'string' },
    models: { type: 'string', default: 'XXL:4,XXL:16,3B:4' },
    device: { type: 'string', default: 'cuda' },
    repeats: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '60' }
  }
})
const began = performance.now()
const seconds = () => (performance.now() - began) / 1000
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-generate-'))
const report = {
  what: 'Par.generate, batch 1, guidance 1.5, random weights, to the bytes of 384 x 384 pixels; bfloat16 if not told',
  device: options.device, results: []
}

function write () {
  if (options.out === undefined) return
  fs.writeFileSync(options.out + '.partial', JSON.stringify(report, undefined, 1) + '\n')
  fs.renameSync(options.out + '.partial', options.out)
}

function spread (times) {
  const sorted = [...times].sort((a, b) => a - b)
  return { median: sorted[sorted.length >> 1], least: sorted[0], greatest: sorted.at(-1) }
}

/** Whether a seed's picture comes again: `times` times. */
async function repeats (par, options, picture, times) {
  for (let i = 0; i < times; i++) {
    const image = await par.generate(options)
    if (!Buffer.from(image.data).equals(Buffer.from(picture.data)) ||
      image.tokens.some((token, k) => token !== picture.tokens[k])) {
      return false
    }
  }
  return true
}

/** The same without kernels that overlap, which a device is asked for when an instance is loaded. */
async function repeatsWithoutOverlap (files, options, picture) {
  const before = process.env.PARVIS_OVERLAP
  process.env.PARVIS_OVERLAP = '0'
  try {
    const par = await Par.load(files)
    return await repeats(par, options, picture, 1).finally(() => par.dispose())
  } finally {
    if (before === undefined) delete process.env.PARVIS_OVERLAP
    else process.env.PARVIS_OVERLAP = before
  }
}

/** What a WAY of the command line changes. */
const ways = {
  '': {},
  int8: { load: { precision: 'int8' } },
  sequential: { generate: { passes: 'sequential' } },
  passes: { generate: { passes: 8 } }
}

async function measure ({ model, n, way }, tokenizer, first) {
  const transformer = path.join(folder, `${model}-${n}.pt`)
  try {
    writeBigCheckpoint(model, transformer, { n })
    const written = seconds()
    const files = { transformer, tokenizer, device: options.device, precision: 'bfloat16', ...ways[way].load }
    const par = await Par.load(files)
    try {
      const loaded = seconds()
      const times = []
      const sampling = { classId: 207, guidanceScale: 1.5, temperature: 1, topK: 0, topP: 1, ...ways[way].generate }
      let image
      // Two that are not counted: the first makes what later ones use again.
      for (let i = -2; i < Number(options.repeats); i++) {
        const start = performance.now()
        image = await par.generate({ ...sampling, seed: i + 3 })
        if (i >= 0) times.push(performance.now() - start)
      }
      if (image.width !== 384 || image.data.length !== 384 * 384 * 3) {
        throw new Error(`a picture of ${image.width} x ${image.height} pixels`)
      }
      const same = { ...sampling, seed: image.seed }
      const repeatable = await repeats(par, same, image, 5)
      const withoutOverlap = first ? await repeatsWithoutOverlap(files, same, image) : undefined
      return {
        ms: spread(times),
        repeatable,
        withoutOverlap,
        steps: image.steps,
        passes: image.passes,
        device: par.info.device,
        loadMs: (loaded - written) * 1000
      }
    } finally {
      await par.dispose()
    }
  } finally {
    fs.rmSync(transformer, { force: true })
  }
}

async function main () {
  const models = options.models.split(',').map(text => {
    const [model, n, way = ''] = text.split(':')
    if (!Object.hasOwn(ways, way)) throw new Error(`${text}: there is no way "${way}"`)
    return { model, n: Number(n), way }
  })
  // Known at once, while gigabytes of weights take a while to write.
  const { reason } = options.device.startsWith('cuda') ? await addon().cuda() : {}
  if (reason) throw new Error(`no GPU can be used here: ${reason}`)
  const tokenizer = path.join(folder, 'vq-16.pt')
  writeBigCheckpoint('VQ-16', tokenizer)
  for (const wanted of models) {
    const { model, n, way } = wanted
    const result = { model, n, ...(way && { way }) }
    try {
      if (seconds() > Number(options.seconds)) throw new Error('left out: out of time')
      Object.assign(result, await measure(wanted, tokenizer, report.results.length === 0))
    } catch (error) {
      result.problem = error.message
      process.exitCode = 1
    }
    report.results.push(result)
    const same = result.repeatable && result.withoutOverlap !== false
    const said = result.problem ||
      `${result.ms.median.toFixed(1)} ms${same ? '' : ', and the same seed makes another picture'}`
    console.error(`${seconds().toFixed(1).padStart(6)} s  ${[model, `n = ${n}`, way].filter(Boolean).join(', ')}: ${said}`)
    write()
  }
  if (options.out === undefined) console.log(JSON.stringify(report, undefined, 1))
}

process.on('exit', () => { fs.rmSync(folder, { recursive: true, force: true }) })
main().catch(error => {
  console.error(`generate-times: ${error.message}`)
  process.exitCode = 1
})
