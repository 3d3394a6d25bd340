// The golden checkpoints as load options. par-4x and llamagen share their vocabulary with vq-small, so either makes a
// whole small model with it: 8 x 8 tokens, pictures of 32 x 32.

import type { Precision } from '../../lib/machine/native.js'
import { Par } from '../../lib/api/par.js'
import type { LoadOptions } from '../../lib/api/options.js'
import { golden } from './golden.js'

/**
 * Where the fixtures compute: on the CPU, but for `npm run test:cuda`. Never 'auto': a GPU would change what is tested.
 */
export const device = (process.env.PARVIS_TEST_DEVICE ?? 'cpu') as 'cpu' | 'cuda'

export const transformerNames = ['par-4x', 'par-16x-hd100', 'llamagen'] as const
export type TransformerName = typeof transformerNames[number]

/** Heads and grid are not in the files. */
export function transformerFile (name: TransformerName): { path: string, heads: number, grid: number } {
  return { path: golden(`${name}/model.pt`), heads: 2, grid: 8 }
}

export const parallelNames = ['arpg', 'lpd', 'randar'] as const
export type ParallelName = typeof parallelNames[number]
export const isParallel = (name: string): name is ParallelName => (parallelNames as readonly string[]).includes(name)

/** LPD's table of positions tells its grid; heads of these methods have 64 elements. */
export function parallelFile (name: ParallelName): { path: string, grid?: number } {
  const file = golden(`${name}/model.${name === 'randar' ? 'safetensors' : 'pt'}`)
  return name === 'lpd' ? { path: file } : { path: file, grid: 8 }
}

export function tokenizerFile (): string {
  return golden('vq-small/vq.pt')
}

/** A whole small model (n = 4, or n = 1 for llamagen), float32 unless told otherwise. */
export async function smallPar (options: LoadOptions = {}, name: 'par-4x' | 'llamagen' = 'par-4x'): Promise<Par> {
  return await Par.load({
    transformer: transformerFile(name), tokenizer: tokenizerFile(), device, precision: 'float32', ...options
  })
}

export async function transformerOnly (name: TransformerName, precision: Precision = 'float32'): Promise<Par> {
  return await Par.load({ transformer: transformerFile(name), device, precision })
}

export async function tokenizerOnly (
  precision: Precision = 'float32', name: 'vq-small' | 'vq-f4' = 'vq-small'
): Promise<Par> {
  return await Par.load({ tokenizer: golden(`${name}/vq.pt`), device, precision })
}

/** What a rejected promise was rejected with; an error where it was not. */
export async function rejection (work: Promise<unknown>): Promise<unknown> {
  let value: unknown
  try {
    value = await work
  } catch (error) {
    return error
  }
  throw new Error(`expected a rejection, got ${String(value)}`)
}

/** The code that a ParError rejection carries. */
export async function codeOf (work: Promise<unknown>): Promise<unknown> {
  return (await rejection(work) as { code?: unknown }).code
}

/** A Proxy that throws whatever it is asked for. */
export function revoked (): never {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy as never
}
