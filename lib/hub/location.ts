// Where the Hub is, who asks, and where its files are kept on this machine: the environment variables of Hugging Face's
// own libraries, so that a file which any of them has fetched is found, and theirs find ours.

import os from 'node:os'
import path from 'node:path'
import { URL } from 'node:url'
import { ParError } from '../base/errors.js'
import { absolute, readWhole } from '../base/files.js'
import { shownPath, visible } from '../base/text.js'
import { invalid, show } from '../base/validate.js'

type Environment = Readonly<Record<string, string | undefined>>

/** How paths are written on a platform. */
const pathsOf = (platform: string): path.PlatformPath => platform === 'win32' ? path.win32 : path.posix

/** An access token and where it was found, for messages. */
export interface Token { value: string, from: string }

/**
 * The user's own folder. @throws ParError `FILE_NOT_FOUND` where the system knows none (containers with a made-up user)
 */
function userFolder (env: Environment, platform: string): string {
  // On Windows as Python does it: a HOME that another program has set (Git's shell: /c/Users/me) is none of its.
  const name = platform === 'win32' ? 'USERPROFILE' : 'HOME'
  let known = env[name]
  if (known) return known
  try {
    known = platform === 'win32' ? os.homedir() : os.userInfo().homedir
  } catch {} // the system knows no such user
  if (known) return known
  throw new ParError('FILE_NOT_FOUND', `This user has no home folder (${name} is not set), so there is no place for ` +
    'the cache of Hugging Face. Set HF_HOME to a folder.')
}

/**
 * The folder of the user's caches: XDG_CACHE_HOME, else `.cache` in the user's own folder.
 * @throws ParError `FILE_NOT_FOUND` where the user has none
 */
export function userCaches (env: Environment = process.env, platform: string = process.platform): string {
  if (env.XDG_CACHE_HOME) return expanded('XDG_CACHE_HOME', env, platform)
  return pathsOf(platform).join(userFolder(env, platform), '.cache')
}

/** HF_HOME, else a folder among the user's caches. */
function home (env: Environment, platform: string): string {
  if (env.HF_HOME) return expanded('HF_HOME', env, platform)
  return pathsOf(platform).join(userCaches(env, platform), 'huggingface')
}

/**
 * A folder of the environment with `~` and `$NAME` as huggingface_hub reads them: Python's expanduser, then its
 * expandvars.
 */
function expanded (name: string, env: Environment, platform: string): string {
  const given = env[name]!
  const isWindows = platform === 'win32'
  const own = given.replace(isWindows ? /^~(?=$|[\\/])/ : /^~(?=$|\/)/, () => userFolder(env, platform))
  if (own.startsWith('~')) {
    throw invalid(
      `${name} begins with the home folder of another user ('${shownPath(given)}'); write that folder in full`
    )
  }
  // Each once: what a variable holds is not looked through.
  const variables = isWindows ? /\$(\w+|\{[^}]*\})|%([^%]+)%/g : /\$(\w+|\{[^}]*\})/g
  return absolute(own.replace(variables, (text: string, dollar: string | undefined, percent: unknown) =>
    env[dollar?.replace(/^\{|\}$/g, '') ?? String(percent)] ?? text), pathsOf(platform))
}

/** The folder of the standard cache. @throws ParError `FILE_NOT_FOUND`, `INVALID_OPTION` */
export function cacheFolder (env: Environment = process.env, platform: string = process.platform): string {
  for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE']) if (env[name]) return expanded(name, env, platform)
  return pathsOf(platform).join(home(env, platform), 'hub')
}

/** Where the Hub answers, without a slash at the end. @throws ParError `INVALID_OPTION`, which shows no password */
export function endpoint (env: Environment = process.env): string {
  const given = env.HF_ENDPOINT || 'https://huggingface.co'
  const url = URL.canParse(given) ? new URL(given) : undefined
  // Whatever may hold a password or a key is not repeated.
  const shown = /[@?#]/.test(given) ? 'what it is now' : visible(show(given))
  if (!url || !['http:', 'https:'].includes(url.protocol)) {
    throw invalid(`HF_ENDPOINT must be a URL that begins with https:// or http://, not ${shown}`)
  }
  if (url.username !== '' || url.password !== '') {
    throw invalid(
      'HF_ENDPOINT must hold no user name and no password. Leave them out; an access token belongs in HF_TOKEN'
    )
  }
  if (/[?#]/.test(given)) {
    throw invalid('HF_ENDPOINT must end with its path: leave out the query and the fragment (from ? or # on)')
  }
  return url.origin + url.pathname.replace(/\/+$/, '')
}

/** Bytes that a file with a token may have. */
const longestToken = 1 << 16

/**
 * HF_TOKEN, else what `hf auth login` has stored.
 * @throws ParError `INVALID_OPTION` for one that no header can hold; `FILE_NOT_FOUND` where HF_TOKEN_PATH cannot be
 * read
 */
export async function accessToken (
  env: Environment = process.env, platform: string = process.platform
): Promise<Token | undefined> {
  for (const name of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']) {
    const value = env[name]?.trim()
    if (value) return checked({ value, from: name })
  }
  let file: string
  try {
    file = env.HF_TOKEN_PATH ? expanded('HF_TOKEN_PATH', env, platform) : path.join(home(env, platform), 'token')
  } catch (error) {
    if (env.HF_TOKEN_PATH || env.HF_HOME) throw error
    return undefined // without a home folder nobody has logged in
  }
  const bytes = await readWhole(file, { limit: longestToken }).catch((error: unknown) => {
    const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code ?? ''
    // That nobody has logged in is usual, and so is a home folder that this process may not look into.
    if (['ENOENT', 'ENOTDIR'].includes(code) || !env.HF_TOKEN_PATH) return Buffer.alloc(0)
    throw new ParError('FILE_NOT_FOUND', `The file of HF_TOKEN_PATH: ${(error as Error).message}`, { cause: error })
  })
  const value = bytes.toString('utf8').replace(/^\ufeff/, '').trim()
  return value === '' ? undefined : checked({ value, from: shownPath(file) })
}

function checked (token: Token): Token {
  if (/^[\x21-\x7e]+$/.test(token.value)) return token
  throw invalid(`The access token in ${token.from} holds characters that no token has (a line break, a blank?); set ` +
    'HF_TOKEN to the token alone')
}

/** The environment variable that forbids connections, where one does. */
export function offlineBy (env: Environment = process.env): string | undefined {
  return ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'].find(name => /^\s*(1|on|yes|true)\s*$/i.test(env[name] ?? ''))
}

/**
 * What to say where a connection failed, a proxy is set and this Node.js goes past it; '' otherwise.
 * @param address where the connection was to go
 */
export function proxyHint (
  address: URL, env: Environment = process.env, { version = process.versions.node, flags = process.execArgv } = {}
): string {
  const kind = address.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY'
  const name = [kind, kind.toLowerCase(), 'ALL_PROXY', 'all_proxy'].find(name => env[name])
  if (name === undefined) return ''
  const spared = (env.NO_PROXY || env.no_proxy || '').split(/[\s,]+/).filter(Boolean)
  if (spared.some(host =>
    host === '*' || `.${address.hostname}`.endsWith(`.${host.replace(/^\*?\./, '').replace(/:\d+$/, '')}`))) {
    return ''
  }
  const [major, minor] = version.split('.').map(Number) as [number, number]
  const able = major > 24 || major === 24 || (major === 22 && minor >= 21)
  const asked = env.NODE_USE_ENV_PROXY === '1' ||
    [...flags, ...(env.NODE_OPTIONS ?? '').split(/\s+/)].includes('--use-env-proxy')
  if (able && asked) return ` ${name} is set, and used: check that proxy.`
  // A program may have given fetch a proxy by itself.
  const dispatcher = (globalThis as Record<symbol, unknown>)[Symbol.for('undici.globalDispatcher.1')]
  if (/proxy/i.test(dispatcher?.constructor.name ?? '')) return ''
  return able
    ? ` ${name} is set, but Node.js uses it only with NODE_USE_ENV_PROXY=1: set that too.`
    : ` ${name} is set, but Node.js ${version} does not use it: run Node.js 22.21, 24 or newer, and set ` +
      'NODE_USE_ENV_PROXY=1.'
}
