// The API pages can be made: everything that lib/index.ts exports is documented, every link leads somewhere.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { root } from '../support/built.js'
import { temporaryFolder } from '../cli/run.js'

t.test('typedoc', async t => {
  const out = temporaryFolder()
  const bin = path.join(root, 'node_modules', 'typedoc', 'bin', 'typedoc')
  const { code, text } = await new Promise<{ code: unknown, text: string }>(resolve => {
    execFile(process.execPath, [bin, '--out', out, '--logLevel', 'Warn'],
      { cwd: root, env: { ...process.env, NODE_OPTIONS: '' } },
      (error, stdout, stderr) => resolve({ code: error?.code ?? 0, text: stdout + stderr }))
  })
  t.equal(text, '', 'no warning')
  t.equal(code, 0)
  for (const page of ['classes/Par.html', 'classes/ParError.html', 'interfaces/GenerateOptions.html',
    'functions/createSchedule.html', 'types/ParErrorCode.html']) {
    t.ok(fs.existsSync(path.join(out, page)), page)
  }
})
