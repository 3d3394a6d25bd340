// What the Hub says about files before any of them is fetched: commit, size, hash, licence. @huggingface/hub knows
// these calls of its API; the requests are made by our own code, which tries again and keeps the token where it
// belongs. Its own downloads are not used: they neither resume nor check what has arrived. Mirrors and proxies often
// lack a part of the API; what they do not answer is asked by HEAD, as the clients in Python do it.

import { ParError } from '../base/errors.js'
import { nodeWeb } from '../base/realm.js'
import { visible } from '../base/text.js'
import { branch } from './cache.js'
import { ask, Thrown, checkStatus, readBody, tried, withoutSecrets, type Hub } from './requests.js'

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

const commitPattern = /^[0-9a-f]{40}$/

/** @throws ParError `DOWNLOAD_FAILED`; the signal's reason */
export async function repositoryFacts (
  hub: Hub, repository: string, names: readonly string[]
): Promise<RepositoryFacts> {
  const { modelInfo, pathsInfo } = library()
  const common = { hubUrl: hub.endpoint, fetch: fetcher(hub, repository) }
  const wrong = (what: string): ParError =>
    new ParError('DOWNLOAD_FAILED', `${repository}: ${hub.endpoint} gives an answer that is none of the Hub's ` +
      `(${what}). Check HF_ENDPOINT and what stands between (a proxy, a login page).`)
  /** Undefined where the endpoint has no such call. */
  const understood = async <T>(asked: Promise<T>): Promise<T | undefined> => await asked.catch((error: unknown) => {
    hub.signal?.throwIfAborted()
    if (error instanceof NoSuchCall) return undefined
    throw error instanceof ParError || error instanceof Thrown
      ? error
      : wrong(withoutSecrets(String((error as Error | undefined)?.message)))
  })
  const info = await understood(
    modelInfo({ ...common, name: repository, revision: branch, additionalFields: ['sha', 'cardData', 'tags'] })
  )
  if (info && (typeof info.sha !== 'string' || !commitPattern.test(info.sha))) throw wrong('no commit')
  let commit = info?.sha
  const files = new Map<string, FileFacts>()
  const found = commit === undefined
    ? undefined
    : await understood(
      pathsInfo({ ...common, repo: { type: 'model', name: repository }, paths: [...names], revision: commit })
    )
  for (const name of names) {
    if (!found) {
      const head = await headFacts(hub, repository, commit ?? branch, name)
      commit ??= head.commit
      if (commit === undefined) throw notFull(hub, repository, 'the commit')
      if (head.commit !== undefined && head.commit !== commit) throw wrong('two commits of one branch')
      files.set(name, { oid: head.oid, size: head.size })
      continue
    }
    const facts = found.find(({ path, type }) => path === name && type === 'file')
    if (!facts) {
      throw new ParError('DOWNLOAD_FAILED',
        `${name}: ${repository} no longer has it. Look at ${hub.endpoint}/${repository}, and give the file by its path`)
    }
    const oid = facts.lfs ? facts.lfs.oid : facts.oid
    const size = facts.lfs ? facts.lfs.size : facts.size
    if (typeof oid !== 'string' || !(facts.lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(oid)) {
      throw wrong(`no hash of ${name}`)
    }
    if (!Number.isSafeInteger(size) || size < 0) throw wrong(`no size of ${name}`)
    files.set(name, { oid, size })
  }
  return { commit: commit!, licence: info && licenceOf(info.cardData, info.tags), files }
}

/**
 * Loaded at first use, so that nothing but a pull pays for it; by require(), because import() works in no vm context.
 */
function library (): typeof import('@huggingface/hub') {
  try {
    return require('@huggingface/hub') as typeof import('@huggingface/hub')
  } catch (cause) {
    throw new ParError('DOWNLOAD_FAILED',
      'The package @huggingface/hub, which knows the Hub, could not be ' +
        `loaded: ${visible((cause as Error).message, 300)}. Install parvis again, or pull outside of this test ` +
          'environment.', { cause })
  }
}

/** Address of a file's bytes. */
export function addressOf (hub: Hub, repository: string, revision: string, file: string): string {
  return `${hub.endpoint}/${repository}/resolve/${revision}/${file.split('/').map(encodeURIComponent).join('/')}`
}

export function unquoted (etag: string | null): string | undefined {
  return etag === null ? undefined : etag.trim().replace(/^W\//, '').replace(/^"|"$/g, '')
}

/** Size, SHA-256 and, where it is told, commit of a file by HEAD: the Hub's own headers, else those of the file. */
async function headFacts (
  hub: Hub, repository: string, revision: string, name: string
): Promise<FileFacts & { commit: string | undefined }> {
  const linked = (headers: Headers): boolean => headers.has('x-linked-etag') && headers.has('x-linked-size')
  return await tried(hub, name, async () => {
    const answer = await ask(hub, addressOf(hub, repository, revision, name), { method: 'HEAD', enough: linked })
    try {
      const { response: { status, headers }, hub: said } = answer
      if (!linked(said)) {
        if ([400, 405, 501].includes(status)) throw notFull(hub, repository, `anything about ${name}`)
        checkStatus(answer, hub, repository, name)
      }
      const packed = !['', 'identity'].includes(headers.get('content-encoding')?.toLowerCase() ?? '')
      const oid = unquoted(said.get('x-linked-etag') ?? headers.get('etag')) ?? ''
      const size = said.get('x-linked-size') ?? (packed ? null : headers.get('content-length')) ?? ''
      const commit = said.get('x-repo-commit') ?? headers.get('x-repo-commit') ?? ''
      if (!/^[0-9a-f]{64}$/.test(oid)) throw notFull(hub, repository, `the SHA-256 of ${name}`)
      if (!/^\d{1,15}$/.test(size)) throw notFull(hub, repository, `the size of ${name}`)
      return { oid, size: Number(size), commit: commitPattern.test(commit) ? commit : undefined }
    } finally {
      answer.end()
    }
  })
}

function notFull (hub: Hub, repository: string, lacking: string): ParError {
  return new ParError('DOWNLOAD_FAILED',
    `${repository}: ${hub.endpoint} is no full Hub: it has no call for it, and its answers to HEAD do not ` +
      `name ${lacking}. ` +
    'A mirror has to pass on x-repo-commit, x-linked-etag and x-linked-size; or unset HF_ENDPOINT.')
}

/** Characters of a licence that are kept. */
const longestLicence = 100

function licenceOf (card: unknown, tags: unknown): string | undefined {
  const { license, license_name: name } = (card ?? {}) as Record<string, unknown>
  // A card may say `license: other` and the name beside it.
  const own = license === 'other' && typeof name === 'string' ? name : license
  const list = (Array.isArray(own)
    ? own.slice(0, 10)
    : [own]).filter((item): item is string => typeof item === 'string' && item.trim() !== '')
  if (list.length > 0) return visible(list.map(item => item.slice(0, longestLicence)).join(', '), longestLicence)
  const prefix = 'license:'
  const tag = Array.isArray(tags)
    ? tags.find((tag): tag is string => typeof tag === 'string' && tag.startsWith(prefix))
    : undefined
  return tag === undefined || tag.length === prefix.length
    ? undefined
    : visible(tag.slice(prefix.length), longestLicence)
}

/** The endpoint has no such call of the API. */
class NoSuchCall extends Error {}

/** fetch as @huggingface/hub calls it; whatever is no success is an error already. */
function fetcher (hub: Hub, repository: string): typeof fetch {
  const run = async (
    url: string | URL | Request, init: RequestInit = {}
  ): Promise<Response> => await tried(hub, repository, async () => {
    const answer = await ask(hub, String(url), {
      method: init.method ?? 'GET', headers: { ...init.headers as Record<string, string> },
      body: init.body as string | undefined
    })
    try {
      // What the Hub itself refuses bears its code of the reason.
      const { status, headers } = answer.response
      if ([400, 404, 405, 501].includes(status) && !headers.has('x-error-code')) throw new NoSuchCall(String(status))
      checkStatus(answer, hub, repository, repository)
      return new (nodeWeb().Response)(await readBody(answer, repository),
        { status: 200, headers: { 'content-type': 'application/json' } })
    } finally {
      answer.end()
    }
  })
  return run as typeof fetch
}
