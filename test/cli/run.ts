// Runs the command line as users do: a child process on the built package.

import { spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export const root = path.join(__dirname, '..', '..')
export const bin = path.join(root, 'bin', 'parvis.js')

export interface Outcome {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  /** Standard output as bytes. */
  bytes: Buffer
}

export interface Options {
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** What standard input holds. Default: nothing. */
  input?: Uint8Array
  /** `pipe`: standard input stays open. */
  stdin?: 'pipe'
  /** Called with the process once it runs. */
  started?: (child: ChildProcess) => void
}

export async function parvis (args: string[], options: Options = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: options.cwd ?? root,
    env: { ...process.env, ...options.env },
    stdio: [options.input || options.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe']
  })
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout!.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr!.on('data', (chunk: Buffer) => err.push(chunk))
  child.stdin?.on('error', () => {}) // it may end before it has read everything
  if (options.input) child.stdin!.end(options.input)
  options.started?.(child)
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(resolve => {
    child.on('close', (code, signal) => resolve([code, signal]))
  })
  const bytes = Buffer.concat(out)
  return { code, signal, stdout: bytes.toString(), stderr: Buffer.concat(err).toString(), bytes }
}

/** A folder that is removed when the process ends. */
export function temporaryFolder (): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-cli-'))
  process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))
  return folder
}
