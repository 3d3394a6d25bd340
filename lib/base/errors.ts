// Every error parvis raises on purpose. One class and a stable code, because callers branch on `code`
// across package versions and across duplicated copies of the package, where `instanceof` fails.

import { isNativeError } from 'node:util/types'
import { cutMiddle, visible } from './text.js'

/** Why a call failed. The strings are stable: they are part of the public interface. */
export type ParErrorCode =
  /** A class id outside `0..classes-1`, or a class name that the model does not have. */
  | 'BAD_CLASS_ID'
  /** `n` (tokens a step) that no loaded checkpoint was trained for. */
  | 'UNSUPPORTED_N'
  /** A file that is no checkpoint, is truncated, or has tensors that are missing or of the wrong shape. */
  | 'BAD_CHECKPOINT'
  /** A file that does not exist or cannot be read or written. */
  | 'FILE_NOT_FOUND'
  /**
   * A preset's file could not be fetched from the Hugging Face Hub: no connection, no permission, or damaged on the
   * way.
   */
  | 'DOWNLOAD_FAILED'
  /** Transformer and tokenizer do not belong together (vocabulary against codebook). */
  | 'TOKENIZER_MISMATCH'
  /** A call that needs the part (transformer or tokenizer) that was not loaded. */
  | 'MISSING_PART'
  /** The asked-for device is absent or not usable; the message says why, what helps and which devices there are. */
  | 'DEVICE_UNAVAILABLE'
  /** Not enough memory; the message says how much was needed. */
  | 'OUT_OF_MEMORY'
  /** As many calls wait as may (`maxQueueSize` of `Par.load`). */
  | 'QUEUE_FULL'
  /** The instance was disposed. */
  | 'DISPOSED'
  /** An option of the wrong type or outside its range. */
  | 'INVALID_OPTION'
  /** A picture that could not be read. */
  | 'BAD_IMAGE'
  /** A file of tokens that could not be read. */
  | 'BAD_TOKENS'
  /** A file of pictures, features or statistics (.npz, .npy) that could not be read, or that does not fit another. */
  | 'BAD_ARRAY'
  /** The model computed NaN or infinite values: its weights are damaged. */
  | 'NON_FINITE'
  /** The native addon could not be loaded. */
  | 'NATIVE_UNAVAILABLE'
  /** A defect in parvis itself. */
  | 'INTERNAL'

/** Characters of a message at most. The longest of parvis's own lists the places where the addon was looked for. */
const longestMessage = 8000

/**
 * No message commands a terminal or fills a log, whatever name of a file found its way into it: the last resort, since
 * names are shown by `shownPath` where a message is put together. Line breaks stay: there is a message of several
 * lines.
 */
function shown (message: string): string {
  return cutMiddle(message, longestMessage).split('\n').map(line => visible(line)).join('\n')
}

/** Base class of every error that parvis raises; `code` says which (see {@link ParErrorCode}). */
export class ParError extends Error {
  /** Stable across versions; docs/errors.md has cause and cure of each. */
  readonly code: ParErrorCode

  constructor (code: ParErrorCode, message: string, options?: { cause?: unknown }) {
    super(shown(message), options)
    this.name = 'ParError'
    this.code = code
  }
}

/** Errors that are not parvis's: reasons of signals, what callbacks throw. */
const foreign = new WeakSet<object>()

/** Marks an error as the caller's own: it passes unchanged, whatever it looks like. Returns it. */
export function callersOwn (error: unknown): unknown {
  if (typeof error === 'object' && error !== null) foreign.add(error)
  return error
}

export function isCallersOwn (error: unknown): boolean {
  return typeof error === 'object' && error !== null && foreign.has(error)
}

/**
 * What JavaScript, Node.js, V8 and libvips say when memory cannot be had; they have neither class nor code in common.
 */
const starved =
  /array buffer allocation failed|invalid (typed array|array buffer) length|out of memory|cannot allocate memory|allocation failed/i

/**
 * The error of an allocation that failed in JavaScript (`new Float32Array(n)`) or in a library as `OUT_OF_MEMORY`;
 * undefined where `error` is something else.
 */
export function outOfMemory (error: unknown): ParError | undefined {
  if (!isNativeError(error) || error instanceof ParError) return undefined
  const { code } = error as NodeJS.ErrnoException
  if (!starved.test(error.message) &&
    !['ENOMEM', 'ERR_MEMORY_ALLOCATION_FAILED', 'ERR_BUFFER_TOO_LARGE'].includes(code ?? '')) {
    return undefined
  }
  return new ParError('OUT_OF_MEMORY',
    `Not enough memory: ${visible(error.message, 200)}. Free memory, or ask for less at a time`, { cause: error })
}
