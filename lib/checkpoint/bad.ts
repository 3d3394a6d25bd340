// The two ways a checkpoint is refused, and how hostile text is shown: quoted, so that a tensor name cannot send
// escape sequences to a terminal, and cut, so that it cannot fill one.

import { ParError } from '../errors.js'

/** A ParError `BAD_CHECKPOINT` that starts with the file. */
export function bad (file: string, message: string, cause?: unknown): ParError {
  return new ParError('BAD_CHECKPOINT', `${file}: ${message}`, cause === undefined ? undefined : { cause })
}

/** Text from a file, quoted, control characters escaped, cut at 120 characters. */
export function quote (text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}...` : text)
    .replace(/[\u007f-\u009f\u2028\u2029]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** `[2, 3]`; long shapes are cut. */
export function showShape (shape: readonly number[]): string {
  return shape.length > 8 ? `[${shape.slice(0, 8).join(', ')}, ...]` : `[${shape.join(', ')}]`
}

/** A byte count for people: `1.5 GB`. */
export function showBytes (bytes: number): string {
  const units = ['bytes', 'KB', 'MB', 'GB', 'TB']
  let unit = 0
  let value = bytes
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit++ }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

/** Turns an error of the file system into FILE_NOT_FOUND; anything else is returned unchanged. */
export function fromSystem (error: unknown, file: string, doing: 'read' | 'written'): unknown {
  const code = (error as { code?: unknown } | null)?.code
  if (error instanceof ParError || typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) return error
  const why = code === 'ENOENT'
    ? (doing === 'read' ? 'there is no such file' : 'its folder does not exist')
    : code === 'EISDIR'
      ? 'it is a folder, not a file'
      : (code === 'EACCES' || code === 'EPERM') ? 'permission denied' : (error as Error).message
  return new ParError('FILE_NOT_FOUND', `${file}: cannot be ${doing}: ${why}. Check the path.`, { cause: error })
}
