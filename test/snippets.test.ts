// Every block of code in the README and the guides runs: TypeScript and JavaScript are type-checked and run in a
// project that depends on the package, shell commands in a shell. What `console.log` is said to print, it prints.
// test/support/snippets.ts says how a guide marks what stands in for something, and what is not run.

import t from 'tap'
import { execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { bin } from './cli/run.js'
import { built, root } from './support/built.js'
import { FakeHub } from './support/hub.js'
import { guides, keeps, promisedOutput, snippetsOf, standIn, type Snippet } from './support/snippets.js'

t.setTimeout(600_000)

/** Blocks that no machine of ours runs, with the reason above each. */
const notRun = 18

const snippets = guides.flatMap(file => snippetsOf(fs.readFileSync(path.join(root, file), 'utf8'), file))
const running = snippets.filter(({ skip, language }) => skip === undefined && language !== 'text')
const scripts = running.filter(({ language }) => language === 'ts' || language === 'js')
const imports = "import par, { createSchedule, Par, ParError } from 'parvis'\n"
const environment = { ...process.env, NODE_OPTIONS: '', PARVIS_DEBUG: '' }

/** A project that depends on the package. */
const project = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-snippets-'))
t.teardown(() => fs.rmSync(project, { recursive: true, force: true }))
const modules = path.join(project, 'node_modules')
fs.mkdirSync(path.join(modules, '@types'), { recursive: true })
fs.symlinkSync(root, path.join(modules, 'parvis'), 'dir')
fs.symlinkSync(path.join(root, 'node_modules', '@types', 'node'), path.join(modules, '@types', 'node'), 'dir')
fs.writeFileSync(path.join(project, 'package.json'), '{"private":true}')

const nameOf = ({ place }: Snippet): string => place.replace(/[^\w]+/g, '-')
/** A block that imports nothing of parvis gets it. */
const codeOf = ({ code }: Snippet): string => /from 'parvis'|require\('parvis'\)/.test(code) ? code : imports + code

async function run (
  file: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = environment
): Promise<{ code: number | string, out: string, err: string }> {
  const child = spawn(file, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text })
  const timer = setTimeout(() => child.kill('SIGKILL'), 60_000)
  const code = await new Promise<number | string>(resolve =>
    child.on('close', (code, signal) => resolve(code ?? signal!)))
  clearTimeout(timer)
  return { code, out, err }
}

/** A folder of its own with the stand-ins that a block names. */
function folderFor (snippet: Snippet): string {
  const folder = path.join(project, nameOf(snippet))
  fs.mkdirSync(folder)
  for (const name of snippet.files) standIn(name, folder)
  return folder
}

/** What a block that fetches needs: a Hub, and a cache of its own. */
async function hubFor (
  snippet: Snippet, folder: string
): Promise<{ env: NodeJS.ProcessEnv, stop: () => Promise<void> }> {
  if (!snippet.hub) return { env: environment, stop: async () => {} }
  const home = path.join(folder, '.hub')
  fs.mkdirSync(home)
  const bytes = (name: string): Buffer => {
    standIn(name, home, 1280) // the width of XL
    return fs.readFileSync(path.join(home, name))
  }
  const hub = await FakeHub.start({
    'Epiphqny/PAR': { files: { 'PAR-XL-4x.pt': bytes('PAR-XL-4x.pt') } },
    'FoundationVision/LlamaGen': { files: { 'vq_ds16_c2i.pt': bytes('vq_ds16_c2i.pt') } }
  })
  return {
    env: { ...environment, HF_ENDPOINT: hub.url, HF_HOME: home, HF_HUB_CACHE: '', HF_HUB_OFFLINE: '', HF_TOKEN: '' },
    stop: async () => await hub.stop()
  }
}

t.before(async () => { await built() })

t.test('blocks are known, and few are not run', async t => {
  const known = ['ts', 'js', 'sh', 'text', 'html', 'dockerfile', 'ini', 'yaml']
  const unknown = snippets.map(({ language }) => language).filter(language => !known.includes(language))
  t.same(unknown, [], 'languages')
  t.same(running.filter(({ language }) => language === 'html').map(({ place }) => place), [],
    'nothing runs a page here')
  const skipped = snippets.filter(({ skip }) => skip !== undefined)
  t.equal(skipped.length, notRun, skipped.map(({ place, skip }) => `${place}: ${skip}`).join('\n'))
  for (const file of guides) {
    t.ok(['docs/README.md', 'docs/questions.md', 'docs/gpu-development.md'].includes(file) ||
      running.some(({ place }) => place.startsWith(file + ':')), `${file}: something of it runs`)
  }
})

t.test('how blocks and promises are read', async t => {
  const [one] = snippetsOf('a\n<!-- test: files a.pt vq.pt -->\n<!-- test: without npm -->\n```sh\nls\n```\n', 'x.md')
  t.match(
    one, { place: 'x.md:4', language: 'sh', code: 'ls\n', files: ['a.pt', 'vq.pt'], without: ['npm'], skip: undefined }
  )
  for (const wrong of ['<!-- test: no -->\n```sh\n```', '<!-- test: skip -->\n```sh\n```',
    '<!-- test: server -->\ntext', '<!--test: server-->\n', '```ts\n']) {
    t.throws(() => snippetsOf(wrong, 'x.md'), wrong)
  }
  t.same(promisedOutput('console.log(a) // 1\nconsole.log(b)\n// 2\n// 3\nf() // no\nconsole.log(c)\n'),
    ['1', '2', '3'])
  t.same([['1', '1'], ['95: video', '95'], ['No class ...', 'No class is'], ['95', '951'], ['951', '95'], ['x', '']]
    .map(([promise, line]) => keeps(promise!, line!)), [true, true, true, false, false, false])
})

t.test('links between the guides lead somewhere', async t => {
  const text = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8').replace(/^```[^]*?^```$/gm, '')
  const anchors = (file: string): string[] => [...text(file).matchAll(/^#+ (.+)$/gm)]
    .map(match => match[1]!.toLowerCase().replace(/[^\w\- ]/g, '').replaceAll(' ', '-'))
  let links = 0
  for (const file of [...guides, 'CONTRIBUTING.md', 'CHANGELOG.md']) {
    for (const [link, target, anchor] of text(file).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const to = target === '' ? file : path.posix.join(path.posix.dirname(file), target!)
      const there = fs.existsSync(path.join(root, to)) && (anchor === undefined || anchors(to).includes(anchor))
      if (!there) t.fail(`${file}: ${link}`)
      links++
    }
  }
  t.ok(links > 30, `${links} links`)
})

t.test('types', async t => {
  // JavaScript as an editor checks it, TypeScript as strictly as this project.
  const common = {
    target: 'es2022', lib: ['es2023', 'esnext.disposable'], module: 'nodenext', types: ['node'], skipLibCheck: true,
    rootDir: project, noEmitOnError: false
  }
  const check = async (language: string, options: object): Promise<string> => {
    const files = scripts.filter(snippet => snippet.language === language)
    for (const snippet of files) {
      fs.writeFileSync(path.join(project, `${nameOf(snippet)}.m${language}`), codeOf(snippet))
    }
    fs.writeFileSync(path.join(project, `tsconfig.${language}.json`),
      JSON.stringify({
        compilerOptions: { ...common, ...options }, files: files.map(snippet => `${nameOf(snippet)}.m${language}`)
      }))
    return await promisify(execFile)(process.execPath,
      [require.resolve('typescript/bin/tsc'), '-p', `tsconfig.${language}.json`], { cwd: project, env: environment })
      .then(() => '', (error: { stdout: string }) => error.stdout)
  }
  const results = await Promise.all([check('ts', { strict: true, noEmit: false }),
    check('js', { allowJs: true, checkJs: true, strict: false, noEmit: true })])
  t.same(results, ['', ''])
})

t.test('scripts', async t => {
  const { createServer } = await import(
    pathToFileURL(path.join(root, 'examples', 'fastify-server', 'server.mjs')).href
  ) as
    { createServer: () => Promise<{ listen (options: object): Promise<string>, close (): Promise<void> }> }
  for (const snippet of scripts) {
    const folder = folderFor(snippet)
    const source = path.join(project, `${nameOf(snippet)}.mjs`) // of TypeScript: what tsc has made
    const server = snippet.server ? await createServer() : undefined
    const url = await server?.listen({ port: 0, host: '127.0.0.1' })
    const file = path.join(folder, 'snippet.mjs')
    fs.writeFileSync(file,
      fs.readFileSync(source, 'utf8').replaceAll('http://127.0.0.1:3000', url ?? 'http://127.0.0.1:3000'))
    const hub = await hubFor(snippet, folder)
    const { code, out, err } = await run(process.execPath, [file], folder, hub.env)
    await server?.close()
    await hub.stop()
    t.equal(code, 0, `${snippet.place}: runs${code === 0 ? '' : '\n' + err}`)
    const printed = out.split('\n')
    let from = 0
    for (const promise of promisedOutput(snippet.code)) {
      const at = printed.findIndex((line, k) => k >= from && keeps(promise, line))
      t.ok(at >= 0, `${snippet.place}: prints ${promise}${at >= 0 ? '' : `, not\n${out}`}`)
      if (at >= 0) from = at + 1
    }
  }
})

t.test('shell', async t => {
  for (const snippet of running.filter(({ language }) => language === 'sh')) {
    const folder = folderFor(snippet)
    const programs = path.join(folder, '.programs')
    fs.mkdirSync(programs)
    const quick = '--model B -n 4 --grid 8 --repeats 1 --seconds 1 --no-decode --no-cold-start --no-torch ' +
      '--precision float32'
    const parvis = `${snippet.quickBench ? `if [ "$1" = bench ]; then set -- "$@" ${quick}; fi\n` : ''}exec ` +
      `'${process.execPath}' '${bin}' "$@"`
    const program = (name: string, body: string): void => {
      fs.writeFileSync(path.join(programs, name), `#!/bin/bash\n${body}\n`, { mode: 0o755 })
    }
    program('parvis', parvis)
    program('npx', 'program=$1; shift; [ "$program" = parvis ] || exit 99; exec parvis "$@"')
    for (const name of snippet.without) program(name, 'if [ ! -t 0 ]; then cat > /dev/null; fi')
    if (!snippet.without.includes('npm')) program('npm', 'echo "this block needs a mark: it runs npm" >&2; exit 98')
    const hub = await hubFor(snippet, folder)
    const { code, out, err } = await run('bash', ['-eo', 'pipefail', '-c', snippet.code], folder,
      { ...hub.env, PATH: `${programs}:${process.env.PATH}` })
    await hub.stop()
    t.equal(code, 0,
      `${snippet.place}: ${snippet.code.trim().split('\n').length} lines${code === 0 ? '' : `\n${out}\n${err}`}`)
  }
})
