// Fetching a preset's files from the Hugging Face Hub into its standard cache. Only this, and `Par.load` where it is
// asked to, ever opens a connection. What the cache has needs none: where the Hub cannot be asked, it is compared with
// the hash that it was stored under, and that is enough.

import { readlink, stat } from 'node:fs/promises'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { areOne, findCached, CachedRepository, elsewhere } from './cache.js'
import { download, type Phase } from './download.js'
import { repositoryFacts, type RepositoryFacts } from './facts.js'
import { hashOf } from './hashes.js'
import { accessToken, cacheFolder, endpoint, offlineBy } from './location.js'
import { Thrown, defaultPatience, type Hub, type Patience } from './requests.js'
import { presetOf, type HubFile, type Preset, type PresetName } from '../models/presets.js'
import { callersOwn, ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { abortSignal, callback, folderPath, optionsObject } from '../base/validate.js'

/** How far a pull has come. */
export interface PullProgress {
  /** The file in work. */
  file: string
  /**
   * `waiting`: another process is fetching it; `checking`: what is in the cache is read and compared with its hash;
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
  cache?: string | undefined
  /**
   * Aborts the call, which rejects with `signal.reason`. What has arrived is kept, and the next call goes on with it.
   */
  signal?: AbortSignal | undefined
  /** Called as bytes arrive, some times a second. An error thrown in it ends the call with that error. */
  onProgress?: ((progress: PullProgress) => void) | undefined
}

/** One file of a preset, as it is in the cache. */
export interface PulledFile extends HubFile {
  /** Where it lies. */
  path: string
  /** Its size. */
  bytes: number
  /**
   * Hash that the bytes in `path` have, computed by this call: sha256; git's sha1 for files outside large file storage.
   */
  hash: string
  /** The repository's commit. */
  commit: string
  /** The licence that the repository names; absent where it names none. */
  licence?: string
  /** False where the cache had it already. */
  downloaded: boolean
  /**
   * Why the Hub could not be asked about the file; absent where it was, and names this hash. Then it is the newest in
   * the cache, and has the hash that it was stored under.
   */
  notCompared?: string
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
 * Fetches a preset's transformer and tokenizer from the Hugging Face Hub into its standard cache, where `Par.load`
 * finds them. What the cache has is not fetched again, but compared with its hash; what an interrupted call has left is
 * gone on with. A file is in the cache only once its size and hash are those that the Hub names. Where the cache has
 * everything, neither a connection nor a cache that can be written is needed.
 * Environment: `HF_HOME`, `HF_HUB_CACHE`, `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
 * `HF_HUB_OFFLINE`.
 * @throws ParError `DOWNLOAD_FAILED` (what is missing cannot be had), `FILE_NOT_FOUND` (the cache cannot be read or
 * written), `INVALID_OPTION`
 */
export async function pull (preset: PresetName, options?: PullOptions): Promise<PulledPreset> {
  const known = presetOf(preset)
  const { cache, signal, onProgress } = optionsObject(options, 'pull', ['cache', 'signal', 'onProgress'])
  const { transformer, tokenizer } = known
  const [first, second] = await pullFiles([transformer, tokenizer], {
    cache: cache === undefined ? cacheFolder() : folderPath(cache, 'cache'),
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

/** Any files of the Hub, one after another. @throws as `pull` */
export async function pullFiles (files: readonly HubFile[], work: Work): Promise<PulledFile[]> {
  const { cache, signal, onProgress } = work
  signal?.throwIfAborted()
  const report = (progress: PullProgress): void => {
    try {
      onProgress?.(progress)
    } catch (error) {
      throw new Thrown(callersOwn(error)) // whatever it looks like, it is none of ours
    }
  }
  try {
    return await pulling(files, work, report)
  } catch (error) {
    if (error instanceof Thrown) throw error.thrown
    signal?.throwIfAborted()
    const { path, dest, syscall } = (error ?? {}) as NodeJS.ErrnoException & { dest?: unknown }
    const at = syscall === 'rename' ? dest : path // what is renamed has a name that nobody knows
    const known = fromSystem(error, typeof at === 'string' ? at : cache, 'written')
    throw known === error || !(known instanceof ParError)
      ? known
      : new ParError(known.code, `${known.message} ${elsewhere}`, { cause: error })
  }
}

/** Failures in a row after which the Hub is left alone where everything is here anyway. */
const fewAttempts = 2

async function pulling (files: readonly HubFile[], { cache, signal, patience = defaultPatience }: Work, report: (
  progress: PullProgress
) => void): Promise<PulledFile[]> {
  const offline = offlineBy()
  const hub: Hub | undefined = offline === undefined
    ? { endpoint: endpoint(), token: await accessToken(), signal, patience }
    : undefined

  // ---- what there is to do
  const repositories = [...new Set(files.map(({ repository }) => repository))]
  const facts = new Map<string, RepositoryFacts>()
  /** By repository: why the Hub could not be asked. */
  const unasked = new Map<string, string>()
  for (const repository of repositories) {
    const own = files.filter(file => file.repository === repository)
    const names = own.map(({ file }) => file)
    const missing: string[] = []
    for (const file of own) if (await findCached(cache, file) === undefined) missing.push(file.file)
    try {
      if (!hub) {
        throw new ParError('DOWNLOAD_FAILED',
          `${offline} is set, so nothing is fetched. Unset it to fetch from the Hub.`)
      }
      const attempts = missing.length > 0 ? patience.attempts : Math.min(fewAttempts, patience.attempts)
      const onRetry = (problem: string): void =>
        report({ file: names[0]!, phase: 'retrying', bytesDone: 0, bytes: 0, problem })
      facts.set(repository,
        await repositoryFacts({ ...hub, patience: { ...patience, attempts }, onRetry }, repository, names))
    } catch (error) {
      if (!(error instanceof ParError) || error.code !== 'DOWNLOAD_FAILED') throw error
      if (missing.length > 0) {
        throw new ParError(error.code, lacking(missing, repository, cache, error.message), { cause: error.cause })
      }
      unasked.set(repository, error.message)
    }
  }
  const jobs = await Promise.all(files.map(async ({ repository, file }) => {
    const cached = new CachedRepository(cache, repository)
    const known = facts.get(repository)
    if (known) {
      return { cached, repository, file, commit: known.commit, licence: known.licence, ...known.files.get(file)! }
    }
    const [found, notCompared] = [await cached.find(file), unasked.get(repository)!]
    if (!found) throw new ParError('DOWNLOAD_FAILED', lacking([file], repository, cache, notCompared))
    return { repository, file, ...found, size: (await stat(found.path)).size, notCompared }
  }))

  // ---- doing it
  const bytes = jobs.reduce((sum, { size }) => sum + size, 0)
  let before = 0
  const pulled: PulledFile[] = []
  for (const job of jobs) {
    const { repository, file, size } = job
    let [last, told] = ['' as Phase | '', 0]
    const tell = (phase: Phase, done: number, problem?: string): void => {
      const now = performance.now()
      if (phase === last && now - told < reportEvery && done < size) return
      ;[last, told] = [phase, now]
      report({ file, phase, bytesDone: before + done, bytes, ...(problem !== undefined && { problem }) })
    }
    const done = 'cached' in job
      ? { ...await fetched(hub!, job.cached, job, tell), hash: job.oid, ...(job.licence !== undefined &&
        { licence: job.licence }) }
      : { path: job.path, commit: job.commit, hash: await stored(job, signal,
          tell), downloaded: false, notCompared: job.notCompared }
    before += size
    report({ file, phase: done.downloaded ? 'downloading' : 'checking', bytesDone: before, bytes })
    pulled.push({ repository, file, bytes: size, ...done })
  }
  return pulled
}

function lacking (missing: readonly string[], repository: string, cache: string, why: string): string {
  return missing.some(name => why.startsWith(name))
    ? why
    : `${missing.join(' and ')} of ${repository}: not in the cache (${shownPath(cache)}), and ${why}`
}

/** A file that the Hub names, in the cache and under its name there. */
async function fetched (
  hub: Hub, cached: CachedRepository, job: Parameters<typeof download>[2], tell: Parameters<typeof download>[3],
  again = true
): Promise<{ path: string, commit: string, downloaded: boolean }> {
  const { file, commit, oid } = job
  const { downloaded, named } = await download(hub, cached, job, tell)
  try {
    await cached.publish(commit, file, oid, { named, isNew: downloaded })
  } catch (error) {
    // Where there are no links, another process may have moved the blob to its name meanwhile.
    if (again && (error as NodeJS.ErrnoException).code === 'ENOENT') {
      return await fetched(hub, cached, job, tell, false)
    }
    // A cache that cannot be written, but has the content under the name of an earlier commit: that is as good.
    const earlier = downloaded ? undefined : await cached.find(file).catch(() => undefined)
    if (earlier && await areOne(earlier.path, cached.blob(oid))) return { ...earlier, downloaded }
    throw error
  }
  return { path: cached.pointer(commit, file), commit, downloaded }
}

/** The hash of a file of the cache. A link leads to a name that is the hash of what was stored there. */
async function stored (
  { file, path: place, size, notCompared }: { file: string, path: string, size: number, notCompared: string },
  signal: AbortSignal | undefined, tell: (phase: Phase, done: number) => void
): Promise<string> {
  const name = path.basename(await readlink(place).catch(() => ''))
  const expected = /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name) ? name : undefined
  const hash = await hashOf(place, { oid: expected ?? '0'.repeat(64), size }, signal, done => tell('checking', done))
  if (hash !== undefined && (expected === undefined || hash === expected)) return hash
  throw new ParError('DOWNLOAD_FAILED', `${file}: it is damaged in the cache (${shownPath(place)}), and ${notCompared}`)
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
  if (path === undefined) {
    throw new ParError('FILE_NOT_FOUND',
      `${tokenizer.file} of ${name} is not in the cache (${shownPath(folder)}). Run: npx parvis pull ${name}`)
  }
  return path
}

/**
 * A preset's files in the cache; fetched where that is asked for.
 * @throws ParError `FILE_NOT_FOUND`, which says what to run
 */
export async function presetFiles (
  preset: Preset, { cache, pull: fetching, signal, onPull }: Placing
): Promise<{ transformer: string, tokenizer: string }> {
  const folder = cache ?? cacheFolder()
  const [transformer, tokenizer] = [await findCached(folder, preset.transformer),
    await findCached(folder, preset.tokenizer)]
  if (transformer !== undefined && tokenizer !== undefined) return { transformer, tokenizer }
  if (!fetching) {
    const missing = transformer === undefined ? preset.transformer : preset.tokenizer
    throw new ParError('FILE_NOT_FOUND',
      `${missing.file} of ${preset.name} is not in the cache (${shownPath(folder)}). Run: npx parvis ` +
        `pull ${preset.name}; or ask Par.load for it: { pull: true }`)
  }
  const pulled = await pull(preset.name, { cache: folder, signal, onProgress: onPull })
  return { transformer: pulled.transformer.path, tokenizer: pulled.tokenizer.path }
}
