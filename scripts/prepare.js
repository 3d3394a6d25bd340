'use strict'
// Runs at `npm install` in a clone and before the package is packed: lib/ -> dist/, and server/lib/ -> server/dist/. It
// does nothing where these are up to date, because the first `npx parvis` in a clone runs it again (npx links the clone
// into its cache).

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { newest } = require('./addon')

const root = path.join(__dirname, '..')

/**
 * In the order in which they are compiled: the server reads the types of the library. What is packed has no server, and
 * where its own dependencies were not installed (`npm install --workspaces=false`) it is left out.
 */
const projects = [{ folder: root, config: 'tsconfig.build.json' }]
const server = path.join(root, 'server')
if (fs.existsSync(path.join(server, 'lib')) && fs.existsSync(path.join(root, 'node_modules', 'parvis-server'))) {
  projects.push({ folder: server, config: 'tsconfig.json' })
}

/** Written after a whole build; tells it from one that stopped half-way. */
const stampOf = ({ folder }) => path.join(folder, 'dist', '.built')

/** Compiles what is stale. Returns whether it went well. */
function build () {
  return projects.every(project => {
    const started = new Date()
    const { folder, config } = project
    const tsc = require.resolve('typescript/bin/tsc')
    const child = spawnSync(process.execPath, [tsc, '-p', config],
      { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] })
    if (child.status !== 0) return false
    removeLeftovers(folder)
    const stamp = stampOf(project)
    fs.writeFileSync(stamp, '')
    fs.utimesSync(stamp, started, started)
    return true
  })
}

function isStale () {
  const shared = newest(path.join(root, 'tsconfig.json'))
  return projects.some(project => {
    const sources = ['lib', project.config].map(name => newest(path.join(project.folder, name)))
    return Math.max(shared, ...sources) > newest(stampOf(project))
  })
}

/** Removes what was compiled from files that are gone; it would be packed. */
function removeLeftovers (folder) {
  const dist = path.join(folder, 'dist')
  for (const name of fs.readdirSync(dist, { recursive: true })) {
    const match = /^(.*?)(?:\.d)?\.([mc]?)[jt]s$/.exec(name)
    if (match && !fs.existsSync(path.join(folder, 'lib', `${match[1]}.${match[2]}ts`))) fs.rmSync(path.join(dist, name))
  }
}

if (require.main === module) {
  process.exitCode = !isStale() || build() ? 0 : 1
}

module.exports = { build, isStale }
