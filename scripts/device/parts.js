'use strict'
// What each part of the run does (plan.js has their order and their time). A part gets { seconds, log, ... } and
// resolves to its result: { passed, failures } where it checks something, its numbers where it measures, and `problem`
// where it could not. Nothing here throws because a GPU, a tool or PyTorch is missing.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const checks = require('../checks')
const { Peer } = require('./peer')

const { root, run, program } = checks
/** The library and its tests take the addon of out/device, whatever lies in build/. */
const ownAddon = { PARVIS_PREBUILD: checks.folder }
const now = () => Date.now() / 1000

/** Works through `jobs`, a few at a time. */
async function several (jobs, lanes, work) {
  const waiting = [...jobs]
  await Promise.all(Array.from({ length: lanes }, async () => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) await work(job)
  }))
}

const lanes = () => Math.max(1, Math.min(6, os.availableParallelism() >> 1))

// ---- correctness -----------------------------------------------------------------------------------------

async function cases ({ seconds, log, each = 60 }) {
  const result = { passed: 0, failures: [], seconds: {} }
  const until = now() + seconds
  await several(checks.cases(), lanes(), async name => {
    const rest = until - now()
    const child = rest < 2
      ? { out: '', problem: 'no time was left' }
      : await run(program(name), ['1'], { seconds: Math.min(each, rest), log })
    const one = checks.count(child)
    result.passed += one.passed
    result.failures.push(...one.failures.map(text => `${name}: ${text}`))
    result.seconds[name] = child.seconds
  })
  return result
}

async function shapes ({ seconds, log }) {
  return checks.count(
    await run(program('shapes'), ['--seconds', String(Math.max(4, Math.floor(seconds - 8)))], { seconds, log })
  )
}

const testFiles = {
  golden: ['test/golden.test.ts'],
  api: ['ablation', 'cancel', 'concurrency', 'seeds', 'stream'].map(name => `test/api/${name}.test.ts`)
}

/** What the library needs before it can be tried here; undefined: all is there. */
function lacking (modules) {
  const missing = modules.find(name => !fs.existsSync(path.join(root, 'node_modules', name)))
  if (missing) return `node_modules has no ${missing}`
  if (!fs.existsSync(checks.addon)) return 'the addon was not built'
  if (!fs.existsSync(path.join(root, 'dist', 'index.js'))) return 'there is no dist/ (npm run build:ts)'
  return undefined
}

/**
 * Tests of the library on the GPU. Each list is a run of its own, so that one that hangs spoils no other. `echo`: where
 * their output goes too.
 */
async function tests (name, { seconds, log, limit = 90, echo }) {
  const problem = lacking(['tap', 'tap-parser', 'typescript', 'node-gyp-build'])
  if (problem) return { problem }
  const { out: text, problem: broke } = await run(process.execPath, ['scripts/test.js', ...testFiles[name]], {
    seconds,
    log,
    env: {
      ...ownAddon,
      PARVIS_TEST_DEVICE: 'cuda',
      PARVIS_TAP: path.join(root, 'out', `device-${name}.tap`),
      TAP_TIMEOUT: String(limit),
      PARVIS_CUDA: 'on'
    }
  })
  echo?.(text)
  const counted = /(\d+) passed, (\d+) failed\s*$/.exec(text.trim())
  const failures = text.split('\n').filter(l => l.startsWith('  FAILED  ')).map(l => l.slice(10))
  if (!counted) return { passed: 0, failures: failures.concat(broke || 'ended without a count') }
  while (failures.length < Number(counted[2])) failures.push('a test failed that was not named')
  return { passed: Number(counted[1]), failures }
}

async function workers ({ seconds, log }) {
  const problem = lacking(['node-gyp-build'])
  if (problem) return { problem }
  const child = await run(process.execPath, ['scripts/device/workers.js'], { seconds, log, env: ownAddon })
  try {
    return JSON.parse(child.out)
  } catch { // it broke off, which is what was looked for
    return { passed: 0, failures: [child.problem || 'ended without a result'] }
  }
}

// ---- compute-sanitizer -----------------------------------------------------------------------------------

const tools = { memcheck: undefined, racecheck: ['project', 'attend', 'sample', 'tile'] }

/** Every job of the sanitizer: { kind, name }, what is quickest and most telling first. */
function sanitizerJobs () {
  const first = ['project', 'attend', 'sample', 'tile']
  const programs = [...first, ...checks.cases().filter(name => !first.includes(name))]
  return ['memcheck', 'racecheck'].flatMap(kind => (tools[kind] || programs).map(name => ({ kind, name })))
}

/**
 * What an output of compute-sanitizer says: 'clean' with its warnings, 'bad' with the reason, or 'refused' where the
 * tool did not get to see the device. A hazard counts where its severity is an error: staging by the threads of one
 * warp is known to bring warnings.
 */
function sanitized (kind, text, passed) {
  if (kind === 'racecheck') {
    const summary = /RACECHECK SUMMARY: .*?\((\d+) errors?, (\d+) warnings?\)/.exec(text) ||
      /RACECHECK SUMMARY: (0) hazards?()/.exec(text)
    if (summary && Number(summary[1]) > 0) return { verdict: 'bad', why: summary[0] }
    if (summary && passed > 0) return { verdict: 'clean', warnings: Number(summary[2] || 0) }
  } else {
    const summary = /ERROR SUMMARY: (\d+) errors?/.exec(text)
    if (summary && Number(summary[1]) > 0 && passed > 0) return { verdict: 'bad', why: summary[0] }
    if (summary && passed > 0) return { verdict: 'clean', warnings: 0 }
  }
  const line = text.split('\n').find(l => /not supported|not ok|Error:|error:/.test(l))
  return { verdict: 'refused', why: (line || 'no summary').replace(/^=+ */, '').slice(0, 120) }
}

async function sanitizer ({ seconds, log, unfinished }) {
  const tool = ['compute-sanitizer', '/usr/local/cuda/bin/compute-sanitizer',
    '/usr/local/cuda/compute-sanitizer/compute-sanitizer', '/opt/nvidia/compute-sanitizer/compute-sanitizer']
    .find(name => spawnSync(name, ['--version'], { stdio: 'ignore', timeout: 20000 }).status === 0)
  if (!tool) return { problem: 'compute-sanitizer is not here' }
  const end = now() + seconds
  const empty = () => ({ clean: [], bad: [], warnings: [], unfinished: [] })
  const result = { memcheck: empty(), racecheck: empty() }
  let [worked, refusal] = [0, '']
  await several(unfinished || sanitizerJobs(), lanes(), async ({ kind, name }) => {
    const rest = end - now()
    if (rest < 3) return result[kind].unfinished.push(name)
    const report = kind === 'racecheck' ? ['--racecheck-report', 'analysis'] : ['--report-api-errors', 'no']
    const child = await run(tool, ['--tool', kind, ...report, '--print-limit', '5', program(name), '1'],
      { seconds: rest, log })
    if (/^ran out/.test(child.problem || '')) return result[kind].unfinished.push(name)
    // A tool that is refused the device sums up no error either: only what computed something has been looked at.
    const { passed, failures } = checks.count({ out: child.out })
    const { verdict, why, warnings } = sanitized(kind, child.out + child.err, passed)
    if (passed > 0) worked++
    if (warnings > 0) result[kind].warnings.push(`${name}: ${warnings}`)
    if (verdict === 'clean') result[kind].clean.push(name)
    else if (verdict === 'bad') result[kind].bad.push(`${name}: ${why}`)
    else if (passed > 0) result[kind].bad.push(`${name}: ${failures[0] || why}`)
    else {
      refusal = refusal || why
      result[kind].unfinished.push(name)
    }
  })
  if (worked > 0) return result
  return {
    ...result,
    problem: refusal ? `compute-sanitizer does not work here: ${refusal}` : 'compute-sanitizer ended nothing in time'
  }
}

// ---- measurements ----------------------------------------------------------------------------------------

/**
 * A program that writes FILE as it goes: what it had counts even where it was ended. `watch` is told the file, for
 * whoever has to stop before the program has.
 */
async function written ({ file, command, args, seconds, log, env, watch }) {
  fs.rmSync(file, { force: true })
  watch?.(file)
  const { problem, out, err } = await run(command, [...args, '--out', file], { seconds, log, env })
  watch?.(undefined)
  const had = read(file)
  const last = (err.trim() || out.trim()).split('\n').at(-1)
  if (had === undefined) return { problem: [problem || 'wrote nothing', last].filter(Boolean).join(': ') }
  return { ...had, ...(problem && { ended: problem }) }
}

/** What a program has written so far; undefined: nothing that is whole. */
function read (file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

/**
 * bench/cuda/measure.cc for some of its groups, or trace.cc beside it. It gets less than its limit, so that it ends by
 * itself.
 */
function measure ({ groups, seconds, log, folder, date, watch }) {
  return written({
    file: path.join(folder, 'measure.json'),
    command: program(groups.startsWith('trace:') ? 'trace' : 'measure'),
    args: ['--date', date, '--seconds', String(Math.max(2, Math.floor(seconds - 4))), '--parts', groups],
    seconds,
    log,
    watch
  })
}

/** VQ-16's operations one by one, as text: nothing is promised of them, but they tell where the time goes. */
async function operations ({ seconds, log }) {
  if (!fs.existsSync(program('vq-operations'))) return { problem: 'not built' }
  const result = {}
  for (const images of ['1', '16']) {
    const { out, problem } = await run(program('vq-operations'), [images], { seconds: seconds / 2, log })
    result[images] = problem || out.trim().split('\n')
  }
  return result
}

/** What is kept of Nsight Compute's many numbers. */
const counters = ['Duration', 'DRAM Throughput', 'L2 Cache Throughput', 'Registers Per Thread', 'Achieved Occupancy',
  'Theoretical Occupancy', 'Block Limit Registers', 'Block Limit Shared Mem']

/** The rows of `ncu --csv --page details`: { kernel: [{ counter: 'value unit' }] }, a list entry a launch. */
function countersOf (csv) {
  const cells = line => [...line.matchAll(/"((?:[^"]|"")*)"(?:,|$)/g)].map(match => match[1].replaceAll('""', '"'))
  const lines = csv.split('\n').filter(line => line.startsWith('"'))
  const head = cells(lines[0] || '')
  const at = name => head.indexOf(name)
  const launches = new Map()
  for (const row of lines.slice(1).map(cells)) {
    if (!counters.includes(row[at('Metric Name')])) continue
    const id = row[at('ID')]
    const launch = launches.get(id) || { kernel: row[at('Kernel Name')].replace(/[<(].*/, '') }
    launch[row[at('Metric Name')]] = `${row[at('Metric Value')]} ${row[at('Metric Unit')]}`.trim()
    launches.set(id, launch)
  }
  return [...launches.values()]
}

async function ncu ({ seconds, log, folder, date }) {
  const tool = ['ncu', '/usr/local/cuda/bin/ncu']
    .find(name => spawnSync(name, ['--version'], { stdio: 'ignore', timeout: 20000 }).status === 0)
  if (!tool) return { problem: 'ncu is not here' }
  // The clocks of a machine that is lent are left alone.
  const { out, err, problem } = await run(tool, ['--clock-control', 'none', '--csv', '--page', 'details',
    ...['SpeedOfLight', 'LaunchStats', 'Occupancy'].flatMap(name => ['--section', name]),
    '-k', 'regex:project|attend|sample', '-c', '12', program('measure'), '--date', date, '--seconds', '4',
    '--out', path.join(folder, 'ncu.json'), '--parts', 'step:XXL:4'], { seconds, log })
  const launches = countersOf(out)
  if (launches.length > 0) return { launches }
  const said = (err + out).split('\n').find(line => /==ERROR==|not ok/.test(line))
  return { problem: [problem || 'no kernel was profiled', said].filter(Boolean).join(': ') }
}

/** Pictures by the package, from weights that are written into memory where the machine has a disk there. */
async function pictures ({ models, seconds, log, folder, watch }) {
  const problem = lacking(['typescript', 'node-gyp-build'])
  if (problem) return { problem }
  const memory = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir()
  const temporary = fs.mkdtempSync(path.join(memory, 'parvis-device-'))
  const remove = () => fs.rmSync(temporary, { recursive: true, force: true })
  process.once('exit', remove) // gigabytes, which a program that is ended leaves
  try {
    return await written({
      file: path.join(folder, 'generate.json'),
      command: process.execPath,
      args: ['scripts/generate-times.js', '--models', models,
        '--seconds', String(Math.max(2, Math.floor(seconds - 8)))],
      seconds,
      log,
      env: { ...ownAddon, TMPDIR: temporary },
      watch
    })
  } finally {
    remove()
    process.off('exit', remove)
  }
}

// ---- PyTorch ---------------------------------------------------------------------------------------------

/** A Python that has PyTorch, without importing it, which takes seconds. */
function python () {
  const find = 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'
  return ['python3', '/opt/torch/.venv/bin/python3', '/usr/bin/python3']
    .find(name => spawnSync(name, ['-c', find], { stdio: 'ignore', timeout: 20000 }).status === 0)
}

/** Starts compiling in the background, on a few cores: { peer, ready: a promise of its answer } or { problem }. */
function startPeer ({ model, n, seconds, log }) {
  const found = python()
  if (!found) return { problem: 'no python3 here has PyTorch' }
  const threads = String(Math.max(1, Math.min(6, os.availableParallelism() >> 2)))
  const args = ['--serve', 'compiled', '--models', model, '--n', String(n), '--seconds', String(seconds)]
  const env = { OMP_NUM_THREADS: threads, TORCHINDUCTOR_COMPILE_THREADS: threads }
  const peer = new Peer(found, ['bench/torch/gpu.py', ...args], { log, cwd: root, env })
  const started = { peer, model, n, answered: undefined }
  started.ready = peer.ask('picture bfloat16').then(answer => {
    started.answered = answer
    return answer
  })
  return started
}

/** What a promise resolves to; undefined after so many seconds. */
async function within (promise, seconds) {
  let timer
  const late = new Promise(resolve => { timer = setTimeout(resolve, seconds * 1000) })
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const median = times => [...times].sort((a, b) => a - b)[times.length >> 1]

/**
 * Pictures of ours in turn with those of the peer, three rounds or as many as there is time for. The ratio is of times
 * until the tokens are read: the peer does not decode.
 */
async function alternate ({ started, seconds, ...rest }) {
  if (started.problem) return { problem: started.problem }
  const { peer, model, n } = started
  const until = now() + seconds
  const result = { model, n, rounds: [] }
  peer.resume()
  // One round of ours takes some seconds: without time for it no answer is worth waiting for.
  const first = await within(started.ready, Math.max(1, seconds - 12))
  if (first === undefined) return { ...result, problem: `it was still ${peer.doing}` }
  for (let i = 0; i < 3 && until - now() > 8; i++) {
    if (first.problem) return { ...result, problem: first.problem }
    const groups = `generate:${model}:${n}`
    const ours = await measure({ ...rest, groups, seconds: Math.min(until - now() - 2, 20) })
    const entry = (ours.parts || []).find(({ name }) => name === groups)
    if (!entry?.transformerMs) return { ...result, problem: entry?.problem || ours.problem || 'ours was not measured' }
    const theirs = []
    while (theirs.length < 5 && until - now() > 1) {
      const { ms, problem } = await within(peer.ask('picture bfloat16'), until - now()) ||
        { problem: 'it did not answer in time' }
      if (problem) return { ...result, problem }
      theirs.push(ms)
    }
    if (theirs.length > 0) result.rounds.push({ ours: entry.transformerMs, theirs })
    result.entry = entry
  }
  Object.assign(result, { compileMs: peer.compileMs, notes: peer.notes })
  if (result.rounds.length === 0) return { ...result, problem: 'no time was left' }
  result.ours = median(result.rounds.map(({ ours }) => ours.median))
  result.theirs = median(result.rounds.flatMap(({ theirs }) => theirs))
  return result
}

module.exports = {
  cases, shapes, tests, workers, sanitizer, sanitizerJobs, sanitized, measure, operations, ncu, countersOf, pictures,
  startPeer, alternate, read, ownAddon
}
