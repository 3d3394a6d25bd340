// The unfinished part of a blob, kept for the next attempt. Node has no file locks, so ownership is a name: whoever
// renames the part to a name of its own has it, and a rename has one winner. The owner shows that it lives by the time
// stamp of the part; a part whose owner has gone is taken over. Others wait meanwhile, to fetch nothing twice, but
// nothing depends on that: two owners have two files, and each is checked before it becomes a blob.

import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, stat, unlink, type FileHandle } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { clearInterval, setInterval } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'

const host = createHash('sha256').update(os.hostname()).digest('hex').slice(0, 8)
/** Milliseconds between signs of life. */
const beat = 1000
/** A part of a process of this machine that has gone is free after so many milliseconds without a sign, */
const deadAfter = 5000
/** and that of any other owner after so many. */
const silentAfter = 60_000

export class Partial {
  #heart: NodeJS.Timeout
  #last = Date.now()

  private constructor (readonly handle: FileHandle, readonly file: string, private readonly free: string) {
    this.#heart = setInterval(() => { void this.handle.utimes(new Date(), new Date()).catch(() => {}); this.#last = Date.now() }, beat)
    this.#heart.unref()
  }

  /**
   * The part of a blob, one's own from now on, with what is in it.
   * @param finished whether the blob is there meanwhile: then there is nothing to do
   * @param onWait told each time that another process is found at work
   */
  static async claim (folder: string, oid: string, finished: () => Promise<boolean>, signal: AbortSignal | undefined, onWait: () => void): Promise<Partial | undefined> {
    const free = path.join(folder, `${oid}.parvis.incomplete`)
    const own = path.join(folder, `${oid}.parvis-${host}-${process.pid}-${randomBytes(4).toString('hex')}.incomplete`)
    await mkdir(folder, { recursive: true })
    for (;;) {
      signal?.throwIfAborted()
      if (await finished()) return undefined
      const parts = await partsOf(folder, oid, own)
      if (parts.some(part => part.alive)) {
        onWait()
        await sleep(200, undefined, { signal }).catch(() => signal!.throwIfAborted())
        continue
      }
      let mine = false
      for (const part of parts.sort((a, b) => b.size - a.size)) {
        mine = await rename(part.file, own).then(() => true, () => false)
        if (mine) break
      }
      const handle = await open(own, mine ? 'r+' : 'wx+')
      const claimed = new Partial(handle, own, free)
      // The sign of life that goes with the name, before anybody looks at the old time stamp.
      await handle.utimes(new Date(), new Date())
      const others = (await partsOf(folder, oid, own)).filter(part => part.alive)
      if (!mine && others.some(other => other.size > 0 || other.file < own)) { // two began at once: one goes on
        await claimed.release()
        continue
      }
      return claimed
    }
  }

  /** Whether nobody has taken it over: after a long sleep (a suspended machine) somebody may have. */
  async stillOwn (): Promise<boolean> {
    const asleep = Date.now() - this.#last > silentAfter / 2
    this.#last = Date.now()
    return !asleep || await stat(this.file).then(() => true, () => false)
  }

  /** Gives it back for the next attempt; an empty one goes. */
  async release (): Promise<void> {
    clearInterval(this.#heart)
    await this.handle.close().catch(() => {})
    const { size } = await stat(this.file).catch(() => ({ size: 0 }))
    const there = await stat(this.free).catch(() => undefined)
    await (size > (there?.size ?? 0) ? rename(this.file, this.free) : unlink(this.file)).catch(() => {})
  }

  /** Makes it the blob. @throws where somebody else has taken it over */
  async finish (blob: string): Promise<void> {
    clearInterval(this.#heart)
    await this.handle.sync()
    await this.handle.close()
    await rename(this.file, blob)
    await unlink(this.free).catch(() => {})
  }
}

interface Part { file: string, size: number, alive: boolean }

async function partsOf (folder: string, oid: string, except: string): Promise<Part[]> {
  const found: Part[] = []
  for (const name of await readdir(folder)) {
    const match = name.startsWith(oid) && /^\.parvis(?:-([0-9a-f]{8})-(\d+)-[0-9a-f]{8})?\.incomplete$/.exec(name.slice(oid.length))
    const file = path.join(folder, name)
    if (!match || file === except) continue
    const at = await stat(file).catch(() => undefined)
    if (!at) continue
    const silent = Date.now() - at.mtimeMs
    const gone = match[1] === host && !runs(Number(match[2]))
    found.push({ file, size: at.size, alive: match[2] !== undefined && silent < (gone ? deadAfter : silentAfter) })
  }
  return found
}

function runs (pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
