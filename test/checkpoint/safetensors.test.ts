// .safetensors: what the format allows is read, what it forbids is refused, however the header lies.

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { describeTransformer, openCheckpoint } from '../../lib/checkpoint/index.js'
import { JsonError, readJson, type Json } from '../../lib/checkpoint/json.js'
import { writeSafetensors } from '../../lib/checkpoint/safetensors-write.js'
import { Slices } from '../../lib/base/slices.js'
import { readTensor } from './floats.js'
import { safetensorsFile, tile, transformerShapes, values } from './tiny.js'

const pair = tile(new Map([['a', [2, 3]], ['b', [4]]]))

t.test('headers that are legal', async t => {
  const dir = t.testdir({})
  const cases: Array<[string, Buffer, string[]]> = [
    ['plain', safetensorsFile(pair.entries, pair.bytes), ['a', 'b']],
    ['other order', safetensorsFile({ b: pair.entries.b, __metadata__: { x: 'y' }, a: pair.entries.a }, pair.bytes),
      ['a', 'b']],
    ['escaped keys', safetensorsFile(JSON.stringify({ __metadata__: { x: 'y' }, ...pair.entries }).replace(
      '"__metadata__"', '"\\u005f_metadata__"'
    ).replace('"dtype"', '"\\u0064type"').replace('"shape"', '"sh\\u0061pe"'), pair.bytes), ['a', 'b']],
    ['padded', safetensorsFile(JSON.stringify(pair.entries) + '   ', pair.bytes), ['a', 'b']],
    [
      'scalar and empty',
      safetensorsFile({
        a: { dtype: 'F32', shape: [], data_offsets: [0, 4] }, b: { dtype: 'BF16', shape: [0, 5], data_offsets: [4, 4] }
      }, 4), ['a', 'b']
    ],
    ['escaped name', safetensorsFile('{"\\u0061":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', 2), ['a']],
    ['spaced', safetensorsFile(' \n\t' + JSON.stringify(pair.entries, undefined, '\t\r\n ').replaceAll(':', ' :\n') +
      '\n '.repeat(100_000), pair.bytes).fill(0x7b, 8, 9).fill(0x20, 11, 12), ['a', 'b']],
    ['__proto__', safetensorsFile('{"__proto__":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', 2), ['__proto__']]
  ]
  for (const [name, bytes, names] of cases) {
    const file = path.join(dir, 'x.safetensors')
    writeFileSync(file, bytes)
    const checkpoint = await openCheckpoint(file)
    t.same([...checkpoint.tensors.keys()].sort(), names, name)
  }
})

t.test('prefixes of wrappers are taken off', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  for (const prefix of ['_orig_mod.', 'module.', 'module._orig_mod.']) {
    const { entries, bytes } = tile(new Map([...transformerShapes()].map(([name, shape]) => [prefix + name, shape])))
    writeFileSync(file, safetensorsFile(entries, bytes))
    t.same(describeTransformer(await openCheckpoint(file), { heads: 2 }).tensors.map(({ name }) => name).sort(),
      [...transformerShapes().keys()].sort(), prefix)
  }
  const { entries, bytes } = tile(new Map([['a', [1]], ['module.a', [1]]]))
  writeFileSync(file, safetensorsFile(entries, bytes))
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /two tensors are called "a"/ })
})

t.test('what the format may grow by is passed over, or listed by its name', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const a = { scale: { deep: [[1, { x: null }], 'y', true] }, dtype: 'F32', shape: [2], data_offsets: [0, 8], extra: 1 }
  writeFileSync(
    file, safetensorsFile({ __metadata__: null, a, b: { dtype: 'Q4_K', shape: [3], data_offsets: [8, 13] } }, 13)
  )
  const { tensors, others, metadata } = await openCheckpoint(file)
  t.match(tensors.get('a'), { dtype: 'float32', shape: [2], bytes: 8 })
  t.match(others.get('b'), { dtype: 'Q4_K', shape: [3], bytes: 5 })
  t.same(Object.keys(metadata), [], 'null is no metadata')
  // A header of 19,280 bytes begins like a zip file does: "PK".
  const text = JSON.stringify(pair.entries)
  writeFileSync(file, safetensorsFile(text.padEnd(0x4b50), pair.bytes))
  t.equal((await openCheckpoint(file)).tensors.size, 2)
})

t.test('tensors in any order, empty ones among them', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const entry = (begin: number, end: number): unknown =>
    ({ dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] })
  const write = (places: Array<[number, number]>, bytes: number): void => {
    writeFileSync(
      file, safetensorsFile(Object.fromEntries(places.map(([begin, end], i) => [`t${i}`, entry(begin, end)])), bytes)
    )
  }
  for (const places of [[[4, 9], [0, 4]], [[9, 9], [4, 9], [4, 4], [0, 4], [0, 0]],
    [[0, 0], [0, 0]]] as Array<Array<[number, number]>>) {
    write(places, Math.max(...places.map(([, end]) => end)))
    t.equal((await openCheckpoint(file)).others.size, places.length, JSON.stringify(places))
  }
  const refusals: Array<[Array<[number, number]>, RegExp]> = [
    [[[4, 9], [0, 4], [2, 2]], /"t2" begins at byte 2 of the data, expected 4: tensors overlap/],
    [[[4, 9], [0, 5]], /"t0" begins at byte 4 of the data, expected 5: tensors overlap/],
    [[[0, 9], [2, 4]], /"t1" begins at byte 2 of the data, expected 4: tensors overlap/],
    [[[5, 9], [0, 4]], /"t0" begins at byte 5 of the data, expected 4: tensors leave a gap/],
    [[[4, 9], [0, 4], [12, 12]], /"t2" begins at byte 12 of the data, expected 9: tensors leave a gap/]
  ]
  for (const [places, message] of refusals) {
    write(places, 9)
    await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message })
  }
})

t.test('long texts of metadata', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const write = (metadata: object): void => {
    writeFileSync(file, safetensorsFile({ __metadata__: metadata, ...pair.entries }, pair.bytes))
  }
  write({ long: 'x'.repeat(1_000_001), short: 'y', escaped: '"\u00e9"\n'.repeat(10) })
  t.same({ ...(await openCheckpoint(file)).metadata },
    { long: '... (1.0 MB that parvis does not read)', short: 'y', escaped: '"\u00e9"\n'.repeat(10) })
  write({ parvis: 'x'.repeat(8_000_001) })
  await t.rejects(openCheckpoint(file),
    { code: 'BAD_CHECKPOINT', message: /"parvis" has 8\.0 MB, at most 8\.0 MB are read/ })
  write(Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [String(i), ''])))
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /more than 100000 entries/ })
})

t.test('all types are listed', async t => {
  const file = path.join(t.testdir({}), 'types.safetensors')
  const types: Array<[string, number, string]> = [
    ['F32', 4, 'float32'], ['F16', 2, 'float16'], ['BF16', 2, 'bfloat16'], ['F64', 8, 'float64'], ['I64', 8, 'int64'],
    ['I32', 4, 'int32'], ['I16', 2, 'int16'],
    ['I8', 1, 'int8'], ['U64', 8, 'uint64'], ['U32', 4, 'uint32'], ['U16', 2, 'uint16'], ['U8', 1, 'uint8'],
    ['BOOL', 1, 'bool'], ['F8_E4M3', 1, 'float8_e4m3fn'], ['F8_E4M3FNUZ', 1, 'float8_e4m3fnuz'],
    ['C64', 8, 'complex64'], ['F4', 0.5, 'float4']
  ]
  let at = 0
  const header = Object.fromEntries(
    types.map(([dtype, size]) => {
      at += 2 * size
      return [dtype, { dtype, shape: [2], data_offsets: [at - 2 * size, at] }]
    })
  )
  writeFileSync(file, safetensorsFile(header, at))
  const { tensors, others } = await openCheckpoint(file)
  t.same([...tensors.values(), ...others.values()].map(({ name, dtype }) => [name, dtype]),
    types.map(([name, , dtype]) => [name, dtype]))
})

t.test('headers that are not', async t => {
  const dir = t.testdir({})
  const a = { dtype: 'F32', shape: [2], data_offsets: [0, 8] }
  const one = (change: object): unknown => ({ a: { ...a, ...change } })
  const cases: Array<[string, Buffer, RegExp]> = [
    ['length 0', safetensorsFile({}, 0, 0), /no proper JSON/],
    ['length 2^64-1', safetensorsFile(pair.entries, 48).fill(0xff, 0, 8), /claims .* TB, the format allows 100\.0 MB/],
    ['length above the limit', safetensorsFile(pair.entries, 48, 100_000_001), /claims 100\.0 MB|format allows/],
    ['length above the file', safetensorsFile(pair.entries, 48, 5000), /header lies outside the file/],
    ['length too short', safetensorsFile(pair.entries, 48, 20), /no proper JSON/],
    ['length too long', safetensorsFile(pair.entries, 48, JSON.stringify(pair.entries).length + 8), /no proper JSON/],
    ['nothing', safetensorsFile({}, 0), /no tensor/],
    ['only metadata', safetensorsFile({ __metadata__: { a: 'b' } }, 0), /no tensor/],
    ['not UTF-8', safetensorsFile(pair.entries, 48).fill(0xff, 10, 11), /not UTF-8/],
    ['equal keys', safetensorsFile(`{"a":${JSON.stringify(a)},"a":${JSON.stringify(a)}}`, 8), /"a" stands twice/],
    ['equal keys, escaped', safetensorsFile(`{"a":${JSON.stringify(a)},"\\u0061":${JSON.stringify(a)}}`, 8),
      /"a" stands twice/],
    ['equal inner keys', safetensorsFile('{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
      /stands twice/],
    ['deep', safetensorsFile('{"a":' + '['.repeat(100_000) + '}', 0), /"a": its entry/],
    ['deep, in a key that is passed over', safetensorsFile('{"a":{"b":' + '['.repeat(100_000) + '}', 0),
      /nested deeper than 8/],
    ['entry is a list', safetensorsFile({ a: [1, 2] }, 8), /"a": its entry/],
    ['entry has less', safetensorsFile({ a: { dtype: 'F32', shape: [2] } }, 8), /its entry/],
    ['dtype that is no name', safetensorsFile(one({ dtype: 'Q4 K' }), 8), /dtype "Q4 K"/],
    ['dtype __proto__', safetensorsFile(one({ dtype: '__proto__' }), 8), /dtype "__proto__"/],
    ['dtype number', safetensorsFile(one({ dtype: 7 }), 8), /dtype is no string/],
    ['shape text', safetensorsFile(one({ shape: 'x' }), 8), /shape/],
    ['shape fraction', safetensorsFile(one({ shape: [0.5] }), 8), /shape/],
    ['shape negative', safetensorsFile(one({ shape: [-2] }), 8), /shape/],
    ['shape overflow', safetensorsFile(one({ shape: [2 ** 40, 2 ** 40] }), 8), /too many elements/],
    ['shape 1e308', safetensorsFile('{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', 8), /shape/],
    ['shape of 17', safetensorsFile(one({ shape: new Array(17).fill(1) }), 8), /shape/],
    ['shape and bytes', safetensorsFile(one({ shape: [3] }), 8),
      /shape \[3\] of float32 takes 12 bytes, its data_offsets span 8/],
    ['offsets backwards', safetensorsFile(one({ data_offsets: [8, 0] }), 8), /impossible/],
    ['offsets negative', safetensorsFile(one({ data_offsets: [-8, 0] }), 8), /impossible/],
    ['offsets 2^53', safetensorsFile(one({ data_offsets: [2 ** 53, 2 ** 53 + 8] }), 8), /impossible/],
    ['offsets text', safetensorsFile(one({ data_offsets: ['0', '8'] }), 8), /two numbers/],
    ['three offsets', safetensorsFile(one({ data_offsets: [0, 8, 8] }), 8), /two numbers/],
    ['gap at the start', safetensorsFile(one({ data_offsets: [4, 12] }), 12), /leave a gap/],
    ['gap', safetensorsFile({ a, b: { ...a, data_offsets: [12, 20] } }, 20), /"b" begins at byte 12.*expected 8.*gap/],
    ['overlap', safetensorsFile({ a, b: { ...a, data_offsets: [4, 12] } }, 12), /overlap/],
    ['same place', safetensorsFile({ a, b: a }, 8), /overlap/],
    ['truncated', safetensorsFile(pair.entries, pair.bytes - 1), /truncated.*"b" is the first/],
    ['trailing bytes', safetensorsFile(pair.entries, pair.bytes + 1), /1 bytes follow/],
    ['metadata no object', safetensorsFile({ __metadata__: [], a }, 8), /__metadata__ is no JSON object/],
    ['an escaped key that stands twice',
      safetensorsFile('{"a":{"dtype":"F32","\\u0064type":"I32","shape":[2],"data_offsets":[0,8]}}', 8),
      /a key of tensor "a" stands twice/],
    ['escaped metadata that stand twice',
      safetensorsFile(`{"__metadata__":{},"\\u005f_metadata__":{},"a":${JSON.stringify(a)}}`, 8),
      /"__metadata__" stands twice/],
    ['metadata numbers', safetensorsFile({ __metadata__: { x: 1 }, a }, 8), /"x" is no string/],
    ['long number', safetensorsFile(`{"a":{"dtype":"F32","shape":[${'1'.repeat(1000)}],"data_offsets":[0,8]}}`, 8),
      /no proper JSON/],
    ['long name', safetensorsFile({ ['n'.repeat(100_000)]: a }, 8), /more than 1024 characters/]
  ]
  for (const [name, bytes, message] of cases) {
    const file = path.join(dir, 'x.safetensors')
    writeFileSync(file, bytes)
    await t.rejects(openCheckpoint(file), { name: 'ParError', code: 'BAD_CHECKPOINT', message }, name)
  }
})

async function parse (text: string): Promise<Json> {
  return await readJson(Buffer.from(text), new Slices(), { memory: 1e6 })
}

t.test('JSON as JSON.parse reads it', async t => {
  const texts = ['{}', '[]', ' [1 , -2.5e3, true,false,null,"a\\"\\u00e9\\n"] ', '{"a":{"b":[{}]}}', '0', '-0.5',
    '"\u{1f600}"', '{"":1}', '1E5', '""']
  const plain = (value: unknown): unknown => value instanceof Map
    ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]))
    : Array.isArray(value)
      ? value.map(plain)
      : value
  for (const text of texts) t.same(plain(await parse(text)), JSON.parse(text), text)
  const bad = ['', ' ', '{', '[', '"', '"\\', '"\\x"', '01', '1.', '.5', '+1', 'tru', 'nul', '[1,]', '{"a":1,}',
    '{a:1}', '{"a" 1}', '[1 2]', '1 2', '"\n"', 'NaN', '-', '1e', '\ufeff{}', '{"a":1}}']
  for (const text of bad) {
    t.ok(await parse(text).catch((error: unknown) => error) instanceof JsonError, JSON.stringify(text))
    t.throws(() => { JSON.parse(text) as unknown }, text)
  }
})

t.test('what is written is read again', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'written.safetensors')
  const data = Buffer.from(values(6, 3).buffer)
  async function * pieces (): AsyncIterable<Uint8Array> { yield data.subarray(0, 10); yield data.subarray(10) }
  async function * half (): AsyncIterable<Uint8Array> { yield data.subarray(0, 4) }
  const { bytes } = await writeSafetensors(file, [
    { name: '__proto__', dtype: 'float32', shape: [2, 3], chunks: pieces },
    { name: 'b', dtype: 'bfloat16', shape: [2, 1], chunks: half },
    { name: 'e', dtype: 'float16', shape: [0], async * chunks () {} }
  ], { parvis: '{}', __proto__x: 'y' })
  t.equal(bytes, readFileSync(file).length)
  t.equal(readFileSync(file).readBigUInt64LE() % 8n, 0n, 'data is aligned')
  const checkpoint = await openCheckpoint(file)
  t.same([...readTensor(checkpoint, '__proto__')], [...values(6, 3)])
  t.same([...checkpoint.tensors.values()].map(tensor => [tensor.name, tensor.dtype, tensor.bytes]),
    [['__proto__', 'float32', 24], ['b', 'bfloat16', 4], ['e', 'float16', 0]])
  t.match(checkpoint.metadata, { parvis: '{}' })
  await t.rejects(writeSafetensors(path.join(dir, 'short'), [{ name: 'a', dtype: 'float32', shape: [2], chunks: half }],
    {}), { code: 'INTERNAL' })
  await t.rejects(writeSafetensors(path.join(dir, 'no', 'folder'), [], {}),
    { code: 'FILE_NOT_FOUND', message: /there is no folder/ })
})
