// A tokenizer with one number in it that is NaN or infinite, or so large that it leads there: no picture and no token
// comes of it, but NON_FINITE, wherever in the network it is. And one that is whole loses nothing by being looked at.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { addon, type NativeTokenizer, type WeightSource } from '../lib/machine/native.js'
import { vqTensors, vqTokenizer, type VqModel } from '../lib/models/vq.js'

const device = process.env.PARVIS_TEST_DEVICE ?? 'cpu'
const model: VqModel = {
  baseChannels: 32, multipliers: [1, 2], residualBlocks: 1, zChannels: 8, codebookSize: 16, codeSize: 4, groups: 32,
  normEps: 1e-6
}
const engine = addon().createEngine({ device: device === 'cuda' ? 'cuda:0' : device, threads: 2 })
t.teardown(async () => { await engine.dispose() })

/** All tensors one after another, of random numbers in float32; norms scale by about one. */
const weights: WeightSource[] = []
const values: number[] = []
let state = 1
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 31 - 1
}
for (const { role, name, shape } of vqTensors(model)) {
  weights.push({ role, parts: [{ name, dtype: 'float32', shape: [...shape], offset: values.length * 4 }] })
  const count = shape.reduce((a, b) => a * b, 1)
  const fan = count / shape[0]!
  for (let i = 0; i < count; i++) {
    values.push(/norm(\d|_out)?\.weight$/.test(name) ? 1 + random() / 4 : random() * 1.5 / Math.sqrt(fan))
  }
}

// A simulated GPU takes seconds for each: there, one tensor of each kind of operation.
const kinds =
  /^(quantize\.embedding\.weight|decoder\.conv_in\.weight|decoder\.norm_out\.weight|encoder\.conv_out\.bias|decoder\.mid\.1\.q\.weight)$/
const tensors = weights.map(({ parts: [tensor] }) => tensor!)
const tried = tensors.map((tensor, i) => ({ ...tensor, value: [NaN, Infinity, -Infinity][i % 3]! }))
  .filter(({ name }) => device === 'cpu' || kinds.test(name))
if (tried.length < 5) throw new Error('a name of a tensor has changed')

const tokens = new Int32Array(16).map((_, i) => i)
const pixels = new Float32Array(8 * 8 * 3).map(random)
const decode = async (tokenizer: NativeTokenizer): Promise<unknown> => {
  const options = { count: 1, gridHeight: 4, gridWidth: 4, outHeight: 8, outWidth: 8 }
  const floats = await tokenizer.decode(tokens,
    { ...options, format: 'float32' }).catch(error => error as { parvisCode: string })
  const bytes = await tokenizer.decode(tokens,
    { ...options, format: 'uint8' }).catch(error => error as { parvisCode: string })
  t.equal('parvisCode' in bytes, 'parvisCode' in floats, 'bytes are refused where floats are')
  return floats
}
const encode = async (tokenizer: NativeTokenizer): Promise<unknown> =>
  await tokenizer.encode(pixels, { count: 1, height: 8, width: 8 }).catch(error => error as unknown)

/** Loads it with one number changed, where that is. */
async function damaged (at: number, value: number, precision: 'float32' | 'bfloat16'): Promise<NativeTokenizer> {
  const data = new Float32Array(values)
  if (at >= 0) data[at] = value
  const file = path.join(t.testdirName, 'tokenizer.bin')
  fs.mkdirSync(t.testdirName, { recursive: true })
  fs.writeFileSync(file, new Uint8Array(data.buffer))
  return await engine.loadTokenizer(file, weights, vqTokenizer(model), precision)
}

for (const precision of ['float32', 'bfloat16'] as const) {
  t.test(precision, async t => {
    const whole = await damaged(-1, 0, precision)
    const picture = await decode(whole) as Float32Array
    t.ok(picture.length === 192 && picture.every(Number.isFinite), 'whole: a picture')
    const found = await encode(whole) as Int32Array
    t.ok(found.length === 16 && found.every(token => token >= 0 && token < 16), 'whole: tokens')
    whole.dispose()

    for (const { name, shape, offset, value } of tried) {
      const count = shape.reduce((a, b) => a * b, 1)
      const tokenizer = await damaged(offset / 4 + Math.floor(count / 2), value, precision)
      const [decoded, encoded] = [await decode(tokenizer), await encode(tokenizer)]
      const what = `${name}: ${value}`
      const [decodes, encodes] = [!/^(encoder|quant_conv)/.test(name), !/^(decoder|post_quant)/.test(name)]
      if (decodes) {
        t.match(decoded, { parvisCode: 'NON_FINITE', message: /^The tokenizer computed NaN or infinite numbers: / },
          `${what}: decode`)
      } else t.same(decoded, picture, `${what}: decode does not use it`)
      if (encodes) t.match(encoded, { parvisCode: 'NON_FINITE' }, `${what}: encode`)
      else t.same(encoded, found, `${what}: encode does not use it`)
      tokenizer.dispose()
    }
    const large = await damaged(tensors.find(({ name }) => name === 'decoder.conv_out.weight')!.offset / 4, 3e38,
      precision)
    const result = await decode(large)
    t.ok(result instanceof Float32Array
      ? result.every(Number.isFinite)
      : (result as { parvisCode: string }).parvisCode === 'NON_FINITE', 'large: finite, or refused')
    large.dispose()
  })
}
