// reconstruct: encode and decode in one; the figures are those of the library on what was encoded and what came back.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par, psnr, ssim } from '../../lib/index.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const pixels = async (file: string): Promise<Buffer> => await sharp(file).removeAlpha().raw().toBuffer()

let par: Par
t.before(async () => {
  par = await Par.load()
  await (await par.generate({ classId: 'bag', seed: 1, size: 70 })).toFile(at('bag.png'))
  await (await par.generate({ classId: 'coat', seed: 2 })).toFile(at('coat.png'))
})
t.teardown(() => par.dispose())

t.test('one picture', async t => {
  const { code, stdout, stderr } = await parvis(['reconstruct', at('bag.png'), '--json', '--out', at('back.png')])
  t.equal(code, 0, stderr)
  const picture = await par.prepare(at('bag.png'))
  const back = await par.decode(await par.encode(at('bag.png')))
  t.match(JSON.parse(stdout), {
    pictures: [
      { file: at('bag.png'), out: at('back.png'), width: 32, height: 32, grid: [16, 16], bytes: 224, psnr: psnr(picture,
        back), ssim: ssim(picture, back) }
    ]
  })
  t.ok((await pixels(at('back.png'))).equals(Buffer.from(back.data)), 'what decode makes of what encode finds')
  t.ok(psnr(picture, back) > 20 && ssim(picture, back) > 0.7, `${psnr(picture, back)} dB, ${ssim(picture, back)}`)

  t.equal((await parvis(['encode', at('bag.png'), '--out', at('bag.npy')])).code, 0)
  t.equal((await parvis(['decode', at('bag.npy'), '--out', at('decoded.png')])).code, 0)
  t.ok(fs.readFileSync(at('decoded.png')).equals(fs.readFileSync(at('back.png'))), 'encode, then decode: the same file')
})

t.test('several pictures', async t => {
  const { code, stdout } = await parvis(['reconstruct', at('bag.png'), at('coat.png')])
  t.equal(code, 0)
  const figures = [...stdout.matchAll(/PSNR ([\d.]+) dB, SSIM ([\d.]+)$/gm)]
    .map(match => [Number(match[1]), Number(match[2])])
  t.equal(figures.length, 3)
  t.match(stdout, /bag\.png: 32 x 32 px, 16 x 16 tokens \(224 bytes\), PSNR.*\n.*coat\.png.*\nmean of 2: PSNR/)
  for (const k of [0, 1]) t.ok(Math.abs((figures[0]![k]! + figures[1]![k]!) / 2 - figures[2]![k]!) < 0.006)
  t.same(fs.readdirSync(folder).filter(name => name.includes('reconstruct')), [], 'no file that nobody asked for')

  t.equal(
    (await parvis(['reconstruct', at('bag.png'), at('coat.png'), '--beside', '--scale', '3', '--out',
      at('beside.png')])).code, 0
  )
  const { data, info } = await sharp(at('beside-1.png')).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  t.match(info, { width: 2 * 96 + 3, height: 96 })
  const [first, back] = [await par.prepare(at('bag.png')), await par.decode(await par.encode(at('bag.png')))]
  for (const [image, left] of [[first, 0], [back, 99]] as const) {
    const wrong = Array.from({ length: 1024 }, (_, k) => k).filter(k =>
      data.readUIntBE((Math.floor(k / 32) * 3 * info.width + left + k % 32 * 3) * 3,
        3) !== Buffer.from(image.data.buffer, image.data.byteOffset).readUIntBE(k * 3, 3))
    t.same(wrong, [], left === 0 ? 'what was encoded' : 'what came back')
  }
  t.ok(fs.existsSync(at('beside-2.png')))
})

t.test('whole pictures and sizes', async t => {
  const { stdout } = await parvis(['reconstruct', at('bag.png'), '--no-crop', '--json'])
  t.match(JSON.parse(stdout), { pictures: [{ width: 70, height: 70, grid: [35, 35] }] })
  t.match(await parvis(['reconstruct', at('bag.png'), '--size', '4', '--json']), { code: 0, stdout: /"psnr"/ })
  t.notMatch((await parvis(['reconstruct', at('bag.png'), '--size', '4'])).stdout, 'SSIM', 'no window fits')
})

t.test('what is refused', async t => {
  const cases: Array<[string[], number, RegExp]> = [
    [[at('bag.png'), '--out', '-'], 2, /standard output/],
    [[at('bag.png'), '--beside'], 2, /--out/],
    [[at('bag.png'), '--size', '31'], 2, /multiples of 2/],
    [[at('bag.png'), '--size', '4096'], 2, /--size 4096x4096: .*at most 2048 pixels a side/],
    [[at('bag.png'), '--scale', '99999', '--out', at('never.png')], 2,
      /pixels.*choose a smaller --scale or --size \[USAGE\]/],
    [[at('bag.png'), '--beside', '--scale', '99999', '--out', at('never.png')], 2,
      /choose a smaller --scale or --size, or leave out --beside \[USAGE\]/],
    [[at('none.png')], 1, /FILE_NOT_FOUND/]
  ]
  for (const [args, code, message] of cases) {
    t.match(await parvis(['reconstruct', ...args]), { code, stdout: '', stderr: message }, args.join(' '))
  }
})
