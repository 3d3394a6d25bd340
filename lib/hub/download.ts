// One file of the Hub into the cache. What arrives is hashed as it is written, goes on where an earlier attempt
// stopped, and becomes a blob only when size and hash are those that the Hub named: nothing damaged ever gets that
// name.

import { statfs } from 'node:fs/promises'
import { ParError } from '../base/errors.js'
import { shownPath } from '../base/text.js'
import { areOne, type CachedRepository } from './cache.js'
import { addressOf, unquoted, type FileFacts } from './facts.js'
import { hashFor, Judge } from './hashes.js'
import { Partial } from './partial.js'
import { ask, checkStatus, Passing, Tries, type Hub } from './requests.js'

/** What is being done with a file. */
export type Phase = 'waiting' | 'checking' | 'downloading' | 'retrying'

export interface Job extends FileFacts {
  repository: string
  file: string
  commit: string
}

/** Wrong bytes may come once, from a cache in between; a second time they are what the server has. */
const maxFresh = 2

/**
 * Fetches a file where the cache has not got its content; it has it afterwards.
 * @param tell phase and bytes of the file that are here
 * @returns whether anything was fetched, and whether the name in the commit has that content already
 */
export async function download (
  hub: Hub, cache: CachedRepository, job: Job, tell: (phase: Phase, done: number, problem?: string) => void
): Promise<{ downloaded: boolean, named: boolean }> {
  const [blob, pointer] = [cache.blob(job.oid), cache.pointer(job.commit, job.file)]
  const judge = new Judge(job, hub.signal, done => tell('checking', done))
  let named = false
  // What is there counts by its content, not by its name or size: a disk, or somebody else, may have changed it.
  const finished = async (): Promise<boolean> => {
    named = await judge.right(pointer)
    return named || await judge.right(blob)
  }
  for (;;) {
    const partial = await Partial.claim(cache.blobs, job.oid, finished, hub.signal, () => tell('waiting', 0))
    if (!partial) return { downloaded: false, named }
    try {
      await fill(hub, partial, job, tell)
      await partial.finish(blob)
      return { downloaded: true, named: await areOne(pointer, blob) }
    } catch (error) {
      await partial.release()
      if (!(error instanceof TakenOver) && (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
}

/** Bytes that count as progress. A server that gives a byte and breaks off would otherwise be asked for each one. */
const leastProgress = 1 << 14

/** Another process has taken the part over, while this one slept. */
class TakenOver extends Error {}

async function fill (
  hub: Hub, partial: Partial, job: Job, tell: (phase: Phase, done: number, problem?: string) => void
): Promise<void> {
  const { handle } = partial
  const tries = new Tries({ ...hub, onRetry: problem => tell('retrying', done, problem) }, job.file)
  let hash = hashFor(job)
  let done = 0
  /** The most that was here. A server without ranges that cuts each connection makes no progress beyond it. */
  let most = 0
  /** As much of it as patience has begun anew for. */
  let counted = 0
  let fresh = 0

  // ---- what an earlier attempt has left
  const { size: left } = await handle.stat()
  if (left > job.size) await handle.truncate(0)
  else {
    const buffer = Buffer.allocUnsafe(1 << 20)
    while (done < left) {
      hub.signal?.throwIfAborted()
      tell('checking', done)
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, left - done), done)
      if (bytesRead === 0) break
      hash.update(buffer.subarray(0, bytesRead))
      done += bytesRead
    }
  }
  most = counted = done
  await checkSpace(partial.file, job.size - done)

  // ---- the rest
  const startOver = async (why: string): Promise<void> => {
    await handle.truncate(0)
    hash = hashFor(job)
    done = most = counted = 0
    if (++fresh >= maxFresh) {
      throw new ParError('DOWNLOAD_FAILED', `${job.file}: ${why}. Nothing of it was kept. Try again later, or from ` +
        `another network; what the Hub has is at ${hub.endpoint}/${job.repository}`)
    }
    tell('retrying', 0, why)
  }
  for (;;) {
    while (done < job.size) {
      try {
        for await (const chunk of receive(hub, job, done)) {
          if (chunk === 'whole') { // the server knows no ranges, and begins at the beginning
            await handle.truncate(0)
            hash = hashFor(job)
            done = 0
            continue
          }
          if (done + chunk.length > job.size) {
            throw new Damaged(`more bytes came than the ${job.size} that the Hub names`)
          }
          if (!await partial.stillOwn()) throw new TakenOver('taken over')
          for (let written = 0; written < chunk.length;) {
            written += (await handle.write(chunk, written, chunk.length - written, done + written)).bytesWritten
          }
          hash.update(chunk)
          done += chunk.length
          most = Math.max(most, done)
          if (most - counted >= leastProgress) {
            counted = most
            tries.progress()
          }
          tell('downloading', done)
        }
        if (done < job.size) throw new Passing(`the connection ended after ${done} of ${job.size} bytes`)
      } catch (error) {
        if (error instanceof Damaged) await startOver(error.message)
        else await tries.failed(error)
      }
    }
    const found = hash.digest('hex')
    if (found === job.oid) return
    await startOver(
      `what arrived is damaged: its hash is ${found.slice(0, 12)}..., the Hub names ${job.oid.slice(0, 12)}...`
    )
  }
}

/** The bytes are not those of the file. */
class Damaged extends Error {}

/**
 * One request's worth of bytes from `from` on; 'whole' first where they begin at 0 instead.
 * @throws Passing, Damaged, ParError
 */
async function * receive (hub: Hub, job: Job, from: number): AsyncGenerator<'whole' | Uint8Array, void, void> {
  const url = addressOf(hub, job.repository, job.commit, job.file)
  // No If-Range: the URL names a commit, whose content does not change, and a host that redirects to another copy of
  // the same file gives that another ETag. What the Hub says of the file with each answer is compared instead.
  const answer = await ask(hub, url, { headers: from > 0 ? { range: `bytes=${from}-` } : {} })
  try {
    const { response, hub: said } = answer
    if (response.status === 416) throw new Damaged(`the server says the file ends before byte ${from}`)
    checkStatus(answer, hub, job.repository, job.file)
    const etag = unquoted(said.get('x-linked-etag'))
    if (etag !== undefined && etag !== job.oid) {
      throw new Damaged(`the Hub names another file (${plain(etag)}) than a moment ago`)
    }
    const linked = said.get('x-linked-size')
    if (linked !== null && Number(linked) !== job.size) {
      throw new Damaged(`the Hub names ${plain(linked)} bytes, and ${job.size} a moment ago`)
    }
    const packed = !['', 'identity'].includes(response.headers.get('content-encoding')?.toLowerCase() ?? '')
    if (response.status === 206) {
      const [, start, , total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '') ?? []
      // A range of packed bytes is none of the file's.
      if (packed || Number(start) !== from || (total !== '*' && Number(total) !== job.size)) {
        throw new Damaged('the server sent another part of the file than was asked for')
      }
    } else if (from > 0) yield 'whole'
    const length = response.headers.get('content-length')
    const expected = response.status === 206 ? job.size - from : job.size
    if (!packed && length !== null && Number(length) !== expected) {
      throw new Damaged(`the server sends ${plain(length)} bytes where ${expected} belong`)
    }
    yield * answer.pieces()
  } finally {
    answer.end()
  }
}

/** A number or the beginning of a hash as a server wrote it; nothing else that it may have written there. */
function plain (text: string): string {
  return /^[0-9a-f]{1,64}$/.test(text) ? text.slice(0, 15) : 'something else than a number of'
}

async function checkSpace (file: string, needed: number): Promise<void> {
  // Some file systems (of networks, above all) say nothing of use: then the write itself has to fail.
  const { bavail, bsize, blocks } = await statfs(file).catch(() => ({ bavail: 1, bsize: Infinity, blocks: 0 }))
  if (blocks > 0 && bavail * bsize < needed) {
    const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(bytes < 1e9 ? 3 : 1)} GB`
    throw new ParError('FILE_NOT_FOUND', `${shownPath(file)}: cannot be written: ${gigabytes(needed)} are ` +
      `needed, ${gigabytes(bavail * bsize)} are free. Free some, or set HF_HUB_CACHE to a folder elsewhere.`)
  }
}
