'use strict'
// npm run release:pack: the tarballs as they would be published, in out/release/: parvis.tgz, with a prebuilt addon for
// each platform that has one, and parvis-server.tgz. It needs what a release needs: nvcc, and Debian's
// g++-aarch64-linux-gnu and g++-mingw-w64-x86-64-posix for the other platforms.
//
//   --only win32-x64      one platform (for tries; such a tarball is not to be published)
//
// Addons are built from a copy of what the tarball holds, so a source that the list of files forgets is missed here and
// not by somebody who installs. Copies keep their times: a second run compiles only what has changed.

const fs = require('node:fs')
const path = require('node:path')
const { promisify } = require('node:util')
const prebuildify = promisify(require('prebuildify'))
const { npm, packServer } = require('./pack-server')

const root = path.join(__dirname, '..', '..')
const out = path.join(root, 'out', 'release')
const platforms = [
  { platform: 'linux', arch: 'x64', stripBin: 'strip' },
  { platform: 'linux', arch: 'arm64', stripBin: 'aarch64-linux-gnu-strip' },
  { platform: 'win32', arch: 'x64', stripBin: 'x86_64-w64-mingw32-strip' }
]
const nameOf = ({ platform, arch }) => `${platform}-${arch}`

main().catch(error => {
  console.error(`release: ${error.message}`)
  process.exitCode = 1
})

async function main () {
  const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : undefined
  const wanted = platforms.filter(one => only === undefined || nameOf(one) === only)
  if (wanted.length === 0) throw new Error(`--only ${only}: one of ${platforms.map(nameOf).join(', ')}`)
  const files = packed()
  const folder = path.join(out, 'package')
  fs.rmSync(folder, { recursive: true, force: true })
  copy(files, folder)
  for (const { platform, arch, stripBin } of wanted) {
    const build = path.join(out, nameOf({ platform, arch }))
    copy(files, build)
    modules(build)
    // stripped by an earlier run: link again
    fs.rmSync(path.join(build, 'build', 'Release'), { recursive: true, force: true })
    const started = Date.now()
    await prebuildify({
      cwd: build,
      out: folder,
      platform,
      arch,
      targets: [{ runtime: 'node', target: process.versions.node }],
      napi: true,
      tagLibc: platform === 'linux', // Alpine's musl is another platform: there, built from source
      libc: 'glibc',
      strip: true,
      stripBin,
      nodeGyp: path.join(__dirname, 'node-gyp.js')
    })
    const made = path.join(folder, 'prebuilds', nameOf({ platform, arch }))
    const [name] = fs.readdirSync(made)
    const { size } = fs.statSync(path.join(made, name))
    console.log(`release: ${path.relative(folder, made)}/${name}, ${(size / 1e6).toFixed(1)} MB, ` +
      `in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  }
  const [{ filename, size, unpackedSize }] = JSON.parse(
    npm(['pack', '--json', '--ignore-scripts', '--pack-destination', out], folder)
  )
  fs.renameSync(path.join(out, filename), path.join(out, 'parvis.tgz'))
  console.log(`release: out/release/parvis.tgz, ${(size / 1e6).toFixed(1)} MB ` +
    `packed, ${(unpackedSize / 1e6).toFixed(1)} MB unpacked`)
  packServer(out)
}

/** What the tarball holds, prebuilt addons aside. */
function packed () {
  const { build, isStale } = require('../prepare')
  if (isStale() && !build()) throw new Error('dist/ could not be built')
  const [{ files }] = JSON.parse(npm(['pack', '--dry-run', '--json', '--ignore-scripts'], root))
  return files.map(file => file.path).filter(name => !name.startsWith('prebuilds/'))
}

/** Makes `to` hold these files of the package, and nothing else but what a build left there. */
function copy (files, to) {
  const sources = new Set(files)
  for (const entry of fs.existsSync(to) ? fs.readdirSync(to, { recursive: true, withFileTypes: true }) : []) {
    const name = path.relative(to, path.join(entry.parentPath, entry.name))
    if (entry.isFile() && !/^(build|node_modules)\//.test(name) && !sources.has(name)) fs.rmSync(path.join(to, name))
  }
  for (const name of files) {
    const [from, target] = [path.join(root, name), path.join(to, name)]
    const { mtime, mode } = fs.statSync(from)
    if (fs.existsSync(target) && fs.statSync(target).mtimeMs === mtime.getTime()) continue
    fs.mkdirSync(path.dirname(target), { recursive: true })
    fs.copyFileSync(from, target)
    fs.chmodSync(target, mode)
    fs.utimesSync(target, mtime, mtime)
  }
}

/** The headers that a build needs. */
function modules (folder) {
  const link = path.join(folder, 'node_modules')
  if (!fs.existsSync(link)) fs.symlinkSync(path.join(root, 'node_modules'), link, 'dir')
}
