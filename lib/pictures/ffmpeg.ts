// The user's own ffmpeg, for the video files that sharp neither writes nor reads. It is found by its name, never
// installed, and told everything by arguments of a fixed form: no text of a caller is among its options but the name of
// a file, and it opens nothing but files.

import { spawn } from 'node:child_process'
import { access, mkdtemp, rm, stat } from 'node:fs/promises'
import { constants } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { fromSystem, readWhole } from '../base/files.js'
import { shownPath, visible } from '../base/text.js'
import { removal } from '../base/windows.js'

/** Formats that ffmpeg writes here: its muxer and the options of its encoder. */
const encoders = {
  mp4: ['-c:v', 'libx264', '-preset', 'medium', '-crf', '18', '-movflags', '+faststart', '-f', 'mp4'],
  webm: ['-c:v', 'libvpx-vp9', '-crf', '24', '-b:v', '0', '-row-mt', '1', '-f', 'webm']
} as const

export type FfmpegFormat = keyof typeof encoders

const variable = 'PARVIS_FFMPEG'
const install = `Install it (Debian, Ubuntu: apt-get install ffmpeg; macOS: brew install ffmpeg), or set ${variable} ` +
  'to the path of a program. Or choose .webp, .gif or .y4m, which need none.'

/** Where a program may be, by PATH. Its relative folders do not count: the current folder may be anybody's. */
export function programPlaces (name: string, folders = '', platform: string = process.platform): string[] {
  const { delimiter, isAbsolute, join } = platform === 'win32' ? path.win32 : path.posix
  return folders.split(delimiter)
    .map(folder => platform === 'win32' ? folder.trim().replace(/^"(.*)"$/, '$1') : folder)
    .filter(folder => isAbsolute(folder))
    .map(folder => join(folder, platform === 'win32' ? `${name}.exe` : name))
}

/** The program, and what says where it is: PARVIS_FFMPEG, or the folders of PATH. Undefined where there is none. */
export async function findFfmpeg (): Promise<{ file: string, from: string } | undefined> {
  const given = process.env[variable]
  if (given !== undefined && given !== '') return { file: given, from: variable }
  for (const file of programPlaces('ffmpeg', process.env.PATH)) {
    const usable = await stat(file).then(async found => found.isFile() && await access(file, constants.X_OK).then(
      () => true, () => false), () => false)
    if (usable) return { file, from: 'PATH' }
  }
  return undefined
}

/** @throws ParError `NATIVE_UNAVAILABLE` */
export async function needFfmpeg (what: string): Promise<{ file: string, from: string }> {
  const found = await findFfmpeg()
  if (found) return found
  throw new ParError('NATIVE_UNAVAILABLE',
    `${what} needs the program ffmpeg, and none is in the folders of PATH. ${install}`)
}

/**
 * A video file.
 * @param frames RGB, [frames, height, width, 3]
 * @throws ParError `NATIVE_UNAVAILABLE` where there is no ffmpeg or it fails; `FILE_NOT_FOUND` where the folder for
 * temporary files cannot be written
 */
export async function encodeVideo (
  frames: Uint8Array, { width, height, fps }: { width: number, height: number, fps: number }, format: FfmpegFormat
): Promise<Buffer> {
  const what = `A video in .${format}`
  const program = await needFfmpeg(what)
  const temporary = os.tmpdir()
  const folder = await mkdtemp(path.join(temporary, 'parvis-video-'))
    .catch((error: unknown) => { throw fromSystem(error, temporary, 'written') })
  try {
    const output = path.join(folder, `video.${format}`) // a muxer goes back to its beginning: no pipe
    // Both encoders want even sides: a row or a column of black is added to odd ones.
    await run(program, ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', `${width}x${height}`, '-r', String(fps), '-i',
      'pipe:0', '-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2', '-pix_fmt', 'yuv420p', ...encoders[format], `file:${output}`],
    { what, cure: 'Its build may lack the encoder: another ffmpeg, or .webp, .gif or .y4m, helps.', input: frames })
    return await readWhole(output)
  } finally {
    await rm(folder, removal).catch(() => {})
  }
}

/** Frames that a program wrote, as they came. */
export interface ReadFrames {
  /** RGB, [frames, height, width, 3] */
  data: Uint8Array
  frames: number
  width: number
  height: number
}

/** Bytes of frames that are read from a file at most. */
const maxFrameBytes = 2 ** 30

/**
 * The frames of a video file.
 * @param fps frames a second that are taken; absent: all that there are
 * @param frames how many at most
 * @throws ParError `NATIVE_UNAVAILABLE` where there is no ffmpeg; `BAD_IMAGE` where it cannot read the file
 */
export async function readVideo (
  file: string, { fps, frames, signal }: { fps?: number | undefined, frames?: number | undefined, signal: AbortSignal }
): Promise<ReadFrames> {
  const what = `The video ${shownPath(file)}`
  const program = await needFfmpeg(what)
  const bytes = await run(program, ['-protocol_whitelist', 'file', '-i', `file:${file}`, '-map', '0:v:0',
    ...fps === undefined ? [] : ['-vf', `fps=${fps}`], ...frames === undefined ? [] : ['-frames:v', String(frames)],
    '-f', 'image2pipe', '-c:v', 'ppm', '-pix_fmt', 'rgb24', 'pipe:1'],
  { what, cure: 'Is it a video?', code: 'BAD_IMAGE', limit: maxFrameBytes, signal })
  return pictures(bytes, what)
}

/** PPM pictures one behind the other, all of one size. */
function pictures (bytes: Buffer, what: string): ReadFrames {
  const found: Buffer[] = []
  let [width, height] = [0, 0]
  for (let at = 0; at < bytes.length;) {
    const header = /^P6\n(\d{1,5}) (\d{1,5})\n255\n/.exec(bytes.toString('latin1', at, at + 32))
    const sides = header?.slice(1).map(Number)
    const end = at + (header?.[0].length ?? 0) + 3 * (sides?.[0] ?? 0) * (sides?.[1] ?? 0)
    if (!header || end > bytes.length || (found.length > 0 && (sides![0] !== width || sides![1] !== height))) {
      throw new ParError('BAD_IMAGE', `${what}: ffmpeg gave no whole frames of one size`)
    }
    ;[width, height] = sides as [number, number]
    found.push(bytes.subarray(at + header[0].length, end))
    at = end
  }
  if (found.length === 0) throw new ParError('BAD_IMAGE', `${what} holds no frames`)
  return { data: Buffer.concat(found), frames: found.length, width, height }
}

/** Characters of what a program says that are kept. */
const maxSaid = 4000

interface RunOptions {
  what: string
  /** Where the program itself fails. */
  cure: string
  code?: 'NATIVE_UNAVAILABLE' | 'BAD_IMAGE'
  input?: Uint8Array
  /** Bytes of standard output at most. */
  limit?: number
  signal?: AbortSignal
}

/** What the program wrote to standard output. */
async function run (
  { file, from }: { file: string, from: string }, args: readonly string[],
  { what, cure, code: failed = 'NATIVE_UNAVAILABLE', input, limit = 0, signal }: RunOptions
): Promise<Buffer> {
  const problem = (why: string, cure: string, code: RunOptions['code'] = 'NATIVE_UNAVAILABLE'): ParError =>
    new ParError(code, `${what}: ${shownPath(file)} (by ${from}) ${why}. ${cure}`)
  return await new Promise<Buffer>((resolve, reject) => {
    const child = spawn(file, ['-hide_banner', '-loglevel', 'error', '-nostdin', '-y', ...args],
      { stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe'], windowsHide: true })
    const abort = (): void => {
      child.kill('SIGKILL')
      reject(signal!.reason)
    }
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    const chunks: Buffer[] = []
    let length = 0
    child.stdout!.on('data', (bytes: Buffer) => {
      length += bytes.length
      if (length <= limit) return chunks.push(bytes)
      chunks.length = 0
      child.kill('SIGKILL')
      reject(problem(`gives more than ${limit} bytes`, 'Give grid or fps, or cut the video.', failed))
    })
    let said = ''
    child.stderr!.on('data', (bytes: Buffer) => { said = (said + bytes.toString('utf8')).slice(-maxSaid) })
    child.stdin?.on('error', () => {}) // it ended before it had read everything, and says why
    child.on('error', ({ code }: NodeJS.ErrnoException) => {
      reject(problem(code === 'ENOENT' ? 'is not there' : `cannot be started (${String(code)})`, install))
    })
    child.on('close', (code, by) => {
      signal?.removeEventListener('abort', abort)
      if (code === 0) return resolve(Buffer.concat(chunks))
      const last = said.trim().split('\n').at(-1) ?? ''
      const why = last === '' ? `ended with ${by ?? `exit code ${code}`}` : `failed: ${visible(last, 300)}`
      reject(problem(why, cure, failed))
    })
    child.stdin?.end(input)
  })
}
