#!/usr/bin/env node
'use strict'
// What prebuildify takes for node-gyp. prebuildify only ever spawns node-gyp (`rebuild --target=...`); this project is
// built by CMake, so its arguments are dropped and the folder that it runs in is built. PREBUILD_PLATFORM and
// PREBUILD_ARCH say for whom.

const { spawnSync } = require('node:child_process')
const path = require('node:path')
const { buildJobs } = require('../machine')

const root = path.join(__dirname, '..', '..')
const crossed = name =>
  ['--CDPARVIS_CUDA=OFF', `--CDCMAKE_TOOLCHAIN_FILE=${path.join(root, 'cmake', `${name}.cmake`)}`]
const target = `${process.env.PREBUILD_PLATFORM}-${process.env.PREBUILD_ARCH}`
const options = {
  'linux-x64': ['--CDPARVIS_CUDA=ON', '--CDPARVIS_ARCHITECTURES=release'],
  'linux-arm64': crossed('linux-arm64'),
  // Where CMake has a DLL, cmake-js looks for a library.
  'win32-x64': [...crossed('windows-x64'),
    `--CDCMAKE_RUNTIME_OUTPUT_DIRECTORY=${path.join(process.cwd(), 'build', 'Release')}`]
}[target]
if (!options) {
  console.error(`release: no prebuilt addon is made for ${target}`)
  process.exit(1)
}

const cli = require.resolve('cmake-js/bin/cmake-js')
const commit = spawnSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: root, encoding: 'utf8' }).stdout?.trim() ??
  ''
const common = ['--directory', process.cwd(), '--log-level', 'warn']
const jobs = buildJobs()
for (const args of [['configure', '--CDPARVIS_PORTABLE=ON', `--CDPARVIS_COMMIT=${commit}`, ...options],
  ['build', '--parallel', jobs]]) {
  const { status } = spawnSync(process.execPath, [cli, ...args, ...common], { stdio: 'inherit' })
  if (status !== 0) process.exit(status || 1)
}
