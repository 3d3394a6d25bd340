// Two plots as SVG, of a report alone: time against n or steps for each model, and what share of the machine's ceiling
// each operation reached. Plain shapes and text, no script and no style sheet, so that they show wherever pictures do.

import { isStep } from './figures.js'
import { operationText } from './operations-report.js'
import { workText } from './report.js'
import { number } from './words.js'
import type { Report, StepResult } from './types.js'

const font = 'font-family="sans-serif" font-size="12"'
/** Told apart without colours too: by the labels at the lines' ends. */
const colours = ['#0b6bcb', '#c4320a', '#1f7a1f', '#7d3cc9', '#8a6d00', '#0f766e', '#9d174d', '#444444']

// ---- time

/**
 * Milliseconds an image (transformer) against n, both logarithmic; dashed: what the steps alone would give. Where there
 * are models whose steps differ in size: against the number of steps.
 */
export function timePlot (report: Report): string {
  const measured = report.results.filter(isStep)
  const bySteps = measured.some(({ n }) => n === 0)
  const place = (one: StepResult): number => bySteps ? one.steps : one.n
  const lines = new Map<string, StepResult[]>()
  for (const one of measured) {
    const key = [one.model.replace(/, \d+ steps$/, ''), ...(one.batch > 1 ? [`batch ${one.batch}`] : []),
      ...(one.grid !== 24 ? [`grid ${one.grid}`] : []), one.precision, one.device].join(', ')
    lines.set(key, [...lines.get(key) ?? [], one].sort((a, b) => place(a) - place(b)))
  }
  const all = [...lines.values()].flat()
  if (all.length === 0) return svg(720, 60, [text(20, 35, 'Nothing was measured.')])
  const [left, right, top, bottom, width, height] = [70, 230, 50, 50, 800, 460]
  const counts = [...new Set(all.map(place))].sort((a, b) => a - b)
  const x = scale(counts[0]!, counts.at(-1)!, left, width - right)
  const expected = (one: StepResult, first: StepResult): number => first.msPerImage * one.steps / first.steps
  const values = [...lines.values()]
    .flatMap(line => line.flatMap(one => [one.msPerImage, ...bySteps ? [] : [expected(one, line[0]!)]]))
  const [least, greatest] = [10 ** Math.floor(Math.log10(Math.min(...values))),
    10 ** Math.ceil(Math.log10(Math.max(...values)))]
  const y = scale(least, Math.max(greatest, 10 * least), height - bottom, top)

  const title = bySteps
    ? 'Time of an image against its steps: transformer, milliseconds'
    : 'Time of an image against n: transformer, milliseconds (dashed: if every step took as long as at the least n)'
  const parts = [text(left, 25, title, 'font-size="13"')]
  for (let at = least; at <= Math.max(greatest, 10 * least) * 1.001; at *= 10) {
    parts.push(line(left, y(at), width - right, y(at), '#dddddd'),
      text(left - 8, y(at) + 4, grouped(at), 'text-anchor="end"'))
  }
  for (const count of counts) {
    parts.push(line(x(count), top, x(count), height - bottom, '#dddddd'),
      text(x(count), height - bottom + 18, String(count), 'text-anchor="middle"'))
  }
  parts.push(text((left + width - right) / 2, height - 12, bySteps ? 'steps of an image' : 'n, tokens a step',
    'text-anchor="middle"'))
  const ends = [...lines.entries()].map(([name, line], k) =>
    ({ name, line, colour: colours[k % colours.length]!, at: y(line.at(-1)!.msPerImage) })).sort((a, b) => a.at - b.at)
  let free = 0
  for (const { name, line: points, colour, at } of ends) {
    const path = (of: (one: StepResult) => number): string =>
      points.map(one => `${round(x(place(one)))},${round(y(of(one)))}`).join(' ')
    if (!bySteps) {
      parts.push(`<polyline points="${path(one => expected(one, points[0]!))}" fill="none" stroke="${colour}" ` +
        'stroke-dasharray="4 4"/>')
    }
    parts.push(`<polyline points="${path(one => one.msPerImage)}" fill="none" stroke="${colour}" stroke-width="2"/>`)
    for (const one of points) {
      const at = one.n > 0 ? `n = ${one.n}` : `${one.steps} steps`
      parts.push(`<circle cx="${round(x(place(one)))}" cy="${round(y(one.msPerImage))}" r="3.5" ` +
        `fill="${colour}"><title>${escape(`${name}, ${at}: ${number(one.msPerImage)} ms`)}</title></circle>`)
    }
    free = Math.max(at + 4, free + 15) // labels below one another
    parts.push(text(width - right + 12, free, name, `fill="${colour}"`))
  }
  return svg(width, Math.max(height, free + 20), parts)
}

// ---- shares of the ceilings

/** A pair of bars a step, a decode and an operation of them: of read bandwidth and of arithmetic. */
export function sharePlot (report: Report): string {
  const operations = report.operations ?? []
  const rows = [
    ...report.results.map(one => ({ ...one, label: workText(one) })),
    ...operations.map(one =>
      ({ ...one, ...(one.flops === 0 && { ofArithmeticCeiling: undefined }), label: operationText(one) }))
  ].filter(({ ofArithmeticCeiling, ofReadCeiling }) => (ofArithmeticCeiling ?? ofReadCeiling) !== undefined)
  if (rows.length === 0) return svg(720, 60, [text(20, 35, 'No ceilings were measured.')])
  const left = operations.length > 0 ? 600 : 300 // the sizes of an operation are many words
  const [top, width, each] = [60, left + 500, 42]
  const most = Math.max(1, ...rows.flatMap(one => [one.ofArithmeticCeiling ?? 0, one.ofReadCeiling ?? 0]))
  const x = (share: number): number => left + share / most * (width - left - 70)
  const height = top + rows.length * each + 30
  const parts = [text(20, 25, 'Share of the machine\'s ceiling, measured in the same run', 'font-size="13"')]
  for (let share = 0; share <= most + 1e-9; share += 0.25) {
    parts.push(line(x(share), top - 8, x(share), height - 25, '#dddddd'),
      text(x(share), height - 10, `${Math.round(share * 100)}%`, 'text-anchor="middle"'))
  }
  parts.push(`<rect x="${left}" y="36" width="10" height="10" fill="${colours[0]}"/>`,
    text(left + 15, 45, 'read bandwidth'),
    `<rect x="${left + 130}" y="36" width="10" height="10" fill="${colours[1]}"/>`, text(left + 145, 45, 'arithmetic'))
  rows.forEach((one, k) => {
    const y = top + k * each
    parts.push(text(left - 10, y + 20, `${one.label}, ${one.precision}`, 'text-anchor="end"'))
    for (const [place, share] of [one.ofReadCeiling, one.ofArithmeticCeiling].entries()) {
      if (share === undefined) continue
      parts.push(`<rect x="${left}" y="${y + place * 15}" width="${round(x(share) - left)}" height="13" ` +
        `fill="${colours[place]}"/>`, text(x(share) + 5, y + place * 15 + 11, `${Math.round(share * 100)}%`))
    }
  })
  return svg(width, height, parts)
}

// ---- shapes

/** Logarithmic; a single value lies in the middle. */
function scale (from: number, to: number, first: number, last: number): (value: number) => number {
  if (from === to) return () => (first + last) / 2
  return value => first + Math.log(value / from) / Math.log(to / from) * (last - first)
}

const round = (value: number): number => Math.round(value * 10) / 10
const grouped = (value: number): string =>
  value >= 1 ? value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ' ') : String(Number(value.toPrecision(1)))
const escape = (value: string): string =>
  value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
const text = (x: number, y: number, value: string, more = ''): string =>
  `<text x="${round(x)}" y="${round(y)}"${more && ' ' + more}>${escape(value)}</text>`
const line = (x1: number, y1: number, x2: number, y2: number, colour: string): string =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${colour}"/>`

function svg (width: number, height: number, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${round(width)}" height="${round(height)}" viewBox="0 ` +
    `0 ${round(width)} ${round(height)}" ${font} fill="#222222">\n` +
    `<rect width="100%" height="100%" fill="#ffffff"/>\n${parts.join('\n')}\n</svg>\n`
}
