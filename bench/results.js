// node bench/results.js [FOLDER [FILE.md]]: the reports in bench/results/ (of `parvis bench -o json`) as one page,
// bench/RESULTS.md, with their plots beside them. It says only what was run; the command that makes a report again
// stands at its top. Files of other programs (bench/cuda, scripts/device.sh) are named, not shown.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const { sharePlot, timePlot } = require('../dist/bench/plot.js')
const { markdown } = require('../dist/bench/report.js')

const [folder = path.join(__dirname, 'results'), page = path.join(__dirname, 'RESULTS.md')] = process.argv.slice(2)
const parts = ['# Results', 'Made by `node bench/results.js` from the files named; do not edit.']
const others = []
for (const name of fs.readdirSync(folder).filter(name => name.endsWith('.json')).sort()) {
  const report = JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8'))
  if (!['parvis-bench-2', 'parvis-bench-3', 'parvis-bench-4'].includes(report.format)) {
    others.push(name)
    continue
  }
  parts.push(`File: \`${name}\`\n\n${markdown(report).replace(/^#/gm, '##').trimEnd()}`)
  for (const [kind, what, plot] of [['time', 'Milliseconds an image', timePlot],
    ['ceilings', 'Shares of the ceilings', sharePlot]]) {
    const file = path.join(folder, name.replace(/json$/, `${kind}.svg`))
    fs.writeFileSync(file, plot(report))
    parts.push(`![${what}](${path.relative(path.dirname(page), file).split(path.sep).join('/')})`)
  }
}
if (others.length > 0) parts.push(`Of other programs or older forms: ${others.map(name => `\`${name}\``).join(', ')}.`)
fs.writeFileSync(page, parts.join('\n\n') + '\n')
