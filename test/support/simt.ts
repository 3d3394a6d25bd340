// Builds and runs the C++ programs of test/simt/: kernels compiled as plain C++ with sanitizers, beside the CPU
// backend. Objects lie in out/simt under a digest of what they are made of, so that a second run compiles nothing.

import { execFile, spawnSync } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { withLock } from './lock.js'

/** What checkFamily needs of a test. */
interface Assertions {
  ok: (value: unknown, message: string) => unknown
  equal: (found: unknown, wanted: unknown, message: string) => unknown
}

const run = promisify(execFile)
export const root = path.join(__dirname, '..', '..')
export const folder = path.join(root, 'out', 'simt')
const compiler = process.env.CXX ||
  ['g++', 'c++', 'clang++'].find(name => spawnSync(name, ['--version']).status === 0) || 'c++'

/** Debugging information of lines only: kernels have dozens of instances. */
const common = ['-std=c++20', '-g1', '-Wall', '-Wextra', '-Wno-unknown-pragmas', '-Iinclude']
const sanitizers = sanitizerFlags()
const sanitized = [...common, '-O1', ...sanitizers, '-ffp-contract=off']
/** The scheduler of the layer, in programs that have sanitizers: as scheduler.cc says. */
const scheduler = [...common, '-O2', ...(sanitizers.length > 0 ? ['-DSIMT_SANITIZED'] : [])]
/**
 * The CPU backend as the reference: one instruction set, without sanitizers (it has tests of its own), with activations
 * in bfloat16 as a GPU has them.
 */
const reference = [...common, '-O2', '-DPARVIS_ISA=baseline', '-DPARVIS_BF16_EMULATED', '-ffp-contract=off']

/** The sources as CMake has them. */
const listed = JSON.parse(fs.readFileSync(path.join(root, 'cmake', 'sources.json'), 'utf8')) as
  Record<'common' | 'cpu' | 'cpu/isa' | 'test/simt', string[]> & { cuda: Record<string, string[]> }
const sourcesOf = (folder: Exclude<keyof typeof listed, 'cuda'>): string[] =>
  listed[folder].map(name => `${folder}/${name}`)
const cudaSources = (...parts: string[]): string[] =>
  parts.flatMap(part => listed.cuda[part]!.map(name => `cuda/${name}`))

/** The whole CPU backend, for tests that compare sessions. */
export const cpuBackend = [...sourcesOf('cpu'), ...sourcesOf('cpu/isa'), ...sourcesOf('common')]
/** The CUDA backend but for the tokenizer. */
export const cudaSession = cudaSources('shared', 'transformer')
/** Its tokenizer. */
export const cudaTokenizer = cudaSources('shared', 'tokenizer')

/**
 * The interpreter of PTX, for programs whose kernels nvcc has compiled (ptx.ts). What touches a kernel's memory has the
 * sanitizers, in guarded.cc; its own registers do not need them.
 */
const unguarded = ['arithmetic', 'convert', 'copies', 'decode', 'interpret', 'memory', 'module', 'warp']
  .map(name => `test/ptx/${name}.cc`)
export const interpreterSources = [...unguarded, 'test/ptx/guarded.cc']

/**
 * Sanitizers, or nothing where the compiler came without their libraries: the kernels still run. CI insists on them.
 */
function sanitizerFlags (): string[] {
  const flags = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined']
  const probe = spawnSync(compiler, [...flags, '-x', 'c++', '-', '-o', '/dev/null'],
    { input: 'int main() { return 0; }' })
  return probe.status === 0 || process.env.CI === 'true' ? flags : []
}

/** The SIMT layer itself. */
const layer = sourcesOf('test/simt')

/** Source files, relative to the repository: .cu as C++ against the SIMT layer. Path of the program. */
export async function build (name: string, sources: string[]): Promise<string> {
  const headers = headersIn(['cuda', 'test/simt', 'include/parvis', 'common', 'cpu', 'cpu/isa'])
  const interpreter = digest([headers, headersIn(['test/ptx'])])
  fs.mkdirSync(folder, { recursive: true })
  const objects = await inParallel([...sources, ...layer], async source => {
    const flags = /^(cpu|common)\//.test(source)
      ? reference
      : source === 'test/simt/scheduler.cc'
        ? scheduler
        : unguarded.includes(source)
          ? [...common, '-O2', '-ffp-contract=off']
          : sanitized
    const included = source.startsWith('test/ptx/') ? interpreter : headers
    const object = path.join(folder,
      `${source.replace(/\W/g, '-')}-${digest([compiler, ...flags, included, fs.readFileSync(path.join(root, source), 'utf8')])}.o`)
    await once(object, async () => await make(object, out => [...flags, '-x', 'c++', '-c', source, '-o', out]))
    return object
  })
  const program = path.join(folder, `${name}-${digest(objects)}`)
  await once(
    program, async () => await make(program, out => [...sanitizers, '-pthread', ...objects, '-ldl', '-o', out])
  )
  return program
}

/** Makes a file that is not there yet; other processes that need it wait. */
export async function once (file: string, work: () => Promise<void>): Promise<void> {
  await withLock(`${file}.building`, () => fs.existsSync(file), work, 900)
}

/** Of all headers that lie in folders. */
export function headersIn (directories: string[]): string {
  return digest(directories.flatMap(directory =>
    fs.readdirSync(path.join(root, directory)).filter(file => /\.(h|cuh)$/.test(file)).sort()
      .map(file => fs.readFileSync(path.join(root, directory, file), 'utf8'))))
}

/** As many at a time as there are cores; results in the order of the items. */
export async function inParallel<T, R> (
  items: readonly T[], work: (item: T, index: number) => Promise<R>
): Promise<R[]> {
  const results: R[] = []
  let next = 0
  await Promise.all(Array.from({ length: availableParallelism() }, async () => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i]!, i)
  }))
  return results
}

/** Whole files only, whoever else builds at the same time. */
export async function make (file: string, argumentsFor: (out: string) => string[], by = compiler): Promise<void> {
  const partial = `${file}.${process.pid}`
  await run(by, argumentsFor(partial), { cwd: root })
  fs.renameSync(partial, file)
}

export function digest (parts: string[]): string {
  const hash = crypto.createHash('sha256')
  for (const part of parts) hash.update(`${part.length}:`).update(part)
  return hash.digest('hex').slice(0, 16)
}

export interface Run { code: number, out: string, err: string }

export async function execute (program: string, ...args: Array<string | number>): Promise<Run> {
  return executeOn('', program, ...args)
}

/** On the machine that PARVIS_SIMT describes (test/simt/runtime.h). */
export async function executeOn (machine: string, program: string, ...args: Array<string | number>): Promise<Run> {
  return await executeWith({ PARVIS_SIMT: machine }, program, ...args)
}

/** With more in its environment. */
export async function executeWith (
  env: NodeJS.ProcessEnv, program: string, ...args: Array<string | number>
): Promise<Run> {
  try {
    const { stdout, stderr } = await run(program, args.map(String),
      { timeout: 500_000, env: { ...process.env, ...env } })
    return { code: 0, out: stdout, err: stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number | null, stdout: string, stderr: string }
    return { code: code ?? -1, out: stdout, err: stderr }
  }
}

/** The least shared memory that a block may have on any device of a release: 99 KB. */
export const smallest = 'capability=8.9'

/**
 * A program of test/simt that prints `ok CASE` or `not ok CASE ...` a line, run with three orders of fibers, each on
 * one of `orders`, and once more on each of `machines`.
 */
export async function checkFamily (
  t: Assertions, name: string, sources: string[], least: number, machines: string[] = [],
  orders: string[] = ['', '', '']
): Promise<void> {
  const program = await build(name, [`test/simt/${name}.cc`, ...sources])
  const wanted = [...orders, ...machines]
    .map((machine, i) => ({ machine, seed: i + 1, where: `order ${i + 1}${machine === '' ? '' : `, ${machine}`}` }))
  const runs = await inParallel(wanted,
    async ({ machine, seed, where }) => ({ where, ...await executeOn(machine, program, seed) }))
  for (const { where, code, out, err } of runs) {
    const lines = out.split('\n').filter(line => /^(not )?ok /.test(line))
    for (const line of lines) t.ok(line.startsWith('ok '), `${line.replace(/^(not )?ok /, '')}, ${where}`)
    t.equal(code, 0, `${where} ran to its end${code === 0 ? '' : `: ${err.slice(0, 3000)}`}`)
    t.ok(lines.length >= least, `${where}: ${lines.length} cases`)
  }
}
