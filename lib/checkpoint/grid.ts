// The token grid of a transformer. Positions are computed, so its shapes do not tell it, and models that were published
// for two picture sizes have equal shapes; with the wrong grid the pictures are bad. So whatever tells it is asked, in
// this order: the caller, parvis's metadata, the training arguments, the file's name, the published models of these
// dimensions (where all have one grid). Where nothing tells, 24 x 24 is taken and said to be assumed; whatever
// contradicts is said too.

import path from 'node:path'
import { ParError } from '../base/errors.js'
import { limits } from '../machine/limits.js'
import { presets } from '../models/presets.js'
import { cut, quote, shownPath } from '../base/text.js'
import { asNumber, asPair, trainingArgument } from './arguments.js'
import { pixelsOfName } from './file-names.js'
import { showValue, type Needed } from './shapes.js'

/** What told a value that shapes do not tell. */
export type GridSource =
  | 'option' | 'metadata' | 'training arguments' | 'file name' | 'shapes' | 'published' | 'assumed'

export type Grid = [rows: number, columns: number]
/** What a model draws: a picture, or a video of so many frames of tokens. */
export type ModelGrid = Grid | [frames: number, rows: number, columns: number]

/** Rows and columns of a picture, or of each frame. */
export const frameGrid = (grid: readonly number[]): Grid => grid.slice(-2) as Grid
/** Frames of tokens of a video; undefined for pictures. */
export const framesOf = (grid: readonly number[]): number | undefined => grid.length === 3 ? grid[0] : undefined

export interface ChosenGrid {
  grid: ModelGrid
  gridFrom: GridSource
  /** Sentences: what was assumed, what contradicts what, what could not be used. */
  warnings: string[]
}

const assumedSide = 24
/** Pixels per token where the training arguments do not say: that of the published tokenizer. */
const usualFactor = 16

/** What the caller gave. Errors: INVALID_OPTION. */
export function gridOption (grid: unknown): ModelGrid | undefined {
  if (grid === undefined) return undefined
  const sides: unknown[] = Array.isArray(grid) ? [...grid] : [grid, grid]
  const good = (sides.length === 2 || sides.length === 3) &&
    sides.every(side => typeof side === 'number' && Number.isInteger(side) && side >= 1 && side <= limits.gridSide)
  if (!good) {
    throw new ParError('INVALID_OPTION', 'grid must be [rows, columns], [frames, rows, columns] or one number, whole ' +
      `numbers from 1 to ${limits.gridSide}, got ${showValue(grid)}`)
  }
  return sides as ModelGrid
}

interface Known {
  /** Tokens per step, a square. */
  n: number
  option: ModelGrid | undefined
  metadata: ModelGrid | undefined
  /** Name of the file that this one was converted from. */
  convertedFrom: string | undefined
  official: string | undefined
  /** Tokens of a picture, where the shapes tell. */
  tokens?: number | undefined
  /** What the training arguments say, where they say it in another way than those of pictures do. */
  arguments?: ModelGrid | undefined
  /** It draws videos in raster order: n is any divisor of the tokens, and no grid is assumed. */
  isVideo?: boolean
}

/** Errors: BAD_CHECKPOINT, INVALID_OPTION: a grid that n does not divide. */
export function chooseGrid (
  needed: Needed, { n, option, metadata, convertedFrom, official, tokens, arguments: told, isVideo = false }: Known
): ChosenGrid {
  const root = Math.round(Math.sqrt(n))
  const count = (grid: ModelGrid): number => grid.reduce((product: number, side) => product * side, 1)
  const fits = (grid: ModelGrid): boolean => isVideo
    ? count(grid) % n === 0
    : tokens === undefined ? frameGrid(grid).every(side => side % root === 0) : count(grid) === tokens
  const does = (grid: ModelGrid): string => isVideo
    ? `n = ${n} must divide the tokens of the grid, got ${show(grid)}`
    : tokens === undefined
      ? `n = ${n} needs a grid whose sides are multiples of ${root}, got ${show(grid)}`
      : `its table of positions is for ${tokens} tokens, not for a grid of ${show(grid)}`
  if (option) {
    if (!fits(option)) throw new ParError('INVALID_OPTION', `${shownPath(needed.checkpoint.file)}: ${does(option)}`)
    return { grid: option, gridFrom: 'option', warnings: [] }
  }
  if (metadata && !fits(metadata)) throw needed.bad(`${does(metadata)} from its metadata. Pass grid.`)

  const warnings: string[] = []
  const known: Array<{ grid: ModelGrid, from: GridSource, words: string }> = []
  const add = (
    from: GridSource, words: string, found: { grid: ModelGrid } | { problem: string } | undefined
  ): void => {
    if (!found) return
    if ('problem' in found) warnings.push(found.problem)
    else if (fits(found.grid)) known.push({ grid: found.grid, from, words })
    else {
      const why = tokens === undefined ? `which n = ${n} cannot divide` : `and ${does(found.grid)}`
      warnings.push(`${words} ${show(found.grid)} tokens, ${why}: this is not used`)
    }
  }
  add('metadata', 'its metadata says', metadata && { grid: metadata })
  add('training arguments', 'its training arguments say', told ? { grid: told } : gridOfArguments(needed))
  for (const name of namesOf(needed, convertedFrom)) {
    add('file name', `its name ${quote(name)} says`, gridOfName(needed, name))
  }
  const [first, ...others] = known
  if (first) {
    const other = others.find(({ grid }) => show(grid) !== show(first.grid))
    if (other) {
      warnings.push(`${first.words} ${show(first.grid)} ` +
        `tokens, ${other.words} ${show(other.grid)}: ${show(first.grid)} is taken. Give grid (--grid) if that is wrong`)
    }
    return { grid: first.grid, gridFrom: first.from, warnings }
  }
  const side = Math.sqrt(tokens ?? NaN)
  if (Number.isInteger(side)) return { grid: [side, side], gridFrom: 'shapes', warnings }
  const published = publishedGrids(official)
  if (published.length === 1 && fits(published[0]!)) return { grid: published[0]!, gridFrom: 'published', warnings }
  if (isVideo) throw needed.bad('nothing in the file says its token grid, [frames, rows, columns]. Pass grid.')
  const assumed: Grid = [assumedSide, assumedSide]
  if (!fits(assumed)) throw needed.bad(`${does(assumed)}, the published one. Pass grid.`)
  const models = published.length > 1 ? ` (${filesOf(official).join(' and ')} have the same shapes)` : ''
  warnings.push(`nothing in the file says its token grid${models}: ${show(assumed)} is assumed, and with a wrong ` +
    'grid the pictures are bad. ' +
    `Give grid (--grid on the command line)${published.length > 1 ? `: ${published.map(show).join(' or ')}` : ''}`)
  return { grid: assumed, gridFrom: 'assumed', warnings }
}

const show = (grid: ModelGrid): string => grid.join(' x ')

// ---- published models

/** Grids of the published checkpoints of one architecture. */
function publishedGrids (official: string | undefined): ModelGrid[] {
  const grids = presets.filter(preset => preset.official === official).map(({ grid }) => grid)
  return grids.filter((grid, i) => grids.findIndex(other => show(other) === show(grid)) === i)
}

/**
 * Names of the published files of one architecture, without their ending: 'c2i_B_256', 'PAR-XL-4x'. With a grid only
 * those of it.
 */
export function filesOf (official: string | undefined, grid?: ModelGrid): string[] {
  return presets.filter(preset => preset.official === official && (!grid || show(preset.grid) === show(grid)))
    .map(({ transformer }) => path.parse(transformer.file).name)
}

// ---- what the file tells

/** Image size / downsampling of the training arguments. */
function gridOfArguments ({ checkpoint }: Needed): { grid: Grid } | { problem: string } | undefined {
  const stored = trainingArgument(checkpoint, 'image_size')
  if (stored === undefined) return undefined
  const pixels = asPair(stored)
  const factor = factorOf(checkpoint)
  const grid = pixels && factor && wholeGrid(pixels, factor)
  if (grid) return { grid }
  return {
    problem: `its training arguments say image_size ${describe(stored)} ` +
      `and ${factor ? `${factor.join(' x ')} pixels per token` : 'a downsample_size that is no number'}, which give ` +
        'no grid: this is not used'
  }
}

function factorOf (checkpoint: Needed['checkpoint']): [number, number] | undefined {
  const stored = trainingArgument(checkpoint, 'downsample_size')
  const pair = stored === undefined ? [usualFactor, usualFactor] as [number, number] : asPair(stored)
  return pair?.every(side => Number.isInteger(side) && side >= 1) ? pair : undefined
}

function wholeGrid (pixels: [number, number], factor: [number, number]): Grid | undefined {
  const grid: Grid = [pixels[0] / factor[0], pixels[1] / factor[1]]
  return grid.every(side => Number.isInteger(side) && side >= 1 && side <= limits.gridSide) ? grid : undefined
}

function namesOf ({ checkpoint }: Needed, convertedFrom: string | undefined): string[] {
  return [...checkpoint.names ?? [path.basename(checkpoint.file)],
    ...(convertedFrom === undefined ? [] : [convertedFrom])]
}

function gridOfName ({ checkpoint }: Needed, name: string): { grid: Grid } | undefined {
  const pixels = pixelsOfName(name)
  const grid = pixels && wholeGrid([pixels, pixels], factorOf(checkpoint) ?? [usualFactor, usualFactor])
  return grid ? { grid } : undefined
}

function describe (value: unknown): string {
  if (typeof value === 'number' || typeof value === 'string') {
    return asNumber(value) === undefined ? quote(cut(String(value), 40)) : String(asNumber(value))
  }
  return Array.isArray(value) ? 'as a list that is no size' : 'as something that is no number'
}
