// parvis bench --isa: the same benchmark on several instruction sets of the CPU, in one report. A process uses one of
// them from its first product to its last, so each is measured in a process of its own.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Report } from '../bench/types.js'
import { ParError, type ParErrorCode } from '../base/errors.js'
import { addon } from '../machine/native.js'
import { visible } from '../base/text.js'
import { UsageError } from './terminal.js'

/** @throws UsageError for one that this machine cannot run */
export function checkIsas (isas: readonly string[], devices: readonly string[]): void {
  const known = addon().cpu().isas
  const unknown = isas.find(isa => !known.includes(isa))
  if (unknown !== undefined) {
    throw new UsageError(`--isa ${visible(unknown, 40)}: this machine can run ${known.join(', ')}`)
  }
  if (devices.some(device => device !== 'auto' && device !== 'cpu')) {
    throw new UsageError('--isa is for the CPU: leave --device out')
  }
}

/** The benchmark in a process of its own. What that says of a failure is thrown. */
async function run (isa: string, args: readonly string[], signal: AbortSignal): Promise<Report> {
  try {
    const { stdout } = await promisify(execFile)(process.execPath,
      [...process.execArgv, process.argv[1]!, 'bench', ...args, '--device', 'cpu', '--json'],
      { env: { ...process.env, PARVIS_ISA: isa }, signal, maxBuffer: 1 << 28 })
    return JSON.parse(stdout) as Report
  } catch (cause) {
    signal.throwIfAborted()
    const { stderr = '' } = cause as { stderr?: string }
    const told = /^\{"error":\{"code":"([A-Z_]+)","message":(".*")\}\}$/m.exec(stderr)
    throw told === null
      ? new ParError('INTERNAL', `The benchmark on ${isa} ended without a report`, { cause })
      : new ParError(told[1] as ParErrorCode, JSON.parse(told[2]!) as string, { cause })
  }
}

/**
 * One report of all. The device of a result is 'cpu avx2'.
 * @param args of `parvis bench`, without --isa and what it does with the report
 */
export async function benchIsas (
  isas: readonly string[], args: readonly string[], command: string, signal: AbortSignal,
  onProgress: (done: number, total: number, text: string) => void
): Promise<Report> {
  const reports: Report[] = []
  for (const [i, isa] of isas.entries()) {
    onProgress(i, isas.length, isa)
    reports.push(await run(isa, args, signal))
  }
  onProgress(isas.length, isas.length, '')
  const named = <T extends { device: string }>(all: readonly T[], i: number): T[] =>
    all.map(one => ({ ...one, device: `${one.device} ${isas[i]!}` }))
  const { environment, ...rest } = reports[0]!
  return {
    ...rest,
    command,
    environment: { ...environment, isa: isas.join(', ') },
    results: reports.flatMap(({ results }, i) => named(results, i)),
    operations: reports.flatMap(({ operations = [] }, i) => named(operations, i)),
    notRun: reports.flatMap(({ notRun }, i) =>
      notRun.map(({ what, reason }) => ({ what: `${what}, ${isas[i]!}`, reason }))),
    coldStart: reports.flatMap(({ coldStart }, i) => named(coldStart, i))
  }
}
