// What nvcc makes of the kernels, without a GPU: its PTX on an interpreter, in the programs that otherwise run the
// kernels as C++, against the CPU backend. Operand orders of inline PTX, branches for an architecture and nvcc's own
// reading of the sources are tested so; ptxas, the device's memory model and time are not. One order of threads an
// architecture: other orders are the business of test/cuda.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import {
  build, cpuBackend, cudaSession, cudaTokenizer, folder, inParallel, interpreterSources, execute, type Run
} from './support/simt.js'
import { type Architecture, buildInterpreted, changed, interpret, ptxOf, withoutNvcc } from './support/ptx.js'

t.setTimeout(1_800_000) // a first build takes minutes

const architectures: Architecture[] = [80, 90]

interface Assertions {
  ok: (value: unknown, message: string) => unknown
  equal: (found: unknown, wanted: unknown, message: string) => unknown
}

/** Its cases as assertions. */
function cases (t: Assertions, { code, out, err }: Run, where: string, least: number): void {
  const lines = out.split('\n').filter(line => /^(not )?ok /.test(line))
  for (const line of lines) t.ok(line.startsWith('ok '), `${line.replace(/^(not )?ok /, '')}, ${where}`)
  t.equal(code, 0, `${where} ran to its end${code === 0 ? '' : `: ${err.slice(0, 3000)}`}`)
  t.ok(lines.length >= least, `${where}: ${lines.length} cases`)
}

t.test('each instruction, as the manual says', async t => {
  const program = await build('ptx-self', ['test/ptx/self.cc', ...interpreterSources])
  const folder = t.testdir()
  const file = path.join(folder, 'self.ptx')
  t.equal((await execute(program, 'write', file)).code, 0)
  cases(t, await interpret(program, [file]), 'the rows', 170)
  cases(t, await execute(program, 'refuse', path.join(folder, 'refused.ptx')), 'what must not be taken', 13)
  const lost = path.join(folder, 'lost.ptx')
  fs.writeFileSync(lost, fs.readFileSync(file, 'utf8').replaceAll('4rowsEPm', '4rawsEPm'))
  t.match(await interpret(program, [lost]),
    { code: 3, err: /no entry for kernel \(anonymous namespace\)::rows\(unsigned long\*\)/ },
    'a kernel without an entry')
  t.match(await interpret(program, [file, file]), { code: 3, err: /more than one entry for kernel/ },
    'a kernel with two')
  fs.writeFileSync(lost, fs.readFileSync(file, 'utf8').replaceAll('.param .u64 rows_0', '.param .u32 rows_0'))
  t.match(await interpret(program, [lost]), { code: 3, err: /its parameters have other sizes or places/ },
    'parameters of other sizes')
})

t.test('the kernels of the SIMT layer\'s own test', { skip: withoutNvcc }, async t => {
  const program = await buildInterpreted('simt', ['test/simt/self.cc'])
  for (const architecture of architectures) {
    const ptx = await ptxOf(['test/simt/self.cc'], architecture)
    const where = `compute_${architecture}`
    const bulk = architecture >= 90 ? ['bulk', 'cluster'] : []
    if (architecture >= 90) {
      t.match((await interpret(program, ptx, 'overrun-prefetch', 1)).err,
        /thread \(0,0,0\), self-\w+-\w+\.ptx:\d+: invalid access/, `overrun-prefetch, ${where}`)
    }
    for (const name of ['sum', 'warp', 'half-mask', 'async', 'mma', 'mma-trans', ...bulk]) {
      t.same(await interpret(program, ptx, name, 1), { code: 0, out: 'right\n', err: '' }, `${name}, ${where}`)
    }
    for (const name of ['sum-no-barrier', 'warp-no-first', 'warp-no-second', 'async-no-wait']) {
      t.same(await interpret(program, ptx, name, 1), { code: 0, out: 'wrong\n', err: '' }, `${name}, ${where}`)
    }
    const messages: Array<[string, RegExp]> = [
      ['overrun-static',
        /4 bytes at 256 of \S*table\S* \(256 bytes\), shared memory of the block \(self-\w+-\w+\.ptx:\d+\)/],
      ['overrun-dynamic', /4 bytes at 252 of \S*DynamicShared\S* \(252 bytes\)/],
      ['overrun-global', /thread \(64,0,0\), self-\w+-\w+\.ptx:\d+: invalid access/],
      ['deadlock', /threads at bar.sync at self-\w+-\w+\.ptx:\d+: 33 \(5, 32/],
      ['deadlock-mbarrier', /mbarrier wait at self-\w+-\w+\.ptx:\d+: 32/],
      ['diverged-shuffle',
        /shfl.sync meets lane \d+ of its warp in shfl.sync at self-\w+-\w+\.ptx:\d+: the warp diverged/],
      ['diverged-block', /the block diverged/],
      ['foreign-lane', /reads lane 20, which its mask leaves out/]
    ]
    if (architecture >= 90) messages.push(['cluster-no-second', /the block of rank \d has ended/])
    for (const [name, message] of messages) {
      t.match((await interpret(program, ptx, name, 1)).err, message, `${name}, ${where}`)
    }
  }
  // One wrong operand each, as a slip in cuda/ptx.cuh would have it.
  const [right] = await ptxOf(['test/simt/self.cc'], 90)
  const rows = '(%r\\d+),(%r\\d+),(%r\\d+),(%r\\d+)'
  const slips: Array<[string, RegExp, string, string]> = [
    ['rows-exchanged', new RegExp(`(\\bmma\\S+ \\{[^}]*\\}, )\\{${rows}\\}`.replaceAll(',(', ', ?('), 'g'),
      '$1{$2,$4,$3,$5}', 'mma'],
    ['columns-exchanged', /(\bmma\S+ \{[^}]*\}, \{[^}]*\}, )\{(%r\d+), ?(%r\d+)\}/g, '$1{$3,$2}', 'mma'],
    ['sums-exchanged', /(\bmma\S+ )\{(%f\d+), ?(%f\d+), ?([^}]*)\}(, \{[^}]*\}, \{[^}]*\}, )/g, '$1{$3,$2,$4}$5',
      'mma'],
    ['not-transposed', /\.trans/g, '', 'mma-trans'],
    ['matrices-exchanged', /(ldmatrix\S+ )\{(%r\d+), ?(%r\d+)/g, '$1{$3,$2', 'mma'],
    ['all-bytes', /(cp\.async\.cg\.shared\.global .*, 16, )%r\d+/g, '$116', 'async'],
    ['other-rank', /(mapa\.shared::cluster\.u32 %r\d+, %r\d+, )%r\d+/g, '$10', 'cluster'],
    ['no-groups', /cp\.async\.wait_group 1;/g, 'cp.async.wait_group 2;', 'async']
  ]
  for (const [slip, from, to, name] of slips) {
    const file = changed(right!, slip, from, to)
    t.same(await interpret(program, [file], name, 1), { code: 0, out: 'wrong\n', err: '' }, `${slip} is seen`)
    fs.rmSync(file)
  }
})

const tokenizerKernels = ['codebook', 'convolve', 'convolve-plain', 'group-norm', 'picture', 'vq-attend']
  .map(name => `cuda/${name}.cu`)
const projections = ['pack', 'project', 'norm'].map(name => `cuda/${name}.cu`)
const projected = ['cpu/isa/unit.cc', 'common/floats.cc']
const convolutions = ['convolve', 'convolve-plain', 'group-norm'].map(name => `cuda/${name}.cu`)
const attentions = ['attend', 'attend-rows', 'plain'].map(name => `cuda/${name}.cu`)
/** Those that take longest first. */
const families: Array<{ name: string, sources: string[], least: number }> = [
  { name: 'vq-tokenizer', sources: [...cudaTokenizer, ...cpuBackend], least: 33 },
  { name: 'session', sources: [...cudaSession, ...cpuBackend], least: 41 },
  { name: 'vq-convolve', sources: [...convolutions, ...cpuBackend], least: 70 },
  { name: 'tile', sources: ['cuda/tile.cu', ...projections, ...projected], least: 79 },
  { name: 'attend', sources: [...attentions, 'cpu/isa/unit.cc'], least: 89 },
  { name: 'project', sources: [...projections, 'cuda/plain.cu', ...projected], least: 230 },
  { name: 'vq', sources: [...tokenizerKernels, ...cpuBackend], least: 25 },
  { name: 'sample', sources: ['cuda/sample.cu', 'cpu/isa/sample.cc'], least: 58 },
  { name: 'rows', sources: ['cuda/embed.cu', 'cuda/norm.cu', 'cpu/isa/unit.cc'], least: 17 }
]
const kernelsOf = (sources: string[]): string[] => sources.filter(source => source.endsWith('.cu'))

t.test('the families, out of what nvcc compiled', { skip: withoutNvcc }, async t => {
  const ready: Array<{ where: string, least: number, program: string, ptx: string[] }> = []
  for (const { name, sources, least } of families) { // one after another: they share sources
    const program = await buildInterpreted(name, [`test/simt/${name}.cc`, ...sources])
    for (const architecture of architectures) {
      ready.push({
        where: `${name}, compute_${architecture}`, least, program, ptx: await ptxOf(kernelsOf(sources), architecture)
      })
    }
  }
  const runs = await inParallel(ready,
    async ({ where, least, program, ptx }, order) =>
      ({ where, least, run: await interpret(program, ptx, order % 3 + 1) }))
  for (const { where, least, run } of runs) cases(t, run, where, least)
})

t.test('the kernels of no family', { skip: withoutNvcc }, async t => {
  const sources = ['cuda/pack.cu']
  const program = await buildInterpreted('rest', ['test/ptx/rest.cc', ...sources])
  for (const architecture of architectures) {
    cases(t, await interpret(program, await ptxOf(sources, architecture)), `compute_${architecture}`, 3)
  }
})

t.test('a slip in a kernel\'s own instructions is seen by its family', { skip: withoutNvcc }, async t => {
  const sources = families.find(family => family.name === 'project')!.sources
  const program = await buildInterpreted('project', ['test/simt/project.cc', ...sources])
  const right = await ptxOf(kernelsOf(sources), 90)
  const slips: Array<[string, RegExp, string]> = [
    ['halves-exchanged', /(cvt\.rn\.bf16x2\.f32 %r\d+, )(%f\d+), (%f\d+)/g, '$1$3, $2'],
    ['unwanted-loads', /@wanted ld/g, '@!wanted ld'],
    ['rows-exchanged', /(\bmma\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+),(%r\d+),(%r\d+)\}/g, '$1{$2,$4,$3,$5}']
  ]
  await inParallel(slips, async ([slip, from, to]) => {
    const files = right.map(file => path.basename(file).startsWith('project') ? changed(file, slip, from, to) : file)
    const { out, code } = await interpret(program, files, 1)
    t.ok(code !== 0 || /^not ok /m.test(out),
      `${slip}: ${out.split('\n').filter(line => line.startsWith('not ok')).length} cases fail`)
    for (const file of files) if (!right.includes(file)) fs.rmSync(file)
  })
})

// cuda/platform.cuh, launchInStep: what a kernel may do before it waits for the one before.
t.test('nothing but weights is read before the wait, and nothing is written', { skip: withoutNvcc }, async t => {
  const program = await build('ptx-list', ['test/ptx/list.cc', ...interpreterSources])
  const sources = fs.readdirSync(path.join(__dirname, '..', 'cuda'))
    .filter(file => file.endsWith('.cu') && file !== 'probe.cu').map(file => `cuda/${file}`)
  const { code, out, err } = await execute(program, ...await ptxOf(sources, 90))
  t.equal(code, 0, err)
  const entries = out.trim().split('\n').map(line => line.split('\t'))
  const launchedInStep =
    /takeStep|composePass|embed|norm|weigh|projectPlain|attendPlain|attend|attendRows|project|sample|score|tiled/
  for (const [name, file, waits, loads, stores] of entries) {
    if (/::vq::/.test(name!) || !launchedInStep.test(name!.replace(/<.*/, ''))) continue
    t.equal(waits, 'waits', `${name} waits on every path`)
    t.equal(stores, 'stores:', `${name} writes nothing before`)
    const ptx = fs.readFileSync(path.join(folder, 'ptx', file!), 'utf8').split('\n')
    const before = loads!.replace('loads:', '').trim().split(' ').filter(Boolean).map(line => ptx[Number(line) - 1]!)
    // Attention reads tables, and keys and values of earlier steps.
    const allowed = /projectKernel/.test(name!)
      ? /ld\.global\.L1::no_allocate\.L2::128B\.(v4\.u32|v2\.f32)|cp\.async\.bulk\.prefetch\.L2\.global/
      : /attendKernel<\d+, (true|false), true>/.test(name!)
        ? /ld\.global\.cg\.(v4\.)?u32|cp\.async\.cg\.shared\.global/
        : /^nothing$/
    t.same(before.filter(line => !allowed.test(line)), [], `${name} reads no more before: ${before.length} loads`)
  }
  // The registers of each kernel are on record: who adds one or renames one runs scripts/registers.js.
  const { plainName } = require('../scripts/registers.js') as { plainName: (name: string) => string }
  const recorded = new Set([...fs.readFileSync(path.join(__dirname, '..', 'cuda', 'registers.md'), 'utf8')
    .matchAll(/^\| `(.+)` \|/gm)].map(([, name]) => name))
  t.same(entries.map(([name]) => plainName(name!)).filter(name => !recorded.has(name)), [], 'cuda/registers.md')
  t.ok(entries.length >= 159, `${entries.length} entries`)
  t.equal(entries.filter(([,, waits]) => waits === 'waits').length, 119, 'entries that wait')
})
