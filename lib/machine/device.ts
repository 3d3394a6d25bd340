// Which device computes, and why: the answer is part of the result. `auto` never fails for want of a GPU and says why
// it has none; a device that was asked for is never replaced by another. What the machine has is passed in as facts,
// so that `parvis doctor`, which asks in a process of its own, decides by the same lines, and tests need no GPU.

import path from 'node:path'
import { ParError } from '../base/errors.js'
import { addon, type Addon, type CudaDevice, type CudaProbe, type Precision } from './native.js'

const { version } = require('../../package.json') as { version: string }

/** Where to compute: what can be used, the CPU, the first GPU, or the GPU of that number. */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`

/** What the addon and the driver say about this machine. */
export interface Facts {
  cpu: ReturnType<Addon['cpu']>
  cuda: CudaProbe
}

/** A device and a precision, with the reasons for both. */
export interface Choice {
  /** 'cpu' or 'cuda:N'. */
  device: string
  deviceReason: string
  precision: Precision
  precisionReason: string
}

// ---- the choice

/**
 * @throws ParError `DEVICE_UNAVAILABLE` where an explicit device is not there or cannot be used, `NATIVE_UNAVAILABLE`
 */
export async function choose (device: Device, precision: 'auto' | Precision): Promise<Choice> {
  const cpu = addon().cpu()
  if (device === 'cpu') return onCpu(cpu, 'asked for', precision)
  return chooseFrom({ cpu, cuda: await probe() }, device, precision)
}

/** The same from facts. @throws ParError `DEVICE_UNAVAILABLE` */
export function chooseFrom ({ cpu, cuda }: Facts, device: Device, precision: 'auto' | Precision): Choice {
  if (device === 'cpu') return onCpu(cpu, 'asked for', precision)
  const usable = cuda.devices.filter(({ problem }) => problem === undefined)
  if (device === 'auto') {
    const first = usable[0]
    if (!first) return onCpu(cpu, autoCpu(reasonOf(cuda)), precision)
    const passed = cuda.devices.filter(({ index }) => index < first.index).map(({ problem }) => problem)
    return onCuda(first, `auto: ${nameOf(first)}${passed.length > 0 ? `, because ${passed.join('; ')}` : ''}`,
      precision)
  }
  const wanted = device === 'cuda' ? usable[0] : usable.find(({ index }) => index === Number(device.slice(5)))
  if (wanted) return onCuda(wanted, 'asked for: ' + nameOf(wanted), precision)
  throw new ParError('DEVICE_UNAVAILABLE', unavailable(cuda, device, usable))
}

/** `auto` when the CUDA device that it chose could not be used after all. */
export function cpuAfterAll (cpu: Facts['cpu'], choice: Choice, reason: string, precision: 'auto' | Precision): Choice {
  return onCpu(cpu, autoCpu(`${choice.device} cannot be used: ${reason}`), precision)
}

function autoCpu (reason: string): string {
  return `auto: CPU, because ${reason}`
}

function onCpu (cpu: Facts['cpu'], deviceReason: string, precision: 'auto' | Precision): Choice {
  if (precision !== 'auto') return { device: 'cpu', deviceReason, precision, precisionReason: 'asked for' }
  return {
    device: 'cpu',
    deviceReason,
    precision: 'bfloat16',
    precisionReason: cpu.bfloat16
      ? `auto: this CPU (${cpu.isa}) multiplies bfloat16`
      : `auto: half the bytes of float32, which this CPU (${cpu.isa}) widens them to where it multiplies`
  }
}

function onCuda ({ index }: CudaDevice, deviceReason: string, precision: 'auto' | Precision): Choice {
  return {
    device: `cuda:${index}`,
    deviceReason,
    precision: precision === 'auto' ? 'bfloat16' : precision,
    precisionReason: precision === 'auto' ? 'auto: the GPU multiplies bfloat16' : 'asked for'
  }
}

/** Cause and cure of an explicit device that cannot be had. */
function unavailable (cuda: CudaProbe, device: string, usable: readonly CudaDevice[]): string {
  const instead = [...usable.map(({ index }) => `cuda:${index}`), 'cpu', 'auto'].map(name => `'${name}'`)
  const use = `Use device: ${instead.slice(0, -1).join(', ')} or ${instead.at(-1)!}`
  const own = device === 'cuda' ? undefined : cuda.devices.find(({ index }) => index === Number(device.slice(5)))
  const cause = own?.problem ?? (cuda.devices.length > 0 && device !== 'cuda'
    ? `the CUDA devices of this machine are ${cuda.devices.map(one => `cuda:${one.index} (${one.name})`).join(', ')}`
    : reasonOf(cuda))
  const cure = usable.length === 0 ? cureOf(cuda) : undefined
  return [`Device ${device} is not available: ${cause}`, ...(cure ? [cure] : []), use].join('. ')
}

// ---- words

function nameOf ({ index, name, capability }: CudaDevice): string {
  return `GPU ${index} (${name}, compute capability ${capability.join('.')})`
}

function reasonOf ({ reason }: CudaProbe): string {
  return reason ?? 'no CUDA device can be used'
}

/** What to do where no CUDA device can be used; undefined where one can, or where nothing helps. */
export function cureOf ({ compiled, driver, runtime, devices, reason }: CudaProbe): string | undefined {
  if (reason === undefined) return undefined
  const enter = `cd ${path.join(__dirname, '..', '..')} &&`
  const rebuild = `${enter} npx cmake-js rebuild --CDPARVIS_CUDA=ON`
  if (!compiled) {
    return `To build the CUDA backend (it takes nvcc, of the CUDA toolkit 12 or newer): ${enter} PARVIS_CUDA=on npm ` +
      'run install'
  }
  if (driver === 0) {
    return "Where there is an NVIDIA GPU, install NVIDIA's driver; a container is given it with `docker run --gpus all`"
  }
  if (Math.floor(driver / 1000) < Math.floor(runtime / 1000)) {
    const install = `Install a driver for CUDA ${versionText(runtime)} or newer`
    // parvis does not build with a toolkit older than 12.
    return driver < 12000 ? install : `${install}, or build with a CUDA toolkit that this driver supports: ${rebuild}`
  }
  if (devices.length === 0) {
    const hidden = process.env.CUDA_VISIBLE_DEVICES
    return hidden !== undefined
      ? `CUDA_VISIBLE_DEVICES is '${hidden}', which hides devices`
      : '`nvidia-smi` shows what the driver sees'
  }
  const capabilities = new Set(
    devices.filter(({ capability }) => capability[0] >= 8).map(({ capability }) => capability.join(''))
  )
  if (capabilities.size > 0) {
    return `To build for the devices of this machine: ${rebuild} ` +
      `--CDPARVIS_ARCHITECTURES=${[...capabilities].map(one => `${one}-real`).join(',')}`
  }
  if (devices.some(({ capability }) => capability[0] > 0)) {
    return 'The CUDA backend needs a GPU of compute capability 8.0 (Ampere) or newer'
  }
  return '`nvidia-smi` shows what the driver sees'
}

/** 12040 -> '12.4' */
export function versionText (version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor(version % 1000 / 10)}`
}

// ---- what the machine has

/** Asked once a process: a driver does not come and go. One that failed is asked again. */
const probes = new WeakMap<Addon, Promise<CudaProbe>>()

function probe (): Promise<CudaProbe> {
  const native = addon()
  let asked = probes.get(native)
  if (!asked) {
    asked = native.cuda()
    probes.set(native, asked)
    asked.catch(() => { probes.delete(native) })
  }
  return asked
}

/** A GPU, its driver and this build, in words: what a check of its results is remembered by. @param device 'cuda:N' */
export async function identityOf (device: string): Promise<string> {
  const { driver, devices } = await probe()
  const own = devices.find(({ index }) => `cuda:${index}` === device)
  const { commit, compiler, cuda } = addon().build
  return [`${device} ${own?.name ?? ''}`, `compute capability ${own?.capability.join('.') ?? ''}`,
    `driver ${versionText(driver)}`, `parvis ${version} ${commit}`, compiler, `CUDA ${cuda}`].join(', ')
}

/** Bytes of a device that are free now; 0: unknown. */
export async function freeMemory (device: string): Promise<number> {
  return device === 'cpu' ? addon().freeMemory() : (await addon().cudaMemory(Number(device.slice(5)))).free
}

/** Bytes of caches and work space beyond which one session gains nothing. */
export function maxSessionBytes (device: string): number {
  return device === 'cpu' ? 2 ** 30 : 2 ** 34
}

/** Passes that are under way when a device tells of one (cuda/layout.h, depth). */
export function passesInFlight (device: string): number {
  return device === 'cpu' ? 0 : 3
}
