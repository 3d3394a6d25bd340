// Signals end every command: in order where that is possible, by the system's own action where a thread waits in the
// system.

import t from 'tap'
import { execFileSync, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { golden } from '../support/golden.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const fifo = at('pipe.png')
execFileSync('mkfifo', [fifo])

/** Says so once the command listens for signals. */
const ready = at('ready.cjs')
fs.writeFileSync(ready, "process.on('newListener', name => { if (name === 'SIGTERM') console.error('listens') })")

/** Sends signals in turn, some time apart, to a command that is at work. */
function send (...signals: NodeJS.Signals[]): { env: NodeJS.ProcessEnv, started: (child: ChildProcess) => void } {
  return {
    env: { NODE_OPTIONS: `--require ${ready}` },
    started: child => {
      child.stderr!.once('data',
        () => signals.forEach((signal, k) => setTimeout(() => child.kill(signal), 1000 + 300 * k)))
    }
  }
}

const codes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const

t.test('a pipe that nobody opens does not outlive a signal', async t => {
  const lines: string[][] = [['generate', '7', '--out'], ['encode'], ['decode'], ['score', '--class', '7'],
    ['reconstruct']]
  await Promise.all(lines.map(async (command, k) => {
    // A pipe for each: the one that writes would find a reader in the others.
    const pipe = at(`pipe-${k}.png`)
    execFileSync('mkfifo', [pipe])
    const line = [...command, pipe]
    const signal = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const)[k % 3]!
    const { code, signal: by, stderr } = await parvis(line, send(signal))
    t.ok(code === codes[signal] || by === signal, `${line[0]}: ended by ${signal} (${code}, ${by})`)
    t.match(stderr, new RegExp(`stopped by ${signal}`))
  }))
})

t.test('a thread that is stuck in the system does not outlive a signal either', async t => {
  // Opens the pipe as file servers that are gone are opened: in a thread, without an end.
  const preload = at('stuck.cjs')
  fs.writeFileSync(preload, `require('node:fs').promises.open(${JSON.stringify(fifo)}, 'r')`)
  for (const signals of [['SIGTERM'], ['SIGINT', 'SIGINT']] as NodeJS.Signals[][]) {
    const { env, started } = send(...signals)
    const { signal } = await parvis(['decode', fifo],
      { env: { NODE_OPTIONS: `${env.NODE_OPTIONS} --require ${preload}` }, started })
    t.equal(signal, signals[0], `${signals.join(' and ')}: by the signal itself`)
  }
})

t.test('SIGHUP, and a second signal, leave no part of a file', async t => {
  const place = temporaryFolder()
  const source = golden('par-4x/model.pt')
  for (const signals of [['SIGHUP'], ['SIGTERM', 'SIGTERM'], ['SIGHUP', 'SIGINT']] as NodeJS.Signals[][]) {
    // Holds the conversion once its part is made, so that the signals meet it there.
    const preload = path.join(place, 'slow.cjs')
    fs.writeFileSync(preload, `
      require('node:fs/promises').rename = async () => {
        console.error('held')
        await new Promise((_, reject) => setTimeout(reject, ${signals.length === 1 ? 1000 : 1e9}, new Error('held')))
      }`)
    const out = path.join(place, 'out.safetensors')
    const { code, signal } = await parvis(['convert', source, out, '--heads', '2', '--grid', '8'], {
      env: { NODE_OPTIONS: `--require ${preload}` },
      started: child => {
        child.stderr!.on('data', (text: Buffer) => {
          if (String(text).includes('held')) {
            signals.forEach((name, k) => setTimeout(() => child.kill(name), 200 + 3 * k))
          }
        })
      }
    })
    t.ok(signal !== null || code !== 0, `${signals.join(' and ')}: ended early (${code}, ${signal})`)
    t.same(fs.readdirSync(place), ['slow.cjs'], 'nothing is left')
  }
})

t.test('standard input that never ends', async t => {
  const { code, stderr } = await parvis(['encode', '-'], { stdin: 'pipe', ...send('SIGINT') })
  t.equal(code, 130)
  t.match(stderr, /stopped by SIGINT/)
})

t.test('standard input is read by each command that reads files', async t => {
  const picture = at('a.png')
  t.equal((await parvis(['generate', '7', '--seed', '1', '--out', picture])).code, 0)
  const tokens = await parvis(['encode', '-', '--json'], { input: fs.readFileSync(picture) })
  const fromFile = await parvis(['encode', picture, '--json'])
  t.same(JSON.parse(tokens.stdout).pictures[0].tokens, JSON.parse(fromFile.stdout).pictures[0].tokens)
  t.equal((await parvis(['decode', '-', '--out', at('b.png')], { input: tokens.bytes })).code, 0)
  t.match(await parvis(['reconstruct', '-'], { input: fs.readFileSync(picture) }),
    { code: 0, stdout: /^standard input: 32 x 32 px/ })
  t.match(await parvis(['score', '-', '--class', '7'], { input: tokens.bytes }),
    { code: 0, stdout: /^standard input as Sneaker \(7\)/ })
  t.match(await parvis(['decode', '-'], { input: Buffer.from('no tokens'), cwd: folder }),
    { code: 1, stderr: /^parvis: standard input: .*\[BAD_TOKENS\]/ })
  t.match(await parvis(['encode', '-'], { input: Buffer.from('no picture') }),
    { code: 1, stderr: /^parvis: .*standard input: .*\[BAD_IMAGE\]/ })
  t.match(await parvis(['encode', '-', '-']), { code: 2, stderr: /give - once/ })
  t.match(await parvis(['decode', '-', '--out', at('c.png')], { input: Buffer.alloc(2 ** 28 + 1, '[') }),
    { code: 1, stderr: /standard input: .*limit/ })
})
