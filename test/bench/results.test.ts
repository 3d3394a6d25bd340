// bench/results.js: a page of the reports in a folder.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { markdown, write } from '../../lib/bench/report.js'
import { olderOperations, pretend, pretendOperations, pretendReport } from './pretend.js'

t.test('what was run, and nothing else', async t => {
  const folder = t.testdir({
    'one.json': write(
      { ...pretendReport([pretend({ n: 4, step: 20 })]), format: 'parvis-bench-2', operations: undefined }, 'json'
    ),
    'three.json': write({
      ...pretendReport([pretend({ n: 16, step: 20 })]), format: 'parvis-bench-3', operations: olderOperations()
    }, 'json'),
    'two.json': write({ ...pretendReport([pretend({ n: 16, step: 20 })]), operations: pretendOperations() }, 'json'),
    'device.json': '{"device":{}}',
    'notes.txt': 'no report'
  })
  const page = path.join(folder, 'RESULTS.md')
  execFileSync(process.execPath, [path.join(__dirname, '..', '..', 'bench', 'results.js'), folder, page])
  const text = fs.readFileSync(page, 'utf8')
  t.match(text, /^# Results\n/)
  t.match(text, /^File: `one\.json`\n\n## parvis bench, A & B/m)
  t.match(text, '`npx parvis bench --model L`', 'the command')
  t.match(text, /^File: `three\.json`[^]*^### Operations$[^]*^#### L, n = 4, bfloat16, cpu$/m)
  t.match(text, /^File: `two\.json`[^]*^Every launch, timed where it ran/m)
  for (const name of ['one', 'three', 'two']) {
    for (const kind of ['time', 'ceilings']) {
      t.match(text, `](${name}.${kind}.svg)`)
      t.match(fs.readFileSync(path.join(folder, `${name}.${kind}.svg`), 'utf8'), /^<svg [^]*<\/svg>\s*$/)
    }
  }
  t.match(text, /older forms: `device\.json`\.\n$/)
  t.equal(text.slice(0, text.indexOf('File: `three')).match(/^\| L /gm)!.length,
    markdown(pretendReport([pretend({ n: 4, step: 20 })])).match(/^\| L /gm)!.length)
})
