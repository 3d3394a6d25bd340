// What is described and what is loaded is the same file: others take its place, or write to it, just after its header
// was read and before its weights are. The moment is that at which the engine is made.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { addon, type Addon } from '../../lib/machine/native.js'
import { Par } from '../../lib/api/par.js'
import { rejection, tokenizerFile, transformerFile } from '../support/fixtures.js'

const native = addon() as { -readonly [K in keyof Addon]: Addon[K] }

/** Does something between the description of files and the loading of their weights. */
async function meanwhile<T> (change: () => void, work: () => Promise<T>): Promise<T> {
  const { createEngine } = native
  native.createEngine = options => {
    native.createEngine = createEngine
    change()
    return createEngine(options)
  }
  try {
    return await work()
  } finally {
    native.createEngine = createEngine
  }
}

/** A copy of the small model in a folder of its own. */
function copies (folder: string): { transformer: { path: string, heads: number, grid: number }, tokenizer: string } {
  const [transformer, tokenizer] = [path.join(folder, 'model.pt'), path.join(folder, 'vq.pt')]
  fs.copyFileSync(transformerFile('par-4x').path, transformer)
  fs.copyFileSync(tokenizerFile(), tokenizer)
  return { transformer: { path: transformer, heads: 2, grid: 8 }, tokenizer }
}

const changes: Record<string, (file: string) => void> = {
  'another file takes its place': file => { fs.copyFileSync(file, `${file}.new`); fs.renameSync(`${file}.new`, file) },
  'bytes are appended': file => { fs.appendFileSync(file, 'x') },
  'it is cut': file => { fs.truncateSync(file, fs.statSync(file).size - 1) },
  'it is written to, its size the same': file => {
    const handle = fs.openSync(file, 'r+')
    fs.writeSync(handle, 'x', fs.fstatSync(handle).size - 1)
    fs.closeSync(handle)
    fs.utimesSync(file, new Date(1e12), new Date(1e12)) // clocks of file systems may be coarse
  }
}

for (const [name, change] of Object.entries(changes)) {
  t.test(name, async t => {
    for (const which of ['transformer', 'tokenizer'] as const) {
      const options = copies(t.testdir({}))
      const file = which === 'transformer' ? options.transformer.path : options.tokenizer
      const error = await rejection(meanwhile(() => { change(file) },
        async () => await Par.load({ ...options, device: 'cpu' })))
      t.match(error, {
        name: 'ParError', code: 'BAD_CHECKPOINT', message: /was replaced or written to while it was being loaded/
      }, which)
      t.ok((error as Error).message.includes(path.basename(file)), 'the file is named')
      // left alone, it loads
      if (name === 'another file takes its place') await (await Par.load({ ...options, device: 'cpu' })).dispose()
    }
  })
}

t.test('what cannot be read takes its place', {
  skip: process.platform === 'win32' && 'there are no such pipes'
}, async t => {
  const options = copies(t.testdir({}))
  const { path: file } = options.transformer
  const pipe = (): void => {
    fs.rmSync(file)
    execFileSync('mkfifo', [file])
  }
  t.match(await rejection(meanwhile(pipe, async () => await Par.load({ ...options, device: 'cpu' }))),
    { code: 'FILE_NOT_FOUND', message: /no regular file/ }, 'a pipe, at which nobody writes')
  fs.rmSync(file)
  fs.copyFileSync(transformerFile('par-4x').path, file)
  const gone = (): void => { fs.rmSync(file) }
  t.match(await rejection(meanwhile(gone, async () => await Par.load({ ...options, device: 'cpu' }))),
    { code: 'FILE_NOT_FOUND' }, 'nothing')
})

t.test('relative names are of the folder in which Par.load was called', async t => {
  const folder = t.testdir({ a: {}, b: {} })
  const [a, b] = [path.join(folder, 'a'), path.join(folder, 'b')]
  copies(a)
  fs.writeFileSync(path.join(b, 'model.pt'), 'another file')
  const before = process.cwd()
  t.teardown(() => { process.chdir(before) })
  process.chdir(a)
  const loading = Par.load({ transformer: { path: 'model.pt', heads: 2, grid: 8 }, tokenizer: 'vq.pt', device: 'cpu' })
  process.chdir(b)
  const par = await loading
  t.equal(par.info.transformer!.path, 'model.pt', 'told as it was given')
  t.ok(par.info.tokenizer)
  await par.dispose()
})

t.test('an aborted load rejects at once', async t => {
  const controller = new AbortController()
  const reason = new Error('enough')
  let ended = 0
  const { createEngine } = native
  t.teardown(() => { native.createEngine = createEngine })
  native.createEngine = options => {
    const engine = createEngine(options)
    return new Proxy(engine, {
      get (target, name) {
        // a read that hangs
        if (name === 'loadTransformer') {
          return async () => { setTimeout(() => { controller.abort(reason) }, 5); return await new Promise(() => {}) }
        }
        if (name === 'dispose') {
          return async () => { ended++; await target.dispose(); return await new Promise(() => {}) }
        }
        const value = target[name as keyof typeof target] as unknown
        return typeof value === 'function' ? value.bind(target) : value
      }
    })
  }
  t.equal(await rejection(
    Par.load({ transformer: transformerFile('par-4x'), device: 'cpu', signal: controller.signal })
  ), reason)
  t.equal(ended, 1, 'its engine is disposed of')
})
