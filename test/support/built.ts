// The built package (dist/) for tests that must see what users get: entry points, plain processes. `npm test` builds
// it beforehand; under a bare `npx tap` the first test that needs it builds it, where sources are newer.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { withLock } from './lock.js'

export const root = path.join(__dirname, '..', '..')
const script = path.join(root, 'scripts', 'prepare.js')
const { isStale } = require(script) as { isStale: () => boolean }

/** Path of dist/, up to date. */
export async function built (): Promise<string> {
  const out = path.join(root, 'out')
  fs.mkdirSync(out, { recursive: true })
  await withLock(path.join(out, 'building'), () => !isStale(), build, 240)
  return path.join(root, 'dist')
}

async function build (): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [script], { cwd: root, env: { ...process.env, NODE_OPTIONS: '' } })
  } catch (error) {
    throw new Error(`dist/ could not be built:\n${(error as { stdout: string }).stdout}`, { cause: error })
  }
}
