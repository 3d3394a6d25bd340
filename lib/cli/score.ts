// parvis score: how likely a model finds a picture, token by token, in bits: what an ideal coder that knows the model
// would need for it. For several n side by side, because n decides what each token may see.

import { Command } from 'commander'
import type { Par } from '../api/par.js'
import type { ClassifyProgress } from '../base/progress.js'
import type { Classification, Score } from '../decoding/scoring.js'
import { absolute } from '../base/files.js'
import { classList, integer, real } from './arguments.js'
import { inFile } from './decode.js'
import { pictureOptions } from './encode.js'
import { heatmap, type Panel } from './heatmap.js'
import { checkModel, loadModel, modelOptions, withPar, type ModelFlags } from './model.js'
import { pullReporter } from './pull.js'
import { checkOneFile, writeOutput } from './outputs.js'
import { encode, formatOf, type Pixels } from './picture.js'
import type { Progress } from './progress.js'
import { encodeFile, readSource, sourceName, type PictureFlags } from './sources.js'
import { print, printJson, shown, table, UsageError } from './terminal.js'
import { looksLikeTokens, readTokens } from './tokens.js'

interface Flags extends ModelFlags, PictureFlags {
  class?: string
  tokensPerStep?: number[]
  guidanceScale?: number
  top?: number
  perToken?: boolean
  heatmap?: string
  picture: number
}

/** Classes up to which the likeliest one is looked for where none is given; each takes a pass. */
const fewClasses = 16

export function scoreCommand (signal: AbortSignal): Command {
  const command = new Command('score')
    .description('Say how probable a picture is for a model, token by token. Default: the embedded model.')
    .argument('<picture or tokens>', 'picture file, or tokens (.npy or JSON); - reads standard input')
    .optionsGroup('What to say:')
    .option('-c, --class <id or name>',
      'class of the picture (default, if the model has few classes: the most likely class)')
    .option('-n, --tokens-per-step <list>',
      'tokens per step: one n, or several to compare: 1,4,16 (default: the model\'s own)', integers)
    .option('--guidance-scale <scale>',
      'how strongly the class counts (classifier-free guidance); 1, the default, turns guidance off', real)
    .option('--top <classes>', 'list the most likely classes, for the first n; runs the model once per class',
      integer(1))
    .option('--per-token', 'print the bits of each token, one line per row of the grid')
    .option('--heatmap <file>', 'write a picture of the bits of each token')
    .option('--picture <number>', 'which picture of a file of tokens, from 1', integer(1), 1)
  return modelOptions(pictureOptions(command))
    .action(async (file: string, flags: Flags) => await scoreFile(file, flags, signal))
}

function integers (text: string): number[] {
  return [...new Set(text.split(',').map(part => integer(1)(part.trim())))]
}

async function scoreFile (file: string, flags: Flags, signal: AbortSignal): Promise<void> {
  checkModel(flags)
  if (flags.heatmap === '-') throw new UsageError('the figures go to standard output; give --heatmap a file')
  if (flags.heatmap !== undefined) await checkOneFile(flags.heatmap)
  const format = formatOf(flags.heatmap ?? '', undefined, '')
  const name = sourceName(file)
  const bytes = await readSource(file, signal)
  const isTokens = looksLikeTokens(bytes)
  if (flags.transformer !== undefined && flags.tokenizer === undefined && (!isTokens || flags.heatmap !== undefined)) {
    throw new UsageError(
      `${isTokens ? '--heatmap shows the picture' : 'a picture becomes tokens by a tokenizer'}; give --tokenizer too`
    )
  }
  const load = async (progress: Progress): Promise<Par> =>
    await loadModel(flags, signal, pullReporter(progress, flags))
  await withPar(flags, load, async (par, progress) => {
    const { transformer, tokenizer } = par.info
    const { classes, vocabularySize, grid } = transformer!
    const given = flags.class === undefined ? undefined : one(classList([flags.class], classes, par.labels))
    if (given === undefined && flags.top === undefined && classes > fewClasses) {
      throw new UsageError(`which class? Give --class, or --top 5 to compare all ${classes}, a pass each`)
    }

    // ---- the tokens
    let tokens: Int32Array
    let picture: Pixels | undefined
    let notes: string[] = []
    if (isTokens) {
      const pictures = await readTokens(bytes, name, grid, grid, signal)
      if (flags.picture > pictures.length) {
        throw new UsageError(`${name} has ${pictures.length === 1 ? 'one picture' : `${pictures.length} pictures`}; ` +
          `there is no --picture ${flags.picture}`)
      }
      tokens = pictures[flags.picture - 1]!.tokens
      if (flags.heatmap !== undefined) {
        picture = await par.decode(tokens, { grid, signal }).catch((error: unknown) => { throw inFile(error, name) })
      }
    } else {
      if (flags.size !== undefined) {
        throw new UsageError(
          `the model decides the size, ${tokenizer!.imageSize!.toReversed().join(' x ')} pixels; leave out --size`
        )
      }
      ;({ tokens, picture, notes } = await encodeFile(par, file, bytes,
        { ...flags, size: sizeOf(tokenizer!.imageSize!) }, signal))
    }

    // ---- the scores
    const ofFile = (error: unknown): never => { throw isTokens ? inFile(error, name) : error }
    const { guidanceScale } = flags
    const all = flags.tokensPerStep ?? [transformer!.n]
    let compared: Classification[] = []
    if (given === undefined || flags.top !== undefined) {
      progress.update(0, classes, `0/${classes} classes`)
      const onProgress = ({ classesDone }: ClassifyProgress): void =>
        progress.update(classesDone, classes, `${classesDone}/${classes} classes`)
      compared = await par.classify(tokens, { n: all[0]!, guidanceScale, signal, onProgress }).catch(ofFile)
    }
    const classId = given ?? compared[0]!.classId
    const label = par.labels?.[classId]
    const results = []
    for (const [k, n] of all.entries()) {
      progress.update(k, all.length, `n = ${n}`)
      const [{ logProbs, total }] = await par.score({ tokens, classId, n, guidanceScale, signal })
        .catch(ofFile) as [Score]
      const bits = logProbs.map(value => -value / Math.LN2)
      results.push({
        n, logProb: total, bits: -total / Math.LN2, bitsPerToken: -total / Math.LN2 / tokens.length, tokens: bits,
        logProbs
      })
    }
    const best = compared.slice(0, flags.top ?? 0).map(({ classId, label, logProb, probability }) => ({
      classId, label, logProb, bits: -logProb / Math.LN2, probability
    }))
    progress.stop()

    // ---- the picture of them
    if (flags.heatmap !== undefined) {
      const panels: Panel[] = results.map(({ n, bits, bitsPerToken, tokens }) =>
        ({ title: `n = ${n}: ${bits.toFixed(0)} bits, ${bitsPerToken.toFixed(2)} a token`, bits: tokens }))
      const image = await encode(heatmap(picture!, grid, panels), format)
      signal.throwIfAborted()
      await writeOutput(flags.heatmap, image, signal)
    }

    if (flags.json) {
      return await printJson({
        file,
        ...(notes.length > 0 && { notes }),
        classId,
        label,
        classGiven: given !== undefined,
        grid,
        vocabularySize,
        guidanceScale: flags.guidanceScale ?? 1,
        scores: results.map(({ tokens, logProbs, ...rest }) => ({ ...rest, logProbs: Array.from(logProbs) })),
        ...(best.length > 0 && { classes: best }),
        ...(flags.heatmap !== undefined && { heatmap: absolute(flags.heatmap) }),
        device: par.info.device
      })
    }
    const subject = label === undefined ? `class ${classId}` : shown`${label} (${classId})`
    const lines = [
      `${name} as ${subject}${given === undefined ? ', the likeliest class' : ''}: ${grid[0]} x ${grid[1]} tokens; ` +
        `a blind guess takes ${Math.log2(vocabularySize).toFixed(2)} bits a token`,
      table([['n', 'bits', 'bits a token', 'log probability'],
        ...results.map(({ n, bits, bitsPerToken, logProb }) =>
          [String(n), bits.toFixed(1), bitsPerToken.toFixed(3), logProb.toFixed(2)])])
    ]
    if (best.length > 0) {
      lines.push(`likeliest classes at n = ${all[0]}, as if all were equally likely beforehand:`,
        table(best.map(({ classId, label, bits, probability }) =>
          [String(classId), label ?? '', `${bits.toFixed(1)} bits`, `${(100 * probability).toFixed(1)}%`])))
    }
    if (flags.perToken) {
      for (const { n, tokens } of results) lines.push(`bits of each token at n = ${n}:`, rowsOf(tokens, grid[1]))
    }
    if (flags.heatmap !== undefined) lines.push(shown`${flags.heatmap}`)
    await print(lines.join('\n') + '\n')
  })
}

function one (classes: readonly number[]): number {
  if (classes.length !== 1) throw new UsageError('score takes one class; --top compares them')
  return classes[0]!
}

function sizeOf ([height, width]: readonly [number, number]): { width: number, height: number } {
  return { width, height }
}

function rowsOf (bits: Float32Array, columns: number): string {
  const lines: string[] = []
  for (let from = 0; from < bits.length; from += columns) {
    lines.push(Array.from(bits.subarray(from, from + columns), value => value.toFixed(1).padStart(4)).join(' '))
  }
  return lines.join('\n')
}
