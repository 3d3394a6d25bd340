// Names of tensors in a checkpoint, alike in both formats. Wrappers of training put parts into them (`_orig_mod`...) or
// one prefix before all of them (`model.`), and a file may hold two copies of the weights side by side: the trained
// ones and their moving average (EMA). What the rest of the reader sees are the plain names of one copy.

import { ParError } from '../base/errors.js'
import type { Slices } from '../base/slices.js'
import { quote, shownPath } from '../base/text.js'
import { codebookName } from '../models/vq.js'
import { bad } from './bad.js'
import type { Checkpoint } from './types.js'

/** Which copy of the weights is meant, where a file has both. */
export type WeightsChoice = 'model' | 'ema'

/**
 * torch.compile, data parallel training, FSDP, activation checkpointing, DeepSpeed: of the whole model or of any part
 * of it.
 */
const wrapperParts = new Set(['_orig_mod', 'module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module',
  '_forward_module'])

/** Twice the deepest model that parvis runs; more names would hold the thread. */
export const maxModelTensors = 60_000
/** Copies and neighbours of a model in one file. Every dotless name is compared with each of them. */
const maxPrefixes = 16

/** Models that training keeps beside this one; it makes no use of them. */
export const otherModel = /^(vq|vq_?model|vq_?vae|vq_?gan|vae|(image_)?tokenizer|first_stage_model)$/

/** Tensors by which the kinds of models are known (architecture.ts). */
export const tellingNames = {
  classes: 'cls_embedding.embedding_table.weight',
  tokens: 'tok_embeddings.weight',
  layer: 'layers.0.attention.wqkv.weight',
  arpg: 'layers.to_k.weight',
  lpd: 'token_emb.weight',
  nbp: 'tok_emb.weight',
  randar: 'pos_instruct_embeddings',
  textToImage: 'cls_embedding.cap_proj.fc1.weight',
  codebook: codebookName,
  decoder: 'decoder.conv_in.weight',
  videoDecoder: 'decoder_layers.0.conv.weight'
}

/** The name that `key` has in the checkpoint. Errors: BAD_CHECKPOINT when it is taken already. */
export function nameOf (key: string, checkpoint: Checkpoint): string {
  if (!/_orig_mod|module/.test(key)) {
    if (isThere(checkpoint, key)) throw twice(checkpoint, key, 'wrapper parts')
    return key
  }
  const parts = key.split('.')
  const kept = parts.filter(part => !wrapperParts.has(part))
  const name = kept.length === 0 || kept.length === parts.length ? key : kept.join('.')
  if (isThere(checkpoint, name)) throw twice(checkpoint, name, `the parts ${[...wrapperParts].join(', ')}`)
  return name
}

function twice (checkpoint: Checkpoint, name: string, what: string): ParError {
  return bad(checkpoint.file, `two tensors are called ${quote(name)} once ${what} of their names are taken off`)
}

/** Does the checkpoint hold anything of that name, readable or not? */
export function isThere (checkpoint: Checkpoint, name: string): boolean {
  return checkpoint.tensors.has(name) || checkpoint.others.has(name) || (checkpoint.odd?.has(name) ?? false)
}

/** Longer names have no meaning here. */
export const maxJudgedName = 200

/** Is it a name for moving averages: 'ema', 'model_ema', 'ema_model.layers...', 'state_dict_ema'? */
export function isAverage (name: string): boolean {
  return name.length <= maxJudgedName &&
    name.toLowerCase().split('.').some(part => /(^|[^a-z])ema([^a-z]|$)/.test(part))
}

/** Entries of the weights, readable or not. */
export function countEntries ({ tensors, others, odd }: Checkpoint): number {
  return tensors.size + others.size + (odd?.size ?? 0)
}

const afterPrefix = Object.values(tellingNames).map(name => `.${name}`)

/** What stands before the names by which a model is known: '' for plain names, 'model.', 'ema.'... */
function addPrefixes (name: string, found: Set<string>): void {
  if (name.length > maxJudgedName) return
  for (const telling of afterPrefix) {
    if (name.endsWith(telling)) found.add(name.slice(0, 1 - telling.length))
    else if (name.length === telling.length - 1 && telling.endsWith(name)) found.add('')
  }
}

async function prefixesOf (checkpoint: Checkpoint, slices: Slices): Promise<string[]> {
  const found = new Set<string>()
  for (const name of namesOf(checkpoint)) {
    addPrefixes(name, found)
    if (found.size > maxPrefixes) {
      throw bad(checkpoint.file,
        `its tensors stand under more than ${maxPrefixes} prefixes ` +
          `(${[...found].slice(0, 3).map(quote).join(', ')}...), ` +
        'as if it held that many models. Save the state_dict() of the one model in a file of its own.')
    }
    if (slices.spend(8)) await slices.rest()
  }
  return [...found]
}

/**
 * Makes the names those of the wanted copy of the weights: takes its prefix off. Where there is no single copy, the
 * names stay, and whoever looks for a model says so. Errors: BAD_CHECKPOINT when two tensors get one name, or for more
 * copies than any file has; INVALID_OPTION for a copy that was asked for and is not there.
 */
export async function settleNames (
  checkpoint: Checkpoint, wanted: WeightsChoice | undefined, slices: Slices
): Promise<void> {
  // No model has so many: whoever asks what it is refuses the file (architecture.ts).
  if (countEntries(checkpoint) > maxModelTensors) return
  await giveDotsBack(checkpoint, slices)
  const prefixes = await prefixesOf(checkpoint, slices)
  checkpoint.prefixes = prefixes
  const averages = prefixes.filter(isAverage)
  const others = prefixes.filter(prefix => !isAverage(prefix))
  // A tokenizer that is kept beside the transformer is not meant.
  const models = others.length > 1
    ? others.filter(prefix => !otherModel.test(prefix.slice(0, prefix.indexOf('.')).toLowerCase()))
    : others
  const wrapperIsAverage = checkpoint.wrapper !== undefined && isAverage(checkpoint.wrapper)
  const onlyAverages = wrapperIsAverage || (models.length === 0 && averages.length > 0)
  if (wanted === 'ema' && !wrapperIsAverage && averages.length === 0) {
    throw absent(checkpoint, 'ema', 'an EMA copy of the weights')
  }
  if (wanted === 'model' && onlyAverages) throw absent(checkpoint, 'model', 'other weights than an EMA copy')
  const average = averages.length > 0 && (wanted === 'ema' || onlyAverages)
  const among = average ? averages : models
  checkpoint.copies = [...checkpoint.copies ?? [], ...(average ? [] : averages.map(prefix => prefix.slice(0, -1)))]
  if (average || wrapperIsAverage) checkpoint.weights = 'ema'
  const prefix = among.includes('') ? '' : among.length === 1 ? among[0]! : undefined
  if (prefix === undefined || prefix === '') return
  // The other copy has the plain names, which the average is to have.
  if (average && models.length > 0) keepOnly(checkpoint, prefix)
  for (const map of mapsOf(checkpoint)) rename(checkpoint, map, prefix)
}

/**
 * An average that stands in a module of its own has names without dots, 'model_ema.decoderconv_inweight' (LitEma of
 * CompVis' latent-diffusion, which the training of many tokenizers took over): they become those of the weights beside
 * it.
 */
async function giveDotsBack (checkpoint: Checkpoint, slices: Slices): Promise<void> {
  const averages: string[] = []
  const plain = new Map<string, string | undefined>()
  for (const name of namesOf(checkpoint)) {
    if (slices.spend(8 + name.length / 8)) await slices.rest()
    if (name.length > maxJudgedName) continue
    if (isAverage(name)) {
      averages.push(name)
      continue
    }
    const key = name.replaceAll('.', '')
    plain.set(key, plain.has(key) ? undefined : name) // of two nobody knows which
  }
  if (averages.length === 0) return
  const models = (await prefixesOf(checkpoint, slices)).filter(prefix => !isAverage(prefix))
  for (const before of averages) {
    if (slices.spend(32)) await slices.rest()
    const end = before.lastIndexOf('.') + 1
    const start = before.lastIndexOf('.', end - 2) + 1
    // 'model_ema.' of a name in which more follows.
    if (end < 2 || end === before.length || !/ema/i.test(before.slice(start, end))) continue
    const [prefix, rest] = [before.slice(0, end), before.slice(end)]
    // The average is of what it stands in ('first_stage_model.model_ema.'), or of a model beside it ('model.').
    for (const outer of [before.slice(0, start), ...models]) {
      const known = plain.get(outer.replaceAll('.', '') + rest)
      if (known === undefined || !known.startsWith(outer)) continue
      const name = prefix + known.slice(outer.length)
      if (isThere(checkpoint, name)) break
      for (const map of mapsOf(checkpoint)) move(map, before, name)
      break
    }
  }
}

function absent (checkpoint: Checkpoint, wanted: WeightsChoice, what: string): ParError {
  return new ParError('INVALID_OPTION',
    `${shownPath(checkpoint.file)}: weights '${wanted}' were asked for, and the file does not hold ${what}`)
}

function mapsOf ({ tensors, others, odd }: Checkpoint): Array<Map<string, { name: string } | string>> {
  return [tensors, others, ...(odd ? [odd] : [])] as Array<Map<string, { name: string } | string>>
}

/** Of all entries, readable or not. */
export function * namesOf (checkpoint: Checkpoint): Generator<string> {
  for (const map of mapsOf(checkpoint)) yield * map.keys()
}

function keepOnly (checkpoint: Checkpoint, prefix: string): void {
  for (const map of mapsOf(checkpoint)) {
    for (const name of [...map.keys()]) if (!name.startsWith(prefix)) map.delete(name)
  }
}

function move (map: Map<string, { name: string } | string>, before: string, name: string): void {
  const value = map.get(before)
  if (value === undefined) return
  map.delete(before)
  map.set(name, typeof value === 'string' ? value : { ...value, name })
}

function rename (checkpoint: Checkpoint, map: Map<string, { name: string } | string>, prefix: string): void {
  const entries = [...map]
  map.clear()
  for (const [before, value] of entries) {
    const name = before.startsWith(prefix) && before.length > prefix.length ? before.slice(prefix.length) : before
    if (map.has(name)) throw twice(checkpoint, name, `the prefix ${quote(prefix)}`)
    map.set(name, typeof value === 'string' ? value : { ...value, name })
  }
}
