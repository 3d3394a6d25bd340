// Tables, CSV and plots of results that nobody measured: what they show, and that they are well formed.

import t from 'tap'
import { sharePlot, timePlot } from '../../lib/bench/plot.js'
import { csv, markdown, write } from '../../lib/bench/report.js'
import type { DecodeResult, Report } from '../../lib/bench/types.js'
import { number, table } from '../../lib/bench/words.js'
import { olderOperations, pretend, pretendOperations, pretendReport } from './pretend.js'

const ceilings = { readBytesPerSecond: 40e9, float32Flops: 240e9, bfloat16Flops: 480e9 }
const decode: DecodeResult = {
  operation: 'decode', model: 'VQ-16', device: 'cpu', precision: 'bfloat16', batch: 1, grid: 24, pixels: 384,
  ms: { median: 1300, least: 1200, greatest: 1500 }, msPerImage: 1300, imagesPerSecond: 1 / 1.3,
  flops: 567e9, gigaflops: 436, loadMs: 90, ceilings, ofArithmeticCeiling: 0.91,
  torch: [
    {
      threads: 2, precision: 'float32', ms: { median: 2800, least: 2700, greatest: 2900 }, ratio: 2800 / 1300,
      ratioOfLeast: 2.25
    }
  ]
}
const report = pretendReport([
  pretend({ n: 1, step: 20, ceilings, ofReadCeiling: 0.85, ofArithmeticCeiling: 0.14 }),
  pretend({
    n: 4, step: 21, ceilings, ofReadCeiling: 0.81, ofArithmeticCeiling: 0.5,
    torch: [{
      threads: 1, precision: 'bfloat16', ms: { median: 63, least: 60, greatest: 70 }, ratio: 3, ratioOfLeast: 60 / 18.9
    }]
  }),
  pretend({ n: 16, step: 40, ceilings, ofReadCeiling: 0.45, ofArithmeticCeiling: 0.9 }),
  decode
])

t.test('Markdown', async t => {
  const text = markdown(report)
  t.equal(markdown(JSON.parse(write(report, 'json')) as Report), text, 'the same from a file')
  t.notMatch(text, /NaN|undefined|Infinity|null/)
  const row = (start: string): string[] =>
    text.split('\n').find(line => line.startsWith(start))!.split('|').slice(1, -1).map(cell => cell.trim())
  t.same(row('| L     | 1   | 1     | 24   | bfloat16  | cpu    | 576'),
    ['L', '1', '1', '24', 'bfloat16', 'cpu', '576', '20.0 (18.0 - 24.0)', '11520', '0.0868', '50.0', '40 of 576'])
  t.match(text, /^\| L +\| 4 +\| .*\| 3\.73x +\| 3\.92x \(576 \/ 147\) +\| 1\.05x +\| 1\.05x +\|$/m)
  t.match(text, /^- L, n = 16.*5\.65x where the steps alone give 11\.29x/m)
  t.notMatch(text, /^- L, n = 4, .*steps alone/m)
  t.match(
    text, /^\| L, n = 4 +\| bfloat16 +\| 21\.0 +\| 1 thread +\| 63\.0 \(60\.0 - 70\.0\) +\| 3\.00x +\| 3\.17x +\|$/m
  )
  t.match(text, /2800 \(2700 - 2900\) \(float32\)/, 'a peer of another precision says so')
  // Table 2: ours beside the paper's, what was not run is not there, and each column says its hardware.
  t.match(text, /s an image, paper \(one A100, batch 1\) \| transformer, s, here \(A & B <"processor">, 2 cores\)/)
  t.match(text, /^\| PAR-L-4x +\| 147 +\| 147 +\| 3\.38 +\| 3\.09 \(extrapolated\) +\| 1\.30 +\| bfloat16/m)
  t.match(text, /^\| PAR-3B-16x +\| 51 +\| 51 +\| 1\.31 +\| not run/m)
  for (const steps of [1280, 323, 95]) {
    t.match(text, new RegExp(`^\\| PAR-\\d+x +\\| ${steps} +\\| ${steps} +\\|$`, 'm'))
  }
  t.match(markdown({
    ...report, notRun: [{ what: '3B, n = 1', reason: 'no memory' }], environment: { ...report.environment, load: 3 }
  }), /- 3B, n = 1: no memory\n\nOther processes wanted 3\.0 of 2 cores/)
  // Peers with names, and what they say of themselves, once.
  const peer = { precision: 'bfloat16' as const, ms: { median: 2, least: 2, greatest: 2 }, ratio: 2, ratioOfLeast: 2 }
  const named = (n: number) =>
    pretend({
      n, step: 1, device: 'cuda:0',
      torch: [{ ...peer, name: 'eager' }, { ...peer, name: 'compiled', compileMs: 43210, notes: ['each layer'] },
        { ...peer, name: "authors' code", threads: 2 }]
    })
  const peers = {
    ...pretendReport([named(4), named(16)]), environment: { ...report.environment, torch: '2.5.1+cu124' }
  }
  const about = markdown(peers)
  for (const name of ['eager', 'compiled', "authors' code"]) {
    t.match(about, new RegExp(`^\\| L, n = 16 +\\| bfloat16 +\\| 1\\.00 +\\| ${name} +\\| 2\\.00`, 'm'))
  }
  t.match(
    about,
    /^- compiled: compiling took 43\.2 s, apart from these times \(L, n = 4; L, n = 16\)\n- compiled: each layer \(L, n = 4; L, n = 16\)$/m
  )
  t.match(about, /^- PyTorch 2\.5\.1\+cu124$/m)
  t.notMatch(text, /^- PyTorch/m, 'an older report does not say')
  t.match(csv(peers), /,2,eager,,2,,,,,\n/)
  const gpu = markdown(pretendReport([pretend({ n: 4, step: 1, device: 'cuda:0', whole: true, timedSteps: 735 })]))
  t.match(gpu, /5 x all 147/)
  t.match(gpu, /Nothing measured the ceilings of cuda:0/)
  t.match(gpu, /^\| PAR-L-4x .*\| 0\.15 +\| not run +\|/m, 'whole pictures are no extrapolation')
})

t.test('CSV', async t => {
  const lines = csv(report).trimEnd().split('\n').map(line => line.split(','))
  t.equal(lines.length, 5)
  for (const line of lines) t.equal(line.length, lines[0]!.length)
  const of = (k: number, name: string): string => lines[k]![lines[0]!.indexOf(name)]!
  t.same([of(2, 'n'), of(2, 'ms'), of(2, 'torch_ratio'), of(4, 'operation'), of(4, 'n')],
    ['4', '21', '3', 'decode', ''])
  t.ok(Math.abs(Number(of(3, 'speed_up')) - 5.647) < 1e-3)
})

t.test('numbers and tables', async t => {
  t.same([123.4, 12.34, 1.234, 0.1234, 0.001234, 0, 98765, NaN].map(number),
    ['123', '12.3', '1.23', '0.123', '0.00123', '0', '98765', ''])
  t.equal(table(['a', 'longer'], [['x|y', 1]]), '| a    | longer |\n|------|--------|\n| x\\|y | 1      |')
})

t.test('plots', async t => {
  const one = pretendReport([pretend({ n: 4, step: 20 })])
  const many = pretendReport([...report.results,
    ...['B', 'XL'].flatMap(model =>
      [1, 4].map(n => pretend({ model, n, step: 15, ofReadCeiling: 0.5, ofArithmeticCeiling: 0.1 })))])
  for (const [name, plot] of [['time', timePlot], ['shares', sharePlot]] as const) {
    for (const [what, from] of [['none', pretendReport([])], ['one', one], ['many', many]] as const) {
      const svg = plot(from)
      t.same(faults(svg), [], `${name}, ${what}`)
      t.notMatch(svg, /NaN|undefined|Infinity/)
    }
  }
  const time = timePlot(many)
  for (const label of ['L, bfloat16, cpu', 'B, bfloat16, cpu', 'XL, bfloat16, cpu', '10 000',
    'L, bfloat16, cpu, n = 16: 2040 ms']) {
    t.ok(time.includes(`>${label}<`), label)
  }
  t.equal(time.match(/<polyline/g)!.length, 6, 'two lines a model')
  const arpg = [20, 32].map(steps =>
    ({ ...pretend({ n: 4, step: 20 }), n: 0, model: `arpg-l, ${steps} steps`, steps, msPerImage: 40 * steps }))
  const methods = timePlot(pretendReport([pretend({ n: 4, step: 20 }), ...arpg]))
  t.same(faults(methods), [])
  for (const label of ['arpg-l, bfloat16, cpu', 'arpg-l, bfloat16, cpu, 32 steps: 1280 ms', 'steps of an image',
    '147']) {
    t.ok(methods.includes(`>${label}<`), label)
  }
  t.equal(methods.match(/<polyline/g)!.length, 2, 'a line for each model, none of them dashed')
  const share = sharePlot(many)
  for (const label of ['L, n = 16, bfloat16', 'VQ-16 decode, 384 px, bfloat16', '90%', '91%']) {
    t.ok(share.includes(`>${label}<`), label)
  }
})

t.test('operations', async t => {
  const both = { ...report, operations: pretendOperations() }
  const text = markdown(both)
  t.notMatch(text, /NaN|undefined|Infinity|null/)
  t.equal(markdown(JSON.parse(write(both, 'json')) as Report), text, 'the same from a file')
  const { operations, ...old } = both
  t.equal(markdown({ ...old, format: 'parvis-bench-2' }), markdown(report), 'an older report has none')
  t.notMatch(markdown(report), /## Operations/)
  const section = text.slice(text.indexOf('## Operations'), text.indexOf('## Plain PyTorch'))
  t.same(section.match(/^### .*$/gm), ['### L, n = 4, bfloat16, cpu', '### VQ-16 decode, bfloat16, cpu',
    '### B, n = 1, batch 2, grid 8, float32, cuda:0'])
  t.match(section, /^Every launch, timed where it ran: /m)
  const cells = (name: string): string[] => {
    const line = section.split('\n').find(line => line.startsWith(`| ${name} `))!
    return line.split('|').slice(1, -1).map(cell => cell.trim())
  }
  t.same(cells('attention'), [
    'attention', '2 x 4 rows, 16 heads of 64, sees 288', '0.500 (0.450 - 0.600)', '24', '12.0',
    '17.4', '44%', '120', '25%', 'reading'
  ])
  t.same(cells('group norm').slice(3), ['6', '600', '0.377', '1%', '', '', 'reading'], 'it multiplies nothing')
  t.equal(cells('convolution').at(-1), 'products')
  t.match(section, /^Sum of the parts: 13\.5 ms a step\. As a whole a step took 21\.0 ms: the parts are 0\.64x that/m)
  t.match(section, /^Sum of the parts: 1500 ms a decode\. As a whole a decode took 1300 ms/m)
  t.match(section, /^Sum of the parts: 13\.5 ms a step\.$/m, 'nothing to compare')
  t.match(
    text,
    /Ceilings of the CPU, .*bfloat16 480 - 480 GFLOP\/s\. Nothing measured the ceilings of cuda:0: its shares are absent\./
  )

  const lines = csv(both).trimEnd().split('\n').map(line => line.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/))
  t.equal(lines.length, 5 + operations.length)
  for (const line of lines) t.equal(line.length, lines[0]!.length)
  const named = lines.map(line => Object.fromEntries(lines[0]!.map((name, k) => [name, line[k]])))
  t.match(named[2], { operation: 'step', part_of: '', shape: '', limit: '' })
  t.match(named[5], {
    operation: 'attention', part_of: 'step', n: '4', shape: '"2 x 4 rows, 16 heads of 64, sees 288"',
    times: '24', ms: '0.5', ms_in_all: '12', limit: 'reading', images_per_second: ''
  })

  const older = { ...report, format: 'parvis-bench-3', operations: olderOperations() } as const
  t.match(markdown(older), /^Each by itself on random numbers, [^]*^\| attention: qkv .*\| 12\.0 \(within another\) /m)
  t.match(csv(older), /^attention: qkv,.*,step,8 x 1024 -> 3072,24,,reading$/m, 'the column counts nothing twice')

  const svg = sharePlot(both)
  t.same(faults(svg), [])
  t.notMatch(svg, /NaN|undefined|Infinity/)
  const convolution = '3x3, 128 -&gt; 128, 384 x 384, normed, residual'
  const labels = ['L, n = 4: logits', `VQ-16 decode: convolution ${convolution}`, 'L, n = 16']
  for (const label of labels) t.ok(svg.includes(`>${label}, bfloat16<`), label)
  t.notOk(svg.includes('B, n = 1'), 'no bars without ceilings')
})

/** What an XML parser would stumble over: unclosed or crossed tags, bare signs. */
function faults (xml: string): string[] {
  const open: string[] = []
  const found: string[] = []
  const rest = xml.replace(/<(\/?)([a-z]+)((?: [\w-]+="[^"<>]*")*)(\/?)>/g, (
    _, closing: string, name: string, _attributes: string, empty: string
  ) => {
    if (closing) {
      if (open.pop() !== name) found.push(`</${name}>`)
    } else if (!empty) open.push(name)
    return ''
  })
  if (/[<>]|&(?!(amp|lt|gt|quot);)/.test(rest)) found.push(rest)
  return [...found, ...open]
}
