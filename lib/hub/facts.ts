// What the Hub says about files before any of them is fetched: commit, size, hash, licence. @huggingface/hub knows these
// calls of its API; the requests are made by our own code, which tries again and keeps the token where it belongs. Its
// own downloads are not used: they neither resume nor check what has arrived.

import { ParError } from '../errors.js'
import { nodeWeb } from '../realm.js'
import { visible } from '../text.js'
import { branch } from './cache.js'
import { ask, checkStatus, Tries, type Hub } from './requests.js'

/** One file, as of a commit. */
export interface FileFacts {
  /** Hash of the content: sha256 of files in large file storage, else git's own (sha1). */
  oid: string
  size: number
}

export interface RepositoryFacts {
  commit: string
  /** As the model card says, e.g. 'mit'; absent where it says nothing. */
  licence: string | undefined
  files: Map<string, FileFacts>
}

export async function repositoryFacts (hub: Hub, repository: string, names: readonly string[]): Promise<RepositoryFacts> {
  const { modelInfo, pathsInfo } = library()
  const common = { hubUrl: hub.endpoint, fetch: fetcher(hub, repository) }
  const wrong = (what: string): ParError =>
    new ParError('DOWNLOAD_FAILED', `${repository}: ${hub.endpoint} gives an answer that is none of the Hub's (${what}). Check HF_ENDPOINT and what stands between (a proxy, a login page).`)
  const understood = async <T>(asked: Promise<T>): Promise<T> => await asked.catch((error: unknown) => {
    hub.signal?.throwIfAborted()
    throw error instanceof ParError ? error : wrong((error as Error).message)
  })
  const { sha, cardData, tags } = await understood(modelInfo({ ...common, name: repository, revision: branch, additionalFields: ['sha', 'cardData', 'tags'] }))
  if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha)) throw wrong('no commit')
  const found = await understood(pathsInfo({ ...common, repo: { type: 'model', name: repository }, paths: [...names], revision: sha }))
  const files = new Map<string, FileFacts>()
  for (const name of names) {
    const facts = found.find(({ path, type }) => path === name && type === 'file')
    if (!facts) throw new ParError('DOWNLOAD_FAILED', `${name}: ${repository} no longer has it. Look at ${hub.endpoint}/${repository}, and give the file by its path`)
    const oid = facts.lfs ? facts.lfs.oid : facts.oid
    const size = facts.lfs ? facts.lfs.size : facts.size
    if (typeof oid !== 'string' || !(facts.lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(oid)) throw wrong(`no hash of ${name}`)
    if (!Number.isSafeInteger(size) || size < 0) throw wrong(`no size of ${name}`)
    files.set(name, { oid, size })
  }
  return { commit: sha, licence: licenceOf(cardData, tags), files }
}

/** Loaded at first use, so that nothing but a pull pays for it; by require(), because import() works in no vm context. */
function library (): typeof import('@huggingface/hub') {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    return require('@huggingface/hub') as typeof import('@huggingface/hub')
  } catch (cause) {
    throw new ParError('DOWNLOAD_FAILED', `The package @huggingface/hub, which knows the Hub, could not be loaded: ${visible((cause as Error).message, 300)}. Install parvis again, or pull outside of this test environment.`, { cause })
  }
}

function licenceOf (card: unknown, tags: unknown): string | undefined {
  const { license, license_name: name } = (card ?? {}) as Record<string, unknown>
  // A card may say `license: other` and the name beside it.
  const own = license === 'other' && typeof name === 'string' ? name : Array.isArray(license) ? license.join(', ') : license
  if (typeof own === 'string' && own !== '') return own.slice(0, 100)
  const tag = Array.isArray(tags) ? tags.find(tag => typeof tag === 'string' && tag.startsWith('license:')) as string | undefined : undefined
  return tag?.slice('license:'.length)
}

/** fetch as @huggingface/hub calls it; whatever is no success is an error already. */
function fetcher (hub: Hub, repository: string): typeof fetch {
  const run = async (url: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const tries = new Tries(hub, repository)
    for (;;) {
      try {
        const answer = await ask(hub, String(url), {
          method: init.method ?? 'GET', headers: { ...init.headers as Record<string, string> }, body: init.body as string | undefined
        })
        try {
          checkStatus(answer, hub, repository, repository)
          const pieces: Uint8Array[] = []
          for await (const piece of answer.pieces()) pieces.push(piece)
          return new (nodeWeb().Response)(Buffer.concat(pieces), { status: 200, headers: { 'content-type': 'application/json' } })
        } finally {
          answer.end()
        }
      } catch (error) {
        await tries.failed(error)
      }
    }
  }
  return run as typeof fetch
}
