// What the commands on many pictures read: folders and files of pictures, and files of tokens, as one set of tokens. A
// file of tokens is read whole and kept in the narrowest numbers; pictures are encoded one after another. With
// --limit, pictures that do not count are never encoded.

import type { Dirent } from 'node:fs'
import fs from 'node:fs/promises'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { Slices } from '../base/slices.js'
import { shownPath, visible, withoutMark } from '../base/text.js'
import { JsonError, readJson } from '../checkpoint/json.js'
import type { Par } from '../api/par.js'
import { evenly, maxSetTokens, TokenSetBuilder, type TokenSet } from '../evaluation/token-set.js'
import { isNpy, readNpy } from '../pictures/npy.js'
import type { Progress } from './progress.js'
import { checkSources, encodeFile, readSource, sourceName, type PictureFlags } from './sources.js'
import { UsageError } from './terminal.js'
import { looksLikeTokens, readTokens, type Grid } from './tokens.js'

// ---- the files

const pictureNames = /\.(png|jpe?g|webp|avif|gif|tiff?|svg)$/i
const tokenNames = /\.(npy|json)$/i
/** Files of a folder, and of those in it, at most. */
const maxFiles = 2 ** 20
/** Folders within folders. */
const maxFolders = 16

/**
 * The files that stand for the inputs: a folder stands for the pictures in it and in its folders, in the order of their
 * names; for the files of tokens in it, if it has no picture.
 */
export async function filesOf (inputs: readonly string[], signal: AbortSignal): Promise<string[]> {
  checkSources(inputs)
  const files: string[] = []
  for (const input of inputs) {
    if (input === '-' || !await fs.stat(input).then(found => found.isDirectory(), () => false)) {
      files.push(input)
      continue
    }
    const inside: string[] = []
    await list(input, 0, inside, signal)
    const pictures = inside.filter(file => pictureNames.test(file))
    const chosen = pictures.length > 0 ? pictures : inside.filter(file => tokenNames.test(file))
    if (chosen.length === 0) {
      throw new UsageError(`${shownPath(input)} has no pictures (.png, .jpg, .webp, .avif, .gif, .tiff, .svg) and no ` +
        'files of tokens (.npy, .json); give another folder')
    }
    for (const file of chosen) files.push(file)
  }
  return files
}

async function list (folder: string, depth: number, files: string[], signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (depth > maxFolders) {
    throw new UsageError(`${shownPath(folder)}: folders lie more than ${maxFolders} deep; give those that are meant`)
  }
  let entries: Dirent[]
  try {
    entries = await fs.readdir(folder, { withFileTypes: true })
  } catch (error) {
    throw fromSystem(error, folder, 'read')
  }
  entries.sort((a, b) => a.name < b.name ? -1 : 1)
  for (const entry of entries) {
    const name = path.join(folder, entry.name)
    if (entry.name.startsWith('.')) continue
    // A link counts as what it leads to, but for folders, which could go round in a circle.
    if (entry.isDirectory()) await list(name, depth + 1, files, signal)
    else if (entry.isFile() || entry.isSymbolicLink()) files.push(name)
    if (files.length > maxFiles) {
      throw new UsageError(`${shownPath(folder)}: there are more than ${maxFiles} files; give fewer folders`)
    }
  }
}

// ---- the tokens

/** Bytes of a file of tokens that are looked at to tell what it is. */
const headBytes = 1024

export interface TokenInputs {
  set: TokenSet
  /** Pictures that there are; the set has fewer where a limit was given. */
  pictures: number
  /** Number of each picture of the set among them. */
  chosen: Int32Array
  /** Codes of the tokenizer, where one was needed. */
  codebookSize?: number
}

interface Options {
  /** Rows and columns of a picture, where the command line says. */
  grid: Grid | undefined
  limit: number | undefined
  flags: PictureFlags
  /** Loads the tokenizer, if a file is a picture. */
  loadTokenizer: () => Promise<Par>
  progress: Progress
  signal: AbortSignal
}

export async function readTokenInputs (
  files: readonly string[], { grid, limit, flags, loadTokenizer, progress, signal }: Options
): Promise<TokenInputs> {
  // ---- files of tokens, and which files are pictures
  const parts: Array<{ file: string, set?: TokenSet, bytes?: Buffer }> = []
  for (const [k, file] of files.entries()) {
    progress.update(k, files.length, `reading ${k}/${files.length} files`)
    signal.throwIfAborted()
    if (file !== '-' && pictureNames.test(file)) {
      parts.push({ file })
      continue
    }
    const bytes = await readSource(file, signal)
    if (looksLikeTokens(bytes)) parts.push({ file, set: await tokensOf(bytes, sourceName(file), grid, signal) })
    else parts.push({ file, ...(await readsOnce(file) && { bytes }) })
  }
  const total = parts.reduce((sum, { set }) => sum + (set?.pictures ?? 1), 0)
  const chosen = evenly(total, limit ?? total)

  // ---- the pictures that count
  const builder = new TokenSetBuilder()
  let par: Par | undefined
  let [at, next] = [0, 0]
  for (const { file, set, bytes } of parts) {
    const end = at + (set?.pictures ?? 1)
    const from = next
    while (next < chosen.length && chosen[next]! < end) next++
    if (set) {
      const cells = set.grid[0] * set.grid[1]
      const slices = new Slices(signal)
      for (let k = from; k < next; k++) {
        const picture = chosen[k]! - at
        builder.add(Int32Array.from(set.tokens.subarray(picture * cells, (picture + 1) * cells)), set.grid,
          sourceName(file))
        if (slices.spend(cells)) await slices.rest()
      }
    } else if (next > from) {
      if (par === undefined) progress.update(0, 1, 'loading the tokenizer')
      par ??= await loadTokenizer()
      progress.update(from, chosen.length, `encoded ${from}/${chosen.length} pictures`)
      const encoded = await encodeFile(par, file, bytes ?? await readSource(file, signal), flags, signal)
      builder.add(encoded.tokens, encoded.grid, sourceName(file))
    }
    at = end
  }
  return {
    set: builder.finish(), pictures: total, chosen, ...(par && { codebookSize: par.info.tokenizer!.codebookSize })
  }
}

/** A pipe gives its bytes once. */
async function readsOnce (file: string): Promise<boolean> {
  return file === '-' || !await fs.stat(file).then(found => found.isFile(), () => false)
}

/**
 * The pictures of a file of tokens. An array of three axes is pictures, rows and columns; of two axes it is pictures
 * and cells, unless the grid that the command line says is that of the array.
 */
async function tokensOf (bytes: Buffer, name: string, grid: Grid | undefined, signal: AbortSignal): Promise<TokenSet> {
  const builder = new TokenSetBuilder()
  const bad = (why: string): ParError => new ParError('BAD_TOKENS', `${shownPath(name)}: ${visible(why, 1000)}`)
  const slices = new Slices(signal)
  const take = async (data: Int32Array, own: Grid): Promise<void> => {
    const cells = own[0] * own[1]
    // Some pictures at a time: each time the thread is held for what is added.
    const step = Math.max(1, Math.floor(2 ** 16 / cells)) * cells
    for (let from = 0; from < data.length; from += step) {
      builder.add(data.subarray(from, from + step), own, shownPath(name))
      if (slices.spend(step / 8)) await slices.rest()
    }
  }
  if (isNpy(bytes)) {
    const { data, shape } = await readNpy(bytes, name, signal, maxSetTokens)
    if (data.length === 0) throw bad('holds no tokens')
    await take(data, gridOf(shape, grid, bad))
  } else {
    const pictures = await readTokens(bytes, name, undefined, grid, signal)
    // A plain list of lists is read as rows and columns of one picture; what it is, is decided here.
    const isNested = /^(\xef\xbb\xbf)?\s*\[\s*\[/.test(bytes.subarray(0, headBytes).toString('latin1'))
    const isOpen = grid === undefined && isNested && pictures.length === 1
    for (const picture of pictures) {
      await take(picture.tokens, isOpen ? gridOf(picture.grid, undefined, bad) : picture.grid)
    }
  }
  return builder.finish()
}

function gridOf (shape: readonly number[], said: Grid | undefined, bad: (why: string) => ParError): Grid {
  const text = shape.join(' x ')
  const [last, before] = [shape.at(-1), shape.at(-2)]
  if (said !== undefined) {
    const fits = last === said[0] * said[1] || (last === said[1] && before === said[0])
    if (!fits) throw bad(`holds ${text} tokens, which are no pictures of ${said[0]} x ${said[1]}`)
    return said
  }
  if (shape.length === 3) return [before!, last!]
  if (shape.length > 3) throw bad(`has ${shape.length} axes; give [pictures, cells] or [pictures, rows, columns]`)
  if (last === undefined) throw bad('holds one number; give [pictures, cells] or [pictures, rows, columns]')
  const side = Math.round(Math.sqrt(last))
  if (last === before) {
    throw bad(`holds ${text} tokens: one picture, or ${before} pictures of ${last} tokens? Give --grid, the rows and ` +
      'columns of a picture')
  }
  if (side * side !== last) throw bad(`holds pictures of ${last} tokens, which make no square; give --grid`)
  return [side, side]
}

// ---- the classes

/** Memory that the values of a JSON file of classes may take. */
const labelMemory = 64e6

/**
 * The class of each picture, as a list of numbers or names in JSON, or an array of numbers in NumPy's format.
 * @param count classes that there must be
 */
export async function readLabels (file: string, count: number, signal: AbortSignal): Promise<Array<number | string>> {
  const name = sourceName(file)
  const bad = (why: string, cause?: unknown): ParError =>
    new ParError('BAD_TOKENS', `${name}: ${visible(why, 1000)}`, { cause })
  const bytes = await readSource(file, signal)
  let labels: Array<number | string>
  if (isNpy(bytes)) labels = Array.from((await readNpy(bytes, name, signal)).data)
  else {
    const slices = new Slices(signal)
    const text = withoutMark(bytes)
    const value = await readJson(text, slices, { depth: 4, memory: labelMemory }).catch((cause: unknown) => {
      if (!(cause instanceof JsonError)) throw cause
      throw bad(`is neither a .npy file nor JSON: ${cause.message}`, cause)
    })
    if (!Array.isArray(value) || !value.every(item => typeof item === 'string' || Number.isInteger(item))) {
      throw bad('holds no list of class numbers or names, such as [7, 7, "Bag"]')
    }
    labels = value as Array<number | string>
  }
  if (labels.length !== count) {
    throw bad(`holds ${labels.length} classes, and there are ${count} pictures; give one for each, in their order`)
  }
  return labels
}
