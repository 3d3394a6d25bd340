// What every test of pulling needs: a Hub with two small files under the names of a preset, a fresh cache, short
// patience.

import fs from 'node:fs'
import path from 'node:path'
import type { ParError } from '../../lib/base/errors.js'
import { presetOf } from '../../lib/models/presets.js'
import { pullFiles, type PulledFile, type PullProgress } from '../../lib/hub/pull.js'
import { temporaryFolder } from '../cli/run.js'
import { FakeHub, noise } from './hub.js'

const xl = presetOf('par-xl-4x')
export const files = [xl.transformer, xl.tokenizer]
export const weights = noise(300_001, 1)
export const tokenizer = noise(30_007, 2)
export const patience = { attempts: 3, delay: 2, idle: 1000, wait: 3000 }

export interface Setting {
  cache?: string
  signal?: AbortSignal
  onProgress?: (progress: PullProgress) => void
  patience?: typeof patience
}

/** Before the tests of a file. */
export async function startHub (): Promise<FakeHub> {
  process.setMaxListeners(0) // each temporary folder has one
  for (const name of Object.keys(process.env)) {
    if (/^(HF_|HUGGING|XDG_CACHE|TRANSFORMERS_|HTTPS?_PROXY|ALL_PROXY)/i.test(name)) delete process.env[name]
  }
  return await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': weights } },
    'FoundationVision/LlamaGen': { licence: 'mit', files: { 'vq_ds16_c2i.pt': tokenizer } }
  })
}

/** Before each test: the Hub as if it had just begun, and an empty cache at `HF_HOME`. */
export function afresh (hub: FakeHub): void {
  hub.reset()
  for (const name of ['HF_TOKEN', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name]
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: temporaryFolder() })
}

export const cacheOf = (): string => path.join(process.env.HF_HOME!, 'hub')
export const folderOf = (repository: string): string => path.join(cacheOf(), `models--${repository.replace('/', '--')}`)

export async function fetchAll (setting: Setting = {}): Promise<[PulledFile, PulledFile]> {
  return await pullFiles(files,
    { cache: cacheOf(), signal: undefined, onProgress: undefined, patience, ...setting }) as [PulledFile, PulledFile]
}

export async function failure (work: Promise<unknown>): Promise<ParError> {
  return await work.then(() => { throw new Error('it went well') }, (error: ParError) => error)
}

/** Everything under a folder, with its content, sorted. */
export function everything (folder: string): Array<[name: string, content: string]> {
  return fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort().map(name => {
    const file = path.join(folder, name)
    const found = fs.lstatSync(file)
    return [name, found.isSymbolicLink()
      ? fs.readlinkSync(file)
      : found.isFile()
        ? fs.readFileSync(file, 'latin1').slice(0, 100)
        : '/']
  })
}
