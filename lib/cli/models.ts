// parvis models: the published models that parvis knows by name: how large they are, what they make, and whether they
// are in the cache. Nobody is asked over the network.

import { Command } from 'commander'
import { presetStatus, type FileStatus, type PresetStatus } from '../hub/status.js'
import { cacheFolder } from '../hub/location.js'
import { embeddedModels } from '../models/embedded.js'
import { presetOf } from '../models/presets.js'
import { examples } from './help.js'
import { bytesText, print, printJson, shown, table, type CommonFlags } from './terminal.js'

export function modelsCommand (): Command {
  return new Command('models')
    .description('List the published models that parvis knows by name, with the size of their downloads and the ' +
      'memory of their weights. ' +
      'Reads the cache only; nothing is asked over the network.')
    .addHelpText('after', examples('parvis models', 'parvis pull par-xl-4x'))
    .action(async ({ json }: CommonFlags) => {
      const all = await presetStatus()
      if (json) return await printJson(all.map(asJson))
      await print([
        table([['preset', 'architecture', 'n', 'pixels', 'download', 'weights', 'cache'], ...all.map(row)]),
        'n is tokens per step; pixels is the side of a picture, where no --size is given.',
        'weights is their memory in bfloat16; float32 takes twice as much.',
        'Downloads that are not in the cache are estimates: 2 to 4 bytes per parameter.',
        '`parvis pull` also shows the licence of each file.',
        `In the package, 32 pixels: ${embeddedModels.map(({ name }) => name).join(', ')}.`,
        shown`cache: ${cacheFolder()}`
      ].join('\n') + '\n')
    })
}

/** Bytes of files together, '0.7 to 1.4 GB' where they are not known. */
export function sizeText (files: ReadonlyArray<Pick<FileStatus, 'bytes'>>): string {
  const sum = (k: 0 | 1): number =>
    files.reduce((total, { bytes }) => total + (typeof bytes === 'number' ? bytes : bytes[k]), 0)
  return sum(0) === sum(1) ? bytesText(sum(0)) : `${bytesText(sum(0))} to ${bytesText(sum(1))}`
}

/** Bytes of the weights in bfloat16. */
function weights ({ files }: PresetStatus): number {
  return files.reduce((sum, { parameters }) => sum + 2 * parameters, 0)
}

function row (status: PresetStatus): string[] {
  const { preset, official, n, files, cached } = status
  const here = files.filter(({ path }) => path !== undefined).length
  return [preset, official, String(n), String(presetOf(preset).size), sizeText(files), bytesText(weights(status)),
    cached ? 'yes' : here > 0 ? 'in part' : 'no']
}

function asJson (status: PresetStatus): object {
  const { preset, official, n, grid, files, cached } = status
  return {
    preset, official, n, grid, size: presetOf(preset).size, cached, weightBytes: weights(status),
    files: files.map(({ role, repository, file, parameters, bytes, path }) =>
      ({ role, repository, file, parameters, bytes, path: path ?? null }))
  }
}
