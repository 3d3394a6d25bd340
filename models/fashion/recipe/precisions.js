// The embedded models in each precision: what the judge says of their pictures, for docs/precision.md.
//
//   node models/fashion/recipe/precisions.js measure   ../precisions.json, of the embedded PAR models
//   node models/fashion/recipe/precisions.js table     the table of the docs, from that file
//
// Measuring needs PyTorch, the package built, and the Fashion-MNIST pictures.

const fs = require('node:fs')
const path = require('node:path')
const { runs, machineOf, spread, root } = require('./measuring.js')

const file = path.join(__dirname, '../precisions.json')
const precisions = ['float32', 'bfloat16', 'int8']
/** Of each sampling seed. */
const pictures = 1000

module.exports = { table }

async function measure () {
  const { Par } = require(path.join(root, 'dist/index.js'))
  const rows = []
  let machine
  for (const precision of precisions) {
    const par = await Par.load({ precision })
    try {
      machine = machineOf(par)
      for (const n of [1, 4, 16]) {
        rows.push({ precision, n, runs: await runs(par, { n }, undefined, pictures) })
        console.log(JSON.stringify(rows.at(-1)))
      }
    } finally {
      await par.dispose()
    }
  }
  fs.writeFileSync(file, JSON.stringify({ pictures, machine, rows }, null, 1) + '\n')
}

/** A row for each n, and two columns for each precision. */
function table () {
  const { rows } = JSON.parse(fs.readFileSync(file, 'utf8'))
  const cell = (n, precision) => {
    const found = rows.find(row => row.n === n && row.precision === precision).runs
    return `${spread(found.map(({ fid }) => fid), 2)} | ` +
      `${(100 * found.reduce((sum, { recognised }) => sum + recognised, 0) / found.length).toFixed(1)}%`
  }
  const head = `| n | ${precisions.map(precision => `${precision}: FD | recognised`).join(' | ')} |`
  return [head, head.replace(/[^|]+/g, '---'),
    ...[...new Set(rows.map(({ n }) => n))].map(n =>
      `| ${n} | ${precisions.map(precision => cell(n, precision)).join(' | ')} |`)].join('\n') + '\n'
}

const command = require.main === module ? process.argv[2] : 'required'
if (command === 'measure') {
  measure().catch(error => {
    console.error(error)
    process.exitCode = 1
  })
} else if (command === 'table') process.stdout.write(table())
else if (command !== 'required') console.error('node precisions.js measure | table')
