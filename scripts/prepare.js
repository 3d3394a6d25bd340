'use strict'
// Runs at `npm install` in a clone and before the package is packed: lib/ -> dist/. Does nothing where dist/ is up to
// date, because the first `npx parvis` in a clone runs it again (npx links the clone into its cache).

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { newest } = require('./addon')

const root = path.join(__dirname, '..')
const dist = path.join(root, 'dist')
/** Written after a whole build; tells it from one that stopped half-way. */
const stamp = path.join(dist, '.built')

/** Compiles lib/. Returns whether it went well. */
function build () {
  const started = new Date()
  const tsc = require.resolve('typescript/bin/tsc')
  const child = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (child.status !== 0) return false
  removeLeftovers()
  fs.writeFileSync(stamp, '')
  fs.utimesSync(stamp, started, started)
  return true
}

function isStale () {
  const sources = ['lib', 'tsconfig.json', 'tsconfig.build.json'].map(name => newest(path.join(root, name)))
  return Math.max(...sources) > newest(stamp)
}

/** Removes what was compiled from files that are gone; it would be packed. */
function removeLeftovers () {
  for (const name of fs.readdirSync(dist, { recursive: true })) {
    const match = /^(.*?)(?:\.d)?\.([mc]?)[jt]s$/.exec(name)
    if (match && !fs.existsSync(path.join(root, 'lib', `${match[1]}.${match[2]}ts`))) fs.rmSync(path.join(dist, name))
  }
}

if (require.main === module) {
  process.exitCode = !isStale() || build() ? 0 : 1
}

module.exports = { build, isStale }
