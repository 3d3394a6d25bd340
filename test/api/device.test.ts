// Which device is taken and why, from facts as machines with and without GPUs would give them; and what a load does
// with the choice. The engines here compute on the CPU whatever device they are said to be.

import t from 'tap'
import {
  chooseFrom, cpuAfterAll, cureOf, freeMemory, maxSessionBytes, versionText, type Facts
} from '../../lib/machine/device.js'
import { ParError } from '../../lib/base/errors.js'
import { addon, type Addon, type CudaDevice, type CudaProbe, type NativeEngine } from '../../lib/machine/native.js'
import type { Device } from '../../lib/machine/device.js'
import { Par } from '../../lib/api/par.js'
import { rejection, smallPar, tokenizerFile, transformerFile } from '../support/fixtures.js'

const cpu: Facts['cpu'] = {
  isa: 'avx512', isas: ['baseline', 'avx2', 'avx512'], bfloat16: false, cores: 8, threads: 8, quota: 0, quotaGroup: '',
  memory: { total: 16e9, free: 8e9, group: '', checked: true }
}
const h200: CudaDevice = { index: 0, name: 'NVIDIA H200', capability: [9, 0], memory: 150e9 }
const v100: CudaDevice = {
  index: 0, name: 'Tesla V100', capability: [7, 0], memory: 16e9,
  problem: 'GPU 0 (Tesla V100) has compute capability 7.0; this build has 8.0 and 9.0'
}
const one: CudaProbe = { compiled: true, driver: 13000, runtime: 13000, architectures: '80 90', devices: [h200] }
const two: CudaProbe = { ...one, devices: [v100, { ...h200, index: 1 }] }
const old: CudaProbe = { ...one, devices: [v100], reason: v100.problem }
const none: CudaProbe = {
  compiled: false, driver: 0, runtime: 0, architectures: '', devices: [], reason: 'this build has no CUDA code'
}
const noDriver: CudaProbe = { ...one, driver: 0, devices: [], reason: 'no NVIDIA driver was found' }
const oldDriver: CudaProbe = {
  ...one, driver: 11040, devices: [], reason: 'the NVIDIA driver supports CUDA 11.4 and this build needs 13.0'
}

t.test('auto', async t => {
  const auto = (cuda: CudaProbe): unknown => chooseFrom({ cpu, cuda }, 'auto', 'auto')
  t.same(auto(one), {
    device: 'cuda:0', deviceReason: 'auto: GPU 0 (NVIDIA H200, compute capability 9.0)', precision: 'bfloat16',
    precisionReason: 'auto: the GPU multiplies bfloat16'
  })
  t.match(auto(two), {
    device: 'cuda:1',
    deviceReason: 'auto: GPU 1 (NVIDIA H200, compute capability 9.0), because GPU 0 (Tesla V100) has compute ' +
      'capability 7.0; this build has 8.0 and 9.0'
  })
  for (const cuda of [none, noDriver, oldDriver, old]) {
    t.same(auto(cuda), {
      device: 'cpu', deviceReason: `auto: CPU, because ${cuda.reason}`, precision: 'bfloat16',
      precisionReason: 'auto: half the bytes of float32, which this CPU (avx512) widens them to where it multiplies'
    })
  }
  t.equal((auto(oldDriver) as { deviceReason: string }).deviceReason,
    'auto: CPU, because the NVIDIA driver supports CUDA 11.4 and this build needs 13.0')
})

t.test('explicit devices', async t => {
  const take = (cuda: CudaProbe, device: Device): unknown =>
    chooseFrom({ cpu: { ...cpu, bfloat16: true }, cuda }, device, 'float32')
  const reasons = { precision: 'float32', precisionReason: 'asked for' }
  t.same(take(one, 'cpu'), { device: 'cpu', deviceReason: 'asked for', ...reasons }, 'the CPU although there is a GPU')
  t.same(take(one, 'cuda'),
    { device: 'cuda:0', deviceReason: 'asked for: GPU 0 (NVIDIA H200, compute capability 9.0)', ...reasons })
  t.match(take(two, 'cuda'), { device: 'cuda:1' }, 'the first that can be used')
  t.match(take(two, 'cuda:1'), { device: 'cuda:1' })
  t.match(take(two, 'cuda:01'), { device: 'cuda:1' })
  const refusals: Array<[CudaProbe, Device, RegExp]> = [
    [
      none, 'cuda',
      /^Device cuda is not available: this build has no CUDA code\. To build .*nvcc.*: cd .* PARVIS_CUDA=on npm run install\. Use device: 'cpu' or 'auto'$/
    ],
    [noDriver, 'cuda',
      /: no NVIDIA driver was found\. .*install NVIDIA's driver.*--gpus all.*\. Use device: 'cpu' or 'auto'$/],
    [oldDriver, 'cuda:0',
      /supports CUDA 11\.4 and this build needs 13\.0\. Install a driver for CUDA 13\.0 or newer\. Use device: 'cpu' or 'auto'$/],
    [{ ...oldDriver, driver: 12040 }, 'cuda',
      /\. Install a driver for CUDA 13\.0 or newer, or build with a CUDA toolkit that this driver supports: .*\. Use device: 'cpu' or 'auto'$/],
    [
      old, 'cuda',
      /GPU 0 \(Tesla V100\) has compute capability 7\.0; this build has 8\.0 and 9\.0\. .*8\.0 \(Ampere\) or newer\. Use/
    ],
    [old, 'cuda:0', /Device cuda:0 is not available: GPU 0 \(Tesla V100\) has/],
    [
      two, 'cuda:0',
      /GPU 0 \(Tesla V100\) has compute capability 7\.0; this build has 8\.0 and 9\.0\. Use device: 'cuda:1', 'cpu' or 'auto'$/
    ],
    [two, 'cuda:7',
      /^Device cuda:7 is not available: the CUDA devices of this machine are cuda:0 \(Tesla V100\), cuda:1 \(NVIDIA H200\)\. Use device: 'cuda:1', 'cpu' or 'auto'$/]
  ]
  for (const [cuda, device, message] of refusals) {
    t.throws(() => chooseFrom({ cpu, cuda }, device, 'auto'), { code: 'DEVICE_UNAVAILABLE', message })
  }
})

t.test('cures', async t => {
  const hidden = process.env.CUDA_VISIBLE_DEVICES
  t.teardown(() => {
    if (hidden === undefined) delete process.env.CUDA_VISIBLE_DEVICES; else process.env.CUDA_VISIBLE_DEVICES = hidden
  })
  delete process.env.CUDA_VISIBLE_DEVICES
  const empty = { ...one, devices: [], reason: 'the NVIDIA driver shows no GPU' }
  t.equal(cureOf(one), undefined)
  t.match(cureOf(empty), /nvidia-smi/)
  process.env.CUDA_VISIBLE_DEVICES = '-1'
  t.match(cureOf(empty), "CUDA_VISIBLE_DEVICES is '-1'")
  const newer = [{ ...h200, capability: [12, 0] as [number, number], problem: 'x' },
    { ...h200, index: 1, capability: [10, 3] as [number, number], problem: 'y' }]
  t.match(cureOf({ ...one, devices: newer, reason: 'x; y' }),
    /cmake-js rebuild --CDPARVIS_CUDA=ON --CDPARVIS_ARCHITECTURES=120-real,103-real$/)
  t.match(
    cureOf({
      ...one, devices: [{ ...h200, name: '', capability: [0, 0], problem: 'GPU 0: unknown error' }],
      reason: 'GPU 0: unknown error'
    }),
    /nvidia-smi/
  )
  t.same([13000, 12040, 11080].map(versionText), ['13.0', '12.4', '11.8'])
  t.match(cpuAfterAll(cpu, chooseFrom({ cpu, cuda: one }, 'auto', 'auto'), 'No room.', 'auto'),
    { device: 'cpu', deviceReason: 'auto: CPU, because cuda:0 cannot be used: No room.', precision: 'bfloat16' })
})

t.test('loading', async t => {
  const native = addon() as { -readonly [K in keyof Addon]: Addon[K] }
  const real = { ...native }
  t.teardown(() => { Object.assign(native, real) })
  process.env.PARVIS_SELF_CHECK = '0' // the engines of these devices are the CPU's
  t.teardown(() => { delete process.env.PARVIS_SELF_CHECK })
  const asked = { probes: 0, memory: [] as number[], engines: [] as object[], disposed: 0 }
  let [free, fault] = [8e9, undefined as Error | undefined]
  native.cuda = async () => {
    if (++asked.probes === 1) throw new Error('the driver is busy')
    return two
  }
  native.cudaMemory = async device => { asked.memory.push(device); return { free, total: 16e9 } }
  native.createEngine = options => {
    asked.engines.push(options)
    const engine = real.createEngine({ device: 'cpu', threads: 1 })
    if (options.device === 'cpu') return engine
    return new Proxy(engine, {
      get (target, name) {
        if (name === 'isa') return 'sm_90'
        if (name === 'threads') return 0
        if (name === 'launches') return 'graphs'
        if (name === 'dispose') return async () => { asked.disposed++; await target.dispose() }
        if (name === 'loadTokenizer' && fault) return async () => { throw fault! }
        return (target[name as keyof NativeEngine] as (...parameters: unknown[]) => unknown).bind(target)
      }
    })
  }

  t.match(await rejection(smallPar({ device: 'auto' })), { message: 'the driver is busy' })
  const par = await smallPar({ device: 'auto', precision: 'auto', threads: 3 })
  t.match(par.info, {
    device: 'cuda:1', deviceReason: /^auto: GPU 1 \(NVIDIA H200/, isa: 'sm_90', threads: 0, precision: 'bfloat16'
  }, 'a probe that failed is made again')
  t.same(asked, { probes: 2, memory: [], engines: [{ device: 'cuda:1', threads: 0 }], disposed: 0 })
  t.equal((await par.generate({ classId: 1, seed: 1 })).tokens.length, 64)
  await par.dispose()
  t.equal(asked.disposed, 1)

  const explicit = await smallPar({ device: 'cuda' })
  t.match(explicit.info, { device: 'cuda:1', deviceReason: /^asked for: GPU 1/ })
  t.equal(asked.probes, 2, 'asked once a process')
  await explicit.dispose()
  const own = await smallPar({ device: 'cpu', threads: 2 })
  t.match(own.info, { device: 'cpu', deviceReason: 'asked for', threads: 1 })
  t.same(asked.engines.at(-1), { device: 'cpu', threads: 2 })
  await own.dispose()

  for (const code of ['OUT_OF_MEMORY', 'DEVICE_UNAVAILABLE', 'INTERNAL']) {
    fault = Object.assign(new Error('The weights need 9 GB of device memory and 1 GB of 16 GB are free.'),
      { parvisCode: code })
    asked.disposed = 0
    const fallen = await smallPar({ device: 'auto', precision: 'auto', threads: 2 })
    t.match(
      fallen.info,
      {
        device: 'cpu', deviceReason: 'auto: CPU, because cuda:1 cannot be used: The weights need 9 GB of device ' +
          'memory and 1 GB of 16 GB are free.'
      }, code
    )
    t.match(fallen.info.precisionReason, `this CPU (${real.cpu().isa})`, 'the precision is chosen again')
    t.equal(asked.disposed, 1, 'the engine that failed is gone')
    t.same(asked.engines.slice(-2), [{ device: 'cuda:1', threads: 0 }, { device: 'cpu', threads: 2 }])
    t.equal((await fallen.generate({ classId: 1, seed: 1 })).tokens.length, 64)
    await fallen.dispose()
    for (const device of ['cuda', 'cuda:1'] as const) {
      const error = await rejection(smallPar({ device }))
      t.ok(error instanceof ParError && error.code === code, `${device} never falls back`)
    }
  }
  fault = Object.assign(new Error('truncated'), { parvisCode: 'BAD_CHECKPOINT' })
  const engines = asked.engines.length
  t.match(await rejection(smallPar({ device: 'auto' })), { code: 'BAD_CHECKPOINT' },
    'nor does auto, where the file is at fault')
  t.equal(asked.engines.length, engines + 1)

  fault = undefined
  const controller = new AbortController()
  const loading = Par.load({
    transformer: transformerFile('par-4x'), tokenizer: tokenizerFile(), signal: controller.signal
  })
  controller.abort('enough')
  t.equal(await rejection(loading), 'enough')

  t.same(['cpu', 'cuda:0'].map(maxSessionBytes), [2 ** 30, 2 ** 34])
  free = 7e9
  t.equal(await freeMemory('cuda:1'), 7e9)
  t.ok(await freeMemory('cpu') > 1e6 || process.platform !== 'linux', 'of the machine')
})

t.test('native refusals', async t => {
  const native = addon()
  for (const device of ['', 'gpu', 'cuda', 'cuda:', 'cuda:x', 'cuda:-1', 'cuda:12345']) {
    t.match(await rejection((async () => native.createEngine({ device, threads: 0 }))()), { parvisCode: 'INTERNAL' },
      device)
  }
  t.ok(native.backends.includes('cpu'))
  const probe = await native.cuda()
  t.equal(native.backends.includes('cuda'), probe.compiled)
  t.equal(probe.reason === undefined, probe.devices.some(({ problem }) => problem === undefined),
    'a reason where no device can be used')
  const engine = native.createEngine({ device: 'cpu', threads: 1 })
  t.equal(engine.device, 'cpu')
  await engine.dispose()
  if (!probe.compiled) {
    t.match(await rejection(native.cudaMemory(0)), { parvisCode: 'DEVICE_UNAVAILABLE', message: /no CUDA code/ })
    t.match(await rejection((async () => native.createEngine({ device: 'cuda:0', threads: 0 }))()),
      { parvisCode: 'DEVICE_UNAVAILABLE' })
  }
})
