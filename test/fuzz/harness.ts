// Fuzzing: inputs made from a seed, read one after another, each judged. A reader may refuse an input with a ParError
// of the codes that it documents, and nothing else; it may hold the JavaScript thread only for a moment and memory only
// within its budget. Input `index` of `seed` is always the same, so a finding is told by two numbers; it is also kept
// as a file.

import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { getHeapStatistics } from 'node:v8'
import { ParError } from '../../lib/base/errors.js'
import { random } from '../checkpoint/tiny.js'

/** Seeded choices. */
export class Random {
  readonly next: () => number
  constructor (seed: number) { this.next = random(seed) }
  /** A whole number from 0 to `below` - 1. */
  int (below: number): number { return Math.floor(this.next() * below) }
  chance (probability: number): boolean { return this.next() < probability }
  pick<T> (list: readonly T[]): T { return list[this.int(list.length)]! }
  /** Mostly small, now and then at the edges of 8, 16, 32, 53 and 64 bits. */
  size (): bigint { return this.chance(0.6) ? BigInt(this.int(20)) : this.pick(edges) + BigInt(this.int(3) - 1) }
}

const edges = [1n, 128n, 256n, 2n ** 15n, 2n ** 16n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 2n]

export interface Fuzzer {
  name: string
  /** Codes of ParError that an input may be refused with. */
  codes: readonly string[]
  /** Makes an input. */
  make: (random: Random) => Buffer
  /** Reads it. Throws what the reader throws; also where what was read cannot be right. */
  read: (input: Buffer) => Promise<unknown>
}

export interface Limits {
  /** Milliseconds that the JavaScript thread may be held at a stretch. */
  block: number
  /** Bytes of heap and buffers, garbage included. */
  memory: number
}

export const limits: Limits = { block: 250, memory: 700e6 }

export interface Finding {
  seed: number
  index: number
  why: string
  /** Where the input was kept. */
  file: string
}

export interface Outcome {
  count: number
  refused: number
  read: number
  /** Longest time that the JavaScript thread was held, milliseconds of the clock. */
  block: number
  /** Most bytes of heap and buffers. */
  memory: number
  findings: Finding[]
}

/** Bytes that are read of an input. */
const maxInput = 1 << 20

/** Input number `index` of a seed. */
export function inputOf (fuzzer: Fuzzer, seed: number, index: number): Buffer {
  return fuzzer.make(new Random(Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b))).subarray(0,
    maxInput)
}

/** Reads `count` inputs of a seed from number `from` on; keeps those that found something in `folder`. */
export async function fuzz (
  fuzzer: Fuzzer, { seed, from = 0, count, folder, bounds = limits }: {
    seed: number, from?: number, count: number, folder: string, bounds?: Limits
  }
): Promise<Outcome> {
  const outcome: Outcome = { count, refused: 0, read: 0, block: 0, memory: 0, findings: [] }
  const watch = new Watch()
  for (let index = from; index < from + count; index++) {
    const input = inputOf(fuzzer, seed, index)
    watch.start()
    const why = await judge(fuzzer, input, outcome)
    const { block, busy, memory } = await watch.stop()
    outcome.block = Math.max(outcome.block, block)
    outcome.memory = Math.max(outcome.memory, memory)
    const faults = [
      ...(why === undefined ? [] : [why]),
      // Both clocks, since other programs may have had the processor meanwhile.
      ...(block > bounds.block && busy > bounds.block
        ? [`held the JavaScript thread for ${Math.round(block)} ms`]
        : []),
      ...(memory > bounds.memory ? [`took ${Math.round(memory / 1e6)} MB`] : [])
    ]
    if (faults.length === 0) continue
    const file = path.join(folder, `${fuzzer.name}-${seed}-${index}.bin`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(file, input)
    outcome.findings.push({ seed, index, why: faults.join('; '), file })
  }
  return outcome
}

/** What is wrong with how the input ended, if anything. */
async function judge (fuzzer: Fuzzer, input: Buffer, outcome: Outcome): Promise<string | undefined> {
  try {
    await fuzzer.read(input)
    outcome.read++
    return undefined
  } catch (error) {
    outcome.refused++
    if (!(error instanceof ParError)) return `threw ${(error as Error)?.stack ?? String(error)}`
    if (!fuzzer.codes.includes(error.code)) return `refused with the code ${error.code}: ${error.message.slice(0, 500)}`
    if (error.message.includes('unexpected failure')) return `failed: ${(error.cause as Error)?.stack ?? error.message}`
    if (error.message.length > 2000) return `a message of ${error.message.length} characters`
    if (/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(error.message)) {
      return `a control character in the message ${JSON.stringify(error.message.slice(0, 500))}`
    }
    return undefined
  }
}

/**
 * Watches how long the event loop stands still, by the clock and by the processor time of this process, and the memory.
 */
export class Watch {
  private last = 0
  private lastBusy = 0
  private ticks = 0
  private timer: NodeJS.Immediate | undefined
  private found = { block: 0, busy: 0, memory: 0 }

  start (): void {
    this.found = { block: 0, busy: 0, memory: 0 }
    this.last = performance.now()
    this.lastBusy = busyTime()
    this.timer = setImmediate(this.tick)
  }

  /** Milliseconds of the longest standstill by both clocks, and most bytes. */
  async stop (): Promise<{ block: number, busy: number, memory: number }> {
    // What ran after the last tick counts, too.
    await new Promise(setImmediate)
    clearImmediate(this.timer)
    this.look(true)
    return this.found
  }

  private readonly tick = (): void => {
    this.look(++this.ticks % 16 === 0)
    this.timer = setImmediate(this.tick)
  }

  private look (withMemory: boolean): void {
    const [now, busy] = [performance.now(), busyTime()]
    const [block, work] = [now - this.last, busy - this.lastBusy]
    this.last = now
    this.lastBusy = busy
    if (Math.min(block, work) > Math.min(this.found.block, this.found.busy)) {
      Object.assign(this.found, { block, busy: work })
    }
    if (!withMemory && block < 5) return
    const { used_heap_size: heap, external_memory: external } = getHeapStatistics()
    this.found.memory = Math.max(this.found.memory, heap + external)
  }
}

function busyTime (): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
