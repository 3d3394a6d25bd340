// The built package (dist/) for tests that must see what users get: entry points, plain processes. `npm test` builds
// it beforehand; under a bare `npx tap` the first test that needs it builds it, where sources are newer.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'

export const root = path.join(__dirname, '..', '..')
const entry = path.join(root, 'dist', 'index.js')
/** A folder that exists while one process builds; others wait. Older than two minutes: left by one that was killed. */
const lock = path.join(root, 'out', 'building')

/** Path of dist/, up to date. */
export async function built (): Promise<string> {
  while (stale()) {
    if (!take()) {
      await new Promise(resolve => setTimeout(resolve, 200))
      continue
    }
    try {
      const tsc = require.resolve('typescript/bin/tsc')
      await promisify(execFile)(process.execPath, [tsc, '-p', path.join(root, 'tsconfig.build.json')], { cwd: root, env: { ...process.env, NODE_OPTIONS: '' } })
    } finally {
      fs.rmdirSync(lock)
    }
  }
  return path.dirname(entry)
}

function stale (): boolean {
  if (fs.existsSync(lock) || !fs.existsSync(entry)) return true
  const names = fs.readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  const newest = Math.max(...names.map(name => fs.statSync(path.join(root, 'lib', name)).mtimeMs))
  return fs.statSync(entry).mtimeMs < newest
}

function take (): boolean {
  fs.mkdirSync(path.dirname(lock), { recursive: true })
  try {
    fs.mkdirSync(lock)
    return true
  } catch {
    const age = Date.now() - (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
    if (age > 120_000) fs.rmdirSync(lock)
    return false
  }
}
