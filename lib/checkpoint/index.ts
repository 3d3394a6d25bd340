// Checkpoint files: opening them (by content, not by name), telling what they are, converting them. Everything in a
// file is untrusted; whatever is wrong ends in a ParError that names the file, the tensor and the cure.

export { openCheckpoint } from './open.js'
export type { Checkpoint, OtherTensor, StoredTensor } from './types.js'
export type { ParvisMetadata, SamplingDefaults, TokenizerMetadata, TransformerMetadata } from './metadata.js'
export {
  describeTokenizer, describeTransformer, describeVideoTokenizer, identify, type VideoTokenizerDescription,
  type CheckpointKind, type TokenizerDescription, type TransformerDescription, type TransformerOverrides
} from './architecture.js'
export { convertCheckpoint, type ConvertFloats, type ConvertOptions, type ConvertResult } from './convert.js'
export { filesOf, frameGrid, framesOf, type GridSource, type ModelGrid } from './grid.js'
export { compareChecksums } from './checksums.js'
export { codebookHash } from './hashes.js'
export type { WeightsChoice } from './names.js'
export { nearestTokenizer, nearestTransformer, type Difference, type Nearest } from './official.js'
