// The built package (dist/) for tests that must see what users get: entry points, plain workers. `npm test` builds it
// beforehand; under a bare `npx tap` it is built here, once, where sources are newer.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'

export const root = path.join(__dirname, '..', '..')

/** Path of dist/, up to date. */
export async function built (): Promise<string> {
  const dist = path.join(root, 'dist')
  const entry = path.join(dist, 'index.js')
  const newest = Math.max(...fs.readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' })
    .map(name => fs.statSync(path.join(root, 'lib', name)).mtimeMs))
  if (!fs.existsSync(entry) || fs.statSync(entry).mtimeMs < newest) {
    await promisify(execFile)(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', path.join(root, 'tsconfig.build.json')], { cwd: root, env: { ...process.env, NODE_OPTIONS: '' } })
  }
  return dist
}
