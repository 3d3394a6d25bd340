'use strict'
// Finds and builds the native addon. Shared by the install script and the test script, which differ only in
// when they build. The addon is tried in a child process: one built for another machine may crash the process
// that loads it, and a Windows process that has loaded it cannot overwrite it.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { buildJobs } = require('./machine')

const root = path.join(__dirname, '..')
/** CMake 3.21 is what CMakeLists.txt asks for. */
const cmakeNeeded = [3, 21]

/** Where the addon is and whether it loads: { file?, backends?, problem? }. */
function probe () {
  let file
  try {
    file = require('node-gyp-build').resolve(root)
  } catch {
    return { problem: 'no native addon for this platform' }
  }
  const script = 'const a = require(process.argv[1]); process.stdout.write(JSON.stringify(a.backends || []))'
  const child = spawnSync(process.execPath, ['-e', script, file], { encoding: 'utf8', timeout: 60000 })
  if (child.status !== 0) {
    const line = (child.stderr || '').split(/\r?\n/).find(text => /Error/.test(text))
    return { file, problem: `${file} does not load (${line || child.signal || child.error || 'exit ' + child.status})` }
  }
  return { file, backends: JSON.parse(child.stdout) }
}

/** 'ON', 'OFF' or 'AUTO', from PARVIS_CUDA; undefined for a value that means nothing. */
function cudaOption (value = process.env.PARVIS_CUDA || 'auto') {
  const known = { on: 'ON', 1: 'ON', true: 'ON', off: 'OFF', 0: 'OFF', false: 'OFF', auto: 'AUTO' }
  return Object.hasOwn(known, value.toLowerCase()) ? known[value.toLowerCase()] : undefined
}

/** Everything the build lacks on this machine, each as { what, debian, mac, windows? }. */
function missingTools () {
  const missing = []
  const version = /version (\d+)\.(\d+)/.exec(output('cmake', ['--version']))
  if (!version) {
    missing.push({
      what: `CMake ${cmakeNeeded.join('.')} or newer`,
      debian: 'cmake',
      mac: 'brew install cmake',
      windows: 'winget install Kitware.CMake'
    })
  } else if (version[1] - cmakeNeeded[0] < 0 || (+version[1] === cmakeNeeded[0] && +version[2] < cmakeNeeded[1])) {
    missing.push({
      what: `CMake ${cmakeNeeded.join('.')} or newer (found ${version[1]}.${version[2]})`,
      debian: 'cmake',
      mac: 'brew install cmake',
      windows: 'winget install Kitware.CMake'
    })
  }
  if (process.platform === 'win32') return missing // cmake-js looks for Visual Studio and says what it found
  const candidates = process.env.CXX ? [process.env.CXX.split(' ')[0]] : ['c++', 'g++', 'clang++']
  const found = candidates.filter(name => output(name, ['--version']) !== '')
  if (found.length === 0) {
    missing.push({
      what: `a C++20 compiler (looked for ${candidates.join(', ')})`, debian: 'g++', mac: 'xcode-select --install'
    })
  } else {
    const source = '#include <bit>\n#include <span>\n#include <atomic>\nint main() { return std::popcount(0u); }\n'
    const child = spawnSync(found[0], ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'],
      { input: source, encoding: 'utf8' })
    if (child.status !== 0) {
      missing.push({
        what: `a C++20 compiler (${output(found[0], ['--version']).split('\n')[0]} does not compile a C++20 program)`,
        debian: 'g++',
        mac: 'xcode-select --install'
      })
    }
  }
  if (output('ninja', ['--version']) === '' && output('make', ['--version']) === '') {
    missing.push({ what: 'make or ninja', debian: 'make', mac: 'xcode-select --install' })
  }
  return missing
}

// ---- the packages that build

/**
 * Optional peers of the package, because only a build from source needs them (node-api-headers comes with cmake-js).
 */
const builders = { 'cmake-js': 'cmake-js/bin/cmake-js', 'node-addon-api': 'node-addon-api' }

/** Those of them that are not installed, with their ranges. */
function missingBuilders () {
  const { peerDependencies } = require('../package.json')
  return Object.keys(builders).filter(name => {
    try {
      require.resolve(builders[name])
      return false
    } catch {
      return true
    }
  }).map(name => `${name}@${peerDependencies[name].replace(/\.0\.0$/, '')}`)
}

/** What to type so that the addon is built here: one line, that also installs what it takes. */
function buildCommand () {
  const [folder] = root.split(/[\\/]node_modules[\\/]/)
  const missing = missingBuilders()
  const build = `node ${quoted(path.join(root, 'scripts', 'install.js'))} --build`
  if (missing.length === 0) return build
  // cd of Windows stays on its drive; pushd goes to another, in both shells.
  return `${process.platform === 'win32' ? 'pushd' : 'cd'} ${quoted(folder)} && ${addCommand()} ${missing.join(' ')} ` +
    `&& ${build}`
}

/** A path as the shell takes it: in quotes where it has blanks, say. */
function quoted (file, platform = process.platform) {
  if (platform === 'win32') return /[^\w.:\\-]/.test(file) ? `"${file}"` : file
  return /[^\w@%+=:,./-]/.test(file) ? `'${file.replaceAll("'", "'\\''")}'` : file
}

/** How the package manager that runs (where none does: npm) adds packages. */
function addCommand () {
  const manager = /^(pnpm|yarn|bun)\//.exec(process.env.npm_config_user_agent || '')
  return manager ? `${manager[1]} add` : 'npm install'
}

/** How this package was named where it is being installed: a file, or the package of the registry. */
function ownName () {
  const from = process.env.npm_package_resolved || ''
  return from.startsWith('file:') ? from : 'parvis'
}

/** Configures and builds into build/. Returns the exit status; prints what is missing when tools are. */
function build () {
  const packages = missingBuilders()
  const missing = missingTools()
  if (packages.length > 0) {
    console.error('parvis: there is no prebuilt addon for this machine, and building one takes packages that are ' +
      `not installed: ${packages.join(', ')}.`)
    if (missing.length > 0) console.error(`Also missing: ${missing.map(({ what }) => what).join(', ')}.`)
    console.error('This installs them and builds:')
    console.error(`  ${addCommand()} ${ownName()} ${packages.join(' ')}`)
    return 1
  }
  if (missing.length > 0) {
    console.error('parvis: the native addon cannot be built here. Missing:')
    for (const { what } of missing) console.error(`  - ${what}`)
    console.error('Install what is missing, then run npm install again:')
    console.error(
      `  Debian, Ubuntu:  sudo apt-get install -y ${[...new Set(missing.map(tool => tool.debian))].join(' ')}`
    )
    console.error(`  macOS:           ${[...new Set(missing.map(tool => tool.mac))].join(' && ')}`)
    const windows = [...new Set(missing.flatMap(tool => tool.windows ?? []))]
    if (windows.length > 0) console.error(`  Windows:         ${windows.join(' && ')}`)
    return 1
  }
  const cuda = cudaOption()
  if (!cuda) {
    console.error(`parvis: PARVIS_CUDA=${process.env.PARVIS_CUDA} is not one of on, off, auto`)
    return 1
  }
  const jobs = buildJobs()
  // `cmake-js build` configures only once; configuring each time makes a changed PARVIS_CUDA count. Where it is not
  // set, an earlier choice in build/ stands.
  const keep = !process.env.PARVIS_CUDA && fs.existsSync(path.join(root, 'build', 'CMakeCache.txt'))
  const status = cmakeJs(['configure', ...(keep ? [] : [`--CDPARVIS_CUDA=${cuda}`])]) ||
    cmakeJs(['build', '--parallel', jobs])
  if (status !== 0) {
    console.error(`parvis: building the native addon failed (CUDA ${cuda}); the reason is above.`)
    console.error(`  Start over:      remove ${path.join(root, 'build')}, then npm install`)
    if (cuda !== 'OFF') console.error('  Without CUDA:    npm install, with PARVIS_CUDA=off in the environment')
  }
  if (status === 0) touch()
  return status
}

/** A build that had nothing to do leaves an addon that is older than its sources. */
function touch () {
  try {
    fs.utimesSync(require('node-gyp-build').resolve(root), new Date(), new Date())
  } catch {} // no addon: the caller looks for it
}

/** What the addon is made of. */
const sources = ['CMakeLists.txt', 'binding', 'include', 'common', 'cpu', 'cuda', 'cmake']

/** Whether a native source is newer than the addon. */
function isStale (file) {
  const built = fs.statSync(file).mtimeMs
  return sources.some(name => newest(path.join(root, name)) > built)
}

/** Newest modification time of the files under a path, in milliseconds; 0 where there are none. */
function newest (place) {
  let stat
  try {
    stat = fs.statSync(place)
  } catch {
    return 0
  }
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...fs.readdirSync(place).map(name => newest(path.join(place, name))))
}

// ---- child processes -------------------------------------------------------------------------------------

function cmakeJs (args) {
  const cli = require.resolve('cmake-js/bin/cmake-js')
  const child = spawnSync(process.execPath, [cli, ...args, '--log-level', 'warn', '--directory', root],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  return child.status === null ? 1 : child.status
}

/** Standard output of a command; '' where it is missing or fails. */
function output (command, args) {
  const child = spawnSync(command, args, { encoding: 'utf8' })
  return child.status === 0 ? child.stdout || ' ' : ''
}

module.exports = { root, sources, probe, build, buildCommand, quoted, isStale, newest, cudaOption }
