// The model that comes with the package, end to end, and the ways into the package: import and require of what was
// built, types included, with no work at import.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import par, { Par } from '../../lib/index.js'
import { built, root } from '../support/built.js'
import { rejection } from '../support/fixtures.js'

const run = promisify(execFile)

t.test('from a class id to a picture', async t => {
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 7, n: 4, seed: 1 })
  t.match(image, { width: 32, height: 32, classId: 7, n: 4, seed: 1, steps: 67 })
  t.equal(image.tokens.length, 256)
  t.ok(new Set(image.data).size > 30, 'there is something to see')
  const info = await par.info
  t.match(info.transformer, { classes: 10, n: 4, supportedN: [1, 4, 16], grid: [16, 16] })
  t.match(info.tokenizer, { codebookSize: info.transformer!.vocabularySize, imageSize: [32, 32] })
  t.ok(info.transformer!.sampling.guidanceScale >= 1)
  const labels = await par.labels
  t.equal(labels?.length, 10)
  t.equal(labels?.[9], 'Ankle boot')

  t.same((await par.generate({ classId: 'ankle boot', n: 4, seed: 1 })).data,
    (await par.generate({ classId: 9, n: 4, seed: 1 })).data, 'a name')
  t.equal((await par.generate({ classId: 'Bag', seed: 1 })).label, 'Bag')
  t.same((await par.generate({ classId: 7, seed: 1 })).data, image.data, 'n = 4 is the default')
  for (const [n, steps] of [[1, 256], [16, 31]] as const) {
    t.match(await par.generate({ classId: 0, n, seed: 1 }), { n, steps, width: 32 })
  }
  t.match(await rejection(par.generate({ classId: 0, n: 9 })),
    { code: 'UNSUPPORTED_N', message: 'the embedded model has n = 1, 4 and 16 tokens a step, not 9' })

  const [own, other] = await par.score({ tokens: [image.tokens, image.tokens], classId: [7, 1] })
  t.ok(own!.total > other!.total, 'a sneaker is likelier as a sneaker than as trousers')
  const tokens = await par.encode({ data: image.data, width: 32, height: 32 })
  t.equal(tokens.length, 256)
  t.match(await par.decode(tokens), { width: 32, height: 32 })
  let events = 0
  for await (const event of par.stream({ classId: 7, n: 4, seed: 1 })) {
    events++
    if (event.images) t.same(event.images[0]!.data, image.data)
  }
  t.equal(events, 67)

  await par.dispose()
  t.same((await par.generate({ classId: 7, seed: 1 })).data, image.data,
    'the default instance loads again after dispose')
})

t.test('concurrent first calls share one read of a transformer; an aborted one does not spoil it', async t => {
  const own = await Par.load()
  t.teardown(() => own.dispose())
  const controller = new AbortController()
  const aborted = own.generate({ classId: 1, n: 16, signal: controller.signal }).then(() => 'done', error => error)
  const kept = own.generate({ classId: 1, n: 16, seed: 1 })
  controller.abort('first')
  t.equal(await aborted, 'first')
  t.equal((await kept).n, 16)
})

t.test('by name', async t => {
  const own = await Par.load(' Fashion ' as 'fashion', { pull: true })
  t.teardown(() => own.dispose())
  t.match(own.info, { preset: undefined, transformer: { method: 'par', supportedN: [1, 4, 16] } })
  t.match(await rejection(own.generate({ classId: 0, steps: 8 })), { code: 'INVALID_OPTION', message: /steps/ })
  t.match(await rejection(Par.load('fashion', { pull: 1 } as never)), { code: 'INVALID_OPTION', message: /pull/ })
  t.match(await rejection(Par.load('fashion-lpd' as never)),
    { code: 'INVALID_OPTION', message: /no preset 'fashion-lpd'.*with the package: fashion, fashion-arpg, moving/ })
  const arpg = await Par.load('fashion-arpg')
  t.teardown(() => arpg.dispose())
  t.match(arpg.info.transformer, { method: 'arpg', supportedN: [1], defaultSteps: 32 })
  t.match(await rejection(arpg.generate({ classId: 0, n: 4 })), { code: 'INVALID_OPTION', message: /leave n out/ })
})

t.test('import and require', async t => {
  await built()
  const use = 'const image = await par.generate({ classId: 7, seed: 1 }); console.log(JSON.stringify([image.width, ' +
    'typeof Par.load, new ParError("INTERNAL", "x").code, createSchedule({ grid: [24, 24], n: 4 }).steps.length])); ' +
      'await par.dispose()'
  const expected = '[32,"function","INTERNAL",147]\n'
  const esm = await run(process.execPath,
    ['--input-type=module', '-e', `import par, { Par, ParError, createSchedule } from 'parvis'; ${use}`],
    { cwd: root, env: plain() })
  t.equal(esm.stdout, expected)
  const cjs = await run(process.execPath,
    ['-e', `const { default: par, Par, ParError, createSchedule } = require('parvis'); (async () => { ${use} })()`],
    { cwd: root, env: plain() })
  t.equal(cjs.stdout, expected)
  const lazy = await run(process.execPath,
    ['-e', 'require("parvis"); console.log(Object.keys(require.cache).filter(file => ' +
      '/\\.node$|sharp|commander/.test(file)).length)'], { cwd: root, env: plain() })
  t.equal(lazy.stdout, '0\n', 'import loads neither the addon nor sharp')
  const same = await run(process.execPath,
    ['--input-type=module', '-e', 'import { Par } from "parvis"; import { createRequire } from "node:module"; ' +
      'console.log(createRequire(process.cwd() + "/x.js")("parvis").Par === Par)'], { cwd: root, env: plain() })
  t.equal(same.stdout, 'true\n', 'both ways give the same classes')
})

t.test('types for both', async t => {
  await built()
  const source = `
    import par, { Par, ParError, type GeneratedImage, type Progress } from 'parvis'
    const one: Promise<GeneratedImage> = par.generate({ classId: 7 })
    const list: Promise<GeneratedImage[]> = par.generate({ classId: [7, 'Bag'] })
    export async function use (p: Par): Promise<number> {
      for await (const event of p.stream({ classId: 1 })) { const e: Progress = event; void e.preview() }
      const pixels: Float32Array = (await p.decode(new Int32Array(4), { format: 'float32' })).data
      await using q = await Par.load({ device: 'cuda:0' })
      return pixels.length + q.info.threads + (await one).width + (await list).length + new ParError('INTERNAL', '').message.length
    }`
  // Inside the package, so that 'parvis' resolves to itself through package.json.
  const folder = path.join(root, 'out', 'types')
  fs.rmSync(folder, { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  fs.writeFileSync(path.join(folder, 'a.mts'), source)
  fs.writeFileSync(path.join(folder, 'b.cts'),
    source.replace('import par, {', "import parvis = require('parvis')\n    const par = parvis.default\n    import {"))
  for (const resolution of [{ module: 'node16', moduleResolution: 'node16' },
    { module: 'preserve', moduleResolution: 'bundler' }]) {
    fs.writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({
      compilerOptions: { target: 'es2022', lib: ['es2023',
        'esnext.disposable'], ...resolution, strict: true, noEmit: true, skipLibCheck: false, types: ['node'] },
      files: ['a.mts', 'b.cts']
    }))
    const result = await run(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', folder],
      { cwd: root, env: plain() }).then(() => '', error => error.stdout as string)
    t.equal(result, '', resolution.moduleResolution)
  }
})

/** The environment without the test runner's hooks. */
function plain (): NodeJS.ProcessEnv {
  return { ...process.env, NODE_OPTIONS: '' }
}
