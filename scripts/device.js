'use strict'
// Everything that only a machine with a GPU can show, in one run of at most eight minutes: bash scripts/device.sh [OUT].
// Correctness first, its parts side by side, for they do not mind each other; then measurements, one at a time. A part that
// fails or runs out of time stops no other. The table at the end has a line a promise; what did not run says so and is no
// success. OUT gets device.json (everything), measure.json and torch.json (as the programs wrote them) and log.txt.
//   --minutes 8        for all parts together
//   --only LIST        of: build, cases, golden, shapes, sanitizer, measure, torch
//   PARVIS_DEVICE_ANYWAY=90   runs without a GPU too, built for that architecture: to try this script; nothing passes then

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')
const checks = require('./checks')

const { root, run, program } = checks
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '8' }, only: { type: 'string', default: 'build,cases,golden,shapes,sanitizer,measure,torch' } }
})
const out = path.resolve(positionals[0] || process.env.OUT || path.join(root, 'out', 'device-report'))
const only = options.only.split(',')
const began = Date.now()
const date = new Date().toISOString()
/** Some seconds are kept for the table. */
const left = () => Number(options.minutes) * 60 - 10 - (Date.now() - began) / 1000
const log = path.join(out, 'log.txt')
const report = { date, parts: {} }
/** { name, wanted, found, verdict: 'pass' | 'FAIL' | 'not run' | '' } */
const table = []

/** Nothing is wanted ('-') of what is only told. */
const line = (name, wanted, found, good) => table.push({ name, wanted, found, verdict: good === undefined ? 'not run' : wanted === '-' && good ? '' : good ? 'pass' : 'FAIL' })
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
  say(built.problem ? `build: ${built.problem}` : `built in ${built.seconds.toFixed(0)} s${built.addon ? '' : ', without the addon (node_modules has no headers of it)'}`)
  if (built.problem) console.log((built.out + built.err).split('\n').filter(text => /error|warning.*spill/i.test(text)).slice(0, 12).join('\n'))
  report.parts.build = { seconds: built.seconds, problem: built.problem, addon: built.addon }
  return { ...built, failed: built.problem !== undefined }
}

async function cases () {
  const result = { passed: 0, failures: [] }
  for (const name of checks.cases()) {
    const one = checks.count(await run(program(name), ['1'], { seconds: Math.min(60, left()), log }))
    result.passed += one.passed
    result.failures.push(...one.failures.map(text => `${name}: ${text}`))
  }
  return result
}

async function shapes () {
  const seconds = Math.min(100, left())
  return checks.count(await run(program('shapes'), ['--seconds', String(Math.max(10, seconds - 25))], { seconds, log }))
}

/** The tests of the library that compute, on the GPU. Each list is its own run, so that one that hangs spoils no other. */
async function tests (files) {
  const { built, problem } = testable()
  if (!built) return { problem }
  const tap = path.join(root, 'out', `device-${path.basename(files[0], '.test.ts')}.tap`)
  const { out: text, problem: broke } = await run(process.execPath, ['scripts/test.js', ...files], {
    seconds: Math.min(120, left()), log, env: { PARVIS_TEST_DEVICE: 'cuda', PARVIS_TAP: tap, TAP_TIMEOUT: '90', PARVIS_CUDA: 'on' }
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
  if (!fs.existsSync(path.join(root, 'build', 'Release', 'parvis.node'))) return { problem: 'the addon was not built' }
  return { built: true }
}

async function sanitizer () {
  const tool = ['compute-sanitizer', '/usr/local/cuda/bin/compute-sanitizer', '/usr/local/cuda/compute-sanitizer/compute-sanitizer', '/opt/nvidia/compute-sanitizer/compute-sanitizer']
    .find(name => require('node:child_process').spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0)
  if (!tool) return { problem: 'compute-sanitizer is not here' }
  const seconds = Math.min(120, left())
  const jobs = ['memcheck', 'racecheck'].flatMap(kind => checks.cases().map(name => ({ kind, name })))
  const results = { memcheck: { clean: [], bad: [] }, racecheck: { clean: [], bad: [] } }
  let [summaries, refusal] = [0, '']
  const one = async ({ kind, name }) => {
    const { out: text, problem } = await run(tool, ['--tool', kind, '--error-exitcode', '99', '--report-api-errors', 'no', '--print-limit', '5', program(name), '1'], { seconds, log })
    const summary = kind === 'memcheck' ? /ERROR SUMMARY: (\d+) error/.exec(text) : /RACECHECK SUMMARY: (\d+) hazard/.exec(text)
    if (summary && Number(summary[1]) === 0) results[kind].clean.push(name)
    else results[kind].bad.push(`${name}: ${summary ? summary[0] : problem || 'no summary'}`)
    if (summary) summaries++
    else refusal = refusal || (text.split('\n').find(l => /not supported|Error:|error:/.test(l)) || problem || '').slice(0, 120)
  }
  // A few at a time: each is a process with the device's context.
  const workers = Array.from({ length: Math.max(1, Math.min(6, os.availableParallelism() >> 1)) }, async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) await one(job)
  })
  await Promise.all(workers)
  // Not every machine lets it see the device: that is no finding.
  return summaries > 0 ? results : { problem: `compute-sanitizer does not work here: ${refusal}` }
}

/** A program that writes FILE as it goes: what it had counts even where it was ended. */
async function written (name, command, args, seconds) {
  const file = path.join(out, name)
  fs.rmSync(file, { force: true })
  const { problem, out: text, err } = await run(command, [...args, '--out', file], { seconds, log })
  if (!fs.existsSync(file)) return { problem: problem ? `${problem}: ${(err.trim() || text.trim()).split('\n').at(-1)}` : 'wrote nothing', failed: true }
  return { ...JSON.parse(fs.readFileSync(file, 'utf8')), ...(problem && { ended: problem }) }
}

function measure (torchToo) {
  const seconds = Math.min(200, torchToo ? Math.max(left() - 110, 60) : left())
  return written('measure.json', program('measure'), ['--date', date, '--seconds', String(Math.floor(seconds - 15))], seconds)
}

/** VQ-16's operations one by one, as text: nothing is promised of them, but they tell where the time of a picture goes. */
async function operations () {
  if (!fs.existsSync(program('vq-operations'))) return { problem: 'not built' }
  const result = {}
  for (const images of ['1', '16']) {
    const { out: text, problem } = await run(program('vq-operations'), [images], { seconds: Math.min(20, left()), log })
    result[images] = problem || text.trim().split('\n')
  }
  return result
}

function torch () {
  const seconds = left()
  // No configuration is begun that could not end: compiling a layer and tuning its products takes half a minute.
  return written('torch.json', 'python3', ['bench/torch/gpu.py', '--seconds', String(Math.max(20, Math.floor(seconds - 50)))], seconds)
}

// ---- the table -------------------------------------------------------------------------------------------

/** A line of checks counted as { passed, failures } or not run for a { problem }. */
function checked (name, wanted, result) {
  if (result.problem && !result.failures) return line(name, wanted, result.problem, result.failed ? false : undefined)
  const { passed, failures, skipped = [] } = result
  line(name, wanted, `${passed} ok, ${failures.length} not${skipped.length > 0 ? `, ${skipped.length} left out` : ''}`, failures.length === 0 && passed > 0)
}

/** A line for a number of the measurements, below or above a bound. */
function bound (name, wanted, unit, value, good, absent) {
  if (value === undefined || value === null || !Number.isFinite(value)) return line(name, wanted, absent, undefined)
  line(name, wanted, `${Number(value.toPrecision(3))}${unit}`, good(value))
}

function measured (results, peers) {
  const entries = results.parts || []
  const find = name => entries.find(entry => entry.name === name) || {}
  const absent = name => find(name).problem || results.problem || results.ended || 'not measured'
  const read = find('read')
  bound('read of a large buffer', '-', ' GB/s', read.gigabytesPerSecond, () => true, absent('read'))
  for (const rows of [2, 8, 32]) {
    const name = `XXL projections rows=${rows}`
    const { ofCeiling, families } = find(name)
    const least = (families || []).filter(family => !family.name.includes(',')).reduce((a, b) => a.ofCeiling <= b.ofCeiling ? a : b, { ofCeiling: Infinity })
    bound(`XXL projections, ${rows} rows, a step's`, '>= 80% of read', '%', ofCeiling && ofCeiling * 100, value => value >= 80, absent(name))
    bound(`  the slowest (${least.name || '?'})`, '>= 80% of read', '%', families && least.ofCeiling * 100, value => value >= 80, absent(name))
  }
  bound('VQ-16 decode, 384 px', '< 4 ms', ' ms', find('VQ-16 decode count=1').ms?.median, value => value < 4, absent('VQ-16 decode count=1'))
  for (const [model, n, most] of [['XXL', 4, 200], ['XXL', 16, 75], ['3B', 4, 290], ['3B', 16], ['L', 4], ['L', 16], ['XL', 4], ['XL', 16]]) {
    const name = `${model} generate n=${n}`
    bound(`${model}, n = ${n}, one picture to its pixels`, most ? `< ${most} ms` : '-', ' ms', find(name).decodeMs ? find(name).ms.median : undefined, value => !most || value < most,
      find(name).ms ? `${find(name).transformerMs.median.toFixed(1)} ms without decoding` : absent(name))
  }
  for (const name of ['XXL step n=4', 'XXL step n=16', '3B step n=4']) {
    bound(`${name}: gap between steps`, '< 2%', '%', find(name).gap === undefined ? undefined : find(name).gap * 100, value => value < 2, absent(name))
  }
  for (const n of [4, 16]) {
    for (const model of ['XXL', '3B', 'L', 'XL']) {
      const ours = find(`${model} generate n=${n}`).transformerMs?.median
      const theirs = (peers.results || []).filter(peer => peer.model === model && peer.n === n && peer.ms).map(peer => peer.ms.median)
      const why = (peers.results || []).find(peer => peer.model === model && peer.n === n)?.problem || peers.problem || peers.ended || 'not measured'
      const name = `${model}, n = ${n}: torch.compile takes`
      bound(name, n === 4 ? '>= 1.5 x ours' : '-', ' x', theirs.length > 0 && ours ? Math.min(...theirs) / ours : undefined, value => n !== 4 || value >= 1.5, ours ? why : absent(`${model} generate n=${n}`))
    }
  }
}

function print () {
  const widths = ['name', 'wanted', 'found'].map(key => Math.min(70, Math.max(...table.map(row => row[key].length))))
  console.log('')
  for (const { name, wanted, found, verdict } of table) console.log([name.padEnd(widths[0]), wanted.padEnd(widths[1]), found.slice(0, 90).padEnd(widths[2]), verdict].join('  ').trimEnd())
}

// ---- all of it -------------------------------------------------------------------------------------------

async function main () {
  const anyway = process.env.PARVIS_DEVICE_ANYWAY
  const found = checks.gpu()
  const missing = checks.missingTools()
  if (missing.length > 0) throw new Error(`this machine lacks ${missing.join(', ')}`)
  if (!found && !anyway) throw new Error('nvidia-smi finds no GPU here. (PARVIS_DEVICE_ANYWAY=90 runs what can run without one; nothing counts as passed then.)')
  const gpu = found || { name: 'no GPU', driver: 'none', architecture: anyway }
  fs.mkdirSync(out, { recursive: true })
  fs.writeFileSync(log, `${date}\n${JSON.stringify(gpu)}\n`)
  report.device = { ...gpu, cpu: os.cpus()[0]?.model, cores: os.availableParallelism(), node: process.version }
  say(`${gpu.name}, driver ${gpu.driver}; ${os.availableParallelism()} cores; ${out}`)

  const built = await part('build', 20, () => build(gpu))
  const ready = fs.existsSync(program('measure')) && !built.failed
  const need = built.failed ? `the build failed: ${built.problem}` : 'nothing is built'
  line('build', 'no error', built.problem || `${built.seconds.toFixed(0)} s`, built.problem === 'not asked for' ? undefined : !built.failed)
  const checkedPart = async (name, least, work) => ready ? await part(name, least, work) : { problem: need }

  const cased = await checkedPart('cases', 10, cases)
  say(`cases: ${cased.problem || `${cased.passed} ok, ${cased.failures.length} not`}`)
  const library = async () => ({
    golden: await tests(['test/golden.test.ts']),
    api: await tests(['api/ablation', 'api/cancel', 'api/concurrency', 'api/seeds', 'api/stream', 'operations'].map(name => `test/${name}.test.ts`))
  })
  const [real, goldenAndApi, sanitized] = await Promise.all([checkedPart('shapes', 20, shapes), checkedPart('golden', 20, library), checkedPart('sanitizer', 20, sanitizer)])
  say('shapes, golden fixtures and sanitizer are done')
  const { golden = goldenAndApi, api = goldenAndApi } = goldenAndApi
  checked('kernels and sessions against the CPU', 'all', cased)
  checked('golden fixtures (greedy float32, bf16 3e-2)', 'all', golden)
  checked('API tests on the GPU', 'all', api)
  checked("the paper's shapes against the CPU", 'all', real)
  for (const kind of ['memcheck', 'racecheck']) {
    const result = sanitized[kind]
    if (!result) line(kind, 'clean', sanitized.problem, sanitized.failed ? false : undefined)
    else line(kind, 'clean', result.bad.length > 0 ? result.bad.join('; ') : `${result.clean.length} programs`, result.bad.length === 0)
  }
  Object.assign(report.parts, { cases: cased, golden, api, shapes: real, sanitizer: sanitized })

  report.measure = await checkedPart('measure', 30, () => measure(only.includes('torch')))
  report.operations = await checkedPart('measure', 30, operations)
  say(`measured${report.measure.problem ? ': ' + report.measure.problem : ''}`)
  report.torch = await part('torch', 60, torch)
  say(`torch${report.torch.problem ? ': ' + report.torch.problem : ' measured'}`)
  measured(report.measure, report.torch)
  for (const [name, result] of Object.entries({ cases: cased, golden, api, shapes: real })) {
    for (const failure of (result.failures || []).slice(0, 8)) console.log(`not ok  ${name}: ${failure.slice(0, 220)}`)
  }
}

main().catch(error => {
  console.error(`device: ${error.message}`)
  line('the run', '-', error.message, false)
}).then(() => {
  print()
  report.table = table
  report.seconds = (Date.now() - began) / 1000
  const count = verdict => table.filter(row => row.verdict === verdict && (row.wanted !== '-' || verdict === 'FAIL')).length
  if (fs.existsSync(out)) fs.writeFileSync(path.join(out, 'device.json'), JSON.stringify(report, undefined, 1) + '\n')
  console.log(`\n${count('pass')} pass, ${count('FAIL')} fail, ${count('not run')} not run, ${report.seconds.toFixed(0)} s; ${path.join(out, 'device.json')}`)
  process.exitCode = count('FAIL') > 0 || count('not run') > 0 ? 1 : 0
})
