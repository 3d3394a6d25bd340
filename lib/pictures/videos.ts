// Tokens of videos to frames and back, frame by frame: native memory is that of a few frames, whatever the length.

import type { Call } from '../base/call.js'
import { isFloat32Array } from '../base/realm.js'
import { invalid } from '../base/validate.js'
import { Claim } from '../machine/budget.js'
import type { NativeVideoDecoder } from '../machine/native.js'
import { videoBytes } from '../models/memory.js'
import type { VideoTokenizerPart } from '../models/models.js'

export type VideoGrid = readonly [frames: number, rows: number, columns: number]

/** Frames of pixels that so many frames of tokens make: the first one makes one. */
export const framesMade = ({ factorTime }: Pick<VideoTokenizerPart, 'factorTime'>, frames: number): number =>
  1 + (frames - 1) * factorTime

/** [frames, height, width] of the pixels. */
export function videoSize (part: VideoTokenizerPart, [frames, rows, columns]: VideoGrid): VideoGrid {
  return [framesMade(part, frames), rows * part.factor, columns * part.factor]
}

/**
 * The memory of so many videos, claimed.
 * @throws ParError `OUT_OF_MEMORY`
 */
export async function claimVideos (
  part: VideoTokenizerPart, call: Call, count: number, grid: VideoGrid, format: 'uint8' | 'float32'
): Promise<Claim> {
  const [frames, height, width] = videoSize(part, grid)
  const bytes = frames * height * width * 3 * (format === 'uint8' ? 1 : 4)
  const what = count === 1 ? 'The frames of a video' : `The frames of ${count} videos`
  return await Claim.of(call, count * bytes, {
    what: `${what} of ${frames} x ${width} x ${height}`,
    cure: `ask for ${count === 1 ? 'a smaller one' : 'fewer or smaller ones at a time'}`,
    work: videoBytes(part.model, 'decoder', [grid[1], grid[2]], part.precision, part.device)
  })
}

/** What makes the frames of one video, in their order. */
export class FrameDecoder {
  readonly #part: VideoTokenizerPart
  readonly #call: Call
  readonly #native: NativeVideoDecoder

  private constructor (part: VideoTokenizerPart, call: Call, native: NativeVideoDecoder) {
    this.#part = part
    this.#call = call
    this.#native = native
  }

  /** It is freed with the call, or by `dispose`. */
  static async open (part: VideoTokenizerPart, call: Call, [, rows, columns]: VideoGrid): Promise<FrameDecoder> {
    const native = await call.wait(part.native.createDecoder({ rows, columns }))
    const decoder = new FrameDecoder(part, call, native)
    call.keep(decoder)
    return decoder
  }

  /** @param tokens of the next frame of tokens, [rows * columns] @returns [frames, height, width, 3] */
  async decode (tokens: Int32Array, format: 'uint8' | 'float32'): Promise<Uint8Array | Float32Array> {
    const { cancel } = this.#call
    return await this.#part.turns.run<Uint8Array | Float32Array>(this.#call, async () => format === 'uint8'
      ? await this.#native.decode(tokens, { format }, cancel)
      : await this.#native.decode(tokens, { format }, cancel))
  }

  dispose (): void { this.#native.dispose() }
}

/**
 * All frames of a video.
 * @param tokens raster order, frame after frame
 * @param told after each frame of tokens: frames of tokens that are done
 */
export async function decodeVideoTokens (
  part: VideoTokenizerPart, call: Call, tokens: Int32Array, grid: VideoGrid, format: 'uint8' | 'float32', claim: Claim,
  told: (done: number) => Promise<void> | void = () => {}
): Promise<Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>> {
  const [frames, height, width] = videoSize(part, grid)
  const size = frames * height * width * 3
  const data = format === 'uint8' ? new Uint8Array(size) : new Float32Array(size)
  claim.took(data.byteLength)
  const cells = grid[1] * grid[2]
  const decoder = await FrameDecoder.open(part, call, grid)
  try {
    for (let [frame, at] = [0, 0]; frame < grid[0]; frame++) {
      const pixels = await decoder.decode(tokens.slice(frame * cells, (frame + 1) * cells), format)
      data.set(pixels, at)
      at += pixels.length
      await told(frame + 1)
      call.check()
    }
  } finally {
    call.release(decoder)
  }
  return data
}

/** Frames that go in: bytes, or floats in 0..1. [frames, height, width, 3] */
export interface RawFrames {
  data: Uint8Array | Float32Array
  frames: number
  width: number
  height: number
}

/**
 * Tokens of a video, raster order, frame after frame.
 * @throws ParError `INVALID_OPTION` for sides that the tokenizer's factor does not divide, or a number of frames that
 * is not 1 + k factorTime
 */
export async function encodeFrames (
  part: VideoTokenizerPart, call: Call, { data, frames, width, height }: RawFrames,
  told: (done: number) => Promise<void> | void = () => {}
): Promise<{ tokens: Int32Array, grid: [number, number, number] }> {
  const { factor, factorTime } = part
  if (width % factor !== 0 || height % factor !== 0 || width === 0 || height === 0) {
    throw invalid(`frames of ${width} x ${height} pixels: this tokenizer takes sides that are multiples of ` +
      `${factor}. Give grid, and they are resized`)
  }
  if (frames < 1 || (frames - 1) % factorTime !== 0) {
    const fewer = 1 + Math.floor((frames - 1) / factorTime) * factorTime
    throw invalid(`${frames} frames: this tokenizer takes 1, ${1 + factorTime}, ${1 + 2 * factorTime}... ` +
      `(1 + ${factorTime} k). Give grid, [${1 + (fewer - 1) / factorTime}, rows, columns] for the first ${fewer}`)
  }
  const length = width * height * 3
  if (data.length !== frames * length) {
    throw invalid(`data has ${data.length} numbers; ${frames} frames of ${width} x ${height} pixels have ` +
      String(frames * length))
  }
  const grid: [number, number, number] = [1 + (frames - 1) / factorTime, height / factor, width / factor]
  const cells = grid[1] * grid[2]
  const tokens = new Int32Array(grid[0] * cells)
  const native = await call.wait(part.native.createEncoder({ rows: grid[1], columns: grid[2] }))
  call.keep(native)
  try {
    for (let [frame, at] = [0, 0]; frame < frames; frame++) {
      const own = data.subarray(frame * length, (frame + 1) * length)
      const pixels = isFloat32Array(own) ? own.slice() : Float32Array.from(own, byte => byte / 255)
      const found = await part.turns.run(call, async () => await native.encode(pixels, call.cancel))
      tokens.set(found, at)
      at += found.length
      await told(frame + 1)
      call.check()
    }
  } finally {
    call.release(native)
  }
  return { tokens, grid }
}

/** [frames, rows, columns] of so many tokens. @throws ParError `INVALID_OPTION` */
export function videoGridOf (length: number, grid: VideoGrid | undefined, name: string): VideoGrid {
  if (!grid) {
    throw invalid(`grid is missing: nothing tells the frames, rows and columns of ${name}, which holds ${length} ` +
      'tokens. Give grid: [frames, rows, columns]')
  }
  if (grid[0] * grid[1] * grid[2] === length) return grid
  throw invalid(`${name} must hold ${grid[0] * grid[1] * grid[2]} tokens for a grid of ${grid.join(' x ')}, ` +
    `found ${length}`)
}
