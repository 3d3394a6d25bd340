// The embedded model of videos: its steps, its sameness in every way of calling, and that items move as their class
// says.

import path from 'node:path'
import t from 'tap'
import { Par, type GeneratedVideo } from '../lib/index.js'
import { identical } from './support/tensors.js'

/** Centre of what is bright, in pixels, of each frame: [x, y]. */
function centres ({ data, frames, width, height }: GeneratedVideo): Array<[x: number, y: number]> {
  return Array.from({ length: frames }, (_, frame) => {
    let [sum, x, y] = [0, 0, 0]
    for (let i = 0; i < width * height; i++) {
      const value = data[(frame * width * height + i) * 3]!
      sum += value
      x += value * (i % width)
      y += value * Math.floor(i / width)
    }
    return [x / sum, y / sum]
  })
}
const travelled = (points: ReadonlyArray<readonly number[]>, axis: 0 | 1): number =>
  points.slice(1).reduce((sum, point, k) => sum + Math.abs(point[axis]! - points[k]![axis]!), 0)

t.test('clips', async t => {
  const par = await Par.load('moving', { device: 'cpu' })
  t.teardown(() => par.dispose())
  t.match(par.info, {
    transformer: {
      path: path.join(__dirname, '..', 'models', 'moving', 'par-4.safetensors'), method: 'par', supportedN: [1, 4, 16],
      frames: 5, grid: [8, 8], rotationPairs: [8, 12, 12], vocabularySize: 240, classes: 10, warnings: []
    },
    tokenizer: { codebookSize: 240, levels: [8, 6, 5], factor: 4, factorTime: 4, imageSize: [32, 32] }
  })
  for (const [n, steps] of [[1, 320], [4, 83], [16, 35]] as const) {
    const video = await par.generateVideo({ classId: 7, n, seed: 3 })
    t.match(video, { frames: 17, width: 32, height: 32, n, steps, seed: 3, label: 'Sneaker, runs right', fps: 8 })
  }
  const classId = Array.from({ length: 20 }, (_, k) => k % 10)
  const videos = await par.generateVideo({ classId, seed: 1 })
  const alone = await par.generateVideo({ classId: 4, seed: videos[14]!.seed })
  t.ok(identical(alone.data, videos[14]!.data), 'alone as in a list')
  let streamed: GeneratedVideo | undefined
  const again = { classId: 4, seed: alone.seed }
  for await (const { videos: made } of par.streamVideo(again)) streamed = made?.[0]
  t.ok(identical(streamed!.data, alone.data), 'streamed as well')
  t.same(await par.encodeVideo(alone).then(tokens => tokens.length), 320)
  // Of both clips of a class together; x: 0, y: 1.
  const paths = (id: number, axis: 0 | 1): number => [id, id + 10]
    .reduce((sum, k) => sum + travelled(centres(videos[k]!), axis), 0)
  for (const id of [0, 1, 7]) t.ok(paths(id, 0) > 2 * paths(id, 1), `${par.labels![id]}: more across than up or down`)
  for (const id of [2, 4]) t.ok(paths(id, 1) > 2 * paths(id, 0), `${par.labels![id]}: more up or down than across`)
  const rises = [2, 12].map(k => centres(videos[k]!))
  t.ok(rises.every(points => points[1]![1] > points[4]![1]), 'a pullover begins by rising')
})

t.test("the paper's grid: steps of table 3", async t => {
  for (const [n, steps] of [[1, 1280], [4, 323], [16, 95]] as const) {
    const file = path.join(__dirname, '..', 'models', 'moving', `par-${n}.safetensors`)
    const par = await Par.load({ transformer: { path: file, grid: [5, 16, 16] }, device: 'cpu' })
    t.teardown(() => par.dispose())
    const video = await par.generateVideo({ classId: 1, seed: 1 })
    t.match(video, { steps, n, grid: [5, 16, 16], tokens: { length: 1280 } }, `n = ${n}: ${steps} steps`)
  }
})
