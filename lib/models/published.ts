// The published transformers and tokenizers (design, section 1): the one table of their sizes. Which file each is in,
// and how its authors sample from it: presets.ts.

/** Sizes that LlamaGen's and PAR's checkpoints share. `guidanceScale`: PAR's, in the paper's appendix. */
export interface PublishedSize {
  name: string
  layers: number
  dim: number
  heads: number
  guidanceScale?: number
}

export const publishedSizes: readonly PublishedSize[] = [
  { name: 'B', layers: 12, dim: 768, heads: 12 },
  { name: 'L', layers: 24, dim: 1024, heads: 16, guidanceScale: 1.6 },
  { name: 'XL', layers: 36, dim: 1280, heads: 20, guidanceScale: 1.5 },
  { name: 'XXL', layers: 48, dim: 1536, heads: 24, guidanceScale: 1.435 },
  { name: '3B', layers: 24, dim: 3200, heads: 32, guidanceScale: 1.345 }
]
export const publishedVocabulary = 16384
export const publishedClasses = 1000
/** Tokens a step; 1 is LlamaGen. */
export const publishedN: readonly number[] = [1, 4, 16]

/** The size of a name: 'B', 'L', 'XL', 'XXL' or '3B'. */
export const publishedSize = (name: string): PublishedSize => publishedSizes.find(size => size.name === name)!

/** Width of their feed-forward part: two thirds of 4 dim, rounded up to a multiple of 256. */
export const publishedFeedForward = (dim: number): number => Math.ceil(Math.floor(8 * dim / 3) / 256) * 256

/** 'LlamaGen-L', 'PAR-XL-4x'... */
export const officialName = (size: string, n: number): string => n === 1 ? `LlamaGen-${size}` : `PAR-${size}-${n}x`

/** A published model of ARPG, LPD or RandAR, and how its authors run it (the papers' best by FID). */
export interface PublishedParallel {
  method: 'arpg' | 'lpd' | 'randar'
  name: string
  /** Of ARPG both stacks. */
  layers: number
  dim: number
  heads: number
  /** Tokens a side. */
  side: number
  /** The number of steps with the best published FID. */
  steps: number
  /** Best guidance scales (linear), by the number of steps. */
  guidance: Readonly<Record<number, number>>
  /** LPD: of the order of the tokens (lib/decoding/token-order.ts). */
  repulsion?: number
}

const parallelModel = (
  method: PublishedParallel['method'], name: string, size: readonly [layers: number, dim: number, heads: number],
  side: number, steps: number, guidance: Readonly<Record<number, number>>, repulsion?: number
): PublishedParallel => {
  const [layers, dim, heads] = size
  return { method, name, layers, dim, heads, side, steps, guidance, ...(repulsion !== undefined && { repulsion }) }
}
const [sizeL, sizeXl, sizeXxl] = [[24, 1024, 16], [36, 1280, 20], [48, 1536, 24]] as const

/** ARPG: 2503.10568, table 8 (arccos). LPD: README and section 4. RandAR: README of the public files. */
export const publishedParallel: readonly PublishedParallel[] = [
  parallelModel('arpg', 'ARPG-L', sizeL, 16, 32, { 16: 7.8, 24: 6.1, 32: 5.4, 64: 5.1, 256: 4.3 }),
  parallelModel('arpg', 'ARPG-XL', sizeXl, 16, 32, { 16: 8.4, 24: 7, 32: 6.6, 64: 5.3, 256: 5 }),
  parallelModel('arpg', 'ARPG-XXL', sizeXxl, 16, 32, { 16: 9.3, 24: 8.1, 32: 6.5, 64: 6.3, 256: 6 }),
  parallelModel('lpd', 'LPD-L-256', sizeL, 16, 32, { 20: 4.8, 32: 5.4 }, 2),
  parallelModel('lpd', 'LPD-XL-256', sizeXl, 16, 32, { 20: 4.9, 32: 5 }, 2),
  parallelModel('lpd', 'LPD-XXL-256', sizeXxl, 16, 20, { 20: 5.9 }, 3),
  parallelModel('lpd', 'LPD-L-512', sizeL, 32, 48, { 48: 7.3 }, 4),
  parallelModel('lpd', 'LPD-XL-512', sizeXl, 32, 48, { 48: 6 }, 4),
  parallelModel('randar', 'RandAR-L', sizeL, 16, 88, { 88: 3.4 }),
  parallelModel('randar', 'RandAR-XL', sizeXl, 16, 88, { 88: 4 })
]

/** The published guidance scale of the number of steps that is nearest, as a ratio. */
export function publishedGuidance ({ guidance }: PublishedParallel, steps: number): number {
  const listed = Object.keys(guidance).map(Number)
  const distance = (other: number): number => Math.abs(Math.log(other / steps))
  return guidance[listed.reduce((best, other) => distance(other) < distance(best) ? other : best)]!
}

/** NBP's models for the classes of UCF-101 (Ren et al. 2025, 2502.07737). */
export const publishedNbp: ReadonlyArray<{ name: string, layers: number, dim: number, heads: number }> = [
  { name: 'NBP-UCF-base', layers: 24, dim: 1536, heads: 16 },
  { name: 'NBP-UCF-3B', layers: 32, dim: 3072, heads: 32 }
]
/** Codes of their tokenizer, tokens a step, and tokens of a clip. */
export const nbpCodes = 64000
export const nbpN = 16
/** Rows of their tables of learned positions, most of which a clip does not need. */
export const nbpPositions = 5120
/** Tokens of text in front of a clip. */
export const nbpText = 8
/** How the authors draw. */
export const nbpSampling = Object.freeze({ temperature: 1, topK: 16000, topP: 0.9 })
export const nbpGrid: readonly [frames: number, rows: number, columns: number] = [5, 16, 16]

/** LlamaGen's, of one size: of the class-conditional models, which PAR took over, and of the text-to-image ones. */
export const publishedTokenizers = ['vq_ds16_c2i', 'vq_ds16_t2i'] as const
export type PublishedTokenizer = typeof publishedTokenizers[number]
