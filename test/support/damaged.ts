// A checkpoint that loads and computes nothing but NaN.

import fs from 'node:fs'
import path from 'node:path'
import { root } from './built.js'

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
