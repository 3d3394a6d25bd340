// parvis sample --queue: the workers of parvis-server make the pictures. That package is no dependency of this one: it
// is looked for when it is asked for.

import fs from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Image } from '../api/image.js'
import { sampleClass, sampleSeed } from '../api/samples.js'
import { ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { shownPath, visible, withoutMark } from '../base/text.js'
import { hasN, type Method } from '../decoding/method.js'
import { progressBar, type Progress } from './progress.js'
import { classesOf, type SampleFlags, type SampleSource } from './sample-place.js'
import { samplingOf, stepsOf } from './sampling.js'
import { UsageError } from './terminal.js'

/** What is used of parvis-server (server/lib/engine.ts). */
interface Served {
  name: string
  kind: { backend: string, precision: string, weights: string }
  method: Method
  n: number
  classes: number
  labels: readonly string[] | undefined
  width: number
  height: number
  device: string
}
interface Queue {
  models (): Served[]
  load (model: string): Promise<{ seats?: number }>
  draw (request: object, signal: AbortSignal, listener: object): Promise<{
    pictures: Array<{ data: Uint8Array, width: number, height: number }>
  }>
  close (): Promise<void>
}
type Package = { QueueEngine: { open (options: object): Promise<Queue> } }

/** Requests that are on the queue at a time, at least and at most: workers must never wait for this process. */
const [leastAsked, mostAsked] = [16, 512]
/** Milliseconds in which a worker must be found. */
const patience = 10_000

/** @throws UsageError for flags that workers decide */
export function checkQueue (flags: SampleFlags): void {
  const others: Array<keyof SampleFlags> =
    ['transformer', 'tokenizer', 'weights', 'heads', 'grid', 'device', 'precision', 'threads', 'pull']
  const given = others.find(name => flags[name] !== undefined)
  if (given !== undefined) {
    throw new UsageError(`--${given} is decided by the workers: with --queue, give --model with a name that they serve`)
  }
}

/** Connects to the queue for as long as `work` takes. */
export async function withQueue (
  flags: SampleFlags, signal: AbortSignal, work: (source: SampleSource, progress: Progress) => Promise<void>
): Promise<void> {
  const progress = progressBar(flags)
  let queue: Queue | undefined
  try {
    progress.update(0, 1, 'looking for workers')
    const { queueCa } = flags
    const ca = queueCa === undefined
      ? undefined
      : withoutMark(await fs.readFile(queueCa).catch((error: unknown) => { throw fromSystem(error, queueCa, 'read') }))
    const { QueueEngine } = serverPackage()
    queue = await QueueEngine.open({ url: flags.queue!, ...(ca && { ca }), maxWaiting: 1_000_000 })
    await work(await sourceOf(queue, flags, signal), progress)
  } finally {
    progress.stop()
    await queue?.close()
  }
}

function serverPackage (): Package {
  const name = 'parvis-server'
  try {
    return require(name) as Package
  } catch (cause) {
    throw new ParError('NATIVE_UNAVAILABLE',
      '--queue needs the package parvis-server, which is not installed here: npm install parvis-server', { cause })
  }
}

async function sourceOf (queue: Queue, flags: SampleFlags, signal: AbortSignal): Promise<SampleSource> {
  const model = await served(queue, flags.model, signal)
  const { size, seed = 0, count, shard } = flags
  // How many steps a pass holds is the workers' own affair.
  const { greedy, passes: _, n = model.n, ...sampling } = samplingOf(flags)
  const decoding = stepsOf(flags)
  const [width, height] = size === undefined
    ? [model.width, model.height]
    : typeof size === 'number' ? [size, size] : [size.width, size.height]
  // Workers of another kind would make other bytes: all of it is in the run.
  const file = { file: model.name, hash: model.kind.weights }
  const [device, isa] = model.kind.backend.split(/-(.*)/s) as [string, string]
  const classes = classesOf(flags, model.classes, model.labels)
  return {
    run: {
      format: 'parvis samples, version 1', transformer: file, tokenizer: file, n,
      ...(!hasN(model.method) && { method: model.method }),
      sampling: defined({ ...sampling, ...(greedy && { temperature: 0 }) }),
      ...(Object.keys(decoding).length > 0 && { decoding }),
      seed, classes, count: count!, width, height, device, isa, precision: model.kind.precision,
      ...(shard && { shard })
    },
    classes: model.classes,
    labels: model.labels,
    pictures: async function * (start, end, onDone) {
      const { seats = leastAsked } = await queue.load(model.name)
      const atOnce = Math.min(mostAsked, Math.max(leastAsked, 4 * seats))
      const leaving = new AbortController()
      const asked: Array<Promise<{ data: Uint8Array, width: number, height: number }>> = []
      const ask = async (index: number): Promise<{ data: Uint8Array, width: number, height: number }> => {
        const { pictures } = await queue.draw({
          model: model.name, classId: sampleClass(classes, seed, index, model.classes), count: 1,
          seed: sampleSeed(seed, index), size: { width, height }, previews: 0,
          options: defined({ ...sampling, n: flags.tokensPerStep, greedy, ...decoding })
        }, AbortSignal.any([signal, leaving.signal]), {})
        return pictures[0]!
      }
      try {
        for (let next = start, done = 0; done < end - start;) {
          for (; next < end && asked.length < atOnce; next++) {
            const picture = ask(next)
            picture.catch(() => {})
            asked.push(picture)
          }
          const { data, width, height } = await asked.shift()!
          onDone(++done)
          yield new Image(data as Uint8Array<ArrayBuffer>, width, height)
        }
      } finally {
        leaving.abort()
      }
    }
  }
}

/** The model that is asked for, or the first that workers serve. */
async function served (queue: Queue, name: string | undefined, signal: AbortSignal): Promise<Served> {
  for (const until = performance.now() + patience; ;) {
    const models = queue.models()
    const found = name === undefined ? models[0] : models.find(model => model.name === name)
    if (found) return found
    signal.throwIfAborted()
    if (performance.now() > until) {
      throw new UsageError(models.length === 0
        ? 'no worker is on the queue: start one with parvis-server worker --queue'
        : `no worker serves ${visible(name!, 100)}; served are ${models.map(({ name }) => shownPath(name)).join(', ')}`)
    }
    await sleep(200, undefined, { signal }).catch(() => {})
  }
}

const defined = <T extends object>(options: T): Partial<T> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>
