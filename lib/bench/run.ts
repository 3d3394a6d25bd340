// The order of a run: one file of random weights; for each device an engine; for each model, n and precision one load,
// on which all batches and grids are measured; then decodes. Where asked for, a profile of the launches of each step
// and decode follows it. Ceilings are measured before and after every result. What cannot be run here (a model that
// does not fit into memory) is listed with the reason and does not end the run.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { Call } from '../base/call.js'
import { choose, versionText } from '../machine/device.js'
import { ParError } from '../base/errors.js'
import { createEngine } from '../machine/engine.js'
import { addon, type Precision } from '../machine/native.js'
import type { Device } from '../machine/device.js'
import { nbpTokenizer } from '../models/video.js'
import { vq16, vqTokenizer } from '../models/vq.js'
import { tokenizerWeights, transformerWeights, videoTokenizerWeights } from '../models/weights.js'
import { better, shares } from './figures.js'
import {
  measureColdStart, measureDecode, measureStep, measureVideoDecode, profileDecode, profileStep, withTransformer,
  type Bench
} from './measure.js'
import type { Torch } from './peers.js'
import type { Subject } from './subjects.js'
import type { Ceilings, Environment, NotRun, OperationResult, Report, Result } from './types.js'
import { randomWeights } from '../models/random-weights.js'

const { version } = require('../../package.json') as { version: string }

export interface RunOptions {
  subjects: readonly Subject[]
  batches: readonly number[]
  /** Tokens a side, where a model has no grid of its own. */
  grids: readonly number[]
  devices: readonly Device[]
  precisions: ReadonlyArray<'auto' | Precision>
  /** 0: one a core. */
  threads: number
  repeats: number
  full: boolean
  /** What the whole run should take at most; repeats give way to it. */
  seconds: number
  decode: boolean
  /** The launches of the decodes, too. */
  operations: boolean
  coldStart: boolean
  torch: Torch | undefined
  /** Makes the run again. */
  command: string
  signal?: AbortSignal
  onProgress?: (done: number, total: number, text: string) => void
}

/** @throws ParError `INVALID_OPTION` for an n and a grid that do not fit together, `DEVICE_UNAVAILABLE` */
export async function runBench (options: RunOptions): Promise<Report> {
  const { subjects, batches, grids, signal } = options
  const gridsOf = ({ side }: Subject): readonly number[] => side === undefined ? grids : [side]
  for (const subject of subjects) for (const side of gridsOf(subject)) subject.plan(side)
  const call = new Call(signal)
  try {
    // ---- what is to be done
    const targets: Array<{ device: string, precision: Precision }> = []
    for (const device of options.devices) {
      for (const precision of options.precisions) {
        const chosen = await call.wait(choose(device, precision))
        if (!targets.some(one => one.device === chosen.device && one.precision === chosen.precision)) {
          targets.push({ device: chosen.device, precision: chosen.precision })
        }
      }
    }
    const devices = [...new Set(targets.map(({ device }) => device))]
    const casesOf = (subject: Subject): number => batches.length * gridsOf(subject).length
    const cases = subjects.reduce((sum, subject) => sum + casesOf(subject), 0)
    const decodeGrids = [...new Set(subjects.filter(({ frames }) => frames === undefined).flatMap(gridsOf))]
    const clipGrids = [...new Set(subjects.filter(({ frames }) => frames !== undefined).flatMap(gridsOf))]
    const each = options.operations ? 2 : 1
    const decodes = options.decode ? each * batches.length * decodeGrids.length + clipGrids.length : 0
    const coldStarts = options.coldStart ? devices.length : 0
    const total = targets.length * (cases * each + decodes) + coldStarts
    const end = performance.now() + options.seconds * 1000
    let done = 0
    /** One more case begins: its share of the time that is left. */
    const begin = (text: string): number => {
      options.onProgress?.(done, total, text)
      const left = total - done++
      return performance.now() + Math.max(0, end - performance.now()) / left
    }

    const environment = await call.wait(describeMachine(devices, options.threads, options.torch))
    const results: Result[] = []
    const operations: OperationResult[] = []
    const notRun: NotRun[] = []
    /** What lies in the device or in the request, not in parvis, ends one case only. */
    const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
      try {
        await work()
      } catch (error) {
        call.check()
        if (!(error instanceof ParError) || error.code !== 'OUT_OF_MEMORY') throw error
        notRun.push({ what, reason: error.message })
      }
    }

    // ---- measurements
    const lists = [...subjects.map(({ model }) => transformerWeights(model)),
      ...(options.decode && decodeGrids.length > 0 ? [tokenizerWeights(vqTokenizer(vq16))] : []),
      ...(options.decode && clipGrids.length > 0 ? [videoTokenizerWeights(nbpTokenizer)] : [])]
    const weights = await randomWeights(lists, signal)
    try {
      for (const device of devices) {
        const engine = createEngine(device, options.threads)
        try {
          const look = async (): Promise<Ceilings> => await call.wait(engine.measureCeilings())
          let before = await look()
          /** The greater of what was measured before and is measured now. */
          const ceilings = async (): Promise<Ceilings> => {
            const after = await look()
            const best = better(before, after)
            before = after
            return best
          }
          const add = async (result: Result): Promise<void> => {
            results.push({ ...result, ...shares(result, await ceilings()) })
          }
          const profiled = async (
            what: string, profile: (until: number) => Promise<OperationResult[]>
          ): Promise<void> => {
            if (!options.operations) return
            const until = begin(`${what}, operations`)
            await attempt(`${what}, operations`, async () => {
              const found = await profile(until)
              const best = await ceilings()
              operations.push(...found.map(one => ({ ...one, ...shares(one, best) })))
            })
          }
          const bench: Omit<Bench, 'until'> = {
            engine, weights, call, repeats: options.repeats, full: options.full, torch: options.torch, notRun,
            say: text => options.onProgress?.(done - 1, total, text)
          }
          for (const { precision } of targets.filter(one => one.device === device)) {
            for (const subject of subjects) {
              const { name: model, n } = subject
              const name = `${model}${n > 0 ? `, n = ${n}` : ''}, ${precision}, ${device}`
              const first = done
              await attempt(name, async () => {
                await withTransformer({ ...bench, until: 0 }, subject, precision, async (native, loadMs) => {
                  for (const grid of gridsOf(subject)) {
                    for (const batch of batches) {
                      const what = `${name}, batch ${batch}, ${grid} x ${grid}`
                      const which = { device, precision, batch, grid, model, n }
                      const until = begin(what)
                      await attempt(what, async () => {
                        await add(await measureStep({ ...bench, until }, subject, which, native, loadMs))
                      })
                      await profiled(what, async until =>
                        await profileStep({ ...bench, until }, subject, which, native))
                    }
                  }
                })
              })
              done = first + casesOf(subject) * each
            }
            for (const grid of options.decode ? decodeGrids : []) {
              for (const batch of batches) {
                const what = `VQ-16 decode, ${precision}, ${device}, batch ${batch}, ${grid} x ${grid}`
                const until = begin(what)
                const which = { device, precision, batch, grid }
                await attempt(what, async () => { await add(await measureDecode({ ...bench, until }, which)) })
                await profiled(what, async until => await profileDecode({ ...bench, until }, which))
              }
            }
            for (const grid of options.decode ? clipGrids : []) {
              const what = `NBP tokenizer decode, ${precision}, ${device}`
              const until = begin(what)
              await attempt(what, async () => {
                await add(await measureVideoDecode({ ...bench, until }, { device, precision, batch: 1, grid }))
              })
            }
          }
        } finally {
          await engine.dispose()
        }
      }
    } finally {
      await weights.remove()
    }
    const coldStart = []
    for (const device of options.coldStart ? devices : []) {
      begin(`cold start, ${device}`)
      coldStart.push(await call.wait(measureColdStart(device, signal)))
    }
    return { format: 'parvis-bench-4', command: options.command, environment, results, operations, notRun, coldStart }
  } finally {
    call.end()
  }
}

// ---- the machine

async function describeMachine (
  devices: readonly string[], threads: number, torch: Torch | undefined
): Promise<Environment> {
  const native = addon()
  const cpu = native.cpu()
  const cuda = devices.some(device => device !== 'cpu') ? await native.cuda() : undefined
  return {
    parvis: version,
    commit: native.build.commit,
    checkout: await checkout(),
    compiler: native.build.compiler + (native.build.cuda && `, nvcc ${native.build.cuda}`),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    processor: os.cpus()[0]?.model.trim() || 'unknown',
    cores: cpu.cores,
    threads: threads || cpu.threads,
    memoryBytes: os.totalmem(),
    isa: cpu.isa,
    gpus: (cuda?.devices ?? []).filter(({ index }) => devices.includes(`cuda:${index}`)).map(({ index, name }) => ({
      device: `cuda:${index}`, name, driver: `CUDA ${versionText(cuda!.driver)}`,
      runtime: `CUDA ${versionText(cuda!.runtime)}`
    })),
    ...(torch && { torch: torch.version }),
    load: os.loadavg()[0]!,
    date: new Date().toISOString().slice(0, 10)
  }
}

/** Commit of the checkout that the package is; '' where it is none, also inside the repository of somebody else. */
async function checkout (): Promise<string> {
  const root = path.join(__dirname, '..', '..')
  if (!fs.existsSync(path.join(root, '.git'))) return ''
  return await promisify(execFile)(
    'git', ['-C', root, 'describe', '--always', '--dirty', '--abbrev=12', '--exclude', '*']
  ).then(({ stdout }) => stdout.trim(), () => '')
}
