// samples: which class and seed each picture has, and that parts of a run are parts of the whole.

import { createHash } from 'node:crypto'
import t from 'tap'
import defaultPar, { Par, type GeneratedImage, type SamplesOptions, type SamplesProgress } from '../../lib/index.js'
import { sampleClass } from '../../lib/api/samples.js'
import { rejection, smallPar } from '../support/fixtures.js'

const all = async (par: Pick<Par, 'samples'>, options: SamplesOptions): Promise<GeneratedImage[]> => {
  const images = []
  for await (const image of par.samples(options)) images.push(image)
  return images
}

t.test('pictures', async t => {
  const par = await Par.load()
  t.teardown(() => par.dispose())
  const whole = await all(par, { count: 70, seed: 5, n: 16 })
  t.equal(whole.length, 70)
  t.same(whole.map(image => image.seed), Array.from({ length: 70 }, (_, i) => 5 + i))
  for (const i of [0, 17, 69]) {
    const { classId, seed, data } = whole[i]!
    const again = await par.generate({ classId, seed, n: 16 })
    t.same(again.data, data, `picture ${i} by generate`)
    const hash = createHash('sha256').update(`parvis samples 5 ${i}`).digest()
    t.equal(classId, Math.floor(hash.readUIntBE(0, 6) / 2 ** 48 * 10), 'the class that the docs say')
  }
  const part = await all(par, { count: 500, seed: 5, n: 16, start: 60, end: 66 })
  t.same(part.map(image => image.data), whole.slice(60, 66).map(image => image.data), 'a part, also of a longer run')
  t.same(await all(par, { count: 3, start: 3 }), [], 'nothing is left')

  const classes = async (options: SamplesOptions): Promise<number[]> =>
    (await all(par, { n: 16, ...options })).map(image => image.classId)
  t.same(await classes({ count: 13, classes: 'balanced' }), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2])
  t.same(await classes({ count: 5, classes: ['bag', 3] }), [8, 3, 8, 3, 8])
  const [last] = await all(par, { count: 2, start: 1, seed: Number.MAX_SAFE_INTEGER, n: 16 })
  t.equal(last!.seed, 0, 'seeds go round at 2^53')
  t.same((await all(defaultPar, { count: 1, seed: 5, n: 16 }))[0]!.data, whole[0]!.data, 'the default instance')
  await defaultPar.dispose()
})

t.test('random classes are evenly spread', t => {
  const counts = new Array<number>(1000).fill(0)
  for (let i = 0; i < 50_000; i++) counts[sampleClass('random', 3, i, 1000) as number]!++
  const square = counts.reduce((sum, count) => sum + (count - 50) ** 2 / 50, 0)
  // Chi-squared with 999 degrees of freedom: mean 999, standard deviation 45.
  t.ok(square > 999 - 5 * 45 && square < 999 + 5 * 45, `${square}`)
  t.end()
})

t.test('progress, and leaving early', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  const events: SamplesProgress[] = []
  await all(par, { count: 9, start: 2, onProgress: event => { events.push({ ...event }) } })
  t.ok(events.every(({ done, pictures }, i) => pictures === 7 && done > (events[i - 1]?.done ?? 0)))
  t.equal(events.at(-1)!.done, 7)
  for await (const image of par.samples({ count: 1000 })) {
    t.equal(image.seed, 0)
    break
  }
  t.match(await rejection(all(par, { count: 9, onProgress: () => { throw new Error('mine') } })), { message: 'mine' })
  t.match(await rejection(all(par, { count: 9, signal: AbortSignal.abort(new Error('stopped')) })),
    { message: 'stopped' })
})

t.test('what is refused', async t => {
  const par = await smallPar()
  t.teardown(() => par.dispose())
  for (const [options, message] of [
    [undefined, /samples needs count/], [{}, /samples needs count/], [5, /takes an object of options/],
    [{ count: 0 }, /count must be an integer from 1/], [{ count: 1e9 }, /count must be an integer from 1 to 10000000/],
    [{ count: 5, start: 6 }, /start must be an integer from 0 to 5/], [{ count: 5, end: 6 }, /end must be an integer/],
    [{ count: 5, start: 3, end: 2 }, /end must be an integer from 3 to 5/],
    [{ count: 5, classes: 'all' }, /'random', 'balan/],
    [{ count: 5, classes: [] }, /1 to \d+ entries/], [{ count: 5, classId: 3 }, /no option 'classId'/],
    [{ count: 5, known: {} }, /no option 'known'/], [{ count: 5, seed: -1 }, /seed must be an integer/],
    [{ count: 5, topP: 7 }, /topP/], [{ count: 5, onProgress: 3 }, /onProgress must be a function/]
  ] as Array<[SamplesOptions, RegExp]>) {
    t.match(await rejection(all(par, options)), { code: 'INVALID_OPTION', message }, JSON.stringify(options))
  }
  t.match(await rejection(all(par, { count: 5, classes: [99] })), { code: 'BAD_CLASS_ID' })
  t.match(await rejection(all(par, { count: 5, n: 16 })), { code: 'UNSUPPORTED_N' })
})
