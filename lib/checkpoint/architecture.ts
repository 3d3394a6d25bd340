// Tells the two kinds of checkpoint apart by the names in them. What each kind is exactly: transformer.ts, tokenizer.ts.

import { quote } from '../text.js'
import { bad } from './bad.js'
import { isThere } from './names.js'
import { tokenizerNames } from './tokenizer.js'
import { transformerNames } from './transformer.js'
import type { Checkpoint } from './types.js'

export { describeTokenizer, type TokenizerDescription } from './tokenizer.js'
export { describeTransformer, type TransformerDescription, type TransformerOverrides } from './transformer.js'

export type CheckpointKind = 'transformer' | 'tokenizer'

/** Is it a transformer or a tokenizer? Errors: BAD_CHECKPOINT for neither. */
export function identify (checkpoint: Checkpoint): CheckpointKind {
  const has = (name: string): boolean => isThere(checkpoint, name)
  if (has('cls_embedding.cap_proj.fc1.weight')) {
    throw bad(checkpoint.file, 'a text-to-image transformer: parvis runs class-conditional ones (c2i)')
  }
  if (has(transformerNames.tokens) || has(transformerNames.classes) || has('layers.0.attention.wqkv.weight')) return 'transformer'
  if (has(tokenizerNames.codebook) || has(tokenizerNames.firstConvolution)) return 'tokenizer'
  const names = [...checkpoint.tensors.keys(), ...checkpoint.others.keys()]
  throw bad(checkpoint.file, `neither a LlamaGen/PAR transformer (no "${transformerNames.tokens}") nor a VQ tokenizer (no "${tokenizerNames.codebook}"): ` +
    `it holds ${names.length} tensors: ${names.slice(0, 4).map(quote).join(', ')}${names.length > 4 ? '...' : ''}`)
}
