// Where the addon is looked for, and what is said where none loads: every place, its reason, and what to type. Each
// case is a copy of the built package in which addons are missing or wrong, loaded by a process of its own.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { addonFile } from '../lib/machine/native.js'
import { built } from './support/built.js'

const root = path.join(__dirname, '..')
const good = addonFile()!.file
const here = `${process.platform}-${process.arch}`

/** A package that holds these addons: a file of this machine, a text, or nothing. Its folder. */
async function packageWith (addons: Record<string, string>, where = 'package', whole = true): Promise<string> {
  // Outside of the checkout, whose node_modules would be found.
  const project = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-addon-')))
  t.teardown(() => fs.rmSync(project, { recursive: true, force: true }))
  const place = path.join(project, where)
  fs.cpSync(await built(), path.join(place, 'dist'), { recursive: true })
  fs.copyFileSync(path.join(root, 'package.json'), path.join(place, 'package.json'))
  for (const name of ['bin', 'include']) fs.symlinkSync(path.join(root, name), path.join(place, name), 'dir')
  if (whole) {
    fs.cpSync(path.join(root, 'scripts'), path.join(place, 'scripts'), { recursive: true })
    fs.symlinkSync(path.join(root, 'models'), path.join(place, 'models'), 'dir')
    fs.copyFileSync(path.join(root, 'CMakeLists.txt'), path.join(place, 'CMakeLists.txt'))
  }
  // Where the package is installed, only what it depends on is.
  fs.mkdirSync(path.join(place, 'node_modules'))
  const { dependencies } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  for (const name of where === 'package'
    ? fs.readdirSync(path.join(root, 'node_modules'))
    : Object.keys(dependencies).map(name => name.replace(/\/.*/, ''))) {
    fs.symlinkSync(path.join(root, 'node_modules', name), path.join(place, 'node_modules', name), 'dir')
  }
  for (const [name, content] of Object.entries(addons)) {
    fs.mkdirSync(path.dirname(path.join(place, name)), { recursive: true })
    if (content === good) fs.copyFileSync(good, path.join(place, name))
    else fs.writeFileSync(path.join(place, name), content)
  }
  return place
}

interface Said { origin?: string, cores?: number, code?: string, message?: string }

/** What loading the addon of that package leads to. */
function load (place: string, env: NodeJS.ProcessEnv = {}, before = '', ...flags: string[]): Said {
  const script = `${before}
    const { addon, addonFile } = require(${JSON.stringify(path.join(place, 'dist', 'machine', 'native.js'))})
    try { const { cores } = addon().cpu(); console.log(JSON.stringify({ origin: addonFile().origin, cores })) }
    catch ({ code, message }) { console.log(JSON.stringify({ code, message })) }`
  const { stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', script],
    { encoding: 'utf8', env: { PATH: process.env.PATH, ...env } })
  return JSON.parse(stdout || JSON.stringify({ message: stderr })) as Said
}

const prebuilt = `prebuilds/${here}/parvis.glibc.node`
const cores = os.availableParallelism()

t.test('the order', async t => {
  const both = await packageWith({ 'build/Release/parvis.node': good, [prebuilt]: good })
  t.match(load(both), { origin: 'built on this machine', cores })
  t.match(load(await packageWith({ [prebuilt]: good })), { origin: 'came with the package', cores })
  t.match(load(await packageWith({ 'build/Release/parvis.node': 'of another machine', [prebuilt]: good })),
    { origin: 'came with the package', cores }, 'one that does not load is passed over')
  t.match(load(await packageWith({}), { PARVIS_NATIVE: good }), { origin: 'PARVIS_NATIVE', cores })
  t.match(load(await packageWith({}), { PARVIS_NATIVE: path.relative(process.cwd(), good) }),
    { origin: 'PARVIS_NATIVE', cores }, 'from the working folder')
})

t.test('nothing loads', async t => {
  const place = await packageWith({ 'build/Release/parvis.node': 'text '.repeat(99), [prebuilt]: '' })
  const { code, message } = load(place)
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(message, `could not load its native addon on ${here} (glibc `)
  t.match(message, new RegExp(`^  ${place}/build/Release/parvis\\.node \\(built on this machine\\): .+`, 'm'))
  t.match(message, new RegExp(`^  ${place}/prebuilds/.*parvis\\.glibc\\.node \\(came with the package\\): .+`, 'm'))
  t.match(message, /^Cure: .*for another platform.*node_modules.*node .*scripts\/install\.js --build/m)
})

t.test('nothing is there', async t => {
  const place = await packageWith({})
  t.match(load(place).message,
    new RegExp('parvis\\.node \\(built on this machine\\): there is no such file\n  .*prebuilds: this package holds ' +
      `no prebuilt addons\nCure: build it .*: node ${place}/scripts/install\\.js --build\n`))
  const other = await packageWith({
    'prebuilds/plan9-mips/parvis.node': good, 'prebuilds/linux-riscv64/parvis.glibc.node': good
  })
  t.match(load(other).message,
    new RegExp(`nothing prebuilt for ${here} .*; there is linux-riscv64 \\(glibc\\), plan9-mips\n`))
})

t.test('musl', { skip: process.platform !== 'linux' && 'Linux alone has several C libraries' }, async t => {
  const place = await packageWith({ [prebuilt]: good })
  const musl = 'process.report.getReport = () => ({ header: {} })\n'
  t.match(load(place, { LIBC: 'musl' }, musl).message,
    new RegExp(`nothing prebuilt for ${here} \\(musl\\); there is ${here} \\(glibc\\)`))
})

t.test('a C library that is too old', async t => {
  const place = await packageWith({ [prebuilt]: good })
  const old = `
    require('node:module')._extensions['.node'] = () => { throw new Error("/lib/x86_64-linux-gnu/libc.so.6: version \`GLIBC_2.34' not found (required by x)") }
    process.report.getReport = () => ({ header: { glibcVersionRuntime: '2.31' } })\n`
  t.match(load(place, {}, old).message,
    /^Cure: the addon needs glibc 2\.34 or newer, and here is glibc 2\.31\. Build it on this machine .*install\.js --build$/m)
})

t.test('PARVIS_NATIVE that does not load is not passed over', async t => {
  const place = await packageWith({ [prebuilt]: good })
  const { code, message } = load(place, { PARVIS_NATIVE: '/nowhere/parvis.node' })
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(
    message,
    /\/nowhere\/parvis\.node \(PARVIS_NATIVE\): there is no such file\nCure: set PARVIS_NATIVE to the \.node file .*, or unset it\.$/
  )
})

t.test('what builds is not installed: one command installs it and builds', async t => {
  const place = await packageWith({}, 'node_modules/parvis')
  const project = path.dirname(path.dirname(place))
  const { code, message } = load(place)
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(message, new RegExp(
    `: cd ${project} && npm install cmake-js@\\^8 node-addon-api@\\^8 && node ${place}/scripts/install\\.js --build\n`
  ))
  t.match(load(place, { npm_config_user_agent: 'pnpm/10.1.0 npm/? node/v20' }).message, '&& pnpm add cmake-js@^8 ')
  const install = (env: NodeJS.ProcessEnv): ReturnType<typeof spawnSync> => spawnSync(process.execPath,
    [path.join(place, 'scripts', 'install.js')], { encoding: 'utf8', env: { PATH: process.env.PATH, ...env } })
  const refused = install({})
  t.equal(refused.status, 1)
  t.match(refused.stderr,
    /takes packages that are not installed: cmake-js@\^8, node-addon-api@\^8\.\n.*This installs them and builds:\n  npm install parvis cmake-js@\^8 node-addon-api@\^8\n/s)
  t.match(install({ npm_package_resolved: 'file:../parvis.tgz', npm_config_user_agent: 'yarn/4.1.0' }).stderr,
    '  yarn add file:../parvis.tgz cmake-js@^8 node-addon-api@^8\n')
})

t.test('bundled, traced: the message names no file that is not there', async t => {
  const bundled = await packageWith({ 'package.json': '{"name":"app"}' })
  const { code, message } = load(bundled)
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(message,
    new RegExp(`^Cure: ${bundled} is not the folder of the package parvis.*--external:parvis.*PARVIS_NATIVE`, 'm'))
  t.notMatch(message, 'install.js')
  const nameless = await packageWith({})
  fs.rmSync(path.join(nameless, 'package.json'))
  t.match(load(nameless).message, /--external:parvis/)

  const traced = await packageWith({}, 'package', false)
  t.match(load(traced).message,
    new RegExp(`^Cure: the folder ${traced} is incomplete \\(scripts/install\\.js, CMakeLists\\.txt, ` +
      'models/fashion/tokenizer\\.safetensors: not there\\).*prebuilds.*outputFileTracingIncludes', 'm'))
  t.notMatch(load(traced).message, 'scripts/install.js --build')
  t.match(load(await packageWith({ [prebuilt]: good }, 'package', false)), { origin: 'came with the package' },
    'what is not needed may be missing')

  const script = 'require(process.argv[1]).default.generate({ classId: 7 }).catch(({ code, message }) => ' +
    'console.log(JSON.stringify({ code, message })))'
  const modelless = await packageWith({ [prebuilt]: good }, 'package', false)
  const said = JSON.parse(spawnSync(process.execPath, ['-e', script, path.join(modelless, 'dist', 'index.js')],
    { encoding: 'utf8' }).stdout) as Said
  t.match(
    said,
    {
      code: 'FILE_NOT_FOUND',
      message: /embedded model is not there \(.*tokenizer\.safetensors, .*par-16\.safetensors\).*incomplete.*models/
    }
  )
})

t.test('flags of Node', async t => {
  const place = await packageWith({ [prebuilt]: good })
  t.match(load(place, {}, '', '--no-addons'),
    { code: 'NATIVE_UNAVAILABLE', message: /Cure: Node was started with --no-addons/ })
  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? '--permission'
    : '--experimental-permission'
  // The packages are links, whose targets have to be readable too.
  const read = [place, path.join(root, 'node_modules'), path.join(root, 'bin'), path.join(root, 'include')]
    .map(folder => `--allow-fs-read=${folder}/*`)
  t.match(load(place, {}, '', permission, ...read),
    { code: 'NATIVE_UNAVAILABLE', message: /Cure: .*--allow-addons and --allow-fs-read=/ })
  t.match(load(place, {}, '', permission, '--allow-addons', ...read), { origin: 'came with the package', cores },
    'with these it loads, though /etc must not be looked at')
  const { message } = load(place, { PARVIS_NATIVE: '/nowhere/parvis.node' }, '', permission, '--allow-addons', ...read)
  t.match(message, /\/nowhere\/parvis\.node \(PARVIS_NATIVE\)/)

  const script = `const { Par } = require(${JSON.stringify(path.join(place, 'dist', 'index.js'))})
    const codes = []
    const note = work => work.then(() => codes.push('no error'), error => codes.push([error.code, error.name]))
    Par.load({ threads: 1 }).then(async par => {
      await note(par.generate({ classId: 7, seed: 1 }))
      await note(par.encode('/etc/hostname'))
      await note(Par.load({ transformer: '/etc/hostname' }))
      console.log(JSON.stringify(codes))
    })`
  const { stdout, stderr } = spawnSync(process.execPath, [permission, '--allow-addons', ...read, '-e', script],
    { encoding: 'utf8' })
  t.same(JSON.parse(stdout || JSON.stringify(stderr)),
    ['no error', ['FILE_NOT_FOUND', 'ParError'], ['FILE_NOT_FOUND', 'ParError']],
    'a denied read is a file that cannot be read')
})
