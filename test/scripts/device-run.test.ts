// scripts/device.js without a GPU: the plan of its minutes, the table of predictions from invented results, what
// travels to the machine, and how it speaks to PyTorch. Nothing is built here.

import t from 'tap'
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

interface Part { name: string, seconds: number, least: number, beside?: string, groups?: string, models?: string }
interface Plan {
  reserve: number
  calls: Record<string, { minutes: number, peer: { model: string, n: number }, parts: Part[] }>
  timed: (parts: Part[]) => Part[]
  limitOf: (part: Part, later: Part[], left: number) => number
  text: () => string
}
interface Line {
  id: string, what: string, figure: [string, ...unknown[]], predicted?: Record<string, unknown>
  bound?: { least?: number, most?: number }, why: string
}
interface Row { id: string, predicted: string, came: string, verdict: string }
interface Predictions {
  page: string
  lines: () => Line[]
  runs: (folder?: string) => object[]
  table: (reports: object[]) => Row[]
  text: (rows: Row[]) => string
  markdown: (reports: object[]) => string
  figures: Record<string, unknown>
}
interface Carry {
  most: number
  judged: (carried: number, tree: number) => { fits: boolean, text: string }
  lean: (folder: string, places: string[]) => number
  restore: (folder: string, places: string[]) => number
  bytesOf: (files: string[]) => number
  travelling: (folder: string) => string[]
}
interface Answer { ms?: number, problem?: string }
interface Program {
  notes: string[], compileMs?: number, doing: string
  ask: (command: string) => Promise<Answer>, pause: () => void, resume: () => void, end: () => void
}

const root = path.join(__dirname, '..', '..')
const script = path.join(root, 'scripts', 'device.js')
const load = (name: string): unknown => require(path.join(root, 'scripts', 'device', name))
const plan = load('plan.js') as Plan
const predictions = load('predictions.js') as Predictions
const carry = load('carry.js') as Carry
const { Peer } = load('peer.js') as { Peer: new (command: string, args: string[]) => Program }
const { sanitized, countersOf } = load('parts.js') as {
  sanitized: (kind: string, text: string, passed: number) => { verdict: string, why?: string, warnings?: number }
  countersOf: (csv: string) => object[]
}

t.test('a call ends inside its minutes, however long a build takes', async t => {
  for (const [number, { minutes, parts }] of Object.entries(plan.calls)) {
    const timed = plan.timed(parts)
    const sum = (key: 'seconds' | 'least'): number => timed.reduce((total, part) => total + part[key], 0)
    const end = minutes * 60 - plan.reserve
    t.ok(sum('seconds') <= end, `call ${number}: ${sum('seconds')} of ${end} s are planned`)
    for (const [i, { name, beside, seconds, least }] of parts.entries()) {
      if (beside !== undefined) t.equal(parts[i - 1]!.name, beside, `${name} runs beside the part before it`)
      else t.ok(least > 0 && least <= seconds, `${name}: ${least} of ${seconds} s`)
    }
    t.equal(new Set(parts.map(({ name }) => name)).size, parts.length, 'names')
    t.ok(parts.every(({ name }) => plan.text().includes(` ${name} `)), 'the plan in words names every part')
    // Every part takes all that it may.
    for (const lost of [0, 40, end - sum('least')]) {
      let now = lost
      for (const [i, part] of timed.entries()) {
        const limit = plan.limitOf(part, timed.slice(i + 1), end - now)
        t.ok(limit >= part.least, `call ${number}, ${lost} s lost before: ${part.name} has ${limit} s`)
        now += limit
      }
      t.ok(now <= end + 1e-6, `and all of it ends at ${now} of ${end} s`)
    }
    // Where there is no time for all, the last ones are left out; a part that does not get its least is not begun.
    const [first, ...later] = timed
    t.ok(plan.limitOf(first!, later, sum('least') - 1) >= first!.least)
    t.equal(plan.limitOf(first!, later, first!.least - 1), 0)
    t.equal(plan.limitOf(timed.at(-1)!, [], timed.at(-1)!.least - 1), 0)
    // One that ended early leaves its time to the next.
    t.equal(plan.limitOf(first!, later, sum('seconds') + 5), first!.seconds + 5)
    t.equal(plan.limitOf(first!, later, sum('seconds') + 500), 2 * first!.seconds, 'and a hang does not take it all')
  }
})

/** A run on an H200 that reads 4000 GB/s. A step of XXL has 2.8 GB, so 0.7 ms at that; 147 of them take 102.9 ms. */
function run ({ gpu = true, stepMs = 1, pictureMs = 120, peerMs = 240, failures = [] as string[] } = {}): object {
  const spread = (median: number): object => ({ median, least: median, greatest: median })
  const settings = ['overlap=0', 'overlap=2', 'overlap=2 largeTiles=0']
    .map((setting, i) => ({ setting, graphMs: spread(i === 0 ? stepMs * 1.5 : stepMs + i * 0.1 - 0.1) }))
  return {
    date: '2026-12-24',
    device: { name: gpu ? 'NVIDIA H200' : 'no GPU', gpu },
    parts: {
      cases: { passed: 300, failures },
      sanitizer: {
        memcheck: { clean: ['project'], bad: [], warnings: [], unfinished: ['vq'] },
        racecheck: { clean: ['project', 'tile'], bad: [], warnings: ['tile: 2'], unfinished: [] }
      }
    },
    measure: {
      problems: { 'trace:XXL:4': 'ran out of time' },
      parts: [
        { name: 'read', gigabytesPerSecond: 4000 },
        { name: 'probe', programmaticEdges: 240, kernels: 244, managedMemory: false },
        { name: 'sweep:XXL:4', weightBytes: 2.6e9, cacheBytes: 0.2e9, settings },
        { name: 'same:XXL:4', pictures: 80, differing: 0 },
        { name: 'same:L:4', problem: 'out of memory' },
        { name: 'generate:XXL:4', ms: spread(pictureMs + 3), transformerMs: spread(pictureMs), decodeMs: spread(3) },
        { name: 'step:XXL:4', gap: 0.03, kernels: [{ kernel: 'attend', launches: 48, ms: 0.24 }] },
        { name: 'constants', coldStreams: [{ megabytes: 5, us: 2.25 }] }
      ]
    },
    generate: { results: [{ model: 'XXL', n: 4, ms: spread(129), repeatable: true, withoutOverlap: false }] },
    peers: [{ model: 'XXL', n: 4, ours: pictureMs, theirs: peerMs }]
  }
}

t.test('verdicts come from shares of the same run', async t => {
  const row = (id: string, results: object): Row => predictions.table([results]).find(one => one.id === id)!
  t.match(row('step share XXL 4', run()), { came: '0.7, 5% below', verdict: 'pass', predicted: '0.74' })
  t.match(row('step share XXL 4', run({ stepMs: 1.1 })), { came: '0.636, 14% below', verdict: 'FAIL' })
  t.match(row('floor XXL:4', run()), { came: '1.17 x, 14% below', verdict: 'pass' })
  t.match(row('floor XXL:4', run({ pictureMs: 135 })), { came: '1.31 x, 4% below', verdict: 'FAIL' })
  t.match(row('peer XXL 4', run()), { came: '2 x, 5% below', verdict: 'pass' })
  t.match(row('peer XXL 4', run({ peerMs: 170 })), { verdict: 'FAIL' })
  t.match(row('overlap XXL 4', run()), { came: '1.5 x, 4% below', verdict: 'pass' })
  t.match(row('largeTiles', run()), { came: '14.3 ms, 19% above', verdict: 'told' }, '0.1 ms in 143 steps')
  t.match(row('picture XXL:4', run({ pictureMs: 200 })), { came: '200 ms, 29% above', verdict: 'told' })
  t.match(row('edges share', run()), { came: '0.988, 1% below', verdict: 'pass' })
  t.match(row('managed', run()), { came: 'no', verdict: 'told' })
  t.match(row('attend', run()), { came: '5 us', verdict: 'told' })
  t.match(row('cold', run()), { came: '1 us', verdict: 'told' })
  t.match(row('gap XXL 4', run()), { verdict: 'FAIL' })
  t.match(row('native', run()), { came: '1.05 x, 4% above', verdict: 'pass' })
  t.match(row('cases', run()), { came: '300 ok, 0 not', verdict: 'pass' })
  t.match(row('cases', run({ failures: ['attend: 3'] })), { came: '300 ok, 1 not', verdict: 'FAIL' })
  t.match(row('repeatable', run()), { verdict: 'FAIL' }, 'another picture without overlap')
  t.match(row('same XXL:4', run()), { came: '0', verdict: 'pass' })
  t.match(row('same L:4', run()), { came: 'out of memory', verdict: 'not run' })
  t.match(row('racecheck', run()), { came: '2 clean, 0 not; warnings: tile: 2', verdict: 'pass' })
  t.match(row('memcheck', run()), { came: '1 clean, 0 not; not finished: vq', verdict: 'not run' })
  t.match(row('clusters', run()), { came: 'not among the results', verdict: 'not run' })

  const without = predictions.table([run({ gpu: false })])
  t.ok(without.every(({ verdict, came }) => verdict === 'no device' && came === 'no device'), 'nothing counts')
  t.equal(without.length, predictions.lines().length)
  const both = predictions.table([run({ gpu: false, pictureMs: 200 }), run()])
  t.match(both.find(({ id }) => id === 'floor XXL:4'), { verdict: 'pass' }, 'a run without a GPU is passed over')
  t.match(predictions.markdown([run()]), '| 1.28 x | 1.36 x | <= 1.3 x | 1.17 x, 14% below: pass |')
  t.match(predictions.text(predictions.table([run({ stepMs: 1.1 })])), /at the measured read, of its time.*FAIL$/m)
})

t.test('every line of bench/predictions.json can be found, and the page is made of them', async t => {
  const lines = predictions.lines()
  t.equal(new Set(lines.map(({ id }) => id)).size, lines.length, 'ids')
  for (const { id, figure, bound, why } of lines) {
    t.type(predictions.figures[figure[0]], 'function', `${id}: ${figure[0]}`)
    t.ok(why.length > 0, `${id}: why`)
    if (bound) t.match(Object.keys(bound), /^(least|most)$/, `${id}: one bound`)
  }
  t.equal(fs.readFileSync(predictions.page, 'utf8'), predictions.markdown(predictions.runs()),
    'bench/predictions.md is old: node scripts/device.js --predictions')
  const folder = t.testdir({
    'gpu.json': JSON.stringify(run()), 'dry.json': JSON.stringify(run({ gpu: false })), 'bench.json': '{"device":{}}'
  })
  t.match(predictions.runs(folder), [{ device: { name: 'NVIDIA H200' } }])
  t.equal(predictions.runs(folder).length, 1, 'runs with a GPU alone')
})

t.test('the first call can answer for every promise', async t => {
  const { parts, peer } = plan.calls[1]!
  const there = new Set(['peer:' + [peer.model, peer.n].join(':'), ...parts.flatMap(({ name, groups, models }) =>
    [name, ...(groups ?? '').split(','), ...(models ?? '').split(',').map(model => `package:${model}`)])])
  const sources: Record<string, (word: unknown) => string[]> = {
    checks: part => [`${part}`],
    sanitizer: () => ['sanitizer'],
    same: group => [`same:${group}`],
    repeatable: model => [`package:${model}`],
    overlappedEdges: () => ['probe'],
    slower: group => [`sweep:${group}`],
    stepShare: group => [`sweep:${group}`, 'read'],
    field: name => [`${name}`],
    ofFloor: group => [`sweep:${group}`, 'read', `generate:${group}`],
    ofNative: model => [`package:${model}`, `generate:${model}`],
    peer: group => [`peer:${group}`]
  }
  for (const { id, figure: [name, word] } of predictions.lines().filter(({ bound }) => bound)) {
    const needed = sources[name]?.(word) ?? ['a figure that this test knows']
    t.same(needed.filter(source => !there.has(source)), [], id)
  }
})

t.test('without a GPU', async t => {
  // No PATH has nvidia-smi, whatever machine this is.
  const env = { PATH: '/nonexistent', HOME: t.testdir() }
  const call = spawnSync(process.execPath, [script], { env, encoding: 'utf8' })
  t.equal(call.status, 1)
  t.match(call.stderr, /nvidia-smi finds no GPU here/)
  t.equal(call.stdout.match(/no device$/gm)?.length, predictions.lines().length, 'a line for each')
  const tests = spawnSync(process.execPath, [script, '--tests'], { env, encoding: 'utf8' })
  t.equal(tests.status, 1)
  t.match(tests.stdout, /FAILED {2}[^]*\n0 passed, 1 failed\n$/)
  for (const args of [['--call', '3'], ['--only', 'probe,nothing'], ['--minutes', 'many']]) {
    const refused = spawnSync(process.execPath, [script, ...args], { env, encoding: 'utf8' })
    t.equal(refused.status, 1, args.join(' '))
    t.match(refused.stderr, /^device: .*(no call 3|no part "nothing"|many is no time)/)
  }
})

t.test('what travels', async t => {
  t.match(carry.judged(30 * 2 ** 20, 33 * 2 ** 20), { fits: true, text: /together: 63\.0 MiB of 63\.0 MiB/ })
  t.match(carry.judged(30 * 2 ** 20, 33 * 2 ** 20 + 1), { fits: false })

  const folder = t.testdir({
    'a.txt': 'kept', '.gitignore': 'ignored\n', ignored: 'x'.repeat(50), 'new.txt': 'new',
    models: { big: 'b'.repeat(1000), small: 's' }, shared: { given: 'g'.repeat(30) }
  })
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: folder, encoding: 'utf8' })
  git('init', '-q')
  git('add', 'a.txt', '.gitignore', 'models')
  git('-c', 'user.name=t', '-c', 'user.email=t@example.org', 'commit', '-q', '-m', 'one')
  const size = (): number => carry.bytesOf(carry.travelling(folder))
  const whole = size()
  t.equal(whole, 4 + 8 + 3 + 1000 + 1 + 30, 'what git has, what it would take, and shared/')
  fs.writeFileSync(path.join(folder, 'models', 'small'), 'other')
  t.throws(() => carry.lean(folder, ['models']), /have changes[^]*models\/small/)
  t.equal(fs.readFileSync(path.join(folder, 'models', 'big'), 'utf8').length, 1000, 'nothing was emptied')
  fs.writeFileSync(path.join(folder, 'models', 'small'), 's')
  const before = git('status', '--porcelain')
  t.equal(carry.lean(folder, ['models']), 2)
  t.equal(size(), whole - 1001)
  t.equal(git('status', '--porcelain'), before, 'git sees no change')
  t.equal(carry.lean(folder, ['models']), 0, 'once is enough')
  git('add', '-A')
  t.notMatch(git('diff', '--cached', '--name-only'), 'models', 'no commit can hold them empty')
  t.equal(carry.restore(folder, ['models']), 2)
  t.equal(fs.readFileSync(path.join(folder, 'models', 'big'), 'utf8'), 'b'.repeat(1000))
  t.equal(size(), whole)
  carry.lean(folder, ['models'])
  fs.writeFileSync(path.join(folder, 'models', 'small'), 'work')
  t.throws(() => carry.restore(folder, ['models']), /not what git has[^]*models\/small/)
  t.equal(fs.readFileSync(path.join(folder, 'models', 'small'), 'utf8'), 'work', 'what somebody wrote stays')
})

t.test('a peer', async t => {
  const folder = t.testdir({
    'peer.js': `require('node:readline').createInterface({ input: process.stdin }).on('line', line => {
      if (line === 'picture bfloat16') console.log('doing compiling\\nnote quick\\ncompiled 12.5\\n250.5')
      else if (line === 'die') { console.error('no more'); process.exit(3) }
      else console.log('cannot There is no such command.')
    })`
  })
  const peer = new Peer(process.execPath, [path.join(folder, 'peer.js')])
  t.teardown(() => peer.end())
  t.same(await peer.ask('picture bfloat16'), { ms: 250.5 })
  t.match(peer, { notes: ['quick'], compileMs: 12.5, doing: 'compiling' })
  t.same(await peer.ask('dance'), { problem: 'There is no such command.' })
  peer.pause()
  const asked = peer.ask('picture bfloat16')
  t.equal(await Promise.race([asked, new Promise(resolve => setTimeout(resolve, 300, 'silent'))]), 'silent')
  peer.resume()
  t.same(await asked, { ms: 250.5 })
  t.match(await peer.ask('die'), { problem: /ended with exit 3: no more/ })
  t.match(await peer.ask('picture bfloat16'), { problem: /exit 3/ })
  const missing = new Peer(path.join(folder, 'nothing'), [])
  t.match(await missing.ask('picture bfloat16'), { problem: /could not be started/ })
})

t.test('what tools print', async t => {
  const race = (errors: number, warnings: number): string => '========= COMPUTE-SANITIZER\n' +
    `========= RACECHECK SUMMARY: ${errors + warnings} hazards displayed (${errors} errors, ${warnings} warnings)\n`
  t.match(sanitized('racecheck', race(0, 3), 9), { verdict: 'clean', warnings: 3 })
  t.match(sanitized('racecheck', race(1, 0), 9), { verdict: 'bad', why: /1 errors/ })
  t.match(sanitized('racecheck', race(0, 0), 0), { verdict: 'refused' }, 'it looked at nothing')
  t.match(sanitized('memcheck', '========= ERROR SUMMARY: 0 errors\n', 9), { verdict: 'clean' })
  t.match(sanitized('memcheck', '========= ERROR SUMMARY: 2 errors\n', 9), { verdict: 'bad' })
  t.match(sanitized('memcheck', '========= Error: Device not supported\n', 0),
    { verdict: 'refused', why: 'Error: Device not supported' })
  t.same(countersOf([
    '==PROF== Connected', '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"',
    '"0","project<(int)2>(Projection)","a","Duration","us","8,4"',
    '"0","project<(int)2>(Projection)","a","Other","%","1"',
    '"0","project<(int)2>(Projection)","b","Achieved Occupancy","%","24.9"', '"1","attend","a","Duration","us","5.2"'
  ].join('\n')), [
    { kernel: 'project', Duration: '8,4 us', 'Achieved Occupancy': '24.9 %' }, { kernel: 'attend', Duration: '5.2 us' }
  ])
})
