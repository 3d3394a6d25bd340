// The standard cache of the Hub, as huggingface_hub, hf-hub and @huggingface/hub lay it out: contents under their
// hashes in `blobs`, a folder of links for each commit in `snapshots`, and the commit of a branch in `refs`.

import { copyFile, link, lstat, readdir, stat, symlink } from 'node:fs/promises'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { readWhole, systemReason, withPart, writePart } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import type { HubFile } from '../models/presets.js'
import { shownPath } from '../base/text.js'
import { renameOver } from '../base/windows.js'

/** The branch that presets mean. */
export const branch = 'main'

/** What the system says of a name that is not there; any other error leaves open whether it is. */
const absent = new Set(['ENOENT', 'ENOTDIR'])
/** The cure of a cache that is of no use. */
export const elsewhere = 'HF_HUB_CACHE chooses another folder for the cache.'

/** What the system says where it makes no symbolic links at all, whatever their names are. */
const noLinks = new Set(['EPERM', 'UNKNOWN', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EISDIR'])
/** Caches of which it has said so. */
const linkless = new Set<string>()

export class CachedRepository {
  readonly folder: string
  readonly blobs: string

  constructor (private readonly cache: string, repository: string) {
    this.folder = path.join(cache, `models--${repository.replaceAll('/', '--')}`)
    this.blobs = path.join(this.folder, 'blobs')
  }

  blob (oid: string): string { return path.join(this.blobs, oid) }
  pointer (commit: string, file: string): string { return path.join(this.folder, 'snapshots', commit, file) }

  /**
   * Makes `name` a link to a blob: a symbolic one, or a hard one, since Windows lets only some users make symbolic
   * links, and some file systems know none. False where neither can be.
   */
  async #link (blob: string, name: string): Promise<boolean> {
    if (!linkless.has(this.cache)) {
      try {
        await symlink(path.relative(path.dirname(name), blob), name)
        // Some systems (wine is one) say that they have made a link, and have not.
        if (await lstat(name).then(() => true, () => false)) return true
        linkless.add(this.cache)
      } catch (error) {
        if (noLinks.has((error as NodeJS.ErrnoException).code ?? '')) linkless.add(this.cache)
      }
    }
    return await link(blob, name).then(() => true, () => false)
  }

  /** The commit of the branch, as far as the cache knows; '' where it does not. */
  async #commit (): Promise<string> {
    // A few bytes. Whatever else bears the name (a folder, a pipe) tells nothing.
    const bytes = await readWhole(path.join(this.folder, 'refs', branch), { limit: 1000 }).catch(() => undefined)
    return bytes?.toString('latin1').trim() ?? ''
  }

  /**
   * The file as of the branch, else as of any commit that has it.
   * @throws ParError `FILE_NOT_FOUND` where it is not found, and the cache cannot be looked through: it may be there
   */
  async find (file: string): Promise<{ path: string, commit: string } | undefined> {
    let fault: { error: NodeJS.ErrnoException, at: string } | undefined
    const unlessAbsent = (at: string) => (error: NodeJS.ErrnoException): undefined => {
      if (!absent.has(error.code ?? '')) fault ??= { error, at }
    }
    const current = await this.#commit()
    const snapshots = path.join(this.folder, 'snapshots')
    const others = (await readdir(snapshots).catch(unlessAbsent(snapshots)) ?? []).filter(commit => commit !== current)
    for (const commit of [current, ...others.sort()]) {
      if (!/^[0-9a-f]{40}$/.test(commit)) continue
      const pointer = this.pointer(commit, file)
      if ((await stat(pointer).catch(unlessAbsent(pointer)))?.isFile()) return { path: pointer, commit }
    }
    const folder = await stat(this.cache).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') fault ??= { error, at: this.cache }
    })
    if (folder?.isDirectory() === false) {
      throw new ParError('FILE_NOT_FOUND', `${shownPath(this.cache)}: is no folder, so it is no cache. ${elsewhere}`)
    }
    if (fault) {
      throw new ParError('FILE_NOT_FOUND',
        `${shownPath(fault.at)}: cannot be read: ${systemReason(fault.error, 'read')} ${elsewhere}`,
        { cause: fault.error })
    }
    return undefined
  }

  /**
   * Gives a finished blob its name in a commit, and the commit its branch. Writes nothing where all is as it should be,
   * for caches that are read-only. Doing it again, or twice at once, changes nothing.
   * @param named whether the name in the commit has the right content already
   * @param isNew whether the blob has just arrived, so that no other name can lead to it
   */
  async publish (
    commit: string, file: string, oid: string, { named, isNew }: { named: boolean, isNew: boolean }
  ): Promise<void> {
    const pointer = this.pointer(commit, file)
    if (!named) {
      const folder = path.dirname(pointer)
      await makeFolder(folder)
      await withPart(folder, async part => {
        const blob = this.blob(oid)
        const linked = await this.#link(blob, part)
        // The content itself gets the name then, as huggingface_hub does it.
        if (!linked && isNew && linkless.has(this.cache)) return await renameOver(blob, pointer)
        if (!linked) await copyFile(blob, part)
        await renameOver(part, pointer)
      })
    }
    if (await this.#commit() === commit) return
    const refs = path.join(this.folder, 'refs')
    await makeFolder(refs)
    await writePart(path.join(refs, branch), async handle => { await handle.writeFile(commit) }, { keep: false })
  }
}

/**
 * Whether two names lead to one file. As bigints: numbers of files on Windows have 64 bits, and near ones would look
 * the same as doubles.
 */
export async function areOne (file: string, other: string): Promise<boolean> {
  const [one, two] = await Promise.all([file, other]
    .map(async name => await stat(name, { bigint: true }).catch(() => undefined)))
  return one !== undefined && two !== undefined && one.dev === two.dev && one.ino === two.ino
}

/**
 * Where a file lies in the cache, if it does. @throws ParError `FILE_NOT_FOUND` where the cache cannot be looked
 * through
 */
export async function findCached (cache: string, { repository, file }: HubFile): Promise<string | undefined> {
  return (await new CachedRepository(cache, repository).find(file))?.path
}
