#!/usr/bin/env node
// Writes a checkpoint of random weights in the authors' format and of the published sizes: what training saves (weights
// under `model`, beside optimizer state and an argparse.Namespace), or any other wrapping. Weights are made while they
// are written, so 3B takes 30 MB of memory; what no reader may read (optimizer state, EMA, padding) is sparse on disk.
//
//   node test/support/big-checkpoint.js L out.pt --optimizer --dtype bfloat16 -n 4
//
// It needs dist/ (`npm run build:ts`). Program and module: `writeBigCheckpoint` is what tests call.

const fs = require('node:fs')
const path = require('node:path')
const { parseArgs } = require('node:util')

const root = path.join(__dirname, '..', '..')

/** A module of this folder, under Node as it comes: types are taken off, nothing is checked. */
function typescript (file) {
  const ts = require('typescript')
  const { outputText } = ts.transpileModule(fs.readFileSync(file, 'utf8'),
    { compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 } })
  const module = { exports: {} }
  // eslint-disable-next-line no-new-func -- the program is one of this repository
  new Function('module', 'exports', 'require', outputText)(module, module.exports, require)
  return module.exports
}

const itemBytes = { float32: 4, float16: 2, bfloat16: 2 }

/** A prime, so that equal tensors begin at different places and rows do not repeat. */
const blockItems = 4_194_301

/** Random weights in one block that all tensors take their elements from, each from a place of its own. */
function randomBlock (dtype) {
  const bits = new Uint16Array(blockItems) // of bfloat16, or float16
  let state = 1
  for (let i = 0; i < bits.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    // Any sign, 2^-6 to 2^-5.
    bits[i] = dtype === 'float16'
      ? (state >>> 31 << 15) | (9 << 10) | (state >>> 18 & 1023)
      : (state >>> 31 << 15) | (121 << 7) | (state >>> 20 & 127)
  }
  if (dtype !== 'float32') return Buffer.from(bits.buffer)
  const wide = new Uint32Array(blockItems)
  for (let i = 0; i < wide.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    wide[i] = bits[i] << 16 | state >>> 16
  }
  return Buffer.from(wide.buffer)
}

function ones (count, dtype) {
  return dtype === 'float32'
    ? Buffer.from(new Float32Array(count).fill(1).buffer)
    : Buffer.from(new Uint16Array(count).fill(dtype === 'float16' ? 0x3c00 : 0x3f80).buffer)
}

/**
 * @param {string} model B, L, XL, XXL, 3B, or VQ-16
 * @param {string} file
 * @param {{ n?: number, dtype?: 'float32' | 'float16' | 'bfloat16', wrapper?: string, prefix?: string, optimizer?:
 * boolean, ema?: boolean, pad?: number }} [options]
 *   wrapper: '' for none; ema: a float32 copy of the weights, before them; pad: bytes before the weights
 * @returns {{ size: number }}
 */
function writeBigCheckpoint (model, file, options = {}) {
  const { n = 4, dtype = 'bfloat16', wrapper = 'model', prefix = '', optimizer = false, ema = false, pad = 0 } = options
  const { modelNames, transformerModel } = require(path.join(root, 'dist', 'models', 'shapes.js'))
  const { vq16, vqTensors } = require(path.join(root, 'dist', 'models', 'vq.js'))
  const { llamaGenTensors } = require(path.join(root, 'dist', 'checkpoint', 'llamagen.js'))
  if (model !== 'VQ-16' && !modelNames.includes(model)) {
    throw new Error(`no model is called ${model}: ${modelNames.join(', ')}, VQ-16`)
  }
  if (!(dtype in itemBytes)) throw new Error(`dtype ${dtype}: float32, float16 or bfloat16`)
  const { py, writePt } = typescript(path.join(__dirname, 'pt-writer.ts'))
  const shapes = model === 'VQ-16'
    ? vqTensors(vq16).map(({ name, shape }) => [name, shape])
    : llamaGenTensors(transformerModel(model, n))
  const block = randomBlock(dtype)
  const item = itemBytes[dtype]
  const count = shape => shape.reduce((product, side) => product * side, 1)
  const weights = shapes.map(([name, shape], index) => {
    const length = count(shape) * item
    if (/norm(\d|_out)?\.weight$/.test(name)) {
      return [prefix + name, py.tensor({ shape, dtype, data: ones(count(shape), dtype) })]
    }
    const chunks = function * () {
      let at = index * 7919 % blockItems * item
      for (let left = length; left > 0;) {
        const chunk = block.subarray(at, Math.min(at + left, block.length))
        yield chunk
        left -= chunk.length
        at = 0
      }
    }
    return [prefix + name, py.tensor({ shape, dtype, data: { length, chunks } })]
  })
  const sparse = shape => py.tensor({ shape, data: 4 * count(shape) })
  const state = py.orderedDict(weights)
  if (wrapper === '') return writePt(file, state)
  return writePt(file, new Map([
    ...(pad > 0 ? [['padding', py.tensor({ dtype: 'uint8', shape: [pad], data: pad })]] : []),
    ...(ema ? [['ema', py.orderedDict(shapes.map(([name, shape]) => [name, sparse(shape)]))]] : []),
    [wrapper, state],
    ...(optimizer
      ? [['optimizer', new Map([
          [
            'state',
            new Map(
              shapes.map(([, shape], i) =>
                [i, new Map([['step', 300000], ['exp_avg', sparse(shape)], ['exp_avg_sq', sparse(shape)]])])
            )
          ],
          ['param_groups',
            [{ lr: 1e-4, betas: py.tuple(0.9, 0.95), weight_decay: 0.05, params: shapes.map((_, i) => i) }]]
        ])]]
      : []),
    ['steps', 300000],
    ['args',
      py.namespace({
        gpt_model: `GPT-${model}`, image_size: 384, downsample_size: 16, vocab_size: 16384, num_classes: 1000,
        mixed_precision: 'bf16'
      })]
  ]))
}

module.exports = { writeBigCheckpoint }

if (require.main === module) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      n: { type: 'string', short: 'n', default: '4' },
      dtype: { type: 'string', default: 'bfloat16' },
      wrapper: { type: 'string', default: 'model' },
      prefix: { type: 'string', default: '' },
      optimizer: { type: 'boolean', default: false },
      ema: { type: 'boolean', default: false },
      pad: { type: 'string', default: '0' }
    }
  })
  const [model, file] = positionals
  if (!model || !file) {
    console.error('usage: node test/support/big-checkpoint.js B|L|XL|XXL|3B|VQ-16 OUT.pt [-n 4] [--dtype bfloat16] ' +
      "[--wrapper model|module|state_dict|''] [--prefix _orig_mod.] [--optimizer] [--ema] [--pad BYTES]")
    process.exit(2)
  }
  const { size } = writeBigCheckpoint(model, file, { ...values, n: Number(values.n), pad: Number(values.pad) })
  console.log(`${file}: ${(size / 1e9).toFixed(2)} GB`)
}
