// Videos through the public API: what a model on a grid of three axes makes, who refuses it, and the files that a video
// becomes, read back by sharp.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import par, { animate, createSchedule, Par, Video, type VideoFormat } from '../../lib/index.js'
import { temporaryFolder } from '../cli/run.js'
import { device, rejection, smallPar } from '../support/fixtures.js'
import { golden } from '../support/golden.js'

const file = golden('par-video-4x/model.pt')
const grid: [number, number, number] = [3, 8, 8]
const rotationPairs: [number, number, number] = [8, 12, 12]
const options = { device, precision: 'float32' } as const

t.test('a model of videos', async t => {
  const own = await Par.load({ transformer: { path: file, heads: 2, grid, rotationPairs }, ...options })
  t.teardown(() => own.dispose())
  const video = await own.generateVideo({ classId: 3, seed: 5, fps: 24, guidanceScale: 1.5 })
  t.match(video, { classId: 3, seed: 5, fps: 24, n: 4, steps: 51, grid, label: undefined })
  t.equal(video.tokens.length, 192)

  t.test('one seed, one video: alone, in a list, step by step', async t => {
    const videos = await own.generateVideo({ classId: [1, 3, 3], seed: 5, guidanceScale: 1.5 })
    t.same(videos[1]!.tokens, video.tokens)
    t.notSame(videos[2]!.tokens, video.tokens, 'a repeated class is another video')
    t.equal(videos[2]!.seed, 6)
    let events = 0
    for await (const { step, steps, tokensDone, tokens, videos } of own.streamVideo({
      classId: 3, seed: 5, guidanceScale: 1.5
    })) {
      t.equal(step, ++events)
      if (step < 51) t.equal(videos, undefined)
      else t.same(videos!.map(({ tokens }) => tokens), [video.tokens])
      if (step === 4 || step === 5) t.same([steps, tokensDone, tokens], [51, step === 4 ? 4 : 8, 192])
    }
    t.equal(events, 51)
  })

  t.test('ablations and other schedules', async t => {
    for (const [change, steps] of [[{ order: 'raster' }, 51], [{ initial: 'none' }, 48], [{ tokensPerStep: 1 }, 192]] as
      const) {
      t.equal((await own.generateVideo({ classId: 3, seed: 5, ...change })).steps, steps)
    }
  })

  t.test('score', async t => {
    const others = video.tokens.map(token => 239 - token)
    const [right, wrong] = await own.score({ tokens: [video.tokens, others], classId: 3 })
    t.ok(right!.total > wrong!.total, 'what the model drew is likelier than other tokens')
    const most = await own.classify(video.tokens, { classes: [1, 3] })
    t.equal(most.length, 2)
  })

  t.test('refusals', async t => {
    const cure = {
      code: 'INVALID_OPTION', message: /makes videos \(3 x 8 x 8 tokens\): call generateVideo or streamVideo/
    }
    t.match(await rejection(own.generate({ classId: 3 })), cure)
    t.match(await rejection(own.stream({ classId: 3 }).next()), cure)
    t.match(await rejection(own.images({ classId: [3] }).next()), cure)
    t.match(await rejection(own.samples({ count: 1, classes: [3] }).next()), cure)
    t.match(await rejection(animate(own, { classId: 3 })), cure)
    t.match(await rejection(own.classify({ data: new Uint8Array(48), width: 4, height: 4 })), cure)
    for (const [change, message] of [
      [{ size: 64 }, /generateVideo has no option 'size'/], [{ fps: 0 }, /fps/], [{ fps: NaN }, /fps/],
      [{ known: {} }, /known/], [{ classId: 'boot' }, /boot|name/], [{ steps: 8 }, /steps/],
      [{ onProgress: 1 }, /onProgress/]
    ] as const) {
      t.match(await rejection(own.generateVideo({ classId: 3, ...change } as never)), { message },
        JSON.stringify(change))
    }
    t.match(await rejection(own.generateVideo({ classId: 10 })), { code: 'BAD_CLASS_ID' })
    t.match(await rejection(own.generateVideo({ classId: 1, n: 16 })), { code: 'UNSUPPORTED_N' })
    t.equal(await rejection(own.generateVideo({ classId: 1, signal: AbortSignal.abort('enough') })), 'enough')
  })
})

t.test('a model of pictures says which call to use', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const cure = {
    code: 'INVALID_OPTION', message: /makes pictures \(8 x 8 tokens\), not videos: call generate or stream/
  }
  t.match(await rejection(own.generateVideo({ classId: 3 })), cure)
  t.match(await rejection(own.streamVideo({ classId: 3 }).next()), cure)
  t.teardown(() => par.dispose())
  t.match(await rejection(par.generateVideo({ classId: 3 })), { code: 'INVALID_OPTION', message: /call generate/ })
  t.match(await rejection(par.streamVideo({ classId: 3 }).next()), { code: 'INVALID_OPTION', message: /call generate/ })
})

t.test('what a file of videos needs to say', async t => {
  const load = async (change: object): Promise<unknown> =>
    await rejection(Par.load({ transformer: { path: file, heads: 2, grid, rotationPairs, ...change }, ...options }))
  for (const [change, code, message] of [
    [{ rotationPairs: undefined }, 'BAD_CHECKPOINT', /3 x 8 x 8 tokens.*Pass rotationPairs/],
    [{ rotationPairs: [8, 12, 8] }, 'INVALID_OPTION', /a head of 64 elements has 32 pairs/],
    [{ rotationPairs: [8, 24] }, 'INVALID_OPTION', /rotationPairs must be \[frame, row, column\]/],
    [{ rotationPairs: [8, 12, -1] }, 'INVALID_OPTION', /rotationPairs\[2\]/],
    [{ rotationPairs: 'x' }, 'INVALID_OPTION', /rotationPairs/],
    [{ grid: 8 }, 'INVALID_OPTION', /has no frames/],
    [{ grid: [3, 7, 8] }, 'INVALID_OPTION', /multiples of 2, got 3 x 7 x 8/],
    [{ grid: [1, 3, 8, 8] }, 'INVALID_OPTION', /\[frames, rows, columns\]/],
    [{ grid: [0, 8, 8] }, 'INVALID_OPTION', /grid\[0\]/]
  ] as const) {
    t.match(await load(change), { code, message }, JSON.stringify(change))
  }
  t.match(await rejection(Par.load({
    transformer: { path: file, heads: 2, grid, rotationPairs }, tokenizer: golden('vq-small/vq.pt')
  })), { code: 'TOKENIZER_MISMATCH', message: /makes videos, .* tokenizer of pictures/ })
  t.match(await rejection(Par.load({ transformer: { path: golden('arpg/model.pt'), grid } })),
    { code: 'BAD_CHECKPOINT', message: /ARPG draws pictures/ })

  const uneven = { path: file, heads: 2, grid: 8, rotationPairs: [0, 20, 12] as [number, number, number] }
  const picture = await Par.load({ transformer: uneven, ...options })
  t.teardown(() => picture.dispose())
  t.match(picture.info.transformer, { grid: [8, 8], frames: undefined }, 'a picture may divide its pairs unevenly')
  const still = await Par.load({ transformer: { path: file, heads: 2, grid: [1, 8, 8], rotationPairs }, ...options })
  t.teardown(() => still.dispose())
  t.match(await still.generateVideo({ classId: 1, seed: 1 }), { steps: 19, grid: [1, 8, 8], tokens: { length: 64 } })
  const wide = await Par.load({ transformer: { path: file, heads: 2, grid: [2, 4, 6], rotationPairs }, ...options })
  t.teardown(() => wide.dispose())
  t.match(await wide.generateVideo({ classId: 1, seed: 1 }), { steps: 15, tokens: { length: 48 } }, 'not square')
  t.same([1, 4, 16].map(n => createSchedule({ grid: [5, 16, 16], n }).steps.length), [1280, 323, 95],
    "the paper's table 3")
})

// ---- files

/** A square that moves over a ramp of colours. */
function moving (frames: number, width = 20, height = 12): Video {
  const data = new Uint8Array(frames * width * height * 3)
  for (let i = 0, at = 0; i < frames; i++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at += 3) {
        const inside = x >= 2 * i && x < 2 * i + 4 && y >= 3 && y < 7
        data.set(inside ? [250, 240, 20] : [x * 10, y * 20, 128], at)
      }
    }
  }
  return new Video({ data, frames, width, height, fps: 8 })
}

t.test('WebP and GIF, read back by sharp', async t => {
  const video = moving(5)
  const exact = sharp(await video.toBuffer('webp', { lossless: true }), { animated: true })
  t.match(await exact.metadata(), {
    format: 'webp', pages: 5, pageHeight: 12, width: 20, delay: [125, 125, 125, 125, 125], loop: 0
  })
  t.same(await exact.removeAlpha().raw().toBuffer(), Buffer.from(video.data), 'every byte of every frame')
  const usual = await sharp(await video.toBuffer(), { animated: true }).metadata()
  t.match(usual, { format: 'webp', pages: 5 }, 'by default')
  const bytes = await new Video({ ...video, fps: 20 }).toBuffer('gif', { loop: 2 })
  const gif = await sharp(bytes, { animated: true }).metadata()
  t.match(gif, { format: 'gif', pages: 5, pageHeight: 12, delay: [50, 50, 50, 50, 50], loop: 2 })
  const still = await sharp(await moving(1).toBuffer('webp', { lossless: true })).metadata()
  t.match(still, { format: 'webp', width: 20, height: 12 }, 'a video of one frame')
})

t.test('frames, arrays and planes', async t => {
  const video = moving(3)
  const frame = video.frame(2)
  t.match(frame, { width: 20, height: 12 })
  t.same(frame.data, video.data.slice(2 * 720, 3 * 720))
  frame.data.fill(0)
  t.equal(video.data[2 * 720 + 2], 128, 'a frame has pixels of its own')
  for (const index of [-1, 3, 0.5, NaN]) t.throws(() => video.frame(index), { code: 'INVALID_OPTION' })

  const npy = await video.toBuffer('npy')
  const start = 10 + npy.readUInt16LE(8)
  t.match(npy.toString('latin1', 10, start), /'descr': '\|u1', 'fortran_order': False, 'shape': \(3, 12, 20, 3\)/)
  t.equal(start % 64, 0)
  t.same(npy.subarray(start), Buffer.from(video.data))
  t.same(await video.toBuffer('raw'), Buffer.from(video.data))

  const y4m = await new Video({ ...video, fps: 29.97 }).toBuffer('y4m')
  const line = 'YUV4MPEG2 W20 H12 F2997:100 Ip A1:1 C444\n'
  t.equal(y4m.toString('latin1', 0, line.length), line)
  t.equal(y4m.length, line.length + 3 * (6 + 720))
  // The corner of the first frame, (0, 0, 128), by the formulas of BT.601.
  const at = line.length + 6
  const luma = 0.114 * 128
  t.same([y4m[at], y4m[at + 240], y4m[at + 480]],
    [Math.round(16 + 219 * luma / 255), Math.round(128 + 224 * (128 - luma) / 1.772 / 255),
      Math.round(128 + 224 * (0 - luma) / 1.402 / 255)])
})

t.test('files', async t => {
  const folder = temporaryFolder()
  const video = moving(3)
  await video.toFile(path.join(folder, 'a.WEBP'), { lossless: true })
  t.match(await sharp(path.join(folder, 'a.WEBP')).metadata(), { pages: 3 })
  await video.toFile(path.join(folder, 'frame-%03d.png'))
  t.same(fs.readdirSync(folder).sort(), ['a.WEBP', 'frame-000.png', 'frame-001.png', 'frame-002.png'])
  t.same(await sharp(path.join(folder, 'frame-002.png')).raw().toBuffer(), Buffer.from(video.data.subarray(1440)))
  for (const name of ['a.png', 'a.avif', 'a.tiff', 'a', '.webp/']) {
    t.match(await rejection(video.toFile(path.join(folder, name))),
      { code: 'INVALID_OPTION', message: /no format of videos.*frame-%02d\.png/ }, name)
  }
  for (const format of ['png', 'avif', 'tiff', 'mov', 7]) {
    t.match(await rejection(video.toBuffer(format as VideoFormat)), { code: 'INVALID_OPTION', message: /format/ })
  }
  t.match(await rejection(video.toBuffer('webp', { quality: 1000 })), { code: 'INVALID_OPTION', message: /quality/ })
  t.match(await rejection(video.toBuffer('npy', { quality: 10 })),
    { code: 'INVALID_OPTION', message: /npy takes no options/ })
  t.match(await rejection(new Video({ ...video, data: new Uint8Array(3) }).toBuffer()),
    { code: 'INVALID_OPTION', message: /transferred/ })
  t.match(await rejection(new Video({ ...video, width: 0, height: 0, data: new Uint8Array(0) }).toFile('a.webp')),
    { code: 'MISSING_PART', message: /no pixels/ })
  t.match(await rejection(video.toFile(path.join(folder, 'none', 'a.webp'))), { code: 'FILE_NOT_FOUND' })
  t.same(JSON.parse(JSON.stringify(video)), { width: 20, height: 12, frames: 3, fps: 8 })
})

t.test('ffmpeg: found, told what to do, and its failures', async t => {
  const folder = temporaryFolder()
  const video = moving(3, 21, 12)
  const { PATH, PARVIS_FFMPEG } = process.env
  t.teardown(() => {
    process.env.PATH = PATH
    if (PARVIS_FFMPEG === undefined) delete process.env.PARVIS_FFMPEG
    else process.env.PARVIS_FFMPEG = PARVIS_FFMPEG
  })
  const program = (name: string, body: string): string => {
    const file = path.join(folder, name)
    fs.writeFileSync(file, `#!${process.execPath}\n${body}`, { mode: 0o755 })
    return file
  }
  delete process.env.PARVIS_FFMPEG
  process.env.PATH = `relative${path.delimiter}${path.join(folder, 'none')}`
  t.match(await rejection(video.toBuffer('mp4')),
    { code: 'NATIVE_UNAVAILABLE', message: /needs the program ffmpeg.*apt-get install ffmpeg.*PARVIS_FFMPEG/ })

  program('ffmpeg', `
    const args = process.argv.slice(2)
    const chunks = []
    process.stdin.on('data', chunk => chunks.push(chunk)).on('end', () => require('fs').writeFileSync(
      args.at(-1).replace('file:', ''), JSON.stringify({ args, bytes: Buffer.concat(chunks).length })))`)
  process.env.PATH = folder
  for (const [format, codec] of [['mp4', 'libx264'], ['webm', 'libvpx-vp9']] as const) {
    const { args, bytes } = JSON.parse((await video.toBuffer(format)).toString()) as { args: string[], bytes: number }
    t.equal(bytes, video.data.length)
    for (const pair of [['-s', '21x12'], ['-r', '8'], ['-pix_fmt', 'rgb24'], ['-c:v', codec]]) {
      t.ok(args.some((arg, i) => arg === pair[0] && args[i + 1] === pair[1]), `${format}: ${pair.join(' ')}`)
    }
    t.match(args.at(-1), new RegExp(`^file:.*\\.${format}$`))
  }
  process.env.PARVIS_FFMPEG = program('broken', "console.error('one\\nUnknown encoder \\u001b[1mx'); process.exit(1)")
  t.match(await rejection(video.toFile(path.join(folder, 'a.mp4'))),
    { code: 'NATIVE_UNAVAILABLE', message: /broken \(by PARVIS_FFMPEG\) failed: Unknown encoder \\u001b/ })
  process.env.PARVIS_FFMPEG = program('killed', "process.kill(process.pid, 'SIGKILL')")
  t.match(await rejection(video.toBuffer('webm')), { code: 'NATIVE_UNAVAILABLE', message: /ended with SIGKILL/ })
  process.env.PARVIS_FFMPEG = path.join(folder, 'gone')
  t.match(await rejection(video.toBuffer('webm')), { code: 'NATIVE_UNAVAILABLE', message: /gone .*is not there/ })
  t.same(fs.readdirSync(folder).filter(name => name.startsWith('a')), [], 'no file of a failure')
})
