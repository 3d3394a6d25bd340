'use strict'
// What a user's test of parvis does, run by each test runner in each of its environments
// (test/runners/runners.test.ts). `it` and `expect` are the runner's. PARVIS_NAN is a checkpoint of NaN, HF_ENDPOINT a
// Hub that has nothing, PARVIS_WANTED the pixels and tokens of a picture as a plain process makes them.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { default: par, Image, Par, ParError, psnr, pull, ssim } = require('parvis')

const wanted = JSON.parse(fs.readFileSync(process.env.PARVIS_WANTED, 'utf8'))
const pixels = Buffer.from(wanted.pixels, 'base64')
const hex = bytes => Buffer.from(bytes).toString('hex')
const failure = async work => { try { await work } catch (error) { return error } throw new Error('it went well') }
const typed = (error, code) => {
  expect(error instanceof ParError).toBe(true)
  expect(error.name).toBe('ParError')
  expect(error.code).toBe(code)
}

it('generates, and takes back what it gave', async () => {
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  expect(Array.from(image.tokens)).toEqual(wanted.tokens)
  expect(hex(image.data)).toBe(hex(pixels))
  expect(hex(image.bytes())).toBe(hex(pixels))
  expect(hex((await par.decode(image.tokens)).data)).toBe(hex(pixels))
  expect((await par.decode([image.tokens, Int32Array.from(image.tokens)])).length).toBe(2)
  expect(hex((await par.decode(image.tokens, { format: 'float32' })).bytes())).toBe(hex(pixels))
  const [{ total, logProbs }] = await par.score({ tokens: image.tokens, classId: 7 })
  expect(total).toBe(wanted.total)
  expect(logProbs.length).toBe(256)
  expect(psnr(image, image)).toBe(Infinity)
  expect(ssim(image, new Image(image.bytes(), 32, 32))).toBe(1)
})

it('writes pictures', async () => {
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  const { data, info } = await image.sharp().raw().toBuffer({ resolveWithObject: true })
  expect(hex(data)).toBe(hex(pixels))
  expect(info.channels).toBe(3)
  expect(hex(await image.toBuffer('raw'))).toBe(hex(pixels))
  const png = await image.toBuffer('png')
  expect(hex(png)).toBe(wanted.png)
  const file = path.join(os.tmpdir(), `parvis-runner-${process.pid}-${Math.random()}.png`)
  await image.toFile(file)
  expect(hex(fs.readFileSync(file))).toBe(wanted.png)
  expect(Array.from(await par.encode(file))).toEqual(wanted.encoded)
  fs.rmSync(file)
})

it('encodes', async () => {
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  expect(Array.from(await par.encode(await image.toBuffer()))).toEqual(wanted.encoded)
  expect(Array.from(await par.encode({ data: image.data, width: 32, height: 32 }))).toEqual(wanted.encoded)
  expect(Array.from(await par.encode({ data: Uint8Array.from(pixels), width: 32, height: 32 }))).toEqual(wanted.encoded)
  expect(Array.from(await par.encode({ data: Uint8ClampedArray.from(pixels), width: 32, height: 32 })))
    .toEqual(wanted.encoded)
  expect(
    Array.from(await par.encode({ data: Float32Array.from(pixels, byte => byte / 127.5 - 1), width: 32, height: 32 }))
  ).toEqual(wanted.encoded)
})

it('streams, previews, aborts and ends', async () => {
  const previews = []
  for await (const { step, preview } of par.stream({ classId: 7, n: 16, seed: 1 })) {
    if (step === 5) previews.push(await preview())
  }
  expect(previews.map(({ data }) => data.length)).toEqual([32 * 32 * 3])
  const controller = new AbortController()
  const reason = new Error('enough')
  const work = par.generate({ classId: Array(64).fill(7), n: 1, signal: controller.signal })
  setTimeout(() => controller.abort(reason), 10)
  expect(await failure(work)).toBe(reason)
  expect(await failure(par.generate({ classId: 7, signal: controller.signal }))).toBe(reason)
  const own = await Par.load({ threads: 1 })
  expect(own.labels[7]).toBe('Sneaker')
  await own.dispose()
  typed(await failure(own.generate({ classId: 7 })), 'DISPOSED')
})

it('rejects with typed errors', async () => {
  const nan = await Par.load({ transformer: process.env.PARVIS_NAN })
  typed(await failure(nan.generate({ classId: 1 })), 'NON_FINITE')
  await nan.dispose()
  typed(await failure(par.generate({ classId: 'nosuch' })), 'BAD_CLASS_ID')
  typed(await failure(Par.load({ transformer: '/nowhere/x.pt' })), 'FILE_NOT_FOUND')
  typed(await failure(Par.load({ device: 'cuda:999' })), 'DEVICE_UNAVAILABLE')
  typed(await failure(pull('par-xl-4x', { cache: os.tmpdir() })), 'DOWNLOAD_FAILED')
  await par.dispose()
})
