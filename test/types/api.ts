// The public types, checked by the compiler alone (npm run typecheck; test/package.test.ts runs it): what must compile
// and what must not. An unused @ts-expect-error is an error, so each of these lines is tested too. Nothing here runs.

import { createReadStream } from 'node:fs'
import par, {
  animate, Animation, createSchedule, DefaultPar, GeneratedImage, Image, Par, ParError, presets, psnr, pull, ssim,
  type EmbeddedName, type Method, type ParallelOptions, type ParOptions,
  type DecodingOptions, type AnimateOptions, type AnimationFormat, type ByteStream, type ClassId, type Classification,
  type ClassifyOptions, type ClassifyProgress, type Comparable, type DecodeOptions, type Device, type EncodeOptions,
  type GenerateOptions, type GroupAttention, type HubFile, type ImageFormat,
  type ImageInput, type InitialStage, type LoadOptions, type OnClassified, type OnProgress, type Order,
  type ParErrorCode, type ParInfo, type Precision, type Preset, type PresetName,
  type PresetOptions, type Progress, type PulledFile, type PulledPreset, type PullOptions, type PullProgress,
  type RawImage, type Sampling, type SamplingOptions, type Schedule, type ScheduleOptions, type Score,
  type ScoreOptions, type Size, type Timings,
  type TokenizerInfo, type Tokens, type TransformerFile, type TransformerInfo
} from '../../lib/index.js'

/** Exactly the same type, in both directions. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
function same<A, B> (_: Same<A, B>): void {}

export async function loads (): Promise<void> {
  same<Awaited<ReturnType<typeof Par.load>>, Par>(true)
  await Par.load()
  await Par.load({
    transformer: 'a.pt', tokenizer: 'b.pt', device: 'cuda:1', precision: 'bfloat16', threads: 2,
    signal: AbortSignal.timeout(1)
  })
  await Par.load({ transformer: { path: 'a.pt', heads: 2, grid: [8, 16], n: 4 }, tokenizer: { path: 'b.pt' } })
  await Par.load({ transformer: { path: 'a.pt', grid: 8 } })
  await Par.load({ transformer: { path: 'a.pt', weights: 'ema' }, tokenizer: { path: 'b.pt', weights: 'model' } })
  // @ts-expect-error: the model's weights or their moving average
  await Par.load({ transformer: { path: 'a.pt', weights: 'average' } })
  await using own = await Par.load()
  same<typeof own, Par>(true)
  await Par.load('par-xl-4x')
  await Par.load('par-xl-4x',
    {
      pull: true, onPull: ({ bytesDone, bytes }) => bytesDone / bytes, cache: 'a', device: 'cpu', precision: 'float32',
      threads: 1
    } satisfies PresetOptions)
  // @ts-expect-error: no such preset
  await Par.load('par-xl')
  // @ts-expect-error: a preset brings its files
  await Par.load('par-xl-4x', { tokenizer: 'b.pt' })
  // @ts-expect-error: no such device
  await Par.load({ device: 'tpu' })
  // @ts-expect-error: no such precision
  await Par.load({ precision: 'int4' })
  // @ts-expect-error: an object of options
  await Par.load('a.pt')
  // @ts-expect-error: a transformer has a path
  await Par.load({ transformer: { heads: 2 } })
  // @ts-expect-error: rows and columns
  await Par.load({ transformer: { path: 'a.pt', grid: [8] } })
  // @ts-expect-error: misspelt
  await Par.load({ tokeniser: 'b.pt' })
  // @ts-expect-error: Par.load makes instances
  void new Par()
}

export async function pulls (options: PullOptions): Promise<void> {
  const pulled: PulledPreset = await pull('llamagen-b-256', options)
  const file: PulledFile & HubFile = pulled.transformer
  same<typeof file.notCompared, string | undefined>(true)
  same<typeof file.licence, string | undefined>(true)
  await pull('par-3b-16x',
    { cache: 'a', signal: AbortSignal.timeout(1), onProgress: (progress: PullProgress) =>
      same<typeof progress.phase, 'waiting' | 'checking' | 'downloading' | 'retrying'>(true) })
  const names: PresetName[] = presets.map((preset: Preset) => preset.name)
  void names
  await Par.load('fashion' satisfies EmbeddedName, { threads: 1 })
  // @ts-expect-error: no model of this name
  await Par.load('fashion-lpd')
  // @ts-expect-error: not for writing
  presets.push(presets[0]!)
  // @ts-expect-error: no such preset
  await pull('par-xxxl')
}

export async function generates (own: Par, mixed: ClassId | readonly ClassId[]): Promise<void> {
  for (const maker of [own, par]) {
    const image = await maker.generate({ classId: 7 })
    same<typeof image, GeneratedImage>(true)
    const images = await maker.generate({ classId: [7, 'bag'], n: 4 })
    same<typeof images, GeneratedImage[]>(true)
    const tuple = await maker.generate({ classId: ['bag', 1] as const })
    same<typeof tuple, GeneratedImage[]>(true)
    const either = await maker.generate({ classId: mixed })
    same<typeof either, GeneratedImage | GeneratedImage[]>(true)
    for await (const event of maker.stream({ classId: 7, size: { width: 8, height: 9 } })) {
      same<typeof event, Progress>(true)
      same<typeof event.images, GeneratedImage[] | undefined>(true)
      same<Awaited<ReturnType<typeof event.preview>>, Image>(true)
    }
    for await (const image of maker.images({ classId: [7, 'bag'], seed: 1 })) same<typeof image, GeneratedImage>(true)
    same<Progress['finished'], GeneratedImage[] | undefined>(true)
    const { value, done } = await maker.stream({ classId: 7 }).next()
    if (done) same<typeof value, GeneratedImage[]>(true)
    // @ts-expect-error: a class is needed
    await maker.generate({ n: 4 })
    // @ts-expect-error: options are needed
    await maker.generate()
    // @ts-expect-error: misspelt
    await maker.generate({ classId: 7, guidancescale: 2 })
    // @ts-expect-error: a size is pixels, or width and height
    await maker.generate({ classId: 7, size: [8, 8] })
    // @ts-expect-error: no such order
    await maker.generate({ classId: 7, order: 'spiral' })
    // @ts-expect-error: seeds are numbers
    await maker.generate({ classId: 7, seed: 1n })
    // @ts-expect-error: a list of classes, not of lists
    maker.stream({ classId: [[7]] })
  }
  const steps: number[] = []
  await own.generate({ classId: 7, onProgress: ({ step }) => steps.push(step) })
  await own.generate({ classId: 7, onProgress: async ({ preview }) => { await (await preview(0)).toFile('x.png') } })
  // @ts-expect-error: a callback takes a Progress
  await own.generate({ classId: 7, onProgress: (step: number) => { steps.push(step) } })
}

export async function animates (own: Par): Promise<void> {
  for (const maker of [own, par]) {
    const animation = await animate(maker,
      { classId: 'bag', every: 2, scale: 8, delay: 50, hold: 1000, seed: 1, n: 4 } satisfies AnimateOptions)
    same<typeof animation, Animation>(true)
    same<typeof animation.image, GeneratedImage>(true)
    same<Awaited<ReturnType<typeof animation.toBuffer>>, Buffer<ArrayBuffer>>(true)
    await animation.toFile('a.gif', { loop: 1 })
    const format: AnimationFormat = 'gif'
    await animation.toBuffer(format)
    // @ts-expect-error: no animations
    await animation.toBuffer('jpeg')
  }
  // @ts-expect-error: one picture
  await animate(own, { classId: [1, 2] })
}

export async function scoresAndCodes (own: Par, tokens: Int32Array): Promise<void> {
  const scores = await own.score({ tokens: [tokens, tokens], classId: [1, 'bag'], logits: [0], method: 'cached' })
  same<typeof scores, Score[]>(true)
  same<Score['logits'], Float32Array | undefined>(true)
  await own.score({ tokens: [[1, 2, 3], tokens] satisfies Tokens[], classId: 1 })
  // @ts-expect-error: whole numbers
  await own.score({ tokens: ['1'], classId: 1 })
  // @ts-expect-error: no such method
  await own.score({ tokens, classId: 1, method: 'fast' })

  for (const maker of [own, par]) {
    const ranked = await maker.classify(tokens, {
      classes: ['bag', 1], top: 5, n: 4, guidanceScale: 1, signal: AbortSignal.timeout(1),
      onProgress: ({ classesDone, classes }: ClassifyProgress) => classesDone / classes
    } satisfies ClassifyOptions)
    same<typeof ranked, Classification[]>(true)
    same<Classification, { classId: number, label: string | undefined, probability: number, logProb: number }>(true)
    await maker.classify('a.png')
    await maker.classify([1, 2, 3])
    // @ts-expect-error: a list of classes
    await maker.classify(tokens, { classes: 7 })
  }

  same<Image['data'], Uint8Array<ArrayBuffer>>(true)
  const [bytes, byteList] = [await own.decode(tokens), await own.decode([tokens], { size: 256 })]
  same<typeof bytes, Image>(true)
  same<typeof byteList, Image[]>(true)
  const [plain, plainList] = [await own.decode([1, 2, 3, 4]), await own.decode([[1, 2, 3, 4]])]
  same<typeof plain, Image>(true)
  same<typeof plainList, Image[]>(true)
  const [floats, floatList] = [await own.decode(tokens, { format: 'float32' }),
    await own.decode([tokens], { format: 'float32', grid: [4, 8] })]
  same<typeof floats, Image<Float32Array>>(true)
  same<typeof floatList, Array<Image<Float32Array>>>(true)
  const either = tokens as Int32Array | Int32Array[]
  const perhaps = { format: 'float32' } as { format: 'float32' } | undefined
  for (const maker of [own, par]) {
    const [some, anyOne, anyList, all] = [await maker.decode(either), await maker.decode(tokens, perhaps),
      await maker.decode([tokens], perhaps), await maker.decode(either, perhaps as DecodeOptions)]
    same<typeof some, Image | Image[]>(true)
    same<typeof anyOne, Image | Image<Float32Array>>(true)
    same<typeof anyList, Image[] | Array<Image<Float32Array>>>(true)
    same<typeof all, Image | Image<Float32Array> | Image[] | Array<Image<Float32Array>>>(true)
  }
  // @ts-expect-error: no such format
  await own.decode(tokens, { format: 'uint16' })

  const encoded = await own.encode({ data: new Uint8Array(3072), width: 32, height: 32, channels: 3 }, { grid: 8 })
  same<typeof encoded, Int32Array>(true)
  await own.encode('a.png')
  const seen = await own.prepare('a.png',
    { grid: [4, 8], crop: false, background: '#fff', signal: AbortSignal.timeout(1) })
  same<typeof seen, Image>(true)
  await own.encode(seen)
  const inputs: ImageInput[] = [
    'a.png', new URL('file:///a.png'), new Uint8Array(8), Buffer.alloc(8), new Uint8ClampedArray(8), new ArrayBuffer(8),
    new SharedArrayBuffer(8), new DataView(new ArrayBuffer(8)),
    new Blob([]), new File([], 'a.png'), new Response(''), new Blob([]).stream(), createReadStream('a.png'), seen,
    seen.sharp(),
    { data: new Uint8ClampedArray(16), width: 2, height: 2 }
  ]
  for (const input of inputs) await par.prepare(input)
  // @ts-expect-error: floats need width and height beside them
  await own.encode(new Float32Array(12))
  same<[number, number], [ReturnType<typeof psnr>, ReturnType<typeof ssim>]>(true)
  ssim(seen, await par.prepare(new Uint8Array(8)))
  // @ts-expect-error: pixels have a size
  psnr(seen, seen.data)
  // @ts-expect-error: true or false
  await own.encode('a.png', { crop: 'centre' })
  await own.encode(new Uint8Array(8))
  // @ts-expect-error: pixels have a size
  await own.encode({ data: new Uint8Array(3072) })
  // @ts-expect-error: 1, 3 or 4 channels
  await own.encode({ data: new Uint8Array(2048), width: 32, height: 32, channels: 2 })
}

export async function images (image: GeneratedImage, plain: Image): Promise<void> {
  same<Awaited<ReturnType<typeof image.toBuffer>>, Buffer<ArrayBuffer>>(true)
  same<[Awaited<ReturnType<typeof image.toDataURL>>, Awaited<ReturnType<typeof image.toBlob>>], [string, Blob]>(true)
  void [new Response(await image.toBuffer('webp')), new Blob([await image.toBuffer()]),
    new Response(await image.toBlob('jpg', { quality: 90 }))]
  // @ts-expect-error: raw pixels are no picture format
  await image.toDataURL('raw')
  await image.toBuffer('jpg', { quality: 90 })
  await image.toFile('a.webp')
  await image.sharp().resize(8).png().toBuffer()
  same<typeof image.label, string | undefined>(true)
  same<typeof image.timings, Timings>(true)
  // @ts-expect-error: no such format
  await image.toBuffer('bmp')
  // @ts-expect-error: what a call made stays as it is
  image.seed = 1
  // @ts-expect-error: a decoded picture has no seed
  void plain.seed
}

export async function parallel (own: Par): Promise<void> {
  const image = await own.generate({
    classId: 1, steps: 32, tokenOrder: [[0, 1], new Int32Array(2)], stepSchedule: 'cosine', guidanceSchedule: 'constant'
  })
  same<typeof image.tokenOrder, Int32Array>(true)
  await own.generate({ classId: [1, 2], groupSizes: [1, 5, 58], tokenOrder: image.tokenOrder })
  await own.score({ tokens: image.tokens, classId: 1, steps: 9 })
  // @ts-expect-error: no such schedule
  await own.generate({ classId: 1, stepSchedule: 'linear' })
  // @ts-expect-error: what a call made stays as it is
  image.tokenOrder = image.tokens
}

export async function information (own: Par): Promise<void> {
  same<typeof own.info, ParInfo>(true)
  same<ParInfo['transformer'], TransformerInfo | undefined>(true)
  same<TransformerInfo['gridFrom'], 'option' | 'preset' | 'metadata' | 'training arguments' | 'file name' | 'shapes'
    | 'published' | 'assumed'>(true)
  same<TransformerInfo['method'], Method>(true)
  same<TransformerInfo['defaultSteps'], number>(true)
  same<TransformerInfo['warnings'], string[]>(true)
  same<ParInfo['tokenizer'], TokenizerInfo | undefined>(true)
  same<TransformerInfo['sampling'], Sampling>(true)
  same<typeof own.labels, readonly string[] | undefined>(true)
  same<typeof par, DefaultPar>(true)
  same<Awaited<typeof par.info>, ParInfo>(true)
  same<ReturnType<typeof par.load>, Promise<Par>>(true)
  // @ts-expect-error: it may have no transformer
  void own.info.transformer.n
  // @ts-expect-error: a promise of it
  void par.info.device
}

export function errors (error: unknown): ParErrorCode | undefined {
  if (!(error instanceof ParError)) return undefined
  same<typeof error.code, ParErrorCode>(true)
  // @ts-expect-error: no such code
  if (error.code === 'BAD_CLASS') return undefined
  // @ts-expect-error: read only
  error.code = 'INTERNAL'
  // Each code once: a new one does not compile before it is listed here, and in docs/errors.md.
  const known: Record<ParErrorCode, true> = {
    BAD_CLASS_ID: true, UNSUPPORTED_N: true, BAD_CHECKPOINT: true, FILE_NOT_FOUND: true, DOWNLOAD_FAILED: true,
    TOKENIZER_MISMATCH: true, MISSING_PART: true, DEVICE_UNAVAILABLE: true, OUT_OF_MEMORY: true, QUEUE_FULL: true,
    DISPOSED: true, INVALID_OPTION: true, BAD_IMAGE: true, BAD_TOKENS: true, BAD_ARRAY: true, NON_FINITE: true,
    NATIVE_UNAVAILABLE: true, INTERNAL: true
  }
  return known[error.code] ? error.code : undefined
}

export function schedules (): void {
  const schedule = createSchedule({
    grid: [24, 24], n: 4, order: 'distant', initial: 'none', groupAttention: 'causal', tokensPerStep: 4
  })
  same<typeof schedule, Schedule>(true)
  createSchedule({ grid: [5, 16, 16], n: 16 })
  const [floats, ints] = [schedule.toRaster(new Float32Array(576)), schedule.toSequence(new Int32Array(576))]
  same<typeof floats, Float32Array<ArrayBuffer>>(true)
  same<typeof ints, Int32Array<ArrayBuffer>>(true)
  same<ReturnType<typeof schedule.cell>, [frame: number, row: number, column: number]>(true)
  // @ts-expect-error: n is needed
  createSchedule({ grid: [24, 24] })
  // @ts-expect-error: two or three sizes
  createSchedule({ grid: [24], n: 4 })
  // @ts-expect-error: read only
  schedule.n = 1
}

/** The names of types that users may import; one that is gone does not compile. */
export type Named = [
  ByteStream, Comparable, DecodeOptions, DecodingOptions, Device, EncodeOptions, GenerateOptions, GroupAttention,
  ImageFormat, ImageInput, InitialStage, LoadOptions, OnClassified, OnProgress, Order, ParOptions, ParallelOptions,
  Precision, RawImage, SamplingOptions, ScheduleOptions, ScoreOptions, Size, TransformerFile
]
