// .npy files: those that NumPy wrote (their bytes are below), every type and order, and all that a hostile one may say.

import t from 'tap'
import { readNpy, writeNpy } from '../lib/pictures/npy.js'

function npy (header: string, data: Uint8Array, version = 1): Buffer {
  const text = Buffer.from(header, 'latin1')
  const length = Buffer.alloc(version === 1 ? 2 : 4)
  if (version === 1) length.writeUInt16LE(text.length)
  else length.writeUInt32LE(text.length)
  return Buffer.concat([Buffer.from(`\x93NUMPY${String.fromCharCode(version)}\0`, 'latin1'), length, text, data])
}

const dictionary = (descr: string, shape = '(2, 3)', fortran = 'False'): string =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`

t.test('a file of NumPy', async t => {
  // np.save of np.array([[1, 2, 3], [4, 5, 60000]], np.uint16), and of np.asfortranarray of it (NumPy 1.24.2)
  const head = '934e554d5059010076007b276465736372273a20273c7532272c2027666f727472616e5f6f72646572273a20'
  const file = (order: string, data: string): Buffer => {
    const start = Buffer.from(head, 'hex')
    const rest = Buffer.from(`${order}, 'shape': (2, 3), }`, 'latin1')
    const pad = Buffer.alloc(128 - start.length - rest.length, ' ')
    pad[pad.length - 1] = 10
    return Buffer.concat([start, rest, pad, Buffer.from(data, 'hex')])
  }
  const expected = { data: Int32Array.of(1, 2, 3, 4, 5, 60000), shape: [2, 3] }
  t.same(await readNpy(file('False', '010002000300040005' + '0060ea'), 'a'), expected)
  t.same(await readNpy(file('True', '010004000200050003' + '0060ea'), 'a'), expected, 'Fortran order')
})

t.test('types, orders, versions', async t => {
  const values = [0, 1, 2, 100, 90, 127]
  for (const type of ['i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8']) {
    const size = Number(type[1])
    for (const order of size === 1 ? ['|', '<'] : ['<', '>', '=']) {
      const data = Buffer.alloc(values.length * size)
      values.forEach((value, k) => { data[k * size + (order === '>' ? size - 1 : 0)] = value })
      t.same((await readNpy(npy(dictionary(order + type), data), 'a')).data, Int32Array.from(values), order + type)
    }
  }
  const data = Buffer.from(new Int32Array(24).map((_, k) => k).buffer)
  t.same((await readNpy(npy(dictionary('<i4', '(2, 3, 4)'), data), 'a')).data,
    Int32Array.from({ length: 24 }, (_, k) => k))
  t.same((await readNpy(npy(dictionary('<i4', '(2, 3, 4)', 'True'), data), 'a')).data,
    Int32Array.from({ length: 24 }, (_, k) => Math.floor(k / 12) + Math.floor(k / 4) % 3 * 2 + k % 4 * 6),
    'three axes, the first fastest')
  t.same((await readNpy(npy(dictionary('<i4', '(24,)'), data, 2), 'a')).shape, [24])
  t.same((await readNpy(npy(dictionary('<i4', '(24,)'), data, 3), 'a')).shape, [24])
  t.same((await readNpy(npy("{ 'shape':(24,),\"descr\":\"<i4\", 'fortran_order':False}", data), 'a')).shape, [24],
    'entries in another order')
  t.same(await readNpy(npy(dictionary('<i4', '()'), data.subarray(4, 8)), 'a'), { data: Int32Array.of(1), shape: [] })
})

t.test('what is written is read', async t => {
  for (const shape of [[6], [2, 3], [1, 2, 3]]) {
    const whole = { data: Int32Array.of(5, 4, 3, 2, 1, 16383), shape }
    const file = writeNpy(whole)
    t.equal((file.length - 24) % 64, 0, 'aligned')
    t.equal(file[file.length - 25], 10)
    t.same(await readNpy(file, 'a'), whole)
  }
})

t.test('hostile files', async t => {
  const six = new Uint8Array(24)
  const refused = async (file: Uint8Array, message: RegExp): Promise<void> => {
    await t.rejects(readNpy(file, 'x.npy'), { code: 'BAD_TOKENS', message }, String(message))
  }
  await refused(Buffer.from('no array'), /^x\.npy: is no \.npy file/)
  await refused(npy(dictionary('<f4'), six), /holds <f4; tokens are whole numbers/)
  await refused(npy(dictionary('|O'), six), /Python objects, which are never loaded/)
  await refused(npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (6,), }", six), /records/)
  await refused(npy(dictionary('|i4'), six), /no byte order/)
  await refused(npy(dictionary('<i4', '(7,)'), six), /28 bytes, but 24 follow/)
  await refused(npy(dictionary('<i4', '(5,)'), six), /20 bytes, but 24 follow/)
  await refused(npy(dictionary('<i4', '(999999999999999, 999999999999999)'), six), /at most/)
  await refused(npy(dictionary('<i4', '(-1, 6)'), six), /without a shape/)
  await refused(npy(dictionary('<i4', `(${'1, '.repeat(40)})`), new Uint8Array(4)), /40 axes/)
  await refused(npy(dictionary('<i4', '__import__("os")'), six), /without a shape/)
  await refused(npy(dictionary('<i4') + 'more', six), /goes on after its end/)
  await refused(npy("{'descr': '<i4', 'descr': '<i4'}", six), /entry descr/)
  await refused(npy("{'descr': '<i4'}", six), /without descr, fortran_order and shape/)
  await refused(npy("{'colour': 1}", six), /entry colour/)
  await refused(npy(dictionary('<i4'), six, 4), /version 4\.0/)
  await refused(npy(`{${' '.repeat(70000)}`, six, 2), /at most 65536/)
  await refused(npy(dictionary('<i4', '(6,)'), Buffer.from(Int32Array.of(0, 1, -1, 3, 4, 5).buffer)),
    /holds -1 at place 2/)
  await refused(npy(dictionary('<i8', '(1,)'), Buffer.from(BigInt64Array.of(2n ** 53n + 1n).buffer)), /at place 0/)
  await refused(npy(dictionary('<u4', '(1,)'), Buffer.from(Uint32Array.of(2 ** 31).buffer)), /2147483648 at place 0/)
  const good = npy(dictionary('<i4'), six)
  for (let length = 0; length < good.length; length++) await refused(good.subarray(0, length), /x\.npy: /)
  // A shape of a long, almost right text is read in no time.
  const started = performance.now()
  await refused(npy(dictionary('<i4', '(' + ' '.repeat(60000)), six), /without a shape/)
  await refused(npy(dictionary('<i4', '(' + '1,'.repeat(30000)), six), /without a shape/)
  t.ok(performance.now() - started < 500)
})
