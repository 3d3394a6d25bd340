// The tarball in an empty folder: four package managers, with and without install scripts, on a machine that has Node
// and a shell and neither compiler nor CMake nor nvcc; loaded by require, by import and in a worker thread. Its
// pictures are the checkout's, byte by byte.

import t from 'tap'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import par from '../../lib/index.js'
import { missing, network, root, run, tarball, temporary } from './tarball.js'

t.setTimeout(1_200_000) // builds and installations, on machines of any speed

const managers: Array<{ name: string, install: (scripts: boolean) => string[], cli: string }> = [
  {
    name: 'npm', cli: '',
    install: scripts => ['install', '--no-audit', '--no-fund',
      ...scripts ? ['--foreground-scripts', '--ignore-scripts=false'] : ['--ignore-scripts']]
  },
  { name: 'pnpm', cli: 'pnpm/bin/pnpm.cjs', install: scripts => ['install', ...scripts ? [] : ['--ignore-scripts']] },
  {
    name: 'yarn classic', cli: 'yarn/bin/yarn.js',
    install: scripts => ['install', '--non-interactive', ...scripts ? [] : ['--ignore-scripts']]
  },
  {
    name: 'yarn berry', cli: '@yarnpkg/cli-dist/bin/yarn.js',
    install: scripts => ['install', ...scripts ? [] : ['--mode=skip-build']]
  }
]

const use = {
  'use.cjs': `
    const { default: par } = require('parvis')
    const { createHash } = require('node:crypto')
    par.generate({ classId: 7, n: 4, seed: 5 }).then(async image => {
      await image.toFile('require.png')
      console.log(JSON.stringify({ pixels: createHash('sha256').update(image.bytes()).digest('hex'), tokens: Array.from(image.tokens) }))
    })`,
  'use.mjs': `
    import par from 'parvis'
    import { createHash } from 'node:crypto'
    const image = await par.generate({ classId: 7, n: 4, seed: 5 })
    await image.toFile('import.png')
    console.log(JSON.stringify({ pixels: createHash('sha256').update(image.bytes()).digest('hex'), tokens: Array.from(image.tokens) }))`,
  'worker.cjs': `
    const { Worker, isMainThread } = require('node:worker_threads')
    if (isMainThread) new Worker(__filename)
    else require('./use.cjs')`
}

t.test('installs and generates', { skip: missing }, async t => {
  t.setTimeout(900000)
  const image = await par.generate({ classId: 7, n: 4, seed: 5 })
  const wanted = { pixels: createHash('sha256').update(image.bytes()).digest('hex'), tokens: Array.from(image.tokens) }
  const home = temporary()
  const npm = npmCli()
  const nodeOnly = bin(['node'])
  const withShell = bin(['node', 'sh']) // what runs scripts
  for (const { name, cli, install } of managers) {
    for (const scripts of [true, false]) {
      const what = `${name}, scripts ${scripts ? 'on' : 'off'}`
      const folder = temporary()
      const manifest: Record<string, unknown> = {
        name: 'user', version: '1.0.0', private: true, dependencies: { parvis: `file:${tarball}` }
      }
      // These two run the scripts of listed packages only.
      if (name === 'pnpm' && scripts) manifest.pnpm = { onlyBuiltDependencies: ['parvis'] }
      if (name === 'yarn berry') {
        manifest.dependenciesMeta = { parvis: { built: scripts } }
        fs.writeFileSync(path.join(folder, '.yarnrc.yml'),
          'nodeLinker: node-modules\nenableTelemetry: false\nenableImmutableInstalls: false\nenableGlobalCache: ' +
            `true\n${process.env.NODE_EXTRA_CA_CERTS ? `httpsCaFilePath: ${process.env.NODE_EXTRA_CA_CERTS}\n` : ''}`)
        fs.writeFileSync(path.join(folder, 'yarn.lock'), '')
      }
      fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest))
      for (const [file, source] of Object.entries(use)) fs.writeFileSync(path.join(folder, file), source)
      const env = {
        ...network, HOME: home, PATH: scripts ? withShell : nodeOnly,
        npm_config_cafile: process.env.NODE_EXTRA_CA_CERTS, npm_config_update_notifier: 'false',
        COREPACK_ENABLE_STRICT: '0'
      }
      const installed = run(process.execPath,
        [cli === '' ? npm : path.join(root, 'node_modules', cli), ...install(scripts)], { cwd: folder, env })
      t.equal(installed.status, 0,
        `${what}: installs${installed.status === 0 ? '' : `: ${installed.stdout.slice(-3000)}${installed.stderr.slice(-3000)}`}`)
      const ran = /parvis: using the native addon .*prebuilds/.test(installed.stdout + installed.stderr)
      if (name === 'npm') {
        t.equal(ran, scripts, `${what}: ${scripts ? 'the script finds the prebuilt addon' : 'no script'}`)
      }
      t.notMatch(installed.stdout + installed.stderr, 'building the native addon')
      const place = fs.realpathSync(path.join(folder, 'node_modules', 'parvis'))
      t.notOk(fs.existsSync(path.join(place, 'build')), `${what}: nothing was built`)
      for (const file of Object.keys(use)) {
        const { status, stdout, stderr } = run(process.execPath, [file], { cwd: folder, env: { PATH: nodeOnly } })
        t.equal(status, 0, `${what}: ${file}${stderr && `: ${stderr.slice(0, 2000)}`}`)
        t.same(JSON.parse(stdout || '{}'), wanted, `${what}: ${file}: the checkout's picture`)
      }
      t.same(fs.readFileSync(path.join(folder, 'require.png')), fs.readFileSync(path.join(folder, 'import.png')))
      fs.rmSync(folder, { recursive: true, force: true })
    }
  }
})

t.test('the command line of an installed package', { skip: missing }, async t => {
  t.setTimeout(300000)
  const folder = temporary()
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 'user', version: '1.0.0', private: true }))
  const env = { ...network, HOME: temporary(), PATH: bin(['node']), npm_config_cafile: process.env.NODE_EXTRA_CA_CERTS }
  const installed = run(process.execPath, [npmCli(), 'install', '--ignore-scripts', '--no-audit', '--no-fund', tarball],
    { cwd: folder, env })
  t.equal(installed.status, 0, installed.stderr)
  const parvis = (...args: string[]): ReturnType<typeof run> =>
    run(process.execPath, [path.join(folder, 'node_modules', 'parvis', 'bin', 'parvis.js'), ...args],
      { cwd: folder, env: { PATH: bin(['node']) } })
  t.match(parvis('doctor').stdout, /addon .*prebuilds\/linux-x64\/parvis\.glibc\.node \(came with the package\)/)
  const made = parvis('generate', '--class', '7', '-o', 'boot.png')
  t.equal(made.status, 0, made.stderr)
  t.same([...fs.readFileSync(path.join(folder, 'boot.png')).subarray(1, 4)], [...Buffer.from('PNG')])
})

/** A folder with these programs of this machine, for a PATH. */
function bin (names: string[]): string {
  const folder = temporary()
  for (const name of names) fs.symlinkSync(name === 'node' ? process.execPath : '/bin/sh', path.join(folder, name))
  return folder
}

/** The program that belongs to this Node. */
function npmCli (): string {
  const found = (process.env.PATH ??
    '').split(path.delimiter).map(folder => path.join(folder, 'npm')).find(file => fs.existsSync(file))
  return fs.realpathSync(found!)
}
