// The public API on the CUDA backend, without a GPU: the addon is built against the SIMT layer, with sanitizers, and a
// child process sees the machine that PARVIS_SIMT describes: devices, memory, driver, and what fails.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { safetensorsFile, tile, transformerShapes, type TinyOptions } from '../checkpoint/tiny.js'
import { vqTensors, vqTokenizer, type VqModel } from '../../lib/models/vq.js'
import { built } from '../support/built.js'
import { tokenizerFile, transformerFile } from '../support/fixtures.js'
import { simtAddon } from '../support/simt-addon.js'
import { worst } from '../support/tensors.js'

t.setTimeout(1_200_000) // a first build takes minutes
t.jobs = availableParallelism()

interface Failure { code: string, message: string }
const model = { transformer: transformerFile('par-4x'), tokenizer: tokenizerFile() }

/** What a scenario printed, on a machine: PARVIS_SIMT, or more of the environment. */
async function run<T> (machine: string | NodeJS.ProcessEnv, scenario: string, ...values: string[]): Promise<T> {
  return await runWith(model, machine, scenario, ...values)
}

/** The same with other load options than the small model's. */
async function runWith<T> (
  options: object, machine: string | NodeJS.ProcessEnv, scenario: string, ...values: string[]
): Promise<T> {
  const { env } = await simtAddon({ sanitize: true })
  const settings = typeof machine === 'string' ? { PARVIS_SIMT: machine } : machine
  const args = [path.join(__dirname, 'scenarios.js'), path.join(await built(), 'index.js'), JSON.stringify(options),
    scenario, ...values]
  const { stdout } = await promisify(execFile)(process.execPath, args,
    { env: { ...env, ...settings }, timeout: 280_000, maxBuffer: 64 << 20 })
  return JSON.parse(stdout)
}

t.test('the device is chosen, and says why', async t => {
  const one = await run<Record<string, unknown>>('seed=1', 'info')
  t.match(one, { device: 'cuda:0', isa: 'sm_90', threads: 0, precision: 'bfloat16' })
  t.match(one.deviceReason, /auto: .*SIMT layer/)
  t.match(await run('devices=2,name=A/B', 'info', 'cuda:1'), { device: 'cuda:1', deviceReason: /asked for: .*B/ })
  t.match(await run('devices=2,capability=7.5/8.0', 'info'),
    { device: 'cuda:1', isa: 'sm_80', deviceReason: /because GPU 0 .*7\.5/ }, 'an old GPU is passed over')
  for (const [machine, reason] of [['devices=0', /no .*device|no .*GPU/i], ['driver=0', /no NVIDIA driver/],
    ['driver=11040', /CUDA 11\.4.*needs/], ['capability=7.0', /compute capability 7\.0/]] as const) {
    t.match(await run(machine, 'info'), { device: 'cpu', deviceReason: reason }, `${machine}: auto takes the CPU`)
    t.match(await run<Failure>(machine, 'refused', 'cuda'), { code: 'DEVICE_UNAVAILABLE', message: reason },
      `${machine}: 'cuda' is refused`)
  }
  t.match(await run<Failure>('devices=2', 'refused', 'cuda:5'),
    { code: 'DEVICE_UNAVAILABLE', message: /cuda:0.*cuda:1/ })
})

/** What scenario `passes` found of a draw. */
interface Found { steps: number, auto: number, passes: number[], differ: number }

t.test('passes of several steps: the same tokens, and fewer passes than steps', async t => {
  // The models are small and random: only where one token follows another do some guesses hold.
  const cases = [['bfloat16', 'par-4x', 'inverse,gumbel'], ['float32', 'llamagen', 'gumbel']]
  for (const [precision, name, draws] of cases) {
    const options = { transformer: transformerFile(name as 'llamagen'), precision }
    const found = await runWith<Found[]>(options, 'seed=1', 'passes', draws!)
    t.equal(found.length, draws!.split(',').length)
    for (const { steps, auto, passes, differ } of found) {
      t.ok(auto <= steps, `auto: ${auto} passes for ${steps} steps`)
      t.equal(differ, 0, `${name}, ${precision}`)
      if (name === 'llamagen') t.ok(Math.min(...passes) < steps, `${passes.join(', ')} passes for ${steps} steps`)
    }
  }
})

t.test('graphs that the driver fails at: kernels one after another or one by one, and the same pictures', async t => {
  interface Launched { launches: string, tokens: number[][] }
  const expected = await run<Launched>('seed=1', 'launches')
  t.equal(expected.launches, 'graphs')
  for (const [machine, launches] of [
    ['refuses=overlap,ahead=3', 'plain graphs'], ['refuses=capture', 'kernels'], ['refuses=instantiate', 'kernels']
  ] as const) {
    t.same(await run<Launched>(`seed=1,${machine}`, 'launches'), { ...expected, launches }, machine)
  }
  t.same(await run<Launched>({ PARVIS_SIMT: 'seed=1', PARVIS_GRAPHS: '0' }, 'launches'),
    { ...expected, launches: 'kernels' }, 'PARVIS_GRAPHS=0')
})

t.test('completions: a picture completes itself with the same draws', async t => {
  // Halves: two tokens of the first group and all 15 places behind it. The box: one token of the first group, and the
  // 11 places of three rows of a region.
  t.same(await run('seed=1', 'complete'),
    [{ steps: 17, differ: 0 }, { steps: 17, differ: 0 }, { steps: 12, differ: 0 }])
})

t.test('auto takes the CPU where the GPU fails', async t => {
  t.match(await run('fail=launch:1', 'info'),
    { device: 'cpu', deviceReason: /cuda:0 cannot be used: CUDA failed while .*illegal/ })
})

t.test('models that only the CUDA kernels cannot run', async t => {
  const folder = t.testdir()
  const write = (name: string, shapes: Map<string, number[]>): string => {
    const { entries, bytes } = tile(shapes)
    const file = path.join(folder, name)
    fs.writeFileSync(file, safetensorsFile(entries, bytes))
    return file
  }
  const transformer = (shape: TinyOptions): object =>
    ({
      transformer: {
        path: write(`${Object.values(shape).join('-')}.safetensors`, transformerShapes(shape)), heads: 1, grid: 8
      }
    })
  const tokenizer: VqModel = {
    baseChannels: 32, multipliers: [1, 2], residualBlocks: 1, zChannels: 8, codebookSize: 16, codeSize: 257, groups: 32,
    normEps: 1e-6
  }
  const cases: Array<[object, string, RegExp]> = [
    [transformer({ dim: 132 }), 'seed=1', /a head size of 132 is not a multiple of 4 up to 128/],
    [transformer({ feedForward: 13 }), 'seed=1', /its feed-forward width of 13 is odd/],
    [{
      tokenizer: write('tokenizer.safetensors',
        new Map(vqTensors(tokenizer).map(({ name, shape }) => [name, [...shape]])))
    }, 'seed=1', /the numbers of a code are 257, and at most 256 are possible/]
  ]
  for (const [options, machine, reason] of cases) {
    t.match(await runWith(options, machine, 'info'), { device: 'cpu', deviceReason: reason },
      `${reason}: auto takes the CPU`)
    t.match(await runWith<Failure>(options, machine, 'refused', 'cuda'),
      { code: 'DEVICE_UNAVAILABLE', message: reason }, "'cuda' is refused")
  }
  t.match(await runWith(transformer({ vocabulary: 24577 }), 'capability=8.9', 'info'), { device: 'cuda:0' },
    'logits that the shared memory of a GPU does not hold are no hindrance')

  // Refused by its sizes, before anything is read: the file does not exist.
  const sizes = async (machine: string, precision: string, size: Partial<VqModel>): Promise<Failure> =>
    await run(machine, 'sizes',
      JSON.stringify({ model: vqTokenizer({ ...tokenizer, codeSize: 8, ...size }), precision }))
  for (const [machine, precision, size, message] of [
    ['seed=1', 'float32', { multipliers: [1, 17] }, /the channels of its attention are 544, and at most 512/],
    ['seed=1', 'float32', { multipliers: [256, 1], baseChannels: 64, groups: 16 },
      /the channels of its widest norm are 16384, and at most 8192/],
    ['capability=8.9', 'bfloat16', { multipliers: [21, 1] },
      /the channels of its widest layer are 672, and at most 640/],
    ['capability=8.9', 'bfloat16', { zChannels: 641 }, /the channels of its widest layer are 641, and at most 640/]
  ] as const) {
    t.match(await sizes(machine, precision, size as Partial<VqModel>), { code: 'DEVICE_UNAVAILABLE', message },
      String(message))
  }
  for (const [machine, precision, size] of [
    ['capability=8.9', 'bfloat16', { multipliers: [20, 16] }], ['capability=8.9', 'float32', { multipliers: [21, 1] }],
    ['seed=1', 'bfloat16', { multipliers: [21, 1], zChannels: 641 }]
  ] as const) {
    t.match(await sizes(machine, precision, size as unknown as Partial<VqModel>), { code: 'FILE_NOT_FOUND' },
      `${machine}, ${precision}, ${JSON.stringify(size)} is possible`)
  }
})

t.test('the same results as on the CPU', async t => {
  interface Results {
    tokens: number[][]
    bytes: number[][]
    greedy: number[]
    resized: number[]
    total: number
    code: number[]
  }
  const [cpu, cuda] = await run<[Results, Results]>('seed=2', 'same')
  t.same(cuda.tokens, cpu.tokens, 'drawn tokens')
  t.same(cuda.greedy, cpu.greedy, 'likeliest tokens')
  cuda.bytes.forEach((bytes, i) => t.ok(worst(bytes, cpu.bytes[i]!) <= 1, `bytes of picture ${i}`))
  t.ok(worst(cuda.resized, cpu.resized) <= 1, 'bytes of a picture of another size')
  t.ok(Math.abs(cuda.total - cpu.total) < 1e-2, 'score')
  t.same(cuda.code, cpu.code, 'encoded picture')
})

t.test('a picture does not depend on its batch', async t => {
  const [among, alone] = await run<number[][][]>('seed=3', 'batches')
  t.same(alone![0], among![0], 'tokens')
  t.same(alone![1], among![1], 'bytes')
})

t.test('progress and previews', async t => {
  const { seen, preview, images } = await run<{ seen: number[], preview: number[], images: number[] }>('seed=1',
    'stream')
  t.same(seen, [1, 2, 3, ...Array.from({ length: 16 }, (_, i) => 4 * (i + 1))], 'tokens a step')
  t.same(preview.slice(0, 2), [32, 32])
  t.ok(preview[2]! > 10, 'a preview has colours')
  t.same(images, [64])
})

t.test('stopping, and the memory afterwards', async t => {
  const [aborted, afterStops, disposed, afterDispose] = await run<[Failure, number, Failure, number]>('seed=2', 'stop')
  t.match(aborted, { message: 'enough' })
  t.equal(afterStops, 0, 'sessions that were stopped')
  t.match(disposed, { code: 'DISPOSED' })
  t.equal(afterDispose, 0, 'an instance disposed in mid-work')
  const left = await run<number[]>('seed=3', 'rounds')
  t.equal(new Set(left).size, 1, `free after each round: ${left.join(', ')}`)
})

/** Whether the numbers of a refusal say that it does not fit. */
function shown (message: string): boolean {
  const [, need, needUnit, free,
    freeUnit] = /need ([\d.]+) ([MG]B) of device memory.*, and ([\d.]+) ([MG]B) of [\d.]+ [MG]B are free on GPU 0/.exec(
    message
  ) ?? []
  return Number(need) > Number(free) && needUnit === freeUnit
}

t.test('too little memory', async t => {
  const explicit = await run<Failure>('memory=2M', 'refused', 'cuda')
  t.match(explicit, { code: 'OUT_OF_MEMORY' })
  t.ok(shown(explicit.message), explicit.message)
  t.match(explicit.message,
    /^(The weights|Buffers for loading|Rotation tables) need .*use precision 'bfloat16', or use device 'cpu'\.$/,
    'a cure that fits weights in float32')
  const host = await run<Failure>('fail=hostalloc:1', 'refused', 'cuda')
  t.match(host, { code: 'OUT_OF_MEMORY', message: /refused \d+ MB of page-locked memory.*memory of the machine/ })
  t.match(await run('memory=2M', 'info'), { device: 'cpu', deviceReason: /cuda:0 cannot be used.*need/ },
    'auto takes the CPU')
  // However little is missing, what is needed is more than what is free in the message too.
  let refused = 0
  for (let kilobytes = 1500; kilobytes <= 3500; kilobytes += 250) {
    const { first } = await run<{ first?: Failure }>(`memory=${kilobytes}K`, 'failing')
    if (!first) continue
    refused++
    t.ok(first.code === 'OUT_OF_MEMORY' && shown(first.message), `${kilobytes} KB: ${first.message}`)
  }
  t.ok(refused > 0, `${refused} of the sizes are too little`)
  t.same(await run('memory=6M', 'long', '9'), [9, true], 'a list that fits in groups only')
})

t.test('whatever fails is a typed error, and the process goes on', async t => {
  for (const [fail, code] of [
    ['malloc:1', 'OUT_OF_MEMORY'], ['malloc:2', 'OUT_OF_MEMORY'], ['malloc:4', 'OUT_OF_MEMORY'],
    ['hostalloc:1', 'OUT_OF_MEMORY'], ['launch:1', 'DEVICE_UNAVAILABLE'], ['launch:60', 'DEVICE_UNAVAILABLE'],
    ['launch:150', 'DEVICE_UNAVAILABLE']
  ] as const) {
    const { first, cpu } = await run<{ first: Failure, cpu: number }>(`fail=${fail}`, 'failing')
    t.match(first, { code, message: /./ }, `fail=${fail}: ${first?.message}`)
    t.equal(cpu, 64, 'the CPU backend still works')
  }
  // Of a session: it is asked for again, with fewer seats.
  for (const fail of ['malloc:6', 'hostalloc:3']) {
    const { first, cpu } = await run<{ first?: Failure, cpu: number }>(`fail=${fail}`, 'failing')
    t.same([first, cpu], [undefined, 64], `fail=${fail} is survived`)
  }
})

t.test('several users of one device', async t => {
  const [a, b, worker] = await run<number[][]>('seed=1', 'together')
  t.equal(a!.length, 64)
  t.same(b, a, 'two instances')
  t.same(worker, a, 'a worker thread')
})

t.test('the process may end at any moment', async t => {
  // No thread is inside CUDA by then: the layer would end the process otherwise.
  for (const moment of ['draw:now', 'draw:0', 'draw:40', 'draw:400', 'load:0', 'load:100', 'dispose:now', 'dispose:10',
    'disposed:now']) {
    const error = await run('seed=1', 'exit', moment).then(() => undefined,
      error => error as { code: unknown, signal: unknown, stderr: string })
    t.match(error, { code: 7, signal: null }, `${moment}: ${error?.stderr.slice(0, 500)}`)
  }
})

t.test('the command line', async t => {
  const { env } = await simtAddon({ sanitize: true })
  const bin = path.join(__dirname, '..', '..', 'bin', 'parvis.js')
  await built()
  const out = path.join(t.testdir(), 'picture.png')
  const machine = { env: { ...env, PARVIS_SIMT: 'devices=2' }, timeout: 280_000 }
  const { path: transformer } = model.transformer
  const { stderr } = await promisify(execFile)(process.execPath,
    [bin, 'generate', '--class', '3', '--transformer', transformer, '--heads', '2', '--grid', '8x8',
      '--tokenizer', model.tokenizer, '--device', 'cuda:1', '--seed', '1', '--out', out, '--verbose'], machine)
  t.equal(fs.readFileSync(out).subarray(1, 4).toString(), 'PNG')
  t.match(stderr, /cuda:1/)
  const { stdout } = await promisify(execFile)(process.execPath, [bin, 'doctor'], machine)
  t.match(stdout, /SIMT layer/)
  t.match(stdout, /cuda:0/)
})
