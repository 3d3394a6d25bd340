// parvis labels: the class names of a model, one a line, so that a number is found by name. Reads the metadata of the
// checkpoint only; no weights, no addon. A search without a model looks wherever names are at hand.

import { Command } from 'commander'
import { describeTransformer, identify, openCheckpoint } from '../checkpoint/index.js'
import { readParvisMetadata } from '../checkpoint/metadata.js'
import { embedded, embeddedNamed } from '../models/embedded.js'
import { ParError } from '../base/errors.js'
import { imagenetLabels } from '../models/imagenet.js'
import { searchLabels } from '../models/labels.js'
import { shownPath } from '../base/text.js'
import { show } from '../base/validate.js'
import { fileName } from './arguments.js'
import { knownModel } from './model.js'
import { print, printJson, shown, UsageError, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags {
  transformer?: string
  model?: string
  search?: string
}

interface Named { model: string, labels: readonly string[] }

export function labelsCommand (signal: AbortSignal): Command {
  return new Command('labels')
    .description('List the classes of a model by number and name. Default: the embedded model.')
    .option('-m, --model <name>', 'a model by name, such as par-xl-4x (ImageNet\'s classes)')
    .option('--transformer <file>', 'transformer checkpoint', fileName)
    .option('-s, --search <text>', 'filter by substring; without --model searches the embedded model and ImageNet')
    .action(async (flags: Flags) => {
      const { model, transformer, search } = flags
      if (model !== undefined && transformer !== undefined) {
        throw new UsageError('--model and --transformer are two models; choose one')
      }
      const name = model === undefined ? undefined : knownModel(model)
      const own = name === undefined ? embedded : embeddedNamed(name)
      const everywhere = search !== undefined && model === undefined && transformer === undefined
      const places: Named[] = everywhere
        ? [await ofFile(embeddedFile, signal), { model: 'imagenet', labels: imagenetLabels() }]
        : [
            name !== undefined && !own
              ? { model: name, labels: imagenetLabels() }
              : await ofFile(transformer ?? own!.transformers.get(own!.n)!, signal)
          ]
      const found = places.map(({ model, labels }) =>
        ({ model, labels, ids: search === undefined ? [...labels.keys()] : searchLabels(labels, search) }))
      if (found.every(({ ids }) => ids.length === 0)) {
        throw new ParError('BAD_CLASS_ID', `No class name holds ${show(search)}`)
      }
      if (flags.json) {
        return await printJson(
          found.flatMap(({ model, labels, ids }) =>
            ids.map(classId => ({ classId, label: labels[classId], ...(everywhere && { model }) })))
        )
      }
      await print(found.filter(({ ids }) => ids.length > 0).map(({ model, labels, ids }) => {
        const width = String(labels.length - 1).length
        return (everywhere ? `${titles[model]}:\n` : '') +
          ids.map(id => shown`${String(id).padStart(width)}  ${labels[id]!}` + '\n').join('')
      }).join(''))
    })
}

const embeddedFile = embedded.transformers.get(embedded.n)!
const titles: Record<string, string> = { [embedded.name]: 'the embedded model', imagenet: 'ImageNet (every preset)' }

async function ofFile (file: string, signal: AbortSignal): Promise<Named> {
  const checkpoint = await openCheckpoint(file, { signal })
  const metadata = readParvisMetadata(checkpoint)
  const own = metadata?.kind === 'transformer' ? metadata.labels : undefined
  if (own) return { model: file === embeddedFile ? embedded.name : file, labels: own }
  if (metadata?.kind !== 'tokenizer' && isPublished(checkpoint)) return { model: file, labels: imagenetLabels() }
  throw new ParError('MISSING_PART', `${shownPath(file)} holds no class names; give classes by number`)
}

function isPublished (checkpoint: Parameters<typeof describeTransformer>[0]): boolean {
  try {
    return identify(checkpoint) === 'transformer' && describeTransformer(checkpoint).official !== undefined
  } catch {
    return false // no model, or a transformer that needs to be told more: without names either way
  }
}
