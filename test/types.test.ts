// The declarations in projects of other settings than this one's: strictest options, lib "dom", without a word about
// disposables; and checked themselves (skipLibCheck off).

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { built, root } from './support/built.js'

const project = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-types-'))
t.teardown(() => fs.rmSync(project, { recursive: true, force: true }))

t.before(async () => {
  await built()
  fs.mkdirSync(path.join(project, 'node_modules', '@types'), { recursive: true })
  fs.symlinkSync(root, path.join(project, 'node_modules', 'parvis'), 'dir')
  fs.symlinkSync(path.join(root, 'node_modules', '@types', 'node'),
    path.join(project, 'node_modules', '@types', 'node'), 'dir')
  fs.copyFileSync(path.join(root, 'test', 'types', 'web.ts'), path.join(project, 'web.mts'))
})

const strict = {
  target: 'es2022', module: 'nodenext', strict: true, noEmit: true, exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true, skipLibCheck: false
}
for (const [name, options] of Object.entries({
  'a Next.js route: dom, exact optional properties': {
    ...strict, lib: ['es2022', 'dom', 'dom.iterable'], types: ['node']
  },
  'an application of the web: dom, without async iterables': {
    ...strict, target: 'esnext', lib: ['dom', 'dom.iterable', 'esnext'], types: []
  },
  'an old target: es2020': { ...strict, target: 'es2020', lib: ['es2020'], types: ['node'] },
  'a server: types of Node alone': { ...strict, lib: ['es2022'], types: ['node'] },
  'a bundler': {
    ...strict, module: 'esnext', moduleResolution: 'bundler', lib: ['es2022', 'dom', 'dom.iterable'], types: ['node'],
    verbatimModuleSyntax: true, isolatedModules: true
  }
})) {
  t.test(name, async t => {
    fs.writeFileSync(path.join(project, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: options, files: ['web.mts'] }))
    const errors = await promisify(execFile)(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', project],
      { cwd: project }).then(() => '', (error: { stdout: string }) => error.stdout)
    t.equal(errors, '')
  })
}
