// parvis pull: a published checkpoint and its tokenizer from the Hugging Face Hub into its standard cache. Stopping it is
// no loss: the next run goes on where it stopped.

import { Command } from 'commander'
import { presets, presetOf, type PresetName } from '../presets.js'
import { pull, type PulledFile, type PullProgress } from '../pull.js'
import { progressBar } from './progress.js'
import { Interruption } from './signals.js'
import { bytesText, note, print, printJson, table, UsageError, type CommonFlags } from './terminal.js'

export function pullCommand (signal: AbortSignal): Command {
  return new Command('pull')
    .description('Fetch a published checkpoint and its tokenizer from the Hugging Face Hub into its cache. What was\n' +
      'interrupted is gone on with; a file counts only once its hash is right.')
    .argument('[preset]', 'which: ' + presets.map(({ name }) => name).join(', '))
    .addHelpText('after', `
Environment:
  HF_TOKEN                 access token, where a repository asks for one (else that of \`hf auth login\`)
  HF_HOME, HF_HUB_CACHE    where the cache is (default: ~/.cache/huggingface, and hub in it)
  HF_ENDPOINT              another host than https://huggingface.co`)
    .action(async (name: string | undefined, flags: CommonFlags) => {
      if (name === undefined) throw new UsageError(`which preset? ${presets.map(({ name }) => name).join(', ')}`)
      const preset = knownPreset(name)
      const bar = progressBar(flags)
      try {
        const pulled = await pull(preset, { signal, onProgress: pullReporter(bar, flags) })
        bar.stop()
        if (flags.json) return await printJson(pulled)
        const files = [pulled.transformer, pulled.tokenizer]
        const why = new Set(files.map(({ notCompared }) => notCompared))
        for (const text of why) if (text !== undefined) note(`parvis: ${text}`)
        await print(`${pulled.preset}\n${table(files.map(row))}\n` +
          `Check the licences before you use them. parvis generate --model ${pulled.preset} --class otter\n`)
      } catch (error) {
        if (error instanceof Interruption) error.message = `stopped by ${error.signal}; what has arrived is kept, and the next pull goes on with it`
        throw error
      } finally {
        bar.stop()
      }
    })
}

/** A name that is none is wrong usage. */
export function knownPreset (name: string): PresetName {
  try {
    return presetOf(name).name
  } catch {
    throw new UsageError(`there is no preset '${name}'; the presets: ${presets.map(({ name }) => name).join(', ')}`)
  }
}

/** What a pull does, on the bar; why it tries again, with --verbose. */
export function pullReporter (bar: ReturnType<typeof progressBar>, flags: CommonFlags): (progress: PullProgress) => void {
  const words = { waiting: 'another process is fetching', checking: 'checking what is here of', downloading: 'fetching', retrying: 'trying again:' }
  return ({ file, phase, bytesDone, bytes, problem }) => {
    if (flags.verbose && problem !== undefined && !process.stderr.isTTY) note(`${file}: ${problem}; trying again`)
    bar.update(bytesDone, Math.max(bytes, 1), `${words[phase]} ${file}, ${bytesText(bytesDone)} of ${bytesText(bytes)}${problem === undefined ? '' : ` (${problem})`}`)
  }
}

function row ({ file, repository, bytes, licence, downloaded, notCompared, path }: PulledFile): string[] {
  return [file, repository, bytesText(bytes), `licence: ${licence ?? 'none named'}`, downloaded ? 'fetched' : notCompared === undefined ? 'was here' : 'was here, not compared with the Hub', path]
}
