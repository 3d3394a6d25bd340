// docs/moving.webp: a clip of each class, side by side, as the embedded model makes them.
//
//   node models/moving/recipe/picture.js

const path = require('node:path')
const { Par, Video } = require('../../../dist/index.js')

const [columns, scale, gap, seed] = [5, 3, 2, 1]

async function main () {
  const par = await Par.load('moving', { device: 'cpu', precision: 'float32' })
  const videos = await par.generateVideo({ classId: Array.from({ length: 10 }, (_, k) => k), seed })
  await par.dispose()
  const [{ frames, fps }] = videos
  const side = 32 * scale
  const [width, height] = [columns * (side + gap) - gap, 2 * (side + gap) - gap]
  const data = new Uint8Array(frames * width * height * 3).fill(96)
  videos.forEach((video, k) => {
    const [left, top] = [k % columns * (side + gap), Math.floor(k / columns) * (side + gap)]
    for (let frame = 0; frame < frames; frame++) {
      for (let y = 0; y < side; y++) {
        for (let x = 0; x < side; x++) {
          const from = ((frame * 32 + Math.floor(y / scale)) * 32 + Math.floor(x / scale)) * 3
          data.set(video.data.subarray(from, from + 3), ((frame * height + top + y) * width + left + x) * 3)
        }
      }
    }
  })
  await new Video({ data, frames, width, height, fps })
    .toFile(path.join(__dirname, '../../../docs/moving.webp'), { quality: 80 })
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
