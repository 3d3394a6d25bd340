// Loading takes the weights once, plus at most 300 MB: model L (343M parameters) from a training checkpoint in float32
// with optimizer state (4.1 GB, sparse on disk), in both precisions, in processes of their own.

import { execFile } from 'node:child_process'
import { totalmem } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { transformerShapes } from '../checkpoint/tiny.js'
import { Par } from '../../lib/par.js'
import { built } from '../support/built.js'
import { rejection } from '../support/fixtures.js'
import { py, writePt } from '../support/pt-writer.js'

const shapes = transformerShapes({ layers: 24, dim: 1024, vocabulary: 16384, classes: 1000, feedForward: 2816 })

t.test('peak memory of loading', async t => {
  const file = path.join(t.testdir({}), 'L.pt')
  const tensor = (shape: number[]): unknown => py.tensor({ shape, data: 4 * shape.reduce((a, b) => a * b) })
  const names = [...shapes.keys()]
  const state = names.map((name, i) => [i, new Map([['exp_avg', tensor(shapes.get(name)!)], ['exp_avg_sq', tensor(shapes.get(name)!)]])] as const)
  const { size } = writePt(file, new Map<string, unknown>([
    ['model', new Map(names.map(name => [name, tensor(shapes.get(name)!)]))],
    ['optimizer', new Map<string, unknown>([['state', new Map<unknown, unknown>(state)]])],
    ['steps', 1000]
  ]))
  t.ok(size > 4e9, `${(size / 1e9).toFixed(1)} GB`)

  const script = `
    const fs = require('node:fs')
    const { Par } = require(process.argv[1])
    const peak = () => Number(/VmHWM:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
    const start = peak()
    Par.load({ transformer: process.argv[2], precision: process.argv[3] }).then(async par => {
      console.log(JSON.stringify({ grown: peak() - start, bytes: par.info.transformer.bytes, official: par.info.transformer.official }))
      await par.dispose()
    })`
  for (const precision of ['float32', 'bfloat16']) {
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script, path.join(await built(), 'index.js'), file, precision],
      { env: { ...process.env, NODE_OPTIONS: '' } })
    const { grown, bytes, official } = JSON.parse(stdout) as { grown: number, bytes: number, official: string }
    t.equal(official, 'PAR-L-4x')
    t.ok(bytes > 343e6 * (precision === 'float32' ? 4 : 2) * 0.99, `${precision}: ${(bytes / 1e6).toFixed(0)} MB of weights`)
    t.ok(grown < bytes + 300e6, `${precision}: ${(grown / 1e6).toFixed(0)} MB at the peak for ${(bytes / 1e6).toFixed(0)} MB of weights`)
  }
})

t.test('weights that do not fit into memory are refused before they are read', async t => {
  const file = path.join(t.testdir({}), 'huge.pt')
  // 3B's layers, as many as make one and a half times the memory of this machine; sparse on disk.
  const layers = Math.ceil(1.5 * totalmem() / (4 * (4 * 3200 ** 2 + 3 * 3200 * 8704)))
  const huge = transformerShapes({ layers, dim: 3200, vocabulary: 16384, classes: 1000, feedForward: 8704 })
  const { size } = writePt(file, new Map([...huge].map(([name, shape]) => [name, py.tensor({ shape, data: 4 * shape.reduce((a, b) => a * b) })])))
  t.ok(size > totalmem(), `${(size / 1e9).toFixed(1)} GB`)
  const error = await rejection(Par.load({ transformer: file, precision: 'float32' }))
  t.match(error, { name: 'ParError', code: 'OUT_OF_MEMORY', message: /weights need \d+ MB of memory and \d+ MB are free/ })
})
