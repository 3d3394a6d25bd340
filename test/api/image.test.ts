// Pictures: encodings are decoded again by sharp and compared, pixels go in and come out, garbage is refused.

import fs from 'node:fs/promises'
import path from 'node:path'
import { inspect } from 'node:util'
import sharp from 'sharp'
import t from 'tap'
import { GeneratedImage, Image } from '../../lib/api/image.js'
import { codeOf, rejection, smallPar, tokenizerOnly } from '../support/fixtures.js'
import { worst } from '../support/tensors.js'

const [width, height] = [24, 16]
const smooth = Uint8Array.from({ length: width * height * 3 },
  (_, i) => [8 * (Math.floor(i / 3) % width), 12 * Math.floor(i / 3 / width), 90][i % 3]!)

t.test('every format decodes to the picture', async t => {
  const image = new Image(smooth, width, height)
  for (const [format, tolerance] of [['png', 0], ['webp', 40], ['jpeg', 40], ['jpg', 40], ['avif', 40], ['gif', 40],
    ['tiff', 40]] as const) {
    const bytes = await image.toBuffer(format)
    const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true })
    t.match({ width: info.width, height: info.height }, { width, height }, format)
    t.ok(worst(data, smooth) <= tolerance, `${format}: ${worst(data, smooth)}`)
  }
  t.same(new Uint8Array(await image.toBuffer('raw')), smooth)
  t.same(await image.toBuffer(), await image.toBuffer('png'), 'png is the default')
  t.ok((await image.toBuffer('jpeg', { quality: 10 })).length < (await image.toBuffer('jpeg', { quality: 95 })).length,
    'options reach sharp')
  const { width: wide } = await sharp(await image.sharp().resize(48).png().toBuffer()).metadata()
  t.equal(wide, 48, 'sharp() is a pipeline')
})

t.test('files', async t => {
  const folder = t.testdir()
  const image = new Image(smooth, width, height)
  for (const [name, format] of [['a.png', 'png'], ['b.JPG', 'jpeg'], ['c.webp', 'webp'], ['d.tif', 'tiff']] as const) {
    await image.toFile(path.join(folder, name))
    t.equal((await sharp(path.join(folder, name)).metadata()).format, format, name)
  }
  await image.toFile(path.join(folder, 'e.raw'))
  t.equal((await fs.readFile(path.join(folder, 'e.raw'))).length, smooth.length)
  t.equal(await codeOf(image.toFile(path.join(folder, 'f.bmp'))), 'INVALID_OPTION')
  t.equal(await codeOf(image.toFile(path.join(folder, 'f'))), 'INVALID_OPTION')
  t.equal(await codeOf(image.toFile(7 as never)), 'INVALID_OPTION')
  t.equal(await codeOf(image.toFile(path.join(folder, 'none', 'a.png'))), 'FILE_NOT_FOUND')
  t.equal(await codeOf(image.toBuffer('bmp' as never)), 'INVALID_OPTION')
  t.equal(await codeOf(image.toBuffer('jpeg', { quality: 'high' })), 'INVALID_OPTION')
  t.equal(await codeOf(image.toBuffer('jpeg', 5 as never)), 'INVALID_OPTION')
})

t.test('float pictures become bytes as the authors do', async t => {
  const image = new Image(Float32Array.of(-1, 0, 1, -3, 3, 0.5, NaN, -1.003, 0.9999), 3, 1)
  t.same([...image.bytes()], [0, 128, 255, 0, 255, 191, 0, 0, 255])
})

t.test('floats to bytes: every value as before, quickly, once', async t => {
  const values = Float32Array.from({ length: 60_000 }, (_, i) => (i - 30_000) / 20_000)
  t.same(new Image(values, 200, 100).bytes(),
    Uint8Array.from(values, x => x > -128 / 127.5 ? Math.min(255, 127.5 * x + 128) : 0))
  const side = 2048
  const large = new Image(new Float32Array(side * side * 3).fill(0.25), side, side)
  let times = 0
  const bytes = large.bytes.bind(large)
  large.bytes = () => { times++; return bytes() }
  const started = performance.now()
  const raw = await large.toBuffer('raw')
  t.ok(performance.now() - started < 700, `${Math.round(performance.now() - started)} ms`)
  t.equal(times, 1)
  t.same([raw.length, raw[0], raw.at(-1)], [side * side * 3, 159, 159])
  const kept = new Image(smooth, width, height)
  ;(await kept.toBuffer('raw')).fill(0)
  t.ok(kept.data.some(byte => byte > 0), 'raw bytes are a copy')
  t.match(await rejection(kept.toFile(new URL('file:///tmp/a.png') as never)),
    { code: 'INVALID_OPTION', message: /URL/ })
  t.equal(await codeOf(kept.toBuffer(null as never)), 'INVALID_OPTION')
})

t.test('a generated picture', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 4, seed: 2 })
  t.ok(image instanceof GeneratedImage && image instanceof Image)
  t.match(image, { width: 32, height: 32, classId: 4, n: 4, seed: 2, steps: 19, label: undefined })
  t.equal(image.tokens.length, 64)
  t.ok(image.timings.transformerMs > 0 && image.timings.decodeMs > 0 &&
    image.timings.totalMs >= image.timings.transformerMs + image.timings.decodeMs - 1e-6)
  const { data } = await sharp(await image.toBuffer('png')).raw().toBuffer({ resolveWithObject: true })
  t.same(new Uint8Array(data), image.data)
  t.same((await par.decode(image.tokens)).data, image.data, 'decode() of its tokens')
  const wide = await par.generate({ classId: 4, seed: 2, size: { width: 50, height: 21 } })
  t.match({ width: wide.width, height: wide.height, bytes: wide.data.length },
    { width: 50, height: 21, bytes: 50 * 21 * 3 })
  t.same(wide.tokens, image.tokens, 'size does not change the tokens')
  t.same((await par.decode(image.tokens, { size: { width: 50, height: 21 } })).data, wide.data)
})

t.test('decode', async t => {
  const par = await tokenizerOnly()
  t.teardown(() => par.dispose())
  t.equal(par.labels, undefined)
  const tokens = Int32Array.from({ length: 24 }, (_, i) => (i * 37) % 256)
  t.match(await par.decode(tokens, { grid: [4, 6] }), { width: 24, height: 16 }, 'a grid that is no square')
  t.match(await par.decode(tokens, { grid: [6, 4] }), { width: 16, height: 24 })
  const square = await par.decode(tokens.slice(0, 16))
  t.match(square, { width: 16, height: 16 }, 'a square without a grid')
  const numbers = JSON.parse(JSON.stringify([...tokens.slice(0, 16)])) as number[]
  t.same((await par.decode(numbers)).data, square.data, 'plain numbers, as JSON has them')
  t.same((await par.decode([numbers, tokens.slice(0, 16)])).map(({ data }) => data), [square.data, square.data],
    'a list of both')
  for (const [what, options] of [
    [tokens, undefined], [tokens, { grid: [4, 5] }], [[], undefined], ['x', undefined], [undefined, undefined],
    [[1, 2, 3], undefined], [new Int32Array(0), undefined],
    [[1, 2, 3, 4.5], undefined], [[1, 2, 3, '4'], undefined], [[1, 2, 3, 256], undefined], [[1, [2], 3, 4], undefined],
    [[[1, 2, 3, NaN]], undefined], [[[1, 2, 3, 4], [1]], undefined],
    [[1, 2, 3, 2 ** 32], undefined], [[[1, 2, 3, 4], null], undefined], [[[]], undefined],
    [[[[1, 2, 3, 4]]], undefined],
    [Int32Array.of(0, 1, 2, 256), undefined], [Int32Array.of(0, 1, 2, -1), undefined], [new Uint8Array(4), undefined],
    [[new Int32Array(4), new Int32Array(9)], undefined], [new Int32Array(4), { size: 0 }],
    [new Int32Array(4), { size: NaN }], [new Int32Array(4), { size: 1e9 }],
    [new Int32Array(4), { size: null }], [new Int32Array(4), { size: { width: 5 } }],
    [new Int32Array(4), { size: '64' }], [new Int32Array(4), { format: 'png' }], [new Int32Array(4), { format: null }],
    [new Array(2), undefined],
    [new Int32Array(4), { grid: [2, 2, 1] }], [new Int32Array(4), { grid: 0 }], [new Int32Array(4), { scale: 2 }],
    [new Int32Array(4), 5]
  ] as const) {
    t.equal(await codeOf(par.decode(what as never, options as never)), 'INVALID_OPTION',
      `${String(what).slice(0, 20)} ${JSON.stringify(options)}`)
  }
})

t.test('encode', async t => {
  const par = await tokenizerOnly()
  const whole = await smallPar()
  t.teardown(async () => { await par.dispose(); await whole.dispose() })
  const folder = t.testdir()
  const bytes = await new Image(smooth, width, height).toBuffer('png')
  const file = path.join(folder, 'a.png')
  await fs.writeFile(file, bytes)
  const floats = Float32Array.from(smooth, byte => byte / 127.5 - 1)

  const exact = await par.encode({ data: floats, width, height })
  t.equal(exact.length, 4 * 6, 'the grid of a float picture is its own')
  t.same(await par.encode({ data: smooth, width, height }, { grid: [4, 6] }), exact,
    'bytes of exact size are only converted')
  t.same(await par.encode(bytes, { grid: [4, 6] }), exact, 'a lossless file too')
  t.same(await par.encode(file, { grid: [4, 6] }), exact)
  t.same(await par.encode({ data: new Uint8ClampedArray(smooth), width, height }, { grid: [4, 6] }), exact)
  const rgba = new Uint8Array(
    width * height * 4
  ).map((_, i) => i % 4 === 3 ? 255 : smooth[Math.floor(i / 4) * 3 + i % 4]!)
  t.same(await par.encode({ data: rgba, width, height, channels: 4 }, { grid: [4, 6] }), exact,
    'what is opaque is itself')
  const grey = new Uint8Array(width * height).fill(77)
  t.same(await par.encode({ data: grey, width, height, channels: 1 }, { grid: [4, 6] }),
    await par.encode({ data: new Uint8Array(width * height * 3).fill(77), width, height }, { grid: [4, 6] }),
    'grey is RGB')
  t.equal((await par.encode(file)).length, 16, 'without a grid: the largest square')
  t.equal((await whole.encode(file)).length, 64, 'with a transformer: its grid')
  t.same(await whole.encode(file), await whole.encode(bytes))
  t.equal((await whole.encode({ data: floats, width, height })).length, 24, 'floats go in untouched, whatever the grid')

  const half = rgba.map((byte, i) => i % 4 === 3 ? 128 : byte)
  const mixed = smooth.map(byte => Math.round((byte * 128 + 255 * 127) / 255))
  const white = await par.prepare({ data: half, width, height, channels: 4 }, { grid: [4, 6] })
  t.ok(worst(white.data, mixed) <= 1, 'what is not lies on white')
  const black = await par.prepare({ data: half, width, height, channels: 4 }, { grid: [4, 6], background: '#000' })
  t.ok(worst(black.data, smooth.map(byte => Math.round(byte * 128 / 255))) <= 1, 'or on a colour')

  // What encode sees.
  t.match(await par.prepare(file), { width: 16, height: 16 })
  t.match(await par.prepare(file, { crop: false }), { width, height }, 'in its own shape')
  t.same((await par.prepare(file, { grid: [4, 6] })).data, smooth)
  const [wholeOf, cropOf] = [await whole.prepare(file, { crop: false }), await whole.prepare(file)]
  t.match([wholeOf, cropOf], [{ width: 32, height: 32 }, { width: 32, height: 32 }],
    'squeezed to the transformer\'s grid')
  t.notSame(wholeOf.data, cropOf.data)
  t.same(await whole.encode(wholeOf), await whole.encode(file, { crop: false }))
  t.same(await whole.encode(cropOf), await whole.encode(file))
  const wide = new Uint8Array(1000 * 10 * 3)
  t.match(await par.prepare({ data: wide, width: 1000, height: 10 }, { crop: false }), { width: 256, height: 4 },
    'at most 64 tokens a side')
  t.same((await par.prepare({ data: floats, width, height })).data, new Image(floats, width, height).bytes(),
    'floats as bytes')
  t.equal(await codeOf(whole.prepare(Buffer.from('no picture'))), 'BAD_IMAGE')

  // The middle of a wide picture, not the whole of it squeezed.
  const long = await sharp(bytes).resize(32, 32,
    { fit: 'fill' }).extend({ left: 16, right: 16, background: '#f00' }).png().toBuffer()
  t.same(await whole.encode(long),
    await whole.encode(await sharp(bytes).resize(32, 32, { fit: 'fill' }).png().toBuffer()))
  const decoded = await whole.decode(await whole.encode(file))
  t.same(await whole.encode({ data: decoded.data, width: 32, height: 32 }),
    await whole.encode(await decoded.toBuffer('png')))

  t.equal(await codeOf(par.encode(path.join(folder, 'none.png'))), 'FILE_NOT_FOUND')
  t.equal(await codeOf(par.encode(folder)), 'FILE_NOT_FOUND', 'a folder')
  t.equal(await codeOf(par.encode(Buffer.from('no picture'))), 'BAD_IMAGE')
  t.equal(await codeOf(par.encode(bytes.subarray(0, 60))), 'BAD_IMAGE', 'truncated')
  t.match(await rejection(par.encode(Buffer.alloc(0))), { code: 'BAD_IMAGE' })
  for (const [what, options] of [
    [5], [null], [undefined], [{}], [{ data: 'x', width: 1, height: 1 }], [{ data: smooth, width, height: 15 }],
    [{ data: smooth, width: NaN, height }],
    [{ data: smooth, width, height, channels: 2 }], [{ data: floats.slice(3), width, height }],
    [{ data: floats.slice(0, 23 * 16 * 3), width: 23, height: 16 }],
    [{ data: floats.map(() => NaN), width, height }],
    [{ data: new Float32Array(width * height * 4), width, height, channels: 4 }],
    [{ data: floats, width, height }, { grid: 8 }], [file, { grid: -1 }], [file, { grids: 1 }], [file, { crop: 1 }],
    [file, { background: 7 }], [file, { background: '' }], [file, { background: 'no colour' }], ['', {}], ['a\0b', {}]
  ] as Array<[unknown, unknown?]>) {
    t.equal(await codeOf(par.encode(what as never, options as never)), 'INVALID_OPTION',
      JSON.stringify(options ?? String(what)))
  }
})

t.test('logs and answers hold neither pixels nor tokens', async t => {
  const par = await smallPar({})
  const tokens = await tokenizerOnly()
  t.teardown(async () => { await par.dispose(); await tokens.dispose() })
  const image = await par.generate({ classId: 4, seed: 2, size: 512 })
  t.match(JSON.parse(JSON.stringify(image)),
    { width: 512, height: 512, classId: 4, n: 4, seed: 2, steps: 19, timings: { totalMs: Number } })
  t.match(inspect(image), /^GeneratedImage \{ 512 x 512 px, class 4, n 4, seed 2, 19 steps, 64 tokens, \d+ ms \}$/)
  const named = new GeneratedImage({ ...image, label: 'x\u001b[31m\u202e'.repeat(500) })
  t.match(inspect(named), /^[\u0020-\u007e]{100,1200}$/, 'names are made visible, and cut')
  const plain = await par.decode(image.tokens, { format: 'float32' })
  t.equal(inspect(plain), 'Image { 32 x 32 px, float32 }')
  t.same(JSON.parse(JSON.stringify(plain)), { width: 32, height: 32 })
  t.equal(inspect(new Image(new Uint8Array(0), 0, 0)), 'Image { no pixels }')
  for await (const event of par.stream({ classId: [1, 2], size: 512 })) t.ok(inspect(event, { depth: 5 }).length < 1500)
})

t.test('data: addresses and blobs', async t => {
  const image = new Image(smooth, width, height)
  for (const [format, type] of [['png', 'image/png'], ['jpg', 'image/jpeg'], ['webp', 'image/webp']] as const) {
    const url = await image.toDataURL(format)
    t.equal(url.slice(0, url.indexOf(',')), `data:${type};base64`)
    t.same(Buffer.from(await (await fetch(url)).arrayBuffer()), await image.toBuffer(format))
    const blob = await image.toBlob(format)
    t.equal(blob.type, type)
    t.same(Buffer.from(await blob.arrayBuffer()), await image.toBuffer(format))
  }
  t.match(await image.toDataURL(), /^data:image\/png;base64,iVBOR/)
  t.ok(
    (await image.toDataURL('jpeg', { quality: 10 })).length < (await image.toDataURL('jpeg', { quality: 95 })).length
  )
  t.same(new Uint8Array(await (await image.toBlob('raw')).arrayBuffer()), smooth)
  t.equal(await codeOf(image.toDataURL('raw' as never)), 'INVALID_OPTION')
  t.equal(await codeOf(image.toBlob('bmp' as never)), 'INVALID_OPTION')
  t.equal(await codeOf(new Image(new Uint8Array(0), 0, 0).toDataURL()), 'MISSING_PART')
})

t.test('what the caller does with the pixels after a call changes nothing', async t => {
  const folder = t.testdir()
  const floats = Float32Array.from(smooth, byte => (byte - 128) / 127.5)
  const calls: Record<string, (image: Image<Uint8Array | Float32Array>, name: string) => Promise<unknown>> = {
    png: image => image.toBuffer(),
    webp: image => image.toBuffer('webp'),
    raw: image => image.toBuffer('raw'),
    address: image => image.toDataURL(),
    blob: async image => Buffer.from(await (await image.toBlob()).arrayBuffer()),
    file: async (image, name) => {
      await image.toFile(path.join(folder, name))
      return await fs.readFile(path.join(folder, name))
    },
    pipeline: image => {
      const pipeline = image.sharp()
      return new Promise(resolve => setImmediate(resolve)).then(() => pipeline.png().toBuffer())
    }
  }
  for (const [name, call] of Object.entries(calls)) {
    for (const data of [smooth, floats]) {
      const copy = (): Image<Uint8Array | Float32Array> => new Image(data.slice(), width, height)
      const expected = await call(copy(), 'a.png')
      const [changed, moved] = [copy(), copy()]
      const results = [call(changed, 'b.png'), call(moved, 'c.png')]
      changed.data.fill(0)
      structuredClone(null, { transfer: [moved.data.buffer as ArrayBuffer] })
      for (const result of results) t.same(await result, expected, name)
    }
  }
})

t.test('pixels that were transferred: the true cause', async t => {
  for (const data of [smooth.slice(), new Float32Array(smooth.length)]) {
    const image = new Image(data, width, height)
    structuredClone(null, { transfer: [data.buffer] })
    for (const call of [() => image.toBuffer(), () => image.toBuffer('raw'), async () => image.sharp(),
      () => image.toDataURL()]) {
      t.match(await rejection(call()),
        { code: 'INVALID_OPTION', message: /24 x 16 pixels .*transferred.*data\.slice\(\)/ })
    }
  }
  t.ok(await new Proxy(new Image(smooth, width, height), {}).toBuffer(), 'a Proxy of a picture is one')
  t.match(await rejection(new Image(new Uint8Array(0), 0, 0).toBuffer()),
    { code: 'MISSING_PART', message: /no tokenizer was loaded/ })
})
