'use strict'
// npm run lint: what no compiler and no test says. Ends with the line `N passed, N failed`, which counts files.
//
//   eslint.config.js    style and mistakes in TypeScript and JavaScript
//   .clang-format       style of C++ and CUDA; nothing is rewritten (`npm run lint -- --fix` does that)
//   lib/, server/lib/   no file imports itself through others, not even types
//
// Without clang-format, or with another version than the one that the files were formatted with, C++ and CUDA are left
// out, which is said; continuous integration (CI=true) fails without it.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const fix = process.argv.includes('--fix')
const scripts = ['bench', 'bin', 'examples', 'lib', 'scripts', 'server', 'test', 'eslint.config.js']
const native = ['bench', 'binding', 'common', 'cpu', 'cuda', 'include', 'test']
/** As in Debian 12; later ones decide some lines differently. */
const clangFormat = 14
const total = { passed: 0, failed: 0 }

main().catch(error => {
  console.error(error)
  total.failed++
}).finally(() => {
  console.log(`${total.passed} passed, ${total.failed} failed`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
})

async function main () {
  await lintScripts()
  await findCycles()
  lintNative()
}

async function lintScripts () {
  const { ESLint } = require('eslint')
  const eslint = new ESLint({ cwd: root, fix })
  const results = await eslint.lintFiles(scripts)
  if (fix) await ESLint.outputFixes(results)
  for (const { errorCount, warningCount } of results) total[errorCount + warningCount > 0 ? 'failed' : 'passed']++
  const formatter = await eslint.loadFormatter('stylish')
  process.stdout.write(await formatter.format(results))
  console.log(`ESLint: ${results.length} files`)
}

/** Counts each file of lib/ and server/lib/; those in a cycle have failed. */
async function findCycles () {
  const folders = ['lib', 'server/lib']
  const isOurs = file => folders.some(folder => file.startsWith(`${folder}/`))
  const { cruise } = await import('dependency-cruiser')
  const { output } = await cruise(folders, {
    baseDir: root,
    tsPreCompilationDeps: true, // types too
    doNotFollow: 'node_modules',
    validate: true,
    ruleSet: { forbidden: [{ name: 'cycle', severity: 'error', from: {}, to: { circular: true } }] }
  })
  const files = output.modules.filter(({ source }) => isOurs(source))
  const edges = files.flatMap(({ dependencies }) => dependencies).filter(({ resolved }) => isOurs(resolved))
  if (edges.length < files.length) {
    throw new Error(`only ${edges.length} imports were found in ${files.length} files`)
  }
  const found = output.summary.violations.map(({ from, cycle }) => [from, ...cycle.map(({ name }) => name)])
  const inCycles = new Set(found.map(([from]) => from))
  total.failed += inCycles.size
  total.passed += files.length - inCycles.size
  const said = new Set()
  for (const cycle of found) {
    const key = [...new Set(cycle)].sort().join()
    if (!said.has(key)) console.log(`import cycle: ${cycle.join(' -> ')}`)
    said.add(key)
  }
  console.log(`imports: ${edges.length} among ${files.length} files of lib/ and server/lib/`)
}

function lintNative () {
  const files = native.flatMap(folder => fs.readdirSync(path.join(root, folder), { recursive: true })
    .map(name => path.join(folder, name))
    .filter(name => /\.(cc|h|cu|cuh)$/.test(name) && !name.includes('node_modules'))).sort()
  const { error, stdout } = spawnSync('clang-format', ['--version'], { encoding: 'utf8' })
  const version = Number(/version (\d+)/.exec(stdout)?.[1])
  const problem = error
    ? 'clang-format is not on the PATH (Debian: apt-get install -y clang-format)'
    : version !== clangFormat && `clang-format is of version ${version}, not ${clangFormat}`
  if (problem && (error || process.env.CI !== 'true')) {
    console.log(`${problem}: ${files.length} files of C++ and CUDA were not looked at`)
    if (process.env.CI === 'true') total.failed++
    return
  }
  if (problem) console.log(problem)
  const args = ['--style=file', ...(fix ? ['-i'] : ['--dry-run', '-Werror', '--ferror-limit=5']), ...files]
  const { status, stderr } = spawnSync('clang-format', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
  process.stdout.write(stderr)
  const failed = new Set([...stderr.matchAll(/^(\S+?):\d+:/gm)].map(([, file]) => file)).size
  total.failed += failed || (status === 0 ? 0 : 1)
  total.passed += files.length - failed
  console.log(`clang-format: ${files.length} files`)
}
