// parvis entropy: what tokens tell of each other, counted over many pictures: the paper's figures 9 and 10 for any
// tokenizer, as JSON and as maps. Why tokens far apart may be drawn at once, and neighbours may not.

import path from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { absolute, fromSystem } from '../base/files.js'
import { makeFolder } from '../base/folders.js'
import { Slices } from '../base/slices.js'
import { createSchedule, type Order, type Schedule } from '../decoding/schedule.js'
import { groupCodes, type Groups } from '../evaluation/code-groups.js'
import {
  codesFor, conditionalEntropy, mostPast, ownEntropies, pairInformation, parallelRise, type Rise
} from '../evaluation/entropy.js'
import { bootstrap, differenceOf, randomOf, type Estimate } from '../evaluation/resampling.js'
import { columnsOf, evenly, randomOrder, type TokenSet } from '../evaluation/token-set.js'
import type { Par } from '../api/par.js'
import { collect, fileName, grid as gridText, integer } from './arguments.js'
import { pictureOptions } from './encode.js'
import { drawMaps, scaleOf, type Section } from './entropy-maps.js'
import { pairsOf, scorePair, type PairResult } from './entropy-models.js'
import { reportOf, textOf, type Reference, type Report } from './entropy-report.js'
import { loadTokenizer, tokenizerOptions, type TokenizerFlags } from './model.js'
import { checkFolder, writeOutput } from './outputs.js'
import { encode } from './picture.js'
import { progressBar, type Progress } from './progress.js'
import type { PictureFlags } from './sources.js'
import { jsonText, note, print, printJson, UsageError } from './terminal.js'
import { filesOf, readLabels, readTokenInputs } from './token-inputs.js'

interface Flags extends TokenizerFlags, PictureFlags {
  out?: string
  reference?: Array<[row: number, column: number]>
  tokensPerStep: number
  past: number
  groups?: number
  bootstrap: number
  seed: number
  limit?: number
  grid?: [number, number]
  parallel?: string[]
  sequential?: string[]
  parallelDecoding?: string[]
  sequentialDecoding?: string[]
  labels?: string
  scored: number
  heads?: number
}

/** Pictures below which nothing can be said. */
const fewest = 32
/** Reference cells at most: a map each. */
const maxReferences = 64
/** Groups that may be asked for: a table of four has that many to the power of four. */
const mostGroups = 256

export function entropyCommand (signal: AbortSignal): Command {
  const command = new Command('entropy')
    .description('Count over many pictures what tokens tell of each other: the entropy of each token given a ' +
      'reference token, and how much it rises when the tokens of a step are predicted at once (paper, figures 9 ' +
      'and 10). Default tokenizer: the embedded model\'s.')
    .argument('<folders or files...>',
      'folders of pictures, picture files, or tokens (.npy or JSON); - reads standard input')
    .optionsGroup('What to count:')
    .option('--reference <row,column>', 'a reference cell, counted from 0; repeatable (default: four, a quarter of ' +
      'the grid from its sides)', references)
    .option('-n, --tokens-per-step <n>', 'tokens predicted at once; 1 leaves the rise out', integer(1), 4)
    .option('--past <tokens>', `tokens of earlier steps that each prediction is given: 1 or ${mostPast}`,
      integer(1, mostPast), 1)
    .option('--groups <number>', 'groups of codes (default: as many as the pictures fill tables for)',
      integer(2, mostGroups))
    .option('--limit <pictures>', 'pictures that count, evenly spaced (default: all)', integer(fewest))
    .option('--bootstrap <draws>', 'draws of the pictures for intervals', integer(20, 100_000), 200)
    .option('--seed <number>', 'seed of the draws', integer(0, 2 ** 32 - 1), 1)
    .option('--grid <rows>x<columns>', 'rows and columns of a picture, if the files of tokens do not say', gridText)
    .optionsGroup('The same from trained models:')
    .option('--parallel <file>', 'transformer that predicts n tokens at once; repeatable', collect)
    .option('--sequential <file>', 'transformer that predicts the same order one by one, one for each --parallel',
      collect)
    .option('--parallel-decoding <json>', 'how it predicts, such as {"order":"raster"}, if its file does not say',
      collect)
    .option('--sequential-decoding <json>', 'the same for --sequential', collect)
    .option('--labels <file>', 'class of each picture: a JSON list of numbers or names, or .npy', fileName)
    .option('--scored <pictures>', 'pictures that the models score, evenly spaced', integer(2), 1000)
    .option('--heads <number>', 'attention heads of the models, if their files do not say', integer(1))
    .optionsGroup('The files:')
    .option('-o, --out <folder>', 'folder for the maps (PNG) and the figures (JSON)')
  return tokenizerOptions(pictureOptions(command))
    .action(async (inputs: string[], flags: Flags) => await entropy(inputs, flags, signal))
}

function references (text: string, before: Flags['reference'] = []): Array<[number, number]> {
  const match = /^(\d{1,7}),(\d{1,7})$/.exec(text.trim())
  if (!match) throw new InvalidArgumentError('Give row and column from 0, such as 4,12.')
  return [...before, [Number(match[1]), Number(match[2])]]
}

async function entropy (inputs: string[], flags: Flags, signal: AbortSignal): Promise<void> {
  const pairs = pairsOf(flags.parallel ?? [], flags.sequential ?? [], flags.parallelDecoding ?? [],
    flags.sequentialDecoding ?? [])
  if (pairs.length > 0 && flags.labels === undefined) {
    throw new UsageError('models predict pictures of a class; give --labels, the class of each picture')
  }
  if (pairs.length === 0) {
    const unused = (['labels', 'heads'] as const).find(name => flags[name] !== undefined)
    if (unused) throw new UsageError(`--${unused} is about the models of --parallel and --sequential; give those too`)
  }
  if (flags.out === '-') throw new UsageError('--out is a folder; the figures go to standard output without it')
  if (flags.out !== undefined) await prepareFolder(flags.out)
  const files = await filesOf(inputs, signal)

  const progress = progressBar(flags)
  let tokenizer: Par | undefined
  try {
    const read = await readTokenInputs(files, {
      grid: flags.grid,
      limit: flags.limit,
      flags,
      loadTokenizer: async () => (tokenizer = await loadTokenizer(flags, signal)),
      progress,
      signal
    })
    await tokenizer?.dispose()
    const { set } = read
    if (set.pictures < fewest) {
      throw new UsageError(`${set.pictures === 1 ? 'one picture tells' : `${set.pictures} pictures tell`} nothing of ` +
        `what tokens have to do with each other; give at least ${fewest}, and better thousands`)
    }
    const cells = cellsOf(flags.reference, set)
    const orders = flags.tokensPerStep === 1 ? [] : ['distant', 'raster'] as const
    const schedules = orders.map(order => scheduleOf(order, flags.tokensPerStep, set))
    const labels = flags.labels === undefined ? undefined : await readLabels(flags.labels, read.pictures, signal)

    // ---- the figures
    const slices = new Slices(signal)
    const random = randomOf(flags.seed)
    const order = randomOrder(set.pictures, random)
    const wanted = (tokens: number): number => flags.groups ?? codesFor(set.pictures, tokens)
    progress.update(0, 10, 'grouping codes')
    const pairGroups = await groupCodes(set, wanted(2), slices)
    const figure9 = await conditionals(set, cells, pairGroups, order, progress, slices)
    const riseGroups = schedules.length > 0
      ? await groupCodes(set, Math.min(wanted(2 + flags.past), mostOf(flags.past)), slices)
      : undefined
    const figure10 = riseGroups ? await rises(set, schedules, riseGroups, order, flags.past, progress, slices) : []
    const models: PairResult[] = []
    const scored = evenly(set.pictures, flags.scored)
    for (const pair of pairs) {
      const classes = Array.from(scored, k => labels![read.chosen[k]!]!)
      models.push(await scorePair(pair, set, scored, classes, flags, progress, signal))
    }

    // ---- their intervals
    progress.update(9, 10, 'drawing the pictures again')
    const lists = [
      ...figure9.flatMap(({ shareDifference, alikeDifference }) =>
        [shareDifference, ...(alikeDifference.length > 0 ? [alikeDifference] : [])]),
      ...figure10.map(({ contributions }) => contributions),
      ...(figure10.length > 0 ? [differenceOf(figure10[1]!.contributions, figure10[0]!.contributions)] : [])
    ]
    const estimates = await bootstrap(lists, flags.bootstrap, random, slices)
    const modelLists = models.map(({ contributions }) => contributions)
    const [distant, raster] = (['distant', 'raster'] as const).map(name => models.find(({ order }) => order === name))
    const modelEstimates = await bootstrap([...modelLists,
      ...(distant && raster ? [differenceOf(raster.contributions, distant.contributions)] : [])],
    flags.bootstrap, random, slices)
    progress.stop()

    const report = reportOf(flags, read, { pairGroups, riseGroups }, { figure9, figure10, schedules },
      estimates, { models, estimates: modelEstimates, pictures: scored.length })
    if (!flags.json) for (const text of report.notes) note(`parvis: ${text}`)
    const written = flags.out === undefined
      ? []
      : await writeMaps(flags.out, report, { set, figure9, figure10, models, own: figure9[0]!.own }, signal)
    if (flags.json) {
      return await printJson({ ...report, ...(written.length > 0 && { files: written.map(file => absolute(file)) }) })
    }
    await print(textOf(report, written))
  } finally {
    progress.stop()
    await tokenizer?.dispose()
  }
}

async function prepareFolder (folder: string): Promise<void> {
  if (folder === '') throw new UsageError('the name of the output folder is empty; give one, or leave the option out')
  await makeFolder(folder).catch((error: unknown) => { throw fromSystem(error, folder, 'written') })
  await checkFolder(folder)
}

// ---- what is asked for

/** Groups of codes for which the largest table has no more than 2^26 fields. */
function mostOf (past: number): number {
  return Math.floor(2 ** (26 / (past + 2)) + 1e-9)
}

/** Cells of the references. @throws UsageError */
function cellsOf (given: Flags['reference'], { grid: [rows, columns] }: TokenSet): number[] {
  const [top, left] = [Math.floor(rows / 4), Math.floor(columns / 4)]
  const quarter = [[top, left], [top, columns - 1 - left], [rows - 1 - top, left], [rows - 1 - top, columns - 1 - left]]
  const cells = [...new Set((given ?? quarter).map(([row, column]) => {
    if (row! >= rows || column! >= columns) {
      throw new UsageError(
        `--reference ${row},${column}: the pictures have ${rows} x ${columns} tokens, counted from 0; give one of them`
      )
    }
    return row! * columns + column!
  }))]
  if (cells.length > maxReferences) {
    throw new UsageError(`${cells.length} reference cells are too many; give at most ${maxReferences}`)
  }
  return cells
}

function scheduleOf (order: Order, n: number, { grid }: TokenSet): Schedule {
  let schedule: Schedule
  try {
    schedule = createSchedule({ grid: [grid[0], grid[1]], n, order })
  } catch (error) {
    throw new UsageError(`-n ${n}: ${(error as Error).message}; give another -n, or -n 1, which leaves the rise out`)
  }
  if (n >= schedule.tokens) {
    throw new UsageError(`-n ${n}: the pictures have ${schedule.tokens} tokens, and all are drawn one by one; give a ` +
      'smaller -n, or -n 1, which leaves the rise out')
  }
  return schedule
}

// ---- the figures

async function conditionals (
  set: TokenSet, cells: readonly number[], groups: Groups, order: Int32Array, progress: Progress, slices: Slices
): Promise<Reference[]> {
  const columns = await columnsOf(set, groups.map, groups.groups, order, slices)
  const own = await ownEntropies(columns, slices)
  const found: Reference[] = []
  for (const [k, cell] of cells.entries()) {
    progress.update(k, cells.length, `${k}/${cells.length} reference cells`)
    found.push({ ...await conditionalEntropy(columns, cell, own, slices), own })
  }
  return found
}

async function rises (
  set: TokenSet, schedules: readonly Schedule[], groups: Groups, order: Int32Array, past: number, progress: Progress,
  slices: Slices
): Promise<Rise[]> {
  progress.update(0, 3, 'which tokens tell most of each other')
  const columns = await columnsOf(set, groups.map, groups.groups, order, slices)
  const information = await pairInformation(columns, slices)
  const found: Rise[] = []
  for (const [k, schedule] of schedules.entries()) {
    progress.update(k + 1, 3, `parallel prediction in the ${schedule.order} order`)
    found.push(await parallelRise(columns, schedule, information, past, slices))
  }
  return found
}

// ---- the maps

async function writeMaps (
  folder: string, report: Report,
  { set, figure9, figure10, models, own }: {
    set: TokenSet, figure9: Reference[], figure10: Rise[], models: PairResult[], own: Float64Array
  }, signal: AbortSignal
): Promise<string[]> {
  const written: string[] = []
  const write = async (name: string, bytes: Uint8Array): Promise<void> => {
    signal.throwIfAborted()
    await writeOutput(path.join(folder, name), bytes, signal)
    written.push(path.join(folder, name))
  }
  const drawn = async (name: string, sections: Section[]): Promise<void> =>
    await write(name, await encode(drawMaps(set.grid, sections), 'png'))

  const percent = figure9.map(({ share }) => share.map(value => 100 * value))
  const entropies = scaleOf([own, ...figure9.map(({ entropy, reference }) =>
    entropy.filter((_, cell) => cell !== reference))])
  // All of its own entropy is the most that a token can have left; estimates go a little beyond.
  const shares = scaleOf(percent.map((values, k) => values.filter((_, cell) => cell !== figure9[k]!.reference)))
  const leastShare = Math.min(90, Math.floor(shares[0] / 20) * 20)
  const title = ({ reference }: Reference): string =>
    `r = ${Math.floor(reference / set.grid[1])}, ${reference % set.grid[1]}`
  const noun = report.conditional.groups < report.codes.used ? 'groups' : 'codes'
  await drawn('conditional-entropy.png', [
    {
      title: `H(token | token at r), ${report.pictures} pictures, ${report.conditional.groups} ${noun}`,
      caption: 'bits: dark is well known from the token at r (blue)',
      scale: { low: entropies[0], high: entropies[1] },
      maps: figure9.map(one => ({ title: title(one), values: one.entropy, mark: one.reference }))
    },
    {
      title: 'H(token | token at r) as a share of H(token)',
      caption: 'share of its own bits that is left: dark depends on r (blue)',
      scale: { low: leastShare, high: 100, suffix: '%' },
      maps: figure9.map((one, k) => ({ title: title(one), values: percent[k]!, mark: one.reference }))
    },
    {
      title: 'H(token)',
      caption: 'bits: dark differs little from picture to picture',
      scale: { low: entropies[0], high: entropies[1] },
      maps: [{ title: 'nothing given', values: own }]
    }
  ])
  const riseTitle = (order: Order, { mean }: Estimate): string => `${order}: ${mean.toFixed(3)} a token`
  if (report.rise) {
    const { n, orders } = report.rise
    const scale = scaleOf(figure10.map(({ cells }) => cells), { from: 0 })
    await drawn('rise.png', [{
      title: `rise in entropy, ${n} tokens at once, ${report.pictures} pictures`,
      caption: 'bits: bright is hard to predict at once (grey: drawn one by one)',
      scale: { low: scale[0], high: scale[1] },
      maps: figure10.map(({ cells }, k) => ({ title: riseTitle(orders[k]!.order, orders[k]!), values: cells }))
    }])
  }
  if (report.models) {
    const scale = scaleOf(models.map(({ cells }) => cells), { from: 0 })
    await drawn('rise-models.png', [{
      title: `rise in entropy by models, ${report.models.pictures} pictures`,
      caption: 'bits: bright is hard to predict at once (grey: drawn one by one)',
      scale: { low: scale[0], high: scale[1] },
      maps: models.map(({ cells, order }, k) => ({ title: riseTitle(order, report.models!.pairs[k]!), values: cells }))
    }])
  }
  await write('entropy.json', Buffer.from(jsonText(report)))
  return written
}
