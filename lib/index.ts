// What users import. The default export is the embedded model, loaded by its first call; nothing happens at import.

import './machine/node-version.js'
import { par } from './api/default.js'

export default par
export type { Activity } from './decoding/batcher.js'
export { Par, type ParInfo, type TransformerInfo, type TokenizerInfo } from './api/par.js'
export { DefaultPar } from './api/default.js'
export { ParError, type ParErrorCode } from './base/errors.js'
export { Image, GeneratedImage, type ImageFormat, type Timings } from './api/image.js'
export { GeneratedVideo, Video, type VideoFormat } from './api/video.js'
export type { VideoInput } from './api/video-input.js'
export { animate, Animation, type AnimationFormat } from './api/animate.js'
export type { ClassifyProgress, FramesProgress, Progress, VideoFrame, VideoProgress } from './base/progress.js'
export type { Draw, Sampling } from './decoding/sampling.js'
export type { Classification, Score } from './decoding/scoring.js'
export type { ByteChunk, ByteReader, ByteStream, ImageInput, RawImage } from './api/image-input.js'
export { psnr, ssim, type Comparable } from './pictures/quality.js'
export type { ClassId } from './models/labels.js'
export type { Precision } from './machine/native.js'
export type { Device } from './machine/device.js'
export type {
  AnimateOptions, ClassifyOptions, DecodeOptions, DecodeVideoOptions, EncodeOptions, EncodeVideoOptions,
  GenerateOptions, GenerateVideoOptions, LoadOptions, OnClassified, OnFrames, OnProgress, OnVideoProgress,
  PassesOption, PresetOptions, SamplingOptions, ScoreOptions, Size, TransformerFile
} from './api/options.js'
export type { CellBox, Known, KnownMask, KnownSide } from './api/known.js'
export type { SampleClasses, SamplesOptions, SamplesProgress } from './api/samples.js'
export type { Tokens } from './api/tokens.js'
export type { EmbeddedName } from './models/embedded.js'
export { presets, type HubFile, type Preset, type PresetName } from './models/presets.js'
export { pull, type PulledFile, type PulledPreset, type PullOptions, type PullProgress } from './hub/pull.js'
export type { Method } from './decoding/method.js'
export type { StepSchedule } from './decoding/group-sizes.js'
export type { DecodingOptions, GuidanceSchedule, ParallelOptions } from './decoding/options.js'
export {
  createSchedule, type GroupAttention, type InitialStage, type Order, type Schedule,
  type ParOptions, type ScheduleOptions
} from './decoding/schedule.js'
