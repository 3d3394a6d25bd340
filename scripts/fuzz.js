'use strict'
// node scripts/fuzz.js [options]: a long fuzz run of what reads files (test/fuzz/run.ts). Only transpiles what it
// needs, into out/fuzz-build/, so that it starts within seconds.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const ts = require('typescript')

const root = path.join(__dirname, '..')
const out = path.join(root, 'out', 'fuzz-build')
const options = {
  ...ts.parseConfigFileTextToJson('', fs.readFileSync(path.join(root, 'tsconfig.json'), 'utf8')).config.compilerOptions
}
const { options: compiler } = ts.convertCompilerOptionsFromJson(
  { ...options, declaration: false, module: 'commonjs', moduleResolution: 'node10' }, root
)

for (const folder of ['lib', 'test/fuzz', 'test/checkpoint', 'test/support']) {
  for (const name of fs.readdirSync(path.join(root, folder), { recursive: true })) {
    if (!name.endsWith('.ts') || name.endsWith('.test.ts') || name.endsWith('.d.ts')) continue
    const source = path.join(root, folder, name)
    const target = path.join(out, folder, name.replace(/\.ts$/, '.js'))
    fs.mkdirSync(path.dirname(target), { recursive: true })
    fs.writeFileSync(target,
      ts.transpileModule(fs.readFileSync(source, 'utf8'), { compilerOptions: compiler, fileName: source }).outputText)
  }
}
// What the library requires beside itself.
fs.cpSync(path.join(root, 'include'), path.join(out, 'include'), { recursive: true })
fs.copyFileSync(path.join(root, 'package.json'), path.join(out, 'package.json'))
const { status } = spawnSync(process.execPath,
  ['--max-old-space-size=1024', path.join(out, 'test', 'fuzz', 'run.js'), ...process.argv.slice(2)],
  { stdio: 'inherit', cwd: root })
process.exitCode = status ?? 1
