// Whatever the addon throws or rejects with has a code, results that do not fit are OUT_OF_MEMORY, and the threads of
// an instance end with it.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { addon, toParError } from '../../lib/machine/native.js'
import { ParError } from '../../lib/base/errors.js'
import { Par } from '../../lib/api/par.js'
import { built } from '../support/built.js'
import { rejection, smallPar, tokenizerFile, transformerFile } from '../support/fixtures.js'

const linux = process.platform === 'linux'
const small = JSON.stringify({
  transformer: transformerFile('par-4x'), tokenizer: tokenizerFile(), precision: 'float32', device: 'cpu'
})

/** What the body of an async function returns in a process of its own; it has `Par` and `options`. */
async function inProcess (body: string, { before = '', shell = '' } = {}): Promise<any> {
  const script = `${before}
    const fs = require('node:fs')
    const { Par } = require(${JSON.stringify(path.join(await built(), 'index.js'))})
    const { addon } = require(${JSON.stringify(path.join(await built(), 'machine', 'native.js'))})
    const options = ${small}
    const threads = () => fs.readdirSync('/proc/self/task').length
    const code = work => work.then(() => 'done', error => error.name === 'ParError' ? error.code : String(error))
    ;(async () => { ${body} })().then(value => console.log(JSON.stringify(value)),
      error => { console.error(error); process.exit(1) })`
  const [command, ...args] = shell
    ? ['sh', '-c', `${shell} exec "$0" "$@"`, process.execPath, '-e', script]
    : [process.execPath, '-e', script]
  const { stdout } = await promisify(execFile)(command!, args, { env: { ...process.env, NODE_OPTIONS: '' } })
    .catch((error: Error & { stderr: string }) => { throw new Error(error.stderr.slice(-2000)) })
  return JSON.parse(stdout)
}

t.test('every error of the addon has a code', async t => {
  const native = addon() as any
  const engine = native.createEngine({ device: 'cpu', threads: 1 })
  const model = {
    layers: 1, dim: 64, heads: 4, kvHeads: 4, headSize: 16, feedForward: 128, vocabularySize: 256, classes: 10,
    specials: 3, rotateSpecials: false, textTokens: 0, crossLayers: 0, positions: 0, norm: 'rms', activation: 'swiglu',
    bias: false,
    embeddingNorm: false, rotationPairs: [0, 4, 4], normEps: 1e-5, ropeBase: 10000
  }
  const calls: Array<[string, () => unknown, string]> = [
    ['createEngine()', () => native.createEngine(), 'INTERNAL'],
    ['createEngine({})', () => native.createEngine({}), 'INTERNAL'],
    ['threads: -1', () => native.createEngine({ device: 'cpu', threads: -1 }), 'INVALID_OPTION'],
    ['threads: {}', () => native.createEngine({ device: 'cpu', threads: {} }), 'INTERNAL'],
    ['loadTransformer()', () => engine.loadTransformer(), 'INTERNAL'],
    ['a symbol as file', () => engine.loadTransformer(Symbol('x'), [], model, 'float32'), 'INTERNAL'],
    ['no tensors', () => engine.loadTransformer('x', 1, model, 'float32'), 'INTERNAL'],
    ['a getter that throws',
      () => engine.loadTransformer('x', [], { get layers () { throw new Error('mine') } }, 'float32'), 'INTERNAL'],
    ['layers outside the range', () => engine.loadTransformer('x', [], { ...model, layers: 5000 }, 'float32'),
      'BAD_CHECKPOINT'],
    ['another precision', () => engine.loadTransformer('x', [], model, 'float8'), 'INTERNAL'],
    ['another identity', () => engine.loadTransformer('x', [], model, 'float32', undefined, new BigUint64Array(1)),
      'INTERNAL'],
    ['no such file', () => engine.loadTransformer('/nowhere/x', [], model, 'float32'), 'FILE_NOT_FOUND'],
    ['loadTokenizer({})', () => engine.loadTokenizer('x', [], {}, 'float32'), 'INTERNAL'],
    ['cudaMemory()', () => native.cudaMemory(), 'INTERNAL'],
    ['convertFloats()', () => native.convertFloats(), 'INTERNAL'],
    ['convertFloats of another type', () => native.convertFloats(new Uint8Array(4), 'float8', 'float32'), 'INTERNAL']
  ]
  for (const [name, call, code] of calls) {
    const error = await rejection((async () => await call())())
    t.match(toParError(error), { name: 'ParError', code }, name)
  }
  await engine.dispose()
  t.match(await rejection(engine.loadTransformer('x', [], model, 'float32')), { parvisCode: 'DISPOSED' })
  await engine.dispose()
})

t.test('a result that does not fit is OUT_OF_MEMORY, and the instance goes on', async t => {
  // The constructors that the addon takes its arrays from, with a limit.
  const before = `
    let most = Infinity
    for (const name of ['Int32Array', 'Float32Array', 'Uint8Array']) {
      globalThis[name] = new Proxy(globalThis[name], {
        construct (target, args, self) {
          if (typeof args[0] === 'number' && args[0] >= most) throw new RangeError('Array buffer allocation failed')
          return Reflect.construct(target, args, self === globalThis[name] ? target : self)
        }
      })
    }`
  const found = await inProcess(`
    const par = await Par.load(options)
    const { tokens, data } = await par.generate({ classId: 1, seed: 1 })
    const pixels = new Float32Array(32 * 32 * 3)
    const bytes = new Uint8Array(64)
    const calls = {
      generate: () => par.generate({ classId: 1 }), score: () => par.score({ tokens, classId: 1 }),
      logits: () => par.score({ tokens, classId: 1, logits: [0, 1] }),
      decode: () => par.decode(tokens), floats: () => par.decode(tokens, { format: 'float32' }),
      encode: () => par.encode({ data: pixels, width: 32, height: 32 }),
      convert: () => addon().convertFloats(bytes, 'bfloat16', 'float32').catch(error => { throw Object.assign(error,
        { name: 'ParError', code: error.parvisCode }) })
    }
    const codes = {}
    for (const [name, call] of Object.entries(calls)) {
      most = 16
      const work = call()
      codes[name] = await code(work)
      most = Infinity
    }
    const again = await par.generate({ classId: 1, seed: 1 })
    await par.dispose()
    return { codes, same: Buffer.compare(Buffer.from(again.data), Buffer.from(data)) === 0 }`, { before })
  t.same(new Set(Object.values(found.codes)), new Set(['OUT_OF_MEMORY']), JSON.stringify(found.codes))
  t.equal(found.same, true)
})

t.test('dispose() resolves when the threads are gone', { skip: !linux && '/proc is asked' }, async t => {
  const found = await inProcess(`
    const kept = []
    await (await Par.load({ ...options, threads: 2 })).dispose() // Node.js starts threads of its own
    const before = threads()
    const after = []
    for (let i = 0; i < 10; i++) {
      const par = await Par.load({ ...options, threads: 8 })
      kept.push(par)
      const stream = par.stream({ classId: 1 }) // suspended in mid-work, its session held
      await stream.next()
      kept.push(stream)
      if (i % 2) par.generate({ classId: Array(40).fill(1) }).catch(() => {})
      if (threads() < before + 8) throw new Error('8 threads were asked for')
      await par.dispose()
      after.push(threads() - before)
    }
    const failed = await code(Par.load({ ...options, tokenizer: options.transformer.path, threads: 8 }))
    return { after, failed, left: threads() - before }`)
  t.same(found.after, Array(10).fill(0))
  t.same([found.failed, found.left], ['BAD_CHECKPOINT', 0], 'nor does a load that fails leave any')
})

t.test('threads that the system refuses', { skip: !linux && 'limits are set by prlimit' }, async t => {
  const explicit = await inProcess('return await Par.load({ ...options, threads: 1024 }).then(par => ' +
    'par.info.threads, error => ({ code: error.code, message: error.message }))',
  { shell: 'ulimit -v 6000000;' })
  t.match(explicit, { code: 'OUT_OF_MEMORY', message: /refused to start 1024 threads.*`threads`.*ulimit -u.*pids/ })
})

t.test('load, dispose, load where there are threads for one instance', async t => {
  // The number of processes of one user counts threads, but not for root; a control group's does.
  const folder = `/sys/fs/cgroup/pids/parvis-test-${process.pid}`
  const skip = (() => {
    try {
      fs.mkdirSync(folder)
      return undefined
    } catch (error) {
      return `no control group could be made: ${(error as Error).message.split('\n')[0]}`
    }
  })()
  await t.test('in a control group', { skip }, async t => {
    t.teardown(() => { fs.rmdirSync(folder) })
    const found = await inProcess(`
      await (await Par.load({ ...options, threads: 2 })).dispose()
      const limit = threads() + 8
      fs.writeFileSync('${folder}/pids.max', String(limit))
      fs.writeFileSync('${folder}/cgroup.procs', String(process.pid))
      const codes = []
      for (let i = 0; i < 20; i++) {
        const par = await Par.load({ ...options, threads: 8 })
        codes.push(par.info.threads)
        await par.dispose()
      }
      const refused = await Par.load({ ...options, threads: 32 }).catch(error => ({ code: error.code,
        message: error.message }))
      const { createEngine } = addon()
      addon().createEngine = options => { // as on a machine of more cores
        fs.writeFileSync('${folder}/pids.max', String(threads() + 1))
        return createEngine(options)
      }
      const fewer = await Par.load(options)
      const image = await fewer.generate({ classId: 1 })
      const result = { codes, refused, fewer: fewer.info.threads, tokens: image.tokens.length }
      await fewer.dispose()
      return result`)
    t.same(found.codes, Array(20).fill(8))
    t.match(found.refused, { code: 'OUT_OF_MEMORY', message: /refused to start 32 threads/ })
    t.same([found.fewer, found.tokens], [1, 64], 'by default it goes on with those that there are')
  })
})

t.test('a synchronous refusal while loading leaves no engine behind', { skip: !linux && '/proc is asked' }, async t => {
  const native = addon() as any
  const { createEngine } = native
  t.teardown(() => { native.createEngine = createEngine })
  let disposed = 0
  native.createEngine = (options: object) => new Proxy(createEngine(options), {
    get (target, name) {
      if (name === 'loadTransformer') {
        return () => { throw Object.assign(new Error('a size is outside its range'), { parvisCode: 'BAD_CHECKPOINT' }) }
      }
      if (name === 'dispose') return async () => { disposed++; await target.dispose() }
      return typeof target[name] === 'function' ? target[name].bind(target) : target[name]
    }
  })
  const error = await rejection(Par.load({ transformer: transformerFile('par-4x'), device: 'cpu' }))
  t.ok(error instanceof ParError && error.code === 'BAD_CHECKPOINT', String(error))
  t.equal(disposed, 1, 'engines disposed of')
  native.createEngine = createEngine
  await (await smallPar()).dispose()
})
