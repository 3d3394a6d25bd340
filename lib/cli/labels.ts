// parvis labels: the class names of a model, one a line, so that `parvis labels | grep -i boot` finds a number.
// Reads the metadata of the checkpoint only; no weights, no addon.

import { Command } from 'commander'
import { openCheckpoint } from '../checkpoint/index.js'
import { readParvisMetadata } from '../checkpoint/metadata.js'
import { embedded } from '../embedded.js'
import { ParError } from '../errors.js'
import { print, printJson, type CommonFlags } from './terminal.js'

export function labelsCommand (signal: AbortSignal): Command {
  return new Command('labels')
    .description('List the classes of a model by number and name. Without --transformer: the embedded model.')
    .option('--transformer <file>', 'transformer checkpoint')
    .action(async (flags: CommonFlags & { transformer?: string }) => {
      const file = flags.transformer ?? embedded.transformers.get(embedded.n)!
      const metadata = readParvisMetadata(await openCheckpoint(file, { signal }))
      const labels = metadata?.kind === 'transformer' ? metadata.labels : undefined
      if (!labels) throw new ParError('MISSING_PART', `${file} holds no class names; give classes by number`)
      if (flags.json) await printJson(labels.map((label, classId) => ({ classId, label })))
      else await print(labels.map((label, id) => `${String(id).padStart(String(labels.length - 1).length)}  ${label}\n`).join(''))
    })
}
