// Names of tensors in a checkpoint, alike in both formats: what wrappers of training put before them is taken off.

import { quote } from '../text.js'
import { bad } from './bad.js'
import type { Checkpoint } from './types.js'

const prefixes = ['_orig_mod.', 'module.'] // torch.compile, data parallel training

/** The name that `key` has in the checkpoint. Errors: BAD_CHECKPOINT when it is taken already. */
export function nameOf (key: string, checkpoint: Checkpoint): string {
  let at = 0
  for (let prefix: string | undefined = ''; prefix !== undefined; prefix = prefixes.find(prefix => key.startsWith(prefix, at))) at += prefix.length
  const name = key.slice(at)
  if (isThere(checkpoint, name)) {
    throw bad(checkpoint.file, `two tensors are called ${quote(name)} (once the prefixes ${prefixes.join(' and ')} are taken off)`)
  }
  return name
}

/** Does the checkpoint hold anything of that name, readable or not? */
export function isThere (checkpoint: Checkpoint, name: string): boolean {
  return checkpoint.tensors.has(name) || checkpoint.others.has(name) || (checkpoint.odd?.has(name) ?? false)
}
