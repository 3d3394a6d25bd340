// An animation of a picture as it forms: its frames, decoded again by sharp, are the previews of the stream, pixel by
// pixel.

import fs from 'node:fs/promises'
import path from 'node:path'
import { inspect } from 'node:util'
import sharp from 'sharp'
import t from 'tap'
import { animate } from '../../lib/api/animate.js'
import par from '../../lib/index.js'
import { codeOf, rejection, revoked, smallPar, transformerOnly } from '../support/fixtures.js'

/** Frames that a viewer shows, with the time of each; encoders put equal frames together. */
async function shown (bytes: Buffer): Promise<Array<{ rgb: Buffer, ms: number }>> {
  const { pages = 1, delay = [] } = await sharp(bytes).metadata()
  return await Promise.all(Array.from({ length: pages }, async (_, page) =>
    ({ rgb: await sharp(bytes, { page }).removeAlpha().raw().toBuffer(), ms: delay[page] ?? 0 })))
}

/** Each pixel `scale` times, each way, by the definition. */
function repeated (rgb: Uint8Array, side: number, scale: number): Buffer {
  const wide = side * scale
  return Buffer.from(Uint8Array.from({ length: wide * wide * 3 }, (_, i) => {
    const [y, x, c] = [Math.floor(i / 3 / wide), Math.floor(i / 3) % wide, i % 3]
    return rgb[(Math.floor(y / scale) * side + Math.floor(x / scale)) * 3 + c!]!
  }))
}

t.test('frames are the previews, the last one the picture', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const previews: Uint8Array[] = []
  for await (const event of own.stream({ classId: 3, seed: 2 })) {
    if (event.step % 4 === 0 || event.images) previews.push((event.images?.[0] ?? await event.preview()).data)
  }
  const expected: Array<{ rgb: Buffer, ms: number }> = []
  for (const [k, data] of previews.entries()) {
    const rgb = repeated(data, 32, 3)
    const ms = k === previews.length - 1 ? 900 : 40
    if (expected.at(-1)?.rgb.equals(rgb)) expected.at(-1)!.ms += ms
    else expected.push({ rgb, ms })
  }
  const animation = await animate(own, { classId: 3, seed: 2, every: 4, scale: 3, delay: 40, hold: 900 })
  t.match(animation, { frames: 5, width: 96, height: 96, delays: [40, 40, 40, 40, 900] })
  t.same(animation.image.data, (await own.generate({ classId: 3, seed: 2 })).data)
  const webp = await shown(await animation.toBuffer())
  t.same(webp.map(({ ms }) => ms), expected.map(({ ms }) => ms))
  t.ok(webp.every(({ rgb }, k) => rgb.equals(expected[k]!.rgb)), 'lossless')
  const gif = await animation.toBuffer('gif')
  t.match(await sharp(gif).metadata(), { format: 'gif', width: 96, loop: 0 })
  t.equal((await shown(gif)).reduce((sum, { ms }) => sum + ms, 0), 4 * 40 + 900)
  t.equal((await sharp(await animation.toBuffer('gif', { loop: 2 })).metadata()).loop, 2, 'options reach sharp')

  const folder = t.testdir()
  await animation.toFile(path.join(folder, 'a.WEBP'))
  t.same(await fs.readFile(path.join(folder, 'a.WEBP')), await animation.toBuffer('webp'))
  for (const name of ['a.png', 'webp', '']) {
    t.equal(await codeOf(animation.toFile(path.join(folder, name))), 'INVALID_OPTION', name)
  }
  t.equal(await codeOf(animation.toFile(path.join(folder, 'none', 'a.gif'))), 'FILE_NOT_FOUND')
  t.equal(await codeOf(animation.toBuffer('png' as never)), 'INVALID_OPTION')
  t.equal(await codeOf(animation.toBuffer('webp', { quality: 'high' })), 'INVALID_OPTION')
  t.ok(JSON.stringify(animation).length < 1000 && inspect(animation).length < 1000, inspect(animation))
  t.match(JSON.parse(JSON.stringify(animation)), { width: 96, height: 96, frames: 5, durationMs: 1060 })
})

t.test('without options: every step of a short call, a small picture enlarged', async t => {
  t.teardown(() => par.dispose())
  const animation = await animate(par, { classId: 'sneaker', seed: 1 })
  t.match(animation, { frames: animation.image.steps, width: 256, height: 256, image: { label: 'Sneaker', width: 32 } })
  t.same([animation.delays[0], animation.delays.at(-1)], [80, 1500])
  const long = await animate(par, { classId: 'sneaker', seed: 1, n: 1, scale: 1 })
  t.same([long.image.steps, long.frames, long.width], [256, 86, 32],
    'at most 100 frames: after every third step, and the last')
  const [last] = (await shown(await long.toBuffer('webp', { lossless: true }))).slice(-1)
  t.same(last!.rgb, Buffer.from(long.image.data))
  const one = await animate(par, { classId: 'sneaker', seed: 1, every: 1000 })
  t.equal(one.frames, 1, 'the finished picture is always there')
  t.equal((await shown(await one.toBuffer('gif'))).length, 1)
})

t.test('ends and refusals', async t => {
  const own = await smallPar()
  const tokens = await transformerOnly('par-4x')
  t.teardown(async () => { await own.dispose(); await tokens.dispose() })
  const controller = new AbortController()
  t.equal(await rejection(
    animate(own, { classId: 1, signal: controller.signal, onProgress: () => controller.abort('enough') })
  ), 'enough')
  t.equal(await codeOf(animate(tokens, { classId: 1 })), 'MISSING_PART')
  let steps = 0
  t.match(await rejection(animate(own, { classId: 1, size: 4096, every: 1, onProgress: () => { steps++ } })),
    { code: 'INVALID_OPTION', message: /19 frames of 4096 x 4096 .*larger every/ })
  t.ok(steps <= 2, 'before the work')
  for (const options of [
    undefined, {}, { classId: [1] }, { classId: 1, every: 0 }, { classId: 1, every: 1.5 }, { classId: 1, scale: 65 },
    { classId: 1, delay: 1 }, { classId: 1, hold: '9' },
    { classId: 1, frames: 9 }, { classId: 1, temperature: -1 }, { classId: 1, scale: 64, size: 512 }
  ]) t.equal(await codeOf(animate(own, options as never)), 'INVALID_OPTION', JSON.stringify(options))
  t.equal(await codeOf(animate({ classId: 1 } as never, { classId: 1 })), 'INVALID_OPTION', 'no instance')
  t.equal(await codeOf(animate(own, { classId: 99 })), 'BAD_CLASS_ID')
  for (const [what, wrong] of Object.entries({
    null: null, 'no iterator': { stream () {} }, 'an iterator of nothing': { async * stream () {} }, revoked: revoked(),
    'of a revoked Proxy': { stream: () => revoked() }
  })) {
    t.match(await rejection(animate(wrong as never, { classId: 1 })),
      { code: 'INVALID_OPTION', message: /needs an instance of Par/ }, what)
  }
})

t.test('what the caller does meanwhile changes nothing', async t => {
  const own = await smallPar()
  t.teardown(async () => { await own.dispose(); await par.dispose() })
  for (const instance of [own, par]) {
    await par.dispose() // its next call loads the model first
    const options = { classId: 1, seed: 1, size: { width: 8, height: 6 } }
    const making = animate(instance, options)
    options.size.width = 100
    options.classId = 2
    t.match((await making).image, { classId: 1, width: 8, height: 6 })
  }
  const expected = await animate(own, { classId: 1, seed: 1 })
  const moved = await animate(own,
    {
      classId: 1, seed: 1,
      onProgress: ({ images }) => { if (images) structuredClone(null, { transfer: [images[0]!.data.buffer] }) }
    })
  t.same(await moved.toBuffer(), await expected.toBuffer(), 'a callback transfers the finished picture')
  const options = { delay: Array.from({ length: expected.frames }, () => 60) as number | number[] }
  const encoding = expected.toBuffer('webp', options)
  options.delay = 500
  t.ok((await shown(await encoding)).every(({ ms }) => ms % 60 === 0), 'options of sharp')
})
