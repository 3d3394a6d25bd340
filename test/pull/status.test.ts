// What is known of the presets before anything is fetched.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { presetStatus } from '../../lib/hub/status.js'
import { presets } from '../../lib/models/presets.js'
import { temporaryFolder } from '../cli/run.js'

t.test('sizes from the shapes, and what is in the cache', async t => {
  const cache = temporaryFolder()
  const empty = await presetStatus(cache)
  t.same(empty.map(({ preset }) => preset), presets.map(({ name }) => name))
  t.ok(empty.every(({ cached, files }) => !cached && files.every(({ path }) => path === undefined)))
  // What the papers say: millions of parameters.
  const millions = { B: 111, L: 343, XL: 775, XXL: 1400, '3B': 3100 } as const
  const parallel: Readonly<Record<string, number>> = {
    'ARPG-L': 319.8, 'ARPG-XL': 719, 'ARPG-XXL': 1302.4, 'LPD-L-256': 337.2, 'LPD-XL-256': 751.9, 'LPD-XXL-256': 1412.2,
    'LPD-L-512': 337.9, 'LPD-XL-512': 752.9, 'RandAR-L': 342.9, 'RandAR-XL': 774.7,
    'NBP-UCF-base': 982.797312, 'NBP-UCF-3B': 4230.838272 // all numbers of the files
  }
  for (const { official, files: [transformer, tokenizer] } of empty) {
    const said = parallel[official] ?? millions[official.split('-')[1] as keyof typeof millions]
    t.ok(Math.abs(transformer!.parameters / 1e6 / said - 1) < 0.02, `${official}: ${transformer!.parameters}`)
    t.same(transformer!.bytes, [2 * transformer!.parameters, 4 * transformer!.parameters])
    t.same([tokenizer!.role, tokenizer!.file, Math.round(tokenizer!.parameters / 1e6) * 1e6],
      official.startsWith('NBP') ? ['tokenizer', 'magvit2_ucf.pt', 370e6] : ['tokenizer', 'vq_ds16_c2i.pt', 72e6],
      'as its authors say')
    if (official.startsWith('NBP')) t.equal(transformer!.parameters / 1e6, said)
    if (official.startsWith('NBP')) t.equal(tokenizer!.parameters, 370_372_105)
  }
  const commit = 'a'.repeat(40)
  const put = (repository: string, file: string, size: number): void => {
    const folder = path.join(cache, `models--${repository.replace('/', '--')}`, 'snapshots', commit)
    fs.mkdirSync(folder, { recursive: true })
    fs.writeFileSync(path.join(folder, file), Buffer.alloc(size))
  }
  put('FoundationVision/LlamaGen', 'vq_ds16_c2i.pt', 1234)
  put('FoundationVision/LlamaGen', 'c2i_B_256.pt', 5678)
  const some = await presetStatus(cache)
  t.same(some.filter(({ cached }) => cached).map(({ preset }) => preset), ['llamagen-b-256'])
  t.match(some.find(({ preset }) => preset === 'llamagen-b-256')!.files,
    [{ bytes: 5678, path: /c2i_B_256\.pt$/ }, { bytes: 1234 }])
  t.match(some[0]!.files[1], { bytes: 1234, path: /vq_ds16/ })
})
