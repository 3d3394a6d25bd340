// A long piece of work of one call ends soon after it is cancelled, wherever it is: in the attention of a large
// picture, on the way to tokens, in the scores of a long list. Each case would run for many seconds; the next call of
// the instance waits for what is left of it.

import t from 'tap'
import { Par } from '../lib/api/par.js'
import { device } from './support/fixtures.js'

t.test('long work is cancelled', { skip: device !== 'cpu' && 'a kernel on a GPU is not interrupted' }, async t => {
  const par = await Par.load({ device: 'cpu', precision: 'float32' })
  t.teardown(() => par.dispose())
  const side = 400
  const cases: Array<[name: string, work: (signal: AbortSignal) => Promise<unknown>]> = [
    ['decode of 400 x 400 tokens',
      async signal => await par.decode(new Int32Array(side * side), { grid: side, signal })],
    ['encode of 2800 x 2800 pixels',
      async signal => await par.encode({
        data: new Uint8Array(2800 * 2800 * 3), width: 2800, height: 2800, channels: 3
      } as never, { grid: 700, crop: false, signal })],
    ['score of 3,000 pictures',
      async signal => await par.score(
        {
          tokens: Array.from({ length: 3000 },
            () => new Int32Array(par.info.transformer!.grid[0] * par.info.transformer!.grid[1])), classId: 1, signal
        } as never
      )]
  ]
  for (const [name, work] of cases) {
    const controller = new AbortController()
    const reason = new Error('enough')
    let ended = false
    const outcome = work(controller.signal).then(() => 'done',
      error => error as unknown).finally(() => { ended = true })
    await new Promise(resolve => setTimeout(resolve, 1500))
    t.notOk(ended, `${name}: long enough to be cancelled`)
    controller.abort(reason)
    const began = performance.now()
    t.equal(await outcome, reason, name)
    await par.generate({ classId: 1, seed: 1 })
    const ms = performance.now() - began
    t.comment(`${name}: ${ms.toFixed(0)} ms`)
    t.ok(ms < 4000, `${name}: the instance is free again, after ${ms.toFixed(0)} ms`)
  }
})
