'use strict'
// The native programs that check and measure the CUDA backend (test/cuda/CMakeLists.txt): building them for the GPU at
// hand and running them. Shared by `npm run test:cuda` and scripts/device.js.

const { spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { newest, sources: addonSources } = require('./addon')
const { buildJobs } = require('./machine')

const root = path.join(__dirname, '..')
const folder = path.join(root, 'out', 'device')

/** The first GPU as nvidia-smi tells it: { name, driver, architecture: '90' }; undefined where there is none. */
function gpu () {
  const child = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version,compute_cap', '--format=csv,noheader'],
    { encoding: 'utf8', timeout: 60000 })
  const [name, driver, capability] = (child.stdout || '').split('\n')[0].split(',').map(text => text.trim())
  return child.status === 0 && capability ? { name, driver, architecture: capability.replace('.', '') } : undefined
}

/** What the build lacks here, in words. */
function missingTools () {
  const has = command => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
  return [
    !has('cmake') && 'cmake (3.21 or newer)',
    !has('nvcc') && !fs.existsSync('/usr/local/cuda/bin/nvcc') && 'nvcc (CUDA toolkit 12 or newer)',
    !has('ninja') && !has('make') && 'ninja or make',
    !has('c++') && !has('g++') && !has('clang++') && 'a C++ compiler'
  ].filter(Boolean)
}

/**
 * Configures and builds the programs, and the addon into build/Release where its headers are in node_modules.
 * Resolves to what `run` gives, of the step that failed or the last.
 */
async function build ({ architecture, seconds, log, addon = true }) {
  const started = Date.now()
  const headers = ['node-api-headers/include', 'node-addon-api'].map(name => path.join(root, 'node_modules', name))
  const withAddon = addon && headers.every(header => fs.existsSync(header))
  const ninja = spawnSync('ninja', ['--version']).status === 0
  const configured = await run('cmake', ['-S', root, '-B', folder, ...(ninja ? ['-G', 'Ninja'] : []),
    '-DCMAKE_BUILD_TYPE=Release', '-DPARVIS_CUDA=ON', '-DPARVIS_CHECKS=ON',
    `-DPARVIS_ARCHITECTURES=${architecture}-real`,
    ...(withAddon
      ? [`-DCMAKE_JS_INC=${headers.join(';')}`,
        `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${path.join(root, 'build', 'Release')}`]
      : ['-DCMAKE_JS_INC='])
  ], { seconds, log })
  if (configured.problem) return configured
  const jobs = buildJobs()
  const built = await run('cmake', ['--build', folder, '--parallel', jobs],
    { seconds: seconds - (Date.now() - started) / 1000, log })
  if (withAddon && !built.problem) touch(path.join(root, 'build', 'Release', 'parvis.node'))
  return { ...built, addon: withAddon }
}

/**
 * A build that had nothing to do leaves an addon that is older than its sources, and so does a clock behind that of the
 * machine they came from; `npm test` would build it again.
 */
function touch (file) {
  const time = new Date(
    Math.max(Date.now(), 1000 + Math.max(...addonSources.map(name => newest(path.join(root, name)))))
  )
  if (fs.existsSync(file)) fs.utimesSync(file, time, time)
}

/** Names of the case programs. */
const cases = () => fs.readFileSync(path.join(folder, 'checks.txt'), 'utf8').split('\n').filter(Boolean)
const program = name => path.join(folder, 'checks', name)

/** Of a command's output the log keeps so much. */
const logged = 256 << 10

/**
 * Runs a command in a process group of its own, ended as a whole when its time is over. Resolves then, too, where
 * something of it cannot be ended or has left the group and still holds its output: a measurement must not wait for
 * that. Resolves to { code, out, err, seconds, problem? }; both outputs also go to `log`.
 */
function run (command, args, { seconds = 600, log, env, prefix } = {}) {
  return new Promise(resolve => {
    const started = Date.now()
    const child = spawn(command, args,
      { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    const result = { code: -1, out: '', err: '' }
    const end = () => { try { if (child.pid) process.kill(-child.pid, 'SIGKILL') } catch {} }
    let [late, settled, patience] = [false, false]
    const timer = setTimeout(() => {
      late = true
      end()
      patience = setTimeout(() => { finish(null, 'SIGKILL') }, 3000)
    }, Math.max(seconds, 1) * 1000)
    process.once('exit', end)
    child.stdout.setEncoding('utf8').on('data', text => { result.out += text })
    child.stderr.setEncoding('utf8').on('data', text => { result.err += text })
    const done = problem => {
      if (settled) return
      settled = true
      clearTimeout(timer)
      clearTimeout(patience)
      process.off('exit', end)
      child.stdout.destroy()
      child.stderr.destroy()
      child.unref()
      result.seconds = (Date.now() - started) / 1000
      if (problem) result.problem = problem
      if (log) {
        fs.appendFileSync(log,
          `\n$ ${[prefix, command, ...args].filter(Boolean).join(' ')}\n${result.out.slice(-logged)}${result.err.slice(-logged)}[${problem || 'done'}, ${result.seconds.toFixed(1)} s]\n`)
      }
      resolve(result)
    }
    const finish = (code, signal) => {
      result.code = code === null ? -1 : code
      done(
        late
          ? `ran out of time after ${Math.round(seconds)} s`
          : signal
            ? `was ended by ${signal}`
            : code !== 0
              ? `exited with ${code}`
              : undefined
      )
    }
    child.on('error', error => done(error.message))
    child.on('exit', (code, signal) => { patience = patience || setTimeout(() => { finish(code, signal) }, 3000) })
    child.on('close', finish)
  })
}

/** The `ok ...` and `not ok ...` lines of a program; one that broke off has a failure more. */
function count ({ out, problem }) {
  const lines = out.split('\n').filter(line => /^(not )?ok /.test(line))
  const failures = lines.filter(line => line.startsWith('not ok ')).map(line => line.slice(7))
  if (problem && failures.length === 0) failures.push(problem)
  if (!problem && lines.length === 0) failures.push('made no check')
  return { passed: lines.filter(line => line.startsWith('ok ')).length, failures, skipped: out.split('\n')
    .filter(line => line.startsWith('skipped ')).map(line => line.slice(8)) }
}

module.exports = { root, folder, gpu, missingTools, build, cases, program, run, count }
