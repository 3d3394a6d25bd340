'use strict'
// npm run test:cuda: the CUDA backend on the GPU of this machine. Builds what is stale, with CUDA; runs the cases of
// every kernel family and of sessions, the paper's shapes against the CPU backend, the golden fixtures and the tests of
// the library that compute. Ends with `N passed, N failed`. Without a GPU that this build can use it says why and
// fails: what has not run has not passed. scripts/device.sh does this and measures too, where there is no registry.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const addon = require('./addon')
const checks = require('./checks')
const typescript = require('./prepare')

const files = ['golden', 'api/ablation', 'api/cancel', 'api/concurrency', 'api/seeds', 'api/stream']
  .map(name => `test/${name}.test.ts`)
const log = path.join(addon.root, 'out', 'test-cuda.log')
const total = { passed: 0, failed: 0 }

function fail (text) {
  total.failed++
  console.log(`\n  FAILED  ${text}\n`)
}

/** Why no GPU can be used, in the words of `parvis doctor`; undefined: one can. Asked in a process of its own. */
function reason (file) {
  const script = 'require(process.argv[1]).cuda().then(probe => process.stdout.write(JSON.stringify(probe)))'
  const child = spawnSync(process.execPath, ['-e', script, file], { encoding: 'utf8', timeout: 120000 })
  if (child.status !== 0) return `${file} does not load: ${child.stderr.trim().split('\n').at(-1)}`
  return JSON.parse(child.stdout).reason
}

function built () {
  if (typescript.isStale() && !typescript.build()) return false
  const present = addon.probe()
  if (!present.problem && present.backends.includes('cuda') && !addon.isStale(present.file)) return true
  console.log('building the native addon, with CUDA')
  process.env.PARVIS_CUDA = 'on'
  return addon.build() === 0
}

async function main () {
  fs.mkdirSync(path.dirname(log), { recursive: true })
  fs.writeFileSync(log, '')
  // Known at once, and compiling for a GPU that is not there takes minutes.
  if (!checks.gpu() && !fs.existsSync('/proc/driver/nvidia/version')) {
    return fail('no GPU can be used here, so nothing was tested: no NVIDIA driver was found')
  }
  if (!built()) return fail('the addon could not be built; the reason is above')
  const why = reason(addon.probe().file)
  if (why) return fail(`no GPU can be used here, so nothing was tested: ${why}`)
  const gpu = checks.gpu()
  if (!gpu) return fail('the driver has a GPU, but nvidia-smi, which tells its architecture, does not run')
  console.log(`${gpu.name}, driver ${gpu.driver}`)

  const made = await checks.build({ architecture: gpu.architecture, seconds: 1800, log, addon: false })
  if (made.problem) return fail(`building the programs: ${made.problem}; see ${log}`)
  for (const name of [...checks.cases(), 'shapes']) {
    const result = checks.count(await checks.run(checks.program(name), name === 'shapes' ? ['--seconds', '600'] : ['1'],
      { seconds: 900, log }))
    total.passed += result.passed
    for (const failure of result.failures) fail(`${name}: ${failure}`)
    for (const skipped of result.skipped) console.log(`skipped  ${name}: ${skipped}`)
    console.log(`${result.failures.length === 0 ? 'ok    ' : 'not ok'}  ${name}  ${result.passed} passed`)
  }

  const { out, problem } = await checks.run(process.execPath, ['scripts/test.js', ...files], {
    seconds: 1800, log, env: { PARVIS_TEST_DEVICE: 'cuda', PARVIS_TAP: path.join('out', 'test-cuda.tap') }
  })
  process.stdout.write(out)
  const counted = /(\d+) passed, (\d+) failed\s*$/.exec(out.trim())
  if (!counted) return fail(`the tests of the library ${problem || 'ended without a count'}`)
  total.passed += Number(counted[1])
  total.failed += Number(counted[2])
}

main().catch(error => fail(error.stack)).then(() => {
  console.log(`${total.passed} passed, ${total.failed} failed`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
})
