// The package as its users get it: import and require of the built files, types for both, what the tarball holds.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const root = path.join(__dirname, '..')
const run = promisify(execFile)

/** A project that depends on the package. */
const project = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-user-'))
t.teardown(() => fs.rmSync(project, { recursive: true, force: true }))
fs.mkdirSync(path.join(project, 'node_modules', '@types'), { recursive: true })
fs.symlinkSync(root, path.join(project, 'node_modules', 'parvis'), 'dir')
fs.symlinkSync(path.join(root, 'node_modules', '@types', 'node'), path.join(project, 'node_modules', '@types', 'node'), 'dir')

async function node (file: string, source: string): Promise<unknown> {
  fs.writeFileSync(path.join(project, file), source)
  const { stdout } = await run(process.execPath, [file], { cwd: project })
  return JSON.parse(stdout)
}

t.test('require', async t => {
  const result = await node('user.cjs', `
    const { default: par, Par, ParError, createSchedule } = require('parvis')
    const loaded = Object.keys(require.cache).filter(file => file.endsWith('.node') || file.includes('sharp'))
    par.generate({ classId: 7, n: 16, seed: 1 }).then(image => {
      console.log(JSON.stringify({ loaded, kinds: [typeof Par.load, ParError.name, createSchedule({ grid: [24, 24], n: 4 }).steps.length], tokens: image.tokens.length, label: image.label }))
    })`)
  t.same(result, { loaded: [], kinds: ['function', 'ParError', 147], tokens: 256, label: 'Sneaker' }, 'works, and import alone loads nothing native')
})

t.test('import', async t => {
  const result = await node('user.mjs', `
    import par, { Par, ParError } from 'parvis'
    import { createRequire } from 'node:module'
    const same = createRequire(import.meta.url)('parvis')
    const image = await par.generate({ classId: 7, n: 16, seed: 1 })
    console.log(JSON.stringify({ same: same.Par === Par && same.ParError === ParError && same.default === par, tokens: image.tokens.length }))`)
  t.same(result, { same: true, tokens: 256 }, 'both ways lead to the same classes')
})

t.test('types for both', async t => {
  const use = `
    async function main (): Promise<void> {
      const image = await par.generate({ classId: 7, n: 4 })
      const width: number = image.width
      await image.toFile('boot.png')
      const big = await Par.load({ transformer: { path: 'PAR-XL-4x.pt', heads: 20, grid: [24, 24] }, tokenizer: 'vq_ds16_c2i.pt', device: 'cuda:1', precision: 'bfloat16' })
      const images = await big.generate({ classId: [207, 360], guidanceScale: 1.5, seed: 1 })
      const tokens: Int32Array = images[0]!.tokens
      for await (const { step, steps, preview } of big.stream({ classId: 207 })) if (step === steps) await preview()
      const [score] = await big.score({ tokens, classId: 207 })
      const total: number = score!.total
      try { await big.decode(tokens, { size: 256 }) } catch (error) {
        const code: ParErrorCode | undefined = error instanceof ParError ? error.code : undefined
        void code
      }
      // @ts-expect-error: a class is needed
      await big.generate({ n: 4 })
      // @ts-expect-error: no such device
      await Par.load({ device: 'tpu' })
      await big[Symbol.asyncDispose]()
      void width, total
    }
    void main`
  fs.writeFileSync(path.join(project, 'esm.mts'), `import par, { Par, ParError, type ParErrorCode } from 'parvis'\n${use}`)
  fs.writeFileSync(path.join(project, 'cjs.cts'), `import parvis = require('parvis')\nimport { Par, ParError, type ParErrorCode } from 'parvis'\nconst par = parvis.default\n${use}`)
  const options = { target: 'es2022', lib: ['es2023', 'esnext.disposable'], strict: true, noEmit: true, types: ['node'], skipLibCheck: false, noUncheckedIndexedAccess: true }
  fs.writeFileSync(path.join(project, 'plain.ts'), `import par, { Par, ParError, type ParErrorCode } from 'parvis'\n${use}`)
  const ways = [
    { module: 'node16', files: ['esm.mts', 'cjs.cts'] },
    { module: 'nodenext', files: ['esm.mts', 'cjs.cts'] },
    { module: 'preserve', files: ['esm.mts', 'cjs.cts', 'plain.ts'] },
    { module: 'esnext', moduleResolution: 'bundler', files: ['esm.mts', 'plain.ts'] } // no `import x = require()` there
  ]
  for (const { files, ...way } of ways) {
    fs.writeFileSync(path.join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...options, ...way }, files }))
    t.equal(await typeErrors(path.join(project, 'tsconfig.json')), '', JSON.stringify(way))
  }
})

t.test('the whole project, tests included, is well typed', async t => {
  t.equal(await typeErrors(path.join(root, 'tsconfig.json'), '--noEmit'), '')
})

t.test('the tarball', async t => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, maxBuffer: 1 << 24 })
  const [{ files, size }] = JSON.parse(stdout) as [{ files: Array<{ path: string }>, size: number }]
  const names = files.map(file => file.path)
  for (const name of [
    'dist/index.js', 'dist/index.d.ts', 'dist/esm.mjs', 'dist/esm.d.mts', 'dist/cli/main.js', 'dist/bench/run.js', 'bin/parvis.js', 'scripts/install.js', 'scripts/addon.js', 'scripts/machine.js',
    'CMakeLists.txt', 'LICENSE', 'README.md', 'CHANGELOG.md', 'models/fashion/tokenizer.safetensors',
    'docs/contact-sheet.png', 'models/fashion/par-1.safetensors', 'models/fashion/par-4.safetensors', 'models/fashion/par-16.safetensors'
  ]) t.ok(names.includes(name), name)
  for (const folder of ['binding/', 'include/', 'common/', 'cpu/']) t.ok(names.some(name => name.startsWith(folder)), folder)
  t.same(names.filter(name => /^(test|bench|lib|build|node_modules|out|\.)|recipe|\.built|tsbuildinfo/.test(name)), [])
  t.ok(size < 20e6, `${size} bytes`)
})

async function typeErrors (tsconfig: string, ...options: string[]): Promise<string> {
  const tsc = require.resolve('typescript/bin/tsc')
  return await run(process.execPath, [tsc, '-p', tsconfig, ...options], { cwd: path.dirname(tsconfig) }).then(() => '', (error: { stdout: string }) => error.stdout)
}
