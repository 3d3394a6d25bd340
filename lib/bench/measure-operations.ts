// Times the operations of a step or a decode one by one. The backend makes the numbers and reads the clock, so that no way to
// JavaScript and back is in it; here is how often, and what the times mean.

import { spread } from './figures.js'
import type { Bench } from './measure.js'
import { operationCopies, operationCost, operationShape, type OperationCase } from './operations.js'
import type { OperationResult } from './types.js'

/** Turns of an operation so short that a single one says little. */
const manyTurns = 10

export async function measureOperations ({ engine, call, repeats, until }: Pick<Bench, 'engine' | 'call' | 'repeats' | 'until'>,
  of: Pick<OperationResult, 'partOf' | 'model' | 'n' | 'batch' | 'grid' | 'precision' | 'device'>, cases: readonly OperationCase[]): Promise<OperationResult[]> {
  const found: OperationResult[] = []
  for (const { name, operation, times, summed } of cases) {
    const { bytes, flops } = operationCost(operation)
    const copies = operationCopies(operation)
    const turns = performance.now() >= until ? 1 : copies === 1 && flops < 1e9 ? manyTurns * repeats : repeats
    const { ms: readings } = await call.wait(engine.runOperation(operation, { copies, warmup: 1, repeats: turns }, call.cancel))
    const ms = spread([...readings])
    found.push({
      ...of, name, shape: operationShape(operation), times, summed, copies, ms,
      msInAll: ms.median * times,
      bytes,
      flops,
      gigabytesPerSecond: bytes / ms.median / 1e6,
      gigaflops: flops / ms.median / 1e6,
      ceilings: null
    })
  }
  return found
}
