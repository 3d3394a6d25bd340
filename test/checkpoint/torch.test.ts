// torch.save's zip format: wrappings, prefixes, element types, strides, zip64, size. Files come from pt-writer.

import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { compareChecksums, convertCheckpoint, describeTransformer, openCheckpoint } from '../../lib/checkpoint/index.js'
import { limits, Watch } from '../fuzz/harness.js'
import { py, writePickle, writePt, type PtOptions } from '../support/pt-writer.js'
import { readTensor } from './floats.js'
import { stateDict, transformerShapes, values } from './tiny.js'

const shapes = transformerShapes()

t.test('every wrapping, prefix and zip variant reads the same', async t => {
  const dir = t.testdir({})
  const optimizer = {
    state: new Map([[0, { step: 7, exp_avg: py.tensor({ shape: [2] }) }]]), param_groups: [{ lr: 1e-4 }]
  }
  const wrappings: Array<[string | undefined, (dict: unknown) => unknown]> = [
    [undefined, dict => dict],
    ['model', dict => ({ model: dict, optimizer, steps: 5 })],
    ['module', dict => ({ module: dict, steps: 5 })],
    ['state_dict', dict => ({ steps: 5, state_dict: dict })],
    ['model',
      dict => ({
        ema: stateDict(shapes, { dtype: 'float32' }), model: dict, module: { other: py.tensor({ shape: [1] }) }
      })]
  ]
  const zips: PtOptions[] = [{}, { zip64: true }, { alignment: 0 }, { prefix: 'PAR-XL-4x', byteOrder: 'little' },
    { protocol: 4, crc: 0 }, { prefix: 'a/b c/\u00fc' }]
  let count = 0
  for (const [wrapper, wrap] of wrappings) {
    for (const prefix of ['', '_orig_mod.', 'module.', 'module._orig_mod.']) {
      for (const options of count % 4 === 0 ? zips : [zips[count % zips.length]!]) {
        const file = path.join(dir, `${count++}.pt`)
        const ordered = count % 2 === 0
        const dict = stateDict(shapes, {}, prefix)
        writePt(file, wrap(ordered ? py.build(py.orderedDict(dict), { _metadata: py.orderedDict([]) }) : dict), options)
        const checkpoint = await openCheckpoint(file)
        t.equal(checkpoint.wrapper, wrapper)
        t.same([...checkpoint.tensors.keys()], [...shapes.keys()])
        const first = readTensor(checkpoint, 'output.weight')
        if (first[0] !== shapes.size || first[1] !== shapes.size + 1 / 1024) t.fail(`wrong values in ${file}`)
        if (wrapper !== undefined && count < 40) t.equal(checkpoint.metadata.optimizer, undefined)
        t.equal(describeTransformer(checkpoint, { heads: 2 }).n, 4)
      }
    }
  }
  t.comment(`${count} files`)
})

t.test('element types', async t => {
  const file = path.join(t.testdir({}), 'types.pt')
  const tensors = ['float32', 'float16', 'bfloat16', 'float64', 'int64', 'int32', 'uint8', 'bool']
    .map(dtype => [dtype, py.tensor({ dtype, shape: [3, 2] })] as const)
  writePt(file, new Map<string, unknown>(tensors))
  const checkpoint = await openCheckpoint(file)
  t.same([...checkpoint.tensors.values()].map(({ dtype, bytes }) => `${dtype} ${bytes}`),
    ['float32 24', 'float16 12', 'bfloat16 12'])
  t.same([...checkpoint.others.values()].map(({ dtype, bytes }) => `${dtype} ${bytes}`),
    ['float64 48', 'int64 48', 'int32 24', 'uint8 6', 'bool 6'])
})

t.test('newer tensor constructors and storages', async t => {
  const file = path.join(t.testdir({}), 'newer.pt')
  const data = Buffer.from(values(6, 1).buffer)
  const untyped = py.persistent(py.tuple('storage', py.global('torch.storage UntypedStorage'), 'u', 'cpu', 24))
  const hooks = py.orderedDict([])
  const v2 = py.tuple(py.persistent(py.tuple('storage', py.global('torch.cuda FloatStorage'), 'u', 'cuda:0', 6)), 0,
    py.tuple(2, 3), py.tuple(3, 1), false, hooks)
  writePt(file, {
    keep: py.tensor({ shape: [6], key: 'u', data }),
    v3: py.reduce(py.global('torch._utils _rebuild_tensor_v3'),
      py.tuple(untyped, 1, py.tuple(2), py.tuple(1), false, hooks, py.global('torch bfloat16'), null)),
    attributes: py.reduce(py.global('torch._tensor _rebuild_from_type_v2'),
      py.tuple(py.global('torch._utils _rebuild_tensor_v2'), py.global('torch Tensor'), v2, {})),
    parameter: py.tensor({ shape: [6], key: 'u', data, parameter: true }),
    stacked: py.reduce(py.stackGlobal('torch._utils _rebuild_tensor_v2'), v2)
  })
  const checkpoint = await openCheckpoint(file)
  const start = checkpoint.tensors.get('keep')!.offset
  t.match(checkpoint.tensors.get('v3'), { dtype: 'bfloat16', offset: start + 2, bytes: 4 })
  t.match(checkpoint.tensors.get('attributes'), { dtype: 'float32', offset: start, shape: [2, 3] })
  t.match(checkpoint.tensors.get('stacked'), { offset: start })
  t.match(checkpoint.tensors.get('parameter'), { offset: start })
})

t.test('tensors that do not fit their storage are refused by name', async t => {
  const dir = t.testdir({})
  const cases: Array<[string, Parameters<typeof py.tensor>[0], RegExp]> = [
    ['larger', { shape: [5], data: 16 }, /"w": shape \[5\].*storage of 4 elements/],
    ['offset', { shape: [4], data: 16, offset: 1 }, /does not fit/],
    ['expanded', { shape: [1000, 2], strides: [0, 1], data: 4 }, /does not fit/],
    ['strides', { shape: [2, 2], strides: [3, 1], data: 16 }, /does not fit/],
    ['negative stride', { shape: [2, 2], strides: [-1, 1], data: 16 }, /strides holds -1/],
    ['huge stride', { shape: [2, 2], strides: [2 ** 53 - 1, 2 ** 53 - 1], data: 16 }, /does not fit/],
    ['huge shape', { shape: [2 ** 40, 2 ** 40], strides: [1, 1], data: 16 }, /impossible shape/],
    ['negative offset', { shape: [2], offset: -1, data: 16 }, /offset holds -1/],
    ['fraction', { shape: [1.5], data: 16 }, /shape holds 1\.5/],
    ['strides missing', { shape: [2, 2], strides: [1], data: 16 }, /impossible shape/],
    ['dimensions', { shape: new Array<number>(17).fill(1), data: 16 }, /17 dimensions/],
    ['declared more', { shape: [4], declared: 8, data: 16 }, /should have 32 bytes.*has 16/],
    ['declared less', { shape: [2], declared: 2, data: 16 }, /should have 8 bytes.*has 16/],
    ['declared nonsense', { shape: [2], declared: 1e-300, data: 16 }, /storage size holds 1e-300/]
  ]
  for (const [name, spec, message] of cases) {
    const file = path.join(dir, `${name}.pt`)
    writePt(file, { w: py.tensor(spec) })
    await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message }, name)
  }
  writePt(path.join(dir, 'zero.pt'),
    { w: py.tensor({ shape: [0, 1e6], data: 16 }), v: py.tensor({ shape: [2, 2], strides: [0, 1], data: 16 }) })
  t.equal((await openCheckpoint(path.join(dir, 'zero.pt'))).tensors.get('w')!.bytes, 0)
})

t.test('unusual tensors that PyTorch has: expanded, transposed, sliced, tied, empty, negated', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  const data = Buffer.from(values(6, 1).buffer)
  const negated = py.reduce(py.global('torch._utils _rebuild_tensor_v2'), py.tuple(
    py.persistent(py.tuple('storage', py.global('torch FloatStorage'), 'k', 'cpu', 6)), 0, py.tuple(6), py.tuple(1),
    false, py.orderedDict([]), { neg: true }))
  writePt(file, {
    scalar: py.tensor({ shape: [5], strides: [0], data: data.subarray(0, 4) }),
    rows: py.tensor({ shape: [3, 2], strides: [0, 1], data: data.subarray(0, 8) }),
    turned: py.tensor({ shape: [3, 2], strides: [1, 3], data, key: 'k' }),
    sliced: py.tensor({ shape: [2, 2], strides: [3, 1], offset: 1, data, key: 'k' }),
    empty: py.tensor({ shape: [0, 7], strides: [0, 0], data: 0 }),
    mask: py.tensor({ dtype: 'bool', shape: [9, 9], strides: [0, 0], data: 1 }),
    negated
  })
  const checkpoint = await openCheckpoint(file)
  t.same([...readTensor(checkpoint, 'scalar')], new Array(5).fill(1))
  t.same([...readTensor(checkpoint, 'rows')], [1, 1 + 1 / 1024, 1, 1 + 1 / 1024, 1, 1 + 1 / 1024])
  t.same([...readTensor(checkpoint, 'turned')], [0, 3, 1, 4, 2, 5].map(i => 1 + i / 1024))
  t.same([...readTensor(checkpoint, 'sliced')], [1, 2, 4, 5].map(i => 1 + i / 1024))
  t.equal(checkpoint.tensors.get('empty')!.bytes, 0)
  t.match(checkpoint.others.get('mask'), { dtype: 'bool', shape: [9, 9], strides: [0, 0] })
  t.match(checkpoint.odd!.get('negated'), /negated.*resolve_neg/)
})

t.test('an expanded tensor of a model is converted like one that was written out', async t => {
  const dir = t.testdir({})
  const [expanded, whole] = [path.join(dir, 'expanded.pt'), path.join(dir, 'whole.pt')]
  const dict = stateDict(shapes)
  writePt(
    expanded,
    {
      model: new Map([...dict,
        ['norm.weight', py.tensor({ shape: [8], strides: [0], data: Buffer.from(Float32Array.of(0.5).buffer) })]])
    }
  )
  writePt(
    whole,
    {
      model: new Map([...dict,
        ['norm.weight', py.tensor({ shape: [8], data: Buffer.from(new Float32Array(8).fill(0.5).buffer) })]])
    }
  )
  for (const file of [expanded, whole]) {
    await convertCheckpoint(file, `${file}.safetensors`, { heads: 2, grid: 4, checksum: false })
  }
  const [a, b] = [expanded, whole].map(file => readFileSync(`${file}.safetensors`))
  const data = (file: Buffer): Buffer => file.subarray(8 + Number(file.readBigUInt64LE(0)))
  t.ok(data(a!).equals(data(b!)))
})

t.test('keys of a dict are shown, never made text of', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  // Each list holds the one before twice: as a text it would have 2^40 items.
  const lists: number[] = [0x5d, 0x71, 0]
  for (let i = 1; i < 40; i++) lists.push(0x30, 0x5d, 0x71, i, 0x28, 0x68, i - 1, 0x68, i - 1, 0x65)
  writePt(file, py.raw(...lists, 0x30, 0x7d, 0x68, 39, 0x4b, 1, 0x73))
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /a list as a key of a dict/ })
  writePt(file, py.raw(...lists, 0x30, 0x7d, 0x68, 39, 0x85, 0x4b, 1, 0x73, 0x8a, 2, 0, 1, 0x4e, 0x73))
  await t.rejects(openCheckpoint(file),
    { code: 'BAD_CHECKPOINT', message: /a dict with the keys a tuple, a number\. / })
  writePt(file, new Map(Array.from({ length: 9 }, (_, i) => [`key ${i}\u001b`, 1])))
  await t.rejects(openCheckpoint(file),
    { code: 'BAD_CHECKPOINT', message: /with the keys "key 0\\u001b", .*"key 7\\u001b", \.\.\.\. / })
})

t.test('an array of NumPy whose size is no number', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const lists: number[] = [0x5d, 0x71, 0]
  for (let i = 1; i < 40; i++) lists.push(0x30, 0x5d, 0x71, i, 0x28, 0x68, i - 1, 0x68, i - 1, 0x65)
  const type = py.build(py.reduce(py.global('numpy dtype'), py.tuple('i8')), py.tuple(3, '<'))
  const array = py.build(py.reduce(py.global('numpy.core.multiarray _reconstruct'), py.tuple()),
    py.tuple(1, py.tuple(py.raw(...lists)), type, false, py.raw(0x43, 8, 0, 0, 0, 0, 0, 0, 0, 0)))
  writePt(file, { model: stateDict(shapes), args: py.namespace({ image_size: array }) })
  const watch = new Watch()
  watch.start()
  t.equal((await openCheckpoint(file)).tensors.size, shapes.size)
  const { block, busy } = await watch.stop()
  t.ok(Math.min(block, busy) < limits.block, `the thread is held for ${Math.round(block)} ms at most`)
})

t.test('work is charged by what it looks at: thousands of pairs, called again and again', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const pairs = Buffer.concat([Buffer.from(']('),
    ...new Array<Buffer>(10_000).fill(Buffer.from('K\x01K\x01\x86', 'latin1')), Buffer.from('e')])
  const again = Buffer.from('h\x00h\x01R0'.repeat(300_000), 'latin1')
  const pickle = Buffer.concat([Buffer.from('\x80\x02ccollections\nOrderedDict\nq\x000(', 'latin1'), pairs,
    Buffer.from('tq\x010', 'latin1'), again, Buffer.from('N.')])
  writePickle(file, pickle, new Map())
  const watch = new Watch()
  watch.start()
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /more than 256 MB/ })
  const { block, busy } = await watch.stop()
  t.ok(Math.min(block, busy) < limits.block, `the thread is held for ${Math.round(block)} ms at most`)
  const stopped = new AbortController()
  setTimeout(() => { stopped.abort(new Error('stop')) }, 20)
  await t.rejects(openCheckpoint(file, { signal: stopped.signal }), { message: 'stop' })
})

t.test('a bit that flipped is found by its checksum where all is read', async t => {
  const dir = t.testdir({})
  const file = path.join(dir, 'x.pt')
  writePt(file, { model: stateDict(shapes) })
  const checkpoint = await openCheckpoint(file)
  await compareChecksums(checkpoint)
  const bytes = readFileSync(file)
  bytes[checkpoint.tensors.get('norm.weight')!.offset + 5]! ^= 4
  writeFileSync(file, bytes)
  const message = /zip entry "archive\/data\/10" does not match its checksum: the file is damaged, fetch it again/
  await t.rejects(compareChecksums(await openCheckpoint(file)), { code: 'BAD_CHECKPOINT', message },
    'loading does not look, this does')
  await t.rejects(convertCheckpoint(file, path.join(dir, 'x.safetensors'), { heads: 2, grid: 4 }),
    { code: 'BAD_CHECKPOINT', message })
  t.same(readdirSync(dir), ['x.pt'], 'nothing is left behind')
  await convertCheckpoint(file, path.join(dir, 'x.safetensors'), { heads: 2, grid: 4, checksum: false })
  writePt(file, { model: stateDict(shapes) }, { edit: items => items.map(item => ({ ...item, crc: 0 })) })
  await compareChecksums(await openCheckpoint(file))
  t.same((await openCheckpoint(file)).checked, [], 'a file without checksums has none to compare')
})

t.test('zips that are not as torch writes them', async t => {
  const dir = t.testdir({})
  const root = { w: py.tensor({ shape: [4] }) }
  const cases: Array<[string, PtOptions, RegExp]> = [
    ['big-endian', { byteOrder: 'big' }, /little-endian/],
    ['wrong checksum', { crc: 12345 }, /checksum/],
    ['compressed pickle',
      { edit: items => items.map(item => item.name.endsWith('data.pkl') ? { ...item, method: 8 } : item) },
      /compressed.*torch\.save/],
    ['compressed storage',
      { edit: items => items.map(item => item.name.endsWith('data/0') ? { ...item, method: 8 } : item) },
      /compressed.*zip -0/],
    ['no storage', { edit: items => items.filter(item => !item.name.endsWith('data/0')) },
      /tensor "w": its data .*data\/0"\) is missing/],
    ['no pickle', { edit: items => items.filter(item => !item.name.endsWith('data.pkl')) }, /without data\.pkl/],
    ['two pickles', { edit: items => [...items, { name: 'other/data.pkl', data: items[0]!.data }] },
      /more than one data\.pkl/],
    ['equal names', { edit: items => [...items, items[1]!] }, /two entries/],
    ['outside', { edit: items => [...items, { name: '../../etc/passwd', data: 4 }] }, /relative path/]
  ]
  for (const [name, options, message] of cases) {
    const file = path.join(dir, `${name}.pt`)
    writePt(file, root, options)
    await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message }, name)
  }
  const twice = path.join(dir, 'twice.pt')
  writePt(twice, { a: py.tensor({ shape: [1] }), 'module.a': py.tensor({ shape: [1] }) })
  await t.rejects(openCheckpoint(twice), { code: 'BAD_CHECKPOINT', message: /two tensors are called "a"/ })
})

t.test('what is no plain tensor does no harm unless it is needed', async t => {
  const file = path.join(t.testdir({}), 'odd.pt')
  const text = py.reduce(py.global('_codecs encode'), py.tuple('state', 'latin1')) // bytes, as protocol 2 has them
  const sparse = py.reduce(py.global('torch._utils _rebuild_sparse_tensor'),
    py.tuple(py.global('torch.sparse_coo'), py.tuple(py.tensor({ shape: [1] }))))
  const foreign = py.reduce(py.global('torch._utils _rebuild_tensor_v2'),
    py.tuple(text, 0, py.tuple(1), py.tuple(1), false, py.orderedDict([])))
  const odd = { 'module.layers.0._extra_state': text, 'ema.weight': sparse, 'mask.weight': foreign }
  writePt(file, { model: new Map([...stateDict(shapes), ...Object.entries(odd)]) })
  const checkpoint = await openCheckpoint(file)
  t.same([...checkpoint.tensors.keys()], [...shapes.keys()])
  t.match(Object.fromEntries(checkpoint.odd!),
    {
      'layers.0._extra_state': /_codecs encode/, 'ema.weight': /_rebuild_sparse_tensor/,
      'mask.weight': /storage is .*_codecs encode/
    })
  t.equal(describeTransformer(checkpoint, { heads: 2 }).n, 4)
  writePt(file, { model: new Map([...stateDict(shapes), ['output.weight', sparse]]) })
  const needed = await openCheckpoint(file)
  t.throws(() => describeTransformer(needed, { heads: 2 }),
    { code: 'BAD_CHECKPOINT', message: /"output\.weight" .*_rebuild_sparse_tensor.*plain/ })
  writePt(
    file, { model: new Map<string, unknown>([['a.weight', text], ['module.a.weight', py.tensor({ shape: [1] })]]) }
  )
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /two tensors are called "a\.weight"/ })
})

t.test('a file above 4 GiB: zip64, a sparse tensor, one behind it', async t => {
  const file = path.join(t.testdir({}), 'large.pt')
  const tail = values(6, 42)
  const elements = 1.25 * 2 ** 30
  const { size } = writePt(file, { model: {
    'big.weight': py.tensor({ shape: [elements / 1024, 1024], data: elements * 4 }),
    'tail.weight': py.tensor({ shape: [2, 3], data: new Uint8Array(tail.buffer) })
  } })
  t.ok(size > 5 * 2 ** 30, `${size} bytes`)
  const checkpoint = await openCheckpoint(file)
  t.equal(checkpoint.fileBytes, statSync(file).size)
  const { offset, bytes } = checkpoint.tensors.get('tail.weight')!
  t.ok(offset > 2 ** 32)
  const read = Buffer.alloc(bytes)
  const descriptor = openSync(file, 'r')
  readSync(descriptor, read, 0, bytes, offset)
  closeSync(descriptor)
  t.same([...new Float32Array(read.buffer, read.byteOffset, 6)], [...tail])
  t.equal(checkpoint.tensors.get('big.weight')!.bytes, 5 * 2 ** 30)
})

t.test('100,000 zip entries, most of them optimizer state that is never looked at', async t => {
  const file = path.join(t.testdir({}), 'many.pt')
  writePt(file, { model: stateDict(shapes) }, {
    alignment: 0,
    edit: items => [...items,
      ...Array.from({ length: 100_000 }, (_, i) => ({ name: `archive/data/more${i}`, data: 4 }))]
  })
  const before = process.memoryUsage().rss
  const start = Date.now()
  const checkpoint = await openCheckpoint(file)
  t.equal(checkpoint.tensors.size, shapes.size)
  t.comment(`${Date.now() - start} ms, ${Math.round((process.memoryUsage().rss - before) / 1e6)} MB`)
})

t.test('the event loop stays free while a large pickle is read', async t => {
  const file = path.join(t.testdir({}), 'long.pt')
  writePt(
    file,
    {
      model: stateDict(shapes),
      history: py.buffer(
        Buffer.concat([Buffer.from([0x5d, 0x28]), Buffer.alloc(2_000_000, Buffer.from([0x4b, 7])), Buffer.from([0x65])])
      )
    }
  )
  let ticks = 0
  const timer = setInterval(() => { ticks++ }, 1)
  await openCheckpoint(file)
  clearInterval(timer)
  t.ok(ticks >= 3, `${ticks} ticks`)
  const controller = new AbortController()
  const outcome = openCheckpoint(file, { signal: controller.signal })
  setTimeout(() => { controller.abort(new Error('stop')) }, 5)
  await t.rejects(outcome, { message: 'stop' })
})

t.test('a damaged checkpoint says what to do', async t => {
  const file = path.join(t.testdir({}), 'half.pt')
  writePt(file, { model: stateDict(shapes) })
  const { readFileSync } = await import('node:fs')
  const whole = readFileSync(file)
  writeFileSync(file, whole.subarray(0, whole.length / 2))
  await t.rejects(openCheckpoint(file), { code: 'BAD_CHECKPOINT', message: /truncated or damaged: fetch it again/ })
})
