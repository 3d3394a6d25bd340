// encode: the tokens that the API finds, as JSON and as .npy; every kind of picture that goes in, and what is said of
// it.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { Par } from '../../lib/index.js'
import { readNpy } from '../../lib/pictures/npy.js'
import { golden } from '../support/golden.js'
import { bin, parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

interface Result {
  codebookSize: number
  pictures: Array<{
    file: string, width: number, height: number, grid: [number, number], notes?: string[], tokens: number[]
  }>
}

/** A picture in which every place looks different. */
const [width, height] = [60, 44]
const data = Uint8Array.from({ length: width * height * 3 },
  (_, i) => [4 * (Math.floor(i / 3) % width), 5 * Math.floor(i / 3 / width), 60][i % 3]!)
const picture = (): sharp.Sharp => sharp(data, { raw: { width, height, channels: 3 } })

async function encoded (...args: string[]): Promise<Result & { stderr: string }> {
  const { code, stdout, stderr } = await parvis(['encode', ...args])
  if (code !== 0) throw new Error(stderr)
  return { ...JSON.parse(stdout) as Result, stderr }
}

let par: Par
t.before(async () => {
  par = await Par.load()
  await picture().png().toFile(at('a.png'))
})
t.teardown(() => par.dispose())

t.test('JSON on standard output', async t => {
  const { codebookSize, pictures, stderr } = await encoded(at('a.png'))
  t.equal(stderr, '')
  t.equal(codebookSize, 128)
  t.match(pictures, [{ file: at('a.png'), width: 32, height: 32, grid: [16, 16] }])
  t.same(pictures[0]!.tokens, Array.from(await par.encode(at('a.png'))), 'the tokens of Par.encode')
})

t.test('files', async t => {
  await picture().negate().png().toFile(at('b.png'))
  const both = [await par.encode(at('a.png')), await par.encode(at('b.png'))]
  const { code, stdout } = await parvis(['encode', at('a.png'), at('b.png'), '--out', at('both.npy')])
  t.equal(code, 0)
  t.match(stdout, /a\.png: 16 x 16 tokens of 32 x 32 px\n.*b\.png.*\n.*both\.npy: 2 pictures\n$/)
  const whole = await readNpy(fs.readFileSync(at('both.npy')), 'both')
  t.same(whole, { data: Int32Array.from([...both[0]!, ...both[1]!]), shape: [2, 16, 16] })
  t.equal((await parvis(['encode', at('a.png'), '--out', at('one.npy')])).code, 0)
  t.same(await readNpy(fs.readFileSync(at('one.npy')), 'one'), { data: both[0], shape: [16, 16] })

  const said = await parvis(['encode', at('a.png'), at('b.png'), '--out', at('both.json'), '--json'])
  t.match(JSON.parse(said.stdout),
    { file: at('both.json'), format: 'json', pictures: [{ tokens: 256 }, { tokens: 256 }] })
  t.same((JSON.parse(fs.readFileSync(at('both.json'), 'utf8')) as Result).pictures.map(({ tokens }) => tokens),
    both.map(tokens => Array.from(tokens)))

  const piped = await parvis(['encode', at('a.png'), '--out', '-', '--format', 'npy'])
  t.ok(piped.bytes.equals(fs.readFileSync(at('one.npy'))), '.npy on standard output')
})

t.test('size, whole pictures, another tokenizer', async t => {
  const sized = await encoded(at('a.png'), '--size', '24x16')
  t.match(sized.pictures[0], { width: 24, height: 16, grid: [8, 12] })
  t.same(sized.pictures[0]!.tokens, Array.from(await par.encode(at('a.png'), { grid: [8, 12] })))
  t.match((await encoded(at('a.png'), '--no-crop')).pictures[0], { width, height, grid: [22, 30] }, 'its own shape')
  const squeezed = await encoded(at('a.png'), '--no-crop', '--size', '32')
  t.same(squeezed.pictures[0]!.tokens, Array.from(await par.encode(at('a.png'), { crop: false })))
  t.notSame(squeezed.pictures[0]!.tokens, Array.from(await par.encode(at('a.png'))))
  const other = await encoded(at('a.png'), '--tokenizer', golden('vq-small/vq.pt'), '--precision', 'float32')
  t.match(other, { codebookSize: 256, pictures: [{ width: 44, height: 44, grid: [11, 11] }] })
})

t.test('any picture', async t => {
  const own = (await encoded(at('a.png'))).pictures[0]!.tokens
  const same = async (name: string, notes: string[], exact = true): Promise<void> => {
    const { pictures, stderr } = await encoded(at(name))
    t.same(pictures[0]!.notes ?? [], notes, name)
    t.equal(stderr, notes.map(text => `parvis: ${at(name)}: ${text}\n`).join(''))
    const wrong = pictures[0]!.tokens.filter((token, k) => token !== own[k]).length
    t.ok(exact ? wrong === 0 : wrong < 200, `${name}: ${wrong} tokens differ`)
  }
  await picture().rotate(-90).withMetadata({ orientation: 6 }).png().toFile(at('turned.png'))
  await same('turned.png', ['turned upright (EXIF orientation 6)'])
  await picture().toColourspace('rgb16').png().toFile(at('deep.png'))
  await same('deep.png', ['rounded to 8 bits'])
  await picture().ensureAlpha(1).png().toFile(at('opaque.png'))
  await same('opaque.png', ['transparency laid on white'])
  await picture().tiff({ compression: 'lzw' }).toFile(at('a.tiff'))
  await same('a.tiff', [])
  await picture().webp({ lossless: true }).toFile(at('a.webp'))
  await same('a.webp', [])
  const frames = Buffer.concat([data, data.map(byte => 255 - byte), data])
  await sharp(frames, { raw: { width, height: 3 * height, channels: 3, pageHeight: height } }).webp({ lossless: true })
    .toFile(at('moving.webp'))
  await same('moving.webp', ['the first of 3 frames'])
  await picture().toColourspace('cmyk').jpeg({ quality: 100 }).toFile(at('cmyk.jpg'))
  await same('cmyk.jpg', ['converted from CMYK'], false)

  await picture().greyscale().png().toFile(at('grey.png'))
  await picture().greyscale().toColourspace('srgb').png({ palette: false }).toFile(at('grey-rgb.png'))
  const plain = await sharp(at('grey.png')).toColourspace('srgb').raw().toBuffer({ resolveWithObject: true })
  t.ok(plain.info.channels >= 1)
  t.same((await encoded(at('grey.png'))).pictures[0]!.tokens, (await encoded(at('grey-rgb.png'))).pictures[0]!.tokens,
    'greyscale')
})

t.test('transparency', async t => {
  const flat = async (colour: string): Promise<number[]> => {
    await sharp({ create: { width: 32, height: 32, channels: 3, background: colour } }).png().toFile(at('flat.png'))
    return (await encoded(at('flat.png'))).pictures[0]!.tokens
  }
  await sharp({ create: { width: 32, height: 32, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } } }).png()
    .toFile(at('clear.png'))
  t.same((await encoded(at('clear.png'))).pictures[0]!.tokens, await flat('#fff'), 'on white')
  const { pictures } = await encoded(at('clear.png'), '--background', '#202020')
  t.same(pictures[0]!.tokens, await flat('#202020'), 'on a colour')
  t.same(pictures[0]!.notes, ['transparency laid on #202020'])
  t.notSame(await flat('#fff'), await flat('#202020'))
})

t.test('what is refused', async t => {
  fs.writeFileSync(at('text.png'), 'no picture')
  fs.writeFileSync(at('short.png'), fs.readFileSync(at('a.png')).subarray(0, 100))
  const cases: Array<[string[], number, string, RegExp]> = [
    [[], 2, 'USAGE', /missing required argument/],
    [[at('none.png')], 1, 'FILE_NOT_FOUND', /none\.png/],
    [[folder], 1, 'FILE_NOT_FOUND', /folder/],
    [[at('text.png')], 1, 'BAD_IMAGE', /text\.png/],
    [[at('a.png'), at('short.png')], 1, 'BAD_IMAGE', /short\.png/],
    [[at('a.png'), '--size', '33'], 2, 'USAGE', /33x33.*multiples of 2/],
    [[at('a.png'), '--size', '99999998'], 2, 'USAGE', /--size 99999998x99999998: .*at most 2048 pixels a side/],
    [[at('a.png'), '--background', 'no colour'], 2, 'INVALID_OPTION', /--background.*#ff8800/],
    [[at('a.png'), '--out', at('x.png')], 2, 'USAGE', /\.json or \.npy/],
    [[at('a.png'), '--out', at('no/x.npy')], 2, 'USAGE', /there is no folder/],
    [[at('a.png'), '--json', '--format', 'npy'], 2, 'USAGE', /standard output/],
    [[at('a.png'), at('turned.png'), at('clear.png'), '--no-crop', '--out', at('x.npy')], 2, 'USAGE',
      /different grids/],
    [[at('a.png'), '--tokenizer', at('none.pt')], 1, 'FILE_NOT_FOUND', /none\.pt/]
  ]
  for (const [args, code, name, message] of cases) {
    const result = await parvis(['encode', ...args])
    t.match(result, { code, stdout: '' }, args.join(' '))
    t.match(result.stderr, message)
    t.match(result.stderr, name)
  }
  t.notOk(fs.existsSync(at('x.npy')))
  const here = fs.openSync(folder, 'r')
  t.teardown(() => fs.closeSync(here))
  for (const command of ['encode', 'decode', 'reconstruct', 'score']) {
    const { status, stderr } = spawnSync(process.execPath, [bin, command, '-'],
      { stdio: [here, 'pipe', 'pipe'], encoding: 'utf8', cwd: folder })
    t.equal(status, 1, command)
    t.match(stderr, /^parvis: standard input: cannot be read: it is a folder, not a file\..* \[FILE_NOT_FOUND\]\n$/)
  }
})
