// Fetching a preset's files from the Hugging Face Hub into its standard cache. Only this, and `Par.load` where it is
// asked to, ever opens a connection.

import { performance } from 'node:perf_hooks'
import { findCached, CachedRepository } from './hub/cache.js'
import { download, type Phase } from './hub/download.js'
import { repositoryFacts } from './hub/facts.js'
import { accessToken, cacheFolder, checkOnline, endpoint } from './hub/location.js'
import { defaultPatience, type Hub, type Patience } from './hub/requests.js'
import { presetOf, type HubFile, type Preset, type PresetName } from './presets.js'
import { ParError } from './errors.js'
import { abortSignal, callback, nonEmptyString, optionsObject } from './validate.js'

/** How far a pull has come. */
export interface PullProgress {
  /** The file in work. */
  file: string
  /**
   * `waiting`: another process is fetching it; `checking`: what an earlier attempt has left is read again;
   * `downloading`; `retrying`: the connection failed, see `problem`.
   */
  phase: 'waiting' | 'checking' | 'downloading' | 'retrying'
  /** Bytes that are here, of all files together. */
  bytesDone: number
  /** Bytes of all files together. */
  bytes: number
  /** Why it is tried again; with `retrying` only. */
  problem?: string
}

/** Options of `pull`. */
export interface PullOptions {
  /** The cache's folder. Default: HF_HUB_CACHE, else `hub` in HF_HOME, else `~/.cache/huggingface/hub`. */
  cache?: string
  /** Aborts the call, which rejects with `signal.reason`. What has arrived is kept, and the next call goes on with it. */
  signal?: AbortSignal
  /** Called as bytes arrive, some times a second. An error thrown in it ends the call with that error. */
  onProgress?: (progress: PullProgress) => void
}

/** One file of a preset, as it is in the cache. */
export interface PulledFile extends HubFile {
  /** Where it lies. */
  path: string
  /** Its size. */
  bytes: number
  /** Hash of its content, which was compared: sha256 of all large files. */
  hash: string
  /** The repository's commit. */
  commit: string
  /** The licence that the repository names; absent where it names none. */
  licence?: string
  /** False where the cache had it already. */
  downloaded: boolean
}

/** What `pull` has fetched. */
export interface PulledPreset {
  /** The preset. */
  preset: PresetName
  /** Its transformer. */
  transformer: PulledFile
  /** Its tokenizer. */
  tokenizer: PulledFile
}

/** Milliseconds between two reports while bytes arrive. */
const reportEvery = 50

/**
 * Fetches a preset's transformer and tokenizer from the Hugging Face Hub into its standard cache, where `Par.load` finds
 * them. What the cache has is not fetched again; what an interrupted call has left is gone on with. A file is in the
 * cache only once its size and hash are those that the Hub names.
 * Environment: `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`.
 * @throws ParError `DOWNLOAD_FAILED`, `FILE_NOT_FOUND` (the cache cannot be written), `INVALID_OPTION`
 */
export async function pull (preset: PresetName, options?: PullOptions): Promise<PulledPreset> {
  const known = presetOf(preset)
  const { cache, signal, onProgress } = optionsObject(options, 'pull', ['cache', 'signal', 'onProgress'])
  const { transformer, tokenizer } = known
  const [first, second] = await pullFiles([transformer, tokenizer], {
    cache: cache === undefined ? cacheFolder() : nonEmptyString(cache, 'cache'),
    signal: abortSignal(signal),
    onProgress: callback(onProgress, 'onProgress')
  })
  return { preset: known.name, transformer: first!, tokenizer: second! }
}

interface Work {
  cache: string
  signal: AbortSignal | undefined
  onProgress: ((progress: PullProgress) => void) | undefined
  patience?: Patience
}

/** Any files of the Hub, one after another. */
export async function pullFiles (files: readonly HubFile[], { cache, signal, onProgress, patience = defaultPatience }: Work): Promise<PulledFile[]> {
  signal?.throwIfAborted()
  checkOnline()
  const hub: Hub = { endpoint: endpoint(), token: await accessToken(), signal, patience }

  // ---- what there is to do
  const repositories = [...new Set(files.map(({ repository }) => repository))]
  const facts = new Map<string, Awaited<ReturnType<typeof repositoryFacts>>>()
  for (const repository of repositories) {
    const names = files.filter(file => file.repository === repository).map(({ file }) => file)
    const asking: Hub = { ...hub, onRetry: problem => onProgress?.({ file: names[0]!, phase: 'retrying', bytesDone: 0, bytes: 0, problem }) }
    facts.set(repository, await repositoryFacts(asking, repository, names))
  }
  const jobs = files.map(({ repository, file }) => {
    const { commit, licence, files } = facts.get(repository)!
    return { repository, file, commit, licence, ...files.get(file)! }
  })

  // ---- doing it
  const bytes = jobs.reduce((sum, { size }) => sum + size, 0)
  let before = 0
  const pulled: PulledFile[] = []
  for (const job of jobs) {
    const cached = new CachedRepository(cache, job.repository)
    let [last, told] = ['' as Phase | '', 0]
    const downloaded = await download(hub, cached, job, (phase, done, problem) => {
      const now = performance.now()
      if (phase === last && now - told < reportEvery && done < job.size) return
      ;[last, told] = [phase, now]
      onProgress?.({ file: job.file, phase, bytesDone: before + done, bytes, ...(problem !== undefined && { problem }) })
    })
    before += job.size
    onProgress?.({ file: job.file, phase: 'downloading', bytesDone: before, bytes })
    const { repository, file, oid, size, commit, licence } = job
    const path = await cached.publish(commit, file, oid)
    pulled.push({ repository, file, path, bytes: size, hash: oid, commit, ...(licence !== undefined && { licence }), downloaded })
  }
  return pulled
}

/** What `Par.load` needs to know about where a preset's files are. */
export interface Placing {
  cache: string | undefined
  pull: boolean
  signal: AbortSignal | undefined
  onPull: ((progress: PullProgress) => void) | undefined
}

/**
 * Its tokenizer alone.
 * @throws ParError `FILE_NOT_FOUND`, which says what to run
 */
export async function presetTokenizer ({ name, tokenizer }: Preset, folder = cacheFolder()): Promise<string> {
  const path = await findCached(folder, tokenizer)
  if (path === undefined) throw new ParError('FILE_NOT_FOUND', `${tokenizer.file} of ${name} is not in the cache (${folder}). Run: npx parvis pull ${name}`)
  return path
}

/**
 * A preset's files in the cache; fetched where that is asked for.
 * @throws ParError `FILE_NOT_FOUND`, which says what to run
 */
export async function presetFiles (preset: Preset, { cache, pull: fetching, signal, onPull }: Placing): Promise<{ transformer: string, tokenizer: string }> {
  const folder = cache ?? cacheFolder()
  const [transformer, tokenizer] = [await findCached(folder, preset.transformer), await findCached(folder, preset.tokenizer)]
  if (transformer !== undefined && tokenizer !== undefined) return { transformer, tokenizer }
  if (!fetching) {
    const missing = transformer === undefined ? preset.transformer : preset.tokenizer
    throw new ParError('FILE_NOT_FOUND',
      `${missing.file} of ${preset.name} is not in the cache (${folder}). Run: npx parvis pull ${preset.name}; or ask Par.load for it: { pull: true }`)
  }
  const pulled = await pull(preset.name, { cache: folder, signal, onProgress: onPull })
  return { transformer: pulled.transformer.path, tokenizer: pulled.tokenizer.path }
}
