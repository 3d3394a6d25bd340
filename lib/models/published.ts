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

/** LlamaGen's, of one size: of the class-conditional models, which PAR took over, and of the text-to-image ones. */
export const publishedTokenizers = ['vq_ds16_c2i', 'vq_ds16_t2i'] as const
export type PublishedTokenizer = typeof publishedTokenizers[number]
