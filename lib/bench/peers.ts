// Peers: the same work in PyTorch, by programs of bench/torch in the repository that do one thing a line and answer
// with milliseconds (peer.py there says how), so that short runs of theirs can alternate with ours. On the CPU the
// plain implementation with as many threads as we have and with those that PyTorch takes by itself; on a GPU the same
// eager and compiled; and a checkout of the authors' own code, where there is one. A peer that cannot start, dies, does
// not answer in time or answers nonsense is listed as not run: minutes of measuring are not lost for it.

import { execFile, spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import readline from 'node:readline'
import { promisify } from 'node:util'
import { ParError } from '../base/errors.js'
import type { Precision } from '../machine/native.js'
import { peerName, spread } from './figures.js'
import type { NotRun, PeerResult, Spread } from './types.js'

/** A Python with PyTorch, and what is to be run by it. */
export interface Torch {
  python: string
  version: string
  /** Threads that it takes by itself. */
  threads: number
  /** The plain implementation on the CPU and on a GPU; undefined: left out. */
  cpu: string | undefined
  gpu: string | undefined
  /** The authors' checkout, a folder. */
  authors: string | undefined
}

export interface TorchOptions {
  /** Leave the plain implementation out. */
  plain?: boolean
  /** Another program for the CPU. */
  script?: string
  /** A checkout of the authors' code. */
  authors?: string
}

const programs = path.join(__dirname, '..', '..', 'bench', 'torch')
const [ownCpu, ownGpu, ownAuthors] = ['decode.py', 'gpu.py', 'authors.py']
  .map(name => path.join(programs, name)) as [string, string, string]

/** Undefined where there is no PyTorch or, in an installed package, no program. */
export async function findTorch (
  { plain = true, script, authors }: TorchOptions = {}, pythons: readonly string[] = pythonNames()
): Promise<Torch | undefined> {
  if (script !== undefined && !fs.existsSync(script)) {
    throw new ParError('FILE_NOT_FOUND', `${script}: there is no such file`)
  }
  const files = {
    cpu: plain ? script ?? present(ownCpu) : undefined,
    gpu: plain ? present(ownGpu) : undefined,
    authors: authors === undefined ? undefined : checkout(authors)
  }
  if (files.authors !== undefined && !present(ownAuthors)) {
    throw new ParError('INVALID_OPTION',
      "The authors' code is timed from a checkout of parvis only: the program for it is not in the installed package")
  }
  if (!files.cpu && !files.gpu && !files.authors) return undefined
  for (const python of pythons) {
    try {
      const { stdout } = await promisify(execFile)(python,
        ['-c', 'import torch; print(torch.get_num_threads(), torch.__version__)'], { timeout: 60000 })
      const [threads, version] = stdout.trim().split(' ')
      return { python, version: version!, threads: Number(threads), ...files }
    } catch {} // not there, or without torch
  }
  return undefined
}

/** By what names Python is called. */
export function pythonNames (platform: string = process.platform): string[] {
  return platform === 'win32' ? ['python', 'py', 'python3'] : ['python3', '/usr/bin/python3']
}

const present = (file: string): string | undefined => fs.existsSync(file) ? file : undefined

/** What authors.py imports is there. */
function checkout (folder: string): string {
  if (!fs.existsSync(folder)) throw new ParError('FILE_NOT_FOUND', `${folder}: there is no such folder`)
  for (const name of ['autoregressive/models/gpt.py', 'autoregressive/models/generate.py']) {
    if (!fs.existsSync(path.join(folder, name))) {
      throw new ParError('INVALID_OPTION',
        `${folder} is no checkout of the authors' code (Epiphqny/PAR): ${name} was looked for and is not in it`)
    }
  }
  return path.resolve(folder)
}

/** One that can be run. */
export interface PeerProgram {
  name: string
  threads?: number
  python: string
  args: string[]
}

/** Those for a device. `seconds`: what one may take to compile. */
export function peersOf (
  torch: Torch, device: string, model: string, n: number, threads: number, seconds = 0
): PeerProgram[] {
  const { python } = torch
  const authors = torch.authors === undefined
    ? []
    : [{ name: "authors' code", python, args: [ownAuthors, torch.authors, model, String(n), '--device', device] }]
  if (device === 'cpu') {
    const counts = torch.cpu === undefined ? [] : [...new Set([threads, torch.threads])]
    return [
      ...counts.map(count => ({
        name: peerName({ threads: count }), threads: count, python, args: [torch.cpu!, model, String(n), String(count)]
      })),
      ...authors.map(one => ({ ...one, threads, args: [...one.args, '--threads', String(threads)] }))
    ]
  }
  const variants = torch.gpu === undefined ? [] : ['eager', 'compiled']
  return [
    ...variants.map(name =>
      ({ name, python, args: [torch.gpu!, '--serve', name, '--models', model, '--n', String(n), '--device', device,
        '--seconds', String(Math.floor(seconds))] })),
    ...authors
  ]
}

export class Peer {
  readonly times: number[] = []
  /** A sentence, once it has failed; it is not asked again. */
  failure: string | undefined
  readonly #program: PeerProgram
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #closed: Promise<string>
  readonly #notes: string[] = []
  readonly #say: (text: string) => void
  #noise = ''
  #compileMs: number | undefined

  constructor (program: PeerProgram, say: (text: string) => void = () => {}) {
    this.#program = program
    this.#say = say
    // A group of its own, so that a compiler's processes end with it.
    this.#child = spawn(program.python, program.args,
      { stdio: ['pipe', 'pipe', 'pipe'], detached: process.platform !== 'win32' })
    this.#child.stdin!.on('error', () => {}) // its lines end
    this.#child.stderr!.setEncoding('utf8').on('data',
      (text: string) => { this.#noise = (this.#noise + text).slice(-2000) })
    this.#closed = new Promise(resolve => {
      this.#child.on('error', error => resolve(`could not be started: ${error.message}`))
      this.#child.on('close', (code, signal) => {
        const last = this.#noise.trim().split('\n').at(-1)!.trim()
        resolve(`ended ${signal ? `by ${signal}` : `with exit code ${code}`}${last && `: ${last.slice(0, 300)}`}`)
      })
    })
    this.#lines = readline.createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  get name (): string { return this.#program.name }

  /** Milliseconds that the command took; NaN once it has failed. */
  async ask (command: string, limitMs: number): Promise<number> {
    if (this.failure !== undefined) return NaN
    this.#child.stdin!.write(command + '\n')
    const end = performance.now() + limitMs
    for (;;) {
      const next = await within(this.#lines.next(), end - performance.now())
      if (next === undefined) {
        return this.#fail(`The program did not answer "${command}" within ${Math.round(limitMs / 1000)} s; more ` +
          '--seconds give it longer')
      }
      if (next.done) return this.#fail(`The program ${await within(this.#closed, 2000) ?? 'closed its output'}`)
      const [word, text] = /^(\w+) (.*)$/.exec(next.value)?.slice(1) ?? []
      if (word === 'note') this.#notes.push(text!)
      else if (word === 'doing') this.#say(`${this.name}: ${text}`)
      else if (word === 'compiled' && milliseconds.test(text!)) this.#compileMs = Number(text)
      else if (word === 'cannot') return this.#fail(text!)
      else if (milliseconds.test(next.value)) return Number(next.value)
      else return this.#fail(`The program answered "${next.value.slice(0, 80)}" instead of milliseconds`)
    }
  }

  /** `repeats` measured runs, after one that is not unless it is warm. */
  async time (command: string, repeats: number, limitMs: number, first = true): Promise<void> {
    if (first) await this.ask(command, limitMs)
    for (let i = 0; i < repeats && this.failure === undefined; i++) this.times.push(await this.ask(command, limitMs))
  }

  #fail (reason: string): number {
    this.failure = reason.replace(/\.?$/, '')
    this.end()
    return NaN
  }

  /** How it compares with ours, each time of its over `parts`; undefined where it failed. */
  result (precision: Precision, ours: Spread, parts = 1): PeerResult | undefined {
    if (this.failure !== undefined || this.times.length === 0) return undefined
    const ms = spread(this.times.map(time => time / parts))
    return {
      name: this.name,
      ...(this.#program.threads !== undefined && { threads: this.#program.threads }),
      precision,
      ms,
      ratio: ms.median / ours.median,
      ratioOfLeast: ms.least / ours.least,
      ...(this.#compileMs !== undefined && { compileMs: this.#compileMs }),
      ...(this.#notes.length > 0 && { notes: this.#notes })
    }
  }

  end (): void {
    const { pid } = this.#child
    try {
      if (pid !== undefined && process.platform !== 'win32') process.kill(-pid, 'SIGKILL')
    } catch {} // it has ended
    this.#child.kill('SIGKILL')
  }
}

const milliseconds = /^\d+(\.\d+)?(e[+-]?\d+)?$/

async function within<T> (work: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  try {
    return await Promise.race([work,
      new Promise<undefined>(resolve => { timer = setTimeout(() => resolve(undefined), Math.max(0, ms)) })])
  } finally {
    clearTimeout(timer)
  }
}

/** The peers of one result. */
export class Peers {
  /** Those that have not failed. */
  get alive (): Peer[] { return this.#all.filter(({ failure }) => failure === undefined) }
  readonly #all: Peer[]

  constructor (programs: readonly PeerProgram[], say?: (text: string) => void) {
    this.#all = programs.map(program => new Peer(program, say))
  }

  results (precision: Precision, ours: Spread, parts = 1): PeerResult[] {
    return this.#all.flatMap(peer => peer.result(precision, ours, parts) ?? [])
  }

  /** What to list of those that failed while `work` was measured. */
  notRun (work: string): NotRun[] {
    return this.#all.flatMap(({ name, failure }) =>
      failure === undefined ? [] : [{ what: `PyTorch, ${name}: ${work}`, reason: failure }])
  }

  end (): void {
    for (const peer of this.#all) peer.end()
  }
}
