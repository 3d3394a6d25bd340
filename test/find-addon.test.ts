// Where the addon is looked for, and what is said where none loads: every place, its reason, and what to type. Each case is
// a copy of the built package in which addons are missing or wrong, loaded by a process of its own.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { addonFile } from '../lib/native.js'
import { built } from './support/built.js'

const root = path.join(__dirname, '..')
const good = addonFile()!.file
const here = `${process.platform}-${process.arch}`

/** A package that holds these addons: a file of this machine, a text, or nothing. Its folder. */
async function packageWith (addons: Record<string, string>): Promise<string> {
  const folder = t.testdir()
  const place = fs.mkdtempSync(path.join(folder, 'package-'))
  fs.cpSync(await built(), path.join(place, 'dist'), { recursive: true })
  fs.copyFileSync(path.join(root, 'package.json'), path.join(place, 'package.json'))
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(place, 'node_modules'), 'dir')
  fs.mkdirSync(path.join(place, 'models'), { recursive: true })
  for (const [name, content] of Object.entries(addons)) {
    fs.mkdirSync(path.dirname(path.join(place, name)), { recursive: true })
    if (content === good) fs.copyFileSync(good, path.join(place, name))
    else fs.writeFileSync(path.join(place, name), content)
  }
  return place
}

interface Said { origin?: string, cores?: number, code?: string, message?: string }

/** What loading the addon of that package leads to. */
function load (place: string, env: NodeJS.ProcessEnv = {}, before = ''): Said {
  const script = `${before}
    const { addon, addonFile } = require(${JSON.stringify(path.join(place, 'dist', 'native.js'))})
    try { const { cores } = addon().cpu(); console.log(JSON.stringify({ origin: addonFile().origin, cores })) }
    catch ({ code, message }) { console.log(JSON.stringify({ code, message })) }`
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', env: { PATH: process.env.PATH, ...env } })
  return JSON.parse(stdout || JSON.stringify({ message: stderr })) as Said
}

const prebuilt = `prebuilds/${here}/parvis.glibc.node`
const cores = os.availableParallelism()

t.test('the order', async t => {
  const both = await packageWith({ 'build/Release/parvis.node': good, [prebuilt]: good })
  t.match(load(both), { origin: 'built on this machine', cores })
  t.match(load(await packageWith({ [prebuilt]: good })), { origin: 'came with the package', cores })
  t.match(load(await packageWith({ 'build/Release/parvis.node': 'of another machine', [prebuilt]: good })), { origin: 'came with the package', cores }, 'one that does not load is passed over')
  t.match(load(await packageWith({}), { PARVIS_NATIVE: good }), { origin: 'PARVIS_NATIVE', cores })
  t.match(load(await packageWith({}), { PARVIS_NATIVE: path.relative(process.cwd(), good) }), { origin: 'PARVIS_NATIVE', cores }, 'from the working folder')
})

t.test('nothing loads', async t => {
  const place = await packageWith({ 'build/Release/parvis.node': 'text '.repeat(99), [prebuilt]: '' })
  const { code, message } = load(place)
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(message, `could not load its native addon on ${here} (glibc `)
  t.match(message, new RegExp(`^  ${place}/build/Release/parvis\\.node \\(built on this machine\\): .+`, 'm'))
  t.match(message, new RegExp(`^  ${place}/prebuilds/.*parvis\\.glibc\\.node \\(came with the package\\): .+`, 'm'))
  t.match(message, /^Cure: .*for another platform.*node_modules.*node scripts\/install\.js --build/m)
})

t.test('nothing is there', async t => {
  const place = await packageWith({})
  t.match(load(place).message, new RegExp(`parvis\\.node \\(built on this machine\\): there is no such file\n  .*prebuilds: this package holds no prebuilt addons\nCure: build it .*: cd ${place} && node scripts/install\\.js --build\n`))
  const other = await packageWith({ 'prebuilds/plan9-mips/parvis.node': good, 'prebuilds/linux-riscv64/parvis.glibc.node': good })
  t.match(load(other).message, new RegExp(`nothing prebuilt for ${here} .*; there is linux-riscv64 \\(glibc\\), plan9-mips\n`))
})

t.test('musl', { skip: process.platform !== 'linux' && 'Linux alone has several C libraries' }, async t => {
  const place = await packageWith({ [prebuilt]: good })
  const musl = "process.report.getReport = () => ({ header: {} })\n"
  t.match(load(place, { LIBC: 'musl' }, musl).message, new RegExp(`nothing prebuilt for ${here} \\(musl\\); there is ${here} \\(glibc\\)`))
})

t.test('a C library that is too old', async t => {
  const place = await packageWith({ [prebuilt]: good })
  const old = `
    require('node:module')._extensions['.node'] = () => { throw new Error("/lib/x86_64-linux-gnu/libc.so.6: version \`GLIBC_2.34' not found (required by x)") }
    process.report.getReport = () => ({ header: { glibcVersionRuntime: '2.31' } })\n`
  t.match(load(place, {}, old).message, /^Cure: the addon needs glibc 2\.34 or newer, and here is glibc 2\.31\. Build it on this machine .*install\.js --build$/m)
})

t.test('PARVIS_NATIVE that does not load is not passed over', async t => {
  const place = await packageWith({ [prebuilt]: good })
  const { code, message } = load(place, { PARVIS_NATIVE: '/nowhere/parvis.node' })
  t.equal(code, 'NATIVE_UNAVAILABLE')
  t.match(message, /\/nowhere\/parvis\.node \(PARVIS_NATIVE\): there is no such file\nCure: set PARVIS_NATIVE to the \.node file .*, or unset it\.$/)
})
