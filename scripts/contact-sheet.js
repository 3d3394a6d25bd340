'use strict'
// node scripts/contact-sheet.js [FILE]: the picture of the README, made by the embedded model. A column a class
// (in the order of `parvis labels`), a band a number of tokens a step: n = 1, 4, 16 from the top, three pictures
// of each, seeds 1 to 3. Nothing is picked out: other seeds make pictures of the same kind.

const path = require('node:path')
const { Par } = require('../dist/index.js')
const { arrange, encode } = require('../dist/cli/picture.js')
const { writeWhole } = require('../dist/base/files.js')

const file = path.resolve(process.argv[2] || path.join(__dirname, '..', 'docs', 'contact-sheet.png'))
const samples = 3
const scale = 2
const space = 14

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})

async function main () {
  const par = await Par.load()
  try {
    const classes = Array.from({ length: par.info.transformer.classes }, (_, id) => id)
    const bands = []
    for (const n of [1, 4, 16]) {
      // Sample by sample, so that the rows of a band are samples and its columns are classes.
      const classId = Array.from({ length: samples }, () => classes).flat()
      const images = await par.generate({ classId, n, seed: 1 })
      bands.push(arrange(images, classes.length, scale))
      console.log(`n = ${n}: ${images.length} pictures, ${images[0].steps} steps`)
    }
    await writeWhole(file, await encode(stack(bands), 'png'))
    console.log(file)
  } finally {
    par.dispose()
  }
}

/** Bands of one width below each other, white between them. */
function stack (bands) {
  const { width } = bands[0]
  const height = bands.reduce((sum, band) => sum + band.height + space, -space)
  const data = new Uint8Array(width * height * 3).fill(255)
  let row = 0
  for (const band of bands) {
    data.set(band.data, row * width * 3)
    row += band.height + space
  }
  return { data, width, height }
}
