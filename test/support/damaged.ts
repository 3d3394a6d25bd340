// Checkpoints that load and compute NaN.

import fs from 'node:fs'
import path from 'node:path'
import { openCheckpoint } from '../../lib/checkpoint/index.js'
import { root } from './built.js'
import { golden } from './golden.js'

/** The embedded transformer of n = 4 with a norm of NaN; its path. */
export function transformerOfNaN (folder: string): string {
  const bytes = fs.readFileSync(path.join(root, 'models', 'fashion', 'par-4.safetensors'))
  const start = 8 + Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.subarray(8, start).toString()) as Record<string, { data_offsets: [number, number] }>
  const [from, to] = header['norm.weight']!.data_offsets
  bytes.fill(0xff, start + from, start + to) // NaN in every type of float
  const file = path.join(folder, 'nan.safetensors')
  fs.writeFileSync(file, bytes)
  return file
}

/** The small transformer of n = 4 with NaN in the row of one class; its path. */
export async function transformerOfOneNaN (folder: string, classId: number): Promise<string> {
  const file = golden('par-4x/model.pt')
  const { offset, shape } = (await openCheckpoint(file)).tensors.get('cls_embedding.embedding_table.weight')!
  const bytes = fs.readFileSync(file)
  const row = 4 * shape[1]!
  bytes.fill(0xff, offset + classId * row, offset + (classId + 1) * row)
  const damaged = path.join(folder, 'one-nan.pt')
  fs.writeFileSync(damaged, bytes)
  return damaged
}
