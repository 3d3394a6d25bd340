// The unfinished part of a blob, kept for the next attempt. Node has no file locks, so ownership is a name: whoever
// renames the part to a name of its own has it, and a rename has one winner. The owner shows that it lives by the time
// stamp of the part; a part whose owner has gone is taken over. Others wait meanwhile, to fetch nothing twice, but
// nothing depends on that: two owners have two files, and each is checked before it becomes a blob.
//
// A cache may be shared, and whoever can write into its folder can put anything under these names. So only plain files
// of this user, with one name each, count as parts: a link would lead the writing to a file elsewhere.

import { randomBytes } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { lstat, open, readdir, rename, stat, unlink, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { clearInterval, setInterval } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { flush, tryFolder } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import { host, ownMark, runs } from '../base/owner.js'
import { renameOver } from '../base/windows.js'

/** Milliseconds between signs of life. */
const beat = 1000
/** A part of a process of this machine that has gone is free after so many milliseconds without a sign, */
const deadAfter = 5000
/** that of any other owner after so many, */
const silentAfter = 60_000
/** and one whose stamp is of no use (a clock that goes wrong) after it was watched so long. */
const watchedFor = 3000

/** Both absent on Windows. */
const { O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as { O_NOFOLLOW?: number, O_NONBLOCK?: number }

export class Partial {
  #heart: NodeJS.Timeout
  #last = Date.now()

  private constructor (
    readonly handle: FileHandle, readonly file: string, private readonly free: string, private readonly uid: number
  ) {
    this.#heart = setInterval(
      () => { void this.handle.utimes(new Date(), new Date()).catch(() => {}); this.#last = Date.now() }, beat
    )
    this.#heart.unref()
  }

  /**
   * The part of a blob, one's own from now on, with what is in it.
   * @param finished whether the blob is there meanwhile: then there is nothing to do
   * @param onWait told each time that another process is found at work
   */
  static async claim (
    folder: string, oid: string, finished: () => Promise<boolean>, signal: AbortSignal | undefined, onWait: () => void
  ): Promise<Partial | undefined> {
    if (await finished()) return undefined // before anything is written: a cache that is complete may be read-only
    const free = path.join(folder, `${oid}.parvis.incomplete`)
    const own = path.join(folder, `${oid}.parvis-${ownMark}-${randomBytes(4).toString('hex')}.incomplete`)
    await makeFolder(folder)
    const { uid } = await tryFolder(folder) // as this file system shows our files, which need not be our own number
    const watch = new Watch()
    for (;;) {
      signal?.throwIfAborted()
      if (await finished()) return undefined
      const parts = await partsOf(folder, oid, own, uid, watch)
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
      const handle = await (mine ? openPart(own, uid) : open(own, 'wx+'))
      if (!handle) continue
      const claimed = new Partial(handle, own, free, uid)
      // The sign of life that goes with the name, before anybody looks at the old time stamp.
      await handle.utimes(new Date(), new Date())
      const others = (await partsOf(folder, oid, own, uid, watch)).filter(part => part.alive)
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
    const { size } = await lstat(this.file).catch(() => ({ size: 0 }))
    const there = await lstat(this.free).catch(() => undefined)
    await (size > (there && trusted(there, this.uid) ? there.size : 0)
      ? rename(this.file, this.free)
      : unlink(this.file)).catch(() => {})
  }

  /** Makes it the blob. @throws where somebody else has taken it over */
  async finish (blob: string): Promise<void> {
    clearInterval(this.#heart)
    await flush(this.handle)
    await this.handle.close()
    await renameOver(this.file, blob)
    await unlink(this.free).catch(() => {})
  }
}

/** A plain file of one's own that has no other name. */
function trusted (found: Stats, uid: number): boolean {
  return found.isFile() && found.uid === uid && found.nlink === 1
}

/** A part that was just taken over; undefined (and gone) where something else was put under its name meanwhile. */
async function openPart (file: string, uid: number): Promise<FileHandle | undefined> {
  let handle: FileHandle | undefined
  try {
    handle = await open(file, constants.O_RDWR | O_NOFOLLOW | O_NONBLOCK)
    if (trusted(await handle.stat(), uid)) return handle
  } catch {}
  await handle?.close()
  await unlink(file).catch(() => {})
  return undefined
}

interface Part { file: string, size: number, alive: boolean }

/** Since when stamps have not changed, by a clock that nobody sets. */
class Watch {
  readonly #seen = new Map<string, { stamp: number, until: number }>()

  /** Whether the owner has given a sign within `limit` milliseconds. */
  alive (file: string, stamp: number, limit: number): boolean {
    const now = performance.now()
    let seen = this.#seen.get(file)
    if (seen?.stamp !== stamp) {
      const silent = Date.now() - stamp
      // A stamp of the future tells nothing but that some clock is wrong: then only a change is a sign.
      const until = seen ? now + limit : silent < -beat ? now + watchedFor : now + limit - silent
      seen = { stamp, until }
      this.#seen.set(file, seen)
    }
    return now < seen.until
  }
}

async function partsOf (folder: string, oid: string, except: string, uid: number, watch: Watch): Promise<Part[]> {
  const found: Part[] = []
  for (const name of await readdir(folder)) {
    const match = name.startsWith(oid) &&
      /^\.parvis(?:-([0-9a-f]{8})-(\d+)-[0-9a-f]{8})?\.incomplete$/.exec(name.slice(oid.length))
    const file = path.join(folder, name)
    if (!match || file === except) continue
    const at = await lstat(file).catch(() => undefined)
    if (!at || !trusted(at, uid)) continue
    const gone = match[1] === host && !runs(Number(match[2]))
    found.push({
      file, size: at.size,
      alive: match[2] !== undefined && watch.alive(file, at.mtimeMs, gone ? deadAfter : silentAfter)
    })
  }
  return found
}
