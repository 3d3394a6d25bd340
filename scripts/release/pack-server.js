'use strict'
// The tarball of parvis-server, a part of `npm run release:pack`.

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

/** The server, which depends on this version of the library, and no more on the folder beside it. */
function packServer (out) {
  const source = path.join(root, 'server')
  const folder = path.join(out, 'server')
  const [{ files }] = JSON.parse(npm(['pack', '--dry-run', '--json', '--ignore-scripts'], source))
  fs.rmSync(folder, { recursive: true, force: true })
  for (const { path: name } of files) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
    fs.copyFileSync(path.join(source, name), path.join(folder, name))
  }
  const read = file => JSON.parse(fs.readFileSync(file, 'utf8'))
  const manifest = read(path.join(folder, 'package.json'))
  manifest.dependencies.parvis = `^${read(path.join(root, 'package.json')).version}`
  delete manifest.devDependencies
  delete manifest.scripts
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest, null, 2) + '\n')
  const [{ filename, size }] = JSON.parse(
    npm(['pack', '--json', '--ignore-scripts', '--pack-destination', out], folder)
  )
  fs.renameSync(path.join(out, filename), path.join(out, 'parvis-server.tgz'))
  console.log(`release: out/release/parvis-server.tgz, ${(size / 1e6).toFixed(2)} MB packed`)
}

function npm (args, cwd) {
  return execFileSync('npm', args, { cwd, encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'inherit'] })
}

module.exports = { npm, packServer }
