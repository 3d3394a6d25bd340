// What a process does before it trusts a GPU, on a simulated one that is right and on one whose powers of two are not.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { built, root } from '../support/built.js'
import { transformerFile } from '../support/fixtures.js'
import { simtAddon } from '../support/simt-addon.js'

t.setTimeout(1_200_000) // a first build takes minutes

interface Found { device?: string, reason?: string, code?: string, message?: string }

t.test('a GPU is checked once, and one that computes wrongly is not used', async t => {
  const { env } = await simtAddon({ sanitize: false })
  const index = path.join(await built(), 'index.js')
  const script = `
    const { Par } = require(${JSON.stringify(index)})
    const transformer = ${JSON.stringify(transformerFile('par-4x'))}
    Par.load({ transformer, device: process.argv[1] }).then(
      ({ info: { device, deviceReason } }) => ({ device, reason: deviceReason }),
      ({ code, message }) => ({ code, message })
    ).then(found => { console.log(JSON.stringify(found)); process.exit() })`
  const load = async (device: string, machine: string, cache: string, check?: string): Promise<Found> => {
    const settings: NodeJS.ProcessEnv = { ...env, PARVIS_SIMT: machine, XDG_CACHE_HOME: cache }
    delete settings.PARVIS_SELF_CHECK
    if (check !== undefined) settings.PARVIS_SELF_CHECK = check
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script, device],
      { env: settings, timeout: 400_000 })
    return JSON.parse(stdout) as Found
  }
  const cacheOf = (folder: string): string => path.join(folder, 'parvis', 'self-check.json')
  const verdicts = (folder: string): Record<string, { problem?: string }> =>
    JSON.parse(fs.readFileSync(cacheOf(folder), 'utf8')) as Record<string, { problem?: string }>

  // The layer by itself, whose check is left out where the embedded model has shown a fault already.
  const difference = async (machine: string): Promise<number> => {
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', `
      const { Calls } = require(${JSON.stringify(path.join(path.dirname(index), 'base', 'call.js'))})
      const { layerDifference } = require(${JSON.stringify(path.join(path.dirname(index), 'api', 'layer-check.js'))})
      new Calls().run(undefined, async call => await layerDifference('cuda:0', call))
        .then(found => { console.log(found) })`], { env: { ...env, PARVIS_SIMT: machine }, timeout: 400_000 })
    return Number(stdout)
  }
  const [own, faulty] = [await difference(''), await difference('wrong=exp2')]
  t.ok(own > 0 && own < 0.02, `a layer of L: ${own} off`)
  t.ok(faulty > 0.05, `a layer of L whose powers of two are wrong: ${faulty} off`)

  const folder = t.testdir({ right: {}, wrong: {}, failed: {} })
  const [right, wrong] = [path.join(folder, 'right'), path.join(folder, 'wrong')]
  t.match(await load('auto', '', right), { device: 'cuda:0', reason: /auto: GPU 0/ })
  const [identity, verdict] = Object.entries(verdicts(right))[0]!
  t.match(identity, /^cuda:0 SIMT layer, compute capability 9\.0, driver 13\.0, parvis \d/)
  t.same(verdict, {}, 'nothing is wrong')

  const problem = /its results are wrong: in a test with the embedded model .* differ from the CPU's by .*report/
  const machine = 'wrong=exp2'
  t.match(await load('auto', machine, wrong), { device: 'cpu', reason: problem })
  t.match(Object.values(verdicts(wrong))[0]!.problem, problem)
  t.match(await load('cuda', machine, wrong), { code: 'DEVICE_UNAVAILABLE', message: problem }, 'asked for')
  t.match(await load('cuda', machine, wrong, '0'), { device: 'cuda:0' }, 'PARVIS_SELF_CHECK=0')
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(root, 'bin', 'parvis.js'), 'doctor'],
    { env: { ...env, PARVIS_SIMT: machine, XDG_CACHE_HOME: wrong, PARVIS_SELF_CHECK: '' } })
  t.match(stdout, /self-check +its results are wrong/)
  t.match(stdout, /device +cpu \(auto: CPU, because cuda:0 cannot be used: its results are wrong/)
  t.match(stdout, /^What to do\n  Report what the self-check says/m)

  // A device that fails may work the next time: that is no answer to keep.
  const failed = path.join(folder, 'failed')
  t.match(await load('auto', 'fail=launch:60', failed),
    { device: 'cpu', reason: /cuda:0 cannot be used: a test of its results failed: CUDA failed/ })
  t.notOk(fs.existsSync(cacheOf(failed)))

  // What others have put there is no answer; what was answered is not asked again, unless that is wanted.
  fs.writeFileSync(cacheOf(right), JSON.stringify({ [identity]: { problem: 'it was asked before' } }))
  t.match(await load('auto', '', right), { device: 'cpu', reason: /it was asked before/ })
  t.match(await load('auto', '', right, 'always'), { device: 'cuda:0' }, 'PARVIS_SELF_CHECK=always')
  fs.writeFileSync(cacheOf(right), '{ "' + identity + '": { "problem": 7 }')
  t.match(await load('auto', '', right), { device: 'cuda:0' }, 'a file that is none')
  t.same(verdicts(right), { [identity]: {} })
})
