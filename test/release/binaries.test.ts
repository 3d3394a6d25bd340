// What is in the tarball: prebuilt addons that need nothing but an old C library, everything for a build from source,
// nothing that users have no use for, and a size.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { missing, root, run, tarball, unpack } from './tarball.js'

const readelf = (file: string, ...args: string[]): string =>
  execFileSync('readelf', ['--wide', ...args, file], { encoding: 'utf8', maxBuffer: 1 << 26 })
const older = (a: string, b: string): number => a.localeCompare(b, 'en', { numeric: true })

t.test('prebuilt addons', { skip: missing }, async t => {
  const folder = unpack()
  const platforms = fs.readdirSync(path.join(folder, 'prebuilds')).sort()
  t.same(platforms, ['linux-arm64', 'linux-x64', 'win32-x64'])
  t.same(fs.readdirSync(path.join(folder, 'prebuilds', 'win32-x64')), ['parvis.node'], 'windows.test.ts looks at it')
  for (const platform of platforms.filter(name => name.startsWith('linux'))) {
    t.same(fs.readdirSync(path.join(folder, 'prebuilds', platform)), ['parvis.glibc.node'],
      `${platform}: one, and not for musl`)
    const file = path.join(folder, 'prebuilds', platform, 'parvis.glibc.node')
    t.match(readelf(file, '-h'), platform === 'linux-x64' ? /X86-64/ : /AArch64/)
    const symbols = readelf(file, '--dyn-syms')
    const versions = [...new Set([...symbols.matchAll(/@GLIBC_([\d.]+)/g)].map(match => match[1]!))].sort(older)
    t.ok(older(versions.at(-1)!, '2.34') <= 0, `${platform}: newest glibc symbol ${versions.at(-1)}`)
    t.notMatch(symbols, /GLIBCXX|CXXABI|GCC_/)
    const needed = [...readelf(file, '-d').matchAll(/NEEDED.*\[(.*)\]/g)].map(match => match[1]!)
    t.same(needed.filter(name => !/^(libc|libm|libpthread|libdl|librt)\.so|^ld-linux/.test(name)), [],
      `${platform}: needs ${needed.join(', ')}`)
    const shown = symbols.split('\n').filter(line => /(GLOBAL|WEAK|UNIQUE)/.test(line) && !/\bUND\b/.test(line))
      .map(line => line.trim().split(/\s+/).at(-1)!)
    t.same(shown.sort(), ['napi_register_module_v1', 'node_api_module_get_api_version_v1'],
      `${platform}: shows two symbols`)
    t.notMatch(readelf(file, '-S'), /\.symtab|\.debug/, `${platform}: stripped`)
  }
})

t.test('CUDA in the one for x64', { skip: missing }, async t => {
  const folder = unpack()
  const { stdout } = run(process.execPath, ['-e', `
    const native = require(${JSON.stringify(path.join(folder, 'prebuilds', 'linux-x64', 'parvis.glibc.node'))})
    native.cuda().then(({ compiled, architectures }) => console.log(JSON.stringify({ compiled, architectures, build: native.build })))`],
  { cwd: folder, env: {} })
  const commit = execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim()
  t.match(JSON.parse(stdout),
    {
      compiled: true, architectures: '80 86 89 90 100 120 120+PTX',
      build: { commit: process.env.PARVIS_RELEASE === undefined ? String : commit, cuda: /^1[2-9]\./ }
    })
})

t.test('the size', { skip: missing }, async t => {
  const folder = unpack()
  const models = fs.readdirSync(path.join(folder, 'models', 'fashion'))
    .reduce((sum, name) => sum + fs.statSync(path.join(folder, 'models', 'fashion', name)).size, 0)
  const { size } = fs.statSync(tarball)
  const addons = fs.readdirSync(path.join(folder, 'prebuilds')).map(platform => {
    const [name] = fs.readdirSync(path.join(folder, 'prebuilds', platform))
    return `${platform} ${(fs.statSync(path.join(folder, 'prebuilds', platform, name!)).size / 1e6).toFixed(1)} MB`
  })
  t.comment(`${(size / 1e6).toFixed(1)} MB packed, of that models of ${(models / 1e6).toFixed(1)} MB; addons ` +
    `unpacked: ${addons.join(', ')}`)
  t.ok(size - models < 40e6, `${size} bytes packed, less than 40 MB without the models`)
})

t.test('types and exports', { skip: missing }, async t => {
  for (const [name, bin, ...args] of [
    ['publint', 'publint/src/cli.js', 'run', tarball, '--strict'],
    ['are the types wrong', '@arethetypeswrong/cli/dist/index.js', tarball]
  ]) {
    const { status, stdout, stderr } = run(process.execPath, [path.join(root, 'node_modules', bin!), ...args],
      { cwd: root, env: { PATH: process.env.PATH } })
    t.equal(status, 0, `${name}: ${stdout.slice(0, 2000)}${stderr.slice(0, 2000)}`)
  }
})

t.test('licences of what is bundled', { skip: missing }, async t => {
  const folder = unpack()
  for (const name of ['LICENSE', 'LICENSES.md']) t.ok(fs.existsSync(path.join(folder, name)), name)
  const text = fs.readFileSync(path.join(folder, 'LICENSES.md'), 'utf8')
  for (const part of ['libstdc++', 'libgcc', 'CUDA runtime', 'node-addon-api', 'Fashion-MNIST']) t.match(text, part)
})
