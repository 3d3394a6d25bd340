// Video files by the ffmpeg of this machine: what is written is read back, and a hostile file opens nothing but itself.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { psnr, Video } from '../lib/index.js'
import { findFfmpeg, readVideo } from '../lib/pictures/ffmpeg.js'
import { temporaryFolder } from './cli/run.js'
import { rejection } from './support/fixtures.js'

const folder = temporaryFolder()
const { signal } = new AbortController()

/** Two blobs that move over a grey ramp; smooth, so that an encoder keeps them. */
function moving (frames: number, width: number, height: number): Video {
  const data = new Uint8Array(frames * width * height * 3)
  for (let i = 0; i < data.length; i++) {
    const [c, x, y, f] = [i % 3, Math.floor(i / 3) % width, Math.floor(i / 3 / width) % height,
      Math.floor(i / 3 / width / height)]
    const blob = Math.exp(-((x - 8 - 3 * f) ** 2 + (y - height / 2) ** 2) / 60)
    data[i] = 40 + 60 * x / width + 120 * blob * (c === 0 ? 1 : 0.5)
  }
  return new Video({ data, frames, width, height, fps: 8 })
}

void (async () => {
  const found = await findFfmpeg()
  // Continuous integration installs it.
  const skip = found || process.env.CI === 'true' ? false : 'there is no ffmpeg'

  t.test('mp4 and webm', { skip }, async t => {
    const video = moving(9, 48, 32)
    for (const format of ['mp4', 'webm'] as const) {
      const file = path.join(folder, `video.${format}`)
      await video.toFile(file)
      const back = await readVideo(file, { signal })
      t.match(back, { frames: 9, width: 48, height: 32 }, format)
      for (const index of [0, 4, 8]) {
        const length = 48 * 32 * 3
        const frame = { data: back.data.slice(index * length, (index + 1) * length), width: 48, height: 32 }
        const near = psnr(frame, video.frame(index))
        t.ok(near > 30, `${format}, frame ${index}: ${near.toFixed(1)} dB`)
      }
      t.match(await readVideo(file, { signal, frames: 5 }), { frames: 5 }, 'the first so many')
      const fewer = await readVideo(file, { signal, fps: 4 })
      t.ok(fewer.frames >= 4 && fewer.frames <= 6, `half as many a second: ${fewer.frames}`)
    }
    const odd = path.join(folder, 'odd.mp4')
    await moving(3, 21, 15).toFile(odd)
    t.match(await readVideo(odd, { signal }), { frames: 3, width: 22, height: 16 }, 'odd sides get a black edge')
    t.equal((await video.toBuffer('mp4')).toString('latin1', 4, 8), 'ftyp')
    t.same(fs.readdirSync(folder).sort(), ['odd.mp4', 'video.mp4', 'video.webm'], 'no part is left')
  })

  t.test('y4m is what ffmpeg takes it for', { skip }, async t => {
    const video = moving(3, 40, 24)
    const file = path.join(folder, 'video.y4m')
    await video.toFile(file)
    const args = ['-loglevel', 'error', '-i', file, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-']
    const raw = execFileSync(found!.file, args)
    t.equal(raw.length, video.data.length)
    const worst = raw.reduce((most, byte, i) => Math.max(most, Math.abs(byte - video.data[i]!)), 0)
    t.ok(worst <= 3, `the same colours: ${worst} of 255 apart at most`)
  })

  t.test('files that are no videos, or lead elsewhere', { skip }, async t => {
    let asked = 0
    const server = http.createServer((_, answer) => { asked++; answer.end() }).listen(0, '127.0.0.1')
    await new Promise(resolve => server.once('listening', resolve))
    t.teardown(() => server.close())
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/x.ts`
    for (const [name, text] of [
      ['list.m3u8', `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n${address}\n#EXT-X-ENDLIST\n`],
      ['concat.txt', `ffconcat version 1.0\nfile '${address}'\n`],
      ['text.mp4', 'no video'],
      ['empty.mp4', '']
    ] as const) {
      const file = path.join(folder, name)
      fs.writeFileSync(file, text)
      t.match(await rejection(readVideo(file, { signal })), { code: 'BAD_IMAGE', message: /Is it a video\?/ }, name)
    }
    t.equal(asked, 0, 'nobody was asked over the network')
    const gone = AbortSignal.abort('enough')
    t.equal(await rejection(readVideo(path.join(folder, 'text.mp4'), { signal: gone })), 'enough')
  })
})()
