// Videos in the benchmarks: the shapes of the paper's table 3, what they cost, and the report.

import t from 'tap'
import { csv, markdown } from '../../lib/bench/report.js'
import { videoSubject } from '../../lib/bench/subjects.js'
import type { DecodeResult } from '../../lib/bench/types.js'
import { videoDecodeFlops } from '../../lib/models/shapes.js'
import { nbpTokenizer } from '../../lib/models/video.js'
import { transformerWeights, videoTokenizerWeights } from '../../lib/models/weights.js'
import { pretend, pretendReport } from './pretend.js'

const count = (weights: ReadonlyArray<readonly [string, readonly number[]]>): number =>
  weights.reduce((sum, [, shape]) => sum + shape.reduce((product, side) => product * side, 1), 0)

t.test('shapes and costs', async t => {
  for (const [n, steps] of [[1, 1280], [4, 323], [16, 95]] as const) {
    const subject = videoSubject(n)
    t.equal(subject.plan(16).tokensAfter.length, steps, `n = ${n}: ${steps} steps`)
    t.equal(subject.plan(16).tokens, 1280)
    t.match(subject, { name: 'video', n, side: 16, frames: 5, sampling: { guidanceScale: 1.15, topK: 8000 } })
    t.equal(Math.round(count(transformerWeights(subject.model)) / 1e6), 895, 'XL with 64,000 codes')
  }
  // Next Block Prediction's tokenizer: counts of its published file, and of its layers' products.
  t.equal(count(videoTokenizerWeights(nbpTokenizer)), 370_372_105)
  t.ok(Math.abs(videoDecodeFlops(nbpTokenizer, [5, 16, 16]) / 6.19e12 - 1) < 0.01)
  const [one, two] = [1, 2].map(frames => videoDecodeFlops(nbpTokenizer, [frames, 16, 16]))
  t.ok(one! < two! - one!, 'the first frame makes one, a later one four')
})

t.test('the report', async t => {
  const decode: DecodeResult = {
    operation: 'decode', model: 'NBP tokenizer', frames: 17, device: 'cpu', precision: 'bfloat16', batch: 1, grid: 16,
    pixels: 128, ms: { median: 30000, least: 29000, greatest: 31000 }, msPerImage: 30000, imagesPerSecond: 1 / 30,
    flops: 6.19e12, gigaflops: 206, loadMs: 90, ceilings: null, torch: []
  }
  const report = pretendReport([{ ...pretend({ n: 4, step: 20 }), model: 'video', grid: 16 }, decode])
  const text = markdown(report)
  t.match(text, /^\| 17 +\| 128 +\| bfloat16 +\| cpu +\| 30\.0 \(29\.0 - 31\.0\) +\| 6190 +\| 206/m)
  t.match(text, /does not give the shape of its own/)
  t.match(text, /hardware not named/)
  t.match(text, /^\| PAR-1x +\| 1280 +\| 1280 +\| 43\.30 +\| not run/m)
  t.match(text, /^\| PAR-4x +\| 323 +\| 323 +\| 11\.27 +\| [\d.]+ \(extrapolated\) +\| bfloat16/m)
  t.notMatch(text, /VQ-16 decode|Table 2/)
  t.notMatch(text, /NaN|undefined|Infinity|null/)
  t.match(csv(report), /^decode,NBP tokenizer,/m)
})
