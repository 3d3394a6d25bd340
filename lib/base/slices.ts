// Long work on the JavaScript thread, in slices: other work runs in between, and a signal that aborts is seen. Slices
// are charged by the work that was done (values, characters, pairs looked at), never by how often something was called:
// what a file asks for in a few bytes may be long.

import { performance } from 'node:perf_hooks'
import { setImmediate } from 'node:timers/promises'

/** Milliseconds that the thread is held at a stretch. */
const sliceTime = 10
/** Units of work between two looks at the clock. A unit takes some 10 to 100 ns. */
const unitsALook = 2048

export class Slices {
  private units = 0
  private since = performance.now()

  constructor (private readonly signal?: AbortSignal) {}

  /** Charges `units` of work that was done. True when the slice is over: then `await rest()`. */
  spend (units: number): boolean {
    this.units += units
    if (this.units < unitsALook) return false
    this.units = 0
    return performance.now() - this.since >= sliceTime
  }

  /** Lets other work run. Rejects with `signal.reason` when the signal aborted. */
  async rest (): Promise<void> {
    await setImmediate()
    this.signal?.throwIfAborted()
    this.since = performance.now()
  }
}

/** Values that are sorted natively at a stretch: some 5 ms. */
const sortedAtOnce = 1 << 15

/** Sorts in slices. Returns the sorted values, `values` or another array of that length. */
export async function sortInSlices (values: Float64Array, slices: Slices): Promise<Float64Array> {
  const { length } = values
  for (let from = 0; from < length; from += sortedAtOnce) {
    values.subarray(from, from + sortedAtOnce).sort()
    if (slices.spend(sortedAtOnce)) await slices.rest()
  }
  let [source, target] = [values, length > sortedAtOnce ? new Float64Array(length) : values]
  for (let width = sortedAtOnce; width < length; width *= 2) {
    for (let from = 0; from < length; from += 2 * width) {
      const [middle, end] = [Math.min(from + width, length), Math.min(from + 2 * width, length)]
      let [left, right] = [from, middle]
      for (let at = from; at < end; at++) {
        target[at] = right >= end || (left < middle && source[left]! <= source[right]!)
          ? source[left++]!
          : source[right++]!
        if (slices.spend(1)) await slices.rest()
      }
    }
    ;[source, target] = [target, source]
  }
  return source
}

/** How many of the ascending `values` are below `value`. */
export function countBelow (values: Float64Array, value: number): number {
  let [low, high] = [0, values.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (values[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}
