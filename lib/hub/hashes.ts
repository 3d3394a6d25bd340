// Whether a file in the cache has the content that the Hub names.

import { createHash, type Hash } from 'node:crypto'
import { constants } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'

/** Hash of a content (64 hex digits: its sha256; 40: git's, as for small files), and its size. */
export interface Content { oid: string, size: number }

/** Bytes that are hashed at once; less would cost more, more would hold the thread. */
const step = 1 << 20

/** sha256 of what lies in large file storage; git's hash of anything else. */
export function hashFor ({ oid, size }: Content): Hash {
  return oid.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
}

/** Absent on Windows. */
const { O_NONBLOCK = 0 } = constants as { O_NONBLOCK?: number }

/**
 * The hash of a file, of the kind that `content` has; undefined where it is no plain file of that size (any more).
 * @param tell told now and then how many bytes were read
 */
export async function hashOf (
  file: string, content: Content, signal: AbortSignal | undefined, tell: (done: number) => void
): Promise<string | undefined> {
  let handle: FileHandle | undefined
  try {
    handle = await open(file, constants.O_RDONLY | O_NONBLOCK)
    if (!(await handle.stat()).isFile()) return undefined
    const hash = hashFor(content)
    const buffer = Buffer.allocUnsafeSlow(step)
    for (let done = 0; ;) {
      signal?.throwIfAborted()
      tell(done)
      const { bytesRead } = await handle.read(buffer, 0, step, done)
      if (bytesRead === 0) return done === content.size ? hash.digest('hex') : undefined
      if ((done += bytesRead) > content.size) return undefined
      hash.update(buffer.subarray(0, bytesRead))
    }
  } finally {
    await handle?.close()
  }
}

/** Compares files with a content, each file once until it changes. */
export class Judge {
  readonly #wrong = new Set<string>()

  constructor (
    private readonly content: Content, private readonly signal: AbortSignal | undefined,
    private readonly tell: (done: number) => void
  ) {}

  /**
   * Links are followed: what counts is what a reader of that name gets. Errors: those of the system, but not that
   * nothing is there.
   */
  async right (file: string): Promise<boolean> {
    const found = await stat(file, { bigint: true }).catch(() => undefined)
    if (!found?.isFile() || Number(found.size) !== this.content.size) return false
    const stamp = `${found.dev} ${found.ino} ${found.mtimeNs}`
    if (this.#wrong.has(stamp)) return false
    const right = await hashOf(file, this.content, this.signal, this.tell) === this.content.oid
    if (!right) this.#wrong.add(stamp)
    return right
  }
}
