// How long a model takes to load, from the authors' format and converted, and in how much memory: the figures of
// docs/official-checkpoints.md. Random weights; every load in a process of its own, the best of several, files in the
// system's cache (written just before). It needs dist/ and the addon, Linux (peak memory is read there) and some 2 GB
// of disk.
//
//   node scripts/load-times.js [L] [REPEATS]

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { writeBigCheckpoint } = require('../test/support/big-checkpoint.js')

const [model = 'L', repeats = '5'] = process.argv.slice(2)
const dist = path.join(__dirname, '..', 'dist')
const script = `
  const fs = require('node:fs')
  const [, dist, what, ...args] = process.argv
  const { Par } = require(dist + '/index.js')
  const { convertCheckpoint } = require(dist + '/checkpoint/index.js')
  const peak = () => Number(/VmHWM:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  const start = peak()
  ;(async () => {
    const begun = performance.now()
    const used = process.cpuUsage()
    const par = what === 'load' ? await Par.load({ transformer: args[0], precision: args[1], device: 'cpu' }) : await convertCheckpoint(args[0], args[1], { precision: args[2] })
    const { user, system } = process.cpuUsage(used)
    console.log(JSON.stringify({ ms: performance.now() - begun, user: user / 1000, system: system / 1000, grown: peak() - start, weights: what === 'load' ? par.info.transformer.bytes : 0 }))
    if (what === 'load') await par.dispose()
  })()`
const run = (...args) => {
  const times = Array.from({ length: Number(repeats) },
    () => JSON.parse(execFileSync(process.execPath, ['-e', script, dist, ...args], { encoding: 'utf8' })))
  return times.sort((a, b) => a.ms - b.ms)[0]
}
/** Reading alone, in pieces of a megabyte, by one thread: ms. */
const read = file => {
  const descriptor = fs.openSync(file, 'r')
  const piece = Buffer.alloc(1 << 20)
  const begun = performance.now()
  for (;;) if (fs.readSync(descriptor, piece, 0, piece.length, null) === 0) break
  const ms = performance.now() - begun
  fs.closeSync(descriptor)
  return ms
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-load-'))
try {
  const files = {
    '.pt, float32': 'float32.pt', '.pt, bfloat16': 'bfloat16.pt', 'converted, bfloat16': 'converted.safetensors'
  }
  const at = name => path.join(folder, files[name])
  writeBigCheckpoint(model, at('.pt, float32'), { dtype: 'float32' })
  writeBigCheckpoint(model, at('.pt, bfloat16'), { dtype: 'bfloat16' })
  const mb = bytes => `${(bytes / 1e6).toFixed(0)} MB`
  const ms = value => `${value.toFixed(0)} ms`
  const conversion = run('convert', at('.pt, float32'), at('converted, bfloat16'), 'bfloat16')
  console.log(`model ${model}, ${os.cpus()[0].model.trim()}, ${os.availableParallelism()} cores; best of ${repeats}`)
  console.log(`conversion of the float32 file to bfloat16: ${ms(conversion.ms)}, ${mb(conversion.grown)} of memory\n`)
  console.log('| file | size | reading it | kept as | loading | of the file | of processor time, system | memory at ' +
    'the peak | weights |\n|---|---|---|---|---|---|---|---|---|')
  for (const name of Object.keys(files)) {
    const { size } = fs.statSync(at(name))
    const reading = Math.min(...Array.from({ length: Number(repeats) }, () => read(at(name))))
    for (const precision of ['bfloat16', 'float32']) {
      const best = run('load', at(name), precision)
      const share = Math.round(100 * best.system / (best.user + best.system))
      console.log(`| ${name} | ${mb(size)} | ${ms(reading)} | ${precision} | ${ms(best.ms)} ` +
        `| ${(size / best.ms / 1e6).toFixed(1)} GB/s | ${share}% | ${mb(best.grown)} | ${mb(best.weights)} |`)
    }
  }
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
