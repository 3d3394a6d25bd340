// inspect and labels on the golden fixtures and the embedded model; their figures are those of the fixtures' README.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { transformerModel } from '../../lib/models/shapes.js'
import { vq16, vqTensors } from '../../lib/models/vq.js'
import { llamaGenTensors } from '../../lib/checkpoint/llamagen.js'
import { findGolden, golden } from '../support/golden.js'
import {
  arpgShapes, lpdShapes, randarShapes, safetensorsFile, stateDict, tile, transformerShapes
} from '../checkpoint/tiny.js'
import { py, writePt } from '../support/pt-writer.js'
import { parvis, root, temporaryFolder } from './run.js'

interface Report {
  kind: string
  n: number
  grid: number[]
  headsFrom: string | null
  model: Record<string, unknown>
  tensors: Array<{ name: string, dtype: string, shape: number[], bytes: number, used: boolean }>
}

const transformers = [
  { name: 'par-4x', n: 4, dim: 128, vocabularySize: 256, dtype: 'float32', wrapper: 'model' },
  { name: 'par-16x-hd100', n: 16, dim: 200, vocabularySize: 320, dtype: 'bfloat16', wrapper: 'module' },
  { name: 'llamagen', n: 1, dim: 128, vocabularySize: 256, dtype: 'float16', wrapper: undefined }
]

for (const { name, n, dim, vocabularySize, dtype, wrapper } of transformers) {
  t.test(name, async t => {
    const file = golden(`${name}/model.pt`)
    const { code, stdout, stderr } = await parvis(['inspect', file, '--json', '--heads', '2', '--grid', '8x8'])
    t.equal(code, 0)
    t.equal(stderr, '')
    const report = JSON.parse(stdout) as Report
    t.match(report, {
      file, format: 'pt', fileBytes: fs.statSync(file).size, kind: 'transformer', official: null, n, grid: [8, 8],
      headsFrom: 'option',
      model: { layers: 2, dim, heads: 2, headSize: dim / 2, vocabularySize, classes: 10, specials: n - 1 }
    })
    t.equal((report as { wrapper?: string }).wrapper, wrapper)
    const embeddings = report.tensors.find(tensor => tensor.name === 'tok_embeddings.weight')
    t.same(
      embeddings,
      { name: 'tok_embeddings.weight', dtype, shape: [vocabularySize,
        dim], bytes: vocabularySize * dim * (dtype === 'float32' ? 4 : 2), used: true }
    )

    const unknown = JSON.parse((await parvis(['inspect', file, '--json'])).stdout) as Report
    t.equal(unknown.headsFrom, null, 'heads that nothing tells are unknown')
    t.equal(unknown.model.heads, null)

    const text = await parvis(['inspect', file, '--tensors'])
    t.equal(text.code, 0)
    t.match(text.stdout, /heads +unknown.*--heads/)
    t.match(text.stdout, new RegExp(`tok_embeddings\\.weight +${dtype} +\\[${vocabularySize}, ${dim}\\]`))
  })
}

interface Need {
  device: string
  precision: string
  guided: boolean
  weights: number
  batches: Array<{ batch: number, atOnce: number, bytes: number }>
}

t.test('published models are named, others by what sets them apart from the nearest', async t => {
  const folder = temporaryFolder()
  const write = (name: string, shapes: Map<string, number[]>): string => {
    const file = path.join(folder, name)
    // sparse
    writePt(
      file,
      {
        model: py.orderedDict(
          [...shapes].map(([tensor, shape]) =>
            [tensor, py.tensor({ dtype: 'bfloat16', shape, data: 2 * shape.reduce((a, b) => a * b, 1) })])
        )
      }
    )
    return file
  }
  for (const [size, n, name] of [['XL', 4, 'PAR-XL-4x'], ['XXL', 1, 'LlamaGen-XXL, c2i_XXL_384'],
    ['3B', 16, 'PAR-3B-16x']] as const) {
    const { stdout } = await parvis(['inspect',
      write('a.pt', new Map(llamaGenTensors(transformerModel(size, n)).map(([name, shape]) => [name, [...shape]])))])
    t.match(stdout.replace(/ +/g, ' '), `\n model ${name} (the authors' file, by its shapes)\n`)
  }
  const sizes = { layers: 24, dim: 1024, vocabulary: 16384, classes: 1000, feedForward: 2816 }
  for (const [shapes, name, lines] of [
    [arpgShapes(sizes), 'ARPG-L, arpg_300m', ['method ARPG, 32 steps by default',
      'grid 16 x 16 tokens (that of the published model)',
      'layers 12 and 12 cross layers, width 1024, feed-forward 2816',
      'heads 16 of 64 (all models of ARPG have such)']],
    [lpdShapes({ ...sizes, feedForward: 4096, tokens: 1024 }), 'LPD-L-512, lpd_l_512',
      ['method LPD, 48 steps by default', 'grid 32 x 32 tokens (from its table of positions)']],
    [randarShapes(sizes), 'RandAR-L, randar_0.3b_llamagen_360k_bs_1024_lr_0.0004',
      ['method RandAR, 88 steps by default', 'grid 16 x 16 tokens (that of the published model)']]
  ] as const) {
    const { stdout } = await parvis(['inspect', write('a.pt', shapes)])
    const found = stdout.replace(/ +/g, ' ').split('\n').map(line => line.trim())
    const expected = [`model ${name} (the authors' file, by its shapes)`, ...lines]
    t.same(expected.filter(line => !found.includes(line)), [], name)
  }
  t.match((await parvis(['inspect', write('a.pt', lpdShapes({ ...sizes, feedForward: 4096, layers: 2, tokens: 256 }))]))
    .stdout, /model +none of the published ones; nearest is LPD-L-256, but for layers 2 \(there 24\)\n/)
  for (const [name, args, model, grid] of [
    ['a.pt', [], "LlamaGen-B, c2i_B_256 or c2i_B_384 (the authors' file, by its shapes; the grid tells them apart, " +
      'and it is assumed)', '24 x 24 tokens (assumed; nothing in the file says)'],
    ['c2i_B_256.pt', [], "LlamaGen-B, c2i_B_256 (the authors' file, by its shapes)",
      '16 x 16 tokens (from its file name)'],
    ['a.pt', ['--grid', '24x24'], "LlamaGen-B, c2i_B_384 (the authors' file, by its shapes)",
      '24 x 24 tokens (as given)'],
    ['a.pt', ['--grid', '8'], 'LlamaGen-B, by its shapes; no such file was published for this grid',
      '8 x 8 tokens (as given)']
  ] as const) {
    const file = write(name,
      new Map(llamaGenTensors(transformerModel('B', 1)).map(([name, shape]) => [name, [...shape]])))
    const { stdout } = await parvis(['inspect', file, ...args])
    const lines = stdout.replace(/ +/g, ' ').split('\n').map(line => line.trim())
    t.ok(lines.includes(`model ${model}`), `${name}: model`)
    t.ok(lines.includes(`grid ${grid}`), `${name}: grid`)
    const report = JSON.parse((await parvis(['inspect', file, ...args, '--json'])).stdout) as { mayBe?: string[] }
    t.same(report.mayBe, model.match(/c2i_B_\d+/g) ?? undefined)
  }
  for (const [name, model] of [
    ['vq_ds16_c2i.pt', /model +vq_ds16_c2i, VQ-16 \(the authors' file, by its shapes and its name\)/],
    ['vq_ds16_t2i.pt', /model +vq_ds16_t2i, VQ-16 [^]*note +vq_ds16_t2i belongs to text-to-image models/],
    ['a.pt',
      /model +VQ-16, vq_ds16_c2i or vq_ds16_t2i \(by its shapes, which both have\)[^]*note +nothing in the file says which/]
  ] as const) {
    const file = write(name, new Map(vqTensors(vq16).map(({ name, shape }) => [name, [...shape]])))
    t.match((await parvis(['inspect', file])).stdout, model, name)
    t.same((JSON.parse((await parvis(['inspect', file, '--json'])).stdout) as { mayBe?: string[] }).mayBe,
      name === 'a.pt' ? ['vq_ds16_c2i', 'vq_ds16_t2i'] : undefined)
  }

  const other = { ...transformerModel('XL', 9), layers: 35, classes: 999 }
  const file = write('b.pt', new Map(llamaGenTensors(other).map(([name, shape]) => [name, [...shape]])))
  const { stdout } = await parvis(['inspect', file])
  t.match(stdout.replace(/ +/g, ' '), ' model none of the published ones; nearest is PAR-XL-16x, but for layers 35 ' +
    '(there 36), classes 999 (there 1000), n 9 (there 16)\n')
  t.match(stdout, /tensors +\d+ tensors, .* bfloat16 \(--tensors lists them\)/)
  t.notMatch(stdout, /tok_embeddings/)
  t.match(stdout, /Memory with the weights, not guided.*\n +weights +1 picture +4 +16 +64\n +CPU +bfloat16 +1\.\d+ GB/)
  const report = JSON.parse((await parvis(['inspect', file, '--json'])).stdout) as { nearest: object, needs: Need[] }
  t.same(report.nearest, { name: 'PAR-XL-16x', differences: [{ what: 'layers', here: 35, published: 36 },
    { what: 'classes', here: 999, published: 1000 }, { what: 'n', here: 9, published: 16 }] })
  t.same(report.needs.map(({ device, precision }) => `${device} ${precision}`),
    ['cpu bfloat16', 'cpu int8', 'cpu float32', 'cuda bfloat16', 'cuda int8', 'cuda float32'])
  for (const { weights, batches } of report.needs) {
    t.same(batches.map(({ batch }) => batch), [1, 4, 16, 64])
    t.ok(
      batches.every(({ bytes, atOnce, batch }, i) =>
        bytes > weights && atOnce <= batch && bytes >= (batches[i - 1]?.bytes ?? 0))
    )
  }
})

t.test('--speed', async t => {
  const model = path.join(root, 'models', 'fashion', 'par-4.safetensors')
  const { code, stdout, stderr } = await parvis(['inspect', model, '--speed', '--device', 'cpu', '--json'])
  t.equal(code, 0, stderr)
  const { speed } = JSON.parse(stdout) as { speed: {
    device: string, ceilings: Record<string, number>, steps: number, atBest: Array<{ secondsAnImage: number }>
  } }
  t.match(speed, { device: 'cpu', steps: 67, atBest: { length: 6 } })
  t.ok(Object.values(speed.ceilings).every(ceiling => ceiling > 1e8))
  t.ok(speed.atBest.every(({ secondsAnImage }) => secondsAnImage > 0 && secondsAnImage < 10))
  t.match((await parvis(['inspect', model, '--speed', '--device', 'cpu'])).stdout,
    /cpu reads \d+ GB\/s.*\n.*67 steps.*at best/)
  t.match(await parvis(['inspect', model, '--speed', '--device', 'cuda:77']),
    { code: 1, stderr: /\[DEVICE_UNAVAILABLE\]/ })
})

for (const [name, multipliers] of [['vq-f4', [1, 2, 2]], ['vq-small', [2, 1, 1]]] as const) {
  const file = findGolden(`${name}/vq.pt`)
  t.test(name, { skip: file === undefined && 'the fixture is not here' }, async t => {
    const { code, stdout } = await parvis(['inspect', file!, '--json'])
    t.equal(code, 0)
    t.match(JSON.parse(stdout), {
      kind: 'tokenizer', official: null,
      model: { baseChannels: 32, multipliers, zChannels: 32, codebookSize: 256, codeSize: 8 }
    })
    t.match((await parvis(['inspect', file!])).stdout, /factor +4 pixels per token/)
  })
}

t.test('the embedded model', async t => {
  const { code, stdout } = await parvis(['inspect', path.join(root, 'models', 'fashion', 'par-4.safetensors'),
    '--json'])
  t.equal(code, 0)
  t.match(JSON.parse(stdout),
    { format: 'safetensors', kind: 'transformer', n: 4, grid: [16, 16], headsFrom: 'metadata', labels: { length: 10 } })
  const pixels = await parvis(['inspect', path.join(root, 'models', 'fashion', 'tokenizer.safetensors')])
  t.equal(pixels.code, 0)
  t.match(pixels.stdout, /kind +tokenizer\n[^]*factor +2 pixels per token/)
})

t.test('labels', async t => {
  const { code, stdout } = await parvis(['labels'])
  t.equal(code, 0)
  t.match(stdout.split('\n'), { 7: /^7 +Sneaker$/, 9: /^9 +Ankle boot$/, length: 11 })
  t.match(JSON.parse((await parvis(['labels', '--json'])).stdout), { 7: { classId: 7, label: 'Sneaker' }, length: 10 })
  t.equal((await parvis(['labels', '--model', 'Fashion'])).stdout, stdout, 'by name')
  t.match(await parvis(['labels', '--transformer', golden('par-16x-hd100/model.pt')]),
    { code: 1, stderr: /\[MISSING_PART\]/ })
})

t.test('files that are no checkpoints', async t => {
  const folder = temporaryFolder()
  const file = path.join(folder, 'a.pt')
  t.match(await parvis(['inspect', file]), { code: 1, stdout: '', stderr: /\[FILE_NOT_FOUND\]/ })
  fs.writeFileSync(file, 'hello, this is no checkpoint')
  t.match(await parvis(['inspect', file]), { code: 1, stdout: '', stderr: /\[BAD_CHECKPOINT\]/ })
  const whole = fs.readFileSync(golden('par-4x/model.pt'))
  fs.writeFileSync(file, whole.subarray(0, whole.length / 2))
  t.match(await parvis(['inspect', file, '--json']),
    { code: 1, stdout: '', stderr: /^\{"error":\{"code":"BAD_CHECKPOINT"/ })
})

t.test('a checkpoint of another kind is listed all the same', async t => {
  const file = path.join(temporaryFolder(), 'other.safetensors')
  const header = Buffer.from(JSON.stringify({ 'conv.weight': { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] } }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  fs.writeFileSync(file, Buffer.concat([length, header, Buffer.alloc(24)]))
  const { code, stdout, stderr } = await parvis(['inspect', file])
  t.equal(code, 1)
  t.match(stdout, /conv\.weight +float32 +\[2, 3\] +24 B/)
  t.match(stderr, /\[BAD_CHECKPOINT\]/)
})

t.test('what is assumed, and EMA copies', async t => {
  const folder = temporaryFolder()
  const file = path.join(folder, 'x.pt')
  const dict = (): Map<string, unknown> => stateDict(transformerShapes({ transitions: 0 }))
  writePt(file, { model: dict(), 'ema\u001b[2J': dict(), steps: 3 })
  const { stdout } = await parvis(['inspect', file, '--heads', '2'])
  t.match(stdout, /grid +24 x 24 tokens \(assumed; nothing in the file says\)/)
  t.match(stdout, /EMA copy +"ema\\u001b\[2J" \(--weights ema takes it\)/)
  t.match(stdout, /note +nothing in the file says its token grid: 24 x 24 is assumed/)
  t.match(JSON.parse((await parvis(['inspect', file, '--heads', '2', '--weights', 'ema', '--json'])).stdout),
    { weights: 'ema', gridFrom: 'assumed', warnings: [/24 x 24 is assumed/] })
  const made = await parvis(['generate', '--transformer', file, '--heads', '2', '--class', '0', '--json',
    '--with-tokens', '--device', 'cpu'])
  t.equal(made.code, 0)
  t.match(made.stderr, /x\.pt: nothing in the file says its token grid: 24 x 24 is assumed/)
  const output = path.join(folder, 'out.safetensors')
  const converted = await parvis(['convert', file, output, '--heads', '2'])
  t.match(converted, { code: 0, stderr: /24 x 24 is assumed[^]*the converted file records no grid/ })
  t.equal(
    (await parvis(['convert', file, output, '--heads', '2', '--grid', '8', '--force', '--weights', 'ema'])).stderr, ''
  )
  t.match(await parvis(['inspect', output, '--weights', 'ema']),
    { code: 1, stderr: /does not hold an EMA copy.*INVALID_OPTION/ })
})

t.test('text of a file commands no terminal', async t => {
  const hostile = '\u001b]0;title\u0007\u001b[2J\r\u009b31m\u202etxt\u2066'
  const file = path.join(temporaryFolder(), 'x.safetensors')
  const shapes = transformerShapes()
  const { entries, bytes } = tile(new Map([...shapes, [`ema.${hostile}`, [8]]]))
  const about = {
    kind: 'transformer', heads: 2, grid: [8, 8], name: hostile, labels: [hostile, 'b', 'c'], sourceFile: hostile
  }
  fs.writeFileSync(
    file, safetensorsFile({ __metadata__: { parvis: JSON.stringify(about), [hostile]: hostile }, ...entries }, bytes)
  )
  const pt = path.join(temporaryFolder(), 'x.pt')
  writePt(
    pt,
    {
      model: new Map([...stateDict(shapes), [`ema.${hostile}`, py.reduce(py.global('odd Thing'), py.tuple(hostile))]]),
      [hostile]: hostile
    }
  )
  for (const args of [[file], [file, '--tensors'], [pt, '--heads', '2'], [pt, '--heads', '2', '--tensors'], [pt]]) {
    const { stdout, stderr } = await parvis(['inspect', ...args])
    t.notMatch(stdout + stderr, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/,
      args.slice(1).join(' '))
    t.match(stdout, /u001b/)
  }
})

t.test('a signal ends --speed', async t => {
  const started = performance.now()
  // While the device is measured, which nothing else in this process can end.
  const hook = path.join(temporaryFolder(), 'hook.cjs')
  fs.writeFileSync(hook, `require(${JSON.stringify(path.join(root, 'dist', 'machine', 'engine.js'))}).createEngine = () => ({
  measureCeilings: async () => { process.kill(process.pid, 'SIGINT'); return await new Promise(() => setTimeout(() => {}, 60_000)) },
  dispose: async () => {}
})`)
  const { code, signal, stdout, stderr } = await parvis([
    'inspect', path.join(root, 'models', 'fashion', 'par-4.safetensors'), '--speed', '--device', 'cpu'
  ], { env: { NODE_OPTIONS: `--require ${hook}` } })
  t.ok(code === 130 || signal === 'SIGINT', `${code}, ${signal}`)
  t.same(stdout, '')
  t.match(stderr, /stopped by SIGINT; no file was written \[INTERRUPTED\]/)
  t.ok(performance.now() - started < 15_000)
})
