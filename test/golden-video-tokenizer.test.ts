// The causal tokenizer of videos against the authors' modules (the golden fixture, where it is at hand), and against
// plain loops over whole videos on a small model with random weights: lengths, shapes, streaming, both precisions.

import t from 'tap'
import path from 'node:path'
import { Par } from '../lib/api/par.js'
import type { Precision } from '../lib/machine/native.js'
import { temporaryFolder } from './cli/run.js'
import { random } from './checkpoint/tiny.js'
import { device } from './support/fixtures.js'
import { findGolden, golden } from './support/golden.js'
import { identical, readExpected, worst } from './support/tensors.js'
import {
  decodeReference, encodeReference, someTokens, tinyCodes, writeTinyVideo, type Cube
} from './support/video-reference.js'

const folder = temporaryFolder()
const load = async (tokenizer: string | { path: string, levels?: number[] }, precision: Precision): Promise<Par> =>
  await Par.load({ tokenizer, precision, device })

/** [1, 3, frames, height, width] -> [frames, height, width, 3] */
function interleaved (planes: Float32Array, frames: number, height: number, width: number): Float32Array {
  const size = frames * height * width
  return planes.map((_, i) => planes[(i % 3) * size + Math.floor(i / 3)]!)
}

/** On the simulated GPU (test/cuda/golden.test.ts) the numbers alone, and fewer of them. */
const isBrief = process.env.PARVIS_GOLDEN === 'brief'

const name = 'video-tokenizer/video-tokenizer.pt'
t.test("the authors' modules", { skip: findGolden(name) ? false : 'the fixture is not at hand' }, async t => {
  const expected = readExpected(golden('video-tokenizer/expected.safetensors'))
  const tokens = expected.ints('encode.indices')
  const grid: [number, number, number] = [3, 4, 4]
  const frames = interleaved(expected.floats('encode.input'), 9, 32, 32)
  const decoded = interleaved(expected.floats('decoded'), 9, 32, 32)

  const par = await load(golden(name), 'float32')
  t.teardown(() => par.dispose())
  t.match(par.info.tokenizer, {
    codebookSize: 64000, codeSize: 6, factor: 8, factorTime: 4, levels: [8, 8, 8, 5, 5, 5], warnings: []
  })
  t.same(await par.encodeVideo({ data: frames, frames: 9, width: 32, height: 32 }), tokens, 'tokens')
  const floats = await par.decodeVideo(tokens, { grid, format: 'float32' })
  t.match(floats, { frames: 9, width: 32, height: 32, fps: 8 })
  const error = worst(floats.data, decoded)
  t.ok(error <= 1e-3, `pixels: ${error.toExponential(1)}`)
  t.ok(worst(floats.bytes(), expected.bytes('bytes')) <= 1, 'bytes')
  if (isBrief) return
  const bytes = await par.decodeVideo(tokens, { grid })
  t.ok(identical(floats.bytes(), bytes.data), 'floats become the same bytes')

  const low = await load(golden(name), 'bfloat16')
  t.teardown(() => low.dispose())
  const rounded = worst((await low.decodeVideo(tokens, { grid, format: 'float32' })).data, decoded)
  t.ok(rounded <= 3e-2, `pixels in bfloat16: ${rounded.toExponential(1)}`)
})

const tiny = writeTinyVideo(path.join(folder, 'tiny.safetensors'))
/** A gradient that moves, with noise. */
function someFrames (frames: number, height: number, width: number): Cube {
  const next = random(3)
  const data = new Float64Array(frames * height * width * 3)
  for (let i = 0; i < data.length; i++) {
    const [f, y, x, c] = [Math.floor(i / (height * width * 3)), Math.floor(i / (width * 3)) % height,
      Math.floor(i / 3) % width, i % 3]
    data[i] = Math.fround(0.5 + 0.3 * Math.sin(x / 3 + f + c) * Math.cos(y / 2) + 0.1 * next())
  }
  return { data, frames, height, width, channels: 3 }
}

t.test('plain loops over whole videos', async t => {
  const par = await load({ path: tiny.file, levels: [8, 6, 5] }, 'float32')
  t.teardown(() => par.dispose())
  t.match(par.info.tokenizer, { codebookSize: tinyCodes, codeSize: 3, factor: 4, factorTime: 2, levels: [8, 6, 5] })
  const low = await load({ path: tiny.file, levels: [8, 6, 5] }, 'bfloat16')
  t.teardown(() => low.dispose())
  // One frame, T = 5, 9 and 17, not square.
  const grids: Array<[number, number, number]> = [[1, 3, 3], [3, 2, 3], [5, 3, 1], [9, 1, 2]]
  for (const grid of grids.slice(0, isBrief ? 2 : undefined)) {
    const shown = grid.join(' x ')
    const tokens = someTokens(grid[0] * grid[1] * grid[2], grid[0])
    const right = decodeReference(tiny, tokens, grid)
    const found = await par.decodeVideo(tokens, { grid, format: 'float32' })
    t.match(found, { frames: 2 * grid[0] - 1, height: 4 * grid[1], width: 4 * grid[2] })
    const largest = right.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    const error = worst(found.data, right.data) / largest
    t.ok(error <= 1e-5, `pixels of ${shown} tokens: ${error.toExponential(1)} of the largest`)
    const rounded = worst((await low.decodeVideo(tokens, { grid, format: 'float32' })).data, right.data) / largest
    t.ok(rounded <= 3e-2, `in bfloat16: ${rounded.toExponential(1)}`)

    const video = someFrames(found.frames, found.height, found.width)
    const { tokens: wanted, margin } = encodeReference(tiny, video)
    t.ok(margin > 1e-5, `no channel of a token is a near tie: ${margin.toExponential(1)}`)
    const { frames, height, width } = video
    t.same(await par.encodeVideo({ data: Float32Array.from(video.data), frames, height, width }), wanted,
      `tokens of ${frames} x ${height} x ${width} pixels`)
  }
})
