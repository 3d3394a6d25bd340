// Engines, and their end. process.exit() leaves native threads running while the C runtime takes libraries down, CUDA's
// among them: a thread that is inside CUDA then may bring the process down with it. So what runs on a GPU is stopped
// first; it takes the milliseconds that are enqueued. The CPU backend has nothing of that kind, and a step of it may
// take long.

import { addon, toParError, type NativeEngine } from './native.js'

/** Of this thread; one that is disposed of may still be giving its memory back. */
const onDevices = new Set<WeakRef<NativeEngine>>()
let listening = false

/** @throws ParError `DEVICE_UNAVAILABLE`, `NATIVE_UNAVAILABLE`. threads: of the CPU; 0: one a core */
export function createEngine (device: string, threads: number): NativeEngine {
  try {
    const engine = addon().createEngine({ device, threads: device === 'cpu' ? threads : 0 })
    if (device !== 'cpu') haltAtExit(engine)
    return engine
  } catch (error) {
    throw toParError(error)
  }
}

function haltAtExit (engine: NativeEngine): void {
  if (!listening) process.once('exit', halt)
  listening = true
  for (const known of onDevices) if (known.deref() === undefined) onDevices.delete(known)
  onDevices.add(new WeakRef(engine))
}

function halt (): void {
  for (const engine of onDevices) engine.deref()?.halt()
}
