// Damaged files by the thousand: every truncation, every length and offset field set to something else, bits flipped at
// random. Each must end in a ParError or in a checkpoint whose tensors lie inside the file (`judge`), and soon.

import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { openCheckpoint, type Checkpoint } from '../../lib/checkpoint/index.js'
import { ParError } from '../../lib/base/errors.js'
import { golden } from '../support/golden.js'
import { Pickler, py, writePickle, writePt, type Field } from '../support/pt-writer.js'
import { judge, random, safetensorsFile, stateDict, tile, transformerShapes } from './tiny.js'

const shapes = transformerShapes({ dim: 4, feedForward: 4, vocabulary: 2, classes: 1 })
const { entries, bytes } = tile(shapes)
const safetensors = safetensorsFile(
  { __metadata__: { parvis: '{"kind":"transformer","heads":1,"grid":[4,4]}' }, ...entries }, bytes
)
const checkpointRoot = (): unknown => ({ model: stateDict(shapes), steps: 7, args: py.namespace({ image_size: 128 }) })

/** Where all tensors lie, as one text. */
function places (checkpoint: Checkpoint): string {
  return JSON.stringify([...checkpoint.tensors.values(), ...checkpoint.others.values()])
}

/**
 * Judges one file after another at the same path; counts what was refused. `expected`: what is read must be those
 * places, since wrong weights are worse than none.
 */
async function sweep (
  t: Test, file: string, original: Buffer, cases: Iterable<(copy: Buffer) => Buffer>, expected?: string
): Promise<{ refused: number, read: number }> {
  const counts = { refused: 0, read: 0 }
  const descriptor = openSync(file, 'w')
  for (const change of cases) {
    const damaged = change(Buffer.from(original))
    ftruncateSync(descriptor, damaged.length)
    writeSync(descriptor, damaged, 0, damaged.length, 0)
    const outcome = await judge(file).catch((error: unknown) => {
      writeFileSync(`${file}.failed`, damaged)
      throw error
    })
    if (outcome instanceof ParError) counts.refused++
    else {
      counts.read++
      if (expected !== undefined && places(outcome) !== expected) {
        writeFileSync(`${file}.failed`, damaged)
        throw new Error(`tensors moved: ${file}.failed`)
      }
    }
  }
  closeSync(descriptor)
  t.comment(`${counts.refused} refused, ${counts.read} read`)
  return counts
}

function * truncations (size: number, step: number): Iterable<(copy: Buffer) => Buffer> {
  for (let length = 0; length < size; length += step) yield copy => copy.subarray(0, length)
}

function * fieldChanges (fields: Field[], size: number): Iterable<(copy: Buffer) => Buffer> {
  for (const { offset, width } of fields) {
    const max = 256n ** BigInt(width) - 1n
    const read = (copy: Buffer): bigint =>
      width === 8 ? copy.readBigUInt64LE(offset) : BigInt(copy.readUIntLE(offset, width))
    const write = (copy: Buffer, value: bigint): Buffer => {
      const masked = value & max
      if (width === 8) copy.writeBigUInt64LE(masked, offset)
      else copy.writeUIntLE(Number(masked), offset, width)
      return copy
    }
    for (const value of [0n, 1n, max, max - 1n, max >> 1n, BigInt(size), 1n << 53n]) yield copy => write(copy, value)
    for (const change of [-64n, -8n, -1n, 1n, 8n, 64n]) yield copy => write(copy, read(copy) + change)
  }
}

function * bitFlips (from: number, to: number, count: number, seed: number): Iterable<(copy: Buffer) => Buffer> {
  const next = random(seed)
  for (let i = 0; i < count; i++) {
    yield copy => {
      for (let flips = 1 + Math.floor(next() * 3); flips > 0; flips--) {
        const at = from + Math.floor(next() * (to - from))
        if (next() < 0.5) copy[at]! ^= 1 << Math.floor(next() * 8)
        else copy[at] = next() < 0.3 ? 0xff : Math.floor(next() * 256)
      }
      return copy
    }
  }
}

for (const zip64 of [false, true]) {
  t.test(`a small .pt${zip64 ? ' with zip64' : ''}: truncations, fields, bits`, async t => {
    const file = path.join(t.testdir({}), 'x.pt')
    const { size, fields } = writePt(file, checkpointRoot(), { zip64, alignment: zip64 ? 0 : 8, byteOrder: 'little' })
    const original = readFileSync(file)
    const expected = places(await judge(file) as Checkpoint)
    const { read } = await sweep(t, file, original, truncations(size, zip64 ? 7 : 1))
    t.equal(read, 0, 'no truncated file is read')
    await sweep(t, file, original, fieldChanges(fields, size), expected)
    const directory = original.indexOf('PK\x01\x02', 0, 'latin1')
    await sweep(t, file, original, bitFlips(directory, size, 1500, 1), expected)
    await sweep(t, file, original, bitFlips(0, size, 500, 2), expected)
  })
}

t.test('pickles with bits flipped, checksums off', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  for (const protocol of [2, 4]) {
    const { pickle, storages } = Pickler.dump(checkpointRoot(), protocol)
    const next = random(3 + protocol)
    const counts = { refused: 0, read: 0 }
    const one = async (damaged: Buffer): Promise<void> => {
      writePickle(file, damaged, storages, { crc: 0, alignment: 0 })
      if (await judge(file) instanceof ParError) counts.refused++
      else counts.read++
    }
    for (const change of bitFlips(0, pickle.length, 1500, next() * 1e9)) await one(change(Buffer.from(pickle)))
    for (let length = 0; length < pickle.length; length += 5) await one(pickle.subarray(0, length))
    // Instructions in any order.
    for (let i = 0; i < 500; i++) {
      const start = Math.floor(next() * pickle.length)
      const end = start + Math.floor(next() * (pickle.length - start))
      const target = Math.floor(next() * pickle.length)
      await one(Buffer.concat([pickle.subarray(0, target), pickle.subarray(start, end), pickle.subarray(target)]))
    }
    t.comment(`protocol ${protocol}: ${counts.refused} refused, ${counts.read} read`)
    t.ok(counts.refused > 0)
  }
})

t.test('random instructions', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const next = random(99)
  const codes = [...Buffer.from('(.0128NJKMGXTUBC)tl]ae}dsuqrhjcRQbio'), 0x80, 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a,
    0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96]
  for (let i = 0; i < 1500; i++) {
    const pickle = Buffer.from([0x80, 2, ...Array.from({ length: 5 + Math.floor(next() * 60) },
      () => next() < 0.7 ? codes[Math.floor(next() * codes.length)]! : Math.floor(next() * 256)), 0x2e])
    writePickle(file, pickle, new Map(), { crc: 0, alignment: 0 })
    await judge(file)
  }
  t.pass('1500 pickles')
})

t.test('a golden .pt: header regions', async t => {
  const file = path.join(t.testdir({}), 'x.pt')
  const original = readFileSync(golden('llamagen/model.pt'))
  const directory = original.indexOf('PK\x01\x02', 0, 'latin1')
  const expected = places(await openCheckpoint(golden('llamagen/model.pt')))
  const next = random(5)
  await sweep(t, file, original, (function * () {
    for (let length = directory; length < original.length; length += 11) {
      yield (copy: Buffer) => copy.subarray(0, length)
    }
    for (let i = 0; i < 40; i++) yield (copy: Buffer) => copy.subarray(0, Math.floor(next() * directory))
    yield * bitFlips(directory, original.length, 200, 6)
    yield * bitFlips(0, 2000, 100, 7)
  })(), expected)
})

t.test('a small .safetensors: truncations, fields, bits', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  writeFileSync(file, safetensors)
  t.ok(!(await judge(file) instanceof ParError), 'whole, it is read')
  const { read } = await sweep(t, file, safetensors, truncations(safetensors.length, 1))
  t.equal(read, 0, 'no truncated file is read')
  await sweep(t, file, safetensors, fieldChanges([{ what: 'header length', offset: 0, width: 8 }], safetensors.length))
  const header = 8 + Number(safetensors.readBigUInt64LE(0))
  await sweep(t, file, safetensors, bitFlips(0, header, 3000, 8))
})

t.test('a small .safetensors: every number in the header', async t => {
  const file = path.join(t.testdir({}), 'x.safetensors')
  const json = JSON.stringify(entries)
  const numbers = [...json.matchAll(/(?<=[[,])\d+(?=[\],])/g)]
  const changes = ['0', '1', '-1', '4294967295', '9007199254740991', '9007199254740993', '18446744073709551615',
    '1e400', '1e-400', '0.5', 'null', '"0"', '[]', '{}', '']
  await sweep(t, file, safetensors, (function * () {
    for (const { 0: digits, index } of numbers) {
      for (const change of [...changes, String(Number(digits) + 1), String(Number(digits) - 1),
        String(Number(digits) + bytes)]) {
        yield () => safetensorsFile(json.slice(0, index) + change + json.slice(index + digits.length), bytes)
      }
    }
  })())
  t.ok(numbers.length > 30)
})
