// Tells the two kinds of checkpoint apart by the names in them. What each kind is exactly: transformer.ts,
// tokenizer.ts.

import { quote } from '../base/text.js'
import { bad } from './bad.js'
import { countEntries, isThere, maxModelTensors, tellingNames } from './names.js'
import type { Checkpoint } from './types.js'

export { describeVideoTokenizer, type VideoTokenizerDescription } from './video-tokenizer.js'
export { describeTokenizer, type TokenizerDescription } from './tokenizer.js'
export { describeTransformer, type TransformerDescription, type TransformerOverrides } from './transformer.js'

const transformerNames = [tellingNames.tokens, tellingNames.classes, tellingNames.layer, tellingNames.arpg,
  tellingNames.lpd, tellingNames.nbp]

/** 'tokenizer': of pictures. */
export type CheckpointKind = 'transformer' | 'tokenizer' | 'video tokenizer'

/** What is it? Errors: BAD_CHECKPOINT for neither, or for more tensors than any model has. */
export function identify (checkpoint: Checkpoint): CheckpointKind {
  const count = countEntries(checkpoint)
  if (count > maxModelTensors) {
    throw bad(checkpoint.file,
      `it holds ${count} tensors, and parvis runs models from files of up to ${maxModelTensors}. ` +
      'Save the state_dict() of the one model in a file of its own.')
  }
  const has = (name: string): boolean => isThere(checkpoint, name)
  if (has(tellingNames.textToImage)) {
    throw bad(checkpoint.file, 'a text-to-image transformer: parvis runs class-conditional ones (c2i)')
  }
  if (transformerNames.some(has)) return 'transformer'
  if (has(tellingNames.codebook) || has(tellingNames.decoder)) return 'tokenizer'
  if (has(tellingNames.videoDecoder)) return 'video tokenizer'
  const { prefixes = [] } = checkpoint
  if (prefixes.length > 0) {
    throw bad(checkpoint.file,
      `its tensors stand under the prefixes ${prefixes.slice(0, 4).map(quote).join(' and ')}, and which are meant ` +
        'cannot be told. ' +
      'Save the state_dict() of the one model in a file of its own.')
  }
  const names = [...checkpoint.tensors.keys(), ...checkpoint.others.keys()]
  throw bad(checkpoint.file,
    `neither a transformer that parvis runs (LlamaGen, PAR and RandAR have "${tellingNames.tokens}", ARPG ` +
      `"${tellingNames.arpg}", LPD "${tellingNames.lpd}", NBP "${tellingNames.nbp}") nor a VQ tokenizer ` +
      `(no "${tellingNames.codebook}") nor one ` +
      `of videos (no "${tellingNames.videoDecoder}"): ` +
    `it holds ${names.length} tensors: ${names.slice(0, 4).map(quote).join(', ')}${names.length > 4 ? '...' : ''}`)
}
