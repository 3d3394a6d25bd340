// The page of ARPG at five numbers of steps says what was measured, and nothing else.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'

const root = path.join(__dirname, '..', '..')
const { page } = require(path.join(root, 'models/fashion/recipe/steps.js')) as { page: () => string }

t.equal(fs.readFileSync(path.join(root, 'docs/fewer-steps.md'), 'utf8'), page(),
  'docs/fewer-steps.md is made of its files')
const read = (name: string): { runs: Array<{ pictures: number, recognised: number }> } =>
  JSON.parse(fs.readFileSync(path.join(root, 'models/fashion/steps', `${name}.json`), 'utf8'))
for (const steps of [256, 64, 32, 16, 8]) {
  const { runs } = read(`arpg-${steps}`)
  t.equal(runs.length, 3, `${steps} steps: three sampling seeds`)
  t.ok(runs.every(({ pictures, recognised }) => pictures === 500 && recognised > 0.8 && recognised < 0.9),
    `${steps} steps: more than 80% recognised`)
}
