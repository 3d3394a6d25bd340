// parvis doctor on this machine, and on machines that it does not have: in its child process the addon is replaced by
// one that finds GPUs, crashes, hangs or does not load. The parent must tell what it saw, and survive.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { addon } from '../../lib/machine/native.js'
import { bin, parvis, root, temporaryFolder, type Outcome } from './run.js'

const folder = temporaryFolder()

/** Runs doctor with the addon changed by `change`, the body of a function of the real one. */
async function doctor (change: string, ...args: string[]): Promise<Outcome> {
  const hook = path.join(folder, 'hook.cjs')
  fs.writeFileSync(hook, `
    const extensions = require('node:module')._extensions
    const load = extensions['.node']
    const instead = addon => { ${change}; return addon }
    extensions['.node'] = (module, file) => {
      load(module, file)
      if (file.includes('parvis')) module.exports = instead({ ...module.exports })
    }
    const die = signal => { process.kill(process.pid, signal); for (;;); } // it comes when it comes
    const h200 = { index: 0, name: 'NVIDIA H200', capability: [9, 0], memory: 150754820096 }
    const v100 = { index: 0, name: 'Tesla V100', capability: [7, 0], memory: 16e9, problem: 'GPU 0 (Tesla V100) has compute capability 7.0; this build has 8.0 and 9.0' }
    const probe = { compiled: true, driver: 13000, runtime: 13000, architectures: '80 90', devices: [h200] }`)
  return await parvis(['doctor', ...args],
    // The addon cannot compute on what it says it has found.
    { env: { NODE_OPTIONS: `--require ${hook}`, CUDA_VISIBLE_DEVICES: undefined, PARVIS_SELF_CHECK: '0' } })
}

const bytes = { free: 149e9, total: 150754820096 }
const working = "addon.backends = ['cpu', 'cuda']; addon.cuda = async () => probe; addon.cudaMemory = async () => " +
  `(${JSON.stringify(bytes)})`

t.test('this machine', async t => {
  const { code, stdout, stderr } = await parvis(['doctor'], { env: { CUDA_VISIBLE_DEVICES: '-1' } })
  t.same({ code, stderr }, { code: 0, stderr: '' })
  const { isa, cores } = addon().cpu()
  const { backends } = addon()
  for (const line of [
    /^parvis \d+\.\d+\.\d+\n/, `node      ${process.version}, ${process.platform}-${process.arch}`,
    /^  addon     .*parvis\.node \((built on this machine|came with the package|by PARVIS_PREBUILD|PARVIS_NATIVE)\)$/m,
    `backends  ${backends.join(', ')}\n`, new RegExp(`^  cores +${cores}$`, 'm'), new RegExp(`^  kernels +${isa}, `,
      'm'), /^CUDA\n  compiled +(no$|yes, with CUDA \d)/m, /^  set +.*CUDA_VISIBLE_DEVICES=-1/m,
    /^Where no device is given\n  device     \S+ \(auto: .*\)\n  precision  \S+ \(auto: .*\)$/m, /^What to do\n  \S/m
  ]) t.match(stdout, line)
  t.notMatch(stdout, / $/m, 'no trailing blanks')

  const json = await parvis(['doctor', '--json'])
  t.equal(json.code, 0)
  const { devices, reason } = await addon().cuda()
  const usable = devices.find(({ problem }) => problem === undefined)
  t.match(JSON.parse(json.stdout), {
    parvis: /^\d/, package: root, addon: { usable: true }, backends, cpu: { isa, cores },
    cuda: { compiled: backends.includes('cuda'), reason: reason ?? null },
    fault: null, auto: { device: usable ? `cuda:${usable.index}` : 'cpu' }, next: [/./]
  })
})

t.test('what the process may use of the machine', async t => {
  const limited = (facts: object): string =>
    `const cpu = addon.cpu(); addon.cpu = () => ({ ...cpu, ...${JSON.stringify(facts)} })`
  const group = {
    cores: 64, threads: 2, quota: 1.5, quotaGroup: '/docker/ab',
    memory: { total: 4e8, free: 3e8, group: '/docker/ab', checked: true }
  }
  const { stdout } = await doctor(limited(group))
  t.match(
    stdout, /^  cores +64\n  threads +2, by the CPU quota of the control group \/docker\/ab \(1\.5 of 64 cores\)$/m
  )
  t.match(stdout, /^  memory +400 MB of the control group \/docker\/ab, 300 MB free$/m)
  t.match(JSON.parse((await doctor(limited(group), '--json')).stdout), { cpu: group })
  const free = await doctor(
    limited({ cores: 2, threads: 2, memory: { total: 64e9, free: 32e9, group: '', checked: false } })
  )
  t.match(free.stdout, /^  threads +2, one a core$/m)
  t.match(free.stdout, /^  memory +64\.0 GB, 32\.0 GB free, not looked at \(PARVIS_MEMORY_CHECK\)$/m)
})

t.test('sharp', async t => {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'node_modules', 'sharp', 'package.json'), 'utf8')) as {
    version: string
  }
  t.match((await parvis(['doctor'])).stdout, `  sharp     ${version}, for picture files\n`)

  // As sharp fails without its binaries, and otherwise.
  const refusing = async (body: string): Promise<Outcome> => {
    const hook = path.join(folder, 'no-sharp.cjs')
    fs.writeFileSync(hook, `const Module = require('node:module'); const load = Module._load
      Module._load = function (name, ...rest) { if (name === 'sharp') { ${body} } return load.call(this, name, ...rest) }`)
    return await parvis(['doctor', '--json'], { env: { NODE_OPTIONS: `--require ${hook}` } })
  }
  const cases: Array<[body: string, problem: RegExp]> = [
    ["throw new Error('Could not load the \"sharp\" module using the linux-x64 runtime\\nPossible solutions:\\n- " +
      "Ensure optional dependencies can be installed:\\n    npm install --include=optional sharp')",
    /^Could not load the "sharp" module using the linux-x64 runtime Possible solutions: - Ensure .* npm install --include=optional sharp$/],
    ["process.kill(process.pid, 'SIGSEGV'); for (;;);", /^a process that loads it was ended by SIGSEGV$/],
    ["console.error('\\u001b[31m'); process.exit(3)", /^it does not load$/]
  ]
  for (const [body, problem] of cases) {
    const { code, stdout } = await refusing(body)
    t.equal(code, 0)
    t.match(JSON.parse(stdout), { sharp: { problem }, cpu: { cores: Number } })
  }
})

t.test('a GPU', async t => {
  const { code, stdout } = await doctor(working)
  t.equal(code, 0)
  t.match(stdout, `
CUDA
  compiled  yes, with CUDA 13.0 for compute capability 8.0, 9.0
  driver    for CUDA 13.0
  GPU 0     NVIDIA H200, compute capability 9.0, 151 GB, 149 GB free

Where no device is given
  device     cuda:0 (auto: GPU 0 (NVIDIA H200, compute capability 9.0))
  precision  bfloat16 (auto: the GPU multiplies bfloat16)

What to do
  Nothing is missing
`)
  t.match(JSON.parse((await doctor(working, '--json')).stdout), {
    cuda: {
      compiled: true, runtime: '13.0', driver: '13.0', architectures: ['80', '90'],
      devices: [{ index: 0, name: 'NVIDIA H200', capability: [9, 0], memory: bytes.total, free: bytes.free }],
      reason: null
    },
    auto: { device: 'cuda:0', precision: 'bfloat16' }, fault: null
  })
})

t.test('a GPU that cannot be used, and why', async t => {
  const old = await doctor(`${working}; addon.cuda = async () => ({ ...probe, devices: [v100], reason: v100.problem })`)
  t.equal(old.code, 0)
  t.match(
    old.stdout,
    /^  GPU 0 +Tesla V100, compute capability 7\.0, 16\.0 GB; unusable: GPU 0 \(Tesla V100\) has compute capability 7\.0; this build has 8\.0 and 9\.0$/m
  )
  t.match(old.stdout, /^  device +cpu \(auto: CPU, because GPU 0 \(Tesla V100\) has/m)
  t.match(old.stdout, /^What to do\n  .*8\.0 \(Ampere\) or newer$/m)

  const driver = await doctor(
    `${working}; addon.cuda = async () => ({ ...probe, driver: 0, devices: [], reason: 'no NVIDIA driver was found' })`
  )
  t.match(driver.stdout, /^  driver +none\n  unusable +no NVIDIA driver was found$/m)
  t.match(driver.stdout, /^What to do\n  .*install NVIDIA's driver/m)

  const taken = await doctor(`${working}; addon.cudaMemory = async () => { throw new Error('GPU 0 cannot be used; ` +
    "the NVIDIA driver reports: busy.') }")
  t.equal(taken.code, 0)
  t.match(taken.stdout, /^  GPU 0 .*; unusable: GPU 0 cannot be used; the NVIDIA driver reports: busy\.$/m)
  t.match(taken.stdout, /^  device +cpu \(auto: CPU, because cuda:0 cannot be used: GPU 0/m)
  t.match(taken.stdout, /^What to do\n  .*nvidia-smi/m)
})

t.test('a driver that crashes or hangs is told, and survived', async t => {
  const crashes: Array<[change: string, fault: RegExp, args?: string[]]> = [
    [`${working}; addon.cuda = () => die('SIGSEGV')`, /a process that asks for GPUs was ended by SIGSEGV/],
    [`${working}; addon.cuda = () => { console.error('libcuda: bad'); process.exit(7) }`,
      /a process that asks for GPUs ended with exit code 7, saying: libcuda: bad/],
    [`${working}; addon.cuda = async () => { throw new Error('odd') }`, /odd/],
    [`${working}; addon.cuda = () => new Promise(() => setTimeout(() => {}, 1e6))`,
      /a process that asks for GPUs gave no answer for 2 s/, ['--timeout', '2']],
    [`${working}; addon.cudaMemory = () => die('SIGBUS')`, /a process that takes a GPU was ended by SIGBUS/]
  ]
  for (const [change, fault, args = []] of crashes) {
    const { code, stdout, stderr } = await doctor(change, ...args)
    t.same({ code, stderr }, { code: 0, stderr: '' }, String(fault))
    t.match(stdout, new RegExp(`^CUDA\\n(  .*\\n)*  fault +${fault.source}$`, 'm'))
    t.match(stdout, /^What to do\n  The CPU works: --device cpu/m)
    t.notMatch(stdout, 'Where no device is given', 'nobody knows')
  }
  const { code, stdout } = await doctor(crashes[0]![0], '--json')
  t.equal(code, 0)
  t.match(JSON.parse(stdout),
    { cpu: { cores: Number }, cuda: null, auto: null, fault: /SIGSEGV/, next: [/device: 'cpu'/, /nvidia-smi/] })
})

t.test('an addon that does not load', async t => {
  const changes: Array<[change: string, diagnosis: RegExp]> = [
    ["throw new Error('GLIBCXX_3.4.30 not found')",
      /^parvis: parvis could not load its native addon on .*\nTried:\n(  .*\n)*  .*parvis\.node \(.*\): GLIBCXX_3\.4\.30 not found\n(  .*\n)*Cure: .*install\.js --build(\n.*)* \[NATIVE_UNAVAILABLE\]\n$/],
    ["die('SIGILL')",
      /^parvis: .*parvis\.node cannot be used: a process that loads it was ended by SIGILL\.\nCure: .*install\.js --build \[NATIVE_UNAVAILABLE\]\n$/],
    ["addon.createEngine = () => { throw new Error('The system refused to start 1 threads.') }",
      /^parvis: The system refused to start 1 threads\. \[INTERNAL\]\n$/]
  ]
  for (const [change, diagnosis] of changes) {
    const { code, stdout, stderr } = await doctor(change)
    t.equal(code, 1)
    t.match(stderr, diagnosis)
    t.match(stdout, /^  addon +.*parvis\.node .*, unusable$/m, 'what is known is printed all the same')
  }
  const { code, stdout, stderr } = await doctor(changes[0]![0], '--json')
  t.equal(code, 1)
  t.match(JSON.parse(stdout), { addon: { usable: false }, cpu: null, auto: null })
  t.match(JSON.parse(stderr), { error: { code: 'NATIVE_UNAVAILABLE' } })
})

t.test('a signal ends it, child and all', async t => {
  const started = performance.now()
  const hook = path.join(folder, 'hang.cjs')
  fs.writeFileSync(hook, "if (process.argv.includes('doctor')) setTimeout(() => process.kill(process.pid, " +
    "'SIGINT'), 500); else setInterval(() => {}, 1000)")
  const { code, stderr } = await parvis(['doctor'], { env: { NODE_OPTIONS: `--require ${hook}` } })
  t.equal(code, 130)
  t.match(stderr, /SIGINT/)
  t.ok(performance.now() - started < 15000)
})

t.test('where no process may be started', async t => {
  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? '--permission'
    : '--experimental-permission'
  const confined = (...flags: string[]) => spawnSync(process.execPath,
    [permission, '--no-warnings', `--allow-fs-read=${root}/*`, ...flags, bin, 'doctor'], { encoding: 'utf8' })
  const { status, stdout, stderr } = confined('--allow-addons')
  t.same({ status, stderr }, { status: 0, stderr: '' })
  t.match(stdout, /^  kernels +\S/m, 'the CPU is looked at all the same')
  t.match(stdout, /^  fault +Node's permission model forbids the process that would ask for GPUs$/m)
  t.match(stdout, /^What to do\n  Start node with --allow-child-process too/m)
  t.match(
    confined(), { status: 1, stdout: /^  addon +.*unusable$/m, stderr: /--allow-addons.* \[NATIVE_UNAVAILABLE\]\n$/ }
  )
})
