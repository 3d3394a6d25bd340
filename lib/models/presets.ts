// The published checkpoints by name: where their files are, what the files do not say, and how the authors sample from
// them. Everything here is a fact of somebody else's: names and links of files from the READMEs of the two
// repositories, guidance scales from the PAR paper's appendix (n = 4), the sampling command in PAR's README (n = 16)
// and that in LlamaGen's GETTING_STARTED.md. LlamaGen published no XL, XXL or 3B for 256 px.

import type { SamplingDefaults } from '../checkpoint/metadata.js'
import type { Sampling } from '../decoding/sampling.js'
import { invalid, show } from '../base/validate.js'

/** A published checkpoint that parvis knows by name. */
export type PresetName =
  | 'par-xl-4x' | 'par-xxl-4x' | 'par-3b-4x' | 'par-3b-16x'
  | 'llamagen-b-256' | 'llamagen-b-384' | 'llamagen-l-256' | 'llamagen-l-384'
  | 'llamagen-xl-384' | 'llamagen-xxl-384' | 'llamagen-3b-384'

/** A file on the Hugging Face Hub. */
export interface HubFile {
  /** 'owner/name'. */
  repository: string
  /** Its name there. */
  file: string
}

/** What is known of a published checkpoint. */
export interface Preset {
  /** What `Par.load`, `pull` and `--model` take. */
  readonly name: PresetName
  /** Which of the published architectures: 'PAR-XL-4x', 'LlamaGen-L'... */
  readonly official: string
  /** The transformer's file. */
  readonly transformer: Readonly<HubFile>
  /** The tokenizer's file. */
  readonly tokenizer: Readonly<HubFile>
  /** Attention heads. */
  readonly heads: number
  /** Tokens: [rows, columns]. */
  readonly grid: [rows: number, columns: number]
  /** Tokens a step. */
  readonly n: number
  /** Pixels a side that `generate` makes where it is given no size: the authors show 384 px at 256. */
  readonly size: number
  /** The authors' sampling options. */
  readonly sampling: Readonly<Sampling>
}

const tokenizer: HubFile = Object.freeze({ repository: 'FoundationVision/LlamaGen', file: 'vq_ds16_c2i.pt' })

function par (size: 'XL' | 'XXL' | '3B', heads: number, n: 4 | 16, guidanceScale: number): Preset {
  const official = `PAR-${size}-${n}x`
  const name = official.toLowerCase() as PresetName
  return made({ name, official, repository: 'Epiphqny/PAR', file: `${official}.pt`, heads, side: 24, n, guidanceScale })
}

function llamaGen (
  size: 'B' | 'L' | 'XL' | 'XXL' | '3B', heads: number, pixels: 256 | 384, guidanceScale: number
): Preset {
  const name = `llamagen-${size.toLowerCase()}-${pixels}` as PresetName
  const repository = 'FoundationVision/LlamaGen'
  return made({
    name, official: `LlamaGen-${size}`, repository, file: `c2i_${size}_${pixels}.pt`, heads, side: pixels / 16, n: 1,
    guidanceScale
  })
}

function made (
  of: {
    name: PresetName, official: string, repository: string, file: string, heads: number, side: number, n: number,
    guidanceScale: number
  }
): Preset {
  const { name, official, repository, file, heads, side, n, guidanceScale } = of
  return Object.freeze({
    name, official, transformer: Object.freeze({ repository, file }), tokenizer, heads,
    grid: Object.freeze([side, side]) as unknown as [number, number], n, size: 256,
    sampling: Object.freeze({ guidanceScale, temperature: 1, topK: 0, topP: 1 })
  })
}

/** Every preset: file names, architecture and the authors' sampling options of each published checkpoint. */
export const presets: readonly Preset[] = Object.freeze([
  par('XL', 20, 4, 1.5),
  par('XXL', 24, 4, 1.435),
  par('3B', 32, 4, 1.345),
  par('3B', 32, 16, 1.5),
  llamaGen('B', 12, 256, 2),
  llamaGen('B', 12, 384, 2),
  llamaGen('L', 16, 256, 2),
  llamaGen('L', 16, 384, 2),
  llamaGen('XL', 20, 384, 1.75),
  llamaGen('XXL', 24, 384, 1.75),
  llamaGen('3B', 32, 384, 1.65)
])

/** The preset of a name, in any case. @throws ParError `INVALID_OPTION` */
export function presetOf (value: unknown): Preset {
  const name = typeof value === 'string' ? value.trim().toLowerCase() : undefined
  const preset = presets.find(preset => preset.name === name)
  if (preset) return preset
  throw invalid(`There is no preset ${show(value)}. The presets: ${presets.map(({ name }) => name).join(', ')}. For ` +
    'a file of your own give { transformer, tokenizer }')
}

/** How the authors sample from a published architecture, whichever file it comes in. */
export function publishedSampling (official: string | undefined): SamplingDefaults | undefined {
  return presets.find(preset => preset.official === official)?.sampling
}
