// parvis pull as a process: stopped by signals, killed, run by several at once; and what the pulled files are for.

import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { built } from '../support/built.js'
import { FakeHub, noise, random, sha256 } from '../support/hub.js'
import { standIn } from '../support/snippets.js'
import { bin, parvis, temporaryFolder, type Options, type Outcome } from './run.js'

t.setTimeout(180_000)
const seed = Number(process.env.PARVIS_SEED ?? Math.floor(Math.random() * 2 ** 31))
t.comment(`PARVIS_SEED=${seed}`)

const weights = noise(8_000_003, 1)
const tokenizer = noise(300_007, 2)
let hub: FakeHub

t.before(async () => {
  await built()
  hub = await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': weights } },
    'FoundationVision/LlamaGen': { licence: 'mit', files: { 'vq_ds16_c2i.pt': tokenizer } }
  })
})
t.beforeEach(() => { hub.reset() })
t.teardown(async () => { await hub.stop() })

const clean = Object.fromEntries(
  Object.keys(process.env).filter(name => /^(HF_|HUGGING)/.test(name)).map(name => [name, ''])
)
const environment = (home: string): NodeJS.ProcessEnv => ({ ...clean, HF_ENDPOINT: hub.url, HF_HOME: home })
async function run (args: string[], home: string, options: Options = {}): Promise<Outcome> {
  return await parvis(args, { ...options, env: { ...environment(home), ...options.env } })
}
const blobsIn = (home: string): string => path.join(home, 'hub', 'models--Epiphqny--PAR', 'blobs')

t.test('what it says', async t => {
  const home = temporaryFolder()
  const { code, stdout, stderr } = await run(['pull', 'PAR-XL-4x'], home)
  t.same({ code, stderr }, { code: 0, stderr: '' })
  t.match(stdout, /PAR-XL-4x\.pt +Epiphqny\/PAR +8\.00 MB +licence: none named +fetched +\//)
  t.match(stdout, /vq_ds16_c2i\.pt +FoundationVision\/LlamaGen +300 kB +licence: mit/)
  const again = await run(['pull', 'par-xl-4x', '--json'], home)
  t.match(JSON.parse(again.stdout),
    { preset: 'par-xl-4x', transformer: { hash: sha256(weights), downloaded: false }, tokenizer: { licence: 'mit' } })

  t.match(await run(['pull'], home),
    { code: 2, stderr: /which preset\? par-xl-4x \(in the cache\), .*llamagen-3b-384 \(.*\[USAGE\]/ })
  t.match(await run(['pull', 'par-9b'], home),
    { code: 2, stderr: /no preset 'par-9b'; the presets: par-xl-4x.* \[USAGE\]/ })
  hub.token = 'hf_x'
  const refused = await run(['pull', 'par-xl-4x', '--json'], temporaryFolder())
  t.equal(refused.code, 1)
  t.match(JSON.parse(refused.stderr), { error: { code: 'DOWNLOAD_FAILED', message: /HF_TOKEN/ } })
})

t.test('interrupted ten times at random and run again', async t => {
  const next = random(seed)
  const home = temporaryFolder()
  hub.pause = 3
  hub.pieceSize = 1 << 15
  for (let k = 0; k < 10; k++) {
    const [before, after] = [hub.sent, next() * 0.07 * weights.length]
    const { code, stdout, stderr } = await run(['pull', 'par-xl-4x'], home, {
      started: child => {
        const timer = setInterval(() => {
          if (hub.sent - before < after + 1) return
          clearInterval(timer)
          child.kill('SIGINT')
        }, 1)
        child.on('close', () => clearInterval(timer))
      }
    })
    t.same({ code, stdout }, { code: 130, stdout: '' }, `interruption ${k + 1}, PARVIS_SEED=${seed}`)
    t.match(stderr, /stopped by SIGINT; what has arrived is kept.* \[INTERRUPTED\]/)
    t.notOk(fs.existsSync(path.join(blobsIn(home), sha256(weights))), 'no blob')
  }
  hub.pause = 0
  const { code, stdout } = await run(['pull', 'par-xl-4x', '--json'], home)
  t.equal(code, 0)
  const pulled = JSON.parse(stdout) as { transformer: { path: string }, tokenizer: { path: string } }
  t.ok(fs.readFileSync(pulled.transformer.path).equals(weights), `the right bytes, PARVIS_SEED=${seed}`)
  t.ok(fs.readFileSync(pulled.tokenizer.path).equals(tokenizer))
  t.same(fs.readdirSync(blobsIn(home)), [sha256(weights)], 'nothing else is left')
  t.ok(hub.sent < 4 * weights.length, `${hub.sent} bytes sent`)
})

t.test('killed, and taken over', async t => {
  const home = temporaryFolder()
  hub.pause = 5
  const child = spawn(process.execPath, [bin, 'pull', 'par-xl-4x'],
    { env: { ...process.env, ...environment(home) }, stdio: 'ignore' })
  while (hub.sent < weights.length / 3) await new Promise(resolve => setTimeout(resolve, 5))
  child.kill('SIGKILL')
  await once(child, 'close')
  t.match(fs.readdirSync(blobsIn(home)), [/\.parvis-.*\.incomplete$/], 'its part is left, under its name')
  hub.requests.length = hub.pause = 0
  const { code } = await run(['pull', 'par-xl-4x'], home)
  t.equal(code, 0)
  t.match(hub.requests.find(({ host }) => host === 'storage'), { range: /^bytes=\d{6,}-$/ }, 'gone on with')
  t.same(fs.readdirSync(blobsIn(home)), [sha256(weights)])
  t.ok(fs.readFileSync(path.join(blobsIn(home), sha256(weights))).equals(weights))
})

t.test('several processes at once', async t => {
  const home = temporaryFolder()
  hub.pause = 3
  const all = await Promise.all([1, 2, 3].map(async () => await run(['pull', 'par-xl-4x'], home)))
  t.same(all.map(({ code, stderr }) => ({ code, stderr })), all.map(() => ({ code: 0, stderr: '' })))
  t.ok(fs.readFileSync(path.join(blobsIn(home), sha256(weights))).equals(weights))
  t.same(fs.readdirSync(blobsIn(home)), [sha256(weights)])
  t.ok(hub.sent < 2 * (weights.length + tokenizer.length), `${hub.sent} bytes sent: the others waited`)
})

t.test('generate and labels by a preset\'s name', async t => {
  const files = temporaryFolder()
  standIn('PAR-XL-4x.pt', files, 1280)
  standIn('vq_ds16_c2i.pt', files)
  const real = await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': fs.readFileSync(path.join(files, 'PAR-XL-4x.pt')) } },
    'FoundationVision/LlamaGen': { files: { 'vq_ds16_c2i.pt': fs.readFileSync(path.join(files, 'vq_ds16_c2i.pt')) } }
  })
  t.teardown(async () => { await real.stop() })
  const home = temporaryFolder()
  const env = { HF_ENDPOINT: real.url }
  const out = path.join(files, 'otter.png')
  const generate = ['generate', '--model', 'par-xl-4x', '--class', 'otter', '--seed', '1', '--out', out, '--json']

  const absent = await run(generate, home, { env })
  t.match(absent, {
    code: 1, stderr: /PAR-XL-4x\.pt of par-xl-4x is not in the cache \(.*Run: npx parvis pull par-xl-4x; or give --pull/
  })
  t.match(absent.stderr, '"code":"FILE_NOT_FOUND"')
  const made = await run([...generate, '--pull'], home, { env })
  t.equal(made.code, 0, made.stderr)
  t.match(JSON.parse(made.stdout), { classId: 360, label: 'otter', n: 4, steps: 147, width: 256, height: 256 })
  t.equal((await run([...generate.slice(0, -1), '--size', '64'], home,
    { env: { HF_ENDPOINT: 'http://127.0.0.1:9' } })).code, 0, 'the cache is enough')

  t.match(await run(['generate', '--model', 'par-xl-4x', '--class', 'crane'], home, { env }),
    { code: 1, stderr: /several classes: 134, 517/ })
  for (const [args, message] of [
    [['--model', 'par-9b'], /no model 'par-9b'/], [['--model', 'par-xl-4x', '--transformer', 'a.pt'], /--transformer/],
    [['--pull'], /--model/]
  ] as Array<[string[], RegExp]>) {
    t.match(await run(['generate', '--class', '7', ...args], home), { code: 2, stderr: message })
  }

  t.match(await run(['labels', '--model', 'par-xl-4x'], home),
    { code: 0, stdout: /^ {2}0 {2}tench, Tinca tinca\n[^]*\n999 {2}toilet tissue, toilet paper, bathroom tissue\n$/ })
  t.equal((await run(['labels', '--search', 'fox,'], home)).stdout, 'ImageNet (every preset):\n' +
    '277  red fox, Vulpes vulpes\n278  kit fox, Vulpes macrotis\n279  Arctic fox, white fox, Alopex lagopus\n280  ' +
      'grey fox, gray fox, Urocyon cinereoargenteus\n')
  t.match(JSON.parse((await run(['labels', '--search', 'BOOT', '--json'], home)).stdout),
    [{ classId: 9, label: 'Ankle boot', model: 'fashion' }, { model: 'imagenet' }])
  t.match(await run(['labels', '--search', 'red fox', '--model', 'llamagen-b-256', '--json'], home),
    { code: 0, stdout: /"classId": 277,\s+"label": "red fox/ })
  t.match(await run(['labels', '--search', 'xyzzy'], home), { code: 1, stderr: /No class name holds 'xyzzy'/ })
  t.match(await run(['labels', '--model', 'par-xl-4x', '--transformer', 'a.pt'], home),
    { code: 2, stderr: /choose one/ })
})
