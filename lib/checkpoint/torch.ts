// Reads torch.save's zip format: `<prefix>/data.pkl` (the pickle), `<prefix>/data/<key>` (one raw storage each) and
// `<prefix>/byteorder`. Storages are located, never read. Only tensors of the state dict are judged: optimizer state
// passes through the pickle reader (there is no skipping in a pickle) but is neither resolved nor looked up in the zip.

import { crc32 } from 'node:zlib'
import { Slices } from '../base/slices.js'
import { quote } from '../base/text.js'
import { bad, oddTensor, showBytes, showShape } from './bad.js'
import { countElements, elementBits, isWeightType, storageTypes } from './dtypes.js'
import { Global, Inert, PersistentId, Tuple, describeValue, isHashable, readPickle } from './pickle.js'
import { isAverage, nameOf, type WeightsChoice } from './names.js'
import { PlainWalk } from './plain.js'
import type { FileSource } from './source.js'
import type { Checked, Checkpoint, OtherTensor, StoredTensor } from './types.js'
import { ZipDirectory, type ZipEntry } from './zip.js'

const maxPickleBytes = 256e6
const maxTensors = 1_000_000
const maxNameLength = 1024
const maxDimensions = 16
/** Pairs of an OrderedDict that are given as its argument: they are read at a stretch. */
const maxPairs = 100_000

// ---- the calls a state dict needs ----

/** A tensor as the pickle tells it; nothing in it is checked yet. */
class TensorRecord {
  constructor (
    readonly storage: unknown, readonly offset: unknown, readonly size: unknown, readonly stride: unknown,
    readonly dtype?: unknown,
    /** { conj: True } or { neg: True }: what is stored is not yet the value. */
    readonly flags?: unknown
  ) {}
}

function construct (global: Global, args: readonly unknown[], spend: (values: number) => void): unknown {
  switch (global.id) {
    case 'torch._utils _rebuild_tensor':
      return new TensorRecord(args[0], args[1], args[2], args[3])
    case 'torch._utils _rebuild_tensor_v2':
      return new TensorRecord(args[0], args[1], args[2], args[3], undefined, args[6])
    case 'torch._utils _rebuild_tensor_v3':
      return new TensorRecord(args[0], args[1], args[2], args[3], args[6], args[7])
    case 'torch._utils _rebuild_parameter':
    case 'torch._utils _rebuild_parameter_with_state':
      // An unknown object inside stays what it is, so that the message names it.
      return args[0] instanceof TensorRecord || args[0] instanceof Inert ? args[0] : undefined
    case 'torch._tensor _rebuild_from_type_v2': {
      // (function, class, its arguments, attributes), for tensors with Python attributes. One level only.
      const [made, , inner] = args
      return made instanceof Global && inner instanceof Tuple && made.id !== global.id
        ? construct(made, inner.items, spend)
        : undefined
    }
    case 'collections OrderedDict':
    case 'collections defaultdict':
      return dictOf(global.name === 'OrderedDict' ? args[0] : undefined, spend)
    case 'torch Size':
      return args[0] instanceof Tuple || Array.isArray(args[0]) ? args[0] : undefined
    case 'copy_reg _reconstructor':
    case 'copyreg _reconstructor':
      // How protocol 1 makes an object: (class, object, None).
      return args[0] instanceof Global ? new Inert(args[0].id, new Tuple([])) : undefined
    case 'torch device':
      return typeof args[0] === 'string' ? args[0] : undefined
    default:
      return undefined
  }
}

/** `OrderedDict()` or, as Python 2 wrote it, `OrderedDict([[key, value], ...])`. */
function dictOf (pairs: unknown, spend: (values: number) => void): unknown {
  const dict = new Map<unknown, unknown>()
  if (pairs === undefined) return dict
  if (!Array.isArray(pairs) || pairs.length > maxPairs) return undefined
  // Each call of a few bytes looks at all of them again.
  spend(pairs.length)
  for (const pair of pairs) {
    const items: unknown = pair instanceof Tuple ? pair.items : pair
    if (!Array.isArray(items) || items.length !== 2 || !isHashable(items[0])) return undefined
    dict.set(items[0], items[1])
  }
  return dict
}

// ---- the file ----

/** Opens a torch.save zip. Errors: BAD_CHECKPOINT. */
export async function readTorch (
  source: FileSource, signal?: AbortSignal, weights?: WeightsChoice
): Promise<Checkpoint> {
  const zip = await ZipDirectory.open(source, signal)
  const prefix = findPrefix(zip, source)
  await checkByteOrder(zip, prefix, source)
  const bytes = await readEntry(zip, zip.entries.get(`${prefix}data.pkl`)!, source, maxPickleBytes)
  const root = await readPickle(bytes, { file: source.file, construct, signal })
  const slices = new Slices(signal)
  const copies = await averages(root, slices)
  const { dict, wrapper } = await findStateDict(root, copies, zip, prefix, source, slices, weights)
  const checkpoint: Checkpoint = {
    file: source.file,
    format: 'pt',
    fileBytes: source.size,
    tensors: new Map(),
    others: new Map(),
    odd: new Map(),
    checked: [],
    metadata: besides(root, dict),
    copies: copies.filter(([, copy]) => copy !== dict).map(([key]) => key),
    wrapper
  }
  const locate = new Locator(zip, prefix, source, checkpoint.checked!)
  let count = 0
  for (const [key, value] of dict) {
    count++
    if (slices.spend(16)) await slices.rest()
    // `args` or `steps` beside weights at the top are none of them.
    const isOdd = value instanceof Inert && (wrapper !== undefined || isParameterName(key))
    if (!isOdd && !(value instanceof TensorRecord)) continue
    if (typeof key !== 'string' || key.length > maxNameLength) {
      throw bad(source.file, 'a tensor of the weights has no proper name')
    }
    if (count > maxTensors) throw bad(source.file, `more than ${maxTensors} tensors`)
    const name = nameOf(key, checkpoint)
    const tensor = value instanceof TensorRecord
      ? await locate.tensor(name, value)
      : `${describeValue(value)}, not a tensor`
    if (typeof tensor === 'string') checkpoint.odd!.set(name, tensor)
    else if (isWeight(tensor)) checkpoint.tensors.set(name, tensor)
    else checkpoint.others.set(name, tensor)
  }
  if (checkpoint.tensors.size === 0 && checkpoint.others.size === 0) {
    for (const [name, what] of checkpoint.odd!) throw oddTensor(source.file, name, what)
    throw bad(source.file, 'its weights hold no tensor')
  }
  return checkpoint
}

function isWeight (tensor: StoredTensor | OtherTensor): tensor is StoredTensor { return isWeightType(tensor.dtype) }

/** torch.save puts everything into one folder, named after the file it was saved as. */
function findPrefix (zip: ZipDirectory, source: FileSource): string {
  let prefix: string | undefined
  for (const name of zip.entries.keys()) {
    if (name !== 'data.pkl' && !name.endsWith('/data.pkl')) continue
    if (prefix !== undefined) throw bad(source.file, 'more than one data.pkl in the zip: not one checkpoint')
    prefix = name.slice(0, -'data.pkl'.length)
  }
  if (prefix === undefined) {
    throw bad(source.file, 'a zip file without data.pkl: not written by torch.save. ' +
      'Is it an archive that holds the checkpoint? Then unpack it first.')
  }
  return prefix
}

async function checkByteOrder (zip: ZipDirectory, prefix: string, source: FileSource): Promise<void> {
  const entry = zip.entries.get(`${prefix}byteorder`)
  if (!entry) return
  const order = (await readEntry(zip, entry, source, 64)).toString('latin1').trim()
  if (order !== 'little') {
    throw bad(source.file, `byte order ${quote(order)}: only little-endian checkpoints are read. Load it in PyTorch ` +
      'and torch.save it on a little-endian machine.')
  }
}

/** 0: torch.save was told not to compute checksums. */
function hasChecksum (entry: ZipEntry): boolean { return entry.crc32 !== 0 }

async function readEntry (zip: ZipDirectory, entry: ZipEntry, source: FileSource, limit: number): Promise<Buffer> {
  if (entry.size > limit) {
    throw bad(source.file,
      `zip entry ${quote(entry.name)} has ${showBytes(entry.size)}, the limit is ${showBytes(limit)}: no checkpoint`)
  }
  const bytes = await source.read(await zip.dataStart(entry), entry.size, `zip entry ${quote(entry.name)}`)
  if (hasChecksum(entry) && crc32(bytes) !== entry.crc32) {
    throw bad(source.file,
      `zip entry ${quote(entry.name)} does not match its checksum: the file is damaged, fetch it again`)
  }
  return bytes
}

// ---- the state dict ----

/** Names of parameters have dots; `args` or `steps` beside weights at the top have none. */
function isParameterName (key: unknown): boolean { return typeof key === 'string' && key.includes('.') }

async function holdsTensors (value: Map<unknown, unknown>, slices: Slices): Promise<boolean> {
  for (const item of value.values()) {
    if (item instanceof TensorRecord) return true
    if (slices.spend(1)) await slices.rest()
  }
  return false
}

/** Are there tensors among the first values? */
function beginsWithTensors (value: unknown): boolean {
  if (!(value instanceof Map)) return false
  let count = 0
  for (const item of value.values()) {
    if (item instanceof TensorRecord) return true
    if (++count >= 64) return false
  }
  return false
}

/** A state dict whose first tensors are all of unknown make: reading it names the culprit. */
function holdsUnknown (map: Map<unknown, unknown>, anyName: boolean): boolean {
  let count = 0
  for (const [key, value] of map) {
    if (value instanceof Inert && (anyName || isParameterName(key))) return true
    if (++count >= 64) return false
  }
  return false
}

async function findStateDict (
  root: unknown, copies: ReadonlyArray<[string, Map<unknown, unknown>]>, zip: ZipDirectory, prefix: string,
  source: FileSource, slices: Slices, weights?: WeightsChoice
): Promise<{ dict: Map<unknown, unknown>, wrapper?: string }> {
  const [average] = copies.map(([wrapper, dict]) => ({ dict, wrapper }))
  if (weights === 'ema' && average) {
    if (copies.length > 1) {
      throw bad(source.file,
        `it holds ${copies.length} EMA copies (${copies.map(([key]) => quote(key)).join(', ')}): save the one that ` +
          'is meant')
    }
    return average
  }
  if (root instanceof Map) {
    for (const wrapper of ['model', 'module', 'state_dict', 'model_state_dict']) {
      const inner = root.get(wrapper)
      if (inner instanceof Map && await holdsTensors(inner, slices)) return { dict: inner, wrapper }
      if (inner instanceof Inert) {
        throw bad(source.file, `${quote(wrapper)} is ${describeValue(inner)}, not a dict of tensors. ` +
          'parvis never runs code from a checkpoint: save the plain state_dict() of the model.')
      }
      if (inner instanceof Map && holdsUnknown(inner, true)) return { dict: inner, wrapper }
    }
    if (await holdsTensors(root, slices) || holdsUnknown(root, false)) return { dict: root }
    if (copies.length === 1) return average!
  }
  if (zip.entries.has(`${prefix}constants.pkl`)) {
    throw bad(source.file,
      'a TorchScript archive, not a state dict: load it with torch.jit.load and torch.save its state_dict()')
  }
  const within = !(root instanceof Map)
    ? ''
    : root.size === 0
      ? ' with nothing in it'
      : ` with the keys ${firstKeys(root).join(', ')}`
  throw bad(source.file, `no weights found: the file holds ${describeValue(root)}${within}. ` +
    'Weights are expected at the top or under "model", "module", "state_dict" or "model_state_dict".')
}

/** For a message. A key may be any value; only a text is shown. */
function firstKeys (map: Map<unknown, unknown>): string[] {
  const keys: string[] = []
  for (const key of map.keys()) {
    if (keys.length === 8) return [...keys, '...']
    keys.push(typeof key === 'string' ? quote(key) : describeValue(key))
  }
  return keys
}

/** EMA copies of the weights, by key: dicts of tensors, or what holds one. */
async function averages (root: unknown, slices: Slices): Promise<Array<[string, Map<unknown, unknown>]>> {
  if (!(root instanceof Map)) return []
  const found: Array<[string, Map<unknown, unknown>]> = []
  for (const [key, value] of root) {
    if (slices.spend(1)) await slices.rest()
    if (!(value instanceof Map) || typeof key !== 'string' || key.length > maxNameLength || isParameterName(key) ||
      !isAverage(key)) {
      continue
    }
    if (slices.spend(16)) await slices.rest()
    const dict = [value, ...['module', 'model', 'state_dict', 'shadow', 'params']
      .map(inner => (value as Map<unknown, unknown>).get(inner))].find(beginsWithTensors)
    if (dict) found.push([key, dict as Map<unknown, unknown>])
    if (found.length >= 8) break
  }
  return found
}

/** Plain data of everything beside the weights; other dicts of tensors (EMA, optimizer) are left out. */
function besides (root: unknown, dict: Map<unknown, unknown>): Record<string, unknown> {
  const metadata = Object.create(null) as Record<string, unknown>
  if (!(root instanceof Map)) return metadata
  const walk = new PlainWalk()
  // The training arguments are read, so they come before what may use up the budget.
  const args = walk.convert(root.get('args'))
  let count = 0
  for (const [key, value] of root) {
    if (value === dict || value instanceof TensorRecord || typeof key !== 'string' || key === 'optimizer') continue
    if (++count > 64) break
    if (!beginsWithTensors(value)) metadata[key.slice(0, 1000)] = key === 'args' ? args : walk.convert(value)
  }
  return metadata
}

// ---- places of tensors ----

/** Something else than a plain state dict has; the message says what. */
class Odd extends Error {}

interface Storage { start: number, elements: number, dtype: string, bytes: number }

/** Finds where tensors lie; keeps the places of storages, which tensors may share. */
class Locator {
  private readonly starts = new Map<string, number>()

  constructor (
    private readonly zip: ZipDirectory, private readonly prefix: string, private readonly source: FileSource,
    private readonly checked: Checked[]
  ) {}

  /**
   * The place of a tensor, or in words what stands where a plain one has its place. Errors: BAD_CHECKPOINT for what
   * only damage explains.
   */
  async tensor (name: string, record: TensorRecord): Promise<StoredTensor | OtherTensor | string> {
    try {
      return await this.place(name, record)
    } catch (error) {
      if (error instanceof Odd) return error.message
      throw error
    }
  }

  private async place (name: string, record: TensorRecord): Promise<StoredTensor | OtherTensor> {
    const shape = this.sizes(name, 'shape', record.size)
    const strides = this.sizes(name, 'strides', record.stride)
    const count = countElements(shape)
    if (count === undefined || shape.length !== strides.length || shape.length > maxDimensions) {
      throw this.bad(name, `impossible shape ${showShape(shape)} with strides ${showShape(strides)}`)
    }
    if (isUnresolved(record.flags)) {
      throw new Odd('a tensor that is stored conjugated or negated (save it with .resolve_conj().resolve_neg())')
    }
    const storage = await this.storage(name, record)
    const first = this.integer(name, 'offset', record.offset)
    // Distance from the first element to the last one, in elements.
    const reach = count === 0 ? 0 : shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 0)
    // With strides of zero a few elements may be many: only how far they reach tells whether they are there.
    if (!Number.isSafeInteger(reach) || first + reach + (count === 0 ? 0 : 1) > storage.elements) {
      throw this.bad(name, `shape ${showShape(shape)} with strides ${showShape(strides)} at ${first} does not fit ` +
        `in its storage of ${storage.elements} elements`)
    }
    const elementSize = elementBits.get(storage.dtype)! / 8
    const { dtype } = storage
    const place = { name, shape, offset: storage.start + first * elementSize, bytes: count * elementSize }
    const spread = isContiguous(shape, strides) ? {} : { strides }
    return isWeightType(dtype) ? { ...place, dtype, ...spread } : { ...place, dtype, ...spread }
  }

  /** The storage behind a tensor: ('storage', class, key, location, elements) in the pickle, an entry in the zip. */
  private async storage (name: string, record: TensorRecord): Promise<Storage> {
    const reference = record.storage
    if (!(reference instanceof PersistentId)) throw this.unexpected('storage', reference)
    if (!(reference.id instanceof Tuple)) throw this.unexpected('storage reference', reference.id)
    const [kind, type, key, , size] = reference.id.items
    if (kind !== 'storage') throw this.unexpected('storage', kind)
    if (!(type instanceof Global)) throw this.unexpected('storage class', type)
    if (typeof key !== 'string' || key.length > maxNameLength) throw this.unexpected('storage key', key)
    const stored = /^torch(\.\w+)*$/.test(type.module) ? storageTypes.get(type.name) : undefined
    if (stored === undefined) throw this.unexpected('storage class', type)
    const declared = this.integer(name, 'storage size', size)
    const entry = this.zip.entries.get(`${this.prefix}data/${key}`)
    if (!entry) {
      throw this.bad(name,
        `its data (zip entry ${quote(`data/${key}`)}) is missing: the file is incomplete, fetch it again`)
    }
    const bytes = declared * elementBits.get(stored)! / 8
    if (entry.size !== bytes) {
      throw this.bad(name, `its storage should have ${bytes} bytes (${declared} elements of ${stored}), zip ` +
        `entry ${quote(entry.name)} has ${entry.size}: the file is damaged`)
    }
    let start = this.starts.get(key)
    if (start === undefined) {
      start = await this.zip.dataStart(entry)
      this.starts.set(key, start)
      if (hasChecksum(entry)) {
        this.checked.push({ what: `zip entry ${quote(entry.name)}`, offset: start, bytes, crc32: entry.crc32 })
      }
    }
    const dtype = record.dtype === undefined ? stored : this.dtype(record.dtype)
    return { start, dtype, bytes, elements: Math.floor(bytes / (elementBits.get(dtype)! / 8)) }
  }

  private dtype (value: unknown): string {
    if (!(value instanceof Global) || value.module !== 'torch' || !elementBits.has(value.name) ||
      elementBits.get(value.name)! < 8) {
      throw this.unexpected('element type', value)
    }
    return value.name
  }

  private sizes (name: string, what: string, value: unknown): number[] {
    const items: unknown = value instanceof Tuple ? value.items : value
    if (!Array.isArray(items)) throw this.unexpected(what, value)
    if (items.length > maxDimensions) {
      throw this.bad(name, `its ${what} has ${items.length} dimensions (at most ${maxDimensions})`)
    }
    return items.map(item => this.integer(name, what, item))
  }

  private integer (name: string, what: string, value: unknown): number {
    if (typeof value !== 'number' && typeof value !== 'bigint') throw this.unexpected(what, value)
    if (!Number.isSafeInteger(value) || (value as number) < 0) {
      throw this.bad(name, `its ${what} holds ${String(value).slice(0, 40)}, not a whole number from 0 to 2^53`)
    }
    return value as number
  }

  private unexpected (what: string, value: unknown): Odd {
    return new Odd(`a tensor whose ${what} is ${describeValue(value)}, which a plain state dict never has`)
  }

  private bad (name: string, message: string): Error {
    return bad(this.source.file, `tensor ${quote(name)}: ${message}`)
  }
}

/** Is the value of a tensor another than what is stored? */
function isUnresolved (flags: unknown): boolean {
  return flags instanceof Map && (flags.get('conj') === true || flags.get('neg') === true)
}

/** Row-major without gaps? The stride of an axis of one element does not matter. */
function isContiguous (shape: number[], strides: number[]): boolean {
  let expected = 1
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 0) return true
    if (shape[axis] !== 1 && strides[axis] !== expected) return false
    expected *= shape[axis]!
  }
  return true
}
