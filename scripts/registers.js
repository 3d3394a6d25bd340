'use strict'
// Registers of every kernel on each architecture of a release, as ptxas reports them, into cuda/registers.md: they
// decide how many blocks a multiprocessor has, and a change of a kernel is to show what it takes. Needs nvcc and some
// minutes.
//   node scripts/registers.js

const { execFile, execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { promisify } = require('node:util')

const root = path.join(__dirname, '..')
const architectures = [80, 86, 89, 90, 100, 120]
const nvcc = [process.env.CUDACXX, '/usr/local/cuda/bin/nvcc', 'nvcc'].find(file => file && (
  path.isAbsolute(file) ? fs.existsSync(file) : true))

/** { mangled name: registers } of a source. Spills and local memory are errors, as in the build. */
async function registersOf (source, architecture) {
  const out = path.join(os.tmpdir(), `parvis-registers-${process.pid}-${path.basename(source)}-${architecture}.o`)
  try {
    const { stderr } = await promisify(execFile)(nvcc, ['-std=c++17', `-arch=sm_${architecture}`, '-O3', '--fmad=false',
      '-Iinclude', '-Xptxas=-v,--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error', '-c', source,
      '-o', out], { cwd: root, maxBuffer: 1 << 26 })
    return Object.fromEntries([...stderr.matchAll(/Compiling entry function '(\S+)'[^]*?Used (\d+) registers/g)]
      .map(([, name, registers]) => [name, Number(registers)]))
  } finally {
    fs.rmSync(out, { force: true })
  }
}

/** As people write it: `projectKernel<TileShape<bfloat16, 1, 4, 8>, false>`. */
function plainName (name) {
  return name.replace(/^void /, '').replace(/\(anonymous namespace\)::/g, '')
    .replace(/parvis::(cuda::)?/g, '').replace(/>\(.*$/, '>').replace(/^([^<]*?)\(.*$/, '$1')
    .replace(/\(WeightFormat\)1/g, 'bfloat16').replace(/\(WeightFormat\)2/g, 'int8')
    .replace(/ >/g, '>')
}

function readable (mangled) {
  const names = execFileSync('c++filt', { input: mangled.join('\n'), encoding: 'utf8' }).trim().split('\n')
  return names.map(plainName)
}

async function main () {
  const sources = fs.readdirSync(path.join(root, 'cuda')).filter(name => name.endsWith('.cu')).sort()
  const jobs = sources.flatMap(source => architectures.map(architecture => ({ source, architecture })))
  const found = new Map(sources.map(source => [source, {}]))
  await Promise.all(Array.from({ length: os.availableParallelism() }, async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) {
      const { source, architecture } = job
      for (const [name, registers] of Object.entries(await registersOf(`cuda/${source}`, architecture))) {
        // Names of an anonymous namespace hold a number that differs from build to build.
        const plain = name.replace(/_GLOBAL__N__[0-9a-f]+_/g, '_GLOBAL__N__')
        const row = found.get(source)[plain] ||= { name }
        row[architecture] = registers
      }
    }
  }))
  const lines = ['# Registers of the kernels', '',
    'What a thread of each kernel takes, by compute capability, as ptxas of nvcc 13.0 reports it. No kernel spills or has',
    'an array in local memory: both are errors of the build. `node scripts/registers.js` writes this page.', '']
  for (const source of sources) {
    const rows = Object.values(found.get(source))
    if (rows.length === 0) continue
    const names = readable(rows.map(({ name }) => name))
    const head = architectures.map(a => `${Math.floor(a / 10)}.${a % 10}`).join(' | ')
    lines.push(`## ${source}`, '', `| kernel | ${head} |`, `|---|${architectures.map(() => '---|').join('')}`)
    lines.push(...rows.map((row, i) =>
      `| \`${names[i]}\` | ${architectures.map(a => row[a] ?? '').join(' | ')} |`).sort(), '')
  }
  fs.writeFileSync(path.join(root, 'cuda', 'registers.md'), lines.join('\n'))
}

module.exports = { plainName }
if (require.main === module) {
  main().catch(error => {
    console.error(`registers: ${error.stderr || error.message}`)
    process.exitCode = 1
  })
}
