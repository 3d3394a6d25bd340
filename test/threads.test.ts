// More threads than cores: no slower than a few of them would be, and the same pictures.

import t from 'tap'
import { availableParallelism } from 'node:os'
import { Par } from '../lib/api/par.js'
import { identical } from './support/tensors.js'

t.test('many more threads than cores', async t => {
  const cores = availableParallelism()
  const [few, many] = await Promise.all([cores, 8 * cores].map(async threads => {
    const par = await Par.load({ device: 'cpu', threads })
    t.teardown(async () => { await par.dispose() })
    return par
  })) as [Par, Par]
  t.equal(many.info.threads, 8 * cores)
  const best = new Map([[few, Infinity], [many, Infinity]])
  for (let seed = 0; seed < 8; seed++) {
    const pictures = []
    for (const par of seed % 2 === 0 ? [few, many] : [many, few]) {
      const start = performance.now()
      pictures.push(await par.generate({ classId: seed, n: 4, seed }))
      best.set(par, Math.min(best.get(par)!, performance.now() - start))
    }
    t.ok(identical(pictures[0]!.data, pictures[1]!.data), `the same picture of seed ${seed}`)
  }
  const [quick, crowded] = [best.get(few)!, best.get(many)!]
  // About 1.1 where nothing else runs. A collapse would be a section that waits for a thread which has no core.
  t.ok(crowded < 3 * quick, `${crowded.toFixed(0)} ms with ${8 * cores} threads, ${quick.toFixed(0)} ms with ${cores}`)
})
