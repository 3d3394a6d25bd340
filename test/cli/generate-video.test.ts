// parvis generate with a model that makes videos.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par } from '../../lib/api/par.js'
import { golden } from '../support/golden.js'
import { writeTinyVideo } from '../support/video-reference.js'
import { parvis as run, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const tokenizer = writeTinyVideo(path.join(folder, 'tokenizer.safetensors'),
  { metadata: { kind: 'tokenizer', name: 'tiny', levels: [8, 6, 5] } }).file
const transformer = golden('par-video-4x/model.pt')
const model = ['--transformer', transformer, '--heads', '2', '--grid', '3x8x8', '--rotation-pairs', '8,12,12',
  '--tokenizer', tokenizer, '--device', 'cpu', '--precision', 'float32']
const generate = async (...flags: string[]): ReturnType<typeof run> =>
  await run(['generate', ...flags, ...model], { cwd: folder })

t.test('the ending of the name chooses the format', async t => {
  const par = await Par.load({
    transformer: { path: transformer, heads: 2, grid: [3, 8, 8], rotationPairs: [8, 12, 12] }, tokenizer,
    device: 'cpu', precision: 'float32'
  })
  t.teardown(() => par.dispose())
  const right = await par.generateVideo({ classId: 3, seed: 1, fps: 12 })

  const named = await generate('3', '--seed', '1', '--fps', '12')
  t.equal(named.code, 0, named.stderr)
  t.match(named.stdout, /^class-3-n4-seed1\.webp: class 3, seed 1, 5 frames of 32 x 32 px, 12 a second$/m)
  t.match(named.stdout, /^n = 4, 51 steps, /m)
  t.match(await sharp(path.join(folder, 'class-3-n4-seed1.webp'), { animated: true }).metadata(),
    { pages: 5, delay: Array<number>(5).fill(83), pageHeight: 32 })
  const json = await generate('3', '--seed', '1', '--fps', '12', '--out', 'a.npy', '--json', '--with-tokens')
  t.match(JSON.parse(json.stdout), {
    format: 'npy', n: 4, seed: 1, device: 'cpu',
    videos: [{ file: path.join(folder, 'a.npy'), classId: 3, frames: 5, width: 32, fps: 12,
      tokens: Array.from(right.tokens) }]
  })
  t.ok(fs.readFileSync(path.join(folder, 'a.npy')).subarray(-right.data.length).equals(right.data), 'the same bytes')
  const raw = await generate('3', '--seed', '1', '--out', 'big.raw', '--scale', '2')
  t.equal(raw.code, 0, raw.stderr)
  t.match(raw.stdout, /5 frames of 64 x 64 px, 8 a second/)
  const big = fs.readFileSync(path.join(folder, 'big.raw'))
  t.equal(big.length, 4 * right.data.length)
  t.same([...big.subarray(0, 6)], [0, 1, 2, 0, 1, 2].map(c => right.data[c]), 'each pixel is repeated')
  const out = await generate('3', '--seed', '1', '--out', '-', '--format', 'y4m', '--quiet')
  t.match(out.stdout.slice(0, 40), /^YUV4MPEG2 W32 H32 F8:1/)
})

t.test('files of several, and of frames', async t => {
  const several = await generate('3', '4', '--count', '2', '--seed', '5', '--out', 'videos/')
  t.equal(several.code, 0, several.stderr)
  t.same(fs.readdirSync(path.join(folder, 'videos')).sort(),
    ['class-3-n4-seed5.webp', 'class-3-n4-seed6.webp', 'class-4-n4-seed5.webp', 'class-4-n4-seed6.webp'])
  const numbered = await generate('3', '4', '--out', 'v-%02d.gif')
  t.equal(numbered.code, 0, numbered.stderr)
  t.ok(fs.existsSync(path.join(folder, 'v-02.gif')))
  fs.mkdirSync(path.join(folder, 'frames'))
  const frames = await generate('3', '--out', 'frames/%02d.png')
  t.equal(frames.code, 0, frames.stderr)
  t.same(fs.readdirSync(path.join(folder, 'frames')).sort(), ['00.png', '01.png', '02.png', '03.png', '04.png'])
  t.match(frames.stdout, /^frames\/00\.png to frames\/04\.png: class 3, 5 frames/)
})

t.test('refusals, before any step', async t => {
  for (const [flags, message] of [
    [['3', '4'], /a file holds one video, and these are 2; give --each/],
    [['3', '--count', '2', '--out', '%d.png'], /frames of one video, and these are 2/],
    [['3', '--out', 'x.png'], /no format of videos: they are written as webp, gif/],
    [['3', '--format', 'avif'], /avif is no format of videos/],
    [['3', '--size', '64'], /--size is about pictures, and this model makes videos/],
    [['3', '--animate', 'x.gif'], /--animate is about pictures/],
    [['3', '--steps', '4'], /--steps is about pictures/],
    [['3', '--fps', '1000'], /fps must be a number from 0.1 to 240/],
    [['3', '--out', 'no/such/x.webp'], /there is no folder/]
  ] as Array<[string[], RegExp]>) {
    const { code, stderr } = await generate(...flags)
    t.not(code, 0)
    t.match(stderr, message, flags.join(' '))
  }
  const without = await run(['generate', '3', '--out', 'x.mp4', ...model],
    { cwd: folder, env: { PATH: '/nowhere', PARVIS_FFMPEG: '' } })
  t.match(without.stderr, /needs the program ffmpeg.*apt-get install ffmpeg/s)
  const pictures = await run(['generate', 'sneaker', '--out', 'x.mp4'], { cwd: folder })
  t.match(pictures.stderr, /makes pictures; x\.mp4 is a format of videos/)
  const rate = await run(['generate', 'sneaker', '--fps', '4'], { cwd: folder })
  t.match(rate.stderr, /--fps is about videos/)
})
