// The launches that a session or a tokenizer has recorded, as rows of a report.

import type { LaunchRecord } from '../machine/native.js'
import { spread } from './figures.js'
import type { OperationResult } from './types.js'

/** What the launches are parts of. */
export type Whole = Pick<OperationResult, 'partOf' | 'model' | 'n' | 'batch' | 'grid' | 'precision' | 'device'>

/**
 * One row for all launches of a name and a shape, in the order in which they first ran.
 * @param runs steps or decodes that were recorded
 */
export function operationsOf (records: readonly LaunchRecord[], runs: number, of: Whole): OperationResult[] {
  const groups = new Map<string, LaunchRecord[]>()
  for (const record of records) {
    const key = JSON.stringify([record.name, record.shape, record.bytes, record.flops])
    groups.set(key, [...groups.get(key) ?? [], record])
  }
  return [...groups.values()].map(launches => {
    const { name, shape, bytes, flops } = launches[0]!
    const ms = spread(launches.map(launch => launch.ms))
    const seconds = Math.max(ms.median, 1e-6) / 1000 // a clock may not have ticked
    const times = launches.length / runs
    return {
      ...of,
      name,
      shape,
      times,
      ms,
      msInAll: ms.median * times,
      bytes,
      flops,
      gigabytesPerSecond: bytes / seconds / 1e9,
      gigaflops: flops / seconds / 1e9,
      ceilings: null
    }
  })
}
