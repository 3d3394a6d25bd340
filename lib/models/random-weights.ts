// A checkpoint of random weights without its size on disk: one small file that all tensors point into. The native side
// packs each tensor into memory of its own, so memory traffic is that of the real model.

import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fromSystem } from '../base/files.js'
import type { WeightSource } from '../machine/native.js'
import type { Weight } from './weights.js'

export interface RandomWeights {
  file: string
  weights (list: readonly Weight[]): WeightSource[]
  remove (): Promise<void>
}

/** Ones for norms and slopes lie behind the random numbers. */
const ones = 8192
const chunk = 1 << 20

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/** @param lists what weights() will be asked for, none larger */
export async function randomWeights (
  lists: ReadonlyArray<readonly Weight[]>, signal?: AbortSignal
): Promise<RandomWeights> {
  const count = Math.max(...lists.flat().map(([, shape]) => size(shape)))
  let folder: string | undefined
  const remove = async (): Promise<void> => {
    if (folder !== undefined) await fs.rm(folder, { recursive: true, force: true })
  }
  try {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), 'parvis-random-'))
    const file = path.join(folder, 'random.bin')
    const handle = await fs.open(file, 'wx')
    try {
      let state = 1
      for (let at = 0; at < count; at += chunk) {
        signal?.throwIfAborted()
        const data = new Uint16Array(Math.min(chunk, count - at))
        for (let i = 0; i < data.length; i++) {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0
          data[i] = (state >>> 31 << 15) | (121 << 7) | (state >>> 20 & 127) // bfloat16: any sign, 0.016 to 0.031
        }
        await handle.writeFile(new Uint8Array(data.buffer))
      }
      await handle.writeFile(new Uint8Array(new Uint16Array(ones).fill(0x3f80).buffer))
    } finally {
      await handle.close()
    }
    return {
      file,
      weights: list => list.map(([role, shape]) => ({
        role,
        parts: [{
          name: role,
          dtype: 'bfloat16',
          shape: [...shape],
          offset: /norm\d?\.(weight|slope)$/i.test(role) ? count * 2 : 0
        }]
      })),
      remove
    }
  } catch (error) {
    await remove()
    throw fromSystem(error, folder ?? os.tmpdir(), 'written')
  }
}
