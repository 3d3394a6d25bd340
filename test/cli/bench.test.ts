// parvis bench as its users run it, on the smallest of the paper's sizes: what it says must follow from what it
// counted.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { addon } from '../../lib/machine/native.js'
import { groupParts, isStep, speedUp } from '../../lib/bench/figures.js'
import { markdown } from '../../lib/bench/report.js'
import type { DecodeResult, Report } from '../../lib/bench/types.js'
import { root } from '../support/built.js'
import { parvis, temporaryFolder } from './run.js'

const small = ['bench', '--model', 'b', '--device', 'cpu', '--precision', 'bfloat16', '--grid', '8', '--repeats', '2',
  '--no-torch']
const folder = temporaryFolder()
/** Its temporary folders go here, and must be gone when it ends. */
const own = { TMPDIR: folder, TMP: folder, TEMP: folder }
const left = (): string[] => fs.readdirSync(folder).filter(name => name.startsWith('parvis-'))

t.test('a report as JSON, and its plots', async t => {
  const plots = path.join(folder, 'new', 'plots')
  const { code, stdout, stderr } = await parvis(
    [...small, '-n', '1,4,16', '--batch', '1,2', '-o', 'json', '--plots', plots], { env: own }
  )
  t.same({ code, stderr }, { code: 0, stderr: '' })
  const report = JSON.parse(stdout) as Report
  t.match(report, {
    format: 'parvis-bench-4',
    command: /^npx parvis bench --model b .* -o json/,
    environment: { parvis: /^\d/, commit: addon().build.commit, compiler: /\d/, node: process.version, cores: addon()
      .cpu().cores, threads: addon().cpu().threads, isa: addon().cpu().isa, date: /^\d{4}-\d\d-\d\d$/ },
    operations: [],
    notRun: [],
    coldStart: [{ device: 'cpu', importMs: Number, loadMs: Number, firstImageMs: Number, laterImageMs: Number }]
  })

  // ---- steps
  const steps = report.results.filter(isStep)
  t.same(steps.map(({ n, batch, steps }) => [n, batch, steps]),
    [[1, 1, 64], [1, 2, 64], [4, 1, 19], [4, 2, 19], [16, 1, 19], [16, 2, 19]])
  for (const one of steps) {
    const name = `n = ${one.n}, batch ${one.batch}`
    t.match(one, { model: 'B', device: 'cpu', precision: 'bfloat16', grid: 8, whole: false }, name)
    t.ok(one.ms.least <= one.ms.median && one.ms.median <= one.ms.greatest, name)
    t.equal(one.places.reduce((sum, place) => sum + place.steps, 0), one.steps, `${name}: places stand for all steps`)
    const image = one.places.reduce((sum, place) => sum + place.steps * place.ms, 0) / one.batch
    t.ok(Math.abs(image / one.msPerImage - 1) < 1e-9, `${name}: extrapolated from them`)
    t.ok(Math.abs(one.tokensPerSecond * one.msPerImage / 1000 - 64) < 1e-6, name)
    t.equal(one.bytes, one.weightBytes + one.cacheBytes)
    t.ok(one.ofReadCeiling! > 0 && one.ofArithmeticCeiling! > 0, name)
    t.ok(Math.abs(one.ofReadCeiling! - one.bytes / (one.ms.median / 1000) / one.ceilings!.readBytesPerSecond) < 1e-9,
      name)
    const up = speedUp(one, report.results)!
    t.ok(Math.abs(up.measured * up.stepRatio - up.bySteps) < 1e-9,
      `${name}: the speed-up is the steps' by what a step costs`)
  }
  const decodes = report.results.filter((one): one is DecodeResult => one.operation === 'decode')
  t.match(decodes, [{ pixels: 128, batch: 1 }, { pixels: 128, batch: 2, model: 'VQ-16' }])
  t.equal(decodes[1]!.flops, 2 * decodes[0]!.flops)

  // ---- what is made of it
  for (const heading of ['Transformer', 'Speed-up over n = 1', 'Against the ceilings', 'VQ-16 decode', 'Cold start',
    "The paper's tables"]) {
    t.equal(markdown(report).includes(`# ${heading}\n`), heading !== "The paper's tables",
      `${heading} (B is not in the paper's table)`)
  }
  for (const name of ['time.svg', 'ceilings.svg']) {
    t.match(fs.readFileSync(path.join(plots, name), 'utf8'), /^<svg [^]*<\/svg>\n$/)
  }
  t.same(left(), [])
})

t.test('as a table, whole pictures, and as CSV', async t => {
  const table = await parvis([...small, '-n', '16', '--full', '--no-decode', '--no-cold-start'], { env: own })
  t.same({ code: table.code, stderr: table.stderr }, { code: 0, stderr: '' })
  t.match(table.stdout, /^# parvis bench, /)
  t.match(table.stdout, /^\| B +\| 16 +\| 1 +\| 8 +\| bfloat16 +\| cpu +\| 19 +\| .*\| 2 x all 19 +\|$/m)
  t.notMatch(table.stdout, /NaN|undefined|Infinity/)
  const { code, stdout } = await parvis([...small, '-n', '4,16', '--no-decode', '--no-cold-start', '-o', 'csv'],
    { env: own })
  t.equal(code, 0)
  const [heads, ...rows] = stdout.trimEnd().split('\n').map(line => line.split(','))
  t.equal(rows.length, 2)
  for (const row of rows) t.equal(row.length, heads!.length)
  t.same(rows.map(row => row[heads!.indexOf('n')]), ['4', '16'])
  t.same(left(), [])
})

t.test('operations of steps and decodes', async t => {
  const plots = path.join(folder, 'operations')
  const which = ['-n', '4', '--batch', '1,2', '--repeats', '1', '--operations', '--no-cold-start']
  const { code, stdout, stderr } = await parvis([...small, ...which, '-o', 'json', '--plots', plots], { env: own })
  t.same({ code, stderr }, { code: 0, stderr: '' })
  const report = JSON.parse(stdout) as Report
  t.same(report.notRun, [])
  const operations = report.operations!
  const groups = groupParts(operations, report.results)
  t.same(groups.map(({ parts: [first] }) => [first!.partOf, first!.model, first!.n, first!.batch]), [
    ['step', 'B', 4, 1], ['step', 'B', 4, 2], ['decode', 'VQ-16', undefined, 1], ['decode', 'VQ-16', undefined, 2]
  ])
  for (const { parts, sum, whole } of groups) {
    const result = report.results.find(one => one.operation === parts[0]!.partOf && one.batch === parts[0]!.batch)!
    t.equal(whole, result.ms.median)
    t.ok(sum > 0)
    const flops = parts.reduce((all, one) => all + one.times * one.flops, 0)
    // A decode is counted without the products of queries and keys, a step is an average over the cache.
    t.ok(Math.abs(flops / result.flops - 1) < 0.02, `${parts[0]!.partOf}: ${flops} of ${result.flops}`)
  }
  for (const one of operations) {
    t.match(one, { device: 'cpu', precision: 'bfloat16', grid: 8, name: /./, shape: /\d/ })
    t.ok(one.ms.least > 0 && one.ms.least <= one.ms.median && one.ms.median <= one.ms.greatest, one.name)
    t.equal(one.msInAll, one.times * one.ms.median)
    const share = one.bytes / (one.ms.median / 1000) / one.ceilings!.readBytesPerSecond
    t.ok(Math.abs(one.ofReadCeiling! - share) < 1e-6 * share, one.name)
  }
  const text = markdown(report)
  t.match(text, /^## Operations$[^]*^### B, n = 4, grid 8, bfloat16, cpu$/m)
  t.match(text, /^### VQ-16 decode, batch 2, grid 8, bfloat16, cpu$/m)
  const plot = fs.readFileSync(path.join(plots, 'ceilings.svg'), 'utf8')
  t.match(plot, />VQ-16 decode, grid 8: convolution 3x3, 128 -&gt; 3, /)
  t.same(left(), [])
})

t.test('a peer in alternating runs', {
  skip: process.platform === 'win32' && 'the stand-in is a shell script'
}, async t => {
  // Stands in for Python with PyTorch: takes 10 ms for everything.
  const python = path.join(folder, 'python3')
  fs.writeFileSync(python, '#!/bin/sh\nif [ "$1" = -c ]; then echo 7 9.9; exit; fi\necho "$@" >> "$0.log"\nwhile ' +
    'read line; do echo "$line" >> "$0.log"; echo 10; done\n', { mode: 0o755 })
  const script = path.join(folder, 'peer.py')
  fs.writeFileSync(script, '')
  const args = ['bench', '--model', 'B', '-n', '4', '--device', 'cpu', '--precision', 'bfloat16', '--repeats', '1',
    '--no-decode', '--no-cold-start', '--threads', '1', '--torch', script]
  const { code, stdout, stderr } = await parvis([...args, '--json'],
    { env: { ...own, PATH: `${folder}${path.delimiter}${process.env.PATH}` } })
  t.same({ code, stderr }, { code: 0, stderr: '' })
  const one = (JSON.parse(stdout) as Report).results.find(isStep)!
  t.match((JSON.parse(stdout) as Report).environment.torch, '9.9')
  t.match(one.torch, [{ name: '1 thread', threads: 1, precision: 'bfloat16', ms: { median: 10 } }, { threads: 7 }])
  t.ok(Math.abs(one.torch[0]!.ratio - 10 / one.ms.median) < 1e-9 &&
    Math.abs(one.torch[0]!.ratioOfLeast - 10 / one.ms.least) < 1e-9)
  const log = fs.readFileSync(python + '.log', 'utf8')
  t.match(log, `${script} B 4 1\n`)
  const slots = [...log.matchAll(/^step bfloat16 (\d+)$/gm)].map(match => Number(match[1]))
  t.same(slots.slice(0, 2), [0, 0], 'both start up before anything is timed')
  t.ok(slots.length >= 18 && slots.slice(2).every(slot => slot >= 4 && slot <= 572), 'where ours are timed')

  // What PyTorch does not have is said, and not tried.
  const withInt8 = await parvis([...args.map(arg => arg === 'bfloat16' ? 'int8' : arg), '--json'],
    { env: { ...own, PATH: `${folder}${path.delimiter}${process.env.PATH}` } })
  const int8 = JSON.parse(withInt8.stdout) as Report
  t.same(int8.results.find(isStep)!.torch, [])
  t.same(int8.notRun, [{
    what: 'PyTorch: B, n = 4, int8, cpu, batch 1, 24 x 24',
    reason: 'Its layers do not multiply activations by 8-bit weights'
  }])
  t.equal(fs.readFileSync(python + '.log', 'utf8'), log)

  fs.writeFileSync(python, '#!/bin/sh\nif [ "$1" = -c ]; then echo 7 9.9; fi\n') // ends at once
  const broken = await parvis(args, { env: { ...own, PATH: `${folder}${path.delimiter}${process.env.PATH}` } })
  t.equal(broken.code, 0, broken.stderr)
  t.match(
    broken.stdout,
    /^## Not run\n\n- PyTorch, 1 thread: B, n = 4, bfloat16, cpu, batch 1, 24 x 24: The program ended with exit code 0\n- PyTorch, 7 threads: /m
  )
  t.notMatch(broken.stdout, /## PyTorch/)
  t.same(left(), [])
})

t.test('a GPU: whole pictures, beside its own ceilings', async t => {
  // A machine with one, whose engine computes on the CPU.
  const hook = path.join(folder, 'gpu.cjs')
  fs.writeFileSync(hook, `
    const extensions = require('node:module')._extensions
    const load = extensions['.node']
    extensions['.node'] = (module, file) => {
      load(module, file)
      if (!file.endsWith('parvis.node')) return
      const real = module.exports
      const h200 = { index: 0, name: 'NVIDIA H200', capability: [9, 0], memory: 150e9 }
      const cuda = async () => ({ compiled: true, driver: 13000, runtime: 12080, architectures: '90', devices: [h200] })
      const createEngine = ({ device, threads }) => Object.defineProperty(real.createEngine({ device: 'cpu', threads }), 'device', { value: device })
      module.exports = { ...real, cuda, cudaMemory: async () => ({ free: 1e9, total: 150e9 }), createEngine }
    }`)
  const env = { ...own, NODE_OPTIONS: `--require ${hook}` }

  // Peers: whole pictures in turn with ours. The stand-in for Python says which program it is to be.
  const bin = path.join(folder, 'gpu-bin')
  fs.mkdirSync(bin)
  fs.writeFileSync(path.join(bin, 'python3'), `#!/bin/sh
if [ "$1" = -c ]; then echo 7 9.9; exit; fi
case "$2" in --serve) who=$3;; *) who=authors;; esac
while read line; do
  echo "$who $line" >> "$0.log"
  case "$who $asked" in "authors ") echo 'cannot It needs PyTorch 2.1 or later.';; 'compiled ') echo 'doing compiling'; echo compiled 5000; echo 'note each layer compiled'; echo 1000;; *) echo 5100;; esac
  asked=yes
done
`, { mode: 0o755 })
  const authors = path.join(folder, 'par')
  fs.mkdirSync(path.join(authors, 'autoregressive', 'models'), { recursive: true })
  for (const name of ['gpt.py', 'generate.py']) {
    fs.writeFileSync(path.join(authors, 'autoregressive', 'models', name), '')
  }
  await t.test('peers', { skip: process.platform === 'win32' && 'the stand-in is a shell script' }, async t => {
    const peers = await parvis(['bench', '--model', 'B', '-n', '16', '--repeats', '2', '--device', 'cuda',
      '--precision', 'bfloat16', '--no-decode', '--no-cold-start', '--authors', authors, '-o', 'json'],
    { env: { ...env, PATH: `${bin}${path.delimiter}${process.env.PATH}` } })
    t.same({ code: peers.code, stderr: peers.stderr }, { code: 0, stderr: '' })
    const { results: [one], notRun } = JSON.parse(peers.stdout) as Report
    t.match(
      one, { whole: true, timedSteps: 102, torch: [{ name: 'eager', ms: { median: 100 } },
        { name: 'compiled', compileMs: 5000, notes: ['each layer compiled'], ms: { median: 100 } }] }
    )
    t.ok(Math.abs(one!.torch[0]!.ratio - 100 / one!.ms.median) < 1e-9, 'a picture of 51 steps against one of ours')
    t.same(
      notRun,
      [{
        what: "PyTorch, authors' code: B, n = 16, bfloat16, cuda:0, batch 1, 24 x 24",
        reason: 'It needs PyTorch 2.1 or later'
      }]
    )
    t.same(fs.readFileSync(path.join(bin, 'python3.log'), 'utf8').trim().split('\n'),
      ['eager', 'compiled', 'authors', 'eager', 'compiled', 'eager', 'compiled'].map(who => `${who} picture bfloat16`))
  })
  const { code, stdout, stderr } = await parvis(['bench', '--model', 'B', '-n', '16', '--grid', '8', '--repeats', '2',
    '--device', 'cuda,cpu,auto', '--no-torch', '-o', 'json'], { env })
  t.same({ code, stderr }, { code: 0, stderr: '' })
  const report = JSON.parse(stdout) as Report
  t.same(report.environment.gpus,
    [{ device: 'cuda:0', name: 'NVIDIA H200', driver: 'CUDA 13.0', runtime: 'CUDA 12.8' }])
  t.same(report.results.map(({ operation, device }) => `${operation} ${device}`),
    ['step cuda:0', 'decode cuda:0', 'step cpu', 'decode cpu'], 'auto is the GPU, once')
  t.match(report.results[0],
    { whole: true, timedSteps: 38, places: [], ceilings: { readBytesPerSecond: Number }, ofReadCeiling: Number })
  t.match(report.results[2], { whole: false, ceilings: { readBytesPerSecond: Number } })
  t.match(report.coldStart, [{ device: 'cuda:0' }, { device: 'cpu' }])
  t.match(markdown(report),
    /^# parvis bench, NVIDIA H200; .*\n[^]*- cuda:0: NVIDIA H200, driver for CUDA 13\.0, built with CUDA 12\.8\n/)
})

t.test('a signal ends it and leaves nothing', async t => {
  for (const after of [0, 300]) { // while the weights are written or loaded, and among the steps
    const { code, stdout, stderr } = await parvis(['bench', '--model', 'B', '--device', 'cpu', '--full',
      '--no-torch'], {
      env: own,
      started: child => {
        const watch = setInterval(() => {
          if (left().length === 0) return
          clearInterval(watch)
          setTimeout(() => child.kill('SIGINT'), after)
        }, 5)
        child.on('close', () => clearInterval(watch))
      }
    })
    t.same({ code, stdout }, { code: 130, stdout: '' })
    t.match(stderr, /INTERRUPTED/)
    t.same(left(), [])
  }
})

t.test('instruction sets in one report', async t => {
  const isas = addon().cpu().isas.slice(-2)
  const { code, stdout } = await parvis(['bench', '--model', 'b', '-n', '16', '--grid', '8', '--repeats', '1',
    '--no-torch', '--no-cold-start', '--no-decode', '--operations', '--precision', 'int8', '--isa', isas.join(), '-o',
    'json'],
  { env: own })
  t.equal(code, 0)
  const { environment, results, operations, command } = JSON.parse(stdout) as Report
  t.equal(environment.isa, isas.join(', '))
  t.match(command, / --isa /)
  t.same(results.map(({ device, precision }) => [device, precision]), isas.map(isa => [`cpu ${isa}`, 'int8']))
  for (const result of results.filter(isStep)) {
    t.ok(result.ms.median > 0 && result.ofArithmeticCeiling! > 0)
    // A byte for each weight, and a float for each 64 of them.
    const [width, layers, feedForward, vocabulary] = [768, 12, 2048, 16384]
    t.equal(result.weightBytes,
      (layers * (4 * width + 3 * feedForward) + vocabulary) * width * (1 + 4 / 64))
  }
  t.same([...new Set(operations!.map(({ device }) => device))], isas.map(isa => `cpu ${isa}`))
  t.same(left(), [])
})

t.test('what is wrong is said before anything is measured', async t => {
  const wrong: Array<[args: string[], message: RegExp, code?: number]> = [
    [['--model', 'M'], /--model.*B, L, XL, XXL, 3B, arpg-l, .*randar-l/], [['-n', '0'], /-n.*at least 1/],
    [['-n', '4,x'], /-n.*whole number/], [['--precision', 'int4'], /precision.*float32, bfloat16 or int8/],
    [['--isa', 'avx1024'], /--isa avx1024: this machine can run baseline/],
    [['--isa', 'baseline', '--device', 'cuda'], /--isa is for the CPU/],
    [['--device', 'tpu'], /device.*cuda/], [['-o', 'xml'], /md, json, csv/], [['--json', '-o', 'csv'], /two formats/],
    [['--seconds', '0'], /seconds.*at least 1/],
    [['-n', '3'], /--tokens-per-step must be a square/], [['-n', '16', '--grid', '6'], /does not divide --grid 6/],
    [['--torch', path.join(folder, 'none.py')], /none\.py.*no such file/, 1],
    [['--authors', folder], /no checkout of the authors' code.*INVALID_OPTION/, 1],
    [['--plots', path.join(__filename, 'x')], /no folder/, 1]
  ]
  for (const [args, message, expected = 2] of wrong) {
    const { code, stdout, stderr } = await parvis(['bench', ...args])
    t.same({ code, stdout }, { code: expected, stdout: '' }, args.join(' '))
    t.match(stderr, message)
  }
  const cuda = await parvis(['bench', '--device', 'cuda'], { env: { CUDA_VISIBLE_DEVICES: '-1' } })
  t.equal(cuda.code, 1)
  t.match(cuda.stderr, /DEVICE_UNAVAILABLE/)
})

t.test('a model that does not fit is left out, with the reason', async t => {
  // A machine with little memory.
  const hook = path.join(folder, 'hook.cjs')
  fs.writeFileSync(hook, `const native = require(${JSON.stringify(path.join(root, 'dist', 'machine', 'native.js'))}).addon()
const { cpu } = native
native.cpu = () => { const facts = cpu(); return { ...facts, memory: { ...facts.memory, free: ${300e6} } } }`)
  const { code, stdout } = await parvis(['bench', '--model', 'B,L', '-n', '16', '--grid', '8', '--repeats', '1',
    '--device', 'cpu', '--precision', 'bfloat16', '--no-decode', '--no-cold-start', '--no-torch', '--json'],
  { env: { ...own, NODE_OPTIONS: `--require ${hook}` } })
  t.equal(code, 0)
  t.match(JSON.parse(stdout),
    {
      results: [{ model: 'B' }],
      notRun: [{ what: 'L, n = 16, bfloat16, cpu', reason: /weights would take 0\.7 GB, and 0\.3 GB are free/ }]
    })
})
