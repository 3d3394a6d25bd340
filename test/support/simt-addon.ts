// The whole addon with its CUDA backend on the SIMT layer (test/simt/): the public API with `device: 'cuda'` on any
// machine. It lies in out/simt-addon[-sanitized] and is built where its sources have changed; child processes load it
// by `env`. PARVIS_SIMT in that environment describes the machine they see (test/simt/runtime.h).

import { execFile, execFileSync } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { withLock } from './lock.js'

const root = path.join(__dirname, '..', '..')
const compiler = process.env.CXX || 'g++'

export interface SimtAddon {
  /** For PARVIS_PREBUILD: a folder with build/Release/parvis.node. */
  prebuild: string
  /** The environment of child processes. */
  env: NodeJS.ProcessEnv
  /** Whether it has sanitizers: not where the compiler came without their libraries. CI insists on them. */
  sanitized: boolean
}

export async function simtAddon ({ sanitize }: { sanitize: boolean }): Promise<SimtAddon> {
  const libraries = sanitize ? sanitizerLibraries() : []
  const sanitized = libraries.length > 0
  const prebuild = path.join(root, 'out', sanitized ? 'simt-addon-sanitized' : 'simt-addon')
  await buildIn(prebuild, sanitized)
  const env: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '', PARVIS_PREBUILD: prebuild }
  delete env.PARVIS_SIMT
  env.PARVIS_SELF_CHECK = '0' // a minute there
  if (sanitized) {
    env.LD_PRELOAD = libraries.join(':') // Node itself has none, and they must come first
    env.ASAN_OPTIONS = 'detect_leaks=0' // Node leaves its memory to the system
    env.UBSAN_OPTIONS = 'print_stacktrace=1'
  }
  return { prebuild, env, sanitized }
}

function sanitizerLibraries (): string[] {
  const libraries = ['libasan.so', 'libubsan.so']
    .map(name => execFileSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' }).trim())
  if (libraries.every(file => path.isAbsolute(file))) return libraries
  if (process.env.CI === 'true') throw new Error(`${compiler} has no libasan.so and libubsan.so`)
  return []
}

async function buildIn (prebuild: string, sanitized: boolean): Promise<void> {
  const stamp = path.join(prebuild, 'built')
  const wanted = digest()
  fs.mkdirSync(prebuild, { recursive: true })
  const upToDate = () => fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted
  await withLock(path.join(prebuild, 'building'), upToDate, async () => {
    const cli = require.resolve('cmake-js/bin/cmake-js')
    const place = ['--directory', root, '--out', path.join(prebuild, 'build'), '--log-level', 'warn']
    const settings = ['--CDPARVIS_CUDA=SIMT', '--CDPARVIS_ARCHITECTURES=dev',
      `--CDPARVIS_SANITIZE=${sanitized ? 'ON' : 'OFF'}`, `--CDCMAKE_CXX_COMPILER=${compiler}`]
    const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL || '2'
    await cmakeJs(cli, ['configure', ...settings, ...place])
    await cmakeJs(cli, ['build', '--parallel', jobs, ...settings, ...place])
    fs.writeFileSync(stamp, wanted)
  }, 1500)
}

async function cmakeJs (cli: string, args: string[]): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [cli, ...args],
      { cwd: root, env: { ...process.env, ...cached(), NODE_OPTIONS: '' }, maxBuffer: 64 << 20 })
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string, stderr: string }
    throw new Error(`cmake-js ${args[0]} failed:\n${`${stdout}\n${stderr}`.slice(-8000)}`)
  }
}

/** Continuous integration has compiled the CPU part before, with a compiler cache. */
function cached (): NodeJS.ProcessEnv {
  const cache = process.env.PARVIS_CI_CCACHE
  if (cache === undefined) return {}
  return {
    CCACHE_DIR: cache, CCACHE_BASEDIR: root, CCACHE_NOHASHDIR: '1', CMAKE_C_COMPILER_LAUNCHER: 'ccache',
    CMAKE_CXX_COMPILER_LAUNCHER: 'ccache'
  }
}

/** Of everything that the addon is made of. */
function digest (): string {
  const hash = crypto.createHash('sha256').update(compiler)
  const add = (name: string): void => {
    const file = path.join(root, name)
    const stat = fs.statSync(file)
    if (stat.isDirectory()) for (const child of fs.readdirSync(file).sort()) add(path.join(name, child))
    else if (/\.(h|cuh|cu|cc|cmake|txt|json)$/.test(name)) {
      hash.update(`${name}:${stat.size}:`).update(fs.readFileSync(file))
    }
  }
  // Of the layer only itself, not the programs beside it.
  for (const name of ['CMakeLists.txt', 'cmake', 'binding', 'include', 'common', 'cpu', 'cuda', ...layer()]) add(name)
  return hash.digest('hex')
}

function layer (): string[] {
  return ['fiber.h', 'machine.h', 'ptx.h', 'simt.h', 'state.h', 'runtime.h', 'machine.cc', 'memory.cc', 'runtime.cc',
    'scheduler.cc', 'streams.cc'].map(name => `test/simt/${name}`)
}
