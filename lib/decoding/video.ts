// From class ids to videos: what draw.ts draws on a grid of three axes, frame after frame, and the frames that the
// tokenizer makes of it. A frame is final as soon as its tokens are known.

import { performance } from 'node:perf_hooks'
import { isDeepStrictEqual } from 'node:util'
import { Image } from '../api/image.js'
import { GeneratedVideo } from '../api/video.js'
import { effectiveSeeds, resolveSampling, type CheckedGenerateVideo } from '../api/options.js'
import type { Call } from '../base/call.js'
import type { VideoFrame, VideoProgress } from '../base/progress.js'
import { invalid } from '../base/validate.js'
import { resolveClasses } from '../models/labels.js'
import type { Models, TransformerPart, VideoTokenizerPart } from '../models/models.js'
import { pauses } from '../pictures/resample.js'
import { claimVideos, decodeVideoTokens, FrameDecoder, videoSize, type VideoGrid } from '../pictures/videos.js'
import { draw, type Drawn, type DrawnStep } from './draw.js'
import { planFor } from './plans.js'
import { checkPrefixes, prefixesOf } from './prefix.js'

/** [frames, rows, columns] of a model that makes videos. @throws ParError `INVALID_OPTION` for one of pictures */
export function videoGrid ({ frames, grid }: TransformerPart): [frames: number, rows: number, columns: number] {
  if (frames === undefined) {
    throw invalid(`This model makes pictures (${grid.join(' x ')} tokens), not videos: call generate or stream`)
  }
  return [frames, ...grid]
}

/** @throws ParError `INVALID_OPTION` for a model that makes videos */
export function needPictures ({ frames, grid }: TransformerPart): void {
  if (frames === undefined) return
  throw invalid(`This model makes videos (${frames} x ${grid.join(' x ')} tokens): call generateVideo or streamVideo`)
}

/** One video of a group on its way to frames. */
interface InWork { decoder: FrameDecoder, data: Uint8Array<ArrayBuffer>, done: number, at: number, ms: number }

/**
 * One yield a step; the last carries the videos, which are also the generator's return value. Returning early (`break`)
 * cancels what is enqueued and frees the session.
 * @param streaming frames are made, and handed out, as soon as their tokens are known; else when all are
 */
export async function * runVideo (
  models: Models, request: CheckedGenerateVideo, call: Call, streaming: boolean
): AsyncGenerator<VideoProgress, GeneratedVideo[], void> {
  const part = await models.transformerFor(request.n, call)
  const grid = videoGrid(part)
  const tokenizer = models.videoTokenizer
  const { prefixes } = request
  checkPrefixes(part, prefixes)
  // Of texts, which have no number: the place of the first one that is the same.
  const classIds = prefixes?.map(prefix => prefixes.findIndex(other => isDeepStrictEqual(other, prefix))) ??
    await resolveClasses(request.classIds, part.model.classes, part.labels, pauses(() => call.check()))
  const seeds = effectiveSeeds(classIds, request.seed)
  const plan = planFor(part, request.decoding)
  const sampling = resolveSampling(request.sampling, part, plan.tokensAfter.length)
  const claim = tokenizer && await claimVideos(tokenizer, call, classIds.length, grid, 'uint8')
  const videos: GeneratedVideo[] = []
  let working: InWork[] = []
  const drawing = {
    part, plan, passes: request.passes, classIds: prefixes ? classIds.map(() => 0) : classIds, seeds, sampling,
    orders: [], known: undefined, prefixes: prefixesOf(part, classIds, prefixes)
  }
  for await (const done of draw(models, call, drawing)) {
    const frames = streaming && tokenizer ? await advance(tokenizer, done) : []
    const finished: GeneratedVideo[] = []
    for (const [i, drawn] of (done.drawn ?? []).entries()) {
      finished.push(await finish(done, drawn, i, prefixes?.[done.from + i]))
    }
    if (done.drawn) working = []
    videos.push(...finished)
    yield {
      step: done.step,
      steps: done.steps,
      tokensDone: done.from * plan.tokens + done.pictures.length * done.known,
      tokens: classIds.length * plan.tokens,
      ...(frames.length > 0 && { frames }),
      ...(finished.length > 0 && { finished }),
      ...(done.last && { videos })
    }
  }
  return videos

  /** Makes the frames of all videos of the group whose tokens are known by now. */
  async function advance (
    tokenizer: VideoTokenizerPart, { from, pictures, known, tokensOf, drawn }: DrawnStep
  ): Promise<VideoFrame[]> {
    const cells = grid[1] * grid[2]
    const complete = Math.floor(known / cells)
    const [, height, width] = videoSize(tokenizer, grid)
    const made: VideoFrame[] = []
    for (const [seat, picture] of pictures.entries()) {
      const began = performance.now()
      const work = working[seat] ??= {
        decoder: await FrameDecoder.open(tokenizer, call, grid), data: framesOf(tokenizer, grid), done: 0, at: 0, ms: 0
      }
      if (work.done === complete) continue
      const raster = drawn?.[seat]!.raster ?? picture.toRaster(await call.wait(tokensOf!(seat)))
      for (; work.done < complete; work.done++) {
        const pixels = await work.decoder.decode(raster.slice(work.done * cells, (work.done + 1) * cells), 'uint8')
        work.data.set(pixels, work.at)
        for (let k = 0; k < pixels.length; k += height * width * 3) {
          const data = pixels.slice(k, k + height * width * 3) as Uint8Array<ArrayBuffer>
          made.push({ video: from + seat, index: (work.at + k) / data.length, image: new Image(data, width, height) })
        }
        work.at += pixels.length
      }
      work.ms += performance.now() - began
    }
    return made
  }

  async function finish (
    { started, transformerMs }: DrawnStep, { raster, classId, seed, passes }: Drawn, seat: number,
    prefix: number[] | undefined
  ): Promise<GeneratedVideo> {
    const began = performance.now()
    const work = working[seat]
    if (work) call.release(work.decoder)
    const data = work?.data ?? (tokenizer
      ? await decodeVideoTokens(tokenizer, call, raster, grid, 'uint8', claim!) as Uint8Array<ArrayBuffer>
      : new Uint8Array(0))
    const [frames, height, width] = tokenizer ? videoSize(tokenizer, grid) : [0, 0, 0]
    const totalMs = performance.now() - started
    const decodeMs = work?.ms ?? (tokenizer ? performance.now() - began : 0)
    return new GeneratedVideo({
      data,
      frames,
      width,
      height,
      fps: request.fps,
      tokens: raster,
      grid: [...grid],
      classId: prefix ? undefined : classId,
      prefix: prefix && [...prefix],
      label: prefix ? undefined : part.labels?.[classId],
      n: part.n,
      seed,
      steps: plan.tokensAfter.length,
      passes,
      timings: { transformerMs: transformerMs - working.reduce((sum, { ms }) => sum + ms, 0), decodeMs, totalMs }
    })
  }

  function framesOf (tokenizer: VideoTokenizerPart, grid: VideoGrid): Uint8Array<ArrayBuffer> {
    const data = new Uint8Array(videoSize(tokenizer, grid).reduce((product, side) => product * side, 3))
    claim!.took(data.byteLength)
    return data
  }
}
