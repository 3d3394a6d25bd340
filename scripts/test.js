'use strict'
// npm test [-- FILE ...]: builds what is stale, runs the test files, counts assertions, ends with the line
// `N passed, N failed`. A FILE may be a folder.
//
//   npm test             what a contributor runs: everything but `slow` below, minutes on two cores
//   npm run test:rest    the rest, `slow` below: simulated GPU, release, other runners, hostile files, documents
//   npm run test:all     both
//
// The files are tap tests, one process each, in two lanes: few keep two cores busy all the time. The files of `alone`,
// which measure time or memory, follow one after another. This script reads their TAP streams instead of tap's own
// runner because that one loses the files after one that ran out of time. A file that crashes, times out, bails out or
// asserts nothing counts as a failure. Skipped and todo assertions are named, and count as neither. A single file also
// runs by itself: npx tap test/schedule.test.ts
//
//   PARVIS_TAP=FILE    where the TAP stream is written (default out/test.tap)
//   TAP_TIMEOUT=300    seconds that a file may take where it does not say otherwise (default 300, for `slow` 900)

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { Parser } = require('tap-parser')
const addon = require('./addon')
const typescript = require('./prepare')

const { root } = addon
const transpile = path.join(__dirname, 'transpile.js')
const tapFile = path.resolve(root, process.env.PARVIS_TAP || 'out/test.tap')
/** A test file gets this long to name what it waited for, after its own timer rang. */
const grace = 20
/** Milliseconds for a file that asks for no limit, t.setTimeout(0): a hang must still end. */
const maxTime = 30 * 60 * 1000
/**
 * What only continuous integration has to run each time, by the beginning of its path: minutes of compiling kernels as
 * plain C++, of packing and installing, of hostile files, signals and documents, and what other files check more
 * briefly. Whoever changes something there runs it by its name.
 */
const slow = [
  'test/api/load-memory.', 'test/api/memory.', 'test/api/termination.', 'test/bench/', 'test/checkpoint/hostile.',
  'test/checkpoint/pickle.', 'test/checkpoint/variants.', 'test/cli/bench.', 'test/cli/hostile.', 'test/cli/signals.',
  'test/cli/complete.', 'test/cli/doctor.', 'test/cli/entropy.', 'test/cli/outputs.', 'test/cli/parallel.',
  'test/cli/reconstruct.',
  'test/cli/sample', 'test/cli/terminal.', 'test/cuda/', 'test/damaged-tokenizer.', 'test/docs/',
  'test/examples/', 'test/ffmpeg.', 'test/find-addon.',
  'test/fuzz/', 'test/operations.', 'test/package.', 'test/ptx.', 'test/release/', 'test/runners/',
  'test/server/load.', 'test/server/page.', 'test/server/queue.', 'test/server/sample.', 'test/simt', 'test/snippets.',
  'test/types.'
]
/** What measures time or memory, by the beginning of its path: nothing runs beside it. */
const alone = [
  'test/api/budget.', 'test/api/concurrency.', 'test/api/load-memory.', 'test/api/memory.', 'test/api/termination.',
  'test/bench/peers.', 'test/cancel-work.', 'test/checkpoint/extras.', 'test/checkpoint/pickle.', 'test/cli/bench.',
  'test/cli/signals.', 'test/examples/', 'test/fuzz/', 'test/labels.', 'test/machine.', 'test/resample.',
  'test/server/load.', 'test/server/page.', 'test/server/queue.', 'test/strided-tensors.'
]
/** Files that use one folder, by the beginning of their paths: one at a time. */
const apart = ['test/runners/']
/** What takes longest, in this order, by the beginning of its path. It begins first, so that the lanes end together. */
const longest = [
  'test/ptx.', 'test/cuda/golden.', 'test/cuda/api.', 'test/cuda/session.',
  'test/cuda/vq-tokenizer.', 'test/release/', 'test/checkpoint/variants.', 'test/cuda/', 'test/snippets.',
  'test/runners/', 'test/package.', 'test/pinned/', 'test/fashion.', 'test/types.'
]
const total = { passed: 0, failed: 0, skipped: 0, todo: 0 }

main().then(finish, error => {
  console.error(error)
  total.failed++
  finish()
})

async function main () {
  if (!buildTypeScript() || !buildAddon()) {
    total.failed++
    return
  }
  const files = chosenFiles(process.argv.slice(2))
  if (!files) {
    total.failed++
    return
  }
  fs.mkdirSync(path.dirname(tapFile), { recursive: true })
  fs.writeFileSync(tapFile, `TAP version 14\n1..${files.length}\n`)
  let index = 0
  const run = async file => {
    const { counts, tap, time } = await runFile(file)
    for (const key of Object.keys(total)) total[key] += counts[key]
    const ok = counts.failed === 0 ? 'ok' : 'not ok'
    fs.appendFileSync(tapFile, `# Subtest: ${file}\n${tap}${ok} ${++index} - ${file} # time=${time}ms\n`)
    const figures = Object.entries(counts).filter(([key, value]) => value > 0 || key === 'passed')
      .map(([key, value]) => `${value} ${key}`)
    console.log(`${ok.padEnd(6)}  ${file}  ${figures.join(', ')}  ${(time / 1000).toFixed(1)} s`)
  }
  const started = Date.now()
  await inLanes(2, files.filter(file => !beginsWithOneOf(alone, file)), run)
  await inLanes(1, files.filter(file => beginsWithOneOf(alone, file)), run)
  const minutes = ((Date.now() - started) / 60_000).toFixed(1)
  console.log(`\n${files.length} files in ${minutes} minutes, ${total.skipped} skipped, ${total.todo} todo`)
}

/** Runs the files, as many at a time as there are lanes, the longest first. */
async function inLanes (lanes, files, run) {
  const place = file => {
    const found = longest.findIndex(beginning => file.startsWith(beginning))
    return found < 0 ? longest.length : found
  }
  const waiting = [...files].sort((a, b) => place(a) - place(b)) // otherwise in their order
  const running = new Map()
  const excluded = file => apart.some(beginning =>
    file.startsWith(beginning) && [...running.keys()].some(other => other.startsWith(beginning)))
  while (waiting.length > 0 || running.size > 0) {
    const next = running.size < lanes ? waiting.findIndex(file => !excluded(file)) : -1
    if (next >= 0) {
      const [file] = waiting.splice(next, 1)
      running.set(file, run(file).finally(() => running.delete(file)))
    } else await Promise.race(running.values())
  }
}

/** Runs one test file. { counts, tap: its stream as an indented subtest, time: milliseconds } */
async function runFile (file) {
  const allowed = Number(process.env.TAP_TIMEOUT || (beginsWithOneOf(slow, file) ? 900 : 300))
  const counts = { passed: 0, failed: 0, skipped: 0, todo: 0 }
  const lines = []
  const started = Date.now()
  const child = spawn(process.execPath, ['--enable-source-maps', '--require', transpile, file], {
    cwd: root,
    env: { ...process.env, TAP: '1', TAP_TIMEOUT: String(allowed) },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc']
  })
  const stop = () => { child.kill('SIGKILL'); process.exit(130) }
  process.on('SIGINT', stop)

  let late = false
  let timer
  const allow = milliseconds => {
    clearTimeout(timer)
    timer = setTimeout(() => { late = true; child.kill('SIGKILL') }, (milliseconds || maxTime) + grace * 1000)
  }
  allow(allowed * 1000)
  child.on('message', message => { if (typeof message?.setTimeout === 'number') allow(message.setTimeout) })

  const parser = new Parser()
  watch(parser, [file], counts)
  parser.on('line', line => {
    // A version line belongs at the top only, and a bail-out of one file would end the whole stream.
    if (/^TAP version/.test(line)) return
    lines.push(line === '\n' ? line : '    ' + line.replace(/^(\s*)Bail out!/, '$1# Bail out!'))
  })
  child.stdout.setEncoding('utf8').on('data', chunk => parser.write(chunk))
  const { code, signal } = await new Promise(resolve => {
    child.on('error', error => resolve({ code: error.message, signal: null }))
    child.on('close', (code, signal) => resolve({ code, signal }))
  })
  clearTimeout(timer)
  process.off('SIGINT', stop)
  parser.end()
  if (!parser.results) await new Promise(resolve => parser.on('complete', resolve))

  const { results } = parser
  const assertions = counts.passed + counts.failed + counts.skipped + counts.todo
  const skipped = results.plan.skipAll && results.plan.comment && results.plan.comment !== 'no tests found'
  const reason = late ? 'ran out of time' : signal ? `was ended by ${signal}` : code !== 0 ? `exited with ${code}` : ''
  if (signal || ((code !== 0 || !results.ok) && counts.failed === 0)) {
    fail(counts, [file], reason || results.failures.map(failure => failure.tapError || failure.name).join('; '))
  } else if (assertions === 0) {
    if (skipped) counts.skipped++
    else fail(counts, [file], 'made no assertion')
  }
  return { counts, tap: lines.join(''), time: Date.now() - started }
}

// ---- counting --------------------------------------------------------------------------------------------

/** Counts the leaves under one parser. `names` is the path of subtests that leads to it. */
function watch (parser, names, counts) {
  let failedBeforeChild = 0
  parser.on('child', child => {
    failedBeforeChild = counts.failed
    watch(child, [...names, child.name], counts)
  })
  parser.on('assert', result => {
    if (result.skip) counts.skipped++
    else if (result.todo) counts.todo++
    else if (!result.closingTestPoint) result.ok ? counts.passed++ : fail(counts, [...names, result.name], result.diag)
    // The point that closes a subtest counts only when nothing inside explains its failure.
    else if (!result.ok && counts.failed === failedBeforeChild) fail(counts, [...names, result.name], result.diag)
  })
  if (names.length === 1) parser.on('bailout', reason => fail(counts, names, `bailed out: ${reason}`))
}

function fail (counts, names, diag) {
  counts.failed++
  console.log(`\n  FAILED  ${names.filter(Boolean).join(' > ')}`)
  const text = typeof diag === 'string' ? diag : describe(diag || {})
  if (text) console.log(indent(text) + '\n')
}

/** The parts of a diagnostic that a reader needs, without tap's process record. */
function describe (diag) {
  const parts = []
  if (diag.at) parts.push(`at ${diag.at.fileName}:${diag.at.lineNumber}`)
  for (const key of ['signal', 'expired', 'found', 'wanted', 'doNotWant', 'diff', 'stack']) {
    if (diag[key] === undefined || diag[key] === null) continue
    if (key === 'stack' && parts.length > 1) continue
    const text = typeof diag[key] === 'string' ? diag[key] : JSON.stringify(diag[key], undefined, 1)
    parts.push(text.includes('\n') ? `${key}:\n${indent(text)}` : `${key}: ${text}`)
  }
  return parts.join('\n').slice(0, 4000)
}

function indent (text) {
  return text.trimEnd().replace(/^/gm, '    ')
}

/** Prints the last line; an error where anything failed or nothing was run. */
function finish () {
  console.log(`${total.passed} passed, ${total.failed} failed`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
}

/**
 * The test files that the command line names; undefined, said on standard error, where it names nothing that is there.
 */
function chosenFiles (args) {
  const all = testFiles()
  const isSlow = file => beginsWithOneOf(slow, file)
  if (args.length === 0) return all.filter(file => !isSlow(file))
  if (args[0] === '--rest') return all.filter(isSlow)
  if (args[0] === '--all') return all
  const chosen = args.map(name => {
    const relative = path.relative(root, path.resolve(name)).split(path.sep).join('/')
    return all.filter(file => file === relative || file.startsWith(relative + '/'))
  })
  const missing = args.filter((name, k) => chosen[k].length === 0)
  if (missing.length > 0) {
    console.error(
      `There is no test file or folder of test files called ${missing.join(', ')}. The files are test/**/*.test.ts.`
    )
    return undefined
  }
  return [...new Set(chosen.flat())]
}

function beginsWithOneOf (beginnings, file) {
  return beginnings.some(beginning => file.startsWith(beginning))
}

function testFiles () {
  return fs.readdirSync(path.join(root, 'test'), { recursive: true })
    .filter(name => name.endsWith('.test.ts') && !name.includes('node_modules'))
    .map(name => `test/${name.split(path.sep).join('/')}`)
    .sort()
}

// ---- what the tests need ---------------------------------------------------------------------------------

function buildTypeScript () {
  if (!typescript.isStale()) return true
  console.log('building dist/ (tsc)')
  return typescript.build()
}

function buildAddon () {
  const present = addon.probe()
  if (!present.problem && !addon.isStale(present.file)) return true
  console.log(`building the native addon (${present.problem || 'its sources are newer'})`)
  return addon.build() === 0
}
