// How many rows a step needs before more of them bring nothing: measured while batches run. A step reads all weights
// whatever its rows are, so that the first rows of a small step are nearly free; from some number on, twice the rows
// take twice the time. More sequences than that only make all of them slower: the next one had better wait.

/** Steps of similar size that are looked at: enough that a few which were disturbed do not count. */
const remembered = 15
/** Fewer say nothing. */
const least = 5
/** Steps of any size after which one that has not come again is forgotten: the machine may be another one by then. */
const forgotten = 1000
/** Sizes that come so near to the best throughput are as good. */
const enough = 0.97

interface Bucket {
  /** Rows of the largest step in it. */
  rows: number
  /** Rows a millisecond, of the last steps. */
  throughputs: number[]
  next: number
  /** Steps of any size as of its last one. */
  last: number
}

export class Pace {
  /** By the logarithm of the number of rows, two to an octave. */
  readonly #buckets = new Map<number, Bucket>()
  #limit: number | undefined
  #steps = 0

  /** A step of so many rows took so long, now and then with other work of the device between. */
  add (rows: number, ms: number): void {
    if (rows < 1 || !(ms > 0)) return
    const place = Math.floor(2 * Math.log2(rows))
    const bucket = this.#buckets.get(place) ?? { rows, throughputs: [], next: 0, last: 0 }
    bucket.last = ++this.#steps
    bucket.rows = Math.max(bucket.rows, rows)
    bucket.throughputs[bucket.next] = rows / ms
    bucket.next = (bucket.next + 1) % remembered
    this.#buckets.set(place, bucket)
    for (const [key, { last }] of this.#buckets) if (this.#steps - last > forgotten) this.#buckets.delete(key)
    this.#limit = undefined
  }

  /** Rows of a step beyond which nothing is gained. Infinity: that is not known, or more would still help. */
  get limit (): number {
    this.#limit ??= this.#find()
    return this.#limit
  }

  #find (): number {
    const sizes = [...this.#buckets.values()].filter(({ throughputs }) => throughputs.length >= least)
      .map(({ rows, throughputs }) => ({ rows, throughput: usual(throughputs) })).sort((a, b) => a.rows - b.rows)
    const best = Math.max(...sizes.map(({ throughput }) => throughput))
    const found = sizes.findIndex(({ throughput }) => throughput >= enough * best)
    return found < 0 || found === sizes.length - 1 ? Infinity : sizes[found]!.rows
  }
}

/** The upper quartile: decodings between two steps make them slower, never faster. */
function usual (values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length * 3 >> 2]!
}
