// What is measured of a transformer's pictures: for ablations.js and steps.js. Needs PyTorch, and the package built.

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.join(__dirname, '../../..')
const work = process.env.FASHION_WORK ?? '/tmp/fashion'
const python = process.env.PYTHON ?? '/usr/bin/python3'

/** Guidance scale and top-p; the setting with the least Fréchet distance of 500 pictures is taken. */
const settings = [1, 1.5, 2, 3].flatMap(guidanceScale => [1, 0.95].map(topP => ({ guidanceScale, topP })))
const searched = { pictures: 500, seed: 11 }
const measured = { pictures: 2000, seeds: [1, 2, 3] }

module.exports = { search, runs, timed, machineOf, spread, settings, searched, measured, python, root, work }

/** The best of some settings with these further options, and the Fréchet distance of each. */
async function search (par, options, some = settings) {
  const found = []
  for (const setting of some) {
    const { fid } = await scored(par, { ...setting, ...options }, searched.pictures, searched.seed)
    found.push({ ...setting, fid })
  }
  const { guidanceScale, topP } = found.reduce((best, one) => one.fid < best.fid ? one : best)
  return { sampling: { guidanceScale, topP }, search: found }
}

/** Pictures of three sampling seeds. @param sheet where the first pictures of the first seed go */
async function runs (par, options, sheet, count = measured.pictures) {
  const all = []
  for (const seed of measured.seeds) {
    const own = seed === measured.seeds[0] ? sheet : undefined
    all.push({ seed, ...await scored(par, options, count, seed, own) })
  }
  return all
}

/** Pictures of all classes alike, and what the judge and `parvis eval` say of them. */
async function scored (par, options, count, seed, sheet) {
  const real = realFeatures()
  const { SampleFile } = require(path.join(root, 'dist/evaluation/sample-file.js'))
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ablation-'))
  try {
    const [samples, features] = ['samples.npz', 'features.npz'].map(name => path.join(folder, name))
    const file = await SampleFile.open(samples, { pictures: count, height: 32, width: 32 })
    const [labels, shown] = [[], []]
    for await (const image of par.samples({ count, classes: 'balanced', seed: seed * 1e6, ...options })) {
      await file.add(image.data)
      labels.push(image.classId)
      if (shown.length < 80) shown.push(Buffer.from(image.data))
    }
    await file.finish(labels, '')
    if (sheet) await writeSheet(shown, sheet)
    const { recognised } = judge(samples, features)
    const { fid, inceptionScore, precision, recall } = JSON.parse(execFileSync(process.execPath,
      [path.join(root, 'bin/parvis.js'), 'eval', features, '--reference', real, '--json'], { maxBuffer: 1 << 26 }))
    return { pictures: count, fid, recognised, inceptionScore, precision, recall }
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
}

function judge (...args) {
  return JSON.parse(execFileSync(python, [path.join(__dirname, 'features.py'), ...args],
    { env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } }))
}

/** The judge's features of the real test pictures. */
function realFeatures () {
  const file = path.join(work, 'real.npz')
  if (!fs.existsSync(file)) judge('--test', file)
  return file
}

/** Median of single pictures. */
async function timed (par, options) {
  const times = []
  let steps
  for (let seed = 0; seed < 11; seed++) {
    const began = performance.now()
    steps = (await par.generate({ classId: seed % 10, seed, ...options })).steps
    times.push(performance.now() - began)
  }
  return { steps, ms: Number(times.sort((a, b) => a - b)[5].toFixed(1)) }
}

function machineOf (par) {
  return `${os.cpus()[0].model.trim()}, ${par.info.isa}, ${par.info.threads} threads`
}

/** Ten columns, one of each class; eight rows. */
async function writeSheet (pictures, file) {
  const sharp = require('sharp')
  const composite = pictures.map((input, i) => ({
    input, raw: { width: 32, height: 32, channels: 3 }, left: 1 + i % 10 * 33, top: 1 + Math.floor(i / 10) * 33
  }))
  const sheet = await sharp({ create: { width: 331, height: 265, channels: 3, background: '#444' } })
    .composite(composite).png().toBuffer()
  await sharp(sheet).resize(662, 530, { kernel: 'nearest' }).greyscale().png({ compressionLevel: 9, colours: 64 })
    .toFile(file)
}

/** Mean ± standard deviation. */
function spread (values, digits, unit = '') {
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1))
  return `${mean.toFixed(digits)}${unit} ± ${deviation.toFixed(digits)}`
}
