// The drawn schedules are what the code plans today: scripts/schedule-pictures.js makes them again, byte for byte.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { built, root } from '../support/built.js'
import { temporaryFolder } from '../cli/run.js'

t.test('docs/schedule-n*.svg', async t => {
  await built()
  const folder = temporaryFolder()
  execFileSync(process.execPath, [path.join(root, 'scripts', 'schedule-pictures.js'), folder],
    { env: { ...process.env, NODE_OPTIONS: '' } })
  for (const [n, steps] of [[4, 147], [16, 51]] as const) {
    const name = `schedule-n${n}.svg`
    const committed = fs.readFileSync(path.join(root, 'docs', name), 'utf8')
    t.ok(committed === fs.readFileSync(path.join(folder, name), 'utf8'),
      `${name}; node scripts/schedule-pictures.js makes it again`)
    t.match(committed, `24 x 24 tokens: ${steps} steps instead of 576`)
  }
})
