// What is different on Windows, as plain functions that are told the platform: tests on any system see what they would
// do there. Node.js itself copes with long names (its file functions take \\?\ for absolute paths), with either slash,
// with shares (\\server\share) and with letters of any script, so nothing here does.

import { rename } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { quote } from './text.js'

// ---- names

const devices = /^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³])$/i

/** Whether a name is that of a device of Windows: `con`, also before an extension and blanks: `nul .tar.gz`. */
export function isDevice (name: string): boolean {
  return devices.test(name.split('.', 1)[0]!.replace(/ +$/, ''))
}

/**
 * Why no file should have the name that a path ends in; undefined where any may. Node.js would make most of these
 * files, by a way around the rules of Windows, and then no other program could open or remove them.
 */
export function nameProblem (file: string, platform: string = process.platform): string | undefined {
  if (platform !== 'win32') return undefined
  const name = path.win32.basename(file)
  if (name === '.' || name === '..') return undefined
  const [forbidden] = /[\u0000-\u001f<>:"|?*]/.exec(name) ?? []
  if (forbidden !== undefined) return `a name on Windows has no ${quote(forbidden)}`
  if (isDevice(name)) return `${quote(name.split('.', 1)[0]!)} is a device of Windows, whatever follows it`
  if (/[. ]$/.test(name)) return 'a name on Windows ends neither in a dot nor in a blank'
  return undefined
}

/** Whether two absolute paths are one. On Windows neither case nor the kind of slash tells names apart. */
export function samePath (one: string, other: string, platform: string = process.platform): boolean {
  if (platform !== 'win32') return one === other
  const plain = (file: string): string =>
    path.win32.resolve(file).toLowerCase().replace(/^\\\\\?\\unc\\/, '\\\\').replace(/^\\\\\?\\/, '')
  return plain(one) === plain(other)
}

/** The path of a file's URL; undefined where it is none of a file on this machine. */
export function fileOfURL (url: string, platform: string = process.platform): string | undefined {
  try {
    const file = fileURLToPath(url, { windows: platform === 'win32' })
    return file.includes('\0') ? undefined : file
  } catch {
    return undefined
  }
}

/** From so many characters on, Windows opens some paths only in the long form; a folder has room for 12 fewer. */
const longest = 260 - 12

/** An absolute path for native code, which opens it as it stands: Node.js is not there to make the long form of it. */
export function nativePath (file: string, platform: string = process.platform): string {
  return platform === 'win32' && file.length >= longest ? path.win32.toNamespacedPath(file) : file
}

// ---- renaming

/** What Windows says of a file that somebody has open: a scanner for viruses, an indexer, a viewer. */
const heldCodes = new Set(['EPERM', 'EACCES', 'EBUSY'])
/** Milliseconds between tries, a second in all: scanners look at what is new, and let go soon. */
const pauses = [10, 20, 40, 80, 150, 300, 400]

/**
 * Renames a file, over another where there is one. On Windows it is tried again for a second while somebody has one of
 * the two open.
 */
export async function renameOver (
  from: string, to: string,
  { platform = process.platform as string, move = rename, wait = sleep as (ms: number) => Promise<unknown> } = {}
): Promise<void> {
  for (const pause of platform === 'win32' ? pauses : []) {
    try {
      return await move(from, to)
    } catch (error) {
      if (!heldCodes.has((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
    await wait(pause)
  }
  await move(from, to)
}

/** Options of `rm` for a temporary folder in which a program that was ended may have a file open for a moment. */
export const removal = { recursive: true, force: true, maxRetries: 5 } as const
