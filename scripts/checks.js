'use strict'
// The native programs that check and measure the CUDA backend (test/cuda/CMakeLists.txt), and the addon beside them:
// building them for one kind of GPU, telling whether what was built elsewhere fits, and running them. Shared by
// scripts/device.js and scripts/device/carry.js. Everything is built in out/device; build/ is not touched.

const { spawn, spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')
const { newest, sources: addonSources } = require('./addon')
const { buildJobs } = require('./machine')

const root = path.join(__dirname, '..')
const folder = path.join(root, 'out', 'device')
/** Where node-gyp-build and the library look for the addon under PARVIS_PREBUILD=out/device. */
const addon = path.join(folder, 'build', 'Release', 'parvis.node')
/** What the programs and the addon in out/device were built for: { architecture, digest, date }. */
const stamp = path.join(folder, 'built.json')
/** Whatever they are compiled from. */
const sources = [...addonSources, 'test/simt', 'test/cuda', 'bench/cuda']

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

/** A digest of the sources by their text: times of copies on another machine say nothing. */
function digest () {
  const hash = crypto.createHash('sha256')
  const add = name => {
    const file = path.join(root, name)
    if (!fs.existsSync(file)) return
    if (fs.statSync(file).isDirectory()) return fs.readdirSync(file).sort().forEach(one => add(`${name}/${one}`))
    if (/\.(cc|cu|h|cuh|txt|cmake|json|map)$/.test(name)) hash.update(`${name}\n`).update(fs.readFileSync(file))
  }
  sources.forEach(add)
  return hash.digest('hex').slice(0, 24)
}

/**
 * Why what lies in out/device cannot be run for that architecture; undefined: it can, and nothing needs compiling.
 * Machine code of one architecture (`90-real`) runs on GPUs of that capability alone.
 */
function unfit (architecture) {
  if (!fs.existsSync(stamp)) return 'nothing is built in out/device'
  const built = JSON.parse(fs.readFileSync(stamp, 'utf8'))
  if (built.architecture !== architecture) return `it was built for ${built.architecture}, not for ${architecture}`
  if (built.digest !== digest()) return 'it was built from other sources'
  const missing = [program('measure'), addon].find(file => !fs.existsSync(file))
  if (missing) return `${path.relative(root, missing)} is not there`
  // With this variable the dynamic linker says what it would load, as `ldd` has it do, and runs nothing.
  const linked = spawnSync(program('measure'), [],
    { encoding: 'utf8', timeout: 60000, env: { ...process.env, LD_TRACE_LOADED_OBJECTS: '1' } })
  const broken = /.*(not found|error while loading shared libraries).*/.exec(`${linked.stdout}\n${linked.stderr}`)
  if (broken) return `it does not start here: ${broken[0].trim()}`
  touch(addon)
  return undefined
}

/**
 * Configures and builds the programs, and the addon where its headers are in node_modules. Resolves to what `run`
 * gives, of the step that failed or the last. ccache is used where it is installed; CCACHE_DIR names its folder.
 */
async function build ({ architecture, seconds, log }) {
  const started = Date.now()
  const headers = ['node-api-headers/include', 'node-addon-api'].map(name => path.join(root, 'node_modules', name))
  const withAddon = headers.every(header => fs.existsSync(header))
  const has = command => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
  const launcher = has('ccache') ? 'ccache' : ''
  fs.rmSync(stamp, { force: true })
  const configured = await run('cmake', ['-S', root, '-B', folder, ...(has('ninja') ? ['-G', 'Ninja'] : []),
    '-DCMAKE_BUILD_TYPE=Release', '-DPARVIS_CUDA=ON', '-DPARVIS_CHECKS=ON',
    `-DPARVIS_ARCHITECTURES=${architecture}-real`,
    ...['C', 'CXX', 'CUDA'].map(language => `-DCMAKE_${language}_COMPILER_LAUNCHER=${launcher}`),
    `-DCMAKE_JS_INC=${withAddon ? headers.join(';') : ''}`,
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${path.dirname(addon)}`
  ], { seconds, log })
  if (configured.problem) return configured
  // What the sources are when compiling begins: whoever changes one meanwhile has it built again.
  const text = digest()
  const built = await run('cmake', ['--build', folder, '--parallel', buildJobs()],
    { seconds: seconds - (Date.now() - started) / 1000, log })
  if (!built.problem) {
    touch(addon)
    fs.writeFileSync(stamp, JSON.stringify({ architecture, digest: text, date: new Date().toISOString() }) + '\n')
  }
  return { ...built, seconds: (Date.now() - started) / 1000, addon: withAddon }
}

/** `npm test` builds an addon again that is older than its sources, as copies on another machine may be. */
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

module.exports = { root, folder, addon, stamp, gpu, missingTools, digest, unfit, build, cases, program, run, count }
