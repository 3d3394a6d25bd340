// Work that only one of several test processes does, such as a build. Who waits says for whom when it takes too long.

import fs from 'node:fs'

/**
 * A process writes its number right after it has made the file; one that was killed between the two leaves it empty.
 */
const emptyFor = 10_000

/**
 * Does `work` where `done` says that it is needed: once, also where `done` says the same afterwards (files may be dated
 * in the future). Others wait for it meanwhile. A lock of a process that is no more counts for nothing.
 * @param seconds how long one that waits does so; then it throws
 */
export async function withLock (
  lock: string, done: () => boolean, work: () => Promise<void>, seconds: number
): Promise<void> {
  const begun = Date.now()
  while (!done()) {
    if (take(lock)) {
      try {
        if (!done()) await work()
      } finally {
        fs.rmSync(lock, { recursive: true, force: true })
      }
      return
    }
    const owner = ownerOf(lock)
    if (owner === undefined) fs.rmSync(lock, { recursive: true, force: true })
    else if (Date.now() - begun > seconds * 1000) throw new Error(`Process ${owner} has held ${lock} for ${seconds} s`)
    else await new Promise(resolve => setTimeout(resolve, 200))
  }
}

function take (lock: string): boolean {
  try {
    fs.writeFileSync(lock, String(process.pid), { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** The process that holds the lock, 0: not known yet; undefined: nobody. */
function ownerOf (lock: string): number | undefined {
  try {
    const owner = Number(fs.readFileSync(lock, 'utf8'))
    if (owner === 0) return Date.now() - fs.statSync(lock).mtimeMs > emptyFor ? undefined : 0
    process.kill(owner, 0)
    return owner
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? 0 : undefined // EPERM: it is there, and another user's
  }
}
