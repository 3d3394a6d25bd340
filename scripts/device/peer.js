'use strict'
// A program of bench/torch that answers a command a line with milliseconds (peer.py there says how), for a run whose
// time is short: it compiles while other parts run, stands still while something is measured that it would disturb, and
// is asked for pictures in turn with ours. `parvis bench` has its own (lib/bench/peers.ts), which waits for each peer.

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const readline = require('node:readline')

const milliseconds = /^\d+(\.\d+)?(e[+-]?\d+)?$/

class Peer {
  notes = []
  compileMs = undefined
  /** What it was busy with last. */
  doing = 'starting'
  /** A sentence, once it cannot answer any more. */
  problem = undefined
  #child
  #waiting = []
  #noise = ''

  constructor (command, args, { env, log, cwd } = {}) {
    // A group of its own: a compiler's processes stop, continue and end with it.
    this.#child = spawn(command, args,
      { cwd, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
    this.#child.stdin.on('error', () => {})
    this.#child.stderr.setEncoding('utf8').on('data', text => {
      this.#noise = (this.#noise + text).slice(-2000)
      if (log) fs.appendFileSync(log, text)
    })
    readline.createInterface({ input: this.#child.stdout }).on('line', line => this.#take(line))
    this.#child.on('error', error => this.#fail(`it could not be started: ${error.message}`))
    this.#child.on('close', (code, signal) => {
      const last = this.#noise.trim().split('\n').at(-1)
      this.#fail(`it ended with ${signal || `exit ${code}`}${last ? `: ${last.slice(0, 200)}` : ''}`)
    })
    process.once('exit', () => this.#signal('SIGKILL'))
  }

  #take (line) {
    const [, word, text] = /^(\w+) (.*)$/.exec(line) || []
    if (word === 'note') this.notes.push(text)
    else if (word === 'doing') this.doing = text
    else if (word === 'compiled') this.compileMs = Number(text)
    else if (word === 'cannot') this.#waiting.shift()?.({ problem: text })
    else if (milliseconds.test(line)) this.#waiting.shift()?.({ ms: Number(line) })
    else this.#fail(`it answered "${line.slice(0, 80)}" instead of milliseconds`)
  }

  #fail (problem) {
    this.problem = this.problem || problem
    for (const answer of this.#waiting.splice(0)) answer({ problem: this.problem })
  }

  #signal (name) {
    try {
      if (this.#child.pid) process.kill(-this.#child.pid, name)
    } catch {} // it has ended
  }

  /** Resolves to { ms } or { problem } when it has answered, however long that takes. */
  ask (command) {
    if (this.problem !== undefined) return Promise.resolve({ problem: this.problem })
    return new Promise(resolve => {
      this.#waiting.push(resolve)
      this.#child.stdin.write(command + '\n')
    })
  }

  pause () { this.#signal('SIGSTOP') }
  resume () { this.#signal('SIGCONT') }

  end () {
    this.problem = this.problem || 'it was ended'
    this.#signal('SIGKILL')
  }
}

module.exports = { Peer }
