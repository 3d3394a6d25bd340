// The package inside the test runners that people use, in every environment that these have: each replaces other
// globals.

import t from 'tap'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import par from '../../lib/index.js'
import { root } from '../support/built.js'
import { transformerOfNaN } from '../support/damaged.js'
import { FakeHub } from '../support/hub.js'
import { install, tools } from './tools.js'

t.setTimeout(900_000)

/** Tests in test/runners/spec.cjs. */
const count = 5
const project = path.join(root, 'out', 'runners', 'project')
let env: NodeJS.ProcessEnv

t.before(async () => {
  const modules = tools()
  fs.rmSync(project, { recursive: true, force: true })
  await install(project)
  fs.copyFileSync(path.join(__dirname, 'spec.cjs'), path.join(project, 'spec.cjs'))
  fs.writeFileSync(path.join(project, 'package.json'), '{"name":"user","private":true}')
  // vitest has no require() that goes through it: the same file with import.
  fs.writeFileSync(path.join(project, 'spec.vitest.mjs'), fs.readFileSync(path.join(__dirname, 'spec.cjs'), 'utf8')
    .replace("'use strict'\n", "import { expect, it } from 'vitest'\n")
    .replace(/^const (\w+) = require\('(node:\w+)'\)$/gm, "import $1 from '$2'")
    .replace(/^const \{ default: par, (.*) \} = require\('parvis'\)$/m, "import par, { $1 } from 'parvis'"))
  fs.writeFileSync(path.join(project, 'vitest.config.mjs'),
    "export default { test: { include: ['spec.vitest.mjs'] } }\n")
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  const encoded = await par.encode({ data: image.data, width: 32, height: 32 })
  const [score] = await par.score({ tokens: image.tokens, classId: 7 })
  fs.writeFileSync(path.join(project, 'wanted.json'), JSON.stringify({
    tokens: Array.from(image.tokens), pixels: Buffer.from(image.data).toString('base64'),
    png: (await image.toBuffer('png')).toString('hex'), total: score!.total, encoded: Array.from(encoded)
  }))
  const hub = await FakeHub.start({})
  t.teardown(async () => { await hub.stop() })
  env = { PARVIS_WANTED: path.join(project, 'wanted.json'), PARVIS_NAN: transformerOfNaN(
    project
  ), HF_ENDPOINT: hub.url, PATH: process.env.PATH, HOME: project, NODE_PATH: modules, CI: 'true', NO_COLOR: '1' }
})

/** What a runner leaves; not spawnSync, because the Hub answers in this process. */
async function run (...args: string[]): Promise<{ status: number | null, output: string }> {
  const child = spawn(process.execPath, args, { cwd: project, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => { output += text })
  }
  return await new Promise(resolve => child.on('close', status => resolve({ status, output })))
}

for (const environment of ['node', 'jsdom']) {
  t.test(`Jest, ${environment}`, async t => {
    const report = path.join(project, `jest-${environment}.json`)
    const config = { rootDir: project, testMatch: ['<rootDir>/spec.cjs'], testEnvironment: environment === 'node'
      ? 'node'
      : path.join(tools(), 'jest-environment-jsdom'), transform: {} }
    const { status, output } = await run(path.join(tools(), 'jest', 'bin', 'jest.js'), '--config',
      JSON.stringify(config), '--json', `--outputFile=${report}`, '--testTimeout=60000', '--watchman=false')
    t.equal(status, 0, output.slice(-4000))
    t.match(JSON.parse(fs.readFileSync(report, 'utf8')), { numPassedTests: count, numTotalTests: count, success: true })
  })
}

for (const pool of ['threads', 'forks', 'vmThreads', 'vmForks']) {
  for (const environment of ['node', 'jsdom']) {
    t.test(`vitest, ${pool}, ${environment}`, async t => {
      const report = path.join(project, `vitest-${pool}-${environment}.json`)
      const { status, output } = await run(path.join(tools(), 'vitest', 'vitest.mjs'), 'run', '--root', project,
        '--pool', pool, '--environment', environment, '--reporter=json', `--outputFile=${report}`,
        '--testTimeout=60000')
      t.equal(status, 0, output.slice(-4000))
      t.match(JSON.parse(fs.readFileSync(report, 'utf8')),
        { numPassedTests: count, numTotalTests: count, success: true })
    })
  }
}
