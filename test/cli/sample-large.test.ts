// A file of samples beyond 4 GiB. It is sparse: the pictures in the middle are a hole, and take no room on the disk.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import yauzl from 'yauzl'
import { SampleFile, readSamples } from '../../lib/evaluation/sample-file.js'
import { temporaryFolder } from './run.js'

t.test('5 GB in a sparse file: offsets beyond 2^32, level memory', async t => {
  const shape = { pictures: 6400, height: 512, width: 512 } // 5.03 GB
  const labels = Array.from({ length: shape.pictures }, (_, i) => i % 1000)
  const file = path.join(temporaryFolder(), 'large.npz')
  const first = await SampleFile.open(file, shape)
  const bytes = shape.height * shape.width * 3
  await first.add(new Uint8Array(bytes).fill(1))
  const head = fs.statSync(file).size - bytes
  await first.close()
  fs.truncateSync(file, head + 6398 * bytes) // a hole: pictures of zeros
  let most = 0
  const before = process.memoryUsage().rss
  const timer = setInterval(() => { most = Math.max(most, process.memoryUsage().rss - before) }, 20)
  const samples = await SampleFile.open(file, shape)
  t.equal(samples.done, 6398, 'the pictures that are there')
  for (const value of [7, 9]) await samples.add(new Uint8Array(bytes).fill(value))
  await samples.finish(labels, '{}')
  const seen: number[] = []
  let index = 0
  for await (const picture of readSamples(file, shape, labels, '{}')) {
    if (index === 0 || index >= 6397) seen.push(picture[0]!, picture[bytes - 1]!)
    index++
  }
  t.same(seen, [1, 1, 0, 0, 7, 7, 9, 9], 'first and last pictures; the checksum was compared')
  t.equal(index, shape.pictures)
  const zip = await yauzl.openPromise(file, { autoClose: false })
  const entries = []
  for await (const entry of zip.eachEntry()) entries.push(entry)
  t.match(entries.map(entry => [entry.fileName, entry.uncompressedSize, entry.compressionMethod]),
    [['arr_0.npy', 128 + shape.pictures * bytes, 0], ['arr_1.npy', 128 + shape.pictures * 8, 0]])
  const parts: Buffer[] = []
  for await (const part of await zip.openReadStreamPromise(entries[1]!)) parts.push(part as Buffer)
  t.equal(crc32(Buffer.concat(parts)), entries[1]!.crc32, 'the array behind 5 GB')
  t.equal(Buffer.concat(parts).readBigInt64LE(128 + 8 * 6399), 399n)
  zip.close()
  clearInterval(timer)
  t.ok(most < 100e6, `${Math.round(most / 1e6)} MB more than before`)
})
