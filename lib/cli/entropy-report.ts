// The figures of parvis entropy: as JSON, as text, and what has to be said about them.

import type { Order, Schedule } from '../decoding/schedule.js'
import type { Groups } from '../evaluation/code-groups.js'
import { codesFor, picturesFor, type Around, type Conditional, type Rise } from '../evaluation/entropy.js'
import type { Estimate } from '../evaluation/resampling.js'
import type { PairResult } from './entropy-models.js'
import { shown, table } from './terminal.js'
import type { TokenInputs } from './token-inputs.js'

/** What the command line says about the count. */
interface Flags {
  tokensPerStep: number
  past: number
  groups?: number
  bootstrap: number
  seed: number
}

/** Entropies given one cell, and those of the tokens alone. */
export type Reference = Conditional & { own: Float64Array }

type Bits = Array<number | null>
type ReportAround = Record<keyof Around, number | null>

export interface Report {
  pictures: number
  grid: readonly [number, number]
  unit: 'bits'
  estimator: string
  bootstrap: number
  seed: number
  codes: { used: number, codebookSize?: number }
  notes: string[]
  conditional: {
    groups: number
    picturesNeeded: number
    plugInBias: number
    residualBias: number
    own: Bits
    lower: number
    references: Array<{
      cell: [row: number, column: number]
      neighbours: ReportAround
      far: ReportAround
      shareDifference: Estimate | null
      alike: { neighbours: number, far: number, cells: number, difference: Estimate } | null
      entropy: Bits
      share: Bits
    }>
  }
  rise?: {
    n: number
    past: number
    groups: number
    picturesNeeded: number
    orders: Array<Estimate & {
      order: Order
      tokens: number
      picture: number
      parallel: number
      sequential: number
      plugInBias: number
      residualBias: number
      cells: Bits
    }>
    difference: Estimate & { of: 'raster - distant' }
  }
  models?: {
    pictures: number
    pairs: Array<Estimate & {
      order: Order
      tokensPerStep: number
      parallel: { file: string, bits: number }
      sequential: { file: string, bits: number }
      tokens: number
      picture: number
      firstOfGroup: number
      cells: Bits
    }>
    difference?: Estimate & { of: 'raster - distant' }
  }
}

/** What has no number has none in JSON either. */
function list (values: Float64Array): Bits {
  return Array.from(values, value => Number.isFinite(value) ? round(value) : null)
}

/** Six decimals: far more than the pictures tell. */
function round (value: number): number {
  return Math.round(value * 1e6) / 1e6
}

function roundAll ({ mean, interval: [low, high] }: Estimate): Estimate {
  return { mean: round(mean), interval: [round(low), round(high)] }
}

const estimator = 'Grassberger 2003, each entropy; intervals: 95% of draws of the pictures, tables held'

export function reportOf (
  flags: Flags, { set, codebookSize }: TokenInputs,
  { pairGroups, riseGroups }: { pairGroups: Groups, riseGroups: Groups | undefined },
  { figure9, figure10, schedules }: { figure9: Reference[], figure10: Rise[], schedules: Schedule[] },
  estimates: Estimate[], models: { models: PairResult[], estimates: Estimate[], pictures: number }
): Report {
  const { pictures, grid } = set
  const used = pairGroups.codes
  const waiting = estimates.map(roundAll)
  const next = (): Estimate => waiting.shift()!
  const around = (cells: Around): ReportAround => Object.fromEntries(Object.entries(cells)
    .map(([name, value]) => [name, Number.isFinite(value) ? round(value) : null])) as ReportAround
  const meanOf = (values: number[]): number => round(values.reduce((sum, value) => sum + value, 0) / values.length)
  const foundReferences = figure9.map(({ reference, neighbours, far, alike, alikeDifference, entropy, share }) => {
    const difference = next()
    const isTold = Number.isFinite(neighbours.share) && Number.isFinite(far.share)
    return {
      cell: [Math.floor(reference / grid[1]), reference % grid[1]] as [number, number],
      neighbours: around(neighbours),
      far: around(far),
      shareDifference: isTold ? difference : null,
      alike: alikeDifference.length > 0
        ? { neighbours: round(alike.neighbours), far: round(alike.far), cells: alike.cells, difference: next() }
        : null,
      entropy: list(entropy),
      share: list(share)
    }
  })
  const orders = figure10.map((rise, k) => ({
    order: schedules[k]!.order,
    ...next(),
    tokens: rise.tokens,
    picture: round(rise.mean * rise.tokens),
    parallel: round(rise.meanParallel),
    sequential: round(rise.meanParallel - rise.mean),
    plugInBias: round(rise.plugInBias),
    residualBias: round(rise.residualBias),
    cells: list(rise.cells)
  }))
  const report: Report = {
    pictures,
    grid,
    unit: 'bits',
    estimator,
    bootstrap: flags.bootstrap,
    seed: flags.seed,
    codes: { used, ...(codebookSize !== undefined && { codebookSize }) },
    notes: notesOn(pictures, used, pairGroups, riseGroups, flags),
    conditional: {
      groups: pairGroups.groups,
      picturesNeeded: picturesFor(used, 2),
      plugInBias: meanOf(figure9.map(({ plugInBias }) => plugInBias)),
      residualBias: meanOf(figure9.map(({ residualBias }) => residualBias)),
      own: list(figure9[0]!.own),
      lower: foundReferences.filter(({ shareDifference }) => shareDifference && shareDifference.interval[1] < 0).length,
      references: foundReferences
    },
    ...(riseGroups && {
      rise: {
        n: flags.tokensPerStep,
        past: flags.past,
        groups: riseGroups.groups,
        picturesNeeded: picturesFor(used, 2 + flags.past),
        orders,
        difference: { of: 'raster - distant', ...next() }
      }
    })
  }
  if (models.models.length > 0) {
    const all = models.estimates.map(roundAll)
    for (const { bits, blind, parallel, sequential } of models.models) {
      for (const [file, found] of [[parallel, bits.parallel], [sequential, bits.sequential]] as const) {
        if (found < blind) continue
        report.notes.push(shown`${file} needs ${found.toFixed(2)} bits a token, a blind guess ${blind.toFixed(2)}: ` +
          'it was not trained to predict these pictures in this way, and its rise says nothing')
      }
    }
    report.models = {
      pictures: models.pictures,
      pairs: models.models.map((pair, k) => ({
        order: pair.order,
        tokensPerStep: pair.tokensPerStep,
        parallel: { file: pair.parallel, bits: round(pair.bits.parallel) },
        sequential: { file: pair.sequential, bits: round(pair.bits.sequential) },
        ...all[k]!,
        tokens: pair.tokens,
        picture: round(all[k]!.mean * pair.tokens),
        firstOfGroup: round(pair.firstOfGroup),
        cells: list(pair.cells)
      })),
      ...(all.length > models.models.length && { difference: { of: 'raster - distant', ...all.at(-1)! } })
    }
  }
  return report
}

function notesOn (
  pictures: number, used: number, pairs: Groups, larger: Groups | undefined, { past, groups: asked }: Flags
): string[] {
  const number = (value: number): string => value < 1e6 ? String(value) : value.toPrecision(2).replace('e+', 'e')
  const notes: string[] = []
  const add = ({ groups, grouped }: Groups, tokens: number, what: string): void => {
    const needed = picturesFor(used, tokens)
    if (grouped) {
      notes.push(`${what}: the ${used} codes in use are ${groups} groups of codes that stand beside the same codes; ` +
        `tables of ${tokens} tokens need ${number(needed)} pictures for all codes, and there are ${pictures}`)
    }
    if (picturesFor(groups, tokens) > pictures) {
      notes.push(`${what}: ${pictures} pictures are few for ${groups} ${grouped ? 'groups' : 'codes'}, ` +
        `${number(picturesFor(groups, tokens))} are needed; --groups ${codesFor(pictures, tokens)} would do`)
    }
    if (grouped && groups < (asked ?? 0)) {
      notes.push(`${what}: a table of ${tokens} tokens takes at most ${groups} groups`)
    }
  }
  add(pairs, 2, 'conditional entropies')
  if (larger) add(larger, 2 + past, 'the rise')
  return notes
}

export function textOf (report: Report, written: readonly string[]): string {
  const { pictures, grid, conditional, rise, models } = report
  const bits = (value: number | null, digits = 2): string => value === null ? '-' : value.toFixed(digits)
  const share = (value: number | null): string => value === null ? '-' : `${(100 * value).toFixed(1)}%`
  const within = ({ mean, interval: [low, high] }: Estimate, digits: number): string =>
    `${mean.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`
  const lines = [
    `${pictures} pictures of ${grid.join(' x ')} tokens, ${report.codes.used} codes in use; all figures in bits`,
    `entropy of a token, given the token of a reference cell (${conditional.groups} codes or groups; residual bias ` +
      `${bits(conditional.residualBias, 3)}); far cells alike have about as much entropy of their own as neighbours:`,
    table([['reference', 'neighbours', 'far', 'far alike', 'share left: neighbours', 'far', 'neighbours lower'],
      ...conditional.references.map(({ cell, neighbours, far, alike, shareDifference }) => [
        cell.join(','), bits(neighbours.entropy), bits(far.entropy), alike === null ? '-' : bits(alike.far),
        share(neighbours.share), share(far.share),
        shareDifference === null ? '-' : shareDifference.interval[1] < 0 ? 'yes' : 'no'])]),
    `neighbours have less of their own entropy left than far cells for ${conditional.lower} of ` +
      `${conditional.references.length} reference cells`
  ]
  if (rise) {
    lines.push(`rise of a token's entropy when ${rise.n} are predicted at once (${rise.groups} codes or groups, ` +
      `${rise.past} earlier token${rise.past > 1 ? 's' : ''} given):`,
    table([['order', 'one by one', 'at once', 'rise (95%)', 'a picture', 'residual bias'],
      ...rise.orders.map(one => [one.order, bits(one.sequential, 3), bits(one.parallel, 3), within(one, 4),
        bits(one.picture, 1), bits(one.residualBias, 4)])]),
    `raster - distant: ${within(rise.difference, 4)}`)
  }
  if (models) {
    lines.push(`the same from models, ${models.pictures} pictures:`,
      table([['order', 'one by one', 'at once', 'rise (95%)', 'a picture', 'first of a group'],
        ...models.pairs.map(one => [one.order, bits(one.sequential.bits, 3), bits(one.parallel.bits, 3), within(one, 4),
          bits(one.picture, 1), bits(one.firstOfGroup, 4)])]))
    if (models.difference) lines.push(`raster - distant: ${within(models.difference, 4)}`)
  }
  return [...lines, ...written.map(file => shown`${file}`)].join('\n') + '\n'
}
