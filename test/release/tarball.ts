// The tarball that `npm run release:pack` made. It takes nvcc and minutes, so the tests of it do not make it:
// continuous integration does before them. Elsewhere they are skipped, and say so.

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { execFileSync, spawnSync, type SpawnSyncReturns } from 'node:child_process'

export const root = path.join(__dirname, '..', '..')
export const tarball = path.join(root, 'out', 'release', 'parvis.tgz')

/** Why the tests cannot run here; false where they can, and where PARVIS_RELEASE says that they have to. */
export const missing: string | false = process.env.PARVIS_RELEASE === undefined &&
  (fs.existsSync(tarball) ? staleness() : 'there is no out/release/parvis.tgz; npm run release:pack makes it')

function staleness (): string | false {
  const made = fs.statSync(tarball).mtimeMs
  const newest = (place: string): number => Math.max(...fs.readdirSync(place, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile()).map(entry => fs.statSync(path.join(entry.parentPath, entry.name)).mtimeMs))
  const places = ['lib', 'binding', 'common', 'cpu', 'cuda', 'include']
    .filter(name => newest(path.join(root, name)) > made)
  return places.length > 0 &&
    `out/release/parvis.tgz is older than ${places.join(', ')}; npm run release:pack makes it anew`
}

const folders: string[] = []
process.on('exit', () => { for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true }) })

/** Goes with the process. */
export function temporary (): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-release-'))
  folders.push(folder)
  return folder
}

/** The tarball unpacked: its folder `package`. */
export function unpack (): string {
  const folder = temporary()
  execFileSync('tar', ['xzf', tarball, '-C', folder])
  return path.join(folder, 'package')
}

/** A command in an environment of these variables alone; its output in case it fails. */
export function run (
  command: string, args: string[], options: { cwd: string, env: NodeJS.ProcessEnv, timeout?: number }
): SpawnSyncReturns<string> {
  return spawnSync(command, args,
    { encoding: 'utf8', maxBuffer: 1 << 26, timeout: options.timeout ?? 180000, ...options })
}

/** How this machine reaches its registry, and nothing else of the environment. */
export const network: NodeJS.ProcessEnv = Object.fromEntries(Object.entries(process.env)
  .filter(([name]) => /^(https?_proxy|no_proxy|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE)$/i.test(name)))
