// parvis pull: a published checkpoint and its tokenizer from the Hugging Face Hub into its standard cache. Stopping it
// is no loss: the next run goes on where it stopped.

import { Command } from 'commander'
import { presetStatus } from '../hub/status.js'
import { embeddedNamed } from '../models/embedded.js'
import { presets, presetOf, type PresetName } from '../models/presets.js'
import { pull, type PulledFile, type PullProgress } from '../hub/pull.js'
import { show } from '../base/validate.js'
import { examples, remarks } from './help.js'
import { sizeText } from './models.js'
import { progressBar } from './progress.js'
import { leaves } from './signals.js'
import { bytesText, note, print, printJson, table, UsageError, type CommonFlags } from './terminal.js'

interface Flags extends CommonFlags { dryRun?: boolean }

export function pullCommand (signal: AbortSignal): Command {
  return new Command('pull')
    .description('Download a published model and its tokenizer from the Hugging Face Hub into its cache. ' +
      'Resumes interrupted downloads and verifies their SHA-256.')
    .argument('[preset]', 'name of a model, such as par-xl-4x; `parvis models` lists them')
    .option('--dry-run', 'only say what would be downloaded')
    .addHelpText('after', remarks('Environment', [
      ['HF_TOKEN', 'access token, where a repository asks for one (default: that of `hf auth login`)'],
      ['HF_HOME, HF_HUB_CACHE', 'where the cache is (default: ~/.cache/huggingface, and hub in it)'],
      ['HF_ENDPOINT', 'another host than https://huggingface.co'],
      ['HF_HUB_OFFLINE', '1: use the cache only, never the network']
    ]))
    .addHelpText('after', examples('parvis pull par-xl-4x', 'parvis generate otter --model par-xl-4x'))
    .action(async (name: string | undefined, flags: Flags) => {
      if (name === undefined) throw new UsageError(`which preset? ${await presetSizes()}; \`parvis models\` says more`)
      const preset = knownPreset(name)
      if (flags.dryRun) return await dryRun(preset, flags)
      const bar = progressBar(flags)
      leaves(kept)
      try {
        const pulled = await pull(preset, { signal, onProgress: pullReporter(bar, flags) })
        bar.stop()
        if (flags.json) return await printJson(pulled)
        const files = [pulled.transformer, pulled.tokenizer]
        const why = new Set(files.map(({ notCompared }) => notCompared))
        for (const text of why) if (text !== undefined) note(`parvis: ${text}`)
        await print(`${pulled.preset}\n${table(files.map(row))}\n` +
          `Check the licences before you use them. parvis generate --model ${pulled.preset} --class otter\n`)
      } finally {
        bar.stop()
      }
    })
}

const kept = 'what has arrived is kept, and the next pull goes on with it'

/** 'par-xl-4x (1.7 GB to 3.39 GB), ...' */
async function presetSizes (): Promise<string> {
  return (await presetStatus())
    .map(({ preset, files, cached }) => `${preset} (${cached ? 'in the cache' : sizeText(files)})`).join(', ')
}

/** What a pull would do, as far as the cache tells; nobody is asked over the network. */
async function dryRun (name: PresetName, { json }: CommonFlags): Promise<void> {
  const { files } = (await presetStatus()).find(({ preset }) => preset === name)!
  const missing = files.filter(({ path }) => path === undefined)
  if (json) {
    return await printJson({
      preset: name, downloads: missing.map(({ repository, file, bytes }) => ({ repository, file, bytes })),
      cached: files.filter(({ path }) => path !== undefined)
        .map(({ repository, file, bytes, path }) => ({ repository, file, bytes, path }))
    })
  }
  const rows = files.map(file => [file.file, file.repository, sizeText([file]),
    file.path === undefined ? 'would be downloaded' : `is here: ${file.path}`])
  await print(`${name}\n${table(rows)}\n` + (missing.length === 0
    ? 'Nothing would be downloaded.\n'
    : `Sizes of what is not here are estimates: the least and the most that ${name} can take.\n`))
}

function knownPreset (name: string): PresetName {
  const embedded = embeddedNamed(name)
  if (embedded) throw new UsageError(`${embedded.name} comes with the package; there is nothing to download`)
  try {
    return presetOf(name).name
  } catch {
    throw new UsageError(`there is no preset ${show(name)}; the presets: ${presets.map(({ name }) => name).join(', ')}`)
  }
}

/** What a pull does, on the bar; why it tries again, with --verbose. */
export function pullReporter (
  bar: ReturnType<typeof progressBar>, flags: CommonFlags
): (progress: PullProgress) => void {
  const words = {
    waiting: 'another process is fetching', checking: 'checking what is here of', downloading: 'fetching',
    retrying: 'trying again:'
  }
  return ({ file, phase, bytesDone, bytes, problem }) => {
    if (phase === 'downloading') leaves(kept)
    if (flags.verbose && problem !== undefined && !process.stderr.isTTY) note(`${file}: ${problem}; trying again`)
    bar.update(bytesDone, Math.max(bytes, 1),
      `${words[phase]} ${file}, ${bytesText(bytesDone)} ` +
        `of ${bytesText(bytes)}${problem === undefined ? '' : ` (${problem})`}`)
  }
}

function row ({ file, repository, bytes, licence, downloaded, notCompared, path }: PulledFile): string[] {
  return [file, repository, bytesText(bytes), `licence: ${licence ?? 'none named'}`,
    downloaded ? 'fetched' : notCompared === undefined ? 'was here' : 'was here, not compared with the Hub', path]
}
