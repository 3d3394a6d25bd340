// Memory that threads share, and whether there is enough of it: said before it is taken, because a process that the
// system stops for its memory says nothing.

import { outOfMemory, ParError } from '../base/errors.js'
import { isError } from '../base/realm.js'

/** @param what takes the memory: 'features' */
export function checkMemory (bytes: number, what: string): void {
  const free = process.availableMemory()
  if (bytes > free && process.env.PARVIS_MEMORY_CHECK !== '0') throw short(bytes, free, what)
}

function short (bytes: number, free: number, what: string): ParError {
  return new ParError('OUT_OF_MEMORY', `Not enough memory: ${what} take ${(bytes / 1e9).toPrecision(3)} GB, and ` +
    `${(free / 1e9).toPrecision(3)} GB are free. Free memory, or evaluate fewer pictures or features`)
}

/** Shared memory for so many numbers. Pages that nothing is written to cost nothing. */
export function reserve (count: number, size: 8, what: string): Float64Array
export function reserve (count: number, size: 4 | 8, what: string): Float64Array | Float32Array
export function reserve (count: number, size: 4 | 8, what: string): Float64Array | Float32Array {
  const bytes = count * size
  checkMemory(bytes, what)
  try {
    const memory = new SharedArrayBuffer(bytes)
    return size === 8 ? new Float64Array(memory) : new Float32Array(memory)
  } catch (error) {
    if (isError(error) && error.name === 'RangeError') throw short(bytes, process.availableMemory(), what)
    throw outOfMemory(error) ?? error
  }
}

/** The same for numbers in work. */
export function shared (count: number): Float64Array {
  return reserve(count, 8, 'matrices')
}
