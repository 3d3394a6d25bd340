// Memory in flight: calls wait in turn instead of being promised more than there is, nobody waits for ever, and the
// process lives inside its control group.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import sharp from 'sharp'
import t from 'tap'
import { Budget, Claim, Turns } from '../../lib/machine/budget.js'
import { Call, Calls } from '../../lib/base/call.js'
import { ParError } from '../../lib/base/errors.js'
import { addon, type Addon, type NativeSession } from '../../lib/machine/native.js'
import { Random } from '../fuzz/harness.js'
import { built } from '../support/built.js'
import { codeOf, rejection, smallPar } from '../support/fixtures.js'

const turn = async (ms = 0): Promise<void> => { await new Promise(resolve => setTimeout(resolve, ms)) }

/** A device of so many bytes, whose sessions take 10 a sequence. */
function deviceOf (free: number, most = 1000) {
  const device = { free, freed: [] as number[], asked: [] as number[] }
  const budget = new Budget({ device: `pretended ${Math.random()}`, free: async () => device.free, most, pictures: 0 })
  const session = async (wanted: number, call = new Call()) => {
    const lease = await call.hold(budget.session(call, wanted, sequences => 10 * sequences, async sequences => {
      device.asked.push(sequences)
      if (10 * sequences > device.free) throw Object.assign(new Error('no memory'), { parvisCode: 'OUT_OF_MEMORY' })
      device.free -= 10 * sequences
      return {
        dispose: async () => { device.free += 10 * sequences; device.freed.push(sequences) }
      } as unknown as NativeSession
    }))
    return { call, sequences: lease.sequences }
  }
  return { device, session }
}

t.test('who does not fit waits, in turn', async t => {
  const { device, session } = deviceOf(400)
  const first = await session(20)
  t.equal(first.sequences, 20, 'half of what is free')
  const order: string[] = []
  const second = session(11).then(one => { order.push('second'); return one })
  const third = session(1).then(one => { order.push('third'); return one })
  await turn(60)
  t.same(order, [], 'the third would fit, but it is not its turn')
  first.call.end()
  t.equal((await second).sequences, 11)
  await third
  t.same(order, ['second', 'third'])
  ;(await second).call.end()
  ;(await third).call.end()
  await turn()
  t.equal(device.free, 400)
})

t.test('a list larger than what is free gets smaller groups, the smallest of one', async t => {
  t.equal((await deviceOf(400).session(64)).sequences, 20)
  t.equal((await deviceOf(15).session(64)).sequences, 1, 'more than half, where nobody else is there')
  t.equal((await deviceOf(1e6, 100).session(64)).sequences, 10, 'more than one session needs is not given')
  t.match(await rejection(deviceOf(5).session(64)), { name: 'ParError', code: 'OUT_OF_MEMORY' })
})

t.test('memory that is gone when it is taken: smaller groups are tried', async t => {
  const { device, session } = deviceOf(1000)
  const free = device.free
  // of another process by now
  Object.defineProperty(device, 'free', { get: () => 45, set: () => {}, configurable: true })
  t.equal((await session(64)).sequences, 2, String(free))
  const late = deviceOf(1000)
  let real = 45
  const budget = new Budget({ device: 'late', free: async () => 1000, most: 1000, pictures: 0 })
  const call = new Call()
  const lease = await budget.session(call, 64, sequences => 10 * sequences, async sequences => {
    late.device.asked.push(sequences)
    if (10 * sequences > real) throw Object.assign(new Error('no memory'), { parvisCode: 'OUT_OF_MEMORY' })
    real -= 10 * sequences
    return { dispose: async () => {} } as unknown as NativeSession
  })
  t.same([lease.sequences, late.device.asked], [4, [50, 25, 13, 7, 4]])
})

t.test('nobody waits for a paused call', async t => {
  const { session } = deviceOf(400)
  const paused = await session(20)
  paused.call.pause()
  const second = await session(64)
  t.equal(second.sequences, 10, 'a smaller group beside it')
  second.call.end()
  const { session: tight } = deviceOf(15)
  const holder = await tight(1)
  holder.call.pause()
  t.match(await rejection(tight(1)), { code: 'OUT_OF_MEMORY' }, 'or an error, not a wait without end')
  holder.call.end()
})

t.test('who waits can be stopped, and leaves the line', async t => {
  const { session, device } = deviceOf(400)
  const first = await session(20)
  const call = new Call()
  const waiting = session(15, call)
  const behind = session(15)
  await turn(30)
  call.stop('enough')
  t.equal(await rejection(waiting), 'enough')
  first.call.end()
  ;(await behind).call.end()
  await turn()
  t.equal(device.free, 400)
})

t.test('turns are taken in order; who is stopped passes', async t => {
  const turns = new Turns(2)
  const seen: number[] = []
  const ends: Array<() => void> = []
  const work = (i: number) =>
    async (): Promise<number> => { seen.push(i); await new Promise<void>(resolve => { ends[i] = resolve }); return i }
  const calls = [0, 1, 2, 3].map(() => new Call())
  const results = calls.map(async (call, i) => await turns.run(call, work(i)).catch(error => error))
  await turn()
  t.same(seen, [0, 1])
  calls[2]!.stop('enough')
  calls[0]!.stop('early')
  t.same([await results[2], await results[0]], ['enough', 'early'])
  t.same(seen, [0, 1], 'its work has the turn until it has settled')
  ends[0]!()
  await turn()
  t.same(seen, [0, 1, 3])
  ends[1]!()
  ends[3]!()
  t.same(await Promise.all([results[1], results[3]]), [1, 3])
  t.match(await rejection(turns.run(new Call(), () => { throw new ParError('INTERNAL', 'at once') })),
    { code: 'INTERNAL' })
  t.equal(await turns.run(new Call(), async () => 4), 4)
})

t.test('who is stopped in the moment of its turn passes it on', async t => {
  for (let k = 0; k < 12; k++) {
    const turns = new Turns(1)
    let end!: () => void
    const first = turns.run(new Call(), async () => { await new Promise<void>(resolve => { end = resolve }) })
    const call = new Call()
    const second = turns.run(call, async () => 2).catch(() => 'stopped')
    const third = turns.run(new Call(), async () => 3)
    end()
    for (let i = 0; i < k; i++) await undefined
    call.stop('enough')
    t.equal(await Promise.race([third, turn(2000)]), 3, `${k} microtasks later`)
    await Promise.all([first, second])
  }
})

/** Calls of all kinds beside one another on a device that is sometimes full. Returns what went wrong: nothing. */
async function melee (seed: number): Promise<string[]> {
  const random = new Random(seed)
  const whole = (most: number): number => random.int(most + 1)
  const chance = (share: number): boolean => random.chance(share)
  const size = 10 + whole(600)
  const most = chance(0.5) ? 1000 : 10 + whole(300)
  let [taken, elsewhere] = [0, 0]
  const options = { device: `melee ${seed}`, pictures: whole(1) * 5, most }
  const budget = new Budget({
    ...options,
    free: async () => {
      if (chance(0.3)) await turn(whole(3))
      if (chance(0.3)) void stopSoon()
      if (chance(0.02)) throw new Error('the system does not say')
      return chance(0.02) ? 0 : Math.max(1, size - taken - elsewhere)
    }
  })
  const turns = new Turns(2)
  const all = new Calls()
  const controller = new AbortController()
  const stages = new Map<number, string>()
  const stoppable = new Set<AbortController>()

  /** Stops a call within the next few microtasks, which may be between its being let in and its knowing of it. */
  const stopSoon = async (): Promise<void> => {
    const victim = chance(0.3) && random.pick([...stoppable])
    if (!victim) return
    for (let k = whole(12); k > 0; k--) await undefined
    victim.abort('enough')
  }
  let [names, still] = [0, 0]

  const create = async (sequences: number): Promise<NativeSession> => {
    await turn(whole(4))
    const full = taken + elsewhere + 10 * sequences > size
    if (full || chance(0.03)) throw Object.assign(new Error('no memory'), { parvisCode: 'OUT_OF_MEMORY' })
    if (chance(0.01)) throw Object.assign(new Error('broken'), { parvisCode: 'INTERNAL' })
    taken += 10 * sequences
    return { dispose: async () => { await turn(whole(6)); taken -= 10 * sequences } } as unknown as NativeSession
  }

  const call = async (depth: number): Promise<string> => {
    const name = names++
    const at = (stage: string): void => {
      stages.set(name, stage)
      still = 0
    }
    const own = new AbortController()
    if (chance(0.25)) setTimeout(() => own.abort('enough'), whole(300))
    if (chance(0.3)) stoppable.add(own)
    try {
      await all.run(chance(0.5) ? own.signal : controller.signal, async call => {
        for (let rest = 1 + whole(12); rest > 0;) {
          at('waits for a session')
          const lease = await call.hold(budget.session(call, rest, sequences => 10 * sequences, create))
          rest -= lease.sequences
          for (let step = whole(3); step >= 0; step--) {
            at('steps')
            await call.wait(turn(whole(4)))
            if (chance(0.9)) continue
            at('paused')
            call.pause()
            const others = async (): Promise<unknown> => await Promise.all([run(depth + 1), run(depth + 1)])
            if (depth < 2 && chance(0.4)) await call.wait(others())
            else await call.wait(turn(whole(200)))
            call.resume()
          }
          at('waits for its picture')
          const picture = async (): Promise<void> => {
            await turn(whole(4))
            void stopSoon()
            if (chance(0.05)) throw new ParError('NON_FINITE', 'no picture')
          }
          if (chance(0.5)) await turns.run(call, picture)
          call.release(lease)
          if (chance(0.3)) await turns.run(call, picture)
        }
      })
      return 'done'
    } catch (error) {
      return error instanceof ParError ? error.code : String(error)
    } finally {
      stages.delete(name)
      stoppable.delete(own)
    }
  }
  const ends: string[] = []
  const run = async (depth: number): Promise<void> => { ends.push(await call(depth)) }

  const work = Array.from({ length: 2 + whole(12) }, async () => {
    await turn(whole(40))
    await run(0)
  })
  const other = setInterval(() => { elsewhere = chance(0.5) ? 0 : whole(size) }, 30)
  if (chance(0.3)) setTimeout(() => controller.abort('enough'), whole(400))
  if (chance(0.1)) setTimeout(() => all.dispose(), whole(400))
  // By turns of the loop, not by the clock: the machine may be busy.
  const idle = (async () => {
    while (++still < 100) await turn(30)
    return 'late'
  })()
  const ended = async (): Promise<void> => {
    await Promise.all(work)
    while (stages.size > 0) await turn(5) // those that a stopped call had awaited
  }
  const late = await Promise.race([ended(), idle])
  clearInterval(other)
  elsewhere = 0
  if (late === 'late') return [...stages].map(([name, stage]) => `seed ${seed}: call ${name} ${stage}`)
  // All that was promised is given back, in the end: a call gets what it gets on a device that is new.
  const fresh = async (device: string): Promise<number> => {
    const one = new Budget({ ...options, device, free: async () => size })
    const call = new Call()
    const create = async (): Promise<NativeSession> => ({ dispose: async () => {} }) as unknown as NativeSession
    const lease = await call.hold(one.session(call, 64, sequences => 10 * sequences, create))
    call.end()
    return lease.sequences
  }
  const expected = await fresh(`${options.device}, new`)
  let found = 0
  for (let tries = 0; tries < 100 && (taken > 0 || found !== expected); tries++) {
    await turn(30)
    found = await fresh(options.device)
  }
  const known = ['done', 'enough', 'OUT_OF_MEMORY', 'INTERNAL', 'NON_FINITE', 'DISPOSED']
  const wrong = ends.filter(end => !known.includes(end))
  if (taken !== 0) wrong.push(`${taken} bytes were kept`)
  if (found !== expected) wrong.push(`${found} sequences instead of ${expected}`)
  return wrong.map(what => `seed ${seed}: ${what}`)
}

t.test('whatever calls do beside one another, none waits for ever and nothing stays taken', async t => {
  const wrong = await Promise.all(Array.from({ length: 100 }, async (_, seed) => await melee(seed)))
  t.same(wrong.flat(), [])
})

// ---- whole calls

/**
 * What a child process prints, which is JSON. It tells its stages on stderr; one that hangs is killed, and the error
 * names them.
 */
async function printed (body: string, seconds: number): Promise<any> {
  const entry = path.join(await built(), 'index.js')
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', body, entry], {
      env: { ...process.env, NODE_OPTIONS: '' }, timeout: seconds * 1000, killSignal: 'SIGKILL'
    })
    return JSON.parse(stdout)
  } catch (error) {
    const { signal, code, stderr } = error as { signal?: string, code?: number, stderr?: string }
    throw new Error(
      `The child ended with ${signal ?? code ?? error}. Its stages: ${stderr?.trim().slice(-2000) || 'none'}`
    )
  }
}

const native = addon() as { -readonly [K in keyof Addon]: Addon[K] }
const { freeMemory } = native

t.test('a callback may await another call of the same instance, however little memory there is', async t => {
  const par = await smallPar()
  t.teardown(async () => { native.freeMemory = freeMemory; await par.dispose() })
  native.freeMemory = () => 1000 // less than one session
  const expected = await par.generate({ classId: 2, seed: 5 })
  let inner = 0
  const outer = await par.generate({
    classId: 1,
    seed: 3,
    onProgress: async ({ step, preview }) => {
      if (step !== 3) return
      const image = await par.generate({ classId: 2, seed: 5 })
      if (Buffer.compare(Buffer.from(image.data), Buffer.from(expected.data)) === 0) inner++
      if ((await preview()).width === 32) inner++
    }
  })
  t.same([outer.tokens.length, inner], [64, 2])

  const stream = par.stream({ classId: 1 })
  await stream.next() // its consumer does something else
  t.equal((await par.generate({ classId: 2, seed: 5 })).tokens.length, 64, 'a suspended stream keeps nobody waiting')
  const waiting = codeOf(par.generate({ classId: 2 }))
  await par.dispose()
  t.equal(await waiting, 'DISPOSED')
})

t.test('memory of results is claimed before the first one is made', async t => {
  const par = await smallPar()
  t.teardown(async () => { native.freeMemory = freeMemory; await par.dispose() })
  native.freeMemory = () => 100e6
  const list = Array.from({ length: 40 }, () => new Int32Array(64))
  const message =
    /pixels of 40 pictures of 2048 x 2048 need \d+ MB of memory and \d+ MB are free\. Free memory, or ask for fewer or smaller ones/
  t.match(await rejection(par.decode(list, { size: 2048 })), { name: 'ParError', code: 'OUT_OF_MEMORY', message })
  t.match(await rejection(par.generate({ classId: Array(40).fill(1), size: 2048 })),
    { code: 'OUT_OF_MEMORY', message: /images\(\)/ })
  t.equal(await codeOf(par.decode(list.slice(0, 3), { size: 2048, format: 'float32' })), 'OUT_OF_MEMORY',
    'floats are four times as large')
  for await (const image of par.images({ classId: [1, 2], size: 256 })) t.equal(image.width, 256)
  t.equal((await par.decode(list, { size: 128 })).length, 40)

  const call = new Call()
  const words = { what: 'Pictures', cure: 'ask for less' }
  const first = await Claim.of(call, 60e6, words)
  t.match(await rejection(Claim.of(call, 60e6, words)),
    {
      code: 'OUT_OF_MEMORY', message: 'Pictures need 58 MB of memory and 39 MB are free. Free memory, or ask for less.'
    })
  first.took(30e6)
  const other = new Call() // a call that nobody holds is over when it is collected
  const second = await Claim.of(other, 60e6, words)
  second.dispose()
  call.end()
  const passing = await Claim.of(other, 90e6, { ...words, temporary: true })
  let third: Claim | undefined
  const waiting = Claim.of(other, 60e6, words).then(claim => { third = claim })
  await turn(500)
  t.equal(third, undefined, 'what is given back soon is waited for')
  passing.dispose()
  await waiting
  third!.dispose()
  ;(await Claim.of(other, 100e6, words)).dispose()
  other.end()
})

t.test('a picture is compared with the free memory before it is unpacked', async t => {
  const par = await smallPar()
  t.teardown(async () => { native.freeMemory = freeMemory; await par.dispose() })
  native.freeMemory = () => 100e6
  const file = await sharp({ create: { width: 6000, height: 6000, channels: 3, background: 'red' } })
    .png({ palette: true }).toBuffer()
  const message = /^A picture of 6000 x 6000 pixels and what is made of it need \d+ MB of memory and \d+ MB are free/
  t.match(await rejection(par.encode(file)), { name: 'ParError', code: 'OUT_OF_MEMORY', message })
  t.match(await rejection(par.prepare({ data: new Uint8Array(36e6), width: 6000, height: 6000 })),
    { code: 'OUT_OF_MEMORY', message })
  const thin = await sharp({ create: { width: 2500, height: 1, channels: 3, background: 'red' } }).png().toBuffer()
  t.equal((await par.prepare(thin, { grid: 96 })).width, 384, 'a long thin one takes little')
  native.freeMemory = () => 1e9
  t.equal((await Promise.all([1, 2, 3].map(async () => await par.encode(file)))).length, 3,
    'several wait for one another')
})

t.test('thousands of calls at once hold the memory of a few', async t => {
  const body = `
    const { Par } = require(process.argv[1])
    ;(async () => {
      const par = await Par.load({ device: 'cpu', threads: 1 })
      await par.generate({ classId: 1 })
      console.error('loaded')
      const before = process.memoryUsage().rss
      let [late, most, last] = [0, 0, performance.now()]
      const timer = setInterval(() => {
        const now = performance.now()
        late = Math.max(late, now - last)
        last = now
        most = Math.max(most, process.memoryUsage().rss)
      }, 10)
      const controller = new AbortController()
      const calls = Array.from({ length: 5000 }, (_, i) => par.generate({ classId: i % 10, n: 16, seed: i, signal: controller.signal }).then(() => 'done', error => error))
      last = performance.now()
      await Promise.race(calls)
      console.error('the first call has ended')
      await new Promise(resolve => setTimeout(resolve, 300))
      const grown = most - before
      controller.abort('enough')
      const ends = new Set(await Promise.all(calls))
      console.error('all calls have ended')
      const image = await par.generate({ classId: 1 })
      console.error('another call has ended')
      await par.dispose()
      console.error('disposed')
      clearInterval(timer)
      console.log(JSON.stringify({ grown, late, ends: [...ends], tokens: image.tokens.length }))
    })()`
  const { grown, late, ends, tokens } = await printed(body, 100)
  t.ok(grown < 300e6, `${(grown / 1e6).toFixed(0)} MB more`)
  t.same([new Set(ends), tokens], [new Set(['done', 'enough']), 256])
  t.comment(`a timer was ${late.toFixed(0)} ms late`)
})

t.test('300 calls of 64 pictures in 400 MB', async t => {
  const folder = `/sys/fs/cgroup/memory/parvis-test-${process.pid}`
  const skip = (() => {
    try {
      fs.mkdirSync(folder)
      fs.writeFileSync(path.join(folder, 'memory.limit_in_bytes'), '400000000')
      return undefined
    } catch (error) {
      return `no control group could be made: ${(error as Error).message.split('\n')[0]}`
    }
  })()
  await t.test('in a control group', { skip }, async t => {
    t.teardown(() => { fs.rmdirSync(folder) })
    const body = `
      require('node:fs').writeFileSync('${folder}/cgroup.procs', String(process.pid))
      const { Par } = require(process.argv[1])
      ;(async () => {
        const par = await Par.load({ device: 'cpu', threads: 2 })
        console.error('loaded')
        const controller = new AbortController()
        const calls = Array.from({ length: 300 }, (_, i) => par.generate({ classId: Array(64).fill(i % 10), n: 16, guidanceScale: 2, seed: i, signal: controller.signal }))
        let done = 0
        for (const call of calls) call.then(() => { console.error('a list is done'); if (++done === 4) controller.abort('enough') }, () => {}) // the others would take minutes
        const ends = await Promise.all(calls.map(call => call.then(images => images.length === 64 ? 'done' : 'too few', error => error.code ?? error)))
        console.error('all calls have ended')
        const count = {}
        for (const end of ends) count[end] = (count[end] ?? 0) + 1
        const image = await par.generate({ classId: 1 })
        console.error('another call has ended')
        await par.dispose()
        console.error('disposed')
        console.log(JSON.stringify({ count, tokens: image.tokens.length }))
      })()`
    const { count, tokens } = await printed(body, 150)
    t.ok(count.done >= 4, JSON.stringify(count))
    t.equal(count.done + count.enough, 300, 'the others were stopped by us')
    t.equal(tokens, 256)
  })
})

t.test('pictures that arrive slowly keep nobody waiting', async t => {
  const par = await smallPar()
  t.teardown(async () => await par.dispose())
  const { grid } = par.info.transformer!
  const picture = await par.decode(new Int32Array(grid[0] * grid[1]))
  const bytes = await picture.toBuffer('png')
  // Each stream waits for a call of the same instance; there are more of them than turns.
  const late = async function * (): AsyncGenerator<Uint8Array> {
    await par.encode(bytes)
    yield bytes
  }
  const tokens = await Promise.all(Array.from({ length: 5 }, async () => await par.encode(late())))
  const expected = await par.encode(bytes)
  for (const found of tokens) t.same(found, expected)
})
