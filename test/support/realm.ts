// The built package in a realm of its own, as Jest and the vm pools of vitest load it: every file of parvis and of
// sharp is compiled in a vm context whose typed arrays, errors and URL are other ones than the addon's and Node's.

import { createRequire, isBuiltin } from 'node:module'
import fs from 'node:fs'
import path from 'node:path'
import vm from 'node:vm'
import type * as Parvis from '../../lib/index.js'
import { built, root } from './built.js'

/** The built file in a new context that has nothing but JavaScript itself, `process`, `Buffer` and these globals. */
export async function inRealm<T = typeof Parvis> (
  file = 'index.js', globals: Record<string, unknown> = {}
): Promise<{ exports: T, evaluate: (source: string) => any }> {
  const context = vm.createContext({ process, Buffer, console, ...globals })
  const modules = new Map<string, { exports: unknown }>()
  const load = (file: string): unknown => {
    const known = modules.get(file)
    if (known) return known.exports
    const own = createRequire(file)
    const module = { exports: {} }
    modules.set(file, module)
    if (file.endsWith('.json')) {
      module.exports = JSON.parse(fs.readFileSync(file, 'utf8'))
      return module.exports
    }
    const require = Object.assign((name: string): unknown => {
      const found = own.resolve(name)
      return isBuiltin(found) || found.endsWith('.node') ? own(name) : load(found)
    }, { resolve: own.resolve, cache: {} })
    const run = vm.compileFunction(fs.readFileSync(file, 'utf8').replace(/^#!.*/, ''),
      ['exports', 'require', 'module', '__filename', '__dirname'], { parsingContext: context, filename: file })
    run(module.exports, require, module, file, path.dirname(file))
    return module.exports
  }
  await built()
  return { exports: load(path.join(root, 'dist', file)) as T, evaluate: source => vm.runInContext(source, context) }
}
