// The golden fixtures through the public API on the CUDA backend: the tests of test/ whose names begin with golden,
// with the addon that is built on the SIMT layer and sanitizers, in one order of threads each. More orders of the same
// kernels: session.test.ts and vq-tokenizer.test.ts.

import t from 'tap'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { inParallel } from '../support/simt.js'
import { simtAddon } from '../support/simt-addon.js'

/** Of each file. That of the tokenizer of videos has more where the fixture is at hand. */
const leastAssertions: Readonly<Record<string, number>> = {
  'golden.test.ts': 70, 'golden-parallel.test.ts': 21, 'golden-video.test.ts': 6, 'golden-nbp.test.ts': 10,
  'golden-video-tokenizer.test.ts': 8
}

t.setTimeout(1_200_000) // a first build takes minutes

t.test('golden fixtures', async t => {
  const { env } = await simtAddon({ sanitize: true })
  const files = Object.keys(leastAssertions).map((name, i) => [name, i + 1] as const)
  const runs = await inParallel(files, async ([name, seed]) => {
    const file = path.join(__dirname, '..', name)
    const machine = {
      ...env, PARVIS_SIMT: `seed=${seed}`, PARVIS_TEST_DEVICE: 'cuda', PARVIS_GOLDEN: 'brief', TAP: '1',
      TAP_TIMEOUT: '1000', TS_NODE_TRANSPILE_ONLY: '1'
    }
    const run = promisify(execFile)(process.execPath, [...process.execArgv, file],
      { env: machine, timeout: 1_000_000, maxBuffer: 64 << 20 })
    const { code, stdout, stderr } = await run.then(found => ({ ...found, code: 0 }),
      error => error as { code: number, stdout: string, stderr: string })
    return { name, seed, code, stdout, stderr }
  })
  for (const { name, seed, code, stdout, stderr } of runs) {
    // The lines of assertions; those that close a subtest carry a time.
    const lines = stdout.split('\n').map(line => line.trim())
      .filter(line => /^(not )?ok \d/.test(line) && !/# time=/.test(line))
    for (const line of lines) {
      t.ok(line.startsWith('ok '), `${name}, order ${seed}: ${line.replace(/^(not )?ok \d+( - )?/, '')}`)
    }
    t.equal(code, 0, `${name}, order ${seed} ran to its end${code === 0 ? '' : `: ${stderr.slice(0, 3000)}`}`)
    t.ok(lines.length >= leastAssertions[name]!, `${name}, order ${seed}: ${lines.length} assertions`)
  }
})
