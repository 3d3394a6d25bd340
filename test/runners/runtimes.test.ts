// Other runtimes than the one that runs the tests: Bun and Deno make the same bytes as Node.js, by API and by command,
// and an old Node.js says what is needed instead of failing somewhere.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import par from '../../lib/index.js'
import { root } from '../support/built.js'
import { transformerOfNaN } from '../support/damaged.js'
import { install, run, tools } from './tools.js'

t.setTimeout(600_000)
const project = path.join(root, 'out', 'runners', 'runtimes')

const program = `
import fs from 'node:fs'
import par, { Par, ParError, psnr } from 'parvis'

const failure = async work => { try { await work } catch (error) { return [error instanceof ParError, error.code] } }
const image = await par.generate({ classId: 7, n: 16, seed: 1 })
await image.toFile('picture.png')
let steps = 0
for await (const _ of par.stream({ classId: 7, n: 16, seed: 1 })) steps++
const own = await Par.load({ threads: 1, transformer: process.env.PARVIS_NAN })
const damaged = await failure(own.generate({ classId: 1 }))
await own.dispose()
console.log(JSON.stringify({
  label: image.label,
  pixels: Buffer.from(image.data).toString('base64'),
  png: fs.readFileSync('picture.png').toString('base64'),
  encoded: Array.from(await par.encode('picture.png')),
  web: (await new Response(await image.toBuffer()).arrayBuffer()).byteLength,
  steps,
  psnr: String(psnr(image, image)),
  unknown: await failure(par.generate({ classId: 'nosuch' })),
  missing: await failure(Par.load({ transformer: '/nowhere/x.pt' })),
  aborted: await failure(par.generate({ classId: 7, signal: AbortSignal.abort(new ParError('USAGE', 'enough')) })),
  damaged
}))
await par.dispose()
`

const runtimes: Record<string, { file: (modules: string) => string, args: string[] }> = {
  'Node.js 22': { file: modules => path.join(modules, 'node-22', 'bin', 'node'), args: [] },
  Bun: { file: modules => path.join(modules, '@oven', 'bun-linux-x64-baseline', 'bin', 'bun'), args: [] },
  Deno: { file: modules => path.join(modules, '@deno', 'linux-x64-glibc', 'deno'), args: ['run', '-A'] }
}

let wanted: Record<string, unknown>
let env: NodeJS.ProcessEnv

t.before(async () => {
  fs.rmSync(project, { recursive: true, force: true })
  await install(project)
  fs.writeFileSync(path.join(project, 'package.json'), '{"name":"user","private":true}')
  fs.writeFileSync(path.join(project, 'program.mjs'), program)
  const image = await par.generate({ classId: 7, n: 16, seed: 1 })
  const png = await image.toBuffer('png')
  wanted = {
    label: 'Sneaker',
    pixels: Buffer.from(image.data).toString('base64'),
    png: png.toString('base64'),
    encoded: Array.from(await par.encode(png)),
    web: png.length,
    steps: image.steps,
    psnr: 'Infinity',
    unknown: [true, 'BAD_CLASS_ID'],
    missing: [true, 'FILE_NOT_FOUND'],
    aborted: [true, 'USAGE'],
    damaged: [true, 'NON_FINITE']
  }
  env = { HOME: project, PARVIS_NAN: transformerOfNaN(project) }
})
t.teardown(async () => { await par.dispose() })

for (const [name, { file, args }] of Object.entries(runtimes)) {
  t.test(name, async t => {
    const runtime = file(tools())
    if (!fs.existsSync(runtime)) {
      return t.pass(`npm brings no ${name} for ${process.platform}-${process.arch}`, { skip: true })
    }
    const { status, stdout, stderr } = run(runtime, [...args, 'program.mjs'], project, env)
    t.equal(status, 0, stderr)
    t.same(JSON.parse(stdout || '{}'), wanted)

    const command = [...args, path.join('node_modules', 'parvis', 'bin', 'parvis.js')]
    const made = run(runtime, [...command, 'generate', 'sneaker', '-n', '16', '--seed', '1', '--out', 'command.png'],
      project, env)
    t.equal(made.status, 0, made.stderr)
    t.equal(fs.readFileSync(path.join(project, 'command.png')).toString('base64'), wanted.png)
    const wrong = run(runtime, [...command, 'generate', 'nosuch'], project, env)
    t.match(wrong, { status: 1, stderr: /BAD_CLASS_ID/ })
    const doctor = run(runtime, [...command, 'doctor'], project, env)
    t.equal(doctor.status, 0, doctor.stderr)
    const shown = name.startsWith('Node') ? / node +v22\.5\.0, / : new RegExp(`node +v[\\d.]+ \\(${name} `)
    t.match(doctor.stdout, shown)
    t.match(doctor.stdout, 'came with the package')
  })
}

t.test('an old Node.js', async t => {
  const runtime = path.join(tools(), 'node-18', 'bin', 'node')
  if (!fs.existsSync(runtime)) {
    return t.pass(`npm brings no Node.js 18 for ${process.platform}-${process.arch}`, { skip: true })
  }
  const needed = /parvis needs Node\.js 20\.17 or newer, this is 18\.19\.0\./
  const script = "import('parvis').catch(({ name, code, message }) => console.log(name, code, message))"
  const { stdout } = run(runtime, ['-e', script], project, env)
  t.match(stdout, /^ParError NATIVE_UNAVAILABLE /)
  t.match(stdout, needed)
  const bin = path.join('node_modules', 'parvis', 'bin', 'parvis.js')
  const command = run(runtime, [bin, 'generate', 'sneaker'], project, env)
  t.match(command, { status: 1, stdout: '', stderr: needed })
  t.equal(command.stderr.trim().split('\n').length, 1, 'one line')
})
