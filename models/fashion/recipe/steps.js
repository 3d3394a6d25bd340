// A small ARPG model at five numbers of steps, beside the embedded PAR models: what the judge says of their pictures.
//
//   node models/fashion/recipe/steps.js search    ../steps/search.json: sampling options of ARPG, for export.py
//   node models/fashion/recipe/steps.js measure   ../steps/*.json and docs/fewer-steps.png, with the stored options
//   node models/fashion/recipe/steps.js page      docs/fewer-steps.md, from those files
//
// Measuring needs PyTorch, the package built, and the Fashion-MNIST pictures.

const fs = require('node:fs')
const path = require('node:path')
const { search, runs, timed, machineOf, spread, searched, root } = require('./measuring.js')

const searchedSteps = 32

const results = path.join(__dirname, '../steps')
const docs = path.join(root, 'docs')
const stepCounts = [256, 64, 32, 16, 8]
/** The picture of the docs: one seed for each class. */
const shownSeed = 5
/** Of each sampling seed. */
const pictures = 500
/** Guidance scale and top-p. ARPG's guidance grows from 1, so its scales are higher than PAR's. */
const settings = [3, 6, 9].flatMap(guidanceScale => [0.95, 0.85, 0.75].map(topP => ({ guidanceScale, topP })))

module.exports = { page }

// ---- measuring

async function findSampling () {
  await withModel('fashion-arpg', async par => write('search', await search(par, { steps: searchedSteps }, settings)))
}

async function measure () {
  await withModel('fashion-arpg', async par => {
    await writePicture(par)
    for (const steps of stepCounts) await measureRow(par, `arpg-${steps}`, { steps })
  })
  await withModel('fashion', async par => {
    for (const n of [1, 4, 16]) await measureRow(par, `par-${n}`, { n })
  })
}

async function withModel (name, work) {
  const { Par } = require(path.join(root, 'dist/index.js'))
  fs.mkdirSync(results, { recursive: true })
  const par = await Par.load(name, { precision: 'float32' })
  try {
    await work(par)
  } finally {
    await par.dispose()
  }
}

function write (name, result) {
  fs.writeFileSync(path.join(results, `${name}.json`), JSON.stringify(result, null, 1) + '\n')
  console.log(name, JSON.stringify(result))
}

/** A row that is there is not measured again. */
async function measureRow (par, name, options) {
  if (fs.existsSync(path.join(results, `${name}.json`))) return
  const made = await runs(par, options, undefined, pictures)
  const { steps, ms } = await timed(par, options)
  write(name, { name, steps, runs: made, msPerPicture: ms, machine: machineOf(par) })
}

/** A row for each number of steps, a column for each class; the same seeds, so the same order of cells, in each row. */
async function writePicture (par) {
  const sharp = require('sharp')
  const composite = []
  for (const [row, steps] of stepCounts.entries()) {
    const classId = Array.from({ length: 10 }, (_, k) => k)
    const images = await par.generate({ classId, seed: shownSeed, steps })
    for (const [column, image] of images.entries()) {
      composite.push({
        input: Buffer.from(image.data), raw: { width: 32, height: 32, channels: 3 }, left: 1 + column * 33,
        top: 1 + row * 33
      })
    }
  }
  const height = 1 + 33 * stepCounts.length
  const sheet = await sharp({ create: { width: 331, height, channels: 3, background: '#444' } })
    .composite(composite).png().toBuffer()
  await sharp(sheet).resize(662, 2 * height, { kernel: 'nearest' }).greyscale()
    .png({ compressionLevel: 9, colours: 64 }).toFile(path.join(docs, 'fewer-steps.png'))
}

// ---- the page

function page () {
  const isThere = name => fs.existsSync(path.join(results, `${name}.json`))
  const read = name => JSON.parse(fs.readFileSync(path.join(results, `${name}.json`), 'utf8'))
  const arpg = stepCounts.map(steps => read(`arpg-${steps}`))
  const par = [1, 4, 16].filter(n => isThere(`par-${n}`)).map(n => ({ n, ...read(`par-${n}`) }))
  const found = read('search')
  const reading = fs.readFileSync(path.join(results, 'READING.md'), 'utf8').trim()
  return `# One model, any number of steps

The package holds a small ARPG model beside its PAR models. PAR is trained for one n and takes as many steps as that n
needs. ARPG asks for any cells in any order, so one file makes a picture in 256 steps or in 8:

\`\`\`js
import { Par } from 'parvis'

const par = await Par.load('fashion-arpg')
const image = await par.generate({ classId: 7, seed: 1, steps: 16 })
await image.toFile('sneaker.png')
await par.dispose()
\`\`\`

On the command line: \`parvis generate sneaker --model fashion-arpg --steps 16\`. The published ARPG models work the same
way ([choosing a model](choosing-a-model.md)).

One thing is this model's own: its first step draws the cell in the middle, alone. A query of ARPG knows its place only
relative to the tokens that are known, and the class has no place. With orders that are random from their first cell on,
as the authors' are, pieces of clothing lay anywhere, cut at the edges: after 9,000 steps of training the judge
recognised 30% of 200 pictures in 32 steps, with guidance 2. The last 2,800 steps of its training began every order with
that cell.

## The same seed at five numbers of steps

![Ten classes of clothing, one column each; ${stepCounts.join(', ')} steps, one row each, from top to bottom](fewer-steps.png)

From top to bottom: ${stepCounts.join(', ')} steps. A column has one class and one seed, so its pictures draw their cells in the
same order; the draws of a cell are the same too, but what they are drawn from differs with the cells that are known by
then.

## What the judge says

${reading}

| model | steps | FD | recognised | ms |
|---|---|---|---|---|
${[...arpg.map(row => ['ARPG', row]), ...par.map(row => [`PAR, n = ${row.n}`, row])].map(([name, row]) =>
    `| ${name} | ${row.steps} | ${spread(row.runs.map(run => run.fid), 2)} | ` +
    `${spread(row.runs.map(run => 100 * run.recognised), 1, '%')} | ${row.msPerPicture} |`).join('\n')}

**FD** is the Fréchet distance of ${pictures} pictures, all classes alike, to the 10,000 test pictures of Fashion-MNIST,
in the 96 features of the last hidden layer of the judge, a classifier that was trained on real pictures
(\`models/fashion/recipe/classifier.py\`); lower is better. Of few pictures it is higher than of many: [ablations](../models/fashion/ABLATIONS.md)
has 2,000. **Recognised** is the share that the judge gives the class
asked for. Both are the mean of three sampling seeds, ± their standard deviation. **ms** is the median time of a single
picture on this machine: ${arpg[0].machine}, float32.

All models are sampled with the options that are stored with them. Those of ARPG are the guidance scale and top-p, of
${settings.length} pairs, that gave the least FD of ${searched.pictures} pictures with another seed in ${searchedSteps} steps; temperature is 1, and top-k is off:

| | ${settings.map(({ guidanceScale, topP }) => `${guidanceScale}, ${topP}`).join(' | ')} | taken |
|---|${settings.map(() => '---|').join('')}---|
| FD | ${found.search.map(({ fid }) => fid.toFixed(2)).join(' | ')} | ${found.sampling.guidanceScale}, ${found.sampling.topP} |

The models were trained for different times, so this compares what the package holds, not the methods: the [model
card](../models/fashion/MODEL_CARD.md) says how each was trained.

\`node models/fashion/recipe/steps.js measure\` measures, and \`steps.js page\` makes this page.
`
}

if (require.main === module) {
  const command = process.argv[2]
  if (command === 'measure' || command === 'search') {
    (command === 'measure' ? measure : findSampling)().catch(error => {
      console.error(error)
      process.exitCode = 1
    })
  } else if (command === 'page') {
    fs.writeFileSync(path.join(docs, 'fewer-steps.md'), page())
  } else {
    console.error('node models/fashion/recipe/steps.js search | measure | page')
    process.exitCode = 2
  }
}
