// The figures against NumPy's (test/fixtures/make-evaluation.py): the distance within 1e-6 of it, precision and recall
// exactly, also of fewer pictures than features, of singular covariances and of distances that equal a radius.

import t from 'tap'
import { openSet } from '../../lib/evaluation/features.js'
import {
  frechet, inceptionScore, Pool, precisionAndRecall, shared, type Matrix, type Source
} from '../../lib/evaluation/fidelity.js'
import { columnsOf, Kernel, rowsOf } from '../../lib/evaluation/kernel.js'
import { addon } from '../../lib/machine/native.js'
import { cholesky } from '../../lib/evaluation/work.js'
import { expected, fixture, randoms } from './arrays.js'

const pool = new Pool(2)
t.teardown(async () => await pool.close())

async function features (name: string): Promise<Matrix> {
  const set = await openSet(fixture(name))
  const matrix = await set.features!.read()
  await set.close()
  return matrix
}

async function statistics (name: string): Promise<Source> {
  const set = await openSet(fixture(name))
  const source = await set.statistics!.read()
  await set.close()
  return source
}

function matrixOf (rows: number, columns: number, value: (row: number, column: number) => number): Matrix {
  const data = shared(rows * columns)
  for (let i = 0; i < data.length; i++) data[i] = value(Math.floor(i / columns), i % columns)
  return { data, rows, columns }
}

const files = { many: 'npz', few: 'npz', odd: 'npy', far: 'npz', whole: 'npz' } as const

t.test('against NumPy', async t => {
  for (const [name, ending] of Object.entries(files) as Array<[keyof typeof files, string]>) {
    const [generated, real] = [await features(`${name}-generated.${ending}`), await features(`${name}-real.npz`)]
    const { fid, precision, recall } = expected[name]
    const found = await frechet({ features: generated }, { features: real }, pool)
    t.ok(Math.abs(found.distance - fid) < 1e-6 * fid, `${name}: ${found.distance} is ${fid}`)
    t.ok(Math.abs(found.ofMeans + found.ofCovariances - found.distance) < 1e-12 * fid)
    t.same(await precisionAndRecall(generated, real, pool), { precision, recall }, name)
    const back = await frechet({ features: real }, { features: generated }, pool)
    t.ok(Math.abs(back.distance - fid) < 1e-6 * fid, 'the other way round')
    const converse = await precisionAndRecall(real, generated, pool)
    t.same(converse, { precision: recall, recall: precision })
  }
})

t.test('a set and itself', async t => {
  for (const [name, ending] of Object.entries(files)) {
    const x = await features(`${name}-generated.${ending}`)
    const again = await features(`${name}-generated.${ending}`)
    const found = await frechet({ features: x }, { features: again }, pool)
    t.same(found, { distance: 0, ofMeans: 0, ofCovariances: 0 }, name)
    t.same(await precisionAndRecall(x, again, pool), { precision: 1, recall: 1 })
  }
  const x = await features('many-real.npz')
  const turned = matrixOf(x.rows, x.columns, (row, column) => x.data[(x.rows - 1 - row) * x.columns + column]!)
  t.equal((await frechet({ features: x }, { features: turned }, pool)).distance, 0, 'its rows in another order')
  t.equal((await frechet({ features: x }, await statistics('many-statistics.npz'), pool)).distance, 0, 'its statistics')
  const moved = matrixOf(x.rows, x.columns,
    (row, column) => x.data[row * x.columns + column]! + (column === 3 ? 1e-5 : 0))
  const { distance, ofCovariances } = await frechet({ features: x }, { features: moved }, pool)
  t.equal(ofCovariances, 0)
  t.ok(Math.abs(distance - 1e-10) < 1e-15, 'a small distance of means is none of rounding')
})

t.test('statistics', async t => {
  const generated = { features: await features('many-generated.npz') }
  const many = await frechet(generated, await statistics('many-statistics.npz'), pool)
  t.ok(Math.abs(many.distance - expected.many.fid) < 1e-6 * expected.many.fid)
  // Rounded to 7 digits, a singular covariance has eigenvalues below 0.
  const { fid } = expected['few, statistics in float32']
  const few = await frechet({ features: await features('few-generated.npz') },
    await statistics('few-statistics-float32.npz'), pool)
  t.ok(Math.abs(few.distance - fid) < 1e-4 * fid, `${few.distance} is about ${fid}`)

  // Of diagonal covariances the distance is a sum over features.
  const diagonal = (variances: number[], mean: number[]): Source => {
    const { length } = mean
    const covariance = shared(length ** 2)
    variances.forEach((value, k) => { covariance[k * (length + 1)] = value })
    return { mean: Float64Array.from(mean), covariance, name: 'diagonal' }
  }
  const { distance } = await frechet(diagonal([4, 9, 0], [1, 2, 3]), diagonal([1, 16, 25], [0, 2, 1]), pool)
  t.ok(Math.abs(distance - (1 + 4 + 1 + 1 + 25)) < 1e-12, `${distance}`)
  t.equal((await frechet(diagonal([0, 0], [1, 1]), diagonal([0, 0], [1, 3]), pool)).distance, 4, 'points')
  t.ok(Math.abs((await frechet(diagonal([4], [0]), diagonal([9], [0]), pool)).distance - 1) < 1e-12, 'one feature')
  const wrong = diagonal([1, 1], [0, 0]) as { covariance: Float64Array }
  wrong.covariance[1] = wrong.covariance[2] = 2
  await t.rejects(frechet(wrong as Source, diagonal([1, 1], [0, 0]), new Pool(1)),
    { code: 'BAD_ARRAY', message: /no covariance: it has the eigenvalue -1/ })
})

t.test('more than a tile, on any number of threads', async t => {
  // Plain loops beside it; ties on purpose, and rows that come more than four times.
  const random = randoms(5)
  const real = matrixOf(530, 9, (row, column) => row < 5 ? column : Math.round(random() * 2))
  const generated = matrixOf(300, 9, (row, column) => row < 9 ? column : Math.round(random() * 2.5))
  const distance = (a: Matrix, i: number, b: Matrix, j: number): number => {
    let sum = 0
    for (let k = 0; k < a.columns; k++) sum += (a.data[i * a.columns + k]! - b.data[j * a.columns + k]!) ** 2
    return sum
  }
  const all = (x: Matrix): number[] => Array.from({ length: x.rows }, (_, k) => k)
  const plain = (k: number): { precision: number, recall: number } => {
    const radii = (x: Matrix): number[] =>
      all(x).map(i => all(x).map(j => distance(x, i, x, j)).sort((a, b) => a - b)[k]!)
    const inside = (x: Matrix, y: Matrix, radius: number[]): number =>
      all(x).filter(i => all(y).some(j => distance(x, i, y, j) <= radius[j]!)).length / x.rows
    return { precision: inside(generated, real, radii(real)), recall: inside(real, generated, radii(generated)) }
  }
  for (const threads of [1, 3]) {
    const own = new Pool(threads)
    for (const k of [1, 3, 7]) {
      t.same(await precisionAndRecall(generated, real, own, { k }), plain(k), `${threads} threads, k = ${k}`)
    }
    await own.close()
  }

  // A covariance of several tiles: of features that are independent, each with its own variance, and of their sums.
  const wide = matrixOf(700, 300, (_, column) => random() * (1 + column / 100))
  const shifted = matrixOf(700, 300, (row, column) => 2 * wide.data[row * 300 + column]! + 1)
  let trace = 0
  let mean = 0
  for (let column = 0; column < 300; column++) {
    const values = Array.from({ length: 700 }, (_, row) => wide.data[row * 300 + column]!)
    const middle = values.reduce((a, b) => a + b) / 700
    trace += values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / 699
    mean += (middle + 1) ** 2
  }
  // S2 = 4 S1, so the covariances are tr S1 (1 + 4 - 4) apart, and the means |m + 1|^2.
  const found = await frechet({ features: wide }, { features: shifted }, pool)
  t.ok(Math.abs(found.ofCovariances - trace) < 1e-9 * trace, `${found.ofCovariances} is ${trace}`)
  t.ok(Math.abs(found.ofMeans - mean) < 1e-9 * mean)
})

t.test('the Inception score', async t => {
  const set = await openSet(fixture('many-generated.npz'))
  const probabilities = await set.probabilities!.read()
  await set.close()
  for (const [name, splits] of [
    ['size 5000', { size: 5000 }], ['size 100', { size: 100 }], ['count 7', { count: 7 }]
  ] as const) {
    const { mean, standardDeviation } = await inceptionScore(probabilities, splits)
    const [score, deviation] = expected[`inception, ${name}`]
    t.ok(Math.abs(mean - score) < 1e-12 * score, `${name}: ${mean} is ${score}`)
    t.ok(Math.abs(standardDeviation - deviation) < 1e-12)
  }
  const sure = matrixOf(40, 4, (row, column) => row % 4 === column ? 1 : 0)
  t.match(await inceptionScore(sure, { count: 10 }), { splits: 10 })
  t.ok(Math.abs((await inceptionScore(sure, { size: 40 })).mean - 4) < 1e-12, 'as many as classes at most')
  t.same(await inceptionScore(matrixOf(5, 4, () => 0.25), { count: 99 }), { mean: 1, standardDeviation: 0, splits: 5 })
})

t.test('sets that are too small, numbers that are too large', async t => {
  const x = matrixOf(3, 2, (row, column) => row + column)
  const y = matrixOf(9, 2, (row, column) => row * column)
  await t.rejects(precisionAndRecall(x, y, pool), { code: 'BAD_ARRAY', message: /a set of 3 .*needs 4/i })
  await t.rejects(frechet({ features: matrixOf(1, 2, () => 1) }, { features: y }, pool),
    { code: 'BAD_ARRAY', message: /needs 2 pictures/ })
  const huge = matrixOf(9, 2, (row, column) => (row + column) * 1e180)
  await t.rejects(frechet({ features: huge }, { features: y }, new Pool(1)), { code: 'NON_FINITE' })
})

t.test('memory', async t => {
  const before = process.availableMemory
  process.availableMemory = () => 1e6
  t.teardown(() => { process.availableMemory = before })
  const x = { data: new Float32Array(new SharedArrayBuffer(1200 * 800)), rows: 600, columns: 500 }
  await t.rejects(frechet({ features: x }, { features: x }, pool),
    { code: 'OUT_OF_MEMORY', message: /covariances take 0\.0240 GB, and 0\.00100 GB are free/ })
})

t.test('an abort ends the threads', async t => {
  const controller = new AbortController()
  const own = new Pool(2, controller.signal)
  const random = randoms(1)
  const x = matrixOf(3000, 400, random)
  const work = precisionAndRecall(x, matrixOf(3000, 400, random), own)
  const began = performance.now()
  setTimeout(() => controller.abort(new Error('enough')), 100)
  await t.rejects(work, { message: 'enough' })
  t.ok(performance.now() - began < 5000)
  await t.rejects(own.run('moments', { x }), { message: 'enough' })
})

t.test('products of rows', t => {
  const random = randoms(2)
  const kernel = new Kernel()
  for (const [rowsA, rowsB, inner] of [[1, 1, 1], [3, 5, 7], [256, 2, 64], [5, 256, 2049], [6, 3, 5000]] as const) {
    const [a, b] = [matrixOf(rowsA, inner, random), matrixOf(rowsB, inner, random)]
    const shift = Float64Array.from({ length: inner }, random)
    let [worst, worstShifted] = [0, 0]
    const plain = kernel.products(rowsOf(a), 0, rowsA, rowsOf(b), 0, rowsB, inner).slice()
    const shifted = kernel.products(rowsOf(a, shift), 0, rowsA, rowsOf(b, shift), 0, rowsB, inner)
    for (let i = 0; i < rowsA; i++) {
      for (let j = 0; j < rowsB; j++) {
        let [sum, other] = [0, 0]
        for (let k = 0; k < inner; k++) {
          const [x, y] = [a.data[i * inner + k]!, b.data[j * inner + k]!]
          sum += x * y
          other += (x - shift[k]!) * (y - shift[k]!)
        }
        worst = Math.max(worst, Math.abs(sum - plain[i * 256 + j]!))
        worstShifted = Math.max(worstShifted, Math.abs(other - shifted[i * 256 + j]!))
      }
    }
    t.ok(worst < 1e-12 * inner && worstShifted < 1e-12 * inner, `${rowsA}, ${rowsB}, ${inner}: ${worst}`)
  }
  const x = matrixOf(4, 3, (row, column) => row * 3 + column)
  const load = columnsOf(x, Float64Array.of(1, 1, 1))
  t.equal(kernel.products(load, 0, 3, load, 0, 3, 4)[1], [-1, 2, 5, 8].reduce((sum, v) => sum + v * (v + 1), 0))
  t.end()
})

t.test('products whose sizes do not fit are refused', t => {
  const numbers = (length: number): Float64Array => new Float64Array(length)
  const right = { a: numbers(32), b: numbers(16), out: numbers(8), rowsA: 4, rowsB: 2, stride: 8, outStride: 2 }
  t.doesNotThrow(() => addon().addProducts(right))
  for (const wrong of [
    { a: numbers(31) }, { b: numbers(15) }, { out: numbers(7) }, { rowsA: 3 }, { rowsA: 8 }, { rowsA: -4 },
    { rowsB: 1 }, { rowsB: 4 }, { stride: 4 }, { stride: 16 }, { stride: -8 }, { outStride: 1 }, { outStride: 2 ** 30 },
    { a: new Float32Array(32) }, { out: [0, 0] }, { rowsA: 2 ** 40 }, { rowsA: '4' }
  ]) {
    const given = { ...right, ...wrong } as unknown as typeof right
    t.throws(() => addon().addProducts(given), { parvisCode: 'INTERNAL', message: /parvis native call/ },
      JSON.stringify(wrong).slice(0, 60))
  }
  t.end()
})

t.test('a factor of a covariance', t => {
  const kernel = new Kernel()
  const of = (rows: number[][]): Matrix | undefined =>
    cholesky(kernel, { s: Float64Array.from(rows.flat()), size: rows.length })
  const rank = of([[1, 2, 3], [2, 4, 6], [3, 6, 9]])!
  t.same([rank.rows, Array.from(rank.data)], [1, [1, 2, 3]], 'no more rows than its rank')
  t.equal(of([[0, 0], [0, 0]])!.rows, 0)
  t.equal(of([[1, 2], [2, 1]]), undefined, 'of no covariance there is none')
  t.end()
})
