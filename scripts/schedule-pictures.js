'use strict'
// node scripts/schedule-pictures.js [FOLDER]: docs/schedule-n4.svg and docs/schedule-n16.svg, what createSchedule()
// plans for n = 4 and n = 16. Every number and colour is read out of a schedule; nothing is worked out here a second
// time.

const fs = require('node:fs')
const path = require('node:path')
const { createSchedule } = require('../dist/decoding/schedule.js')

const ink = '#1f2328'
const faint = '#8b949e'
const later = '#f0f2f4' // not drawn yet
const done = '#c9d1d9' // drawn in an earlier step
const now = '#d1242f'
const stage1 = '#f4a11d'
const margin = 24
const width = 960

/** The picture for one n, as SVG text. */
function picture (n) {
  const small = createSchedule({ grid: [8, 8], n })
  const large = createSchedule({ grid: [24, 24], n })
  const s = Math.sqrt(n)
  const groups = small.steps.length - n // steps of stage 2
  const parts = []

  // ---- the strip: what single steps draw
  const cell = 25
  const side = 8 * cell
  const gap = (width - 2 * margin - 4 * side) / 3
  const at = k => margin + k * (side + gap)
  const strip = 84
  parts.push(text(margin, 34,
    `n = ${n}: the grid is cut into ${s} x ${s} regions; ${n} tokens a step, one in each region`,
    { size: 20, weight: 600 }))
  parts.push(text(margin, 60, `8 x 8 tokens: ${small.steps.length} steps instead of 64; 24 x 24 ` +
    `tokens: ${large.steps.length} steps instead of 576.`, { fill: faint }))
  const shown = [
    { title: `Stage 1: steps 1 to ${n}`, note: 'one token after another', from: 0, to: n },
    { title: `Stage 2: step ${n + 1}`, note: `${n} tokens at once; grey: known`, from: n, to: n + 1 },
    { title: `step ${n + 2}`, note: 'the next place of each region', from: n + 1, to: n + 2 },
    { title: `step ${small.steps.length}, the last`, note: 'the last place of each region', from: small.steps.length -
      1, to: small.steps.length }
  ]
  shown.forEach(({ title, note, from, to }, k) => {
    const [x, y] = [at(k), strip + 46]
    parts.push(text(x, strip + 16, title, { weight: 600 }), text(x, strip + 35, note, { size: 12, fill: faint }))
    parts.push(grid(small, x, y, cell, (step) => {
      if (step >= to) return { fill: later }
      if (step < from) return { fill: done }
      return from === 0
        ? { fill: stage1, label: String(step + 1) }
        : { fill: now, ink: '#fff', label: String(step + 1) }
    }))
    if (from === 0) parts.push(trail(small, n, x, y, cell))
  })

  // ---- the whole: the step of every token
  const top = strip + 46 + side + 62
  const [big, fine] = [42, 14]
  const whole = 8 * big
  const color = (schedule, step) => step < n ? stage1 : ramp((step - n) / (schedule.steps.length - n - 1))
  parts.push(text(margin, top, 'The step that draws each token, 8 x 8', { weight: 600 }))
  parts.push(grid(small, margin, top + 14, big, step => ({
    fill: color(small, step),
    label: String(step + 1),
    ink: step < n ? ink : (step - n) / groups > 0.45 ? '#fff' : ink
  }), 15))
  const right = margin + whole + 60
  parts.push(text(right, top, 'The same, 24 x 24', { weight: 600 }))
  parts.push(grid(large, right, top + 14, fine, step => ({ fill: color(large, step) })))

  // ---- legend
  const legend = right + 24 * fine + 34
  const tall = 230
  const ly = top + 60
  parts.push(text(legend, top + 26, 'step', { size: 13, fill: faint }))
  parts.push(`<rect x="${legend}" y="${top + 36}" width="18" height="18" fill="${stage1}"/>`)
  parts.push(text(legend + 26, top + 50, `1 to ${n}: stage 1`, { size: 13 }))
  const bands = 23
  for (let k = 0; k < bands; k++) {
    parts.push(`<rect x="${legend}" y="${round(ly + k * tall / bands)}" width="18" ` +
      `height="${round(tall / bands + 0.5)}" fill="${ramp(k / (bands - 1))}"/>`)
  }
  parts.push(text(legend + 26, ly + 12, `${n + 1}: stage 2`, { size: 13 }))
  parts.push(text(legend + 26, ly + 28, 'begins', { size: 13 }))
  parts.push(text(legend + 26, ly + tall, 'the last', { size: 13 }))

  const height = top + 14 + whole + margin
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="DejaVu Sans, Verdana, Arial, sans-serif">
<title>PAR schedule for n = ${n}</title>
<rect width="${width}" height="${height}" fill="#fff"/>
${parts.join('\n')}
</svg>
`
}

/** Step (from 0) of each raster cell. */
function stepOfCells (schedule) {
  const steps = new Int32Array(schedule.tokens)
  for (let index = 0, step = 0; index < schedule.tokens; index++) {
    if (index >= schedule.tokensAfter[step]) step++
    steps[schedule.cells[index]] = step
  }
  return steps
}

/** The tokens as squares, regions outlined. `look(step)` gives `{ fill, label?, ink? }`. */
function grid (schedule, x, y, cell, look, size = 12) {
  const { rows, columns, n } = schedule
  const steps = stepOfCells(schedule)
  const s = Math.sqrt(n)
  const out = [`<g stroke="#fff" stroke-width="${cell > 20 ? 1.5 : 0.5}">`]
  const labels = []
  for (let raster = 0; raster < rows * columns; raster++) {
    const [left, up] = [x + raster % columns * cell, y + Math.floor(raster / columns) * cell]
    const { fill, label, ink: color = ink } = look(steps[raster])
    out.push(`<rect x="${round(left)}" y="${round(up)}" width="${cell}" height="${cell}" fill="${fill}"/>`)
    if (label) {
      labels.push(text(left + cell / 2, up + cell / 2 + size * 0.36, label, { size, fill: color, anchor: 'middle' }))
    }
  }
  out.push('</g>')
  const [w, h] = [columns / s * cell, rows / s * cell]
  for (let a = 0; a < s; a++) {
    for (let b = 0; b < s; b++) {
      out.push(`<rect x="${round(x + b * w)}" y="${round(y + a * h)}" width="${w}" height="${h}" fill="none" ` +
        `stroke="${ink}" stroke-width="${cell > 20 ? 2 : 1.2}"/>`)
    }
  }
  return [...out, ...labels].join('\n')
}

/** The path from the first token of one region to that of the next, under the numbers' cells. */
function trail (schedule, n, x, y, cell) {
  const points = Array.from({ length: n }, (_, index) => {
    const [, row, column] = schedule.cell(index)
    return [x + (column + 0.5) * cell, y + (row + 0.5) * cell]
  })
  return points.slice(1).map(([toX, toY], k) => {
    const [fromX, fromY] = points[k]
    const length = Math.hypot(toX - fromX, toY - fromY)
    const [dx, dy] = [(toX - fromX) / length, (toY - fromY) / length]
    const free = cell * 0.56
    const [ax, ay, bx, by] = [fromX + dx * free, fromY + dy * free, toX - dx * free, toY - dy * free]
    const [px, py] = [-dy * 4, dx * 4]
    const head =
      `<path d="M${round(bx)} ${round(by)}L${round(bx - dx * 8 + px)} ${round(by - dy * 8 + py)}L${round(bx - dx * 8 - px)} ${round(by - dy * 8 - py)}Z" fill="${ink}"/>`
    return `<path d="M${round(ax)} ${round(ay)}L${round(bx - dx * 6)} ${round(by - dy * 6)}" stroke="${ink}" ` +
      `stroke-width="1.4" fill="none"/>${head}`
  }).join('\n')
}

/** Light to dark, 0 to 1. */
function ramp (part) {
  const stops = [[222, 240, 246], [116, 190, 214], [44, 114, 176], [46, 35, 108]]
  const place = Math.min(1, Math.max(0, part)) * (stops.length - 1)
  const k = Math.min(stops.length - 2, Math.floor(place))
  const channel = i => Math.round(stops[k][i] + (stops[k + 1][i] - stops[k][i]) * (place - k)).toString(16).padStart(2,
    '0')
  return `#${channel(0)}${channel(1)}${channel(2)}`
}

function text (x, y, value, { size = 14, fill = ink, weight = 400, anchor = 'start' } = {}) {
  return `<text x="${round(x)}" y="${round(y)}" font-size="${size}" fill="${fill}" font-weight="${weight}" ` +
    `text-anchor="${anchor}">${value}</text>`
}

function round (value) {
  return Math.round(value * 100) / 100
}

const folder = path.resolve(process.argv[2] || path.join(__dirname, '..', 'docs'))
for (const n of [4, 16]) fs.writeFileSync(path.join(folder, `schedule-n${n}.svg`), picture(n))
