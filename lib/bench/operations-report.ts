// The operations of a report as text: which part of a step or a decode takes how long, and how near it is to what the
// device can do at most.

import { groupParts, limitOf } from './figures.js'
import type { OperationResult, Report } from './types.js'
import { number, percent, range, table, times } from './words.js'

/** A step or a decode that operations are parts of. */
function wholeText ({ partOf, model, n, batch, grid }: OperationResult): string {
  return [`${model}${partOf === 'decode' ? ' decode' : ''}`, ...(n ? [`n = ${n}`] : []),
    ...(batch > 1 ? [`batch ${batch}`] : []), ...(grid !== 24 ? [`grid ${grid}`] : [])].join(', ')
}

/** Short enough for a bar. Those of a decode share their names, so their sizes tell them apart. */
export function operationText (one: OperationResult): string {
  return `${wholeText(one)}: ${one.name}${one.partOf === 'decode' ? ` ${one.shape}` : ''}`
}

const profiled = 'Every launch, timed where it ran: on the CPU by the clock around it, on CUDA by events before and ' +
  'after it, which add some microseconds to a short one.'
const apart = 'Each by itself on random numbers, as a picture runs it: projections and attention on copies of their ' +
  'weights in turn, so that they come from memory; attention at half of the cache.'

export function operationsText ({ format, operations = [], results }: Report): string[] {
  if (operations.length === 0) return []
  const groups = groupParts(operations, results)
  return [
    '## Operations',
    `${format === 'parvis-bench-4' ? profiled : apart} Bytes are those that are read or written at least once. ` +
      '"Limit" is the ceiling whose share is the greater.',
    ...groups.flatMap(({ parts, sum, whole }) => {
      const [first] = parts as [OperationResult]
      const each = first.partOf === 'step' ? 'a step' : 'a decode'
      const measured = whole === undefined
        ? ''
        : ` As a whole ${each} took ${number(whole)} ms: the parts are ${times(sum / whole)} that.`
      return [
        `### ${wholeText(first)}, ${first.precision}, ${first.device}`,
        table(
          ['operation', 'shape', 'ms (least - greatest)', `times ${each}`, `ms ${each}`, 'GB/s', 'of ceiling',
            'GFLOP/s', 'of ceiling', 'limit'],
          parts.map(one => [one.name, one.shape, range(one.ms), one.times,
            number(one.msInAll) + (one.summed === false ? ' (within another)' : ''),
            number(one.gigabytesPerSecond), percent(one.ofReadCeiling),
            ...(one.flops > 0 ? [number(one.gigaflops), percent(one.ofArithmeticCeiling)] : ['', '']),
            limitOf(one) ?? ''])
        ),
        `Sum of the parts: ${number(sum)} ms ${each}.${measured}`
      ]
    })
  ]
}

/** By the columns of the CSV. */
export function operationCells (one: OperationResult): Record<string, unknown> {
  return {
    operation: one.name, model: one.model, n: one.n, batch: one.batch, grid: one.grid, precision: one.precision,
    device: one.device,
    ms: one.ms.median, ms_least: one.ms.least, ms_greatest: one.ms.greatest, bytes: one.bytes, flops: one.flops,
    gigabytes_per_second: one.gigabytesPerSecond, gigaflops: one.gigaflops,
    of_read_ceiling: one.ofReadCeiling, of_arithmetic_ceiling: one.ofArithmeticCeiling, part_of: one.partOf,
    shape: one.shape, times: one.times,
    ms_in_all: one.summed === false ? undefined : one.msInAll, limit: limitOf(one)
  }
}
