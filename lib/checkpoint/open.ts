// Opens a checkpoint by its content. Names lie (a .pt that is a web page, a pointer, an older format), and each of
// these common mix-ups deserves its own sentence with the cure.

import { ParError } from '../base/errors.js'
import { fromSystem } from '../base/files.js'
import { Slices } from '../base/slices.js'
import { quote, visible } from '../base/text.js'
import { readArguments } from './arguments.js'
import { bad } from './bad.js'
import { judgeNames } from './extras.js'
import { namesOfFile } from './file-names.js'
import { parseOwnMetadata } from './metadata.js'
import { settleNames, type WeightsChoice } from './names.js'
import { readSafetensors } from './safetensors.js'
import { FileSource } from './source.js'
import { readTorch } from './torch.js'
import type { Checkpoint } from './types.js'

/**
 * Opens a checkpoint: a torch.save zip (.pt, .pth) or a .safetensors file, told apart by content. Reads names, shapes
 * and places of tensors, no weights.
 *
 * Errors: FILE_NOT_FOUND (absent or unreadable), BAD_CHECKPOINT (no checkpoint, truncated, damaged), INVALID_OPTION
 * (no path; a copy of the weights that is not there). An aborted call rejects with `signal.reason`.
 */
export async function openCheckpoint (
  file: string, options: { signal?: AbortSignal, weights?: WeightsChoice } = {}
): Promise<Checkpoint> {
  const { signal, weights } = options
  signal?.throwIfAborted()
  const source = await FileSource.open(file)
  try {
    const format = await sniff(source)
    const checkpoint = await (format === 'pt' ? readTorch(source, signal, weights) : readSafetensors(source, signal))
    checkpoint.names = await namesOfFile(file)
    const slices = new Slices(signal)
    await settleNames(checkpoint, weights, slices)
    await judgeNames(checkpoint, slices)
    await parseOwnMetadata(checkpoint, slices)
    await readArguments(checkpoint, slices)
    checkpoint.identity = source.identity
    return checkpoint
  } catch (error) {
    signal?.throwIfAborted()
    const known = fromSystem(error, file, 'read')
    // A defect in the reader must not look like one of the caller's.
    throw known instanceof ParError
      ? known
      : bad(file, `unexpected failure while reading: ${visible((error as Error).message, 300)}`, error)
  } finally {
    await source.close()
  }
}

async function sniff (source: FileSource): Promise<'pt' | 'safetensors'> {
  const { file, size } = source
  if (size === 0) throw bad(file, 'the file is empty: the download or the copy failed, fetch it again')
  const head = await source.read(0, Math.min(size, 512), 'the beginning of the file')
  const text = head.toString('latin1')
  // First, since a header may have a length whose bytes are "PK"; in a zip file an impossible way of packing would
  // stand here.
  if (head.length >= 9 && head[8] === 0x7b) return 'safetensors'
  if (text.startsWith('PK')) return 'pt'
  if (head[0] === 0x80 && head.subarray(2, 14).equals(legacyMagic)) {
    throw bad(file, 'the torch.save format from before PyTorch 1.6, which newer ones write when told to. If you ' +
      'trust the file (loading it runs ' +
      'code that is in it), convert it: python3 -c "import torch; torch.save(torch.load(\'old.pt\', ' +
        'map_location=\'cpu\', weights_only=False), ' +
      '\'new.pt\')" (PyTorch before 1.13: without weights_only)')
  }
  if (head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5) {
    throw bad(file, 'a bare pickle, not a torch.save file: load it in Python and torch.save its state dict')
  }
  if (text.startsWith('version https://git-lfs')) {
    throw bad(file, 'a Git LFS pointer, not the weights: run "git lfs pull"')
  }
  if (/^\s*<(!doctype|html|\?xml|head|body)/i.test(text)) {
    throw bad(file, 'a web page, not a checkpoint: the download link led to a page. Fetch the file itself.')
  }
  if (text.slice(257, 262) === 'ustar') {
    throw bad(file,
      'a tar archive: unpack it, or, if torch.save wrote it (before PyTorch 0.2), load and save it again in PyTorch')
  }
  if (text.startsWith('\x1f\x8b')) throw bad(file, 'a gzip file: unpack it first (gunzip)')
  if (text.startsWith('GGUF')) throw bad(file, 'a GGUF file: parvis reads .pt and .safetensors')
  if (/^\s*[{[]/.test(text)) throw bad(file, 'a JSON text (an index of shards?), not the weights')
  throw bad(file, `neither a torch.save zip nor a .safetensors file (it begins with ${quote(text.slice(0, 8))}). Is ` +
    'it truncated, or another format?')
}

/** LONG1, 10 bytes, 0x1950a86a20f9469cfc6c, STOP: how legacy torch.save files begin, after PROTO. */
const legacyMagic = Buffer.from('8a0a6cfc9c46f9206aa850192e', 'hex').subarray(0, 12)
