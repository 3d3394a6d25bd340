// Where the Hub is, who asks, and where its files are kept on this machine: the environment variables of Hugging Face's
// own libraries, so that a file which any of them has fetched is found, and theirs find ours.

import { readFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { URL } from 'node:url'
import { ParError } from '../errors.js'
import { invalid, show } from '../validate.js'

type Environment = Readonly<Record<string, string | undefined>>

/** An access token and where it was found, for messages. */
export interface Token { value: string, from: string }

/** HF_HOME, else the folder of the user's caches. */
function home (env: Environment): string {
  if (env.HF_HOME) return expanded(env.HF_HOME)
  return path.join(env.XDG_CACHE_HOME ? expanded(env.XDG_CACHE_HOME) : path.join(os.homedir(), '.cache'), 'huggingface')
}

function expanded (folder: string): string {
  return path.resolve(folder.replace(/^~(?=$|[\\/])/, () => os.homedir()))
}

/** The folder of the standard cache. */
export function cacheFolder (env: Environment = process.env): string {
  const given = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE
  return given ? expanded(given) : path.join(home(env), 'hub')
}

/** Where the Hub answers, without a slash at the end. @throws ParError `INVALID_OPTION` */
export function endpoint (env: Environment = process.env): string {
  const given = env.HF_ENDPOINT || 'https://huggingface.co'
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (!url || !['http:', 'https:'].includes(url.protocol)) throw invalid(`HF_ENDPOINT must be a URL that begins with https:// or http://, not ${show(given)}`)
  return given.replace(/\/+$/, '')
}

/** HF_TOKEN, else what `hf auth login` has stored. @throws ParError `INVALID_OPTION` for one that no header can hold */
export async function accessToken (env: Environment = process.env): Promise<Token | undefined> {
  for (const name of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']) {
    const value = env[name]?.trim()
    if (value) return checked({ value, from: name })
  }
  const file = env.HF_TOKEN_PATH ? expanded(env.HF_TOKEN_PATH) : path.join(home(env), 'token')
  const value = (await readFile(file, 'utf8').catch(() => '')).trim()
  return value === '' ? undefined : checked({ value, from: file })
}

function checked (token: Token): Token {
  if (/^[\x21-\x7e]+$/.test(token.value)) return token
  throw invalid(`The access token in ${token.from} holds characters that no token has (a line break, a blank?); set HF_TOKEN to the token alone`)
}

/** @throws ParError `DOWNLOAD_FAILED` where the environment forbids it */
export function checkOnline (env: Environment = process.env): void {
  if (/^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? '')) throw new ParError('DOWNLOAD_FAILED', 'HF_HUB_OFFLINE is set, so nothing is fetched. Unset it to fetch from the Hub.')
}
