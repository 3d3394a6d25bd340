// .npz and .npy files: NumPy's own, every type, and what a hostile one may say.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { ArrayFile } from '../../lib/pictures/npz.js'
import { temporaryFolder } from '../cli/run.js'
import { bytesOf, fixture, npy, rows, zip } from './arrays.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

async function numbers (file: string, name: string): Promise<number[]> {
  const arrays = await ArrayFile.open(file)
  try {
    const found: number[] = []
    for await (const { at, values } of arrays.numbers(name)) {
      if (at !== found.length) throw new Error(`a slice begins at ${at}, not at ${found.length}`)
      found.push(...values)
    }
    return found
  } finally {
    await arrays.close()
  }
}

async function open (bytes: Uint8Array): Promise<ArrayFile> {
  fs.writeFileSync(at('a'), bytes)
  return await ArrayFile.open(at('a'))
}

t.test('files of NumPy', async t => {
  const stored = await ArrayFile.open(fixture('many-generated.npz'))
  t.match(stored.arrays, [
    { name: 'features', shape: [240, 64], descr: '<f4', dtype: { kind: 'f', size: 4, big: false }, fortran: false },
    { name: 'probabilities', shape: [240, 10], count: 2400 }
  ])
  await stored.close()
  const deflated = await ArrayFile.open(fixture('odd-real.npz'))
  t.match(deflated.get('features'), { shape: [90, 24], descr: '>f8', dtype: { big: true } })
  t.equal(deflated.get('more'), undefined)
  await deflated.close()
  const alone = await ArrayFile.open(fixture('odd-generated.npy'))
  t.match(alone.arrays, [{ name: '', shape: [90, 24], fortran: true }])
  await alone.close()
  const deflatedNumbers = await numbers(fixture('odd-real.npz'), 'features')
  t.equal(deflatedNumbers.length, 90 * 24)
  t.same(deflatedNumbers.filter((_, k) => k % 24 === 11), Array(90).fill(2))
  const fortran = await numbers(fixture('odd-generated.npy'), '')
  t.same(fortran.slice(3 * 90, 4 * 90), Array(90).fill(0), 'in the order of the file')
})

t.test('types', async t => {
  const values = [0, 1, 2, 100, 90, 127]
  for (const type of ['i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8']) {
    const size = Number(type[1])
    for (const order of size === 1 ? ['|', '<'] : ['<', '>', '=']) {
      const data = Buffer.alloc(6 * size)
      values.forEach((value, k) => { data[k * size + (order === '>' ? size - 1 : 0)] = value })
      fs.writeFileSync(at('typed.npy'), npy(order + type, [2, 3], data))
      t.same(await numbers(at('typed.npy'), ''), values, order + type)
    }
  }
  const signed = { i1: [0xff], i2: [0xfe, 0xff], i4: [0xff, 0xff, 0xff, 0xff] }
  for (const [type, bytes] of Object.entries(signed)) {
    fs.writeFileSync(at('typed.npy'), npy(`<${type}`, [1], Uint8Array.from(bytes)))
    t.same(await numbers(at('typed.npy'), ''), [type === 'i2' ? -2 : -1], type)
  }
  const halves = Buffer.alloc(14)
  // 1, -2, the smallest and the largest number, infinity, NaN, -0
  ;[0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x7e00, 0x8000].forEach((bits, k) => halves.writeUInt16LE(bits, k * 2))
  fs.writeFileSync(at('half.npy'), npy('<f2', [7], halves))
  t.same(await numbers(at('half.npy'), ''), [1, -2, 2 ** -24, 65504, Infinity, NaN, -0])
  const big = Buffer.alloc(12)
  big.writeFloatBE(1.5, 0)
  big.writeDoubleBE(-0.1, 4)
  const entries = { 'a.npy': npy('>f4', [1], big.subarray(0, 4)), 'b.npy': npy('>f8', [], big.subarray(4)) }
  fs.writeFileSync(at('b.npz'), zip(entries))
  t.same([await numbers(at('b.npz'), 'a'), await numbers(at('b.npz'), 'b')], [[1.5], [-0.1]])
})

t.test('slices of whole pictures, first to last', async t => {
  const data = Uint8Array.from({ length: 700 * 3000 }, (_, k) => k % 251)
  for (const deflate of [false, true]) {
    fs.writeFileSync(at('many.npz'), zip({ 'arr_0.npy': npy('|u1', [700, 10, 100, 3], data), 'arr_1.npy':
      npy('<i8', [0], new Uint8Array(0)) }, deflate))
    const arrays = await ArrayFile.open(at('many.npz'))
    let done = 0
    let slices = 0
    for await (const slice of arrays.slices('arr_0', 3000)) {
      t.equal(slice.length % 3000, 0)
      t.ok(slice.equals(data.subarray(done, done + slice.length)))
      done += slice.length
      slices++
    }
    t.equal(done, data.length)
    t.ok(slices > 1, 'the whole is never held')
    for await (const slice of arrays.slices('arr_0', 3000)) { // one may stop early, and begin again
      t.equal(slice[1], 1)
      break
    }
    await arrays.close()
  }
})

t.test('a zip file of more than 4 GiB, as far as it says', async t => {
  // Sizes and places of 8 bytes, as zipfile writes them for entries that may become large.
  const own = npy('<f8', [2], bytesOf([3, 4]))
  const plain = zip({ 'x.npy': own })
  const start = plain.indexOf('PK\x01\x02')
  const central = Buffer.from(plain.subarray(start, start + 46 + 5))
  central.writeUInt32LE(0xffffffff, 20)
  central.writeUInt32LE(0xffffffff, 24)
  central.writeUInt32LE(0xffffffff, 42)
  central.writeUInt16LE(28, 30)
  const extra = Buffer.alloc(28)
  extra.writeUInt16LE(1, 0)
  extra.writeUInt16LE(24, 2)
  extra.writeBigUInt64LE(BigInt(own.length), 4)
  extra.writeBigUInt64LE(BigInt(own.length), 12)
  extra.writeBigUInt64LE(0n, 20)
  const end = Buffer.alloc(56 + 20)
  end.write('PK\x06\x06', 'latin1')
  end.writeBigUInt64LE(44n, 4)
  end.writeBigUInt64LE(1n, 24)
  end.writeBigUInt64LE(1n, 32)
  end.writeBigUInt64LE(BigInt(central.length + 28), 40)
  end.writeBigUInt64LE(BigInt(start), 48)
  end.write('PK\x06\x07', 56, 'latin1')
  end.writeBigUInt64LE(BigInt(start + central.length + 28), 64)
  end.writeUInt32LE(1, 72)
  const last = Buffer.alloc(22, 0xff)
  last.write('PK\x05\x06', 'latin1')
  last.fill(0, 4, 8)
  last.fill(0, 20)
  fs.writeFileSync(at('zip64.npz'), Buffer.concat([plain.subarray(0, start), central, extra, end, last]))
  t.same(await numbers(at('zip64.npz'), 'x'), [3, 4])
})

t.test('what stands beside', async t => {
  const arrays = await open(zip({
    'arr_0.npy': rows([[1, 2]]), 'labels.npy': npy('<U3', [1], new Uint8Array(12)), 'read.me': Buffer.from('me'),
    'objects.npy': npy('|O', [1], new Uint8Array(99)), 'truth.npy': npy('|b1', [2], new Uint8Array(2)),
    'records.npy': Buffer.from(npy('<i4', [1], bytesOf([0])).toString('latin1').replace("'<i4'", "[('')"), 'latin1')
  }))
  t.same(arrays.arrays.map(({ name, dtype }) => [name, dtype !== undefined]),
    [['arr_0', true], ['labels', false], ['objects', false], ['truth', false], ['records', false]])
  await arrays.close()
  const empty = await open(zip({}))
  t.same(empty.arrays, [])
  await empty.close()
})

t.test('hostile files', async t => {
  const good = rows([[1, 2, 3], [4, 5, 6]])
  const refused = async (bytes: Uint8Array, message: RegExp, name?: string): Promise<void> => {
    const work = async (): Promise<void> => {
      const arrays = await open(bytes)
      try {
        for await (const each of arrays.numbers(name ?? arrays.arrays[0]!.name)) t.ok(each.values.length <= 6)
      } finally {
        await arrays.close()
      }
    }
    await t.rejects(work(), { code: 'BAD_ARRAY', message }, String(message))
  }
  await refused(Buffer.from('no array'), /\/a is no \.npz and no \.npy file/)
  await refused(new Uint8Array(0), /no \.npz and no \.npy/)
  await refused(Buffer.from('PK\x03\x04 and no more'), /cannot be read as a zip file/)
  for (const whole of [zip({ 'x.npy': good }), zip({ 'x.npy': good }, true), good]) {
    for (let length = 6; length < whole.length; length += 7) {
      await refused(whole.subarray(0, length), /truncated|damaged/)
    }
    if (whole !== good) await refused(whole.subarray(0, whole.length - 1), /truncated|damaged/)
  }
  await refused(zip({ 'x.npy': Buffer.from('no array at all') }), /array "x" is no \.npy file/)
  await refused(npy('<f8', [3, 3], bytesOf([1, 2])), /72 bytes, but 16 follow/)
  await refused(npy('<f8', [1], bytesOf([1, 2])), /8 bytes, but 16 follow/)
  await refused(npy('<f8', [2 ** 40, 2 ** 40], bytesOf([1, 2])), /bytes, but 16 follow/)
  await refused(npy('<f8', Array<number>(40).fill(1), bytesOf([1])), /40 axes/)
  const header = (text: string): Buffer => {
    const own = Buffer.from(good)
    own.write(text.padEnd(117), 10, 'latin1')
    return own
  }
  await refused(header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 6)}"), /without a shape/)
  await refused(header("{'descr': '<f8', 'fortran_order': __import__('os')}"), /without True or False/)
  const version = Buffer.from(good)
  version[6] = 9
  await refused(version, /version 9\.0/)
  const long = Buffer.from(good)
  long[6] = 2
  long.writeUInt32LE(2 ** 31, 8)
  await refused(long, /at most 65536/)

  await refused(zip([['x.npy', good], ['x.npy', good]]), /two entries are called "x\.npy"/)
  await refused(zip([['../x.npy', good]]), /cannot be read as a zip file/)
  await refused(zip([['x.npy', good, { flags: 1, compressedSize: good.length + 12 }]]), /is encrypted/)
  await refused(zip([['x.npy', good, { method: 12 }]]), /compressed by method 12/)
  await refused(zip([['x.npy', good, { crc: 7 }]]), /checksum is wrong/)
  await refused(zip([['x.npy', good, { crc: 7 }]], true), /checksum is wrong/)
  await refused(zip([['x.npy', good, { size: good.length + 9 }]]), /cannot|claims/)
  await refused(zip([['x.npy', good, { size: good.length + 9 }]], true), /bytes follow the header|damaged/)
  await refused(zip([['x.npy', good, { size: 2 ** 31 }]], true), /claims 2147483648 bytes, which \d+ in a file/)
  await refused(zip([['x.npy', good, { compressedSize: 2 ** 31, size: 2 ** 31 }]]), /damaged/)
  await refused(zip([['x.npy', good, { method: 8 }]]), /damaged/)
  const bomb = npy('<f8', [1 << 16], bytesOf(Array<number>(1 << 16).fill(0)))
  await refused(zip([['x.npy', bomb, { size: 200 }]], true), /truncated|damaged/)
  const evil = zip({ '\u001b[2Jx.npy': Buffer.from('no array at all') })
  await t.rejects(open(evil), { message: /^[^\u001b]+x" is no \.npy/ }, 'no name commands a terminal')
})

t.test('what is no file', async t => {
  await t.rejects(ArrayFile.open(at('nowhere.npz')), { code: 'FILE_NOT_FOUND' })
  await t.rejects(ArrayFile.open(folder), { code: 'FILE_NOT_FOUND', message: /a folder/ })
  await t.rejects(ArrayFile.open('/dev/null'), { code: 'FILE_NOT_FOUND', message: /no regular file/ })
  await new Promise((resolve, reject) => execFile('mkfifo', [at('pipe')], error => error ? reject(error) : resolve(0)))
  await t.rejects(ArrayFile.open(at('pipe')), { code: 'FILE_NOT_FOUND', message: /no regular file/ })
  const aborted = AbortSignal.abort(new Error('enough'))
  await t.rejects(ArrayFile.open(fixture('many-real.npz'), aborted), { message: 'enough' })
})
