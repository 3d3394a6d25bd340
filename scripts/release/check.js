'use strict'
// npm run release:check: everything that has to hold before a version is published, in one command. Ends with a list,
// and exits with 1 where anything failed, or where the machine that publishes could not run something. Needs what
// release:pack needs, and qemu-user and wine64.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const { version } = require('../../package.json')
const tests = ['test/package.test.ts', 'test/find-addon.test.ts', 'test/snippets.test.ts', 'test/docs/api.test.ts',
  'test/docs/errors.test.ts', 'test/docs/schedule-pictures.test.ts', 'test/examples/fastify.test.ts',
  ...fs.readdirSync(path.join(root, 'test', 'release')).filter(name => name.endsWith('.test.ts'))
    .map(name => `test/release/${name}`)]

const run = (command, args, env = {}) =>
  spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } }).status === 0
const output = (command, args) => spawnSync(command, args, { cwd: root, encoding: 'utf8' }).stdout

const checks = [
  ['nothing uncommitted', () => output('git', ['status', '--porcelain']).trim() === ''],
  [`CHANGELOG.md has a section ${version}`,
    () => fs.readFileSync(path.join(root, 'CHANGELOG.md'), 'utf8').includes(`## ${version}`)],
  ['the lock file is of package.json',
    () => run('npm', ['ci', '--dry-run', '--ignore-scripts', '--no-audit', '--no-fund', '--silent'])],
  ['npm audit, what users install', audit],
  ['addons and tarball', () => run(process.execPath, [path.join(__dirname, 'pack.js')])],
  ['tests of the package',
    () => run(process.execPath,
      [path.join(root, 'scripts', 'test.js'), ...tests.filter(file => fs.existsSync(path.join(root, file)))],
      { PARVIS_RELEASE: '1', PARVIS_TAP: 'out/release.tap' })]
]

/** undefined where the registry has no such service, as mirrors have not. */
function audit () {
  const { message, metadata } = JSON.parse(output('npm', ['audit', '--omit=dev', '--json']) || '{}')
  if (!metadata) {
    console.log(`the registry did not answer: ${message ?? 'no reason given'}`)
    return undefined
  }
  console.log(JSON.stringify(metadata.vulnerabilities))
  return metadata.vulnerabilities.total === 0
}

const results = checks.map(([name, check]) => {
  console.log(`\n== ${name}`)
  return [name, check()]
})
console.log(
  '\n' + results.map(([name, good]) => `${good ? 'ok     ' : good === undefined ? 'not run' : 'FAILED '}  ${name}`)
    .join('\n')
)
const publishing = process.env.GITHUB_ACTIONS !== undefined
process.exitCode = results.every(([, good]) => good || (good === undefined && !publishing)) ? 0 : 1
