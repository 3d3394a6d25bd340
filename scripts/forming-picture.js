'use strict'
// Makes docs/forming.webp, the moving picture at the top of the README: the same classes drawn with 1, 4 and 16 tokens
// per step, side by side and step for step, so that a picture of fewer steps is finished earlier.
// Run it in a checkout after `npm install`: node scripts/forming-picture.js [OUT]

const path = require('node:path')
const sharp = require('sharp')
const { Par } = require('..')

const classes = ['Sneaker', 'Coat', 'Bag', 'Dress', 'Ankle boot']
const numbers = [1, 4, 16]
const seed = 3
/** Pixels of the animation for each pixel of a picture, and around each picture. */
const scale = 3
const margin = 8
/** Pixels at the left for the words about each row. */
const words = 150
/** Steps from one frame to the next, and how long a frame and the last one stay, in milliseconds. */
const stride = 4
const frameTime = 90
const lastTime = 3000

const stepsOf = {}

async function main () {
  const out = process.argv[2] || path.join(__dirname, '..', 'docs', 'forming.webp')
  const par = await Par.load({ device: 'cpu' })
  const side = 32 * scale
  const width = words + classes.length * (side + margin) + margin
  const height = numbers.length * (side + margin) + margin
  // ---- every picture after every `stride` steps; the last entry is the finished one
  const states = await Promise.all(numbers.map(async n => {
    const seen = []
    for await (const progress of par.stream({ classId: classes, n, seed })) {
      stepsOf[n] = progress.steps
      if (progress.images) seen.push(progress.images)
      else if (progress.step % stride === 0) seen.push(await Promise.all(classes.map((_, i) => progress.preview(i))))
    }
    return seen
  }))
  await par.dispose()

  const frames = Math.max(...states.map(seen => seen.length))
  const pages = []
  for (let frame = 0; frame < frames; frame++) {
    const parts = states.flatMap((seen, row) =>
      seen[Math.min(frame, seen.length - 1)].map((image, column) => ({ image, row, column })))
    const step = (frame + 1) * stride
    const composed = await Promise.all(parts.map(async ({ image, row, column }) => ({
      input: await image.sharp().resize(side, side, { kernel: 'nearest' }).png().toBuffer(),
      left: words + margin + column * (side + margin),
      top: margin + row * (side + margin)
    })))
    pages.push(await sharp({ create: { width, height, channels: 3, background: '#ffffff' } })
      .composite([...composed, { input: Buffer.from(caption(step, width, height)), left: 0, top: 0 }]).png().toBuffer())
  }
  const delay = pages.map((_, frame) => frame === frames - 1 ? lastTime : frameTime)
  await sharp(pages, { join: { animated: true } }).webp({ quality: 70, effort: 6, loop: 0, delay }).toFile(out)
  console.log(`${out}: ${frames} frames, ${width} x ${height} px`)
}

/** What stands beside each row after so many steps, as SVG. */
function caption (step, width, height) {
  const lines = numbers.map((n, row) => {
    const y = margin + row * (32 * scale + margin) + 16 * scale
    const own = Math.min(step, stepsOf[n])
    const color = own === stepsOf[n] ? '#14803c' : '#333333'
    return `<text x="12" y="${y - 4}" fill="#333333">${n} token${n === 1 ? '' : 's'} per step</text>` +
      `<text x="12" y="${y + 16}" fill="${color}">step ${own} of ${stepsOf[n]}</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="DejaVu Sans, ` +
    `sans-serif" font-size="13">${lines.join('')}</svg>`
}

main().catch(error => { console.error(error); process.exitCode = 1 })
