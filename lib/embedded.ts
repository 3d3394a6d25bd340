// Where the model lies that comes with the package: `models/fashion`, one tokenizer and one transformer for each n.
// Everything about them (architecture, grid, labels, sampling) is in their own metadata. Each transformer is read
// when an n first asks for it.

import path from 'node:path'

// Native code opens these files itself, which it cannot inside an archive of Electron: there they have to be unpacked.
const directory = path.join(__dirname, '..', 'models', 'fashion').replace(/([\\/]app\.asar)(?=[\\/])/, '$1.unpacked')

export const embedded = {
  name: 'fashion',
  directory,
  tokenizer: path.join(directory, 'tokenizer.safetensors'),
  /** n -> file */
  transformers: new Map([1, 4, 16].map(n => [n, path.join(directory, `par-${n}.safetensors`)])),
  /** n where the caller gives none. */
  n: 4
}
