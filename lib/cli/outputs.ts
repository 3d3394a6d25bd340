// The files that commands write: whether they can be, said before the work; the folders that they lie in; and the count
// of them, for what a command says that was stopped on its way.

import fs from 'node:fs/promises'
import path from 'node:path'
import { absolute, findTarget, fromSystem, systemReason, tryFolder, writeWhole, type Target } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import { shownPath } from '../base/text.js'
import { nameProblem, samePath } from '../base/windows.js'
import { isFolderName, isPattern } from './names.js'
import { wrote } from './signals.js'
import { UsageError } from './terminal.js'

// ---- before the work

/** Complains about a name or a folder that cannot take the file. */
export async function checkWritable (
  file: string, tried = new Set<string>(), platform: string = process.platform
): Promise<Target> {
  if (file === '') throw emptyName()
  const refused = (why: string, cause?: unknown): UsageError =>
    new UsageError(`cannot write ${shownPath(file)}: ${why}`, { cause })
  const problem = nameProblem(file, platform)
  if (problem !== undefined) throw refused(`${problem}; choose another name`)
  const folder = path.dirname(absolute(file))
  const missing = await whyNoFolder(folder)
  if (missing !== undefined) throw refused(missing)
  let target: Target
  try {
    target = await findTarget(file)
    if (target.kind === 'special' || target.kind === 'file') await fs.access(file, fs.constants.W_OK)
  } catch (cause) {
    throw refused(systemReason(cause, 'written'), cause)
  }
  if (target.kind === 'folder') throw refused('it is a folder')
  const place = path.dirname(target.path)
  if (target.kind !== 'special' && !tried.has(place)) {
    await checkFolder(place)
    tried.add(place)
  }
  return target
}

function emptyName (): UsageError {
  return new UsageError('the name of the output file is empty; give one, or leave the option out')
}

/** Why a name leads to no folder; undefined where it does. Only what is known to be absent is called so. */
async function whyNoFolder (folder: string): Promise<string | undefined> {
  try {
    return (await fs.stat(folder)).isDirectory() ? undefined : `${shownPath(folder)} is no folder`
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return systemReason(error, 'written')
    const isLink = await fs.lstat(folder).then(found => found.isSymbolicLink(), () => false)
    const shown = shownPath(folder)
    return isLink ? `${shown} is a link to a folder that does not exist` : `there is no folder ${shown}`
  }
}

/** The same for several files. Their folders are tried once each. */
export async function checkAllWritable (files: readonly string[], signal: AbortSignal): Promise<void> {
  const tried = new Set<string>()
  for (const file of files) {
    signal.throwIfAborted()
    await checkWritable(file, tried)
  }
}

/** For a command that writes one file: a name that would be several files elsewhere is none here. */
export async function checkOneFile (file: string): Promise<Target> {
  const why = isFolderName(file)
    ? 'names a folder, and one file is written; add a name for it'
    : isPattern(file) ? 'stands for several files, and one is written; leave out %d and what is in braces' : undefined
  if (why !== undefined) throw new UsageError(`${shownPath(file)} ${why}`)
  return await checkWritable(file)
}

/** Complains about a folder in which no file can be made. */
export async function checkFolder (folder: string): Promise<void> {
  await tryFolder(folder).catch((cause: unknown) => {
    const why = systemReason(cause, 'written')
    throw new UsageError(`no file can be made in ${shownPath(absolute(folder))}: ${why}`, { cause })
  })
}

/** Whether two names lead to one file, by whatever spelling and links. */
export async function isSameFile (one: string, other: string): Promise<boolean> {
  const [first, second] = await Promise.all([one, other].map(async file => {
    const target = absolute((await findTarget(file)).path)
    const folder = path.dirname(target)
    // Folders above it need not be readable.
    return path.join(await fs.realpath(folder).catch(() => folder), path.basename(target))
  }))
  return samePath(first!, second!)
}

// ---- a file for each picture

/** `out`, with a / at its end where it is a folder that is there: a file for each picture is then written into it. */
export async function asFolder (out: string | undefined): Promise<string | undefined> {
  if (out === '') throw emptyName()
  if (out === undefined || isPattern(out)) return out
  return await fs.stat(out).then(found => found.isDirectory(), () => false) ? out + path.sep : out
}

/** Makes the folders that `out` asks for, then complains about names that cannot be written. */
export async function prepare (names: readonly string[], out: string | undefined, signal: AbortSignal): Promise<void> {
  if (out !== undefined && (isFolderName(out) || isPattern(path.dirname(out)))) {
    for (const folder of new Set(names.map(name => path.dirname(name)))) {
      await makeFolder(folder).catch((error: unknown) => { throw fromSystem(error, folder, 'written') })
    }
  }
  await checkAllWritable(names, signal)
}

// ---- writing

/** @throws ParError `FILE_NOT_FOUND`; the signal's reason */
export async function writeOutput (file: string, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  await writeWhole(file, bytes, () => signal.throwIfAborted())
  wrote(file)
}
