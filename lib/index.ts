// What users import. The default export is the embedded model, loaded by its first call; nothing happens at import.

import './node-version.js'
import { par } from './default.js'

export default par
export { Par, type ParInfo, type TransformerInfo, type TokenizerInfo } from './par.js'
export { DefaultPar } from './default.js'
export { ParError, type ParErrorCode } from './errors.js'
export { Image, GeneratedImage, type ImageFormat, type Timings } from './image.js'
export { animate, Animation, type AnimationFormat } from './animate.js'
export type { ClassifyProgress, Progress } from './progress.js'
export type { Sampling } from './sampling.js'
export type { Classification, Score } from './scoring.js'
export type { ByteChunk, ByteReader, ByteStream, ImageInput, RawImage } from './image-input.js'
export { psnr, ssim, type Comparable } from './quality.js'
export type { ClassId } from './labels.js'
export type { Precision } from './native.js'
export type { Device } from './device.js'
export type {
  AnimateOptions, ClassifyOptions, DecodeOptions, EncodeOptions, GenerateOptions, LoadOptions, OnClassified,
  OnProgress, PresetOptions, SamplingOptions, ScoreOptions, Size, Tokens, TransformerFile
} from './options.js'
export { presets, type HubFile, type Preset, type PresetName } from './presets.js'
export { pull, type PulledFile, type PulledPreset, type PullOptions, type PullProgress } from './pull.js'
export {
  createSchedule, type Ablation, type GroupAttention, type InitialStage, type Order, type Schedule, type ScheduleOptions
} from './schedule.js'
