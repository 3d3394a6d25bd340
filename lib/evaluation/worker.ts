// A worker thread of a pool: it does one piece of work after another, as messages name them.

import { parentPort } from 'node:worker_threads'
import { outOfMemory, ParError } from '../base/errors.js'
import { isError } from '../base/realm.js'
import { Kernel } from './kernel.js'
import { pieces } from './work.js'

let kernel: Kernel | undefined

parentPort!.on('message', ({ piece, args }: { piece: keyof typeof pieces, args: unknown }) => {
  try {
    kernel ??= new Kernel()
    const work = pieces[piece] as (kernel: Kernel, args: unknown) => unknown
    parentPort!.postMessage({ result: work(kernel, args) })
  } catch (error) {
    // Errors lose their class and their code on the way.
    const known = outOfMemory(error) ?? error
    const { message, stack } = isError(known) ? known : { message: String(known), stack: '' }
    parentPort!.postMessage({ error: { code: known instanceof ParError ? known.code : 'INTERNAL', message, stack } })
  }
})
