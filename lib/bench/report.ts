// A report as Markdown (also what the terminal shows), as CSV and as JSON. Tables are made of the report alone, so that
// one that was read from a file gives the same text.

import { baseline, explain, isStep, peerName, speedUp } from './figures.js'
import { operationCells, operationsText } from './operations-report.js'
import { measuredOf, measuredVideos, paperHardware, stepsOfPicture, stepsOfVideo, table2, table3 } from './paper.js'
import { videoName } from './subjects.js'
import type { Ceilings, DecodeResult, PeerResult, Report, Result } from './types.js'
import { list, number, percent, range, table, times } from './words.js'

export type Format = 'md' | 'json' | 'csv'
export const formats: readonly Format[] = ['md', 'json', 'csv']

export function write (report: Report, format: Format): string {
  if (format === 'json') return JSON.stringify(report, undefined, 1) + '\n'
  return format === 'csv' ? csv(report) : markdown(report)
}

// ---- Markdown

export function markdown (report: Report): string {
  const { environment: about, results, notRun, coldStart } = report
  const steps = results.filter(isStep)
  const decodes = results.filter((one): one is DecodeResult => one.operation === 'decode')
  const parts = [`# parvis bench, ${deviceText(report)}`, facts(report)]

  // ---- transformer
  if (steps.length > 0) {
    parts.push('## Transformer', table(
      ['model', 'n', 'batch', 'grid', 'precision', 'device', 'steps', 'ms a step (least - greatest)', 'ms an image',
        'images/s', 'tokens/s', 'timed'],
      steps.map(one => [one.model, one.n || '', one.batch, one.grid, one.precision, one.device, one.steps,
        range(one.ms), number(one.msPerImage), number(one.imagesPerSecond), number(one.tokensPerSecond),
        one.whole ? `${one.timedSteps / one.steps} x all ${one.steps}` : `${one.timedSteps} of ${one.steps}`])
    ))
    parts.push('Guided pictures, random weights; medians. "ms a step" is of steps of n tokens; where no n is given, ' +
      'steps differ in size, and it is that of an average step. Where "timed" says ' +
      '`x all`, whole pictures were timed; else "ms an image" is extrapolated ' +
      'from so many of so many steps, at places spread over the length of the cache. A picture of a batch takes its ' +
        'share of the batch. The tokenizer is apart.')
    const ups = steps.flatMap(one => {
      const up = speedUp(one, results)
      return up && one.n !== 1 ? [{ one, up, base: baseline(one, results)! }] : []
    })
    if (ups.length > 0) {
      parts.push('### Speed-up over n = 1', table(
        ['model', 'n', 'batch', 'grid', 'precision', 'device', 'speed-up', 'by the steps alone',
          'an average step, of one at n = 1', 'ms a step, of n = 1'],
        ups.map(({ one, up, base }) => [one.model, one.n || '', one.batch, one.grid, one.precision, one.device,
          times(up.measured), `${times(up.bySteps)} (${base.steps} / ${one.steps})`, times(up.stepRatio),
          times(one.ms.median / base.ms.median)])
      ), ...list(steps.flatMap(one => explain(one, results) ?? [])))
    }
    parts.push('### Against the ceilings', table(
      ['model', 'n', 'batch', 'grid', 'precision', 'device', 'MB a step (weights + cache)', 'GB/s', 'of ceiling',
        'GFLOP a step', 'GFLOP/s', 'of ceiling'],
      steps.map(one => [one.model, one.n || '', one.batch, one.grid, one.precision, one.device,
        `${Math.round(one.bytes / 1e6)} (${Math.round(one.weightBytes / 1e6)} + ${Math.round(one.cacheBytes / 1e6)})`,
        number(one.gigabytesPerSecond), percent(one.ofReadCeiling), number(one.flops / 1e9), number(one.gigaflops),
        percent(one.ofArithmeticCeiling)])
    ), ceilingsText(report))
  }

  // ---- the rest
  const clips = decodes.filter(({ frames }) => frames !== undefined)
  const pictures = decodes.filter(({ frames }) => frames === undefined)
  if (pictures.length > 0) {
    parts.push('## VQ-16 decode', table(
      ['pixels', 'batch', 'precision', 'device', 'ms (least - greatest)', 'ms an image', 'images/s', 'GFLOP', 'GFLOP/s',
        'of ceiling'],
      pictures.map(one => [one.pixels, one.batch, one.precision, one.device, range(one.ms), number(one.msPerImage),
        number(one.imagesPerSecond), number(one.flops / 1e9), number(one.gigaflops), percent(one.ofArithmeticCeiling)])
    ), ...(steps.length > 0 ? [] : [ceilingsText(report)]))
  }
  if (clips.length > 0) {
    parts.push('## Video tokenizer, decode', table(
      ['frames', 'pixels', 'precision', 'device', 's a clip (least - greatest)', 'GFLOP', 'GFLOP/s', 'of ceiling'],
      clips.map(one => [one.frames!, one.pixels, one.precision, one.device, range({
        median: one.ms.median / 1000, least: one.ms.least / 1000, greatest: one.ms.greatest / 1000
      }), number(one.flops / 1e9), number(one.gigaflops), percent(one.ofArithmeticCeiling)])
    ), 'The published widths of NBP\'s tokenizer, random weights.')
  }
  parts.push(...operationsText(report))
  const peers = results.flatMap(one => one.torch.map(peer => ({ one, peer })))
  if (peers.length > 0) {
    parts.push('## PyTorch, in alternating short runs', table(
      ['what', 'precision', 'parvis, ms', 'PyTorch', 'its ms (least - greatest)', 'ratio of medians', 'of the least'],
      peers.map(({ one, peer }) => [workText(one), one.precision, number(one.ms.median), peerName(peer),
        range(peer.ms) + (peer.precision === one.precision ? '' : ` (${peer.precision})`), times(peer.ratio),
        times(peer.ratioOfLeast)])
    ), ...list(peerNotes(peers)))
  }
  if (steps.length > 0 || coldStart.length > 0) {
    parts.push('## Cold start')
    if (coldStart.length > 0) {
      parts.push(table(['embedded model, a fresh process', 'import', 'load', 'first image', 'a later image'],
        coldStart.map(one => [one.device,
          ...[one.importMs, one.loadMs, one.firstImageMs, one.laterImageMs].map(ms => `${number(ms)} ms`)])))
    }
    const loads = [...new Map(
      results.map(one => [[one.model, isStep(one) ? one.n || '' : '', one.precision, one.device].join(), one])
    ).values()]
    if (loads.length > 0) {
      parts.push(table(['model', 'n', 'precision', 'device', 'load, ms', 'first step, ms'],
        loads.map(one => [one.model, isStep(one) ? one.n || '' : '', one.precision, one.device, number(one.loadMs),
          isStep(one) ? number(one.firstStepMs) : ''])),
      'Loading converts and packs the weights; they come from memory here, not from a disk.')
    }
  }
  if (steps.some(one => table2.some(({ model }) => model === one.model))) parts.push(...paperText(report))
  if (steps.some(({ model }) => model === videoName)) parts.push(...videoText(report))
  if (notRun.length > 0) parts.push('## Not run', ...list(notRun.map(({ what, reason }) => `${what}: ${reason}`)))
  if (about.load > 0.5) {
    parts.push(
      `Other processes wanted ${about.load.toFixed(1)} of ${about.cores} cores when this began: look at the ratios.`
    )
  }
  return parts.filter(Boolean).join('\n\n') + '\n'
}

function deviceText ({ environment: { processor, cores, gpus } }: Report): string {
  return [...gpus.map(({ name }) => name), `${processor}, ${cores} cores`].join('; ')
}

function facts ({ command, environment: about }: Report): string {
  const commit = about.commit === '' ? 'unknown commit' : `commit ${about.commit}`
  const other = about.checkout !== '' && about.checkout !== about.commit ? ` (checkout ${about.checkout})` : ''
  return list([
    `\`${command}\`, ${about.date}`,
    `parvis ${about.parvis}, ${commit}${other}, ${about.compiler}; Node ${about.node}, ${about.platform}`,
    `CPU: ${about.processor}, ${about.cores} cores, ${about.threads} ` +
      `threads, ${about.isa}, ${Math.round(about.memoryBytes / 1e9)} GB`,
    ...(about.torch === undefined ? [] : [`PyTorch ${about.torch}`]),
    ...about.gpus.map(({ device, name, driver, runtime }) =>
      `${device}: ${name}, driver for ${driver}, built with ${runtime}`)
  ]).join('\n')
}

function ceilingsText ({ results, operations = [] }: Report): string {
  const devices = [...new Set([...results, ...operations].map(({ device }) => device))]
  return devices.map(device => {
    const name = device === 'cpu' ? 'the CPU' : device
    const found = [...results, ...operations].filter(one => one.device === device).map(({ ceilings }) => ceilings)
      .filter((one): one is Ceilings => one !== null)
    if (found.length === 0) return `Nothing measured the ceilings of ${name}: its shares are absent.`
    const between = (which: keyof Ceilings, unit: string): string => {
      const values = found.map(one => one[which] / 1e9)
      return `${number(Math.min(...values))} - ${number(Math.max(...values))} ${unit}`
    }
    return `Ceilings of ${name}, measured before and after each result (its shares are of the greater): ` +
      `read ${between('readBytesPerSecond', 'GB/s')}, float32 ${between('float32Flops', 'GFLOP/s')}, ` +
        `bfloat16 ${between('bfloat16Flops', 'GFLOP/s')}.`
  }).join(' ')
}

/** Tables 2 and 3 of the paper with our columns. */
function paperText (report: Report): string[] {
  const rows = table2.flatMap(row => {
    const paper = [row.name, row.steps, stepsOfPicture(row.n), row.seconds.toFixed(2)]
    const found = measuredOf(row, report)
    if (found.length === 0) return [[...paper, 'not run', '', '', '']]
    return found.map(({ step, transformer, decode }) =>
      [...paper, transformer.toFixed(2) + (step.whole ? '' : ' (extrapolated)'), decode?.toFixed(2) ?? 'not run',
        step.precision, step.device])
  })
  return [
    "## The paper's tables",
    'Table 2: other hardware in each column of seconds, so they do not compare; the steps do.',
    table(['model', 'steps, paper', 'steps, here', `s an image, paper (${paperHardware})`,
      `transformer, s, here (${deviceText(report)})`, 'decode, s, here', 'precision', 'device'], rows),
    'Table 3, video of 5 x 16 x 16 tokens: steps of the schedule.',
    table(['model', 'steps, paper', 'steps, here'], table3.map(row => [row.name, row.steps, stepsOfVideo(row.n)]))
  ]
}

/** Table 3 of the paper with our columns. */
function videoText (report: Report): string[] {
  const rows = table3.flatMap(({ name, n, steps, seconds }) => {
    const paper = [name, steps, stepsOfVideo(n), seconds.toFixed(2)]
    const found = measuredVideos(n, report)
    if (found.length === 0) return [[...paper, 'not run', '', '']]
    return found.map(step => [...paper,
      (step.msPerImage / 1000).toFixed(2) + (step.whole ? '' : ' (extrapolated)'), step.precision, step.device])
  })
  return [
    "## The paper's table 3",
    'Videos of 17 frames of 128 x 128 pixels, 5 x 16 x 16 tokens. The model here is one of XL\'s shape with 64,000 ' +
      'codes (895M parameters) and random weights: the paper does not give the shape of its own (792M), and no such ' +
      'weights were published. The paper names no hardware beside its seconds; they do not compare, the steps do.',
    table(['model', 'steps, paper', 'steps, here', 's a video, paper (hardware not named)',
      `transformer, s, here (${deviceText(report)})`, 'precision', 'device'], rows)
  ]
}

/** What the peers say of themselves, each thing once. */
function peerNotes (peers: ReadonlyArray<{ one: Result, peer: PeerResult }>): string[] {
  const about = new Map<string, Set<string>>()
  for (const { one, peer } of peers) {
    const compiled = peer.compileMs === undefined
      ? []
      : [`compiling took ${number(peer.compileMs / 1000)} s, apart from these times`]
    for (const text of [...compiled, ...(peer.notes ?? [])]) {
      const key = `${peerName(peer)}: ${text}`
      about.set(key, (about.get(key) ?? new Set()).add(workText(one)))
    }
  }
  return [...about].map(([text, works]) => `${text} (${[...works].join('; ')})`)
}

/** Short enough for a line or a bar. */
export function workText (one: Result): string {
  const batch = one.batch > 1 ? `, batch ${one.batch}` : ''
  if (!isStep(one)) {
    const frames = one.frames === undefined ? '' : `${one.frames} frames of `
    return `${one.model} decode, ${frames}${one.pixels} px${batch}`
  }
  const n = one.n > 0 ? `, n = ${one.n}` : ''
  return `${one.model}${n}${batch}${one.grid !== 24 ? `, grid ${one.grid}` : ''}`
}

// ---- CSV

export function csv ({ results, operations = [] }: Report): string {
  const columns: Array<[string, (one: Result) => unknown]> = [
    ['operation', one => one.operation], ['model', one => one.model], ['n', one => isStep(one) ? one.n || '' : ''],
    ['batch', one => one.batch], ['grid', one => one.grid],
    ['precision', one => one.precision], ['device', one => one.device], ['steps', one => isStep(one) ? one.steps : ''],
    ['timed_steps', one => isStep(one) ? one.timedSteps : ''],
    ['ms', one => one.ms.median], ['ms_least', one => one.ms.least], ['ms_greatest', one => one.ms.greatest],
    ['ms_per_image', one => one.msPerImage],
    ['images_per_second', one => one.imagesPerSecond],
    ['tokens_per_second', one => isStep(one) ? one.tokensPerSecond : ''],
    ['speed_up', one => (isStep(one) ? speedUp(one, results)?.measured : undefined) ?? ''],
    ['speed_up_by_steps', one => (isStep(one) ? speedUp(one, results)?.bySteps : undefined) ?? ''],
    ['bytes', one => isStep(one) ? one.bytes : ''], ['flops', one => one.flops],
    ['gigabytes_per_second', one => isStep(one) ? one.gigabytesPerSecond : ''], ['gigaflops', one => one.gigaflops],
    ['of_read_ceiling', one => one.ofReadCeiling ?? ''],
    ['of_arithmetic_ceiling', one => one.ofArithmeticCeiling ?? ''],
    ['load_ms', one => one.loadMs], ['torch_ms', one => fastest(one)?.ms.median ?? ''],
    ['torch_name', one => peerNameOf(fastest(one))], ['torch_threads', one => fastest(one)?.threads ?? ''],
    ['torch_ratio', one => fastest(one)?.ratio ?? '']
  ]
  const names = columns.map(([name]) => name)
  const own = ['part_of', 'shape', 'times', 'ms_in_all', 'limit']
  return [
    [...names, ...own],
    ...results.map(one => [...columns.map(([, value]) => value(one)), ...own.map(() => '')]),
    ...operations.map(one => [...names, ...own].map(name => operationCells(one)[name] ?? ''))
  ].map(row => row.map(cell).join(',') + '\n').join('')
}

const peerNameOf = (peer: PeerResult | undefined): string => peer ? peerName(peer) : ''

/** The hardest to beat. */
const fastest = ({ torch }: Result): PeerResult | undefined => [...torch].sort((a, b) => a.ms.median - b.ms.median)[0]

const cell = (value: unknown): string => {
  const text = String(value)
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
