// parvis eval: how close a set of generated pictures comes to a set of real ones: Frechet distance, Inception score,
// precision and recall. The sets are opened first; what they have decides what is computed, and that is said.

import { Command, Option } from 'commander'
import { ParError } from '../base/errors.js'
import { absolute } from '../base/files.js'
import { shownPath } from '../base/text.js'
import { openSet, type SetFile } from '../evaluation/features.js'
import {
  checkLinearAlgebra, coverageUnits, defaultThreads, frechet, frechetUnits, inceptionScore, Pool, precisionAndRecall,
  type Matrix, type Source, type Splits
} from '../evaluation/fidelity.js'
import { layouts, Network, ranges, type Layout, type NetworkOptions, type Range } from '../evaluation/onnx.js'
import { fileName, integer } from './arguments.js'
import { examples } from './help.js'
import { progressBar, type Progress } from './progress.js'
import { note, print, printJson, shown, table, UsageError, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  reference?: string
  features?: string
  featuresOutput?: string
  probabilitiesOutput?: string
  layout?: Layout
  range?: Range
  recompute?: boolean
  splitSize?: number
  splits?: number
  neighbours: number
  precisionRecall: boolean
  threads?: number
}

/** Pictures of a split of the Inception score, as the evaluator of ADM has it. */
const splitSize = 5000

const sets = '.npz or .npy file of pictures, features or statistics, or folder of pictures'

export function evalCommand (signal: AbortSignal): Command {
  return new Command('eval')
    .description('Compare generated pictures with real ones: Frechet distance (FID), Inception score, precision and ' +
      'recall. Nothing is downloaded; docs/evaluation.md says where the usual network and reference come from.')
    .argument('<generated>', sets)
    .optionsGroup('The sets:')
    .option('-r, --reference <file>', `real pictures: ${sets}; needed`, fileName)
    .option('--features <model.onnx>', 'network that makes features of pictures; needs the package onnxruntime-node',
      fileName)
    .option('--features-output <name>', 'output of the network that has the features (default: by name and shape)')
    .option('--probabilities-output <name>',
      'output that has class probabilities or logits (default: by name and shape, if there is one)')
    .addOption(new Option('--layout <layout>', 'where the channels of a picture stand (default: by the input\'s shape)')
      .choices(layouts))
    .addOption(new Option('--range <range>', 'numbers that a network of floats takes (default: 0..255)')
      .choices(Object.keys(ranges)))
    .option('--recompute', 'compute the statistics of a file that has them from its pictures, too')
    .optionsGroup('The figures:')
    .option('--split-size <pictures>', `pictures of a split of the Inception score (default: ${splitSize})`, integer(1))
    .option('--splits <number>', 'splits of the Inception score, instead of their size', integer(1))
    .option('--neighbours <k>', 'neighbour that the radius of precision and recall reaches to', integer(1, 1000), 3)
    .option('--no-precision-recall', 'leave out precision and recall, which take long for many pictures')
    .option('--threads <number>', 'CPU threads (default: one per core)', integer(1, 1024))
    .optionsGroup('Options:')
    .addHelpText('after', examples(
      'parvis eval samples.npz --reference VIRTUAL_imagenet256_labeled.npz --features inception.onnx',
      'parvis eval features.npz --reference real-features.npz --json'))
    .action(async (file: string, flags: Flags) => await evaluate(file, flags, signal))
}

/** What a figure is computed of. */
type Of = 'features' | 'statistics' | 'pictures'

interface Plan {
  set: SetFile
  role: 'generated' | 'reference'
  distance?: Of
  neighbours?: Of
  scores?: 'probabilities' | 'pictures'
}

interface Loaded {
  features?: Matrix
  probabilities?: Matrix
}

type Figure = 'fid' | 'inceptionScore' | 'precision' | 'recall'

async function evaluate (file: string, flags: Flags, signal: AbortSignal): Promise<void> {
  check(file, flags)
  const began = performance.now()
  const progress = progressBar(flags)
  const opened: SetFile[] = []
  let network: Network | undefined
  let pool: Pool | undefined
  try {
    for (const name of [file, flags.reference!]) opened.push(await openSet(name, signal))
    const [generated, reference] = plan(opened as [SetFile, SetFile], flags)
    const plans = [generated, reference]
    const missing = whatIsMissing(generated, reference, flags)
    if (plans.every(({ distance }) => distance !== undefined)) {
      checkDimensions(generated, reference)
      checkCounts(plans)
    }
    const linearAlgebra = missing.fid === undefined ? checkLinearAlgebra() : undefined

    // ---- features
    const readers = plans.filter(usesPictures)
    if (readers.length > 0) {
      progress.update(0, 1, 'loading the network')
      network = await Network.load(flags.features!, networkOptions(flags))
      signal.throwIfAborted()
      if (generated.scores === 'pictures' && network.outputs.probabilities === undefined) {
        delete generated.scores
        missing.inceptionScore = `${shownPath(flags.features!)} has no output of class probabilities or logits`
      }
    }
    const loaded: Loaded[] = []
    for (const each of plans) loaded.push(await load(each, network, progress, signal))
    const [ours, real] = loaded as [Loaded, Loaded]
    const sources = missing.fid === undefined
      ? [await sourceOf(generated, ours, signal), await sourceOf(reference, real, signal)] as const
      : undefined
    const rows = missing.precision === undefined ? [ours.features!, real.features!] as const : undefined
    checkLoaded(generated, reference, sources, rows, flags)

    // ---- figures
    const total = (sources ? frechetUnits(...sources) : 0) + (rows ? coverageUnits(...rows) : 0)
    pool = new Pool(flags.threads ?? defaultThreads(), signal,
      units => progress.update(Math.min(units, total), total, 'comparing'))
    progress.update(0, total || 1, 'comparing')
    const [distance, coverage, score] = await Promise.all([
      sources && frechet(...sources, pool),
      rows && precisionAndRecall(...rows, pool, { k: flags.neighbours }),
      missing.inceptionScore === undefined
        ? inceptionScore(ours.probabilities!, splitsOf(flags), signal)
        : undefined
    ])
    signal.throwIfAborted()
    progress.stop()

    const used = plans.map(each => usedOf(each, loaded[plans.indexOf(each)]!))
    if (flags.json) {
      return await printJson({
        ...Object.fromEntries(used.map(({ role, text, ...rest }) => [role, rest])),
        fid: distance?.distance ?? null,
        fidOfMeans: distance?.ofMeans ?? null,
        fidOfCovariances: distance?.ofCovariances ?? null,
        inceptionScore: score?.mean ?? null,
        inceptionScoreStandardDeviation: score?.standardDeviation ?? null,
        splits: score?.splits ?? null,
        precision: coverage?.precision ?? null,
        recall: coverage?.recall ?? null,
        neighbours: coverage ? flags.neighbours : null,
        ...(Object.keys(missing).length > 0 && { notComputed: missing }),
        ...(network !== undefined && {
          network: { file: absolute(network.file), input: network.input, outputs: network.outputs }
        }),
        ...(linearAlgebra !== undefined && { linearAlgebra: `${linearAlgebra.name} ${linearAlgebra.version}` }),
        seconds: (performance.now() - began) / 1000
      })
    }
    const lines: string[][] = []
    if (distance !== undefined) {
      lines.push(['Frechet distance (FID)', figure(distance.distance),
        `means ${figure(distance.ofMeans)}, covariances ${figure(distance.ofCovariances)}`])
    }
    if (score !== undefined) {
      lines.push(['Inception score', figure(score.mean), score.splits === 1
        ? 'one split'
        : `standard deviation ${figure(score.standardDeviation)} over ${score.splits} splits`])
    }
    if (coverage !== undefined) {
      const k = `k = ${flags.neighbours}`
      lines.push(['precision', coverage.precision.toFixed(4), `of ${ours.features!.rows} generated, ${k}`],
        ['recall', coverage.recall.toFixed(4), `of ${real.features!.rows} real, ${k}`])
    }
    const text = [...used.map(each => shown`${each.role}: ${each.file}: ${each.text}`), table(lines)]
    for (const [reason, names] of grouped(missing)) text.push(shown`not computed: ${names.join(', ')}: ${reason}`)
    await print(text.join('\n') + '\n')
  } finally {
    progress.stop()
    await pool?.close()
    await network?.close()
    for (const set of opened) await set.close()
  }
}

function check (file: string, flags: Flags): void {
  if (flags.reference === undefined) {
    throw new UsageError('--reference is missing: give the real pictures, their features or their statistics')
  }
  if (file === '') throw new UsageError('the name of the generated set is empty')
  if (file === '-' || flags.reference === '-') {
    throw new UsageError('a set is read from several places of its file, so standard input will not do; give a file')
  }
  if (flags.splits !== undefined && flags.splitSize !== undefined) {
    throw new UsageError('--splits and --split-size say the same in two ways; give one of them')
  }
  if (flags.features !== undefined) return
  const names = ['featuresOutput', 'probabilitiesOutput', 'layout', 'range', 'recompute'] as const
  const other = names.find(name => flags[name] !== undefined)
  if (other !== undefined) {
    throw new UsageError(`--${other.replace(/[A-Z]/, letter => `-${letter.toLowerCase()}`)} is about the network of ` +
      '--features; give that too')
  }
}

function networkOptions ({ layout, range, featuresOutput, probabilitiesOutput, threads }: Flags): NetworkOptions {
  return { layout, range, features: featuresOutput, probabilities: probabilitiesOutput, threads }
}

function splitsOf (flags: Flags): Splits {
  return flags.splits === undefined ? { size: flags.splitSize ?? splitSize } : { count: flags.splits }
}

// ---- what is computed, and of what

/** Features before statistics before pictures; the statistics of a file's pictures stand for them, as in ADM. */
function plan (opened: [SetFile, SetFile], flags: Flags): [Plan, Plan] {
  const network = flags.features !== undefined
  if (network && !opened.some(({ pictures }) => pictures !== undefined)) {
    throw new UsageError('--features makes features of pictures, and neither set has pictures; leave it out')
  }
  const [generated, reference] = opened.map((set, k): Plan => {
    const { features, statistics, pictures, probabilities } = set
    const seen = network && pictures !== undefined
    if (pictures !== undefined && !network && (features ?? statistics) === undefined) {
      throw new UsageError(`${shownPath(set.file)} has pictures, and they are compared by features that a network ` +
        'finds in them: give it with --features model.onnx (docs/evaluation.md says how to get the usual one), or ' +
        'give a file of features')
    }
    const distance: Of | undefined = features
      ? 'features'
      : statistics && !(flags.recompute && seen) ? 'statistics' : seen ? 'pictures' : undefined
    const neighbours: Of | undefined = features ? 'features' : seen ? 'pictures' : undefined
    return {
      set,
      role: k === 0 ? 'generated' : 'reference',
      ...distance && { distance },
      ...neighbours && flags.precisionRecall && { neighbours },
      ...k === 0 && (probabilities ? { scores: 'probabilities' } : seen ? { scores: 'pictures' } : {})
    }
  }) as [Plan, Plan]
  // Neighbours are those of both sets or of none.
  if (generated.neighbours === undefined || reference.neighbours === undefined) {
    delete generated.neighbours
    delete reference.neighbours
  }
  return [generated, reference]
}

function whatIsMissing (generated: Plan, reference: Plan, flags: Flags): Partial<Record<Figure, string>> {
  const missing: Partial<Record<Figure, string>> = {}
  const without = [generated, reference].find(({ distance }) => distance === undefined)
  if (without !== undefined) missing.fid = `the ${without.role} set has no features and no statistics`
  if (generated.scores === undefined) {
    missing.inceptionScore = 'it needs class probabilities of the generated set: an array named probabilities, or ' +
      'pictures and a network that has them'
  }
  if (!flags.precisionRecall) missing.precision = '--no-precision-recall'
  else if (generated.neighbours === undefined) {
    const bare = [generated, reference].filter(({ set }) => !set.features && !(set.pictures && flags.features))
    const why = bare.map(({ role, set }) => `the ${role} set has ${set.pictures
      ? 'pictures, whose features need --features'
      : set.statistics ? 'statistics only' : 'none'}`)
    missing.precision = `they need features of both sets; ${why.join(', and ')}`
  }
  if (missing.precision !== undefined) missing.recall = missing.precision
  if (missing.fid !== undefined && missing.precision !== undefined && missing.inceptionScore !== undefined) {
    throw new UsageError(`nothing can be computed: ${missing.fid}. Give sets that have features, mu and sigma, or ` +
      'pictures and --features')
  }
  return missing
}

function usesPictures ({ distance, neighbours, scores }: Plan): boolean {
  return [distance, neighbours, scores].includes('pictures')
}

/** Reads what is computed of: the features of a file, or those of its pictures. */
async function load (
  { set, distance, neighbours, scores }: Plan, network: Network | undefined, progress: Progress, signal: AbortSignal
): Promise<Loaded> {
  const loaded: Loaded = {}
  const name = shownPath(set.file)
  if ([distance, neighbours].includes('features')) {
    const { count } = set.features!
    loaded.features = await set.features!.read(signal, rows => progress.update(rows, count, `reading ${name}`))
  }
  if ([distance, neighbours, scores].includes('pictures')) {
    const { count } = set.pictures!
    progress.update(0, count, `${name}: 0/${count} pictures`)
    const seen = await network!.read(set.pictures!, signal,
      done => progress.update(done, count, `${name}: ${done}/${count} pictures`))
    loaded.features ??= seen.features
    if (scores === 'pictures') loaded.probabilities = seen.probabilities
  }
  if (scores === 'probabilities') loaded.probabilities = await set.probabilities!.read(signal)
  return loaded
}

async function sourceOf ({ set, distance }: Plan, { features }: Loaded, signal: AbortSignal): Promise<Source> {
  return distance === 'statistics' ? await set.statistics!.read(signal) : { features: features! }
}

/** What the headers tell, before anything is read. */
function checkDimensions (generated: Plan, reference: Plan): void {
  const [a, b] = [generated, reference].map(({ set, distance }) =>
    distance === 'features' || distance === 'statistics' ? set[distance]!.dimensions : undefined)
  if (a !== undefined && b !== undefined && a !== b) throw otherLength(generated, a, reference, b)
}

function otherLength (generated: Plan, a: number, reference: Plan, b: number): ParError {
  return new ParError('BAD_ARRAY', `${shownPath(generated.set.file)} has ${a} features a picture, ` +
    `${shownPath(reference.set.file)} ${b}: they are of two networks, and only features of one can be compared`)
}

function checkCounts (plans: readonly Plan[]): void {
  for (const { set, distance } of plans) {
    const count = distance === 'features' ? set.features!.count : distance === 'pictures' ? set.pictures!.count : 2
    if (count >= 2) continue
    throw new ParError('BAD_ARRAY', `${shownPath(set.file)} has one picture; a covariance needs 2 at least, and a ` +
      'distance that says something thousands')
  }
}

function checkLoaded (
  generated: Plan, reference: Plan, sources: readonly [Source, Source] | undefined,
  rows: readonly [Matrix, Matrix] | undefined, { neighbours, json }: Flags
): void {
  const length = (source: Source): number => 'features' in source ? source.features.columns : source.mean.length
  for (const lengths of [sources?.map(length), rows?.map(({ columns }) => columns)]) {
    const [a, b] = lengths ?? []
    if (a !== b) throw otherLength(generated, a!, reference, b!)
  }
  for (const [k, each] of [generated, reference].entries()) {
    const few = rows?.[k]
    if (few !== undefined && few.rows <= neighbours) {
      throw new ParError('BAD_ARRAY', `${shownPath(each.set.file)} has ${few.rows} pictures; precision and recall ` +
        `with the ${neighbours} nearest neighbours need ${neighbours + 1} at least. Give more, or ` +
        '--no-precision-recall')
    }
    const source = sources?.[k]
    if (source !== undefined && 'features' in source && source.features.rows <= source.features.columns && !json) {
      note(shown`parvis: ${each.set.file}: ${source.features.rows} pictures for ${source.features.columns} features: ` +
        'the distance depends much on their number; compare it only with distances of as many')
    }
  }
}

// ---- what is said

/** What was used of a set, and for what. */
function usedOf (
  { set, role, distance, neighbours, scores }: Plan, { features, probabilities }: Loaded
): Record<string, unknown> & { role: string, file: string, text: string } {
  const words = { features: 'its features', statistics: 'its mu and sigma', pictures: 'its pictures' }
  const uses = new Map<string, string[]>()
  const add = (of: string | undefined, use: string): void => {
    if (of !== undefined) uses.set(of, [...uses.get(of) ?? [], use])
  }
  add(distance && words[distance], 'distance')
  for (const use of ['precision', 'recall']) add(neighbours && words[neighbours], use)
  add(scores && (scores === 'pictures' ? words.pictures : 'its probabilities'), 'Inception score')
  const dimensions = features?.columns ?? set.statistics?.dimensions
  const pictures = features?.rows ?? probabilities?.rows
  const text = [
    [
      ...pictures === undefined ? [] : [`${pictures} pictures`],
      ...dimensions === undefined ? [] : [`${dimensions} features`]
    ].join(', '),
    ...Array.from(uses, ([of, all]) =>
      `${all.length > 1 ? `${all.slice(0, -1).join(', ')} and ` : ''}${all.at(-1)} from ${of}`)
  ].join('; ')
  return {
    role,
    file: set.file,
    pictures: pictures ?? null,
    dimensions: dimensions ?? null,
    classes: probabilities?.columns ?? null,
    distanceFrom: distance ?? null,
    precisionAndRecallFrom: neighbours ?? null,
    ...(role === 'generated' && { inceptionScoreFrom: scores ?? null }),
    unused: set.unused,
    text
  }
}

const titles: Record<Figure, string> = {
  fid: 'Frechet distance', inceptionScore: 'Inception score', precision: 'precision', recall: 'recall'
}

function grouped (missing: Partial<Record<Figure, string>>): Map<string, string[]> {
  const reasons = new Map<string, string[]>()
  for (const [name, reason] of Object.entries(missing)) {
    reasons.set(reason, [...reasons.get(reason) ?? [], titles[name as Figure]])
  }
  return reasons
}

/** Six digits that count, none of them an exponent where it can be helped. */
function figure (value: number): string {
  if (value === 0) return '0'
  return value >= 1e-3 && value < 1e6 ? String(Number(value.toPrecision(6))) : value.toExponential(5)
}
