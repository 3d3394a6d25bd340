'use strict'
// Everything that only a machine with a GPU can show, in one run of at most eight minutes: bash scripts/device.sh
// [OUT]. Correctness first, some of its parts side by side, for they do not mind each other; then measurements, one at
// a time. A part that fails or runs out of time stops no other, and the table is printed whatever happens: when time is
// over, and when somebody ends this process. It has a line a promise; what did not run says so and is no success. OUT
// gets device.json (everything, written anew after each part), measure.json, generate.json and torch.json (as the
// programs wrote them) and log.txt.
//   --minutes 8        for all parts together
//   --only LIST        of: build, cases, golden, shapes, sanitizer, measure, generate, torch
//   PARVIS_DEVICE_ANYWAY=90 runs without a GPU too, built for that architecture: to try this script; nothing passes
//   then

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')
const checks = require('./checks')

const { root, run, program } = checks
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '8' },
    only: { type: 'string', default: 'build,cases,golden,shapes,sanitizer,measure,generate,torch' }
  }
})
const only = options.only.split(',')
const began = Date.now()
const date = new Date().toISOString()
/** Some seconds are kept for the table. */
const left = () => Number(options.minutes) * 60 - 10 - (Date.now() - began) / 1000
let [out, log] = ['', '']
/** What is known so far, by part. */
const report = { date, parts: {} }
/** { name, wanted, found, verdict: 'pass' | 'FAIL' | 'not run' | '' } */
let table = []

/** Nothing is wanted ('-') of what is only told. */
const line = (name, wanted, found, good) =>
  table.push({
    name, wanted, found, verdict: good === undefined ? 'not run' : wanted === '-' && good ? '' : good ? 'pass' : 'FAIL'
  })
const say = text => console.log(`${((Date.now() - began) / 1000).toFixed(0).padStart(4)} s  ${text}`)

/** Runs a part where it was asked for and time is left; an error inside is its result. */
async function part (name, least, work) {
  if (!only.includes(name)) return { problem: 'not asked for' }
  if (left() < least) return { problem: 'no time was left' }
  try {
    return await work()
  } catch (error) {
    return { problem: error.message, failed: true }
  }
}

// ---- the parts -------------------------------------------------------------------------------------------

async function build (gpu) {
  const built = await checks.build({ architecture: gpu.architecture, seconds: Math.min(240, left()), log })
  say(
    built.problem
      ? `build: ${built.problem}`
      : `built in ${built.seconds.toFixed(0)} ` +
        `s${built.addon ? '' : ', without the addon (node_modules has no headers of it)'}`
  )
  if (built.problem) {
    console.log((built.out + built.err).split('\n').filter(text => /error|warning.*spill/i.test(text)).slice(0,
      12).join('\n'))
  }
  return { seconds: built.seconds, problem: built.problem, addon: built.addon, failed: built.problem !== undefined }
}

async function cases () {
  const result = { passed: 0, failures: [] }
  const until = Math.min(120, left())
  const started = Date.now()
  for (const name of checks.cases()) {
    const rest = until - (Date.now() - started) / 1000
    const one = rest < 2
      ? { passed: 0, failures: ['no time was left'] }
      : checks.count(await run(program(name), ['1'], { seconds: Math.min(60, rest), log }))
    result.passed += one.passed
    result.failures.push(...one.failures.map(text => `${name}: ${text}`))
  }
  return result
}

async function shapes () {
  const seconds = Math.min(100, left())
  return checks.count(await run(program('shapes'), ['--seconds', String(Math.max(10, seconds - 25))], { seconds, log }))
}

/**
 * The tests of the library that compute, on the GPU. Each list is its own run, so that one that hangs spoils no other.
 */
async function tests (files) {
  const { built, problem } = testable()
  if (!built) return { problem }
  const tap = path.join(root, 'out', `device-${path.basename(files[0], '.test.ts')}.tap`)
  const { out: text, problem: broke } = await run(process.execPath, ['scripts/test.js', ...files], {
    seconds: Math.min(100, left()), log,
    env: { PARVIS_TEST_DEVICE: 'cuda', PARVIS_TAP: tap, TAP_TIMEOUT: '90', PARVIS_CUDA: 'on' }
  })
  const counted = /(\d+) passed, (\d+) failed\s*$/.exec(text.trim())
  const failures = text.split('\n').filter(l => l.startsWith('  FAILED  ')).map(l => l.slice(10))
  if (!counted) return { passed: 0, failures: failures.concat(broke || 'ended without a count') }
  if (Number(counted[2]) > failures.length) failures.push(`${counted[2]} failed`)
  return { passed: Number(counted[1]), failures }
}

function testable () {
  for (const name of ['tap', 'tap-parser', 'typescript', 'node-gyp-build']) {
    if (!fs.existsSync(path.join(root, 'node_modules', name))) return { problem: `node_modules has no ${name}` }
  }
  return loadable()
}

function loadable () {
  if (!fs.existsSync(path.join(root, 'build', 'Release', 'parvis.node'))) return { problem: 'the addon was not built' }
  if (!fs.existsSync(path.join(root, 'dist', 'index.js'))) return { problem: 'there is no dist/ (npm run build:ts)' }
  return { built: true }
}

async function sanitizer () {
  const tool = ['compute-sanitizer', '/usr/local/cuda/bin/compute-sanitizer',
    '/usr/local/cuda/compute-sanitizer/compute-sanitizer', '/opt/nvidia/compute-sanitizer/compute-sanitizer']
    .find(name => spawnSync(name, ['--version'], { stdio: 'ignore', timeout: 20000 }).status === 0)
  if (!tool) return { problem: 'compute-sanitizer is not here' }
  const end = Date.now() + Math.min(110, left()) * 1000
  const jobs = ['memcheck', 'racecheck'].flatMap(kind => checks.cases().map(name => ({ kind, name })))
  const results = {
    memcheck: { clean: [], bad: [], unfinished: [] }, racecheck: { clean: [], bad: [], unfinished: [] }
  }
  let [worked, refusal] = [0, '']
  const one = async ({ kind, name }) => {
    const seconds = (end - Date.now()) / 1000
    if (seconds < 3) return results[kind].unfinished.push(name)
    const { out: text, err, problem, code } = await run(tool,
      ['--tool', kind, '--error-exitcode', '99', '--report-api-errors', 'no', '--print-limit', '5', program(name), '1'],
      { seconds, log })
    const all = text + err
    const summary = kind === 'memcheck'
      ? /ERROR SUMMARY: (\d+) error/.exec(all)
      : /RACECHECK SUMMARY: (\d+) hazard/.exec(all)
    const { passed } = checks.count({ out: text })
    // A tool that is refused the device sums up no error either: only what computed something has been looked at.
    if (passed > 0) worked++
    if (summary && Number(summary[1]) > 0) results[kind].bad.push(`${name}: ${summary[0]}`)
    else if (summary && passed > 0 && code !== 99) results[kind].clean.push(name)
    else if (/^ran out/.test(problem || '')) results[kind].unfinished.push(name)
    else {
      const why = (all.split('\n').find(l => /not supported|not ok|Error:|error:/.test(l)) || problem ||
        'no summary').replace(/^=+ */, '').slice(0, 120)
      refusal = refusal || why
      if (passed > 0) results[kind].bad.push(`${name}: ${why}`)
      else results[kind].unfinished.push(`${name} (${why})`)
    }
  }
  // A few at a time: each is a process with the device's context.
  const workers = Array.from({ length: Math.max(1, Math.min(6, os.availableParallelism() >> 1)) }, async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) await one(job)
  })
  await Promise.all(workers)
  // Not every machine lets it see the device: that is no finding.
  return worked > 0
    ? results
    : {
        problem: refusal
          ? `compute-sanitizer does not work here: ${refusal}`
          : 'compute-sanitizer ended nothing in its time'
      }
}

/** A program that writes FILE as it goes: what it had counts even where it was ended. */
async function written (name, command, args, seconds, env) {
  const file = path.join(out, name)
  fs.rmSync(file, { force: true })
  const { problem, out: text, err } = await run(command, [...args, '--out', file], { seconds, log, env })
  if (!fs.existsSync(file)) {
    return {
      problem: [problem || 'wrote nothing', (err.trim() || text.trim()).split('\n').at(-1)].filter(Boolean).join(': '),
      failed: true
    }
  }
  return { ...JSON.parse(fs.readFileSync(file, 'utf8')), ...(problem && { ended: problem }) }
}

/** What comes after it: pictures by the package, and PyTorch, which compiles for so long that it gets most. */
function measure () {
  const after = (only.includes('torch') ? 110 : 0) + (only.includes('generate') ? 40 : 0)
  const seconds = Math.min(180, Math.max(left() - after, 60), left())
  return written('measure.json', program('measure'), ['--date', date, '--seconds', String(Math.floor(seconds - 15))],
    seconds)
}

/**
 * VQ-16's operations one by one, as text: nothing is promised of them, but they tell where the time of a picture goes.
 */
async function operations () {
  if (!fs.existsSync(program('vq-operations'))) return { problem: 'not built' }
  const result = {}
  for (const images of ['1', '16']) {
    const { out: text, problem } = await run(program('vq-operations'), [images], { seconds: Math.min(15, left()), log })
    result[images] = problem || text.trim().split('\n')
  }
  return result
}

async function generate () {
  const { built, problem } = loadable()
  if (!built) return { problem }
  const seconds = Math.min(80, left() - (only.includes('torch') ? 110 : 0))
  // Gigabytes of checkpoints, which it cannot remove where it is ended.
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-device-'))
  process.once('exit', () => { fs.rmSync(temporary, { recursive: true, force: true }) })
  try {
    return await written('generate.json', process.execPath,
      ['scripts/generate-times.js', '--seconds', String(Math.floor(seconds - 15))], seconds, { TMPDIR: temporary })
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true })
  }
}

async function torch () {
  const find = 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'
  const python = ['python3', '/opt/torch/.venv/bin/python3', '/usr/bin/python3']
    .find(name => spawnSync(name, ['-c', find], { stdio: 'ignore', timeout: 20000 }).status === 0)
  if (!python) return { problem: 'no python3 here has PyTorch' }
  const seconds = left()
  // No configuration is begun that could not end: compiling a layer and tuning its products takes half a minute.
  return await written('torch.json', python,
    ['bench/torch/gpu.py', '--seconds', String(Math.max(20, Math.floor(seconds - 35)))], seconds)
}

// ---- the table -------------------------------------------------------------------------------------------

/** A line of checks counted as { passed, failures } or not run for a { problem }. */
function checked (name, wanted, result) {
  if (result.problem && !result.failures) return line(name, wanted, result.problem, result.failed ? false : undefined)
  const { passed, failures, skipped = [] } = result
  line(name, wanted, `${passed} ok, ${failures.length} not${skipped.length > 0 ? `, ${skipped.length} left out` : ''}`,
    failures.length === 0 && passed > 0)
}

/** A tool of compute-sanitizer is clean where every program was, to its end. */
function clean (kind, sanitized) {
  const result = sanitized[kind]
  if (!result) return line(kind, 'clean', sanitized.problem, sanitized.failed ? false : undefined)
  const { clean, bad, unfinished } = result
  const found = [clean.length > 0 && `${clean.length} programs clean`, bad.length > 0 && bad.join('; '),
    unfinished.length > 0 && `not finished: ${unfinished.join(' ')}`]
  line(kind, 'clean', found.filter(Boolean).reverse().join('; '),
    bad.length > 0 ? false : unfinished.length > 0 ? undefined : true)
}

/** A line for a number of the measurements, below or above a bound. */
function bound (name, wanted, unit, value, good, absent) {
  if (value === undefined || value === null || !Number.isFinite(value)) return line(name, wanted, absent, undefined)
  line(name, wanted, `${Number(value.toPrecision(3))}${unit}`, good(value))
}

function measured (results, peers, generated) {
  const entries = results.parts || []
  const find = name => entries.find(entry => entry.name === name) || {}
  const absent = name => find(name).problem || results.problem || results.ended || 'not measured'
  const read = find('read')
  bound('read of a large buffer', '-', ' GB/s', read.gigabytesPerSecond, () => true, absent('read'))
  for (const rows of [2, 8, 32]) {
    const name = `XXL projections rows=${rows}`
    const { ofCeiling, families } = find(name)
    const least = (families || []).filter(family => !family.name.includes(','))
      .reduce((a, b) => a.ofCeiling <= b.ofCeiling ? a : b, { ofCeiling: Infinity })
    bound(`XXL projections, ${rows} rows, a step's`, '>= 80% of read', '%', ofCeiling && ofCeiling * 100,
      value => value >= 80, absent(name))
    bound(`  the slowest (${least.name || '?'})`, '>= 80% of read', '%', families && least.ofCeiling * 100,
      value => value >= 80, absent(name))
  }
  bound('VQ-16 decode, 384 px', '< 4 ms', ' ms', find('VQ-16 decode count=1').ms?.median, value => value < 4,
    absent('VQ-16 decode count=1'))
  for (const [model, n, most] of [['XXL', 4, 200], ['XXL', 16, 75], ['3B', 4, 290], ['3B', 16], ['L', 4], ['L', 16],
    ['XL', 4], ['XL', 16]]) {
    const name = `${model} generate n=${n}`
    bound(`${model}, n = ${n}, one picture to its pixels`, most ? `< ${most} ms` : '-', ' ms',
      find(name).decodeMs ? find(name).ms.median : undefined, value => !most || value < most,
      find(name).ms ? `${find(name).transformerMs.median.toFixed(1)} ms without decoding` : absent(name))
    if (!most) continue
    const ours = (generated.results || []).find(one => one.model === model && one.n === n)
    bound('  the same by Par.generate', `< ${most} ms`, ' ms', ours?.ms?.median, value => value < most,
      ours?.problem || generated.problem || generated.ended || 'not measured')
  }
  const pictures = (generated.results || []).filter(({ repeatable }) => repeatable !== undefined)
  const changing = pictures.filter(({ repeatable, withoutOverlap }) => !repeatable || withoutOverlap === false)
  const naming = some =>
    some.map(({ model, n, repeatable }) => `${model}, n = ${n}${repeatable ? ' (without overlap)' : ''}`).join('; ')
  line('same seed, same picture, also without overlap', 'all',
    pictures.length === 0
      ? generated.problem || generated.ended || 'not run'
      : changing.length > 0
        ? `not ${naming(changing)}`
        : `${pictures.length} models`,
    pictures.length === 0 ? undefined : changing.length === 0)
  for (const name of ['XXL step n=4', 'XXL step n=16', '3B step n=4']) {
    bound(`${name}: gap between steps`, '< 2%', '%', find(name).gap === undefined ? undefined : find(name).gap * 100,
      value => value < 2, absent(name))
  }
  for (const n of [4, 16]) {
    for (const model of ['XXL', '3B', 'L', 'XL']) {
      const ours = find(`${model} generate n=${n}`).transformerMs?.median
      const of = (peers.results || []).filter(peer => peer.model === model && peer.n === n)
      const best = of.filter(peer => peer.ms).reduce((a, b) => a && a.ms.median <= b.ms.median ? a : b, undefined)
      const why = of.find(peer => peer.problem)?.problem || peers.problem || peers.ended || 'not measured'
      const unit = best
        ? ` x (${best.ms.median.toFixed(0)} ms: ${best.mode}, ${best.scope}, ${best.attention}; best ` +
          `of ${of.filter(peer => peer.ms).length})`
        : ''
      bound(`${model}, n = ${n}: torch.compile takes`, n === 4 ? '>= 1.5 x ours' : '-', unit, best && ours
        ? best.ms.median / ours
        : undefined, value => n !== 4 || value >= 1.5, ours ? why : absent(`${model} generate n=${n}`))
    }
  }
}

/** From what is known so far: a part that has not come to its end says that. */
function fill () {
  const found = report.parts
  const of = name => found[name] || { problem: 'no time was left' }
  table = report.stopped ? table.filter(row => row.name === 'the run') : []
  const built = of('build')
  line('build', 'no error', built.problem || `${built.seconds.toFixed(0)} s`,
    built.problem ? built.failed ? false : undefined : true)
  checked('kernels and sessions against the CPU', 'all', of('cases'))
  checked('golden fixtures (greedy float32, bf16 3e-2)', 'all', of('golden'))
  checked('API tests on the GPU', 'all', of('api'))
  checked("the paper's shapes against the CPU", 'all', of('shapes'))
  for (const kind of ['memcheck', 'racecheck']) clean(kind, of('sanitizer'))
  measured(report.measure || of('measure'), report.torch || of('torch'), report.generate || of('generate'))
}

function print () {
  const widths = ['name', 'wanted', 'found'].map(key => Math.min(70, Math.max(...table.map(row => row[key].length))))
  for (const name of ['cases', 'golden', 'api', 'shapes']) {
    for (const failure of (report.parts[name]?.failures || []).slice(0, 8)) {
      console.log(`not ok  ${name}: ${failure.slice(0, 220)}`)
    }
  }
  console.log('')
  for (const { name, wanted, found, verdict } of table) {
    console.log([name.padEnd(widths[0]), wanted.padEnd(widths[1]), found.slice(0, 90).padEnd(widths[2]), verdict]
      .join('  ').trimEnd())
  }
}

function write () {
  if (out === '') return
  report.table = table
  report.seconds = (Date.now() - began) / 1000
  const file = path.join(out, 'device.json')
  fs.writeFileSync(file + '.partial', JSON.stringify(report, undefined, 1) + '\n')
  fs.renameSync(file + '.partial', file)
}

/** A part has ended: its result is kept before the next begins. */
function keep (results, place = report.parts) {
  Object.assign(place, results)
  write()
}

let ended = false
/** Prints the table and ends the process, with everything that it started. */
function end (why) {
  if (ended) return
  ended = true
  if (why) say(why)
  if (out !== '') fill()
  print()
  write()
  const count = verdict =>
    table.filter(row => row.verdict === verdict && (row.wanted !== '-' || verdict === 'FAIL')).length
  console.log(`\n${count('pass')} pass, ${count('FAIL')} fail, ${count('not run')} not ` +
    `run, ${((Date.now() - began) / 1000).toFixed(0)} s; ${out && path.join(out, 'device.json')}`)
  process.exitCode = count('FAIL') > 0 || count('not run') > 0 || table.length === 0 ? 1 : 0
  // What is written to a pipe must be out first.
  process.stdout.write('', () => process.exit())
}

// ---- all of it -------------------------------------------------------------------------------------------

/** The folder for results; a temporary one where the one that is wanted cannot be written. */
function folderFor (wanted) {
  try {
    fs.mkdirSync(wanted, { recursive: true })
    fs.writeFileSync(path.join(wanted, 'log.txt'), '')
    return wanted
  } catch (error) {
    const other = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-device-'))
    say(`${wanted} cannot be written (${error.code || error.message}): results go to ${other}`)
    return other
  }
}

async function main () {
  const anyway = process.env.PARVIS_DEVICE_ANYWAY
  const found = checks.gpu()
  const missing = checks.missingTools()
  if (missing.length > 0) throw new Error(`this machine lacks ${missing.join(', ')}`)
  if (!found && !anyway) {
    throw new Error('nvidia-smi finds no GPU here. (PARVIS_DEVICE_ANYWAY=90 runs what can run without one; nothing ' +
      'counts as passed then.)')
  }
  const gpu = found || { name: 'no GPU', driver: 'none', architecture: anyway }
  out = folderFor(path.resolve(positionals[0] || process.env.OUT || path.join(root, 'out', 'device-report')))
  log = path.join(out, 'log.txt')
  fs.writeFileSync(log, `${date}\n${JSON.stringify(gpu)}\n`)
  report.device = { ...gpu, cpu: os.cpus()[0]?.model, cores: os.availableParallelism(), node: process.version }
  say(`${gpu.name}, driver ${gpu.driver}; ${os.availableParallelism()} cores; ${out}`)

  const built = await part('build', 20, () => build(gpu))
  keep({ build: built })
  const ready = fs.existsSync(program('measure')) && !built.failed
  const need = built.failed ? `the build failed: ${built.problem}` : 'nothing is built'
  const builtPart = async (name, least, work) => ready ? await part(name, least, work) : { problem: need }

  // The library's tests measure some times: nothing beside them that fills the processor or the device.
  await Promise.all([
    builtPart('cases', 10, cases).then(result => {
      say(`cases: ${result.problem || `${result.passed} ok, ${result.failures.length} not`}`)
      keep({ cases: result })
    }),
    (async () => {
      keep({ golden: await builtPart('golden', 20, () => tests(['test/golden.test.ts'])) })
      const api = ['ablation', 'cancel', 'concurrency', 'seeds', 'stream'].map(name => `test/api/${name}.test.ts`)
      keep({ api: await builtPart('golden', 20, () => tests(api)) })
      say('golden fixtures and the tests of the library are done')
    })()
  ])
  await Promise.all([
    builtPart('shapes', 20, shapes).then(result => keep({ shapes: result })),
    builtPart('sanitizer', 20, sanitizer).then(result => keep({ sanitizer: result }))
  ])
  say('shapes and sanitizer are done')

  keep({ measure: await builtPart('measure', 30, measure) }, report)
  say(`measured${report.measure.problem ? ': ' + report.measure.problem : ''}`)
  keep({ generate: await part('generate', only.includes('torch') ? 150 : 30, generate) }, report)
  say(`pictures by the package${report.generate.problem ? ': ' + report.generate.problem : ' measured'}`)
  keep({ operations: await builtPart('measure', only.includes('torch') ? 160 : 20, operations) }, report)
  keep({ torch: await part('torch', 45, torch) }, report)
  say(`torch${report.torch.problem ? ': ' + report.torch.problem : ' measured'}`)
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => { end(`ended by ${signal}`) })
setTimeout(() => { end('time is over') }, Number(options.minutes) * 60_000 - 4000).unref()
main().catch(error => {
  console.error(`device: ${error.message}`)
  report.stopped = error.message
  line('the run', '-', error.message, false)
}).then(() => { end() })
