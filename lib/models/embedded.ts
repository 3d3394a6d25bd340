// Where the models lie that come with the package: `models/fashion`, one tokenizer, one transformer for each n of PAR
// and one of ARPG; `models/moving`, a tokenizer of videos and one transformer for each n. Everything about them
// (architecture, grid, labels, sampling) is in their own metadata. Each transformer is read when an n first asks for
// it.

import path from 'node:path'
import { ParError } from '../base/errors.js'
import { isThere, packageProblem } from '../machine/find-addon.js'

// Each path is written out, because that is how tools which copy an application find the files it opens.
const tokenizer = path.join(__dirname, '..', '..', 'models', 'fashion', 'tokenizer.safetensors')
const par1 = path.join(__dirname, '..', '..', 'models', 'fashion', 'par-1.safetensors')
const par4 = path.join(__dirname, '..', '..', 'models', 'fashion', 'par-4.safetensors')
const par16 = path.join(__dirname, '..', '..', 'models', 'fashion', 'par-16.safetensors')
const arpg = path.join(__dirname, '..', '..', 'models', 'fashion', 'arpg.safetensors')
const clips = path.join(__dirname, '..', '..', 'models', 'moving', 'tokenizer.safetensors')
const moving1 = path.join(__dirname, '..', '..', 'models', 'moving', 'par-1.safetensors')
const moving4 = path.join(__dirname, '..', '..', 'models', 'moving', 'par-4.safetensors')
const moving16 = path.join(__dirname, '..', '..', 'models', 'moving', 'par-16.safetensors')

/**
 * Native code opens these files itself, which it cannot inside an archive of Electron: there they have to be unpacked.
 */
const unpacked = (file: string): string => file.replace(/([\\/]app\.asar)(?=[\\/])/, '$1.unpacked')

/**
 * A model that comes with the package: 'fashion' is PAR (n = 1, 4, 16), 'fashion-arpg' is ARPG (any number of steps);
 * 'moving' is PAR for videos (n = 1, 4, 16).
 */
export type EmbeddedName = 'fashion' | 'fashion-arpg' | 'moving'

export interface EmbeddedModel {
  readonly name: EmbeddedName
  readonly tokenizer: string
  /** n -> file; of a method that has no n one file, for n = 1 */
  readonly transformers: ReadonlyMap<number, string>
  /** n where the caller gives none. */
  readonly n: number
}

/** What is loaded where neither a name nor a file is given. */
export const embedded: EmbeddedModel = {
  name: 'fashion',
  tokenizer: unpacked(tokenizer),
  transformers: new Map([[1, unpacked(par1)], [4, unpacked(par4)], [16, unpacked(par16)]]),
  n: 4
}

/** The same pictures in any number of steps: for comparisons of the methods. */
const embeddedArpg: EmbeddedModel = {
  name: 'fashion-arpg', tokenizer: unpacked(tokenizer), transformers: new Map([[1, unpacked(arpg)]]), n: 1
}

/** Short clips of moving clothes: what a PAR model of videos is, small enough for a package. */
const embeddedMoving: EmbeddedModel = {
  name: 'moving', tokenizer: unpacked(clips),
  transformers: new Map([[1, unpacked(moving1)], [4, unpacked(moving4)], [16, unpacked(moving16)]]), n: 4
}

export const embeddedModels: readonly EmbeddedModel[] = [embedded, embeddedArpg, embeddedMoving]

/** The embedded model of a name, in any case; undefined where the name is another's. */
export function embeddedNamed (value: unknown): EmbeddedModel | undefined {
  const name = typeof value === 'string' ? value.trim().toLowerCase() : undefined
  return embeddedModels.find(model => model.name === name)
}

/** @throws ParError `FILE_NOT_FOUND`: the package came here without its model */
export function needEmbedded ({ tokenizer, transformers }: EmbeddedModel): void {
  const missing = [tokenizer, ...transformers.values()].filter(file => !isThere(file))
  if (missing.length === 0) return
  const cure = packageProblem() ?? 'Install parvis again.'
  throw new ParError('FILE_NOT_FOUND', `The embedded model is not there (${missing.join(', ')}): ${cure}`)
}
