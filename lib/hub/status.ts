// What the presets are and what of them is here: for a table before anything is fetched. Nobody is asked over the
// network.

import { stat } from 'node:fs/promises'
import { nbpText } from '../models/published.js'
import { presets, type HubFile, type Preset, type PresetName } from '../models/presets.js'
import { officialModel } from '../models/shapes.js'
import { nbpTokenizer } from '../models/video.js'
import { vq16, vqTokenizer } from '../models/vq.js'
import { tokenizerWeights, transformerWeights, videoTokenizerWeights, type Weight } from '../models/weights.js'
import { findCached } from './cache.js'
import { cacheFolder } from './location.js'

/** One file of a preset. */
export interface FileStatus extends HubFile {
  role: 'transformer' | 'tokenizer'
  parameters: number
  /**
   * Bytes of the download: those of the file in the cache, else [at least, at most] about what its parameters take in 2
   * and in 4 bytes each, since nothing but the Hub says which of them the authors chose.
   */
  bytes: number | [number, number]
  /** Where it lies in the cache; undefined where it does not. */
  path: string | undefined
}

export interface PresetStatus {
  preset: PresetName
  /** The architecture: 'PAR-XL-4x'... */
  official: string
  n: number
  grid: Preset['grid']
  files: FileStatus[]
  /** Whether everything is in the cache: `Par.load(preset)` needs no network. */
  cached: boolean
}

const count = (weights: readonly Weight[]): number =>
  weights.reduce((sum, [, shape]) => sum + shape.reduce((product, side) => product * side, 1), 0)

/** Parameters of a preset's transformer, counted from its shapes. */
export function parametersOf ({ official, n }: Pick<Preset, 'official' | 'n'>): number {
  const model = officialModel(official, n)
  // A file of NBP has one row for all classes, rows for text in its head too, and a buffer as long as the text in
  // front.
  const others = model.textTokens > 0 ? (model.textTokens + n - model.classes + nbpText) * model.dim : 0
  return count(transformerWeights(model)) + others
}

/** Every preset. @param cache default: that of the environment */
export async function presetStatus (cache: string = cacheFolder()): Promise<PresetStatus[]> {
  const found = new Map<string, Promise<Pick<FileStatus, 'bytes' | 'path'>>>()
  const look = async (file: HubFile, parameters: number): Promise<Pick<FileStatus, 'bytes' | 'path'>> => {
    const path = await findCached(cache, file)
    const size = path === undefined ? undefined : (await stat(path).catch(() => undefined))?.size
    return size === undefined ? { bytes: [2 * parameters, 4 * parameters], path: undefined } : { bytes: size, path }
  }
  const status = async (role: FileStatus['role'], file: HubFile, parameters: number): Promise<FileStatus> => {
    const key = `${file.repository}/${file.file}`
    if (!found.has(key)) found.set(key, look(file, parameters))
    return { ...file, role, parameters, ...await found.get(key)! }
  }
  const ofPictures = count(tokenizerWeights(vqTokenizer(vq16)))
  const ofVideos = count(videoTokenizerWeights(nbpTokenizer))
  return await Promise.all(presets.map(async preset => {
    const files = [
      await status('transformer', preset.transformer, parametersOf(preset)),
      await status('tokenizer', preset.tokenizer, preset.grid.length === 3 ? ofVideos : ofPictures)
    ]
    const { name, official, n, grid } = preset
    return {
      preset: name, official, n, grid: [...grid] as Preset['grid'], files,
      cached: files.every(({ path }) => path !== undefined)
    }
  }))
}
