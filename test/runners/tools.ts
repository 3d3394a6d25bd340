// Tools of other people, in versions that test/runners/package-lock.json holds, and a package as users get it. They are
// not among the dependencies of the project, because they are large: half a minute and hundreds of megabytes.

import { spawnSync, type SpawnSyncReturns } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { addonFile } from '../../lib/machine/native.js'
import { built, root } from '../support/built.js'

const folder = path.join(root, 'out', 'runners')

/** Where they are installed, kept between runs while the lock file stays the same. */
export function tools (): string {
  const lock = fs.readFileSync(path.join(__dirname, 'package-lock.json'), 'utf8')
  const stamp = path.join(folder, 'installed')
  if (!fs.existsSync(stamp) || fs.readFileSync(stamp, 'utf8') !== lock) {
    fs.mkdirSync(folder, { recursive: true })
    for (const name of ['package.json', 'package-lock.json']) {
      fs.copyFileSync(path.join(__dirname, name), path.join(folder, name))
    }
    // No scripts: what is needed of them comes prebuilt.
    const { status, stderr } = spawnSync('npm',
      ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: folder, encoding: 'utf8' })
    if (status !== 0) throw new Error(`npm ci in ${folder} failed: ${stderr}`)
    fs.writeFileSync(stamp, lock)
  }
  return path.join(folder, 'node_modules')
}

/**
 * Makes `project` a project that has parvis in node_modules, as the tarball holds it, with the addon of this checkout.
 */
export async function install (project: string): Promise<string> {
  await built()
  const place = path.join(project, 'node_modules', 'parvis')
  const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'],
    { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 })
  const [{ files }] = JSON.parse(stdout) as [{ files: Array<{ path: string }> }]
  for (const { path: name } of files) {
    fs.mkdirSync(path.dirname(path.join(place, name)), { recursive: true })
    fs.copyFileSync(path.join(root, name), path.join(place, name))
  }
  fs.rmSync(path.join(place, 'prebuilds'), { recursive: true, force: true })
  fs.mkdirSync(path.join(place, 'prebuilds', `${process.platform}-${process.arch}`), { recursive: true })
  fs.copyFileSync(addonFile()!.file, path.join(place, 'prebuilds', `${process.platform}-${process.arch}`,
    process.platform === 'linux' ? 'parvis.glibc.node' : 'parvis.node'))
  // Beside it everything that it depends on, directly or not, as npm lays it out.
  for (const name of dependencies()) {
    fs.cpSync(path.join(root, name), path.join(project, name), { recursive: true })
  }
  return place
}

interface Locked { dependencies?: Record<string, string>, optionalDependencies?: Record<string, string> }

/** Folders of what the package depends on, directly or not: nothing that only the server in this checkout needs. */
function dependencies (): Set<string> {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>
  }
  const found = new Set<string>()
  const follow = (folder: string): void => {
    const { dependencies = {}, optionalDependencies = {} } = packages[folder]!
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      // As Node.js looks for it: in the folder itself, then in those around it.
      let place: string | undefined
      for (let at = folder; place === undefined; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
        const candidate = path.posix.join(at, 'node_modules', name)
        if (packages[candidate]) place = candidate
        else if (at === '') break
      }
      if (place === undefined || found.has(place) || !fs.existsSync(path.join(root, place))) continue
      found.add(place)
      follow(place)
    }
  }
  follow('')
  return found
}

/** A program in a project. */
export function run (
  command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = {}
): SpawnSyncReturns<string> {
  return spawnSync(command, args,
    {
      cwd, encoding: 'utf8', timeout: 240_000, maxBuffer: 1 << 26,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, NO_COLOR: '1', ...env }
    })
}
