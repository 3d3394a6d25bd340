// Reading and writing whole files. A name never holds half of a file: a part file beside the target is renamed at the
// end. A rename replaces whatever bears the name, so it must never meet a link (the link would go, its target would
// stay old) or a device (as root, /dev/null itself): links are followed first, and what is no plain file is told apart.
// Nothing here waits inside the system for somebody else (a pipe without a reader): such a wait could not be ended.

import { randomBytes } from 'node:crypto'
import { constants, unlinkSync, write, type Stats } from 'node:fs'
import {
  access, lstat, open, opendir, readlink, realpath, stat, unlink, type FileHandle
} from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getSystemErrorMap } from 'node:util'
import { ParError } from './errors.js'
import { host, ownMark, runs } from './owner.js'
import { shownPath } from './text.js'
import { nameProblem, renameOver } from './windows.js'

/** What a file name leads to. */
export interface Target {
  /** The file itself, links followed; for `special` the name as given. */
  path: string
  /** Of a name for what this process has open (/dev/stdout, /dev/fd/3): its number. The kind is `special`. */
  descriptor?: number
  /** `special`: a device, a pipe or a socket. */
  kind: 'absent' | 'file' | 'folder' | 'special'
}

/**
 * The absolute path of a file, as of now: the working directory may change.
 * @throws ParError `FILE_NOT_FOUND` where it is a relative one and the working directory is gone
 */
export function absolute (file: string, { resolve }: Pick<typeof path, 'resolve'> = path): string {
  try {
    return resolve(file)
  } catch (cause) {
    throw new ParError('FILE_NOT_FOUND',
      `${shownPath(file)}: cannot be found: the path is relative, and the working directory was removed. Give an ` +
        'absolute path, or go to another folder.', { cause })
  }
}

/** As many as Linux follows. */
const maxLinks = 40

/**
 * Follows links, also one whose target does not exist yet. Errors: those of the system, but not that nothing is there.
 */
export async function findTarget (file: string): Promise<Target> {
  const descriptor = await descriptorOf(file)
  if (descriptor !== undefined) return { path: file, kind: 'special', descriptor }
  const found = await ifThere(stat(file))
  if (found?.isDirectory()) return { path: file, kind: 'folder' }
  if (found && !found.isFile()) return { path: file, kind: 'special' }
  if (found) return { path: await realName(file), kind: 'file' }
  let at = file
  for (let links = 0; (await ifThere(lstat(at)))?.isSymbolicLink(); links++) {
    if (links === maxLinks) throw Object.assign(new Error('too many symbolic links'), { code: 'ELOOP' })
    at = path.resolve(await realpath(path.dirname(at)), await readlink(at))
  }
  return { path: at, kind: 'absent' }
}

/**
 * The number of the descriptor that a name stands for. On Linux such a name is a link to the file that is open, and may
 * not be followed: that file would be replaced, with all that it held (`>>`), and who reads it would see nothing of the
 * new one.
 */
async function descriptorOf (file: string): Promise<number | undefined> {
  let at = file
  for (let links = 0; links < maxLinks; links++) {
    const folder = await realpath(path.dirname(at)).catch(() => undefined)
    if (folder === undefined) return undefined
    const name = path.basename(at)
    const own = folder === '/dev/fd' || /^\/proc\/(\d+)(?:\/task\/\d+)?\/fd$/.exec(folder)?.[1] === String(process.pid)
    if (own && /^\d{1,9}$/.test(name)) return Number(name)
    const next = await readlink(path.join(folder, name)).catch(() => undefined)
    if (next === undefined) return undefined
    at = path.resolve(folder, next)
  }
  return undefined
}

/**
 * Of a file that is there. Some file systems (RAM disks of Windows) tell no real path; a file that is no link bears its
 * own name.
 */
async function realName (file: string): Promise<string> {
  try {
    return await realpath(file)
  } catch (error) {
    if ((await lstat(file)).isSymbolicLink()) throw error
    return path.resolve(file)
  }
}

async function ifThere<T> (asked: Promise<T>): Promise<T | undefined> {
  return await asked.catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
}

// ---- part files

/** Part files that this process is writing. */
const ownParts = new Set<string>()
const partPattern = /^\.parvis-([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.part$/
/** Milliseconds without a write after which a part has no owner, wherever that ran. */
const forgottenAfter = 24 * 3600 * 1000

/**
 * Makes a part file. A file system that takes no files (that of /proc) says that the folder is not there, though it is.
 */
async function create (part: string, mode?: number): Promise<FileHandle> {
  return await open(part, 'wx', mode).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' || !(await stat(path.dirname(part)).catch(() => undefined))?.isDirectory()) throw error
    throw Object.assign(new Error('the file system takes no new files', { cause: error }), { code: 'ENOTSUP' })
  })
}

/** A name that nobody else has. Short, because the name it stands for may be as long as names can be. */
function partName (folder: string): string {
  return path.join(folder, `.parvis-${ownMark}-${randomBytes(6).toString('hex')}.part`)
}

function addPart (part: string): void {
  if (ownParts.size === 0) process.on('exit', removeParts)
  ownParts.add(part)
}

function forgetPart (part: string): void {
  ownParts.delete(part)
  if (ownParts.size === 0) process.off('exit', removeParts)
}

/**
 * Removes the part files of this process at once, for an end that waits for nothing. Runs by itself when the process
 * exits.
 */
export function removeParts (): void {
  for (const part of ownParts) {
    try {
      unlinkSync(part)
    } catch {} // not made yet, or renamed already
  }
}

/** Folders that were looked through. Once is enough: what is left behind later waits for the next process. */
const swept = new Set<string>()

/** Removes what processes that have gone left in a folder. */
async function removeOldParts (folder: string): Promise<void> {
  if (swept.has(folder)) return
  swept.add(folder)
  try {
    for await (const { name } of await opendir(folder)) {
      const [, where, pid] = partPattern.exec(name) ?? []
      const part = path.join(folder, name)
      if (where === undefined || ownParts.has(part)) continue
      const old = (where === host && !runs(Number(pid))) || Date.now() - (await lstat(part)).mtimeMs > forgottenAfter
      if (old) await unlink(part)
    }
  } catch {} // a folder that cannot be listed, or a part that somebody else has removed: no reason not to write
}

/** Lends a name for a part file in `folder`. What bears it in the end goes; a rename takes it away before. */
export async function withPart<T> (folder: string, work: (part: string) => Promise<T>): Promise<T> {
  await removeOldParts(folder)
  const part = partName(folder)
  addPart(part)
  try {
    return await work(part)
  } finally {
    await unlink(part).catch(() => {})
    forgetPart(part)
  }
}

// ---- writing

/**
 * Has `write` fill a part file, then gives it the name `file` (a target's `path`). On failure nothing is left, and a
 * file of that name is as it was. A file that is replaced passes on its mode and, where the system lets us, its owner.
 * @param keep false where what is replaced says nothing about who may read the new file
 */
export async function writePart<T> (
  file: string, write: (handle: FileHandle) => Promise<T>, { keep = true } = {}
): Promise<T> {
  const target = absolute(file)
  const before = keep ? await replaceable(target) : undefined
  return await withPart(path.dirname(target), async part => {
    // Nobody may read the new content who could not read the old.
    const handle = await create(part, before ? 0o600 : 0o666)
    let result: T
    try {
      if (before) await passOn(before, handle)
      result = await write(handle)
      await flush(handle)
    } catch (error) {
      await handle.close().catch(() => {})
      throw error
    }
    await handle.close() // tells of a full disk, too, on file systems of networks
    await renameOver(part, target)
    return result
  })
}

/** The file that a rename would replace. A rename asks only for the folder's permission: a read-only file stays. */
async function replaceable (target: string): Promise<Stats | undefined> {
  const found = await ifThere(lstat(target))
  if (!found?.isFile()) return undefined
  await access(target, constants.W_OK)
  return found
}

/** Mode and owner of `before` for a new file. */
async function passOn (before: Stats, handle: FileHandle): Promise<void> {
  const { uid, gid } = await handle.stat()
  let group = gid === before.gid
  if (uid !== before.uid || !group) {
    // Only root gives files away; anybody may choose among the groups that he is in.
    group = await handle.chown(before.uid,
      before.gid).catch(async () => await handle.chown(uid, before.gid)).then(() => true, () => group)
  }
  // No rights of another group than they were meant for, and no set-user-id for new content.
  const mode = before.mode & 0o777
  // some file systems know no modes
  await handle.chmod(group ? mode : (mode & ~0o070) | ((mode & 0o007) << 3)).catch(() => {})
}

/**
 * Before the name: after a power failure a name must not lead to what never reached the disk. Also tells of a full
 * disk.
 */
export async function flush (handle: FileHandle): Promise<void> {
  await handle.datasync().catch((error: NodeJS.ErrnoException) => {
    // File systems that know no such call. EISDIR is the word of Windows for it.
    if (!['EINVAL', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EISDIR'].includes(error.code ?? '')) throw error
  })
}

/** The absolute path of a file to write. @throws ParError `FILE_NOT_FOUND` as `absolute` and `refuseName` do */
export function outputPath (file: string): string {
  const full = absolute(file)
  refuseName(full)
  return full
}

/** @throws ParError `FILE_NOT_FOUND` for a name that no file may have here */
export function refuseName (file: string, platform: string = process.platform): void {
  const problem = nameProblem(file, platform)
  if (problem === undefined) return
  throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be written: ${problem}. Choose another name.`)
}

/**
 * Writes a file so that its name never holds half of it. A link is followed; a device or a pipe is written to, and a
 * pipe that nobody reads yet is waited for.
 * @param check called now and then; an error thrown in it ends the writing with that error
 * @throws ParError `FILE_NOT_FOUND`
 */
export async function writeWhole (file: string, bytes: Uint8Array, check: () => void = () => {}): Promise<void> {
  const full = outputPath(file)
  let target: Target | undefined
  try {
    check()
    target = await findTarget(full)
    if (target.descriptor !== undefined) {
      return await writeBits((from, length) => writeTo(target!.descriptor!, bytes, from, length), bytes.length, check)
    }
    if (target.kind === 'special') return await writeSpecial(target.path, bytes, check)
    if (target.kind === 'folder') throw Object.assign(new Error('a folder'), { code: 'EISDIR' })
    await writePart(target.path, async handle => {
      await handle.writeFile(bytes)
      check()
    })
  } catch (error) {
    check()
    throw fromSystem(error, full, 'written', target?.path)
  }
}

/** Absent on Windows, where nothing of the kind is a file. */
const { O_NONBLOCK = 0, O_NOCTTY = 0 } = constants as { O_NONBLOCK?: number, O_NOCTTY?: number }
/** Milliseconds between two looks at a pipe, at most. */
const longestPause = 50

async function writeSpecial (file: string, bytes: Uint8Array, check: () => void): Promise<void> {
  const found = await stat(file)
  if (found.isBlockDevice()) {
    throw new ParError('FILE_NOT_FOUND',
      `${shownPath(file)}: cannot be written: it is a disk. Give the name of a file.`)
  }
  const wait = pauses(check)
  let handle: FileHandle | undefined
  while (handle === undefined) {
    handle = await open(file,
      constants.O_WRONLY | O_NONBLOCK | O_NOCTTY).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENXIO' || !found.isFIFO()) throw error
      await wait() // nobody has opened it for reading
      return undefined
    })
  }
  const opened = handle
  try {
    await writeBits(async (from, length) => (await opened.write(bytes, from, length)).bytesWritten, bytes.length, check)
  } finally {
    await handle.close()
  }
}

/** Writes so many bytes, as many at a time as are taken. */
async function writeBits (
  write: (from: number, length: number) => Promise<number>, length: number, check: () => void
): Promise<void> {
  const full = pauses(check)
  for (let done = 0; done < length;) {
    try {
      done += await write(done, length - done)
      full.restart()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      await full()
    }
  }
}

/** Writes where a descriptor stands, or at the end where it is open for appending. */
async function writeTo (descriptor: number, bytes: Uint8Array, from: number, length: number): Promise<number> {
  return await new Promise((resolve, reject) => {
    write(descriptor, bytes, from, length, null, (error, written) => { error ? reject(error) : resolve(written) })
  })
}

/** Waits, longer each time. @throws what `check` throws */
function pauses (check: () => void): (() => Promise<void>) & { restart: () => void } {
  let next = 1
  const wait = async (): Promise<void> => {
    await sleep(next)
    check()
    next = Math.min(next * 2, longestPause)
  }
  return Object.assign(wait, { restart: () => { next = 1 } })
}

/** Whether files can be made in `folder`: makes one, since permissions alone do not tell (read-only, full, /proc). */
export async function tryFolder (folder: string): Promise<Stats> {
  return await withPart(absolute(folder), async part => {
    const handle = await create(part)
    try {
      return await handle.stat()
    } finally {
      await handle.close()
    }
  })
}

// ---- reading

/** Bytes that a file read whole may have: as many as the largest pictures that sharp takes. */
const maxBytes = 2 ** 30

/**
 * The bytes of a file.
 * @param limit the largest size that is read
 * @param pipes whether a pipe is read, too; devices and sockets never are
 * @param check called now and then; an error thrown in it ends the reading with that error
 * @throws ParError `FILE_NOT_FOUND`
 */
export async function readWhole (
  file: string,
  { limit = maxBytes, pipes = false, check = () => {} }: { limit?: number, pipes?: boolean, check?: () => void } = {}
): Promise<Buffer> {
  const full = absolute(file)
  let handle: FileHandle | undefined
  try {
    check()
    readable(await stat(full), full, pipes) // before opening: that alone may do something to a device
    handle = await open(full, constants.O_RDONLY | O_NONBLOCK | O_NOCTTY)
    const found = await handle.stat()
    readable(found, full, pipes)
    if (found.size > limit) throw tooLarge(full, limit)
    const wait = pauses(check)
    // One byte more than there should be, to see the end. Files of /proc say 0 and have more.
    let bytes = Buffer.allocUnsafeSlow(Math.max(found.size + 1, 1 << 14))
    for (let done = 0; ;) {
      check()
      const read = await handle.read(bytes, done, Math.min(bytes.length - done, 1 << 24),
        null).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EAGAIN') throw error
        return undefined
      })
      // nobody has written yet
      if (read === undefined || (read.bytesRead === 0 && done === 0 && found.isFIFO())) await wait()
      else if (read.bytesRead === 0) return bytes.subarray(0, done)
      else {
        wait.restart()
        done += read.bytesRead
        if (done > limit) throw tooLarge(full, limit)
        if (done === bytes.length) bytes = Buffer.concat([bytes, Buffer.allocUnsafeSlow(bytes.length)])
      }
    }
  } catch (error) {
    check()
    throw fromSystem(error, full, 'read')
  } finally {
    await handle?.close().catch(() => {})
  }
}

function readable (found: Stats, file: string, pipes: boolean): void {
  if (found.isFile() || (pipes && found.isFIFO())) return
  const what = found.isDirectory() ? 'a folder' : found.isFIFO() ? 'a pipe' : found.isSocket() ? 'a socket' : 'a device'
  throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be read: it is ${what}. Give the path of a file.`)
}

function tooLarge (file: string, limit: number): ParError {
  return new ParError('FILE_NOT_FOUND',
    `${shownPath(file)}: cannot be read: it has more than ${limit} bytes, which is the limit. Is it the right file?`)
}

// ---- errors

type Doing = 'read' | 'written'

const permission = 'permission denied. Check the path and its permissions.'
const missing = 'Check the path.'
/** On Windows the same errors come where a file is open. */
const held = 'permission denied, or another program has it open. Close that program, or check the path and its ' +
  'permissions.'
const cures: Record<string, { read: string, written: string } | string> = {
  ENOENT: {
    read: `there is no such file. ${missing}`, written: 'its folder does not exist. Make it, or check the path.'
  },
  EISDIR: `it is a folder, not a file. ${missing}`,
  ENOTDIR: `a part of the path is no folder. ${missing}`,
  EACCES: permission,
  EPERM: permission,
  ENOSPC: 'no space is left. Free some, or choose another place.',
  EDQUOT: 'the disk quota is used up. Free some space, or choose another place.',
  EFBIG: 'it would become larger than the file system or a limit of this process (ulimit -f) allows. Choose another ' +
    'place.',
  EROFS: 'the file system is read-only. Choose another place.',
  ENOTSUP: 'its file system takes no new files or folders. Choose another place.',
  ENAMETOOLONG: 'the name is too long. Choose a shorter one.',
  ELOOP: `its symbolic links go round in a circle. ${missing}`,
  EMFILE: 'this process has too many files open. Close some, or raise the limit (ulimit -n).',
  ENFILE: 'the system has too many files open. Close some, or raise its limit.',
  ENOMEM: 'the system has no memory left for it. Free some, and try again.',
  EBADF: 'this process has nothing open under that number, or not for that. Open it, or give the name of a file.',
  EIO: 'the disk or the network failed while it was in work. Check the disk, and try again.',
  ESTALE: 'the network file system no longer knows it. Mount it again, and try again.',
  ETIMEDOUT: 'the network file system does not answer. Check the connection, and try again.',
  EBUSY: 'it is in use by something else, or a mount point. Choose another name, or try again later.',
  ETXTBSY: 'it is a program that runs. Choose another name.',
  EPIPE: 'the reader has closed the pipe before it had taken everything.',
  ENXIO: 'it is a device or a socket that nothing answers at. Give the name of a file.',
  EEXIST: 'something else has that name. Choose another name.',
  ENOTEMPTY: 'a folder that is not empty has that name. Choose another name.',
  EXDEV: 'it lies on another file system than its folder. Choose another name.',
  ERR_ACCESS_DENIED: {
    read: "Node's permission model forbids it. Start node with --allow-fs-read for its folder.",
    written: "Node's permission model forbids it. Start node with --allow-fs-read and --allow-fs-write for its folder."
  }
}

/** Why the system refused, and what to do. */
export function systemReason (
  error: unknown, doing: Doing, file?: string, platform: string = process.platform
): string {
  const { code = '', errno = 0 } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' && doing === 'written' && file !== undefined) {
    return `there is no folder ${shownPath(path.dirname(file))}. Make it, or check the path.`
  }
  if (platform === 'win32' && ['EPERM', 'EACCES', 'EBUSY'].includes(code)) return held
  const cure = cures[code]
  if (cure !== undefined) return typeof cure === 'string' ? cure : cure[doing]
  // Not the error's own message: it holds the path as it is.
  const words = getSystemErrorMap().get(errno)?.[1]
  return `the system says ${words === undefined ? code : `${words} (${code})`}. ${missing}`
}

/**
 * Turns an error of the file system into FILE_NOT_FOUND; anything else is returned unchanged.
 * @param place where `file` leads, if it is a link
 */
export function fromSystem (error: unknown, file: string, doing: Doing, place = file): unknown {
  const code = (error as { code?: unknown } | null)?.code
  if (error instanceof ParError || typeof code !== 'string' ||
    !/^(E[A-Z0-9]+|UNKNOWN|ERR_ACCESS_DENIED|ERR_FS_\w+)$/.test(code)) {
    return error
  }
  return new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be ${doing}: ${systemReason(error, doing, place)}`,
    { cause: error })
}
