// Kernels as nvcc compiles them, run by the interpreter of test/ptx on the SIMT layer: the case programs of test/simt
// with the kernels' C++ out of play. PTX lies in out/simt/ptx under a digest of what it is made of. Without nvcc there
// is none, and whoever asks says so; CI insists on it.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import {
  build, digest, executeWith, folder, headersIn, inParallel, interpreterSources, make, once, root, type Run
} from './simt.js'

export type Architecture = 80 | 90

/** What CMakeLists.txt says to nvcc, as far as it changes what a kernel computes. */
const flags = ['-ptx', '-x', 'cu', '-std=c++17', '--fmad=false', '-Iinclude', '--diag-suppress=177']

interface Nvcc { path: string, version: string }

/** Undefined where there is none. */
export const nvcc: Nvcc | undefined = [process.env.CUDACXX, 'nvcc', '/usr/local/cuda/bin/nvcc']
  .filter(name => name !== undefined).map(name => {
    try {
      return {
        path: name,
        version: execFileSync(name, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      }
    } catch {
      return undefined
    }
  }).find(found => found !== undefined)

/** For a test's `skip`. In CI a missing nvcc is a failure. */
export const withoutNvcc = nvcc === undefined && process.env.CI !== 'true'
  ? 'nvcc, which makes the PTX, is not on the PATH'
  : false

/** The PTX of sources, in their order. */
export async function ptxOf (sources: string[], architecture: Architecture): Promise<string[]> {
  if (nvcc === undefined) throw new Error('nvcc is not on the PATH')
  const compiler = nvcc
  const headers = headersIn(['cuda', 'test/simt', 'include/parvis', 'common'])
  const out = path.join(folder, 'ptx')
  fs.mkdirSync(out, { recursive: true })
  return await inParallel(sources, async source => {
    const parts = [compiler.version, ...flags, String(architecture), headers,
      fs.readFileSync(path.join(root, source), 'utf8')]
    const file = path.join(out, `${path.basename(source).replace(/\.\w+$/, '')}-${architecture}-${digest(parts)}.ptx`)
    await once(file, async () =>
      await make(file, partial => [...flags, `-arch=compute_${architecture}`, source, '-o', partial], compiler.path))
    return file
  })
}

/** A program with the interpreter in it; without PTX it runs its C++. */
export async function buildInterpreted (name: string, sources: string[]): Promise<string> {
  return await build(`ptx-${name}`, [...sources, ...interpreterSources])
}

/** On a machine that can run it: kernels overlap from capability 9.0 on, and the PTX of others has no wait in it. */
export async function interpret (program: string, ptx: string[], ...args: Array<string | number>): Promise<Run> {
  const old = ptx.some(file => /-80-\w+(-[\w-]+)?\.ptx$/.test(file))
  return await executeWith(
    { PARVIS_SIMT: old ? 'capability=8.0' : 'capability=9.0,ahead=2', PARVIS_PTX: ptx.join(':') }, program, ...args
  )
}

/** A copy of PTX with one thing changed, which must be there. */
export function changed (file: string, name: string, from: RegExp, to: string): string {
  const text = fs.readFileSync(file, 'utf8')
  const other = text.replace(from, to)
  if (other === text) throw new Error(`${file}: nothing to change for ${name}`)
  const copy = path.join(path.dirname(file), `${path.basename(file, '.ptx')}-${name}-${process.pid}.ptx`)
  fs.writeFileSync(copy, other)
  return copy
}
