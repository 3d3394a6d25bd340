// classify() compares the classes of one picture: checked against score(), a class at a time, and a softmax that is
// written another way (differences to the class itself, summed from the smallest).

import { inspect } from 'node:util'
import t from 'tap'
import par from '../../lib/index.js'
import type { ClassifyProgress } from '../../lib/base/progress.js'
import { codeOf, rejection, smallPar, tokenizerOnly, transformerOnly } from '../support/fixtures.js'

const tokens = Int32Array.from({ length: 64 }, (_, i) => (37 * i) % 256)

t.test('totals are those of score(), probabilities their softmax, the likeliest first', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const totals: number[] = []
  for (let classId = 0; classId < 10; classId++) totals.push((await own.score({ tokens, classId }))[0]!.total)
  const ranked = await own.classify(tokens)
  t.equal(ranked.length, 10)
  t.same(ranked.map(({ classId }) => classId), totals.map((_, id) => id).sort((a, b) => totals[b]! - totals[a]!))
  for (const { classId, label, probability, logProb } of ranked) {
    t.equal(logProb, totals[classId])
    t.equal(label, undefined, 'this model has no names')
    const others = totals.map(total => Math.exp(total - logProb)).sort((a, b) => a - b)
    const expected = 1 / others.reduce((a, b) => a + b, 0)
    t.ok(Math.abs(probability - expected) <= 1e-12 * expected + Number.MIN_VALUE, `${probability} ${expected}`)
  }
  t.ok(Math.abs(ranked.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-12)

  t.same(await own.classify([...tokens]), ranked, 'tokens as plain numbers')
  t.same(await own.classify(tokens, { top: 3 }), ranked.slice(0, 3), 'top cuts the list, not the sum')
  t.same(await own.classify(tokens, { top: 99 }), ranked)
  const guided = await own.classify(tokens, { guidanceScale: 2, classes: [4, '2', 4] })
  t.same(guided.map(({ classId }) => classId).sort(), [2, 4], 'some classes, each once')
  t.ok(Math.abs(guided[0]!.probability + guided[1]!.probability - 1) < 1e-12)
  t.equal(guided[0]!.logProb, (await own.score({ tokens, classId: guided[0]!.classId, guidanceScale: 2 }))[0]!.total)
})

t.test('a picture of the embedded model is found to be of its class', async t => {
  t.teardown(() => par.dispose())
  const image = await par.generate({ classId: 'sneaker', seed: 5 }) // clearly a sneaker in every precision
  const png = await image.toBuffer()
  for (const input of [image.tokens, image, png]) {
    const [first, second] = await par.classify(input, { n: 4, top: 2 })
    t.match(first, { classId: 7, label: 'Sneaker' })
    t.ok(first!.probability > 0.5 && second!.probability < 0.5)
  }
  const own = Int32Array.from(image.tokens)
  await par.dispose() // the next call loads the model first
  const ranking = par.classify(own, { top: 1 })
  own.fill(0)
  t.match(await ranking, [{ classId: 7 }], 'what the caller does with its tokens afterwards changes nothing')
  t.match(await rejection(par.score({ tokens: image.tokens, classId: [1, 2] })),
    { code: 'INVALID_OPTION', message: /classify\(\) compares/ })
})

t.test('a score in logs and answers', async t => {
  const own = await smallPar()
  t.teardown(() => own.dispose())
  const [score] = await own.score({ tokens, classId: 1, logits: [0] })
  t.equal(inspect(score), `Score { total: ${score!.total}, 64 tokens, 256 logits }`)
  t.same(JSON.parse(JSON.stringify(score)), { total: score!.total, logProbs: [...score!.logProbs] })
})

t.test('a thousand classes: progress, an end in between, little kept', async t => {
  const own = await transformerOnly('par-16x-hd100')
  t.teardown(() => own.dispose())
  const { classes, vocabularySize } = own.info.transformer!
  const events: ClassifyProgress[] = []
  const ranked = await own.classify(tokens.map(token => token % vocabularySize), {
    classes: Array.from({ length: 1000 }, (_, i) => i % classes), onProgress: async event => { events.push(event) }
  })
  t.equal(ranked.length, classes, 'each class once')
  t.match(events.at(-1), { classesDone: classes, classes })
  t.ok(events.every(({ classesDone }, i) => classesDone > (events[i - 1]?.classesDone ?? 0)))
  const controller = new AbortController()
  t.equal(await rejection(
    own.classify(tokens, { signal: controller.signal, onProgress: () => controller.abort('enough') })
  ), 'enough')
  t.equal(await rejection(own.classify(tokens, { signal: AbortSignal.abort('before') })), 'before')
  const mistake = new Error('mine')
  t.equal(await rejection(own.classify(tokens, { onProgress: () => { throw mistake } })), mistake)
  t.equal(await codeOf(own.classify('x.png')), 'MISSING_PART', 'a picture needs a tokenizer')
})

t.test('what it refuses', async t => {
  const own = await smallPar()
  const pixels = await tokenizerOnly()
  t.teardown(async () => { await own.dispose(); await pixels.dispose() })
  const cases: Array<[code: string, picture: unknown, options?: unknown]> = [
    ['INVALID_OPTION', undefined], ['INVALID_OPTION', 5], ['INVALID_OPTION', []], ['INVALID_OPTION', [tokens]],
    ['INVALID_OPTION', [tokens, tokens]],
    ['INVALID_OPTION', new Int32Array(63)], ['INVALID_OPTION', tokens.map(() => 256)], ['INVALID_OPTION', [1.5, 2]],
    ['FILE_NOT_FOUND', '/nowhere.png'],
    ['INVALID_OPTION', tokens, 5], ['INVALID_OPTION', tokens, { top: 0 }], ['INVALID_OPTION', tokens, { top: '3' }],
    ['INVALID_OPTION', tokens, { classes: 3 }],
    ['INVALID_OPTION', tokens, { classes: [] }], ['BAD_CLASS_ID', tokens, { classes: [10] }],
    ['BAD_CLASS_ID', tokens, { classes: ['boot'] }],
    ['UNSUPPORTED_N', tokens, { n: 1 }], ['INVALID_OPTION', tokens, { guidanceScale: 0 }],
    ['INVALID_OPTION', tokens, { onProgress: 1 }],
    ['INVALID_OPTION', tokens, { classId: 1 }]
  ]
  for (const [code, picture, options] of cases) {
    t.equal(await codeOf(own.classify(picture as never, options as never)), code, JSON.stringify(options))
  }
  t.match(await rejection(own.classify(tokens, { guidanceScale: 0 })), { message: /1 is off/ })
  t.equal(await codeOf(pixels.classify(tokens)), 'MISSING_PART')
})
