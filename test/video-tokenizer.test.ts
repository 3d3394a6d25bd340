// Tokenizers of videos through the public API: causality, streaming, and everything that is refused. Their numbers:
// golden-video-tokenizer.test.ts.

import t from 'tap'
import path from 'node:path'
import { Par } from '../lib/api/par.js'
import { par as embedded } from '../lib/api/default.js'
import type { Precision } from '../lib/machine/native.js'
import { temporaryFolder } from './cli/run.js'
import { rejection } from './support/fixtures.js'
import { golden } from './support/golden.js'
import { identical } from './support/tensors.js'
import { someTokens, tinyCodes as codes, writeTinyVideo } from './support/video-reference.js'

const folder = temporaryFolder()
const load = async (tokenizer: string | { path: string, levels?: number[] }, precision: Precision): Promise<Par> =>
  await Par.load({ tokenizer, precision, device: 'cpu' })
const tiny = writeTinyVideo(path.join(folder, 'tiny.safetensors'))

t.test('causal: a frame does not depend on later tokens, and any number of threads makes the same bytes', async t => {
  const grid: [number, number, number] = [4, 2, 2]
  const tokens = someTokens(16, 1)
  const par = await Par.load({ tokenizer: { path: tiny.file, levels: [8, 6, 5] }, device: 'cpu', threads: 1 })
  t.teardown(() => par.dispose())
  const video = await par.decodeVideo(tokens, { grid })
  const other = tokens.slice()
  other[8] = (other[8]! + 1) % codes
  const changed = await par.decodeVideo(other, { grid })
  const frame = 8 * 8 * 3
  t.ok(identical(changed.data.subarray(0, 3 * frame), video.data.subarray(0, 3 * frame)), 'frames of earlier tokens')
  t.notOk(identical(changed.data.subarray(3 * frame), video.data.subarray(3 * frame)), 'frames of later ones')
  const shorter = await par.decodeVideo(tokens.slice(0, 8), { grid: [2, 2, 2] })
  t.ok(identical(shorter.data, video.data.subarray(0, 3 * frame)), 'the beginning of a video is a video')
  for (const threads of [2, 3]) {
    const more = await Par.load({ tokenizer: { path: tiny.file, levels: [8, 6, 5] }, device: 'cpu', threads })
    t.teardown(() => more.dispose())
    t.ok(identical((await more.decodeVideo(tokens, { grid })).data, video.data), `${threads} threads`)
  }
})

t.test('a whole model: videos as they are drawn', async t => {
  const par = await Par.load({
    transformer: { path: golden('par-video-4x/model.pt'), heads: 2, grid: [3, 8, 8], rotationPairs: [8, 12, 12] },
    tokenizer: { path: tiny.file, levels: [8, 6, 5] }, device: 'cpu', precision: 'float32'
  })
  t.teardown(() => par.dispose())
  t.match(par.info, { transformer: { frames: 3 }, tokenizer: { imageSize: [32, 32] } })
  const options = { classId: [3, 5], seed: 4, guidanceScale: 1.5 }
  const whole = await par.generateVideo(options)
  t.match(whole[0], { frames: 5, width: 32, height: 32, fps: 8, grid: [3, 8, 8] })
  t.ok(whole[0]!.timings.decodeMs > 0)
  t.ok(identical(whole[1]!.data, (await par.decodeVideo(whole[1]!.tokens)).data), 'decodeVideo makes the same frames')

  const seen: Array<Array<{ index: number, step: number, data: Uint8Array }>> = [[], []]
  let videos
  for await (const event of par.streamVideo(options)) {
    for (const { video, index, image } of event.frames ?? []) {
      seen[video]!.push({ index, step: event.step, data: image.data })
    }
    videos = event.videos ?? videos
  }
  whole.forEach((video, i) => {
    t.ok(identical(videos![i]!.data, video.data), `video ${i}: streaming makes the same bytes`)
    t.same(seen[i]!.map(({ index }) => index), [0, 1, 2, 3, 4], 'each frame once, in their order')
    // 4 + (64 - 4) / 4 steps for the first frame of tokens, 16 for each other one.
    t.same(seen[i]!.map(({ step }) => step), [19, 35, 35, 51, 51], 'as soon as its tokens are known')
    t.ok(seen[i]!.every(({ index, data }) => identical(data, video.frame(index).data)))
  })
  t.same(await par.encodeVideo(whole[0]!), await par.encodeVideo({ ...whole[0]!, data: whole[0]!.data.slice() }))

  let told = 0
  const controller = new AbortController()
  t.equal(await rejection(par.decodeVideo(whole[0]!.tokens, {
    signal: controller.signal,
    onProgress: ({ framesDone, frames }) => {
      told++
      t.same([framesDone, frames], [told, 3])
      if (told === 2) controller.abort('enough')
    }
  })), 'enough')
  t.equal(told, 2)
  for await (const { step } of par.streamVideo(options)) if (step === 20) break
  t.ok(identical((await par.generateVideo(options))[0]!.data, whole[0]!.data), 'and goes on after a loop that was left')
})

t.test('refusals', async t => {
  const par = await load({ path: tiny.file, levels: [8, 6, 5] }, 'float32')
  t.teardown(() => par.dispose())
  const tokens = someTokens(12, 1)
  const frames = { data: new Uint8Array(3 * 8 * 8 * 3), frames: 3, width: 8, height: 8 }
  for (const [work, code, message] of [
    [() => par.decodeVideo(tokens), 'INVALID_OPTION', /grid is missing/],
    [() => par.decodeVideo(tokens, { grid: [2, 2, 2] }), 'INVALID_OPTION',
      /must hold 8 tokens for a grid of 2 x 2 x 2, found 12/],
    [() => par.decodeVideo(tokens, { grid: [3, 4] as never }), 'INVALID_OPTION', /\[frames, rows, columns\]/],
    [() => par.decodeVideo(Int32Array.from([240]), { grid: [1, 1, 1] }), 'INVALID_OPTION', /tokens are 0 to 239/],
    [() => par.decodeVideo([tokens] as never, { grid: [3, 2, 2] }), 'INVALID_OPTION', /one video/],
    [() => embedded.decodeVideo([tokens, tokens] as never, { grid: [3, 2, 2] }), 'INVALID_OPTION', /one video/],
    [() => par.encodeVideo({ ...frames, width: 6, data: new Uint8Array(3 * 8 * 6 * 3) }), 'INVALID_OPTION',
      /multiples of 4/],
    [() => par.encodeVideo({ ...frames, frames: 2, data: new Uint8Array(2 * 8 * 8 * 3) }), 'INVALID_OPTION', /1, 3, 5/],
    [() => par.encodeVideo({ ...frames, data: new Uint8Array(7) }), 'INVALID_OPTION', /576/],
    [() => par.encodeVideo(frames, { grid: [3, 2, 2] }), 'INVALID_OPTION', /has 3 frames, and the grid asks for 5/],
    [() => par.encodeVideo({ ...frames, data: new Float32Array(576).fill(NaN) }), 'INVALID_OPTION', /not finite/],
    [() => par.encodeVideo({ ...frames, data: new Float32Array(576) }, { grid: [2, 1, 1] }), 'INVALID_OPTION',
      /untouched/],
    [() => par.encodeVideo(7 as never), 'INVALID_OPTION', /A video is/],
    [() => par.encodeVideo(path.join(folder, 'none.mp4')), 'FILE_NOT_FOUND', /none\.mp4/],
    [() => par.encodeVideo(folder), 'FILE_NOT_FOUND', /no file/],
    [() => par.decode(tokens), 'MISSING_PART', /of videos: generateVideo, decodeVideo and encodeVideo/],
    [() => par.generateVideo({ classId: 1 }), 'MISSING_PART', /needs a transformer/]
  ] as Array<[() => Promise<unknown>, string, RegExp]>) {
    t.match(await rejection(work()), { code, message }, String(message))
  }
  t.match(await par.encodeVideo(frames, { grid: [2, 2, 2] }), { length: 8 }, 'bytes are squeezed to the grid')
  for (const [tokenizer, code, message] of [
    [{ path: tiny.file }, 'BAD_CHECKPOINT', /has 3 channels.*Pass levels/],
    [{ path: tiny.file, levels: [8, 6] }, 'INVALID_OPTION', /has 3 channels/],
    [{ path: tiny.file, levels: [4096, 4096, 4096] }, 'INVALID_OPTION', /codes/],
    [{ path: tiny.file, levels: [8, 6, 1] }, 'INVALID_OPTION', /levels\[2\]/],
    [{ path: tiny.file, levels: 'x' }, 'INVALID_OPTION', /levels/],
    [{ path: golden('vq-small/vq.pt'), levels: [8, 6, 5] }, 'INVALID_OPTION', /one of pictures/],
    [{ path: golden('par-4x/model.pt') }, 'BAD_CHECKPOINT', /is a transformer, given as the tokenizer/]
  ] as Array<[never, string, RegExp]>) {
    t.match(await rejection(Par.load({ tokenizer, device: 'cpu' })), { code, message }, String(message))
  }
  t.match(await rejection(Par.load({ transformer: { path: tiny.file }, device: 'cpu' })),
    { code: 'BAD_CHECKPOINT', message: /given as the transformer/ })
  t.match(await rejection(Par.load({
    transformer: { path: golden('par-4x/model.pt'), heads: 2, grid: 8 },
    tokenizer: { path: tiny.file, levels: [8, 6, 5] }
  })), { code: 'TOKENIZER_MISMATCH', message: /makes pictures, .* tokenizer of videos/ })
  t.match(await rejection(Par.load({
    transformer: { path: golden('par-video-4x/model.pt'), heads: 2, grid: [3, 8, 8], rotationPairs: [8, 12, 12] },
    tokenizer: { path: tiny.file, levels: [8, 6, 4] }
  })), { code: 'TOKENIZER_MISMATCH', message: /vocabulary of 240 tokens, .* 192 codes \(levels 8, 6, 4\)/ })
  const own = writeTinyVideo(path.join(folder, 'own.safetensors'),
    { prefix: 'module.', metadata: { kind: 'tokenizer', name: 'mine', levels: [8, 6, 5] } })
  const named = await load(own.file, 'float32')
  t.teardown(() => named.dispose())
  t.match(named.info.tokenizer, { name: 'mine', levels: [8, 6, 5] }, 'levels from the metadata, names under module.')
})
