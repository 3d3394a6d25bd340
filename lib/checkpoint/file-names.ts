// The names that a checkpoint's file has: a name may tell what shapes cannot (c2i_B_256.pt), and the path that was
// given may be a link, or a blob of the Hugging Face cache, whose own name is a hash.

import { readdir, readlink, realpath } from 'node:fs/promises'
import path from 'node:path'

const maxLinks = 16
/** Entries of a cache's folders that are looked at. */
const maxEntries = 256

/**
 * The names of a file, without folders: as given, those of links on the way, its own, those by which a cache knows it.
 * Never fails.
 */
export async function namesOfFile (file: string): Promise<string[]> {
  const names = new Set([path.basename(file)])
  let at = path.resolve(file)
  for (let links = 0; links < maxLinks; links++) {
    const target = await readlink(at).catch(() => undefined)
    if (target === undefined) break
    at = path.resolve(path.dirname(at), target)
    names.add(path.basename(at))
  }
  const real = await realpath(file).catch(() => undefined)
  if (real === undefined) return [...names]
  names.add(path.basename(real))
  if (path.basename(path.dirname(real)) === 'blobs') for (const name of await snapshotNames(real)) names.add(name)
  return [...names]
}

/** Names under `snapshots/<commit>/` that lead to a blob. */
async function snapshotNames (blob: string): Promise<string[]> {
  const snapshots = path.join(path.dirname(path.dirname(blob)), 'snapshots')
  const names: string[] = []
  for (const commit of (await list(snapshots)).slice(0, maxEntries)) {
    for (const name of (await list(path.join(snapshots, commit))).slice(0, maxEntries)) {
      const target = await realpath(path.join(snapshots, commit, name)).catch(() => undefined)
      if (target === blob) names.push(name)
    }
  }
  return names
}

async function list (folder: string): Promise<string[]> {
  return await readdir(folder).catch(() => [])
}

/**
 * Pixels per side that a published model's file name tells: 256 of `c2i_B_256.pt`, 384 of
 * `LlamaGen-L-384px.safetensors`. Undefined where the name tells none, or more than one.
 */
export function pixelsOfName (name: string): number | undefined {
  const exact = /(?:^|[^a-z])c2i_(?:b|l|xl|xxl|3b)_(\d{3})(?![\da-z])/i.exec(name)
  if (exact) return Number(exact[1])
  const parts = name.toLowerCase().split(/[^a-z0-9]+/)
  if (!parts.some(part => /^(c2i|llamagen|par)$/.test(part))) return undefined
  const sizes = new Set(parts.flatMap(part => /^(256|384|512)(px|p|x\1)?$/.exec(part)?.[1] ?? []))
  return sizes.size === 1 ? Number([...sizes][0]) : undefined
}
