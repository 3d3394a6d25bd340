// A Hugging Face Hub for tests: its API, its links to files and, on a port of its own (another origin), the storage
// that it redirects to. Files are bytes in memory. `storage` lets a test misbehave in the place of the real answer.

import { createHash, randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Repository {
  licence?: string
  files: Record<string, Buffer>
}

/** What a request for bytes asks for. */
export interface Asked {
  repository: string
  file: string
  content: Buffer
  /** Where its range begins; undefined where it has none. */
  from: number | undefined
  /** How many were asked before, of all files. */
  count: number
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
export const commitOf = (repository: string): string => createHash('sha1').update(repository).digest('hex')

export class FakeHub {
  /** Every request, in order. */
  readonly requests: Array<{
    host: 'hub' | 'storage', method: string, url: string, authorization: string | undefined, range: string | undefined
  }> = []

  /** The token without which nothing is told. */
  token: string | undefined
  /** Answers a request for the Hub itself and returns true, or leaves it. */
  api: (request: IncomingMessage, response: ServerResponse) => boolean = () => false
  /** Answers a request for bytes and returns true, or leaves it. */
  storage: (asked: Asked, response: ServerResponse, request: IncomingMessage) => boolean = () => false
  /** Milliseconds between two pieces of `pieceSize` bytes. */
  pause = 0
  pieceSize = 1 << 16
  /** Bytes of content that were sent. */
  sent = 0
  #asked = 0
  readonly #hub = http.createServer((request, response) => this.#answer(request, response))
  readonly #storage = http.createServer((request, response) => this.#serve(request, response))

  private constructor (readonly repositories: Record<string, Repository>) {}

  static async start (repositories: Record<string, Repository>): Promise<FakeHub> {
    const hub = new FakeHub(repositories)
    for (const server of [hub.#hub, hub.#storage]) {
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    }
    return hub
  }

  get url (): string { return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}` }
  get storageUrl (): string { return `http://127.0.0.1:${(this.#storage.address() as AddressInfo).port}` }

  /** As if it had just begun. */
  reset (): void {
    this.requests.length = 0
    this.token = undefined
    this.api = this.storage = () => false
    this.pause = this.sent = this.#asked = 0
  }

  async stop (): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    }
  }

  #note (host: 'hub' | 'storage', { method = '', url = '', headers }: IncomingMessage): void {
    this.requests.push({ host, method, url, authorization: headers.authorization, range: headers.range })
  }

  #answer (request: IncomingMessage, response: ServerResponse): void {
    this.#note('hub', request)
    if (this.api(request, response)) return
    const refuse = (status: number, code: string): void => {
      response.writeHead(status,
        { 'x-error-code': code, 'content-type': 'application/json' }).end(JSON.stringify({ error: code }))
    }
    if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) {
      return refuse(401, 'RepoNotFound')
    }
    const { pathname } = new URL(request.url!, this.url)
    const json = (value: unknown): void => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    const info = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|paths-info)\/([^/]+)$/.exec(pathname)
    if (info) {
      const [, name, call, revision] = info as unknown as [string, string, string, string]
      const repository = this.repositories[name]
      if (!repository) return refuse(404, 'RepoNotFound')
      if (!['main', commitOf(name)].includes(revision)) return refuse(404, 'RevisionNotFound')
      const { licence } = repository
      if (call === 'revision') {
        return json({
          _id: '0', id: name, sha: commitOf(name), private: false, gated: false, likes: 1, downloads: 1,
          lastModified: '2024-12-20T00:00:00.000Z',
          tags: ['pytorch', ...(licence === undefined ? [] : [`license:${licence}`])],
          ...(licence !== undefined && { cardData: { license: licence } })
        })
      }
      let body = ''
      request.setEncoding('utf8').on('data', (text: string) => { body += text }).on('end', () => {
        const { paths } = JSON.parse(body) as { paths: string[] }
        json(paths.flatMap(path => {
          const content = repository.files[path]
          if (!content) return []
          return [
            { type: 'file', path, oid: createHash('sha1').update(path).digest('hex'), size: content.length, lfs: {
              oid: sha256(content), size: content.length, pointerSize: 134
            } }
          ]
        }))
      })
      return
    }
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(pathname)
    const [, name = '', revision = '', path = ''] = file ?? []
    const content = this.repositories[name]?.files[decodeURIComponent(path)]
    if (!content || !['main', commitOf(name)].includes(revision)) return refuse(404, 'EntryNotFound')
    response.writeHead(302, {
      location: `${this.storageUrl}/${sha256(content)}?signature=${randomBytes(8).toString('hex')}`,
      'x-repo-commit': commitOf(name), 'x-linked-etag': `"${sha256(content)}"`, 'x-linked-size': content.length,
      'accept-ranges': 'bytes'
    }).end()
  }

  #serve (request: IncomingMessage, response: ServerResponse): void {
    this.#note('storage', request)
    const hash = new URL(request.url!, this.storageUrl).pathname.slice(1)
    for (const [repository, { files }] of Object.entries(this.repositories)) {
      for (const [file, content] of Object.entries(files)) {
        if (sha256(content) !== hash) continue
        const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')
        const from = range ? Number(range[1]) : undefined
        if (!this.storage({ repository, file, content, from, count: this.#asked++ }, response, request)) {
          this.send(response, content, from)
        }
        return
      }
    }
    response.writeHead(404).end()
  }

  /** The right answer; with `cut` the connection breaks after so many bytes of it. */
  send (
    response: ServerResponse, content: Buffer, from?: number, cut?: number, headers: http.OutgoingHttpHeaders = {}
  ): void {
    if (from !== undefined && from >= content.length) {
      response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end()
      return
    }
    const part = content.subarray(from ?? 0)
    response.writeHead(from === undefined ? 200 : 206, {
      etag: '"of the storage"', 'content-length': part.length, 'accept-ranges': 'bytes',
      ...(from !== undefined && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` }),
      ...headers
    })
    void this.#trickle(response, part, cut)
  }

  async #trickle (response: ServerResponse, part: Buffer, cut: number | undefined): Promise<void> {
    const end = Math.min(part.length, cut ?? Infinity)
    for (let at = 0; at < end && !response.destroyed; at += this.pieceSize) {
      const piece = part.subarray(at, Math.min(end, at + this.pieceSize))
      await new Promise<void>(resolve => response.write(piece, () => resolve()))
      this.sent += piece.length
      if (this.pause > 0) await new Promise(resolve => setTimeout(resolve, this.pause))
    }
    // What was written has to leave before the connection does.
    if (cut === undefined) response.end()
    else setTimeout(() => response.destroy(), 5)
  }
}

/** Bytes that look like nothing in particular, the same for the same seed. */
export function noise (length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  const next = random(seed)
  for (let at = 0; at < length; at++) bytes[at] = next() * 256
  return bytes
}

/** Numbers from 0 to 1 that a seed gives again. */
export function random (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = state + 0x6d2b79f5 >>> 0
    let mixed = Math.imul(state ^ state >>> 15, state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }
}
