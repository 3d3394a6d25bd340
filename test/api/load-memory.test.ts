// Loading takes the weights once, plus at most 300 MB, and converting takes no weights at all: model L (343M
// parameters) from a training checkpoint in float32 with optimizer state and EMA (5.5 GB, most of it sparse on disk,
// the weights behind the EMA), in processes of their own. Times are told, not judged: the machine is shared.

import { execFile } from 'node:child_process'
import { totalmem } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { transformerShapes } from '../checkpoint/tiny.js'
import { Par } from '../../lib/api/par.js'
import { built } from '../support/built.js'
import { rejection } from '../support/fixtures.js'
import { py, writePt } from '../support/pt-writer.js'

const { writeBigCheckpoint } = require('../support/big-checkpoint.js') as {
  writeBigCheckpoint: (model: string, file: string, options: object) => { size: number }
}

/**
 * Runs the body of an async function in a process of its own; it returns what is printed as JSON, `grown` is its peak.
 */
async function inProcess<T> (body: string, ...args: string[]): Promise<T & { grown: number }> {
  const script = `
    const fs = require('node:fs')
    const [, dist, ...args] = process.argv
    const { Par } = require(dist)
    const { convertCheckpoint } = require(dist.replace(/index.js$/, 'checkpoint/index.js'))
    const peak = () => Number(/VmHWM:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
    const start = peak()
    ;(async () => { ${body} })().then(result => { console.log(JSON.stringify({ ...result, grown: peak() - start })) })`
  const { stdout } = await promisify(execFile)(process.execPath,
    ['-e', script, path.join(await built(), 'index.js'), ...args], { env: { ...process.env, NODE_OPTIONS: '' } })
  return JSON.parse(stdout) as T & { grown: number }
}

const load = `
  const begun = performance.now()
  const par = await Par.load({ transformer: args[0], precision: args[1], device: 'cpu' })
  const ms = performance.now() - begun
  const { bytes, official } = par.info.transformer
  await par.dispose()
  return { ms, bytes, official }`

t.test('peak memory of loading and of converting', {
  skip: process.platform !== 'linux' && 'VmHWM is asked'
}, async t => {
  const folder = t.testdir({})
  const [file, converted] = [path.join(folder, 'L.pt'), path.join(folder, 'L.safetensors')]
  await built()
  const { size } = writeBigCheckpoint('L', file, { dtype: 'float32', prefix: '_orig_mod.', optimizer: true, ema: true })
  t.ok(size > 2 ** 32, `${(size / 1e9).toFixed(1)} GB`)

  const check = async (name: string, precision: 'float32' | 'bfloat16', stored: number): Promise<void> => {
    const { grown, bytes, official, ms } = await inProcess<{ bytes: number, official: string, ms: number }>(load, name,
      precision)
    const what = `${path.basename(name)}, ${precision}`
    t.equal(official, 'PAR-L-4x')
    t.ok(bytes > 343e6 * (precision === 'float32' ? 4 : 2) * 0.99, `${what}: ${(bytes / 1e6).toFixed(0)} MB of weights`)
    t.ok(grown < bytes + 300e6,
      `${what}: ${(grown / 1e6).toFixed(0)} MB at the peak for ${(bytes / 1e6).toFixed(0)} MB of weights`)
    t.comment(`${what}: ${ms.toFixed(0)} ms, ${(343e6 * stored / ms / 1e6).toFixed(1)} GB/s`)
  }
  await check(file, 'float32', 4)
  await check(file, 'bfloat16', 4)
  const { grown, bytes } = await inProcess<{ bytes: number }>(
    "return await convertCheckpoint(args[0], args[1], { precision: 'bfloat16' })", file, converted
  )
  t.ok(bytes > 680e6, 'converted')
  t.ok(grown < 300e6, `${(grown / 1e6).toFixed(0)} MB at the peak for converting ${(size / 1e9).toFixed(1)} GB`)
  await check(converted, 'bfloat16', 2)
})

t.test('weights that do not fit into memory are refused before they are read', async t => {
  const file = path.join(t.testdir({}), 'huge.pt')
  // 3B's layers, as many as make one and a half times the memory of this machine; sparse on disk.
  const layers = Math.ceil(1.5 * totalmem() / (4 * (4 * 3200 ** 2 + 3 * 3200 * 8704)))
  const huge = transformerShapes({ layers, dim: 3200, vocabulary: 16384, classes: 1000, feedForward: 8704 })
  const { size } = writePt(file,
    new Map([...huge].map(([name, shape]) => [name, py.tensor({ shape, data: 4 * shape.reduce((a, b) => a * b) })])))
  t.ok(size > totalmem(), `${(size / 1e9).toFixed(1)} GB`)
  const error = await rejection(Par.load({ transformer: file, precision: 'float32' }))
  t.match(
    error, { name: 'ParError', code: 'OUT_OF_MEMORY', message: /weights need \d+ MB of memory and \d+ MB are free/ }
  )
})
