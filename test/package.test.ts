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
fs.symlinkSync(path.join(root, 'node_modules', '@types', 'node'), path.join(project, 'node_modules', '@types', 'node'),
  'dir')

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
  t.same(result, { loaded: [], kinds: ['function', 'ParError', 147], tokens: 256, label: 'Sneaker' },
    'works, and import alone loads nothing native')
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
  fs.writeFileSync(path.join(project, 'esm.mts'),
    `import par, { Par, ParError, type ParErrorCode } from 'parvis'\n${use}`)
  fs.writeFileSync(path.join(project, 'cjs.cts'), "import parvis = require('parvis')\nimport { Par, ParError, type " +
    `ParErrorCode } from 'parvis'\nconst par = parvis.default\n${use}`)
  const options = {
    target: 'es2022', lib: ['es2023', 'esnext.disposable'], strict: true, noEmit: true, types: ['node'],
    skipLibCheck: false, noUncheckedIndexedAccess: true
  }
  fs.writeFileSync(path.join(project, 'plain.ts'),
    `import par, { Par, ParError, type ParErrorCode } from 'parvis'\n${use}`)
  const ways = [
    { module: 'node16', files: ['esm.mts', 'cjs.cts'] },
    { module: 'nodenext', files: ['esm.mts', 'cjs.cts'] },
    { module: 'preserve', files: ['esm.mts', 'cjs.cts', 'plain.ts'] },
    { module: 'esnext', moduleResolution: 'bundler', files: ['esm.mts', 'plain.ts'] } // no `import x = require()` there
  ]
  for (const { files, ...way } of ways) {
    fs.writeFileSync(path.join(project, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: { ...options, ...way }, files }))
    t.equal(await typeErrors(path.join(project, 'tsconfig.json')), '', JSON.stringify(way))
  }
})

t.test('the whole project, tests included, is well typed', async t => {
  t.equal(await typeErrors(path.join(root, 'tsconfig.json'), '--noEmit'), '')
})

t.test('the tarball', async t => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'],
    { cwd: root, maxBuffer: 1 << 24 })
  const [{ files, size }] = JSON.parse(stdout) as [{ files: Array<{ path: string }>, size: number }]
  const names = files.map(file => file.path)
  for (const name of [
    'bin/node-version.js', 'SECURITY.md', 'dist/index.js', 'dist/index.d.ts', 'dist/esm.mjs', 'dist/esm.d.mts',
    'dist/cli/main.js', 'dist/bench/run.js', 'bin/parvis.js', 'scripts/install.js', 'scripts/addon.js',
    'scripts/machine.js',
    'CMakeLists.txt', 'LICENSE', 'README.md', 'CHANGELOG.md', 'models/fashion/tokenizer.safetensors',
    'docs/contact-sheet.png', 'models/fashion/par-1.safetensors', 'models/fashion/par-4.safetensors',
    'models/fashion/par-16.safetensors'
  ]) t.ok(names.includes(name), name)
  for (const folder of ['binding/', 'include/', 'common/', 'cpu/']) {
    t.ok(names.some(name => name.startsWith(folder)), folder)
  }
  t.same(names.filter(name => /^(test|bench|lib|build|node_modules|out|\.)|\/recipe\/|\.built|tsbuildinfo/.test(name)),
    [])
  t.ok(size < 16e6, `${size} bytes`)
})

t.test('package.json', t => {
  const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as Record<string, any>
  t.same(Object.keys(manifest.dependencies as object).filter(name => /cmake|node-api|node-addon-api/.test(name)), [],
    'what only a build from source needs is not installed')
  for (const [name, range] of Object.entries(manifest.peerDependencies as Record<string, string>)) {
    t.same(manifest.peerDependenciesMeta[name], { optional: true }, name)
    // Its install script downloads; test/evaluation has a stand-in.
    if (name !== 'onnxruntime-node') t.ok(manifest.devDependencies[name], `a clone has ${name}`)
    t.match(range, /^\^\d+\.0\.0$/)
  }
  t.equal(new Set(manifest.files as string[]).size, manifest.files.length, 'no file is listed twice')
  t.end()
})

t.test('a Node that is too old', t => {
  const { problem } = require('../bin/node-version.js') as { problem: (version: string) => string | undefined }
  const { engines } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    engines: { node: string }
  }
  t.equal(engines.node, '^20.17.0 || >=22.2.0')
  for (const version of ['20.17.0', '20.20.2', '22.2.0', '22.10.1', '23.0.0', '24.1.0', '100.0.0', '26.0.0-nightly']) {
    t.equal(problem(version), undefined, version)
  }
  for (const version of ['0.12.18', '10.24.1', '18.19.0', '19.9.0', '20.0.0', '20.16.9']) {
    t.equal(problem(version), `parvis needs Node.js 20.17 or newer, this is ${version}`)
  }
  for (const version of ['21.7.3', '22.1.9']) {
    t.equal(problem(version), `parvis needs Node.js 22.2 or newer, or 20.17 or newer of Node.js 20, this is ${version}`)
  }
  // What runs before the check is read by old ones: syntax of 2015, no names with node:.
  for (const file of ['bin/parvis.js', 'bin/node-version.js', 'scripts/install.js', 'dist/machine/node-version.js']) {
    const source = fs.readFileSync(path.join(root, file), 'utf8').replace(/\/\/.*/g, '')
    t.notMatch(source, /\?\.|\?\?|node:|async|\.\.\./, file)
  }
  t.end()
})

async function typeErrors (tsconfig: string, ...options: string[]): Promise<string> {
  const tsc = require.resolve('typescript/bin/tsc')
  return await run(process.execPath, [tsc, '-p', tsconfig, ...options], { cwd: path.dirname(tsconfig) }).then(() => '',
    (error: { stdout: string }) => error.stdout)
}
