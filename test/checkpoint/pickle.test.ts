// Pickles that try to run code, to exhaust memory or time, or to break the reader. None may run anything.

import { existsSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { describeTransformer, openCheckpoint, type Checkpoint } from '../../lib/checkpoint/index.js'
import { Bytes, FrozenSet, Global, Inert, readPickle, Tuple } from '../../lib/checkpoint/pickle.js'
import { Pickler, Py, py, writePickle, writePt } from '../support/pt-writer.js'
import { judge, stateDict, transformerShapes } from './tiny.js'

const read = async (bytes: Buffer, maxHeap?: number): Promise<unknown> =>
  await readPickle(bytes, { file: 'test.pkl', construct: () => undefined, maxHeap })
const hex = (text: string): Buffer => Buffer.from(text.replace(/\s/g, ''), 'hex')
const refused = (message: RegExp): { name: string, code: string, message: RegExp } =>
  ({ name: 'ParError', code: 'BAD_CHECKPOINT', message })

t.test('values', async t => {
  const cases: Array<[string, string, unknown]> = [
    // Bytes by Python's pickle.dumps(value, protocol).hex().
    ['None, 2', '80024e2e', null],
    ['True, 2', '8002882e', true],
    ['-1, 2', '80024affffffff2e', -1],
    ['255, 4', '80044bff2e', 255],
    ['65535, 2', '80024dffff2e', 65535],
    ['2**40, 2', '80028a060000000000012e', 2 ** 40],
    ['2**64, 2', '80028a090000000000000000012e', 2n ** 64n],
    ['-2**63, 2', '80028a0800000000000000802e', -(2n ** 63n)],
    ['128 as LONG1', '80028a0280002e', 128],
    ['-128 as LONG1', '80028a01802e', -128],
    ['empty LONG1', '80028a002e', 0],
    ['1.5, 2', '8002473ff80000000000002e', 1.5],
    ["'h\u00e9', 2", '8002580300000068c3a971002e', 'h\u00e9'],
    ["'h\u00e9', 4", '80049507000000000000008c0368c3a9942e', 'h\u00e9'],
    ['[1, [2]], 2', '80025d7100284b015d71014b0261652e', [1, [2]]],
    ["{'a': {}}, 4", '8004950a000000000000007d948c0161947d94732e', new Map([['a', new Map()]])],
    ['{1, 2}, 4', '80049509000000000000008f94284b014b02902e', new Set([1, 2])],
    ['frozenset([1]), 4', '8004950600000000000000284b0191942e', new FrozenSet([1])],
    ['{frozenset([1]): 2}', '80047d284b01914b02732e', new Map([[new FrozenSet([1]), 2]])],
    ["b'ab', 3", '8003430261627100 2e', new Bytes(2, Buffer.from('ab'))],
    ["bytearray(b'ab'), 5", '8005950d000000000000009602000000000000006162942e', new Bytes(2, Buffer.from('ab'))],
    ['(1, 2, 3), 2', '80024b014b024b03877100 2e', new Tuple([1, 2, 3])],
    ['(1, 2, 3, 4), 2', '8002284b014b024b034b0474710 02e', new Tuple([1, 2, 3, 4])],
    ['os.system, 2', '800263706f7369780a73797374656d0a71002e', new Global('posix', 'system')],
    ['DUP, POP, POP_MARK', '80024b0132 30 284b02 31 2e', 1],
    ['INST', '8002284b01 696f730a73797374656d0a 2e', new Inert('os system', new Tuple([1]))],
    // pickle.dumps([True, False, 2**40, -2**40], 1), and by hand what else protocol 1 has
    ['protocol 1', '5d71002849' + '30310a' + '49' + '30300a' + '4c' + '313039393531313632373737364c0a' + '4c' +
      '2d313039393531313632373737364c0a' + '652e', [true, false, 2 ** 40, -(2 ** 40)]],
    ['FLOAT', '80025d28' + '46312e350a' + '462d696e660a' + '652e', [1.5, -Infinity]],
    ['OBJ', '800228 636f730a73797374656d0a 4b01 6f 2e', new Inert('os system', new Tuple([1]))]
  ]
  for (const [name, bytes, expected] of cases) t.strictSame(await read(hex(bytes)), expected, name)
})

t.test('damaged pickles', async t => {
  const cases: Array<[string, string, RegExp]> = [
    ['nothing', '', /it ends inside/],
    ['protocol 0', '80004e2e', /protocol 0/],
    ['protocol 9', '80094e2e', /protocol 9/],
    ['no STOP', '80024e', /it ends inside/],
    ['empty stack', '80022e', /stack is empty/],
    ['below a mark', '80024b01284b0286742e', /stack is empty/],
    ['no mark', '8002742e', /mark is missing/],
    ['memo never set', '800268072e', /memo 7/],
    ['odd dict', '80027d284b01752e', /no value/],
    ['append to a number', '80024b014b02612e', /no list/],
    ['items of a list', '80025d4b014b02732e', /no dict/],
    ['call of a number', '80024b0129522e', /no global name/],
    ['name without end', '800263' + '61'.repeat(2000), /without end/],
    ['text longer than the file', '800258ffffffff61', /announces 4294967295 bytes where 1/],
    ['text of 2^63', '80048d0000000000000080612e', /announces/],
    ['LONG4 longer than the file', '80028bffffff7f00', /announces/],
    ['extension code', '800282052e', /0x82/],
    ['out-of-band buffer', '8005972e', /0x97/],
    ['text opcode', '800253' + '2761270a2e', /0x53/],
    ['an INT that is none', '800249780a2e', /integer that is none/],
    ['a list as a key', '80027d5d4b01732e', /a list as a key of a dict/],
    ['a dict as a key', '80027d7d4b01732e', /a dict as a key of a dict/],
    ['a set as a key', '80047d8f4b01732e', /a set as a key of a dict/],
    ['a list as a member', '80048f285d902e', /a list as a key of a dict or a member of a set/],
    ['a dict in a frozenset', '8004287d912e', /a dict as a key/],
    ['a frozenset that grows', '80042891284b01902e', /no list/]
  ]
  for (const [name, bytes, message] of cases) await t.rejects(read(hex(bytes)), refused(message), name)
  await t.rejects(read(Buffer.concat([hex('80028b'), Buffer.from([0, 0, 16, 0]), Buffer.alloc(1 << 20, 0x7f)])),
    refused(/integer of 1048576 bytes/), 'a huge LONG4')
})

t.test('bombs', async t => {
  const many = (pattern: number[], times: number): Buffer => Buffer.alloc(pattern.length * times, Buffer.from(pattern))
  await t.rejects(read(Buffer.concat([hex('8002'), many([0x7d], 3_000_000), hex('2e')])), refused(/more than 256 MB/),
    'millions of dicts')
  await t.rejects(read(Buffer.concat([hex('8002'), many([0x4e], 5_000_000), hex('2e')])), refused(/stack grows/),
    'millions of values')
  await t.rejects(read(Buffer.concat([hex('8002'), many([0x28], 5_000_000), hex('2e')])), refused(/open marks/),
    'millions of marks')
  await t.rejects(read(Buffer.concat([hex('80024e'), many([0x94], 2_000_000), hex('2e')]), 12e6),
    refused(/more than 12 MB/), 'millions of memos')
  await t.rejects(read(Buffer.concat([hex('8002'), many([0x4e, 0x30], 33_000_000), hex('2e')])),
    refused(/64000000 steps/), 'millions of steps')
  const far = Buffer.concat(Array.from({ length: 300_000 },
    (_, i) => { const put = Buffer.from([0x72, 0, 0, 0, 0]); put.writeUInt32LE(i * 1000, 1); return put }))
  await t.rejects(read(Buffer.concat([hex('80024e'), far, hex('2e')])), refused(/more than 256 MB/),
    'memos far from each other')
  const keys = Buffer.concat(Array.from({ length: 1_000_001 },
    (_, i) => { const pair = Buffer.from([0x4a, 0, 0, 0, 0, 0x4e]); pair.writeInt32LE(i, 1); return pair }))
  await t.rejects(read(Buffer.concat([hex('80027d28'), keys, hex('752e')])), refused(/more than 1000000 entries/),
    'a dict of a million entries and one')
  const call = Buffer.concat([hex('28636d6d0a580a'), many([0x4e], 3_900_000), hex('6f30')])
  const kept = Buffer.concat([hex('28636d6d0a580a'), many([0x4e], 3_000_000), hex('6f7100')])
  await t.rejects(read(Buffer.concat([hex('8002'), ...Array<Buffer>(12).fill(call), hex('4e2e')])),
    refused(/more than 256 MB/), 'calls with millions of arguments')
  await t.rejects(read(Buffer.concat([hex('8002'), ...Array<Buffer>(12).fill(kept), hex('2e')])),
    refused(/more than 256 MB/), 'such calls, kept')
  const nested = await read(Buffer.concat([hex('8002'), many([0x5d], 1_000_000), many([0x61], 999_999), hex('2e')]))
  t.ok(Array.isArray(nested), 'a list a million deep is read, not recursed into')
})

t.test('code is never run: it is inert beside the weights, and an error that names it among them', async t => {
  const dir = t.testdir({})
  const marker = path.join(dir, 'ran')
  const command = py.tuple(`touch ${marker}`)
  const exec = py.tuple(`require("fs").writeFileSync(${JSON.stringify(marker)}, "")`)
  const getattr = py.reduce(py.global('builtins getattr'),
    py.tuple(py.reduce(py.global('builtins __import__'), py.tuple('os')), 'system'))
  const attacks: Array<[string, unknown, RegExp]> = [
    ['system', py.reduce(py.global('posix system'), command), /posix system/],
    ['exec', py.reduce(py.global('builtins exec'), exec), /builtins exec/],
    ['eval', py.reduce(py.stackGlobal('builtins eval'), exec), /builtins eval/],
    ['Function', py.reduce(py.global('constructor constructor'), exec), /constructor constructor/],
    ['nested getattr', py.reduce(getattr, command), /builtins getattr/],
    ['setstate', py.build(py.newObject(py.global('evil Thing'), py.tuple()),
      { __setstate__: py.global('posix system') }), /evil Thing/],
    ['subprocess', py.newObject(py.global('subprocess Popen'), py.tuple([`touch ${marker}`])), /subprocess Popen/],
    ['numpy', py.reduce(py.global('numpy.core.multiarray scalar'), py.tuple(1)), /numpy\.core\.multiarray scalar/],
    ['partial', py.reduce(py.reduce(py.global('functools partial'), py.tuple(py.global('posix system'))), command),
      /functools partial/]
  ]
  const shapes = transformerShapes()
  const hooks = py.orderedDict([])
  const rebuild = (...args: unknown[]): Py => py.reduce(py.global('torch._utils _rebuild_tensor_v2'), py.tuple(...args))
  for (const [name, attack, message] of attacks) {
    const storage = py.persistent(py.tuple('storage', py.global('torch FloatStorage'), '0', 'cpu', 1))
    const places: Array<[string, unknown]> = [
      ['a tensor', { model: { ...Object.fromEntries(stateDict(shapes)), 'x.weight': attack } }],
      ['all tensors', { model: { 'x.weight': attack } }],
      ['at the top', { 'x.weight': attack }],
      ['the model', { model: attack }],
      ['everything', attack],
      ['in a parameter',
        { 'x.weight': py.reduce(py.global('torch._utils _rebuild_parameter'), py.tuple(attack, true, hooks)) }],
      ['the storage', { 'x.weight': rebuild(attack, 0, py.tuple(1), py.tuple(1), false, hooks) }],
      ['the storage reference',
        { 'x.weight': rebuild(py.persistent(attack), 0, py.tuple(1), py.tuple(1), false, hooks) }],
      ['the storage key',
        { 'x.weight': rebuild(py.persistent(py.tuple('storage', py.global('torch FloatStorage'), attack, 'cpu', 1)), 0,
          py.tuple(1), py.tuple(1), false, hooks) }],
      ['the storage class',
        { 'x.weight': rebuild(py.persistent(py.tuple('storage', attack, '0', 'cpu', 1)), 0, py.tuple(1), py.tuple(1),
          false, hooks) }],
      ['the offset',
        { 'x.weight': rebuild(storage, attack, py.tuple(1), py.tuple(1), false, hooks), y: py.tensor({ shape: [1] }) }],
      ['a size',
        { 'x.weight': rebuild(storage, 0, py.tuple(attack), py.tuple(1), false, hooks), y: py.tensor({ shape: [1] }) }],
      ['the strides',
        { 'x.weight': rebuild(storage, 0, py.tuple(1), attack, false, hooks), y: py.tensor({ shape: [1] }) }]
    ]
    for (const [place, root] of places) {
      const file = path.join(dir, 'attack.pt')
      writePt(file, root)
      const opened = await openCheckpoint(file).catch((error: unknown) => error)
      // Beside tensors it is told of, not fatal: the model may not need it.
      if (opened instanceof Error) t.match(opened, refused(message), `${name}: ${place}`)
      else t.match((opened as Checkpoint).odd!.get('x.weight'), message, `${name}: ${place}`)
    }
    const needed = path.join(dir, 'needed.pt')
    writePt(needed, { model: new Map([...stateDict(shapes), ['norm.weight', attack]]) })
    const checkpoint = await openCheckpoint(needed)
    t.throws(() => describeTransformer(checkpoint, { heads: 2 }),
      refused(new RegExp(`"norm\\.weight".*${message.source}`)), `${name}: needed`)
    const file = path.join(dir, 'beside.pt')
    writePt(
      file,
      {
        model: stateDict(shapes), hook: attack, args: py.namespace({ image_size: 384, callback: attack }),
        optimizer: attack
      }
    )
    const { tensors, metadata } = await openCheckpoint(file)
    t.equal(tensors.size, shapes.size)
    t.match((metadata.hook as { global: string }).global, message, `${name}: inert beside the weights`)
    t.equal((metadata.args as Record<string, unknown>).image_size, 384)
  }
  t.notOk(existsSync(marker), 'nothing ran')
})

t.test('graphs that grow or loop are cut in the metadata', async t => {
  const dir = t.testdir({})
  const model = stateDict(transformerShapes())
  const file = path.join(dir, 'graph.pt')
  // Each list holds the one before twice (60 levels), kept in the memo; then a list that holds itself.
  const laughs = [0x5d, 0x71, 0]
  for (let i = 1; i < 60; i++) laughs.push(0x30, 0x5d, 0x71, i, 0x28, 0x68, i - 1, 0x68, i - 1, 0x65)
  writePt(file, { model, laughs: py.raw(...laughs), loop: py.raw(0x5d, 0x72, 0, 1, 0, 0, 0x6a, 0, 1, 0, 0, 0x61) })
  const { metadata } = await openCheckpoint(file)
  t.ok(JSON.stringify(metadata).length < 1e6)
  t.match(JSON.stringify(metadata.loop), /\.\.\./)
})

t.test('a small file with a large text in it many times', async t => {
  const file = path.join(t.testdir({}), 'text.pt')
  const text = Buffer.alloc(5 + 10_000, 'x')
  text.writeUInt8(0x58)
  text.writeUInt32LE(10_000, 1)
  const list = Buffer.concat([Buffer.from('](', 'latin1'), Buffer.alloc(2 * 19_900, Buffer.from('h\x00')),
    Buffer.from('e')])
  const lists = Array.from({ length: 60 }, (_, i) => [`list ${i}`, py.buffer(list)] as const)
  writePt(file, new Map<string, unknown>([
    ['text', py.buffer(Buffer.concat([text, Buffer.from('q\x00', 'latin1')]))], ...lists,
    ['model', stateDict(transformerShapes())], ['args', py.namespace({ image_size: 384 })]
  ]))
  const { metadata } = await openCheckpoint(file)
  t.ok(JSON.stringify(metadata).length < 5e6, 'the listing is cut')
  t.match(metadata.text, /^x{10000}$/)
  t.same({ ...metadata.args as object }, { image_size: 384 }, 'what comes after long values is still read')
})

t.test('keys that would change prototypes are only keys', async t => {
  const file = path.join(t.testdir({}), 'proto.pt')
  const model = new Map<unknown, unknown>([...stateDict(transformerShapes()), ['__proto__', py.tensor({ shape: [1] })],
    ['constructor', py.tensor({ shape: [2] })]])
  writePt(file, new Map<unknown, unknown>([['model', model], ['__proto__', new Map([['polluted', 1]])],
    ['args', py.namespace(new Map([['__proto__', new Map([['polluted', 1]])]]) as never)]]))
  const { tensors, metadata } = await openCheckpoint(file)
  t.equal(({} as Record<string, unknown>).polluted, undefined)
  t.same(tensors.get('__proto__')!.shape, [1])
  t.equal(Object.getPrototypeOf(metadata), null)
  t.equal((metadata.args as Record<string, unknown>).polluted, undefined)
})

t.test('a list of a million levels in a checkpoint', async t => {
  const file = path.join(t.testdir({}), 'deep.pt')
  const deep = Buffer.concat([Buffer.alloc(1_000_000, 0x5d), Buffer.alloc(999_999, 0x61)])
  writePt(file, { model: stateDict(transformerShapes()), deep: py.buffer(deep) })
  await judge(file)
  const { pickle, storages } = Pickler.dump(py.buffer(deep))
  writePickle(file, pickle, storages)
  await t.rejects(openCheckpoint(file), refused(/no weights found: the file holds a list/))
})
