// The paper's ablations (table 4) in miniature: measures the transformers that ablations.py has trained, and makes the
// page of all results.
//
//   node models/fashion/recipe/ablations.js measure [row...]   what is trained and not measured: ../ablations/*.json
//   node models/fashion/recipe/ablations.js page               ../ABLATIONS.md, from those files
//
// Measuring needs PyTorch, and the FASHION_WORK in which encode.py and ablations.py have worked.

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const {
  search, runs, timed, machineOf, spread, settings, searched, measured, python, root, work
} = require('./measuring.js')

const results = path.join(__dirname, '../ablations')

module.exports = { page }

// ---- measuring

async function measure (rows) {
  fs.mkdirSync(results, { recursive: true })
  const trained = fs.readdirSync(path.join(work, 'ablations')).filter(name => name.endsWith('.safetensors'))
    .map(name => path.basename(name, '.safetensors'))
  for (const name of trained.filter(name => rows.length === 0 || rows.includes(name))) {
    const file = path.join(results, `${name}.json`)
    if (fs.existsSync(file) && rows.length === 0) continue
    const result = await measureRow(name)
    fs.writeFileSync(file, JSON.stringify(result, null, 1).replace(/\n {3,}(?=[-\d.])|\n {2}(?=\])/g, ' ') + '\n')
    console.log(name, JSON.stringify({ ...result, held: undefined }))
  }
}

async function measureRow (name) {
  const { Par } = require(path.join(root, 'dist/index.js'))
  const transformer = path.join(work, 'ablations', `${name}.safetensors`)
  const decoding = JSON.parse(metadataOf(transformer).decoding)
  const par = await Par.load({
    transformer, tokenizer: path.join(__dirname, '../tokenizer.safetensors'), precision: 'float32'
  })
  try {
    const found = await search(par, decoding)
    const all = { ...found.sampling, ...decoding }
    const made = await runs(par, all, path.join(results, `${name}.png`))
    const { steps, ms } = await timed(par, all)
    const { layers, dim } = par.info.transformer
    return {
      row: name,
      decoding,
      layers,
      dim,
      parameters: parametersOf(transformer),
      steps,
      ...found,
      runs: made,
      msPerPicture: ms,
      machine: machineOf(par),
      held: await heldOut(par, decoding)
    }
  } finally {
    await par.dispose()
  }
}

/** -log p(token), in nats, of the first 100 test pictures of each class: of each cell, and the mean of each picture. */
async function heldOut (par, decoding) {
  const file = path.join(work, 'held-out.npy')
  if (!fs.existsSync(file)) execFileSync(python, [path.join(__dirname, 'tokens.py'), file, '100'])
  const codes = fs.readFileSync(file)
  const data = codes.subarray(10 + codes.readUInt16LE(8))
  const [cells, pictures] = [new Float64Array(256), []]
  const count = data.length / 256
  for (let from = 0; from < count; from += 50) {
    const numbers = Array.from({ length: 50 }, (_, i) => from + i)
    const scores = await par.score({
      tokens: numbers.map(i => Array.from(data.subarray(i * 256, (i + 1) * 256))),
      classId: numbers.map(i => Math.floor(i / (count / 10))),
      ...decoding
    })
    for (const { total, logProbs } of scores) {
      pictures.push(Number((-total / 256).toFixed(4)))
      logProbs.forEach((value, cell) => { cells[cell] -= value / count })
    }
  }
  return {
    pictures: count,
    nats: Number((pictures.reduce((sum, value) => sum + value, 0) / count).toFixed(4)),
    perCell: Array.from(cells, value => Number(value.toFixed(3))),
    perPicture: pictures
  }
}

function headerOf (file) {
  const bytes = fs.readFileSync(file)
  return JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE(0))))
}

const metadataOf = file => headerOf(file).__metadata__

function parametersOf (file) {
  const { __metadata__, ...tensors } = headerOf(file)
  return Object.values(tensors).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
}

// ---- the page

/** The paper's table 4 (VQ tokenizer, ImageNet 256, FID-50K) and the rows of ours that stand beside it. */
const tables = [
  {
    title: '4a: the first group',
    text: 'Without the sequential start (`initial: none`) the tokens of the first group are drawn at once.',
    rows: [['n = 4 without', 'n4-none', 3.67], ['n = 4 with', 'n4', 2.61], ['n = 16 without', 'n16-none'],
      ['n = 16 with', 'n16']],
    paper: 'PAR-XL-4x'
  },
  {
    title: '4b: tokens per step',
    text: 'Distant order; n = 1 is the raster order, token by token.',
    rows: [['n = 1', 'n1', 2.34], ['n = 4', 'n4', 2.35], ['n = 16', 'n16', 3.02]],
    paper: 'PAR-XXL'
  },
  {
    title: '4c: attention inside the group',
    text: 'Causal: a token of a group sees only those before it in the group, instead of the whole group before it.',
    rows: [['n = 4 causal', 'n4-causal', 3.64], ['n = 4 full', 'n4', 2.61], ['n = 16 causal', 'n16-causal'],
      ['n = 16 full', 'n16']],
    paper: 'PAR-XL-4x'
  },
  {
    title: '4d: order, one token or several a step',
    text: 'Several in raster order are the next n tokens of the scan: neighbours.',
    rows: [['raster, one', 'n1', 2.62], ['distant, one', 'n4-one', 2.64], ['raster, 4 a step', 'n4-raster', 5.64],
      ['distant, 4 a step', 'n4', 2.61]],
    paper: 'PAR-XL-4x'
  },
  {
    title: '4e: size',
    text: 'The paper: 343M, 775M, 1.4B and 3.1B parameters, FID 3.76, 2.61, 2.35 and 2.29.',
    rows: [['width 64', 'n4-narrow'], ['width 128', 'n4'], ['width 192', 'n4-wide']],
    paper: 'sizes of its own'
  }
]

function page () {
  const found = Object.fromEntries(fs.readdirSync(results).filter(name => name.endsWith('.json')).sort()
    .map(name => [path.basename(name, '.json'), JSON.parse(fs.readFileSync(path.join(results, name), 'utf8'))]))
  const names = [...new Set(tables.flatMap(({ rows }) => rows.map(([, name]) => name)))]
  const missing = names.filter(name => !found[name])
  const reading = fs.readFileSync(path.join(results, 'READING.md'), 'utf8').trim()
  return `# The paper's ablations in miniature

Table 4 of the [paper](https://arxiv.org/abs/2412.15119) says what each part of the method is worth, with models of 343
million to 3.1 billion parameters on ImageNet. This page repeats its rows with models of about a million parameters on
Fashion-MNIST (32 x 32 pixels, 16 x 16 tokens of the embedded tokenizer). Each row is a transformer of its own, trained
from the start with the same budget: 1,875 batches of 32, which is every training picture once; float32, AdamW, one
seed; the model card has the rest. The weights are not in the repository.

\`models/fashion/recipe/ablations.py\` trains, \`ablations.js measure\` measures with this package, and \`ablations.js
page\` makes this page from the results in [ablations/](ablations/).
${missing.length === 0
    ? ''
    : `
**Not all rows are trained yet.** Missing: ${missing.map(name => `\`${name}\``).join(', ')}. Their lines are empty.
`}
## What it says

${reading}

## The tables

**FD** is the Fréchet distance of ${measured.pictures.toLocaleString('en')} pictures, all classes alike, to the 10,000 test pictures, in the 96 features
of the last hidden layer of the judge (\`recipe/classifier.py\`); lower is better. **Recognised** is the share that the
judge gives the class asked for. Both are the mean of three sampling seeds, ± their standard deviation. **Nats** is the
mean of -log p(token) over 1,000 test pictures: lower is better, but only rows of one order are given the same before
each token. **ms** is the median time of a single picture (batch 1); the machine was not quiet. The paper's FID is that
of other models, other pictures and other features: compare directions, not sizes. What differs between two rows by
less than their deviations is no difference, and one training seed a row says nothing of how much trainings differ.
${tables.map(table => section(table, found)).join('')}
## Sampling

Each row is sampled with the guidance scale and top-p, of ${settings.length} pairs, that give the least FD of ${searched.pictures} pictures with another
seed. Temperature is 1, and top-k is off.

| row | taken | ${settings.map(({ guidanceScale, topP }) => `${guidanceScale}, ${topP}`).join(' | ')} |
|---|---|${settings.map(() => '---|').join('')}
${names.filter(name => found[name]).map(name => {
    const { sampling, search } = found[name]
    return `| ${name} | ${sampling.guidanceScale}, ${sampling.topP} | ${search.map(({ fid }) => fid.toFixed(2)).join(' | ')} |`
  }).join('\n')}

## Pictures

Eight pictures of each class, the first of seed 1, as the measured rows draw them (compare figure 5 of the paper).

${names.filter(name => found[name]).map(name => `**${name}**\n\n![Eighty pictures of clothing drawn by the row ${name}](ablations/${name}.png)`).join('\n\n')}
`
}

function section ({ title, text, rows, paper }, found) {
  return `
### ${title}

${text}

| | the paper's FID (${paper}) | FD | recognised | nats | steps | ms |
|---|---|---|---|---|---|---|
${rows.map(([label, name, fid]) => {
    const result = found[name]
    const figures = result
      ? [spread(result.runs.map(run => run.fid), 2), spread(result.runs.map(run => 100 * run.recognised), 1, '%'),
          result.held.nats.toFixed(3), result.steps, result.msPerPicture]
      : ['', '', '', '', '']
    return `| ${label} (\`${name}\`) | ${fid ?? ''} | ${figures.join(' | ')} |`
  }).join('\n')}
`
}

if (require.main === module) {
  const [command, ...rows] = process.argv.slice(2)
  if (command === 'measure') {
    measure(rows).catch(error => {
      console.error(error)
      process.exitCode = 1
    })
  } else if (command === 'page') {
    fs.writeFileSync(path.join(__dirname, '../ABLATIONS.md'), page())
  } else {
    console.error('node models/fashion/recipe/ablations.js measure [row...] | page')
    process.exitCode = 2
  }
}
