// parvis generate, with a model that makes videos: a file for each video, or a file for each frame of one. The ending
// of the name chooses the format.

import path from 'node:path'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { Video, videoExtensions, videoFormats, type GeneratedVideo, type VideoFormat } from '../api/video.js'
import {
  effectiveSeeds, randomSeed, type GenerateVideoOptions, type PassesOption, type SamplingOptions
} from '../api/options.js'
import type { Par } from '../api/par.js'
import { maxImages } from '../api/tokens.js'
import { needFfmpeg } from '../pictures/ffmpeg.js'
import { defaultName, isFolderName, namesOf, numberedFrame, type Named } from './names.js'
import { checkWritable, prepare, writeOutput } from './outputs.js'
import { arrange, encode, formatOf, formats } from './picture.js'
import type { Progress } from './progress.js'
import { note, print, printJson, printSummary, shown, UsageError } from './terminal.js'
import type { ImageFormat } from '../api/image.js'

/** Formats that a picture has not. */
export const onlyVideos = videoFormats.filter(format => !(formats as readonly string[]).includes(format))

/** Whether a name or --format is one of videos alone. */
export const isOfVideos = (out: string | undefined, format: string | undefined): boolean =>
  (onlyVideos as readonly string[]).includes(format ?? videoExtensions[path.extname(out ?? '').toLowerCase()] ?? '')

export interface VideoJob {
  par: Par
  /** As they were given: numbers or names. */
  classes: readonly number[]
  /** Videos of each class. */
  count: number
  seed: number | undefined
  sampling: Pick<GenerateVideoOptions, 'n' | keyof SamplingOptions | keyof PassesOption>
  fps: number | undefined
  scale: number
  /** As `placeOf` of generate.ts says. */
  place: 'sheet' | 'stdout' | 'each' | 'none'
  out: string | undefined
  format: string | undefined
  json: boolean
  withTokens: boolean
  progress: Progress
  signal: AbortSignal
}

/** Flags that are about pictures. */
export const pictureFlags = ['columns', 'animate', 'size', 'tokenOrder', 'steps', 'groupSizes', 'stepSchedule',
  'guidanceSchedule'] as const

export async function generateVideos (job: VideoJob): Promise<void> {
  const { par, classes, count, sampling, fps, place, out, progress, signal, json } = job
  const { seed = randomSeed() } = job
  const all = classes.length * count
  if (all > maxImages) {
    throw new UsageError(`${all} videos are too many for one call; at most ${maxImages} are possible`)
  }
  if (all > 1 && place === 'stdout') throw new UsageError(`standard output takes one video; these are ${all}`)
  if (all > 1 && place === 'sheet') {
    throw new UsageError(`a file holds one video, and these are ${all}; give --each, or --out a folder/`)
  }
  const frames = framesOf(out, place)
  if (frames && all > 1) {
    throw new UsageError(`${shownPath(out!)} stands for the frames of one video, and these are ${all}`)
  }
  const format = frames ? 'webp' : formatOfVideo(out, job.format)
  if (place !== 'none' && (format === 'mp4' || format === 'webm')) await needFfmpeg(`A video in .${format}`)
  const { transformer } = par.info
  const classId = classes.flatMap(id => Array<number>(count).fill(id))
  const seeds = effectiveSeeds(classId, seed)
  const named: Named[] = classId.map((id, k) => ({
    classId: id, label: par.labels?.[id], n: sampling.n ?? transformer!.n, method: transformer!.method, seed: seeds[k]!
  }))
  const names = place === 'each' && !frames ? namesOf(named, out, format) : [out ?? defaultName(named, format)]
  if (place === 'each') {
    const first = frames ? [numberedFrame(out!, 0)] : names
    await prepare(first, frames ? first[0] : out, signal)
  } else if (place === 'sheet') {
    await checkWritable(names[0]!)
  }

  const started = performance.now()
  const videos = await par.generateVideo({
    classId, seed, ...sampling, fps, signal,
    onProgress: ({ step, steps, tokensDone, tokens }) => {
      progress.update(tokensDone, tokens, `${step}/${steps} steps`)
    }
  })
  const milliseconds = Math.round(performance.now() - started)
  const written: string[] = []
  for (const [k, video] of videos.entries()) {
    if (place === 'none') break
    const shown = enlarged(video, job.scale)
    signal.throwIfAborted()
    if (frames) {
      for (let index = 0; index < shown.frames; index++) {
        const name = numberedFrame(out!, index)
        await writeOutput(name, await encode(shown.frame(index), frames), signal)
        written.push(name)
      }
      continue
    }
    const bytes = await shown.toBuffer(format)
    if (place !== 'stdout') await writeOutput(names[k]!, bytes, signal)
    else if (!await print(bytes)) {
      throw new ParError('BAD_IMAGE', 'standard output was closed before it had taken the video')
    }
    written.push(place === 'stdout' ? '-' : names[k]!)
  }
  progress.stop()
  if (json) {
    return await printJson({
      ...(place !== 'none' && { format: frames ?? format }), n: videos[0]!.n, seed, device: par.info.device,
      milliseconds,
      videos: videos.map((video, k) => ({
        ...(place !== 'none' &&
        (frames ? { files: written.map(file => absolute(file)) } : { file: absolute(written[k]!) })),
        ...about(video, job.scale), ...(job.withTokens && { tokens: Array.from(video.tokens) })
      }))
    })
  }
  const text = describe(videos, written, frames !== undefined, job.scale, milliseconds)
  if (place === 'stdout') note(text)
  else await printSummary(text + '\n')
}

/** The format of the pictures that the frames become, where the name stands for them. */
function framesOf (out: string | undefined, place: VideoJob['place']): ImageFormat | undefined {
  if (place !== 'each' || out === undefined || isFolderName(out)) return undefined
  const ending = path.extname(out).toLowerCase()
  return ending === '' || videoExtensions[ending] ? undefined : formatOf(out)
}

function formatOfVideo (out: string | undefined, asked: string | undefined): VideoFormat {
  const ending = path.extname(out ?? '').toLowerCase()
  const format = asked ?? (out === undefined || out === '-' || isFolderName(out) || ending === ''
    ? 'webp'
    : videoExtensions[ending])
  if (format !== undefined && (videoFormats as readonly string[]).includes(format)) return format as VideoFormat
  throw new UsageError(`${asked ?? shownPath(out!)} is no format of videos: they are written as ` +
    `${videoFormats.join(', ')}, and their frames as pictures where the name has %d: frame-%02d.png`)
}

function enlarged (video: GeneratedVideo, scale: number): Video {
  if (scale === 1) return video
  const { frames, width, height, fps } = video
  // One frame below the other is a picture.
  const { data } = arrange([{ data: video.data, width, height: frames * height }], 1, scale)
  return new Video({ data: data as Uint8Array<ArrayBuffer>, frames, width: width * scale, height: height * scale, fps })
}

function about ({ classId, label, seed, steps, frames, width, height, fps, timings }: GeneratedVideo, scale: number) {
  return {
    classId, label, seed, steps, frames, width: width * scale, height: height * scale, fps,
    timings: Object.fromEntries(Object.entries(timings).map(([name, ms]) => [name, Number((ms as number).toFixed(3))]))
  }
}

function describe (
  videos: readonly GeneratedVideo[], written: readonly string[], areFrames: boolean, scale: number, milliseconds: number
): string {
  const { n, steps, frames, width, height, fps } = videos[0]!
  const sizes = `${frames} frames of ${width * scale} x ${height * scale} px, ${fps} a second`
  const name = ({ label, classId }: GeneratedVideo): string =>
    label === undefined ? `class ${classId}` : shown`${label} (${classId!})`
  const lines = areFrames
    ? [shown`${written[0]!} to ${written.at(-1)!}: ` + `${name(videos[0]!)}, ${sizes}`]
    : videos.slice(0, shownFiles).map((video, k) =>
      shown`${written[k] === '-' ? 'standard output' : written[k]!}: ` +
        `${name(video)}, seed ${video.seed}${videos.length === 1 ? `, ${sizes}` : ''}`)
  if (videos.length > shownFiles) lines.push(`... ${videos.length} files, the last one ${written.at(-1)!}`)
  const each = videos.length === 1 ? '' : `, ${sizes}`
  return [...lines, `n = ${n}, ${steps} steps${each}, ${(milliseconds / 1000).toFixed(2)} s`].join('\n')
}

/** Names that are printed; of more files the last one. */
const shownFiles = 10
