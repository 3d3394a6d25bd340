// What stands in a file beside the tensors that a model needs. A parameter that belongs to another kind of model must
// not be left out in silence: the file would load, and its pictures would be noise. What does no harm (buffers that are
// computed anyway, copies, what only training needs) is left out, because a file is not worse for it.

import type { Slices } from '../base/slices.js'
import { quote } from '../base/text.js'
import { countEntries, isAverage, maxJudgedName, maxModelTensors, namesOf, otherModel, tellingNames } from './names.js'
import type { Needed } from './shapes.js'
import type { Checkpoint } from './types.js'

/** Parts of names that only training needs: losses, discriminators, perceptual networks, optimizers, teachers. */
const trainingPart = wholly(
  /loss(es)?(_fn)?|.+_loss(es)?|.*discriminator.*|disc|net_?d|.*perceptual.*|.*lpips.*|vgg\d*/,
  /optim(izer)?s?|lr_schedulers?|schedulers?|(grad_)?scaler|teacher(_model)?|metrics?/)
/** Buffers that are computed from sizes, and caches. */
const buffer = wholly(
  /(rope_?)?freqs(_cis)?|inv_freq|(cos|sin)(_cached)?|.*_cached/,
  /(.*_)?masks?|(.*_)?caches?|.*kv_?cache.*|[kv]_?cache/)
/** Of a codebook, beside its codes: how often each was used, sums of moving averages. */
const statistics = /^(codebook_(used|usage)|usage|(.*_)?cluster_size|embed(ding)?_avg|embed(ding)?_sum)$/
/** Also what a module of another library keeps of itself (TransformerEngine). */
const counter = wholly(
  /_extra_state|num_batches_tracked|(num_|n_|global_)?(steps?|epochs?|iter(ation)?s?|updates|samples|images)/,
  /counter|count|decay|init(t?ed|ialized)?|version/)

/** Matches a text that one of the alternatives matches from its beginning to its end. */
function wholly (...alternatives: RegExp[]): RegExp {
  return new RegExp(`^(${alternatives.map(({ source }) => source).join('|')})$`)
}

/** Foreign tensors after which the others are not looked at. */
const maxForeign = 100

/** Counters, masks and indices have such types; what is of any other, known or not, is a parameter. */
const wholeNumbers = /^(u?int\d+|bool)$/
/** Whole numbers that parameters are packed into. Wider ones are indices and counts, unless the name says otherwise. */
const packed = /^u?int8$/
const packedName = /\.((.*_)?weight|bias|q(weight|zeros))$/
/** Where a parameter of the model itself would stand: what may be one is not left out there. */
const within: Record<Kind, RegExp> = {
  transformer: /^(layers\.|pos_)|\.(weight|bias)$/,
  'video tokenizer': /^(encoder|decoder)_layers\.|\.(weight|bias)$/,
  tokenizer: /^(encoder|decoder|quant_conv|post_quant_conv)\.|\.(weight|bias)$/
}

/** Where a tokenizer stands that is kept beside the transformer. */
const ofTokenizer = /^(encoder|decoder|quantize|quant_conv|post_quant_conv)(\.|$)/i

export type Kind = 'transformer' | 'tokenizer' | 'video tokenizer'

/** Anything beside the needed tensors that the model would have to use? Errors: BAD_CHECKPOINT, naming it. */
export function refuseForeign (needed: Needed, kind: Kind): void {
  const { checkpoint } = needed
  const { tensors, others, odd } = checkpoint
  const taken = new Set(needed.tensors.map(({ name }) => name))
  const holdsTokenizer = kind === 'transformer' && needed.has(tellingNames.codebook)
  const foreign: string[] = []
  const judge = (name: string): void => {
    if (foreign.length >= maxForeign || taken.has(name) || isHarmless(checkpoint, name)) return
    if (!holdsTokenizer || !ofTokenizer.test(name)) foreign.push(name)
  }
  for (const { name, shape } of tensors.values()) if (!shape.includes(0)) judge(name)
  for (const { name, shape, dtype } of others.values()) {
    const parameter = !wholeNumbers.test(dtype) || (packed.test(dtype) ? within[kind] : packedName).test(name)
    if (parameter && !shape.includes(0)) judge(name)
  }
  // Quantised or sparse parameters: other objects (hooks, extra state) change nothing.
  for (const name of odd?.keys() ?? []) if (within[kind].test(name)) judge(name)
  if (foreign.length === 0) return
  const shown = foreign.slice(0, 3).map(quote).join(', ')
  const [verb, many] = foreign.length === 1 ? ['does', 'tensor'] : ['do', 'tensors']
  const more = foreign.length >= maxForeign
    ? ' and many more'
    : foreign.length > 3
      ? ` and ${foreign.length - 3} more`
      : ''
  throw needed.bad(`${many} ${shown}${more} ${verb} not belong to this kind ` +
    `of ${kind === 'transformer' ? 'model' : 'tokenizer'}; ${guess(foreign, kind)} ` +
    'parvis would leave them out, and its results would be wrong.')
}

/** Judges all names, in slices: there may be many, and long ones. */
export async function judgeNames (checkpoint: Checkpoint, slices: Slices): Promise<void> {
  if (countEntries(checkpoint) > maxModelTensors) return
  const harmless = new Map<string, boolean>()
  for (const name of namesOf(checkpoint)) {
    harmless.set(name, judged(name))
    if (slices.spend(32 + name.length)) await slices.rest()
  }
  checkpoint.harmless = harmless
}

/** Does it change nothing to leave out what has this name? */
export function isHarmless ({ harmless }: Checkpoint, name: string): boolean {
  return harmless?.get(name) ?? judged(name)
}

function judged (name: string): boolean {
  if (name.length > maxJudgedName) return false
  const parts = name.toLowerCase().split('.')
  return isAverage(name) || otherModel.test(parts[0]!) ||
    parts.some(part => trainingPart.test(part) || buffer.test(part) || statistics.test(part)) ||
    counter.test(parts.at(-1)!)
}

/** What kind of model has such names. */
function guess (names: readonly string[], kind: Kind): string {
  const has = (pattern: RegExp): boolean => names.some(name => pattern.test(name))
  if (has(/lora_/i)) return 'are these LoRA weights? Merge them into the weights in Python and save the file again.'
  if (kind === 'video tokenizer') return 'is it another kind of tokenizer of videos?'
  if (kind !== 'transformer') {
    return 'has it other block counts or attention levels than VQ-16, or is it another kind of tokenizer?'
  }
  if (has(/mask_(token|emb)/i)) return 'a model that fills masks, such as MaskGIT or RAR?'
  if (has(/adaln|modulation/i)) return 'a model that modulates its norms (adaLN), such as VAR or DiT?'
  if (has(/(^|[._])(q|k|qk|query|key)_?(layer)?norm|norm_[qk]\b/i)) return 'a model that normalises queries and keys?'
  if (has(/(^|\.)pos(ition(al)?)?_?emb|pos_/i)) return 'a model with learned positions?'
  if (has(/\.bias$/i)) return 'a model whose layers have biases?'
  return 'is it a model of another kind?'
}

/**
 * One more than the highest number that any entry has where the pattern's group is, so that a hole is reported as a
 * missing tensor, and a layer of another type as that. Buffers alone make no layer.
 */
export function countIn (checkpoint: Checkpoint, pattern: RegExp): number {
  let layers = 0
  for (const name of namesOf(checkpoint)) {
    const match = pattern.exec(name)
    if (match && Number(match[1]) >= layers && !isHarmless(checkpoint, name)) layers = Number(match[1]) + 1
  }
  return layers
}
