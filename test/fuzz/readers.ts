// Fuzzers of what reads files: changed copies of right ones, and inputs made by the grammar of a format.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import { bad } from '../../lib/checkpoint/bad.js'
import { readSafetensors } from '../../lib/checkpoint/safetensors.js'
import type { FileSource } from '../../lib/checkpoint/source.js'
import { readTorch } from '../../lib/checkpoint/torch.js'
import { readTokens } from '../../lib/cli/tokens.js'
import { readNpy, writeNpy } from '../../lib/pictures/npy.js'
import { checkRead, safetensorsFile, stateDict, tile, transformerShapes } from '../checkpoint/tiny.js'
import { Pickler, py, writePickle, writePt, type Data, type Field } from '../support/pt-writer.js'
import type { Fuzzer, Random } from './harness.js'
import { mutateBytes, mutateJson } from './mutate.js'

/** The fuzzers; inputs to begin with are made in `folder`. */
export function readers (folder: string): Fuzzer[] {
  return [pickle(folder), zip(folder), safetensors(), npy, tokens]
}

const shapes = transformerShapes({ dim: 4, feedForward: 4, vocabulary: 2, classes: 1 })

/** A file in memory, so that an input costs no calls of the system. */
class Memory {
  readonly file = 'x'
  constructor (private readonly bytes: Buffer) {}
  get size (): number { return this.bytes.length }

  contains (offset: number, length: number): boolean {
    return Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 &&
      offset + length <= this.size
  }

  async read (offset: number, length: number, what: string): Promise<Buffer> {
    if (!this.contains(offset, length)) throw bad(this.file, `${what} lies outside the file`)
    return Buffer.from(this.bytes.subarray(offset, offset + length))
  }
}

async function readCheckpoint (input: Buffer, read: typeof readTorch): Promise<void> {
  checkRead(await read(new Memory(input) as unknown as FileSource), input.length)
}

// ---- pickles

const roots = (): unknown[] => [
  {
    model: stateDict(shapes), steps: 7,
    args: py.namespace({ image_size: 128, lr: 1e-4, betas: [0.9, 0.95], resume: null })
  },
  { model: py.build(py.orderedDict(stateDict(shapes)),
    { _metadata: py.orderedDict([['', { version: 1 }]]) }), loop: py.raw(0x5d, 0x94, 0x68, 0, 0x61) },
  stateDict(shapes, { parameter: true }),
  { 'a.b': py.tensor({ shape: [2, 3], strides: [0, 1], data: 24 }), set: py.raw(0x8f, 0x28, 0x4b, 1, 0x4b, 2,
    0x90), big: 2n ** 60n }
]

/** Instructions with an argument: what stands behind the code. */
const withArgument: Record<number, (random: Random) => Buffer> = {
  0x80: random => Buffer.from([2 + random.int(4)]),
  0x4a: random => bytesOf(random, 4),
  0x4b: random => bytesOf(random, 1),
  0x4d: random => bytesOf(random, 2),
  0x47: random => bytesOf(random, 8),
  0x58: random => counted(random, 4),
  0x8c: random => counted(random, 1),
  0x8d: random => counted(random, 8),
  0x55: random => counted(random, 1),
  0x43: random => counted(random, 1),
  0x42: random => counted(random, 4),
  0x8a: random => counted(random, 1),
  0x71: random => Buffer.from([random.int(6)]),
  0x72: random => Buffer.from([random.int(6), 0, 0, random.chance(0.1) ? random.int(256) : 0]),
  0x68: random => Buffer.from([random.int(6)]),
  0x6a: random => Buffer.from([random.int(6), 0, 0, 0]),
  0x63: random => Buffer.from(random.pick(globals)),
  0x69: random => Buffer.from(random.pick(globals)),
  0x49: random => Buffer.from(`${random.pick(['00', '01', '7', '-12', '9'.repeat(30), 'x', ''])}\n`),
  0x4c: random => Buffer.from(`${random.pick(['5L', '-9L', '1'.repeat(900) + 'L', 'L'])}\n`),
  0x46: random => Buffer.from(`${random.pick(['1.5', 'inf', '-inf', 'nan', '1e999', 'x'])}\n`)
}
const globals = [
  'collections\nOrderedDict\n', 'collections\ndefaultdict\n', 'torch._utils\n_rebuild_tensor_v2\n',
  'torch._utils\n_rebuild_tensor_v3\n', 'torch._utils\n_rebuild_parameter\n',
  'torch._tensor\n_rebuild_from_type_v2\n', 'torch\nFloatStorage\n', 'torch\nSize\n', 'torch\nbfloat16\n',
  'argparse\nNamespace\n', 'copyreg\n_reconstructor\n',
  'os\nsystem\n', '\x1b[31m\n\u202e\n', `${'m'.repeat(1000)}\nx\n`
]
const plainCodes = [...Buffer.from('(.012NNt)l]aae}dsuRRbQo'), 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8f, 0x90, 0x91,
  0x92, 0x93, 0x94]

function bytesOf (random: Random, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, () => random.int(256)))
}

/** A length and as many bytes; now and then a length of something else. */
function counted (random: Random, width: number): Buffer {
  const text = random.pick(['', 'model', 'a.weight', 'storage', '0', 'cpu', '\u001b]0;x\u0007', '\u202e',
    'x'.repeat(200)])
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(random.chance(0.05) ? BigInt.asUintN(64, random.size()) : BigInt(Buffer.byteLength(text)))
  return Buffer.concat([length.subarray(0, width), Buffer.from(text)])
}

/** Bytes that repeated parts of an input have at most. */
const maxBytes = 100_000

/** A program of instructions that mostly fit: parts of it may be repeated, often. */
function program (random: Random): Buffer {
  const parts: Buffer[] = [Buffer.from([0x80, random.pick([2, 2, 3, 4, 5])])]
  for (let length = random.int(60); length >= 0; length--) {
    if (random.chance(0.05)) {
      const part = Buffer.concat(parts.slice(-1 - random.int(5)))
      const times = 1 + random.int(random.chance(0.1) ? 5000 : 20)
      parts.push(
        Buffer.concat(Array.from({ length: Math.min(times, Math.ceil(maxBytes / (part.length + 1))) }, () => part))
      )
      continue
    }
    const argued = Object.keys(withArgument)
    const code = random.chance(0.5) ? random.pick(plainCodes) : Number(random.pick(argued))
    parts.push(Buffer.from([code]), withArgument[code]?.(random) ?? Buffer.alloc(0))
  }
  return Buffer.concat([...parts, Buffer.from('.')])
}

function pickle (folder: string): Fuzzer {
  const seeds = roots().flatMap(root => [2, 4].map(protocol => Pickler.dump(root, protocol)))
  const storages = new Map<string, Data>(seeds.flatMap(seed => [...seed.storages]).slice(0, 16))
  const file = path.join(folder, 'pickle.pt')
  // A file without its pickle, which is put behind everything else: the directory is written anew.
  const name = Buffer.from('archive/data.pkl')
  writePickle(file, Buffer.alloc(0), storages, { alignment: 0, edit: items => items.slice(1) })
  const rest = readFileSync(file)
  const directory = rest.indexOf('PK\x01\x02')
  const records = rest.subarray(directory, rest.indexOf('PK\x05\x06'))
  const around = (input: Buffer): Buffer => {
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt32LE(input.length, 18)
    local.writeUInt32LE(input.length, 22)
    local.writeUInt16LE(name.length, 26)
    const record = Buffer.alloc(46)
    record.writeUInt32LE(0x02014b50, 0)
    record.writeUInt32LE(input.length, 20)
    record.writeUInt32LE(input.length, 24)
    record.writeUInt16LE(name.length, 28)
    record.writeUInt32LE(directory, 42)
    const end = Buffer.from(rest.subarray(-22))
    const count = end.readUInt16LE(10) + 1
    end.writeUInt16LE(count, 8)
    end.writeUInt16LE(count, 10)
    end.writeUInt32LE(records.length + record.length + name.length, 12)
    end.writeUInt32LE(directory + local.length + name.length + input.length, 16)
    return Buffer.concat([rest.subarray(0, directory), local, name, input, records, record, name, end])
  }
  return {
    name: 'pickle',
    codes: ['BAD_CHECKPOINT'],
    make: random => random.chance(0.3)
      ? program(random)
      : mutateBytes(random.pick(seeds).pickle, random, seeds.map(seed => seed.pickle)),
    read: async input => { await readCheckpoint(around(input), readTorch) }
  }
}

// ---- zip files

function zip (folder: string): Fuzzer {
  const file = path.join(folder, 'zip.pt')
  const seeds = [{}, { zip64: true }, { alignment: 0, byteOrder: 'little' },
    { prefix: 'a/b', zip64: true, alignment: 0 }].map(options => {
    const { fields } = writePt(file, { model: stateDict(shapes) }, { alignment: 8, ...options })
    const bytes = readFileSync(file)
    return { bytes, fields, directory: bytes.lastIndexOf('PK\x01\x02') === -1 ? 0 : bytes.indexOf('PK\x01\x02') }
  })
  const all = seeds.map(seed => seed.bytes)
  const set = (bytes: Buffer, { offset, width }: Field, random: Random): void => {
    const others = [...Array(3).keys()].map(() => BigInt(random.int(bytes.length + 40)))
    const value = BigInt.asUintN(8 * width, random.chance(0.5) ? random.size() : random.pick(others))
    for (let k = 0; k < width; k++) bytes[offset + k] = Number((value >> BigInt(8 * k)) & 255n)
  }
  return {
    name: 'zip',
    codes: ['BAD_CHECKPOINT'],
    make: random => {
      const { bytes, fields, directory } = random.pick(seeds)
      if (random.chance(0.5)) {
        const copy = Buffer.from(bytes)
        for (let changes = 1 + random.int(3); changes > 0; changes--) set(copy, random.pick(fields), random)
        return copy
      }
      // The directory and the headers tell more than the data.
      return random.chance(0.5)
        ? Buffer.concat([bytes.subarray(0, directory), mutateBytes(bytes.subarray(directory), random, all)])
        : mutateBytes(bytes, random, all)
    },
    read: async input => { await readCheckpoint(input, readTorch) }
  }
}

// ---- .safetensors

function safetensors (): Fuzzer {
  const { entries, bytes } = tile(shapes)
  const parvis = {
    kind: 'transformer', heads: 1, grid: [4, 4], labels: ['a'], name: 'n', sampling: { topK: 3, guidanceScale: 1.5 }
  }
  const own = JSON.stringify(parvis)
  const words = ['"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"parvis"', '"F32"', '"BF16"', '"F4"',
    '"X9"', '[0,0]', `[0,${bytes}]`, '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', own]
  return {
    name: 'safetensors',
    codes: ['BAD_CHECKPOINT'],
    make: random => {
      const metadata = { parvis: random.chance(0.5) ? mutateJson(own, random, words) : own, format: 'pt' }
      const text = JSON.stringify({ __metadata__: metadata, ...entries })
      const header = random.chance(0.1)
        ? garbage(random, words)
        : random.chance(0.7)
          ? mutateJson(text, random, words)
          : text
      const whole = safetensorsFile(header, bytes, random.chance(0.05) ? random.int(3000) : undefined)
      return random.chance(0.15) ? mutateBytes(whole, random) : whole
    },
    read: async input => { await readCheckpoint(input, readSafetensors) }
  }
}

/** Words of a language in any order, parts of it often. */
function garbage (random: Random, words: readonly string[]): string {
  let text = random.pick(['{', '[', '{"a":', ''])
  for (let length = random.int(40); length > 0; length--) {
    text += random.pick([...words, '{', '}', '[', ']', ',', ':', '1', '""', 'null', ' '])
      .repeat(random.chance(0.1) ? 1 + random.int(300) : 1)
  }
  return text
}

// ---- tokens

const arrays = [[6], [2, 3], [1, 2, 3]].map(shape => writeNpy({ data: Int32Array.of(5, 4, 3, 2, 1, 16383), shape }))
const npyWords = ["'descr'", "'fortran_order'", "'shape'", "'<i4'", "'>u8'", "'|O'", "'\u001b[0m'", '(2, 3)', '(', ')',
  ',', '{', '}', ':', 'True', 'False', '9'.repeat(15), 'L', ' '.repeat(50)]

const npy: Fuzzer = {
  name: 'npy',
  codes: ['BAD_TOKENS'],
  make: random => {
    const file = random.pick(arrays)
    if (random.chance(0.4)) return mutateBytes(file, random, arrays)
    const start = 10 + file.readUInt16LE(8)
    const text = random.chance(0.2)
      ? garbage(random, npyWords)
      : mutateJson(file.toString('latin1', 10, start).replaceAll("'", '"'), random, npyWords).replaceAll('"', "'")
    const header = Buffer.from(text.slice(0, 65535), 'latin1')
    const length = Buffer.alloc(2)
    length.writeUInt16LE(header.length)
    return Buffer.concat([file.subarray(0, 8), length, header, file.subarray(start)])
  },
  read: async input => {
    const { data, shape } = await readNpy(input, 'x.npy')
    if (data.length !== shape.reduce((product, side) => product * side, 1) || data.some(value => value < 0)) {
      throw new Error('numbers and shape do not fit')
    }
  }
}

const lists = [
  '[1,2,3,4]', '[[1,2],[3,4]]', '[[[1,2],[3,4]],[[5,6],[7,8]]]',
  '{"tokenizer":"x","codebookSize":16,"factor":16,"pictures":[{"file":"a.png","grid":[2,2],"tokens":[1,2,3,4]},{"tokens":[[5,6],[7,8]]}]}',
  '{"images":[{"grid":2,"tokens":[1,2,3,4]}]}', '{"tokens":[1,2,3,4],"grid":[1,4]}'
]
const tokenWords = ['"pictures"', '"images"', '"tokens"', '"grid"', '[1,2]', '[[1,2],[3,4]]', '2147483648', '-1',
  '[[[[[[1]]]]]]']

const tokens: Fuzzer = {
  name: 'tokens',
  codes: ['BAD_TOKENS'],
  make: random => random.chance(0.2)
    ? mutateBytes(Buffer.from(random.pick(lists)), random)
    : Buffer.from(
      random.chance(0.2) ? garbage(random, tokenWords) : mutateJson(random.pick(lists), random, tokenWords)
    ),
  read: async input => {
    for (const { tokens, grid: [rows, columns] } of await readTokens(input, 'x.json',
      crc32(input) % 2 === 0 ? [2, 2] : undefined)) {
      if (tokens.length !== rows * columns || tokens.some(value => value < 0)) {
        throw new Error('tokens and grid do not fit')
      }
    }
  }
}
