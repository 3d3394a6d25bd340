// A short fuzz run of everything that reads files; node scripts/fuzz.js is the long one. And files that are large, or
// look so: they hold the thread only for moments, and what is no checkpoint takes no memory.

import { closeSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { openCheckpoint } from '../../lib/checkpoint/index.js'
import { readTokens } from '../../lib/cli/tokens.js'
import { readNpy, writeNpy } from '../../lib/pictures/npy.js'
import { Slices, sortInSlices } from '../../lib/base/slices.js'
import { random } from '../checkpoint/tiny.js'
import { fuzz, limits, Watch, type Fuzzer } from './harness.js'
import { readers } from './readers.js'

const seed = 20_260
/** Bytes, with what the readers leave to the collector meanwhile. */
const maxMemory = 1e9

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const found = path.resolve('test', 'fuzz', 'found')

for (const fuzzer of readers(t.testdir({}))) {
  t.test(`${fuzzer.name}: inputs of the seed ${seed}`, async t => {
    const outcome = await fuzz(fuzzer, { seed, count: 400, folder: path.join('out', 'fuzz') })
    t.same(outcome.findings, [])
    t.ok(outcome.refused > 100 && outcome.read > 5,
      `${outcome.refused} refused, ${outcome.read} read, ${Math.round(outcome.block)} ` +
        `ms, ${Math.round(outcome.memory / 1e6)} MB`)
  })

  t.test(`${fuzzer.name}: inputs that once found a defect`, async t => {
    const kept = readdirSync(found).filter(name => name.startsWith(`${fuzzer.name}-`))
    for (const name of kept) {
      const again: Fuzzer = { ...fuzzer, make: () => readFileSync(path.join(found, name)) }
      t.same((await fuzz(again, { seed: 0, count: 1, folder: path.join('out', 'fuzz') })).findings, [], name)
    }
    t.pass(`${kept.length} inputs`)
  })
}

t.test('the harness finds what it is to find', async t => {
  const folder = t.testdir({})
  const run = async (read: () => Promise<unknown>): Promise<string> => {
    const { findings } = await fuzz({ name: 'x', codes: ['BAD_TOKENS'], make: () => Buffer.from('x'), read },
      { seed: 1, count: 1, folder })
    return findings.map(({ why }) => why).join()
  }
  t.match(await run(async () => { throw new TypeError('no') }), /threw TypeError: no/)
  t.match(await run(async () => await readNpy(Buffer.from('x'), 'x')), /^$/)
  t.match(await run(async () => { for (const start = process.cpuUsage(); process.cpuUsage(start).user < 400_000;); }),
    /held the JavaScript thread for \d+ ms/)
  const kept: Buffer[] = []
  t.match(await run(async () => { for (let i = 0; i < 80; i++) kept.push(Buffer.alloc(1e7, 1)) }), /took \d+ MB/)
  t.equal(kept.length, 80)
})

/** Reads in the sight of a watch; the thread must not be held for long. */
async function watched<T> (t: Test, work: () => Promise<T>): Promise<{ outcome: T, memory: number }> {
  collect()
  const watch = new Watch()
  watch.start()
  const outcome = await work()
  const { block, busy, memory } = await watch.stop()
  t.ok(Math.min(block, busy) < limits.block, `the thread is held for ${Math.round(Math.min(block, busy))} ms at most`)
  return { outcome, memory }
}

t.test('huge .safetensors headers that are none', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const write = (before: string, part: string, times: number, after: string, data = 0): void => {
    const descriptor = openSync(file, 'w')
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(before.length + part.length * times + after.length))
    writeSync(descriptor,
      Buffer.concat([length, Buffer.from(before), Buffer.alloc(part.length * times, part), Buffer.from(after),
        Buffer.alloc(data)]))
    closeSync(descriptor)
  }
  const cases: Array<[string, string, string, RegExp]> = [
    ['{"x":[', '{},', '{}]}', /"x": its entry/],
    ['{"x":{"unknown":[', '{},', '{}]}}', /"x": its entry/],
    ['{', ' ', '}', /no tensor/],
    ['{"', 'n', '":{}}', /name of a tensor/],
    ['{"__metadata__":{"parvis":"', '\\"', '"}}', /"parvis" has .* MB/],
    ['{"x":{"shape":[', '1,', '1]}}', /more than 16 dimensions/]
  ]
  for (const [before, part, after, message] of cases) {
    write(before, part, Math.floor(15e6 / part.length), after)
    const { outcome, memory } = await watched(t,
      async () => await openCheckpoint(file).catch((error: unknown) => error))
    t.match(outcome, { code: 'BAD_CHECKPOINT', message }, before)
    t.ok(memory < maxMemory, `${Math.round(memory / 1e6)} MB`)
  }
})

t.test('a .safetensors header of many tensors, in and out of order', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const count = 150_000
  const next = random(1)
  const shuffled = Array.from({ length: count }, (_, i) => i).sort(() => next() - 0.5)
  for (const order of [[...shuffled].sort((a, b) => a - b), shuffled]) {
    const text = Buffer.from(
      `{${order.map(i => `"t${i}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`).join()}}`
    )
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(text.length))
    writeFileSync(file, Buffer.concat([length, text, Buffer.alloc(count)]))
    const { outcome } = await watched(t, async () => await openCheckpoint(file))
    t.equal(outcome.others.size, count)
    t.equal(outcome.others.get('t777')!.offset, 8 + text.length + 777)
  }
})

t.test('tokens by the million, and what looks like them', async t => {
  const count = 2_000_000
  const numbers = Int32Array.from({ length: count }, (_, i) => i % 16384)
  const files = [writeNpy({ data: numbers, shape: [count / 4, 2, 2] }),
    Buffer.from(JSON.stringify([[...numbers]]))] as const
  const npy = await watched(t, async () => await readNpy(files[0], 'x'))
  t.same(npy.outcome.data.subarray(-3), numbers.subarray(-3))
  const json = await watched(t, async () => await readTokens(files[1], 'x', [1000, 2000]))
  t.same(json.outcome[0]!.tokens.subarray(-3), numbers.subarray(-3))
  for (const part of ['[],', '{},', '[[0]],', '"",', '0,']) {
    const bytes = Buffer.from(`[${part.repeat(8_000_000 / part.length)}0]`)
    const { outcome, memory } = await watched(t,
      async () => await readTokens(bytes, 'x', undefined).catch((error: unknown) => error))
    t.match(outcome, { code: 'BAD_TOKENS' }, part)
    t.ok(memory < maxMemory, `${Math.round(memory / 1e6)} MB`)
  }
  const stopped = new AbortController()
  setImmediate(() => { stopped.abort(new Error('stop')) })
  await t.rejects(readNpy(files[0], 'x', stopped.signal), { message: 'stop' })
})

t.test('sorting in slices', async t => {
  const next = random(2)
  for (const length of [0, 1, 1000, 32_768, 32_769, 200_000]) {
    const values = Float64Array.from({ length }, () => Math.floor(next() * 1e6))
    t.same(await sortInSlices(values.slice(), new Slices()), values.slice().sort(), String(length))
  }
})
