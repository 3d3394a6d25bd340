// A Redis of our own for a test: Debian's redis-server on a free port, in a folder that is removed afterwards.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'

const program = '/usr/bin/redis-server'

export async function freePort (): Promise<number> {
  const server = net.createServer()
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as net.AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

export class RedisServer {
  #child: ChildProcess | undefined

  private constructor (
    readonly port: number, readonly folder: string, readonly password: string, readonly options: readonly string[],
    readonly tls: boolean
  ) {}

  /** With a password, and every write on the disk before it is acknowledged. */
  static async start ({ tls = false } = {}): Promise<RedisServer> {
    if (!fs.existsSync(program)) {
      throw new Error(`${program} is missing, which these tests need: apt-get install redis-server`)
    }
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-redis-'))
    const port = await freePort()
    const secure = tls ? certificate(folder) : []
    const server = new RedisServer(port, folder, `secret ${Math.random()}`, [
      ...(tls ? ['--port', '0', '--tls-port', String(port), ...secure] : ['--port', String(port)])
    ], tls)
    await server.begin()
    return server
  }

  get ca (): string { return fs.readFileSync(path.join(this.folder, 'ca.pem'), 'utf8') }

  get url (): string {
    return `${this.tls ? 'rediss' : 'redis'}://:${encodeURIComponent(this.password)}@127.0.0.1:${this.port}`
  }

  async begin (): Promise<void> {
    const child = spawn(program, [
      ...this.options, '--bind', '127.0.0.1', '--dir', this.folder, '--requirepass', this.password,
      '--appendonly', 'yes', '--appendfsync', 'always', '--save', '', '--loglevel', 'warning'
    ], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#child = child
    process.once('exit', () => { child.kill('SIGKILL') })
    let said = ''
    child.stdout!.on('data', text => { said += text })
    const client = this.client()
    for (let tries = 0; client.status !== 'ready'; tries++) {
      if (child.exitCode !== null || tries > 500) throw new Error(`redis-server has not begun: ${said}`)
      await sleep(20)
    }
    client.disconnect()
  }

  /** Ends it as a crash would. */
  async kill (): Promise<void> {
    const child = this.#child!
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }

  client (): Redis {
    const client = new Redis({
      host: '127.0.0.1', port: this.port, password: this.password, maxRetriesPerRequest: null, retryStrategy: () => 50,
      ...(this.tls && { tls: { ca: this.ca } })
    })
    client.on('error', () => {})
    return client
  }

  async end (): Promise<void> {
    await this.kill()
    fs.rmSync(this.folder, { recursive: true, force: true })
  }
}

/** A certificate for 127.0.0.1 that nobody has signed but itself. */
function certificate (folder: string): string[] {
  const file = (name: string): string => path.join(folder, name)
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', file('key.pem'),
    '-out', file('ca.pem')
  ], { stdio: 'pipe' })
  return ['--tls-cert-file', file('ca.pem'), '--tls-key-file', file('key.pem'), '--tls-ca-cert-file', file('ca.pem'),
    '--tls-auth-clients', 'no']
}
