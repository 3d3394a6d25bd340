// Which folders of lib/ may import which: measurements use the library, and only their own command uses them.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'

const lib = path.join(__dirname, '..', 'lib')
const bench = path.join(lib, 'bench')

/** The files of lib/ that a file imports, types included. */
function importsOf (file: string): string[] {
  const specifiers = [...fs.readFileSync(file, 'utf8').matchAll(/(?:\bfrom|\bimport|\brequire)\s*\(?\s*'(\.[^']+)'/g)]
  return specifiers.map(([, specifier]) => path.resolve(path.dirname(file), specifier!).replace(/\.js$/, '.ts'))
}

t.test('nothing but the bench command imports from lib/bench', async t => {
  const files = fs.readdirSync(lib, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts')).map(name => path.join(lib, name))
  const inBench = (file: string): boolean => file.startsWith(bench + path.sep)
  const importing = files.filter(file => !inBench(file) && importsOf(file).some(inBench))
  t.same(importing.map(file => path.relative(lib, file)).sort(),
    ['bench-isas.ts', 'bench.ts'].map(name => path.join('cli', name)))
  t.ok(files.filter(file => importsOf(file).length > 0).length > 50, 'imports are found')
})
