// Single operations of the CPU backend, run by an addon of their own (test/operations-addon/), which this builds beside
// the addon of the package where its sources have changed. Both are linked with the same libraries.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import type { Draw } from '../../lib/decoding/sampling.js'
import type { Precision } from '../../lib/machine/native.js'
import { withLock } from './lock.js'

/** How a draw goes. */
export interface DrawRule { guidanceScale: number, temperature: number, topK: number, topP: number, draw?: Draw }

/** test/operations-addon/operation.h says what goes in and what comes out. `eps`: of its norm. */
export type Operation = { precision: Precision, eps: number } & (
  | {
    kind: 'projection', rows: number, inputs: number, outputs: number, normed: boolean
    epilogue: 'store' | 'add' | 'swiglu'
  }
  | {
    kind: 'attention', streams: number, rows: number, sees: number, dim: number, heads: number, kvHeads: number
    headSize: number, grid: number
  }
  | { kind: 'draw', draws: number, vocabularySize: number, guided: boolean, rule: DrawRule }
  | {
    kind: 'convolution', images: number, height: number, width: number, channels: number, outputs: number
    kernel: 1 | 3, groups: number, swish: boolean, residual: boolean, resample: 'none' | 'down' | 'up'
  }
  | {
    kind: 'spatialAttention', images: number, height: number, width: number, channels: number, groups: number
  })

export interface OperationsAddon {
  /** @throws what the addon of the package rejects with: an Error with `parvisCode` */
  run (operation: Operation, inputs: readonly Float32Array[], threads: number): Float32Array
}

const root = path.join(__dirname, '..', '..')
const { isStale, newest } = require(path.join(root, 'scripts', 'addon.js')) as {
  isStale: (file: string) => boolean
  newest: (place: string) => number
}
const file = path.join(root, 'build', 'test-addon', 'parvis_operations.node')

export async function operationsAddon (): Promise<OperationsAddon> {
  const out = path.join(root, 'out')
  fs.mkdirSync(out, { recursive: true })
  await withLock(path.join(out, 'building-operations'), isBuilt, build, 1500)
  return require(file) as OperationsAddon
}

function isBuilt (): boolean {
  if (!fs.existsSync(file) || isStale(file)) return false
  return newest(path.join(root, 'test', 'operations-addon')) <= fs.statSync(file).mtimeMs
}

async function build (): Promise<void> {
  await cmakeJs('configure', '--CDPARVIS_TEST_ADDON=ON')
  const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL || '2'
  await cmakeJs('build', '--target', 'parvis_operations', '--parallel', jobs)
  fs.utimesSync(file, new Date(), new Date()) // also where nothing had to be built
}

async function cmakeJs (...args: string[]): Promise<void> {
  const cli = require.resolve('cmake-js/bin/cmake-js')
  const options = { cwd: root, env: { ...process.env, NODE_OPTIONS: '' }, maxBuffer: 64 << 20 }
  try {
    await promisify(execFile)(process.execPath, [cli, ...args, '--directory', root, '--log-level', 'warn'], options)
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string, stderr: string }
    throw new Error(`cmake-js ${args[0]} failed:\n${`${stdout}\n${stderr}`.slice(-8000)}`)
  }
}
