// What the judge says of generated clips: shares of right items and right motions, and the Fréchet distance of its
// features to those of 2,000 test clips; n = 1, 4, 16, three seeds each. Writes ../measured.json.
//
//   node models/moving/recipe/measure.js [n ...]
//
// Needs PyTorch, the Fashion-MNIST pictures, and the package built.

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { Par, Video } = require('../../../dist/index.js')

const root = path.join(__dirname, '../../..')
const folder = path.join(__dirname, '..')
const python = process.env.PYTHON ?? '/usr/bin/python3'
const perClass = 20
const seeds = [1, 2, 3]

async function main () {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'moving-'))
  const file = path.join(folder, 'measured.json')
  const results = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : {}
  const real = path.join(work, 'real.npz')
  results.test = judge('--test', real)
  const wanted = process.argv.length > 2 ? process.argv.slice(2) : ['1', '4', '16']
  for (const n of wanted) {
    const transformer = path.join(folder, `par-${n}.safetensors`)
    const tokenizer = path.join(folder, 'tokenizer.safetensors')
    const par = await Par.load({ transformer, tokenizer, device: 'cpu', precision: 'float32' })
    const classId = Array.from({ length: 10 * perClass }, (_, i) => Math.floor(i / perClass))
    const runs = []
    for (const seed of seeds) {
      const videos = await par.generateVideo({ classId, seed: 1000 * seed })
      const { frames, width, height, fps } = videos[0]
      const data = Buffer.concat(videos.map(video => video.data))
      const [clips, features] = ['clips.npy', 'features.npz'].map(name => path.join(work, name))
      await new Video({ data: new Uint8Array(data), frames: frames * videos.length, width, height, fps }).toFile(clips)
      const { item, motion } = judge('--judge', clips, '--classes', classId.join(), '--features', features)
      const { fid } = JSON.parse(execFileSync(process.execPath,
        [path.join(root, 'bin/parvis.js'), 'eval', features, '--reference', real, '--json']))
      runs.push({ seed, item, motion, fid, spread: spreadOf(videos) })
    }
    const { sampling, defaultSteps } = par.info.transformer
    results[`par-${n}`] = { steps: defaultSteps, sampling, clips: classId.length, runs }
    console.log(n, JSON.stringify(results[`par-${n}`]))
    await par.dispose()
  }
  fs.writeFileSync(file, JSON.stringify(results, null, 1) + '\n')
  fs.rmSync(work, { recursive: true })
}

function judge (...args) {
  return JSON.parse(execFileSync(python, [path.join(__dirname, 'judge.py'), ...args],
    { env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' }, maxBuffer: 1 << 26 }))
}

/** Mean distance of two clips of a class that follow each other, a pixel, in 0..1. */
function spreadOf (videos) {
  let [sum, count] = [0, 0]
  for (let k = 1; k < videos.length; k++) {
    if (videos[k].classId !== videos[k - 1].classId) continue
    const [a, b] = [videos[k].data, videos[k - 1].data]
    let squares = 0
    for (let i = 0; i < a.length; i++) squares += (a[i] - b[i]) ** 2
    sum += Math.sqrt(squares / a.length) / 255
    count++
  }
  return sum / count
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
