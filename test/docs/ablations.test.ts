// The page of ablations says what the committed results say, and every row has its pictures.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { root } from '../support/built.js'

const folder = path.join(root, 'models/fashion')
const { page } = require(path.join(folder, 'recipe/ablations.js')) as { page: () => string }

t.test('models/fashion/ABLATIONS.md', t => {
  t.equal(fs.readFileSync(path.join(folder, 'ABLATIONS.md'), 'utf8'), page(),
    'node models/fashion/recipe/ablations.js page makes it')
  const results = fs.readdirSync(path.join(folder, 'ablations')).filter(name => name.endsWith('.json'))
  t.ok(results.length > 0)
  for (const name of results) {
    const { row, runs, held } = JSON.parse(fs.readFileSync(path.join(folder, 'ablations', name), 'utf8')) as {
      row: string, runs: Array<{ fid: number }>, held: { nats: number, perPicture: number[], perCell: number[] }
    }
    t.equal(name, `${row}.json`)
    t.equal(runs.length, 3)
    const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
    t.ok(Math.abs(mean(held.perPicture) - held.nats) < 1e-3 && Math.abs(mean(held.perCell) - held.nats) < 1e-3,
      `${row}: means of pictures and of cells are the same`)
    const figure = mean(runs.map(({ fid }) => fid)).toFixed(2)
    t.match(page(), new RegExp(`\\(\`${row}\`\\) [^\\n]*\\| ${figure} ± `), `${row}: ${figure}`)
    t.ok(fs.existsSync(path.join(folder, 'ablations', `${row}.png`)))
  }
  t.end()
})
