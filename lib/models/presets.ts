// The published checkpoints by name: where their files are, what the files do not say, and how the authors sample from
// them. Everything here is a fact of somebody else's: names and links of files from the READMEs of the two
// repositories, guidance scales from the PAR paper's appendix (n = 4), the sampling command in PAR's README (n = 16)
// and that in LlamaGen's GETTING_STARTED.md. LlamaGen published no XL, XXL or 3B for 256 px. Files of ARPG, LPD, RandAR
// and NBP: their READMEs; guidance scales: published.ts. No file of these four was ever fetched for this table.

import type { SamplingDefaults } from '../checkpoint/metadata.js'
import type { Sampling } from '../decoding/sampling.js'
import { embeddedModels, embeddedNamed } from './embedded.js'
import { invalid, show } from '../base/validate.js'
import {
  nbpGrid, nbpN, nbpSampling, officialName, publishedGuidance, publishedNbp, publishedParallel, publishedSize,
  type PublishedParallel
} from './published.js'

/** A published checkpoint that parvis knows by name. */
export type PresetName =
  | 'par-xl-4x' | 'par-xxl-4x' | 'par-3b-4x' | 'par-3b-16x'
  | 'llamagen-b-256' | 'llamagen-b-384' | 'llamagen-l-256' | 'llamagen-l-384'
  | 'llamagen-xl-384' | 'llamagen-xxl-384' | 'llamagen-3b-384'
  | 'arpg-l' | 'arpg-xl' | 'arpg-xxl'
  | 'lpd-l-256' | 'lpd-xl-256' | 'lpd-xxl-256' | 'lpd-l-512' | 'lpd-xl-512'
  | 'randar-l' | 'randar-xl'
  | 'nbp-ucf-base' | 'nbp-ucf-3b'

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
  /** Tokens: [rows, columns], or [frames, rows, columns] of a model that makes videos. */
  readonly grid: [rows: number, columns: number] | [frames: number, rows: number, columns: number]
  /** Tokens a step, of PAR; 1 for the others. */
  readonly n: number
  /**
   * Pixels a side that `generate` makes where it is given no size: the authors show 384 px at 256. Of videos: those of
   * a frame.
   */
  readonly size: number
  /** The authors' sampling options. */
  readonly sampling: Readonly<Sampling>
}

const tokenizer: HubFile = Object.freeze({ repository: 'FoundationVision/LlamaGen', file: 'vq_ds16_c2i.pt' })

const nbpTokenizerFile: HubFile =
  Object.freeze({ repository: 'ShuhuaiRen/NBP-tokenizer-ucf', file: 'magvit2_ucf.pt' })

type Size = 'B' | 'L' | 'XL' | 'XXL' | '3B'

const par = (size: Size, n: 4 | 16, guidanceScale: number): Preset => preset(`par-${size}-${n}x`, size, n, 24,
  { repository: 'Epiphqny/PAR', file: `PAR-${size}-${n}x.pt` }, guidanceScale)

const llamaGen = (size: Size, pixels: 256 | 384, guidanceScale: number): Preset => preset(
  `llamagen-${size}-${pixels}`, size, 1, pixels / 16,
  { repository: 'FoundationVision/LlamaGen', file: `c2i_${size}_${pixels}.pt` }, guidanceScale)

function preset (
  name: string, size: Size, n: number, side: number, transformer: HubFile, guidanceScale: number
): Preset {
  return Object.freeze({
    name: name.toLowerCase() as PresetName, official: officialName(size, n), transformer: Object.freeze(transformer),
    tokenizer, heads: publishedSize(size).heads,
    grid: Object.freeze([side, side]) as unknown as [number, number], n, size: 256,
    sampling: Object.freeze({ guidanceScale, temperature: 1, topK: 0, topP: 1 })
  })
}

/** What ARPG, LPD and RandAR call their files. */
const parallelFiles: Readonly<Record<string, Readonly<HubFile>>> = {
  'ARPG-L': { repository: 'hp-l33/ARPG', file: 'arpg_300m.pt' },
  'ARPG-XL': { repository: 'hp-l33/ARPG', file: 'arpg_700m.pt' },
  'ARPG-XXL': { repository: 'hp-l33/ARPG', file: 'arpg_1b.pt' },
  'LPD-L-256': { repository: 'mit-han-lab/lpd_l_256', file: 'lpd_l_256.pth' },
  'LPD-XL-256': { repository: 'mit-han-lab/lpd_xl_256', file: 'lpd_xl_256.pth' },
  'LPD-XXL-256': { repository: 'mit-han-lab/lpd_xxl_256', file: 'lpd_xxl_256.pth' },
  'LPD-L-512': { repository: 'mit-han-lab/lpd_l_512', file: 'lpd_l_512.pth' },
  'LPD-XL-512': { repository: 'mit-han-lab/lpd_xl_512', file: 'lpd_xl_512.pth' },
  'RandAR-L': { repository: 'ziqipang/RandAR', file: 'randar_0.3b_llamagen_360k_bs_1024_lr_0.0004.safetensors' },
  'RandAR-XL': { repository: 'ziqipang/RandAR', file: 'randar_0.7b_llamagen_360k_bs_1024_lr_0.0004.safetensors' }
}

const parallel = (model: PublishedParallel): Preset => Object.freeze({
  name: model.name.toLowerCase() as PresetName, official: model.name,
  transformer: Object.freeze(parallelFiles[model.name]!), tokenizer, heads: model.heads,
  grid: Object.freeze([model.side, model.side]) as unknown as [number, number], n: 1, size: 16 * model.side,
  sampling: Object.freeze({ guidanceScale: publishedGuidance(model, model.steps), temperature: 1, topK: 0, topP: 1 })
})

/** NBP's own models for UCF-101; PAR's models of videos were not published. */
const nbp = (name: string, repository: string, file: string): Preset => {
  const { heads } = publishedNbp.find(model => model.name === name)!
  return Object.freeze({
    name: name.toLowerCase() as PresetName, official: name, transformer: Object.freeze({ repository, file }),
    tokenizer: nbpTokenizerFile, heads, grid: Object.freeze([...nbpGrid]) as unknown as [number, number, number],
    n: nbpN, size: 128, sampling: Object.freeze({ guidanceScale: 1, ...nbpSampling })
  })
}

/** Every preset: file names, architecture and the authors' sampling options of each published checkpoint. */
export const presets: readonly Preset[] = Object.freeze([
  par('XL', 4, 1.5),
  par('XXL', 4, 1.435),
  par('3B', 4, 1.345),
  par('3B', 16, 1.5),
  llamaGen('B', 256, 2),
  llamaGen('B', 384, 2),
  llamaGen('L', 256, 2),
  llamaGen('L', 384, 2),
  llamaGen('XL', 384, 1.75),
  llamaGen('XXL', 384, 1.75),
  llamaGen('3B', 384, 1.65),
  ...publishedParallel.map(parallel),
  nbp('NBP-UCF-base', 'ShuhuaiRen/NBP-ucf-base', 'ucf_base_nbp16_hybrid.ckpt'),
  nbp('NBP-UCF-3B', 'ShuhuaiRen/NBP-ucf-3b', 'ucf_3b_nbp16_hybrid.ckpt')
])

/** The preset of a name, in any case. @throws ParError `INVALID_OPTION` */
export function presetOf (value: unknown): Preset {
  const name = typeof value === 'string' ? value.trim().toLowerCase() : undefined
  const preset = presets.find(preset => preset.name === name)
  if (preset) return preset
  const embedded = embeddedNamed(value)?.name
  if (embedded !== undefined) {
    throw invalid(`'${embedded}' is not a preset: it comes with the package, and there is nothing to fetch. ` +
      `Par.load('${embedded}') loads it`)
  }
  throw invalid(`There is no preset ${show(value)}. The presets: ${presets.map(({ name }) => name).join(', ')}. The ` +
    `models that come with the package: ${embeddedModels.map(({ name }) => name).join(', ')}. For a file of your own ` +
    'give { transformer, tokenizer }')
}

/** How the authors sample from a published architecture, whichever file it comes in. */
export function publishedSampling (official: string | undefined): SamplingDefaults | undefined {
  // Guidance of the others depends on the number of steps.
  if (publishedParallel.some(({ name }) => name === official)) return undefined
  return presets.find(preset => preset.official === official)?.sampling
}
