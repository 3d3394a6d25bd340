// parvis doctor: what this machine computes on, and why not on a GPU. Addon and NVIDIA driver are asked in a child
// process: either may end the process that loads it, and a driver may never answer. The child says what it has found
// line by line, so that what came before a crash is known; the decision is made here, by the lines that `auto` takes.

import { execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Command } from 'commander'
import { chooseFrom, cpuAfterAll, cureOf, versionText, type Choice, type Facts } from '../machine/device.js'
import { selfCheck, type Verdict } from '../api/self-check.js'
import { ParError } from '../base/errors.js'
import { findFfmpeg } from '../pictures/ffmpeg.js'
import { addon, addonFile, type Addon, type CudaDevice, type CudaProbe } from '../machine/native.js'
import type { Attempt } from '../machine/find-addon.js'
import { visible } from '../base/text.js'
import { integer } from './arguments.js'
import { bytesText, paint, print, printJson, table, type CommonFlags } from './terminal.js'

const { version } = require('../../package.json') as { version: string }

interface Flags extends CommonFlags { timeout: number }

/** Timers go no further than 2^31 - 1 milliseconds. */
const maxSeconds = 2147483

/** Variables that decide what is found, shown where they are set. */
const variables = ['PARVIS_NATIVE', 'PARVIS_PREBUILD', 'PARVIS_ISA', 'PARVIS_MEMORY_CHECK', 'PARVIS_FFMPEG',
  'PARVIS_SELF_CHECK', 'PARVIS_GRAPHS', 'PARVIS_OVERLAP', 'PARVIS_TUNING', 'CUDA_VISIBLE_DEVICES',
  'CUDA_DEVICE_ORDER', 'LD_LIBRARY_PATH', 'LD_PRELOAD']

export function doctorCommand (signal: AbortSignal): Command {
  return new Command('doctor')
    .description(
      'Show which device is used, and why: addon, CPU, NVIDIA driver, GPUs. If no GPU is used, say what to do.'
    )
    .option('--timeout <seconds>', 'how long addon and NVIDIA driver may take to answer', integer(1, maxSeconds), 30)
    .action(async (flags: Flags) => {
      const [answer, sharp, ffmpeg] = await Promise.all([
        ask(flags.timeout, signal), askSharp(flags.timeout, signal), findFfmpeg()
      ])
      const report = judge({ ...answer, sharp, ffmpeg })
      if (flags.json) await printJson(asJson(report))
      else await print(asText(report))
      if (report.broken) throw report.broken
    })
}

// ---- the child

/** What the child says, as far as it came. */
interface Findings {
  file?: string
  origin?: Attempt['origin']
  /** The addon loads, and its CPU backend starts. */
  cpu?: Facts['cpu']
  backends?: string[]
  cuda?: CudaProbe
  memory: Record<number, { free: number, total: number } | { problem: string }>
  /** What a picture on each GPU shows of its results. */
  checks: Record<number, Verdict>
  /** It was stopped by an error. */
  error?: { code: string, message: string }
}

type Line = Partial<Findings>

/** Runs in the child; a JSON object a line on standard output, out before the next thing is tried. */
export async function examine (
  say = (line: Line): void => { fs.writeSync(1, JSON.stringify(line) + '\n') }, gpus = true
): Promise<void> {
  try {
    say({ ...addonFile() }) // before it is loaded, which may be the end
    const native: Addon = addon()
    say({ ...addonFile() })
    await native.createEngine({ device: 'cpu', threads: 1 }).dispose()
    say({ cpu: native.cpu(), backends: native.backends })
    if (!gpus) return
    const cuda = await native.cuda()
    say({ cuda })
    for (const { index, problem } of cuda.devices) {
      if (problem !== undefined) continue
      const memory = await native.cudaMemory(index).catch((error: Error) => ({ problem: error.message }))
      say({ memory: { [index]: memory } })
      const verdict = 'problem' in memory ? undefined : await selfCheck(`cuda:${index}`)
      if (verdict) say({ checks: { [index]: verdict } })
    }
  } catch (error) {
    say({ error: { code: (error as ParError).code ?? 'INTERNAL', message: (error as Error).message } })
  }
}

interface Answer extends Findings {
  /** How the child ended, where not in order: 'was ended by SIGSEGV'. */
  end?: string
  /** What it had said on standard error. */
  noise: string
  /** No process may be started, so this one has looked, and has left GPUs alone: a driver may end it. */
  confined?: boolean
  /** The library that reads and writes picture files: its version, or why it does not load. */
  sharp?: Sharp
  /** The program that writes and reads video files, and what says where it is. */
  ffmpeg?: { file: string, from: string }
}

type Sharp = { version: string } | { problem: string }

/** In a process of its own, too: it brings native libraries. Undefined where none may be started. */
async function askSharp (seconds: number, signal: AbortSignal): Promise<Sharp | undefined> {
  if (!mayStartProcesses()) return undefined
  const script = "process.stdout.write(require('sharp').versions.sharp)"
  return await new Promise((resolve, reject) => {
    execFile(process.execPath, ['-e',
      script], { cwd: __dirname, timeout: seconds * 1000, killSignal: 'SIGKILL', signal }, (error, stdout, stderr) => {
      if (signal.aborted) return reject(signal.reason)
      resolve(
        error
          ? { problem: sharpProblem(stderr, error.killed, error.signal ?? undefined) }
          : { version: visible(stdout) }
      )
    })
  })
}

/** ' (Bun 1.4.5)' where it is not Node.js that runs this. */
function otherRuntime (): string {
  const { bun, deno } = process.versions
  return bun !== undefined ? ` (Bun ${bun})` : deno !== undefined ? ` (Deno ${deno})` : ''
}

/** sharp says reason and cures on several lines, between Node's own; of those the first ones. */
function sharpProblem (stderr: string, late: boolean | undefined, by: string | undefined): string {
  const lines = stderr.split('\n').map(line => line.trim())
  const first = lines.findIndex(line => /^(\w*Error|Could not load)\b/.test(line))
  const last = lines.findIndex((line, i) => i > first && /^(at |Require stack|Node\.js v|\{)/.test(line))
  const said = first < 0 ? [] : lines.slice(first, last < 0 ? undefined : last).filter(line => line !== '')
  if (said.length > 0) return visible(said.join(' ').replace(/^Error: /, ''), 1000)
  return late ? 'it gave no answer in time' : by ? `a process that loads it was ended by ${by}` : 'it does not load'
}

/** Node's permission model forbids child processes unless it is told otherwise. */
function mayStartProcesses (): boolean {
  return (process as { permission?: { has: (scope: string) => boolean } }).permission?.has('child') ?? true
}

async function askHere (): Promise<Answer> {
  const answer: Answer = { memory: {}, checks: {}, noise: '', confined: true }
  await examine(line => { Object.assign(answer, line) }, false)
  return answer
}

async function ask (seconds: number, signal: AbortSignal): Promise<Answer> {
  if (!mayStartProcesses()) return await askHere()
  const script = `require(${JSON.stringify(__filename)}).examine()`
  const child = spawn(process.execPath, ['-e', script],
    { stdio: ['ignore', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL' })
  let [out, noise] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { noise += text })
  const end = await new Promise<string | undefined>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      // a process that is stuck in a driver outlives SIGKILL
      for (const held of [child.stdout, child.stderr]) held.destroy()
      child.unref()
      resolve(`gave no answer for ${seconds} s`)
    }, seconds * 1000)
    child.on('error', error => { clearTimeout(timer); reject(signal.aborted ? signal.reason : error) })
    child.on('close', (code, by) => {
      clearTimeout(timer)
      resolve(by ? `was ended by ${by}` : code !== 0 ? `ended with exit code ${code}` : undefined)
    })
  })
  const answer: Answer = { memory: {}, checks: {}, end, noise: noise.trim() }
  for (const text of out.split('\n').slice(0, -1)) { // the last one is whole or empty
    const { memory, checks, ...line } = JSON.parse(text) as Line
    Object.assign(answer, line)
    Object.assign(answer.memory, memory)
    Object.assign(answer.checks, checks)
  }
  return answer
}

// ---- the judgement

interface Report {
  answer: Answer
  /** What `auto` chooses; undefined where it would end as the child did. */
  choice: Choice | undefined
  /** What stopped the child at CUDA. */
  cudaFault: string | undefined
  /** Nothing computes here. */
  broken: ParError | undefined
  next: string[]
}

function judge (answer: Answer): Report {
  const { cpu, cuda, memory, checks, end, error, file, noise } = answer
  if (!cpu) {
    const broken = error
      ? new ParError(error.code as ParError['code'], error.message)
      : new ParError('NATIVE_UNAVAILABLE',
        `${file ?? 'The native addon'} cannot be used: a process that loads ` +
          `it ${end ?? 'ends early'}${noise && `, saying: ${noise.split(/\r?\n/)[0]}`}.\n` +
        `Cure: build it on this machine: cd ${path.join(__dirname, '..', '..')} && node scripts/install.js --build`)
    return { answer, choice: undefined, cudaFault: undefined, broken, next: [] }
  }
  if (answer.confined) {
    return {
      answer,
      choice: undefined,
      cudaFault: "Node's permission model forbids the process that would ask for GPUs",
      broken: undefined,
      next: ['Start node with --allow-child-process too: GPUs and sharp are looked at in processes of their own, ' +
        'which they may end']
    }
  }
  const fault = error?.message ?? (end &&
    `a process that ${cuda ? 'takes a GPU' : 'asks for GPUs'} ${end}${noise && `, saying: ${noise.split(/\r?\n/)[0]}`}`)
  if (!cuda || fault) {
    return {
      answer,
      choice: undefined,
      cudaFault: fault ?? 'the addon does not say',
      broken: undefined,
      next: [
        "The CPU works: --device cpu, or device: 'cpu'. Without it every call may end in this way",
        '`nvidia-smi` shows whether the NVIDIA driver works; where it does not, restart the machine or install the ' +
          'driver again'
      ]
    }
  }
  let choice = chooseFrom({ cpu, cuda }, 'auto', 'auto')
  const index = Number(choice.device.slice(5))
  const own = memory[index]
  const problem = own && 'problem' in own ? own.problem : checks[index]?.problem
  if (choice.device !== 'cpu' && problem !== undefined) choice = cpuAfterAll(cpu, choice, problem, 'auto')
  const cure = cureOf(cuda)
  return {
    answer,
    choice,
    cudaFault: undefined,
    broken: undefined,
    next: choice.device !== 'cpu'
      ? ['Nothing is missing']
      : cure !== undefined
        ? [cure]
        : [checks[index]?.problem !== undefined
            ? 'Report what the self-check says, with all of this, unless something else disturbs the GPU (`nvidia-smi`)'
            : '`nvidia-smi` shows what else uses the GPU']
  }
}

// ---- text

function asText ({ answer, choice, cudaFault, next }: Report): string {
  const { file, origin, cpu, cuda, backends, sharp, ffmpeg } = answer
  const set = variables.filter(name => process.env[name] !== undefined)
  const parts = [
    `parvis ${version}`,
    table([
      ['package', path.join(__dirname, '..', '..')],
      ['node', `${process.version}${otherRuntime()}, ${process.platform}-${process.arch}`],
      ['addon', file === undefined ? 'none for this platform' : `${file} (${origin})${cpu ? '' : ', unusable'}`],
      ...(backends ? [['backends', backends.join(', ')]] : []),
      ...(sharp
        ? [['sharp', 'version' in sharp
            ? `${sharp.version}, for picture files`
            : `no picture files are read or written: ${sharp.problem}`]]
        : []),
      ['ffmpeg', ffmpeg ? `${ffmpeg.file} (by ${ffmpeg.from}), for .mp4 and .webm` : 'none: .mp4 and .webm need it'],
      ...(set.length > 0 ? [['set', set.map(name => `${name}=${process.env[name]}`).join(', ')]] : [])
    ])
  ]
  if (cpu) {
    parts.push('\nCPU', table([
      ['processor', processor()],
      ['cores', `${cpu.cores}`],
      ['threads', threadsText(cpu)],
      ['kernels', `${cpu.isa}, ${cpu.bfloat16 ? 'with' : 'no'} bfloat16 products`],
      ['memory', memoryText(cpu)]
    ]))
  }
  const cudaRows = [...(cuda ? cudaFacts(cuda, answer) : []),
    ...(cudaFault !== undefined ? [['fault', paint('yellow', cudaFault)]] : [])]
  if (cudaRows.length > 0) parts.push('\nCUDA', table(cudaRows))
  if (choice) {
    parts.push('\nWhere no device is given', table([
      ['device', `${choice.device} (${choice.deviceReason})`],
      ['precision', `${choice.precision} (${choice.precisionReason})`]
    ]))
  }
  if (next.length > 0) {
    parts.push('\nWhat to do',
      ...next.map(text => `  ${paint(text === 'Nothing is missing' ? 'green' : 'yellow', text)}`))
  }
  return parts.join('\n') + '\n'
}

function threadsText ({ cores, threads, quota, quotaGroup }: Facts['cpu']): string {
  if (threads === cores) return `${threads}, one a core`
  return `${threads}, by the CPU quota of the control group ${quotaGroup} (${Number(quota.toFixed(2))} of ${cores} ` +
    'cores)'
}

/** What an allocation is compared with: of the machine, or of a control group that allows less. */
function memoryText ({ memory }: Facts['cpu']): string {
  const { total, free, group, checked } = known(memory)
  return `${bytesText(total)}${group && ` of the control group ${group}`}, ${bytesText(free)} ` +
    `free${checked ? '' : ', not looked at (PARVIS_MEMORY_CHECK)'}`
}

/** Where the addon cannot tell (macOS), Node can. */
function known (memory: Facts['cpu']['memory']): Facts['cpu']['memory'] {
  return memory.free > 0 ? memory : { ...memory, free: os.freemem(), total: os.totalmem() }
}

function cudaFacts (cuda: CudaProbe, { memory, checks }: Answer): string[][] {
  if (!cuda.compiled) return [['compiled', 'no']]
  const capabilities = cuda.architectures.split(' ').map(one => one.replace(/^(\d+)(\d)/, '$1.$2')).join(', ')
  const compiledFor = capabilities && ` for compute capability ${capabilities}`
  return [
    ['compiled', `yes, with CUDA ${versionText(cuda.runtime)}${compiledFor}`],
    ['driver', cuda.driver === 0 ? 'none' : `for CUDA ${versionText(cuda.driver)}`],
    ...cuda.devices.flatMap(device => {
      const verdict = checks[device.index]
      const said = verdict && (verdict.problem ?? 'passed: the embedded model makes the picture that the CPU makes')
      const row = [`GPU ${device.index}`, deviceText(device, memory[device.index])]
      return said ? [row, ['self-check', said]] : [row]
    }),
    // a device says its own
    ...(cuda.devices.length === 0 && cuda.reason !== undefined ? [['unusable', cuda.reason]] : [])
  ]
}

function deviceText (
  { name, capability, memory: total, problem }: CudaDevice, memory: Findings['memory'][number] | undefined
): string {
  if (name === '') return problem ?? 'unknown'
  const free = memory && 'free' in memory ? `, ${bytesText(memory.free)} free` : ''
  const fault = problem ?? (memory && 'problem' in memory ? memory.problem : undefined)
  const unusable = fault === undefined ? '' : `; unusable: ${fault}`
  return `${name}, compute capability ${capability.join('.')}, ${bytesText(total)}${free}${unusable}`
}

function processor (): string {
  return os.cpus()[0]?.model.trim() || 'unknown'
}

// ---- JSON

function asJson ({ answer, choice, cudaFault, next }: Report): object {
  const { file, origin, cpu, cuda, backends, memory, checks, sharp, ffmpeg } = answer
  const text = (version: number): string | null => version === 0 ? null : versionText(version)
  return {
    parvis: version,
    package: path.join(__dirname, '..', '..'),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    environment: Object.fromEntries(
      variables.filter(name => process.env[name] !== undefined).map(name => [name, process.env[name]])
    ),
    addon: { file: file ?? null, origin: origin ?? null, usable: cpu !== undefined },
    backends: backends ?? [],
    sharp: sharp ?? null,
    ffmpeg: ffmpeg ?? null,
    cpu: cpu ? { processor: processor(), ...cpu, memory: known(cpu.memory) } : null,
    cuda: cuda
      ? {
          compiled: cuda.compiled,
          runtime: text(cuda.runtime),
          driver: text(cuda.driver),
          architectures: cuda.architectures.split(' ').filter(Boolean),
          devices: cuda.devices.map(device => {
            const { total: _, ...found } = { total: 0, ...memory[device.index] }
            return { ...device, ...found, ...(checks[device.index] && { selfCheck: checks[device.index] }) }
          }),
          reason: cuda.reason ?? null
        }
      : null,
    fault: cudaFault ?? null,
    auto: choice ?? null,
    next
  }
}
