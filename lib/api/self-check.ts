// Before a GPU is trusted it makes a picture with the embedded model, and runs a layer of a published size
// (layer-check.ts); the CPU says whether both are right: kernels that a driver or a device runs wrongly would make
// pictures that look like those of a bad model. A fraction of a second (predicted: no GPU has run it), once for each
// device, driver and version of this package: the answer is kept in the user's cache folder.

import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { Calls, type Call } from '../base/call.js'
import { ParError } from '../base/errors.js'
import { writePart } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import { run } from '../decoding/generation.js'
import { score } from '../decoding/scoring.js'
import { userCaches } from '../hub/location.js'
import { identityOf } from '../machine/device.js'
import { embedded } from '../models/embedded.js'
import { Models } from '../models/models.js'
import { decodePictures } from '../pictures/pixels.js'
import type { GeneratedImage } from './image.js'
import { layerDifference } from './layer-check.js'
import { checkGenerate, checkLoad, checkScore } from './options.js'

/**
 * By how much the results of a GPU in bfloat16 may differ from those of the CPU in float32. Those of the simulated GPU
 * differ by 0.1, 0.023, 0.003, 1 and 0.006; logits go from -11 to 19. The layer's are a share of its largest logit.
 */
const allowed = { logits: 0.6, logProbs: 0.3, meanLogProb: 0.03, pixels: 10, layer: 0.05 }
type Measure = keyof typeof allowed

/** Its steps have single tokens first, then groups of sixteen: the kernels for a few rows run, and those for many. */
const n = 16
const guidanceScale = 1.5

/** What was found of a device: why it cannot be trusted, or nothing. */
export interface Verdict { problem?: string }

/** `lasts`: the results were compared, so that the next check would say the same. A device that failed may recover. */
interface Answer { verdict: Verdict, lasts: boolean }

/** Of this process, by {@link identityOf}. */
const found = new Map<string, Promise<Answer>>()

/**
 * Why the device cannot be trusted; undefined where it can, where `PARVIS_SELF_CHECK=0`, or where the check itself
 * could not run, which what is loaded then will say better.
 * @param device 'cuda:N'
 */
export async function distrust (device: string, call: Call): Promise<string | undefined> {
  return (await call.wait(selfCheck(device)))?.problem
}

/** The same for everybody who asks; undefined where nothing was checked. */
export async function selfCheck (device: string): Promise<Verdict | undefined> {
  const asked = process.env.PARVIS_SELF_CHECK
  if (asked === '0') return undefined
  const identity = await identityOf(device)
  let checking = found.get(identity)
  if (!checking) {
    checking = asked === 'always' ? compare(device) : known(identity, device)
    found.set(identity, checking)
    const forget = (): void => { found.delete(identity) }
    checking.then(({ lasts }) => { if (!lasts) forget() }, forget)
  }
  return await checking.then(({ verdict }) => verdict, () => undefined)
}

async function known (identity: string, device: string): Promise<Answer> {
  const file = cacheFile()
  if (file === undefined) return await compare(device)
  const own = (await readVerdicts(file))[identity]
  if (own) return { verdict: own, lasts: true }
  const answer = await compare(device)
  const { verdict, lasts } = answer
  if (!lasts) return answer
  // Others may have written meanwhile. Where nothing can be kept, the next process checks again.
  await makeFolder(path.dirname(file)).then(async () => {
    const text = JSON.stringify({ ...await readVerdicts(file), [identity]: verdict }, undefined, 2)
    await writePart(file, async handle => { await handle.writeFile(text + '\n') })
  }).catch(() => {})
  return answer
}

/** Undefined where the user has no folder of his own. */
function cacheFile (): string | undefined {
  try {
    return path.join(userCaches(), 'parvis', 'self-check.json')
  } catch {
    return undefined
  }
}

/** Nothing of a file that cannot be read, or of entries that are none. */
async function readVerdicts (file: string): Promise<Record<string, Verdict>> {
  const verdicts: Record<string, Verdict> = Object.create(null) as Record<string, Verdict>
  try {
    const all = JSON.parse(await readFile(file, 'utf8')) as unknown
    for (const [identity, verdict] of Object.entries(all as object)) {
      const { problem } = verdict as { problem?: unknown }
      if (problem === undefined) verdicts[identity] = {}
      else if (typeof problem === 'string') verdicts[identity] = { problem: problem.slice(0, 1000) }
    }
  } catch {}
  return verdicts
}

/** Errors that say nothing of the device's results: memory that others have, a package without its model. */
const unrelated = new Set<unknown>(['OUT_OF_MEMORY', 'FILE_NOT_FOUND'])

/** @throws ParError where the check could not run */
async function compare (device: string): Promise<Answer> {
  const calls = new Calls()
  const opened: Models[] = []
  const open = async (options: object, call: Call): Promise<Models> => {
    const models = await Models.open({ ...checkLoad(options), embedded }, call)
    opened.push(models)
    return models
  }
  try {
    const differences = await calls.run(undefined, async call => {
      const [gpu, cpu] = [await open({ device, precision: 'bfloat16' }, call),
        await open({ device: 'cpu', precision: 'float32' }, call)]
      return { ...await differencesOf(gpu, cpu, calls, call), layer: await layerDifference(device, call) }
    })
    const wrong = (Object.keys(allowed) as Measure[]).find(name => !(differences[name] <= allowed[name])) // or NaN
    const verdict = wrong === undefined
      ? {}
      : {
          problem: `its results are wrong: in a test with ${wrong === 'layer' ? 'random weights' : 'the embedded model'} ` +
            `${words[wrong]} differ from the CPU's by ` +
            `${differences[wrong].toPrecision(2)}, where ${allowed[wrong]} is allowed. Please report that with the ` +
            'output of `npx parvis doctor`. PARVIS_SELF_CHECK=0 skips the test'
        }
    return { verdict, lasts: true }
  } catch (error) {
    if (!(error instanceof ParError) || unrelated.has(error.code)) throw error
    return { verdict: { problem: `a test of its results failed: ${error.message}` }, lasts: false }
  } finally {
    await Promise.all(opened.map(async models => { await models.dispose().catch(() => {}) }))
  }
}

const words: Record<Measure, string> = {
  logits: 'logits', logProbs: 'log-probabilities', meanLogProb: 'log-probabilities on average', pixels: 'pixels',
  layer: 'logits behind a layer of L'
}

/** What the GPU makes, and what the CPU finds of it. */
async function differencesOf (
  gpu: Models, cpu: Models, calls: Calls, call: Call
): Promise<Record<Exclude<Measure, 'layer'>, number>> {
  const image = await generated(gpu, calls, call)
  const count = image.tokens.length
  const request = checkScore({
    tokens: [image.tokens], classId: 0, n, guidanceScale, method: 'full',
    logits: Array.from({ length: count }, (_, i) => i)
  })
  const [[own], [right]] = [await score(gpu, request, call), await score(cpu, request, call)]
  const size = right!.logits!.length / count
  // Each token is the likeliest one of the CPU, or as good as that.
  let behind = 0
  for (const [position, cell] of image.tokenOrder.entries()) {
    const logits = right!.logits!.subarray(position * size, (position + 1) * size)
    behind = Math.max(behind, logits.reduce((a, b) => Math.max(a, b)) - logits[image.tokens[cell]!]!)
  }
  const { grid } = cpu.transformer!
  const decoded = await decodePictures(cpu.tokenizerPart(), call, [image.tokens], grid, undefined, 'uint8')
  return {
    logits: Math.max(behind, largest(own!.logits!, right!.logits!)),
    logProbs: largest(own!.logProbs, right!.logProbs),
    meanLogProb: own!.logProbs.reduce((sum, value, i) => sum + Math.abs(value - right!.logProbs[i]!), 0) / count,
    pixels: largest(image.data, decoded[0]!.data)
  }
}

async function generated (models: Models, calls: Calls, call: Call): Promise<GeneratedImage> {
  const request = checkGenerate({ classId: 0, n, guidanceScale, greedy: true, passes: 2 })
  for await (const { images } of run(models, calls, request, call)) if (images) return images[0]!
  throw new ParError('INTERNAL', 'A picture was not finished')
}

/** NaN where one of them has it. */
function largest (a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = a.length === b.length ? 0 : Infinity
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!)
    if (!(difference <= most)) most = difference
  }
  return most
}
