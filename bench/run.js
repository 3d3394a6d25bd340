// npm run bench: a step of the transformer and a VQ-16 decode on random weights, each against plain PyTorch of the
// same shapes: told to use as many threads as we do, and with the number it takes by itself. They alternate in short
// runs, because machines are noisy: the ratio of medians is the result, the milliseconds are only its parts. The
// machine's own ceilings are measured in the same run.
//
// node bench/run.js [--model L] [--n 1,4,16] [--threads 2] [--pairs 30] [--no-torch] [--no-vq] [--out FILE.json]
'use strict'

const { spawn, execFileSync } = require('node:child_process')
const { parseArgs } = require('node:util')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const readline = require('node:readline')
const shapes = require('./shapes.js')
const { addon } = require('../dist/native.js')
const { createSchedule } = require('../dist/schedule.js')

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'L' },
    n: { type: 'string', default: '1,4,16' },
    threads: { type: 'string', default: String(addon().cpu().cores) },
    pairs: { type: 'string', default: '30' },
    'no-torch': { type: 'boolean', default: false },
    'no-vq': { type: 'boolean', default: false },
    out: { type: 'string' }
  }
})
const threads = Number(options.threads)
const pairs = Number(options.pairs)
const python = '/usr/bin/python3'

/** Median, least and greatest. */
function spread (times) {
  const sorted = [...times].sort((a, b) => a - b)
  return { median: sorted[sorted.length >> 1], least: sorted[0], greatest: sorted[sorted.length - 1] }
}

async function timed (work) {
  const start = performance.now()
  await work()
  return performance.now() - start
}

const settle = () => new Promise(resolve => setTimeout(resolve, 300))

/** The threads that PyTorch takes by itself; 0 where there is no PyTorch. */
function torchThreads () {
  if (options['no-torch']) return 0
  try {
    return Number(execFileSync(python, ['-c', 'import torch; print(torch.get_num_threads())'], { stdio: ['ignore', 'pipe', 'ignore'] }))
  } catch {
    return 0
  }
}
const torchDefault = torchThreads()

/** PyTorch peers, processes that answer one command a line with milliseconds: with our threads, and as it comes. */
function torchPeers (model, n) {
  if (torchDefault === 0) return []
  const counts = torchDefault === threads ? [threads] : [threads, torchDefault]
  return counts.map(count => torchPeer(model, n, count))
}

function torchPeer (model, n, count) {
  const child = spawn(python, [path.join(__dirname, 'torch', 'decode.py'), model, String(n), String(count)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    threads: count,
    times: [],
    async ask (command) {
      child.stdin.write(command + '\n')
      const { value, done } = await lines.next()
      if (done) throw new Error('the PyTorch peer ended: ' + command)
      return Number(value)
    },
    end () { child.stdin.end('quit\n') }
  }
}

async function benchStep (engine, name, n, precision) {
  const model = shapes.transformerModel(name, n)
  const weights = shapes.randomWeights(shapes.transformerTensors(model))
  const transformer = await engine.loadTransformer(weights.file, weights.tensors, model, precision)
  weights.remove()
  const { steps } = createSchedule({ grid: [24, 24], n })
  const session = await transformer.createSession({
    classIds: Int32Array.of(207), seeds: BigUint64Array.of(1n), guided: true, slots: 576, tokens: 576, maxRows: n
  })
  const rule = { mode: 'sample', guidanceScale: 1.5, temperature: 1, topK: 0, topP: 1 }
  const peers = torchPeers(name, n)
  const ours = []
  // Steps of n rows from about the middle of the picture: the median cache length. The steps before fill the cache.
  const middle = Math.max(n, Math.floor(steps.length / 2 - pairs / 2) + 1)
  for (let i = 0; i < middle; i++) await session.step(steps[i], rule)
  for (const peer of peers) for (let i = 0; i < 3; i++) await peer.ask(`step ${precision} 288`)
  // Alternating short runs; a pause and one unmeasured step let the other's waiting threads go to sleep.
  for (let at = middle; at + 5 < Math.min(middle + pairs, steps.length); at += 5) {
    await settle()
    await session.step(steps[at - 1], rule)
    for (let i = 0; i < 5; i++) ours.push(await timed(() => session.step(steps[at + i], rule)))
    for (const peer of peers) {
      await settle()
      await peer.ask(`step ${precision} 288`)
      for (let i = 0; i < 5; i++) peer.times.push(await peer.ask(`step ${precision} 288`))
    }
  }
  for (const peer of peers) peer.end()
  session.dispose()
  const item = precision === 'float32' ? 4 : 2
  const bytes = transformer.bytes - (model.vocabularySize + model.classes + 1 + model.transitions) * model.dim * item // embeddings are looked up, not read
  transformer.dispose()
  const flops = bytes / item * 2 * 2 * n
  const time = spread(ours)
  const seconds = time.median / 1000
  const result = {
    operation: 'step', model: name, n, precision, ms: time, bytes, flops, steps: steps.length, msPerImage: time.median * steps.length,
    gigabytesPerSecond: bytes / seconds / 1e9, gigaflops: flops / seconds / 1e9
  }
  return { ...result, torch: compared(peers, time, precision) }
}

/** What each peer took, and how much longer than we. */
const compared = (peers, time, precision) => peers.map(({ threads, times }) => ({ threads, precision, ms: spread(times), ratio: spread(times).median / time.median }))

/** Multiply-adds of the VQ-16 decoder's convolutions, times two. */
function decoderFlops (grid) {
  let total = 0
  for (const [name, shape] of shapes.tokenizerTensors(shapes.vq16)) {
    if (shape.length !== 4 || name.startsWith('encoder') || name === 'quant_conv.weight') continue
    const level = /decoder\.conv_blocks\.(\d)/.exec(name)
    const scale = name.startsWith('decoder.conv_out') ? 16 : level ? 2 ** (Number(level[1]) + (name.includes('upsample') ? 1 : 0)) : 1
    total += 2 * shape.reduce((a, b) => a * b) * (grid * scale) ** 2
  }
  return total
}

async function benchDecode (engine, precision) {
  const weights = shapes.randomWeights(shapes.tokenizerTensors(shapes.vq16))
  const tokenizer = await engine.loadTokenizer(weights.file, weights.tensors, shapes.vq16, precision)
  weights.remove()
  const tokens = Int32Array.from({ length: 576 }, (_, i) => i * 7919 % 16384)
  const decode = () => tokenizer.decode(tokens, { count: 1, gridHeight: 24, gridWidth: 24, outHeight: 384, outWidth: 384, format: 'uint8' })
  const peers = torchPeers('B', 1)
  const ours = []
  await decode()
  for (const peer of peers) await peer.ask('vq 24')
  for (let i = 0; i < 5; i++) {
    await settle()
    ours.push(await timed(decode))
    for (const peer of peers) {
      await settle()
      peer.times.push(await peer.ask('vq 24'))
    }
  }
  for (const peer of peers) peer.end()
  tokenizer.dispose()
  const time = spread(ours)
  const flops = decoderFlops(24)
  const result = {
    operation: 'VQ-16 decode, 384 px', precision, ms: time, flops, gigaflops: flops / time.median / 1e6
  }
  return { ...result, torch: compared(peers, time, 'float32') }
}

/** The result with the shares of the ceilings that it reached. */
function share (result, ceilings) {
  const peak = result.precision === 'float32' ? ceilings.float32Flops : ceilings.bfloat16Flops
  return {
    ...result,
    ceilings,
    ofArithmeticCeiling: result.gigaflops * 1e9 / peak,
    ...(result.gigabytesPerSecond !== undefined && { ofReadCeiling: result.gigabytesPerSecond * 1e9 / ceilings.readBytesPerSecond })
  }
}

const percent = x => x === undefined ? '' : `${Math.round(x * 100)}%`
const fixed = (x, digits = 1) => x === undefined ? '' : x.toFixed(digits)

function print (ceilings, results) {
  const range = (name, digits) => {
    const values = ceilings.map(c => c[name] / 1e9)
    return `${fixed(Math.min(...values), digits)} - ${fixed(Math.max(...values), digits)}`
  }
  console.log(`ceilings in this run: read ${range('readBytesPerSecond', 1)} GB/s, float32 ${range('float32Flops', 0)} GFLOP/s, bfloat16 ${range('bfloat16Flops', 0)} GFLOP/s\n`)
  const counts = [...new Set(results.flatMap(r => r.torch.map(peer => peer.threads)))]
  const heads = ['operation', 'model', 'n', 'precision', 'ms (least - greatest)', 'GB/s', 'of ceiling', 'GFLOP/s', 'of ceiling',
    ...counts.flatMap(count => [`PyTorch, ${count} thread${count === 1 ? '' : 's'}, ms`, 'ratio'])]
  const line = cells => console.log(`| ${cells.join(' | ')} |`)
  line(heads)
  console.log('|' + '---|'.repeat(heads.length))
  for (const r of results) {
    line([r.operation, r.model ?? '', r.n ?? '', r.precision, `${fixed(r.ms.median)} (${fixed(r.ms.least)} - ${fixed(r.ms.greatest)})`,
      fixed(r.gigabytesPerSecond), percent(r.ofReadCeiling), fixed(r.gigaflops, 0), percent(r.ofArithmeticCeiling),
      ...counts.flatMap(count => {
        const peer = r.torch.find(peer => peer.threads === count)
        return peer ? [fixed(peer.ms.median) + (peer.precision === r.precision ? '' : ` (${peer.precision})`), fixed(peer.ratio, 2) + 'x'] : ['', '']
      })])
  }
}

async function main () {
  const engine = addon().createEngine({ device: 'cpu', threads })
  const device = { cpu: os.cpus()[0]?.model, isa: engine.isa, threads: engine.threads, node: process.version, date: new Date().toISOString().slice(0, 10) }
  console.log(`parvis bench: ${device.cpu}, ${device.isa}, ${device.threads} threads, ${device.date}`)
  // Other tenants of the machine come and go, so ceilings are measured before and after every result, and its shares are
  // of the greater of the two.
  const look = () => addon().measureCeilings(threads)
  const ceilings = [await look()]
  const results = []
  const add = async result => {
    ceilings.push(await look())
    const [before, after] = ceilings.slice(-2)
    results.push(share(result, Object.fromEntries(Object.keys(after).map(name => [name, Math.max(before[name], after[name])]))))
  }
  for (const n of options.n.split(',').map(Number)) {
    for (const precision of ['bfloat16', 'float32']) {
      if (precision === 'float32' && n !== 4) continue
      await add(await benchStep(engine, options.model, n, precision))
    }
  }
  if (!options['no-vq']) for (const precision of ['float32', 'bfloat16']) await add(await benchDecode(engine, precision))
  await engine.dispose()
  print(ceilings, results)
  if (options.out) fs.writeFileSync(options.out, JSON.stringify({ device, ceilings, results }, null, 1) + '\n')
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
