// Makes folders. Node's own `mkdir(folder, { recursive: true })` never comes back where a file system says that the
// parent of a new folder is not there though it is, as that of /proc does: it makes the parent again and again. A step
// at a time ends everywhere.

import { mkdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from './errors.js'
import { absolute, refuseName } from './files.js'
import { shownPath } from './text.js'
import { nameProblem } from './windows.js'

/**
 * Makes a folder, and those above it that are missing. One that is there is enough.
 * @throws ParError `FILE_NOT_FOUND` for a link that leads nowhere, and for a name that no folder may have; else the
 * system's error
 */
export async function makeFolder (folder: string): Promise<void> {
  const full = absolute(folder)
  if (nameProblem(full) !== undefined && !await isFolder(full)) refuseName(full)
  const refusal = await tryMake(full)
  if (refusal === undefined) return
  if (refusal.code === 'EEXIST' && await leadsNowhere(full)) {
    const why = 'it is a link to a folder that does not exist. Make that, or remove the link.'
    throw new ParError('FILE_NOT_FOUND', `${shownPath(full)}: cannot be written: ${why}`, { cause: refusal })
  }
  if (refusal.code !== 'ENOENT') throw refusal
  const parent = path.dirname(full)
  if (parent === full) throw refusal // a drive or a share that is not there
  await makeFolder(parent)
  const again = await tryMake(full)
  if (again?.code === 'ENOENT') {
    throw Object.assign(new Error('the file system takes no new folders', { cause: again }), { code: 'ENOTSUP' })
  }
  if (again) throw again
}

/** The system's refusal to make a folder that is not there. */
async function tryMake (folder: string): Promise<NodeJS.ErrnoException | undefined> {
  return await mkdir(folder).then(() => undefined, async (error: NodeJS.ErrnoException) => {
    return await isFolder(folder) ? undefined : error
  })
}

async function isFolder (folder: string): Promise<boolean> {
  return (await stat(folder).catch(() => undefined))?.isDirectory() ?? false
}

async function leadsNowhere (file: string): Promise<boolean> {
  return await stat(file).then(() => false, (error: NodeJS.ErrnoException) => error.code === 'ENOENT')
}
