// Peers: the same work in plain PyTorch (bench/torch/decode.py of the repository), as processes that do one thing a line
// and answer with milliseconds, so that short runs of theirs can alternate with ours. One with as many threads as we
// have, and one with those that PyTorch takes by itself, where that is another number.

import { execFile, spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import readline from 'node:readline'
import { promisify } from 'node:util'
import { ParError } from '../errors.js'
import type { Precision } from '../native.js'
import { spread } from './figures.js'
import type { PeerResult, Spread } from './types.js'

/** A Python with PyTorch, and the program. */
export interface Torch {
  python: string
  script: string
  version: string
  /** Threads that it takes by itself. */
  threads: number
}

const ownScript = path.join(__dirname, '..', '..', 'bench', 'torch', 'decode.py')

/** Undefined where there is no PyTorch or, in an installed package, no program. `script`: another one. */
export async function findTorch (script?: string, pythons: readonly string[] = ['python3', '/usr/bin/python3']): Promise<Torch | undefined> {
  if (script !== undefined && !fs.existsSync(script)) throw new ParError('FILE_NOT_FOUND', `${script}: there is no such file`)
  const file = script ?? ownScript
  if (!fs.existsSync(file)) return undefined
  for (const python of pythons) {
    try {
      const { stdout } = await promisify(execFile)(python, ['-c', 'import torch; print(torch.get_num_threads(), torch.__version__)'], { timeout: 60000 })
      const [threads, version] = stdout.trim().split(' ')
      return { python, script: file, version: version!, threads: Number(threads) }
    } catch {} // not there, or without torch
  }
  return undefined
}

export class Peer {
  readonly times: number[] = []
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor (torch: Torch, model: string, n: number, readonly threads: number) {
    this.#child = spawn(torch.python, [torch.script, model, String(n), String(threads)], { stdio: ['pipe', 'pipe', 'ignore'] })
    this.#child.on('error', () => {}) // its lines end
    this.#child.stdin!.on('error', () => {})
    this.#lines = readline.createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  /** Milliseconds that the command took. */
  async ask (command: string): Promise<number> {
    this.#child.stdin!.write(command + '\n')
    const { value, done } = await this.#lines.next()
    const ms = Number(value)
    if (done || !(ms >= 0)) throw new ParError('INTERNAL', `The PyTorch program ended or did not answer "${command}" with milliseconds; --no-torch leaves it out`)
    return ms
  }

  /** `repeats` measured runs after one that is not. */
  async time (command: string, repeats: number): Promise<void> {
    await this.ask(command)
    for (let i = 0; i < repeats; i++) this.times.push(await this.ask(command))
  }

  /** How it compares with ours. */
  result (precision: Precision, ours: Spread): PeerResult {
    const ms = spread(this.times)
    return { threads: this.threads, precision, ms, ratio: ms.median / ours.median, ratioOfLeast: ms.least / ours.least }
  }

  end (): void {
    this.#child.kill('SIGKILL')
  }
}

export function startPeers (torch: Torch | undefined, model: string, n: number, threads: number): Peer[] {
  if (!torch) return []
  return [...new Set([threads, torch.threads])].map(count => new Peer(torch, model, n, count))
}
