// The clock readings: a transformer's steps, a decode, a cold start. On the CPU a step's promise settles when the step
// is done, so steps are timed one by one, at places spread over the cache; the cache is filled before, in large tables
// that predict nothing, so that a place deep in it costs no whole picture. On CUDA a step's promise settles when the
// step is enqueued, and only readTokens waits for the device: there, and with `full`, whole pictures are timed.

import { spawn } from 'node:child_process'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Call } from '../base/call.js'
import { ParError } from '../base/errors.js'
import type {
  NativeEngine, NativeTokenizer, NativeTransformer, NativeVideoTokenizer
} from '../machine/native.js'
import { weightBytes } from '../models/memory.js'
import { decodeFlops, rowCounts, stepCost, videoDecodeFlops, type Cost } from '../models/shapes.js'
import { codesOf, factorsOf, nbpTokenizer } from '../models/video.js'
import { vq16, vqFactor, vqTokenizer } from '../models/vq.js'
import { tokenizerWeights, transformerWeights, videoTokenizerWeights } from '../models/weights.js'
import { extrapolate, places, spread } from './figures.js'
import { Peers, peersOf, type Torch } from './peers.js'
import { operationsOf } from './profile.js'
import { checkMemory, isCpu, openSession } from './session.js'
import type { Subject } from './subjects.js'
import type { Case, ColdStart, DecodeResult, NotRun, OperationResult, StepCase, StepResult } from './types.js'
import type { RandomWeights } from '../models/random-weights.js'

/** What every measurement needs. */
export interface Bench {
  engine: NativeEngine
  weights: RandomWeights
  call: Call
  /** Timed runs: steps at each place, whole pictures, decodes. */
  repeats: number
  /** Whole pictures, not steps of them. */
  full: boolean
  torch: Torch | undefined
  /** Peers that failed are listed there. */
  notRun: NotRun[]
  /** What is being done now, where it takes long. */
  say: (text: string) => void
  /** performance.now() at which to be done; repeats give way to it, places do not. */
  until: number
}

const maxPlaces = 8
/** Of the time that is left to a result, a peer's part to compile in; the rest is for the pictures. */
const startShare = 0.6

async function timed (work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Lets the waiting threads of whoever ran before go to sleep. */
const settle = async (): Promise<void> => { await sleep(300) }

// ---- peers

/** The programs run the paper's grid and one picture. */
function startPeers (bench: Bench, which: StepCase): Peers {
  const { torch, engine, notRun, say } = bench
  if (!torch) return new Peers([])
  const onCpu = isCpu(engine)
  const isInt8 = which.precision === 'int8'
  const not = which.n === 0
    ? 'There is no program of this model'
    : isInt8
      ? 'Its layers do not multiply activations by 8-bit weights'
      : which.batch !== 1 || which.grid !== 24
        ? 'It is timed with one picture of 24 x 24 tokens only'
        : onCpu && bench.full
          ? 'On the CPU it is timed in steps, not in whole pictures'
          : undefined
  if (not !== undefined) {
    if (isInt8) notRun.push({ what: `PyTorch: ${caseText(which)}`, reason: not })
    if (torch.authors !== undefined) notRun.push({ what: `PyTorch, authors' code: ${caseText(which)}`, reason: not })
    return new Peers([])
  }
  return new Peers(peersOf(torch, engine.device, which.model, which.n, engine.threads,
    patience(bench, startShare) / 1000), say)
}

const caseText = ({ model, n, precision, device, batch, grid }: StepCase): string =>
  `${model}, n = ${n}, ${precision}, ${device}, batch ${batch}, ${grid} x ${grid}`

/** How long a peer may take to start or to answer: a part of what is left, but always so long that it can come up. */
function patience ({ engine, until }: Bench, part = 1): number {
  return Math.max(isCpu(engine) ? 120_000 : 30_000, part * (until - performance.now()))
}

// ---- a step of the transformer

/** Loads once; measures the batches and grids that `each` asks for. */
export async function withTransformer<T> (bench: Bench, { model }: Subject, precision: Case['precision'], each: (
  native: NativeTransformer, loadMs: number
) => Promise<T>): Promise<T> {
  const list = transformerWeights(model)
  const { call, engine, weights } = bench
  checkMemory(engine, weightBytes(isCpu(engine) ? 'cpu' : 'cuda', model, precision), 'The weights')
  let native: NativeTransformer | undefined
  try {
    const loadMs = await timed(async () => {
      native = await call.hold(engine.loadTransformer(weights.file, weights.weights(list), model, precision,
        call.cancel))
    })
    return await each(native!, loadMs)
  } finally {
    if (native) call.release(native)
  }
}

export async function measureStep (
  bench: Bench, subject: Subject, which: StepCase, native: NativeTransformer, loadMs: number
): Promise<StepResult> {
  const { engine, call } = bench
  // Steps that differ in size are timed as whole pictures.
  const whole = bench.full || !isCpu(engine) || which.n === 0
  const session = await openSession(bench, subject, which, native, whole)
  const { model, plan, steps, streams } = session
  try {
    const measured = whole ? await wholePictures() : await stepsAtPlaces()
    const { cost, msPerBatch, ms } = measured
    const bytes = cost.weightBytes + cost.cacheBytes
    const seconds = ms.median / 1000
    const msPerImage = msPerBatch / which.batch
    return {
      operation: 'step',
      ...which,
      steps: steps.length,
      timedSteps: measured.timedSteps,
      whole,
      ms,
      places: measured.places,
      msPerBatch,
      msPerImage,
      imagesPerSecond: 1000 / msPerImage,
      tokensPerSecond: 1000 / msPerImage * plan.tokens,
      ...cost,
      bytes,
      gigabytesPerSecond: bytes / seconds / 1e9,
      gigaflops: cost.flops / seconds / 1e9,
      loadMs,
      firstStepMs: measured.firstStepMs,
      ceilings: null,
      torch: measured.torch
    }
  } finally {
    session.release()
  }

  /** What a group's step costs on the average over `sees`. */
  function averageCost (
    some: ReadonlyArray<{ rows: number, queries?: number, predictions?: number, sees: number, steps: number }>
  ): Cost {
    const count = some.reduce((sum, one) => sum + one.steps, 0)
    const total = { weightBytes: 0, cacheBytes: 0, flops: 0 }
    for (const one of some) {
      const cost = stepCost(model, which.precision, { ...one, sequences: streams })
      for (const key of ['weightBytes', 'cacheBytes', 'flops'] as const) total[key] += cost[key] * one.steps / count
    }
    return total
  }

  async function wholePictures (): Promise<Measured> {
    const { repeats, until, notRun } = bench
    const picture = async (): Promise<void> => {
      const all = steps.map(async (_, k) => await session.run(k)) // in order: one queue
      all.forEach(one => { one.catch(() => {}) })
      await session.finish()
      await call.wait(Promise.all(all))
    }
    const firstStepMs = await timed(async () => {
      await call.wait(session.run(0))
      await session.finish()
    })
    const peers = startPeers(bench, which)
    try {
      // One after the other, and compiled before anything is timed; what it takes is said beside the times.
      const command = `picture ${which.precision}`
      for (const peer of peers.alive) {
        bench.say(`${caseText(which)}: PyTorch, ${peer.name}`)
        await call.wait(peer.ask(command, patience(bench, startShare)))
      }
      // A CPU needs no picture to get warm; on a GPU the first one also makes what later ones use again.
      if (!isCpu(engine)) await picture()
      bench.say(caseText(which))
      const times: number[] = []
      let round = 0
      while (times.length < repeats && (times.length === 0 || performance.now() + round < until)) {
        const started = performance.now()
        times.push(await timed(picture))
        for (const peer of peers.alive) await call.wait(peer.time(command, 1, patience(bench), false))
        round = performance.now() - started
      }
      return figures(times, peers)
    } finally {
      notRun.push(...peers.notRun(caseText(which)))
      peers.end()
    }

    function figures (times: readonly number[], peers: Peers): Measured {
      const count = steps.length
      const batch = spread(times)
      const ms = { median: batch.median / count, least: batch.least / count, greatest: batch.greatest / count }
      return {
        ms,
        msPerBatch: batch.median,
        timedSteps: times.length * count,
        places: [],
        cost: averageCost(steps.map(({ rows }) => ({ ...rowCounts(model, rows), steps: 1 }))),
        firstStepMs,
        torch: peers.results(which.precision, ms, count)
      }
    }
  }

  async function stepsAtPlaces (): Promise<Measured> {
    const { repeats, until, notRun } = bench
    const { n, precision } = which
    const run = async (k: number): Promise<void> => { await call.wait(session.run(k)) }
    const firstStepMs = await timed(async () => { await run(0) })
    await session.fill(0)

    const peers = startPeers(bench, which)
    try {
      const chosen = places({ steps, tokensPerStep: n, initial: 'sequential' }, maxPlaces)
      const found: Array<{ sees: number, rows: number, ms: number, steps: number, single: boolean }> = []
      const groups: number[] = []
      let timedSteps = 0
      // it loads PyTorch and makes its weights
      for (const peer of peers.alive) await call.wait(peer.ask(`step ${precision} 0`, patience(bench)))
      /** Of one step, peers included, at the place before. */
      let cost = 0
      for (const [index, place] of chosen.entries()) {
        const sees = plan.tokensAfter[place.step]!
        if (peers.alive.length > 0) await settle()
        const started = performance.now()
        const warm = await timed(async () => { await run(place.step) })
        // What is left of the time, over the places that are left. Peers may take several times as long as we do.
        const each = (until - started) / (chosen.length - index) / Math.max(cost, warm * (1 + peers.alive.length)) - 1
        const count = Math.max(1, Math.min(repeats, Math.floor(each)))
        const times: number[] = []
        const from = Math.max(place.from, Math.min(place.step - (count >> 1), place.to - count))
        for (let i = 0; i < count; i++) {
          times.push(await timed(async () => { await run(Math.min(from + i, place.to - 1)) }))
        }
        timedSteps += count
        if (!place.single) groups.push(...times)
        found.push({
          sees, rows: place.single ? 1 : n, ms: spread(times).median, steps: place.steps, single: place.single
        })
        for (const peer of place.single ? [] : peers.alive) {
          if (peer.times.length > 0 && performance.now() > until) continue
          await settle()
          await call.wait(peer.time(`step ${precision} ${sees - n}`, count, patience(bench)))
        }
        if (!place.single) cost = (performance.now() - started) / (count + 1)
      }
      const ms = spread(groups)
      return {
        ms,
        msPerBatch: extrapolate(found),
        timedSteps,
        places: found.map(({ sees, ms, steps }) => ({ sees, ms, steps })),
        cost: averageCost(found.filter(({ single }) => !single)),
        firstStepMs,
        torch: peers.results(precision, ms)
      }
    } finally {
      notRun.push(...peers.notRun(caseText(which)))
      peers.end()
    }
  }
}

type Measured = Pick<StepResult, 'ms' | 'msPerBatch' | 'timedSteps' | 'places' | 'firstStepMs' | 'torch'> & {
  cost: Cost
}

/** The launches of a step at half of the cache, as the session records them. */
export async function profileStep (
  bench: Bench, subject: Subject, which: StepCase, native: NativeTransformer
): Promise<OperationResult[]> {
  const { call, repeats, until } = bench
  const session = await openSession(bench, subject, which, native, false)
  try {
    const { plan } = session
    const middle = plan.tokensAfter.findIndex(tokens => tokens >= plan.tokens / 2)
    await session.fill(middle)
    const run = async (): Promise<void> => { await call.wait(session.run(middle)) }
    await run()
    await session.finish()
    await call.wait(session.native.profile(true))
    let runs = 0
    do {
      await run()
      runs++
    } while (runs < repeats && performance.now() < until)
    const records = await call.wait(session.native.profile(false))
    return operationsOf(records, runs, { partOf: 'step', ...which })
  } finally {
    session.release()
  }
}

// ---- a decode

/** Loads VQ-16 for as long as `each` takes. */
async function withTokenizer<T> (bench: Bench, precision: Case['precision'],
  each: (native: NativeTokenizer, loadMs: number) => Promise<T>): Promise<T> {
  const { call, engine, weights } = bench
  const model = vqTokenizer(vq16)
  let native: NativeTokenizer | undefined
  try {
    const loadMs = await timed(async () => {
      native = await call.hold(
        engine.loadTokenizer(weights.file, weights.weights(tokenizerWeights(model)), model, precision, call.cancel)
      )
    })
    return await each(native!, loadMs)
  } finally {
    if (native) call.release(native)
  }
}

/** Decodes a batch in the tokenizer's own size. */
async function decode ({ call }: Bench, { grid, batch }: Case, native: NativeTokenizer): Promise<void> {
  const tokens = Int32Array.from({ length: batch * grid * grid }, (_, i) => i * 7919 % vq16.codebookSize)
  const pixels = grid * vqFactor(vq16)
  const size = { count: batch, gridHeight: grid, gridWidth: grid, outHeight: pixels, outWidth: pixels }
  await call.wait(native.decode(tokens, { ...size, format: 'uint8' }, call.cancel))
}

export async function measureDecode (bench: Bench, which: Case): Promise<DecodeResult> {
  const { call, engine, repeats, torch, until, notRun } = bench
  const { grid, batch } = which
  // On a GPU there is no plain decoder as yet.
  const available = torch && (isCpu(engine) ? torch : { ...torch, gpu: undefined })
  const programs = available && batch === 1 ? peersOf(available, engine.device, 'B', 1, engine.threads) : []
  const peers = new Peers(programs, bench.say)
  try {
    return await withTokenizer(bench, which.precision, async (native, loadMs) => {
      const ours = async (): Promise<void> => { await decode(bench, which, native) }
      const warm = await timed(ours)
      for (const peer of peers.alive) await call.wait(peer.ask(`vq ${grid}`, patience(bench)))
      const times: number[] = []
      let round = warm
      while (times.length < repeats && (times.length === 0 || performance.now() + round < until)) {
        const started = performance.now()
        if (peers.alive.length > 0) await settle()
        times.push(await timed(ours))
        for (const peer of peers.alive) {
          await settle()
          await call.wait(peer.time(`vq ${grid}`, 1, patience(bench), false))
        }
        round = performance.now() - started
      }
      const ms = spread(times)
      const flops = batch * decodeFlops(grid)
      return {
        operation: 'decode',
        model: 'VQ-16',
        ...which,
        pixels: grid * vqFactor(vq16),
        ms,
        msPerImage: ms.median / batch,
        imagesPerSecond: 1000 * batch / ms.median,
        flops,
        gigaflops: flops / ms.median / 1e6,
        loadMs,
        ceilings: null,
        torch: peers.results('float32', ms) // the only one that the program has
      }
    })
  } finally {
    notRun.push(...peers.notRun(`VQ-16 decode, ${which.precision}, ${which.device}, ${which.grid} x ${which.grid}`))
    peers.end()
  }
}

/** A clip of the paper's size by the tokenizer of videos at its published widths. */
export async function measureVideoDecode (bench: Bench, which: Case): Promise<DecodeResult> {
  const { call, engine, weights, repeats, until } = bench
  const grid = [videoFrames, which.grid, which.grid] as const
  const factors = factorsOf(nbpTokenizer)
  let native: NativeVideoTokenizer | undefined
  try {
    const loadMs = await timed(async () => {
      native = await call.hold(engine.loadVideoTokenizer(weights.file,
        weights.weights(videoTokenizerWeights(nbpTokenizer)), nbpTokenizer, which.precision, call.cancel))
    })
    const codes = codesOf(nbpTokenizer)
    const clip = async (): Promise<void> => {
      const decoder = await call.hold(native!.createDecoder({ rows: grid[1], columns: grid[2] }))
      for (let frame = 0; frame < grid[0]; frame++) {
        const tokens = Int32Array.from({ length: grid[1] * grid[2] }, (_, i) => (frame * 31 + i) * 7919 % codes)
        await call.wait(decoder.decode(tokens, { format: 'uint8' }, call.cancel))
      }
      call.release(decoder)
    }
    let round = await timed(clip)
    const times: number[] = []
    while (times.length < repeats && (times.length === 0 || performance.now() + round < until)) {
      round = await timed(clip)
      times.push(round)
    }
    const ms = spread(times)
    const flops = videoDecodeFlops(nbpTokenizer, grid)
    return {
      operation: 'decode', model: 'NBP tokenizer', ...which, frames: 1 + factors.time * (grid[0] - 1),
      pixels: which.grid * factors.space, ms, msPerImage: ms.median, imagesPerSecond: 1000 / ms.median, flops,
      gigaflops: flops / ms.median / 1e6, loadMs, ceilings: null, torch: []
    }
  } finally {
    if (native) call.release(native)
  }
}

/** Frames of tokens in a clip of the paper. */
const videoFrames = 5

/** The launches of decodes, as the tokenizer records them. */
export async function profileDecode (bench: Bench, which: Case): Promise<OperationResult[]> {
  const { call, repeats, until } = bench
  return await withTokenizer(bench, which.precision, async native => {
    await decode(bench, which, native)
    await call.wait(native.profile(true))
    let runs = 0
    do {
      await decode(bench, which, native)
      runs++
    } while (runs < repeats && performance.now() < until)
    const records = await call.wait(native.profile(false))
    return operationsOf(records, runs, { partOf: 'decode', model: 'VQ-16', ...which })
  })
}

// ---- cold start

// The paths are in its text: not every runtime passes arguments to it.
const coldScript = (device: string): string => `
  const { Par } = require(${JSON.stringify(path.join(__dirname, '..', 'index.js'))})
  const timed = async work => { const start = performance.now(); await work(); return performance.now() - start }
  const importMs = performance.now() // since the process began
  ;(async () => {
    let par
    const loadMs = await timed(async () => { par = await Par.load({ device: ${JSON.stringify(device)} }) })
    const picture = () => par.generate({ classId: 7, n: 4, seed: 1 })
    const firstImageMs = await timed(picture)
    const later = []
    for (let i = 0; i < 5; i++) later.push(await timed(picture))
    console.log(JSON.stringify({ importMs, loadMs, firstImageMs, laterImageMs: later.sort((a, b) => a - b)[2] }))
    await par.dispose()
  })()`

/** The embedded model in a process of its own: its weights come from real files, though from the system's cache. */
export async function measureColdStart (device: string, signal?: AbortSignal): Promise<ColdStart> {
  const child = spawn(process.execPath, ['-e', coldScript(device)],
    { stdio: ['ignore', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL' })
  let [out, noise] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { noise += text })
  return await new Promise<ColdStart>((resolve, reject) => {
    child.on('error', error => { reject(signal?.aborted ? signal.reason : error) })
    child.on('close', code => {
      if (code !== 0) {
        reject(new ParError('INTERNAL',
          'A fresh process could not make a ' +
            `picture: ${noise.trim().split('\n').find(line => line.includes('Error')) ?? `exit code ${code}`}`))
      } else resolve({ device, ...(JSON.parse(out) as Omit<ColdStart, 'device'>) })
    })
  })
}
