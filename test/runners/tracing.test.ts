// A tracer (@vercel/nft, in Next.js and on Vercel) takes along what an application opens: the copy runs by itself. A
// bundle that has parvis inside is told what to do.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { root } from '../support/built.js'
import { install, run, tools } from './tools.js'

t.setTimeout(600_000)
const project = path.join(root, 'out', 'runners', 'traced')

t.before(async () => {
  fs.rmSync(project, { recursive: true, force: true })
  await install(project)
  fs.writeFileSync(path.join(project, 'package.json'), '{"name":"user","private":true}')
  fs.writeFileSync(path.join(project, 'entry.cjs'),
    "require('parvis').default.generate({ classId: 7, n: 16, seed: 1 }).then(async image => " +
      "console.log(image.label, (await image.toBuffer('png')).length > 100), ({ code, message }) => " +
        'console.log(code, message))\n')
  fs.writeFileSync(path.join(project, 'entry.mjs'), "import par from 'parvis'\nconst image = await par.generate({ " +
    "classId: 7, n: 16, seed: 1 })\nconsole.log(image.label, (await image.toBuffer('png')).length > 100)\n")
})

for (const entry of ['entry.cjs', 'entry.mjs']) {
  t.test(`@vercel/nft, ${entry}`, t => {
    const script = 'require(process.argv[1]).nodeFileTrace([process.argv[2]], { base: process.cwd() }).then(({ ' +
      'fileList }) => console.log(JSON.stringify([...fileList])))'
    const { stdout, stderr } = run(process.execPath, ['-e', script, path.join(tools(), '@vercel', 'nft'), entry],
      project)
    const files = JSON.parse(stdout || JSON.stringify(stderr)) as string[]
    const copy = fs.mkdtempSync(path.join(root, 'out', 'runners', 'copy-'))
    t.teardown(() => fs.rmSync(copy, { recursive: true, force: true }))
    for (const file of files) {
      fs.mkdirSync(path.dirname(path.join(copy, file)), { recursive: true })
      fs.copyFileSync(path.join(project, file), path.join(copy, file))
    }
    const made = run(process.execPath, [entry], copy)
    t.equal(made.stdout, 'Sneaker true\n', made.stderr)
    t.notOk(files.some(file => /cmake-js|node-addon-api/.test(file)), 'and nothing that only builds')
    t.end()
  })
}

t.test('esbuild', t => {
  const bundle = run(path.join(tools(), '@esbuild', `${process.platform}-${process.arch}`, 'bin', 'esbuild'),
    ['entry.cjs', '--bundle', '--platform=node', '--external:sharp', '--outfile=bundled/out.cjs'], project)
  t.equal(bundle.status, 0, bundle.stderr)
  t.match(run(process.execPath, ['bundled/out.cjs'], project).stdout,
    /^NATIVE_UNAVAILABLE .*is not the folder of the package parvis.*--external:parvis.*PARVIS_NATIVE/s)
  t.end()
})
