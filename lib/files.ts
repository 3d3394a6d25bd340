// Writing files so that a name never holds half of one: a part file beside the target, renamed at the end. A rename
// replaces whatever bears the name, so it must never meet a link (the link would go, its target would stay old) or a
// device (as root, /dev/null itself): links are followed first, and what is no plain file is told apart.

import { randomBytes } from 'node:crypto'
import { lstat, open, readlink, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from './errors.js'

/** What a file name leads to. */
export interface Target {
  /** The file itself, links followed; for `special` the name as given. */
  path: string
  /** `special`: a device, a pipe or a socket. */
  kind: 'absent' | 'file' | 'folder' | 'special'
}

/** As many as Linux follows. */
const mostLinks = 40

/** Follows links, also one whose target does not exist yet. Errors: those of the system, but not that nothing is there. */
export async function findTarget (file: string): Promise<Target> {
  const found = await ifThere(stat(file))
  if (found?.isDirectory()) return { path: file, kind: 'folder' }
  if (found && !found.isFile()) return { path: file, kind: 'special' }
  if (found) return { path: await realpath(file), kind: 'file' }
  let at = file
  for (let links = 0; (await ifThere(lstat(at)))?.isSymbolicLink(); links++) {
    if (links === mostLinks) throw Object.assign(new Error('too many symbolic links'), { code: 'ELOOP' })
    at = path.resolve(await realpath(path.dirname(at)), await readlink(at))
  }
  return { path: at, kind: 'absent' }
}

async function ifThere<T> (asked: Promise<T>): Promise<T | undefined> {
  return await asked.catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
}

/** A name that nobody else has. Short, because the name it stands for may be as long as names can be. */
function partName (folder: string): string {
  return path.join(folder, `.parvis-${randomBytes(6).toString('hex')}.part`)
}

/** Has `write` fill a part file, then gives it the name `file` (a target's `path`). On failure nothing is left. */
export async function writePart<T> (file: string, write: (handle: FileHandle) => Promise<T>): Promise<T> {
  const part = partName(path.dirname(file))
  let handle: FileHandle | undefined
  try {
    handle = await open(part, 'wx')
    const result = await write(handle)
    await handle.close()
    handle = undefined
    await rename(part, file)
    return result
  } catch (error) {
    await handle?.close().catch(() => {})
    await unlink(part).catch(() => {})
    throw error
  }
}

/** Whether files can be made in `folder`: makes one, since permissions alone do not tell (read-only, full, /proc). */
export async function tryFolder (folder: string): Promise<void> {
  const part = partName(folder)
  await (await open(part, 'wx')).close()
  await unlink(part)
}

// ---- errors ----

const cures: Record<string, { read: string, written: string } | string> = {
  ENOENT: { read: 'there is no such file. Check the path.', written: 'its folder does not exist. Check the path.' },
  EISDIR: 'it is a folder, not a file. Check the path.',
  ENOTDIR: 'a part of the path is no folder. Check the path.',
  EACCES: 'permission denied. Check the path and its permissions.',
  EPERM: 'permission denied. Check the path and its permissions.',
  ENOSPC: 'no space is left. Free some, or choose another place.',
  EDQUOT: 'the disk quota is used up. Free some space, or choose another place.',
  EROFS: 'the file system is read-only. Choose another place.',
  ENAMETOOLONG: 'the name is too long. Choose a shorter one.',
  ELOOP: 'its symbolic links go round in a circle. Check the path.'
}

/** Why the system refused, and what to do. */
export function systemReason (error: unknown, doing: 'read' | 'written'): string {
  const cure = cures[(error as { code?: string }).code ?? '']
  if (cure === undefined) return `${(error as Error).message}. Check the path.`
  return typeof cure === 'string' ? cure : cure[doing]
}

/** Turns an error of the file system into FILE_NOT_FOUND; anything else is returned unchanged. */
export function fromSystem (error: unknown, file: string, doing: 'read' | 'written'): unknown {
  const code = (error as { code?: unknown } | null)?.code
  if (error instanceof ParError || typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) return error
  return new ParError('FILE_NOT_FOUND', `${file}: cannot be ${doing}: ${systemReason(error, doing)}`, { cause: error })
}
