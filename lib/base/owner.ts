// Files that are being written bear the mark of their process in their names, so that another process can tell whether
// somebody still works on them.

import { createHash } from 'node:crypto'
import { readlinkSync } from 'node:fs'
import os from 'node:os'

/** Process ids mean something within one machine and, in containers, within one namespace of processes. */
function place (): string {
  try {
    return `${os.hostname()} ${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    return os.hostname()
  }
}

/** Where this process runs: eight hex digits. */
export const host = createHash('sha256').update(place()).digest('hex').slice(0, 8)

/** The mark of this process in names of files: `host-pid`. */
export const ownMark = `${host}-${process.pid}`

/** Whether a process of this machine runs. */
export function runs (pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
