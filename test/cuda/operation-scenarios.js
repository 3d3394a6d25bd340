// What operations.test.ts runs in child processes, on the machine that PARVIS_SIMT describes: one line of JSON each.
//   node operation-scenarios.js NATIVE SCENARIO
'use strict'

const [module_, scenario] = process.argv.slice(2)
const { addon } = require(module_)

const engine = addon().createEngine({ device: 'cuda:0', threads: 0 })
const free = async () => (await addon().cudaMemory(0)).free
const common = { precision: 'bfloat16', eps: 1e-5 }
const operations = [
  { ...common, kind: 'projection', rows: 5, inputs: 64, outputs: 48, normed: true, epilogue: 'swiglu' },
  { ...common, kind: 'projection', rows: 70, inputs: 64, outputs: 48, normed: false, epilogue: 'add' },
  { ...common, kind: 'attention', streams: 2, rows: 2, sees: 9, dim: 32, heads: 2, kvHeads: 1, headSize: 16, grid: 3 },
  { ...common, kind: 'draw', draws: 3, vocabularySize: 100, guided: true, rule: { mode: 'sample', guidanceScale: 1.5, temperature: 1, topK: 10, topP: 0.9 } },
  { ...common, kind: 'convolution', images: 2, height: 4, width: 4, channels: 16, outputs: 8, kernel: 3, groups: 4, swish: true, residual: true, resample: 'none' },
  { ...common, kind: 'spatialAttention', images: 1, height: 4, width: 4, channels: 16, groups: 4 }
]
const timed = { copies: 2, warmup: 1, repeats: 2 }

async function failure (work) {
  try {
    await work()
    return undefined
  } catch (error) {
    return { code: error.parvisCode, message: error.message }
  }
}

const scenarios = {
  async ceilings () {
    const before = await free()
    const found = await engine.measureCeilings()
    return { ...found, left: before - await free() }
  },

  /** Each operation until it ends, however it ends; the first has the device's stream made. */
  async memory () {
    await engine.runOperation(operations[0], timed)
    const before = await free()
    const found = []
    for (const precision of ['float32', 'bfloat16']) {
      for (const operation of operations) {
        const { ms } = await engine.runOperation({ ...operation, precision }, timed)
        const cancel = addon().createCancel()
        const running = failure(async () => await engine.runOperation({ ...operation, precision }, { ...timed, repeats: 1 << 20 }, cancel))
        setTimeout(() => cancel.cancel(), 20)
        const cancelled = await running
        found.push({ kind: operation.kind, ms: ms.length, cancelled: cancelled?.code, left: before - await free() })
      }
    }
    return found
  },

  /** Too large for the device, on the way there and altogether. */
  async tooLarge () {
    await engine.runOperation(operations[0], timed)
    const before = await free()
    const found = []
    for (const operation of operations) {
      const large = { ...operation, ...(operation.kind === 'projection' ? { outputs: 1 << 20 } : operation.kind === 'attention' ? { streams: 4096, sees: 4096, grid: 64 } : operation.kind === 'draw' ? { draws: 65536 } : { images: 4096, height: 64, width: 64 }) }
      found.push({ kind: operation.kind, ...await failure(async () => await engine.runOperation(large, timed)), left: before - await free() })
    }
    const { ms } = await engine.runOperation(operations[0], timed)
    return { found, afterwards: ms.length }
  },

  /** What no kernel is built for. */
  async refused () {
    const [projection, , attention, draw, convolution, spatial] = operations
    const found = []
    for (const operation of [
      { ...projection, inputs: 63 }, { ...attention, dim: 31 }, { ...attention, headSize: 132 }, { ...draw, vocabularySize: 1 << 20 }, { ...convolution, groups: 0 },
      { ...convolution, swish: false, residual: false, resample: 'up' }, { ...convolution, channels: 1024, groups: 1 }, { ...spatial, channels: 516 }
    ]) found.push(await failure(async () => await engine.runOperation(operation, timed)))
    const { ms } = await engine.runOperation(projection, timed)
    return { found, afterwards: ms.length }
  },

  /** One after the other, on a device that fails. */
  async failing () {
    const found = []
    for (const operation of operations) found.push(await failure(async () => await engine.runOperation(operation, timed)))
    return { found, ceilings: await failure(async () => await engine.measureCeilings()) }
  }
}

void scenarios[scenario]().then(async found => {
  await engine.dispose()
  console.log(JSON.stringify(found))
})
