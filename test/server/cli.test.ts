// The command parvis-server as a process, and the commands that the guides show.

import { spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { program } from '../../server/lib/main.js'
import { built, root } from '../support/built.js'

const script = path.join(root, 'server', 'bin', 'parvis-server.js')

/** A server as a process: its log, line by line, and how it ended. */
class Process {
  readonly lines: string[] = []
  readonly ended: Promise<{ code: number | null, signal: string | null }>
  readonly child: ChildProcess
  errors = ''

  constructor (args: string[], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [script, ...args],
      { env: { ...process.env, NODE_OPTIONS: '', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let rest = ''
    this.child.stdout!.on('data', data => {
      const lines = (rest + String(data)).split('\n')
      rest = lines.pop()!
      this.lines.push(...lines)
    })
    this.child.stderr!.on('data', data => { this.errors += String(data) })
    this.ended = new Promise(resolve => { this.child.on('close', (code, signal) => resolve({ code, signal })) })
  }

  /** What a line of the log has that matches. */
  async says (pattern: RegExp): Promise<RegExpExecArray> {
    for (let tries = 0; tries < 600; tries++) {
      for (const line of this.lines) {
        const found = pattern.exec(line)
        if (found) return found
      }
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    throw new Error(`nothing matches ${String(pattern)} in\n${this.lines.join('\n')}\n${this.errors}`)
  }
}

t.test('a server answers, and ends in order', async t => {
  await built()
  const server = new Process(['--port', '0', '--device', 'cpu'], { PARVIS_API_KEYS: 'key-in-the-environment' })
  t.teardown(() => server.child.kill('SIGKILL'))
  const [, url] = await server.says(/(http:\/\/127\.0\.0\.1:\d+)/)
  const headers = { 'content-type': 'application/json', authorization: 'Bearer key-in-the-environment' }
  const draw = async (n: number): Promise<Response> => await fetch(`${url}/v1/images/generations`,
    { method: 'POST', headers, body: JSON.stringify({ prompt: 'bag', n, tokens_per_step: 1 }) })
  t.equal((await draw(1)).status, 200)
  t.equal((await fetch(`${url}/v1/models`)).status, 401)
  const running = draw(10)
  await new Promise(resolve => setTimeout(resolve, 100))
  server.child.kill('SIGTERM')
  await server.says(/draining/)
  const response = await running
  t.equal(response.status, 200, 'what runs is finished')
  t.equal((await response.json() as { data: unknown[] }).data.length, 10)
  t.same(await server.ended, { code: 0, signal: null })
  t.equal(server.errors, '')
  t.notOk(server.lines.some(line => line.includes('key-in-the-environment')), 'no key is logged')
  for (const line of server.lines) JSON.parse(line)
})

t.test('what it refuses', async t => {
  await built()
  const file = path.join(t.testdir({
    keys: ' \n\n', marked: '\ufeff\r\nshort\r\n', 'models.json': '[]', 'marked.json': '\ufeff[\r\n]\r\n'
  }), 'keys')
  const cases: Array<[args: string[], message: RegExp]> = [
    [['--port', '99999'], /A whole number from 0 to 65535 is expected/],
    [['--nonsense'], /unknown option '--nonsense'/],
    [['--model', 'nothing-of-that-name'], /no preset 'nothing-of-that-name'.*\[INVALID_OPTION\]/],
    [['--model', 'moving'], /'moving' makes no pictures/],
    [['--model', 'par-xl-4x'], /parvis pull par-xl-4x/],
    [['--api-key', 'short'], /at least 8 characters/],
    [['--api-key-file', file], /keys are asked for, but none is given/],
    [['--api-key-file', path.join(path.dirname(file), 'marked')], /at least 8 characters/],
    [['--models', path.join(path.dirname(file), 'marked.json')], /must hold an object of models by name/],
    [['--models', path.join(path.dirname(file), 'models.json')], /must hold an object of models by name/],
    [['worker'], /needs --queue/],
    [['--queue', 'http://localhost'], /redis/i]
  ]
  for (const [args, message] of cases) {
    const run = new Process([...args, '--log-level', 'silent'], { HF_HUB_CACHE: t.testdirName })
    const { code } = await run.ended
    t.equal(code, 1, `${args.join(' ')}: ${run.errors.trim().slice(0, 100)}`)
    t.match(run.errors, message)
    t.notMatch(run.errors, /^\s+at /m, 'no stack')
  }
})

t.test('the commands of the guides', async t => {
  const commands = new Set<string>()
  for (const name of ['serving', 'serving-page', 'scaling-out']) {
    const text = fs.readFileSync(path.join(root, 'docs', `${name}.md`), 'utf8')
    for (const [, command] of text.matchAll(/^(?:ExecStart=\/usr\/bin\/env )?(?:npx )?parvis-server(.*)$/gm)) {
      commands.add(command!.replace(/\s#.*/, '').trim())
    }
    for (const [, list] of text.matchAll(/^ +command: \[(.*)\]$/gm)) {
      commands.add(list!.split(',').map(word => word.trim().replace(/"/g, '')).join(' '))
    }
    for (const [, options] of text.matchAll(/^\| (`--[^|]*) \|/gm)) {
      const help = program({ serve: async () => {}, work: async () => {} })
      const known = [help, ...help.commands].flatMap(({ options }) => options.map(({ long }) => long))
      for (const [option] of options!.matchAll(/--[a-z-]+/g)) t.ok(known.includes(option), `${option} is an option`)
    }
  }
  t.ok(commands.size >= 6, [...commands].join('; '))
  for (const command of commands) {
    let ran = ''
    const parsed = program({ serve: async () => { ran = 'serve' }, work: async () => { ran = 'work' } }).exitOverride()
    await parsed.parseAsync(command.split(/\s+/).filter(Boolean), { from: 'user' })
    t.equal(ran, command.startsWith('worker') ? 'work' : 'serve', `parvis-server ${command}`)
  }
})
