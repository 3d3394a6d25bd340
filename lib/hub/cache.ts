// The standard cache of the Hub, as huggingface_hub, hf-hub and @huggingface/hub lay it out: contents under their
// hashes in `blobs`, a folder of links for each commit in `snapshots`, and the commit of a branch in `refs`.

import { copyFile, link, mkdir, readdir, readFile, readlink, rename, stat, symlink, unlink } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { writePart } from '../files.js'
import type { HubFile } from '../presets.js'

/** The branch that presets mean. */
export const branch = 'main'

export class CachedRepository {
  readonly folder: string
  readonly blobs: string

  constructor (cache: string, repository: string) {
    this.folder = path.join(cache, `models--${repository.replaceAll('/', '--')}`)
    this.blobs = path.join(this.folder, 'blobs')
  }

  blob (oid: string): string { return path.join(this.blobs, oid) }
  pointer (commit: string, file: string): string { return path.join(this.folder, 'snapshots', commit, file) }

  /** The file as of the branch, else as of any commit that has it. */
  async find (file: string): Promise<string | undefined> {
    const current = (await readFile(path.join(this.folder, 'refs', branch), 'utf8').catch(() => '')).trim()
    const others = (await readdir(path.join(this.folder, 'snapshots')).catch(() => [] as string[])).filter(commit => commit !== current)
    for (const commit of [current, ...others.sort()]) {
      if (!/^[0-9a-f]{40}$/.test(commit)) continue
      const pointer = this.pointer(commit, file)
      if (await isFile(pointer)) return pointer
    }
    return undefined
  }

  /** Gives a finished blob its name in a commit, and the commit its branch. Doing it again, or twice at once, changes nothing. */
  async publish (commit: string, file: string, oid: string): Promise<string> {
    const pointer = this.pointer(commit, file)
    const target = path.relative(path.dirname(pointer), this.blob(oid))
    await mkdir(path.dirname(pointer), { recursive: true })
    if (await readlink(pointer).catch(() => undefined) !== target) {
      const part = path.join(path.dirname(pointer), `.parvis-${randomBytes(6).toString('hex')}.part`)
      try {
        // Windows lets only some users make symbolic links, and some file systems know none.
        await symlink(target, part).catch(async () => await link(this.blob(oid), part)).catch(async () => await copyFile(this.blob(oid), part))
        await rename(part, pointer)
      } finally {
        await unlink(part).catch(() => {}) // gone with the rename; still there where both names were one file already
      }
    }
    const refs = path.join(this.folder, 'refs')
    await mkdir(refs, { recursive: true })
    await writePart(path.join(refs, branch), async handle => { await handle.writeFile(commit) })
    return pointer
  }
}

/** Where a file lies in the cache, if it does. */
export async function findCached (cache: string, { repository, file }: HubFile): Promise<string | undefined> {
  return await new CachedRepository(cache, repository).find(file)
}

export async function isFile (file: string, size?: number): Promise<boolean> {
  const found = await stat(file).catch(() => undefined)
  return found?.isFile() === true && (size === undefined || found.size === size)
}
