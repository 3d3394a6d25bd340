// Runs run.js and failing.js in processes of their own, on the CPU or on the simulated GPU.

import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { built, root } from '../support/built.js'
import { transformerOfOneNaN } from '../support/damaged.js'
import {
  isParallel, parallelFile, transformerFile, type ParallelName, type TransformerName
} from '../support/fixtures.js'

export interface Companies { companies: number, sequences: number, steps: number, shared: number, different: string[] }

export async function companies (
  device: string, name: TransformerName | ParallelName, count: number, seed: number, precision: string, steps: number,
  env: NodeJS.ProcessEnv
): Promise<Companies> {
  const { path: file } = isParallel(name) ? parallelFile(name) : transformerFile(name)
  return await printed('run.js', [device, file, 2, 8, count, seed, precision, steps], env) as Companies
}

export interface Failing { failed: number[], codes: string[], equal: boolean[], after: boolean }

export async function failing (
  device: string, folder: string, precision: string, env: NodeJS.ProcessEnv
): Promise<Failing> {
  const nan = 3
  const file = await transformerOfOneNaN(folder, nan)
  const { heads, grid } = transformerFile('par-4x')
  return await printed('failing.js', [device, file, heads, grid, nan, precision], env) as Failing
}

export interface Turns { tokens: number, differ: number, alone: number, together: number }

/** Tokens of six sequences that take turns at random, and how many differ from those of one step a pass. */
export async function turns (
  device: string, name: TransformerName | ParallelName, options: object, precision: string, seed: number,
  env: NodeJS.ProcessEnv
): Promise<Turns> {
  const { path: file } = isParallel(name) ? parallelFile(name) : transformerFile(name)
  return await printed('passes.js', [device, file, 2, 8, JSON.stringify(options), precision, seed], env) as Turns
}

async function printed (script: string, args: unknown[], env: NodeJS.ProcessEnv): Promise<unknown> {
  const file = path.join(root, 'test', 'seats', script)
  const { stdout } = await promisify(execFile)(process.execPath, [file, await built(), ...args.map(String)],
    { env, timeout: 800_000 })
  return JSON.parse(stdout)
}
