'use strict'
// node --require ./scripts/transpile.js FILE.ts: TypeScript files run as they are, tests above all. Types are removed,
// not checked. What became of a file is kept in out/transpiled under a digest of its text, so that the many processes
// of a test run load no compiler. `npx tap` has a loader of its own, which does the same without keeping anything.

const crypto = require('node:crypto')
const fs = require('node:fs')
const Module = require('node:module')
const path = require('node:path')

const root = path.join(__dirname, '..')
const folder = path.join(root, 'out', 'transpiled')
const { compilerOptions: configured } = require('../tsconfig.json')
const options = { ...configured, declaration: false, sourceMap: false, inlineSourceMap: true, inlineSources: true }
const digest = text => crypto.createHash('sha256').update(text).digest('hex').slice(0, 24)
const settings = digest(JSON.stringify([options, require('typescript/package.json').version]))

/** What tsc would emit for a file. The digest is also of its path, which is in the source map. */
function transpiled (file) {
  const text = fs.readFileSync(file, 'utf8')
  const kept = path.join(folder, `${path.basename(file)}-${digest(`${settings}\n${file}\n${text}`)}.js`)
  try {
    return fs.readFileSync(kept, 'utf8')
  } catch (error) {
    if (error.code !== 'ENOENT') throw error
  }
  const { transpileModule } = require('typescript')
  const { outputText } = transpileModule(text, { fileName: file, compilerOptions: compilerOptions() })
  fs.mkdirSync(folder, { recursive: true })
  const partial = `${kept}.${process.pid}`
  fs.writeFileSync(partial, outputText)
  fs.renameSync(partial, kept) // whole files only, whoever else does the same
  return outputText
}

function compilerOptions () {
  const typescript = require('typescript')
  const { options: parsed, errors } = typescript.convertCompilerOptionsFromJson(options, root)
  if (errors.length > 0) throw new Error(typescript.flattenDiagnosticMessageText(errors[0].messageText, '\n'))
  return parsed
}

Module._extensions['.ts'] = (module, file) => { module._compile(transpiled(file), file) }

// `./x.js` in TypeScript is the file that x.ts becomes.
const resolve = Module._resolveFilename
Module._resolveFilename = function (request, parent, ...rest) {
  if (/^\.{1,2}\/.*\.js$/.test(request) && parent?.filename?.endsWith('.ts')) {
    const source = path.resolve(path.dirname(parent.filename), request.replace(/\.js$/, '.ts'))
    if (fs.existsSync(source)) return source
  }
  return resolve.call(this, request, parent, ...rest)
}
