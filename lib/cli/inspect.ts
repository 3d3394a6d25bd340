// parvis inspect: what a checkpoint file is, without reading its weights, what it would take to run it and, where
// asked, how fast that could be at most. It lists what can be listed even where the file cannot be run, because that is
// when one looks into it: heads that nothing tells are shown as unknown, and any other fault is printed after the
// tensors, with exit code 1.

import { Command, Option } from 'commander'
import {
  compareChecksums, describeTokenizer, describeTransformer, describeVideoTokenizer, filesOf, identify, nearestTokenizer,
  nearestTransformer, openCheckpoint,
  type Checkpoint, type Nearest, type TokenizerDescription, type TransformerDescription, type VideoTokenizerDescription,
  type WeightsChoice
} from '../checkpoint/index.js'
import { codesOf, factorsOf, nbpTokenizerFiles } from '../models/video.js'
import { decoderOf } from '../decoding/decoders.js'
import { hasN, methodNames } from '../decoding/method.js'
import { limits } from '../machine/limits.js'
import type { Device } from '../machine/device.js'
import { maxShownName, quote, shownPath, visible } from '../base/text.js'
import { quantizable } from '../checkpoint/quantized.js'
import { cacheBytes, weightItemBytes } from '../models/shapes.js'
import { vqFactor } from '../models/vq.js'
import { expectedSpeed, memoryNeeds, speedText, type Need, type Speed } from './needs.js'
import { device, fileName, integer, levels, modelGrid, rotationPairs } from './arguments.js'
import { orAborted } from './signals.js'
import { bytesText, print, printJson, table, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  heads?: number
  grid?: [number, number] | [number, number, number]
  rotationPairs?: [number, number, number]
  vocabularySize?: number
  levels?: number[]
  weights?: WeightsChoice
  tensors?: boolean
  speed?: boolean
  device: Device
  checksum: boolean
}

type Found =
  | { kind: 'transformer', about: TransformerDescription, headsKnown: boolean }
  | { kind: 'tokenizer', about: TokenizerDescription }
  | { kind: 'video tokenizer', about: VideoTokenizerDescription }

export function inspectCommand (signal: AbortSignal): Command {
  return new Command('inspect')
    .description('Show what a checkpoint is: which published model or what sets it apart from one, architecture, ' +
      'memory needed. Weights are only compared with the checksums of a .pt file.')
    .argument('<file>', 'checkpoint (.pt or .safetensors), transformer or tokenizer', fileName)
    .option('--heads <number>', 'attention heads, if the file does not say', integer(1))
    .option('--grid <rows>x<columns>', 'token grid, if the file does not say; FxRxC for videos', modelGrid)
    .option('--rotation-pairs <f,r,c>', 'for videos: pairs rotated by frame, row, column', rotationPairs)
    .option('--vocabulary-size <number>', 'for NBP: how many rows of its tables are video codes', integer(1))
    .option('--levels <list>', 'for tokenizers of videos: levels of each channel, such as 8,8,8,5,5,5', levels)
    .addOption(new Option('--weights <which>',
      'where the file has both: the model\'s weights or their moving average').choices(['model', 'ema']))
    .option('--tensors', 'list every tensor with type and shape (--json always does)')
    .option(
      '--speed', 'measure the limit of the device (a few seconds), and show the shortest possible time for a picture'
    )
    .option('--no-checksum', 'do not read the weights of a .pt file to compare its checksums')
    .option('--device <device>', 'for --speed: auto, cpu, cuda or cuda:<number>', device, 'auto')
    .action(async (file: string, flags: Flags) => {
      const checkpoint = await openCheckpoint(file, { signal, weights: flags.weights })
      let found: Found | undefined
      let fault: unknown
      try {
        const kind = identify(checkpoint)
        found = kind === 'tokenizer'
          ? { kind, about: describeTokenizer(checkpoint) }
          : kind === 'video tokenizer'
            ? { kind, about: describeVideoTokenizer(checkpoint, flags.levels) }
            : understand(checkpoint, flags)
        if (flags.checksum) await compareChecksums(checkpoint, signal)
      } catch (error) {
        signal.throwIfAborted()
        fault = error
      }
      const speed = flags.speed && !fault ? await orAborted(speedOf(found, flags.device), signal) : undefined
      if (flags.json) await printJson(asJson(checkpoint, found, speed))
      else await print(asText(checkpoint, found, speed, flags.tensors === true || fault !== undefined))
      if (fault) throw fault
    })
}

/** The description; where only the heads are missing, one with an arbitrary number of them. */
function understand (checkpoint: Checkpoint, { heads, grid, rotationPairs, vocabularySize }: Flags): Found {
  const describe = (heads?: number): TransformerDescription =>
    describeTransformer(checkpoint, { heads, grid, rotationPairs, vocabularySize })
  try {
    return { kind: 'transformer', about: describe(heads), headsKnown: true }
  } catch (error) {
    for (const some of heads === undefined ? possibleHeads(checkpoint) : []) {
      try {
        return { kind: 'transformer', about: describe(some), headsKnown: false }
      } catch {}
    }
    throw error
  }
}

/** Numbers of heads that the width allows. */
function possibleHeads (checkpoint: Checkpoint): number[] {
  const dim = (checkpoint.tensors.get('norm.weight') ?? checkpoint.tensors.get('ln_f.weight'))?.shape[0] ?? 0
  const all = Array.from({ length: Math.min(limits.heads, dim / 4) }, (_, i) => i + 1)
  return all.filter(heads => dim % (4 * heads) === 0 && dim / heads <= limits.headSize).slice(0, 16)
}

async function speedOf (found: Found | undefined, device: Device): Promise<Speed | undefined> {
  if (!found || found.kind === 'video tokenizer') return undefined
  if (found.kind === 'transformer' && !found.headsKnown) return undefined
  return await expectedSpeed(found.about, device)
}

// ---- figures

function nearest (found: Exclude<Found, { kind: 'video tokenizer' }>): Nearest {
  return found.kind === 'tokenizer' ? nearestTokenizer(found.about) : nearestTransformer(found.about, found.headsKnown)
}

/** Elements of the tensors that a model needs. */
function parameters (tensors: readonly { shape: number[] }[]): number {
  return tensors.reduce((sum, { shape }) => sum + shape.reduce((product, side) => product * side, 1), 0)
}

function memory (found: Found): {
  weights: { float32: number, bfloat16: number, int8?: number }, cacheASequence?: { float32: number, bfloat16: number }
} {
  const all = parameters(found.about.tensors)
  const matrices = found.kind === 'transformer' ? quantizable(found.about.weights) : undefined
  const quantized = matrices && parameters(found.about.tensors.filter(({ name }) => matrices.has(name)))
  const weights = {
    float32: 4 * all,
    bfloat16: 2 * all,
    ...(quantized !== undefined && { int8: 2 * (all - quantized) + weightItemBytes('int8') * quantized })
  }
  return found.kind !== 'transformer' || !found.headsKnown
    ? { weights }
    : {
        weights,
        cacheASequence: {
          float32: cacheBytes(found.about.model, 'float32', slotsOf(found.about), 1),
          bfloat16: cacheBytes(found.about.model, 'bfloat16', slotsOf(found.about), 1)
        }
      }
}

const slotsOf = (about: TransformerDescription): number => decoderOf(about, '').plan({}).slots

// ---- JSON

function asJson (checkpoint: Checkpoint, found: Found | undefined, speed: Speed | undefined): object {
  const { file, format, fileBytes, wrapper, weights, copies, metadata } = checkpoint
  const used = new Set(found?.about.tensors.map(tensor => tensor.name))
  return {
    file, format, fileBytes, wrapper,
    ...(weights && { weights }),
    ...(copies?.length && { copies }),
    ...(found && describeJson(found)),
    ...(speed && { speed }),
    tensors: [...checkpoint.tensors.values()]
      .map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes, used: used.has(name) })),
    otherTensors: [...checkpoint.others.values()]
      .map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })),
    ...(checkpoint.odd?.size && { noTensors: Object.fromEntries(checkpoint.odd) }),
    metadata: plain(metadata)
  }
}

function describeJson (found: Found): object {
  const { kind, about } = found
  const { tensors, model, weights: _, ...rest } = about
  const shown = found.kind === 'transformer' && !found.headsKnown
    ? { ...model, heads: null, kvHeads: null, headSize: null }
    : model
  return {
    kind,
    official: null,
    ...rest,
    ...(found.kind === 'transformer' && mayBe(found.about).length > 0 && { mayBe: mayBe(found.about) }),
    ...(found.kind === 'transformer' && { headsFrom: found.headsKnown ? found.about.headsFrom : null }),
    model: shown,
    ...(found.kind !== 'video tokenizer' && { nearest: nearest(found) }),
    parameters: parameters(tensors),
    memory: memory(found),
    ...(found.kind === 'transformer' && found.headsKnown && { needs: memoryNeeds(found.about) })
  }
}

/** Metadata as JSON can hold it. */
function plain (value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, part: unknown) => typeof part === 'bigint' ? String(part) : part) ??
    'null')
}

// ---- text

function asText (checkpoint: Checkpoint, found: Found | undefined, speed: Speed | undefined, listed: boolean): string {
  const used = new Set(found?.about.tensors.map(tensor => tensor.name))
  const stored = [...checkpoint.tensors.values()]
  const lists: string[] = []
  if (found?.kind === 'transformer' && found.headsKnown) lists.push(needsText(memoryNeeds(found.about)))
  if (speed) lists.push(`\n${speedText(speed)}`)
  if (listed) {
    lists.push(`\n${tensorsText(checkpoint)}`, table(stored.map(({ name, dtype, shape, bytes }) =>
      [visible(name), dtype, `[${shape.join(', ')}]`, bytesText(bytes), !found || used.has(name) ? '' : 'not needed'])))
    if (checkpoint.others.size > 0) {
      const others = [...checkpoint.others.values()]
      lists.push(`\n${others.length} of other types`,
        table(
          others.map(({ name, dtype, shape, bytes }) =>
            [visible(name), dtype, `[${shape.join(', ')}]`, bytesText(bytes)])
        ))
    }
    if (checkpoint.odd?.size) {
      lists.push(`\n${checkpoint.odd.size} that are no plain tensors`,
        table([...checkpoint.odd].map(([name, what]) => [visible(name), visible(what)])))
    }
  }
  return [shownPath(checkpoint.file), table(facts(checkpoint, found, listed)), ...lists].join('\n') + '\n'
}

/** '175 tensors, 687 MB, bfloat16' */
function tensorsText ({ tensors }: Checkpoint): string {
  const stored = [...tensors.values()]
  const sum = stored.reduce((bytes, tensor) => bytes + tensor.bytes, 0)
  return `${stored.length} tensors, ${bytesText(sum)}, ${[...new Set(stored.map(({ dtype }) => dtype))].join(' and ')}`
}

function needsText (needs: readonly Need[] | undefined): string {
  if (!needs) {
    return '\nHow much memory it takes cannot be told: the native addon is not there (parvis doctor says why).\n'
  }
  const batches = needs[0]!.batches.map(({ batch }) => batch)
  const rows = needs.map(({ device, precision, weights, batches }) => [
    device === 'cpu' ? 'CPU' : 'GPU', precision, bytesText(weights),
    ...batches.map(({ bytes, atOnce, batch }) => bytesText(bytes) + (atOnce < batch ? ` (${atOnce} at a time)` : ''))
  ])
  return `\nMemory with the weights, ${needs[0]!.guided ? 'guided' : 'not guided'}, by pictures made side by side:\n` +
    table([['', '', 'weights', ...batches.map(batch => batch === 1 ? '1 picture' : String(batch))], ...rows])
}

function facts (checkpoint: Checkpoint, found: Found | undefined, listed: boolean): string[][] {
  const format = checkpoint.format === 'pt' ? 'PyTorch checkpoint' : 'safetensors'
  const under = checkpoint.wrapper ? `, weights under ${quote(checkpoint.wrapper)}` : ''
  const rows = [['format', `${format}, ${bytesText(checkpoint.fileBytes)}${under}`]]
  if (!found) rows.push(['kind', 'not understood, see the error at the end'])
  else if (found.kind === 'video tokenizer') {
    rows.push(['kind', 'tokenizer of videos'], ['model', videoModelText(found.about)], ...videoFacts(found.about))
  } else if (found.kind === 'tokenizer') {
    rows.push(['kind', 'tokenizer'], ['model', modelText(checkpoint, found)], ...tokenizerFacts(found.about))
  } else {
    rows.push(['kind', 'transformer'], ['model', modelText(checkpoint, found)],
      ...transformerFacts(found.about, found.headsKnown))
  }
  if (found?.about.source) {
    const { file, sha256 } = found.about.source
    rows.push(['converted', `from ${quote(file)}${sha256 ? `, SHA-256 ${sha256}` : ''}`])
  }
  if (found) {
    const { weights, cacheASequence } = memory(found)
    rows.push(['parameters', parameters(found.about.tensors).toLocaleString('en')])
    rows.push(['weights', Object.entries(weights).map(([type, bytes]) => `${bytesText(bytes)} in ${type}`).join(', ')])
    if (cacheASequence) {
      rows.push(['KV cache',
        `${bytesText(cacheASequence.float32)} per sequence in float32, ${bytesText(cacheASequence.bfloat16)} in ` +
          'bfloat16'])
    }
  }
  if (checkpoint.weights) rows.push(['weights taken', 'an EMA copy (a moving average)'])
  if (checkpoint.copies?.length) {
    rows.push(['EMA copy', `${checkpoint.copies.map(quote).join(', ')} (--weights ema takes it)`])
  }
  for (const warning of found?.about.warnings ?? []) rows.push(['note', visible(warning)])
  if (!listed) rows.push(['tensors', `${tensorsText(checkpoint)} (--tensors lists them)`])
  const beside = Object.keys(checkpoint.metadata)
  if (beside.length > 0) {
    rows.push(['beside them', beside.map(name => visible(name, maxShownName)).join(', ') + ' (--json shows them)'])
  }
  return rows
}

function transformerFacts (about: TransformerDescription, headsKnown: boolean): string[][] {
  const { method, model, n, grid } = about
  const isPar = method === 'par' || method === 'llamagen'
  const layers = model.crossLayers > 0 ? `${model.layers} and ${model.crossLayers} cross layers` : model.layers
  const headsFrom = {
    option: 'as given', metadata: 'from its metadata', method: `all models of ${methodNames[about.method]} have such`,
    'training arguments': 'from its training arguments',
    published: 'from the table of published models',
    assumed: 'assumed; nothing in the file says'
  }[about.headsFrom]
  const gridFrom = {
    option: 'as given',
    metadata: 'from its metadata',
    'training arguments': 'from its training arguments',
    'file name': 'from its file name',
    shapes: 'from its table of positions',
    published: 'that of the published model',
    assumed: 'assumed; nothing in the file says'
  }[about.gridFrom]
  const heads = headsKnown
    ? `${model.heads} of ${model.headSize} ` +
      `(${headsFrom})${model.kvHeads === model.heads ? '' : `, ${model.kvHeads} for keys and values`}`
    : 'unknown: no published model has this width; give --heads'
  const sampling = Object.entries(about.sampling ?? {}).map(entry => entry.join(' ')).join(', ')
  return [
    ...(about.name && about.name !== about.official ? [['name', visible(about.name)]] : []),
    isPar
      ? [
          'n',
          n === 1
            ? '1, token by token (no transition tokens)'
            : `${n} tokens per step (${model.specials} transition tokens)`
        ]
      : ['method', [methodNames[method], ...(hasN(method) ? [`n = ${n}`] : []),
          `${decoderOf(about, '').plan({}).tokensAfter.length} steps by default`].join(', ')],
    ['grid', `${grid.join(' x ')} tokens${grid.length === 3 ? ', a video: frames first' : ''} (${gridFrom})`],
    ...(grid.length === 3 && method !== 'nbp'
      ? [['rotation', `of each head ${model.rotationPairs[0]} pairs by frame, ${model.rotationPairs[1]} by row, ` +
          `${model.rotationPairs[2]} by column`]]
      : []),
    ['layers', `${layers}, width ${model.dim}, feed-forward ${model.feedForward}`],
    ['heads', heads],
    ['vocabulary', `${model.vocabularySize} tokens${model.textTokens > 0 ? `, and ${model.textTokens} of text` : ''}`],
    ...(about.prefix ? [['prefix', `${about.prefix} tokens of text in front of each sequence`]] : []),
    ['classes', model.classes === 0
      ? 'none by name: it reads text'
      : `${model.classes}${about.labels || method === 'nbp' ? ' with names (parvis labels)' : ''}`],
    ...(sampling ? [['sampling', sampling]] : []),
    ...(about.codebookSha256 ? [['tokenizer', `one whose codebook has the hash ${about.codebookSha256}`]] : [])
  ]
}

/**
 * Which published model it is, or what sets it apart from the one that is most alike. Shapes tell; weights are not
 * read.
 */
function modelText (checkpoint: Checkpoint, found: Exclude<Found, { kind: 'video tokenizer' }>): string {
  const { about } = found
  const { name, differences } = nearest(found)
  if (found.kind === 'tokenizer' && found.about.mayBe) {
    return `VQ-16, ${found.about.mayBe.join(' or ')} (by its shapes, which both have)`
  }
  if (about.official !== undefined) {
    if (found.kind === 'transformer') return transformerText(checkpoint, found.about)
    const of = origin(checkpoint, found)
    return `${about.official}, VQ-16 (${of}, by its shapes and its name)`
  }
  return `none of the published ones; nearest is ${name}, but ` +
    `for ${differences.map(({ what, here, published }) => `${what} ${here} (there ${published})`).join(', ')}`
}

function origin (checkpoint: Checkpoint, { about }: Found): string {
  return checkpoint.format === 'pt'
    ? "the authors' file"
    : about.source
      ? "converted from the authors' file"
      : 'as .safetensors'
}

/** Published files with the dimensions and the grid of this model; where the grid is assumed, with any grid. */
function mayBe (about: TransformerDescription): string[] {
  return filesOf(about.official, about.gridFrom === 'assumed' ? undefined : about.grid)
}

function transformerText (checkpoint: Checkpoint, about: TransformerDescription): string {
  const files = mayBe(about)
  const official = about.official!
  if (files.length === 0) {
    return `${official}, by its shapes; no such file was ` +
      `published ${filesOf(official).length > 0 ? 'for this grid' : 'by the authors'}`
  }
  const of = origin(checkpoint, { kind: 'transformer', about, headsKnown: true })
  const own = files.filter(file => file !== official)
  return `${official}${own.length > 0 ? `, ${own.join(' or ')}` : ''} (${of}, by its ` +
    `shapes${own.length > 1 ? '; the grid tells them apart, and it is assumed' : ''})`
}

function videoModelText ({ official }: VideoTokenizerDescription): string {
  return official
    ? `${official}, ${nbpTokenizerFiles.join(' or ')} (by its shapes, which both have)`
    : 'none of the published ones'
}

function videoFacts ({ model, levelsFrom, name, official }: VideoTokenizerDescription): string[][] {
  const { space, time } = factorsOf(model)
  const from = { option: 'as given', metadata: 'from its metadata', usual: 'those of the published models' }[levelsFrom]
  const widths = (layers: VideoTokenizerDescription['model']['decoder']): string =>
    [...new Set(layers.filter(({ kind }) => kind === 'residual').map(({ outputs }) => outputs))].join(', ')
  return [
    ...(name !== undefined && name !== official ? [['name', visible(name)]] : []),
    ['factor', `${space} pixels per token; a frame of tokens makes ${time} frames, ` +
      'the first one makes 1'],
    ['codes', `${codesOf(model)}: levels ${model.levels.join(', ')} (${from})`],
    ['widths', `encoder ${widths(model.encoder)}, decoder ${widths(model.decoder)}`]
  ]
}

function tokenizerFacts (about: TokenizerDescription): string[][] {
  const { model } = about
  return [
    ...(about.name && about.name !== about.official ? [['name', visible(about.name)]] : []),
    ['factor', `${vqFactor(model)} pixels per token`],
    ['codebook', `${model.codebookSize} codes of ${model.codeSize}`],
    [
      'widths',
      `${model.multipliers.map(multiplier => multiplier * model.baseChannels).join(', ')}, ${model.residualBlocks} ` +
        `residual blocks per level, z ${model.zChannels}`
    ],
    ...(about.imageSize ? [['trained on', `${about.imageSize.join(' x ')} px`]] : [])
  ]
}
