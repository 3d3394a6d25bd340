// The table of presets against what parvis knows by itself: the published architectures, the paper's numbers of steps,
// and checkpoints of the published shapes under the published names.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { describeTransformer, openCheckpoint } from '../lib/checkpoint/index.js'
import { publishedNbp, publishedParallel, publishedSizes, type PublishedParallel } from '../lib/models/published.js'
import { findCached } from '../lib/hub/cache.js'
import { imagenetLabels } from '../lib/models/imagenet.js'
import { resolveClass, searchLabels } from '../lib/models/labels.js'
import { ParError } from '../lib/base/errors.js'
import { Par } from '../lib/api/par.js'
import { presetOf, presets, publishedSampling, type Preset } from '../lib/models/presets.js'
import { createSchedule } from '../lib/decoding/schedule.js'
import { temporaryFolder } from './cli/run.js'
import {
  arpgShapes, lpdShapes, nbpShapes, randarShapes, safetensorsFile, tile, transformerShapes
} from './checkpoint/tiny.js'
import { FakeHub } from './support/hub.js'
import { py, writePt } from './support/pt-writer.js'
import { standIn } from './support/snippets.js'

type Size = typeof publishedSizes[number] | PublishedParallel
const architecture = ({ official }: Preset): Size =>
  publishedNbp.find(({ name }) => name === official) ?? publishedParallel.find(({ name }) => name === official) ??
  publishedSizes.find(({ name }) => official.split('-')[1] === name)!

t.test('the table', async t => {
  const rows = presets.map(preset => {
    const { name, transformer: { repository, file }, heads, grid, n, size: side, sampling } = preset
    const size = architecture(preset)
    const isNbp = preset.official.startsWith('NBP')
    t.equal(heads, isNbp
      ? { 'NBP-UCF-base': 16, 'NBP-UCF-3B': 32 }[preset.official]
      : { B: 12, L: 16, XL: 20, XXL: 24, '3B': 32 }[preset.official.split('-')[1]!], name)
    t.match(
      preset,
      isNbp
        ? {
            tokenizer: { repository: 'ShuhuaiRen/NBP-tokenizer-ucf', file: 'magvit2_ucf.pt' },
            sampling: { temperature: 1, topK: 16000, topP: 0.9 }
          }
        : {
            tokenizer: { repository: 'FoundationVision/LlamaGen', file: 'vq_ds16_c2i.pt' },
            sampling: { temperature: 1, topK: 0, topP: 1 }
          }
    )
    return [name, repository, file, isNbp ? grid.join('x') : grid[0], n,
      'method' in size ? size.steps : createSchedule({ grid, n }).steps.length, sampling.guidanceScale, side]
      .join(' ')
  })
  t.same(rows, [
    'par-xl-4x Epiphqny/PAR PAR-XL-4x.pt 24 4 147 1.5 256',
    'par-xxl-4x Epiphqny/PAR PAR-XXL-4x.pt 24 4 147 1.435 256',
    'par-3b-4x Epiphqny/PAR PAR-3B-4x.pt 24 4 147 1.345 256',
    'par-3b-16x Epiphqny/PAR PAR-3B-16x.pt 24 16 51 1.5 256',
    'llamagen-b-256 FoundationVision/LlamaGen c2i_B_256.pt 16 1 256 2 256',
    'llamagen-b-384 FoundationVision/LlamaGen c2i_B_384.pt 24 1 576 2 256',
    'llamagen-l-256 FoundationVision/LlamaGen c2i_L_256.pt 16 1 256 2 256',
    'llamagen-l-384 FoundationVision/LlamaGen c2i_L_384.pt 24 1 576 2 256',
    'llamagen-xl-384 FoundationVision/LlamaGen c2i_XL_384.pt 24 1 576 1.75 256',
    'llamagen-xxl-384 FoundationVision/LlamaGen c2i_XXL_384.pt 24 1 576 1.75 256',
    'llamagen-3b-384 FoundationVision/LlamaGen c2i_3B_384.pt 24 1 576 1.65 256',
    'arpg-l hp-l33/ARPG arpg_300m.pt 16 1 32 5.4 256',
    'arpg-xl hp-l33/ARPG arpg_700m.pt 16 1 32 6.6 256',
    'arpg-xxl hp-l33/ARPG arpg_1b.pt 16 1 32 6.5 256',
    'lpd-l-256 mit-han-lab/lpd_l_256 lpd_l_256.pth 16 1 32 5.4 256',
    'lpd-xl-256 mit-han-lab/lpd_xl_256 lpd_xl_256.pth 16 1 32 5 256',
    'lpd-xxl-256 mit-han-lab/lpd_xxl_256 lpd_xxl_256.pth 16 1 20 5.9 256',
    'lpd-l-512 mit-han-lab/lpd_l_512 lpd_l_512.pth 32 1 48 7.3 512',
    'lpd-xl-512 mit-han-lab/lpd_xl_512 lpd_xl_512.pth 32 1 48 6 512',
    'randar-l ziqipang/RandAR randar_0.3b_llamagen_360k_bs_1024_lr_0.0004.safetensors 16 1 88 3.4 256',
    'randar-xl ziqipang/RandAR randar_0.7b_llamagen_360k_bs_1024_lr_0.0004.safetensors 16 1 88 4 256',
    'nbp-ucf-base ShuhuaiRen/NBP-ucf-base ucf_base_nbp16_hybrid.ckpt 5x16x16 16 95 1 128',
    'nbp-ucf-3b ShuhuaiRen/NBP-ucf-3b ucf_3b_nbp16_hybrid.ckpt 5x16x16 16 95 1 128'
  ])
  t.equal(presetOf(' PAR-XL-4X ').name, 'par-xl-4x', 'in any case')
  t.throws(() => presetOf('par-l-4x'), { code: 'INVALID_OPTION', message: /par-xl-4x, / })
  t.throws(() => presetOf('fashion'), { code: 'INVALID_OPTION', message: /comes with the package/ })
  t.equal(publishedSampling('PAR-3B-16x')!.guidanceScale, 1.5)
  t.equal(publishedSampling('PAR-L-4x'), undefined, 'trained by the authors, not published')
  t.throws(() => { (presets as Preset[]).push(presets[0]!) })
})

t.test('checkpoints of the published shapes are what the presets say', async t => {
  const cache = temporaryFolder()
  for (const preset of presets) {
    const size = architecture(preset)
    const { layers, dim } = size
    const { repository, file } = preset.transformer
    const commit = '0'.repeat(40)
    const folder = path.join(cache, `models--${repository.replace('/', '--')}`, 'snapshots', commit)
    fs.mkdirSync(folder, { recursive: true })
    const feedForward = Math.ceil(Math.floor(8 * dim / 3) / 256) * 256
    const sizes = { layers, dim, vocabulary: 16384, classes: 1000, feedForward }
    const isNbp = preset.official.startsWith('NBP')
    const shapes = isNbp
      ? nbpShapes({ layers, dim })
      : !('method' in size)
          ? transformerShapes({ ...sizes, transitions: preset.n - 1 })
          : size.method === 'arpg'
            ? arpgShapes(sizes)
            : size.method === 'lpd'
              ? lpdShapes({ ...sizes, feedForward: 4 * dim, tokens: size.side ** 2 })
              : randarShapes(sizes)
    // Zeros that take no room: the file is sparse.
    if (file.endsWith('.safetensors')) {
      const { entries, bytes } = tile(shapes, 'BF16', 2)
      fs.writeFileSync(path.join(folder, file), safetensorsFile(entries, 0))
      fs.truncateSync(path.join(folder, file), fs.statSync(path.join(folder, file)).size + bytes)
    } else {
      writePt(path.join(folder, file),
        { model: new Map([...shapes].map(([name, shape]) => [name, py.tensor({ dtype: 'bfloat16', shape })])) })
    }
    const found = await findCached(cache, preset.transformer)
    t.equal(found, path.join(folder, file))
    const { heads, grid, n } = preset
    t.match(describeTransformer(await openCheckpoint(found!), { heads, grid, n }),
      { official: preset.official, n, grid, model: { heads, dim, classes: isNbp ? 101 : 1000 }, warnings: [] },
      preset.name)
  }
})

t.test('ImageNet\'s names', async t => {
  const labels = imagenetLabels()
  t.equal(labels.length, 1000)
  t.same([0, 107, 207, 277, 360, 398, 638, 639, 999].map(id => labels[id]), [
    'tench, Tinca tinca', 'jellyfish', 'golden retriever', 'red fox, Vulpes vulpes', 'otter', 'abacus', 'maillot',
    'maillot, tank suit', 'toilet tissue, toilet paper, bathroom tissue'
  ])
  t.same(labels.filter(label => !/^[\w'.-]+(?:[ ,]{1,2}[\w'.-]+)*$/.test(label) || label !== label.trim()), [],
    'nothing odd')
  t.equal(new Set(labels).size, 999, 'only crane twice')
  const resolve = (name: string): number => resolveClass(name, 1000, labels)
  t.same(['tench', 'TINCA TINCA', 'tench, Tinca tinca', 'Golden Retriever', 'golden-retriever', 'otter',
    'maillot, tank suit', 'tank suit', 'toilet paper', 'jack-o\'-lantern', 'carpenters kit'].map(resolve),
  [0, 0, 0, 207, 207, 360, 639, 639, 999, 607, 477])
  for (const [name, ids] of [['crane', '134, 517'], ['maillot', '638, 639'], ['Cardigan', '264, 474'],
    ['missile', '657, 744']] as const) {
    t.throws(() => resolve(name), { code: 'BAD_CLASS_ID', message: new RegExp(`several classes: ${ids} `) }, name)
  }
  t.throws(() => resolve('fox'), { code: 'BAD_CLASS_ID', message: /red fox, Vulpes vulpes' \(277\)/ })
  for (const [id, label] of labels.entries()) {
    if (!label.includes(',')) continue
    if (resolve(label) !== id) t.fail(`${id}: ${label}`)
  }
  t.same(searchLabels(labels, 'FOX,'), [277, 278, 279, 280])
})

t.test('Par.load by name', async t => {
  const folder = temporaryFolder()
  standIn('PAR-XL-4x.pt', folder, 1280)
  standIn('vq_ds16_c2i.pt', folder)
  const hub = await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': fs.readFileSync(path.join(folder, 'PAR-XL-4x.pt')) } },
    'FoundationVision/LlamaGen': { files: { 'vq_ds16_c2i.pt': fs.readFileSync(path.join(folder, 'vq_ds16_c2i.pt')) } }
  })
  t.teardown(async () => { await hub.stop() })
  process.env.HF_ENDPOINT = hub.url
  const cache = temporaryFolder()
  const failure = async (...args: unknown[]): Promise<ParError> =>
    await (Par.load as (...args: unknown[]) => Promise<Par>)(...args).then(() => { throw new Error('loaded') },
      (error: ParError) => error)

  t.match(await failure('par-xl-4x', { cache }),
    { code: 'FILE_NOT_FOUND', message: /PAR-XL-4x\.pt.*npx parvis pull par-xl-4x; .*pull: true/ })
  t.equal(hub.requests.length, 0, 'nobody is asked unless it is asked for')
  for (const args of [['par-xl'], ['par-xl-4x', { tokenizer: 'a.pt' }], ['par-xl-4x', { pull: 1 }],
    ['par-xl-4x', { cache: 5 }], ['par-xl-4x', { onPull: 5 }], [{ pull: true }]]) {
    t.match(await failure(...args), { code: 'INVALID_OPTION' })
  }
  t.equal(await failure('par-xl-4x', { cache, pull: true, signal: AbortSignal.abort(3) }), 3 as unknown)
  const mine = Object.assign(new Error('mine'), { code: 'ENOMEM' })
  t.equal(await failure('par-xl-4x', { cache, pull: true, onPull: () => { throw mine } }), mine as unknown,
    'an error of the callback, whatever it looks like')

  let bytes = 0
  const par = await Par.load('par-xl-4x',
    { cache, pull: true, precision: 'float32', onPull: progress => { bytes = progress.bytesDone } })
  t.teardown(() => par.dispose())
  t.ok(bytes > 1e6, 'told what is fetched')
  t.match(
    par.info,
    {
      preset: 'par-xl-4x',
      transformer: {
        heads: 20, n: 4, grid: [24, 24], size: 256, sampling: { guidanceScale: 1.5, temperature: 1, topK: 0, topP: 1 }
      }
    }
  )
  t.equal(par.labels![360], 'otter')
  const image = await par.generate({ classId: 'otter', seed: 1 })
  t.match(image, { width: 256, height: 256, classId: 360, label: 'otter', steps: 147 })
  t.match(await par.generate({ classId: 'otter', seed: 1, size: 96 }), { width: 96, height: 96 })
  hub.requests.length = 0
  await (await Par.load('par-xl-4x', { cache })).dispose()
  await (await Par.load('par-xl-4x', { cache, pull: true })).dispose()
  t.equal(hub.requests.length, 0, 'what is in the cache is taken from there')
})
